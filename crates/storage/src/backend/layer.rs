//! One batch of writes in memory.

use std::collections::BTreeMap;
use std::sync::Arc;

use smallvec::SmallVec;

use super::{Applied, Bucket, Value, meta};

/// A key in a bucket; revisions (17 or 18 bytes) stay inline.
pub(super) type Key = SmallVec<[u8; 24]>;

/// A key with its new value, or with none when it is deleted.
pub(super) type Write = (Key, Option<Value>);

/// Bytes charged per write beside its key and value.
const WRITE_OVERHEAD: usize = 64;

/// The writes of a batch, by bucket.
#[derive(Default)]
pub(super) struct Layer {
    buckets: [BucketLayer; Bucket::ALL.len()],
    /// What `consistent_index` and `term` are once this batch is in the file. Kept as numbers
    /// while the batch is open, since every entry changes them.
    applied: Option<Applied>,
}

/// The writes to one bucket. Revisions arrive in order and go to `tail`; what comes out of order
/// goes to `tree`. No key is in both.
#[derive(Default)]
struct BucketLayer {
    tail: Vec<Write>,
    tree: BTreeMap<Key, Option<Value>>,
}

impl Layer {
    pub(super) fn is_empty(&self) -> bool {
        self.applied.is_none() && self.buckets.iter().all(BucketLayer::is_empty)
    }

    /// Records a write and returns the bytes to charge for it.
    pub(super) fn set(&mut self, bucket: Bucket, key: Key, value: Option<Value>) -> usize {
        let bytes = key.len() + value.as_ref().map_or(0, |v| v.len()) + WRITE_OVERHEAD;
        self.buckets[bucket as usize].set(key, value);
        bytes
    }

    pub(super) fn set_applied(&mut self, applied: Applied) {
        self.applied = Some(applied);
    }

    pub(super) fn applied(&self) -> Option<Applied> {
        self.applied
    }

    /// Turns the applied index into ordinary writes; nothing is added afterwards.
    pub(super) fn seal(&mut self) {
        if let Some(applied) = self.applied {
            for (key, value) in applied_records(applied) {
                self.buckets[Bucket::Meta as usize].set(key, Some(value));
            }
        }
    }

    /// The write to `key`, if this batch has one.
    pub(super) fn get(&self, bucket: Bucket, key: &[u8]) -> Option<Option<Value>> {
        if bucket == Bucket::Meta
            && let Some(applied) = self.applied
            && let Some((_, value)) = applied_records(applied)
                .into_iter()
                .find(|r| r.0[..] == *key)
        {
            return Some(Some(value));
        }
        self.buckets[bucket as usize].get(key).cloned()
    }

    /// Copies at most `limit` writes with `begin <= key < end`; true if more follow.
    pub(super) fn copy_range(
        &self,
        bucket: Bucket,
        begin: &[u8],
        end: Option<&[u8]>,
        limit: usize,
    ) -> (Vec<Write>, bool) {
        let inside = |key: &[u8]| end.is_none_or(|end| key < end);
        let writes = self.buckets[bucket as usize].iter_from(begin);
        let writes = writes.take_while(|(key, _)| inside(key));
        let copied = writes.map(|(key, value)| (key.clone(), value.clone()));
        let mut copied: Vec<Write> = match self.applied {
            Some(applied) if bucket == Bucket::Meta => {
                let records = applied_records(applied).map(|(key, value)| (key, Some(value)));
                let records = records.into_iter().filter(|(key, _)| inside(key));
                let mut all: BTreeMap<Key, Option<Value>> = copied.collect();
                all.extend(records.filter(|(key, _)| key[..] >= *begin));
                all.into_iter().take(limit.saturating_add(1)).collect()
            }
            _ => copied.take(limit.saturating_add(1)).collect(),
        };
        let more = copied.len() > limit;
        copied.truncate(limit);
        (copied, more)
    }

    /// The writes to a bucket in key order.
    pub(super) fn iter(&self, bucket: Bucket) -> impl Iterator<Item = (&Key, &Option<Value>)> {
        self.buckets[bucket as usize].iter_from(&[])
    }
}

fn applied_records(applied: Applied) -> [(Key, Value); 2] {
    let record = |key: &[u8], n: u64| (Key::from_slice(key), Arc::from(n.to_be_bytes()) as Value);
    [
        record(meta::CONSISTENT_INDEX, applied.index.0),
        record(meta::TERM, applied.term.0),
    ]
}

impl BucketLayer {
    fn is_empty(&self) -> bool {
        self.tail.is_empty() && self.tree.is_empty()
    }

    fn set(&mut self, key: Key, value: Option<Value>) {
        if self.tail.last().is_none_or(|last| last.0 < key) {
            if !self.tree.is_empty() {
                self.tree.remove(&key);
            }
            self.tail.push((key, value));
            return;
        }
        match self.tail.binary_search_by(|write| write.0.cmp(&key)) {
            Ok(at) => self.tail[at].1 = value,
            Err(_) => {
                self.tree.insert(key, value);
            }
        }
    }

    fn get(&self, key: &[u8]) -> Option<&Option<Value>> {
        if let Ok(at) = self.tail.binary_search_by(|write| write.0[..].cmp(key)) {
            return Some(&self.tail[at].1);
        }
        if self.tree.is_empty() {
            return None;
        }
        self.tree.get(&Key::from_slice(key))
    }

    fn iter_from(&self, begin: &[u8]) -> impl Iterator<Item = (&Key, &Option<Value>)> {
        let first = self.tail.partition_point(|write| write.0[..] < *begin);
        let mut tail = self.tail[first..]
            .iter()
            .map(|(key, value)| (key, value))
            .peekable();
        let mut tree = self.tree.range(Key::from_slice(begin)..).peekable();
        std::iter::from_fn(move || match (tail.peek(), tree.peek()) {
            (Some(a), Some(b)) if a.0 < b.0 => tail.next(),
            (_, Some(_)) => tree.next(),
            (_, None) => tail.next(),
        })
    }
}
