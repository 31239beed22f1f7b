//! What a user's roles allow, as merged intervals of keys.

mod tree;

use std::collections::BTreeMap;
use std::sync::OnceLock;

use api::pb::authpb::permission::Type;
use api::pb::authpb::{Permission, Role, User};

use tree::Tree;

/// What a request does with keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Read,
    Write,
}

/// Half-open, `None` for an open end; sorted, and apart from each other.
#[derive(Debug, Default)]
struct Intervals(Vec<(Vec<u8>, Option<Vec<u8>>)>);

/// What a user may do of one kind.
#[derive(Debug, Default)]
struct Side {
    intervals: Intervals,
    /// The same for ranges that hold no key; made when the first is asked about.
    tree: OnceLock<Tree>,
}

/// What a user may read and write.
#[derive(Debug, Default)]
pub(super) struct Permissions {
    read: Side,
    write: Side,
}

/// A user with the roles that there are.
#[derive(Clone, Copy)]
pub(super) struct Granted<'a> {
    pub(super) user: &'a User,
    pub(super) roles: &'a BTreeMap<String, Role>,
}

impl<'a> Granted<'a> {
    /// The permissions of a kind, in the order in which they are stored. A number outside the
    /// enumeration may be stored and allows nothing.
    fn of_kind(self, kind: Kind) -> impl Iterator<Item = &'a Permission> {
        let roles = self.user.roles.iter();
        let roles = roles.filter_map(move |role| self.roles.get(role));
        roles
            .flat_map(|role| &role.key_permission)
            .filter(
                move |permission| match Type::try_from(permission.perm_type) {
                    Ok(Type::Readwrite) => true,
                    Ok(Type::Read) => kind == Kind::Read,
                    Ok(Type::Write) => kind == Kind::Write,
                    Err(_) => false,
                },
            )
    }
}

/// Whether a request's range ends before it begins, or there.
fn holds_no_key(key: &[u8], range_end: &[u8]) -> bool {
    !matches!(range_end, [] | [0]) && range_end <= key
}

/// The end of a request's or a permission's range.
fn end_of(key: &[u8], range_end: &[u8]) -> Option<Vec<u8>> {
    match range_end {
        [] => Some([key, &[0]].concat()),
        [0] => None,
        end => Some(end.to_vec()),
    }
}

impl Intervals {
    /// Sorts and merges those that touch.
    fn settle(&mut self) {
        self.0.sort();
        let mut merged: Vec<(Vec<u8>, Option<Vec<u8>>)> = Vec::new();
        for (begin, end) in self.0.drain(..) {
            match merged.last_mut() {
                Some((_, None)) => {}
                Some((_, Some(last))) if begin <= *last => match end {
                    Some(end) if end <= *last => {}
                    end => merged.last_mut().expect("it was just seen").1 = end,
                },
                _ => merged.push((begin, end)),
            }
        }
        self.0 = merged;
    }

    fn cover(&self, key: &[u8], range_end: &[u8]) -> bool {
        let after = self.0.partition_point(|(begin, _)| begin[..] <= *key);
        let Some((_, end)) = after.checked_sub(1).map(|at| &self.0[at]) else {
            return false;
        };
        let Some(end) = end else { return true };
        key < &end[..] && end_of(key, range_end).is_some_and(|wanted| wanted <= *end)
    }
}

impl Side {
    fn of(granted: Granted<'_>, kind: Kind) -> Side {
        let mut intervals = Intervals::default();
        for permission in granted.of_kind(kind) {
            let end = end_of(&permission.key, &permission.range_end);
            let is_empty = end.as_ref().is_some_and(|end| *end <= permission.key);
            // Releases before 3.5 stored such; etcd finds no key in them either.
            if !permission.key.is_empty() && !is_empty {
                intervals.0.push((permission.key.to_vec(), end));
            }
        }
        intervals.settle();
        Side {
            intervals,
            tree: OnceLock::new(),
        }
    }
}

impl Permissions {
    pub(super) fn of(granted: Granted<'_>) -> Permissions {
        Permissions {
            read: Side::of(granted, Kind::Read),
            write: Side::of(granted, Kind::Write),
        }
    }

    /// Whether they allow something with the keys of a request, `granted` being what they were
    /// made of.
    pub(super) fn allow(
        &self,
        granted: Granted<'_>,
        kind: Kind,
        key: &[u8],
        range_end: &[u8],
    ) -> bool {
        let side = match kind {
            Kind::Read => &self.read,
            Kind::Write => &self.write,
        };
        if holds_no_key(key, range_end) {
            let tree = side.tree.get_or_init(|| Tree::of(granted.of_kind(kind)));
            return tree.covers(key, range_end);
        }
        side.intervals.cover(key, range_end)
    }
}

#[cfg(test)]
mod tests;
