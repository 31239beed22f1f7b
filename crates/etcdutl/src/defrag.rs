//! A database without holes: every record is copied in order into a new file, which then takes
//! the old one's place.
//!
//! The old file stays as it is, locked, until the new one is durable under its name; what a crash
//! leaves behind is called `db.tmp.…` and removed at the next start of a server.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use storage::bolt::{Db, Options, ReadTx};
use storage::fs::{Fs, RealFs};

use crate::log::{self, Field};
use crate::{database, exit};

/// Bytes of records that one transaction of the copy holds at most, but for the last of them.
const BATCH_BYTES: usize = 16 << 20;

/// Rewrites the database at `path`, which nobody may have open.
///
/// # Errors
/// The database is locked, damaged or cannot be written; it is then as it was.
pub(crate) fn defragment(path: &Path, lock_timeout: Duration) -> Result<(), String> {
    let begin = Instant::now();
    let db = database::open(path, lock_timeout)?;
    let names = database::check(&db, "database")?;
    let before = [
        ("current-db-size-bytes", Field::Number(db.size())),
        (
            "current-db-size-in-use-bytes",
            Field::Number(db.size_in_use()),
        ),
    ];
    let shown = path.display().to_string();
    log::info(
        "defragmenting",
        &[&[("path", Field::Text(&shown))], &before[..]].concat(),
    );

    let name = format!("db.tmp.{}", std::process::id());
    let beside = path.with_file_name(name);
    let copied = copy(&db, &names, &beside).and_then(|size| {
        keep_owner(path, &beside);
        let renamed = RealFs
            .rename(&beside, path)
            .and_then(|()| RealFs.sync_dir(path.parent().unwrap_or(Path::new("."))));
        renamed.map_err(|error| cli::text::io_error(&error))?;
        Ok(size)
    });
    let size = copied.inspect_err(|_| {
        // What is left of it is removed at the next start of a server.
        let _removed = RealFs.remove_file(&beside);
    })?;
    let took = cli::text::duration(begin.elapsed());
    log::info(
        "finished defragmenting directory",
        &[
            ("path", Field::Text(&shown)),
            (
                "current-db-size-bytes-diff",
                Field::Number(db.size().saturating_sub(size)),
            ),
            ("current-db-size-bytes", Field::Number(size)),
            ("took", Field::Text(&took)),
        ],
    );
    Ok(())
}

/// Gives the new file to the old one's owner: an operator's root must not take the database away
/// from the server's user.
fn keep_owner(from: &Path, to: &Path) {
    let kept = from.metadata().and_then(|old| {
        std::fs::set_permissions(to, old.permissions())?;
        std::os::unix::fs::chown(to, Some(old.uid()), Some(old.gid()))
    });
    if let Err(error) = kept {
        let (path, why) = (from.display().to_string(), cli::text::io_error(&error));
        let fields = [("path", Field::Text(&path)), ("error", Field::Text(&why))];
        log::warn("cannot keep the owner of the database", &fields);
    }
}

/// Copies all records into a new database; returns its size.
fn copy(db: &Db, names: &[bytes::Bytes], target: &Path) -> Result<u64, String> {
    let options = Options {
        page_size: Some(db.page_size()),
        grow_bytes: 1,
        ..Options::default()
    };
    let failed = |error| database::text(&error);
    if RealFs.exists(target) {
        let removed = RealFs.remove_file(target);
        removed.map_err(|error| exit::chain(&error))?;
    }
    let copy = Db::open(Arc::new(RealFs), target, options).map_err(failed)?;
    let mut tx = copy.begin_write().map_err(failed)?;
    for name in names {
        tx.create_bucket(name).map_err(failed)?;
    }
    tx.commit().map_err(failed)?;
    let from = db.begin_read();
    for name in names {
        copy_bucket(&from, name, &copy).map_err(failed)?;
    }
    Ok(copy.size())
}

fn copy_bucket(from: &ReadTx, name: &[u8], to: &Db) -> Result<(), storage::bolt::Error> {
    let mut cursor = from.cursor(name)?;
    let mut batch = Vec::new();
    let mut batch_bytes = 0;
    loop {
        let record = cursor.next()?;
        let is_end = record.is_none();
        if let Some((key, value)) = record {
            batch_bytes += key.len() + value.len();
            batch.push((key, Some(value)));
        }
        if batch_bytes >= BATCH_BYTES || is_end {
            let mut tx = to.begin_write()?;
            tx.apply_sorted(name, &batch)?;
            tx.commit()?;
            batch.clear();
            batch_bytes = 0;
        }
        if is_end {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests;
