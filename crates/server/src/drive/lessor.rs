//! Leases in time, for the threads of a member.
//!
//! The core tells the clock what was applied and who leads, and proposes to revoke what expired;
//! net threads renew, without a hop to the core. What they share is behind one lock, which each
//! holds for one look-up (a new leader: for one pass over all leases). Nobody holds it together
//! with the lock of the state.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use state::{ClockConfig, Due, LeaseClock, LeaseView, Renewal};

use crate::front::CallId;

/// See the module's page.
pub(crate) struct Lessor {
    /// The clock's zero. [`Instant`] stands still while the machine is suspended.
    origin: Instant,
    /// Added to every lease when this member becomes leader.
    election: Duration,
    config: ClockConfig,
    inner: Mutex<Inner>,
}

struct Inner {
    clock: LeaseClock,
    /// Streams whose next keep-alive names a lease that expired, by lease.
    waiting: HashMap<i64, Vec<CallId>>,
}

/// How long a lease has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Left {
    /// In seconds; 0 or less while an expired lease waits to be revoked.
    Seconds(i64),
    /// This member does not lead, so it cannot tell.
    Unknown,
}

impl Lessor {
    /// `retry`: after that time a lease is proposed again for revocation.
    pub(crate) fn new(
        leases: &[LeaseView],
        election: Duration,
        retry: Duration,
        checkpoints: bool,
    ) -> Lessor {
        let config = ClockConfig {
            retry_ms: retry.as_millis() as u64,
            checkpoints,
        };
        let mut clock = LeaseClock::new(config);
        for lease in leases {
            clock.restore(lease.id, lease.ttl, lease.remaining);
        }
        Lessor {
            origin: Instant::now(),
            election,
            config,
            inner: Mutex::new(Inner {
                clock,
                waiting: HashMap::new(),
            }),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now_ms(&self) -> u64 {
        self.origin.elapsed().as_millis() as u64
    }

    /// The leader or the term changed, and time stands still; gives the streams that must ask
    /// again.
    pub(super) fn on_leader_changed(&self) -> Vec<CallId> {
        let mut inner = self.lock();
        if inner.clock.leads() {
            inner.clock.demote();
        }
        inner.waiting.drain().flat_map(|(_, calls)| calls).collect()
    }

    /// This member leads, and every revocation that the leaders before it asked for is applied or
    /// lost: a renewal is not undone by one that was under way.
    pub(super) fn on_settled(&self) {
        let now_ms = self.now_ms();
        let extend_ms = self.election.as_millis() as u64;
        self.lock().clock.promote(now_ms, extend_ms);
    }

    /// The state was replaced; this member does not lead.
    pub(super) fn replace(&self, leases: &[LeaseView]) {
        let mut clock = LeaseClock::new(self.config);
        for lease in leases {
            clock.restore(lease.id, lease.ttl, lease.remaining);
        }
        self.lock().clock = clock;
    }

    pub(super) fn on_granted(&self, id: i64, ttl: i64) {
        let now_ms = self.now_ms();
        self.lock().clock.on_granted(id, ttl, now_ms);
    }

    /// Gives the streams that waited for it, and whether the lease's time was over.
    pub(super) fn on_revoked(&self, id: i64) -> (Vec<CallId>, bool) {
        let mut inner = self.lock();
        let expired = inner.clock.on_revoked(id);
        (inner.waiting.remove(&id).unwrap_or_default(), expired)
    }

    pub(super) fn on_checkpointed(&self, id: i64, remaining: i64) {
        let now_ms = self.now_ms();
        self.lock().clock.on_checkpointed(id, remaining, now_ms);
    }

    /// What must be proposed now.
    pub(super) fn due(&self) -> Due {
        let now_ms = self.now_ms();
        self.lock().clock.due(now_ms)
    }

    /// Renews a lease. When it has expired, `call` is told with [`super::post::Mail::LeaseSettled`]
    /// that it was revoked, or that the leader changed.
    pub(crate) fn renew(&self, id: i64, call: CallId) -> Renewal {
        let now_ms = self.now_ms();
        let mut inner = self.lock();
        let renewal = inner.clock.renew(id, now_ms);
        if renewal == Renewal::Expired {
            inner.waiting.entry(id).or_default().push(call);
        }
        renewal
    }

    /// Renews a lease for somebody who looks again when it has expired.
    pub(crate) fn renew_once(&self, id: i64) -> Renewal {
        let now_ms = self.now_ms();
        self.lock().clock.renew(id, now_ms)
    }

    /// The stream is gone, which waited for this lease.
    pub(crate) fn forget(&self, id: i64, call: CallId) {
        let mut inner = self.lock();
        if let Some(calls) = inner.waiting.get_mut(&id) {
            calls.retain(|one| *one != call);
            if calls.is_empty() {
                inner.waiting.remove(&id);
            }
        }
    }

    /// What is left of a lease that the state has.
    pub(crate) fn left(&self, lease: &LeaseView) -> Left {
        let now_ms = self.now_ms();
        let inner = self.lock();
        match inner.clock.remaining_ms(lease.id, now_ms) {
            Some(left_ms) => Left::Seconds(left_ms / 1000),
            None if inner.clock.leads() => Left::Seconds(lease.ttl),
            None => Left::Unknown,
        }
    }

    /// All leases, the next to expire first.
    pub(crate) fn by_expiry(&self) -> Vec<i64> {
        self.lock().clock.by_expiry()
    }
}
