//! Leases in time: when each expires, and which must be revoked or checkpointed now.
//!
//! Only the leader's clock runs; elsewhere leases last for ever. A renewal moves the deadline
//! back and leaves the wheel alone, which brings the lease up at the old one, and then learns the
//! new one. So a renewal is one look-up, and a lease costs the wheel one visit per time to live.
//!
//! There is no clock inside. Callers name the time in milliseconds since any moment of their
//! choice, of a clock that neither jumps nor runs while the machine is suspended.

use std::collections::{HashMap, VecDeque};

use super::wheel::Wheel;

/// Milliseconds per tick of the wheel.
const TICK_MS: u64 = 500;
/// Leases that may be revoked, and checkpoints that may be taken, in a tick.
const PER_TICK_MAX: usize = 500;
/// From this many leases on, a new leader spreads what would expire together.
const SPREAD_FROM: usize = 1000;
/// That many may then expire within a second.
const SPREAD_PER_SECOND: usize = 750;
/// Time between checkpoints of a lease, and how long it must have left to need one.
const CHECKPOINT_MS: u64 = 300_000;
/// The deadline of a lease where time does not count.
const NEVER: u64 = u64::MAX;

/// How a clock behaves.
#[derive(Clone, Copy, Debug)]
pub struct ClockConfig {
    /// A lease that was due and still exists after this time is due again, in milliseconds.
    pub retry_ms: u64,
    /// Whether the leader records how long leases have left.
    pub checkpoints: bool,
}

/// What came of a renewal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Renewal {
    /// It lives for this many seconds from now.
    Renewed(i64),
    /// It has a checkpoint, which must be set back to 0 first: a later leader would cut it short.
    Checkpointed,
    /// Its time is over, and it will be revoked.
    Expired,
    /// There is no such lease here.
    Unknown,
    /// This member does not lead.
    NotLeader,
}

/// What is due at a tick.
#[derive(Debug, Default)]
pub struct Due {
    /// Leases to be revoked, in the order of their deadlines.
    pub expired: Vec<i64>,
    /// Leases whose remaining seconds are to be recorded.
    pub checkpoints: Vec<(i64, i64)>,
}

/// A lease as the clock knows it.
#[derive(Clone, Debug)]
struct Timed {
    /// Seconds.
    ttl: i64,
    /// Seconds at the last checkpoint; 0 without one.
    remaining: i64,
    /// In milliseconds, [`NEVER`] on a member that does not lead.
    deadline: u64,
    /// The tick at which the wheel brings it up; 0 when it does not.
    armed: u64,
    /// When it is to be checkpointed, in milliseconds, and the tick at which that wheel brings it
    /// up.
    checkpoint: u64,
    checkpoint_armed: u64,
    /// It was handed out as expired.
    is_revoking: bool,
}

impl Timed {
    fn new(ttl: i64, remaining: i64) -> Timed {
        Timed {
            ttl,
            remaining,
            deadline: NEVER,
            armed: 0,
            checkpoint: NEVER,
            checkpoint_armed: 0,
            is_revoking: false,
        }
    }

    /// How long it lasts under a new leader, in milliseconds.
    fn full_ms(&self) -> u64 {
        let seconds = if self.remaining > 0 {
            self.remaining
        } else {
            self.ttl
        };
        u64::try_from(seconds).unwrap_or(0).saturating_mul(1000)
    }
}

/// See the module's page.
#[derive(Debug)]
pub struct LeaseClock {
    config: ClockConfig,
    leases: HashMap<i64, Timed>,
    leads: bool,
    wheel: Wheel<i64>,
    checkpoints: Wheel<i64>,
    /// Came up and waits for its turn.
    expired: VecDeque<i64>,
    unrecorded: VecDeque<i64>,
    tick: u64,
}

impl LeaseClock {
    /// A clock without leases, on a member that does not lead.
    #[must_use]
    pub fn new(config: ClockConfig) -> LeaseClock {
        LeaseClock {
            config,
            leases: HashMap::new(),
            leads: false,
            wheel: Wheel::new(0),
            checkpoints: Wheel::new(0),
            expired: VecDeque::new(),
            unrecorded: VecDeque::new(),
            tick: 0,
        }
    }

    /// Takes in a lease that the state has already; before this member leads.
    pub fn restore(&mut self, id: i64, ttl: i64, remaining: i64) {
        self.leases.insert(id, Timed::new(ttl, remaining));
    }

    /// A lease was granted for so many seconds.
    pub fn on_granted(&mut self, id: i64, ttl: i64, now_ms: u64) {
        self.leases.insert(id, Timed::new(ttl, 0));
        self.refresh(id, now_ms);
    }

    /// A lease was revoked; true when its time was over.
    pub fn on_revoked(&mut self, id: i64) -> bool {
        self.leases
            .remove(&id)
            .is_some_and(|lease| lease.is_revoking)
    }

    /// A checkpoint was recorded, with the seconds that were left; 0 removes it.
    pub fn on_checkpointed(&mut self, id: i64, remaining: i64, now_ms: u64) {
        if let Some(lease) = self.leases.get_mut(&id) {
            lease.remaining = remaining;
            self.schedule_checkpoint(id, now_ms);
        }
    }

    /// This member leads: every lease lasts its full time again, or what its checkpoint left, and
    /// `extend_ms` longer, since nobody could renew it during the election.
    pub fn promote(&mut self, now_ms: u64, extend_ms: u64) {
        self.stop();
        self.leads = true;
        self.tick = now_ms / TICK_MS;
        self.wheel = Wheel::new(self.tick);
        self.checkpoints = Wheel::new(self.tick);
        let mut order: Vec<(u64, i64)> = self
            .leases
            .iter()
            .map(|(&id, lease)| (now_ms + extend_ms + lease.full_ms(), id))
            .collect();
        order.sort_unstable();
        if order.len() >= SPREAD_FROM {
            spread(&mut order);
        }
        for (deadline, id) in order {
            let tick = self.wheel.insert(deadline.div_ceil(TICK_MS), id);
            let lease = self.leases.get_mut(&id).expect("the list is of these");
            (lease.deadline, lease.armed) = (deadline, tick);
            self.schedule_checkpoint(id, now_ms);
        }
    }

    /// This member does not lead any more: time does not count.
    pub fn demote(&mut self) {
        self.stop();
        self.leads = false;
    }

    /// Whether leases expire here.
    #[must_use]
    pub fn leads(&self) -> bool {
        self.leads
    }

    fn stop(&mut self) {
        self.expired.clear();
        self.unrecorded.clear();
        for lease in self.leases.values_mut() {
            *lease = Timed::new(lease.ttl, lease.remaining);
        }
    }

    /// Gives a lease its full time from now.
    pub fn renew(&mut self, id: i64, now_ms: u64) -> Renewal {
        if !self.leads {
            return Renewal::NotLeader;
        }
        let Some(lease) = self.leases.get_mut(&id) else {
            return Renewal::Unknown;
        };
        if lease.deadline <= now_ms {
            return Renewal::Expired;
        }
        if lease.remaining > 0 {
            return Renewal::Checkpointed;
        }
        lease.deadline = now_ms.saturating_add(lease.full_ms());
        // What a new leader granted on top is over with the first renewal.
        let tick = lease.deadline.div_ceil(TICK_MS);
        if tick < lease.armed {
            lease.armed = self.wheel.insert(tick, id);
        }
        let ttl = lease.ttl;
        self.schedule_checkpoint(id, now_ms);
        Renewal::Renewed(ttl)
    }

    /// Milliseconds until the deadline, negative after it; `None` where time does not count, or
    /// for a lease that is not known.
    #[must_use]
    pub fn remaining_ms(&self, id: i64, now_ms: u64) -> Option<i64> {
        let lease = self.leases.get(&id).filter(|_| self.leads)?;
        Some(
            lease.deadline.saturating_sub(now_ms) as i64
                - now_ms.saturating_sub(lease.deadline) as i64,
        )
    }

    /// All leases, the next to expire first.
    #[must_use]
    pub fn by_expiry(&self) -> Vec<i64> {
        let mut order: Vec<(u64, i64)> = self
            .leases
            .iter()
            .map(|(&id, lease)| (lease.deadline, id))
            .collect();
        order.sort_unstable();
        order.into_iter().map(|(_, id)| id).collect()
    }

    /// What is due now. Does something once per tick of half a second, a bounded amount.
    pub fn due(&mut self, now_ms: u64) -> Due {
        let mut due = Due::default();
        let tick = now_ms / TICK_MS;
        if !self.leads || tick <= self.tick {
            return due;
        }
        self.tick = tick;
        self.collect_expired(now_ms);
        while due.expired.len() < PER_TICK_MAX
            && let Some(id) = self.expired.pop_front()
        {
            if self.hand_out(id, now_ms) {
                due.expired.push(id);
            }
        }
        self.collect_unrecorded(now_ms);
        while due.checkpoints.len() < PER_TICK_MAX
            && let Some(id) = self.unrecorded.pop_front()
        {
            let Some(lease) = self.leases.get(&id) else {
                continue;
            };
            let left_ms = lease.deadline.saturating_sub(now_ms);
            if left_ms > 0 {
                let seconds = i64::try_from(left_ms.div_ceil(1000)).unwrap_or(i64::MAX);
                due.checkpoints.push((id, seconds));
                self.schedule_checkpoint(id, now_ms);
            }
        }
        due
    }

    /// Queues what came up and is over; what was renewed goes back.
    fn collect_expired(&mut self, now_ms: u64) {
        let mut fired = Vec::new();
        self.wheel.advance(self.tick, &mut fired);
        for (tick, id) in fired {
            let Some(lease) = self.leases.get_mut(&id).filter(|lease| lease.armed == tick) else {
                continue;
            };
            if lease.deadline <= now_ms {
                lease.armed = 0;
                self.expired.push_back(id);
            } else {
                lease.armed = self.wheel.insert(lease.deadline.div_ceil(TICK_MS), id);
            }
        }
    }

    /// Whether a queued lease must be revoked; if it still exists later it comes up again.
    fn hand_out(&mut self, id: i64, now_ms: u64) -> bool {
        let retry_tick = (now_ms + self.config.retry_ms).div_ceil(TICK_MS);
        let queued = |lease: &&mut Timed| lease.armed == 0 && lease.deadline <= now_ms;
        let Some(lease) = self.leases.get_mut(&id).filter(queued) else {
            return false;
        };
        lease.is_revoking = true;
        lease.armed = self.wheel.insert(retry_tick, id);
        true
    }

    fn collect_unrecorded(&mut self, now_ms: u64) {
        let mut fired = Vec::new();
        self.checkpoints.advance(self.tick, &mut fired);
        for (tick, id) in fired {
            let is_armed = |lease: &&mut Timed| lease.checkpoint_armed == tick;
            let Some(lease) = self.leases.get_mut(&id).filter(is_armed) else {
                continue;
            };
            lease.checkpoint_armed = 0;
            if lease.checkpoint <= now_ms {
                self.unrecorded.push_back(id);
            } else if lease.checkpoint != NEVER {
                let tick = lease.checkpoint.div_ceil(TICK_MS);
                lease.checkpoint_armed = self.checkpoints.insert(tick, id);
            }
        }
    }

    fn refresh(&mut self, id: i64, now_ms: u64) {
        if !self.leads {
            return;
        }
        if let Some(lease) = self.leases.get_mut(&id) {
            lease.deadline = now_ms.saturating_add(lease.full_ms());
            lease.armed = self.wheel.insert(lease.deadline.div_ceil(TICK_MS), id);
            self.schedule_checkpoint(id, now_ms);
        }
    }

    /// The next checkpoint of a lease that has long to live.
    fn schedule_checkpoint(&mut self, id: i64, now_ms: u64) {
        if !self.config.checkpoints || !self.leads {
            return;
        }
        let Some(lease) = self.leases.get_mut(&id) else {
            return;
        };
        if lease.deadline.saturating_sub(now_ms) <= CHECKPOINT_MS {
            lease.checkpoint = NEVER;
            return;
        }
        lease.checkpoint = now_ms + CHECKPOINT_MS;
        if lease.checkpoint_armed == 0 {
            let tick = lease.checkpoint.div_ceil(TICK_MS);
            lease.checkpoint_armed = self.checkpoints.insert(tick, id);
        }
    }
}

/// Moves deadlines, sorted, so far back that no second has more than its share of them.
fn spread(order: &mut [(u64, i64)]) {
    for at in SPREAD_PER_SECOND..order.len() {
        let earliest = order[at - SPREAD_PER_SECOND].0.saturating_add(1000);
        order[at].0 = order[at].0.max(earliest);
    }
}

#[cfg(test)]
mod tests;
