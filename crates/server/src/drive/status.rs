//! What the core publishes about the member for every thread to read.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use api::ids::MemberId;
use node::raft::{Progress, Role};
use storage::log::{LogIndex, Term};

/// What raft knows beyond the numbers, as of the last tick.
#[derive(Clone, Default)]
pub(crate) struct Details {
    pub(crate) role: Option<Role>,
    pub(crate) vote: Option<MemberId>,
    /// On the leader: what it knows about each member's log.
    pub(crate) progress: Vec<(MemberId, Progress)>,
}

/// Written by the core thread alone.
#[derive(Default)]
pub(crate) struct Status {
    details: Mutex<Details>,
    leader: AtomicU64,
    term: AtomicU64,
    committed: AtomicU64,
    pending: AtomicU64,
    leader_changes: AtomicU64,
    /// See [`node::machine::Output::SoleLeader`]. Sequentially consistent: a reader that finds it
    /// set reads the state after that.
    sole_leader: AtomicBool,
    /// The cluster version is known.
    capable: AtomicBool,
    published: AtomicBool,
    /// The member is a learner.
    learns: AtomicBool,
}

impl Status {
    pub(crate) fn details(&self) -> Details {
        let details = self.details.lock().unwrap_or_else(PoisonError::into_inner);
        details.clone()
    }

    pub(super) fn set_details(&self, details: Details) {
        *self.details.lock().unwrap_or_else(PoisonError::into_inner) = details;
    }

    pub(crate) fn leader(&self) -> Option<MemberId> {
        let leader = self.leader.load(Ordering::Acquire);
        (leader != 0).then_some(MemberId(leader))
    }

    pub(crate) fn term(&self) -> Term {
        Term(self.term.load(Ordering::Acquire))
    }

    pub(crate) fn committed(&self) -> LogIndex {
        LogIndex(self.committed.load(Ordering::Acquire))
    }

    /// Requests that wait for their entry.
    pub(crate) fn pending(&self) -> u64 {
        self.pending.load(Ordering::Acquire)
    }

    pub(crate) fn leader_changes(&self) -> u64 {
        self.leader_changes.load(Ordering::Acquire)
    }

    pub(crate) fn is_sole_leader(&self) -> bool {
        self.sole_leader.load(Ordering::SeqCst)
    }

    pub(crate) fn is_capable(&self) -> bool {
        self.capable.load(Ordering::Acquire)
    }

    pub(crate) fn is_published(&self) -> bool {
        self.published.load(Ordering::Acquire)
    }

    pub(crate) fn is_learner(&self) -> bool {
        self.learns.load(Ordering::Acquire)
    }

    pub(super) fn on_leader(&self, leader: Option<MemberId>, term: Term) {
        let id = leader.map_or(0, |leader| leader.0);
        self.term.store(term.0, Ordering::Release);
        if self.leader.swap(id, Ordering::AcqRel) != id && id != 0 {
            self.leader_changes.fetch_add(1, Ordering::AcqRel);
        }
    }

    pub(super) fn set_sole_leader(&self, sole: bool) {
        self.sole_leader.store(sole, Ordering::SeqCst);
    }

    pub(super) fn set_capable(&self) {
        self.capable.store(true, Ordering::Release);
    }

    pub(super) fn set_learner(&self, learns: bool) {
        self.learns.store(learns, Ordering::Release);
    }

    pub(super) fn on_published(&self) {
        self.published.store(true, Ordering::Release);
    }

    pub(super) fn set_progress(&self, committed: LogIndex, pending: usize) {
        self.committed.store(committed.0, Ordering::Release);
        self.pending.store(pending as u64, Ordering::Release);
    }
}
