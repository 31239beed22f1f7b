//! Threads: which part of the member runs where, and how batches pass between them.
//!
//! ```text
//!   net threads ──proposals, reads──▶ core ──batches──▶ WAL thread
//!        ▲                             │  ◀──persisted──┘
//!        └────────── results ──────────┤
//!        ▲                             ├──dirty, snapshot──▶ commit thread
//!        ├── hashes ── hashing thread  └──compaction──▶ sweep thread ── done ──▶ net threads
//! ```
//!
//! Leases in time are shared ([`lessor`]): net threads renew them without asking the core.
//!
//! One owner per state: the core owns node and machine; the WAL belongs to whoever writes the one
//! batch under way; the committer to the commit thread; the sweep to its own. Every hop carries a
//! batch, and a wake-up is sent only to a sleeper.

mod applied;
pub(crate) mod commit;
pub(crate) mod compactor;
pub(crate) mod core;
pub(crate) mod defrag;
pub(crate) mod entry;
pub(crate) mod hashing;
pub(crate) mod lessor;
pub(crate) mod mailbox;
pub(crate) mod persist;
pub(crate) mod post;
pub(crate) mod stalls;
pub(crate) mod start;
pub(crate) mod status;
pub(crate) mod stop;
pub(crate) mod sweep;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use api::ids::{ClusterId, MemberId};
use api::pb::etcdserverpb as pb;
use api::pb::etcdserverpb::alarm_request::AlarmAction;
use node::ids::RequestIds;
use node::machine::{MemberChange, Proposal, Reconfigure, Token};
use prost::Message;
use state::{Caller, Header, View};
use storage::log::EntryKind;

use self::commit::ToCommit;
use self::core::ToCore;
use self::entry::Signature;
use self::hashing::ToHash;
use self::lessor::Lessor;
use self::mailbox::Mailbox;
use self::post::{Desk, Outcome, UNATTENDED};
use self::stalls::Stalls;
use self::status::Status;
use self::sweep::ToSweep;
use crate::auth::{Auth, Credentials, Who};
use crate::metrics::Metrics;
use crate::peer::{Contacts, Outbox, ToPeers};
use crate::trace::Tracer;

/// A read that takes longer counts as slow; etcd asks the leader again then.
const SLOW_READ: Duration = Duration::from_millis(500);

/// The bounds of requests.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// `--max-request-bytes`: of the entry that a request becomes.
    pub(crate) request_bytes_max: usize,
    /// `--max-txn-ops`: compares or operations of a transaction's longest list.
    pub(crate) txn_ops_max: usize,
    /// Time after which a proposal is given up, `ReqTimeout` in etcd.
    pub(crate) request_limit: Duration,
    /// `--strict-reconfig-check`
    pub(crate) strict_reconfig: bool,
    /// `--warning-unary-request-duration`
    pub(crate) slow_request: Duration,
    /// `--watch-progress-notify-interval`
    pub(crate) progress_interval: Duration,
    /// How long a stream that needs a leader goes on without one.
    pub(crate) leaderless_max: Duration,
}

/// What all threads may read, and the mailboxes through which they ask for everything else.
pub(crate) struct Shared {
    pub(crate) member: MemberId,
    pub(crate) cluster: ClusterId,
    pub(crate) view: View,
    pub(crate) status: Status,
    pub(crate) lessor: Lessor,
    pub(crate) auth: Auth,
    pub(crate) request_ids: Arc<RequestIds>,
    pub(crate) limits: Limits,
    pub(crate) metrics: Arc<Metrics>,
    /// Absent without `--enable-distributed-tracing`.
    pub(crate) tracer: Option<Tracer>,
    pub(crate) stalls: Arc<Stalls>,
    pub(crate) core: Arc<Mailbox<ToCore>>,
    pub(crate) peers: Arc<Outbox>,
    pub(crate) contacts: Arc<Contacts>,
    pub(crate) commits: Arc<Mailbox<ToCommit>>,
    pub(crate) sweep: Arc<Mailbox<ToSweep>>,
    pub(crate) hashing: Arc<Mailbox<ToHash>>,
    pub(crate) desk: Arc<Desk>,
    /// Set by whoever makes the open batch dirty and tells the commit thread, cleared by it.
    pub(crate) commit_due: AtomicBool,
    /// The CORRUPT alarm accuses this member: it shows its data to nobody.
    pub(crate) quarantined: AtomicBool,
    /// This member's NOSPACE alarm is on its way, or raised.
    pub(crate) no_space_raised: AtomicBool,
    /// Images of the database that are being sent.
    pub(crate) snapshots: AtomicUsize,
}

impl Shared {
    /// The header of an answer that is made now.
    pub(crate) fn header(&self) -> Header {
        Header {
            cluster: self.cluster,
            member: self.member,
            term: self.status.term(),
        }
    }

    /// The members are others than before: tells the peer thread, and whoever refuses what learners
    /// do not do. `founders` counts while the state knows none.
    pub(crate) fn on_members(&self, founders: &[state::Member]) {
        let members = self.view.members();
        self.status.set_learner(self.is_learner());
        let each = |member: &state::Member| (MemberId(member.id), member.peer_urls.clone());
        let mut listed: Vec<_> = members.iter().map(each).collect();
        if listed.is_empty() {
            listed = founders.iter().map(each).collect();
        }
        self.peers.push(ToPeers::Members(listed));
    }

    /// A change of the membership with all that it is decided on.
    pub(crate) fn reconfigure(&self, change: MemberChange, token: Token) -> Reconfigure {
        Reconfigure {
            id: self.request_ids.next(),
            token,
            change,
            members: self.view.members(),
            connected_ms: self.contacts.connected_ms(),
            strict: self.limits.strict_reconfig,
        }
    }

    /// Waits, outside of the net threads, until a linearizable read may be served.
    ///
    /// # Errors
    /// Nobody confirmed it in time.
    pub(crate) async fn confirm(&self) -> Result<(), api::Error> {
        if self.status.is_sole_leader() {
            return Ok(());
        }
        let (token, outcome) = self.desk.open();
        let begin = Instant::now();
        self.core.push(ToCore::Read(vec![token]));
        let outcome = outcome.await;
        if begin.elapsed() > SLOW_READ {
            self.metrics.slow_read_indexes.inc();
        }
        match outcome {
            Ok(Outcome::ReadReady | Outcome::Applied(Ok(()))) => Ok(()),
            Ok(Outcome::Failed(error) | Outcome::Applied(Err(error))) => {
                self.metrics.read_indexes_failed.inc();
                Err(error)
            }
            Err(_) => Err(api::Error::Stopped),
        }
    }

    /// Tells the commit thread that there is something to commit, once per batch.
    pub(crate) fn hand_to_commit(&self) {
        if !self.commit_due.swap(true, Ordering::AcqRel) {
            self.commits.push(ToCommit::Dirty);
        }
    }

    /// The cluster agreed on a version, or had one at boot.
    pub(crate) fn on_cluster_version(&self, version: &str) {
        self.status.set_capable();
        self.sweep.push(ToSweep::Migrate(version.to_owned()));
        let short: Vec<&str> = version.split('.').take(2).collect();
        self.metrics.cluster_version.set_only(&[[&short.join(".")]]);
    }

    /// Target of the downgrade in progress.
    pub(crate) fn downgrade(&self) -> Option<String> {
        let members = self.view.members();
        let downgrade = members.downgrade();
        downgrade.enabled.then(|| downgrade.target_version.clone())
    }

    /// The set of alarms changed.
    pub(crate) fn on_alarms(&self) {
        let alarms = self.view.alarms(0);
        let mine = |kind: pb::AlarmType| {
            let is_it = |alarm: &pb::AlarmMember| {
                alarm.member_id == self.member.0 && alarm.alarm == kind as i32
            };
            alarms.iter().any(is_it)
        };
        self.no_space_raised
            .store(mine(pb::AlarmType::Nospace), Ordering::Release);
        let accused = mine(pb::AlarmType::Corrupt);
        if self.quarantined.swap(accused, Ordering::AcqRel) != accused {
            match accused {
                true => tracing::error!("this member's data is corrupt: it is shown to nobody"),
                false => tracing::warn!("this member's data is shown again"),
            }
        }
        let labels: Vec<[String; 2]> = alarms
            .iter()
            .map(|alarm| [alarm_name(alarm), MemberId(alarm.member_id).to_string()])
            .collect();
        let labels: Vec<[&str; 2]> = labels
            .iter()
            .map(|on| on.each_ref().map(|s| &**s))
            .collect();
        self.metrics.alarms.set_only(&labels);
    }

    /// A promotion of a learner came to its end on this member.
    pub(crate) fn on_promotion(&self, failed: Option<&api::Error>) {
        let metrics = &self.metrics;
        match failed {
            None => metrics.learner_promote_successes.inc(),
            // The leader is asked, and counts.
            Some(api::Error::NotLeader) => {}
            Some(error) => {
                let reason = [error.message()];
                metrics.learner_promote_failures.with(reason).inc();
            }
        }
    }

    /// Proposes this member's NOSPACE alarm; nobody waits for it.
    pub(crate) fn raise_no_space(&self) {
        if self.no_space_raised.swap(true, Ordering::AcqRel) {
            return;
        }
        tracing::warn!(
            quota_bytes = self.view.quota(),
            in_use_bytes = self.view.space_used(),
            "the database is full; raising the NOSPACE alarm"
        );
        let alarm = pb::AlarmRequest {
            action: AlarmAction::Activate as i32,
            member_id: self.member.0,
            alarm: pb::AlarmType::Nospace as i32,
        };
        self.propose_unattended(entry::ALARM, &alarm);
    }

    /// Who sends the next message of a stream; its token is looked up for each.
    pub(crate) fn sender(&self, credentials: &Credentials) -> Who {
        if self.view.auth_stamp() == 0 {
            return Who::Nobody;
        }
        self.auth.identify(credentials).unwrap_or(Who::Impostor)
    }

    /// How an entry of a caller is signed; not at all while authentication is off.
    pub(crate) fn signature<'a>(&self, caller: Caller<'a>) -> Signature<'a> {
        let now = self.view.auth_stamp();
        let revision = caller.revision.unwrap_or(now);
        (now != 0 && revision != 0).then_some((caller.user, revision))
    }

    /// Proposes what nobody waits for, in the name of this member.
    pub(crate) fn propose_unattended(&self, field: u32, request: &impl Message) {
        let proposal = self.unattended(field, request);
        self.core.push(ToCore::Propose(vec![proposal]));
    }

    /// The same in the name of a client.
    pub(crate) fn propose_for(&self, who: &Who, field: u32, request: &impl Message) {
        // What was good for a call is good for what is left of it.
        let caller = who.caller().unwrap_or(Caller::NOBODY);
        let proposal = self.signed(caller, field, request);
        self.core.push(ToCore::Propose(vec![proposal]));
    }

    /// A proposal of this member whose result nobody waits for.
    pub(crate) fn unattended(&self, field: u32, request: &impl Message) -> Proposal {
        self.signed(Caller::ROOT, field, request)
    }

    fn signed(&self, caller: Caller<'_>, field: u32, request: &impl Message) -> Proposal {
        let id = self.request_ids.next();
        let by = self.signature(caller);
        let data = entry::encode(field, &request.encode_to_vec(), id, by);
        Proposal {
            id,
            kind: EntryKind::Normal,
            data,
            token: UNATTENDED,
        }
    }

    /// The answer to `Maintenance.Status`.
    pub(crate) fn status_response(&self) -> pb::StatusResponse {
        let members = self.view.members();
        let leader = self.status.leader();
        let mut errors = Vec::new();
        if leader.is_none() {
            errors.push(api::Error::NoLeader.message().to_owned());
        }
        errors.extend(self.view.alarms(0).iter().map(alarm_text));
        let downgrade = members.downgrade();
        let (db_size, db_size_in_use) = self.view.db_sizes();
        pb::StatusResponse {
            header: Some(self.header().message(self.view.revision())),
            version: api::version::SERVER.to_owned(),
            db_size: db_size as i64,
            leader: leader.map_or(0, |leader| leader.0),
            raft_index: self.status.committed().0,
            raft_term: self.status.term().0,
            raft_applied_index: self.view.applied().index.0,
            errors,
            db_size_in_use: db_size_in_use as i64,
            is_learner: self.is_learner(),
            storage_version: self.storage_version(),
            db_size_quota: self.view.quota().unwrap_or(0) as i64,
            downgrade_info: Some(pb::DowngradeInfo {
                enabled: downgrade.enabled,
                target_version: downgrade.target_version.clone(),
            }),
        }
    }

    /// Whether this member does not vote yet.
    pub(crate) fn is_learner(&self) -> bool {
        let members = self.view.members();
        members
            .member(self.member)
            .is_some_and(|member| member.is_learner)
    }

    /// The version of the database's schema, empty when it has none.
    pub(crate) fn storage_version(&self) -> String {
        match self.view.storage_version() {
            Ok(version) => version.unwrap_or_default(),
            Err(error) => stop::fatal("read the storage version", &error),
        }
    }
}

/// An alarm in the text form of its message.
fn alarm_text(alarm: &pb::AlarmMember) -> String {
    format!("memberID:{} alarm:{}", alarm.member_id, alarm_name(alarm))
}

/// The kind of an alarm, in etcd's word when it has one.
fn alarm_name(alarm: &pb::AlarmMember) -> String {
    pb::AlarmType::try_from(alarm.alarm).map_or_else(
        |_| alarm.alarm.to_string(),
        |kind| kind.as_str_name().to_owned(),
    )
}
