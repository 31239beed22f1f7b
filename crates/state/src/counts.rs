//! What was done to the keys since the start, for the metrics.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Numbers of operations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Operations {
    pub puts: u64,
    /// Deletions of a key or of a range, whatever they found.
    pub deletes: u64,
    pub ranges: u64,
    /// Requests of more than one operation.
    pub txns: u64,
    /// Bytes of keys and values that were put.
    pub put_bytes: u64,
}

/// Grows on any thread; outlives a state that a received one takes the place of.
#[derive(Default)]
pub(crate) struct Counts {
    puts: AtomicU64,
    deletes: AtomicU64,
    ranges: AtomicU64,
    txns: AtomicU64,
    put_bytes: AtomicU64,
}

impl Counts {
    /// Adds the operations of one request.
    pub(crate) fn add(&self, done: &Operations) {
        let txns = u64::from(done.puts + done.deletes + done.ranges > 1);
        for (count, more) in [
            (&self.puts, done.puts),
            (&self.deletes, done.deletes),
            (&self.ranges, done.ranges),
            (&self.txns, txns),
            (&self.put_bytes, done.put_bytes),
        ] {
            if more > 0 {
                count.fetch_add(more, Relaxed);
            }
        }
    }

    pub(crate) fn read(&self) -> Operations {
        Operations {
            puts: self.puts.load(Relaxed),
            deletes: self.deletes.load(Relaxed),
            ranges: self.ranges.load(Relaxed),
            txns: self.txns.load(Relaxed),
            put_bytes: self.put_bytes.load(Relaxed),
        }
    }
}
