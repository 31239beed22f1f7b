//! Clusters of several members: founded, joined, and cut down to one.

use api::cluster::same_texts;
use api::ids::{ClusterId, MemberId};
use prost::Message;
use state::{ChangeKind, ConfChange, Members};
use storage::log::{Entry, EntryKind, HardState, Term};

use super::*;

const TOKEN: &str = "BHGUXFgqJJfS38HCuVy4Xvn8DuDLu8Hd";
const IDS: [(&str, &str); 3] = [
    ("etcd-node02", "8dc5f1bc33f2f56"),
    ("etcd-node01", "77508fdcfa570432"),
    ("etcd-node03", "eefbe5085b970e3a"),
];

fn nodes() -> Vec<InitialMember> {
    let node = |n| InitialMember {
        name: format!("etcd-node0{n}"),
        peer_urls: vec![format!("https://etcd-node0{n}.kube.demo:2380")],
    };
    (1..=3).map(node).collect()
}

fn change(entry: &Entry) -> (i32, MemberId) {
    let change = ConfChange::decode(&entry.data[..]).unwrap();
    (change.kind, MemberId(change.node_id))
}

/// The ids are those that etcd printed for these URLs and this token.
#[test]
fn three_founders_agree_on_ids_and_first_entries() {
    let boots: Vec<Bootstrap> = IDS
        .iter()
        .map(|(name, _)| Bootstrap::new(name, &nodes(), TOKEN).unwrap())
        .collect();
    for (boot, (_, id)) in boots.iter().zip(IDS) {
        assert_eq!(boot.member.to_string(), id);
        assert_eq!(boot.cluster, boots[0].cluster);
        assert_eq!(boot.entries, boots[0].entries);
        assert_eq!(boot.hard_state.commit, LogIndex(3));
    }
    let order: Vec<_> = boots[0].entries.iter().map(|e| change(e).1).collect();
    let members: Vec<_> = boots.iter().map(|boot| boot.member).collect();
    assert_eq!(order, members, "in ascending order of ids");
}

fn running() -> Running {
    let member = |(node, id): (InitialMember, u64)| state::Member {
        id,
        peer_urls: node.peer_urls,
        ..Default::default()
    };
    Running {
        cluster: ClusterId(77),
        members: nodes().into_iter().zip([10, 20, 30]).map(member).collect(),
    }
}

#[test]
fn a_joining_member_finds_itself_by_its_urls() {
    let joined = join("etcd-node02", &nodes(), running(), &same_texts);
    assert_eq!(joined.unwrap().member, MemberId(20));
    let refusal = |name: &str, nodes: &[InitialMember]| {
        let refused = join(name, nodes, running(), &same_texts).unwrap_err();
        refused.to_string()
    };
    let member = |n: usize| {
        format!(
            "&{{ID:{} RaftAttributes:{{PeerURLs:[https://etcd-node0{n}.kube.demo:2380] \
             IsLearner:false}} Attributes:{{Name: ClientURLs:[]}}}}",
            ["a", "14", "1e"][n - 1]
        )
    };
    let prefix = format!(
        "error validating peerURLs {{ClusterID:4d Members:[{} {} {}] RemovedMemberIDs:[]}}: ",
        member(1),
        member(2),
        member(3)
    );
    assert_eq!(
        refusal("etcd-node01", &nodes()[..2]),
        format!("{prefix}member count is unequal")
    );
    let mut other = nodes();
    other[2].peer_urls = vec!["https://elsewhere:2380".into()];
    assert_eq!(
        refusal("etcd-node01", &other),
        format!(
            "{prefix}PeerURLs: no match found for existing member (1e, \
             [https://etcd-node03.kube.demo:2380]), last resolver error (resolved urls: \
             \"https://etcd-node03.kube.demo:2380\" != \"https://elsewhere:2380\")"
        )
    );
    assert!(refusal("nobody", &nodes()).contains("nobody"));
    // Whoever compares decides: two names of one address are one member.
    let resolve = |_: &[String], _: &[String]| Ok(());
    let joined = join("etcd-node01", &other, running(), &resolve).unwrap();
    assert_eq!(joined.member, MemberId(30), "the last one that fits");
}

#[test]
fn a_forced_start_leaves_one_voter() {
    let added = |node_id, kind: ChangeKind, index| Entry {
        kind: EntryKind::ConfChange,
        term: Term(4),
        index: LogIndex(index),
        data: ConfChange {
            kind: kind as i32,
            node_id,
            ..Default::default()
        }
        .encode_to_vec()
        .into(),
    };
    let hard_state = HardState {
        term: Term(4),
        vote: 0,
        commit: LogIndex(9),
    };
    let forced = |own, ahead: &[Entry]| {
        let entries = force(MemberId(own), &Members::default(), ahead, hard_state).unwrap();
        assert!(
            entries
                .iter()
                .zip(10..)
                .all(|(e, i)| e.index == LogIndex(i))
        );
        entries.iter().map(change).collect::<Vec<_>>()
    };
    let add = ChangeKind::AddNode;
    let three = [added(1, add, 7), added(2, add, 8), added(3, add, 9)];
    let remove = ChangeKind::RemoveNode as i32;
    let others = [(remove, MemberId(1)), (remove, MemberId(3))];
    assert_eq!(forced(2, &three), others);
    // A learner votes from then on; a member that the state does not know is added.
    let learner = [added(1, add, 8), added(2, ChangeKind::AddLearnerNode, 9)];
    let promoted = [(add as i32, MemberId(2)), (remove, MemberId(1))];
    assert_eq!(forced(2, &learner), promoted);
    assert_eq!(forced(5, &three[..1])[0], (add as i32, MemberId(5)));
    assert_eq!(forced(1, &[three[0].clone(), added(1, add, 9)]), []);
}
