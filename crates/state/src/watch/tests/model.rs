//! Watchers of a model: whatever is put, deleted, revoked and compacted, each gets every event from
//! its revision on, once and in order, or learns of the compaction.
//!
//! The log holds so little that cursors fall to the history all the time, some of which is in
//! the database and some in its overlay.

use std::collections::{BTreeMap, BTreeSet};

use api::pb::etcdserverpb as pb;
use api::pb::etcdserverpb::request_op::Request;
use api::pb::mvccpb;

use super::{decode, txn};
use crate::auth::WatchKeys;
use crate::machine::tests::{Rig, put_request, unasked};

struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }
}

/// A change of a key: its value unless it is gone, and the value before.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Change {
    key: String,
    value: Option<String>,
    before: Option<String>,
}

impl Change {
    fn of(event: &mvccpb::Event) -> Change {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let kv = event.kv.as_ref().unwrap();
        Change {
            key: text(&kv.key),
            value: (event.r#type == 0).then(|| text(&kv.value)),
            before: event.prev_kv.as_ref().map(|kv| text(&kv.value)),
        }
    }
}

/// What the changes of each revision must be.
#[derive(Default)]
struct Model {
    keys: BTreeMap<String, String>,
    /// Keys of each lease.
    leases: BTreeMap<i64, BTreeSet<String>>,
    history: BTreeMap<i64, Vec<Change>>,
}

impl Model {
    fn change(&mut self, revision: i64, key: &str, value: Option<&str>) {
        for keys in self.leases.values_mut() {
            keys.remove(key);
        }
        let before = match value {
            Some(value) => self.keys.insert(key.to_owned(), value.to_owned()),
            None => self.keys.remove(key),
        };
        self.history.entry(revision).or_default().push(Change {
            key: key.to_owned(),
            value: value.map(str::to_owned),
            before,
        });
    }
}

/// A watcher of everything: a cursor and what it got.
struct Watcher {
    start: i64,
    next: i64,
    /// It asks for values before changes, too.
    before: bool,
    got: BTreeMap<i64, Vec<Change>>,
    cancelled: bool,
}

impl Watcher {
    fn advance(&mut self, rig: &Rig, random: &mut Random) {
        let records = 1 + random.below(5) as usize;
        let chunk = rig.view.events(self.next, records, 1 << 20).unwrap();
        if self.next < chunk.compacted {
            self.cancelled = true;
            return;
        }
        for event in &chunk.events {
            let at = event.revision();
            assert!(at >= self.next && at <= chunk.through);
            let wanted = self.before && !event.is_create();
            let all = unasked(WatchKeys::Range("\0".into(), None));
            let before = wanted.then(|| rig.view.before(&all, event.key(), at).unwrap());
            let change = Change::of(&decode(event, before.flatten().as_deref()));
            self.got.entry(at).or_default().push(change);
        }
        self.next = self.next.max(chunk.through + 1);
    }

    /// Values before revisions up to `compacted` may be missing.
    fn check(&self, model: &Model, compacted: i64) {
        let range = model.history.range(self.start..self.next);
        let mut expected: BTreeMap<i64, Vec<Change>> =
            range.map(|(at, changes)| (*at, changes.clone())).collect();
        for (at, changes) in &mut expected {
            let got = self.got.get(at).map_or(&[][..], |got| got);
            for (change, got) in changes.iter_mut().zip(got) {
                if !self.before || *at <= compacted && got.before.is_none() {
                    change.before = None;
                }
            }
        }
        assert_eq!(self.got, expected);
    }
}

struct Run {
    rig: Rig,
    random: Random,
    model: Model,
    watchers: Vec<Watcher>,
}

impl Run {
    fn key(&mut self) -> String {
        format!("k{:02}", self.random.below(12))
    }

    fn put(&mut self, key: &str, value: &str, lease: i64) {
        let put = pb::PutRequest {
            lease,
            ..put_request(key, value)
        };
        self.rig.apply(txn(vec![Request::RequestPut(put)])).unwrap();
        let at = self.rig.view.revision();
        self.model.change(at, key, Some(value));
        if lease != 0 {
            let keys = self.model.leases.get_mut(&lease).unwrap();
            keys.insert(key.to_owned());
        }
    }

    fn delete_range(&mut self) {
        let (a, b) = (self.key(), self.key());
        let (begin, end) = (a.clone().min(b.clone()), a.max(b));
        let range = pb::DeleteRangeRequest {
            key: begin.clone().into(),
            range_end: end.clone().into(),
            ..Default::default()
        };
        if begin == end {
            return;
        }
        let keys = self.model.keys.range(begin..end);
        let gone: Vec<String> = keys.map(|(key, _)| key.clone()).collect();
        let request = txn(vec![Request::RequestDeleteRange(range)]);
        self.rig.apply(request).unwrap();
        let at = self.rig.view.revision();
        gone.iter().for_each(|key| self.model.change(at, key, None));
    }

    /// Puts and deletions in no order, all in one revision.
    fn transaction(&mut self) {
        let keys: Vec<String> = (0..4).map(|_| self.key()).collect();
        let mut named = BTreeSet::new();
        let mut changes = Vec::new();
        let mut operations = Vec::new();
        for key in keys.iter().filter(|key| named.insert(*key)) {
            if self.random.below(2) == 0 {
                operations.push(Request::RequestPut(put_request(key, "t")));
                changes.push((key, Some("t")));
            } else {
                let delete = pb::DeleteRangeRequest {
                    key: key.clone().into(),
                    ..Default::default()
                };
                operations.push(Request::RequestDeleteRange(delete));
                if self.model.keys.contains_key(key) {
                    changes.push((key, None));
                }
            }
        }
        self.rig.apply(txn(operations)).unwrap();
        let at = self.rig.view.revision();
        for (key, value) in changes {
            self.model.change(at, key, value);
        }
    }

    /// Grants a lease and puts a key under it, or revokes one.
    fn lease(&mut self) {
        let id = 1 + self.random.below(3) as i64;
        let mut request = pb::InternalRaftRequest::default();
        let Some(keys) = self.model.leases.remove(&id) else {
            request.lease_grant = Some(pb::LeaseGrantRequest { id, ttl: 100 });
            self.rig.apply(request).unwrap();
            self.model.leases.insert(id, BTreeSet::new());
            let key = self.key();
            return self.put(&key, "leased", id);
        };
        if self.random.below(2) == 0 {
            self.model.leases.insert(id, keys);
            let key = self.key();
            return self.put(&key, "leased", id);
        }
        request.lease_revoke = Some(pb::LeaseRevokeRequest { id });
        self.rig.apply(request).unwrap();
        let at = self.rig.view.revision();
        keys.iter().for_each(|key| self.model.change(at, key, None));
    }

    fn step(&mut self, number: usize) {
        match self.random.below(14) {
            0..5 => {
                let key = self.key();
                self.put(&key, &number.to_string(), 0);
            }
            5 | 6 => self.delete_range(),
            7 | 8 => self.transaction(),
            9 | 10 => self.lease(),
            11 => {
                let newest = self.rig.view.revision();
                // Refused when it is older than the last one.
                let back = self.random.below(newest as u64) as i64;
                let _ = self.rig.compact(newest - back);
            }
            _ => {
                let _ = self.rig.sweep.step().unwrap();
                if self.random.below(2) == 0 {
                    self.rig.committer.commit().unwrap();
                }
            }
        }
        if self.random.below(20) == 0 {
            let newest = self.rig.view.revision() as u64;
            let start = 1 + self.random.below(newest + 3) as i64;
            self.watchers.push(Watcher {
                start,
                next: start,
                before: self.random.below(2) == 0,
                got: BTreeMap::new(),
                cancelled: false,
            });
        }
        if self.random.below(3) == 0 && !self.watchers.is_empty() {
            let which = self.random.below(self.watchers.len() as u64) as usize;
            let watcher = &mut self.watchers[which];
            if !watcher.cancelled {
                watcher.advance(&self.rig, &mut self.random);
            }
        }
    }
}

fn run(seed: u64) {
    let rig = Rig::new();
    rig.view.set_watching(0, true);
    rig.machine.shared.log.inner.lock().bytes_max = 1000;
    let mut run = Run {
        rig,
        random: Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15)),
        model: Model::default(),
        watchers: Vec::new(),
    };
    let mut fell = 0;
    for number in 0..500 {
        run.step(number);
        fell += usize::from(run.rig.view.tail(0).first > 2);
    }
    assert!(fell > 100, "the log keeps everything");
    let (newest, compacted) = (run.rig.view.revision(), run.rig.view.compact_revision());
    assert_eq!(run.model.history.keys().next_back(), Some(&newest));
    for mut watcher in run.watchers {
        while !watcher.cancelled && watcher.next <= newest {
            watcher.advance(&run.rig, &mut run.random);
        }
        assert!(!watcher.cancelled || watcher.next < compacted);
        watcher.check(&run.model, compacted);
    }
}

#[test]
fn watchers_get_every_event_or_learn_of_the_compaction() {
    for seed in 1..=20 {
        eprintln!("seed {seed}");
        run(seed);
    }
}
