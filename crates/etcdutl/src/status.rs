//! What is in a snapshot: proves the file sound, then reads every record once.

use std::collections::HashSet;
use std::path::Path;
use std::time::Duration;

use state::record::{KeyValue, Revision};
use storage::backend::{Bucket, meta};
use storage::bolt::ReadTx;

use crate::database;
use crate::version::Version;

/// The state that a snapshot holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Status {
    /// CRC-32C over the names of all buckets and their records.
    pub(crate) hash: u32,
    /// Main revision of the last change; 0 without any.
    pub(crate) revision: i64,
    /// Keys that exist.
    pub(crate) keys: usize,
    /// Bytes of the database, without a digest behind it.
    pub(crate) size_bytes: u64,
    /// Of the schema; empty when a release before 3.6 wrote it.
    pub(crate) version: String,
}

/// Reads the state of the snapshot at `path`.
///
/// # Errors
/// The file is damaged, is no database, or holds keys that are no etcd's.
pub(crate) fn read(path: &Path, lock_timeout: Duration) -> Result<Status, String> {
    let db = database::open_read_only(path, lock_timeout)?;
    let names = database::check(&db, "snapshot")?;
    let tx = db.begin_read();
    let mut reading = Reading::default();
    for name in &names {
        reading.bucket(&tx, name).map_err(|why| {
            let name = cli::text::quote(name);
            format!("error during bucket key iteration, name: {name} err: {why}")
        })?;
    }
    Ok(Status {
        hash: reading.crc,
        revision: reading.revision,
        keys: reading.live.len(),
        size_bytes: tx.size(),
        version: schema_version(&tx).map_or(String::new(), |version| version.to_string()),
    })
}

/// The version that the database names, if it names one that can be read.
pub(crate) fn schema_version(tx: &ReadTx) -> Option<Version> {
    let stored = tx
        .get(Bucket::Meta.name(), meta::STORAGE_VERSION)
        .ok()
        .flatten()?;
    Version::parse(std::str::from_utf8(&stored).ok()?)
}

/// What has been read so far.
#[derive(Default)]
struct Reading {
    crc: u32,
    revision: i64,
    /// Copies, since what a cursor returns shares the memory of whole pages.
    live: HashSet<Box<[u8]>>,
}

impl Reading {
    fn bucket(&mut self, tx: &ReadTx, name: &[u8]) -> Result<(), String> {
        self.crc = crc32c::crc32c_append(self.crc, name);
        let mut cursor = tx.cursor(name).map_err(|error| database::text(&error))?;
        while let Some((key, value)) = cursor.next().map_err(|error| database::text(&error))? {
            self.crc = crc32c::crc32c_append(self.crc, &key);
            self.crc = crc32c::crc32c_append(self.crc, &value);
            if name == Bucket::Key.name() {
                self.record(&key, &value)?;
            }
        }
        Ok(())
    }

    fn record(&mut self, key: &[u8], value: &[u8]) -> Result<(), String> {
        let quoted = || cli::text::quote(key);
        let (at, is_tombstone) = Revision::parse(key)
            .ok_or_else(|| format!("cannot parse revision key: {}", quoted()))?;
        let record = KeyValue::parse(value)
            .ok_or_else(|| format!("cannot unmarshal value, key: {}", quoted()))?;
        self.revision = at.main;
        if is_tombstone {
            self.live.remove(record.key);
        } else if !self.live.contains(record.key) {
            self.live.insert(record.key.into());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
