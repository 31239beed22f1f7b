//! The one list of flags. Parsing, environment, config file, help and the compatibility page all
//! read it; a flag is added here and given a meaning in `config::meaning`.

use super::value::{Kind, Value};

/// What this build does with a flag that the operator sets to something else than its default.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Support {
    /// The flag has its effect.
    Acts,
    /// There is nothing to configure here; etcd accepts the flag, so do we, with a warning.
    Inert,
}

/// Where a flag's value stands in a config file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKey {
    /// Under the flag's own name.
    Same,
    /// Inside maps: the keys from the outside in.
    Nested(&'static [&'static str]),
    /// Cannot be set in a file.
    None,
}

/// The headings of the help text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Section {
    Member,
    Clustering,
    Security,
    Auth,
    Monitoring,
    Logging,
    Features,
    Unsafe,
    Process,
    /// Accepted without any effect and not listed in the help.
    Hidden,
}

impl Section {
    /// All sections that the help text shows, in its order.
    pub const LISTED: &'static [Section] = &[
        Section::Member,
        Section::Clustering,
        Section::Security,
        Section::Auth,
        Section::Monitoring,
        Section::Logging,
        Section::Features,
        Section::Unsafe,
        Section::Process,
    ];

    /// The heading.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Section::Member => "Member",
            Section::Clustering => "Clustering",
            Section::Security => "Security",
            Section::Auth => "Auth",
            Section::Monitoring => "Profiling and monitoring",
            Section::Logging => "Logging",
            Section::Features => "Features",
            Section::Unsafe => "Unsafe",
            Section::Process => "Process",
            Section::Hidden => "Ignored",
        }
    }
}

/// One flag.
#[derive(Clone, Copy, Debug)]
pub struct Flag {
    pub name: &'static str,
    pub kind: Kind,
    /// The default in the text form of the command line.
    pub default: &'static str,
    pub section: Section,
    pub support: Support,
    pub file: FileKey,
    /// Why setting it deserves a warning even where it works.
    pub deprecated: Option<&'static str>,
    pub help: &'static str,
}

impl Flag {
    const fn file(mut self, key: FileKey) -> Flag {
        self.file = key;
        self
    }

    const fn deprecated(mut self, why: &'static str) -> Flag {
        self.deprecated = Some(why);
        self
    }

    /// The environment variable that sets the flag.
    #[must_use]
    pub fn env(&self) -> String {
        variable(self.name)
    }

    /// The value when nobody sets it.
    #[must_use]
    pub fn default_value(&self) -> Value {
        self.kind.default_value(self.default)
    }
}

/// The environment variable that sets the flag `name`.
pub(super) fn variable(name: &str) -> String {
    format!("ETCD_{}", name.to_ascii_uppercase().replace('-', "_"))
}

/// The flag `name`, which our own code knows to exist.
pub(super) fn named(name: &str) -> &'static Flag {
    let at = position(name).expect("our own code asks only for flags of the table");
    &FLAGS[at]
}

/// Position of the flag `name` in [`FLAGS`].
#[must_use]
pub fn position(name: &str) -> Option<usize> {
    FLAGS.iter().position(|flag| flag.name == name)
}

use FileKey::{Nested, None as NotInFile};
use Kind::{
    Bool, Duration, Hosts, Int, List, ManyOf, OneOf, Origins, Set, Text, Uint, Uint32, Urls,
};
use Section::{
    Auth, Clustering, Features, Hidden, Logging, Member, Monitoring, Process, Security, Unsafe,
};
use Support::{Acts, Inert};

const fn flag(
    section: Section,
    support: Support,
    name: &'static str,
    kind: Kind,
    default: &'static str,
    help: &'static str,
) -> Flag {
    Flag {
        name,
        kind,
        default,
        section,
        support,
        file: FileKey::Same,
        deprecated: None,
        help,
    }
}

const fn ignored(name: &'static str) -> Flag {
    flag(Hidden, Inert, name, Kind::Ignored, "", "Does nothing.").file(NotInFile)
}

const CLIENT_TLS: &str = "client-transport-security";
const PEER_TLS: &str = "peer-transport-security";
const DISCOVERY: &str = "discovery-config";

/// Every flag of etcd 3.7, in the order of the help text.
#[rustfmt::skip]
pub const FLAGS: &[Flag] = &[
    flag(Member, Acts, "name", Text, "default",
        "Name of this member; give every member of a cluster its own."),
    flag(Member, Acts, "data-dir", Text, "",
        "Directory of the member's data; `${name}.etcd` when empty."),
    flag(Member, Acts, "wal-dir", Text, "",
        "Directory of the write-ahead log, when it shall not live in the data directory."),
    flag(Member, Acts, "snapshot-count", Uint, "10000",
        "Applied entries between two raft snapshots."),
    flag(Member, Acts, "snapshot-catchup-entries", Uint, "5000",
        "Entries that stay in the log behind a snapshot, for followers that lag."),
    flag(Member, Acts, "heartbeat-interval", Uint, "100",
        "Milliseconds between two heartbeats of the leader."),
    flag(Member, Acts, "election-timeout", Uint, "1000",
        "Milliseconds without a leader before a member campaigns."),
    flag(Member, Acts, "initial-election-tick-advance", Bool, "true",
        "Shorten the wait for the first election after a start."),
    flag(Member, Acts, "listen-peer-urls", Urls, "http://localhost:2380",
        "Addresses to listen on for other members."),
    flag(Member, Acts, "listen-client-urls", Urls, "http://localhost:2379",
        "Addresses to listen on for clients, gRPC and HTTP alike."),
    flag(Member, Acts, "listen-client-http-urls", Urls, "",
        "Addresses for HTTP clients only; --listen-client-urls then serves gRPC only."),
    flag(Member, Acts, "listen-metrics-urls", Urls, "",
        "Further addresses that serve only /metrics and the health endpoints."),
    flag(Member, Acts, "max-snapshots", Uint, "5",
        "Raft snapshot files to keep; 0 keeps all.")
        .deprecated("--max-snapshots is deprecated in 3.6 and will be decommissioned in 3.8."),
    flag(Member, Acts, "max-wals", Uint, "5",
        "Write-ahead log files to keep; 0 keeps all."),
    flag(Member, Acts, "memory-mlock", Bool, "false",
        "Lock the process's memory, so that nothing of it is swapped out."),
    flag(Member, Acts, "quota-backend-bytes", Kind::Int, "0",
        "Bytes of database after which writes are refused; 0 means 2 GiB, negative no limit."),
    flag(Member, Inert, "backend-bbolt-freelist-type", Text, "",
        "How Go's bbolt keeps free pages in memory (array or map); one way exists here."),
    flag(Member, Acts, "backend-batch-interval", Duration, "0",
        "Longest time between two commits of the database; 0 means 100ms."),
    flag(Member, Acts, "backend-batch-limit", Int, "0",
        "Operations after which the database commits early; 0 means 10000."),
    flag(Member, Acts, "max-txn-ops", Uint, "128",
        "Operations that one transaction may hold."),
    flag(Member, Acts, "max-request-bytes", Uint, "1572864",
        "Bytes that one request may have."),
    flag(Member, Acts, "max-concurrent-streams", Uint32, "4294967295",
        "Requests that one connection may have open at a time."),
    flag(Member, Acts, "grpc-keepalive-min-time", Duration, "5s",
        "Clients that ping more often than this are disconnected."),
    flag(Member, Acts, "grpc-keepalive-interval", Duration, "2h",
        "Silence after which the server pings a client; 0 never pings."),
    flag(Member, Acts, "grpc-keepalive-timeout", Duration, "20s",
        "Time that a pinged client has for its answer."),
    flag(Member, Acts, "socket-reuse-port", Bool, "false",
        "Set SO_REUSEPORT on listeners.").file(Nested(&["socket-options", "reuse-port"])),
    flag(Member, Acts, "socket-reuse-address", Bool, "false",
        "Set SO_REUSEADDR on listeners.").file(Nested(&["socket-options", "reuse-address"])),
    flag(Member, Acts, "enable-grpc-gateway", Bool, "true",
        "Serve the JSON gateway under /v3/."),
    flag(Member, Acts, "raft-read-timeout", Duration, "5s",
        "Read timeout of connections between members; at least 5s.").file(NotInFile),
    flag(Member, Acts, "raft-write-timeout", Duration, "5s",
        "Write timeout of connections between members; at least 5s.").file(NotInFile),

    flag(Clustering, Acts, "initial-advertise-peer-urls", Urls, "http://localhost:2380",
        "This member's peer URLs as the others shall know them."),
    flag(Clustering, Acts, "initial-cluster", Text, "default=http://localhost:2380",
        "All members of the new cluster: name=url,name=url."),
    flag(Clustering, Acts, "initial-cluster-state", OneOf(&["new", "existing"]), "new",
        "Whether the member founds a cluster (new) or joins one (existing)."),
    flag(Clustering, Acts, "initial-cluster-token", Text, "etcd-cluster",
        "Word that keeps clusters apart; goes into the ids of cluster and members."),
    flag(Clustering, Acts, "advertise-client-urls", Urls, "http://localhost:2379",
        "This member's client URLs as clients shall know them."),
    flag(Clustering, Acts, "discovery-endpoints", Set, "",
        "Endpoints of the discovery cluster.").file(Nested(&[DISCOVERY, "client", "endpoints"])),
    flag(Clustering, Acts, "discovery-token", Text, "",
        "Token of the cluster at the discovery cluster.").file(Nested(&[DISCOVERY, "token"])),
    flag(Clustering, Acts, "discovery-dial-timeout", Duration, "2s",
        "Time for connecting to the discovery cluster.")
        .file(Nested(&[DISCOVERY, "client", "dial-timeout"])),
    flag(Clustering, Acts, "discovery-request-timeout", Duration, "5s",
        "Time for one request to the discovery cluster.")
        .file(Nested(&[DISCOVERY, "client", "request-timeout"])),
    flag(Clustering, Acts, "discovery-keepalive-time", Duration, "2s",
        "Silence after which the discovery cluster is pinged.")
        .file(Nested(&[DISCOVERY, "client", "keepalive-time"])),
    flag(Clustering, Acts, "discovery-keepalive-timeout", Duration, "6s",
        "Time that the discovery cluster has for answering a ping.")
        .file(Nested(&[DISCOVERY, "client", "keepalive-timeout"])),
    flag(Clustering, Acts, "discovery-insecure-transport", Bool, "true",
        "Talk to the discovery cluster without TLS.")
        .file(Nested(&[DISCOVERY, "client", "secure", "insecure-transport"])),
    flag(Clustering, Acts, "discovery-insecure-skip-tls-verify", Bool, "false",
        "Take any certificate from the discovery cluster; for tests.")
        .file(Nested(&[DISCOVERY, "client", "secure", "insecure-skip-tls-verify"])),
    flag(Clustering, Acts, "discovery-cert", Text, "",
        "Certificate file for the discovery cluster.")
        .file(Nested(&[DISCOVERY, "client", "secure", "cert"])),
    flag(Clustering, Acts, "discovery-key", Text, "",
        "Key file for the discovery cluster.")
        .file(Nested(&[DISCOVERY, "client", "secure", "key"])),
    flag(Clustering, Acts, "discovery-cacert", Text, "",
        "File of authorities that may sign the discovery cluster's certificate.")
        .file(Nested(&[DISCOVERY, "client", "secure", "cacert"])),
    flag(Clustering, Acts, "discovery-user", Text, "",
        "User at the discovery cluster, name or name:password.")
        .file(Nested(&[DISCOVERY, "client", "auth", "username"])),
    flag(Clustering, Acts, "discovery-password", Text, "",
        "Password at the discovery cluster.")
        .file(Nested(&[DISCOVERY, "client", "auth", "password"])),
    flag(Clustering, Acts, "discovery-fallback", OneOf(&["exit", "proxy"]), "exit",
        "What to do when discovery fails; only exit is left.").file(NotInFile),
    flag(Clustering, Acts, "discovery-srv", Text, "",
        "Domain whose SRV records list the members."),
    flag(Clustering, Acts, "discovery-srv-name", Text, "",
        "Suffix of the service name in SRV records."),
    flag(Clustering, Acts, "strict-reconfig-check", Bool, "true",
        "Refuse membership changes that would cost the quorum."),
    flag(Clustering, Acts, "pre-vote", Bool, "true",
        "Ask the others before raising the term, so that a returning member disturbs nobody."),
    flag(Clustering, Acts, "auto-compaction-mode", Text, "periodic",
        "How --auto-compaction-retention is meant: periodic or revision."),
    flag(Clustering, Acts, "auto-compaction-retention", Text, "0",
        "History to keep: hours or a duration (periodic) or revisions; 0 never compacts."),
    flag(Clustering, Inert, "v2-deprecation",
        ManyOf(&["write-only", "write-only-skip-check", "write-only-drop-data", "gone"]), "",
        "Stage of the removal of the v2 store; it is gone.")
        .deprecated("--v2-deprecation is deprecated and scheduled for removal in v3.8. The \
                     default value is enforced, ignoring user input."),

    flag(Security, Acts, "cert-file", Text, "",
        "Certificate of the client listeners.").file(Nested(&[CLIENT_TLS, "cert-file"])),
    flag(Security, Acts, "key-file", Text, "",
        "Key of the client listeners.").file(Nested(&[CLIENT_TLS, "key-file"])),
    flag(Security, Acts, "client-cert-file", Text, "",
        "Certificate that this server shows when it is a client itself.")
        .file(Nested(&[CLIENT_TLS, "client-cert-file"])),
    flag(Security, Acts, "client-key-file", Text, "",
        "Key for --client-cert-file.").file(Nested(&[CLIENT_TLS, "client-key-file"])),
    flag(Security, Acts, "client-cert-auth", Bool, "false",
        "Ask clients for certificates.").file(Nested(&[CLIENT_TLS, "client-cert-auth"])),
    flag(Security, Acts, "client-crl-file", Text, "",
        "File of revoked client certificates.").file(NotInFile),
    flag(Security, Acts, "client-cert-allowed-hostname", List, "",
        "Host names of which a client's certificate must carry one.")
        .file(Nested(&[CLIENT_TLS, "allowed-hostname"])),
    flag(Security, Acts, "trusted-ca-file", Text, "",
        "File of authorities that may sign client certificates.")
        .file(Nested(&[CLIENT_TLS, "trusted-ca-file"])),
    flag(Security, Acts, "auto-tls", Bool, "false",
        "Encrypt client traffic with a certificate made at start.")
        .file(Nested(&[CLIENT_TLS, "auto-tls"])),
    flag(Security, Acts, "peer-cert-file", Text, "",
        "Certificate of the peer listeners.").file(Nested(&[PEER_TLS, "cert-file"])),
    flag(Security, Acts, "peer-key-file", Text, "",
        "Key of the peer listeners.").file(Nested(&[PEER_TLS, "key-file"])),
    flag(Security, Acts, "peer-client-cert-file", Text, "",
        "Certificate that this member shows to other members.")
        .file(Nested(&[PEER_TLS, "client-cert-file"])),
    flag(Security, Acts, "peer-client-key-file", Text, "",
        "Key for --peer-client-cert-file.").file(Nested(&[PEER_TLS, "client-key-file"])),
    flag(Security, Acts, "peer-client-cert-auth", Bool, "false",
        "Ask other members for certificates.").file(Nested(&[PEER_TLS, "client-cert-auth"])),
    flag(Security, Acts, "peer-trusted-ca-file", Text, "",
        "File of authorities that may sign the certificates of members.")
        .file(Nested(&[PEER_TLS, "trusted-ca-file"])),
    flag(Security, Acts, "peer-crl-file", Text, "",
        "File of revoked member certificates.").file(NotInFile),
    flag(Security, Acts, "peer-cert-allowed-cn", List, "",
        "Common names of which a member's certificate must carry one.")
        .file(Nested(&[PEER_TLS, "allowed-cn"])),
    flag(Security, Acts, "peer-cert-allowed-hostname", List, "",
        "Host names of which a member's certificate must carry one.")
        .file(Nested(&[PEER_TLS, "allowed-hostname"])),
    flag(Security, Acts, "peer-auto-tls", Bool, "false",
        "Encrypt traffic between members with a certificate made at start.")
        .file(Nested(&[PEER_TLS, "auto-tls"])),
    flag(Security, Acts, "peer-skip-client-san-verification", Bool, "false",
        "Do not compare a member's certificate with its address.")
        .file(Nested(&[PEER_TLS, "skip-client-san-verification"])),
    flag(Security, Acts, "self-signed-cert-validity", Uint, "1",
        "Years for which certificates made at start are valid."),
    flag(Security, Acts, "cipher-suites", List, "",
        "TLS cipher suites to offer, by Go's names."),
    flag(Security, Acts, "tls-min-version", Text, "TLS1.2",
        "Lowest TLS version: TLS1.2 or TLS1.3."),
    flag(Security, Acts, "tls-max-version", Text, "",
        "Highest TLS version: TLS1.2 or TLS1.3; empty for the newest."),
    flag(Security, Acts, "cors", Origins, "*",
        "Origins that browsers may call from; * for all."),
    flag(Security, Acts, "host-whitelist", Hosts, "*",
        "Host names under which unencrypted HTTP requests are served; * for all."),

    flag(Auth, Acts, "auth-token", Text, "simple",
        "Kind of token: simple, or jwt with its options."),
    flag(Auth, Acts, "bcrypt-cost", Uint, "10",
        "Cost of hashing a password, 4 to 31."),
    flag(Auth, Acts, "auth-token-ttl", Uint, "300",
        "Seconds for which an unused simple token lives."),

    flag(Monitoring, Acts, "enable-pprof", Bool, "false",
        "Serve profiles under /debug/pprof/."),
    flag(Monitoring, Acts, "metrics", Text, "basic",
        "Detail of /metrics: basic, or extensive with histograms per gRPC method."),
    flag(Monitoring, Acts, "enable-distributed-tracing", Bool, "false",
        "Send traces to an OpenTelemetry collector."),
    flag(Monitoring, Acts, "distributed-tracing-address", Text, "localhost:4317",
        "Address of the collector."),
    flag(Monitoring, Acts, "distributed-tracing-service-name", Text, "etcd",
        "Service name in traces; the same on all members."),
    flag(Monitoring, Acts, "distributed-tracing-instance-id", Text, "",
        "Instance id in traces; different on every member."),
    flag(Monitoring, Acts, "distributed-tracing-sampling-rate", Int, "0",
        "Traces to keep out of a million."),

    flag(Logging, Acts, "logger", Text, "zap",
        "Form of the log lines; zap is the only one."),
    flag(Logging, Acts, "log-outputs", Set, "default",
        "Where log lines go: default, stderr, stdout, systemd/journal or files."),
    flag(Logging, Acts, "log-level", Text, "info",
        "Lowest level that is logged: debug, info, warn, error, panic or fatal."),
    flag(Logging, Acts, "log-format", Text, "json",
        "Shape of a log line: json or console."),
    flag(Logging, Acts, "enable-log-rotation", Bool, "false",
        "Rotate the log file."),
    flag(Logging, Acts, "log-rotation-config-json", Text,
        "{\"maxsize\": 100, \"maxage\": 0, \"maxbackups\": 0, \"localtime\": false, \
         \"compress\": false}",
        "How to rotate: megabytes per file, days and files to keep (0 for all), local time, \
         compression."),
    flag(Logging, Acts, "warning-unary-request-duration", Duration, "300ms",
        "Requests that take longer are logged as warnings."),
    flag(Logging, Acts, "warning-apply-duration", Duration, "100ms",
        "Applied entries that take longer are logged as warnings."),

    flag(Features, Acts, "feature-gates", Kind::Gates, "",
        "Switches of single features: Name=true,Other=false."),
    flag(Features, Acts, "corrupt-check-time", Duration, "0",
        "Time between two comparisons of the members' data; 0 for never."),
    flag(Features, Acts, "compact-hash-check-time", Duration, "1m",
        "Time between two comparisons of the members' compaction hashes."),
    flag(Features, Acts, "compaction-batch-limit", Int, "0",
        "Revisions that one step of a compaction removes; 0 means 1000."),
    flag(Features, Acts, "compaction-sleep-interval", Duration, "0",
        "Pause between two steps of a compaction; 0 means 10ms."),
    flag(Features, Acts, "watch-progress-notify-interval", Duration, "0",
        "Time between two progress reports on an idle watch; 0 means 10m."),
    flag(Features, Inert, "downgrade-check-time", Duration, "5s",
        "Time between two looks for the end of a downgrade, which a leader of the target release \
         finds."),
    flag(Features, Acts, "bootstrap-defrag-threshold-megabytes", Uint, "0",
        "Defragment at start when that frees at least so many megabytes; 0 for never."),
    flag(Features, Acts, "max-learners", Int, "1",
        "Learners that a cluster may have at a time."),

    flag(Unsafe, Acts, "force-new-cluster", Bool, "false",
        "Start as the only member of the cluster, whoever else was in it."),
    flag(Unsafe, Acts, "unsafe-no-fsync", Bool, "false",
        "Acknowledge writes before they are on disk; a crash then loses data."),

    flag(Process, Acts, "config-file", Text, "",
        "YAML or JSON file with the settings; other flags and variables are then ignored.")
        .file(NotInFile),
    flag(Process, Acts, "version", Bool, "false",
        "Print the version and leave.").file(NotInFile),

    ignored("cluster-active-size"),
    ignored("cluster-remove-delay"),
    ignored("cluster-sync-interval"),
    ignored("config"),
    ignored("force"),
    ignored("max-result-buffer"),
    ignored("max-retry-attempts"),
    ignored("peer-heartbeat-interval"),
    ignored("peer-election-timeout"),
    ignored("retry-interval"),
    ignored("snapshot"),
    ignored("v"),
    ignored("vv"),
    ignored("test.coverprofile"),
    ignored("test.outputdir"),
];
