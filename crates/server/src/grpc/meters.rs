//! Counters and times of requests, looked up once per net thread.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::method::{METHODS, Rpc};
use crate::metrics::{Counter, Histogram, Metrics};

/// Versions of clients that are told apart; they are words of the clients' choice, and the rest
/// counts as unknown.
const VERSIONS_MAX: usize = 16;
/// Longest version that is one.
const VERSION_BYTES_MAX: usize = 16;
/// The label of clients that name no version.
const UNKNOWN: &str = "unknown";

/// The label of transactions that only read.
const READ_TXN: &str = "ReadonlyTxn";

/// See the module.
pub(super) struct Meters {
    metrics: Arc<Metrics>,
    /// By [`Rpc`]: times of its requests that failed and that succeeded, once there were any.
    requests: Vec<[Option<Arc<Histogram>>; 2]>,
    ranges: [Arc<Histogram>; 2],
    read_txns: [Arc<Histogram>; 2],
    /// By version: unary calls and streams.
    clients: Vec<(Bytes, [Arc<Counter>; 2])>,
    unknown: [Arc<Counter>; 2],
}

fn word(success: bool) -> &'static str {
    if success { "true" } else { "false" }
}

impl Meters {
    pub(super) fn new(metrics: Arc<Metrics>) -> Meters {
        Meters {
            requests: vec![[None, None]; METHODS.len()],
            ranges: [false, true].map(|ok| metrics.range.with([word(ok)])),
            read_txns: [false, true].map(|ok| metrics.request.with([word(ok), READ_TXN])),
            clients: Vec::new(),
            unknown: clients(&metrics, UNKNOWN),
            metrics,
        }
    }

    /// A request got its result, or none; `took` from its arrival.
    pub(super) fn request(&mut self, rpc: Rpc, success: bool, took: Duration) {
        let times = &mut self.requests[rpc as usize][usize::from(success)];
        if times.is_none() {
            let Some(operation) = operation(rpc) else {
                return;
            };
            *times = Some(self.metrics.request.with([word(success), operation]));
        }
        if let Some(times) = times {
            times.observe_seconds(took);
        }
    }

    /// A range was looked up.
    pub(super) fn range(&self, success: bool, took: Duration) {
        self.ranges[usize::from(success)].observe_seconds(took);
    }

    /// A transaction that only reads was answered, or refused.
    pub(super) fn read_txn(&self, success: bool, took: Duration) {
        self.read_txns[usize::from(success)].observe_seconds(took);
    }

    /// A call begins.
    pub(super) fn client(&mut self, version: Option<&Bytes>, is_stream: bool) {
        let counters = match version {
            None => &self.unknown,
            Some(version) => {
                let known = self.clients.iter().position(|(known, _)| known == version);
                match known.or_else(|| self.learn(version)) {
                    Some(at) => &self.clients[at].1,
                    None => &self.unknown,
                }
            }
        };
        counters[usize::from(is_stream)].inc();
    }

    /// Takes a version up, if it looks like one and there is room.
    fn learn(&mut self, version: &Bytes) -> Option<usize> {
        let is_version = |byte: &u8| byte.is_ascii_alphanumeric() || b".-+".contains(byte);
        let text = std::str::from_utf8(version).ok()?;
        let fits = (1..=VERSION_BYTES_MAX).contains(&text.len());
        if !fits || !version.iter().all(is_version) || self.clients.len() == VERSIONS_MAX {
            return None;
        }
        // A copy, so that no buffer of a connection is kept.
        let key = Bytes::copy_from_slice(version);
        self.clients.push((key, clients(&self.metrics, text)));
        Some(self.clients.len() - 1)
    }
}

fn clients(metrics: &Metrics, version: &str) -> [Arc<Counter>; 2] {
    ["unary", "stream"].map(|kind| metrics.client_requests.with([version, kind]))
}

/// The label `type` of `etcd_server_request_duration_seconds`, for what etcd times: what goes
/// through the log, and reads of keys.
fn operation(rpc: Rpc) -> Option<&'static str> {
    Some(match rpc {
        Rpc::Range => "Range",
        Rpc::Put => "Put",
        Rpc::DeleteRange => "DeleteRange",
        Rpc::Txn => "Txn",
        Rpc::Compact => "Compaction",
        Rpc::LeaseGrant => "LeaseGrant",
        Rpc::LeaseRevoke => "LeaseRevoke",
        Rpc::Alarm => "Alarm",
        Rpc::Downgrade => "DowngradeInfoSet",
        Rpc::AuthEnable => "AuthEnable",
        Rpc::AuthDisable => "AuthDisable",
        Rpc::AuthStatus => "AuthStatus",
        Rpc::Authenticate => "Authenticate",
        Rpc::UserAdd => "AuthUserAdd",
        Rpc::UserDelete => "AuthUserDelete",
        Rpc::UserGet => "AuthUserGet",
        Rpc::UserChangePassword => "AuthUserChangePassword",
        Rpc::UserGrantRole => "AuthUserGrantRole",
        Rpc::UserRevokeRole => "AuthUserRevokeRole",
        Rpc::UserList => "AuthUserList",
        Rpc::RoleAdd => "AuthRoleAdd",
        Rpc::RoleDelete => "AuthRoleDelete",
        Rpc::RoleGet => "AuthRoleGet",
        Rpc::RoleList => "AuthRoleList",
        Rpc::RoleGrantPermission => "AuthRoleGrantPermission",
        Rpc::RoleRevokePermission => "AuthRoleRevokePermission",
        _ => return None,
    })
}
