//! The records of bucket `key`: a revision as key, a protobuf `mvccpb.KeyValue` as value.
//!
//! ```text
//!   0        8   9        17  18
//!   | main   | _ | sub    | t |      big-endian; `t` only on tombstones
//! ```

use std::sync::Arc;

use storage::backend::Value;

use crate::index::SUB_MAX;
use crate::wire::{self, Content, Fields};

/// Where a change stands: the main revision of its request, and its place in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision {
    /// One for each request that changes anything.
    pub main: i64,
    /// From 0, in the order of the request's changes.
    pub sub: u32,
}

pub(crate) const REVISION_LEN: usize = 17;
const MARK: u8 = b'_';
const TOMBSTONE_MARK: u8 = b't';

impl Revision {
    /// The key in bucket `key`.
    #[must_use]
    pub fn to_key(self) -> [u8; REVISION_LEN] {
        let mut key = [0; REVISION_LEN];
        key[..8].copy_from_slice(&self.main.to_be_bytes());
        key[8] = MARK;
        key[9..].copy_from_slice(&u64::from(self.sub).to_be_bytes());
        key
    }

    /// The key of a tombstone in bucket `key`.
    pub(crate) fn to_tombstone_key(self) -> [u8; REVISION_LEN + 1] {
        let mut key = [TOMBSTONE_MARK; REVISION_LEN + 1];
        key[..REVISION_LEN].copy_from_slice(&self.to_key());
        key
    }

    /// Parses a key of bucket `key`; true for a tombstone. `None` when it has another shape.
    #[must_use]
    pub fn parse(key: &[u8]) -> Option<(Revision, bool)> {
        let tombstone = match key.len() {
            REVISION_LEN => false,
            len if len == REVISION_LEN + 1 && key[REVISION_LEN] == TOMBSTONE_MARK => true,
            _ => return None,
        };
        if key[8] != MARK {
            return None;
        }
        let main = i64::from_be_bytes(key[..8].try_into().ok()?);
        let sub = u64::from_be_bytes(key[9..REVISION_LEN].try_into().ok()?);
        Some((
            Revision {
                main,
                sub: u32::try_from(sub).ok().filter(|&sub| sub <= SUB_MAX)?,
            },
            tombstone,
        ))
    }
}

/// The fields of a record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeyValue<'a> {
    /// The client's key.
    pub key: &'a [u8],
    /// Main revision at which the key came into being.
    pub create: i64,
    /// Main revision of this change.
    pub modified: i64,
    /// Changes since the key came into being, this one included.
    pub version: i64,
    /// The client's value.
    pub value: &'a [u8],
    /// The lease that it is attached to; 0 for none.
    pub lease: i64,
}

impl<'a> KeyValue<'a> {
    /// Parses a record; `None` when it is malformed.
    #[must_use]
    pub fn parse(record: &'a [u8]) -> Option<KeyValue<'a>> {
        let mut kv = KeyValue::default();
        for field in Fields(record) {
            match field.ok()? {
                (1, Content::Bytes(key)) => kv.key = key,
                (2, Content::Int(n)) => kv.create = n as i64,
                (3, Content::Int(n)) => kv.modified = n as i64,
                (4, Content::Int(n)) => kv.version = n as i64,
                (5, Content::Bytes(value)) => kv.value = value,
                (6, Content::Int(n)) => kv.lease = n as i64,
                _ => {}
            }
        }
        Some(kv)
    }

    /// Appends the message; zero fields are left out.
    pub(crate) fn encode_into(&self, out: &mut Vec<u8>) {
        if !self.key.is_empty() {
            wire::put_bytes(out, 1, self.key);
        }
        wire::put_int(out, 2, self.create as u64);
        wire::put_int(out, 3, self.modified as u64);
        wire::put_int(out, 4, self.version as u64);
        if !self.value.is_empty() {
            wire::put_bytes(out, 5, self.value);
        }
        wire::put_int(out, 6, self.lease as u64);
    }

    /// The message in memory that can be shared; `scratch` is overwritten.
    pub(crate) fn encode(&self, scratch: &mut Vec<u8>) -> Value {
        scratch.clear();
        self.encode_into(scratch);
        Arc::from(&scratch[..])
    }
}
