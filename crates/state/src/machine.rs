//! The apply machine: one log entry after the other, each in one explicit sequence.

use api::version::major_minor;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use api::Error;
use api::ids::{MemberId, RequestId};
use api::pb::etcdserverpb as pb;
use api::pb::etcdserverpb::alarm_request::AlarmAction;
use prost::Message;
use smallvec::SmallVec;
use storage::backend::{ApplyTxn, Bucket, Writer};
use storage::log::{Entry, EntryKind, LogIndex, Term};

use crate::alarm;
use crate::auth::Authorised;
use crate::command::{self, Command, Header};
use crate::counts::Operations;
use crate::fatal::{Fatal, ReadError};
use crate::index::Span;
use crate::kv::Writing;
use crate::lease::{Lease, TTL_MAX};
use crate::members::{ConfChange, DowngradeInfo, RaftChange};
use crate::quota;
use crate::range;
use crate::reply::Reply;
use crate::schema;
use crate::shared::{Shared, State};
use crate::sweep::Job;
use crate::txn;
use crate::watch::Event;

mod auth;
mod open;
#[cfg(test)]
pub(crate) mod tests;

pub(crate) use open::Built;
pub use open::{OpenError, Opened, hash_kv};

/// What decides how entries are applied. All but the sizes must be equal on all members of a
/// cluster.
#[derive(Clone, Debug)]
pub struct Config {
    /// Bytes in use at which writes are refused at first; `None` for no limit.
    pub quota_bytes: Option<u64>,
    /// Bytes of newest records that are kept in memory.
    pub value_budget: usize,
    /// Makes collisions in the index unpredictable for clients; any number.
    pub hash_seed: u64,
    /// Smallest TTL of a lease, in seconds.
    pub lease_ttl_min: i64,
    /// Store checkpoints also while the cluster version is below 3.6.
    pub lease_checkpoint_persist: bool,
    /// Learners that a cluster may have.
    pub learners_max: usize,
    /// Records that a step of a compaction looks at.
    pub compaction_batch: usize,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            quota_bytes: Some(2 << 30),
            value_budget: 128 << 20,
            hash_seed: 0,
            lease_ttl_min: 2,
            lease_checkpoint_persist: false,
            learners_max: 1,
            compaction_batch: crate::sweep::STEP_RECORDS,
        }
    }
}

/// What became of an entry.
#[derive(Debug)]
pub struct Applied {
    pub index: LogIndex,
    /// The request that it carried, if any; whoever waits for it gets `outcome`.
    pub request: Option<RequestId>,
    /// The name of what it asked for, as etcd's metrics have it.
    pub operation: Option<&'static str>,
    pub outcome: Result<Reply, Error>,
    pub effects: SmallVec<[Effect; 1]>,
}

/// What an entry means outside of the state.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// The entry was empty: a new leader's first.
    LeaderConfirmed,
    /// The sweep has a compaction to carry out.
    CompactionScheduled {
        revision: i64,
    },
    /// A conf-change entry was applied. `change` is `None` when raft's configuration stays as it
    /// is, because the change only touched a member's URLs or was refused.
    ConfChanged {
        change: Option<RaftChange>,
    },
    /// A member published its name and URLs.
    MemberPublished {
        member: MemberId,
    },
    /// The set of alarms changed.
    AlarmsChanged,
    /// A write went over the quota: this member must raise its NOSPACE alarm.
    QuotaExceeded,
    ClusterVersionChanged {
        before: Option<String>,
        now: String,
    },
    DowngradeChanged,
    /// The auth revision or the switch changed.
    AuthChanged,
    /// A user logged in; the token is good until it is revoked or expires on this member.
    TokenAssigned {
        user: String,
        token: String,
    },
    /// The tokens of a user, or of all users, are void.
    TokensRevoked {
        user: Option<String>,
    },
    LeaseGranted {
        id: i64,
        ttl: i64,
    },
    LeaseRevoked {
        id: i64,
    },
    LeaseCheckpointed {
        id: i64,
        remaining: i64,
    },
}

/// See the module's page. Pure: no clock, thread, socket or random source.
pub struct Machine {
    pub(crate) shared: Arc<Shared>,
    pub(crate) writer: Writer,
    pub(crate) scratch: Vec<u8>,
    /// See [`Machine::identify`].
    pub(crate) member: MemberId,
}

/// What applying one command gives.
type Outcome = Result<Reply, Error>;
type Effects = SmallVec<[Effect; 1]>;

/// Entries that are applied under one lock.
const SLICE: usize = 64;

impl Machine {
    pub(crate) fn new(shared: Arc<Shared>, writer: Writer, member: MemberId) -> Machine {
        Machine {
            shared,
            writer,
            scratch: Vec::new(),
            member,
        }
    }

    /// Tells who this member is, which the log knows and the database does not: ranges inside
    /// transactions are only run for requests that it proposed. Until then none are.
    pub fn identify(&mut self, member: MemberId) {
        self.member = member;
    }

    /// How far the state was applied.
    #[must_use]
    pub fn applied(&self) -> (LogIndex, Term) {
        let applied = self.writer.applied();
        (applied.index, applied.term)
    }

    /// True while the driver must let the committer catch up before it applies more.
    #[must_use]
    pub fn pressure(&self) -> bool {
        self.writer.pressure()
    }

    /// The writer's view of pending work, for the driver's commit rule.
    #[must_use]
    pub fn pending(&self) -> storage::backend::Pending {
        self.writer.pending()
    }

    /// Applies the next entry. One at or below the applied index has no effect.
    ///
    /// # Errors
    /// The member must stop.
    pub fn apply(&mut self, entry: &Entry) -> Result<Applied, Fatal> {
        let shared = self.shared.clone();
        let mut state = shared.state.write();
        let mut events = self.collect();
        let applied = self.apply_to(&mut state, entry, events.as_mut())?;
        self.publish(&state, events);
        Ok(applied)
    }

    /// Applies entries in order, many under one lock, and appends what became of them.
    ///
    /// # Errors
    /// The member must stop.
    pub fn apply_all(&mut self, entries: &[Entry], out: &mut Vec<Applied>) -> Result<(), Fatal> {
        let shared = self.shared.clone();
        for slice in entries.chunks(SLICE) {
            let mut state = shared.state.write();
            let mut events = self.collect();
            for entry in slice {
                out.push(self.apply_to(&mut state, entry, events.as_mut())?);
            }
            self.publish(&state, events);
        }
        Ok(())
    }

    /// Where events go, when somebody watches.
    fn collect(&self) -> Option<Vec<Event>> {
        (self.shared.log.watching() != 0).then(Vec::new)
    }

    /// Tells watchers what became readable; the state is still locked.
    fn publish(&self, state: &State, events: Option<Vec<Event>>) {
        let Shared {
            log,
            revision,
            auth_stamp,
            ..
        } = &*self.shared;
        auth_stamp.store(state.auth.stamp(), Ordering::Relaxed);
        log.publish(state.revision, state.compacted, events);
        revision.store(state.revision, Ordering::Release);
    }

    fn apply_to(
        &mut self,
        state: &mut State,
        entry: &Entry,
        events: Option<&mut Vec<Event>>,
    ) -> Result<Applied, Fatal> {
        let mut applied = Applied {
            index: entry.index,
            request: None,
            operation: None,
            outcome: Ok(Reply::Nothing),
            effects: SmallVec::new(),
        };
        if entry.index <= self.writer.applied().index {
            return Ok(applied);
        }
        let Machine {
            shared,
            writer,
            scratch,
            member,
        } = self;
        let over_quota = Quota {
            bytes: shared.quota(),
            used: writer.size_in_use(),
        };
        let mut txn = writer.begin(entry.index, entry.term);
        state.auth.ensure_revision(&mut txn);
        match entry.kind {
            EntryKind::ConfChange => conf_change(shared, state, txn, entry, &mut applied)?,
            EntryKind::Normal if entry.data.is_empty() => {
                txn.commit();
                applied.effects.push(Effect::LeaderConfirmed);
            }
            EntryKind::Normal => {
                let (header, command) = command::decode(entry.index, &entry.data)?;
                applied.request = header.request();
                applied.operation = command.operation();
                let writing = Writing {
                    state,
                    txn,
                    reader: &shared.reader,
                    scratch,
                    changes: 0,
                    done: Operations::default(),
                    counts: &shared.counts,
                    events,
                };
                let mut applying = Applying {
                    shared,
                    member: *member,
                    writing,
                    header,
                    index: entry.index,
                    effects: &mut applied.effects,
                };
                applied.outcome = applying.run(command, &over_quota)?;
                applying.writing.finish();
            }
        }
        Ok(applied)
    }
}

fn conf_change(
    shared: &Shared,
    state: &mut State,
    mut txn: ApplyTxn<'_>,
    entry: &Entry,
    applied: &mut Applied,
) -> Result<(), Fatal> {
    let change = ConfChange::decode(entry.data.clone()).map_err(|_| Fatal::Undecodable {
        index: entry.index,
        what: "a malformed conf change",
    })?;
    applied.request = (change.id != 0).then_some(RequestId(change.id));
    let learners_max = shared.config.learners_max;
    let change = match state
        .members
        .apply(entry.index, &change, learners_max, &mut txn)?
    {
        Ok(change) => {
            let members = state.members.iter().cloned().collect();
            applied.outcome = Ok(Reply::Members { members });
            change
        }
        Err(error) => {
            applied.outcome = Err(error);
            None
        }
    };
    applied.effects.push(Effect::ConfChanged { change });
    txn.commit();
    Ok(())
}

struct Quota {
    bytes: Option<u64>,
    used: u64,
}

impl Quota {
    fn has_room(&self, cost: u64) -> bool {
        cost == 0 || self.bytes.is_none_or(|quota| self.used + cost < quota)
    }
}

/// One command being applied.
struct Applying<'a> {
    shared: &'a Shared,
    member: MemberId,
    writing: Writing<'a>,
    header: Header,
    index: LogIndex,
    effects: &'a mut Effects,
}

impl Applying<'_> {
    /// The sequence that every command goes through: corruption alarm, space alarm, permission,
    /// and quota around the work itself.
    fn run(&mut self, command: Command, quota: &Quota) -> Result<Outcome, Fatal> {
        if let Err(error) = self.check_alarms(&command) {
            return Ok(Err(error));
        }
        let command = match self.authorise(command) {
            Ok(command) => command,
            Err(error) => return Ok(Err(error)),
        };
        let has_room = quota.has_room(cost(&command));
        let outcome = self.execute(command)?;
        if outcome.is_ok() && !has_room {
            // The write is done, as on every other member; only the submitter learns of this.
            if !self.writing.state.alarms.is_active(pb::AlarmType::Nospace) {
                self.effects.push(Effect::QuotaExceeded);
            }
            return Ok(Err(Error::NoSpace));
        }
        Ok(outcome)
    }

    fn check_alarms(&self, command: &Command) -> Result<(), Error> {
        let alarms = &self.writing.state.alarms;
        let is_data = matches!(
            command,
            Command::Range(_)
                | Command::Put(_)
                | Command::DeleteRange(_)
                | Command::Txn(_)
                | Command::Compact(_)
                | Command::LeaseGrant(_)
                | Command::LeaseRevoke(_)
        );
        if is_data && alarms.is_active(pb::AlarmType::Corrupt) {
            return Err(Error::Corrupt);
        }
        if cost(command) > 0 && alarms.is_active(pb::AlarmType::Nospace) {
            return Err(Error::NoSpace);
        }
        Ok(())
    }

    fn execute(&mut self, command: Authorised<Command>) -> Result<Outcome, Fatal> {
        match command.into_operation() {
            Command::Range(request) => self.range(&request),
            Command::Put(request) => self.put(&request),
            Command::DeleteRange(request) => self.delete_range(&request),
            Command::Txn(request) => self.txn(&request),
            Command::Compact(request) => Ok(self.compact(&request)),
            Command::LeaseGrant(request) => Ok(self.grant(&request)),
            Command::LeaseRevoke(request) => Ok(self.revoke(&request)),
            Command::LeaseCheckpoint(request) => Ok(self.checkpoint(&request)),
            Command::Alarm(request) => Ok(self.alarm(&request)),
            Command::Auth(request) => self.auth(request),
            Command::SetClusterVersion(request) => self.set_cluster_version(&request.ver),
            Command::SetAttributes(request) => {
                let attributes = request.member_attributes.unwrap_or_default();
                Ok(self.set_attributes(request.member_id, &attributes))
            }
            Command::SetDowngrade(request) => Ok(self.set_downgrade(request.enabled, request.ver)),
            Command::TestVersion | Command::LegacyNoOp => Ok(Ok(Reply::Nothing)),
        }
    }

    /// True when this member proposed the request, so that someone may wait for its answer.
    fn is_ours(&self) -> bool {
        self.header.id >> 48 == self.member.0 & 0xffff
    }

    fn range(&mut self, request: &pb::RangeRequest) -> Result<Outcome, Fatal> {
        if !self.is_ours() {
            return Ok(Ok(Reply::Nothing));
        }
        self.writing.done.ranges += 1;
        let revision = self.writing.revision();
        match range::inside(self.writing.state, self.writing.reader, request, revision) {
            Ok(rest) => Ok(Ok(Reply::Range { revision, rest })),
            Err(ReadError::Refused(error)) => Ok(Err(error)),
            Err(ReadError::Broken(fatal)) => Err(fatal),
        }
    }

    fn put(&mut self, request: &pb::PutRequest) -> Result<Outcome, Fatal> {
        if let Err(error) = txn::check_put(self.writing.state, request) {
            return Ok(Err(error));
        }
        let before = txn::put(&mut self.writing, request)?;
        Ok(Ok(Reply::Put {
            revision: self.writing.revision(),
            before,
        }))
    }

    fn delete_range(&mut self, request: &pb::DeleteRangeRequest) -> Result<Outcome, Fatal> {
        let span = Span::new(&request.key, &request.range_end);
        let before = if request.prev_kv {
            self.writing.newest_of(span)?
        } else {
            Vec::new()
        };
        let deleted = self.writing.delete(span);
        Ok(Ok(Reply::DeleteRange {
            revision: self.writing.revision(),
            deleted,
            before,
        }))
    }

    fn txn(&mut self, request: &pb::TxnRequest) -> Result<Outcome, Fatal> {
        let state = &*self.writing.state;
        let mut path = Vec::new();
        let mut load = txn::load_now(self.writing.reader);
        txn::choose(state, state.revision, request, &mut load, &mut path)?;
        let checked = txn::check(state, state.revision, request, &mut path.iter().copied());
        if let Err(error) = checked {
            return Ok(Err(error));
        }
        let with_ranges = self.is_ours();
        let rest = txn::run(
            &mut self.writing,
            request,
            &mut path.iter().copied(),
            with_ranges,
        )?;
        Ok(Ok(Reply::Txn {
            revision: self.writing.revision(),
            rest,
        }))
    }

    fn compact(&mut self, request: &pb::CompactionRequest) -> Outcome {
        let state = &mut *self.writing.state;
        let revision = request.revision;
        if revision <= state.compacted {
            return Err(Error::Compacted);
        }
        if revision > state.revision {
            return Err(Error::FutureRev);
        }
        let is_hashed = state.finished == state.compacted;
        let job = Job {
            revision,
            before: state.compacted,
            is_hashed,
        };
        state.compacted = revision;
        self.writing.set_scheduled_compact(revision);
        self.shared.jobs.lock().push_back(job);
        self.effects.push(Effect::CompactionScheduled { revision });
        Ok(Reply::Compact {
            revision: self.writing.state.revision,
        })
    }

    fn grant(&mut self, request: &pb::LeaseGrantRequest) -> Outcome {
        let id = request.id;
        if id == 0 {
            return Err(Error::LeaseNotFound);
        }
        if request.ttl > TTL_MAX {
            return Err(Error::LeaseTTLTooLarge);
        }
        let leases = &mut self.writing.state.leases;
        if leases.contains(id) {
            return Err(Error::LeaseExist);
        }
        let ttl = request.ttl.max(self.shared.config.lease_ttl_min);
        let lease = Lease {
            ttl,
            ..Lease::default()
        };
        self.writing
            .txn
            .put(Bucket::Lease, &schema::lease_key(id), lease.record(id));
        leases.by_id.insert(id, lease);
        self.effects.push(Effect::LeaseGranted { id, ttl });
        Ok(Reply::LeaseGrant {
            revision: self.writing.revision(),
            id,
            ttl,
        })
    }

    fn revoke(&mut self, request: &pb::LeaseRevokeRequest) -> Outcome {
        let id = request.id;
        let lease = self
            .writing
            .state
            .leases
            .by_id
            .remove(&id)
            .ok_or(Error::LeaseNotFound)?;
        for key in &lease.keys {
            self.writing.delete(Span::new(key, &[]));
        }
        self.writing
            .txn
            .delete(Bucket::Lease, &schema::lease_key(id));
        self.effects.push(Effect::LeaseRevoked { id });
        Ok(Reply::LeaseRevoke {
            revision: self.writing.revision(),
        })
    }

    fn checkpoint(&mut self, request: &pb::LeaseCheckpointRequest) -> Outcome {
        let state = &mut *self.writing.state;
        let persist = self.shared.config.lease_checkpoint_persist
            || state
                .members
                .cluster_version()
                .and_then(major_minor)
                .is_some_and(|v| v >= (3, 6));
        for checkpoint in &request.checkpoints {
            let id = checkpoint.id;
            let Some(lease) = state.leases.by_id.get_mut(&id) else {
                continue;
            };
            lease.remaining = checkpoint.remaining_ttl;
            if persist {
                let record = lease.record(id);
                self.writing
                    .txn
                    .put(Bucket::Lease, &schema::lease_key(id), record);
            }
            let remaining = checkpoint.remaining_ttl;
            self.effects
                .push(Effect::LeaseCheckpointed { id, remaining });
        }
        Ok(Reply::LeaseCheckpoint {
            revision: state.revision,
        })
    }

    fn alarm(&mut self, request: &pb::AlarmRequest) -> Outcome {
        let state = &mut *self.writing.state;
        let named = pb::AlarmMember {
            member_id: request.member_id,
            alarm: request.alarm,
        };
        let key = alarm::key(&named);
        let mut alarms = Vec::new();
        match AlarmAction::try_from(request.action) {
            Ok(AlarmAction::Get) => alarms = state.alarms.list(request.alarm),
            Ok(AlarmAction::Activate) if request.alarm != pb::AlarmType::None as i32 => {
                if state.alarms.activate(&named) {
                    self.writing.txn.put(Bucket::Alarm, &key, alarm::empty());
                    self.effects.push(Effect::AlarmsChanged);
                }
                alarms.push(named);
            }
            Ok(AlarmAction::Deactivate) => {
                if state.alarms.deactivate(&named) {
                    self.writing.txn.delete(Bucket::Alarm, &key);
                    self.effects.push(Effect::AlarmsChanged);
                    alarms.push(named);
                }
            }
            Ok(AlarmAction::Activate) | Err(_) => {}
        }
        Ok(Reply::Alarm {
            revision: state.revision,
            alarms,
        })
    }

    /// A version above ours means that this member cannot understand what the others may do.
    fn set_cluster_version(&mut self, version: &str) -> Result<Outcome, Fatal> {
        let ours = major_minor(api::version::SERVER);
        if major_minor(version).is_none_or(|minor| Some(minor) > ours) {
            return Err(Fatal::ClusterVersion {
                version: version.to_string(),
            });
        }
        let members = &mut self.writing.state.members;
        let before = members.cluster_version().map(str::to_string);
        members.set_cluster_version(version, &mut self.writing.txn);
        let now = version.to_string();
        self.effects
            .push(Effect::ClusterVersionChanged { before, now });
        Ok(Ok(Reply::Nothing))
    }

    fn set_attributes(
        &mut self,
        member: u64,
        attributes: &api::pb::membershippb::Attributes,
    ) -> Outcome {
        let members = &mut self.writing.state.members;
        let txn = &mut self.writing.txn;
        if members.set_attributes(member, &attributes.name, &attributes.client_urls, txn) {
            let member = MemberId(member);
            self.effects.push(Effect::MemberPublished { member });
        }
        Ok(Reply::Nothing)
    }

    fn set_downgrade(&mut self, enabled: bool, target: String) -> Outcome {
        let info = if enabled {
            DowngradeInfo {
                target_version: target,
                enabled,
            }
        } else {
            DowngradeInfo::default()
        };
        self.writing
            .state
            .members
            .set_downgrade(info, &mut self.writing.txn);
        self.effects.push(Effect::DowngradeChanged);
        Ok(Reply::Nothing)
    }
}

/// What a command costs against the quota, in bytes; 0 for one that is never refused for space.
fn cost(command: &Command) -> u64 {
    match command {
        Command::Put(put) => quota::put_cost(put),
        Command::Txn(txn) => quota::txn_cost(txn),
        Command::LeaseGrant(_) => quota::LEASE_COST,
        _ => 0,
    }
}
