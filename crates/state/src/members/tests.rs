//! Membership through conf-change entries.

use api::Error;
use prost::Message;
use storage::log::{Entry, EntryKind, LogIndex, Term};

use super::*;
use crate::machine::tests::Rig;
use crate::machine::{Applied, Effect};

fn apply(rig: &mut Rig, kind: ChangeKind, node_id: u64, context: &str) -> Applied {
    rig.index += 1;
    let context = context.to_string().into();
    let change = ConfChange {
        id: 77,
        kind: kind as i32,
        node_id,
        context,
    };
    let entry = Entry {
        kind: EntryKind::ConfChange,
        term: Term(1),
        index: LogIndex(rig.index),
        data: change.encode_to_vec().into(),
    };
    rig.machine.apply(&entry).unwrap()
}

fn context(id: u64, learner: bool, promote: bool) -> String {
    let peer_urls = vec![format!("http://10.0.0.{id}:2380")];
    let member = Member {
        id,
        peer_urls,
        is_learner: learner,
        ..Member::default()
    };
    serde_json::to_string(&ChangeContext {
        member,
        is_promote: promote,
    })
    .unwrap()
}

fn refused(applied: Applied) -> Error {
    assert_eq!(applied.effects[..], [Effect::ConfChanged { change: None }]);
    applied.outcome.unwrap_err()
}

fn conf_state(rig: &Rig) -> String {
    let stored = rig
        .machine
        .shared
        .reader
        .get(Bucket::Meta, b"confState")
        .unwrap()
        .unwrap();
    String::from_utf8(stored.to_vec()).unwrap()
}

#[test]
fn a_cluster_grows_and_shrinks() {
    let mut rig = Rig::new();
    let added = apply(&mut rig, ChangeKind::AddNode, 1, &context(1, false, false));
    let change = Some(RaftChange {
        kind: ChangeKind::AddNode,
        node: MemberId(1),
    });
    assert_eq!(added.effects[..], [Effect::ConfChanged { change }]);
    assert_eq!(conf_state(&rig), r#"{"voters":[1],"auto_leave":false}"#);
    apply(
        &mut rig,
        ChangeKind::AddLearnerNode,
        2,
        &context(2, true, false),
    )
    .outcome
    .unwrap();
    assert_eq!(
        conf_state(&rig),
        r#"{"voters":[1],"learners":[2],"auto_leave":false}"#
    );
    let third = apply(
        &mut rig,
        ChangeKind::AddLearnerNode,
        3,
        &context(3, true, false),
    );
    assert_eq!(refused(third), Error::TooManyLearners);
    let again = apply(&mut rig, ChangeKind::AddNode, 1, &context(1, false, false));
    assert_eq!(refused(again), Error::MemberExist);
    let same_url = context(1, false, false).replace("\"id\":1", "\"id\":9");
    let taken = apply(&mut rig, ChangeKind::AddNode, 9, &same_url);
    assert_eq!(refused(taken), Error::PeerURLExist);
    let voter = apply(&mut rig, ChangeKind::AddNode, 1, &context(1, false, true));
    assert_eq!(refused(voter), Error::MemberNotLearner);
    apply(&mut rig, ChangeKind::AddNode, 2, &context(2, false, true))
        .outcome
        .unwrap();
    assert_eq!(conf_state(&rig), r#"{"voters":[1,2],"auto_leave":false}"#);
    let moved = context(2, false, false).replace("10.0.0.2", "10.0.0.22");
    let updated = apply(&mut rig, ChangeKind::UpdateNode, 2, &moved);
    assert_eq!(updated.effects[..], [Effect::ConfChanged { change: None }]);
    assert!(updated.outcome.is_ok());
    apply(&mut rig, ChangeKind::RemoveNode, 2, "")
        .outcome
        .unwrap();
    let removed = apply(&mut rig, ChangeKind::AddNode, 2, &context(2, false, false));
    assert_eq!(refused(removed), Error::MemberNotFound);
    let rig = rig.reopen(true);
    let members = rig.view.members();
    assert_eq!(
        members.iter().map(|member| member.id).collect::<Vec<_>>(),
        [1]
    );
    assert!(members.is_removed(MemberId(2)));
}

#[test]
fn the_stored_json_is_etcds() {
    let member = Member {
        id: 9_372_538_179_322_589_801,
        peer_urls: vec!["http://a:1?x=1&y=<2>".into()],
        is_learner: true,
        name: "n1".into(),
        client_urls: vec!["http://c:1".into()],
    };
    assert_eq!(
        member.to_json(),
        r#"{"id":9372538179322589801,"peerURLs":["http://a:1?x=1\u0026y=\u003c2\u003e"],"isLearner":true,"name":"n1","clientURLs":["http://c:1"]}"#
    );
    assert_eq!(
        serde_json::from_str::<Member>(&member.to_json()).unwrap(),
        member
    );
    let sparse: Member = serde_json::from_str(r#"{"id":1,"peerURLs":null}"#).unwrap();
    assert_eq!(sparse.to_json(), r#"{"id":1,"peerURLs":[]}"#);
}

#[test]
fn older_releases_find_the_members_in_a_v2_store() {
    let mut members = Members::default();
    let peer_urls = vec!["http://p:1".to_string()];
    let member = Member {
        id: 0xab,
        peer_urls,
        name: "n".into(),
        ..Member::default()
    };
    members.by_id.insert(0xab, member);
    members.removed.insert(0xcd);
    members.cluster_version = Some("3.6.0".into());
    let json: serde_json::Value =
        serde_json::from_slice(&v2_store_json(&members, LogIndex(7))).unwrap();
    assert_eq!(json["CurrentIndex"], 7);
    assert_eq!(json["CurrentVersion"], 2);
    let root = &json["Root"];
    assert_eq!(root["Path"], "/");
    assert!(
        root["Children"]["1"]["Children"]
            .as_object()
            .unwrap()
            .is_empty()
    );
    let zero = &root["Children"]["0"]["Children"];
    assert_eq!(zero["version"]["Value"], "3.6.0");
    assert!(zero["version"]["Children"].is_null());
    let member = &zero["members"]["Children"]["ab"]["Children"];
    assert_eq!(member["attributes"]["Value"], r#"{"name":"n"}"#);
    assert_eq!(
        member["raftAttributes"]["Value"],
        r#"{"peerURLs":["http://p:1"]}"#
    );
    assert_eq!(
        member["raftAttributes"]["Path"],
        "/0/members/ab/raftAttributes"
    );
    assert_eq!(zero["removed_members"]["Children"]["cd"]["Value"], "");
}
