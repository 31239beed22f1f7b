//! HashKV and Hash: CRC-32C over records, as members and operators compare them.

use api::Error;
use storage::backend::{Bucket, Reader, meta};

use crate::fatal::{Fatal, ReadError};
use crate::kv::parse;
use crate::record::Revision;
use crate::shared::{Pin, Shared};

use std::sync::Arc;

/// Records that one step reads.
const STEP_RECORDS: usize = 1000;
/// Hashes of compactions that are kept.
const KEPT_HASHES: usize = 10;

/// A hash over the keys up to a revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KvHash {
    pub hash: u32,
    /// The last compaction when it was taken; -1 for none.
    pub compact_revision: i64,
    /// The revision that it covers.
    pub revision: i64,
}

/// The rule by which a record takes part: not above the revision; when compacted away, only if
/// compaction keeps it (or would keep nothing); and no deletion exactly at the compaction, since
/// releases differ in whether they keep that one.
pub(crate) struct Hasher {
    crc: u32,
    compacted: i64,
    revision: i64,
    keeps_any: bool,
}

impl Hasher {
    pub(crate) fn new(compacted: i64, revision: i64, keeps_any: bool) -> Hasher {
        Hasher {
            crc: crc32c::crc32c(Bucket::Key.name()),
            compacted,
            revision,
            keeps_any,
        }
    }

    /// Whether it matters if compaction keeps the record at `at`.
    pub(crate) fn asks(&self, at: Revision) -> bool {
        self.keeps_any && at.main <= self.compacted
    }

    pub(crate) fn add(
        &mut self,
        at: Revision,
        tombstone: bool,
        kept: bool,
        record: (&[u8], &[u8]),
    ) {
        if at.main > self.revision
            || (self.asks(at) && !kept)
            || (tombstone && at.main == self.compacted)
        {
            return;
        }
        self.crc = crc32c::crc32c_append(self.crc, record.0);
        self.crc = crc32c::crc32c_append(self.crc, record.1);
    }

    pub(crate) fn finish(&self) -> KvHash {
        KvHash {
            hash: self.crc,
            compact_revision: self.compacted,
            revision: self.revision,
        }
    }
}

pub(crate) fn parse_key(key: &[u8]) -> Result<(Revision, bool), Fatal> {
    Revision::parse(key).ok_or_else(|| Fatal::Damaged {
        bucket: "key",
        what: format!("{key:02x?} is no revision"),
    })
}

/// Keeps the hash of a finished compaction.
pub(crate) fn store(shared: &Shared, hash: KvHash) {
    let mut hashes = shared.hashes.lock();
    hashes.push(hash);
    hashes.sort_by_key(|hash| hash.revision);
    if hashes.len() > KEPT_HASHES {
        let excess = hashes.len() - KEPT_HASHES;
        hashes.drain(..excess);
    }
}

/// HashKV at `asked` (0 for the current revision); also gives the current revision.
pub(crate) fn hash_kv(shared: &Arc<Shared>, asked: i64) -> Result<(KvHash, i64), ReadError> {
    let stored = shared
        .hashes
        .lock()
        .iter()
        .find(|hash| hash.revision == asked)
        .copied();
    if let Some(hash) = stored {
        return Ok((hash, shared.state.read().revision));
    }
    let (current, compacted, revision, keeps_any, pin) = {
        let state = shared.state.read();
        if asked > 0 && asked < state.compacted {
            return Err(Error::Compacted.into());
        }
        if asked > state.revision {
            return Err(Error::FutureRev.into());
        }
        let revision = if asked == 0 { state.revision } else { asked };
        let keeps_any = state.index.sees_any(revision);
        let pin = Pin::new(shared, state.compacted);
        (state.revision, state.compacted, revision, keeps_any, pin)
    };
    let mut hasher = Hasher::new(compacted, revision, keeps_any);
    let end = Revision {
        main: revision.saturating_add(1).max(0),
        sub: 0,
    }
    .to_key();
    let mut from = Some(Vec::new());
    while let Some(begin) = from {
        let mut outcome = Ok(());
        let each = |key: &[u8], record: &[u8]| {
            if outcome.is_ok() {
                outcome = hash_one(shared, &mut hasher, key, record);
            }
        };
        from = shared
            .reader
            .scan(Bucket::Key, &begin, Some(&end), STEP_RECORDS, each)?;
        outcome?;
        // Records may have been missing when this fails.
        pin.check()?;
    }
    Ok((hasher.finish(), current))
}

fn hash_one(shared: &Shared, hasher: &mut Hasher, key: &[u8], record: &[u8]) -> Result<(), Fatal> {
    let (at, tombstone) = parse_key(key)?;
    let kept = if hasher.asks(at) {
        let name = parse(record)?.key;
        let state = shared.state.read();
        let slot = state.index.get(name);
        slot.is_some_and(|slot| slot.keeps(at, hasher.revision, false))
    } else {
        true
    };
    hasher.add(at, tombstone, kept, (key, record));
    Ok(())
}

/// Hash: over every bucket, except what differs between equal members.
pub(crate) fn hash_all(reader: &Reader) -> Result<u32, Fatal> {
    let mut crc = 0;
    for bucket in Bucket::ALL {
        crc = crc32c::crc32c_append(crc, bucket.name());
        let mut from = Some(Vec::new());
        while let Some(begin) = from {
            from = reader.scan(bucket, &begin, None, STEP_RECORDS, |key, value| {
                let differs = [meta::CONSISTENT_INDEX, meta::TERM, meta::STORAGE_VERSION];
                if bucket != Bucket::Meta || !differs.contains(&key) {
                    crc = crc32c::crc32c_append(crc, key);
                    crc = crc32c::crc32c_append(crc, value);
                }
            })?;
        }
    }
    Ok(crc)
}
