//! The two ways to write: with a log entry, and maintenance under the same applied index.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::layer::{Key, Layer};
use super::{Applied, Bucket, Pending, Shared, Value, conf_state_json, meta};
use crate::log::{ConfState, LogIndex, Term};

type Op = (Bucket, Key, Option<Value>);

/// The writer of the replicated state; owned by apply.
pub struct Writer {
    shared: Arc<Shared>,
    applied: Applied,
    /// Kept between transactions for its capacity.
    ops: Vec<Op>,
}

impl Writer {
    pub(super) fn new(shared: Arc<Shared>) -> Writer {
        let applied = shared.overlay.read().applied;
        Writer {
            shared,
            applied,
            ops: Vec::new(),
        }
    }

    /// How far the state was applied.
    #[must_use]
    pub fn applied(&self) -> Applied {
        self.applied
    }

    /// Begins the writes of the log entry at `index`, which must lie above the applied index.
    pub fn begin(&mut self, index: LogIndex, term: Term) -> ApplyTxn<'_> {
        assert!(
            index > self.applied.index,
            "entry {index} is applied over {}",
            self.applied.index
        );
        self.ops.clear();
        ApplyTxn {
            applied: Applied { index, term },
            writer: self,
        }
    }

    /// Work that waits for the committer.
    #[must_use]
    pub fn pending(&self) -> Pending {
        self.shared.pending()
    }

    /// True while the overlay is over its bound: stop applying until the committer has caught up.
    #[must_use]
    pub fn pressure(&self) -> bool {
        self.shared.bytes.load(Ordering::Relaxed) > self.shared.overlay_bytes_max
    }

    /// Bytes in use: allocated pages less free ones, and the overlay.
    #[must_use]
    pub fn size_in_use(&self) -> u64 {
        self.shared.size_in_use()
    }
}

/// The writes of one log entry. Dropping it writes nothing.
pub struct ApplyTxn<'a> {
    writer: &'a mut Writer,
    applied: Applied,
}

impl ApplyTxn<'_> {
    /// Sets `key` of `bucket`.
    pub fn put(&mut self, bucket: Bucket, key: &[u8], value: Value) {
        self.writer
            .ops
            .push((bucket, Key::from_slice(key), Some(value)));
    }

    /// Removes `key` from `bucket`; a missing key is no error.
    pub fn delete(&mut self, bucket: Bucket, key: &[u8]) {
        self.writer.ops.push((bucket, Key::from_slice(key), None));
    }

    /// Records the raft configuration that this entry leads to.
    pub fn set_conf_state(&mut self, conf: &ConfState) {
        let json = conf_state_json(conf);
        self.put(Bucket::Meta, meta::CONF_STATE, Arc::from(json.as_bytes()));
    }

    /// Makes the writes, the applied index and its term readable together.
    pub fn commit(self) {
        let shared = &self.writer.shared;
        let ops = self.writer.ops.len() + 1;
        let mut overlay = shared.overlay.write();
        let bytes = move_into(&mut overlay.open, self.writer.ops.drain(..));
        overlay.open.set_applied(self.applied);
        overlay.applied = self.applied;
        shared.ops.fetch_add(ops, Ordering::Relaxed);
        shared.bytes.fetch_add(bytes, Ordering::Relaxed);
        drop(overlay);
        self.writer.applied = self.applied;
    }
}

fn move_into(layer: &mut Layer, ops: impl Iterator<Item = Op>) -> usize {
    ops.map(|(bucket, key, value)| layer.set(bucket, key, value))
        .sum()
}

/// The writer of what is not replicated by an entry of its own; owned by the background sweep.
pub struct MaintenanceWriter {
    shared: Arc<Shared>,
}

impl MaintenanceWriter {
    pub(super) fn new(shared: Arc<Shared>) -> MaintenanceWriter {
        MaintenanceWriter { shared }
    }

    /// Begins a batch of maintenance writes.
    pub fn begin(&mut self) -> MaintenanceTxn<'_> {
        MaintenanceTxn {
            shared: &self.shared,
            ops: Vec::new(),
        }
    }

    /// Work that waits for the committer.
    #[must_use]
    pub fn pending(&self) -> Pending {
        self.shared.pending()
    }
}

/// Maintenance writes; its methods are the whole list of what maintenance may touch. The applied
/// index stays as it is. Dropping it writes nothing.
pub struct MaintenanceTxn<'a> {
    shared: &'a Arc<Shared>,
    ops: Vec<Op>,
}

impl MaintenanceTxn<'_> {
    /// Removes a compacted revision from bucket `key`.
    pub fn delete_revision(&mut self, key: &[u8]) {
        self.ops.push((Bucket::Key, Key::from_slice(key), None));
    }

    /// Records that the deletions of a compaction are complete.
    pub fn set_finished_compact(&mut self, revision: &[u8; 17]) {
        let value = Arc::from(&revision[..]);
        self.ops.push((
            Bucket::Meta,
            Key::from_slice(meta::FINISHED_COMPACT),
            Some(value),
        ));
    }

    /// Sets or removes the storage version.
    pub fn set_storage_version(&mut self, version: Option<&str>) {
        let value = version.map(|version| Arc::from(version.as_bytes()));
        self.ops
            .push((Bucket::Meta, Key::from_slice(meta::STORAGE_VERSION), value));
    }

    /// Makes the writes readable.
    pub fn commit(self) {
        let ops = self.ops.len();
        let mut overlay = self.shared.overlay.write();
        let bytes = move_into(&mut overlay.open, self.ops.into_iter());
        self.shared.ops.fetch_add(ops, Ordering::Relaxed);
        self.shared.bytes.fetch_add(bytes, Ordering::Relaxed);
    }
}
