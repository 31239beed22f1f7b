//! One member with a pretended disk and state machine: who is told what, and when.

mod cluster;
mod membership;

use api::pb::etcdserverpb as pb;
use prost::Message as _;

use super::*;

const ID: u64 = 7;

/// Carries out outputs only when told to.
struct Harness {
    node: Node,
    out: VecDeque<Output>,
    log: Vec<Entry>,
    hard_state: HardState,
}

fn config() -> Config {
    Config {
        raft: raft::Config {
            id: MemberId(ID),
            election_ticks: 10,
            pre_vote: true,
            seed: 1,
        },
        tick_ms: 100,
        snapshot_count: 10_000,
        catch_up_entries: 5000,
        name: "n1".into(),
        client_urls: vec!["http://127.0.0.1:2379".into()],
        version: "3.7.0".into(),
        cluster_version: Some("3.7.0".into()),
        snapshot_index: LogIndex(0),
        state_index: LogIndex(0),
        request_ids: Arc::new(RequestIds::new(MemberId(ID), 1000)),
    }
}

fn voters(ids: &[u64]) -> storage::log::ConfState {
    storage::log::ConfState {
        voters: ids.to_vec(),
        ..Default::default()
    }
}

fn entry(index: u64, term: u64) -> Entry {
    let (index, term) = (LogIndex(index), Term(term));
    Entry {
        kind: EntryKind::Normal,
        index,
        term,
        data: Bytes::new(),
    }
}

/// A log of one applied entry, as a restart finds it.
fn restored(ids: &[u64]) -> Restored {
    Restored {
        hard_state: HardState {
            term: Term(1),
            vote: ID,
            commit: LogIndex(1),
        },
        conf: voters(ids),
        before: (LogIndex(0), Term(0)),
        entries: vec![entry(1, 1)],
        applied: LogIndex(1),
    }
}

impl Harness {
    fn new(config: Config, restored: &Restored) -> Harness {
        let node = Node::new(config, restored).unwrap();
        let log = restored.entries.clone();
        let mut harness = Harness {
            node,
            out: VecDeque::new(),
            log,
            hard_state: restored.hard_state,
        };
        harness.input(Input::Start);
        harness
    }

    /// One voter that leads, has published itself, and is idle.
    fn settled(config: Config) -> Harness {
        let mut harness = Harness::new(config, &restored(&[ID]));
        harness.run();
        harness.input(Input::Flush);
        harness.run();
        assert!(harness.node.is_idle());
        assert_eq!(harness.node.publish, Own::Done);
        harness
    }

    fn input(&mut self, input: Input) {
        let mut out = Vec::new();
        self.node.handle(input, &mut out);
        for output in &out {
            if let Output::TakeSnapshot(meta) = output {
                // Whoever writes the record does not wait for a batch that is on its way.
                assert!(self.hard_state.commit >= meta.index);
            }
        }
        self.out.extend(out);
    }

    fn propose(&mut self, token: u64) -> RequestId {
        let id = self.node.request_ids().next();
        self.propose_data(id, token, id.0.to_be_bytes().to_vec().into());
        id
    }

    fn propose_data(&mut self, id: RequestId, token: u64, data: Bytes) {
        self.input(Input::Propose(vec![Proposal {
            id,
            kind: EntryKind::Normal,
            data,
            token: Token(token),
        }]));
    }

    /// A client's request to end a lease.
    fn propose_revocation(&mut self, token: u64) {
        let id = self.node.request_ids().next();
        let request = pb::InternalRaftRequest {
            lease_revoke: Some(pb::LeaseRevokeRequest { id: 7 }),
            ..Default::default()
        };
        self.propose_data(id, token, request.encode_to_vec().into());
    }

    /// Writes what is to be written while the state machine is stuck; gives who was refused.
    fn write_all(&mut self) -> Vec<(Token, api::Error)> {
        let mut refused = Vec::new();
        while let Some(output) = self.out.pop_front() {
            match output {
                Output::Persist(batch) => {
                    let number = self.write(batch);
                    self.input(Input::Persisted { number });
                }
                Output::Rejected(rejected) => refused.extend(rejected),
                _ => {}
            }
        }
        refused
    }

    /// Carries out one output; returns who was answered by it.
    fn step(&mut self) -> Vec<Token> {
        let mut answered = Vec::new();
        match self.out.pop_front() {
            Some(Output::Persist(batch)) => {
                let number = self.write(batch);
                self.input(Input::Persisted { number });
            }
            Some(Output::Apply(entries)) => {
                for entry in &entries {
                    let id = pb::InternalRaftRequest::decode(&entry.data[..])
                        .ok()
                        .and_then(|request| request.header)
                        .map_or_else(
                            || u64::from_be_bytes(entry.data[..].try_into().unwrap_or([0; 8])),
                            |header| header.id,
                        );
                    answered.extend(self.node.complete(RequestId(id)));
                }
                let index = entries.last().unwrap().index;
                self.input(Input::Applied { index });
            }
            Some(Output::ReadReady { tokens, .. }) => answered.extend(tokens),
            _ => {}
        }
        answered
    }

    fn write(&mut self, batch: Persist) -> u64 {
        if let Some(first) = batch.entries.first() {
            self.log.truncate(first.index.0 as usize - 1);
            self.log.extend(batch.entries);
        }
        self.hard_state = batch.hard_state.unwrap_or(self.hard_state);
        assert!(self.hard_state.commit.0 <= self.log.len() as u64);
        batch.number
    }

    fn run(&mut self) -> Vec<Token> {
        let mut answered = Vec::new();
        while !self.out.is_empty() {
            answered.extend(self.step());
        }
        answered
    }

    fn take(&mut self, want: impl Fn(&Output) -> bool) -> Output {
        let at = self.out.iter().position(want).expect("output is there");
        self.out.remove(at).unwrap()
    }

    fn persist(&mut self) -> Persist {
        match self.take(|output| matches!(output, Output::Persist(_))) {
            Output::Persist(batch) => batch,
            _ => unreachable!(),
        }
    }

    fn has(&self, want: impl Fn(&Output) -> bool) -> bool {
        self.out.iter().any(want)
    }
}

#[test]
fn a_new_member_leads_and_introduces_itself_without_waiting_for_ticks() {
    let change = Entry {
        kind: EntryKind::ConfChange,
        ..entry(1, 1)
    };
    let fresh = Restored {
        hard_state: HardState {
            term: Term(1),
            vote: 0,
            commit: LogIndex(1),
        },
        entries: vec![change],
        ..Default::default()
    };
    let mut config = config();
    config.cluster_version = None;
    let mut harness = Harness::new(config, &fresh);
    assert_eq!(harness.out.len(), 1);
    assert!(matches!(&harness.out[0], Output::Apply(entries) if entries.len() == 1));
    harness.out.clear();
    let change = Some(ConfChange::AddVoter(MemberId(ID)));
    harness.input(Input::ConfChange {
        index: LogIndex(1),
        change,
    });
    harness.input(Input::Applied { index: LogIndex(1) });
    assert!(harness.has(|output| matches!(
        output,
        Output::LeaderChanged {
            leader: Some(MemberId(ID)),
            term: Term(2)
        }
    )));
    harness.run();
    assert!(harness.node.is_idle());
    // The leader's first entry, then attributes, then the cluster version.
    assert_eq!(harness.log.len(), 4);
    assert_eq!(harness.log[1].data.len(), 0);
    assert_eq!(harness.log[2].data[12..15], [0xaa, 0x51, 0x1f]);
    assert_eq!(harness.log[3].data[12..], *b"\xa2\x51\x07\x0a\x053.7.0");
    assert_eq!(
        (harness.node.publish, harness.node.versions.setting),
        (Own::Done, Own::Done)
    );
}

#[test]
fn nothing_is_answered_before_the_sync_that_covers_it() {
    let mut harness = Harness::settled(config());
    harness.propose(1);
    let batch = harness.persist();
    assert!(batch.must_sync && batch.entries.len() == 1);
    assert!(harness.out.is_empty(), "nothing is applied yet");
    let number = harness.write(batch);
    harness.input(Input::Persisted { number });
    assert_eq!(harness.run(), [Token(1)]);
}

#[test]
fn what_arrives_during_a_sync_is_the_next_batch() {
    let mut harness = Harness::settled(config());
    harness.propose(1);
    let first = harness.persist();
    for token in 2..=5 {
        harness.propose(token);
    }
    assert!(harness.out.is_empty(), "one batch at a time");
    let number = harness.write(first);
    harness.input(Input::Persisted { number });
    let second = harness.persist();
    assert_eq!(second.entries.len(), 4);
    assert_eq!(
        second.hard_state.map(|state| state.commit),
        Some(LogIndex(second.entries[0].index.0 - 1))
    );
    assert_eq!(harness.run(), [Token(1)]);
    let number = harness.write(second);
    harness.input(Input::Persisted { number });
    assert_eq!(harness.run(), [2, 3, 4, 5].map(Token));
}

#[test]
fn a_lone_commit_index_waits_for_company_or_a_tick() {
    let mut harness = Harness::settled(config());
    harness.propose(1);
    harness.run();
    let commit = harness.node.committed();
    assert!(harness.hard_state.commit < commit);
    harness.input(Input::Tick);
    let batch = harness.persist();
    assert!(!batch.must_sync && batch.entries.is_empty());
    harness.write(batch);
    assert_eq!(harness.hard_state.commit, commit);
}

#[test]
fn a_sole_voter_answers_reads_at_once_but_not_before_its_term_is_applied() {
    let mut harness = Harness::new(config(), &restored(&[ID]));
    harness.input(Input::ReadIndex(vec![Token(9)]));
    assert!(!harness.has(|output| matches!(output, Output::ReadReady { .. })));
    assert!(!harness.has(|output| matches!(output, Output::SoleLeader(true))));
    assert_eq!(harness.run(), [Token(9)]);
    assert!(harness.node.sole_leader);
    harness.input(Input::ReadIndex(vec![Token(10), Token(11)]));
    assert_eq!(harness.run(), [Token(10), Token(11)]);
    // A read that arrives between commit and apply waits for apply.
    harness.propose(1);
    let batch = harness.persist();
    let number = harness.write(batch);
    harness.input(Input::Persisted { number });
    harness.input(Input::ReadIndex(vec![Token(12)]));
    assert!(!harness.has(|output| matches!(output, Output::ReadReady { .. })));
    assert_eq!(harness.run(), [Token(1), Token(12)]);
}

#[test]
fn a_configuration_change_withdraws_the_sole_leader_first() {
    let mut harness = Harness::settled(config());
    let id = harness.node.request_ids().next();
    let (kind, data, token) = (
        EntryKind::ConfChange,
        Bytes::from_static(b"\x10\x03"),
        Token(1),
    );
    harness.input(Input::Propose(vec![Proposal {
        id,
        kind,
        data: data.clone(),
        token,
    }]));
    let batch = harness.persist();
    assert_eq!(
        (batch.entries[0].kind, &batch.entries[0].data),
        (kind, &data)
    );
    let number = harness.write(batch);
    harness.input(Input::Persisted { number });
    let Some(Output::Apply(entries)) = harness.out.pop_front() else {
        panic!("apply")
    };
    assert_eq!((entries[0].kind, &entries[0].data), (kind, &data));
    let index = entries[0].index;
    let change = Some(ConfChange::AddVoter(MemberId(8)));
    harness.input(Input::ConfChange { index, change });
    assert_eq!(harness.out.pop_front(), Some(Output::SoleLeader(false)));
    harness.input(Input::Applied { index });
    // From now on a read needs the other voter.
    harness.out.clear();
    harness.input(Input::ReadIndex(vec![Token(2)]));
    let asked = harness.take(|output| matches!(output, Output::Send(_)));
    let Output::Send(messages) = asked else {
        unreachable!()
    };
    let heartbeat = messages
        .iter()
        .find(|message| message.kind == MessageKind::Heartbeat)
        .unwrap();
    let me = MemberId(ID);
    let mut answer = Message::new(MessageKind::HeartbeatResponse, MemberId(8), me);
    (answer.term, answer.context) = (heartbeat.term, Bytes::from_static(b"another"));
    harness.input(Input::Message(Box::new(answer.clone())));
    assert!(!harness.has(|output| matches!(output, Output::ReadReady { .. })));
    answer.context = heartbeat.context.clone();
    harness.input(Input::Message(Box::new(answer)));
    assert!(harness.has(|output| matches!(output, Output::ReadReady { .. })));
}

#[test]
fn a_stalled_state_machine_bounds_what_is_taken() {
    let mut harness = Harness::settled(config());
    let mut refused = 0;
    for token in 0..7000 {
        harness.propose(token);
        for rejected in harness.write_all() {
            assert_eq!(rejected, (Token(token), api::Error::TooManyRequests));
            refused += 1;
        }
    }
    assert_eq!(refused, 7000 - 5001);
    assert_eq!(
        harness.node.apply.handed.0 - harness.node.apply.applied.0,
        1024
    );
}

#[test]
fn ends_of_leases_are_taken_up_to_twice_the_backlog() {
    let full = |revocations: &mut dyn FnMut(&mut Harness)| {
        let mut harness = Harness::settled(config());
        for token in 0..5001 {
            harness.propose(token);
            assert_eq!(harness.write_all(), []);
        }
        revocations(&mut harness);
        harness
    };
    let refused = |token| [(Token(token), api::Error::TooManyRequests)];
    full(&mut |harness| {
        harness.propose_revocation(1);
        assert_eq!(harness.write_all(), refused(1));
    });
    full(&mut |harness| {
        harness.node.prioritise_revocations();
        harness.propose(1);
        assert_eq!(harness.write_all(), refused(1));
        for token in 0..5000 {
            harness.propose_revocation(token);
            assert_eq!(harness.write_all(), []);
        }
        harness.propose_revocation(2);
        assert_eq!(harness.write_all(), refused(2));
    });
}

#[test]
fn a_request_without_a_leader_times_out() {
    let mut harness = Harness::new(config(), &restored(&[ID, 8, 9]));
    harness.propose(1);
    harness.input(Input::ReadIndex(vec![Token(2)]));
    for _ in 0..69 {
        harness.input(Input::Tick);
        let gave_up = |output: &Output| matches!(output, Output::Rejected(_) | Output::Late(_));
        assert!(!harness.has(gave_up));
    }
    harness.input(Input::Tick);
    let rejected = harness.take(|output| matches!(output, Output::Rejected(_)));
    let read = vec![(Token(2), api::Error::Timeout)];
    assert_eq!(rejected, Output::Rejected(read));
    let late = harness.take(|output| matches!(output, Output::Late(_)));
    assert_eq!(late, Output::Late(vec![Token(1)]));
    assert!(harness.node.parked.is_empty());
}

#[test]
fn a_vote_leaves_only_after_its_sync() {
    let mut harness = Harness::new(config(), &restored(&[ID, 8, 9]));
    let mut vote = Message::new(MessageKind::Vote, MemberId(8), MemberId(ID));
    (vote.term, vote.index, vote.log_term) = (Term(5), LogIndex(9), Term(4));
    harness.input(Input::Message(Box::new(vote)));
    assert!(!harness.has(|output| matches!(output, Output::Send(_))));
    let batch = harness.persist();
    assert_eq!(
        batch.hard_state.map(|state| (state.term, state.vote)),
        Some((Term(5), 8))
    );
    assert!(batch.must_sync);
    harness.input(Input::Persisted {
        number: batch.number,
    });
    let Output::Send(sent) = harness.take(|output| matches!(output, Output::Send(_))) else {
        unreachable!()
    };
    assert_eq!(
        (sent[0].kind, sent[0].reject),
        (MessageKind::VoteResponse, false)
    );
}

#[test]
fn a_snapshot_is_taken_of_a_quiet_state_with_a_covering_commit() {
    let mut harness = Harness::settled(Config {
        snapshot_count: 3,
        ..config()
    });
    let mut taken = 0;
    for token in 0..20 {
        harness.propose(token);
        while let Some(front) = harness.out.front() {
            if let Output::TakeSnapshot(meta) = front {
                assert_eq!(meta.index, harness.node.apply.applied);
                assert_eq!(harness.node.apply.handed, meta.index);
                assert!(harness.hard_state.commit >= meta.index);
                assert_eq!(meta.conf.voters, [ID]);
                let index = meta.index;
                taken += 1;
                harness.out.pop_front();
                harness.input(Input::SnapshotTaken { index });
            } else {
                harness.step();
            }
        }
    }
    assert_eq!(taken, 5);
    harness.input(Input::ForceSnapshot);
    let mut forced = false;
    while let Some(front) = harness.out.front() {
        forced |= matches!(front, Output::TakeSnapshot(_));
        harness.step();
    }
    assert!(forced);
}
