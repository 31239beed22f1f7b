//! No key may be changed twice by one run of a transaction.

use super::Keys;
use crate::error::Error;
use crate::pb::etcdserverpb::RequestOp;
use crate::pb::etcdserverpb::request_op::Request;

/// What a list of operations may change.
#[derive(Default)]
struct Changes<'a> {
    puts: Keys<'a>,
    deletes: Deletes<'a>,
    /// Where the first deletion with an open end begins.
    open: Option<&'a [u8]>,
    /// Puts that keep the value or the lease, and so need their key to exist.
    keeping: Vec<&'a [u8]>,
}

impl<'a> Changes<'a> {
    fn open_at(&mut self, begin: Option<&'a [u8]>) {
        self.open = self.open.into_iter().chain(begin).min();
    }

    /// A put that needs a key which a deletion with an open end took away would stop every member
    /// of etcd; it is refused.
    fn check_kept(&self) -> Result<(), Error> {
        match self.open {
            Some(begin) if self.keeping.iter().any(|&key| key >= begin) => Err(Error::DuplicateKey),
            _ => Ok(()),
        }
    }
}

/// Deleted intervals; merged and sorted before they are asked. An interval with an open end
/// (range end "\0") is not among them: etcd does not see its overlap, and clients may rely on
/// deleting everything and putting some of it back in one transaction.
#[derive(Default)]
struct Deletes<'a> {
    intervals: Vec<(&'a [u8], Stop<'a>)>,
    sorted: bool,
}

/// Where an interval stops.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stop<'a> {
    /// Just after this key.
    After(&'a [u8]),
    /// Before this key.
    Before(&'a [u8]),
}

impl Stop<'_> {
    fn is_beyond(&self, key: &[u8]) -> bool {
        match self {
            Stop::After(last) => key <= *last,
            Stop::Before(end) => key < *end,
        }
    }

    /// True when this stop reaches at least as far as the other.
    fn reaches(&self, other: &Stop<'_>) -> bool {
        match (self, other) {
            (Stop::After(a), Stop::After(b)) | (Stop::Before(a), Stop::Before(b)) => a >= b,
            (Stop::After(a), Stop::Before(b)) => a >= b,
            (Stop::Before(a), Stop::After(b)) => a > b,
        }
    }
}

impl<'a> Deletes<'a> {
    fn push(&mut self, key: &'a [u8], range_end: &'a [u8]) {
        let stop = match range_end {
            [] => Stop::After(key),
            end if key < end => Stop::Before(end),
            _ => return,
        };
        self.intervals.push((key, stop));
        self.sorted = false;
    }

    /// Sorts and merges, so that a key is looked up among disjoint intervals.
    fn settle(&mut self) {
        if self.sorted {
            return;
        }
        self.intervals.sort_by(|a, b| a.0.cmp(b.0));
        let mut merged: Vec<(&[u8], Stop<'_>)> = Vec::with_capacity(self.intervals.len());
        for &(begin, stop) in &self.intervals {
            match merged.last_mut() {
                Some(last) if last.1.is_beyond(begin) => {
                    if !last.1.reaches(&stop) {
                        last.1 = stop;
                    }
                }
                _ => merged.push((begin, stop)),
            }
        }
        self.intervals = merged;
        self.sorted = true;
    }

    fn contains(&self, key: &[u8]) -> bool {
        let after = self.intervals.partition_point(|interval| interval.0 <= key);
        after
            .checked_sub(1)
            .is_some_and(|at| self.intervals[at].1.is_beyond(key))
    }
}

/// Checks one list with everything below it.
pub(super) fn check(ops: &[RequestOp]) -> Result<(), Error> {
    changes(ops).map(drop)
}

fn changes(ops: &[RequestOp]) -> Result<Changes<'_>, Error> {
    let mut all = Changes::default();
    for op in ops {
        if let Some(Request::RequestDeleteRange(delete)) = &op.request {
            all.deletes.push(&delete.key, &delete.range_end);
            if delete.range_end == [0][..] {
                all.open_at(Some(&delete.key));
            }
        }
    }
    all.deletes.settle();
    for op in ops {
        let Some(Request::RequestTxn(nested)) = &op.request else {
            continue;
        };
        let mut success = changes(&nested.success)?;
        let mut failure = changes(&nested.failure)?;
        for key in &success.puts {
            if all.puts.contains(key) || all.deletes.contains(key) {
                return Err(Error::DuplicateKey);
            }
        }
        for key in &failure.puts {
            if all.puts.contains(key) || all.deletes.contains(key) {
                return Err(Error::DuplicateKey);
            }
        }
        // Only one of the two lists runs, so they may share keys.
        merge_keys(&mut all.puts, success.puts);
        merge_keys(&mut all.puts, failure.puts);
        all.open_at(success.open);
        all.open_at(failure.open);
        all.keeping.append(&mut success.keeping);
        all.keeping.append(&mut failure.keeping);
        all.deletes.intervals.append(&mut success.deletes.intervals);
        all.deletes.intervals.append(&mut failure.deletes.intervals);
        all.deletes.sorted = false;
        all.deletes.settle();
    }
    for op in ops {
        if let Some(Request::RequestPut(put)) = &op.request {
            let key: &[u8] = &put.key;
            if all.deletes.contains(key) || !all.puts.insert(key) {
                return Err(Error::DuplicateKey);
            }
            if put.ignore_value || put.ignore_lease {
                all.keeping.push(key);
            }
        }
    }
    all.check_kept()?;
    Ok(all)
}

/// Adds the smaller set to the larger.
fn merge_keys<'a>(into: &mut Keys<'a>, mut from: Keys<'a>) {
    if from.len() > into.len() {
        std::mem::swap(into, &mut from);
    }
    into.extend(from);
}
