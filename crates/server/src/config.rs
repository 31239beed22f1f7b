//! What the operator wants: flags, environment and config file, in two stages.
//!
//! Stage one turns words into typed values without judging them ([`raw::Raw`], from the one table
//! in [`table`]); stage two says what they mean together ([`Config`]) and refuses what etcd
//! refuses, in etcd's words and order. Nothing here logs, exits or touches the process: lines for
//! the log and ways to leave are values.

mod command_line;
mod environment;
mod file;
pub mod gates;
pub(crate) mod help;
mod legacy;
mod meaning;
mod notice;
mod raw;
mod security;
pub mod table;
#[cfg(test)]
pub(crate) mod tests;
mod value;

use std::path::{Path, PathBuf};
use std::time::Duration;

use api::url;
pub use api::url::{Scheme, Url};
pub use help::{USAGE, flags as help_flags, version as version_text};
pub use notice::{Level, Notice};
pub use raw::{Raw, Source};
pub use security::{Security, Tls, TlsVersion};
pub(crate) use value::parse_duration;
pub use value::{GoDuration, Kind, Value};

use gates::Gates;

/// What the outside world contributes.
pub struct Inputs<'a> {
    /// The words behind the program's name.
    pub args: &'a [String],
    /// All environment variables.
    pub env: &'a [(String, String)],
    /// Reads the config file.
    pub read_file: &'a dyn Fn(&Path) -> std::io::Result<String>,
    /// The address of this machine on its default route.
    pub default_host: &'a dyn Fn() -> Option<String>,
}

/// What the command line asks the process to do.
#[derive(Debug)]
pub enum Action {
    /// Run a member.
    Serve(Box<Config>),
    /// Print the flags on stdout and [`USAGE`] on stderr, leave with 0.
    Help,
    /// Print the version on stdout, leave with 0.
    Version,
}

/// Why the process leaves instead, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// This line and [`USAGE`] on stderr, exit code 2.
    Usage(String),
    /// A warning "failed to verify flags" with this error, exit code 1.
    Verify(String),
    /// A fatal log line "discovery failed" with this error, exit code 1: what etcd finds out only
    /// when it starts.
    Start(String),
    /// This line on stderr, exit code 1.
    Plain(String),
    /// This line on stderr, exit code 2: where etcd panics.
    Panic(String),
    /// A fatal log line about a variable that a flag shadows, exit code 1.
    Shadowed {
        /// The variable's name.
        variable: String,
    },
}

impl Failure {
    /// The process's exit code.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Failure::Usage(_) | Failure::Panic(_) => 2,
            Failure::Verify(_)
            | Failure::Start(_)
            | Failure::Plain(_)
            | Failure::Shadowed { .. } => 1,
        }
    }
}

/// The error of [`Failure::Verify`] that etcd logs a second time.
pub const UNSET_ADVERTISE_CLIENT_URLS: &str =
    "--advertise-client-urls is required when --listen-client-urls is set explicitly";

/// The outcome of reading the configuration.
#[derive(Debug)]
pub struct Outcome {
    pub result: Result<Action, Failure>,
    /// Lines to log once the log is open, in order, also when the start is refused.
    pub notices: Vec<Notice>,
    /// How to log; the default when it could not be found out.
    pub log: Log,
}

/// Everything a member needs to know, checked.
#[derive(Clone, Debug)]
pub struct Config {
    pub name: String,
    pub data_dir: PathBuf,
    /// Where the write-ahead log lives when not in `data_dir/member/wal`.
    pub wal_dir: Option<PathBuf>,
    pub listen: Listen,
    pub cluster: Cluster,
    pub raft: Raft,
    pub limits: Limits,
    pub backend: Backend,
    pub compaction: Compaction,
    pub http: Http,
    pub security: Security,
    pub auth: Auth,
    pub log: Log,
    pub gates: Gates,
    pub slow: Slow,
    pub monitoring: Monitoring,
    pub checks: Checks,
    /// The typed values that all this was concluded from.
    pub raw: Raw,
}

/// Tokens and passwords.
#[derive(Clone, Debug)]
pub struct Auth {
    /// Kind of token and its options, as given.
    pub token: String,
    /// How long a simple token lives unused.
    pub token_ttl: Duration,
    /// Of new hashes, 4 to 31.
    pub bcrypt_cost: u32,
}

/// Sockets.
#[derive(Clone, Debug)]
pub struct Listen {
    pub client: Vec<Url>,
    /// For HTTP alone; unless empty, `client` is for gRPC alone.
    pub client_http: Vec<Url>,
    pub peer: Vec<Url>,
    /// Empty: metrics only on the client listeners.
    pub metrics: Vec<Url>,
    pub reuse_port: bool,
    pub reuse_address: bool,
}

/// Who is in the cluster.
#[derive(Clone, Debug)]
pub struct Cluster {
    pub advertise_client: Vec<Url>,
    pub advertise_peer: Vec<Url>,
    /// `name=url,…` of all founding members, see [`api::cluster::InitialCluster`].
    pub initial: String,
    pub token: String,
    /// Found a cluster (true) or join one.
    pub new: bool,
    pub pre_vote: bool,
}

/// Time and log of consensus.
#[derive(Clone, Debug)]
pub struct Raft {
    /// One tick; `--heartbeat-interval`.
    pub heartbeat: Duration,
    /// Ticks without a leader before a campaign.
    pub election_ticks: u32,
    /// Skip most of the first election timeout at start.
    pub election_tick_advance: bool,
    /// Applied entries between two snapshots.
    pub snapshot_entries: u64,
    /// Entries that stay behind a snapshot.
    pub catchup_entries: u64,
    /// WAL files to keep; `None` keeps all.
    pub wals_max: Option<usize>,
    /// Snapshot files to keep; `None` keeps all.
    pub snapshots_max: Option<usize>,
}

impl Raft {
    /// The time after which etcd gives a request up: five seconds and two election timeouts.
    #[must_use]
    pub fn request_timeout(&self) -> Duration {
        Duration::from_secs(5) + 2 * self.election_ticks * self.heartbeat
    }
}

/// What one client may ask for.
#[derive(Clone, Debug)]
pub struct Limits {
    pub txn_ops_max: usize,
    pub request_bytes_max: usize,
    pub concurrent_streams_max: u32,
    /// Learners that the cluster may have.
    pub learners_max: usize,
    /// Bytes of data; `None` for no limit.
    pub quota_bytes: Option<u64>,
    pub keep_alive: KeepAlive,
}

/// Pings on client connections.
#[derive(Clone, Debug)]
pub struct KeepAlive {
    /// Clients that ping more often are disconnected.
    pub min_time: Duration,
    /// Silence after which the server pings; zero for never.
    pub interval: Duration,
    /// Time that a pinged client has for its answer.
    pub timeout: Duration,
}

/// The database file.
#[derive(Clone, Debug)]
pub struct Backend {
    /// Longest time between two commits.
    pub batch_interval: Duration,
    /// Operations after which a commit comes early.
    pub batch_ops_max: usize,
    /// Bytes that a defragmentation at start must give back to be made; `None` for never.
    pub defrag_bytes: Option<u64>,
    /// Keep the process's memory from being swapped out.
    pub lock_memory: bool,
}

/// Physical compaction.
#[derive(Clone, Debug)]
pub struct Compaction {
    /// Revisions per step.
    pub batch_limit: usize,
    /// Pause between steps.
    pub sleep: Duration,
    /// What the leader compacts by itself.
    pub auto: Option<AutoCompaction>,
}

/// `--auto-compaction-mode` and `--auto-compaction-retention`: the history that is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AutoCompaction {
    /// What is no older.
    Age(Duration),
    /// So many revisions.
    Count(i64),
}

/// Access to the HTTP endpoints.
#[derive(Clone, Debug)]
pub struct Http {
    /// Origins for browsers; `*` stands for all.
    pub cors: Vec<String>,
    /// Host names under which plain requests are served; `*` stands for all.
    pub host_whitelist: Vec<String>,
    /// Serve the JSON API.
    pub gateway: bool,
    /// Serve profiles; `--enable-pprof`.
    pub profiles: bool,
}

/// Thresholds of warnings.
#[derive(Clone, Debug)]
pub struct Slow {
    pub unary_request: Duration,
    pub apply: Duration,
}

/// When the members' data is compared.
#[derive(Clone, Debug)]
pub struct Checks {
    /// Before this member serves.
    pub initial: bool,
    /// While it leads, this often.
    pub periodic: Option<Duration>,
    /// While it leads, what compactions left, this often.
    pub compactions: Option<Duration>,
}

/// What the member tells about itself.
#[derive(Clone, Debug)]
pub struct Monitoring {
    /// With times of calls by method; `--metrics`.
    pub extensive: bool,
    /// Where traces go, if they are made.
    pub tracing: Option<Tracing>,
}

/// `--enable-distributed-tracing` and what belongs to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tracing {
    /// The collector, `host:port`.
    pub address: String,
    /// Name of the service in traces.
    pub service: String,
    /// Name of this member in traces; empty for none.
    pub instance: String,
    /// Traces to begin, out of a million.
    pub rate: u64,
}

/// How to log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    pub level: LogLevel,
    pub format: LogFormat,
    pub outputs: Vec<LogOutput>,
    /// How the file among the outputs is rotated, if it is.
    pub rotation: Option<LogRotation>,
}

/// `--log-rotation-config-json`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogRotation {
    /// A file that would grow beyond is moved away.
    pub bytes_max: u64,
    /// Days for which files that were moved away are kept; 0 for ever.
    pub days_max: u64,
    /// Files that were moved away and are kept; 0 for all.
    pub files_max: usize,
    /// Whether they are named by local time, not UTC.
    pub local_time: bool,
    /// Whether they are compressed.
    pub compress: bool,
}

impl Default for Log {
    fn default() -> Log {
        let outputs = vec![LogOutput::Stderr];
        Log {
            level: LogLevel::Info,
            format: LogFormat::Json,
            outputs,
            rotation: None,
        }
    }
}

/// The lowest level that is logged. `Fatal` logs nothing but the last line of a dying process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    Debug,
    Info,
    Warn,
    Error,
    Fatal,
}

/// The shape of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    Json,
    Console,
}

/// Where lines go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogOutput {
    Stderr,
    Stdout,
    /// systemd's journal.
    Journal,
    File(PathBuf),
}

/// Reads command line, environment and file.
#[must_use]
pub fn read(inputs: &Inputs<'_>) -> Outcome {
    let mut outcome = Outcome {
        result: Ok(Action::Help),
        notices: Vec::new(),
        log: Log::default(),
    };
    outcome.result = read_into(inputs, &mut outcome.notices, &mut outcome.log);
    outcome
}

fn read_into(
    inputs: &Inputs<'_>,
    notices: &mut Vec<Notice>,
    log: &mut Log,
) -> Result<Action, Failure> {
    if let Some(command @ "grpc-proxy") = inputs.args.first().map(String::as_str) {
        return Err(Failure::Plain(format!(
            "etcd {command} is not supported yet"
        )));
    }
    let mut raw = Raw::default();
    match command_line::parse(inputs.args, &mut raw).map_err(Failure::Usage)? {
        command_line::Parsed::Flags => {}
        command_line::Parsed::Help => return Ok(Action::Help),
        command_line::Parsed::Stray(word) => {
            return Err(Failure::Verify(format!("{word:?} is not a valid flag")));
        }
    }
    if raw.bool("version") {
        return Ok(Action::Version);
    }
    match config_file(inputs, &raw) {
        Some(path) => {
            raw = Raw::default();
            read_file(inputs, Path::new(&path), &mut raw, notices)?;
            let config = meaning::conclude(raw, inputs, notices, log)?;
            let message = "loaded server configuration, other configuration command line flags \
                           and environment variables will be ignored if provided";
            notices.push(Notice::new(Level::Info, message).text("path", &path));
            Ok(Action::Serve(Box::new(config)))
        }
        None => {
            environment::apply(inputs.env, &mut raw, notices).map_err(|refusal| match refusal {
                environment::Refusal::Invalid(why) => Failure::Verify(why),
                environment::Refusal::Shadowed(variable) => Failure::Shadowed { variable },
            })?;
            Ok(Action::Serve(Box::new(meaning::conclude(
                raw, inputs, notices, log,
            )?)))
        }
    }
}

fn config_file(inputs: &Inputs<'_>, raw: &Raw) -> Option<String> {
    let flag = raw.text("config-file");
    if !flag.is_empty() {
        return Some(flag.to_owned());
    }
    let (_, path) = inputs
        .env
        .iter()
        .find(|(name, _)| name == "ETCD_CONFIG_FILE")?;
    (!path.is_empty()).then(|| path.clone())
}

fn read_file(
    inputs: &Inputs<'_>,
    path: &Path,
    raw: &mut Raw,
    notices: &mut Vec<Notice>,
) -> Result<(), Failure> {
    let text = (inputs.read_file)(path).map_err(|error| {
        let why = match error.kind() {
            std::io::ErrorKind::NotFound => "no such file or directory".to_owned(),
            std::io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
            _ => error.to_string(),
        };
        Failure::Verify(format!("open {}: {why}", path.display()))
    })?;
    file::parse(&text, raw, notices).map_err(|refusal| match refusal {
        file::Refusal::Invalid(why) => Failure::Verify(why),
        file::Refusal::Url { key, why } => {
            Failure::Plain(format!("unexpected error setting up {key}: {why}"))
        }
    })
}
