//! What apply writes and readers see.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};

use api::Error;
use parking_lot::{Mutex, RwLock};
use storage::backend::Reader;

use crate::alarm::Alarms;
use crate::auth::Auth;
use crate::counts::Counts;
use crate::fatal::{Fatal, ReadError};
use crate::hash::KvHash;
use crate::index::Index;
use crate::lease::Leases;
use crate::machine::Config;
use crate::members::Members;
use crate::sweep::Job;
use crate::watch::Log;

/// The replicated state in memory.
pub(crate) struct State {
    pub(crate) index: Index,
    /// Main revision of the last change.
    pub(crate) revision: i64,
    /// Revision of the last accepted compaction; -1 before the first.
    pub(crate) compacted: i64,
    /// Revision of the last compaction whose deletions are complete; -1 before the first.
    pub(crate) finished: i64,
    /// Bytes of newest records that may stay in memory.
    pub(crate) value_budget: usize,
    pub(crate) leases: Leases,
    pub(crate) alarms: Alarms,
    pub(crate) members: Members,
    pub(crate) auth: Auth,
}

/// What the machine, the views and the sweeps share.
pub(crate) struct Shared {
    /// Apply holds it for an entry (or a slice of them), readers for one bounded chunk, the sweep
    /// for a batch of leaves. Nobody reads the file under it, except apply for a value that fell
    /// out of the budget.
    pub(crate) state: RwLock<State>,
    pub(crate) reader: Reader,
    /// The state's revision, for readers that need nothing else. Written by apply only.
    pub(crate) revision: AtomicI64,
    /// Locked after `state`; a pin is taken under it, so that no compaction can slip in between.
    pub(crate) pins: Mutex<Pins>,
    /// Hashes that compactions left, by revision; the ten newest.
    pub(crate) hashes: Mutex<Vec<KvHash>>,
    /// Compactions that wait for the sweep.
    pub(crate) jobs: Mutex<VecDeque<Job>>,
    /// Events of the changes, and up to where everything is readable. It outlives a state that a
    /// received one takes the place of.
    pub(crate) log: Arc<Log>,
    /// See [`Counts`].
    pub(crate) counts: Arc<Counts>,
    /// Bytes in use at which writes are refused; the highest number for no limit.
    pub(crate) quota: Arc<AtomicU64>,
    /// [`crate::auth::Auth::stamp`], for those who need to know no more than whether it is 0.
    /// Written by apply, and by whoever puts a received state in place; outlives a state too.
    pub(crate) auth_stamp: Arc<AtomicU64>,
    pub(crate) config: Config,
}

/// What outlives a state that a received one takes the place of.
pub(crate) struct Lasting {
    pub(crate) log: Arc<Log>,
    pub(crate) counts: Arc<Counts>,
    pub(crate) quota: Arc<AtomicU64>,
    pub(crate) auth_stamp: Arc<AtomicU64>,
}

impl Lasting {
    pub(crate) fn new(log: Log, config: &Config) -> Lasting {
        Lasting {
            log: Arc::new(log),
            counts: Arc::default(),
            quota: Arc::new(AtomicU64::new(config.quota_bytes.unwrap_or(u64::MAX))),
            auth_stamp: Arc::default(),
        }
    }
}

/// The revisions that readers in several steps still need.
#[derive(Default)]
pub(crate) struct Pins {
    held: BTreeMap<(i64, u64), Arc<Hold>>,
    next: u64,
}

/// What a reader and the sweep tell each other.
#[derive(Default)]
struct Hold {
    /// The reader took something since the sweep last looked.
    is_used: AtomicBool,
    /// The sweep waits no longer: what the reader needs may be gone.
    is_lost: AtomicBool,
}

/// Keeps the records that a reader at a revision sees, until dropped, or until the reader has
/// taken nothing for too long while a compaction waits for it.
pub(crate) struct Pin {
    shared: Arc<Shared>,
    revision: i64,
    id: u64,
    hold: Arc<Hold>,
}

impl Pin {
    /// Pins `revision`, which must not lie below the compaction. The state lock is held.
    pub(crate) fn new(shared: &Arc<Shared>, revision: i64) -> Pin {
        let hold = Arc::new(Hold::default());
        hold.is_used.store(true, Ordering::Relaxed);
        let mut pins = shared.pins.lock();
        let id = pins.next;
        pins.next += 1;
        pins.held.insert((revision, id), Arc::clone(&hold));
        Pin {
            shared: shared.clone(),
            revision,
            id,
            hold,
        }
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    pub(crate) fn revision(&self) -> i64 {
        self.revision
    }

    /// Asked by a reader that holds the state lock: whether everything still is there.
    ///
    /// # Errors
    /// Compacted.
    pub(crate) fn check(&self) -> Result<(), Error> {
        self.hold.is_used.store(true, Ordering::Relaxed);
        if self.hold.is_lost.load(Ordering::Acquire) {
            return Err(Error::Compacted);
        }
        Ok(())
    }

    /// What a failure to read a record means: it may be missing because the pin was lost.
    pub(crate) fn explain(&self, error: Fatal) -> ReadError {
        match self.check() {
            Ok(()) => error.into(),
            Err(compacted) => compacted.into(),
        }
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        let mut pins = self.shared.pins.lock();
        pins.held.remove(&(self.revision, self.id));
    }
}

impl Shared {
    /// What outlives this state.
    pub(crate) fn lasting(&self) -> Lasting {
        Lasting {
            log: self.log.clone(),
            counts: self.counts.clone(),
            quota: self.quota.clone(),
            auth_stamp: self.auth_stamp.clone(),
        }
    }

    /// Bytes in use at which writes are refused.
    pub(crate) fn quota(&self) -> Option<u64> {
        Some(self.quota.load(Ordering::Relaxed)).filter(|bytes| *bytes != u64::MAX)
    }

    /// True when a reader needs records that a compaction at `revision` would delete.
    pub(crate) fn is_pinned_below(&self, revision: i64) -> bool {
        let pins = self.pins.lock();
        let oldest = pins.held.first_key_value();
        oldest.is_some_and(|(&(pinned, _), _)| pinned < revision)
    }

    /// Takes the pins below `revision` from readers that took nothing since the last call;
    /// returns how many.
    pub(crate) fn drop_idle_pins(&self, revision: i64) -> usize {
        let mut pins = self.pins.lock();
        let before = pins.held.len();
        pins.held.retain(|&(pinned, _), hold| {
            let is_idle = pinned < revision && !hold.is_used.swap(false, Ordering::Relaxed);
            hold.is_lost.fetch_or(is_idle, Ordering::Release);
            !is_idle
        });
        before - pins.held.len()
    }
}
