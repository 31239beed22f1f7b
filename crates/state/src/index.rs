//! The key index: every key with its newest change and its history.
//!
//! ```text
//!   slots      key, newest change (its record kept while the budget lasts), older changes
//!   by_hash    hash -> slot: single keys
//!   order      keys in order -> slots: ranges, and sums over leaves
//! ```
//!
//! The sums let a count, or the length of an answer, step over leaves instead of keys.

use std::hash::BuildHasher;
use std::sync::atomic::{AtomicU32, Ordering};

use foldhash::fast::FixedState;
use hashbrown::HashTable;
use storage::backend::Value;
use thin_vec::ThinVec;

use crate::record::Revision;

mod order;
#[cfg(test)]
mod tests;

use order::{Order, Sums};
pub(crate) use order::{Runs, Tally};

/// Length that marks a tombstone; records are limited to less by the file format.
const TOMBSTONE: u32 = u32::MAX;

/// Which keys a request means.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span<'a> {
    pub(crate) begin: &'a [u8],
    pub(crate) end: End<'a>,
}

/// Where a span ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End<'a> {
    /// Only the first key.
    Single,
    /// Before this key.
    Before(&'a [u8]),
    /// With the last key.
    Open,
}

impl<'a> Span<'a> {
    /// The span of a request's `key` and `range_end`.
    pub(crate) fn new(key: &'a [u8], range_end: &'a [u8]) -> Span<'a> {
        let end = match range_end {
            [] => End::Single,
            [0] => End::Open,
            end => End::Before(end),
        };
        Span { begin: key, end }
    }
}

/// The record of a key's newest change.
#[derive(Clone, Debug)]
pub(crate) enum Latest {
    Cached(Value),
    /// Only in the backend; its length in bytes, or `TOMBSTONE`.
    Gone(u32),
}

/// An older change of a key: where it is and how long its record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Past {
    main: i64,
    sub: u32,
    len: u32,
}

/// A key with all changes that compaction has left.
#[derive(Debug)]
pub(crate) struct Slot {
    pub(crate) key: Box<[u8]>,
    latest: Latest,
    main: i64,
    pub(crate) create: i64,
    pub(crate) version: i64,
    pub(crate) lease: i64,
    /// Older changes, oldest first.
    past: ThinVec<Past>,
    /// The newest change's sub-revision, and `USED`, which readers set and eviction clears: the
    /// record was used since the hand passed.
    mark: AtomicU32,
    /// The leaf of the order that has it.
    leaf: u32,
}

const USED: u32 = 1 << 31;
/// Sub-revisions stay below this; no request has nearly as many changes.
pub(crate) const SUB_MAX: u32 = USED - 1;

/// A change that becomes a key's newest.
pub(crate) struct Change {
    pub(crate) revision: Revision,
    pub(crate) latest: Latest,
    pub(crate) create: i64,
    pub(crate) version: i64,
    pub(crate) lease: i64,
}

impl Change {
    /// A deletion.
    pub(crate) fn tombstone(revision: Revision) -> Change {
        Change {
            revision,
            latest: Latest::Gone(TOMBSTONE),
            create: 0,
            version: 0,
            lease: 0,
        }
    }
}

/// A key's state at some revision: what a reader sees.
#[derive(Clone, Copy)]
pub(crate) struct Seen<'a> {
    pub(crate) slot: &'a Slot,
    past: Option<Past>,
}

impl<'a> Seen<'a> {
    /// True when this is the key's newest change, so that the slot's fields describe it.
    pub(crate) fn is_newest(&self) -> bool {
        self.past.is_none()
    }

    pub(crate) fn revision(&self) -> Revision {
        match self.past {
            None => self.slot.revision(),
            Some(past) => Revision {
                main: past.main,
                sub: past.sub,
            },
        }
    }

    /// Length of the record in bytes.
    pub(crate) fn len(&self) -> usize {
        match (self.past, &self.slot.latest) {
            (Some(past), _) => past.len as usize,
            (None, Latest::Cached(value)) => value.len(),
            (None, Latest::Gone(len)) => *len as usize,
        }
    }

    /// The record, when it is in memory.
    pub(crate) fn cached(&self) -> Option<&'a Value> {
        match (self.past, &self.slot.latest) {
            (None, Latest::Cached(value)) => {
                if self.slot.mark.load(Ordering::Relaxed) & USED == 0 {
                    self.slot.mark.fetch_or(USED, Ordering::Relaxed);
                }
                Some(value)
            }
            _ => None,
        }
    }
}

impl Slot {
    pub(crate) fn revision(&self) -> Revision {
        let sub = self.mark.load(Ordering::Relaxed) & !USED;
        Revision {
            main: self.main,
            sub,
        }
    }

    /// True unless the newest change is a deletion.
    pub(crate) fn is_live(&self) -> bool {
        !matches!(self.latest, Latest::Gone(TOMBSTONE))
    }

    /// Compares with the key inside the record when it is in memory, since whoever asks is about
    /// to read that.
    fn has_key(&self, key: &[u8]) -> bool {
        if let Latest::Cached(record) = &self.latest
            && let [0x0a, len @ 0..0x80, rest @ ..] = &record[..]
        {
            return *len as usize == key.len() && rest.starts_with(key);
        }
        *self.key == *key
    }

    /// Bytes of the record in memory.
    fn cached_len(&self) -> usize {
        match &self.latest {
            Latest::Cached(value) => value.len(),
            Latest::Gone(_) => 0,
        }
    }

    fn latest_len(&self) -> u32 {
        match &self.latest {
            Latest::Cached(value) => value.len() as u32,
            Latest::Gone(len) => *len,
        }
    }

    /// The newest change as it stands, when the key exists now.
    pub(crate) fn newest(&self) -> Option<Seen<'_>> {
        self.is_live().then_some(Seen {
            slot: self,
            past: None,
        })
    }

    /// What a reader at `rev` sees of this key.
    pub(crate) fn at(&self, rev: i64) -> Option<Seen<'_>> {
        if self.main <= rev {
            return self.newest();
        }
        let known = self.past.partition_point(|past| past.main <= rev);
        let past = *self.past.get(known.checked_sub(1)?)?;
        (past.len != TOMBSTONE).then_some(Seen {
            slot: self,
            past: Some(past),
        })
    }

    /// Whether compaction at `rev` left (or would leave) the change at `revision`, which is not
    /// above `rev`: it is the key's newest one there, and no deletion older than `rev` itself.
    /// `with_tombstone` tells whether a deletion exactly at `rev` counts.
    pub(crate) fn keeps(&self, revision: Revision, rev: i64, with_tombstone: bool) -> bool {
        let (at, len) = if self.main <= rev {
            (self.revision(), self.latest_len())
        } else {
            let known = self.past.partition_point(|past| past.main <= rev);
            let Some(past) = known.checked_sub(1).and_then(|at| self.past.get(at)) else {
                return false;
            };
            (
                Revision {
                    main: past.main,
                    sub: past.sub,
                },
                past.len,
            )
        };
        at == revision && (len != TOMBSTONE || (with_tombstone && at.main == rev))
    }

    /// Drops what compaction at `rev` drops; returns how many changes up to `rev` remain (0 or
    /// 1), or `None` when nothing at all remains of the key.
    fn compact(&mut self, rev: i64) -> Option<usize> {
        let mut drop = self.past.partition_point(|past| past.main <= rev);
        if self.main <= rev {
            self.past.clear();
            self.past.shrink_to_fit();
            return (self.is_live() || self.main == rev).then_some(1);
        }
        let mut kept = 0;
        if let Some(last) = drop.checked_sub(1).and_then(|at| self.past.get(at)) {
            kept = usize::from(last.len != TOMBSTONE || last.main == rev);
            drop -= kept;
        }
        if drop > 0 {
            self.past.drain(..drop);
            if self.past.capacity() > 4 * self.past.len().max(1) {
                self.past.shrink_to_fit();
            }
        }
        Some(kept)
    }
}

/// Names a slot as long as its key stays in the index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SlotId(u32);

/// Slots by id, in pieces, so that growing moves none.
#[derive(Debug, Default)]
struct Slab {
    pieces: Vec<Vec<Slot>>,
    free: Vec<u32>,
}

const PIECE: usize = 1024;

impl Slab {
    fn slot(&self, id: u32) -> &Slot {
        &self.pieces[id as usize / PIECE][id as usize % PIECE]
    }

    fn slot_mut(&mut self, id: u32) -> &mut Slot {
        &mut self.pieces[id as usize / PIECE][id as usize % PIECE]
    }

    fn insert(&mut self, slot: Slot) -> u32 {
        if let Some(id) = self.free.pop() {
            *self.slot_mut(id) = slot;
            return id;
        }
        if self.pieces.last().is_none_or(|piece| piece.len() == PIECE) {
            self.pieces.push(Vec::with_capacity(PIECE));
        }
        let piece = self.pieces.len() - 1;
        self.pieces[piece].push(slot);
        (piece * PIECE + self.pieces[piece].len() - 1) as u32
    }

    /// Frees a slot; its place keeps an empty one.
    fn remove(&mut self, id: u32) {
        let slot = self.slot_mut(id);
        slot.key = Box::default();
        slot.latest = Latest::Gone(TOMBSTONE);
        slot.past = ThinVec::new();
        self.free.push(id);
    }

    fn len(&self) -> usize {
        match self.pieces.last() {
            Some(last) => (self.pieces.len() - 1) * PIECE + last.len(),
            None => 0,
        }
    }
}

/// Slots by hash, in shards, so that growing touches few at a time.
struct ByHash {
    hasher: FixedState,
    shards: Vec<HashTable<(u32, u32)>>,
}

const SHARDS: usize = 64;

impl ByHash {
    fn new(seed: u64) -> ByHash {
        let shards = (0..SHARDS).map(|_| HashTable::new()).collect();
        ByHash {
            hasher: FixedState::with_seed(seed),
            shards,
        }
    }

    /// The shard and the hash in it; `spread` recovers the table's hash from the kept half.
    fn place(&self, key: &[u8]) -> (usize, u32) {
        let hash = self.hasher.hash_one(key);
        (hash as usize % SHARDS, (hash >> 32) as u32)
    }

    fn spread(hash: u32) -> u64 {
        u64::from(hash).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }

    fn get(&self, key: &[u8], slots: &Slab) -> Option<u32> {
        let (shard, hash) = self.place(key);
        let same = |&(other, id): &(u32, u32)| other == hash && slots.slot(id).has_key(key);
        self.shards[shard]
            .find(Self::spread(hash), same)
            .map(|&(_, id)| id)
    }

    fn insert(&mut self, key: &[u8], id: u32) {
        let (shard, hash) = self.place(key);
        let rehash = |&(hash, _): &(u32, u32)| Self::spread(hash);
        self.shards[shard].insert_unique(Self::spread(hash), (hash, id), rehash);
    }

    fn remove(&mut self, key: &[u8], id: u32) {
        let (shard, hash) = self.place(key);
        let same = |&(_, other): &(u32, u32)| other == id;
        if let Ok(entry) = self.shards[shard].find_entry(Self::spread(hash), same) {
            entry.remove();
        }
    }
}

/// See the module's page.
pub(crate) struct Index {
    slots: Slab,
    by_hash: ByHash,
    order: Order,
    /// Bytes of records kept in memory.
    cached: usize,
    /// The slot where eviction goes on.
    hand: usize,
    keys: usize,
}

impl Index {
    /// An empty index. `seed` makes collisions of hashes unpredictable for clients.
    pub(crate) fn new(seed: u64) -> Index {
        Index {
            slots: Slab::default(),
            by_hash: ByHash::new(seed),
            order: Order::new(),
            cached: 0,
            hand: 0,
            keys: 0,
        }
    }

    /// Slots, deleted keys with history included.
    pub(crate) fn len(&self) -> usize {
        self.keys
    }

    /// Keys that exist now.
    pub(crate) fn live(&self) -> u64 {
        self.order.live()
    }

    /// Bytes of records kept in memory.
    pub(crate) fn cached(&self) -> usize {
        self.cached
    }

    pub(crate) fn find(&self, key: &[u8]) -> Option<SlotId> {
        self.by_hash.get(key, &self.slots).map(SlotId)
    }

    pub(crate) fn slot(&self, id: SlotId) -> &Slot {
        self.slots.slot(id.0)
    }

    pub(crate) fn get(&self, key: &[u8]) -> Option<&Slot> {
        self.find(key).map(|id| self.slot(id))
    }

    /// Every slot in key order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Slot> {
        let all = Span {
            begin: &[],
            end: End::Open,
        };
        self.span(all)
    }

    /// Slots of a span in key order.
    pub(crate) fn span<'a>(&'a self, span: Span<'a>) -> impl Iterator<Item = &'a Slot> {
        self.ids(span).map(|id| self.slots.slot(id))
    }

    fn ids<'a>(&'a self, span: Span<'a>) -> impl Iterator<Item = u32> + 'a {
        let single = match span.end {
            End::Single => self.by_hash.get(span.begin, &self.slots),
            _ => None,
        };
        let runs = (span.end != End::Single).then(|| self.runs(span));
        let ids = runs.into_iter().flatten().flatten().copied();
        single.into_iter().chain(ids)
    }

    /// Slots of a span that is more than a single key, as runs of slots that lie together.
    pub(crate) fn runs<'a>(&'a self, span: Span<'a>) -> Runs<'a> {
        self.order.runs(span, &self.slots)
    }

    /// What an id out of [`Index::runs`] stands for.
    pub(crate) fn run_slot(&self, id: u32) -> &Slot {
        self.slots.slot(id)
    }

    /// True when a reader at `rev` sees any key.
    pub(crate) fn sees_any(&self, rev: i64) -> bool {
        self.iter().any(|slot| slot.at(rev).is_some())
    }

    /// Slots of a span in key order; updates of slots keep them valid.
    pub(crate) fn found(&self, span: Span<'_>) -> Vec<SlotId> {
        self.ids(span).map(SlotId).collect()
    }

    /// See [`Order::tally`].
    pub(crate) fn tally(
        &self,
        span: Span<'_>,
        from: &[u8],
        at: (i64, u64),
        steps: usize,
        tally: &mut Tally,
    ) -> Option<Box<[u8]>> {
        self.order
            .tally(span, from, at, (steps, &self.slots), tally)
    }

    /// Makes `change` the newest of a slot; the one before becomes history.
    pub(crate) fn update(&mut self, id: SlotId, change: Change) {
        let slot = self.slots.slot_mut(id.0);
        let before = Sums::of(slot);
        self.cached -= slot.cached_len();
        let Revision { main, sub } = slot.revision();
        let len = slot.latest_len();
        slot.past.push(Past { main, sub, len });
        slot.main = change.revision.main;
        *slot.mark.get_mut() = change.revision.sub | USED;
        slot.create = change.create;
        slot.version = change.version;
        slot.lease = change.lease;
        slot.latest = change.latest;
        self.cached += slot.cached_len();
        self.order.change(slot.leaf, &before, &Sums::of(slot));
    }

    /// Inserts a key that is not in the index.
    pub(crate) fn insert(&mut self, key: &[u8], change: Change) {
        let slot = Slot {
            key: key.into(),
            latest: change.latest,
            main: change.revision.main,
            create: change.create,
            version: change.version,
            lease: change.lease,
            past: ThinVec::new(),
            mark: AtomicU32::new(change.revision.sub | USED),
            leaf: 0,
        };
        self.cached += slot.cached_len();
        self.keys += 1;
        let id = self.slots.insert(slot);
        self.by_hash.insert(key, id);
        self.order.insert(id, &mut self.slots);
    }

    /// Puts a record that a reader had to fetch back into memory, if its key still has it as the
    /// newest change.
    pub(crate) fn refill(&mut self, key: &[u8], revision: Revision, record: &Value) {
        let Some(id) = self.find(key) else { return };
        let slot = self.slots.slot_mut(id.0);
        if slot.revision() == revision
            && matches!(slot.latest, Latest::Gone(len) if len as usize == record.len())
        {
            self.cached += record.len();
            slot.latest = Latest::Cached(record.clone());
        }
    }

    /// Lets go of records until at most `budget` bytes are kept, in at most `steps` steps.
    pub(crate) fn evict(&mut self, budget: usize, steps: usize) {
        for _ in 0..steps {
            if self.cached <= budget || self.slots.len() == 0 {
                return;
            }
            let id = self.hand % self.slots.len();
            self.hand = id + 1;
            let slot = self.slots.slot_mut(id as u32);
            let mark = slot.mark.get_mut();
            let used = *mark & USED != 0;
            *mark &= !USED;
            if !used && let Latest::Cached(value) = &slot.latest {
                self.cached -= value.len();
                slot.latest = Latest::Gone(value.len() as u32);
            }
        }
    }

    /// Compacts at `rev` the leaves from `from` on, about `leaves` of them; adds the number of
    /// changes up to `rev` that remain to `kept` and returns where to go on.
    pub(crate) fn compact(
        &mut self,
        from: &[u8],
        rev: i64,
        leaves: usize,
        kept: &mut u64,
    ) -> Option<Box<[u8]>> {
        let mut removed = Vec::new();
        let slots = &mut self.slots;
        let next = self.order.retain(from, leaves, slots, |slots, id| {
            match slots.slot_mut(id).compact(rev) {
                Some(n) => {
                    *kept += n as u64;
                    true
                }
                None => {
                    removed.push(id);
                    false
                }
            }
        });
        self.keys -= removed.len();
        for id in removed {
            let key = std::mem::take(&mut self.slots.slot_mut(id).key);
            self.by_hash.remove(&key, id);
            self.slots.remove(id);
        }
        next
    }
}
