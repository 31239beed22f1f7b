//! etcd's checks of a change of the membership, and the entries that pass them become.

use std::collections::BTreeMap;

use api::Error;
use state::Member;

use super::*;

const OWN: MemberId = MemberId(ID);

fn member(id: u64, name: &str) -> Member {
    Member {
        id,
        name: name.into(),
        peer_urls: vec![format!("http://m{id}:2380")],
        ..Member::default()
    }
}

fn learner(id: u64) -> Member {
    Member {
        is_learner: true,
        ..member(id, "")
    }
}

/// Asks a sole voter that leads, whatever `members` say.
fn ask(
    change: MemberChange,
    members: Vec<Member>,
    connected: &[(u64, u64)],
) -> Result<Bytes, Error> {
    let harness = Harness::settled(config());
    let connected_ms: BTreeMap<MemberId, u64> = connected
        .iter()
        .map(|(id, ms)| (MemberId(*id), *ms))
        .collect();
    let change = Reconfigure {
        id: RequestId(5),
        token: Token(1),
        change,
        members: members.into_iter().collect(),
        connected_ms,
        strict: true,
    };
    change.check(OWN, &harness.node.raft)
}

fn three() -> Vec<Member> {
    vec![member(ID, "a"), member(8, "b"), member(9, "c")]
}

const ALL: [(u64, u64); 2] = [(8, 9000), (9, 9000)];

#[test]
fn a_member_is_added_when_the_cluster_can_bear_it() {
    let add = |id| MemberChange::Add(member(id, ""));
    assert!(ask(add(10), three(), &ALL).is_ok());
    // A lone member may get a second one.
    assert!(ask(add(10), vec![member(ID, "a")], &[]).is_ok());
    // Two of three run, four need three.
    let mut one_idle = three();
    one_idle[2].name.clear();
    let refused = Err(Error::MemberNotEnoughStarted);
    assert_eq!(ask(add(10), one_idle.clone(), &ALL), refused);
    // A learner does not count, but everybody must be well.
    let learns = || MemberChange::Add(learner(10));
    assert!(ask(learns(), one_idle, &ALL).is_ok());
    for connected in [&ALL[..1], &[(8, 9000), (9, 4999)]] {
        assert_eq!(ask(learns(), three(), connected), Err(Error::Unhealthy));
        assert_eq!(ask(add(10), three(), connected), Err(Error::Unhealthy));
    }
}

#[test]
fn a_member_is_removed_when_a_quorum_stays() {
    let remove = |id| MemberChange::Remove(MemberId(id));
    assert!(ask(remove(9), three(), &ALL).is_ok());
    assert!(ask(remove(ID), three(), &ALL).is_ok());
    // One that is down may go; one that works may not when another is down.
    assert!(ask(remove(9), three(), &ALL[..1]).is_ok());
    assert_eq!(ask(remove(8), three(), &ALL[..1]), Err(Error::Unhealthy));
    let mut idle = three();
    idle[1].name.clear();
    idle[2].name.clear();
    assert_eq!(
        ask(remove(8), idle, &ALL),
        Err(Error::MemberNotEnoughStarted)
    );
    assert_eq!(
        ask(remove(ID), vec![member(ID, "a")], &[]),
        Err(Error::MemberNotEnoughStarted)
    );
    let with_learner = [three(), vec![learner(10)]].concat();
    assert!(ask(remove(10), with_learner, &ALL[..1]).is_ok());
}

#[test]
fn a_learner_is_promoted_when_it_is_known_and_near() {
    let promote = |id| MemberChange::Promote(MemberId(id));
    let with_learner = || [three(), vec![learner(10)]].concat();
    assert_eq!(
        ask(promote(44), with_learner(), &ALL),
        Err(Error::MemberNotFound)
    );
    assert_eq!(
        ask(promote(8), with_learner(), &ALL),
        Err(Error::MemberNotLearner)
    );
    // The record has it, raft has not heard of it.
    assert_eq!(
        ask(promote(10), with_learner(), &ALL),
        Err(Error::MemberNotFound)
    );
    let mut harness = Harness::settled(config());
    let change = ConfChange::AddLearner(MemberId(10));
    harness.node.raft.apply_conf_change(change).unwrap();
    let mut change = Reconfigure {
        id: RequestId(5),
        token: Token(1),
        change: promote(10),
        members: with_learner().into_iter().collect(),
        connected_ms: BTreeMap::new(),
        strict: true,
    };
    let check = |harness: &Harness, change: &Reconfigure| change.check(OWN, &harness.node.raft);
    assert_eq!(check(&harness, &change), Err(Error::LearnerNotReady));
    while harness.node.raft.has_ready() {
        harness.node.raft.ready();
    }
    let answer = Message {
        term: harness.node.term(),
        index: harness.node.raft.last(),
        ..Message::new(MessageKind::AppendResponse, MemberId(10), OWN)
    };
    harness.node.raft.step(&answer).unwrap();
    let data = check(&harness, &change).unwrap();
    let entry = state::ConfChange::decode(&data[..]).unwrap();
    assert_eq!((entry.id, entry.kind, entry.node_id), (5, 0, 10));
    let context = r#"{"id":10,"peerURLs":[],"isPromote":true}"#;
    assert_eq!(entry.context, context);
    change.members = [member(ID, "a"), member(8, ""), member(9, ""), learner(10)]
        .into_iter()
        .collect();
    assert_eq!(check(&harness, &change), Err(Error::MemberNotEnoughStarted));
}

#[test]
fn entries_are_etcds() {
    let decoded = |change| {
        let data = ask(change, three(), &ALL).unwrap();
        let entry = state::ConfChange::decode(&data[..]).unwrap();
        assert_eq!(entry.id, 5);
        let text = String::from_utf8(entry.context.to_vec()).unwrap();
        (entry.kind, entry.node_id, text)
    };
    let json = r#"{"id":10,"peerURLs":["http://m10:2380"],"isLearner":true,"isPromote":false}"#;
    assert_eq!(
        decoded(MemberChange::Add(learner(10))),
        (3, 10, json.to_owned())
    );
    assert_eq!(
        decoded(MemberChange::Remove(MemberId(8))),
        (1, 8, String::new())
    );
    let update = MemberChange::Update {
        id: MemberId(8),
        peer_urls: vec!["http://elsewhere:1".into()],
    };
    let json = r#"{"id":8,"peerURLs":["http://elsewhere:1"]}"#;
    assert_eq!(decoded(update), (2, 8, json.to_owned()));
}
