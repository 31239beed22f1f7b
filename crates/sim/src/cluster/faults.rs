//! What goes wrong, and what operators do meanwhile.

use std::collections::BTreeMap;

use api::ids::MemberId;
use node::machine::{Input, MemberChange, Reconfigure};
use node::raft::ConfChange;
use storage::simfs::Faults;

use super::network::{Cut, DELAY_US};
use super::plan::founder;
use super::site::Who;
use super::{Cluster, Event};
use crate::life::End;

/// Members that a cluster grows to, and sites that a run may have.
const MEMBERS_MAX: usize = 5;
const SITES_MAX: usize = 8;
/// What a member that is connected has been for, in milliseconds.
const CONNECTED_MS: u64 = 10_000;

impl Cluster<'_> {
    /// One fault, or the end of some.
    pub(super) fn on_fault(&mut self) -> Result<(), End> {
        let at = self.rng.below(self.sites.len() as u64) as usize;
        let kinds = if self.plan.reconfigures { 17 } else { 11 };
        match self.rng.below(kinds) {
            0 | 1 => self.partition(),
            2 | 3 => self.network.join(),
            4 => self.weather(),
            5 | 6 => self.doom(at),
            7 => self.kill(at),
            8 => self.pause(at),
            9 => {
                let long_us = [1_000_000, 4_000_000][self.rng.below(2) as usize];
                self.sites[at].stalled_until_us = self.now_us + long_us;
                self.trace.say(|| format!("site {at}: syncs stall"));
            }
            10 => self.transfer(at)?,
            _ => self.reconfigure(at)?,
        }
        Ok(())
    }

    fn partition(&mut self) {
        let leader = self.leader_site();
        let cut = Cut::draw(self.sites.len(), leader, &mut self.rng);
        self.trace.say(|| format!("network: {cut:?}"));
        self.network.cut(cut, self.sites.len());
    }

    fn weather(&mut self) {
        let pick = |rng: &mut storage::simfs::Rng, from: &[u64]| {
            from[rng.below(from.len() as u64) as usize]
        };
        self.network.lose_one_in = pick(&mut self.rng, &[0, 0, 3, 20]);
        self.network.repeat_one_in = pick(&mut self.rng, &[0, 0, 4]);
        self.network.delay_us_max = pick(&mut self.rng, &[DELAY_US, DELAY_US, 200_000, 800_000]);
        let network = &self.network;
        self.trace.say(|| {
            let (lose, repeat) = (network.lose_one_in, network.repeat_one_in);
            format!(
                "network: lose {lose}, repeat {repeat}, delay {}",
                network.delay_us_max
            )
        });
    }

    /// The site's disk fails at one of its next operations, and the member with it.
    fn doom(&mut self, at: usize) {
        let site = &mut self.sites[at];
        if site.running.is_none() {
            return;
        }
        let mut faults = Faults::default();
        let soon = [3, 30, 200][self.rng.below(3) as usize];
        if self.rng.one_in(5) {
            faults.fail_sync_at = Some(site.disk.syncs() + self.rng.below(soon));
        } else {
            faults.halt_at = Some(site.disk.operations() + self.rng.below(soon));
        }
        site.doomed = true;
        site.disk.set_faults(faults);
        self.trace.say(|| format!("site {at}: doomed, {faults:?}"));
    }

    fn kill(&mut self, at: usize) {
        if self.sites[at].running.is_some() {
            self.trace.say(|| format!("site {at}: killed"));
            self.crash(at);
        }
    }

    fn pause(&mut self, at: usize) {
        let at = self
            .leader_site()
            .filter(|_| self.rng.one_in(2))
            .unwrap_or(at);
        let long_us = 100_000 + self.rng.below(5_000_000);
        self.sites[at].paused_until_us = self.now_us + long_us;
        self.trace
            .say(|| format!("site {at}: paused for {long_us} us"));
    }

    fn transfer(&mut self, at: usize) -> Result<(), End> {
        let to = (!self.rng.one_in(2)).then(|| {
            let to = self.rng.below(self.sites.len() as u64) as usize;
            self.sites[to].id
        });
        let Some(running) = &mut self.sites[at].running else {
            return Ok(());
        };
        let token = running.token(Who::Nobody);
        self.input(at, Input::TransferLeader { to, token })
    }

    /// An operator changes the membership by way of a site.
    fn reconfigure(&mut self, at: usize) -> Result<(), End> {
        let Some(running) = &self.sites[at].running else {
            return Ok(());
        };
        if !running.published {
            return Ok(());
        }
        let members = running.member.view.members();
        let list: Vec<(MemberId, bool)> = members
            .iter()
            .map(|member| (MemberId(member.id), member.is_learner))
            .collect();
        let any = list[self.rng.below(list.len() as u64) as usize].0;
        // Of two voters neither is removed: should it die before the other learns of it, nobody is
        // left who may say so, in etcd as here.
        let voters = list.iter().filter(|(_, learner)| !learner).count();
        let learner = list.iter().find(|(_, learner)| *learner).map(|(id, _)| *id);
        let change = match self.rng.below(4) {
            0 | 1 if list.len() < MEMBERS_MAX && self.sites.len() < SITES_MAX => self.found(),
            0..=2 if learner.is_some() => MemberChange::Promote(learner.unwrap_or(any)),
            3 if voters > 2 || learner == Some(any) => MemberChange::Remove(any),
            _ => MemberChange::Update {
                id: any,
                peer_urls: members
                    .member(any)
                    .map_or_else(Vec::new, |m| m.peer_urls.clone()),
            },
        };
        let connected_ms: BTreeMap<MemberId, u64> = (0..self.sites.len())
            .filter(|&other| other != at && self.is_connected(at, other))
            .map(|other| (self.sites[other].id, CONNECTED_MS))
            .collect();
        let Some(running) = &mut self.sites[at].running else {
            return Ok(());
        };
        self.trace
            .say(|| format!("site {at}: asked for {change:?}"));
        let change = Reconfigure {
            id: running.member.node.request_ids().next(),
            token: running.token(Who::Nobody),
            change,
            members,
            connected_ms,
            strict: true,
        };
        self.input(at, Input::Reconfigure(Box::new(change)))
    }

    /// A new place, whose member is to be added.
    fn found(&mut self) -> MemberChange {
        let at = self.sites.len();
        let site = self.plan.joining(at, self.now_us);
        let member = state::Member {
            id: site.id.0,
            peer_urls: founder(at).peer_urls,
            is_learner: !self.rng.one_in(3),
            ..state::Member::default()
        };
        self.sites.push(site);
        let soon = self.now_us + 200_000;
        self.schedule(soon, Event::Start { at });
        MemberChange::Add(member)
    }

    fn is_connected(&self, one: usize, other: usize) -> bool {
        let up = |at: usize| {
            let site = &self.sites[at];
            site.running.is_some() && site.paused_until_us <= self.now_us
        };
        up(one) && up(other) && self.network.reaches(one, other) && self.network.reaches(other, one)
    }

    /// What applying a configuration change means for raft.
    pub(super) fn conf_change(change: Option<state::RaftChange>) -> Option<ConfChange> {
        change.and_then(ConfChange::of)
    }
}
