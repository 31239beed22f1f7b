//! Is there an order of the requests for one key that explains every answer?
//!
//! The search of Wing and Gong with Lowe's memory of what was tried: requests are put in order one
//! by one, each between its call and its return; a set of requests that leads to a state seen
//! before is not entered again. Requests whose outcome is unknown never return, and may be left
//! out of the order altogether.

use std::collections::{HashMap, HashSet};

use super::history::{Value, Version};

#[cfg(test)]
mod tests;

/// What a request for one key did or found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    Put(Value),
    Saw(Option<Version>),
    /// A put that was done because the key had that mod revision (0: because it was absent).
    Swapped {
        expected: i64,
        value: Value,
    },
    /// The same when nobody knows whether it was done.
    MaySwap {
        expected: i64,
        value: Value,
    },
    /// It was not done, because of what was there.
    Refused {
        expected: i64,
        seen: Option<Version>,
    },
    /// A deletion that tells what it removed.
    Deleted(Option<Version>),
    /// A deletion of which nobody knows whether it was done.
    MayDelete,
}

/// A request for one key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request {
    pub call: u64,
    /// Nothing when the outcome is unknown.
    pub end: Option<u64>,
    pub step: Step,
}

/// What the search found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    Right,
    /// No order explains the answers; the request that had to be placed when most were.
    Wrong(Request),
    /// The search was given up: too many orders.
    Undecided,
}

/// What stands under the key; a request that nobody can tell from others is told by its value.
type State = Option<Value>;

/// Revisions of the values that somebody saw or wrote with an answer.
type Revisions = HashMap<Value, i64>;

/// Searches for an order, and gives up after `steps_max` steps. The key begins absent.
#[must_use]
pub fn check(requests: &[Request], revisions: &Revisions, steps_max: u64) -> Verdict {
    let mut search = Search::new(useful(requests, revisions));
    let mut state: State = None;
    let mut left = search.returning;
    let mut stack = Vec::new();
    let mut deepest: Option<(usize, usize)> = None;
    let mut at = search.list.first();
    for _ in 0..steps_max {
        if left == 0 {
            return Verdict::Right;
        }
        let place = at.expect("the return of a request without a place is in the list");
        let number = search.list.request(place);
        if search.list.is_call(place) {
            let after = step(state, search.requests[number].step, revisions);
            at = search.list.next(place);
            let Some(after) = after else { continue };
            if !search.enter(number, after) {
                continue;
            }
            stack.push((place, state));
            state = after;
            left -= usize::from(search.requests[number].end.is_some());
            search.list.lift(number);
            at = search.list.first();
        } else {
            if deepest.is_none_or(|(depth, _)| stack.len() > depth) {
                deepest = Some((stack.len(), number));
            }
            let Some((place, before)) = stack.pop() else {
                let (_, number) = deepest.expect("set above");
                return Verdict::Wrong(search.requests[number]);
            };
            let number = search.list.request(place);
            state = before;
            left += usize::from(search.requests[number].end.is_some());
            search.leave(number);
            search.list.put_back(number);
            at = search.list.next(place);
        }
    }
    Verdict::Undecided
}

/// Leaves out the writes without an answer whose value nobody saw, nor asked for by its revision:
/// an order with such a write is one without it too, as whatever comes between it and the next
/// write would have seen its value.
fn useful(requests: &[Request], revisions: &Revisions) -> Vec<Request> {
    let value = |version: Option<Version>| version.map(|version| version.value);
    let mut seen: HashSet<Value> = HashSet::new();
    let mut expected: HashSet<i64> = HashSet::new();
    for request in requests {
        match request.step {
            Step::Saw(version) | Step::Deleted(version) => seen.extend(value(version)),
            Step::Refused { seen: version, .. } => seen.extend(value(version)),
            Step::Swapped { expected: at, .. } | Step::MaySwap { expected: at, .. } => {
                expected.insert(at);
            }
            Step::Put(_) | Step::MayDelete => {}
        }
    }
    let is_asked_for = |value: &Value| revisions.get(value).is_some_and(|at| expected.contains(at));
    let is_useful = |request: &&Request| match request.step {
        Step::Put(value) | Step::MaySwap { value, .. } => {
            request.end.is_some() || seen.contains(&value) || is_asked_for(&value)
        }
        _ => true,
    };
    requests.iter().filter(is_useful).copied().collect()
}

/// The state after a step, or nothing when the step does not fit.
fn step(state: State, step: Step, revisions: &Revisions) -> Option<State> {
    let revision = || match state {
        None => Some(0),
        Some(value) => revisions.get(&value).copied(),
    };
    let is_there = |version: Option<Version>| {
        state == version.map(|version| version.value)
            && revision() == Some(version.map_or(0, |version| version.mod_revision))
    };
    match step {
        Step::Put(value) => Some(Some(value)),
        Step::Saw(version) => is_there(version).then_some(state),
        Step::Swapped { expected, value } => (revision() == Some(expected)).then_some(Some(value)),
        // Without its condition it changes nothing, like one that is left out.
        Step::MaySwap { expected, value } => (revision() == Some(expected)).then_some(Some(value)),
        Step::Refused { expected, seen } => {
            (is_there(seen) && revision() != Some(expected)).then_some(state)
        }
        Step::Deleted(version) => is_there(version).then_some(None),
        Step::MayDelete => Some(None),
    }
}

struct Search {
    requests: Vec<Request>,
    list: List,
    /// Requests that returned, which must all get a place.
    returning: usize,
    /// One bit per request that has a place.
    placed: Vec<u64>,
    tried: HashSet<(Vec<u64>, State)>,
}

impl Search {
    fn new(requests: Vec<Request>) -> Search {
        Search {
            list: List::new(&requests),
            returning: requests.iter().filter(|one| one.end.is_some()).count(),
            placed: vec![0; requests.len().div_ceil(64)],
            tried: HashSet::new(),
            requests,
        }
    }

    /// Gives the request a place, unless the same requests led to the same state before.
    fn enter(&mut self, number: usize, state: State) -> bool {
        self.placed[number / 64] |= 1 << (number % 64);
        let is_new = self.tried.insert((self.placed.clone(), state));
        if !is_new {
            self.leave(number);
        }
        is_new
    }

    fn leave(&mut self, number: usize) {
        self.placed[number / 64] &= !(1 << (number % 64));
    }
}

/// Calls and returns in the order of time, as a list from which requests are lifted. Place 0 is
/// the head.
struct List {
    next: Vec<usize>,
    previous: Vec<usize>,
    /// Request and whether it is its call, by place less one.
    events: Vec<(usize, bool)>,
    /// Places of call and return, by request.
    places: Vec<(usize, Option<usize>)>,
}

impl List {
    fn new(requests: &[Request]) -> List {
        let mut times = Vec::with_capacity(2 * requests.len());
        for (number, request) in requests.iter().enumerate() {
            // At the same time calls come first: then the two may have been in either order.
            times.push((request.call, false, number));
            if let Some(end) = request.end {
                times.push((end, true, number));
            }
        }
        times.sort_unstable();
        let mut places = vec![(0, None); requests.len()];
        let mut events = Vec::with_capacity(times.len());
        for (at, (_, is_return, number)) in times.into_iter().enumerate() {
            match is_return {
                false => places[number].0 = at + 1,
                true => places[number].1 = Some(at + 1),
            }
            events.push((number, !is_return));
        }
        let count = events.len() + 1;
        List {
            next: (1..=count).map(|at| at % count).collect(),
            previous: (0..count).map(|at| (at + count - 1) % count).collect(),
            events,
            places,
        }
    }

    fn first(&self) -> Option<usize> {
        self.next(0)
    }

    fn next(&self, place: usize) -> Option<usize> {
        Some(self.next[place]).filter(|place| *place != 0)
    }

    fn request(&self, place: usize) -> usize {
        self.events[place - 1].0
    }

    fn is_call(&self, place: usize) -> bool {
        self.events[place - 1].1
    }

    fn lift(&mut self, number: usize) {
        let (call, end) = self.places[number];
        self.unlink(call);
        if let Some(end) = end {
            self.unlink(end);
        }
    }

    /// Undoes the latest `lift`.
    fn put_back(&mut self, number: usize) {
        let (call, end) = self.places[number];
        if let Some(end) = end {
            self.link(end);
        }
        self.link(call);
    }

    fn unlink(&mut self, place: usize) {
        let (previous, next) = (self.previous[place], self.next[place]);
        self.next[previous] = next;
        self.previous[next] = previous;
    }

    fn link(&mut self, place: usize) {
        let (previous, next) = (self.previous[place], self.next[place]);
        self.next[previous] = place;
        self.previous[next] = place;
    }
}
