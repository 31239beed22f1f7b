//! The machine of one member: raft, what must be durable before what, who waits for what.

mod admit;
mod effect;
mod install;
pub mod membership;
mod own;
mod reads;
mod transfer;
mod waiters;

#[cfg(test)]
mod tests;

use api::version::major_minor;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use api::ids::{MemberId, RequestId};
use bytes::Bytes;
use storage::log::{ConfState, Entry, EntryKind, HardState, LogIndex, SnapshotMeta, Term};

pub use effect::{Input, Output, Persist, Proposal, Token};
use install::{Hold, Installing};
pub use membership::{MemberChange, Reconfigure};
use own::{Own, Versions};
use reads::Reads;
use transfer::Transfer;
use waiters::Waiters;

use crate::ids::RequestIds;
use crate::raft::{
    self, ConfChange, Message, MessageKind, Raft, Ready, RestoreError, Restored, Role,
};

/// What a member is told about itself.
#[derive(Clone, Debug)]
pub struct Config {
    pub raft: raft::Config,
    /// Milliseconds per tick (`--heartbeat-interval`).
    pub tick_ms: u64,
    /// A snapshot is taken when more entries than this were applied since the last one.
    pub snapshot_count: u64,
    /// Applied entries kept in memory for followers that lag.
    pub catch_up_entries: u64,
    /// Published to the cluster after start.
    pub name: String,
    pub client_urls: Vec<String>,
    /// The cluster version that this build stands for, `major.minor.0`.
    pub version: String,
    /// The cluster version in the state, when there is one.
    pub cluster_version: Option<String>,
    /// Index of the last snapshot in the WAL.
    pub snapshot_index: LogIndex,
    /// What the state had applied at boot. It may be ahead of the known commit index; entries up
    /// to here come again and are skipped.
    pub state_index: LogIndex,
    /// Shared with whoever encodes requests.
    pub request_ids: Arc<RequestIds>,
}

/// Batches that wait for the one that is under way, merged into one.
#[derive(Default)]
struct PersistQueue {
    next: Persist,
    in_flight: Option<InFlight>,
    /// Write a lone commit index too, which is otherwise held back for company.
    flush: bool,
    /// The newest hard state that the WAL has reported, or had at boot; its term and vote are
    /// durable.
    written: HardState,
    /// Messages that may leave only after the batch of this number.
    held: VecDeque<(u64, Message)>,
}

struct InFlight {
    number: u64,
    hard_state: Option<HardState>,
}

/// Entries between commit and apply.
struct ApplyQueue {
    entries: VecDeque<Entry>,
    /// Last entry handed to the state machine.
    handed: LogIndex,
    /// Last entry that the state machine reported, and its term.
    applied: LogIndex,
    applied_term: Term,
}

/// When the next snapshot is due.
struct Snapshots {
    last: LogIndex,
    forced: bool,
    under_way: bool,
}

/// When a member that was removed stops.
struct Leave {
    tick: u64,
    /// Even if nobody took over.
    latest_tick: u64,
    /// The term in which it was removed, if it led then.
    led_in: Option<Term>,
}

/// One member.
pub struct Node {
    config: Config,
    raft: Raft,
    tick: u64,
    persist: PersistQueue,
    apply: ApplyQueue,
    snapshots: Snapshots,
    waiters: Waiters,
    reads: Reads,
    /// Proposals that arrived while nobody led.
    parked: Vec<Proposal>,
    publish: Own,
    published_due: bool,
    versions: Versions,
    leader: Option<MemberId>,
    leader_term: Term,
    leader_since_tick: u64,
    /// Whether [`Output::Settled`] is still to come.
    unsettled: bool,
    sole_leader: bool,
    /// A received snapshot on its way to take the state's place.
    installing: Option<Installing>,
    /// Members to which a snapshot goes, for whom the log after it is kept.
    holds: BTreeMap<MemberId, Hold>,
    transfers: Vec<Transfer>,
    /// When this member, which was removed, stops.
    leaves: Option<Leave>,
    is_removed: bool,
    prioritises_revocations: bool,
}

impl Node {
    /// Starts from what was restored; nothing happens before [`Input::Start`].
    ///
    /// # Errors
    /// When the log, hard state and configuration do not fit together.
    pub fn new(config: Config, restored: &Restored) -> Result<Node, RestoreError> {
        let raft = Raft::new(&config.raft, restored)?;
        let applied = restored.applied.max(restored.before.0);
        let applied_term = raft.term_of(applied).unwrap_or_default();
        let hard_state = restored.hard_state;
        Ok(Node {
            versions: Versions::new(config.cluster_version.clone(), &config.version),
            snapshots: Snapshots {
                last: config.snapshot_index,
                forced: false,
                under_way: false,
            },
            config,
            raft,
            tick: 0,
            persist: PersistQueue {
                written: hard_state,
                ..Default::default()
            },
            apply: ApplyQueue {
                entries: VecDeque::new(),
                handed: applied,
                applied,
                applied_term,
            },
            waiters: Waiters::default(),
            reads: Reads::default(),
            parked: Vec::new(),
            publish: Own::Due,
            published_due: false,
            leader: None,
            leader_term: hard_state.term,
            leader_since_tick: 0,
            unsettled: true,
            sole_leader: false,
            installing: None,
            holds: BTreeMap::new(),
            transfers: Vec::new(),
            leaves: None,
            is_removed: false,
            prioritises_revocations: false,
        })
    }

    /// Takes one input and appends what must be done, in order.
    pub fn handle(&mut self, input: Input, outputs: &mut Vec<Output>) {
        self.handle_all([input], outputs);
    }

    /// Takes what arrived together and appends what all of it wants done: appends of one turn
    /// become one batch with one answer. [`Input::Received`] must come alone.
    pub fn handle_all(
        &mut self,
        inputs: impl IntoIterator<Item = Input>,
        outputs: &mut Vec<Output>,
    ) {
        for input in inputs {
            self.take_in(input, outputs);
        }
        self.advance(outputs);
    }

    fn take_in(&mut self, input: Input, outputs: &mut Vec<Output>) {
        match input {
            Input::Start => {}
            Input::Tick => self.on_tick(outputs),
            Input::Propose(proposals) => self.on_propose(proposals, outputs),
            Input::ProposeAsLeader(proposals) => self.on_propose_as_leader(proposals),
            Input::ReadIndex(tokens) => self.on_reads(tokens, outputs),
            Input::Persisted { number } => self.on_persisted(number, outputs),
            Input::Applied { index } => self.on_applied(index),
            Input::ConfChange { index, change } => self.on_conf_change(index, change, outputs),
            Input::ClusterVersion(version) => self.versions.on_set(version),
            Input::Downgrade(target) => self.on_downgrade(target.as_deref()),
            // A message that is refused is lost, as any may be.
            Input::Message(message) if message.kind == MessageKind::Snapshot => {}
            Input::Message(message) | Input::Received(message) => drop(self.raft.step(&message)),
            Input::ReportUnreachable { peer } => self.raft.report_unreachable(peer),
            Input::ReportSnapshot { peer, arrived } => self.on_snapshot_sent(peer, arrived),
            Input::Installed { index } => self.on_installed(index),
            Input::Reconfigure(change) => self.on_reconfigure(*change, outputs),
            Input::TransferLeader { to, token } => self.on_transfer(to, token, outputs),
            Input::Versions(answers) => self.on_versions(&answers),
            Input::ForceSnapshot => self.snapshots.forced = true,
            Input::SnapshotTaken { index } => {
                self.snapshots.under_way = false;
                self.snapshots.last = self.snapshots.last.max(index);
            }
            Input::Flush => self.persist.flush = true,
        }
    }

    /// Who waits for this request, when somebody does; the driver calls it for each applied entry
    /// that names one.
    pub fn complete(&mut self, id: RequestId) -> Option<Token> {
        if let Some(token) = self.waiters.take(id) {
            return Some(token);
        }
        if self.publish.on_applied(id) {
            self.published_due = true;
        } else {
            self.versions.setting.on_applied(id);
        }
        None
    }

    /// Source of the ids that proposals must carry.
    #[must_use]
    pub fn request_ids(&self) -> &Arc<RequestIds> {
        &self.config.request_ids
    }

    #[must_use]
    pub fn leader(&self) -> Option<MemberId> {
        self.raft.leader()
    }

    #[must_use]
    pub fn term(&self) -> Term {
        self.raft.term()
    }

    #[must_use]
    pub fn committed(&self) -> LogIndex {
        self.raft.committed()
    }

    #[must_use]
    pub fn applied(&self) -> LogIndex {
        self.apply.applied
    }

    /// Requests that wait for their entry: proposed by this member and not yet applied.
    #[must_use]
    pub fn proposals_pending(&self) -> usize {
        self.waiters.len()
    }

    /// Whether nothing is under way: all is durable, handed out and applied. A lone commit index
    /// may still be held back.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.persist.in_flight.is_none()
            && !self.persist.next.must_sync
            && self.apply.entries.is_empty()
            && self.apply.handed == self.apply.applied
            && !self.snapshots.under_way
            && self.installing.is_none()
    }

    /// What this member, when it leads, knows about another one's log.
    #[must_use]
    pub fn progress(&self, id: MemberId) -> Option<raft::Progress> {
        self.raft.progress(id)
    }

    /// Who got this member's vote in the present term, if anybody did.
    #[must_use]
    pub fn vote(&self) -> Option<MemberId> {
        self.raft.vote()
    }

    /// What this member is in the present term.
    #[must_use]
    pub fn role(&self) -> Role {
        self.raft.role()
    }

    /// The configuration that raft counts quorums by.
    #[must_use]
    pub fn conf(&self) -> &ConfState {
        self.raft.conf()
    }

    /// Whether this member leads.
    #[must_use]
    pub fn is_leader(&self) -> bool {
        self.raft.role() == Role::Leader
    }

    fn on_tick(&mut self, outputs: &mut Vec<Output>) {
        self.tick += 1;
        self.persist.flush = true;
        // The engine insists that a member which is its own quorum is elected with a durable log.
        let own_quorum_unsynced = self.is_sole_voter() && self.raft.persisted() < self.raft.last();
        if self.raft.role() == Role::Leader || !own_quorum_unsynced {
            self.raft.tick();
        }
        if let Some(deadline) = self.tick.checked_sub(self.timeout_ticks()) {
            self.expire_requests(deadline, outputs);
            self.parked
                .retain(|proposal| self.waiters.contains(proposal.id));
        }
        self.expire_transfers(outputs);
        self.hand_over();
        self.holds
            .retain(|_, hold| hold.until_tick.is_none_or(|until| self.tick < until));
        let (tick, is_needed) = (self.tick, self.is_needed());
        let may_leave =
            |leave: &mut Leave| leave.latest_tick <= tick || leave.tick <= tick && !is_needed;
        if self.leaves.take_if(may_leave).is_some() {
            outputs.push(Output::Removed);
        }
    }

    fn on_reads(&mut self, tokens: Vec<Token>, outputs: &mut Vec<Output>) {
        if self.is_removed {
            let refused = tokens.into_iter().map(|token| (token, api::Error::Stopped));
            outputs.push(Output::Rejected(refused.collect()));
            return;
        }
        self.reads.arrive(tokens, self.tick);
    }

    fn on_reconfigure(&mut self, change: Reconfigure, outputs: &mut Vec<Output>) {
        let Reconfigure { id, token, .. } = change;
        match change.check(self.config.raft.id, &self.raft) {
            Ok(data) => {
                let kind = EntryKind::ConfChange;
                let proposal = Proposal {
                    id,
                    kind,
                    data,
                    token,
                };
                self.on_propose(vec![proposal], outputs);
            }
            Err(error) => outputs.push(Output::Rejected(vec![(token, error)])),
        }
    }

    fn on_propose_as_leader(&mut self, proposals: Vec<Proposal>) {
        if self.raft.role() == Role::Leader && !self.is_removed {
            let entries = proposals.into_iter().map(|one| (one.kind, one.data));
            // What is dropped while leadership is being handed over is the next leader's affair.
            let _ = self.raft.propose(entries);
        }
    }

    fn on_persisted(&mut self, number: u64, outputs: &mut Vec<Output>) {
        let done = self
            .persist
            .in_flight
            .take()
            .expect("persisted without a batch under way");
        assert_eq!(done.number, number, "batches are persisted in order");
        if let Some(hard_state) = done.hard_state {
            self.persist.written = hard_state;
        }
        self.raft.on_persisted(number);
        if let Some(installing) = &mut self.installing {
            installing.is_durable |= installing.number <= number;
        }
        self.release_held(number, outputs);
        // What came meanwhile and needs no sync of its own was waiting for this one only.
        let next = &self.persist.next;
        if !next.must_sync && next.number > number {
            let number = next.number;
            self.raft.on_persisted(number);
            self.release_held(number, outputs);
        }
    }

    fn on_applied(&mut self, index: LogIndex) {
        assert!(
            index >= self.apply.applied && index <= self.apply.handed,
            "applied {index} is not within {}..={}",
            self.apply.applied,
            self.apply.handed,
        );
        if let Some(term) = self.raft.term_of(index) {
            self.apply.applied_term = term;
        }
        self.apply.applied = index;
        self.raft.on_applied(index);
        self.compact(index);
    }

    fn on_conf_change(
        &mut self,
        index: LogIndex,
        change: Option<ConfChange>,
        outputs: &mut Vec<Output>,
    ) {
        assert!(index > self.apply.applied && index <= self.apply.handed);
        // Withdrawn first, whatever the change: from its application on another member may count.
        self.set_sole_leader(false, outputs);
        let Some(change) = change else { return };
        if change == ConfChange::Remove(self.config.raft.id) {
            self.on_own_removal(outputs);
            return;
        }
        // The state machine accepted the change; an engine that cannot follow would count other
        // quorums than its peers.
        self.raft
            .apply_conf_change(change)
            .expect("an accepted change is a configuration");
    }

    /// This member was removed. It goes on for a while, so that the others learn that the change
    /// is committed: with two members, the one that is left could not elect itself without.
    ///
    /// Its engine keeps the old configuration. A leader outside of its own configuration is
    /// nothing that the engine can be; and since two configurations that follow each other share
    /// a member of every quorum, what it may still commit is what its successor must have.
    ///
    /// A leader hands over at once, so that nobody waits for an election, and stays longer while
    /// nobody has taken over.
    fn on_own_removal(&mut self, outputs: &mut Vec<Output>) {
        self.is_removed = true;
        let after = |ms: u64| self.tick + ms.div_ceil(self.config.tick_ms);
        let leads = self.raft.role() == Role::Leader;
        self.leaves = Some(Leave {
            tick: after(LINGER_MS),
            latest_tick: after(LINGER_LONGEST_MS),
            led_in: leads.then(|| self.raft.term()),
        });
        self.hand_over();
        let mut stopped: Vec<Token> = self.reads.abandon_all();
        stopped.extend(
            std::mem::take(&mut self.parked)
                .into_iter()
                .filter_map(|proposal| self.waiters.take(proposal.id)),
        );
        if !stopped.is_empty() {
            let stopped = stopped
                .into_iter()
                .map(|token| (token, api::Error::Stopped));
            outputs.push(Output::Rejected(stopped.collect()));
        }
    }

    /// Whether this member, which was removed while it led, has seen nobody take over.
    fn is_needed(&self) -> bool {
        let led_in = self.leaves.as_ref().and_then(|leave| leave.led_in);
        led_in.is_some_and(|term| self.raft.term() == term || self.raft.role() != Role::Follower)
    }

    /// Runs the engine until it has nothing more to say, then emits what became possible.
    fn advance(&mut self, outputs: &mut Vec<Output>) {
        loop {
            while self.raft.has_ready() {
                let ready = self.raft.ready();
                self.on_ready(ready, outputs);
            }
            self.observe_leader(outputs);
            self.maybe_campaign();
            self.propose_parked();
            self.propose_own();
            self.ask_reads();
            if !self.raft.has_ready() {
                break;
            }
        }
        self.ask_versions(outputs);
        if self.unsettled && self.raft.role() == Role::Leader && self.has_caught_up() {
            self.unsettled = false;
            outputs.push(Output::Settled);
        }
        let may_answer_alone =
            self.is_own_quorum() && self.apply.applied_term == self.raft.term() && !self.is_removed;
        self.set_sole_leader(may_answer_alone, outputs);
        self.emit_persist(outputs);
        self.emit_snapshot(outputs);
        self.emit_install(outputs);
        self.emit_apply(outputs);
        while let Some((index, tokens)) = self.reads.take_ready(self.apply.applied) {
            outputs.push(Output::ReadReady { tokens, index });
        }
        if std::mem::take(&mut self.published_due) {
            outputs.push(Output::Published);
        }
    }

    fn on_ready(&mut self, mut ready: Ready, outputs: &mut Vec<Output>) {
        let number = ready.number;
        let messages = std::mem::take(&mut ready.messages);
        if let Some(snapshot) = &ready.snapshot {
            self.begin_install(snapshot.meta.clone(), number, outputs);
        }
        self.queue_persist(&ready);
        let mut now = Vec::new();
        for message in messages {
            if message.kind == MessageKind::Snapshot {
                self.send_snapshot(message, outputs);
            } else if self.may_leave_now(&message) {
                now.push(message);
            } else {
                self.persist.held.push_back((number, message));
            }
        }
        if !now.is_empty() {
            outputs.push(Output::Send(now));
        }
        self.apply.entries.extend(ready.committed);
        for (context, index) in ready.reads {
            self.reads.on_confirmed(&context, index);
        }
        let nothing_to_sync = self.persist.in_flight.is_none() && !self.persist.next.must_sync;
        if nothing_to_sync {
            self.raft.on_persisted(number);
            self.release_held(number, outputs);
        }
    }

    /// Merges what one `Ready` wants persisted into the next batch.
    fn queue_persist(&mut self, ready: &Ready) {
        let next = &mut self.persist.next;
        next.number = ready.number;
        next.must_sync |= ready.must_sync;
        if ready.hard_state.is_some() {
            next.hard_state = ready.hard_state;
        }
        if let Some(snapshot) = &ready.snapshot {
            // Nothing that the log was to get before is in it any more.
            next.entries.clear();
            next.snapshot = Some(Box::new(snapshot.clone()));
        }
        if let Some(first) = ready.entries.first() {
            let kept = next
                .entries
                .iter()
                .take_while(|entry| entry.index < first.index)
                .count();
            next.entries.truncate(kept);
            next.entries.extend(ready.entries.iter().cloned());
        }
    }

    /// Votes and acknowledgements promise something, so they wait for the sync; nothing leaves
    /// with a term that could be forgotten.
    fn may_leave_now(&self, message: &Message) -> bool {
        !message.kind.waits_for_sync() && message.term <= self.persist.written.term
    }

    fn release_held(&mut self, number: u64, outputs: &mut Vec<Output>) {
        let free = self
            .persist
            .held
            .iter()
            .take_while(|(held, _)| *held <= number)
            .count();
        if free > 0 {
            let free = self.persist.held.drain(..free);
            let messages = free.map(|(_, message)| message).collect();
            outputs.push(Output::Send(without_superseded(messages)));
        }
    }

    fn emit_persist(&mut self, outputs: &mut Vec<Output>) {
        let flush = self.persist.flush && self.persist.next.hard_state.is_some();
        let due = self.persist.next.must_sync || flush;
        // The log's records of snapshots must not change places.
        let waits = self.snapshots.under_way && self.persist.next.snapshot.is_some();
        if self.persist.in_flight.is_some() || waits {
            return;
        }
        self.persist.flush = false;
        if !due {
            return;
        }
        let batch = std::mem::take(&mut self.persist.next);
        let (number, hard_state) = (batch.number, batch.hard_state);
        self.persist.in_flight = Some(InFlight { number, hard_state });
        outputs.push(Output::Persist(batch));
        #[cfg(feature = "plant-early-ack")]
        self.raft.on_persisted(number);
    }

    fn snapshot_is_due(&self) -> bool {
        let since = self.apply.applied.0 - self.snapshots.last.0;
        let due = since > self.config.snapshot_count || self.snapshots.forced && since > 0;
        let caught_up = self.apply.applied >= self.config.state_index;
        let busy = self.snapshots.under_way || self.installing.is_some() || self.is_removed;
        due && caught_up && !busy
    }

    fn emit_snapshot(&mut self, outputs: &mut Vec<Output>) {
        if self.snapshots.forced && self.apply.applied == self.snapshots.last {
            self.snapshots.forced = false;
        }
        if !self.snapshot_is_due() || self.apply.handed != self.apply.applied {
            return;
        }
        // The WAL's record counts only when the WAL knows its index to be committed, and the
        // record may be written by another thread than the batch that says so.
        if self.persist.written.commit < self.apply.applied {
            self.persist.flush = true;
            self.emit_persist(outputs);
            return;
        }
        self.snapshots.under_way = true;
        self.snapshots.forced = false;
        outputs.push(Output::TakeSnapshot(SnapshotMeta {
            index: self.apply.applied,
            term: self.apply.applied_term,
            conf: self.raft.conf().clone(),
        }));
    }

    /// Hands out committed entries, a slice at a time, as long as the state machine keeps up.
    fn emit_apply(&mut self, outputs: &mut Vec<Output>) {
        // A due snapshot waits for a moment at which everything handed out was applied.
        while !self.apply.entries.is_empty() && !self.snapshot_is_due() && self.installing.is_none()
        {
            if self.apply.handed.0 - self.apply.applied.0 >= APPLY_IN_FLIGHT_MAX {
                break;
            }
            let len = self.apply.entries.len().min(APPLY_SLICE_ENTRIES);
            let slice: Vec<Entry> = self.apply.entries.drain(..len).collect();
            if let (Some(first), Some(last)) = (slice.first(), slice.last()) {
                assert_eq!(
                    first.index,
                    self.apply.handed.next(),
                    "entries are applied in order"
                );
                self.apply.handed = last.index;
            }
            outputs.push(Output::Apply(slice));
        }
    }

    fn observe_leader(&mut self, outputs: &mut Vec<Output>) {
        let (leader, term) = (self.raft.leader(), self.raft.term());
        if (leader, term) == (self.leader, self.leader_term) {
            return;
        }
        if self.raft.role() != Role::Leader {
            self.set_sole_leader(false, outputs);
        }
        let lost = self.reads.abandon_rounds();
        if !lost.is_empty() {
            let lost = lost
                .into_iter()
                .map(|token| (token, api::Error::LeaderChanged))
                .collect();
            outputs.push(Output::Rejected(lost));
        }
        (self.leader, self.leader_term) = (leader, term);
        self.leader_since_tick = self.tick;
        self.unsettled = true;
        outputs.push(Output::LeaderChanged { leader, term });
        self.versions.on_leader();
        if self.raft.role() != Role::Leader {
            self.holds.clear();
        }
        self.finish_transfers(outputs);
    }

    fn set_sole_leader(&mut self, sole: bool, outputs: &mut Vec<Output>) {
        if self.sole_leader != sole {
            self.sole_leader = sole;
            outputs.push(Output::SoleLeader(sole));
        }
    }

    /// The only voter need not wait for an election timeout: nobody else can win.
    fn maybe_campaign(&mut self) {
        let settled = self.raft.persisted() == self.raft.last()
            && self.apply.applied == self.raft.committed();
        if self.is_sole_voter() && self.raft.role() != Role::Leader && settled {
            self.raft.campaign();
        }
    }

    fn propose_parked(&mut self) {
        if self.parked.is_empty() || self.raft.leader().is_none() {
            return;
        }
        let parked = std::mem::take(&mut self.parked);
        let entries = parked
            .iter()
            .map(|proposal| (proposal.kind, proposal.data.clone()));
        if self.raft.propose(entries).is_err() {
            self.parked = parked;
        }
    }

    /// Publishes this member, and as leader decides the cluster version.
    fn propose_own(&mut self) {
        let has_wish = self.versions.wanted.is_some();
        if self.publish == Own::Done && !has_wish || self.is_removed {
            return;
        }
        if self.raft.leader().is_none() || !self.raft.committed_in_term() {
            return;
        }
        let timeout_ticks = self.timeout_ticks();
        if self.publish.is_due(self.tick, timeout_ticks) {
            let id = self.config.request_ids.next();
            let (name, urls) = (&self.config.name, &self.config.client_urls);
            let data = own::attributes(id, self.config.raft.id, name, urls);
            self.publish = self.send_own(id, data);
        }
        let decides = self.raft.role() == Role::Leader && self.has_caught_up();
        if decides && self.versions.setting.is_due(self.tick, timeout_ticks) {
            let alone = self.is_own_quorum() && !self.has_others();
            let wanted = self.versions.wanted(alone, &self.config.version);
            if let Some(version) = wanted {
                let id = self.config.request_ids.next();
                let data = own::cluster_version(id, &version);
                self.versions.setting = self.send_own(id, data);
            }
        }
    }

    /// Only a state that has caught up tells which version the cluster has.
    fn has_caught_up(&self) -> bool {
        self.apply.applied_term == self.raft.term()
    }

    /// Whether the cluster has other members, voting or learning.
    fn has_others(&self) -> bool {
        let conf = self.raft.conf();
        conf.voters.len() + conf.learners.len() > 1
    }

    /// Others are asked again before anything is decided; a lone member decides now.
    fn on_downgrade(&mut self, target: Option<&str>) {
        let alone = !self.has_others();
        self.versions
            .on_downgrade(target, alone, &self.config.version);
    }

    fn on_versions(&mut self, answers: &[(MemberId, Option<String>)]) {
        let conf = self.raft.conf();
        let own = self.config.raft.id.0;
        let answer = |id: &u64| {
            let found = answers.iter().find(|(of, _)| of.0 == *id);
            found.and_then(|(_, version)| version.as_deref())
        };
        // Who is not in the answers was not heard of.
        let others: Vec<Option<&str>> = conf
            .voters
            .iter()
            .chain(&conf.learners)
            .filter(|id| **id != own)
            .map(answer)
            .collect();
        self.versions.on_answers(&others, &self.config.version);
    }

    /// A leader asks the others now and then what they run.
    fn ask_versions(&mut self, outputs: &mut Vec<Output>) {
        let decides = self.raft.role() == Role::Leader
            && self.has_caught_up()
            && self.has_others()
            && !self.is_removed;
        let every_ticks = VERSIONS_MS.div_ceil(self.config.tick_ms);
        if decides && self.versions.ask(self.tick, every_ticks) {
            outputs.push(Output::AskVersions);
        }
    }

    fn send_own(&mut self, id: RequestId, data: Bytes) -> Own {
        // A dropped proposal is repeated like a lost one, after the timeout.
        let _ = self
            .raft
            .propose(std::iter::once((EntryKind::Normal, data)));
        Own::Sent {
            id,
            tick: self.tick,
        }
    }

    fn ask_reads(&mut self) {
        if !self.reads.is_unconfirmed() {
            return;
        }
        if self.is_own_quorum() {
            if self.raft.committed_in_term() {
                self.reads.confirm_all(self.raft.committed());
            }
            return;
        }
        #[cfg(feature = "plant-unconfirmed-read")]
        if self.raft.role() == Role::Leader && self.raft.committed_in_term() {
            self.reads.confirm_all(self.raft.committed());
            return;
        }
        let may_ask = match self.raft.role() {
            // The engine forgets questions that come before the first commit of the term.
            Role::Leader => self.raft.committed_in_term(),
            Role::Follower => self.raft.leader().is_some(),
            Role::PreCandidate | Role::Candidate => false,
        };
        let retry_ticks = READ_RETRY_MS.div_ceil(self.config.tick_ms);
        if may_ask && self.reads.wants_round(self.tick, retry_ticks) {
            let context = Bytes::copy_from_slice(&self.config.request_ids.next().0.to_be_bytes());
            self.raft.read_index(&context);
            self.reads.begin_round(context, self.tick);
        }
    }

    fn is_sole_voter(&self) -> bool {
        let conf = self.raft.conf();
        conf.voters == [self.config.raft.id.0] && conf.voters_outgoing.is_empty()
    }

    fn is_own_quorum(&self) -> bool {
        self.raft.role() == Role::Leader && self.is_sole_voter()
    }

    /// Five seconds and two elections, as etcd has it.
    fn timeout_ticks(&self) -> u64 {
        REQUEST_BASE_MS.div_ceil(self.config.tick_ms) + 2 * self.config.raft.election_ticks as u64
    }

    /// Gives up what has waited since this tick or longer.
    fn expire_requests(&mut self, deadline: u64, outputs: &mut Vec<Output>) {
        let reads = self.reads.expire(deadline).into_iter();
        let mut rejected: Vec<_> = reads.map(|token| (token, api::Error::Timeout)).collect();
        let mut late = Vec::new();
        for (token, since_tick) in self.waiters.expire(deadline) {
            match self.lost_its_leader(since_tick) {
                true => rejected.push((token, api::Error::TimeoutDueToLeaderFail)),
                false => late.push(token),
            }
        }
        if !rejected.is_empty() {
            outputs.push(Output::Rejected(rejected));
        }
        if !late.is_empty() {
            outputs.push(Output::Late(late));
        }
    }

    /// Whether a proposal of this tick was made while the leader before was being lost, as far as
    /// etcd can tell.
    fn lost_its_leader(&self, since_tick: u64) -> bool {
        let election = 2 * self.config.raft.election_ticks as u64;
        let lost_tick = self.leader_since_tick.saturating_sub(election);
        since_tick > lost_tick && since_tick < self.leader_since_tick
    }
}

/// Leaves out acknowledgements that a later one to the same leader includes.
fn without_superseded(mut messages: Vec<Message>) -> Vec<Message> {
    let accepts =
        |message: &Message| message.kind == MessageKind::AppendResponse && !message.reject;
    let mut newest: Option<(MemberId, Term, LogIndex)> = None;
    let mut kept = messages.len();
    for at in (0..messages.len()).rev() {
        let message = &messages[at];
        if accepts(message) {
            let Message {
                to, term, index, ..
            } = *message;
            if newest.is_some_and(|newest| (newest.0, newest.1) == (to, term) && index <= newest.2)
            {
                continue;
            }
            newest = Some((to, term, index));
        }
        kept -= 1;
        messages.swap(kept, at);
    }
    messages.drain(..kept);
    messages
}

/// The cluster version that a release stands for: `3.7.1` is `3.7.0`.
#[must_use]
pub fn cluster_version_of(release: &str) -> String {
    let (major, minor) = major_minor(release).unwrap_or_default();
    format!("{major}.{minor}.0")
}

/// Entries in one [`Output::Apply`].
const APPLY_SLICE_ENTRIES: usize = 512;
/// Entries handed to the state machine and not yet reported.
const APPLY_IN_FLIGHT_MAX: u64 = 1024;
/// How long a removed member goes on, as in etcd.
const LINGER_MS: u64 = 1000;
/// How long one goes on that led, when nobody takes over.
const LINGER_LONGEST_MS: u64 = 15_000;
/// How often a leader asks what the others run, as in etcd.
const VERSIONS_MS: u64 = 4000;
/// A read-index round without an answer is followed by another.
const READ_RETRY_MS: u64 = 500;
/// Part of the request timeout that does not depend on elections.
const REQUEST_BASE_MS: u64 = 5000;
