//! What apply writes and readers see.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::AtomicI64;

use parking_lot::{Mutex, RwLock};
use storage::backend::Reader;

use crate::alarm::Alarms;
use crate::auth::Auth;
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
    /// Revisions that readers in several steps still need, with how many need each. Locked after
    /// `state`; a pin is taken under it, so that no compaction can slip in between.
    pub(crate) pins: Mutex<BTreeMap<i64, usize>>,
    /// Hashes that compactions left, by revision; the ten newest.
    pub(crate) hashes: Mutex<Vec<KvHash>>,
    /// Compactions that wait for the sweep.
    pub(crate) jobs: Mutex<VecDeque<Job>>,
    /// Events of the changes, and up to where everything is readable.
    pub(crate) log: Log,
    pub(crate) config: Config,
}

/// Keeps the records that a reader at a revision sees, until dropped.
pub(crate) struct Pin {
    shared: Arc<Shared>,
    revision: i64,
}

impl Pin {
    /// Pins `revision`, which must not lie below the compaction. The state lock is held.
    pub(crate) fn new(shared: &Arc<Shared>, revision: i64) -> Pin {
        *shared.pins.lock().entry(revision).or_default() += 1;
        Pin {
            shared: shared.clone(),
            revision,
        }
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    pub(crate) fn revision(&self) -> i64 {
        self.revision
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        let mut pins = self.shared.pins.lock();
        if let Some(count) = pins.get_mut(&self.revision) {
            *count -= 1;
            if *count == 0 {
                pins.remove(&self.revision);
            }
        }
    }
}

impl Shared {
    /// True when a reader needs records that a compaction at `revision` would delete.
    pub(crate) fn is_pinned_below(&self, revision: i64) -> bool {
        self.pins
            .lock()
            .first_key_value()
            .is_some_and(|(&pinned, _)| pinned < revision)
    }
}
