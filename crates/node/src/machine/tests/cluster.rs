//! Three members that talk to each other, each with a pretended disk and state machine.

use std::collections::BTreeMap;

use super::*;
use crate::raft::Progress;

const IDS: [u64; 3] = [7, 8, 9];

struct Cluster {
    nodes: BTreeMap<u64, Node>,
    /// Outputs that were not carried out, by member.
    kept: BTreeMap<u64, Vec<Output>>,
    mail: VecDeque<Message>,
    answered: Vec<(u64, Token)>,
    readable: Vec<(u64, Token)>,
    /// What `AskVersions` is answered with.
    versions: Vec<(MemberId, Option<String>)>,
    /// Changes to apply, by the id of their entry.
    changes: BTreeMap<u64, ConfChange>,
    /// What is lost on its way.
    lost: fn(&Message) -> bool,
}

impl Cluster {
    /// Three members, of which 7 leads.
    fn new() -> Cluster {
        Cluster::of(&IDS)
    }

    /// These members, of which 7 leads.
    fn of(ids: &[u64]) -> Cluster {
        let node = |id: u64| {
            let mut config = config();
            config.raft.id = MemberId(id);
            config.cluster_version = None;
            config.request_ids = Arc::new(RequestIds::new(MemberId(id), 1000));
            (id, Node::new(config, &restored(ids)).unwrap())
        };
        let mut cluster = Cluster {
            nodes: ids.iter().copied().map(node).collect(),
            kept: BTreeMap::new(),
            mail: VecDeque::new(),
            answered: Vec::new(),
            readable: Vec::new(),
            versions: Vec::new(),
            changes: BTreeMap::new(),
            lost: |_| false,
        };
        for id in ids.iter().copied() {
            cluster.input(id, Input::Start);
        }
        while !cluster.nodes[&7].is_leader() {
            cluster.input(7, Input::Tick);
        }
        cluster
    }

    fn input(&mut self, id: u64, input: Input) {
        let mut inputs = VecDeque::from([(id, input)]);
        loop {
            while let Some((id, input)) = inputs.pop_front() {
                let Some(node) = self.nodes.get_mut(&id) else {
                    continue;
                };
                let mut outputs = Vec::new();
                node.handle(input, &mut outputs);
                for output in outputs {
                    self.carry_out(id, output, &mut inputs);
                }
            }
            let Some(message) = self.mail.pop_front() else {
                return;
            };
            if !(self.lost)(&message) {
                inputs.push_back((message.to.0, Input::Message(Box::new(message))));
            }
        }
    }

    fn carry_out(&mut self, id: u64, output: Output, inputs: &mut VecDeque<(u64, Input)>) {
        match output {
            Output::Send(messages) => self.mail.extend(messages),
            Output::Persist(batch) => {
                let number = batch.number;
                inputs.push_back((id, Input::Persisted { number }));
            }
            Output::Apply(entries) => self.apply(id, &entries, inputs),
            Output::ReadReady { tokens, .. } => {
                self.readable
                    .extend(tokens.into_iter().map(|token| (id, token)));
            }
            Output::AskVersions => {
                inputs.push_back((id, Input::Versions(self.versions.clone())));
            }
            output => self.kept.entry(id).or_default().push(output),
        }
    }

    fn apply(&mut self, id: u64, entries: &[Entry], inputs: &mut VecDeque<(u64, Input)>) {
        for entry in entries {
            let index = entry.index;
            let request = match entry.kind {
                EntryKind::ConfChange => state::ConfChange::decode(&entry.data[..]).unwrap().id,
                EntryKind::Normal => {
                    let request =
                        api::pb::etcdserverpb::InternalRaftRequest::decode(&entry.data[..]);
                    let request = request.unwrap();
                    if let Some(set) = request.cluster_version_set {
                        inputs.push_back((id, Input::ClusterVersion(set.ver)));
                    }
                    request.header.map_or(0, |header| header.id)
                }
            };
            if let Some(change) = self.changes.get(&request).copied() {
                let change = Some(change);
                inputs.push_back((id, Input::ConfChange { index, change }));
            }
            let node = self.nodes.get_mut(&id).unwrap();
            self.answered
                .extend(node.complete(RequestId(request)).map(|token| (id, token)));
        }
        let index = entries.last().unwrap().index;
        inputs.push_back((id, Input::Applied { index }));
    }

    fn propose(&mut self, id: u64, token: u64) {
        let request = self.nodes[&id].request_ids().next();
        let data = own::cluster_version(request, "3.5.0");
        let proposal = Proposal {
            id: request,
            kind: EntryKind::Normal,
            data,
            token: Token(token),
        };
        self.input(id, Input::Propose(vec![proposal]));
    }

    fn tick_all(&mut self, times: usize) {
        for _ in 0..times {
            for id in IDS {
                self.input(id, Input::Tick);
            }
        }
    }

    /// Proposes, by way of member 7, that member 7 goes.
    fn remove_7(&mut self) {
        let id = self.nodes[&7].request_ids().next();
        self.changes.insert(id.0, ConfChange::Remove(MemberId(7)));
        let data = state::ConfChange {
            id: id.0,
            kind: 1,
            node_id: 7,
            ..Default::default()
        };
        let proposal = Proposal {
            id,
            kind: EntryKind::ConfChange,
            data: data.encode_to_vec().into(),
            token: Token(1),
        };
        self.input(7, Input::Propose(vec![proposal]));
    }

    fn leader(&self) -> Vec<u64> {
        let leads = self.nodes.iter().filter(|(_, node)| node.is_leader());
        leads.map(|(id, _)| *id).collect()
    }

    fn kept(&self, id: u64) -> &[Output] {
        self.kept.get(&id).map_or(&[], Vec::as_slice)
    }
}

#[test]
fn followers_pass_on_what_they_are_asked() {
    let mut cluster = Cluster::new();
    cluster.propose(8, 1);
    cluster.tick_all(1);
    assert_eq!(cluster.answered, [(8, Token(1))]);
    cluster.input(9, Input::ReadIndex(vec![Token(2), Token(3)]));
    cluster.tick_all(1);
    assert_eq!(cluster.readable, [(9, Token(2)), (9, Token(3))]);
}

#[test]
fn a_leader_without_a_quorum_answers_no_read() {
    let mut cluster = Cluster::new();
    let rest = [cluster.nodes.remove(&8), cluster.nodes.remove(&9)];
    cluster.input(7, Input::ReadIndex(vec![Token(1)]));
    for _ in 0..100 {
        cluster.input(7, Input::Tick);
    }
    assert!(cluster.readable.is_empty());
    let refused = cluster.kept(7).iter().any(|output| {
        matches!(output, Output::Rejected(all) if all[0] == (Token(1), api::Error::LeaderChanged))
    });
    assert!(refused, "the reads fail when the leader steps down");
    assert!(cluster.leader().is_empty());
    assert!(rest.iter().all(Option::is_some));
}

#[test]
fn leadership_moves_to_whom_it_should() {
    let mut cluster = Cluster::new();
    let to = |id| Some(MemberId(id));
    let token = Token(1);
    cluster.input(8, Input::TransferLeader { to: to(9), token });
    let not_leader = Output::Rejected(vec![(token, api::Error::NotLeader)]);
    assert!(cluster.kept(8).contains(&not_leader));
    cluster.input(7, Input::TransferLeader { to: to(77), token });
    let bad = Output::Rejected(vec![(token, api::Error::BadLeaderTransferee)]);
    assert!(cluster.kept(7).contains(&bad));
    cluster.input(7, Input::TransferLeader { to: to(7), token });
    assert!(cluster.kept(7).contains(&Output::Transferred(token)));
    let token = Token(2);
    cluster.input(7, Input::TransferLeader { to: to(9), token });
    assert_eq!(cluster.leader(), [9]);
    cluster.tick_all(2);
    assert!(cluster.kept(7).contains(&Output::Transferred(token)));
    let token = Token(3);
    cluster.input(9, Input::TransferLeader { to: None, token });
    cluster.tick_all(2);
    assert!(cluster.kept(9).contains(&Output::Transferred(token)));
    assert_ne!(cluster.leader(), [9]);
}

#[test]
fn a_transfer_to_one_that_is_gone_ends_in_time() {
    let mut cluster = Cluster::new();
    cluster.nodes.remove(&9);
    let (to, token) = (Some(MemberId(9)), Token(1));
    cluster.input(7, Input::TransferLeader { to, token });
    cluster.tick_all(80);
    let late = Output::Rejected(vec![(token, api::Error::LeaderTransferTimeout)]);
    assert!(cluster.kept(7).contains(&late));
    assert_eq!(cluster.leader(), [7]);
}

#[test]
fn a_removed_leader_lets_the_others_know_before_it_stops() {
    let mut cluster = Cluster::new();
    cluster.remove_7();
    cluster.tick_all(2);
    assert_eq!(cluster.answered, [(7, Token(1))]);
    for id in [8, 9] {
        assert_eq!(cluster.nodes[&id].conf().voters, [8, 9]);
    }
    // Nobody waits for an election.
    assert!(matches!(cluster.leader()[..], [8 | 9]));
    assert!(!cluster.kept(7).contains(&Output::Removed));
    cluster.propose(7, 2);
    let stopped = Output::Rejected(vec![(Token(2), api::Error::Stopped)]);
    assert!(cluster.kept(7).contains(&stopped));
    cluster.tick_all(10);
    assert!(cluster.kept(7).contains(&Output::Removed));
    cluster.nodes.remove(&7);
    cluster.tick_all(40);
    assert_eq!(cluster.leader().len(), 1);
}

#[test]
fn of_two_members_the_leader_may_go() {
    let mut cluster = Cluster::of(&[7, 8]);
    cluster.remove_7();
    cluster.tick_all(2);
    assert_eq!(cluster.nodes[&8].conf().voters, [8]);
    assert_eq!(cluster.leader(), [8]);
    cluster.tick_all(10);
    assert!(cluster.kept(7).contains(&Output::Removed));
    cluster.nodes.remove(&7);
    cluster.propose(8, 2);
    assert!(cluster.answered.contains(&(8, Token(2))));
}

/// The other one has the entry and does not know that it is committed; alone it could never tell.
#[test]
fn of_two_members_the_leader_stays_until_the_other_leads() {
    let mut cluster = Cluster::of(&[7, 8]);
    cluster.lost = |message| message.from == MemberId(7) && message.entries.is_empty();
    cluster.remove_7();
    cluster.tick_all(30);
    assert_eq!(cluster.answered, [(7, Token(1))]);
    assert_eq!(cluster.nodes[&8].conf().voters, [7, 8]);
    assert!(!cluster.kept(7).contains(&Output::Removed));
    cluster.lost = |_| false;
    for _ in 0..100 {
        cluster.tick_all(1);
        if cluster.kept(7).contains(&Output::Removed) {
            cluster.nodes.remove(&7);
        }
    }
    assert!(!cluster.nodes.contains_key(&7));
    assert_eq!(cluster.nodes[&8].conf().voters, [8]);
    assert_eq!(cluster.leader(), [8]);
}

#[test]
fn a_removed_member_that_nobody_hears_stops_at_last() {
    let mut cluster = Cluster::of(&[7, 8]);
    cluster.lost = |message| message.from == MemberId(7) && message.entries.is_empty();
    cluster.remove_7();
    cluster.lost = |_| true;
    cluster.tick_all(160);
    assert!(cluster.kept(7).contains(&Output::Removed));
}

/// What only a leader may ask is not handed on.
#[test]
fn what_a_leader_asks_for_as_leader_ends_with_its_leadership() {
    let mut cluster = Cluster::new();
    let ask = |cluster: &mut Cluster, token: u64| {
        let id = cluster.nodes[&7].request_ids().next();
        let proposal = Proposal {
            id,
            kind: EntryKind::Normal,
            data: own::cluster_version(id, "3.5.0"),
            token: Token(token),
        };
        cluster.input(7, Input::ProposeAsLeader(vec![proposal]));
    };
    let last = |cluster: &Cluster| cluster.nodes[&8].committed();
    let before = last(&cluster);
    ask(&mut cluster, 1);
    cluster.tick_all(1);
    assert_eq!(last(&cluster), before.next());
    let (to, token) = (Some(MemberId(8)), Token(2));
    cluster.input(7, Input::TransferLeader { to, token });
    cluster.tick_all(2);
    assert_eq!(cluster.leader(), [8]);
    assert!(cluster.kept(8).contains(&Output::Settled));
    let before = last(&cluster);
    ask(&mut cluster, 3);
    cluster.tick_all(20);
    assert_eq!(last(&cluster), before);
}

#[test]
fn the_cluster_version_is_what_all_understand() {
    let mut cluster = Cluster::new();
    let current = |cluster: &Cluster| cluster.nodes[&7].versions.current.clone();
    let told = |id: u64, version: &str| (MemberId(id), Some(version.to_owned()));
    // Somebody was not heard of: the least there is.
    cluster.versions = vec![told(8, "3.7.1"), (MemberId(9), None)];
    cluster.tick_all(45);
    assert_eq!(current(&cluster).as_deref(), Some("3.0.0"));
    cluster.versions = vec![told(8, "3.7.1"), told(9, "3.6.4")];
    cluster.tick_all(45);
    assert_eq!(current(&cluster).as_deref(), Some("3.6.0"));
    // It stays while somebody cannot be asked, and never falls.
    cluster.versions = vec![told(8, "3.7.1"), (MemberId(9), None)];
    cluster.tick_all(45);
    cluster.versions = vec![told(8, "3.5.0"), told(9, "3.7.0")];
    cluster.tick_all(45);
    assert_eq!(current(&cluster).as_deref(), Some("3.6.0"));
    cluster.versions = vec![told(8, "3.7.1"), told(9, "3.7.0")];
    cluster.tick_all(45);
    assert_eq!(current(&cluster).as_deref(), Some("3.7.0"));
}

#[test]
fn appends_leave_before_the_leaders_own_sync_and_answers_after_the_followers() {
    let mut cluster = Cluster::new();
    let id = cluster.nodes[&7].request_ids().next();
    let (kind, data) = (EntryKind::Normal, Bytes::from_static(b"x"));
    let token = Token(1);
    let mut outputs = Vec::new();
    let proposal = Proposal {
        id,
        kind,
        data,
        token,
    };
    let leader = cluster.nodes.get_mut(&7).unwrap();
    leader.handle(Input::Propose(vec![proposal]), &mut outputs);
    let sent = outputs
        .iter()
        .position(|output| matches!(output, Output::Send(_)));
    let kept = outputs
        .iter()
        .position(|output| matches!(output, Output::Persist(_)));
    assert!(sent.is_some() && kept.is_some());
    let Some(Output::Send(messages)) = sent.map(|at| &outputs[at]) else {
        unreachable!()
    };
    let append = messages.iter().find(|message| message.to.0 == 8).unwrap();
    let follower = cluster.nodes.get_mut(&8).unwrap();
    let mut outputs = Vec::new();
    follower.handle(Input::Message(Box::new(append.clone())), &mut outputs);
    let [Output::Persist(batch)] = &outputs[..] else {
        panic!("{outputs:?}")
    };
    let (number, mut outputs) = (batch.number, Vec::new());
    // A heartbeat's answer does not wait for the entries' sync.
    let heartbeat = Message {
        term: append.term,
        ..Message::new(MessageKind::Heartbeat, MemberId(7), MemberId(8))
    };
    follower.handle(Input::Message(Box::new(heartbeat)), &mut outputs);
    assert!(matches!(&outputs[..], [Output::Send(all)]
        if all[0].kind == MessageKind::HeartbeatResponse));
    outputs.clear();
    follower.handle(Input::Persisted { number }, &mut outputs);
    assert!(matches!(&outputs[..], [Output::Send(all)]
        if all[0].kind == MessageKind::AppendResponse));
    let known: Option<Progress> = cluster.nodes[&7].progress(MemberId(8));
    assert!(known.is_some_and(|progress| progress.is_active));
}

/// Entries that came in several appends, in one turn.
#[test]
fn appends_of_one_turn_are_one_batch_with_one_answer() {
    let mut cluster = Cluster::new();
    let mut appends = Vec::new();
    for data in ["a", "b", "c"] {
        let leader = cluster.nodes.get_mut(&7).unwrap();
        let id = leader.request_ids().next();
        let proposal = Proposal {
            id,
            kind: EntryKind::Normal,
            data: Bytes::from(data),
            token: Token(id.0),
        };
        let mut outputs = Vec::new();
        leader.handle(Input::Propose(vec![proposal]), &mut outputs);
        for output in outputs {
            let Output::Send(messages) = output else {
                continue;
            };
            let to_8 = messages.into_iter().filter(|message| message.to.0 == 8);
            appends.extend(to_8.map(|message| Input::Message(Box::new(message))));
        }
    }
    assert_eq!(appends.len(), 3);
    let follower = cluster.nodes.get_mut(&8).unwrap();
    let mut outputs = Vec::new();
    follower.handle_all(appends, &mut outputs);
    let [Output::Persist(batch)] = &outputs[..] else {
        panic!("{outputs:?}")
    };
    let last = batch.entries.last().unwrap().index;
    assert_eq!(batch.entries.len(), 3);
    let (number, mut outputs) = (batch.number, Vec::new());
    follower.handle(Input::Persisted { number }, &mut outputs);
    let [Output::Send(answers)] = &outputs[..] else {
        panic!("{outputs:?}")
    };
    let [answer] = &answers[..] else {
        panic!("{answers:?}")
    };
    assert_eq!(
        (answer.kind, answer.index),
        (MessageKind::AppendResponse, last)
    );
}

#[test]
fn only_what_a_later_answer_says_too_is_left_out() {
    let answer = |to: u64, term: u64, index: u64, reject: bool| Message {
        term: Term(term),
        index: LogIndex(index),
        reject,
        ..Message::new(MessageKind::AppendResponse, MemberId(1), MemberId(to))
    };
    let vote = Message::new(MessageKind::VoteResponse, MemberId(1), MemberId(2));
    let kept = [
        answer(2, 3, 9, false),
        answer(2, 4, 5, true),
        vote.clone(),
        answer(2, 4, 7, false),
    ];
    let all = vec![
        answer(2, 3, 8, false),
        kept[0].clone(),
        kept[1].clone(),
        answer(2, 4, 6, false),
        vote,
        answer(2, 4, 7, false),
        kept[3].clone(),
    ];
    assert_eq!(without_superseded(all), kept);
}
