//! Answers on standard output, in the format that `-w` asks for.
//!
//! Every printer is a pure function from an answer to bytes; this module chooses one and
//! writes. A format that has no form for an answer fails after the request was made, as etcdctl
//! does.

pub(crate) mod fields;
pub(crate) mod json;
mod protobuf;
pub(crate) mod simple;
mod table;

use api::pb::etcdserverpb::*;

use crate::exit::{self, Failure, Outcome};
use crate::out;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    Simple,
    Fields,
    Json,
    Protobuf,
    Table,
}

impl Format {
    fn name(self) -> &'static str {
        match self {
            Format::Simple => "simple",
            Format::Fields => "fields",
            Format::Json => "json",
            Format::Protobuf => "protobuf",
            Format::Table => "table",
        }
    }
}

/// How answers are printed.
#[derive(Clone, Copy)]
pub(crate) struct Printer {
    pub(crate) format: Format,
    pub(crate) hex: bool,
    pub(crate) value_only: bool,
}

/// What was learnt about one endpoint's health.
pub(crate) struct Health {
    pub(crate) endpoint: String,
    pub(crate) is_healthy: bool,
    pub(crate) took: String,
    pub(crate) error: String,
}

/// An answer and what the command line said about it.
pub(crate) enum Answer<'a> {
    Get(&'a RangeResponse),
    Put(&'a PutResponse),
    Delete(&'a DeleteRangeResponse),
    Txn(&'a TxnResponse),
    Watch(&'a client::WatchEvent),
    Grant(&'a LeaseGrantResponse),
    Revoke(i64, &'a LeaseRevokeResponse),
    KeepAlive(&'a LeaseKeepAliveResponse),
    /// With whether the keys were asked for.
    TimeToLive(&'a LeaseTimeToLiveResponse, bool),
    Leases(&'a LeaseLeasesResponse),
    MemberAdd(&'a MemberAddResponse),
    MemberRemove(u64, &'a MemberRemoveResponse),
    MemberUpdate(u64, &'a MemberUpdateResponse),
    MemberPromote(u64, &'a MemberPromoteResponse),
    MemberList(&'a MemberListResponse),
    Health(&'a [Health]),
    Status(&'a [(String, StatusResponse)]),
    HashKv(&'a [(String, HashKvResponse)]),
    /// From whom, to whom.
    MoveLeader(u64, u64, &'a MoveLeaderResponse),
    /// With the action's name.
    Downgrade(&'static str, &'a DowngradeResponse),
    Alarm(&'a AlarmResponse),
    RoleAdd(&'a str, &'a AuthRoleAddResponse),
    RoleGet(&'a str, &'a AuthRoleGetResponse),
    RoleDelete(&'a str, &'a AuthRoleDeleteResponse),
    RoleList(&'a AuthRoleListResponse),
    RoleGrant(&'a str, &'a AuthRoleGrantPermissionResponse),
    /// With the role, the key and the range's end.
    RoleRevoke(
        &'a str,
        &'a [u8],
        &'a [u8],
        &'a AuthRoleRevokePermissionResponse,
    ),
    UserAdd(&'a str, &'a AuthUserAddResponse),
    UserGet(&'a str, &'a AuthUserGetResponse),
    UserList(&'a AuthUserListResponse),
    UserPassword(&'a AuthUserChangePasswordResponse),
    UserGrant(&'a str, &'a str, &'a AuthUserGrantRoleResponse),
    UserRevoke(&'a str, &'a str, &'a AuthUserRevokeRoleResponse),
    UserDelete(&'a str, &'a AuthUserDeleteResponse),
    AuthStatus(&'a AuthStatusResponse),
}

impl Printer {
    /// A printer for the format with this name.
    ///
    /// # Errors
    /// There is no such format.
    pub(crate) fn new(format: &str, hex: bool) -> Result<Self, Failure> {
        let format = match format {
            "simple" => Format::Simple,
            "fields" => Format::Fields,
            "json" => Format::Json,
            "protobuf" => Format::Protobuf,
            "table" => Format::Table,
            _ => return Err(Failure::new(exit::BAD_FEATURE, "unsupported output format")),
        };
        Ok(Printer {
            format,
            hex,
            value_only: false,
        })
    }

    /// Prints an answer.
    ///
    /// # Errors
    /// The format has no form for it.
    pub(crate) fn print(&self, answer: &Answer<'_>) -> Outcome {
        let printed = match self.format {
            Format::Simple => Some(simple::print(answer, self)),
            Format::Fields => fields::print(answer, self.hex),
            Format::Json => Some(json::print(answer, self.hex)),
            Format::Protobuf => protobuf::print(answer),
            Format::Table => table::print(answer),
        };
        let Some(bytes) = printed else {
            let text = format!("{} not supported as output format", self.format.name());
            return Err(Failure::new(exit::BAD_FEATURE, text));
        };
        out::bytes(&bytes);
        Ok(())
    }
}

/// A member's ID, a cluster's or a user's as etcd prints it: hexadecimal without zeros.
pub(crate) fn hex_id(id: u64) -> String {
    format!("{id:x}")
}

/// The rows of `member list`.
pub(crate) fn member_rows(answer: &MemberListResponse) -> Vec<Vec<String>> {
    let row = |member: &Member| {
        vec![
            hex_id(member.id),
            if member.name.is_empty() {
                "unstarted"
            } else {
                "started"
            }
            .to_owned(),
            member.name.clone(),
            member.peer_ur_ls.join(","),
            member.client_ur_ls.join(","),
            member.is_learner.to_string(),
        ]
    };
    answer.members.iter().map(row).collect()
}

/// The rows of `endpoint status`.
pub(crate) fn status_rows(answers: &[(String, StatusResponse)]) -> Vec<Vec<String>> {
    let row = |(endpoint, status): &(String, StatusResponse)| {
        let member = status.header.unwrap_or_default().member_id;
        let downgrade = status.downgrade_info.clone().unwrap_or_default();
        vec![
            endpoint.clone(),
            hex_id(member),
            status.version.clone(),
            status.storage_version.clone(),
            size(status.db_size),
            size(status.db_size_in_use),
            format!("{}%", unused_percentage(status)),
            size(status.db_size_quota),
            (status.leader == member).to_string(),
            status.is_learner.to_string(),
            status.raft_term.to_string(),
            status.raft_index.to_string(),
            status.raft_applied_index.to_string(),
            status.errors.join(", "),
            downgrade.target_version,
            downgrade.enabled.to_string(),
        ]
    };
    answers.iter().map(row).collect()
}

fn size(bytes: i64) -> String {
    crate::text::bytes(u64::try_from(bytes).unwrap_or_default())
}

fn unused_percentage(status: &StatusResponse) -> i64 {
    let used = status
        .db_size_in_use
        .saturating_mul(100)
        .checked_div(status.db_size);
    100 - used.unwrap_or(100)
}

/// The rows of `endpoint hashkv`.
pub(crate) fn hash_rows(answers: &[(String, HashKvResponse)]) -> Vec<Vec<String>> {
    let row = |(endpoint, answer): &(String, HashKvResponse)| {
        vec![
            endpoint.clone(),
            answer.hash.to_string(),
            answer.hash_revision.to_string(),
        ]
    };
    answers.iter().map(row).collect()
}
