//! Which watchers want a key: a hash map for single keys, a tree of intervals for ranges.
//!
//! The tree is a treap over distinct ranges, ordered by begin and end; every node knows the
//! furthest end below it, so that finding the ranges around a key visits only branches that may
//! have one.

use std::cmp::Ordering;
use std::collections::HashMap;

use bytes::Bytes;
use slab::Slab;

#[cfg(test)]
mod tests;

/// Names a watcher in the caller's table.
pub(super) type WatcherId = u32;

/// What a watcher watches.
pub(super) use state::WatchKeys as Keys;

/// Bytes of the keys that are kept.
pub(super) fn len(keys: &Keys) -> usize {
    match keys {
        Keys::One(key) => key.len(),
        Keys::Range(begin, end) => begin.len() + end.as_ref().map_or(0, Bytes::len),
    }
}

#[derive(Default)]
pub(super) struct Matcher {
    exact: HashMap<Bytes, Vec<WatcherId>>,
    ranges: Ranges,
}

impl Matcher {
    pub(super) fn insert(&mut self, keys: &Keys, id: WatcherId) {
        match keys {
            Keys::One(key) => self.exact.entry(key.clone()).or_default().push(id),
            Keys::Range(begin, end) => self.ranges.insert(begin, end, id),
        }
    }

    pub(super) fn remove(&mut self, keys: &Keys, id: WatcherId) {
        match keys {
            Keys::One(key) => {
                if let Some(ids) = self.exact.get_mut(key) {
                    take_out(ids, id);
                    if ids.is_empty() {
                        self.exact.remove(key);
                    }
                }
            }
            Keys::Range(begin, end) => self.ranges.remove(begin, end, id),
        }
    }

    /// Calls `each` for every watcher of a key, once.
    pub(super) fn for_each(&self, key: &[u8], mut each: impl FnMut(WatcherId)) {
        if let Some(ids) = self.exact.get(key) {
            ids.iter().copied().for_each(&mut each);
        }
        self.ranges.around(key, &mut each);
    }
}

/// Removes an id; quick for one of the last, since a stream that ends removes its newest first.
fn take_out(ids: &mut Vec<WatcherId>, id: WatcherId) {
    if let Some(at) = ids.iter().rposition(|&other| other == id) {
        ids.swap_remove(at);
    }
}

/// A range that somebody watches.
struct Node {
    begin: Bytes,
    /// `None` lies behind every key.
    end: Option<Bytes>,
    ids: Vec<WatcherId>,
    /// The furthest end of this node and all below it.
    furthest: Option<Bytes>,
    /// Below both children's: this keeps the tree flat, whatever clients ask for.
    rank: u64,
    left: Link,
    right: Link,
}

type Link = Option<usize>;

struct Ranges {
    nodes: Slab<Node>,
    root: Link,
    /// The last rank that was drawn.
    drawn: u64,
}

impl Default for Ranges {
    fn default() -> Self {
        Ranges {
            nodes: Slab::new(),
            root: None,
            drawn: 0x9e37_79b9_7f4a_7c15,
        }
    }
}

fn order_ends(a: &Option<Bytes>, b: &Option<Bytes>) -> Ordering {
    match (a, b) {
        (None, None) => Ordering::Equal,
        (None, Some(_)) => Ordering::Greater,
        (Some(_), None) => Ordering::Less,
        (Some(a), Some(b)) => a.cmp(b),
    }
}

impl Ranges {
    fn draw(&mut self) -> u64 {
        self.drawn ^= self.drawn << 13;
        self.drawn ^= self.drawn >> 7;
        self.drawn ^= self.drawn << 17;
        self.drawn
    }

    fn order(&self, at: usize, begin: &Bytes, end: &Option<Bytes>) -> Ordering {
        let node = &self.nodes[at];
        begin
            .cmp(&node.begin)
            .then_with(|| order_ends(end, &node.end))
    }

    fn find(&self, begin: &Bytes, end: &Option<Bytes>) -> Link {
        let mut link = self.root;
        while let Some(at) = link {
            link = match self.order(at, begin, end) {
                Ordering::Equal => return Some(at),
                Ordering::Less => self.nodes[at].left,
                Ordering::Greater => self.nodes[at].right,
            };
        }
        None
    }

    /// Brings a node's `furthest` up to date with its children's.
    fn refresh(&mut self, at: usize) {
        let node = &self.nodes[at];
        let mut furthest = &node.end;
        for child in [node.left, node.right].into_iter().flatten() {
            let other = &self.nodes[child].furthest;
            if order_ends(other, furthest).is_gt() {
                furthest = other;
            }
        }
        let furthest = furthest.clone();
        self.nodes[at].furthest = furthest;
    }

    /// Splits a tree into what lies before a range and the rest, which does not have it.
    fn split(&mut self, link: Link, begin: &Bytes, end: &Option<Bytes>) -> (Link, Link) {
        let Some(at) = link else {
            return (None, None);
        };
        if self.order(at, begin, end).is_gt() {
            let (before, behind) = self.split(self.nodes[at].right, begin, end);
            self.nodes[at].right = before;
            self.refresh(at);
            (Some(at), behind)
        } else {
            let (before, behind) = self.split(self.nodes[at].left, begin, end);
            self.nodes[at].left = behind;
            self.refresh(at);
            (before, Some(at))
        }
    }

    /// Joins two trees, all of `left` before all of `right`.
    fn join(&mut self, left: Link, right: Link) -> Link {
        let (Some(a), Some(b)) = (left, right) else {
            return left.or(right);
        };
        if self.nodes[a].rank < self.nodes[b].rank {
            self.nodes[a].right = self.join(self.nodes[a].right, Some(b));
            self.refresh(a);
            Some(a)
        } else {
            self.nodes[b].left = self.join(Some(a), self.nodes[b].left);
            self.refresh(b);
            Some(b)
        }
    }

    fn insert(&mut self, begin: &Bytes, end: &Option<Bytes>, id: WatcherId) {
        if let Some(at) = self.find(begin, end) {
            self.nodes[at].ids.push(id);
            return;
        }
        let rank = self.draw();
        let node = self.nodes.insert(Node {
            begin: begin.clone(),
            end: end.clone(),
            ids: vec![id],
            furthest: end.clone(),
            rank,
            left: None,
            right: None,
        });
        let (before, behind) = self.split(self.root, begin, end);
        let before = self.join(before, Some(node));
        self.root = self.join(before, behind);
    }

    fn remove(&mut self, begin: &Bytes, end: &Option<Bytes>, id: WatcherId) {
        let Some(at) = self.find(begin, end) else {
            return;
        };
        take_out(&mut self.nodes[at].ids, id);
        if self.nodes[at].ids.is_empty() {
            self.root = self.cut(self.root, begin, end);
        }
    }

    /// Takes the node of a range out of a tree.
    fn cut(&mut self, link: Link, begin: &Bytes, end: &Option<Bytes>) -> Link {
        let at = link?;
        match self.order(at, begin, end) {
            Ordering::Equal => {
                let node = self.nodes.remove(at);
                return self.join(node.left, node.right);
            }
            Ordering::Less => self.nodes[at].left = self.cut(self.nodes[at].left, begin, end),
            Ordering::Greater => self.nodes[at].right = self.cut(self.nodes[at].right, begin, end),
        }
        self.refresh(at);
        Some(at)
    }

    fn around(&self, key: &[u8], each: &mut impl FnMut(WatcherId)) {
        let mut stack: Vec<usize> = self.root.into_iter().collect();
        while let Some(at) = stack.pop() {
            let node = &self.nodes[at];
            if node.furthest.as_ref().is_some_and(|end| **end <= *key) {
                continue;
            }
            stack.extend(node.left);
            if *node.begin <= *key {
                stack.extend(node.right);
                if node.end.as_ref().is_none_or(|end| **end > *key) {
                    node.ids.iter().copied().for_each(&mut *each);
                }
            }
        }
    }
}
