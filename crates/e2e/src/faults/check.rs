//! What a recorded run must be: every rule that etcd promises, checked from outside.
//!
//! The list of all changes by revision, as the members tell it at the end, is the witness. Each
//! answer must fit into it at the revision that it names, and the order of revisions must be one
//! in which things happened. Apart from it, and without trust in any revision but those of values,
//! the history of each key must be linearizable.

use std::collections::{BTreeMap, HashMap};

use super::history::{Ask, Key, Op, Said, Value, Version};
use super::leases::Life;
use super::linear::{self, Request, Step, Verdict};
use super::load::{name, number_of};
use super::watchers::{Change, Log, Told};

#[cfg(test)]
mod tests;

/// Steps after which the search for an order of one key's requests is given up.
const STEPS_MAX: u64 = 20_000_000;
/// Complaints of one kind that are told.
const TOLD_MAX: usize = 5;

/// What a run left behind.
pub struct Record {
    pub ops: Vec<Op>,
    /// All changes since the load began, as every member tells them.
    pub truth: Vec<Told>,
    pub watchers: Vec<Log>,
    pub leases: Vec<Life>,
}

/// Everything that is not as it must be; empty when all is well.
#[must_use]
pub fn check(record: &Record) -> Vec<String> {
    let truth = Truth::new(&record.truth);
    let rules = [
        writes(record, &truth),
        reads(record, &truth),
        order(&record.ops),
        sessions(&record.ops),
        keys(&record.ops, &truth),
        watchers(record),
        leases(record),
    ];
    let few = |mut complaints: Vec<String>| {
        let more = complaints.len().saturating_sub(TOLD_MAX);
        complaints.truncate(TOLD_MAX);
        if more > 0 {
            complaints.push(format!("and {more} more of that kind"));
        }
        complaints
    };
    rules.into_iter().flat_map(few).collect()
}

/// The store at every revision.
struct Truth<'a> {
    changes: BTreeMap<i64, &'a [Change]>,
    /// The versions of each key of the load, by the revision that made them.
    keys: HashMap<Key, BTreeMap<i64, Option<Version>>>,
}

impl Truth<'_> {
    fn new(told: &[Told]) -> Truth<'_> {
        let mut truth = Truth {
            changes: BTreeMap::new(),
            keys: HashMap::new(),
        };
        for told in told {
            truth.changes.insert(told.revision, &told.changes);
            for change in &told.changes {
                if let Some(key) = number_of(&change.key) {
                    let version = version(change, told.revision);
                    let versions = truth.keys.entry(key).or_default();
                    versions.insert(told.revision, version);
                }
            }
        }
        truth
    }

    fn at(&self, key: Key, revision: i64) -> Option<Version> {
        let versions = self.keys.get(&key)?;
        *versions.range(..=revision).next_back()?.1
    }

    fn deletions(&self, key: Key) -> usize {
        let versions = self.keys.get(&key).map(BTreeMap::values);
        versions.map_or(0, |versions| versions.filter(|one| one.is_none()).count())
    }

    fn all(&self, revision: i64) -> Vec<(Key, Version)> {
        let there = |key: &Key| Some((*key, self.at(*key, revision)?));
        let mut all: Vec<_> = self.keys.keys().filter_map(there).collect();
        all.sort_unstable_by_key(|(key, _)| *key);
        all
    }
}

fn version(change: &Change, mod_revision: i64) -> Option<Version> {
    let text = std::str::from_utf8(change.value.as_ref()?).ok()?;
    let value = text.parse().ok()?;
    Some(Version {
        value,
        mod_revision,
    })
}

/// Every acknowledged write is in the truth, at its revision and alone there; what is in the truth
/// was asked, once, and not refused.
fn writes(record: &Record, truth: &Truth<'_>) -> Vec<String> {
    let mut complaints = Vec::new();
    let mut owners: HashMap<i64, &Op> = HashMap::new();
    let mut asked: HashMap<Value, &Op> = HashMap::new();
    for op in &record.ops {
        if let Some((_, value)) = op.ask.puts() {
            asked.insert(value, op);
        }
        let Some(answer) = op.answer.as_ref().filter(|answer| answer.wrote()) else {
            continue;
        };
        let found = truth.changes.get(&answer.revision).copied();
        if found.unwrap_or(&[]) != expected(&op.ask) {
            complaints.push(format!("{op:?} was acknowledged; there is {found:?}"));
        }
        if let Some(other) = owners.insert(answer.revision, op) {
            complaints.push(format!("{op:?} has the revision of {other:?}"));
        }
    }
    let mut done: HashMap<Value, i64> = HashMap::new();
    for (revision, changes) in &truth.changes {
        let values = changes.iter().filter_map(|change| {
            number_of(&change.key)?;
            version(change, *revision)
        });
        for version in values {
            let value = version.value;
            let first = *done.entry(value).or_insert(*revision);
            let was_refused = |op: &&Op| match &op.answer {
                Some(answer) => !answer.wrote() || answer.revision != *revision,
                None => false,
            };
            match asked.get(&value) {
                None => complaints.push(format!("nobody asked for {changes:?} at {revision}")),
                Some(op) if was_refused(op) => {
                    complaints.push(format!("{op:?} was done at {revision}"));
                }
                Some(op) if first != *revision => {
                    complaints.push(format!("{op:?} was done at {first} and {revision}"));
                }
                Some(_) => {}
            }
        }
    }
    complaints
}

/// The changes of an acknowledged write, in their order.
fn expected(ask: &Ask) -> Vec<Change> {
    if let Ask::Delete { key } = ask {
        return vec![Change {
            key: name(*key),
            value: None,
        }];
    }
    let (keys, value) = ask.puts().unwrap_or_default();
    let changes = keys.into_iter().map(|key| Change {
        key: name(key),
        value: Some(value.to_string().into()),
    });
    changes.collect()
}

/// Every answer shows the store as it was at the revision that it names.
fn reads(record: &Record, truth: &Truth<'_>) -> Vec<String> {
    let mut complaints = Vec::new();
    for op in &record.ops {
        let Some(answer) = &op.answer else { continue };
        let at = answer.revision;
        let (is_right, there) = match (&op.ask, &answer.said) {
            (
                Ask::Get { key } | Ask::Local { key } | Ask::Swap { key, .. },
                Said::Seen(version),
            ) => {
                let there = truth.at(*key, at);
                (*version == there, format!("{there:?}"))
            }
            (Ask::Delete { key }, Said::Deleted(version)) => {
                let before = if version.is_some() { at - 1 } else { at };
                let there = truth.at(*key, before);
                (*version == there, format!("{there:?}"))
            }
            (Ask::All, Said::All(all)) => {
                let there = truth.all(at);
                (*all == there, format!("{there:?}"))
            }
            (ask, Said::Written) if ask.writes() => match ask {
                Ask::Swap { key, expected, .. } => {
                    let before = truth.at(*key, at - 1);
                    let revision = before.map_or(0, |version| version.mod_revision);
                    (revision == *expected, format!("{before:?}"))
                }
                _ => (true, String::new()),
            },
            _ => (false, "no such answer".into()),
        };
        if !is_right {
            complaints.push(format!("{op:?}, but there was {there}"));
        }
    }
    complaints
}

/// What was called after an answer arrived has no older revision, and a write a newer one. Reads
/// of what a member itself has may be old.
fn order(ops: &[Op]) -> Vec<String> {
    let mut complaints = Vec::new();
    let mut times: Vec<(u64, bool, &Op)> = Vec::new();
    for op in ops {
        let is_local = matches!(op.ask, Ask::Local { .. });
        if let (false, Some(answer)) = (is_local, &op.answer) {
            times.push((op.call, false, op));
            times.push((answer.at, true, op));
        }
    }
    // At one moment calls come first: then nothing is known of their order.
    times.sort_by_key(|(time, is_return, _)| (*time, *is_return));
    let mut newest: Option<(&Op, i64)> = None;
    // What every call may not fall below.
    let mut floors: HashMap<(usize, u64), (&Op, i64)> = HashMap::new();
    for (_, is_return, op) in times {
        let answer = op.answer.as_ref().expect("only these are looked at");
        let id = (op.session, op.call);
        if !is_return {
            newest.map(|newest| floors.insert(id, newest));
            continue;
        }
        if let Some((before, floor)) = floors.remove(&id) {
            let is_older = answer.revision < floor || (answer.wrote() && answer.revision == floor);
            if is_older {
                complaints.push(format!("{op:?} is older than {before:?}"));
            }
        }
        if newest.is_none_or(|(_, revision)| revision < answer.revision) {
            newest = Some((op, answer.revision));
        }
    }
    complaints
}

/// A session, which asks one member, never sees the revision fall.
fn sessions(ops: &[Op]) -> Vec<String> {
    let mut complaints = Vec::new();
    let mut last: HashMap<usize, &Op> = HashMap::new();
    let revision = |op: &Op| op.answer.as_ref().map_or(0, |answer| answer.revision);
    for op in ops.iter().filter(|op| op.answer.is_some()) {
        if let Some(before) = last.insert(op.session, op)
            && revision(op) < revision(before)
        {
            complaints.push(format!("{op:?} fell below {before:?}"));
        }
    }
    complaints
}

/// The history of each key is linearizable.
fn keys(ops: &[Op], truth: &Truth<'_>) -> Vec<String> {
    let mut complaints = Vec::new();
    let (requests, revisions) = match project(ops) {
        Ok(projected) => projected,
        Err(complaint) => return vec![complaint],
    };
    for (key, mut requests) in requests {
        // Deletions without an answer have no value by which it shows that nobody saw them.
        if deletions(&requests) >= truth.deletions(key) {
            requests.retain(|request| request.step != Step::MayDelete);
        }
        match linear::check(&requests, &revisions, STEPS_MAX) {
            Verdict::Right => {}
            Verdict::Undecided => complaints.push(format!(
                "{} requests for key {key} could not be judged",
                requests.len()
            )),
            Verdict::Wrong(request) => complaints.push(format!(
                "key {key} is not linearizable: no place for {request:?}; beside it: {:?}",
                beside(&requests, &request)
            )),
        }
    }
    complaints
}

/// Deletions that were acknowledged.
fn deletions(requests: &[Request]) -> usize {
    let is_one = |request: &&Request| matches!(request.step, Step::Deleted(Some(_)));
    requests.iter().filter(is_one).count()
}

/// Requests that overlap one, or end shortly before it, for the reader of a complaint.
fn beside(requests: &[Request], wrong: &Request) -> Vec<Request> {
    let end = wrong.end.unwrap_or(u64::MAX);
    let is_near = |other: &&Request| {
        other.call <= end && other.end.is_none_or(|at| at + 100_000 >= wrong.call)
    };
    requests.iter().filter(is_near).take(20).copied().collect()
}

type Projected = (BTreeMap<Key, Vec<Request>>, HashMap<Value, i64>);

/// The requests for each key, and the revision of each value that anybody knows.
fn project(ops: &[Op]) -> Result<Projected, String> {
    let mut requests: BTreeMap<Key, Vec<Request>> = BTreeMap::new();
    let mut revisions: HashMap<Value, i64> = HashMap::new();
    for op in ops {
        let answer = op.answer.as_ref();
        let end = answer.map(|answer| answer.at);
        let mut known = Vec::new();
        match (answer.map(|answer| &answer.said), op.ask.puts()) {
            (Some(Said::Written), Some((_, value))) => {
                known.push((value, answer.map_or(0, |answer| answer.revision)));
            }
            (Some(Said::Seen(version) | Said::Deleted(version)), _) => {
                known.extend(version.map(|version| (version.value, version.mod_revision)));
            }
            (Some(Said::All(all)), _) => {
                known.extend(all.iter().map(|(_, one)| (one.value, one.mod_revision)));
            }
            _ => {}
        }
        for (value, revision) in known {
            let before = *revisions.entry(value).or_insert(revision);
            if before != revision {
                return Err(format!("{op:?}, but {value} was at revision {before}"));
            }
        }
        for (key, step) in steps(op) {
            let call = op.call;
            let one = Request { call, end, step };
            requests.entry(key).or_default().push(one);
        }
    }
    Ok((requests, revisions))
}

/// What a request did to each key.
fn steps(op: &Op) -> Vec<(Key, Step)> {
    let said = op.answer.as_ref().map(|answer| &answer.said);
    match (&op.ask, said) {
        (Ask::Get { key }, Some(Said::Seen(version))) => vec![(*key, Step::Saw(*version))],
        (Ask::Put { key, value }, _) => vec![(*key, Step::Put(*value))],
        (Ask::Both { keys, value }, _) => {
            keys.iter().map(|key| (*key, Step::Put(*value))).collect()
        }
        (Ask::Delete { key }, Some(Said::Deleted(version))) => {
            vec![(*key, Step::Deleted(*version))]
        }
        (Ask::Delete { key }, None) => vec![(*key, Step::MayDelete)],
        (
            Ask::Swap {
                key,
                expected,
                value,
            },
            said,
        ) => {
            let (expected, value) = (*expected, *value);
            let step = match said {
                Some(Said::Seen(seen)) => {
                    let seen = *seen;
                    Step::Refused { expected, seen }
                }
                Some(_) => Step::Swapped { expected, value },
                None => Step::MaySwap { expected, value },
            };
            vec![(*key, step)]
        }
        (Ask::All, Some(Said::All(all))) => {
            let there = all.iter().map(|(key, one)| (*key, Step::Saw(Some(*one))));
            there.collect()
        }
        _ => Vec::new(),
    }
}

/// Every watcher was told everything, once, in order, a revision at a time.
fn watchers(record: &Record) -> Vec<String> {
    let mut complaints = Vec::new();
    for (at, log) in record.watchers.iter().enumerate() {
        let broken = log.broken.iter();
        complaints.extend(broken.map(|text| format!("watcher of m{at}: {text}")));
        let expected = record
            .truth
            .iter()
            .map(|told| (told.revision, &told.changes));
        let mut told = log.told.iter().map(|told| (told.revision, &told.changes));
        for expected in expected {
            let got = told.next();
            if got != Some(expected) {
                complaints.push(format!(
                    "watcher of m{at} was told {got:?} in the place of {expected:?}"
                ));
                break;
            }
        }
        if let Some(more) = told.next() {
            complaints.push(format!("watcher of m{at} was told {more:?} beside all"));
        }
    }
    complaints
}

/// No lease went within its time to live after a renewal that succeeded was asked.
fn leases(record: &Record) -> Vec<String> {
    let mut complaints = Vec::new();
    for life in &record.leases {
        let safe_until = life.kept + life.ttl;
        if life.gone.is_some_and(|gone| gone < safe_until) {
            complaints.push(format!("{life:?} is gone too early"));
        }
        let of_key = |told: &&Told| {
            let mut changes = told.changes.iter();
            changes.any(|change| change.key == life.key && change.value.is_none())
        };
        let seen = record.watchers.iter().flat_map(|log| &log.told);
        let revoked = seen.filter(of_key).map(|told| told.at).min();
        if let Some(at) = revoked.filter(|at| *at < safe_until) {
            complaints.push(format!("{life:?} was revoked by {at}"));
        }
    }
    complaints
}
