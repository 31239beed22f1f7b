//! raftpb's bytes for entries, hard state, configuration and snapshot metadata.
//!
//! ```text
//! Entry            1 type  2 term  3 index  4 data (absent when empty)
//! HardState        1 term  2 vote  3 commit
//! ConfState        1 voters*  2 learners*  3 voters_outgoing*  4 learners_next*  5 auto_leave
//! SnapshotMetadata 1 conf_state  2 index  3 term
//! Snapshot         1 data (absent when empty)  2 metadata
//! ```
//! Writers emit zeros and repeat integers unpacked, as every release up to 3.6 does; readers take
//! an absent field for zero, packed integers too, and skip unknown fields.

use bytes::Bytes;

use super::{ConfState, Entry, EntryKind, HardState, LogIndex, Snapshot, SnapshotMeta, Term};
use crate::wire::{Fields, WireError, put_bytes, put_uint, put_varint};

/// An entry whose data still lies in the bytes that it was read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryRef<'a> {
    pub kind: EntryKind,
    pub term: Term,
    pub index: LogIndex,
    pub data: &'a [u8],
}

impl EntryRef<'_> {
    /// Copies the data out.
    #[must_use]
    pub fn to_entry(&self) -> Entry {
        self.with_data(Bytes::copy_from_slice(self.data))
    }

    fn with_data(&self, data: Bytes) -> Entry {
        Entry {
            kind: self.kind,
            term: self.term,
            index: self.index,
            data,
        }
    }
}

/// Appends an entry without its data but with the tag and length that announce it, so that the
/// data can follow from where it is.
pub fn put_entry_head(dst: &mut Vec<u8>, entry: &Entry) {
    let kind = match entry.kind {
        EntryKind::Normal => 0,
        EntryKind::ConfChange => 1,
    };
    put_uint(dst, 1, kind);
    put_uint(dst, 2, entry.term.0);
    put_uint(dst, 3, entry.index.0);
    if !entry.data.is_empty() {
        put_varint(dst, 4 << 3 | 2);
        put_varint(dst, entry.data.len() as u64);
    }
}

/// Appends an entry.
pub fn put_entry(dst: &mut Vec<u8>, entry: &Entry) {
    put_entry_head(dst, entry);
    dst.extend_from_slice(&entry.data);
}

/// Reads an entry in place.
///
/// # Errors
/// Fails on malformed bytes and on an entry type that etcd does not write.
pub fn entry_ref(src: &[u8]) -> Result<EntryRef<'_>, WireError> {
    let mut kind = 0;
    let mut entry = EntryRef {
        kind: EntryKind::Normal,
        term: Term(0),
        index: LogIndex(0),
        data: &[],
    };
    for field in Fields::new(src) {
        let field = field?;
        match field.number {
            1 => kind = field.uint()?,
            2 => entry.term = Term(field.uint()?),
            3 => entry.index = LogIndex(field.uint()?),
            4 => entry.data = field.bytes()?,
            _ => {}
        }
    }
    entry.kind = match kind {
        0 => EntryKind::Normal,
        1 => EntryKind::ConfChange,
        value => return Err(WireError::Value { field: 1, value }),
    };
    Ok(entry)
}

/// Reads an entry whose data shares the memory of `src`.
///
/// # Errors
/// As [`entry_ref`].
pub fn entry(src: &Bytes) -> Result<Entry, WireError> {
    let found = entry_ref(src)?;
    Ok(found.with_data(src.slice_ref(found.data)))
}

/// Appends a hard state.
pub fn put_hard_state(dst: &mut Vec<u8>, state: &HardState) {
    put_uint(dst, 1, state.term.0);
    put_uint(dst, 2, state.vote);
    put_uint(dst, 3, state.commit.0);
}

/// Reads a hard state.
///
/// # Errors
/// Fails on malformed bytes.
pub fn hard_state(src: &[u8]) -> Result<HardState, WireError> {
    let mut state = HardState::default();
    for field in Fields::new(src) {
        let field = field?;
        match field.number {
            1 => state.term = Term(field.uint()?),
            2 => state.vote = field.uint()?,
            3 => state.commit = LogIndex(field.uint()?),
            _ => {}
        }
    }
    Ok(state)
}

/// Appends a configuration.
pub fn put_conf_state(dst: &mut Vec<u8>, conf: &ConfState) {
    let lists = [
        &conf.voters,
        &conf.learners,
        &conf.voters_outgoing,
        &conf.learners_next,
    ];
    for (field, ids) in (1..).zip(lists) {
        for &id in ids {
            put_uint(dst, field, id);
        }
    }
    put_uint(dst, 5, u64::from(conf.auto_leave));
}

/// Reads a configuration.
///
/// # Errors
/// Fails on malformed bytes.
pub fn conf_state(src: &[u8]) -> Result<ConfState, WireError> {
    let mut conf = ConfState::default();
    for field in Fields::new(src) {
        let field = field?;
        match field.number {
            1 => field.uints(&mut conf.voters)?,
            2 => field.uints(&mut conf.learners)?,
            3 => field.uints(&mut conf.voters_outgoing)?,
            4 => field.uints(&mut conf.learners_next)?,
            5 => conf.auto_leave = field.uint()? != 0,
            _ => {}
        }
    }
    Ok(conf)
}

/// Appends raftpb's snapshot metadata.
pub fn put_snapshot_meta(dst: &mut Vec<u8>, meta: &SnapshotMeta) {
    let mut conf = Vec::new();
    put_conf_state(&mut conf, &meta.conf);
    put_bytes(dst, 1, &conf);
    put_uint(dst, 2, meta.index.0);
    put_uint(dst, 3, meta.term.0);
}

/// Reads raftpb's snapshot metadata.
///
/// # Errors
/// Fails on malformed bytes.
pub fn snapshot_meta(src: &[u8]) -> Result<SnapshotMeta, WireError> {
    let mut meta = SnapshotMeta::default();
    for field in Fields::new(src) {
        let field = field?;
        match field.number {
            1 => meta.conf = conf_state(field.bytes()?)?,
            2 => meta.index = LogIndex(field.uint()?),
            3 => meta.term = Term(field.uint()?),
            _ => {}
        }
    }
    Ok(meta)
}

/// Appends a snapshot.
pub fn put_snapshot(dst: &mut Vec<u8>, snapshot: &Snapshot) {
    if !snapshot.data.is_empty() {
        put_bytes(dst, 1, &snapshot.data);
    }
    let mut meta = Vec::new();
    put_snapshot_meta(&mut meta, &snapshot.meta);
    put_bytes(dst, 2, &meta);
}

/// Reads a snapshot whose data shares the memory of `src`.
///
/// # Errors
/// Fails on malformed bytes.
pub fn snapshot(src: &Bytes) -> Result<Snapshot, WireError> {
    let mut snapshot = Snapshot::default();
    for field in Fields::new(src) {
        let field = field?;
        match field.number {
            1 => snapshot.data = src.slice_ref(field.bytes()?),
            2 => snapshot.meta = snapshot_meta(field.bytes()?)?,
            _ => {}
        }
    }
    Ok(snapshot)
}

#[cfg(test)]
mod tests;
