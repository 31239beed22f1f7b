use std::collections::BTreeMap;

use super::{Record, check, name, number_of};
use crate::faults::history::{Answer, Ask, Key, Op, Said, Value, Version};
use crate::faults::leases::Life;
use crate::faults::watchers::{Change, Log, Told};
use crate::random::Random;

/// What went before the load.
const FIRST: i64 = 10;

/// A store that does what it is asked at once, and two watchers of it.
#[derive(Default)]
struct Store {
    revision: i64,
    keys: BTreeMap<Key, Version>,
    told: Vec<Told>,
}

impl Store {
    fn write(&mut self, keys: &[Key], value: Option<Value>, at: u64) {
        self.revision += 1;
        let mod_revision = self.revision;
        for key in keys {
            match value {
                Some(value) => self.keys.insert(
                    *key,
                    Version {
                        value,
                        mod_revision,
                    },
                ),
                None => self.keys.remove(key),
            };
        }
        let change = |key: &Key| Change {
            key: name(*key),
            value: value.map(|value| value.to_string().into()),
        };
        self.told.push(Told {
            revision: mod_revision,
            changes: keys.iter().map(change).collect(),
            at,
        });
    }

    fn ask(&mut self, ask: &Ask, at: u64) -> Said {
        let seen = |store: &Store, key: &Key| store.keys.get(key).copied();
        match ask {
            Ask::Get { key } | Ask::Local { key } => return Said::Seen(seen(self, key)),
            Ask::All => return Said::All(self.keys.clone().into_iter().collect()),
            Ask::Swap { key, expected, .. } => {
                let there = seen(self, key);
                if there.map_or(0, |version| version.mod_revision) != *expected {
                    return Said::Seen(there);
                }
            }
            Ask::Delete { key } => {
                let before = seen(self, key);
                if before.is_some() {
                    self.write(&[*key], None, at);
                }
                return Said::Deleted(before);
            }
            Ask::Put { .. } | Ask::Both { .. } => {}
        }
        let (keys, value) = ask.puts().expect("all others put");
        self.write(&keys, Some(value), at);
        Said::Written
    }
}

/// A run in which all was as it must be: each request takes effect somewhere between its call and
/// its return, and some get no answer.
fn run(seed: u64) -> Record {
    let mut random = Random::new(seed);
    let mut store = Store {
        revision: FIRST,
        ..Store::default()
    };
    let mut ops = Vec::new();
    // Revisions of which somebody was told.
    let mut known = BTreeMap::new();
    for number in 0..300 {
        let at = 1_000 * (number + 1);
        let key = random.below(4) as Key;
        let value = number;
        let expected = match random.below(3) {
            0 => 0,
            _ => known.get(&key).copied().unwrap_or(0),
        };
        let ask = match random.below(7) {
            0 => Ask::Put { key, value },
            1 => Ask::Get { key },
            2 => Ask::Local { key },
            3 => Ask::Swap {
                key,
                expected,
                value,
            },
            4 => Ask::Both {
                keys: [key, key + 10],
                value,
            },
            5 => Ask::Delete { key },
            _ => Ask::All,
        };
        let said = store.ask(&ask, at);
        let answer = Answer {
            at: at + 1 + random.below(900),
            revision: store.revision,
            said,
        };
        let is_lost = random.below(10) == 0;
        if !is_lost {
            known.insert(key, store.keys.get(&key).map_or(0, |one| one.mod_revision));
        }
        ops.push(Op {
            session: random.below(3) as usize,
            endpoint: 0,
            call: at - random.below(900),
            ask,
            answer: (!is_lost).then_some(answer),
        });
    }
    let log = || {
        let mut log = Log::default();
        log.told.clone_from(&store.told);
        log
    };
    Record {
        ops,
        watchers: vec![log(), log()],
        truth: store.told,
        leases: Vec::new(),
    }
}

fn wrong(record: &Record, word: &str) {
    let complaints = check(record);
    let is_told = complaints.iter().any(|text| text.contains(word));
    assert!(is_told, "{word}: {complaints:?}");
}

/// The first request with an answer for which `is_one` holds, not among the first hundred.
fn find(record: &Record, is_one: impl Fn(&Ask, &Answer) -> bool) -> usize {
    let mut ops = record.ops.iter().enumerate().skip(100);
    let is_one = |op: &Op| op.answer.as_ref().is_some_and(|one| is_one(&op.ask, one));
    let found = ops.find(|(_, op)| is_one(op));
    found.expect("there are all kinds").0
}

fn answer(record: &mut Record, number: usize) -> &mut Answer {
    record.ops[number].answer.as_mut().expect("chosen so")
}

#[test]
fn a_right_run_has_no_complaint() {
    for seed in 0..100 {
        assert_eq!(check(&run(seed)), Vec::<String>::new(), "seed {seed}");
    }
}

#[test]
fn an_acknowledged_write_that_is_lost() {
    let mut record = run(1);
    let number = find(&record, |_, answer| answer.wrote());
    let lost = answer(&mut record, number).revision;
    record.truth.retain(|told| told.revision != lost);
    for log in &mut record.watchers {
        log.told.retain(|told| told.revision != lost);
    }
    wrong(&record, "was acknowledged; there is None");
}

#[test]
fn a_write_that_was_refused_or_done_twice() {
    let mut record = run(2);
    let number = find(&record, |ask, answer| {
        matches!(ask, Ask::Swap { .. }) && matches!(answer.said, Said::Seen(_))
    });
    let (keys, value) = record.ops[number].ask.puts().expect("a swap puts");
    let change = Change {
        key: name(keys[0]),
        value: Some(value.to_string().into()),
    };
    let revision = record.truth.last().expect("many").revision + 1;
    let told = Told {
        revision,
        changes: vec![change],
        at: 0,
    };
    record.truth.push(told.clone());
    wrong(&record, "was done at");

    let mut record = run(2);
    let mut again = record.truth[50].clone();
    again.revision = revision;
    record.truth.push(again);
    wrong(&record, "was done at");

    let mut record = run(2);
    let changes = vec![Change {
        key: name(1),
        value: Some("987654321".into()),
    }];
    record.truth.push(Told { changes, ..told });
    wrong(&record, "nobody asked");
}

#[test]
fn half_of_a_transaction() {
    let mut record = run(3);
    let number = find(&record, |ask, _| matches!(ask, Ask::Both { .. }));
    let revision = answer(&mut record, number).revision;
    for told in &mut record.truth {
        if told.revision == revision {
            told.changes.pop();
        }
    }
    wrong(&record, "was acknowledged; there is Some");
}

#[test]
fn a_stale_read() {
    for seed in 0..20 {
        let mut record = run(seed);
        // What a read saw a hundred requests ago, under a key that was written since.
        let number = find(&record, |ask, answer| {
            matches!((ask, &answer.said), (Ask::Get { .. }, Said::Seen(Some(_))))
        });
        let old = answer(&mut record, number).clone();
        let Ask::Get { key } = record.ops[number].ask else {
            panic!("chosen so");
        };
        let end = record.truth.last().expect("many").revision;
        let before = record.truth.iter().filter(|told| {
            told.revision > old.revision && told.changes.iter().any(|one| one.key == name(key))
        });
        if before.count() == 0 {
            continue;
        }
        // It names the revision at which it was right: only the order of time is against it.
        let call = 1_000_000;
        let op = |answer: Answer| Op {
            session: 9,
            endpoint: 0,
            call,
            ask: Ask::Get { key },
            answer: Some(Answer {
                at: call + 1,
                ..answer
            }),
        };
        record.ops.push(op(old.clone()));
        wrong(&record, "is older than");
        wrong(&record, "not linearizable");
        // It names the newest.
        record.ops.pop();
        let answer = Answer {
            revision: end,
            ..old
        };
        record.ops.push(op(answer));
        wrong(&record, "but there was");
    }
}

#[test]
fn a_revision_that_falls_within_a_session() {
    let mut record = run(4);
    let number = find(&record, |ask, _| matches!(ask, Ask::Local { .. }));
    let session = record.ops[number].session;
    // A read of what the member itself has may be old, but not older than the one before.
    let key = 3;
    let old = Answer {
        at: 1_000_001,
        revision: FIRST,
        said: Said::Seen(None),
    };
    let op = |session| Op {
        session,
        endpoint: 0,
        call: 1_000_000,
        ask: Ask::Local { key },
        answer: Some(old.clone()),
    };
    record.ops.push(op(77));
    assert_eq!(check(&record), Vec::<String>::new());
    record.ops.push(op(session));
    wrong(&record, "fell below");
}

#[test]
fn watchers_that_lose_repeat_or_disorder() {
    let mut record = run(5);
    record.watchers[1].told.remove(20);
    wrong(&record, "watcher of m1 was told");

    let mut record = run(5);
    let again = record.watchers[0].told[20].clone();
    record.watchers[0].told.insert(21, again);
    wrong(&record, "watcher of m0 was told");

    let mut record = run(5);
    record.watchers[0].told.swap(20, 21);
    wrong(&record, "watcher of m0 was told");

    let mut record = run(5);
    record.watchers[0].told.pop();
    wrong(&record, "was told None");

    let mut record = run(5);
    let mut more = record.watchers[0].told[20].clone();
    more.revision = 10_000;
    record.watchers[0].told.push(more);
    wrong(&record, "beside all");
}

#[test]
fn a_lease_that_goes_while_it_is_renewed() {
    let key = bytes::Bytes::from_static(b"lease/0-0");
    assert_eq!(number_of(&key), None);
    let life = Life {
        key: key.clone(),
        kept: 200_000,
        ttl: 50_000,
        renewals: 3,
        gone: None,
    };
    let told = |at| Told {
        revision: 5_000,
        changes: vec![Change {
            key: key.clone(),
            value: None,
        }],
        at,
    };
    let with = |at, gone| {
        let mut record = run(6);
        record.truth.push(told(0));
        for log in &mut record.watchers {
            log.told.push(told(at));
        }
        let gone: Option<u64> = gone;
        let life = life.clone();
        record.leases.push(Life { gone, ..life });
        record
    };
    assert_eq!(check(&with(250_001, Some(250_002))), Vec::<String>::new());
    wrong(&with(249_999, None), "was revoked by");
    // Revoked before a renewal that succeeded.
    wrong(&with(199_999, None), "was revoked by");
    wrong(&with(250_001, Some(249_000)), "is gone too early");
}
