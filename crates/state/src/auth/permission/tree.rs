//! The tree in which etcd keeps permissions: a red-black tree whose nodes know the greatest end
//! below them.
//!
//! For ranges that end before they begin, or there, what etcd finds there depends on the shape of its tree,
//! and what it finds decides whether an entry of the log changes anything. Members of a mixed
//! cluster must find the same, so here is a tree of the same shape, for these ranges alone.

use std::cmp::Ordering;

use api::pb::authpb::Permission;

/// A bound of a range: the empty one lies behind all keys.
type Bound = [u8];

fn order(one: &Bound, other: &Bound) -> Ordering {
    (one.is_empty(), one).cmp(&(other.is_empty(), other))
}

/// A range with its bounds. Permissions of old releases, and requests, may be upside down.
#[derive(Clone, Debug, Default)]
struct Range {
    begin: Vec<u8>,
    end: Vec<u8>,
}

impl Range {
    fn new(key: &[u8], range_end: &[u8]) -> Range {
        let end = match range_end {
            [] => [key, &[0]].concat(),
            [0] => Vec::new(),
            end => end.to_vec(),
        };
        let begin = key.to_vec();
        Range { begin, end }
    }

    fn order(&self, other: &Range) -> Ordering {
        order(&self.begin, &other.begin).then_with(|| order(&self.end, &other.end))
    }
}

/// On which side of `[begin, end)` a range lies; `Equal` when they have something in common. As
/// etcd asks, also of ranges that are upside down.
fn side(range: &Range, begin: &Bound, end: &Bound) -> Ordering {
    let starts_left = order(&range.begin, begin).is_lt();
    if starts_left && order(&range.end, begin).is_le() {
        Ordering::Less
    } else if order(&range.begin, end).is_ge() {
        Ordering::Greater
    } else {
        Ordering::Equal
    }
}

/// Position of a node.
type At = u32;
/// No node.
const NONE: At = 0;
const LEFT: usize = 0;
const RIGHT: usize = 1;

#[derive(Debug, Default)]
struct Node {
    range: Range,
    /// The greatest end in the tree below and here.
    end_max: Vec<u8>,
    is_red: bool,
    parent: At,
    children: [At; 2],
}

#[derive(Debug)]
pub(super) struct Tree {
    /// The first stands for none, and is black.
    nodes: Vec<Node>,
    root: At,
}

impl Tree {
    /// Of permissions in the order in which etcd inserts them.
    pub(super) fn of<'a>(permissions: impl Iterator<Item = &'a Permission>) -> Tree {
        let mut tree = Tree {
            nodes: vec![Node::default()],
            root: NONE,
        };
        for permission in permissions {
            tree.insert(Range::new(&permission.key, &permission.range_end));
        }
        tree.note_ends(tree.root);
        tree
    }

    /// Whether etcd finds a request's range in the permissions.
    pub(super) fn covers(&self, key: &[u8], range_end: &[u8]) -> bool {
        let wanted = Range::new(key, range_end);
        let mut found = None;
        self.search(self.root, &wanted, &mut found)
            && found.is_some_and(|found| {
                order(&found.end, &wanted.end).is_ge() && order(&found.begin, &wanted.begin).is_le()
            })
    }

    fn node(&self, at: At) -> &Node {
        &self.nodes[at as usize]
    }

    fn node_mut(&mut self, at: At) -> &mut Node {
        &mut self.nodes[at as usize]
    }

    /// Joins what has something in common with the wanted range, from left to right; false at the
    /// first gap.
    fn search(&self, at: At, wanted: &Range, found: &mut Option<Range>) -> bool {
        if at == NONE {
            return true;
        }
        let node = self.node(at);
        let [left, right] = node.children;
        match side(wanted, &node.range.begin, &node.range.end) {
            Ordering::Less => self.search(left, wanted, found),
            Ordering::Greater => {
                let below = Range {
                    begin: node.range.begin.clone(),
                    end: node.end_max.clone(),
                };
                side(&below, &wanted.begin, &wanted.end).is_ne()
                    || self.search(left, wanted, found) && self.search(right, wanted, found)
            }
            Ordering::Equal => {
                self.search(left, wanted, found)
                    && join(found, &node.range)
                    && self.search(right, wanted, found)
            }
        }
    }

    fn insert(&mut self, range: Range) {
        let at = At::try_from(self.nodes.len()).expect("an entry of the log has fewer permissions");
        let mut parent = NONE;
        let mut next = self.root;
        let mut place = LEFT;
        while next != NONE {
            parent = next;
            let is_less = range.order(&self.node(next).range).is_lt();
            place = if is_less { LEFT } else { RIGHT };
            next = self.node(next).children[place];
        }
        self.nodes.push(Node {
            range,
            is_red: true,
            parent,
            ..Node::default()
        });
        if parent == NONE {
            self.root = at;
        } else {
            self.node_mut(parent).children[place] = at;
        }
        self.settle(at);
    }

    /// Makes the tree red-black again above a new node, by the textbook: a red uncle takes the
    /// colour over, a black one has the tree turned.
    fn settle(&mut self, mut at: At) {
        while self.node(self.node(at).parent).is_red {
            let parent = self.node(at).parent;
            let grand = self.node(parent).parent;
            let place = self.place(parent);
            let uncle = self.node(grand).children[1 - place];
            if self.node(uncle).is_red {
                self.node_mut(uncle).is_red = false;
                self.node_mut(parent).is_red = false;
                self.node_mut(grand).is_red = true;
                at = grand;
                continue;
            }
            if self.place(at) != place {
                self.turn(parent, place);
                at = parent;
            }
            let parent = self.node(at).parent;
            self.node_mut(parent).is_red = false;
            self.node_mut(grand).is_red = true;
            self.turn(grand, 1 - place);
        }
        let root = self.root;
        self.node_mut(root).is_red = false;
    }

    /// Which child a node is.
    fn place(&self, at: At) -> usize {
        let parent = self.node(at).parent;
        usize::from(self.node(parent).children[RIGHT] == at)
    }

    /// Turns the tree below a node towards a side: its child of the other side takes its place.
    fn turn(&mut self, at: At, towards: usize) {
        let up = self.node(at).children[1 - towards];
        let moved = self.node(up).children[towards];
        let parent = self.node(at).parent;
        let place = self.place(at);
        self.node_mut(at).children[1 - towards] = moved;
        if moved != NONE {
            self.node_mut(moved).parent = at;
        }
        self.node_mut(up).children[towards] = at;
        self.node_mut(up).parent = parent;
        self.node_mut(at).parent = up;
        if parent == NONE {
            self.root = up;
        } else {
            self.node_mut(parent).children[place] = up;
        }
    }

    fn note_ends(&mut self, at: At) {
        if at == NONE {
            return;
        }
        let mut end_max = self.node(at).range.end.clone();
        for child in self.node(at).children.into_iter().filter(|at| *at != NONE) {
            self.note_ends(child);
            let below = &self.node(child).end_max;
            if order(below, &end_max).is_gt() {
                end_max.clone_from(below);
            }
        }
        self.node_mut(at).end_max = end_max;
    }
}

/// Adds a range that begins no earlier than those before; false when a gap lies between.
fn join(found: &mut Option<Range>, range: &Range) -> bool {
    let Some(before) = found else {
        *found = Some(range.clone());
        return true;
    };
    if order(&before.end, &range.begin).is_lt() {
        return false;
    }
    if order(&range.end, &before.end).is_gt() {
        before.end.clone_from(&range.end);
    }
    true
}
