//! `grpc_server_*`: counters per method, all present from the start.

use std::time::Instant;

use super::cells::{Block, Histogram};
use super::encode::{Metric, Text, label};

/// A method of the client API, by its position in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Method(usize);

struct Row {
    service: &'static str,
    method: &'static str,
    kind: &'static str,
}

const UNARY: &str = "unary";
const SERVER_STREAM: &str = "server_stream";
const BIDI_STREAM: &str = "bidi_stream";

const AUTH: &str = "etcdserverpb.Auth";
const CLUSTER: &str = "etcdserverpb.Cluster";
const ELECTION: &str = "v3electionpb.Election";
const HEALTH: &str = "grpc.health.v1.Health";
const KV: &str = "etcdserverpb.KV";
const LEASE: &str = "etcdserverpb.Lease";
const LOCK: &str = "v3lockpb.Lock";
const MAINTENANCE: &str = "etcdserverpb.Maintenance";
const WATCH: &str = "etcdserverpb.Watch";

impl Row {
    /// Whether its samples are there from the start.
    fn is_initialised(&self) -> bool {
        self.service != LOCK && self.service != ELECTION
    }
}

const fn row(service: &'static str, method: &'static str, kind: &'static str) -> Row {
    Row {
        service,
        method,
        kind,
    }
}

/// By method, then service: the order of the samples.
const METHODS: &[Row] = &[
    row(MAINTENANCE, "Alarm", UNARY),
    row(AUTH, "AuthDisable", UNARY),
    row(AUTH, "AuthEnable", UNARY),
    row(AUTH, "AuthStatus", UNARY),
    row(AUTH, "Authenticate", UNARY),
    row(ELECTION, "Campaign", UNARY),
    row(HEALTH, "Check", UNARY),
    row(KV, "Compact", UNARY),
    row(MAINTENANCE, "Defragment", UNARY),
    row(KV, "DeleteRange", UNARY),
    row(MAINTENANCE, "Downgrade", UNARY),
    row(MAINTENANCE, "Hash", UNARY),
    row(MAINTENANCE, "HashKV", UNARY),
    row(ELECTION, "Leader", UNARY),
    row(LEASE, "LeaseGrant", UNARY),
    row(LEASE, "LeaseKeepAlive", BIDI_STREAM),
    row(LEASE, "LeaseLeases", UNARY),
    row(LEASE, "LeaseRevoke", UNARY),
    row(LEASE, "LeaseTimeToLive", UNARY),
    row(HEALTH, "List", UNARY),
    row(LOCK, "Lock", UNARY),
    row(CLUSTER, "MemberAdd", UNARY),
    row(CLUSTER, "MemberList", UNARY),
    row(CLUSTER, "MemberPromote", UNARY),
    row(CLUSTER, "MemberRemove", UNARY),
    row(CLUSTER, "MemberUpdate", UNARY),
    row(MAINTENANCE, "MoveLeader", UNARY),
    row(ELECTION, "Observe", SERVER_STREAM),
    row(ELECTION, "Proclaim", UNARY),
    row(KV, "Put", UNARY),
    row(KV, "Range", UNARY),
    row(KV, "RangeStream", SERVER_STREAM),
    row(ELECTION, "Resign", UNARY),
    row(AUTH, "RoleAdd", UNARY),
    row(AUTH, "RoleDelete", UNARY),
    row(AUTH, "RoleGet", UNARY),
    row(AUTH, "RoleGrantPermission", UNARY),
    row(AUTH, "RoleList", UNARY),
    row(AUTH, "RoleRevokePermission", UNARY),
    row(MAINTENANCE, "Snapshot", SERVER_STREAM),
    row(MAINTENANCE, "Status", UNARY),
    row(KV, "Txn", UNARY),
    row(LOCK, "Unlock", UNARY),
    row(AUTH, "UserAdd", UNARY),
    row(AUTH, "UserChangePassword", UNARY),
    row(AUTH, "UserDelete", UNARY),
    row(AUTH, "UserGet", UNARY),
    row(AUTH, "UserGrantRole", UNARY),
    row(AUTH, "UserList", UNARY),
    row(AUTH, "UserRevokeRole", UNARY),
    row(WATCH, "Watch", BIDI_STREAM),
    row(HEALTH, "Watch", SERVER_STREAM),
];

/// The status codes in the order of their names, which is the order of the samples.
const CODES: [(&str, usize); 17] = [
    ("Aborted", 10),
    ("AlreadyExists", 6),
    ("Canceled", 1),
    ("DataLoss", 15),
    ("DeadlineExceeded", 4),
    ("FailedPrecondition", 9),
    ("Internal", 13),
    ("InvalidArgument", 3),
    ("NotFound", 5),
    ("OK", 0),
    ("OutOfRange", 11),
    ("PermissionDenied", 7),
    ("ResourceExhausted", 8),
    ("Unauthenticated", 16),
    ("Unavailable", 14),
    ("Unimplemented", 12),
    ("Unknown", 2),
];

impl Method {
    /// The method behind the path of a request, `/etcdserverpb.KV/Range`.
    #[must_use]
    pub fn from_path(path: &str) -> Option<Method> {
        let (service, method) = path.strip_prefix('/')?.split_once('/')?;
        let at = METHODS
            .iter()
            .position(|row| row.service == service && row.method == method)?;
        Some(Method(at))
    }
}

// Cells of one method, behind the 17 status codes of `handled`.
const STARTED: usize = 17;
const RECEIVED: usize = 18;
const SENT: usize = 19;
const CELLS: usize = 20;

/// Bounds of the times of calls, in seconds: those that Prometheus's clients have by default.
const HANDLING_BOUNDS: [f64; 11] = [
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];

/// The families of the gRPC server.
pub struct Grpc {
    counts: Block,
    /// Times of calls by method, with `--metrics=extensive` alone.
    handling: Vec<Histogram>,
}

impl Default for Grpc {
    fn default() -> Grpc {
        Grpc::new(false)
    }
}

impl Grpc {
    /// `extensive`: with the times of calls.
    #[must_use]
    pub fn new(extensive: bool) -> Grpc {
        let timed = if extensive { METHODS.len() } else { 0 };
        Grpc {
            counts: Block::new(METHODS.len() * CELLS),
            handling: (0..timed)
                .map(|_| Histogram::with_bounds(HANDLING_BOUNDS.to_vec()))
                .collect(),
        }
    }

    /// A call that began then is over.
    pub fn took(&self, method: Method, begun: Instant) {
        if let Some(times) = self.handling.get(method.0) {
            times.observe_seconds(begun.elapsed());
        }
    }

    /// `count` requests arrived.
    pub fn started(&self, method: Method, count: u64) {
        self.counts.add(method.0 * CELLS + STARTED, count);
    }

    /// `count` requests were answered with `code`.
    pub fn handled(&self, method: Method, code: api::Code, count: u64) {
        self.counts.add(method.0 * CELLS + code as usize, count);
    }

    /// `count` messages came in.
    pub fn received(&self, method: Method, count: u64) {
        self.counts.add(method.0 * CELLS + RECEIVED, count);
    }

    /// `count` messages went out.
    pub fn sent(&self, method: Method, count: u64) {
        self.counts.add(method.0 * CELLS + SENT, count);
    }

    /// A unary request that succeeded, all four at once.
    pub fn unary_ok(&self, method: Method, count: u64) {
        self.started(method, count);
        self.received(method, count);
        self.handled(method, api::Code::Ok, count);
        self.sent(method, count);
    }

    pub(super) fn write(&self, text: &mut Text) {
        let labels: Vec<String> = METHODS
            .iter()
            .map(|row| {
                let pairs = [
                    label("grpc_method", row.method),
                    label("grpc_service", row.service),
                    label("grpc_type", row.kind),
                ];
                pairs.join(",")
            })
            .collect();
        let is_shown: Vec<bool> = (0..METHODS.len()).map(|at| self.is_shown(at)).collect();
        let name = "grpc_server_handled_total";
        text.family(
            name,
            "counter",
            "Requests that were answered, by status code.",
        );
        for (code_name, code) in CODES {
            let code_label = label("grpc_code", code_name);
            for (at, labels) in labels.iter().enumerate() {
                let value = self.counts.sum(at * CELLS + code);
                let is_due = METHODS[at].is_initialised() || value > 0;
                if is_due {
                    text.sample(name, &format!("{code_label},{labels}"), value as f64);
                }
            }
        }
        self.write_handling(&labels, text);
        let families = [
            (
                "grpc_server_msg_received_total",
                RECEIVED,
                "Messages that came from clients.",
            ),
            (
                "grpc_server_msg_sent_total",
                SENT,
                "Messages that went to clients.",
            ),
            (
                "grpc_server_started_total",
                STARTED,
                "Requests that arrived.",
            ),
        ];
        for (name, cell, help) in families {
            text.family(name, "counter", help);
            for (at, labels) in labels.iter().enumerate() {
                if is_shown[at] {
                    text.sample(name, labels, self.counts.sum(at * CELLS + cell) as f64);
                }
            }
        }
    }

    /// Times of calls; between the other families by name.
    fn write_handling(&self, labels: &[String], text: &mut Text) {
        if self.handling.is_empty() {
            return;
        }
        let name = "grpc_server_handling_seconds";
        text.family(name, "histogram", "Times of calls until their end.");
        for (at, times) in self.handling.iter().enumerate() {
            if self.is_shown(at) {
                times.write(name, &labels[at], text);
            }
        }
    }

    /// Whether a method has samples: those of Lock and Election begin with their first call.
    fn is_shown(&self, at: usize) -> bool {
        METHODS[at].is_initialised() || self.counts.sum(at * CELLS + STARTED) > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_in_the_order_of_the_samples() {
        assert!(METHODS.is_sorted_by_key(|row| (row.method, row.service)));
        assert!(CODES.is_sorted());
        let mut codes = CODES.map(|(_, code)| code);
        codes.sort_unstable();
        assert!(codes.iter().enumerate().all(|(at, code)| at == *code));
    }

    #[test]
    fn counts() {
        let grpc = Grpc::default();
        let put = Method::from_path("/etcdserverpb.KV/Put").unwrap();
        assert_eq!(Method::from_path("/etcdserverpb.KV/Nope"), None);
        grpc.unary_ok(put, 2);
        grpc.handled(put, api::Code::OutOfRange, 1);
        let mut text = Text::default();
        grpc.write(&mut text);
        let tail = "grpc_method=\"Put\",grpc_service=\"etcdserverpb.KV\",grpc_type=\"unary\"}";
        for want in [
            format!("grpc_server_handled_total{{grpc_code=\"OK\",{tail} 2\n"),
            format!("grpc_server_handled_total{{grpc_code=\"OutOfRange\",{tail} 1\n"),
            format!("grpc_server_handled_total{{grpc_code=\"Unknown\",{tail} 0\n"),
            format!("grpc_server_started_total{{{tail} 2\n"),
            format!("grpc_server_msg_sent_total{{{tail} 2\n"),
        ] {
            assert!(text.0.contains(&want), "{want}");
        }
    }
}
