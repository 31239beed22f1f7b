//! The membership as the JSON of a v2 store, which releases up to 3.6 read from `.snap` files and
//! from snapshot messages.
//!
//! ```text
//!   /0/members/<hex id>/{attributes,raftAttributes}   JSON
//!   /0/removed_members/<hex id>                       ""
//!   /0/version                                        the cluster version
//!   /1                                                an empty directory
//! ```

use std::collections::BTreeMap;

use serde::Serialize;
use storage::log::LogIndex;

use super::{Member, Members, json};

const NEVER: &str = "0001-01-01T00:00:00Z";

#[derive(Serialize)]
struct Store {
    #[serde(rename = "Root")]
    root: Node,
    #[serde(rename = "CurrentIndex")]
    current_index: u64,
    #[serde(rename = "CurrentVersion")]
    current_version: u32,
}

#[derive(Serialize)]
struct Node {
    #[serde(rename = "Path")]
    path: String,
    #[serde(rename = "CreatedIndex")]
    created_index: u64,
    #[serde(rename = "ModifiedIndex")]
    modified_index: u64,
    #[serde(rename = "ExpireTime")]
    expire_time: &'static str,
    #[serde(rename = "Value")]
    value: String,
    /// Null for a leaf.
    #[serde(rename = "Children")]
    children: Option<BTreeMap<String, Node>>,
}

#[derive(Serialize)]
struct Attributes<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    name: &'a str,
    #[serde(rename = "clientURLs", skip_serializing_if = "<[String]>::is_empty")]
    client_urls: &'a [String],
}

#[derive(Serialize)]
struct RaftAttributes<'a> {
    #[serde(rename = "peerURLs")]
    peer_urls: &'a [String],
    #[serde(rename = "isLearner", skip_serializing_if = "std::ops::Not::not")]
    is_learner: bool,
}

fn leaf(path: String, value: String) -> Node {
    Node {
        path,
        created_index: 0,
        modified_index: 0,
        expire_time: NEVER,
        value,
        children: None,
    }
}

fn directory(path: String, children: Vec<Node>) -> Node {
    let name = |node: &Node| node.path.rsplit('/').next().unwrap_or_default().to_string();
    let children = children
        .into_iter()
        .map(|node| (name(&node), node))
        .collect();
    Node {
        children: Some(children),
        ..leaf(path, String::new())
    }
}

fn member(member: &Member) -> Node {
    let path = format!("/0/members/{:x}", member.id);
    let attributes = Attributes {
        name: &member.name,
        client_urls: &member.client_urls,
    };
    let raft = RaftAttributes {
        peer_urls: &member.peer_urls,
        is_learner: member.is_learner,
    };
    let children = vec![
        leaf(format!("{path}/attributes"), json(&attributes)),
        leaf(format!("{path}/raftAttributes"), json(&raft)),
    ];
    directory(path, children)
}

/// The JSON for a snapshot at `index`.
#[must_use]
pub fn v2_store_json(members: &Members, index: LogIndex) -> Vec<u8> {
    let removed = members.removed.iter();
    let removed = removed
        .map(|id| leaf(format!("/0/removed_members/{id:x}"), String::new()))
        .collect();
    let mut zero = vec![
        directory(
            "/0/members".into(),
            members.by_id.values().map(member).collect(),
        ),
        directory("/0/removed_members".into(), removed),
    ];
    if let Some(version) = &members.cluster_version {
        zero.push(leaf("/0/version".into(), version.clone()));
    }
    let root = vec![
        directory("/0".into(), zero),
        directory("/1".into(), Vec::new()),
    ];
    let store = Store {
        root: directory("/".into(), root),
        current_index: index.0,
        current_version: 2,
    };
    json(&store).into_bytes()
}
