//! The member behind the sockets: boot, threads, services, endpoints, and their orderly end.

mod bootstrap;
mod view;

use std::error::Error;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use node::boot::InitialState;
use node::member::{self, Member};
use storage::backend;
use storage::datadir::DataDir;
use storage::fs::{Fs, RealFs, Unsynced};
use storage::wal;

use crate::auth::Auth;
use crate::config::{Config, Listen};
use crate::drive::Shared;
use crate::drive::post::{Mail, Post};
use crate::drive::start::{self, Drive};
use crate::front::{self, Front, KeepAlive, Limits, Traffic};
use crate::gateway::{Dial, Gateway};
use crate::grpc::Services;
use crate::grpc::method::METHODS;
use crate::http::{Routes, Server};
use crate::listen::Sockets;
use crate::metrics::Metrics;
use crate::peer::{self, Peers};
use crate::run::Running;
use crate::shutdown::{self, Stopper};
use crate::tls;
pub(crate) use bootstrap::Error as BootstrapError;
use view::Probe;

/// Net threads at most: more share little work and cost batching.
const NET_THREADS_MAX: usize = 4;
/// What a message may have beyond `--max-request-bytes`, as in etcd.
const REQUEST_OVERHEAD_BYTES: usize = 512 << 10;
/// How long calls may still take when the member stops.
const DRAIN_LIMIT: Duration = Duration::from_secs(5);
/// Smallest lease in election timeouts.
const LEASE_TTL_MIN_ELECTIONS: f64 = 1.5;
/// How long systemd waits for the cluster at most.
const READY_PATIENCE: Duration = Duration::from_secs(5);
/// Time between two looks at whether the member is ready.
const READY_POLL: Duration = Duration::from_millis(2);

struct Serving {
    drive: Drive,
    peers: Peers,
    /// Absent when the member was stopped before it was ready.
    front: Option<Front<Mail>>,
    http: Arc<Server>,
    /// Keeps certificates current until the end.
    _watch: tls::Watch,
}

/// Opens the data directory and serves clients; returns when the member is ready.
///
/// # Errors
/// Whatever keeps it from serving.
pub fn start(
    config: &Config,
    sockets: Sockets,
    tls: tls::Setup,
    stopper: Stopper,
) -> Result<Box<dyn Running>, Box<dyn Error + Send + Sync>> {
    if config.backend.lock_memory {
        lock_memory()?;
    }
    let auth = Auth::new(config)?;
    let fs = file_system(config);
    let found = bootstrap::find(config, tls.peer.as_ref())?;
    let member = boot(&fs, config, found)?;
    if config.checks.initial {
        peer::check_initially(config, tls.peer.as_ref(), &member)?;
    }
    let metrics = Arc::new(metrics(config));
    let mailboxes = front::Mailbox::set(net_threads())?;
    let outside = start::Outside {
        mailboxes: mailboxes.clone(),
        auth,
        stopper: stopper.clone(),
    };
    let drive = start::start(member, fs, config, Arc::clone(&metrics), outside)?;
    let post = Post::new(mailboxes.clone(), Arc::clone(&drive.shared.desk));
    let watch = tls.watch()?;
    let sides = peer::Sides {
        listeners: sockets.peers,
        tls: tls.peer,
    };
    let peers = Peers::start(config, &drive.shared, sides, post, stopper.clone())?;
    let probe = Arc::new(Probe::new(Arc::clone(&drive.shared)));
    let mut routes = Routes::new(Arc::clone(&probe) as _, metrics, config);
    if config.http.gateway {
        routes = routes.with_gateway(gateway(config, &mailboxes));
    }
    let http = Arc::new(Server::start(routes)?);
    for (listener, tls) in sockets.metrics {
        http.listen_metrics(listener, tls)?;
    }
    if !wait_until_ready(&drive.shared, &stopper) {
        return Ok(Box::new(Serving {
            drive,
            peers,
            front: None,
            http,
            _watch: watch,
        }));
    }
    let front = serve(
        config,
        &drive.shared,
        &http,
        sockets.clients,
        sockets.traffic,
        sockets.connections_max,
        mailboxes,
    )?;
    probe.attach(front.stats().to_vec());
    tracing::info!("ready to serve client requests");
    announce(&config.listen);
    Ok(Box::new(Serving {
        drive,
        peers,
        front: Some(front),
        http,
        _watch: watch,
    }))
}

fn metrics(config: &Config) -> Metrics {
    Metrics::new(
        &config.gates,
        config.limits.quota_bytes,
        config.monitoring.extensive,
    )
}

/// Keeps all memory of the process, now and later, from being swapped out.
fn lock_memory() -> Result<(), String> {
    // Below a limit, memory that is needed later could not be had at all.
    let limit = rustix::process::getrlimit(rustix::process::Resource::Memlock).current;
    if limit.is_some() {
        return Err("--memory-mlock needs an unlimited RLIMIT_MEMLOCK".into());
    }
    let flags = rustix::mm::MlockAllFlags::CURRENT | rustix::mm::MlockAllFlags::FUTURE;
    rustix::mm::mlockall(flags).map_err(|error| format!("cannot lock memory: {error}"))
}

fn net_threads() -> usize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    cores.min(NET_THREADS_MAX)
}

fn file_system(config: &Config) -> Arc<dyn Fs> {
    match config.raw.bool("unsafe-no-fsync") {
        true => Arc::new(Unsynced(RealFs)),
        false => Arc::new(RealFs),
    }
}

fn announce(listen: &Listen) {
    let first = if listen.client_http.is_empty() {
        "grpc+http"
    } else {
        "grpc"
    };
    let urls = listen.client.iter().map(|url| (url, first));
    let http = listen.client_http.iter().map(|url| (url, "http"));
    for (url, traffic) in urls.chain(http) {
        let address = url.address();
        if url.scheme().is_secure() {
            tracing::info!(traffic, address, "serving client traffic securely");
        } else {
            tracing::info!(
                traffic,
                address,
                "serving client traffic insecurely; this is strongly discouraged!"
            );
        }
    }
}

/// The JSON API, as a client of this member's own net threads.
fn gateway(config: &Config, mailboxes: &[front::Mailbox<Mail>]) -> Gateway {
    let dial = |mailbox: &front::Mailbox<Mail>| {
        let mailbox = mailbox.clone();
        Arc::new(move || mailbox.connect()) as Dial
    };
    Gateway::new(
        mailboxes.iter().map(dial).collect(),
        message_bytes_max(config),
    )
}

fn message_bytes_max(config: &Config) -> usize {
    config.limits.request_bytes_max + REQUEST_OVERHEAD_BYTES
}

fn serve(
    config: &Config,
    shared: &Arc<Shared>,
    http: &Arc<Server>,
    listeners: Vec<front::Listener>,
    traffic: Vec<Traffic>,
    connections_max: usize,
    mailboxes: Vec<front::Mailbox<Mail>>,
) -> io::Result<Front<Mail>> {
    let settings = front::Config {
        limits: limits(config, connections_max),
        methods: METHODS,
        traffic,
        foreign: Some(http.foreign()),
        bridge: Some(Arc::clone(http) as _),
    };
    let shared = Arc::clone(shared);
    let own = mailboxes.clone();
    front::start(settings, listeners, mailboxes, move |thread| {
        Services::new(Arc::clone(&shared), thread, own[thread].clone())
    })
}

impl Running for Serving {
    fn reconfigure(&self, config: &Config) {
        let shared = &self.drive.shared;
        let quota = config.limits.quota_bytes;
        if shared.view.quota() != quota {
            shared.view.set_quota(quota);
            shared.metrics.quota_bytes.set_u64(quota.unwrap_or(0));
            tracing::info!(
                "quota-backend-bytes" = quota.unwrap_or(0),
                "took up another quota"
            );
        }
    }

    fn stop(self: Box<Self>) {
        if let Some(front) = self.front {
            front.drain(DRAIN_LIMIT);
            if front.join().is_err() {
                tracing::error!("a net thread panicked");
            }
        }
        self.http.stop();
        self.drive.stop();
        self.peers.stop();
    }
}

fn boot(
    fs: &Arc<dyn Fs>,
    config: &Config,
    found: bootstrap::Found,
) -> Result<Member, member::Error> {
    let mut member = Member::boot(fs, &settings(config, found))?;
    report(&member);
    if config.gates.enabled("PriorityRequest") {
        member.node.prioritise_revocations();
    }
    Ok(member)
}

fn settings(config: &Config, found: bootstrap::Found) -> member::Config {
    let election = config.raft.heartbeat * config.raft.election_ticks;
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    member::Config {
        dir: DataDir::new(&config.data_dir, config.wal_dir.as_deref()),
        name: config.name.clone(),
        initial_cluster: found.founders,
        initial_token: found.token,
        initial_state: if config.cluster.new {
            InitialState::New
        } else {
            InitialState::Existing
        },
        joined: found.joined,
        force_new_cluster: config.raw.bool("force-new-cluster"),
        client_urls: api::url::texts(&config.cluster.advertise_client),
        tick_ms: config.raft.heartbeat.as_millis() as u64,
        election_ticks: config.raft.election_ticks as usize,
        pre_vote: config.cluster.pre_vote,
        seed: now.as_nanos() as u64 ^ u64::from(std::process::id()),
        unix_ms: now.as_millis() as u64,
        snapshot_count: config.raft.snapshot_entries,
        catch_up_entries: config.raft.catchup_entries,
        wal: wal::Options::default(),
        backend: backend::Options::default(),
        state: state::Config {
            hash_seed: RandomState::new().build_hasher().finish(),
            quota_bytes: config.limits.quota_bytes,
            lease_ttl_min: (election.as_secs_f64() * LEASE_TTL_MIN_ELECTIONS).ceil() as i64,
            lease_checkpoint_persist: config.gates.enabled("LeaseCheckpointPersist"),
            compaction_batch: config.compaction.batch_limit,
            learners_max: config.limits.learners_max,
            ..state::Config::default()
        },
    }
}

fn limits(config: &Config, connections_max: usize) -> Limits {
    let raw = &config.raw;
    let duration = |flag| Duration::from_nanos(u64::try_from(raw.duration_ns(flag)).unwrap_or(0));
    Limits {
        message_bytes_max: message_bytes_max(config),
        concurrent_streams_max: config.limits.concurrent_streams_max,
        connections_max,
        keep_alive: KeepAlive {
            interval: duration("grpc-keepalive-interval"),
            timeout: duration("grpc-keepalive-timeout"),
            min_time: duration("grpc-keepalive-min-time"),
            strict: false,
        },
        ..Limits::default()
    }
}

fn report(member: &Member) {
    let report = &member.report;
    tracing::info!(
        "local-member-id" = %member.id,
        "cluster-id" = %member.cluster,
        "boot-case" = %report.case,
        "applied-index" = report.database.0,
        "snapshot-index" = report.snapshot.index.0,
        "commit-index" = report.hard_state.commit.0,
        "last-index" = report.last.0,
        "opened the data directory"
    );
    if let Some(torn) = &report.torn {
        tracing::warn!(
            segment = %torn.segment.display(),
            offset = torn.offset,
            "cut off the incomplete end of the write-ahead log"
        );
    }
    if let Some(page) = report.lost_meta {
        tracing::warn!(
            path = %member.dir.database().display(),
            page = page.0,
            "a meta page of the database is damaged; going on with the other one, which may be \
             older by a commit"
        );
    }
}

/// Waits until this member is part of a cluster that works and has published itself; false when
/// it is to stop before. systemd is told after a while in any case, as etcd does, since the others
/// may be started by whoever waits for that.
fn wait_until_ready(shared: &Shared, stopper: &Stopper) -> bool {
    let patience = Instant::now() + READY_PATIENCE;
    let mut is_late = false;
    while !(shared.status.is_published() && shared.status.is_capable()) {
        if stopper.is_due() {
            return false;
        }
        if !is_late && Instant::now() > patience {
            is_late = true;
            tracing::warn!("startEtcd: timed out waiting for the ready notification");
            shutdown::notify_ready();
        }
        std::thread::sleep(READY_POLL);
    }
    true
}
