//! The steps of a member's threads, its clients' and its peers'.

use std::path::Path;

use bytes::Bytes;
use node::machine::{Input, Output, Proposal, Token};
use node::member::{self, Outgoing, Snapshot};
use node::peer::{self, Received};
use state::{Effect, Step};
use storage::datadir::DataDir;
use storage::fs::{Fs, Open};
use storage::log::{Entry, EntryKind, LogIndex, SnapshotMeta};

use super::client::{Doing, check_key};
use super::site::{Chore, Running, Stage, Who};
use super::watch::Looked;
use super::{Cluster, Event};
use crate::life::{End, chain, stopped};
use crate::{Broken, broken};

/// How long a client waits, and a snapshot's sender, microseconds.
const PATIENCE_US: u64 = 9_000_000;
/// Time between two commits of the database, and two looks of a watcher, at most.
const COMMIT_US: u64 = 150_000;
const LOOK_US: u64 = 120_000;

impl Cluster<'_> {
    pub(super) fn running(&mut self, at: usize) -> Result<&mut Running, End> {
        let running = self.sites[at].running.as_mut();
        running.ok_or_else(|| broken!("site {at} has a step and no member").into())
    }

    /// Something arrives for the core, which takes it with whatever else is there at its next turn.
    pub(super) fn arrive(&mut self, at: usize, input: Input) -> Result<(), End> {
        let turn_us = self.plan.turn_us;
        if turn_us == 0 {
            return self.input(at, input);
        }
        let life = self.sites[at].life;
        let running = self.running(at)?;
        running.inbox.push(input);
        if !std::mem::replace(&mut running.turn_due, true) {
            let at_us = self.after(turn_us);
            self.schedule(at_us, Event::Turn { at, life });
        }
        Ok(())
    }

    /// The core takes everything that arrived.
    pub(super) fn step_turn(&mut self, at: usize) -> Result<(), End> {
        let running = self.running(at)?;
        running.turn_due = false;
        let inputs = std::mem::take(&mut running.inbox);
        self.inputs(at, inputs)
    }

    /// Gives the node an input that comes alone.
    pub(super) fn input(&mut self, at: usize, input: Input) -> Result<(), End> {
        self.inputs(at, vec![input])
    }

    /// Gives the node inputs, and its outputs to the threads.
    fn inputs(&mut self, at: usize, inputs: Vec<Input>) -> Result<(), End> {
        let running = self.running(at)?;
        let mut outputs = Vec::new();
        running.member.node.handle_all(inputs, &mut outputs);
        for output in outputs {
            let running = self.running(at)?;
            match output {
                Output::Persist(batch) => running.wal.push_back(Box::new(batch)),
                // The server's core does these before the node's next input.
                Output::LeaderChanged { leader, term } => {
                    self.stop_leases(at)?;
                    self.stats.terms = self.stats.terms.max(term.0);
                    self.trace
                        .say(|| format!("site {at}: leader {leader:?} in term {term}"));
                }
                Output::Settled => self.start_leases(at)?,
                output => running.core.push_back(output),
            }
        }
        self.wake(at)
    }

    /// Schedules a step for every queue that has work and none on its way.
    fn wake(&mut self, at: usize) -> Result<(), End> {
        let life = self.sites[at].life;
        let stalled_us = self.sites[at].stalled_until_us.saturating_sub(self.now_us);
        let (core_us, sync_us) = (self.plan.core_us, self.plan.sync_us);
        let running = self.running(at)?;
        let core = !running.core.is_empty() && !std::mem::replace(&mut running.core_due, true);
        let wal = !running.wal.is_empty() && !std::mem::replace(&mut running.wal_due, true);
        let chores =
            !running.chores.is_empty() && !std::mem::replace(&mut running.chores_due, true);
        if core {
            let at_us = self.after(core_us);
            self.schedule(at_us, Event::Core { at, life });
        }
        if wal {
            let at_us = self.after(sync_us) + stalled_us;
            self.schedule(at_us, Event::Wal { at, life });
        }
        if chores {
            let at_us = self.after(20_000);
            self.schedule(at_us, Event::Chore { at, life });
        }
        Ok(())
    }

    pub(super) fn step_wal(&mut self, at: usize) -> Result<(), End> {
        let site = &mut self.sites[at];
        let Some(running) = site.running.as_mut() else {
            return Ok(());
        };
        running.wal_due = false;
        let Some(batch) = running.wal.pop_front() else {
            return Ok(());
        };
        self.trace.say(|| {
            let first = batch.entries.first().map(|entry| entry.index.0);
            let (len, state) = (batch.entries.len(), batch.hard_state);
            let snapshot = batch.snapshot.as_ref().map(|snapshot| snapshot.meta.index);
            format!("site {at}: wal {len} entries from {first:?}, {state:?}, after {snapshot:?}")
        });
        let member = &mut running.member;
        member::persist(&*site.fs, &member.dir, &mut member.wal, &batch).map_err(chain)?;
        let number = batch.number;
        self.arrive(at, Input::Persisted { number })
    }

    pub(super) fn step_core(&mut self, at: usize) -> Result<(), End> {
        let running = self.running(at)?;
        running.core_due = false;
        let Some(output) = running.core.pop_front() else {
            return Ok(());
        };
        match output {
            Output::Apply(entries) => self.apply(at, &entries)?,
            Output::Send(messages) => self.send(at, messages),
            Output::ReadReady { tokens, .. } => {
                for token in tokens {
                    self.on_readable(at, token)?;
                }
            }
            Output::Rejected(rejected) => {
                for (token, error) in rejected {
                    self.trace.say(|| format!("site {at}: rejected: {error}"));
                    self.give_up(at, token)?;
                }
            }
            Output::Late(tokens) => {
                for token in tokens {
                    self.trace.say(|| format!("site {at}: too late"));
                    self.give_up(at, token)?;
                }
            }
            Output::TakeSnapshot(meta) => {
                let snapshot = Box::new(Snapshot::prepare(meta, &running.member.view));
                running.stage = Some(Stage::Commit(snapshot));
                self.next_stage(at);
            }
            Output::SendSnapshot(message) => running.chores.push_back(Chore::Send(message)),
            Output::InstallSnapshot(meta) => running.chores.push_back(Chore::Install(meta)),
            Output::SoleLeader(sole) => running.sole_leader = sole,
            Output::Published => running.published = true,
            Output::Transferred(token) => self.give_up(at, token)?,
            Output::AskVersions => self.ask_versions(at)?,
            Output::Removed => return self.retire(at),
            Output::Persist(_) | Output::LeaderChanged { .. } | Output::Settled => {
                unreachable!("is done at once, or the WAL's")
            }
        }
        self.wake(at)
    }

    fn retire(&mut self, at: usize) -> Result<(), End> {
        let id = self.sites[at].id;
        let members = self.running(at)?.member.view.members();
        if !members.is_removed(id) {
            return Err(broken!("site {at} stops as removed, and is not").into());
        }
        self.end_for_good(at);
        Ok(())
    }

    fn ask_versions(&mut self, at: usize) -> Result<(), End> {
        let members = self.running(at)?.member.view.members();
        let mut versions = Vec::new();
        for member in members.iter() {
            let id = api::ids::MemberId(member.id);
            let Some(other) = self.site_of(id).filter(|other| *other != at) else {
                continue;
            };
            let heard = self.sites[other].running.is_some() && self.network.reaches(at, other);
            versions.push((id, heard.then(|| api::version::SERVER.to_owned())));
        }
        self.arrive(at, Input::Versions(versions))
    }

    fn apply(&mut self, at: usize, entries: &[Entry]) -> Result<(), End> {
        for entry in entries {
            let running = self.running(at)?;
            if running.member.machine.pressure() {
                running.member.committer.commit().map_err(chain)?;
            }
            let skipped = entry.index <= running.member.view.applied().index;
            let applied = running.member.machine.apply(entry).map_err(stopped)?;
            let wanted = self.truth.on_applied(entry)?;
            let outcome = &applied.outcome;
            let judged = entry.kind == EntryKind::Normal && applied.request.is_some();
            if judged && !skipped && outcome.is_ok() != wanted {
                let text = broken!("entry {} gives {outcome:?}, not {wanted}", entry.index);
                return Err(text.into());
            }
            for effect in &applied.effects {
                self.on_effect(at, entry.index, effect)?;
            }
            if let Some(id) = applied.request {
                self.complete(at, id)?;
            }
        }
        let index = entries.last().map_or(LogIndex(0), |entry| entry.index);
        self.trace
            .say(|| format!("site {at}: applied up to {index}"));
        self.input(at, Input::Applied { index })
    }

    fn on_effect(&mut self, at: usize, index: LogIndex, effect: &Effect) -> Result<(), End> {
        match effect {
            Effect::ConfChanged { change } => {
                self.stats.conf_changes += u64::from(change.is_some());
                let change = Self::conf_change(*change);
                self.trace
                    .say(|| format!("site {at}: entry {index} is {change:?}"));
                self.input(at, Input::ConfChange { index, change })
            }
            Effect::ClusterVersionChanged { now, .. } => {
                self.input(at, Input::ClusterVersion(now.clone()))
            }
            Effect::LeaseGranted { id, ttl } => {
                let now_ms = self.now_ms();
                self.running(at)?.clock.on_granted(*id, *ttl, now_ms);
                Ok(())
            }
            Effect::LeaseRevoked { id } => {
                let now_ms = self.now_ms();
                self.running(at)?.clock.on_revoked(*id);
                self.stats.expired += u64::from(self.promises.on_revoked(*id, now_ms)?);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn complete(&mut self, at: usize, id: api::ids::RequestId) -> Result<(), End> {
        let running = self.running(at)?;
        let Some(token) = running.member.node.complete(id) else {
            return Ok(());
        };
        match running.waiting.remove(&token) {
            Some(Who::Client(number, operation)) => {
                let client = &mut self.clients[number];
                if client.number == operation && !matches!(client.doing, Doing::Nothing) {
                    client.on_written(&mut self.truth)?;
                    self.stats.acknowledgements += 1;
                }
            }
            Some(Who::Keeper(number, operation)) => self.on_kept(number, operation)?,
            Some(Who::Nobody) | None => {}
        }
        Ok(())
    }

    fn on_readable(&mut self, at: usize, token: Token) -> Result<(), End> {
        let running = self.running(at)?;
        let view = running.member.view.clone();
        match running.waiting.remove(&token) {
            Some(Who::Client(number, operation)) => {
                let client = &mut self.clients[number];
                if client.number == operation && !matches!(client.doing, Doing::Nothing) {
                    client.on_readable(&view, &mut self.truth)?;
                    self.stats.reads += 1;
                }
                Ok(())
            }
            Some(Who::Keeper(number, operation)) => self.on_renewable(at, number, operation),
            Some(Who::Nobody) | None => Ok(()),
        }
    }

    fn give_up(&mut self, at: usize, token: Token) -> Result<(), End> {
        match self.running(at)?.waiting.remove(&token) {
            Some(Who::Client(number, operation)) => {
                let client = &mut self.clients[number];
                if client.number == operation {
                    client.give_up();
                }
            }
            Some(Who::Keeper(number, operation)) => self.on_keeper_refused(number, operation),
            Some(Who::Nobody) | None => {}
        }
        Ok(())
    }

    fn next_stage(&mut self, at: usize) {
        let life = self.sites[at].life;
        let at_us = self.after(30_000);
        self.schedule(at_us, Event::Stage { at, life });
    }

    /// One step of the member's own snapshot.
    pub(super) fn step_stage(&mut self, at: usize) -> Result<(), End> {
        let (snaps, wals) = (self.plan.keep_snaps, self.plan.keep_wals);
        let site = &mut self.sites[at];
        let Some(running) = site.running.as_mut() else {
            return Ok(());
        };
        let member = &mut running.member;
        let next = match running.stage.take() {
            None => return Ok(()),
            Some(Stage::Commit(snapshot)) => {
                snapshot.commit(&mut member.committer).map_err(chain)?;
                Stage::Save(snapshot)
            }
            Some(Stage::Save(snapshot)) => {
                snapshot.save(&*site.fs, &member.dir).map_err(chain)?;
                Stage::Record(snapshot)
            }
            Some(Stage::Record(snapshot)) => {
                snapshot.record(&mut member.wal).map_err(chain)?;
                Stage::Purge(snapshot.meta.index)
            }
            Some(Stage::Purge(index)) => {
                member::purge(&*site.fs, &member.dir, snaps, wals).map_err(chain)?;
                return self.arrive(at, Input::SnapshotTaken { index });
            }
        };
        running.stage = Some(next);
        self.next_stage(at);
        Ok(())
    }

    /// The commit thread sends or installs a database.
    pub(super) fn step_chore(&mut self, at: usize) -> Result<(), End> {
        let running = self.running(at)?;
        running.chores_due = false;
        match running.chores.pop_front() {
            None => {}
            Some(Chore::Send(message)) => self.post(at, *message)?,
            Some(Chore::Install(meta)) => self.install(at, &meta)?,
        }
        self.wake(at)
    }

    fn post(&mut self, at: usize, message: node::raft::Message) -> Result<(), End> {
        let life = self.sites[at].life;
        let to = message.to;
        let running = self.running(at)?;
        let committer = &mut running.member.committer;
        let outgoing = Outgoing::pin(committer, message).map_err(chain)?;
        let mut image = Vec::new();
        for chunk in outgoing.image {
            image.extend_from_slice(&chunk.map_err(stopped)?);
        }
        let head = Bytes::from(peer::envelope(&outgoing.message));
        self.trace.say(|| {
            let meta = outgoing.message.snapshot.as_ref().map(|s| s.meta.clone());
            format!("site {at}: sends {} bytes of {meta:?} to {to}", image.len())
        });
        let Some(to) = self.site_of(to) else {
            return Ok(());
        };
        let times = self.network.travel(at, to, false, &mut self.rng);
        let Some(time) = times.first() else {
            return self.report((at, life), to, false);
        };
        let at_us = self.now_us + time + self.rng.below(1_000_000);
        let from = at;
        self.schedule(
            at_us,
            Event::Post {
                from,
                to,
                head,
                image,
                life,
            },
        );
        Ok(())
    }

    /// A database arrives; its sender hears whether it did, also from a connection that broke.
    pub(super) fn receive(
        &mut self,
        from: (usize, u64),
        to: usize,
        head: Bytes,
        image: &[u8],
    ) -> Result<(), End> {
        let received = self.take_in(to, head, image);
        self.report(from, to, matches!(received, Ok(true)))?;
        received.map(drop)
    }

    /// Writes a database, makes it durable, looks at it, and tells the node.
    fn take_in(&mut self, to: usize, mut head: Bytes, image: &[u8]) -> Result<bool, End> {
        let site = &self.sites[to];
        let Some(running) = &site.running else {
            return Ok(false);
        };
        let message = peer::open_envelope(&mut head)
            .map_err(|error| broken!("a snapshot does not open: {error}"))?
            .ok_or_else(|| broken!("a snapshot's head is incomplete"))?;
        let Some(meta) = message
            .snapshot
            .as_ref()
            .map(|snapshot| snapshot.meta.clone())
        else {
            return Err(broken!("a snapshot without a description").into());
        };
        let dir = running.member.dir.clone();
        let fs = site.fs.clone();
        write_received(&*fs, &dir, meta.index, image).map_err(stopped)?;
        member::verify(&fs, &dir.received_database(meta.index), &meta).map_err(chain)?;
        self.trace
            .say(|| format!("site {to}: received the database at {}", meta.index));
        self.input(to, Input::Received(message))?;
        Ok(true)
    }

    /// The sender of a snapshot hears what became of it, if it still lives.
    pub(super) fn report(
        &mut self,
        (from, life): (usize, u64),
        to: usize,
        arrived: bool,
    ) -> Result<(), End> {
        if self.sites[from].life != life {
            return Ok(());
        }
        let peer = self.sites[to].id;
        self.arrive(from, Input::ReportSnapshot { peer, arrived })
    }

    fn install(&mut self, at: usize, meta: &SnapshotMeta) -> Result<(), End> {
        let running = self.running(at)?;
        let installed = running.member.installer.install(meta).map_err(chain)?;
        if let Some(installed) = installed {
            let member = &mut running.member;
            member.machine = installed.machine;
            member.sweep = installed.sweep;
            member.committer = installed.committer;
            running.clock = super::lease::clock(&running.member.view);
        }
        let view = running.member.view.clone();
        self.stats.installs += 1;
        self.trace
            .say(|| format!("site {at}: installed the snapshot at {}", meta.index));
        self.truth.check_state(&view, &mut self.rng)?;
        if let Some(version) = view.members().cluster_version() {
            self.input(at, Input::ClusterVersion(version.to_owned()))?;
        }
        self.input(at, Input::Installed { index: meta.index })
    }

    pub(super) fn step_commit(&mut self, at: usize, life: u64) -> Result<(), End> {
        let next_us = self.after(COMMIT_US);
        self.schedule(next_us, Event::Commit { at, life });
        self.running(at)?.member.committer.commit().map_err(chain)?;
        Ok(())
    }

    pub(super) fn step_sweep(&mut self, at: usize, life: u64) -> Result<(), End> {
        let step = self.running(at)?.member.sweep.step().map_err(stopped)?;
        let most_us = if step == Step::Idle { 200_000 } else { 20_000 };
        let next_us = self.after(most_us);
        self.schedule(next_us, Event::Sweep { at, life });
        Ok(())
    }

    pub(super) fn step_check(&mut self, at: usize, life: u64) -> Result<(), End> {
        let next_us = self.after(2_000_000);
        self.schedule(next_us, Event::Check { at, life });
        let view = self.running(at)?.member.view.clone();
        self.truth.check_state(&view, &mut self.rng)?;
        // A member asks for streams now and then, and is told when it has no business to.
        let own = self.sites[at].id;
        let told = (0..self.sites.len()).any(|other| {
            let running = self.sites[other].running.as_ref();
            let knows = running.is_some_and(|run| run.member.view.members().is_removed(own));
            other != at && knows && self.network.reaches(at, other)
        });
        if told {
            self.end_for_good(at);
        }
        Ok(())
    }

    /// A removed member was told so, and stops.
    fn end_for_good(&mut self, at: usize) {
        self.trace
            .say(|| format!("site {at}: told that it was removed"));
        let site = &mut self.sites[at];
        site.running = None;
        site.life += 1;
        site.retired = true;
        for client in &mut self.clients {
            if client.site == at {
                client.give_up();
            }
        }
    }

    /// A message arrives.
    pub(super) fn deliver(&mut self, from: usize, to: usize, bytes: &Bytes) -> Result<(), End> {
        let Some(running) = &self.sites[to].running else {
            return self.unreachable(from, to);
        };
        let sender = self.sites[from].id;
        if running.member.view.members().is_removed(sender) {
            if self.sites[from].running.is_some() {
                self.end_for_good(from);
            }
            return Ok(());
        }
        match peer::decode(bytes) {
            Ok(Received::Message(message)) => self.arrive(to, Input::Message(message)),
            Ok(Received::LinkHeartbeat) => Ok(()),
            Err(error) => Err(broken!("a message does not decode: {error}").into()),
        }
    }

    fn unreachable(&mut self, from: usize, to: usize) -> Result<(), End> {
        if self.sites[from].running.is_some() && self.rng.one_in(3) {
            let peer = self.sites[to].id;
            return self.arrive(from, Input::ReportUnreachable { peer });
        }
        Ok(())
    }

    /// A client begins something, or loses patience.
    pub(super) fn act(&mut self, number: usize) -> Result<(), End> {
        let waits = !matches!(self.clients[number].doing, Doing::Nothing);
        let late = self.now_us > self.clients[number].since_us + PATIENCE_US;
        if !waits && self.calm {
            return Ok(());
        }
        let next_us = self.after(self.plan.think_us);
        self.schedule(next_us, Event::Client { number });
        if waits && late {
            self.clients[number].give_up();
        } else if !waits {
            self.begin(number)?;
        }
        Ok(())
    }

    fn begin(&mut self, number: usize) -> Result<(), End> {
        if self.rng.one_in(4) {
            self.clients[number].site = self.rng.below(self.sites.len() as u64) as usize;
        }
        let at = self.clients[number].site;
        let sleeps = self.sites[at].paused_until_us > self.now_us;
        let Some(running) = &mut self.sites[at].running else {
            self.clients[number].site = self.rng.below(self.sites.len() as u64) as usize;
            return Ok(());
        };
        // One that sleeps finds what it was asked when it wakes, before it hears of the others.
        if !running.published || sleeps && running.sole_leader {
            return Ok(());
        }
        let view = running.member.view.clone();
        if self.rng.one_in(6) && !sleeps {
            let key = self.plan.shape.key(&mut self.rng);
            return Ok(check_key(&view, &key, &self.truth)?);
        }
        if self.rng.one_in(3) {
            return self.begin_read(number, at, sleeps, &view);
        }
        let id = running.member.node.request_ids().next();
        let revision = view.revision();
        let data = self.plan.shape.request(id, revision, &mut self.rng).into();
        let client = &mut self.clients[number];
        client.begin(Doing::Write { id: id.0 }, &self.truth, self.now_us);
        let token = running.token(Who::Client(number, client.number));
        let kind = EntryKind::Normal;
        let proposal = Proposal {
            id,
            kind,
            data,
            token,
        };
        let proposal = Input::Propose(vec![proposal]);
        match sleeps {
            true => self.input(at, proposal),
            false => self.arrive(at, proposal),
        }
    }

    fn begin_read(
        &mut self,
        number: usize,
        at: usize,
        sleeps: bool,
        view: &state::View,
    ) -> Result<(), End> {
        let key = self.plan.shape.key(&mut self.rng);
        let client = &mut self.clients[number];
        client.begin(Doing::Read { key }, &self.truth, self.now_us);
        let operation = client.number;
        let running = self.running(at)?;
        if running.sole_leader {
            self.clients[number].on_readable(view, &mut self.truth)?;
            return Ok(());
        }
        let token = running.token(Who::Client(number, operation));
        let read = Input::ReadIndex(vec![token]);
        match sleeps {
            true => self.input(at, read),
            false => self.arrive(at, read),
        }
    }

    pub(super) fn look(&mut self, number: usize) -> Result<(), Broken> {
        let next_us = self.after(LOOK_US);
        self.schedule(next_us, Event::Watch { number });
        let watcher = &mut self.watchers[number];
        let alive = self.sites[watcher.site].running.as_ref();
        let Some(running) = alive.filter(|_| !self.rng.one_in(20)) else {
            watcher.site = self.rng.below(self.sites.len() as u64) as usize;
            return Ok(());
        };
        if self.sites[watcher.site].paused_until_us > self.now_us {
            return Ok(());
        }
        let view = running.member.view.clone();
        match watcher.look(&view, &self.truth, &mut self.rng)? {
            Looked::Delivered(events) => self.stats.events += events as u64,
            Looked::Cancelled => self.stats.cancelled += 1,
        }
        if self.rng.one_in(40) {
            let revision = watcher.next().saturating_sub(10) + self.rng.below(25) as i64;
            watcher.begin_at(revision.max(1));
        }
        Ok(())
    }
}

/// Writes what was received, as the receiver of a snapshot post does.
fn write_received(
    fs: &dyn Fs,
    dir: &DataDir,
    index: LogIndex,
    image: &[u8],
) -> std::io::Result<()> {
    let path = dir.received_database(index);
    let unfinished: &Path = &dir.snap().join(format!("tmp{}", index.0));
    let file = fs.open(unfinished, Open::Create { mode: 0o600 })?;
    file.set_len(0)?;
    file.write_all_at(image, 0)?;
    file.sync_data()?;
    drop(file);
    fs.rename(unfinished, &path)?;
    fs.sync_dir(&dir.snap())
}
