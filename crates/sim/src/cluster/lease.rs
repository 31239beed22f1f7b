//! Leases in time: who keeps one alive, and what a renewal promised.
//!
//! Each member has the clock that the server has, fed by what it applies and by who leads. A keeper
//! grants itself a lease and renews it as a client would, by a linearizable read and the clock of
//! the member that it asks. A renewal promises the lease for its time to live from the moment at
//! which it was asked; whoever applies a revocation before that is over has found a bug. Keepers
//! let go now and then, and all of them when everything heals; the cluster is not at rest before
//! their leases have expired.

use std::collections::BTreeMap;

use api::ids::RequestId;
use api::pb::etcdserverpb as pb;
use node::machine::{Input, Proposal, Token};
use prost::Message;
use state::{ClockConfig, LeaseClock, Renewal, View};
use storage::log::EntryKind;

use super::plan::TICK_MS;
use super::site::Who;
use super::{Cluster, Event};
use crate::life::End;
use crate::{Broken, broken};

/// Leases from here on are keepers'; no other client touches them.
const FIRST: i64 = 1000;
/// Time between two looks of a keeper, at most, and how long it waits for an answer.
const LOOK_US: u64 = 700_000;
const PATIENCE_US: u64 = 3_000_000;
/// A lease that was due and is still there after this time is due again.
const RETRY_MS: u64 = 2000;

/// The clock of a member that boots, or took in a database.
pub fn clock(view: &View) -> LeaseClock {
    let mut clock = LeaseClock::new(ClockConfig {
        retry_ms: RETRY_MS,
        checkpoints: false,
    });
    for lease in view.leases() {
        clock.restore(lease.id, lease.ttl, lease.remaining);
    }
    clock
}

/// Whether a state has leases that are to expire.
pub fn has_kept(view: &View) -> bool {
    view.leases().iter().any(|lease| lease.id >= FIRST)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Doing {
    Nothing,
    Grants,
    Renews,
}

/// A client that keeps a lease.
#[derive(Clone)]
pub struct Keeper {
    site: usize,
    /// Granted, as far as the keeper knows, with its seconds.
    lease: Option<(i64, i64)>,
    doing: Doing,
    /// What it was granted if the grant under way succeeds.
    wanted: (i64, i64),
    /// Grows by one per request.
    number: u64,
    begun_us: u64,
}

impl Keeper {
    pub fn new(site: usize) -> Keeper {
        Keeper {
            site,
            lease: None,
            doing: Doing::Nothing,
            wanted: (0, 0),
            number: 0,
            begun_us: 0,
        }
    }
}

/// What was promised, and what became of it.
#[derive(Default)]
pub struct Promises {
    next: i64,
    /// Until when a lease lives, in milliseconds.
    until_ms: BTreeMap<i64, u64>,
    /// When its revocation was first applied.
    ended_ms: BTreeMap<i64, u64>,
}

impl Promises {
    fn promise(&mut self, id: i64, until_ms: u64) -> Result<(), Broken> {
        let until = self.until_ms.entry(id).or_default();
        *until = until_ms.max(*until);
        self.check(id)
    }

    fn check(&self, id: i64) -> Result<(), Broken> {
        let (Some(until), Some(ended)) = (self.until_ms.get(&id), self.ended_ms.get(&id)) else {
            return Ok(());
        };
        if ended < until {
            return Err(broken!(
                "lease {id} was revoked at {ended} ms and renewed until {until} ms"
            ));
        }
        Ok(())
    }

    /// A member applied a revocation.
    pub fn on_revoked(&mut self, id: i64, now_ms: u64) -> Result<bool, Broken> {
        if id < FIRST || self.ended_ms.contains_key(&id) {
            return Ok(false);
        }
        self.ended_ms.insert(id, now_ms);
        self.check(id)?;
        Ok(true)
    }
}

impl Cluster<'_> {
    pub(super) fn now_ms(&self) -> u64 {
        self.now_us / 1000
    }

    /// The lessor's part of a tick: leases that are over are revoked.
    pub(super) fn expire_leases(&mut self, at: usize) -> Result<(), End> {
        let now_ms = self.now_ms();
        let running = self.running(at)?;
        let due = running.clock.due(now_ms);
        if due.expired.is_empty() {
            return Ok(());
        }
        self.trace
            .say(|| format!("site {at}: leases {:?} are over", due.expired));
        let mut proposals = Vec::new();
        for id in due.expired {
            let running = self.running(at)?;
            let request = running.member.node.request_ids().next();
            let token = running.token(Who::Nobody);
            let revoke = pb::InternalRaftRequest {
                lease_revoke: Some(pb::LeaseRevokeRequest { id }),
                ..Default::default()
            };
            proposals.push(proposal(request, token, revoke));
        }
        self.input(at, Input::ProposeAsLeader(proposals))
    }

    /// A keeper grants, renews, or lets go.
    pub(super) fn keep(&mut self, number: usize) -> Result<(), End> {
        if self.calm {
            return Ok(());
        }
        let next_us = self.after(LOOK_US);
        self.schedule(next_us, Event::Keeper { number });
        let late = self.now_us > self.keepers[number].begun_us + PATIENCE_US;
        let keeper = &mut self.keepers[number];
        if keeper.doing != Doing::Nothing {
            if late {
                keeper.doing = Doing::Nothing;
            }
            return Ok(());
        }
        let any = self.rng.below(self.sites.len() as u64) as usize;
        let leader = self.leader_site().filter(|_| !self.rng.one_in(3));
        let at = leader.unwrap_or(any);
        let lets_go = self.rng.one_in(12);
        let sleeps = self.sites[at].paused_until_us > self.now_us;
        let up = self.sites[at].running.as_ref();
        if !up.is_some_and(|running| running.published) || sleeps {
            return Ok(());
        }
        let keeper = &mut self.keepers[number];
        (keeper.site, keeper.begun_us) = (at, self.now_us);
        keeper.number += 1;
        let who = Who::Keeper(number, keeper.number);
        match keeper.lease {
            Some(_) if lets_go => keeper.lease = None,
            Some(_) => {
                keeper.doing = Doing::Renews;
                let token = self.running(at)?.token(who);
                return self.arrive(at, Input::ReadIndex(vec![token]));
            }
            None => return self.grant(number, who),
        }
        Ok(())
    }

    fn grant(&mut self, number: usize, who: Who) -> Result<(), End> {
        let (id, ttl) = (FIRST + self.promises.next, 2 + self.rng.below(5) as i64);
        self.promises.next += 1;
        let keeper = &mut self.keepers[number];
        keeper.doing = Doing::Grants;
        keeper.wanted = (id, ttl);
        let at = keeper.site;
        let running = self.running(at)?;
        let request = running.member.node.request_ids().next();
        let token = running.token(who);
        let grant = pb::InternalRaftRequest {
            lease_grant: Some(pb::LeaseGrantRequest { id, ttl }),
            ..Default::default()
        };
        self.arrive(at, Input::Propose(vec![proposal(request, token, grant)]))
    }

    /// A keeper whose request is the one under way.
    fn keeper(&mut self, number: usize, operation: u64) -> Option<&mut Keeper> {
        let keeper = &mut self.keepers[number];
        (keeper.number == operation && keeper.doing != Doing::Nothing).then_some(keeper)
    }

    /// The grant was applied.
    pub(super) fn on_kept(&mut self, number: usize, operation: u64) -> Result<(), Broken> {
        let Some(keeper) = self.keeper(number, operation) else {
            return Ok(());
        };
        keeper.doing = Doing::Nothing;
        let (id, ttl) = keeper.wanted;
        keeper.lease = Some((id, ttl));
        let until_ms = keeper.begun_us / 1000 + ttl as u64 * 1000;
        self.promises.promise(id, until_ms)
    }

    pub(super) fn on_keeper_refused(&mut self, number: usize, operation: u64) {
        if let Some(keeper) = self.keeper(number, operation) {
            keeper.doing = Doing::Nothing;
        }
    }

    /// A member may renew now, if it leads.
    pub(super) fn on_renewable(
        &mut self,
        at: usize,
        number: usize,
        operation: u64,
    ) -> Result<(), End> {
        let now_ms = self.now_ms();
        let Some(keeper) = self.keeper(number, operation) else {
            return Ok(());
        };
        keeper.doing = Doing::Nothing;
        let (begun_ms, lease) = (keeper.begun_us / 1000, keeper.lease);
        let Some((id, _)) = lease else {
            return Ok(());
        };
        let running = self.running(at)?;
        // The state before the clock, as in the server.
        if running.member.view.lease_ttl(id).is_none() {
            self.keepers[number].lease = None;
            return Ok(());
        }
        if let Renewal::Renewed(ttl) = running.clock.renew(id, now_ms) {
            self.stats.renewals += 1;
            let until_ms = begun_ms + ttl as u64 * 1000;
            self.trace
                .say(|| format!("site {at}: lease {id} is renewed until {until_ms} ms"));
            self.promises.promise(id, until_ms)?;
        }
        Ok(())
    }

    /// The leader or the term changed.
    pub(super) fn stop_leases(&mut self, at: usize) -> Result<(), End> {
        let clock = &mut self.running(at)?.clock;
        if clock.leads() {
            clock.demote();
        }
        Ok(())
    }

    /// The member leads and has what was asked of its predecessors.
    pub(super) fn start_leases(&mut self, at: usize) -> Result<(), End> {
        let now_ms = self.now_ms();
        let extend_ms = TICK_MS * self.plan.config.election_ticks as u64;
        self.running(at)?.clock.promote(now_ms, extend_ms);
        Ok(())
    }
}

fn proposal(id: RequestId, token: Token, mut request: pb::InternalRaftRequest) -> Proposal {
    request.header = Some(pb::RequestHeader {
        id: id.0,
        ..Default::default()
    });
    Proposal {
        id,
        kind: EntryKind::Normal,
        data: request.encode_to_vec().into(),
        token,
    }
}
