//! The key index: every key with its newest change and its history, in key order.
//!
//! ```text
//!   branches   [first key | Branch]   at most 128 leaves each
//!   leaves     [first key | Leaf]     at most 64 slots each, with sums over them
//!   slots      key, newest change (its record kept while the budget lasts), older changes
//! ```
//!
//! First keys are separators: a lower bound of what is below them, not necessarily present.
//! The sums let a count, or the length of an answer, step over leaves instead of keys.

use std::sync::atomic::{AtomicBool, Ordering};

use storage::backend::Value;
use thin_vec::ThinVec;

use crate::record::Revision;
use crate::wire;

#[cfg(test)]
mod tests;

const LEAF_MAX: usize = 64;
const BRANCH_MAX: usize = 128;

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

    /// Whether a key that is not below `begin` is inside.
    fn reaches(&self, key: &[u8]) -> bool {
        match self.end {
            End::Single => key == self.begin,
            End::Before(end) => key < end,
            End::Open => true,
        }
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
    sub: u32,
    /// Set by readers, cleared by eviction: the record was used since the hand passed.
    used: AtomicBool,
}

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
                if !self.slot.used.load(Ordering::Relaxed) {
                    self.slot.used.store(true, Ordering::Relaxed);
                }
                Some(value)
            }
            _ => None,
        }
    }
}

impl Slot {
    pub(crate) fn revision(&self) -> Revision {
        Revision {
            main: self.main,
            sub: self.sub,
        }
    }

    /// True unless the newest change is a deletion.
    pub(crate) fn is_live(&self) -> bool {
        !matches!(self.latest, Latest::Gone(TOMBSTONE))
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

#[derive(Debug, Default)]
struct Leaf {
    slots: Vec<Slot>,
    /// Slots whose newest change is no deletion.
    live: u32,
    /// Sum over them of their lengths as a repeated field of an answer.
    bytes: u64,
    /// No change in this leaf is above it.
    main_max: i64,
}

impl Leaf {
    fn add(&mut self, slot: &SlotSums) {
        self.live += slot.live;
        self.bytes += slot.bytes;
        self.main_max = self.main_max.max(slot.main);
    }

    fn remove(&mut self, slot: &SlotSums) {
        self.live -= slot.live;
        self.bytes -= slot.bytes;
    }

    fn resum(&mut self) {
        (self.live, self.bytes) = (0, 0);
        let sums: Vec<SlotSums> = self.slots.iter().map(SlotSums::of).collect();
        sums.iter().for_each(|slot| self.add(slot));
    }

    fn search(&self, key: &[u8]) -> Result<usize, usize> {
        self.slots.binary_search_by(|slot| slot.key[..].cmp(key))
    }
}

/// What a slot contributes to its leaf's sums.
struct SlotSums {
    live: u32,
    bytes: u64,
    main: i64,
}

impl SlotSums {
    fn of(slot: &Slot) -> SlotSums {
        let live = slot.is_live();
        let bytes = if live {
            wire::field_len(slot.latest_len() as usize) as u64
        } else {
            0
        };
        SlotSums {
            live: u32::from(live),
            bytes,
            main: slot.main,
        }
    }
}

#[derive(Debug)]
struct Branch {
    firsts: Vec<Box<[u8]>>,
    leaves: Vec<Leaf>,
}

/// Where a slot is; valid until the index changes its shape.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Position {
    branch: usize,
    leaf: usize,
    slot: usize,
}

/// Running sums of a measured range.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// Keys in the range.
    pub(crate) count: u64,
    /// How many of them the answer takes.
    pub(crate) taken: u64,
    /// Bytes of these as repeated fields.
    pub(crate) bytes: u64,
}

/// See the module's page.
#[derive(Debug)]
pub(crate) struct Index {
    firsts: Vec<Box<[u8]>>,
    branches: Vec<Branch>,
    /// Bytes of records kept in memory.
    cached: usize,
    /// Where eviction goes on.
    hand: Position,
    keys: usize,
}

fn child(firsts: &[Box<[u8]>], key: &[u8]) -> usize {
    firsts
        .partition_point(|first| first[..] <= *key)
        .saturating_sub(1)
}

impl Index {
    pub(crate) fn new() -> Index {
        let branch = Branch {
            firsts: vec![Box::default()],
            leaves: vec![Leaf::default()],
        };
        Index {
            firsts: vec![Box::default()],
            branches: vec![branch],
            cached: 0,
            hand: Position::default(),
            keys: 0,
        }
    }

    /// Slots, deleted keys with history included.
    pub(crate) fn len(&self) -> usize {
        self.keys
    }

    /// Keys that exist now.
    pub(crate) fn live(&self) -> u64 {
        let leaves = self.branches.iter().flat_map(|branch| &branch.leaves);
        leaves.map(|leaf| u64::from(leaf.live)).sum()
    }

    /// Bytes of records kept in memory.
    pub(crate) fn cached(&self) -> usize {
        self.cached
    }

    fn leaf(&self, at: Position) -> &Leaf {
        &self.branches[at.branch].leaves[at.leaf]
    }

    fn leaf_mut(&mut self, at: Position) -> &mut Leaf {
        &mut self.branches[at.branch].leaves[at.leaf]
    }

    /// The position of `key`, or where it would be inserted.
    pub(crate) fn find(&self, key: &[u8]) -> Result<Position, Position> {
        let branch = child(&self.firsts, key);
        let leaf = child(&self.branches[branch].firsts, key);
        match self.branches[branch].leaves[leaf].search(key) {
            Ok(slot) => Ok(Position { branch, leaf, slot }),
            Err(slot) => Err(Position { branch, leaf, slot }),
        }
    }

    pub(crate) fn slot(&self, at: Position) -> &Slot {
        &self.leaf(at).slots[at.slot]
    }

    pub(crate) fn get(&self, key: &[u8]) -> Option<&Slot> {
        self.find(key).ok().map(|at| self.slot(at))
    }

    /// The first slot whose key is not below `key`.
    fn lower_bound(&self, key: &[u8]) -> Position {
        self.find(key).unwrap_or_else(|at| at)
    }

    /// The first position at or after `at` that holds a slot.
    fn settle(&self, mut at: Position) -> Option<Position> {
        while at.slot >= self.leaf(at).slots.len() {
            at = self.next_leaf(at)?;
        }
        Some(at)
    }

    fn next_leaf(&self, at: Position) -> Option<Position> {
        if at.leaf + 1 < self.branches[at.branch].leaves.len() {
            return Some(Position {
                leaf: at.leaf + 1,
                slot: 0,
                ..at
            });
        }
        (at.branch + 1 < self.branches.len()).then_some(Position {
            branch: at.branch + 1,
            ..Position::default()
        })
    }

    /// The separator above a leaf: no key in it reaches this.
    fn leaf_end(&self, at: Position) -> Option<&[u8]> {
        let next = self.next_leaf(at)?;
        Some(if next.branch == at.branch {
            &self.branches[next.branch].firsts[next.leaf]
        } else {
            &self.firsts[next.branch]
        })
    }

    /// Slots from `at` on.
    fn iter_from(&self, at: Position) -> impl Iterator<Item = &Slot> {
        let mut at = Some(at);
        let mut slots = [].iter();
        std::iter::from_fn(move || {
            loop {
                if let Some(slot) = slots.next() {
                    return Some(slot);
                }
                let position = at?;
                slots = self
                    .leaf(position)
                    .slots
                    .get(position.slot..)
                    .unwrap_or(&[])
                    .iter();
                at = self.next_leaf(position);
            }
        })
    }

    /// Slots of a span in key order.
    pub(crate) fn span<'a>(&'a self, span: Span<'a>) -> impl Iterator<Item = &'a Slot> {
        let start = match span.end {
            End::Single => self.find(span.begin).ok(),
            _ => Some(self.lower_bound(span.begin)),
        };
        let slots = start.map(|at| self.iter_from(at));
        slots
            .into_iter()
            .flatten()
            .take_while(move |slot| span.reaches(&slot.key))
    }

    /// Every slot in key order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Slot> {
        self.iter_from(Position::default())
    }

    /// True when a reader at `rev` sees any key.
    pub(crate) fn sees_any(&self, rev: i64) -> bool {
        self.iter().any(|slot| slot.at(rev).is_some())
    }

    /// Positions of a span in key order; updates of slots keep them valid.
    pub(crate) fn positions(&self, span: Span<'_>) -> Vec<Position> {
        let mut found = Vec::new();
        let mut at = match span.end {
            End::Single => self.find(span.begin).ok(),
            _ => self.settle(self.lower_bound(span.begin)),
        };
        while let Some(position) = at {
            if !span.reaches(&self.slot(position).key) {
                break;
            }
            found.push(position);
            at = self.settle(Position {
                slot: position.slot + 1,
                ..position
            });
        }
        found
    }

    /// Adds the part of a span that begins at `from` to `tally`, for a reader at `rev` that takes
    /// `limit` keys. Stops after about `steps` steps and returns where to go on.
    pub(crate) fn tally(
        &self,
        span: Span<'_>,
        from: &[u8],
        (rev, limit): (i64, u64),
        mut steps: usize,
        tally: &mut Tally,
    ) -> Option<Box<[u8]>> {
        let mut at = Some(self.lower_bound(from));
        while let Some(position) = at {
            let leaf = self.leaf(position);
            let end = self.leaf_end(position);
            if steps == 0 {
                return Some(self.leaf_first(position).into());
            }
            let inside = match (span.end, end) {
                (End::Open, _) => true,
                (End::Before(stop), Some(end)) => end <= stop,
                _ => false,
            };
            let live = u64::from(leaf.live);
            let all_or_none = tally.taken == limit || tally.taken + live <= limit;
            if inside && position.slot == 0 && leaf.main_max <= rev && all_or_none {
                steps -= 1;
                tally.count += live;
                if tally.taken < limit {
                    tally.taken += live;
                    tally.bytes += leaf.bytes;
                }
            } else {
                steps = steps.saturating_sub(LEAF_MAX);
                for slot in leaf.slots.get(position.slot..).unwrap_or(&[]) {
                    if !span.reaches(&slot.key) {
                        return None;
                    }
                    let Some(seen) = slot.at(rev) else { continue };
                    tally.count += 1;
                    if tally.taken < limit {
                        tally.taken += 1;
                        tally.bytes += wire::field_len(seen.len()) as u64;
                    }
                }
            }
            at = self.next_leaf(position);
        }
        None
    }

    fn leaf_first(&self, at: Position) -> &[u8] {
        if at.leaf == 0 {
            &self.firsts[at.branch]
        } else {
            &self.branches[at.branch].firsts[at.leaf]
        }
    }

    /// Makes `change` the newest of the slot at `at`; the one before becomes history.
    pub(crate) fn update(&mut self, at: Position, change: Change) {
        let leaf = &mut self.branches[at.branch].leaves[at.leaf];
        let slot = &mut leaf.slots[at.slot];
        let before = SlotSums::of(slot);
        self.cached -= slot.cached_len();
        slot.past.push(Past {
            main: slot.main,
            sub: slot.sub,
            len: slot.latest_len(),
        });
        (slot.main, slot.sub) = (change.revision.main, change.revision.sub);
        (slot.create, slot.version) = (change.create, change.version);
        slot.lease = change.lease;
        slot.latest = change.latest;
        *slot.used.get_mut() = true;
        self.cached += slot.cached_len();
        let after = SlotSums::of(slot);
        leaf.remove(&before);
        leaf.add(&after);
    }

    /// Inserts a key that [`Index::find`] did not find, at the position that it gave.
    pub(crate) fn insert(&mut self, at: Position, key: &[u8], change: Change) {
        let slot = Slot {
            key: key.into(),
            latest: change.latest,
            main: change.revision.main,
            create: change.create,
            version: change.version,
            lease: change.lease,
            past: ThinVec::new(),
            sub: change.revision.sub,
            used: AtomicBool::new(true),
        };
        self.cached += slot.cached_len();
        self.keys += 1;
        let at = self.make_room(at, key);
        let leaf = self.leaf_mut(at);
        leaf.add(&SlotSums::of(&slot));
        leaf.slots.insert(at.slot, slot);
    }

    /// Splits a full leaf. Keys that arrive in order leave full leaves behind.
    fn make_room(&mut self, at: Position, key: &[u8]) -> Position {
        let leaf = self.leaf_mut(at);
        if leaf.slots.len() < LEAF_MAX {
            return at;
        }
        let (moved, first) = if at.slot == LEAF_MAX {
            (
                Leaf {
                    main_max: 0,
                    ..Leaf::default()
                },
                key.into(),
            )
        } else {
            let mut moved = Leaf {
                slots: leaf.slots.split_off(LEAF_MAX / 2),
                ..Leaf::default()
            };
            moved.resum();
            moved.main_max = leaf.main_max;
            leaf.resum();
            let first = moved.slots[0].key.clone();
            (moved, first)
        };
        let branch = &mut self.branches[at.branch];
        branch.leaves.insert(at.leaf + 1, moved);
        branch.firsts.insert(at.leaf + 1, first);
        if branch.leaves.len() > BRANCH_MAX {
            let keep = if at.leaf + 2 == branch.leaves.len() {
                BRANCH_MAX
            } else {
                BRANCH_MAX / 2
            };
            let leaves = branch.leaves.split_off(keep);
            let firsts = branch.firsts.split_off(keep);
            self.firsts.insert(at.branch + 1, firsts[0].clone());
            self.branches
                .insert(at.branch + 1, Branch { firsts, leaves });
        }
        self.find(key).unwrap_or_else(|at| at)
    }

    /// Puts a record that a reader had to fetch back into memory, if its key still has it as the
    /// newest change.
    pub(crate) fn refill(&mut self, key: &[u8], revision: Revision, record: &Value) {
        let Ok(at) = self.find(key) else { return };
        let slot = &mut self.branches[at.branch].leaves[at.leaf].slots[at.slot];
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
            if self.cached <= budget {
                return;
            }
            let mut hand = self.hand;
            if hand.branch >= self.branches.len()
                || hand.leaf >= self.branches[hand.branch].leaves.len()
            {
                hand = Position::default();
            }
            let Some(at) = self
                .settle(hand)
                .or_else(|| self.settle(Position::default()))
            else {
                return;
            };
            self.hand = Position {
                slot: at.slot + 1,
                ..at
            };
            let slot = &mut self.branches[at.branch].leaves[at.leaf].slots[at.slot];
            if !std::mem::replace(slot.used.get_mut(), false)
                && let Latest::Cached(value) = &slot.latest
            {
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
        let mut at = Some(Position {
            slot: 0,
            ..self.lower_bound(from)
        });
        for _ in 0..leaves {
            let Some(position) = at else { break };
            let leaf = &mut self.branches[position.branch].leaves[position.leaf];
            let before = leaf.slots.len();
            leaf.slots.retain_mut(|slot| match slot.compact(rev) {
                None => false,
                Some(n) => {
                    *kept += n as u64;
                    true
                }
            });
            let removed = before - leaf.slots.len();
            if leaf.slots.capacity() > 2 * leaf.slots.len().max(4) {
                leaf.slots.shrink_to_fit();
            }
            self.keys -= removed;
            at = self.next_leaf(position);
        }
        let next = at.map(|position| self.leaf_first(position).into());
        self.drop_empty(from, at);
        next
    }

    /// Removes the empty leaves between `from` and `end`, and branches that lost all of theirs.
    fn drop_empty(&mut self, from: &[u8], end: Option<Position>) {
        let first = self.lower_bound(from).branch;
        let last = end.map_or(self.branches.len() - 1, |end| end.branch);
        for branch in (first..=last).rev() {
            let Branch { firsts, leaves } = &mut self.branches[branch];
            let mut keep = leaves.iter().map(|leaf| !leaf.slots.is_empty());
            firsts.retain(|_| keep.next().unwrap_or(true));
            leaves.retain(|leaf| !leaf.slots.is_empty());
            if leaves.is_empty() {
                self.branches.remove(branch);
                self.firsts.remove(branch);
            }
        }
        if self.branches.is_empty() {
            let leaves = vec![Leaf::default()];
            self.branches.push(Branch {
                firsts: vec![Box::default()],
                leaves,
            });
            self.firsts.push(Box::default());
        }
        // The first separators must lie below every key.
        self.firsts[0] = Box::default();
        self.branches[0].firsts[0] = Box::default();
    }
}
