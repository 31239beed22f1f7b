//! The first entries of a new cluster's log: its initial members, as every member writes them.

use std::fmt;

use api::ids::{self, ClusterId, MemberId};
use bytes::Bytes;
use storage::log::{Entry, EntryKind, HardState, LogIndex, Term};

use crate::members::{Member, Members};

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
#[derive(Clone, Debug)]
pub struct Bootstrap {
    pub member: MemberId,
    pub cluster: ClusterId,
    /// One configuration change per member at term 1, in ascending order of ids.
    pub entries: Vec<Entry>,
    /// Commits them.
    pub hard_state: HardState,
    /// What they add up to.
    pub members: Members,
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
        let members = listed.iter().map(|(id, member)| record(*id, member));
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
            members: members.collect(),
        })
    }
}

/// The member before it has told its client URLs.
fn record(id: MemberId, member: &InitialMember) -> Member {
    let mut peer_urls = member.peer_urls.clone();
    peer_urls.sort_unstable();
    Member {
        id: id.0,
        peer_urls,
        name: member.name.clone(),
        ..Member::default()
    }
}

/// raftpb `ConfChange{1 id, 2 type, 3 node_id, 4 context}` of type AddNode with the member's JSON.
fn add_member(id: MemberId, member: &InitialMember) -> Bytes {
    let context = record(id, member).to_json().into_bytes();
    let mut data = Vec::new();
    prost::encoding::uint64::encode(1, &0, &mut data);
    prost::encoding::uint64::encode(2, &0, &mut data);
    prost::encoding::uint64::encode(3, &id.0, &mut data);
    prost::encoding::bytes::encode(4, &context, &mut data);
    data.into()
}
