//! The second stage: typed values to a checked [`Config`], in the order of etcd's own checks.

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use super::legacy;
use super::notice::{Level, Notice};
use super::raw::{Raw, Source};
use super::table::{FLAGS, Support};
use super::url::{self, Scheme, Url};
use super::value::{GoDuration, parse_duration};
use super::{
    Auth, AutoCompaction, Backend, Checks, Cluster, Compaction, Config, Failure, Http, Inputs,
    KeepAlive, Limits, Listen, Log, LogFormat, LogLevel, LogOutput, LogRotation, Monitoring, Raft,
    Security, Slow, Tracing, UNSET_ADVERTISE_CLIENT_URLS,
};

const BCRYPT_COSTS: std::ops::RangeInclusive<u32> = 4..=31;
const BCRYPT_COST_DEFAULT: u32 = 10;
const TOKEN_TTL_DEFAULT: Duration = Duration::from_secs(300);
/// A hundred years: the clock must be able to count so far.
const TOKEN_TTL_SECONDS_MAX: u64 = 100 * 365 * 24 * 3600;
const ELECTION_MS_MAX: u64 = 50_000;
const QUOTA_BYTES_DEFAULT: u64 = 2 << 30;
const QUOTA_BYTES_ADVISED_MAX: i64 = 8 << 30;
const REQUEST_BYTES_ADVISED_MAX: u64 = 10 << 20;
const HOUR_NS: i64 = 3_600_000_000_000;
const SAMPLING_RATE_MAX: i64 = 1_000_000;
/// Size of a log file before it is rotated, unless the configuration has another.
const ROTATION_MEGABYTES: i64 = 100;
const RAFT_TIMEOUT_MIN_NS: i64 = 5_000_000_000;
const DEFAULT_NAME: &str = "default";
const DEFAULT_CLUSTER: &str = "default=http://localhost:2380";
const DEFAULT_CLIENT_URL: &str = "http://localhost:2379";
const DEFAULT_PEER_URL: &str = "http://localhost:2380";

/// Concludes what `raw` means.
pub(super) fn conclude(
    mut raw: Raw,
    inputs: &Inputs<'_>,
    notices: &mut Vec<Notice>,
    log: &mut Log,
) -> Result<Config, Failure> {
    legacy::bequeath(&mut raw, notices).map_err(Failure::Verify)?;
    let from_file = FLAGS
        .iter()
        .any(|flag| raw.source(flag.name) == Some(Source::File));
    note_before_checks(&raw, notices);
    if raw.text("discovery-fallback") == "proxy" {
        let why = "v2 proxy is deprecated, and --discovery-fallback can't be configured as \
                   \"proxy\"";
        return Err(Failure::Verify(why.into()));
    }
    let mut cluster = cluster(&raw, from_file);
    *log = log_settings(&raw)?;
    check_addresses(&raw, &cluster, notices)?;
    check_bootstrap(&raw, &cluster)?;
    check_times(&raw)?;
    let unset =
        raw.source("advertise-client-urls").is_none() && raw.source("listen-client-urls").is_some();
    if unset && !from_file {
        return Err(Failure::Verify(UNSET_ADVERTISE_CLIENT_URLS.into()));
    }
    check_features(&raw, notices)?;
    let security = Security::read(&raw).map_err(Failure::Verify)?;
    let auto_compaction = auto_compaction(&raw)?;
    check_split(&raw)?;
    note_plain_urls(&raw, &security, notices);
    check_support(&raw, notices)?;
    adopt_default_host(&raw, &mut cluster, inputs, notices);
    note_sizes(&raw, notices);
    let mut config = build(raw, cluster, security, log.clone(), notices);
    config.compaction.auto = auto_compaction;
    Ok(config)
}

fn verify(why: impl Into<String>) -> Failure {
    Failure::Verify(why.into())
}

fn note_before_checks(raw: &Raw, notices: &mut Vec<Notice>) {
    for name in ["raft-read-timeout", "raft-write-timeout"] {
        if raw.duration_ns(name) < RAFT_TIMEOUT_MIN_NS {
            let line = format!("{name} increased to minimum value: 5s");
            notices.push(Notice::new(Level::Info, line));
        }
    }
    for (flag, _, source) in raw.iter() {
        if let (Some(why), Some(_)) = (flag.deprecated, source) {
            notices.push(Notice::new(Level::Warn, why));
        }
    }
}

fn cluster(raw: &Raw, from_file: bool) -> Cluster {
    let discovers = !raw.text("discovery-srv").is_empty()
        || !raw.list("discovery-endpoints").is_empty()
        || !from_file && !raw.text("discovery-srv-name").is_empty();
    let initial = raw.text("initial-cluster");
    let default = match from_file {
        true => initial == DEFAULT_CLUSTER,
        false => raw.source("initial-cluster").is_none(),
    };
    Cluster {
        advertise_client: raw.urls("advertise-client-urls").to_vec(),
        advertise_peer: raw.urls("initial-advertise-peer-urls").to_vec(),
        initial: if discovers && default {
            String::new()
        } else {
            initial.to_owned()
        },
        token: raw.text("initial-cluster-token").to_owned(),
        new: raw.text("initial-cluster-state") == "new",
        pre_vote: raw.bool("pre-vote"),
    }
}

fn log_settings(raw: &Raw) -> Result<Log, Failure> {
    match raw.text("logger") {
        "zap" => {}
        "capnslog" => return Err(verify("--logger=capnslog is removed in v3.5")),
        other => return Err(verify(format!("unknown logger option {other:?}"))),
    }
    let outputs = match raw.list("log-outputs") {
        [] => vec![LogOutput::Stderr],
        words => {
            let has = |word: &str| words.iter().any(|w| w == word);
            if words.len() > 1 && has("default") {
                return Err(verify(
                    "multi logoutput for \"default\" is not supported yet",
                ));
            }
            if words.len() > 1 && has("systemd/journal") {
                let list: Vec<String> = words.iter().map(|word| format!("{word:?}")).collect();
                return Err(verify(format!(
                    "running with systemd/journal but other '--log-outputs' values ([{}]) are \
                     configured with 'default'; override 'default' value with something else",
                    list.join(" ")
                )));
            }
            if has("/dev/null") {
                vec![LogOutput::File(PathBuf::from("/dev/null"))]
            } else {
                words.iter().map(|word| log_output(word)).collect()
            }
        }
    };
    let rotation = match raw.bool("enable-log-rotation") {
        true => Some(rotation(raw, &outputs)?),
        false => None,
    };
    let level = match raw.text("log-level").to_ascii_lowercase().as_str() {
        "debug" => LogLevel::Debug,
        "info" | "" => LogLevel::Info,
        "warn" | "warning" => LogLevel::Warn,
        "error" => LogLevel::Error,
        "dpanic" | "panic" | "fatal" => LogLevel::Fatal,
        other => {
            return Err(Failure::Panic(format!(
                "panic: unrecognized level: {other:?}"
            )));
        }
    };
    let format = match raw.text("log-format") {
        "" | "json" => LogFormat::Json,
        "console" => LogFormat::Console,
        other => {
            let why = format!("unknown log format: {other}, supported values json, console");
            return Err(verify(why));
        }
    };
    Ok(Log {
        level,
        format,
        outputs,
        rotation,
    })
}

fn log_output(word: &str) -> LogOutput {
    match word {
        "default" | "stderr" => LogOutput::Stderr,
        "stdout" => LogOutput::Stdout,
        "systemd/journal" => LogOutput::Journal,
        path => LogOutput::File(PathBuf::from(path)),
    }
}

/// The settings of a rotation, as its JSON has them.
#[derive(Deserialize)]
#[serde(default)]
struct RotationJson {
    maxsize: i64,
    maxage: i64,
    maxbackups: i64,
    localtime: bool,
    compress: bool,
}

impl Default for RotationJson {
    fn default() -> RotationJson {
        RotationJson {
            maxsize: ROTATION_MEGABYTES,
            maxage: 0,
            maxbackups: 0,
            localtime: false,
            compress: false,
        }
    }
}

fn rotation(raw: &Raw, outputs: &[LogOutput]) -> Result<LogRotation, Failure> {
    // etcd counts the journal as a file here.
    let files = outputs
        .iter()
        .filter(|output| matches!(output, LogOutput::File(_) | LogOutput::Journal))
        .count();
    if files > 1 || files == 0 && outputs.len() == 1 {
        let why = "--log-outputs requires a single file path when --log-rotate-config-json is \
                   defined";
        return Err(verify(why));
    }
    let found: RotationJson = serde_json::from_str(raw.text("log-rotation-config-json"))
        .map_err(|why| verify(format!("improperly formatted log rotation config: {why}")))?;
    let megabytes = match u64::try_from(found.maxsize) {
        Ok(megabytes) if megabytes > 0 => megabytes,
        _ => ROTATION_MEGABYTES as u64,
    };
    Ok(LogRotation {
        bytes_max: megabytes.saturating_mul(1 << 20),
        days_max: u64::try_from(found.maxage).unwrap_or(0),
        files_max: usize::try_from(found.maxbackups).unwrap_or(0),
        local_time: found.localtime,
        compress: found.compress,
    })
}

fn check_addresses(raw: &Raw, cluster: &Cluster, notices: &mut Vec<Notice>) -> Result<(), Failure> {
    let bind = |name: &str| {
        raw.urls(name)
            .iter()
            .try_for_each(Url::check_bind)
            .map_err(Failure::Verify)
    };
    bind("listen-peer-urls")?;
    bind("listen-client-urls")?;
    bind("listen-client-http-urls")?;
    if raw.urls("listen-client-http-urls").is_empty() {
        let line = "Running http and grpc server on single port. This is not recommended for \
                    production.";
        notices.push(Notice::new(Level::Warn, line));
    }
    bind("listen-metrics-urls")?;
    cluster
        .advertise_peer
        .iter()
        .try_for_each(Url::check_host)
        .map_err(|why| {
            let list = url::join(&cluster.advertise_peer);
            verify(format!(
                "--initial-advertise-peer-urls {list:?} must be \"host:port\" ({why})"
            ))
        })?;
    cluster
        .advertise_client
        .iter()
        .try_for_each(Url::check_host)
        .map_err(|why| {
            let list = url::join(&cluster.advertise_client);
            verify(format!(
                "--advertise-client-urls {list:?} must be in the format \"host:port\", \
             \"unix:/path/to/socket\" or \"unixs:/path/to/socket\" ({why})"
            ))
        })
}

fn check_bootstrap(raw: &Raw, cluster: &Cluster) -> Result<(), Failure> {
    let state = raw.text("initial-cluster-state");
    if state != "new" && state != "existing" {
        return Err(verify(format!("unexpected clusterState {state:?}")));
    }
    let endpoints = raw.list("discovery-endpoints");
    let ways = [
        !cluster.initial.is_empty(),
        !raw.text("discovery-srv").is_empty(),
        !endpoints.is_empty(),
    ];
    if ways.iter().filter(|set| **set).count() > 1 {
        let why = "multiple discovery or bootstrap flags are set. Choose one of \
                   \"initial-cluster\", \"discovery-endpoints\" or \"discovery-srv\"";
        return Err(verify(why));
    }
    if raw.text("discovery-token").is_empty() != endpoints.is_empty() {
        return Err(verify(
            "both --discovery-token and --discovery-endpoints must be set",
        ));
    }
    if endpoints.iter().any(|endpoint| endpoint.trim().is_empty()) {
        return Err(verify(
            "--discovery-endpoints must not contain empty endpoints",
        ));
    }
    Ok(())
}

fn check_times(raw: &Raw) -> Result<(), Failure> {
    let (heartbeat, election) = (raw.uint("heartbeat-interval"), raw.uint("election-timeout"));
    if heartbeat == 0 {
        return Err(verify("--heartbeat-interval must be >0 (set to 0ms)"));
    }
    if election == 0 {
        return Err(verify("--election-timeout must be >0 (set to 0ms)"));
    }
    if heartbeat.saturating_mul(5) > election {
        return Err(verify(format!(
            "--election-timeout[{election}ms] should be at least as 5 times as \
             --heartbeat-interval[{heartbeat}ms]"
        )));
    }
    if election > ELECTION_MS_MAX {
        return Err(verify(format!(
            "--election-timeout[{election}ms] is too long, and should be set less than \
             {ELECTION_MS_MAX}ms"
        )));
    }
    Ok(())
}

fn check_features(raw: &Raw, notices: &mut Vec<Notice>) -> Result<(), Failure> {
    match raw.text("auto-compaction-mode") {
        "periodic" | "revision" => {}
        "" => return Err(verify("undefined auto-compaction-mode")),
        other => return Err(verify(format!("unknown auto-compaction-mode {other:?}"))),
    }
    if raw.bool("enable-distributed-tracing") {
        let wrong = match raw.int("distributed-tracing-sampling-rate") {
            ..0 => Some("tracing sampling rate must be positive"),
            rate if rate > SAMPLING_RATE_MAX => {
                Some("tracing sampling rate must be less than 1000000")
            }
            _ => None,
        };
        if let Some(why) = wrong {
            let why = format!("distributed tracing configurition is not valid: ({why})");
            return Err(verify(why));
        }
    }
    let persists = raw.gates().enabled("LeaseCheckpointPersist");
    match (persists, raw.gates().enabled("LeaseCheckpoint")) {
        (true, false) => {
            let why = "enabling feature gate LeaseCheckpointPersist requires enabling feature \
                       gate LeaseCheckpoint";
            return Err(verify(why));
        }
        (false, true) => {
            let line = "Detected that checkpointing is enabled without persistence. Consider \
                        enabling feature gate LeaseCheckpointPersist";
            notices.push(Notice::new(Level::Warn, line));
        }
        _ => {}
    }
    let hash_check_ns = raw.duration_ns("compact-hash-check-time");
    if hash_check_ns <= 0 {
        return Err(verify(format!(
            "--compact-hash-check-time must be >0 (set to {})",
            GoDuration(hash_check_ns)
        )));
    }
    if raw.text("name") == DEFAULT_NAME {
        let line = "it isn't recommended to use default name, please set a value for --name. \
                    Note that etcd might run into issue when multiple members have the same \
                    default name";
        notices.push(Notice::new(Level::Warn, line).text("name", DEFAULT_NAME));
    }
    Ok(())
}

/// A number counts revisions or hours; anything else is a duration, which etcd takes for so many
/// revisions as it has nanoseconds where revisions are meant.
fn auto_compaction(raw: &Raw) -> Result<Option<AutoCompaction>, Failure> {
    let retention = raw.text("auto-compaction-retention");
    let by_count = raw.text("auto-compaction-mode") == "revision";
    let number = match retention {
        "" => Some(0),
        number => number.parse::<i64>().ok().filter(|&number| number >= 0),
    };
    let value = match number {
        Some(number) if by_count => number,
        Some(hours) => hours.saturating_mul(HOUR_NS),
        None => parse_duration(retention)
            .map_err(|why| Failure::Start(format!("error parsing CompactionRetention: {why}")))?,
    };
    Ok(match u64::try_from(value) {
        Err(_) | Ok(0) => None,
        Ok(_) if by_count => Some(AutoCompaction::Count(value)),
        Ok(ns) => Some(AutoCompaction::Age(Duration::from_nanos(ns))),
    })
}

/// gRPC and HTTP are apart when the latter has listeners of its own.
fn check_split(raw: &Raw) -> Result<(), Failure> {
    let grpc = raw.urls("listen-client-urls");
    let mut http = raw.urls("listen-client-http-urls").iter();
    match http.find(|url| grpc.contains(url)) {
        None => Ok(()),
        Some(url) => Err(Failure::Start(format!(
            "cannot bind both --listen-client-urls and --listen-client-http-urls on the same url \
             {url}"
        ))),
    }
}

/// Certificates do nothing for a listener without encryption.
fn note_plain_urls(raw: &Raw, security: &Security, notices: &mut Vec<Notice>) {
    let mut note = |line: &str, key: &'static str, url: &Url| {
        let line = Notice::new(Level::Warn, line);
        notices.push(line.text(key, &url.to_string()));
    };
    let plain = raw.urls("listen-peer-urls").iter();
    for url in plain.filter(|url| url.scheme() == Scheme::Http) {
        if security.peer.has_pair() {
            let line = "scheme is HTTP while key and cert files are present; ignoring key and \
                        cert files";
            note(line, "peer-url", url);
        }
        if security.peer.client_cert_auth {
            let line = "scheme is HTTP while --peer-client-cert-auth is enabled; ignoring client \
                        cert auth for this URL";
            note(line, "peer-url", url);
        }
    }
    let http = raw.urls("listen-client-http-urls");
    let plain = raw.urls("listen-client-urls").iter().chain(http);
    for url in plain.filter(|url| !url.scheme().is_secure()) {
        if security.client.has_pair() {
            let line = "scheme is http or unix while key and cert files are present; ignoring \
                        key and cert files";
            note(line, "client-url", url);
        }
        if security.client.client_cert_auth {
            let line = "scheme is http or unix while --client-cert-auth is enabled; ignoring \
                        client cert auth for this URL";
            note(line, "client-url", url);
        }
    }
}

/// A flag without effect is never passed over in silence.
fn check_support(raw: &Raw, notices: &mut Vec<Notice>) -> Result<(), Failure> {
    for (flag, value, source) in raw.iter() {
        if source.is_none() || *value == flag.default_value() {
            continue;
        }
        match flag.support {
            Support::Acts => {}
            Support::Inert => {
                notices.push(Notice::new(Level::Warn, "flag has no effect").text("flag", flag.name))
            }
        }
    }
    for (name, schemes) in [
        (
            "listen-peer-urls",
            &[Scheme::Http, Scheme::Https, Scheme::Unix][..],
        ),
        ("listen-metrics-urls", &[Scheme::Http, Scheme::Https]),
    ] {
        let mut urls = raw.urls(name).iter();
        if let Some(url) = urls.find(|url| !schemes.contains(&url.scheme())) {
            return Err(verify(format!("--{name}: {url} is not supported yet")));
        }
    }
    Ok(())
}

/// Advertised default URLs follow a listener on all addresses, and the default cluster follows
/// a name that was set alone.
fn adopt_default_host(
    raw: &Raw,
    cluster: &mut Cluster,
    inputs: &Inputs<'_>,
    notices: &mut Vec<Notice>,
) {
    let everywhere = |name: &str| {
        raw.urls(name)
            .first()
            .is_some_and(|url| url.host() == "0.0.0.0")
    };
    let adopts = |advertised: &[Url], default: &str, listen: &str| {
        everywhere(listen) && matches!(advertised, [url] if url.to_string() == default)
    };
    let peer = adopts(
        &cluster.advertise_peer,
        DEFAULT_PEER_URL,
        "listen-peer-urls",
    );
    let client = adopts(
        &cluster.advertise_client,
        DEFAULT_CLIENT_URL,
        "listen-client-urls",
    );
    let host = if peer || client {
        (inputs.default_host)()
    } else {
        None
    };
    if let Some(host) = host {
        if peer {
            cluster.advertise_peer = vec![raw.urls("listen-peer-urls")[0].with_host(&host)];
        }
        if client {
            cluster.advertise_client = vec![raw.urls("listen-client-urls")[0].with_host(&host)];
        }
        let line = Notice::new(Level::Info, "detected default host for advertise");
        notices.push(line.text("host", &host));
    }
    if raw.text("name") != DEFAULT_NAME && cluster.initial == DEFAULT_CLUSTER {
        let name = match raw.text("name") {
            "" => DEFAULT_NAME,
            name => name,
        };
        let pairs = cluster
            .advertise_peer
            .iter()
            .map(|url| format!("{name}={url}"));
        cluster.initial = pairs.collect::<Vec<_>>().join(",");
    }
}

fn note_sizes(raw: &Raw, notices: &mut Vec<Notice>) {
    let request_bytes = raw.uint("max-request-bytes");
    if request_bytes > REQUEST_BYTES_ADVISED_MAX {
        notices.push(
            Notice::new(Level::Warn, "exceeded recommended request limit")
                .text("max-request-bytes", &request_bytes.to_string())
                .text(
                    "recommended-request-bytes",
                    &REQUEST_BYTES_ADVISED_MAX.to_string(),
                ),
        );
    }
    let quota = raw.int("quota-backend-bytes");
    if quota > QUOTA_BYTES_ADVISED_MAX {
        notices.push(
            Notice::new(Level::Warn, "quota exceeds the maximum value")
                .text("quota-size-bytes", &quota.to_string())
                .text(
                    "quota-maximum-size-bytes",
                    &QUOTA_BYTES_ADVISED_MAX.to_string(),
                ),
        );
    }
}

fn build(
    raw: Raw,
    cluster: Cluster,
    security: Security,
    log: Log,
    notices: &mut Vec<Notice>,
) -> Config {
    let name = raw.text("name").to_owned();
    let data_dir = match raw.text("data-dir") {
        "" => {
            let dir = format!("{name}.etcd");
            let line = Notice::new(Level::Warn, "'data-dir' was empty; using default");
            notices.push(line.text("data-dir", &dir));
            dir
        }
        dir => dir.to_owned(),
    };
    let wal_dir = Some(raw.text("wal-dir"))
        .filter(|dir| !dir.is_empty())
        .map(PathBuf::from);
    Config {
        name,
        data_dir: data_dir.into(),
        wal_dir,
        listen: Listen {
            client: raw.urls("listen-client-urls").to_vec(),
            client_http: raw.urls("listen-client-http-urls").to_vec(),
            peer: raw.urls("listen-peer-urls").to_vec(),
            metrics: raw.urls("listen-metrics-urls").to_vec(),
            reuse_port: raw.bool("socket-reuse-port"),
            reuse_address: raw.bool("socket-reuse-address"),
        },
        cluster,
        raft: raft(&raw),
        limits: limits(&raw),
        backend: Backend {
            batch_interval: or(span(&raw, "backend-batch-interval"), 100),
            batch_ops_max: positive(raw.int("backend-batch-limit"), 10_000),
            defrag_bytes: Some(raw.uint("bootstrap-defrag-threshold-megabytes"))
                .filter(|megabytes| *megabytes > 0)
                .map(|megabytes| megabytes.saturating_mul(1 << 20)),
            lock_memory: raw.bool("memory-mlock"),
        },
        compaction: Compaction {
            batch_limit: positive(raw.int("compaction-batch-limit"), 1_000),
            sleep: or(span(&raw, "compaction-sleep-interval"), 10),
            auto: None,
        },
        http: Http {
            cors: raw.list("cors").to_vec(),
            host_whitelist: raw.list("host-whitelist").to_vec(),
            gateway: raw.bool("enable-grpc-gateway"),
            profiles: raw.bool("enable-pprof"),
        },
        security,
        auth: auth(&raw, notices),
        log,
        gates: raw.gates().clone(),
        slow: Slow {
            unary_request: or(span(&raw, "warning-unary-request-duration"), 300),
            apply: span(&raw, "warning-apply-duration"),
        },
        checks: checks(&raw),
        monitoring: Monitoring {
            extensive: raw.text("metrics") == "extensive",
            tracing: tracing(&raw),
        },
        raw,
    }
}

fn tracing(raw: &Raw) -> Option<Tracing> {
    let text = |name: &str| raw.text(name).to_owned();
    raw.bool("enable-distributed-tracing").then(|| Tracing {
        address: text("distributed-tracing-address"),
        service: text("distributed-tracing-service-name"),
        instance: text("distributed-tracing-instance-id"),
        rate: u64::try_from(raw.int("distributed-tracing-sampling-rate")).unwrap_or(0),
    })
}

fn checks(raw: &Raw) -> Checks {
    let periodic = span(raw, "corrupt-check-time");
    let compactions = span(raw, "compact-hash-check-time");
    Checks {
        initial: raw.gates().enabled("InitialCorruptCheck"),
        periodic: (!periodic.is_zero()).then_some(periodic),
        compactions: (raw.gates().enabled("CompactHashCheck")).then_some(compactions),
    }
}

fn raft(raw: &Raw) -> Raft {
    let kept = |name: &str| Some(size(raw.uint(name))).filter(|count| *count > 0);
    let heartbeat_ms = raw.uint("heartbeat-interval");
    let election_ticks = raw.uint("election-timeout") / heartbeat_ms;
    Raft {
        heartbeat: Duration::from_millis(heartbeat_ms),
        election_ticks: u32::try_from(election_ticks).expect("at most 50000 ticks"),
        election_tick_advance: raw.bool("initial-election-tick-advance"),
        snapshot_entries: raw.uint("snapshot-count"),
        catchup_entries: raw.uint("snapshot-catchup-entries"),
        wals_max: kept("max-wals"),
        snapshots_max: kept("max-snapshots"),
    }
}

fn auth(raw: &Raw, notices: &mut Vec<Notice>) -> Auth {
    let given = raw.uint("bcrypt-cost");
    let fits = u32::try_from(given).ok();
    let bcrypt_cost = fits.filter(|cost| BCRYPT_COSTS.contains(cost));
    if bcrypt_cost.is_none() {
        let line = "use default bcrypt cost instead of the invalid given cost";
        notices.push(
            Notice::new(Level::Warn, line)
                .text("min-cost", &BCRYPT_COSTS.start().to_string())
                .text("max-cost", &BCRYPT_COSTS.end().to_string())
                .text("default-cost", &BCRYPT_COST_DEFAULT.to_string())
                .text("given-cost", &given.to_string()),
        );
    }
    Auth {
        token: raw.text("auth-token").to_owned(),
        token_ttl: match raw.uint("auth-token-ttl") {
            0 => TOKEN_TTL_DEFAULT,
            seconds => Duration::from_secs(seconds.min(TOKEN_TTL_SECONDS_MAX)),
        },
        bcrypt_cost: bcrypt_cost.unwrap_or(BCRYPT_COST_DEFAULT),
    }
}

fn limits(raw: &Raw) -> Limits {
    Limits {
        txn_ops_max: size(raw.uint("max-txn-ops")),
        request_bytes_max: size(raw.uint("max-request-bytes")),
        concurrent_streams_max: u32::try_from(raw.uint("max-concurrent-streams"))
            .expect("the flag's kind is 32 bits wide"),
        learners_max: usize::try_from(raw.int("max-learners")).unwrap_or(0),
        quota_bytes: match raw.int("quota-backend-bytes") {
            0 => Some(QUOTA_BYTES_DEFAULT),
            bytes => u64::try_from(bytes).ok(),
        },
        keep_alive: KeepAlive {
            min_time: span(raw, "grpc-keepalive-min-time"),
            interval: span(raw, "grpc-keepalive-interval"),
            timeout: span(raw, "grpc-keepalive-timeout"),
        },
    }
}

/// The duration of a flag; negative ones count as unset.
fn span(raw: &Raw, name: &str) -> Duration {
    Duration::from_nanos(u64::try_from(raw.duration_ns(name)).unwrap_or(0))
}

fn or(duration: Duration, default_ms: u64) -> Duration {
    if duration.is_zero() {
        Duration::from_millis(default_ms)
    } else {
        duration
    }
}

fn positive(number: i64, default: usize) -> usize {
    usize::try_from(number)
        .ok()
        .filter(|n| *n > 0)
        .unwrap_or(default)
}

fn size(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}
