//! Moving batches into the bolt file.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::layer::Layer;
use super::{Applied, Bucket, Error, Pending, Shared};
use crate::bolt;

/// Writes batches to the file; owned by the commit thread, or called inline by the simulator.
pub struct Committer {
    shared: Arc<Shared>,
    durable: Applied,
}

/// What a commit did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Committed {
    /// Writes in the batch; 0 when there was nothing to commit.
    pub ops: usize,
    /// The applied index that is durable in the file now.
    pub durable: Applied,
    /// Time of changing the trees.
    pub changing: Duration,
    /// Time of laying out the new pages.
    pub spilling: Duration,
    /// Time of writing and syncing them.
    pub writing: Duration,
}

/// The file at an exact applied index, until dropped.
pub struct Pinned {
    pub tx: bolt::ReadTx,
    pub applied: Applied,
}

impl Pinned {
    /// The value of a key.
    ///
    /// # Errors
    /// The file cannot be read or is damaged.
    pub fn get(&self, bucket: Bucket, key: &[u8]) -> Result<Option<Bytes>, Error> {
        let at = |source| Error::Read { bucket, source };
        self.tx.get(bucket.name(), key).map_err(at)
    }

    /// Calls `each` for every record of a bucket, in key order, until it fails.
    ///
    /// # Errors
    /// The file cannot be read or is damaged; inside, the failure of `each`.
    pub fn scan<E>(
        &self,
        bucket: Bucket,
        mut each: impl FnMut(&[u8], &[u8]) -> Result<(), E>,
    ) -> Result<Result<(), E>, Error> {
        let at = |source| Error::Read { bucket, source };
        let mut cursor = self.tx.cursor(bucket.name()).map_err(at)?;
        let mut record = cursor.seek(&[]).map_err(at)?;
        while let Some((key, value)) = record {
            if let Err(failed) = each(&key, &value) {
                return Ok(Err(failed));
            }
            record = cursor.next().map_err(at)?;
        }
        Ok(Ok(()))
    }
}

impl Committer {
    pub(super) fn new(shared: Arc<Shared>, durable: Applied) -> Committer {
        Committer { shared, durable }
    }

    /// Work that waits; a commit is due at 10,000 operations or after 100 ms, by the driver's
    /// clock.
    #[must_use]
    pub fn pending(&self) -> Pending {
        self.shared.pending()
    }

    /// The applied index that a crash would leave.
    #[must_use]
    pub fn durable(&self) -> Applied {
        self.durable
    }

    /// Seals the open batch, writes it as one bolt transaction and drops it.
    ///
    /// # Errors
    /// The file could not be written. The batch stays readable, and every later call fails:
    /// the member must stop.
    pub fn commit(&mut self) -> Result<Committed, Error> {
        if self.shared.failed.load(Ordering::Acquire) {
            return Err(Error::Failed);
        }
        let Some((layer, pending)) = self.seal() else {
            return Ok(Committed {
                durable: self.durable,
                ..Committed::default()
            });
        };
        let begin = Instant::now();
        let stats = match self.write(&layer) {
            Ok(stats) => stats,
            Err(source) => {
                self.shared.failed.store(true, Ordering::Release);
                return Err(Error::Commit { source });
            }
        };
        let took = begin.elapsed();
        self.durable = layer.applied().unwrap_or(self.durable);
        self.drop_committed(pending);
        Ok(Committed {
            ops: pending.ops,
            durable: self.durable,
            changing: took.saturating_sub(stats.spilling + stats.writing),
            spilling: stats.spilling,
            writing: stats.writing,
        })
    }

    /// Makes the open batch the committing one; `None` when it is empty.
    pub(super) fn seal(&self) -> Option<(Arc<Layer>, Pending)> {
        let mut overlay = self.shared.overlay.write();
        if overlay.open.is_empty() {
            return None;
        }
        let mut layer = std::mem::take(&mut overlay.open);
        layer.seal();
        let layer = Arc::new(layer);
        overlay.committing = Some(layer.clone());
        Some((layer, self.shared.pending()))
    }

    pub(super) fn drop_committed(&self, pending: Pending) {
        let done = {
            let mut overlay = self.shared.overlay.write();
            self.shared.ops.fetch_sub(pending.ops, Ordering::Relaxed);
            self.shared
                .bytes
                .fetch_sub(pending.bytes, Ordering::Relaxed);
            overlay.committing.take()
        };
        // The values are freed here, outside the lock.
        drop(done);
    }

    pub(super) fn write(&self, layer: &Layer) -> Result<bolt::CommitStats, bolt::Error> {
        let mut tx = self.shared.db.begin_write()?;
        #[cfg(feature = "plant-split-applied-index")]
        {
            let applied = layer.applied().unwrap_or(self.durable);
            let index = applied.index.0.to_be_bytes();
            tx.put(Bucket::Meta.name(), super::meta::CONSISTENT_INDEX, &index)?;
            tx.commit()?;
            tx = self.shared.db.begin_write()?;
        }
        for bucket in Bucket::ALL {
            // The values are shared, not copied.
            let writes: Vec<(Bytes, Option<Bytes>)> = layer
                .iter(bucket)
                .map(|(key, value)| {
                    let value = value.clone().map(Bytes::from_owner);
                    (Bytes::copy_from_slice(key), value)
                })
                .collect();
            if !writes.is_empty() {
                tx.apply_sorted(bucket.name(), &writes)?;
            }
        }
        tx.commit()
    }

    /// Makes one step of a defragmentation, which changes no content; a new run begins with a
    /// default [`bolt::Defrag`].
    ///
    /// # Errors
    /// The file could not be written. Where it is unknown what it holds now, every later call
    /// fails; otherwise the file is as it was.
    pub fn defragment(&mut self, run: &mut bolt::Defrag) -> Result<bolt::DefragStep, Error> {
        if self.shared.failed.load(Ordering::Acquire) {
            return Err(Error::Failed);
        }
        let step = self.shared.db.defragment(run);
        if step.is_err() && self.shared.db.is_poisoned() {
            self.shared.failed.store(true, Ordering::Release);
        }
        step.map_err(|source| Error::Commit { source })
    }

    /// See [`bolt::Db::lost_meta`].
    #[must_use]
    pub fn lost_meta(&self) -> Option<bolt::PageId> {
        self.shared.db.lost_meta()
    }

    /// True once a call has failed after which nothing may be committed.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.shared.failed.load(Ordering::Acquire)
    }

    /// Commits, then pins the file as it is: exactly the state at the returned applied index.
    ///
    /// # Errors
    /// As [`Committer::commit`].
    pub fn pin(&mut self) -> Result<Pinned, Error> {
        self.commit()?;
        let tx = self.shared.db.begin_read();
        Ok(Pinned {
            tx,
            applied: self.durable,
        })
    }
}
