//! Asking a member, over gRPC or JSON, with an answer that is only yes or an error.

use std::net::SocketAddr;

use prost_reflect::{DynamicMessage, MethodDescriptor};

use crate::raw::{Connection, Kind};
use crate::scenario::{code_name, schema};
use crate::{Error, http};

/// What a caller was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Done,
    Refused {
        code: String,
        message: String,
    },
    /// A stream that ended without a word.
    Ended,
    /// Not to be tried, because it would change what other rows rely on.
    Untried,
}

impl Outcome {
    /// A refusal.
    #[must_use]
    pub fn error(code: &str, message: &str) -> Outcome {
        Outcome::Refused {
            code: code.into(),
            message: message.into(),
        }
    }
}

/// One member, and the names by which it goes.
#[derive(Clone)]
pub struct Door {
    pub connection: Connection,
    /// Where it takes JSON.
    pub address: SocketAddr,
}

/// Paths of the gateway, beside those that follow from the method's name.
const ROUTES: &[(&str, &str)] = &[
    ("KV/Range", "kv/range"),
    ("KV/Put", "kv/put"),
    ("KV/DeleteRange", "kv/deleterange"),
    ("KV/Txn", "kv/txn"),
    ("KV/Compact", "kv/compaction"),
    ("Watch/Watch", "watch"),
    ("Lease/LeaseGrant", "lease/grant"),
    ("Lease/LeaseRevoke", "lease/revoke"),
    ("Lease/LeaseKeepAlive", "lease/keepalive"),
    ("Lease/LeaseTimeToLive", "lease/timetolive"),
    ("Lease/LeaseLeases", "lease/leases"),
    ("Cluster/MemberAdd", "cluster/member/add"),
    ("Cluster/MemberRemove", "cluster/member/remove"),
    ("Cluster/MemberUpdate", "cluster/member/update"),
    ("Cluster/MemberList", "cluster/member/list"),
    ("Cluster/MemberPromote", "cluster/member/promote"),
    ("Maintenance/Alarm", "maintenance/alarm"),
    ("Maintenance/Status", "maintenance/status"),
    ("Maintenance/Defragment", "maintenance/defragment"),
    ("Maintenance/Hash", "maintenance/hash"),
    ("Maintenance/HashKV", "maintenance/hashkv"),
    ("Maintenance/Snapshot", "maintenance/snapshot"),
    ("Maintenance/MoveLeader", "maintenance/transfer-leadership"),
    ("Maintenance/Downgrade", "maintenance/downgrade"),
    ("Auth/AuthEnable", "auth/enable"),
    ("Auth/AuthDisable", "auth/disable"),
    ("Auth/AuthStatus", "auth/status"),
    ("Auth/Authenticate", "auth/authenticate"),
    ("Auth/UserAdd", "auth/user/add"),
    ("Auth/UserGet", "auth/user/get"),
    ("Auth/UserList", "auth/user/list"),
    ("Auth/UserDelete", "auth/user/delete"),
    ("Auth/UserChangePassword", "auth/user/changepw"),
    ("Auth/UserGrantRole", "auth/user/grant"),
    ("Auth/UserRevokeRole", "auth/user/revoke"),
    ("Auth/RoleAdd", "auth/role/add"),
    ("Auth/RoleGet", "auth/role/get"),
    ("Auth/RoleList", "auth/role/list"),
    ("Auth/RoleDelete", "auth/role/delete"),
    ("Auth/RoleGrantPermission", "auth/role/grant"),
    ("Auth/RoleRevokePermission", "auth/role/revoke"),
    ("v3lockpb.Lock/Lock", "lock/lock"),
    ("v3lockpb.Lock/Unlock", "lock/unlock"),
    ("v3electionpb.Election/Campaign", "election/campaign"),
    ("v3electionpb.Election/Proclaim", "election/proclaim"),
    ("v3electionpb.Election/Leader", "election/leader"),
    ("v3electionpb.Election/Observe", "election/observe"),
    ("v3electionpb.Election/Resign", "election/resign"),
];

/// The gateway's path of a method, if it has one.
#[must_use]
pub fn route(method: &str) -> Option<String> {
    let (_, path) = ROUTES.iter().find(|(name, _)| *name == method)?;
    Some(format!("/v3/{path}"))
}

/// Codes by number, and the status of HTTP that the gateway gives for each.
const CODES: [(&str, u16); 17] = [
    ("OK", 200),
    ("CANCELLED", 499),
    ("UNKNOWN", 500),
    ("INVALID_ARGUMENT", 400),
    ("DEADLINE_EXCEEDED", 504),
    ("NOT_FOUND", 404),
    ("ALREADY_EXISTS", 409),
    ("PERMISSION_DENIED", 403),
    ("RESOURCE_EXHAUSTED", 429),
    ("FAILED_PRECONDITION", 400),
    ("ABORTED", 409),
    ("OUT_OF_RANGE", 400),
    ("UNIMPLEMENTED", 501),
    ("INTERNAL", 500),
    ("UNAVAILABLE", 503),
    ("DATA_LOSS", 500),
    ("UNAUTHENTICATED", 401),
];

impl Door {
    /// A call over gRPC.
    ///
    /// # Errors
    /// The request is not of the schema, or the answer cannot be read.
    pub async fn grpc(
        &self,
        headers: &[(String, String)],
        name: &str,
        request: &str,
    ) -> Result<Outcome, Error> {
        let path = schema::full_path(name);
        let method = schema::method(&path).ok_or_else(|| Error(format!("{path}?")))?;
        let body = schema::encode(&method, request)?;
        let kind = kind(&method);
        match self.connection.first(&path, kind, headers, body).await {
            Err(status) => Ok(Outcome::Refused {
                code: code_name(status.code()),
                message: status.message().into(),
            }),
            Ok(None) => Ok(Outcome::Ended),
            Ok(Some(bytes)) => {
                let message = DynamicMessage::decode(method.output(), bytes)
                    .map_err(|error| Error(format!("answer: {error}")))?;
                let reason = message.get_field_by_name("cancel_reason");
                let reason = reason.as_deref().and_then(|reason| reason.as_str());
                Ok(reason.and_then(cancelled).unwrap_or(Outcome::Done))
            }
        }
    }

    /// A call over JSON, if the gateway has the method.
    ///
    /// # Errors
    /// The request is not of the schema, or the answer is none of the gateway's.
    pub fn json(
        &self,
        headers: &[(String, String)],
        name: &str,
        request: &str,
    ) -> Result<Option<Outcome>, Error> {
        let Some(route) = route(name) else {
            return Ok(None);
        };
        let path = schema::full_path(name);
        let method = schema::method(&path).ok_or_else(|| Error(format!("{path}?")))?;
        let body = schema::json(&method, request)?;
        let (status, text) = match kind(&method) {
            Kind::Unary => {
                let answer = http::send(self.address, "POST", &route, headers, body.as_bytes())?;
                (answer.status, answer.body)
            }
            Kind::Answers | Kind::Both => {
                let mut stream = http::Stream::post(self.address, &route, headers)?;
                stream.send(&body)?;
                // Go's server reads the whole body before it answers.
                stream.finish()?;
                let line = stream.line()?.unwrap_or_default();
                let status = stream.head().map_or(0, |(status, _)| *status);
                (status, line)
            }
        };
        outcome_of_json(status, &text).map(Some)
    }
}

fn kind(method: &MethodDescriptor) -> Kind {
    match (method.is_client_streaming(), method.is_server_streaming()) {
        (false, false) => Kind::Unary,
        (false, true) => Kind::Answers,
        (true, _) => Kind::Both,
    }
}

/// The error that a cancelled watch's reason tells; none for no reason.
fn cancelled(reason: &str) -> Option<Outcome> {
    if reason.is_empty() {
        return None;
    }
    let parts = reason
        .strip_prefix("rpc error: code = ")
        .and_then(|rest| rest.split_once(" desc = "));
    // Go prints codes as one word.
    let code = |word: &str| {
        let plain = |name: &str| name.replace('_', "");
        let found = CODES
            .iter()
            .find(|(name, _)| plain(name).eq_ignore_ascii_case(word));
        found.map_or(word.to_owned(), |(name, _)| (*name).into())
    };
    Some(match parts {
        Some((word, message)) => Outcome::error(&code(word), message),
        None => Outcome::error("?", reason),
    })
}

fn outcome_of_json(status: u16, text: &str) -> Result<Outcome, Error> {
    let bad = || Error(format!("status {status}: {text}"));
    if text.is_empty() && status == 200 {
        return Ok(Outcome::Ended);
    }
    let answer: serde_json::Value = serde_json::from_str(text).map_err(|_| bad())?;
    let reason = answer["result"]["cancel_reason"].as_str();
    if let Some(outcome) = reason.and_then(cancelled) {
        return Ok(outcome);
    }
    let error = answer.get("error").unwrap_or(&answer);
    let Some(number) = error["code"].as_u64() else {
        return match status {
            200 => Ok(Outcome::Done),
            _ => Err(bad()),
        };
    };
    let (code, http) = CODES.get(number as usize).ok_or_else(bad)?;
    if *http != status {
        return Err(bad());
    }
    let message = error["message"].as_str().ok_or_else(bad)?;
    Ok(Outcome::error(code, message))
}
