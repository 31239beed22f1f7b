//! From an open member to running threads, and back.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use node::member::Member;
use storage::fs::Fs;

use super::applied::ApplyTimes;
use super::commit::{CommitThread, ToCommit};
use super::compactor::Compactor;
use super::core::{Core, HeadStart, ToCore};
use super::defrag::Defragmenter;
use super::hashing::{HashThread, ToHash};
use super::lessor::Lessor;
use super::mailbox::Mailbox;
use super::persist::{Job, Meters, WalSlot};
use super::post::{Mail, Post, UNATTENDED};
use super::stalls::Stalls;
use super::status::Status;
use super::sweep::{SweepThread, ToSweep};
use super::{Limits, Shared};
use crate::auth::Auth;
use crate::config::Config;
use crate::front;
use crate::metrics::Metrics;
use crate::shutdown::Stopper;
use crate::trace::Tracer;

/// Part of the time that a request may take which does not depend on elections.
const REQUEST_BASE: Duration = Duration::from_secs(5);
/// How long after its start a member may skip part of its first election timeout, as in etcd.
const HEAD_START_MAX: Duration = Duration::from_secs(5);
/// Threads for passwords at most.
const PASSWORD_THREADS_MAX: usize = 4;
/// What 0 means for `--watch-progress-notify-interval`.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(600);

/// The threads of a member, without those of the network.
pub(crate) struct Drive {
    pub(crate) shared: Arc<Shared>,
    wal: Arc<WalSlot>,
    core: JoinHandle<()>,
    background: Vec<JoinHandle<()>>,
    wal_thread: JoinHandle<()>,
    commit: JoinHandle<()>,
}

/// Whom a member's threads talk to.
pub(crate) struct Outside {
    /// Where results go, one for each net thread.
    pub(crate) mailboxes: Vec<front::Mailbox<Mail>>,
    /// Tells callers apart.
    pub(crate) auth: Auth,
    /// Ends the process when the member is none any more.
    pub(crate) stopper: Stopper,
}

/// Starts the threads of a member.
///
/// # Errors
/// A thread could not be started.
pub(crate) fn start(
    member: Member,
    fs: Arc<dyn Fs>,
    config: &Config,
    metrics: Arc<Metrics>,
    outside: Outside,
) -> io::Result<Drive> {
    let shared = Arc::new(share(&member, config, outside.auth, metrics)?);
    announce(&shared, &member, config.backend.defrag_bytes);
    let post = || Post::new(outside.mailboxes.clone(), Arc::clone(&shared.desk));
    let meters = Meters::new(&shared);
    let wal = WalSlot::new(member.wal, meters, Arc::clone(&fs), member.dir.clone());
    let wal = Arc::new(wal);
    let sweep = SweepThread::new(&shared, member.sweep, post(), config.compaction.sleep);
    let hashing = HashThread::new(&shared, post());
    let commit = CommitThread {
        shared: Arc::clone(&shared),
        inbox: Arc::clone(&shared.commits),
        committer: member.committer,
        wal: Arc::clone(&wal),
        fs,
        dir: member.dir,
        snaps_max: config.raft.snapshots_max.unwrap_or(0),
        wals_max: config.raft.wals_max.unwrap_or(0),
        core: Arc::clone(&shared.core),
        post: post(),
        defrag: Defragmenter::new(Arc::clone(&shared)),
        installer: member.installer,
        interval: config.backend.batch_interval,
    };
    let core = Core {
        shared: Arc::clone(&shared),
        inbox: Arc::clone(&shared.core),
        node: member.node,
        machine: member.machine,
        wal: Arc::clone(&wal),
        commits: Arc::clone(&shared.commits),
        post: post(),
        tick: config.raft.heartbeat,
        outputs: Vec::new(),
        sends: Vec::new(),
        applied: Vec::new(),
        batch_ops_max: config.backend.batch_ops_max,
        slow_apply: config.slow.apply,
        apply_times: ApplyTimes::default(),
        compactor: compactor(config, &shared),
        head_start: head_start(config),
        steps_down_at: Instant::now(),
        stopping: false,
        hands_over: false,
        stopper: outside.stopper,
        announced: 0,
    };
    let wal_thread = spawn_wal(&wal, &shared)?;
    let mut background = vec![
        spawn("sweep", move || sweep.run())?,
        spawn("hash", move || hashing.run())?,
    ];
    background.extend(password_threads(&shared, post)?);
    Ok(Drive {
        wal,
        commit: spawn("commit", move || commit.run())?,
        background,
        core: spawn("core", move || core.run())?,
        wal_thread,
        shared,
    })
}

fn spawn_wal(wal: &Arc<WalSlot>, shared: &Shared) -> io::Result<JoinHandle<()>> {
    let (wal, inbox) = (Arc::clone(wal), Arc::clone(&shared.core));
    spawn("wal", move || wal.run(&inbox))
}

/// Tells the threads to come what the state knows already.
fn announce(shared: &Shared, member: &Member, defrag_bytes: Option<u64>) {
    shared.on_members(&member.founders);
    shared.on_alarms();
    if let Some(version) = member.view.members().cluster_version() {
        shared.on_cluster_version(version);
    }
    let (bytes, bytes_in_use) = member.view.db_sizes();
    let free = bytes - bytes_in_use;
    match defrag_bytes {
        None => {}
        Some(least) if free >= least => {
            shared.commits.push(ToCommit::Defragment(UNATTENDED));
        }
        Some(least) => tracing::info!(
            "current-db-size-free-bytes" = free,
            "bootstrap-defrag-threshold-bytes" = least,
            "skipping defragmentation at start: too little would come back"
        ),
    }
}

fn share(
    member: &Member,
    config: &Config,
    auth: Auth,
    metrics: Arc<Metrics>,
) -> io::Result<Shared> {
    auth.on_applied(member.view.applied().index);
    let tracing = config.monitoring.tracing.as_ref();
    Ok(Shared {
        member: member.id,
        cluster: member.cluster,
        view: member.view.clone(),
        status: Status::default(),
        lessor: lessor(member, config),
        auth,
        request_ids: Arc::clone(member.node.request_ids()),
        limits: Limits {
            request_bytes_max: config.limits.request_bytes_max,
            txn_ops_max: config.limits.txn_ops_max,
            request_limit: config.raft.request_timeout(),
            strict_reconfig: config.raw.bool("strict-reconfig-check"),
            slow_request: config.slow.unary_request,
            progress_interval: progress_interval(config),
            leaderless_max: config.raft.heartbeat * config.raft.election_ticks * 3,
        },
        metrics,
        tracer: tracing.map(Tracer::start).transpose()?,
        stalls: Arc::new(Stalls::new()),
        core: Arc::new(Mailbox::new()),
        peers: Arc::default(),
        contacts: Arc::default(),
        commits: Arc::new(Mailbox::new()),
        sweep: Arc::new(Mailbox::new()),
        hashing: Arc::new(Mailbox::new()),
        desk: Arc::default(),
        commit_due: AtomicBool::new(false),
        quarantined: AtomicBool::new(false),
        no_space_raised: AtomicBool::new(false),
        snapshots: AtomicUsize::new(0),
    })
}

/// Half of the machine at most is busy with passwords.
fn password_threads(
    shared: &Arc<Shared>,
    post: impl Fn() -> Post,
) -> io::Result<Vec<JoinHandle<()>>> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let count = (cores / 2).clamp(1, PASSWORD_THREADS_MAX);
    let start = |_| {
        let (shared, post) = (Arc::clone(shared), post());
        spawn("password", move || shared.auth.passwords.run(post))
    };
    (0..count).map(start).collect()
}

fn lessor(member: &Member, config: &Config) -> Lessor {
    let election = config.raft.heartbeat * config.raft.election_ticks;
    let retry = REQUEST_BASE + 2 * election;
    let checkpoints = config.gates.enabled("LeaseCheckpoint");
    Lessor::new(&member.view.leases(), election, retry, checkpoints)
}

/// All but two ticks, so that a leader that exists has its say first, as in etcd.
fn head_start(config: &Config) -> Option<HeadStart> {
    let ticks = config.raft.election_ticks.saturating_sub(2);
    let until = Instant::now() + HEAD_START_MAX;
    let head_start = HeadStart { ticks, until };
    config
        .raft
        .election_tick_advance
        .then_some(head_start)
        .filter(|head_start| head_start.ticks > 0)
}

fn compactor(config: &Config, shared: &Shared) -> Option<Compactor> {
    let policy = config.compaction.auto?;
    let revision = shared.view.revision();
    Some(Compactor::new(policy, Instant::now(), revision))
}

fn progress_interval(config: &Config) -> Duration {
    let ns = config.raw.duration_ns("watch-progress-notify-interval");
    match u64::try_from(ns) {
        Ok(ns) if ns > 0 => Duration::from_nanos(ns),
        _ => PROGRESS_INTERVAL,
    }
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name(name.to_owned()).spawn(run)
}

impl Drive {
    /// Ends every thread in the reverse order of what depends on it: when the core has ended,
    /// nothing is proposed, applied or written any more, and the last commit takes everything.
    pub(crate) fn stop(self) {
        let join = |thread: JoinHandle<()>| {
            if thread.join().is_err() {
                tracing::error!("a thread panicked");
            }
        };
        self.shared.core.push(ToCore::Stop);
        join(self.core);
        self.wal.queue.push(Job::Stop);
        join(self.wal_thread);
        self.shared.sweep.push(ToSweep::Stop);
        self.shared.hashing.push(ToHash::Stop);
        self.shared.auth.passwords.stop();
        self.background.into_iter().for_each(join);
        self.shared.commits.push(ToCommit::Stop);
        join(self.commit);
    }
}
