//! The seam by itself, and three engines that talk to each other through it.

use std::collections::VecDeque;

use storage::log::SnapshotMeta;

use super::*;

fn config(id: u64) -> Config {
    Config {
        id: MemberId(id),
        election_ticks: 10,
        pre_vote: true,
        seed: 42,
    }
}

fn restored(voters: &[u64]) -> Restored {
    let conf = ConfState {
        voters: voters.to_vec(),
        ..Default::default()
    };
    Restored {
        conf,
        ..Default::default()
    }
}

struct Cluster {
    rafts: Vec<Raft>,
    wire: VecDeque<Message>,
    applied: Vec<Vec<Entry>>,
    trace: Vec<String>,
}

impl Cluster {
    fn new() -> Cluster {
        let rafts = (1..=3)
            .map(|id| Raft::new(&config(id), &restored(&[1, 2, 3])).unwrap())
            .collect();
        let (wire, applied) = (VecDeque::new(), vec![Vec::new(); 3]);
        Cluster {
            rafts,
            wire,
            applied,
            trace: Vec::new(),
        }
    }

    /// Carries out everything at once until nothing moves.
    fn settle(&mut self) {
        loop {
            let mut moved = false;
            for (at, raft) in self.rafts.iter_mut().enumerate() {
                while raft.has_ready() {
                    moved = true;
                    let ready = raft.ready();
                    raft.on_persisted(ready.number);
                    self.wire.extend(ready.messages);
                    if let Some(last) = ready.committed.last() {
                        raft.on_applied(last.index);
                    }
                    self.applied[at].extend(ready.committed);
                }
            }
            while let Some(message) = self.wire.pop_front() {
                moved = true;
                self.trace.push(format!("{message:?}"));
                self.rafts[message.to.0 as usize - 1]
                    .step(&message)
                    .unwrap();
            }
            if !moved {
                return;
            }
        }
    }

    fn elect(&mut self) -> usize {
        for _ in 0..40 {
            self.rafts.iter_mut().for_each(Raft::tick);
            self.settle();
            if let Some(at) = self
                .rafts
                .iter()
                .position(|raft| raft.role() == Role::Leader)
            {
                return at;
            }
        }
        panic!("no leader");
    }
}

#[test]
fn three_members_agree_and_a_run_repeats_itself() {
    let run = || {
        let mut cluster = Cluster::new();
        let leader = cluster.elect();
        let change = Bytes::from_static(b"\x08\x07\x10\x03\x18\x09 etcd's own bytes");
        cluster.rafts[leader]
            .propose(
                [
                    (EntryKind::Normal, Bytes::from_static(b"one")),
                    (EntryKind::ConfChange, change.clone()),
                ]
                .into_iter(),
            )
            .unwrap();
        let follower = (leader + 1) % 3;
        cluster.rafts[follower]
            .propose(std::iter::once((
                EntryKind::Normal,
                Bytes::from_static(b"two"),
            )))
            .unwrap();
        cluster.settle();
        cluster.rafts.iter_mut().for_each(Raft::tick);
        cluster.settle();
        let datas: Vec<_> = cluster.applied[0]
            .iter()
            .map(|entry| entry.data.clone())
            .collect();
        assert_eq!(datas, [Bytes::new(), "one".into(), change, "two".into()]);
        assert_eq!(cluster.applied[0][2].kind, EntryKind::ConfChange);
        assert!(
            cluster
                .applied
                .iter()
                .all(|applied| *applied == cluster.applied[0])
        );
        cluster.trace
    };
    assert_eq!(run(), run());
}

#[test]
fn messages_that_would_break_the_engine_are_refused() {
    let mut cluster = Cluster::new();
    let leader = cluster.elect();
    let at = (leader + 1) % 3;
    let raft = &mut cluster.rafts[at];
    let (to, from) = (MemberId(at as u64 + 1), MemberId(leader as u64 + 1));
    let base = |kind| Message {
        term: raft.term(),
        ..Message::new(kind, from, to)
    };
    let entry = |index, term| Entry {
        kind: EntryKind::Normal,
        term: Term(term),
        index: LogIndex(index),
        data: Bytes::new(),
    };
    let term = raft.term().0;
    let bad = [
        Message {
            to: MemberId(77),
            ..base(MessageKind::Heartbeat)
        },
        Message {
            from: MemberId(0),
            ..base(MessageKind::Heartbeat)
        },
        Message {
            term: Term(0),
            ..base(MessageKind::Heartbeat)
        },
        Message {
            commit: LogIndex(1000),
            ..base(MessageKind::Heartbeat)
        },
        Message {
            term: Term(3),
            ..base(MessageKind::Propose)
        },
        Message {
            term: Term(0),
            ..base(MessageKind::Propose)
        },
        Message {
            term: Term(0),
            ..base(MessageKind::ReadIndex)
        },
        base(MessageKind::ReadIndexResponse),
        Message {
            index: LogIndex(1000),
            ..base(MessageKind::AppendResponse)
        },
        Message {
            entries: vec![entry(3, term)],
            ..base(MessageKind::Append)
        },
        Message {
            entries: vec![entry(1, term + 1)],
            ..base(MessageKind::Append)
        },
        Message {
            entries: vec![entry(1, 0)],
            ..base(MessageKind::Append)
        },
        Message {
            snapshot: Some(Snapshot {
                data: Bytes::new(),
                meta: SnapshotMeta::default(),
            }),
            ..base(MessageKind::Snapshot)
        },
    ];
    for message in bad {
        assert!(raft.step(&message).is_err(), "{message:?}");
    }
}

#[test]
fn a_log_whose_parts_do_not_fit_is_refused() {
    let entry = |index| Entry {
        kind: EntryKind::Normal,
        term: Term(1),
        index: LogIndex(index),
        data: Bytes::new(),
    };
    let good = Restored {
        hard_state: HardState {
            term: Term(1),
            vote: 1,
            commit: LogIndex(7),
        },
        before: (LogIndex(5), Term(1)),
        entries: vec![entry(6), entry(7), entry(8)],
        applied: LogIndex(6),
        ..restored(&[1])
    };
    let with = |change: fn(&mut Restored)| {
        let mut restored = good.clone();
        change(&mut restored);
        Raft::new(&config(1), &restored).map(drop)
    };
    assert_eq!(with(|_| ()), Ok(()));
    let gap = RestoreError::Gap {
        after: LogIndex(6),
        found: LogIndex(8),
    };
    assert_eq!(with(|log| drop(log.entries.remove(1))), Err(gap));
    let commit = |commit| RestoreError::Commit {
        commit: LogIndex(commit),
        first: LogIndex(5),
        last: LogIndex(8),
    };
    assert_eq!(
        with(|log| log.hard_state.commit = LogIndex(9)),
        Err(commit(9))
    );
    assert_eq!(
        with(|log| log.hard_state.commit = LogIndex(4)),
        Err(commit(4))
    );
    let applied = |applied| RestoreError::Applied {
        applied: LogIndex(applied),
        before: LogIndex(5),
        commit: LogIndex(7),
    };
    assert_eq!(with(|log| log.applied = LogIndex(8)), Err(applied(8)));
    assert_eq!(with(|log| log.applied = LogIndex(3)), Err(applied(3)));
}

#[test]
fn the_tail_forgets_and_still_knows_the_term_before_it() {
    let mut raft = Raft::new(&config(1), &restored(&[1])).unwrap();
    raft.campaign();
    for _ in 0..10 {
        let data = Bytes::from(vec![0; 100]);
        raft.propose(std::iter::once((EntryKind::Normal, data)))
            .unwrap();
        while raft.has_ready() {
            let ready = raft.ready();
            raft.on_persisted(ready.number);
        }
    }
    let last = raft.committed();
    assert_eq!(last, LogIndex(11));
    raft.on_applied(last);
    raft.compact(last, LogIndex(6), usize::MAX);
    assert_eq!(raft.term_of(LogIndex(5)), None);
    assert_eq!(raft.term_of(LogIndex(6)), Some(Term(1)));
    raft.compact(last, LogIndex(6), 250);
    assert_eq!(raft.term_of(LogIndex(8)), None);
    assert_eq!(raft.term_of(LogIndex(9)), Some(Term(1)));
}
