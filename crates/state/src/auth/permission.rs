//! What a user's roles allow, as merged intervals of keys.

use std::collections::BTreeMap;

use api::pb::authpb::permission::Type;
use api::pb::authpb::{Role, User};

/// What a request does with keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Read,
    Write,
}

/// Half-open, `None` for an open end; sorted, and apart from each other.
#[derive(Debug, Default)]
struct Intervals(Vec<(Vec<u8>, Option<Vec<u8>>)>);

/// The intervals that a user may read and write.
#[derive(Debug, Default)]
pub(super) struct Permissions {
    read: Intervals,
    write: Intervals,
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

impl Permissions {
    pub(super) fn of(user: &User, roles: &BTreeMap<String, Role>) -> Permissions {
        let mut all = Permissions::default();
        let roles = user.roles.iter().filter_map(|role| roles.get(role));
        for permission in roles.flat_map(|role| &role.key_permission) {
            let end = end_of(&permission.key, &permission.range_end);
            let is_empty = end.as_ref().is_some_and(|end| *end <= permission.key);
            if permission.key.is_empty() || is_empty {
                // Releases before 3.5 stored such; etcd finds no key in them either.
                continue;
            }
            let interval = (permission.key.to_vec(), end);
            // A number outside the enumeration was stored and allows nothing.
            let Ok(kind) = Type::try_from(permission.perm_type) else {
                continue;
            };
            if kind != Type::Write {
                all.read.0.push(interval.clone());
            }
            if kind != Type::Read {
                all.write.0.push(interval);
            }
        }
        all.read.settle();
        all.write.settle();
        all
    }

    pub(super) fn allow(&self, kind: Kind, key: &[u8], range_end: &[u8]) -> bool {
        match kind {
            Kind::Read => self.read.cover(key, range_end),
            Kind::Write => self.write.cover(key, range_end),
        }
    }
}
