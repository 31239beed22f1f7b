//! The WAL and the two threads that may write it: the core for small batches, its own for large.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use node::machine::Persist;
use node::member;
use storage::datadir::DataDir;
use storage::fs::Fs;
use storage::wal::Wal;

use super::Shared;
use super::core::ToCore;
use super::mailbox::Mailbox;
use super::stalls::{Stall, Stalls};
use super::stop::fatal;
use crate::config::GoDuration;
use crate::metrics::Metrics;

/// A sync that takes longer deserves a warning, as in etcd.
const SLOW_SYNC: Duration = Duration::from_secs(1);

/// The WAL with the queue of its thread. The node has at most one batch under way, so whoever
/// writes finds the lock free; snapshots are the exception, and wait for a sync at most.
pub(crate) struct WalSlot {
    wal: Mutex<Wal>,
    pub(crate) queue: Mailbox<Job>,
    meters: Meters,
    fs: Arc<dyn Fs>,
    dir: DataDir,
}

/// Where the times of writes go.
pub(crate) struct Meters {
    metrics: Arc<Metrics>,
    stalls: Arc<Stalls>,
}

impl Meters {
    pub(crate) fn new(shared: &Shared) -> Meters {
        Meters {
            metrics: Arc::clone(&shared.metrics),
            stalls: Arc::clone(&shared.stalls),
        }
    }
}

/// What the WAL thread does.
pub(crate) enum Job {
    Write(Persist),
    Stop,
}

impl WalSlot {
    pub(crate) fn new(wal: Wal, meters: Meters, fs: Arc<dyn Fs>, dir: DataDir) -> WalSlot {
        WalSlot {
            wal: Mutex::new(wal),
            queue: Mailbox::new(),
            meters,
            fs,
            dir,
        }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Wal> {
        self.wal.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends a batch and, when it asks for that, makes it durable. A failure ends the process:
    /// what a failed sync left behind may not be built upon.
    pub(crate) fn write(&self, batch: &Persist) {
        let mut wal = self.lock();
        if batch.snapshot.is_some() {
            if let Err(error) = member::persist(&*self.fs, &self.dir, &mut wal, batch) {
                fatal("record a received snapshot", &error);
            }
            return;
        }
        let begin = Instant::now();
        if let Err(error) = wal.append(batch.hard_state, &batch.entries) {
            fatal("append to the write-ahead log", &error);
        }
        let metrics = &self.meters.metrics;
        metrics.wal_write.observe_seconds(begin.elapsed());
        metrics.wal_write_bytes.set_u64(wal.written_bytes());
        if batch.must_sync {
            let begin = Instant::now();
            if let Err(error) = wal.sync() {
                fatal("sync the write-ahead log", &error);
            }
            let took = begin.elapsed();
            metrics.wal_fsync.observe_seconds(took);
            self.meters.stalls.note(Stall::LogSync, took);
            if took > SLOW_SYNC {
                tracing::warn!(
                    took = %GoDuration::from(took),
                    "expected-duration" = %GoDuration::from(SLOW_SYNC),
                    "slow fdatasync"
                );
            }
        }
    }

    /// The WAL thread.
    pub(crate) fn run(&self, core: &Arc<Mailbox<ToCore>>) {
        let mut jobs = Vec::new();
        loop {
            self.queue.wait(&mut jobs, None);
            for job in jobs.drain(..) {
                match job {
                    Job::Write(batch) => {
                        self.write(&batch);
                        core.push(ToCore::Persisted(batch.number));
                    }
                    Job::Stop => return,
                }
            }
        }
    }
}
