//! Physical compaction: drops history from the index, then revisions from the database, in steps
//! that a background thread paces.

use api::version::major_minor;
use std::sync::Arc;

use storage::backend::{Bucket, MaintenanceWriter, meta};

use crate::fatal::Fatal;
use crate::hash::{self, Hasher, KvHash, parse_key};
use crate::kv::parse;
use crate::record::Revision;
use crate::shared::Shared;

/// Leaves of the index per step: about a thousand keys.
const STEP_LEAVES: usize = 16;
/// Records of the database per step, unless the configuration says otherwise.
pub(crate) const STEP_RECORDS: usize = 1000;

/// The first release whose schema has a version record.
const FIRST_RECORDED: (u64, u64) = (3, 6);

/// A compaction that was accepted and not yet carried out.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Job {
    pub(crate) revision: i64,
    /// The compaction before it; -1 for none.
    pub(crate) before: i64,
    /// Whether that one was complete, so that this one sees every record in between.
    pub(crate) is_hashed: bool,
}

/// What a step did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing is left to do.
    Idle,
    /// A reader still needs older records; try again later.
    Blocked,
    /// A batch of the index is done; pause and go on.
    Indexed,
    /// A batch of the database is done; pause and go on.
    Worked { deleted: usize },
    /// A compaction is complete once the committer has committed.
    Finished { revision: i64, hash: Option<KvHash> },
}

/// Carries out compactions, one after the other; owned by a background thread.
pub struct Sweep {
    shared: Arc<Shared>,
    writer: MaintenanceWriter,
    running: Option<Running>,
}

struct Running {
    job: Job,
    phase: Phase,
}

enum Phase {
    Index { next: Box<[u8]>, kept: u64 },
    Database { next: Vec<u8>, hasher: Hasher },
}

impl Sweep {
    pub(crate) fn new(shared: Arc<Shared>, writer: MaintenanceWriter) -> Sweep {
        Sweep {
            shared,
            writer,
            running: None,
        }
    }

    /// Brings the schema of the database to the cluster's version: 3.6 introduced its record, and
    /// 3.7 changed nothing else (interop notes, storage version). Below 3.6 there is none. Returns
    /// whether it changed.
    ///
    /// # Errors
    /// The database failed.
    pub fn migrate(&mut self, cluster_version: &str) -> Result<bool, Fatal> {
        let recorded = self
            .shared
            .reader
            .get(Bucket::Meta, meta::STORAGE_VERSION)?;
        let wanted = major_minor(cluster_version)
            .filter(|&minor| minor >= FIRST_RECORDED)
            .map(|(major, minor)| format!("{major}.{minor}.0"));
        if recorded.as_deref() == wanted.as_deref().map(str::as_bytes) {
            return Ok(false);
        }
        let mut txn = self.writer.begin();
        txn.set_storage_version(wanted.as_deref());
        txn.commit();
        Ok(true)
    }

    /// Does a bounded piece of work.
    ///
    /// # Errors
    /// The database failed or is damaged: the member must stop.
    pub fn step(&mut self) -> Result<Step, Fatal> {
        let Running { job, phase } = match self.running.take() {
            Some(running) => running,
            None => match self.shared.jobs.lock().pop_front() {
                Some(job) => Running {
                    job,
                    phase: Phase::Index {
                        next: Box::default(),
                        kept: 0,
                    },
                },
                None => return Ok(Step::Idle),
            },
        };
        match phase {
            Phase::Index { next, kept } => Ok(self.step_index(job, next, kept)),
            Phase::Database { next, hasher } => self.step_database(job, &next, hasher),
        }
    }

    /// Stops waiting for readers that took nothing since the last call; they are told that their
    /// revision was compacted. Returns how many there were.
    pub fn drop_idle_readers(&mut self) -> usize {
        match &self.running {
            Some(running) => self.shared.drop_idle_pins(running.job.revision),
            None => 0,
        }
    }

    fn step_index(&mut self, job: Job, next: Box<[u8]>, mut kept: u64) -> Step {
        let mut state = self.shared.state.write();
        if self.shared.is_pinned_below(job.revision) {
            self.running = Some(Running {
                job,
                phase: Phase::Index { next, kept },
            });
            return Step::Blocked;
        }
        let phase = match state
            .index
            .compact(&next, job.revision, STEP_LEAVES, &mut kept)
        {
            Some(next) => Phase::Index { next, kept },
            None => Phase::Database {
                next: Vec::new(),
                hasher: Hasher::new(job.before, job.revision, kept > 0),
            },
        };
        self.running = Some(Running { job, phase });
        Step::Indexed
    }

    fn step_database(&mut self, job: Job, begin: &[u8], mut hasher: Hasher) -> Result<Step, Fatal> {
        let end = Revision {
            main: job.revision + 1,
            sub: 0,
        }
        .to_key();
        let mut outcome = Ok(());
        let mut deleted = 0;
        let shared = &self.shared;
        let mut txn = self.writer.begin();
        let each = |key: &[u8], record: &[u8]| {
            if outcome.is_ok() {
                outcome =
                    is_kept(shared, job.revision, key, record).map(|(at, tombstone, kept)| {
                        hasher.add(at, tombstone, kept, (key, record));
                        if !kept {
                            txn.delete_revision(key);
                            deleted += 1;
                        }
                    });
            }
        };
        let limit = shared.config.compaction_batch.max(1);
        let next = shared
            .reader
            .scan(Bucket::Key, begin, Some(&end), limit, each)?;
        outcome?;
        if let Some(next) = next {
            txn.commit();
            self.running = Some(Running {
                job,
                phase: Phase::Database { next, hasher },
            });
            return Ok(Step::Worked { deleted });
        }
        txn.set_finished_compact(
            &Revision {
                main: job.revision,
                sub: 0,
            }
            .to_key(),
        );
        txn.commit();
        let hash = job.is_hashed.then(|| hasher.finish());
        if let Some(hash) = hash {
            hash::store(shared, hash);
        }
        shared.state.write().finished = job.revision;
        Ok(Step::Finished {
            revision: job.revision,
            hash,
        })
    }
}

fn is_kept(
    shared: &Shared,
    rev: i64,
    key: &[u8],
    record: &[u8],
) -> Result<(Revision, bool, bool), Fatal> {
    let (at, tombstone) = parse_key(key)?;
    let name = parse(record)?.key;
    let state = shared.state.read();
    let kept = state
        .index
        .get(name)
        .is_some_and(|slot| slot.keeps(at, rev, true));
    Ok((at, tombstone, kept))
}
