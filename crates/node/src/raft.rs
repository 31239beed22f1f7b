//! The consensus engine behind a narrow seam: nothing outside this module names its crate.
//!
//! Every difference between the crate and etcd's raft is held here: configuration changes keep
//! etcd's numbers, fields that only the crate knows never leave, messages are checked before
//! they are stepped (the crate panics on some), and election timeouts follow from a seed.

mod check;
mod convert;
mod log_tail;
mod message;

#[cfg(test)]
mod tests;

use std::fmt;

use api::ids::MemberId;
use bytes::Bytes;
use raft::eraftpb;
use raft::{ProgressState, RaftState, RawNode, SnapshotStatus, StateRole};
use state::ChangeKind;
use storage::log::{
    ConfState, Entry, EntryKind, HardState, LogIndex, Snapshot, SnapshotMeta, Term,
};

use log_tail::LogTail;
pub use message::{Message, MessageKind};

/// How the engine is set up; ticks are heartbeats.
#[derive(Clone, Debug)]
pub struct Config {
    pub id: MemberId,
    /// Ticks without a leader before an election; the wait is drawn from `[n, 2n)`.
    pub election_ticks: usize,
    pub pre_vote: bool,
    /// Source of the election timeouts.
    pub seed: u64,
}

/// What the log, the snapshot and the database said at boot.
#[derive(Clone, Debug, Default)]
pub struct Restored {
    pub hard_state: HardState,
    /// The configuration at `applied`.
    pub conf: ConfState,
    /// The entry before the first of `entries`: a snapshot's, or index 0 and term 0.
    pub before: (LogIndex, Term),
    pub entries: Vec<Entry>,
    /// Entries up to here are not handed out again.
    pub applied: LogIndex,
}

/// Why a restored log cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RestoreError {
    /// An entry does not follow the one before it.
    Gap { after: LogIndex, found: LogIndex },
    /// The hard state says that entries are committed which the log does not have.
    Commit {
        commit: LogIndex,
        first: LogIndex,
        last: LogIndex,
    },
    /// What was applied lies outside of what is committed and kept.
    Applied {
        applied: LogIndex,
        before: LogIndex,
        commit: LogIndex,
    },
    /// The engine refused the configuration.
    Engine(String),
}

impl fmt::Display for RestoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RestoreError::Gap { after, found } => {
                write!(f, "raft log: entry {found} follows entry {after}")
            }
            RestoreError::Commit {
                commit,
                first,
                last,
            } => {
                write!(
                    f,
                    "raft log: commit index {commit} is not within {first}..={last}"
                )
            }
            RestoreError::Applied {
                applied,
                before,
                commit,
            } => {
                write!(
                    f,
                    "raft log: applied index {applied} is not within {before}..={commit}"
                )
            }
            RestoreError::Engine(text) => write!(f, "raft: {text}"),
        }
    }
}

impl std::error::Error for RestoreError {}

/// The role of this member in its term.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Follower,
    PreCandidate,
    Candidate,
    Leader,
}

/// A configuration change that was applied, as far as raft is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfChange {
    AddVoter(MemberId),
    AddLearner(MemberId),
    Remove(MemberId),
}

impl ConfChange {
    /// What raft must be told of a change that the state accepted; nothing when only URLs changed.
    #[must_use]
    pub fn of(change: state::RaftChange) -> Option<ConfChange> {
        match change.kind {
            ChangeKind::AddNode => Some(ConfChange::AddVoter(change.node)),
            ChangeKind::AddLearnerNode => Some(ConfChange::AddLearner(change.node)),
            ChangeKind::RemoveNode => Some(ConfChange::Remove(change.node)),
            ChangeKind::UpdateNode => None,
        }
    }
}

/// Why a proposal was not taken: there is no leader, or it is handing over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dropped;

/// Why a message from a peer was not stepped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused(pub &'static str);

/// Everything that the engine wants done, in the order of its numbers.
#[derive(Debug, Default)]
pub struct Ready {
    /// Grows by one per `Ready`; named again by [`Raft::on_persisted`].
    pub number: u64,
    /// Present when it changed.
    pub hard_state: Option<HardState>,
    /// Takes the place of the whole log; the entries follow it.
    pub snapshot: Option<Snapshot>,
    /// To be appended to the log; may replace entries from their first index on.
    pub entries: Vec<Entry>,
    /// Whether term, vote or entries changed, so that a sync must cover them.
    pub must_sync: bool,
    /// Committed, and durable on this member.
    pub committed: Vec<Entry>,
    pub messages: Vec<Message>,
    /// Rounds of read-index that were confirmed, with the index that reads must see.
    pub reads: Vec<(Bytes, LogIndex)>,
}

/// What a leader knows about another member's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The last entry that is known to be in its log.
    pub matched: LogIndex,
    /// The entry that is sent to it next.
    pub next: LogIndex,
    /// Whether it was heard of since the last check of the quorum.
    pub is_active: bool,
    /// Whether it is still being found out where its log ends.
    pub is_probed: bool,
    /// Whether a snapshot is on its way to it.
    pub in_snapshot: bool,
}

/// The engine of one member.
pub struct Raft {
    node: RawNode<LogTail>,
    seed: u64,
    election_ticks: usize,
    conf: ConfState,
    /// A snapshot that was handed out and is not durable yet. The engine's log has nothing before
    /// it any more while its applied index still points there, so that it must not look.
    restoring: Option<LogIndex>,
}

impl Raft {
    /// Starts from what was restored.
    ///
    /// # Errors
    /// When the parts do not fit together.
    pub fn new(config: &Config, restored: &Restored) -> Result<Raft, RestoreError> {
        let last = check_restored(restored)?;
        let initial = RaftState::new(
            convert::hard_state_in(&restored.hard_state),
            convert::conf_in(&restored.conf),
        );
        let mut tail = LogTail::new(initial, restored.before);
        restored.entries.iter().for_each(|entry| tail.push(entry));
        assert_eq!(tail.last(), last.0);
        let settings = raft::Config {
            id: config.id.0,
            election_tick: config.election_ticks,
            heartbeat_tick: 1,
            applied: restored.applied.0,
            max_size_per_msg: APPEND_BYTES_MAX,
            max_inflight_msgs: APPENDS_IN_FLIGHT_MAX,
            check_quorum: true,
            pre_vote: config.pre_vote,
            max_committed_size_per_ready: COMMITTED_BYTES_MAX,
            ..Default::default()
        };
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let node = RawNode::new(&settings, tail, &logger)
            .map_err(|error| RestoreError::Engine(error.to_string()))?;
        let mut raft = Raft {
            node,
            seed: config.seed ^ config.id.0,
            election_ticks: config.election_ticks,
            conf: restored.conf.clone(),
            restoring: None,
        };
        let tail = raft.node.mut_store();
        tail.set_conf(&restored.conf);
        tail.on_applied(restored.applied.max(restored.before.0));
        raft.settle();
        Ok(raft)
    }

    /// One heartbeat interval passed.
    pub fn tick(&mut self) {
        if self.restoring.is_none() {
            self.node.tick();
            self.settle();
        }
    }

    /// Starts an election now.
    pub fn campaign(&mut self) {
        // Fails only for messages of a peer.
        let _ = self.node.campaign();
        self.settle();
    }

    /// Appends to the log when this member leads, or forwards to the leader.
    ///
    /// # Errors
    /// When nobody leads or leadership is being handed over; nothing was taken then.
    pub fn propose(
        &mut self,
        proposals: impl Iterator<Item = (EntryKind, Bytes)>,
    ) -> Result<(), Dropped> {
        let entries: Vec<eraftpb::Entry> = proposals
            .map(|(kind, data)| {
                let mut entry = eraftpb::Entry::default();
                convert::set_data(&mut entry, kind, data);
                entry
            })
            .collect();
        if entries.is_empty() {
            return Ok(());
        }
        let mut message = eraftpb::Message::default();
        message.set_msg_type(eraftpb::MessageType::MsgPropose);
        message.from = self.node.raft.id;
        message.set_entries(entries.into());
        let taken = self.node.raft.step(message).map_err(|_| Dropped);
        self.settle();
        taken
    }

    /// Asks for a round of read-index; its answer comes in a later [`Ready`] or never.
    pub fn read_index(&mut self, context: &[u8]) {
        self.node.read_index(context.to_vec());
        self.settle();
    }

    /// Takes a message from a peer.
    ///
    /// # Errors
    /// When the message does not make sense; the engine has not seen it then.
    pub fn step(&mut self, message: &Message) -> Result<(), Refused> {
        self.check(message)?;
        // The engine's own errors are dropped proposals and stale messages; both are losses
        // that the sender's retries cover.
        let _ = self.node.raft.step(convert::message_in(message));
        self.settle();
        Ok(())
    }

    /// A message to this member was lost.
    pub fn report_unreachable(&mut self, id: MemberId) {
        self.node.report_unreachable(id.0);
        self.settle();
    }

    /// The snapshot that a [`MessageKind::Snapshot`] announced has arrived, or not.
    pub fn report_snapshot(&mut self, id: MemberId, arrived: bool) {
        let status = if arrived {
            SnapshotStatus::Finish
        } else {
            SnapshotStatus::Failure
        };
        self.node.report_snapshot(id.0, status);
        self.settle();
    }

    /// Hands leadership to another voter.
    pub fn transfer_leader(&mut self, to: MemberId) {
        self.node.transfer_leader(to.0);
        self.settle();
    }

    /// Whether [`Raft::ready`] has anything to say.
    #[must_use]
    pub fn has_ready(&self) -> bool {
        self.node.has_ready()
    }

    /// Takes what the engine wants done. Entries become readable by the engine at once; they
    /// count as durable on this member only after [`Raft::on_persisted`].
    pub fn ready(&mut self) -> Ready {
        let mut from = self.node.ready();
        let entries = from.take_entries();
        let snapshot = from.snapshot();
        let snapshot =
            (snapshot.get_metadata().index > 0).then(|| convert::snapshot_out(snapshot.clone()));
        if let Some(snapshot) = &snapshot {
            self.node.mut_store().restore(&snapshot.meta);
            self.conf.clone_from(&snapshot.meta.conf);
            self.restoring = Some(snapshot.meta.index);
        }
        self.node.mut_store().append(&entries);
        let mut messages = from.take_messages();
        messages.append(&mut from.take_persisted_messages());
        let ready = Ready {
            number: from.number(),
            hard_state: from.hs().map(convert::hard_state_out),
            snapshot,
            entries: entries.into_iter().map(convert::entry_out).collect(),
            must_sync: from.must_sync(),
            committed: from
                .take_committed_entries()
                .into_iter()
                .map(convert::entry_out)
                .collect(),
            messages: messages
                .into_iter()
                .filter_map(convert::message_out)
                .collect(),
            reads: from
                .take_read_states()
                .into_iter()
                .map(|read| (Bytes::from(read.request_ctx), LogIndex(read.index)))
                .collect(),
        };
        self.node.advance_append_async(from);
        self.settle();
        ready
    }

    /// Everything up to this [`Ready`] is durable.
    pub fn on_persisted(&mut self, number: u64) {
        self.node.on_persist_ready(number);
        // To the engine a durable snapshot is applied; the member sees to it that no entry
        // behind it is applied before its database is in place.
        if let Some(index) = self.restoring.filter(|index| *index <= self.persisted()) {
            self.restoring = None;
            self.node.advance_apply_to(index.0);
        }
        self.settle();
    }

    /// Everything up to this entry was applied.
    pub fn on_applied(&mut self, index: LogIndex) {
        let log = &self.node.raft.raft_log;
        if index.0 <= log.applied || self.restoring.is_some() {
            return;
        }
        self.node.mut_store().on_applied(index);
        self.node.advance_apply_to(index.0);
        self.settle();
    }

    /// Forgets entries up to `before`, and more applied ones when their data exceeds `bytes`.
    pub fn compact(&mut self, applied: LogIndex, before: LogIndex, bytes: usize) {
        let tail = self.node.mut_store();
        tail.compact(before.min(applied));
        tail.shrink(bytes, applied);
    }

    /// Makes an applied configuration change count.
    ///
    /// # Errors
    /// When the result would not be a configuration, for example one without voters.
    pub fn apply_conf_change(&mut self, change: ConfChange) -> Result<&ConfState, RestoreError> {
        let (kind, id) = match change {
            ConfChange::AddVoter(id) => (eraftpb::ConfChangeType::AddNode, id),
            ConfChange::AddLearner(id) => (eraftpb::ConfChangeType::AddLearnerNode, id),
            ConfChange::Remove(id) => (eraftpb::ConfChangeType::RemoveNode, id),
        };
        let mut to = eraftpb::ConfChange {
            node_id: id.0,
            ..Default::default()
        };
        to.set_change_type(kind);
        let conf = self
            .node
            .apply_conf_change(&to)
            .map_err(|error| RestoreError::Engine(error.to_string()))?;
        self.conf = convert::conf_out(&conf);
        self.node.mut_store().set_conf(&self.conf);
        self.settle();
        Ok(&self.conf)
    }

    #[must_use]
    pub fn conf(&self) -> &ConfState {
        &self.conf
    }

    #[must_use]
    pub fn role(&self) -> Role {
        match self.node.raft.state {
            StateRole::Follower => Role::Follower,
            StateRole::PreCandidate => Role::PreCandidate,
            StateRole::Candidate => Role::Candidate,
            StateRole::Leader => Role::Leader,
        }
    }

    #[must_use]
    pub fn term(&self) -> Term {
        Term(self.node.raft.term)
    }

    /// The leader of the term, when known.
    #[must_use]
    pub fn leader(&self) -> Option<MemberId> {
        Some(self.node.raft.leader_id)
            .filter(|id| *id != raft::INVALID_ID)
            .map(MemberId)
    }

    #[must_use]
    pub fn committed(&self) -> LogIndex {
        LogIndex(self.node.raft.raft_log.committed)
    }

    /// The last entry of the log that is durable on this member.
    #[must_use]
    pub fn persisted(&self) -> LogIndex {
        LogIndex(self.node.raft.raft_log.persisted)
    }

    #[must_use]
    pub fn last(&self) -> LogIndex {
        LogIndex(self.node.raft.raft_log.last_index())
    }

    /// Whether an entry of the current term is committed, before which a leader may not answer
    /// for its predecessors.
    #[must_use]
    pub fn committed_in_term(&self) -> bool {
        self.node.raft.commit_to_current_term()
    }

    /// Term of an entry that is still kept.
    #[must_use]
    pub fn term_of(&self, index: LogIndex) -> Option<Term> {
        self.node.store().term_of(index.0).map(Term)
    }

    /// The engine draws a new election timeout from the thread's random source whenever it
    /// changes its role or term. Ours is a function of seed and term, put back after each call,
    /// so that a run can be repeated.
    fn settle(&mut self) {
        let span = self.election_ticks as u64;
        let timeout = span + mix(self.seed ^ mix(self.node.raft.term)) % span;
        self.node
            .raft
            .set_randomized_election_timeout(timeout as usize);
    }

    /// How far another member is, as far as this one leads.
    #[must_use]
    pub fn progress(&self, id: MemberId) -> Option<Progress> {
        let raft = &self.node.raft;
        if raft.state != StateRole::Leader {
            return None;
        }
        let progress = raft.prs().get(id.0)?;
        Some(Progress {
            matched: LogIndex(progress.matched),
            next: LogIndex(progress.next_idx),
            is_probed: progress.state == ProgressState::Probe,
            is_active: progress.recent_active,
            in_snapshot: progress.state == ProgressState::Snapshot,
        })
    }

    /// Who got this member's vote in the present term, if anybody did.
    #[must_use]
    pub fn vote(&self) -> Option<MemberId> {
        let vote = self.node.raft.vote;
        (vote != 0).then_some(MemberId(vote))
    }

    /// Whether leadership is being handed over.
    #[must_use]
    pub fn is_transferring(&self) -> bool {
        self.node.raft.lead_transferee.is_some()
    }
}

/// Last index of a restored log whose parts fit together.
fn check_restored(restored: &Restored) -> Result<LogIndex, RestoreError> {
    let before = restored.before.0;
    let mut last = before;
    for entry in &restored.entries {
        if entry.index != last.next() {
            return Err(RestoreError::Gap {
                after: last,
                found: entry.index,
            });
        }
        last = entry.index;
    }
    let commit = restored.hard_state.commit;
    let fresh = restored.hard_state == HardState::default();
    if !fresh && (commit < before || commit > last) {
        return Err(RestoreError::Commit {
            commit,
            first: before,
            last,
        });
    }
    let applied = restored.applied;
    if applied != LogIndex(0) && (applied < before || applied > commit.max(before)) {
        return Err(RestoreError::Applied {
            applied,
            before,
            commit,
        });
    }
    Ok(last)
}

/// The finalizer of SplitMix64: spreads any input over all bits.
pub(crate) fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Bytes of entries in one append to a follower, as etcd has it.
const APPEND_BYTES_MAX: u64 = 1 << 20;
/// Appends that may be on their way to one follower, as etcd has it.
const APPENDS_IN_FLIGHT_MAX: usize = 512;
/// Bytes of committed entries taken at once.
const COMMITTED_BYTES_MAX: u64 = 16 << 20;
