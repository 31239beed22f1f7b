//! What apply answers, and its encoding by whoever owns the connection.

use api::ids::{ClusterId, MemberId};
use api::pb::etcdserverpb as pb;
use prost::Message;
use storage::backend::Value;
use storage::log::Term;

use crate::members::Member;
use crate::wire;

/// The member's part of a response header.
#[derive(Clone, Copy, Debug, Default)]
pub struct Header {
    pub cluster: ClusterId,
    pub member: MemberId,
    pub term: Term,
}

impl Header {
    /// Appends field `header` with this revision, 0 for none.
    pub fn write(&self, revision: i64, out: &mut Vec<u8>) {
        let len = wire::int_len(self.cluster.0)
            + wire::int_len(self.member.0)
            + wire::int_len(revision as u64)
            + wire::int_len(self.term.0);
        wire::put_head(out, 1, len);
        wire::put_int(out, 1, self.cluster.0);
        wire::put_int(out, 2, self.member.0);
        wire::put_int(out, 3, revision as u64);
        wire::put_int(out, 4, self.term.0);
    }

    /// The header as a message.
    #[must_use]
    pub fn message(&self, revision: i64) -> pb::ResponseHeader {
        pb::ResponseHeader {
            cluster_id: self.cluster.0,
            member_id: self.member.0,
            revision,
            raft_term: self.term.0,
        }
    }
}

/// The answer to an applied request. `revision` is the header's.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    /// The entry was no request, or one without an answer.
    Nothing,
    Put {
        revision: i64,
        before: Option<Value>,
    },
    DeleteRange {
        revision: i64,
        deleted: i64,
        before: Vec<Value>,
    },
    /// The rest is everything of the response but its header.
    Txn {
        revision: i64,
        rest: Vec<u8>,
    },
    Range {
        revision: i64,
        rest: Vec<u8>,
    },
    Compact {
        revision: i64,
    },
    LeaseGrant {
        revision: i64,
        id: i64,
        ttl: i64,
    },
    LeaseRevoke {
        revision: i64,
    },
    LeaseCheckpoint {
        revision: i64,
    },
    Alarm {
        revision: i64,
        alarms: Vec<pb::AlarmMember>,
    },
    /// The members after a change.
    Members {
        members: Vec<Member>,
    },
    /// Everything of the response but its header.
    Auth {
        revision: i64,
        rest: Vec<u8>,
    },
}

impl Reply {
    /// The revision of the header.
    #[must_use]
    pub fn revision(&self) -> i64 {
        match self {
            Reply::Nothing | Reply::Members { .. } => 0,
            Reply::Put { revision, .. }
            | Reply::DeleteRange { revision, .. }
            | Reply::Txn { revision, .. }
            | Reply::Range { revision, .. }
            | Reply::Compact { revision }
            | Reply::LeaseGrant { revision, .. }
            | Reply::LeaseRevoke { revision }
            | Reply::LeaseCheckpoint { revision }
            | Reply::Alarm { revision, .. }
            | Reply::Auth { revision, .. } => *revision,
        }
    }

    /// Appends the response message to `out`.
    pub fn encode(&self, header: &Header, out: &mut Vec<u8>) {
        header.write(self.revision(), out);
        match self {
            Reply::Nothing
            | Reply::Compact { .. }
            | Reply::LeaseRevoke { .. }
            | Reply::LeaseCheckpoint { .. } => {}
            Reply::Put { before, .. } => {
                if let Some(record) = before {
                    wire::put_bytes(out, 2, record);
                }
            }
            Reply::DeleteRange {
                deleted, before, ..
            } => {
                wire::put_int(out, 2, *deleted as u64);
                before
                    .iter()
                    .for_each(|record| wire::put_bytes(out, 3, record));
            }
            Reply::Txn { rest, .. } | Reply::Range { rest, .. } | Reply::Auth { rest, .. } => {
                out.extend_from_slice(rest);
            }
            Reply::LeaseGrant { id, ttl, .. } => {
                wire::put_int(out, 2, *id as u64);
                wire::put_int(out, 3, *ttl as u64);
            }
            Reply::Alarm { alarms, .. } => {
                alarms
                    .iter()
                    .for_each(|alarm| wire::put_bytes(out, 2, &alarm.encode_to_vec()));
            }
            Reply::Members { members } => {
                for member in members {
                    wire::put_bytes(out, 2, &member.to_message().encode_to_vec());
                }
            }
        }
    }
}

impl Member {
    /// The member as the client API tells it.
    #[must_use]
    pub fn to_message(&self) -> pb::Member {
        pb::Member {
            id: self.id,
            name: self.name.clone(),
            peer_ur_ls: self.peer_urls.clone(),
            client_ur_ls: self.client_urls.clone(),
            is_learner: self.is_learner,
        }
    }
}
