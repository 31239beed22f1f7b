//! Keys in order: branches of leaves of slots.
//!
//! ```text
//!   branches   [first key | Branch]   at most 128 leaves each
//!   leaves     [first key | leaf id]  at most 64 slots each, with sums over them
//! ```
//!
//! First keys are separators: a lower bound of what is below them, not necessarily present. A
//! leaf keeps what its keys begin with, and eight bytes of each after that, so that a search
//! hardly ever looks at a key.

use super::{End, Slab, Slot, Span};
use crate::wire;

const LEAF_MAX: usize = 64;
const BRANCH_MAX: usize = 128;

/// What a slot contributes to its leaf's sums.
pub(super) struct Sums {
    live: u32,
    bytes: u64,
    main: i64,
}

impl Sums {
    pub(super) fn of(slot: &Slot) -> Sums {
        let live = slot.is_live();
        let bytes = if live {
            wire::field_len(slot.latest_len() as usize) as u64
        } else {
            0
        };
        Sums {
            live: u32::from(live),
            bytes,
            main: slot.main,
        }
    }
}

#[derive(Debug, Default)]
struct Leaf {
    ids: Vec<u32>,
    /// Of each key the eight bytes after `prefix`, zero-padded.
    heads: Vec<u64>,
    /// What all keys begin with.
    prefix: Box<[u8]>,
    /// Slots whose newest change is no deletion.
    live: u32,
    /// Sum over them of their lengths as a repeated field of an answer.
    bytes: u64,
    /// No change in this leaf is above it.
    main_max: i64,
}

/// The first eight bytes as a number that orders like them.
fn head_of(rest: &[u8]) -> u64 {
    let mut bytes = [0; 8];
    let len = rest.len().min(8);
    bytes[..len].copy_from_slice(&rest[..len]);
    u64::from_be_bytes(bytes)
}

fn common_len(a: &[u8], b: &[u8]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

impl Leaf {
    fn add(&mut self, sums: &Sums) {
        self.live += sums.live;
        self.bytes += sums.bytes;
        self.main_max = self.main_max.max(sums.main);
    }

    /// The place of the first key that is not below `key`.
    fn lower_bound(&self, key: &[u8], slots: &Slab) -> usize {
        let Some(rest) = key.strip_prefix(&self.prefix[..]) else {
            return if *key < self.prefix[..] {
                0
            } else {
                self.ids.len()
            };
        };
        let head = head_of(rest);
        let first = self.heads.partition_point(|&other| other < head);
        let same = self.heads[first..].partition_point(|&other| other == head);
        let ties = &self.ids[first..first + same];
        first + ties.partition_point(|&id| slots.slot(id).key[..] < *key)
    }

    /// Takes the longest prefix that all keys share, and the heads after it.
    fn reprefix(&mut self, slots: &Slab) {
        let (Some(&first), Some(&last)) = (self.ids.first(), self.ids.last()) else {
            (self.prefix, self.heads) = (Box::default(), Vec::new());
            return;
        };
        let (first, last) = (&slots.slot(first).key, &slots.slot(last).key);
        let len = common_len(first, last);
        self.prefix = first[..len].into();
        self.heads.clear();
        self.heads.extend(
            self.ids
                .iter()
                .map(|&id| head_of(&slots.slot(id).key[len..])),
        );
    }

    fn insert(&mut self, id: u32, slots: &Slab) {
        let slot = slots.slot(id);
        self.add(&Sums::of(slot));
        let at = self.lower_bound(&slot.key, slots);
        self.ids.insert(at, id);
        match slot.key.strip_prefix(&self.prefix[..]) {
            Some(rest) if self.ids.len() > 1 => self.heads.insert(at, head_of(rest)),
            _ => self.reprefix(slots),
        }
    }

    /// Moves the slots from `at` on into a new leaf.
    fn split_off(&mut self, at: usize, slots: &mut Slab, id: u32) -> Leaf {
        let mut moved = Leaf {
            ids: self.ids.split_off(at),
            heads: self.heads.split_off(at),
            prefix: self.prefix.clone(),
            main_max: self.main_max,
            ..Leaf::default()
        };
        for &slot in &moved.ids {
            let slot = slots.slot_mut(slot);
            slot.leaf = id;
            let sums = Sums::of(slot);
            moved.live += sums.live;
            moved.bytes += sums.bytes;
        }
        self.live -= moved.live;
        self.bytes -= moved.bytes;
        self.sharpen(slots);
        moved.sharpen(slots);
        moved
    }

    /// Renews the heads when half of their bytes tell nothing.
    fn sharpen(&mut self, slots: &Slab) {
        if let (Some(first), Some(last)) = (self.heads.first(), self.heads.last())
            && (first ^ last) >> 32 == 0
        {
            self.reprefix(slots);
        }
    }
}

#[derive(Debug, Default)]
struct Branch {
    firsts: Vec<Box<[u8]>>,
    leaves: Vec<u32>,
}

/// Where a leaf is; valid until the order changes its shape.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct At {
    branch: usize,
    leaf: usize,
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
pub(super) struct Order {
    firsts: Vec<Box<[u8]>>,
    branches: Vec<Branch>,
    leaves: Vec<Leaf>,
    free: Vec<u32>,
}

fn child(firsts: &[Box<[u8]>], key: &[u8]) -> usize {
    firsts
        .partition_point(|first| first[..] <= *key)
        .saturating_sub(1)
}

impl Order {
    pub(super) fn new() -> Order {
        Order {
            firsts: vec![Box::default()],
            branches: vec![Branch {
                firsts: vec![Box::default()],
                leaves: vec![0],
            }],
            leaves: vec![Leaf::default()],
            free: Vec::new(),
        }
    }

    pub(super) fn live(&self) -> u64 {
        self.leaves.iter().map(|leaf| u64::from(leaf.live)).sum()
    }

    /// Replaces what a slot contributes to its leaf.
    pub(super) fn change(&mut self, leaf: u32, before: &Sums, after: &Sums) {
        let leaf = &mut self.leaves[leaf as usize];
        leaf.live -= before.live;
        leaf.bytes -= before.bytes;
        leaf.add(after);
    }

    fn locate(&self, key: &[u8]) -> At {
        let branch = child(&self.firsts, key);
        At {
            branch,
            leaf: child(&self.branches[branch].firsts, key),
        }
    }

    fn leaf(&self, at: At) -> &Leaf {
        &self.leaves[self.branches[at.branch].leaves[at.leaf] as usize]
    }

    fn next(&self, at: At) -> Option<At> {
        if at.leaf + 1 < self.branches[at.branch].leaves.len() {
            return Some(At {
                leaf: at.leaf + 1,
                ..at
            });
        }
        (at.branch + 1 < self.branches.len()).then_some(At {
            branch: at.branch + 1,
            leaf: 0,
        })
    }

    /// The separator below a leaf.
    fn first(&self, at: At) -> &[u8] {
        match at.leaf {
            0 => &self.firsts[at.branch],
            leaf => &self.branches[at.branch].firsts[leaf],
        }
    }

    /// Slots of a span, leaf by leaf. The span is more than a single key.
    pub(super) fn runs<'a>(&'a self, span: Span<'a>, slots: &'a Slab) -> Runs<'a> {
        Runs {
            order: self,
            slots,
            span,
            at: Some(self.locate(span.begin)),
            begin: true,
        }
    }

    /// Adds the part of a span that begins at `from` to `tally`, for a reader at `rev` that takes
    /// `limit` keys. Stops after about `steps` steps and returns where to go on.
    pub(super) fn tally(
        &self,
        span: Span<'_>,
        from: &[u8],
        (rev, limit): (i64, u64),
        (mut steps, slots): (usize, &Slab),
        tally: &mut Tally,
    ) -> Option<Box<[u8]>> {
        let mut at = Some(self.locate(from));
        let mut begin = self.leaf(self.locate(from)).lower_bound(from, slots);
        while let Some(position) = at {
            let leaf = self.leaf(position);
            if steps == 0 {
                return Some(self.first(position).into());
            }
            let next = self.next(position);
            let end = self.end_in(span, leaf, next, slots);
            let live = u64::from(leaf.live);
            let all_or_none = tally.taken == limit || tally.taken + live <= limit;
            if begin == 0 && end == leaf.ids.len() && leaf.main_max <= rev && all_or_none {
                steps -= 1;
                tally.count += live;
                if tally.taken < limit {
                    tally.taken += live;
                    tally.bytes += leaf.bytes;
                }
            } else {
                steps = steps.saturating_sub(LEAF_MAX);
                for &id in leaf.ids.get(begin..end).unwrap_or(&[]) {
                    let Some(seen) = slots.slot(id).at(rev) else {
                        continue;
                    };
                    tally.count += 1;
                    if tally.taken < limit {
                        tally.taken += 1;
                        tally.bytes += wire::field_len(seen.len()) as u64;
                    }
                }
            }
            if end < leaf.ids.len() {
                return None;
            }
            begin = 0;
            at = next;
        }
        None
    }

    /// How many slots of a leaf lie before the span's end.
    fn end_in(&self, span: Span<'_>, leaf: &Leaf, next: Option<At>, slots: &Slab) -> usize {
        match span.end {
            End::Open => leaf.ids.len(),
            End::Before(end) if next.is_some_and(|next| self.first(next) <= end) => leaf.ids.len(),
            End::Before(end) => leaf.lower_bound(end, slots),
            End::Single => {
                let at = leaf.lower_bound(span.begin, slots);
                let id = leaf.ids.get(at);
                at + usize::from(id.is_some_and(|&id| *slots.slot(id).key == *span.begin))
            }
        }
    }

    /// Inserts a new slot.
    pub(super) fn insert(&mut self, id: u32, slots: &mut Slab) {
        let mut at = self.locate(&slots.slot(id).key);
        if self.leaf(at).ids.len() >= LEAF_MAX {
            self.split(at, id, slots);
            at = self.locate(&slots.slot(id).key);
        }
        let leaf = self.branches[at.branch].leaves[at.leaf];
        slots.slot_mut(id).leaf = leaf;
        self.leaves[leaf as usize].insert(id, slots);
    }

    /// Splits a full leaf for a new slot. Keys that arrive in order leave full leaves behind.
    fn split(&mut self, at: At, id: u32, slots: &mut Slab) {
        let new = self.free.pop().unwrap_or_else(|| {
            self.leaves.push(Leaf::default());
            (self.leaves.len() - 1) as u32
        });
        let key = slots.slot(id).key.clone();
        let leaf = &mut self.leaves[self.branches[at.branch].leaves[at.leaf] as usize];
        let at_end = leaf.lower_bound(&key, slots) == LEAF_MAX;
        let (moved, first) = if at_end {
            (Leaf::default(), key)
        } else {
            let moved = leaf.split_off(LEAF_MAX / 2, slots, new);
            let first = slots.slot(moved.ids[0]).key.clone();
            (moved, first)
        };
        self.leaves[new as usize] = moved;
        let branch = &mut self.branches[at.branch];
        branch.leaves.insert(at.leaf + 1, new);
        branch.firsts.insert(at.leaf + 1, first);
        if branch.leaves.len() > BRANCH_MAX {
            let at_end = at.leaf + 2 == branch.leaves.len();
            let keep = if at_end { BRANCH_MAX } else { BRANCH_MAX / 2 };
            let leaves = branch.leaves.split_off(keep);
            let firsts = branch.firsts.split_off(keep);
            self.firsts.insert(at.branch + 1, firsts[0].clone());
            self.branches
                .insert(at.branch + 1, Branch { firsts, leaves });
        }
    }

    /// Asks `keep` about the slots of about `count` leaves from `from` on, takes those out that it
    /// refuses (they are neither live nor visited again) and returns where to go on.
    pub(super) fn retain(
        &mut self,
        from: &[u8],
        count: usize,
        slots: &mut Slab,
        mut keep: impl FnMut(&mut Slab, u32) -> bool,
    ) -> Option<Box<[u8]>> {
        let mut at = Some(self.locate(from));
        for _ in 0..count {
            let Some(position) = at else { break };
            let leaf = self.branches[position.branch].leaves[position.leaf];
            let leaf = &mut self.leaves[leaf as usize];
            let before = leaf.ids.len();
            let mut kept = Vec::with_capacity(before);
            leaf.ids.retain(|&id| {
                kept.push(keep(slots, id));
                kept.last() == Some(&true)
            });
            if leaf.ids.len() < before {
                let mut kept = kept.into_iter();
                leaf.heads.retain(|_| kept.next() == Some(true));
                leaf.ids.shrink_to_fit();
                leaf.heads.shrink_to_fit();
            }
            at = self.next(position);
        }
        let next = at.map(|position| self.first(position).into());
        self.drop_empty(from, at);
        next
    }

    /// Removes the empty leaves between `from` and `end`, and branches that lost all of theirs.
    fn drop_empty(&mut self, from: &[u8], end: Option<At>) {
        let first = self.locate(from).branch;
        let last = end.map_or(self.branches.len() - 1, |end| end.branch);
        for at in (first..=last).rev() {
            let Branch { firsts, leaves } = &mut self.branches[at];
            let empty = |id: u32| self.leaves[id as usize].ids.is_empty();
            let mut kept = leaves.iter().map(|&id| !empty(id));
            firsts.retain(|_| kept.next() == Some(true));
            leaves.retain(|&id| {
                let empty = self.leaves[id as usize].ids.is_empty();
                if empty {
                    self.leaves[id as usize] = Leaf::default();
                    self.free.push(id);
                }
                !empty
            });
            if leaves.is_empty() {
                self.branches.remove(at);
                self.firsts.remove(at);
            }
        }
        if self.branches.is_empty() {
            *self = Order::new();
        }
        // The first separators must lie below every key.
        self.firsts[0] = Box::default();
        self.branches[0].firsts[0] = Box::default();
    }
}

/// Slots of a span, one leaf's run after the other; runs may be empty.
pub(crate) struct Runs<'a> {
    order: &'a Order,
    slots: &'a Slab,
    span: Span<'a>,
    at: Option<At>,
    /// The next run is the first.
    begin: bool,
}

impl<'a> Iterator for Runs<'a> {
    type Item = &'a [u32];

    fn next(&mut self) -> Option<&'a [u32]> {
        let at = self.at?;
        let leaf = self.order.leaf(at);
        let next = self.order.next(at);
        let begin = match std::mem::take(&mut self.begin) {
            true => leaf.lower_bound(self.span.begin, self.slots),
            false => 0,
        };
        let end = self.order.end_in(self.span, leaf, next, self.slots);
        self.at = if end < leaf.ids.len() { None } else { next };
        Some(leaf.ids.get(begin..end).unwrap_or(&[]))
    }
}
