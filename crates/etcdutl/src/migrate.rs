//! A data directory for another release: steps from one minor release to the next, and the check
//! that a lower one understands what is in the log.

use std::path::Path;
use std::time::Duration;

use storage::backend::{Bucket, meta};
use storage::bolt::{Db, ReadTx};
use storage::datadir::DataDir;
use storage::fs::RealFs;
use storage::log::{Entry, EntryKind};
use storage::wal::{self, Applied, WalSnapshot};
use storage::wire::Fields;

use crate::database;
use crate::exit::chain;
use crate::log::{self, Field};
use crate::status::schema_version;
use crate::version::{V3_5, V3_6, Version};

/// The minor releases that have a schema of their own, or the same as the one before. 3.6 brought
/// the record of the version, 3.7 nothing else.
const KNOWN: [Version; 2] = [V3_6, Version::of(3, 7)];

/// The field of a request in the log that exists to test downgrades: the only one that a release
/// from 3.5 on may not know.
const VERSION_TEST: u32 = 9900;

/// What shall be migrated, and to what.
pub(crate) struct Request {
    pub(crate) dir: DataDir,
    pub(crate) target: Version,
    /// Write the version although the migration fails.
    pub(crate) force: bool,
    pub(crate) lock_timeout: Duration,
}

/// Migrates a data directory that nobody has open.
///
/// # Errors
/// The directory cannot be read or written, its version is not known, there is no way to the
/// target, or the log holds what the target does not know. Nothing has changed then.
pub(crate) fn migrate(request: &Request) -> Result<(), String> {
    let path = request.dir.database();
    database::stat(&path)?;
    let db = database::open(&path, request.lock_timeout)?;
    let current = detect(&db.begin_read()).inspect_err(|_| {
        log::error(
            "failed to detect storage version. Please make sure you are using data dir from etcd \
             v3.5 and older",
            &[],
        );
    })?;
    if current == request.target {
        let version = current.minor_text();
        let fields = [("storage-version", Field::Text(&version))];
        log::info("storage version up-to-date", &fields);
        return Ok(());
    }
    let needed = read_log(request.dir.wal()).inspect_err(|why| {
        log::error("Failed to finalize config", &[("error", Field::Text(why))])
    })?;
    match plan(current, request.target, needed) {
        Ok(steps) => execute(&db, &steps),
        Err(why) if request.force => {
            let fields = [("error", Field::Text(&why))];
            log::info("normal migrate failed, trying with force", &fields);
            force(&db, request.target)
        }
        Err(why) => Err(why),
    }
}

/// The version of the schema: recorded since 3.6; 3.5 is known by the term beside the applied
/// index.
fn detect(tx: &ReadTx) -> Result<Version, String> {
    if let Some(version) = schema_version(tx) {
        return Ok(version);
    }
    let term = tx
        .get(Bucket::Meta.name(), meta::TERM)
        .map_err(|error| database::text(&error))?;
    match term.map(|term| <[u8; 8]>::try_from(&term[..])) {
        Some(Ok(term)) if term != [0; 8] => Ok(V3_5),
        _ => Err("missing term information".to_owned()),
    }
}

/// The versions to go through, the target last.
fn plan(
    current: Version,
    target: Version,
    needed: Option<Version>,
) -> Result<Vec<Version>, String> {
    let steps = steps(Version::of(current.major, current.minor), target)
        .map_err(|why| format!("cannot create migration plan: {why}"))?;
    match needed {
        Some(needed) if target < current && target < needed => Err(format!(
            "cannot downgrade storage, WAL contains newer entries, as the target version \
             ({target}) is lower than the version ({needed}) detected from WAL logs"
        )),
        _ => Ok(steps),
    }
}

fn steps(mut current: Version, target: Version) -> Result<Vec<Version>, String> {
    if current.major != target.major {
        log::error(
            "Changing major storage version is not supported",
            &[
                ("storage-version", Field::Text(&current.to_string())),
                ("target-storage-version", Field::Text(&target.to_string())),
            ],
        );
        return Err("changing major storage version is not supported".to_owned());
    }
    let mut steps = Vec::new();
    while current.minor != target.minor {
        let is_upgrade = current.minor < target.minor;
        let next = match is_upgrade {
            true => Version::of(current.major, current.minor + 1),
            false => Version::of(current.major, current.minor - 1),
        };
        let higher = current.max(next);
        if !KNOWN.contains(&higher) {
            return Err(format!("version \"{higher}\" is not supported"));
        }
        steps.push(next);
        current = next;
    }
    Ok(steps)
}

fn execute(db: &Db, steps: &[Version]) -> Result<(), String> {
    if let Some(last) = steps.last() {
        record(db, *last)?;
    }
    for step in steps {
        let version = step.to_string();
        let fields = [("new-storage-version", Field::Text(&version))];
        log::info("updated storage version", &fields);
    }
    Ok(())
}

fn force(db: &Db, target: Version) -> Result<(), String> {
    record(db, target)?;
    if target < V3_6 {
        log::warn("forcefully cleared storage version", &[]);
    } else {
        let version = target.minor_text();
        let fields = [("storage-version", Field::Text(&version))];
        log::warn("forcefully set storage version", &fields);
    }
    Ok(())
}

/// Writes the version, or removes it for a release that has no record of it.
fn record(db: &Db, version: Version) -> Result<(), String> {
    let write = || {
        let mut tx = db.begin_write()?;
        if version < V3_6 {
            tx.delete(Bucket::Meta.name(), meta::STORAGE_VERSION)?;
        } else {
            let text = version.to_string();
            tx.put(Bucket::Meta.name(), meta::STORAGE_VERSION, text.as_bytes())?;
        }
        tx.commit()
    };
    write().map(|_| ()).map_err(|error| database::text(&error))
}

/// The version that a release must have to know what is in the log since its last snapshot;
/// `None` when each from 3.5 on does.
fn read_log(dir: &Path) -> Result<Option<Version>, String> {
    let snapshots = wal::valid_snapshots(&RealFs, dir)
        .map_err(|error| format!("failed to get the lastest snapshot: {}", chain(&error)))?;
    let from = snapshots
        .last()
        .map_or_else(WalSnapshot::default, |meta| WalSnapshot {
            index: meta.index,
            term: meta.term,
        });
    let recovered = wal::read(&RealFs, dir, from, Applied::default())
        .map_err(|error| format!("failed to read wal: {}", chain(&error)))?;
    let mut newest = None;
    for entry in &recovered.entries {
        let needed = needed(entry)
            .map_err(|why| format!("failed to read wal: entry {}: {why}", entry.index))?;
        newest = newest.max(needed);
    }
    Ok(newest)
}

fn needed(entry: &Entry) -> Result<Option<Version>, String> {
    if entry.kind == EntryKind::ConfChange {
        return Ok(None);
    }
    let mut newest = None;
    for field in Fields::new(&entry.data) {
        let field = field.map_err(|error| error.to_string())?;
        if field.number == VERSION_TEST {
            let test = field.bytes().map_err(|error| error.to_string())?;
            newest = newest.max(Some(V3_6)).max(tested(test)?);
        }
    }
    Ok(newest)
}

/// The version that a test request (`1 ver`) names.
fn tested(request: &[u8]) -> Result<Option<Version>, String> {
    let mut version = None;
    for field in Fields::new(request) {
        let field = field.map_err(|error| error.to_string())?;
        if field.number == 1 {
            let text = field.bytes().map_err(|error| error.to_string())?;
            let text = String::from_utf8_lossy(text);
            version = Some(Version::parse(&text).ok_or_else(|| format!("{text:?} is no version"))?);
        }
    }
    Ok(version)
}

#[cfg(test)]
mod tests;
