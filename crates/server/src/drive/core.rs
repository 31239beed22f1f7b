//! The core thread: it owns the node and the state machine, and carries out what they want.
//!
//! A turn takes everything that arrived, lets the node order it, and works off the node's outputs
//! until there are none: batches go to the WAL, committed entries to the state machine, results
//! to the net threads, one batch of mail for each. While a large batch is being synced the WAL
//! thread has it and the core goes on; a small one is written and synced right here, which saves
//! two wake-ups of the 150 µs that a lone put takes.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use api::ids::MemberId;
use api::pb::etcdserverpb as pb;
use node::machine::{Input, Node, Output, Persist, Proposal, Reconfigure, Token};
use node::member::Snapshot;
use node::raft::{ConfChange, Message};
use state::{Applied, ChangeKind, Effect, Machine, RaftChange};
use storage::log::{Entry, LogIndex};
use tokio::sync::oneshot;

use super::Shared;
use super::applied::ApplyTimes;
use super::commit::ToCommit;
use super::compactor::{self, Compactor};
use super::entry;
use super::mailbox::Mailbox;
use super::persist::{Job, WalSlot};
use super::post::{HAND_OVER, Mail, Post, UNATTENDED};
use super::stalls::Stall;
use super::status::Details;
use super::stop::fatal;
use super::sweep::ToSweep;
use crate::config::GoDuration;
use crate::front::CallId;
use crate::peer::{Batch, ToPeers};
use crate::shutdown::Stopper;

/// A batch up to this many entries is synced on the core thread.
const INLINE_ENTRIES_MAX: usize = 32;
/// Entries applied before results leave, so that early ones do not wait for a long batch.
const APPLY_SLICE: usize = 512;
/// Time between two attempts of a leader whose data is corrupt to hand over.
const STEP_DOWN_PAUSE: Duration = Duration::from_secs(1);
/// Longest nap while the commit thread catches up.
const PRESSURE_NAP: Duration = Duration::from_millis(10);

/// What other threads tell the core.
pub(crate) enum ToCore {
    Propose(Vec<Proposal>),
    Read(Vec<Token>),
    /// Other members said something.
    Messages(Batch),
    /// Messages to a member were lost.
    Unreachable(MemberId),
    /// What the other members run, as far as they could be asked.
    Versions(Vec<(MemberId, Option<String>)>),
    /// A database was sent to a member, or could not be.
    SnapshotSent {
        peer: MemberId,
        arrived: bool,
    },
    /// A database arrived and is durable; whoever received it is told whether the node
    /// takes it.
    Received(Box<Message>, oneshot::Sender<bool>),
    /// A received database is in place; the machine of its state, when it is a new one.
    Installed(LogIndex, Option<Box<Machine>>),
    Reconfigure(Box<Reconfigure>),
    /// Let another member lead.
    MoveLeader {
        to: MemberId,
        token: Token,
    },
    /// The WAL thread wrote and synced the batch of this number.
    Persisted(u64),
    SnapshotTaken(LogIndex),
    /// Write what is held back and end the thread.
    Stop,
}

/// Everything that the core thread owns.
pub(crate) struct Core {
    pub(crate) shared: Arc<Shared>,
    pub(crate) inbox: Arc<Mailbox<ToCore>>,
    pub(crate) node: Node,
    pub(crate) machine: Machine,
    pub(crate) wal: Arc<WalSlot>,
    pub(crate) commits: Arc<Mailbox<ToCommit>>,
    pub(crate) post: Post,
    pub(crate) tick: Duration,
    pub(crate) outputs: Vec<Output>,
    /// Messages that leave with the next flush.
    pub(crate) sends: Vec<Message>,
    pub(crate) applied: Vec<Applied>,
    /// `--backend-batch-limit`
    pub(crate) batch_ops_max: usize,
    /// `--warning-apply-duration`
    pub(crate) slow_apply: Duration,
    pub(crate) apply_times: ApplyTimes,
    pub(crate) compactor: Option<Compactor>,
    /// Ticks that a member which meets others soon after its start, and no leader, skips.
    pub(crate) head_start: Option<HeadStart>,
    /// When a leader whose data is corrupt next tries to hand over.
    pub(crate) steps_down_at: Instant,
    pub(crate) stopping: bool,
    pub(crate) stopper: Stopper,
    /// The stop waits until somebody else leads.
    pub(crate) hands_over: bool,
    /// The revision that watchers were last told of.
    pub(crate) announced: i64,
}

/// See [`Core::head_start`].
#[derive(Clone, Copy)]
pub(crate) struct HeadStart {
    pub(crate) ticks: u32,
    pub(crate) until: Instant,
}

impl Core {
    /// Runs until [`ToCore::Stop`] was carried out.
    pub(crate) fn run(mut self) {
        let mut arrived = Vec::new();
        let mut inputs = Vec::new();
        let mut next_tick = Instant::now() + self.tick;
        self.step(Input::Start);
        self.step(Input::Downgrade(self.shared.downgrade()));
        loop {
            self.shared
                .status
                .set_progress(self.node.committed(), self.node.proposals_pending());
            self.inbox.wait(&mut arrived, Some(next_tick));
            self.take_in(&mut arrived, &mut inputs);
            let now = Instant::now();
            if now >= next_tick {
                self.note_late(now - next_tick);
                self.step(Input::Tick);
                self.take_head_start(now);
                self.publish_details();
                self.step_down_if_corrupt(now);
                next_tick = (next_tick + self.tick).max(now);
                self.expire_leases();
                self.compact_by_itself(now);
            }
            self.send();
            self.deliver();
            if self.stopping && !self.hands_over && self.node.is_idle() {
                return;
            }
        }
    }

    /// A leader whose data is corrupt would give its database to others: somebody else leads, as
    /// soon as somebody can.
    fn step_down_if_corrupt(&mut self, now: Instant) {
        let corrupt = self.shared.quarantined.load(Ordering::Acquire);
        let has_others = self.node.conf().voters.len() > 1;
        if corrupt && has_others && self.node.is_leader() && now >= self.steps_down_at {
            self.steps_down_at = now + STEP_DOWN_PAUSE;
            let token = UNATTENDED;
            self.step(Input::TransferLeader { to: None, token });
        }
    }

    /// Tells `/debug/vars` what raft knows.
    fn publish_details(&self) {
        let conf = self.node.conf();
        let ids = conf.voters.iter().chain(&conf.learners).copied();
        let progress = ids.map(MemberId).filter_map(|id| {
            let progress = self.node.progress(id)?;
            Some((id, progress))
        });
        self.shared.status.set_details(Details {
            role: Some(self.node.role()),
            vote: self.node.vote(),
            progress: progress.collect(),
        });
    }

    /// Nobody led when this member started, or it would have heard: it need not wait a whole
    /// election timeout for that (`--initial-election-tick-advance`).
    fn take_head_start(&mut self, now: Instant) {
        let Some(head_start) = self.head_start else {
            return;
        };
        if now > head_start.until || self.node.leader().is_some() {
            self.head_start = None;
        } else if !self.shared.contacts.connected_ms().is_empty() {
            self.head_start = None;
            tracing::info!(
                "advance-ticks" = head_start.ticks,
                "skipping the most of the first election timeout"
            );
            for _ in 0..head_start.ticks {
                self.step(Input::Tick);
            }
        }
    }

    /// A leader whose heartbeats come so late that followers may miss one looks for a reason.
    fn note_late(&self, late: Duration) {
        if late > self.tick && self.node.is_leader() {
            self.shared.metrics.heartbeat_failures.inc();
            tracing::warn!(
                "heartbeat-interval" = %GoDuration::from(self.tick),
                "expected-duration" = %GoDuration::from(2 * self.tick),
                "exceeded-duration" = %GoDuration::from(late),
                "leader failed to send out heartbeat on time; took too long, leader is \
                 overloaded likely from slow disk"
            );
        }
    }

    /// Gives the node what arrived, all that may come together at once.
    /// `inputs` is empty before and after.
    fn take_in(&mut self, arrived: &mut Vec<ToCore>, inputs: &mut Vec<Input>) {
        let mut proposals = Vec::new();
        let mut reads = Vec::new();
        for message in arrived.drain(..) {
            match message {
                ToCore::Propose(mut batch) if proposals.is_empty() => {
                    std::mem::swap(&mut proposals, &mut batch);
                }
                ToCore::Propose(batch) => proposals.extend(batch),
                ToCore::Read(batch) => reads.extend(batch),
                ToCore::Messages(batch) => {
                    inputs.extend(batch.messages.into_iter().map(Input::Message));
                }
                ToCore::Unreachable(peer) => inputs.push(Input::ReportUnreachable { peer }),
                ToCore::Reconfigure(change) => inputs.push(Input::Reconfigure(change)),
                ToCore::MoveLeader { to, token } => {
                    let to = Some(to);
                    inputs.push(Input::TransferLeader { to, token });
                }
                ToCore::SnapshotSent { peer, arrived } => {
                    inputs.push(Input::ReportSnapshot { peer, arrived });
                }
                ToCore::Received(message, handled) => {
                    self.step_all(inputs);
                    let index = message
                        .snapshot
                        .as_ref()
                        .map(|snapshot| snapshot.meta.index);
                    self.step(Input::Received(message));
                    // The sender may have hung up.
                    let _ = handled.send(index.is_some() && self.node.installs() == index);
                }
                ToCore::Installed(index, machine) => {
                    self.step_all(inputs);
                    self.on_installed(index, machine);
                }
                ToCore::Versions(answers) => inputs.push(Input::Versions(answers)),
                ToCore::Persisted(number) => inputs.push(Input::Persisted { number }),
                ToCore::SnapshotTaken(index) => inputs.push(Input::SnapshotTaken { index }),
                ToCore::Stop => {
                    self.step_all(inputs);
                    self.begin_stop();
                }
            }
        }
        if !proposals.is_empty() {
            inputs.push(Input::Propose(proposals));
        }
        if !reads.is_empty() {
            inputs.push(Input::ReadIndex(reads));
        }
        self.step_all(inputs);
    }

    /// Gives the node one input and works off its outputs and theirs.
    fn step(&mut self, input: Input) {
        self.work_off([input]);
    }

    /// Gives the node inputs, if there are any, and works off its outputs and theirs.
    fn step_all(&mut self, inputs: &mut Vec<Input>) {
        if !inputs.is_empty() {
            self.work_off(inputs.drain(..));
        }
    }

    fn work_off(&mut self, inputs: impl IntoIterator<Item = Input>) {
        let mut outputs = std::mem::take(&mut self.outputs);
        self.node.handle_all(inputs, &mut outputs);
        while !outputs.is_empty() {
            let mut answers = Vec::new();
            for output in outputs.drain(..) {
                self.carry_out(output, &mut answers);
            }
            for answer in answers {
                self.node.handle(answer, &mut outputs);
            }
        }
        self.outputs = outputs;
    }

    /// Why proposals found no answer in time: by etcd's rule the way to the leader, or to a quorum,
    /// has not been there all the while.
    fn why_late(&self) -> api::Error {
        let connected = self.shared.contacts.connected_ms();
        let waited_ms = self.shared.limits.request_limit.as_millis() as u64;
        let is_there = |id: &MemberId| connected.get(id).is_some_and(|ms| *ms >= waited_ms);
        let was_there = match self.shared.status.leader() {
            None => true,
            Some(leader) if leader == self.shared.member => {
                let members = self.shared.view.members();
                let others = members.iter().map(|member| MemberId(member.id));
                let there = others.filter(|id| *id == leader || is_there(id)).count();
                there > members.iter().count() / 2
            }
            Some(leader) => is_there(&leader),
        };
        match was_there {
            true => api::Error::Timeout,
            false => api::Error::TimeoutDueToConnectionLost,
        }
    }

    fn carry_out(&mut self, output: Output, answers: &mut Vec<Input>) {
        match output {
            Output::Persist(batch) => self.persist(batch, answers),
            Output::Apply(entries) => self.apply(&entries, answers),
            Output::ReadReady { tokens, .. } => {
                tokens
                    .into_iter()
                    .for_each(|token| self.post.put(Mail::ReadReady(token)));
            }
            Output::Rejected(rejected) => {
                for (token, error) in rejected {
                    if token == HAND_OVER {
                        tracing::warn!(%error, "leadership transfer failed");
                        self.hands_over = false;
                        continue;
                    }
                    self.shared.metrics.proposals_failed.inc();
                    self.post.put(Mail::Failed(token, error));
                }
            }
            Output::Late(tokens) => {
                let error = self.why_late();
                for token in tokens {
                    self.shared.metrics.proposals_failed.inc();
                    self.post.put(Mail::Failed(token, error));
                }
            }
            Output::LeaderChanged { leader, term } => {
                self.shared.status.on_leader(leader, term);
                self.settle_leases(self.shared.lessor.on_leader_changed());
            }
            Output::Settled => self.shared.lessor.on_settled(),
            Output::SoleLeader(sole) => self.shared.status.set_sole_leader(sole),
            Output::TakeSnapshot(meta) => {
                let snapshot = Snapshot::prepare(meta, &self.shared.view);
                self.commits.push(ToCommit::Snapshot(snapshot));
            }
            Output::Published => self.shared.status.on_published(),
            Output::Send(mut messages) => self.sends.append(&mut messages),
            Output::Transferred(HAND_OVER) => self.hands_over = false,
            // etcd's answer is empty.
            Output::Transferred(token) => self.post.put(Mail::Answer(token, Ok(Vec::new()))),
            Output::AskVersions => self.shared.peers.push(ToPeers::AskVersions),
            Output::SendSnapshot(message) => self.commits.push(ToCommit::Send(message)),
            Output::InstallSnapshot(meta) => self.commits.push(ToCommit::Install(meta)),
            Output::Removed => {
                tracing::warn!(
                    "server error: the member has been permanently removed from the cluster; \
                     data-dir used by this member must be removed"
                );
                self.stopper.stop();
            }
        }
    }

    /// Proposes the compaction that is due; one that gets lost is due again.
    fn compact_by_itself(&mut self, time: Instant) {
        let Some(compactor) = self.compactor.as_mut().filter(|_| !self.stopping) else {
            return;
        };
        let view = &self.shared.view;
        let due = compactor.due(compactor::Now {
            time,
            revision: view.revision(),
            compacted: view.compact_revision(),
            leads: self.node.is_leader(),
        });
        if let Some(revision) = due {
            tracing::info!(revision, "starting auto compaction");
            let request = pb::CompactionRequest {
                revision,
                physical: false,
            };
            let proposal = self.shared.unattended(entry::COMPACTION, &request);
            self.step(Input::Propose(vec![proposal]));
        }
    }

    /// Proposes what the time of leases demands; it is demanded again if it gets lost.
    fn expire_leases(&mut self) {
        if self.stopping {
            return;
        }
        let due = self.shared.lessor.due();
        let mut proposals: Vec<Proposal> = due
            .expired
            .into_iter()
            .map(|id| {
                self.shared
                    .unattended(entry::LEASE_REVOKE, &pb::LeaseRevokeRequest { id })
            })
            .collect();
        if !due.checkpoints.is_empty() {
            let checkpoint = |(id, remaining_ttl)| pb::LeaseCheckpoint { id, remaining_ttl };
            let checkpoints = due.checkpoints.into_iter().map(checkpoint).collect();
            let request = pb::LeaseCheckpointRequest { checkpoints };
            proposals.push(self.shared.unattended(entry::LEASE_CHECKPOINT, &request));
        }
        if !proposals.is_empty() {
            self.step(Input::ProposeAsLeader(proposals));
        }
    }

    /// The state was replaced by that of a received database.
    fn on_installed(&mut self, index: LogIndex, machine: Option<Box<Machine>>) {
        if let Some(machine) = machine {
            self.machine = *machine;
            let view = &self.shared.view;
            self.shared.lessor.replace(&view.leases());
            self.shared.on_alarms();
            // What the entries that were passed over say of tokens is not known.
            self.shared.auth.on_revoked(None);
            self.shared.auth.on_applied(index);
            self.shared.on_members(&[]);
            let version = view.members().cluster_version().map(str::to_owned);
            if let Some(version) = version {
                self.shared.on_cluster_version(&version);
                self.step(Input::ClusterVersion(version));
            }
            self.step(Input::Downgrade(self.shared.downgrade()));
        }
        self.step(Input::Installed { index });
    }

    /// A leader lets another member lead before it goes, so that the cluster misses nobody.
    fn begin_stop(&mut self) {
        self.stopping = true;
        let has_others = self.shared.view.members().iter().count() > 1;
        if self.node.is_leader() && has_others {
            self.hands_over = true;
            self.step(Input::TransferLeader {
                to: None,
                token: HAND_OVER,
            });
        }
        // Releases up to 3.6 start from the membership as of a snapshot.
        self.step(Input::ForceSnapshot);
        self.step(Input::Flush);
    }

    /// Sends what the node said to other members.
    fn send(&mut self) {
        if !self.sends.is_empty() {
            let messages = std::mem::take(&mut self.sends);
            self.shared.peers.push(ToPeers::Send(messages));
        }
    }

    fn settle_leases(&mut self, calls: Vec<CallId>) {
        for call in calls {
            self.post.put(Mail::LeaseSettled(call));
        }
    }

    fn persist(&mut self, batch: Persist, answers: &mut Vec<Input>) {
        // Followers write while this member does.
        self.send();
        let is_large = batch.must_sync && batch.entries.len() > INLINE_ENTRIES_MAX;
        if is_large || batch.snapshot.is_some() {
            self.wal.queue.push(Job::Write(batch));
            return;
        }
        self.wal.write(&batch);
        answers.push(Input::Persisted {
            number: batch.number,
        });
    }

    fn apply(&mut self, entries: &[Entry], answers: &mut Vec<Input>) {
        if entries.len() > INLINE_ENTRIES_MAX {
            // Others need not wait for this.
            self.send();
        }
        for slice in entries.chunks(APPLY_SLICE) {
            self.wait_for_commits();
            let begin = Instant::now();
            let mut applied = std::mem::take(&mut self.applied);
            if let Err(error) = self.machine.apply_all(slice, &mut applied) {
                fatal("apply an entry of the log", &error);
            }
            let took = begin.elapsed();
            self.apply_times
                .observe(&self.shared.metrics, &applied, took);
            for one in applied.drain(..) {
                self.on_applied(one, answers);
            }
            self.applied = applied;
            if took > self.slow_apply {
                self.warn_of_slow(slice, took);
            }
            self.shared.stalls.note(Stall::Apply, took);
            if entries.len() > APPLY_SLICE {
                self.deliver();
            }
        }
        if let Some(last) = entries.last() {
            self.shared.auth.on_applied(last.index);
            answers.push(Input::Applied { index: last.index });
        }
        if self.machine.pending().ops >= self.batch_ops_max {
            self.commits.push(ToCommit::Full);
        } else {
            self.shared.hand_to_commit();
        }
    }

    /// Entries that were applied together took long; the largest is named.
    fn warn_of_slow(&self, slice: &[Entry], took: Duration) {
        self.shared.metrics.slow_apply.inc();
        let largest = slice.iter().max_by_key(|entry| entry.data.len());
        let request = largest.map_or_else(String::new, |entry| entry::describe(&entry.data));
        tracing::warn!(
            took = %GoDuration::from(took),
            "expected-duration" = %GoDuration::from(self.slow_apply),
            prefix = "",
            request,
            entries = slice.len(),
            "request-bytes" = slice.iter().map(|entry| entry.data.len()).sum::<usize>(),
            "apply request took too long"
        );
    }

    /// Sends results, and wakes the threads whose watchers wait for what became readable.
    fn deliver(&mut self) {
        let watching = self.shared.view.watching();
        if watching != 0 {
            let revision = self.shared.view.revision();
            if std::mem::replace(&mut self.announced, revision) != revision {
                self.post.put_events(watching);
            }
        }
        self.post.deliver();
    }

    /// Lets the commit thread catch up while the overlay is at its bound.
    fn wait_for_commits(&self) {
        if !self.machine.pressure() {
            return;
        }
        let begin = Instant::now();
        while self.machine.pressure() {
            self.commits.push(ToCommit::Full);
            std::thread::park_timeout(PRESSURE_NAP);
        }
        self.shared.stalls.note(Stall::Commits, begin.elapsed());
    }

    fn on_applied(&mut self, applied: Applied, answers: &mut Vec<Input>) {
        for effect in applied.effects {
            self.on_effect(applied.index, effect, answers);
        }
        if let Some(token) = applied.request.and_then(|id| self.node.complete(id)) {
            self.post.put(Mail::Applied(token, applied.outcome));
        }
    }

    fn on_effect(&mut self, index: LogIndex, effect: Effect, answers: &mut Vec<Input>) {
        match effect {
            Effect::CompactionScheduled { revision } => {
                tracing::info!(revision, "compaction scheduled");
                self.shared.sweep.push(ToSweep::Scheduled);
            }
            Effect::ConfChanged { change } => {
                if change.is_some() {
                    // Also to whoever goes: it learns that the change was agreed on.
                    self.send();
                    self.shared.on_members(&[]);
                }
                let change = change.and_then(raft_change);
                answers.push(Input::ConfChange { index, change });
            }
            Effect::ClusterVersionChanged { before, now } => {
                tracing::info!(
                    from = before.as_deref().unwrap_or("not_decided"),
                    to = now.as_str(),
                    "updated cluster version"
                );
                self.shared.on_cluster_version(&now);
                if before.is_some_and(|before| is_below(&now, &before)) {
                    // A release before this one starts from what a snapshot says.
                    answers.push(Input::ForceSnapshot);
                }
                answers.push(Input::ClusterVersion(now));
            }
            Effect::DowngradeChanged => answers.push(Input::Downgrade(self.shared.downgrade())),
            Effect::AlarmsChanged => self.shared.on_alarms(),
            Effect::QuotaExceeded => self.shared.raise_no_space(),
            Effect::LeaderConfirmed
            | Effect::MemberPublished { .. }
            // Whoever asks the state learns of it.
            | Effect::AuthChanged => {}
            Effect::TokenAssigned { .. } | Effect::TokensRevoked { .. } => {
                self.shared.auth.on_effect(&effect);
            }
            Effect::LeaseGranted { id, ttl } => {
                self.shared.lessor.on_granted(id, ttl);
                self.shared.metrics.leases_granted.inc();
                self.shared.metrics.lease_ttl.observe(ttl as f64);
            }
            Effect::LeaseRevoked { id } => {
                let (waiting, expired) = self.shared.lessor.on_revoked(id);
                self.settle_leases(waiting);
                self.shared.metrics.leases_revoked.inc();
                self.shared.metrics.leases_expired.add(u64::from(expired));
            }
            Effect::LeaseCheckpointed { id, remaining } => {
                self.shared.lessor.on_checkpointed(id, remaining);
            }
        }
    }
}

/// Whether a version is of an earlier minor release.
fn is_below(version: &str, other: &str) -> bool {
    api::version::minor(version) < api::version::minor(other)
}

/// What raft must be told of an accepted change; nothing when only URLs changed.
fn raft_change(change: RaftChange) -> Option<ConfChange> {
    match change.kind {
        ChangeKind::AddNode => Some(ConfChange::AddVoter(change.node)),
        ChangeKind::AddLearnerNode => Some(ConfChange::AddLearner(change.node)),
        ChangeKind::RemoveNode => Some(ConfChange::Remove(change.node)),
        ChangeKind::UpdateNode => None,
    }
}
