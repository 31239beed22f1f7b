//! A cluster in one thread, on virtual time: one to five members on the shipping code, a network
//! that loses, delays, repeats and reorders, and whatever else goes wrong.
//!
//! Each member is its parts and the queues that are threads in the server: the core (raft and
//! apply), the WAL, the commit thread, the sweep. An event takes one step of one of them, delivers
//! a message, lets a client act, or breaks something. When the time of faults is over everything
//! heals, and the cluster must come to rest: all members equal, and every one of them serving.
//!
//! Checked throughout: no entry is ever another one ([`truth`]); every answer is linearizable
//! ([`client`]); watchers miss and repeat nothing ([`watch`]); no lease ends while it is renewed,
//! and each does when it is not ([`lease`]); states are equal at equal index.

pub mod client;
mod faults;
pub mod lease;
pub mod network;
pub mod plan;
pub mod site;
mod steps;
pub mod truth;
pub mod watch;

use std::collections::BTreeMap;

use bytes::Bytes;
use node::machine::Input;
use node::member::Member;
use node::peer;
use node::raft::Message;
use storage::simfs::{Faults, Rng};

use crate::life::{End, chain};
use crate::run::Stats;
use crate::{Broken, Trace, broken};
use client::Client;
use lease::{Keeper, Promises};
use network::Network;
use plan::{BEGIN_MS, Plan, TICK_MS, founder};
use site::{Running, Site};
use truth::Truth;
use watch::Watcher;

/// Something that happens at some time.
enum Event {
    Tick {
        at: usize,
        life: u64,
    },
    /// The core takes what arrived.
    Turn {
        at: usize,
        life: u64,
    },
    /// The core carries out one of the node's outputs.
    Core {
        at: usize,
        life: u64,
    },
    Wal {
        at: usize,
        life: u64,
    },
    Stage {
        at: usize,
        life: u64,
    },
    Chore {
        at: usize,
        life: u64,
    },
    Commit {
        at: usize,
        life: u64,
    },
    Sweep {
        at: usize,
        life: u64,
    },
    Check {
        at: usize,
        life: u64,
    },
    /// A message, as bytes.
    Deliver {
        from: usize,
        to: usize,
        bytes: Bytes,
    },
    /// A snapshot and its database.
    Post {
        from: usize,
        to: usize,
        head: Bytes,
        image: Vec<u8>,
        life: u64,
    },
    Start {
        at: usize,
    },
    /// The power of a site fails.
    Power {
        at: usize,
    },
    Client {
        number: usize,
    },
    Watch {
        number: usize,
    },
    Keeper {
        number: usize,
    },
    Fault,
    Calm,
}

/// A run.
pub struct Cluster<'a> {
    plan: Plan,
    rng: Rng,
    trace: &'a mut Trace,
    now_us: u64,
    events: BTreeMap<(u64, u64), Event>,
    scheduled: u64,
    sites: Vec<Site>,
    network: Network,
    truth: Truth,
    clients: Vec<Client>,
    watchers: Vec<Watcher>,
    keepers: Vec<Keeper>,
    promises: Promises,
    /// The time of faults is over.
    calm: bool,
    stats: Stats,
}

/// Longest time that a healed cluster may take to come to rest, microseconds.
const REST_US: u64 = 90_000_000;

/// Runs a seed.
///
/// # Errors
/// The first promise that was broken.
pub fn run(seed: u64, trace: &mut Trace) -> Result<Stats, Broken> {
    let mut rng = Rng::new(seed ^ 0x636c_7573_7465_7273);
    let plan = Plan::draw(seed, &mut rng);
    trace.say(|| format!("seed {seed}: {plan:?}"));
    let sites = (0..plan.members).map(|at| plan.site(at)).collect();
    let clients = (0..plan.clients).map(|n| Client::new(n % plan.members));
    let watchers = (0..2).map(|n| Watcher::new(n % plan.members));
    let mut network = Network::default();
    network.heal();
    let mut cluster = Cluster {
        clients: clients.collect(),
        watchers: watchers.collect(),
        keepers: (0..2).map(|n| Keeper::new(n % plan.members)).collect(),
        promises: Promises::default(),
        plan,
        rng,
        trace,
        now_us: 0,
        events: BTreeMap::new(),
        scheduled: 0,
        sites,
        network,
        truth: Truth::default(),
        calm: false,
        stats: Stats::default(),
    };
    cluster.stats.clusters = 1;
    let outcome = cluster.play();
    let at_us = cluster.now_us;
    match outcome {
        Ok(()) => Ok(cluster.stats),
        Err(Broken(text)) => Err(broken!("at {at_us} us: {text}")),
    }
}

impl Cluster<'_> {
    fn play(&mut self) -> Result<(), Broken> {
        for at in 0..self.sites.len() {
            self.schedule(0, Event::Start { at });
        }
        for number in 0..self.clients.len() {
            self.schedule(1000 * number as u64, Event::Client { number });
        }
        for number in 0..self.watchers.len() {
            self.schedule(2000, Event::Watch { number });
        }
        for number in 0..self.keepers.len() {
            self.schedule(3000, Event::Keeper { number });
        }
        self.schedule(self.plan.fault_every_us, Event::Fault);
        self.schedule(self.plan.faults_us, Event::Calm);
        let mut calm_since_us = None;
        while let Some(((at_us, _), event)) = self.events.pop_first() {
            self.now_us = at_us;
            self.happen(event)?;
            if self.calm {
                let since_us = *calm_since_us.get_or_insert(self.now_us);
                if self.now_us > since_us + REST_US {
                    return Err(broken!(
                        "the cluster does not come to rest: {}",
                        self.describe()
                    ));
                }
                if self.is_at_rest() {
                    break;
                }
            }
        }
        self.check_all()
    }

    fn schedule(&mut self, at_us: u64, event: Event) {
        self.scheduled += 1;
        self.events.insert((at_us, self.scheduled), event);
    }

    fn after(&mut self, most_us: u64) -> u64 {
        self.now_us + 1 + self.rng.below(most_us.max(1))
    }

    /// An event of a member that does not live any more, or sleeps, is passed over, or waits.
    fn happen(&mut self, event: Event) -> Result<(), Broken> {
        let owner = match &event {
            Event::Tick { at, life }
            | Event::Turn { at, life }
            | Event::Core { at, life }
            | Event::Wal { at, life }
            | Event::Stage { at, life }
            | Event::Chore { at, life }
            | Event::Commit { at, life }
            | Event::Sweep { at, life }
            | Event::Check { at, life } => Some((*at, *life)),
            Event::Deliver { to, .. } | Event::Post { to, .. } => Some((*to, self.sites[*to].life)),
            _ => None,
        };
        if let Some((at, life)) = owner {
            let site = &self.sites[at];
            if site.life != life {
                return self.lose(&event);
            }
            if site.paused_until_us > self.now_us {
                let later_us = site.paused_until_us + self.rng.below(1000);
                self.schedule(later_us, event);
                return Ok(());
            }
        }
        let at = owner.map(|(at, _)| at);
        let outcome = self.dispatch(event);
        match (outcome, at) {
            (Ok(()), _) => Ok(()),
            (Err(End::Broken(broken)), _) => Err(broken),
            (Err(End::Stopped(why)), at) => self.on_stopped(at, &why),
        }
    }

    fn dispatch(&mut self, event: Event) -> Result<(), End> {
        match event {
            Event::Tick { at, life } => {
                self.schedule(self.now_us + TICK_MS * 1000, Event::Tick { at, life });
                self.input(at, Input::Tick)?;
                self.expire_leases(at)
            }
            Event::Turn { at, .. } => self.step_turn(at),
            Event::Core { at, .. } => self.step_core(at),
            Event::Wal { at, .. } => self.step_wal(at),
            Event::Stage { at, .. } => self.step_stage(at),
            Event::Chore { at, .. } => self.step_chore(at),
            Event::Commit { at, life } => self.step_commit(at, life),
            Event::Sweep { at, life } => self.step_sweep(at, life),
            Event::Check { at, life } => self.step_check(at, life),
            Event::Deliver { from, to, bytes } => self.deliver(from, to, &bytes),
            Event::Post {
                from,
                to,
                head,
                image,
                life,
            } => self.receive((from, life), to, head, &image),
            Event::Start { at } => self.start(at),
            Event::Power { at } => {
                if !self.calm && self.sites[at].running.is_some() {
                    self.trace.say(|| format!("site {at}: the power fails"));
                    self.fail(at, true);
                }
                Ok(())
            }
            Event::Client { number } => self.act(number),
            Event::Watch { number } => self.look(number).map_err(End::from),
            Event::Keeper { number } => self.keep(number),
            Event::Fault => {
                if !self.calm {
                    let next_us = self.after(self.plan.fault_every_us);
                    self.schedule(next_us, Event::Fault);
                    self.on_fault()?;
                }
                Ok(())
            }
            Event::Calm => {
                self.calm_down();
                Ok(())
            }
        }
    }

    /// What was on its way to a member that died is lost, and its sender may hear of it.
    fn lose(&mut self, event: &Event) -> Result<(), Broken> {
        if let Event::Post { from, to, life, .. } = event {
            let (from, to, life) = (*from, *to, *life);
            let outcome = self.report((from, life), to, false);
            return match outcome {
                Ok(()) | Err(End::Stopped(_)) => Ok(()),
                Err(End::Broken(broken)) => Err(broken),
            };
        }
        Ok(())
    }

    /// A member stopped by itself: its disk must have had a reason.
    fn on_stopped(&mut self, at: Option<usize>, why: &str) -> Result<(), Broken> {
        let doomed = self
            .sites
            .iter()
            .position(|site| site.doomed && has_failed(site));
        let Some(at) = doomed.or(at).filter(|at| self.sites[*at].doomed) else {
            return Err(broken!("a member stopped for no reason: {why}"));
        };
        self.trace.say(|| format!("site {at}: stopped: {why}"));
        self.stats.halts += 1;
        self.crash(at);
        Ok(())
    }

    /// The machine or the process dies, and starts again after a while.
    fn crash(&mut self, at: usize) {
        let site = &self.sites[at];
        let sync_failed = site.doomed && has_failed_sync(site);
        let power = !self.rng.one_in(if sync_failed { 2 } else { 3 });
        self.fail(at, power);
    }

    fn fail(&mut self, at: usize, power: bool) {
        let site = &mut self.sites[at];
        for client in &mut self.clients {
            if client.site == at {
                client.give_up();
            }
        }
        site.running = None;
        site.life += 1;
        let sync_failed = site.doomed && has_failed_sync(site);
        let disk = if power {
            site.disk.crash(&mut self.rng)
        } else {
            site.disk.restart()
        };
        disk.set_faults(Faults::default());
        site.set_disk(disk);
        site.doomed = false;
        let long_us = [50_000, 1_000_000, 4_000_000][self.rng.below(3) as usize];
        let start_us = self.now_us + 1000 + self.rng.below(long_us);
        self.schedule(start_us, Event::Start { at });
        if sync_failed && !power {
            // Memory and disk differ, and the next member begins in that memory.
            self.trace
                .say(|| format!("site {at}: starts again on what it could not sync"));
            let power_us = start_us + self.rng.below(3_000_000);
            self.schedule(power_us, Event::Power { at });
        }
    }

    fn start(&mut self, at: usize) -> Result<(), End> {
        if self.sites[at].retired || self.sites[at].running.is_some() {
            return Ok(());
        }
        if !self.sites[at].joined && !self.prepare_join(at) {
            return Ok(());
        }
        let site = &mut self.sites[at];
        site.config.unix_ms = BEGIN_MS + self.now_us / 1000 + site.life;
        let booted = Member::boot(&site.fs, &site.config);
        let member = match booted {
            Ok(member) => member,
            // A removed member does not come back.
            Err(node::member::Error::Refused(node::boot::Refusal::Removed)) => {
                site.retired = true;
                self.trace
                    .say(|| format!("site {at}: removed, does not start"));
                return Ok(());
            }
            Err(error) => return Err(chain(error)),
        };
        self.stats.lives += 1;
        let report = &member.report;
        self.trace.say(|| format!("site {at}: booted: {report:?}"));
        if member.id != site.id {
            return Err(broken!("site {at} is member {} now", member.id).into());
        }
        site.life += 1;
        let life = site.life;
        member.view.set_watching(0, !self.rng.one_in(3));
        self.truth.check_state(&member.view, &mut self.rng)?;
        self.sites[at].running = Some(Running::new(member));
        let first_us = self.after(TICK_MS * 1000);
        self.schedule(first_us, Event::Tick { at, life });
        for most_us in [50_000, 100_000] {
            let at_us = self.after(most_us);
            self.schedule(at_us, Event::Commit { at, life });
        }
        let sweep_us = self.after(50_000);
        self.schedule(sweep_us, Event::Sweep { at, life });
        let check_us = self.after(300_000);
        self.schedule(check_us, Event::Check { at, life });
        self.input(at, Input::Start)
    }

    /// Asks the members about a place that was to be added; false while nobody knows it.
    fn prepare_join(&mut self, at: usize) -> bool {
        let id = self.sites[at].id;
        let knows = |site: &&Site| {
            let members = site.running.as_ref().map(|run| run.member.view.members());
            members.is_some_and(|members| members.member(id).is_some())
        };
        let Some(site) = self.sites.iter().find(knows) else {
            if self.calm {
                // Its change was lost.
                self.sites[at].retired = true;
            } else {
                let later_us = self.after(500_000);
                self.schedule(later_us, Event::Start { at });
            }
            return false;
        };
        let Some(running) = &site.running else {
            return false;
        };
        let members: Vec<state::Member> = running.member.view.members().iter().cloned().collect();
        let cluster = running.member.cluster;
        let own = founder(at);
        let name = |member: &state::Member| match member.peer_urls == own.peer_urls {
            true => own.name.clone(),
            false => format!("other {:x}", member.id),
        };
        let initial = members.iter().map(|member| node::boot::InitialMember {
            name: name(member),
            peer_urls: member.peer_urls.clone(),
        });
        let config = &mut self.sites[at].config;
        config.initial_cluster = initial.collect();
        let running = node::boot::Running { cluster, members };
        let same = &api::cluster::same_texts;
        let joined = node::boot::join(&config.name, &config.initial_cluster, running, same);
        config.joined = Some(joined.expect("the members list the one that joins"));
        self.sites[at].joined = true;
        self.stats.joins += 1;
        true
    }

    fn calm_down(&mut self) {
        self.trace.say(|| "--- everything heals".into());
        self.calm = true;
        self.network.heal();
        for at in 0..self.sites.len() {
            let site = &mut self.sites[at];
            site.paused_until_us = site.paused_until_us.min(self.now_us + 1);
            site.stalled_until_us = 0;
            site.doomed = false;
            site.disk.set_faults(Faults::default());
            if site.running.is_none() && !site.retired {
                self.schedule(self.now_us + 1000, Event::Start { at });
            }
        }
    }

    /// Sends what a member said; who cannot be reached is reported now and then.
    fn send(&mut self, from: usize, messages: Vec<Message>) {
        for message in messages {
            let Some(to) = self.site_of(message.to) else {
                continue;
            };
            // A forwarded proposal that arrived twice would be two proposals; streams do not
            // repeat.
            let may_repeat = message.kind != node::raft::MessageKind::Propose;
            let times = self.network.travel(from, to, may_repeat, &mut self.rng);
            self.stats.messages += 1;
            let mut bytes = Vec::new();
            peer::encode(&message, &mut bytes);
            let bytes = Bytes::from(bytes);
            for time in times {
                let bytes = bytes.clone();
                self.schedule(self.now_us + time, Event::Deliver { from, to, bytes });
            }
        }
    }

    fn site_of(&self, id: api::ids::MemberId) -> Option<usize> {
        self.sites.iter().position(|site| site.id == id)
    }

    /// A site whose member leads, in the highest term when several believe it.
    fn leader_site(&self) -> Option<usize> {
        let leads = |site: &Site| {
            let node = &site.running.as_ref()?.member.node;
            node.is_leader().then(|| node.term())
        };
        let leaders = self.sites.iter().enumerate();
        leaders
            .filter_map(|(at, site)| Some((leads(site)?, at)))
            .max()
            .map(|(_, at)| at)
    }

    /// Whether all members are equal and idle, somebody leads, and no client waits.
    fn is_at_rest(&self) -> bool {
        let last = self.truth.last();
        let settled = |site: &Site| match &site.running {
            Some(run) => {
                let node = &run.member.node;
                let equal = run.member.view.applied().index.0 == last;
                equal
                    && !lease::has_kept(&run.member.view)
                    && run.published
                    && run.is_idle()
                    && node.is_idle()
            }
            None => site.retired,
        };
        let quiet = self
            .clients
            .iter()
            .all(|client| matches!(client.doing, client::Doing::Nothing));
        quiet && self.leader_site().is_some() && self.sites.iter().all(settled)
    }

    fn describe(&self) -> String {
        let mut text = format!("truth at {}", self.truth.last());
        for (at, site) in self.sites.iter().enumerate() {
            let line = match &site.running {
                Some(run) => {
                    let node = &run.member.node;
                    format!(
                        "; site {at} {} at {}, committed {}, term {}, leader {:?}, published {}, \
                         idle {} {}",
                        site.id,
                        run.member.view.applied().index,
                        node.committed(),
                        node.term(),
                        node.leader(),
                        run.published,
                        run.is_idle(),
                        node.is_idle(),
                    )
                }
                None => format!("; site {at} {} down, retired {}", site.id, site.retired),
            };
            text.push_str(&line);
        }
        text
    }

    /// The last look, at a cluster that has come to rest.
    fn check_all(&mut self) -> Result<(), Broken> {
        let mut confs = Vec::new();
        for at in 0..self.sites.len() {
            let Some(running) = &self.sites[at].running else {
                continue;
            };
            let view = running.member.view.clone();
            if view.members().is_removed(self.sites[at].id) {
                // It lingers, with the configuration that it had.
                continue;
            }
            let own = running.member.node.conf().clone();
            if own != view.members().conf_state() {
                return Err(broken!(
                    "site {at}: raft has {own:?}, the record {:?}",
                    view.members().conf_state()
                ));
            }
            confs.push(own);
            self.truth.check_state(&view, &mut self.rng)?;
            if view.applied().index.0 < self.truth.floor() {
                return Err(broken!("site {at} lacks what was acknowledged"));
            }
        }
        if confs.windows(2).any(|pair| pair[0] != pair[1]) {
            return Err(broken!("configurations differ: {confs:?}"));
        }
        Ok(())
    }
}

fn has_failed(site: &Site) -> bool {
    let halt_at = site.disk.faults().halt_at;
    halt_at.is_some_and(|at| site.disk.operations() > at) || has_failed_sync(site)
}

fn has_failed_sync(site: &Site) -> bool {
    let fail_sync_at = site.disk.faults().fail_sync_at;
    fail_sync_at.is_some_and(|at| site.disk.syncs() > at)
}
