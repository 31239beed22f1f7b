//! One life of the member: from boot to a death, in steps.
//!
//! Three queues stand for the server's threads: the core (raft and apply), the WAL, and the
//! snapshot procedure; commits of the database, sweeps, ticks and clients come in between.

use std::collections::VecDeque;
use std::sync::Arc;

use api::ids::RequestId;
use node::machine::{Input, Output, Persist, Proposal, Token};
use node::member::{self, Member, Snapshot};
use node::raft::ConfChange;
use state::{Effect, Step};
use storage::bolt::Defrag;
use storage::fs::Fs;
use storage::log::{Entry, EntryKind, LogIndex};
use storage::simfs::{Faults, Rng, SimFs};
use storage::wal;

use crate::ledger::Ledger;
use crate::workload::Shape;
use crate::{Broken, Trace, broken};

/// What one seed's lives have in common.
#[derive(Clone, Debug)]
pub struct Setup {
    pub config: member::Config,
    pub shape: Shape,
    pub keep_snaps: usize,
    pub keep_wals: usize,
    /// Requests that may be under way at once.
    pub requests_max: usize,
    /// How often each of [`STEPS`] is taken, so that in some runs one thread is slow.
    pub weights: [u64; STEPS.len()],
}

/// What a step can be.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    Propose,
    Read,
    Wal,
    Core,
    Commit,
    Sweep,
    Defragment,
    Snapshot,
    Tick,
    Check,
}

/// Every kind of step with its usual weight.
pub const STEPS: [(Kind, u64); 10] = [
    (Kind::Propose, 20),
    (Kind::Read, 8),
    (Kind::Wal, 30),
    (Kind::Core, 22),
    (Kind::Commit, 6),
    (Kind::Sweep, 5),
    (Kind::Defragment, 2),
    (Kind::Snapshot, 6),
    (Kind::Tick, 3),
    (Kind::Check, 2),
];

/// Why a life is over.
#[derive(Debug)]
pub enum End {
    /// An operation on the disk failed; the member stopped, as it must.
    Stopped(String),
    /// A promise was broken.
    Broken(Broken),
}

impl From<Broken> for End {
    fn from(broken: Broken) -> End {
        End::Broken(broken)
    }
}

pub(crate) fn stopped(error: impl std::fmt::Display) -> End {
    End::Stopped(error.to_string())
}

/// Stages of work that the WAL thread does in order.
enum WalTask {
    Append(Box<Persist>),
    Sync,
    Report(u64),
}

/// Stages of a snapshot; the record may come between any two tasks of the WAL thread.
enum SnapshotStage {
    Commit(Box<Snapshot>),
    Save(Box<Snapshot>),
    Record(Box<Snapshot>),
    Purge(LogIndex),
}

/// A member that runs.
pub struct Life<'a> {
    setup: &'a Setup,
    fs: Arc<dyn Fs>,
    member: Member,
    core: VecDeque<Output>,
    wal: VecDeque<WalTask>,
    snapshot: Option<SnapshotStage>,
    /// A defragmentation under way.
    defrag: Defrag,
    sole_leader: bool,
    published: bool,
    next_token: u64,
    /// Reads under way, with the last entry acknowledged when they arrived.
    reads: Vec<(Token, u64)>,
    requests: usize,
}

impl<'a> Life<'a> {
    /// Boots and checks what it finds.
    pub fn boot(
        setup: &'a Setup,
        (disk, faults): (&SimFs, Faults),
        ledger: &mut Ledger,
        rng: &mut Rng,
        trace: &mut Trace,
    ) -> Result<Life<'a>, End> {
        let fs: Arc<dyn Fs> = Arc::new(disk.clone());
        let member = Member::boot(&fs, &setup.config).map_err(chain)?;
        let report = &member.report;
        trace.say(|| format!("booted: {report:?}"));
        let (from, database) = (report.snapshot, member.view.applied().index);
        // Our own look at the disk meets no faults.
        disk.set_faults(Faults::default());
        let applied = wal::Applied {
            index: database,
            ..wal::Applied::default()
        };
        let read = wal::read(&*fs, member.dir.wal(), from, applied)
            .map_err(|error| broken!("the log of a booted member cannot be read: {error}"))?;
        disk.set_faults(faults);
        ledger.on_boot(from.index.0, &read.entries, database.0)?;
        ledger.check_state(&member.view, rng)?;
        let mut life = Life {
            setup,
            fs,
            member,
            core: VecDeque::new(),
            wal: VecDeque::new(),
            snapshot: None,
            defrag: Defrag::default(),
            sole_leader: false,
            published: false,
            next_token: 0,
            reads: Vec::new(),
            requests: 0,
        };
        life.input(Input::Start, ledger);
        Ok(life)
    }

    /// Takes one random step.
    pub fn step(
        &mut self,
        ledger: &mut Ledger,
        rng: &mut Rng,
        trace: &mut Trace,
    ) -> Result<(), End> {
        match self.draw_step(rng) {
            Kind::Propose => self.propose(ledger, rng, trace),
            Kind::Read => self.read(ledger, rng, trace)?,
            Kind::Wal => self.step_wal(ledger, trace)?,
            Kind::Core => self.step_core(ledger, rng, trace)?,
            Kind::Commit => self.commit(trace)?,
            Kind::Defragment => self.defragment(trace)?,
            Kind::Sweep => self.sweep(trace)?,
            Kind::Snapshot => self.step_snapshot(ledger, trace)?,
            Kind::Tick => {
                trace.say(|| "tick".into());
                self.input(Input::Tick, ledger);
            }
            Kind::Check => ledger.check_state(&self.member.view, rng)?,
        }
        Ok(())
    }

    fn draw_step(&self, rng: &mut Rng) -> Kind {
        let weights = &self.setup.weights;
        let mut at = rng.below(weights.iter().sum());
        for ((kind, _), weight) in STEPS.iter().zip(weights) {
            match at.checked_sub(*weight) {
                Some(rest) => at = rest,
                None => return *kind,
            }
        }
        unreachable!("the number is below the sum of the weights")
    }

    /// Carries out everything that is under way, and a last commit.
    pub fn settle(
        &mut self,
        ledger: &mut Ledger,
        rng: &mut Rng,
        trace: &mut Trace,
    ) -> Result<(), End> {
        self.input(Input::Flush, ledger);
        while !self.core.is_empty() || !self.wal.is_empty() || self.snapshot.is_some() {
            self.step_core(ledger, rng, trace)?;
            self.step_wal(ledger, trace)?;
            self.step_snapshot(ledger, trace)?;
        }
        self.commit(trace)?;
        if !self.published || !self.sole_leader {
            return Err(broken!("a settled member does not lead").into());
        }
        if self.requests > 0 || !self.reads.is_empty() {
            return Err(broken!("{} requests found no answer", self.requests).into());
        }
        if self.member.view.applied().index.0 < ledger.acknowledged() {
            return Err(broken!("entry {} is not applied", ledger.acknowledged()).into());
        }
        if self.member.view.revision() < ledger.shown_revision() {
            return Err(broken!(
                "revision {} was shown, it is {} now",
                ledger.shown_revision(),
                self.member.view.revision()
            )
            .into());
        }
        ledger.check_state(&self.member.view, rng)?;
        Ok(())
    }

    /// A clean stop: a snapshot of everything.
    pub fn stop(
        mut self,
        ledger: &mut Ledger,
        rng: &mut Rng,
        trace: &mut Trace,
    ) -> Result<(), End> {
        trace.say(|| "clean stop".into());
        self.settle(ledger, rng, trace)?;
        self.input(Input::ForceSnapshot, ledger);
        self.settle(ledger, rng, trace)?;
        self.member.wal.close().map_err(stopped)
    }

    fn input(&mut self, input: Input, ledger: &mut Ledger) {
        let mut outputs = Vec::new();
        self.member.node.handle(input, &mut outputs);
        for output in outputs {
            match output {
                // The WAL thread takes it from here; everything else is the core's, in order.
                Output::Persist(batch) => {
                    ledger.on_append(&batch.entries);
                    let (number, must_sync) = (batch.number, batch.must_sync);
                    self.wal.push_back(WalTask::Append(Box::new(batch)));
                    if must_sync {
                        self.wal.push_back(WalTask::Sync);
                    }
                    self.wal.push_back(WalTask::Report(number));
                }
                output => self.core.push_back(output),
            }
        }
    }

    fn propose(&mut self, ledger: &mut Ledger, rng: &mut Rng, trace: &mut Trace) {
        let room = self.setup.requests_max.saturating_sub(self.requests) as u64;
        let count = (1 + rng.below(4)).min(room);
        if count == 0 || !self.published {
            return;
        }
        let revision = ledger.model().revision();
        let mut proposals = Vec::new();
        for _ in 0..count {
            let id = self.member.node.request_ids().next();
            let data = self.setup.shape.request(id, revision, rng).into();
            let token = self.token();
            proposals.push(Proposal {
                id,
                kind: EntryKind::Normal,
                data,
                token,
            });
        }
        trace.say(|| format!("propose {count} requests"));
        self.requests += proposals.len();
        self.input(Input::Propose(proposals), ledger);
    }

    fn token(&mut self) -> Token {
        self.next_token += 1;
        Token(self.next_token)
    }

    /// A linearizable read: answered by a network thread alone, or by way of the node.
    fn read(
        &mut self,
        ledger: &mut Ledger,
        rng: &mut Rng,
        trace: &mut Trace,
    ) -> Result<(), Broken> {
        if !self.published {
            return Ok(());
        }
        if self.sole_leader && rng.one_in(2) {
            trace.say(|| "read alone".into());
            return self.answer_read(ledger.acknowledged(), ledger);
        }
        trace.say(|| "read by index".into());
        let token = self.token();
        self.reads.push((token, ledger.acknowledged()));
        self.input(Input::ReadIndex(vec![token]), ledger);
        Ok(())
    }

    fn answer_read(&self, acknowledged: u64, ledger: &mut Ledger) -> Result<(), Broken> {
        let applied = self.member.view.applied().index.0;
        if applied < acknowledged {
            return Err(broken!(
                "a read that arrived after entry {acknowledged} was acknowledged sees {applied}"
            ));
        }
        let revision = self.member.view.revision();
        if revision < ledger.shown_revision() {
            let shown = ledger.shown_revision();
            return Err(broken!("revision {shown} was shown before, now {revision}"));
        }
        ledger.on_shown(revision);
        Ok(())
    }

    fn step_core(
        &mut self,
        ledger: &mut Ledger,
        rng: &mut Rng,
        trace: &mut Trace,
    ) -> Result<(), End> {
        let Some(output) = self.core.pop_front() else {
            return Ok(());
        };
        match output {
            Output::Apply(entries) => self.apply(&entries, ledger, trace)?,
            Output::ReadReady { tokens, .. } => {
                for token in tokens {
                    let at = self.reads.iter().position(|(read, _)| *read == token);
                    let at = at.ok_or_else(|| broken!("a read is answered twice"))?;
                    let (_, acknowledged) = self.reads.swap_remove(at);
                    self.answer_read(acknowledged, ledger)?;
                }
            }
            Output::TakeSnapshot(meta) => {
                trace.say(|| format!("snapshot at {}", meta.index));
                let snapshot = Snapshot::prepare(meta, &self.member.view);
                self.snapshot = Some(SnapshotStage::Commit(Box::new(snapshot)));
            }
            Output::SoleLeader(sole) => self.sole_leader = sole,
            Output::Published => {
                self.published = true;
                if self.member.view.revision() < ledger.shown_revision() {
                    let shown = ledger.shown_revision();
                    return Err(broken!("a member serves below shown revision {shown}").into());
                }
                ledger.check_state(&self.member.view, rng)?;
            }
            Output::Rejected(rejected) => self.on_rejected(&rejected)?,
            Output::Late(tokens) => self.requests -= tokens.len(),
            Output::Send(messages) => {
                return Err(broken!("messages to nobody: {messages:?}").into());
            }
            Output::SendSnapshot(_)
            | Output::InstallSnapshot(_)
            | Output::Transferred(_)
            | Output::AskVersions
            | Output::Removed => {
                return Err(broken!("a lone member wants something of others").into());
            }
            Output::LeaderChanged { .. } | Output::Settled | Output::Persist(_) => {}
        }
        Ok(())
    }

    /// Where a thread is slow, requests may time out; nothing is said about whether they will
    /// take effect.
    fn on_rejected(&mut self, rejected: &[(Token, api::Error)]) -> Result<(), Broken> {
        for (token, error) in rejected {
            if *error != api::Error::Timeout {
                return Err(broken!("a request of a leader is refused: {error}"));
            }
            match self.reads.iter().position(|(read, _)| read == token) {
                Some(at) => {
                    self.reads.swap_remove(at);
                }
                None => self.requests -= 1,
            }
        }
        Ok(())
    }

    fn apply(
        &mut self,
        entries: &[Entry],
        ledger: &mut Ledger,
        trace: &mut Trace,
    ) -> Result<(), End> {
        for entry in entries {
            if self.member.machine.pressure() {
                self.commit(trace)?;
            }
            let applied = self.member.machine.apply(entry).map_err(stopped)?;
            let wanted = ledger.on_applied(entry)?;
            trace.say(|| format!("applied {}: {:?}", entry.index, applied.outcome));
            if applied.request.is_some() && applied.outcome.is_ok() != wanted.is_ok() {
                return Err(broken!(
                    "entry {}: the state says {:?}, the replay {wanted:?}",
                    entry.index,
                    applied.outcome
                )
                .into());
            }
            for effect in &applied.effects {
                self.on_effect(entry.index, effect, ledger);
            }
            if let Some(id) = applied.request {
                self.complete(id, entry.index, ledger);
            }
        }
        let index = entries.last().map_or(LogIndex(0), |entry| entry.index);
        self.input(Input::Applied { index }, ledger);
        Ok(())
    }

    fn complete(&mut self, id: RequestId, index: LogIndex, ledger: &mut Ledger) {
        if self.member.node.complete(id).is_some() {
            self.requests -= 1;
            ledger.on_acknowledged(index.0);
        }
    }

    fn on_effect(&mut self, index: LogIndex, effect: &Effect, ledger: &mut Ledger) {
        match effect {
            Effect::ConfChanged { change } => {
                let change = change.and_then(ConfChange::of);
                self.input(Input::ConfChange { index, change }, ledger);
            }
            Effect::ClusterVersionChanged { now, .. } => {
                self.input(Input::ClusterVersion(now.clone()), ledger);
            }
            _ => {}
        }
    }

    fn step_wal(&mut self, ledger: &mut Ledger, trace: &mut Trace) -> Result<(), End> {
        let Some(task) = self.wal.pop_front() else {
            return Ok(());
        };
        let wal = &mut self.member.wal;
        match task {
            WalTask::Append(batch) => {
                trace.say(|| {
                    let first = batch.entries.first().map(|entry| entry.index.0);
                    let (len, state) = (batch.entries.len(), batch.hard_state);
                    format!("wal: append {len} entries from {first:?}, {state:?}")
                });
                wal.append(batch.hard_state, &batch.entries)
                    .map_err(stopped)?;
            }
            WalTask::Sync => {
                trace.say(|| "wal: sync".into());
                wal.sync().map_err(stopped)?;
            }
            WalTask::Report(number) => self.input(Input::Persisted { number }, ledger),
        }
        Ok(())
    }

    fn step_snapshot(&mut self, ledger: &mut Ledger, trace: &mut Trace) -> Result<(), End> {
        match self.snapshot.take() {
            None => {}
            Some(SnapshotStage::Commit(snapshot)) => {
                trace.say(|| "snapshot: commit".into());
                snapshot.commit(&mut self.member.committer).map_err(chain)?;
                self.snapshot = Some(SnapshotStage::Save(snapshot));
            }
            Some(SnapshotStage::Save(snapshot)) => {
                trace.say(|| "snapshot: save".into());
                snapshot.save(&*self.fs, &self.member.dir).map_err(chain)?;
                self.snapshot = Some(SnapshotStage::Record(snapshot));
            }
            Some(SnapshotStage::Record(snapshot)) => {
                trace.say(|| format!("snapshot: record of {}", snapshot.meta.index));
                snapshot.record(&mut self.member.wal).map_err(chain)?;
                self.snapshot = Some(SnapshotStage::Purge(snapshot.meta.index));
            }
            Some(SnapshotStage::Purge(index)) => {
                let (snaps, wals) = (self.setup.keep_snaps, self.setup.keep_wals);
                let removed = member::purge(&*self.fs, &self.member.dir, snaps, wals);
                let removed = removed.map_err(chain)?;
                trace.say(|| format!("snapshot: purged {removed:?}"));
                self.input(Input::SnapshotTaken { index }, ledger);
            }
        }
        Ok(())
    }

    fn commit(&mut self, trace: &mut Trace) -> Result<(), End> {
        let done = self.member.committer.commit().map_err(chain)?;
        trace.say(|| {
            format!(
                "database: committed {} ops at {}",
                done.ops, done.durable.index
            )
        });
        Ok(())
    }

    fn defragment(&mut self, trace: &mut Trace) -> Result<(), End> {
        let step = self.member.committer.defragment(&mut self.defrag);
        let step = step.map_err(chain)?;
        trace.say(|| format!("defragmentation: {step:?}"));
        if step.done {
            self.defrag = Defrag::default();
        }
        Ok(())
    }

    fn sweep(&mut self, trace: &mut Trace) -> Result<(), End> {
        let step = self.member.sweep.step().map_err(chain)?;
        if step != Step::Idle {
            trace.say(|| format!("sweep: {step:?}"));
        }
        Ok(())
    }
}

/// An error with its sources: the member stops, for whatever reason.
pub(crate) fn chain(error: impl std::error::Error) -> End {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    End::Stopped(text)
}
