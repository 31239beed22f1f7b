//! Opening a database that no server may have open.

use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use storage::bolt::{self, Db, Options};
use storage::fs::RealFs;

use crate::exit::chain;

/// How long to wait before a lock is tried again.
const LOCK_POLL: Duration = Duration::from_millis(50);

/// Opens something that may be locked, waiting at most `timeout`; zero means for ever.
pub(crate) fn wait_for_lock<T, E>(
    timeout: Duration,
    is_locked: impl Fn(&E) -> bool,
    mut open: impl FnMut() -> Result<T, E>,
) -> Result<T, E> {
    let begin = Instant::now();
    loop {
        match open() {
            Err(error) if is_locked(&error) && (timeout.is_zero() || begin.elapsed() < timeout) => {
                thread::sleep(LOCK_POLL);
            }
            outcome => return outcome,
        }
    }
}

/// Whether another process has the database.
pub(crate) fn is_locked(error: &bolt::Error) -> bool {
    matches!(error, bolt::Error::Locked { .. })
}

/// Opens the database for writing; the file grows by what it needs.
///
/// # Errors
/// What is wrong, in words.
pub(crate) fn open(path: &Path, timeout: Duration) -> Result<Db, String> {
    let options = Options {
        grow_bytes: 1,
        ..Options::default()
    };
    let open = || Db::open(Arc::new(RealFs), path, options.clone());
    wait_for_lock(timeout, is_locked, open).map_err(|error| text(&error))
}

/// Opens the database for reading; nothing of it is changed.
///
/// # Errors
/// What is wrong, in words.
pub(crate) fn open_read_only(path: &Path, timeout: Duration) -> Result<Db, String> {
    let open = || Db::open(Arc::new(RealFs), path, read_only());
    wait_for_lock(timeout, is_locked, open).map_err(|error| text(&error))
}

/// How a database is opened that must stay as it is.
pub(crate) fn read_only() -> Options {
    Options {
        read_only: true,
        ..Options::default()
    }
}

/// What a failure of the database is called: where bbolt has a name for it, that one.
pub(crate) fn text(error: &bolt::Error) -> String {
    match error {
        bolt::Error::NoValidMeta { .. } => "invalid database".to_owned(),
        bolt::Error::Locked { .. } => "timeout".to_owned(),
        bolt::Error::Open { path, source } => {
            format!("open {}: {}", path.display(), cli::text::io_error(source))
        }
        error => chain(error),
    }
}

/// Proves that every rule of the format holds, and that the database has the shape that etcd's
/// have: buckets with nothing but records. Returns the names of the buckets.
///
/// # Errors
/// What is wrong, one line for each page; `what` is how the file is called in it.
pub(crate) fn check(db: &Db, what: &str) -> Result<Vec<Bytes>, String> {
    let report = db.check().map_err(|error| text(&error))?;
    let lines: Vec<String> = report
        .violations
        .iter()
        .map(|violation| format!("page {}: {}", violation.page, violation.damage))
        .collect();
    if !lines.is_empty() {
        return Err(format!(
            "{what} file integrity check failed. {} errors found.\n{}",
            lines.len(),
            lines.join("\n")
        ));
    }
    let names = db.begin_read().buckets().map_err(|error| text(&error))?;
    if report.buckets != names.len() as u64 {
        return Err("a bucket lies in another one, which etcd never writes".to_owned());
    }
    Ok(names)
}

/// Checks that there is something at a path.
///
/// # Errors
/// What the system says.
pub(crate) fn stat(path: &Path) -> Result<(), String> {
    match std::fs::metadata(path) {
        Ok(_) => Ok(()),
        Err(error) => {
            let why = cli::text::io_error(&error);
            Err(format!("stat {}: {why}", path.display()))
        }
    }
}
