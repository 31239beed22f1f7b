//! The first entries of a new cluster's log: its initial members, as every member writes them.

use std::fmt;

use api::ids::{ClusterId, MemberId};
use bytes::Bytes;
use storage::log::{Entry, EntryKind, HardState, LogIndex, Term};

use crate::ids;

/// A member of `--initial-cluster`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InitialMember {
    pub name: String,
    pub peer_urls: Vec<String>,
}

/// Why the initial cluster makes no sense.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BootstrapError {
    /// This member's name is not among the initial members.
    NotListed { name: String },
    /// Two members have the same id, because they have the same peer URLs.
    SameId { id: MemberId },
}

impl fmt::Display for BootstrapError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BootstrapError::NotListed { name } => {
                write!(
                    f,
                    "couldn't find local name {name:?} in the initial cluster configuration"
                )
            }
            BootstrapError::SameId { id } => write!(f, "member exists with identical ID {id}"),
        }
    }
}

impl std::error::Error for BootstrapError {}

/// Who this member is, and how its log begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bootstrap {
    pub member: MemberId,
    pub cluster: ClusterId,
    /// One configuration change per member at term 1, in ascending order of ids.
    pub entries: Vec<Entry>,
    /// Commits them.
    pub hard_state: HardState,
}

impl Bootstrap {
    /// # Errors
    /// When `name` is not among `members`, or two of them are the same.
    pub fn new(
        name: &str,
        members: &[InitialMember],
        token: &str,
    ) -> Result<Bootstrap, BootstrapError> {
        let mut listed: Vec<(MemberId, &InitialMember)> = members
            .iter()
            .map(|member| (ids::member_id(&member.peer_urls, token, None), member))
            .collect();
        listed.sort_by_key(|(id, _)| *id);
        if let Some(pair) = listed.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            return Err(BootstrapError::SameId { id: pair[0].0 });
        }
        let own = listed.iter().find(|(_, member)| member.name == name);
        let (member, _) = *own.ok_or_else(|| BootstrapError::NotListed {
            name: name.to_owned(),
        })?;
        let all: Vec<MemberId> = listed.iter().map(|(id, _)| *id).collect();
        let entries: Vec<Entry> = listed
            .iter()
            .zip(1..)
            .map(|((id, member), index)| Entry {
                kind: EntryKind::ConfChange,
                term: Term(1),
                index: LogIndex(index),
                data: add_member(*id, member),
            })
            .collect();
        let commit = LogIndex(entries.len() as u64);
        Ok(Bootstrap {
            member,
            cluster: ids::cluster_id(&all),
            entries,
            hard_state: HardState {
                term: Term(1),
                vote: 0,
                commit,
            },
        })
    }
}

/// raftpb `ConfChange{1 id, 2 type, 3 node_id, 4 context}` of type AddNode with the member's JSON.
fn add_member(id: MemberId, member: &InitialMember) -> Bytes {
    let mut data = Vec::new();
    prost::encoding::uint64::encode(1, &0, &mut data);
    prost::encoding::uint64::encode(2, &0, &mut data);
    prost::encoding::uint64::encode(3, &id.0, &mut data);
    prost::encoding::bytes::encode(4, &member_json(id, member), &mut data);
    data.into()
}

/// `{"id":…,"peerURLs":[…],"name":…}`; an empty name is left out.
fn member_json(id: MemberId, member: &InitialMember) -> Vec<u8> {
    let mut urls = member.peer_urls.clone();
    urls.sort_unstable();
    let urls: Vec<String> = urls.iter().map(|url| json_string(url)).collect();
    let mut json = format!("{{\"id\":{},\"peerURLs\":[{}]", id.0, urls.join(","));
    if !member.name.is_empty() {
        json.push_str(",\"name\":");
        json.push_str(&json_string(&member.name));
    }
    json.push('}');
    json.into_bytes()
}

/// A JSON string with the escapes that Go's encoder uses.
fn json_string(text: &str) -> String {
    let mut json = String::with_capacity(text.len() + 2);
    json.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => json.extend(['\\', c]),
            '\n' => json.push_str("\\n"),
            '\r' => json.push_str("\\r"),
            '\t' => json.push_str("\\t"),
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' | '\0'..='\x1f' => {
                json.push_str(&format!("\\u{:04x}", u32::from(c)));
            }
            _ => json.push(c),
        }
    }
    json.push('"');
    json
}
