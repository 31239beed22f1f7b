//! The order of a role's permissions: by their first key, and where some begin at the same key,
//! as Go's `sort.Sort` leaves them.
//!
//! That order counts: a permission that is granted anew takes the place of the first that begins
//! where it does, if it ends there too, and is added otherwise. Members of a mixed cluster must
//! find the same one first.
//!
//! Go's sort is a pattern-defeating quicksort (since Go 1.19), which is not stable. A list here is
//! sorted but for its last element. Up to 12 elements are sorted by insertion, and from 50 on such
//! a list is found to be almost in order and repaired by insertion: both are stable. Between them
//! the steps are those of Go, but for two that such a list never gets to: the reversal of a list
//! that seems to fall, and the heap sort after many bad splits.

use api::pb::authpb::Permission;

/// Up to here elements are inserted one by one.
const SHORT: usize = 12;
/// From here on a list that is almost in order is repaired.
const LONG: usize = 50;

/// Adds a permission to those of a role.
pub(super) fn insert(held: &mut Vec<Permission>, permission: Permission) {
    held.push(permission);
    if held.len() <= SHORT || held.len() >= LONG {
        held.sort_by(|a, b| a.key.cmp(&b.key));
        return;
    }
    let keys: Vec<&[u8]> = held.iter().map(|permission| &permission.key[..]).collect();
    let ordered = order(keys).into_iter().map(|at| held[at].clone());
    *held = ordered.collect();
}

/// The places of keys in the order in which they are put.
fn order(keys: Vec<&[u8]>) -> Vec<usize> {
    let places: Vec<usize> = (0..keys.len()).collect();
    let end = places.len();
    let mut sort = Sort { keys, places };
    sort.run(0, end);
    sort.places
}

struct Sort<'a> {
    keys: Vec<&'a [u8]>,
    places: Vec<usize>,
}

/// How a sweep ended: where the right side begins, and whether everything was on its side already.
struct Split {
    right: usize,
    was_clean: bool,
}

impl Sort<'_> {
    fn less(&self, one: usize, other: usize) -> bool {
        self.keys[self.places[one]] < self.keys[self.places[other]]
    }

    fn run(&mut self, mut begin: usize, mut end: usize) {
        let (mut was_even, mut was_clean) = (true, true);
        loop {
            let len = end - begin;
            if len <= SHORT {
                return self.insert_each(begin, end);
            }
            if !was_even {
                self.scatter(begin, len);
            }
            let (pivot, in_order) = self.pivot(begin, len);
            let may_be_sorted = was_even && was_clean && in_order;
            if may_be_sorted && (begin + 1..end).all(|at| !self.less(at, at - 1)) {
                return;
            }
            if begin > 0 && !self.less(begin - 1, pivot) {
                // Nothing here is less than the pivot: what equals it is done.
                let split = self.sweep(begin, end, pivot, |sort, at| !sort.less(begin, at));
                begin = split.right;
                continue;
            }
            let split = self.sweep(begin, end, pivot, |sort, at| sort.less(at, begin));
            let middle = split.right - 1;
            self.places.swap(middle, begin);
            was_clean = split.was_clean;
            let (left, right) = (middle - begin, end - middle);
            was_even = left.min(right) >= len / 8;
            if left < right {
                self.run(begin, middle);
                begin = middle + 1;
            } else {
                self.run(middle + 1, end);
                end = middle;
            }
        }
    }

    fn insert_each(&mut self, begin: usize, end: usize) {
        for last in begin + 1..end {
            let mut at = last;
            while at > begin && self.less(at, at - 1) {
                self.places.swap(at, at - 1);
                at -= 1;
            }
        }
    }

    /// The middle one of three, and whether these are in order.
    fn pivot(&self, begin: usize, len: usize) -> (usize, bool) {
        let mut three = [1, 2, 3].map(|quarter| begin + len / 4 * quarter);
        let mut in_order = true;
        for (one, other) in [(0, 1), (1, 2), (0, 1)] {
            if self.less(three[other], three[one]) {
                three.swap(one, other);
                in_order = false;
            }
        }
        (three[1], in_order)
    }

    /// Puts the pivot first, and behind it what belongs to the left before all others.
    fn sweep(
        &mut self,
        begin: usize,
        end: usize,
        pivot: usize,
        is_left: impl Fn(&Self, usize) -> bool,
    ) -> Split {
        self.places.swap(begin, pivot);
        let (mut right, mut last) = (begin + 1, end - 1);
        let mut was_clean = true;
        loop {
            while right <= last && is_left(self, right) {
                right += 1;
            }
            while right <= last && !is_left(self, last) {
                last -= 1;
            }
            if right > last {
                return Split { right, was_clean };
            }
            self.places.swap(right, last);
            was_clean = false;
            right += 1;
            last -= 1;
        }
    }

    /// Moves three elements from the middle, by numbers that the length alone decides.
    fn scatter(&mut self, begin: usize, len: usize) {
        let mut number = len as u64;
        let mask = (1 << (usize::BITS - len.leading_zeros())) - 1;
        let middle = begin + len / 4 * 2;
        for at in middle - 1..=middle + 1 {
            number ^= number << 13;
            number ^= number >> 7;
            number ^= number << 17;
            let other = usize::try_from(number & mask).expect("less than twice the length");
            let other = if other >= len { other - len } else { other };
            self.places.swap(at, begin + other);
        }
    }
}

#[cfg(test)]
mod tests;
