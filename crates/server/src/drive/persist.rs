//! The WAL and the two threads that may write it: the core for small batches, its own for large.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use node::machine::Persist;
use node::member;
use storage::datadir::DataDir;
use storage::fs::Fs;
use storage::wal::Wal;

use super::core::ToCore;
use super::mailbox::Mailbox;
use super::stop::fatal;
use crate::metrics::Metrics;

/// The WAL with the queue of its thread. The node has at most one batch under way, so whoever
/// writes finds the lock free; snapshots are the exception, and wait for a sync at most.
pub(crate) struct WalSlot {
    wal: Mutex<Wal>,
    pub(crate) queue: Mailbox<Job>,
    metrics: Arc<Metrics>,
    fs: Arc<dyn Fs>,
    dir: DataDir,
}

/// What the WAL thread does.
pub(crate) enum Job {
    Write(Persist),
    Stop,
}

impl WalSlot {
    pub(crate) fn new(wal: Wal, metrics: Arc<Metrics>, fs: Arc<dyn Fs>, dir: DataDir) -> WalSlot {
        WalSlot {
            wal: Mutex::new(wal),
            queue: Mailbox::new(),
            metrics,
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
        self.metrics.wal_write.observe_seconds(begin.elapsed());
        self.metrics.wal_write_bytes.set_u64(wal.written_bytes());
        if batch.must_sync {
            let begin = Instant::now();
            if let Err(error) = wal.sync() {
                fatal("sync the write-ahead log", &error);
            }
            self.metrics.wal_fsync.observe_seconds(begin.elapsed());
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
