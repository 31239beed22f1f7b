//! What a normal log entry asks for.

use api::ids::RequestId;
use api::pb::etcdserverpb as pb;
use api::pb::membershippb;
use bytes::Bytes;
use prost::Message;
use storage::log::LogIndex;

use crate::fatal::Fatal;
use crate::members::Member;
use crate::wire::{Content, Fields};

/// Who asked, and what the waiter is keyed by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) id: u64,
    pub(crate) username: String,
    pub(crate) auth_revision: u64,
}

impl Header {
    pub(crate) fn request(&self) -> Option<RequestId> {
        (self.id != 0).then_some(RequestId(self.id))
    }
}

/// The one request that an entry carries.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Command {
    Range(pb::RangeRequest),
    Put(pb::PutRequest),
    DeleteRange(pb::DeleteRangeRequest),
    Txn(pb::TxnRequest),
    Compact(pb::CompactionRequest),
    LeaseGrant(pb::LeaseGrantRequest),
    LeaseRevoke(pb::LeaseRevokeRequest),
    LeaseCheckpoint(pb::LeaseCheckpointRequest),
    Alarm(pb::AlarmRequest),
    Auth(AuthCommand),
    SetClusterVersion(membershippb::ClusterVersionSetRequest),
    SetAttributes(membershippb::ClusterMemberAttrSetRequest),
    SetDowngrade(membershippb::DowngradeInfoSetRequest),
    /// Does nothing; exists to test downgrades.
    TestVersion,
    /// A request of the v2 API that has no effect on this state.
    LegacyNoOp,
}

/// The requests about users, roles and the switch.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum AuthCommand {
    Enable,
    Disable,
    Status,
    Authenticate(pb::InternalAuthenticateRequest),
    UserAdd(pb::AuthUserAddRequest),
    UserDelete(pb::AuthUserDeleteRequest),
    UserGet(pb::AuthUserGetRequest),
    UserChangePassword(pb::AuthUserChangePasswordRequest),
    UserGrantRole(pb::AuthUserGrantRoleRequest),
    UserRevokeRole(pb::AuthUserRevokeRoleRequest),
    UserList,
    RoleList,
    RoleAdd(pb::AuthRoleAddRequest),
    RoleDelete(pb::AuthRoleDeleteRequest),
    RoleGet(pb::AuthRoleGetRequest),
    RoleGrantPermission(pb::AuthRoleGrantPermissionRequest),
    RoleRevokePermission(pb::AuthRoleRevokePermissionRequest),
}

impl Command {
    /// The name in the label `op` of etcd's metrics; none for what no release of today proposes.
    pub(crate) fn operation(&self) -> Option<&'static str> {
        Some(match self {
            Command::Range(_) => "Range",
            Command::Put(_) => "Put",
            Command::DeleteRange(_) => "DeleteRange",
            Command::Txn(_) => "Txn",
            Command::Compact(_) => "Compaction",
            Command::LeaseGrant(_) => "LeaseGrant",
            Command::LeaseRevoke(_) => "LeaseRevoke",
            Command::LeaseCheckpoint(_) => "LeaseCheckpoint",
            Command::Alarm(_) => "Alarm",
            Command::Auth(request) => request.operation(),
            Command::SetClusterVersion(_) => "ClusterVersionSet",
            Command::SetAttributes(_) => "ClusterMemberAttrSet",
            Command::SetDowngrade(_) => "DowngradeInfoSet",
            Command::TestVersion => "DowngradeVersionTest",
            Command::LegacyNoOp => return None,
        })
    }
}

impl AuthCommand {
    fn operation(&self) -> &'static str {
        match self {
            AuthCommand::Enable => "AuthEnable",
            AuthCommand::Disable => "AuthDisable",
            AuthCommand::Status => "AuthStatus",
            AuthCommand::Authenticate(_) => "Authenticate",
            AuthCommand::UserAdd(_) => "AuthUserAdd",
            AuthCommand::UserDelete(_) => "AuthUserDelete",
            AuthCommand::UserGet(_) => "AuthUserGet",
            AuthCommand::UserChangePassword(_) => "AuthUserChangePassword",
            AuthCommand::UserGrantRole(_) => "AuthUserGrantRole",
            AuthCommand::UserRevokeRole(_) => "AuthUserRevokeRole",
            AuthCommand::UserList => "AuthUserList",
            AuthCommand::RoleList => "AuthRoleList",
            AuthCommand::RoleAdd(_) => "AuthRoleAdd",
            AuthCommand::RoleDelete(_) => "AuthRoleDelete",
            AuthCommand::RoleGet(_) => "AuthRoleGet",
            AuthCommand::RoleGrantPermission(_) => "AuthRoleGrantPermission",
            AuthCommand::RoleRevokePermission(_) => "AuthRoleRevokePermission",
        }
    }
}

const HEADER: u64 = 100;

/// Decodes an entry's data, which is not empty.
///
/// # Errors
/// It is no request, or one of a kind that this build does not know: skipping it would diverge.
pub(crate) fn decode(index: LogIndex, data: &Bytes) -> Result<(Header, Command), Fatal> {
    let malformed = || Fatal::Undecodable {
        index,
        what: "malformed protobuf",
    };
    let mut header = Header::default();
    let mut command = None;
    let mut unknown = Vec::new();
    for field in Fields(data) {
        match field.map_err(|()| malformed())? {
            (1, Content::Int(id)) => header.id = id,
            (2, Content::Bytes(v2)) => return legacy(index, data, v2),
            (HEADER, Content::Bytes(bytes)) => {
                let decoded = pb::RequestHeader::decode(bytes).map_err(|_| malformed())?;
                if header.id == 0 {
                    header.id = decoded.id;
                }
                header.username = decoded.username;
                header.auth_revision = decoded.auth_revision;
            }
            (number, Content::Bytes(bytes)) => {
                match request(number, data.slice_ref(bytes)).map_err(|_| malformed())? {
                    Some(decoded) => command = Some(decoded),
                    None => unknown.push(number),
                }
            }
            (number, _) => unknown.push(number),
        }
    }
    match command {
        Some(command) => Ok((header, command)),
        None => Err(Fatal::UnknownRequest {
            index,
            fields: unknown,
        }),
    }
}

fn request(number: u64, bytes: Bytes) -> Result<Option<Command>, prost::DecodeError> {
    Ok(Some(match number {
        3 => Command::Range(Message::decode(bytes)?),
        4 => Command::Put(Message::decode(bytes)?),
        5 => Command::DeleteRange(Message::decode(bytes)?),
        6 => Command::Txn(Message::decode(bytes)?),
        7 => Command::Compact(Message::decode(bytes)?),
        8 => Command::LeaseGrant(Message::decode(bytes)?),
        9 => Command::LeaseRevoke(Message::decode(bytes)?),
        10 => Command::Alarm(Message::decode(bytes)?),
        11 => Command::LeaseCheckpoint(Message::decode(bytes)?),
        1300 => Command::SetClusterVersion(Message::decode(bytes)?),
        1301 => Command::SetAttributes(Message::decode(bytes)?),
        1302 => Command::SetDowngrade(Message::decode(bytes)?),
        9900 => Command::TestVersion,
        1000..=1299 => return Ok(auth_request(number, bytes)?.map(Command::Auth)),
        _ => return Ok(None),
    }))
}

fn auth_request(number: u64, bytes: Bytes) -> Result<Option<AuthCommand>, prost::DecodeError> {
    Ok(Some(match number {
        1000 => AuthCommand::Enable,
        1011 => AuthCommand::Disable,
        1012 => AuthCommand::Authenticate(Message::decode(bytes)?),
        1013 => AuthCommand::Status,
        1100 => AuthCommand::UserAdd(Message::decode(bytes)?),
        1101 => AuthCommand::UserDelete(Message::decode(bytes)?),
        1102 => AuthCommand::UserGet(Message::decode(bytes)?),
        1103 => AuthCommand::UserChangePassword(Message::decode(bytes)?),
        1104 => AuthCommand::UserGrantRole(Message::decode(bytes)?),
        1105 => AuthCommand::UserRevokeRole(Message::decode(bytes)?),
        1106 => AuthCommand::UserList,
        1107 => AuthCommand::RoleList,
        1200 => AuthCommand::RoleAdd(Message::decode(bytes)?),
        1201 => AuthCommand::RoleDelete(Message::decode(bytes)?),
        1202 => AuthCommand::RoleGet(Message::decode(bytes)?),
        1203 => AuthCommand::RoleGrantPermission(Message::decode(bytes)?),
        1204 => AuthCommand::RoleRevokePermission(Message::decode(bytes)?),
        _ => return Ok(None),
    }))
}

/// A v2 `Request`, bare or as field 2: releases up to 3.5 publish members and versions with it.
fn legacy(index: LogIndex, data: &[u8], v2: &[u8]) -> Result<(Header, Command), Fatal> {
    let undecodable = |what| Fatal::Undecodable { index, what };
    let bare = v2.iter().all(u8::is_ascii_uppercase);
    let (mut header, mut method, mut path, mut value) = (Header::default(), &[][..], "", "");
    for field in Fields(if bare { data } else { v2 }) {
        match field.map_err(|()| undecodable("a malformed v2 request"))? {
            (1, Content::Int(id)) => header.id = id,
            (2, Content::Bytes(bytes)) => method = bytes,
            (3, Content::Bytes(bytes)) => path = std::str::from_utf8(bytes).unwrap_or(""),
            (4, Content::Bytes(bytes)) => value = std::str::from_utf8(bytes).unwrap_or(""),
            _ => {}
        }
    }
    if method == b"PUT" && path == "/0/version" {
        let ver = value.to_string();
        let request = membershippb::ClusterVersionSetRequest { ver };
        return Ok((header, Command::SetClusterVersion(request)));
    }
    let id = path
        .strip_prefix("/0/members/")
        .and_then(|path| path.strip_suffix("/attributes"));
    if method == b"PUT"
        && let Some(id) = id
    {
        let id = u64::from_str_radix(id, 16)
            .map_err(|_| undecodable("a v2 request about a member without id"))?;
        let member: Member = serde_json::from_str(value)
            .map_err(|_| undecodable("a v2 request with malformed attributes"))?;
        let attributes = membershippb::Attributes {
            name: member.name,
            client_urls: member.client_urls,
        };
        let request = membershippb::ClusterMemberAttrSetRequest {
            member_id: id,
            member_attributes: Some(attributes),
        };
        return Ok((header, Command::SetAttributes(request)));
    }
    Ok((header, Command::LegacyNoOp))
}
