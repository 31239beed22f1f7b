//! The part of the log that is kept in memory: what the engine reads its own writes from, and
//! what followers that lag a little are fed with.

use std::collections::VecDeque;

use raft::eraftpb::{self, Snapshot};
use raft::{Error, GetEntriesContext, RaftState, Storage, StorageError};
use storage::log::{ConfState, Entry, LogIndex, SnapshotMeta, Term};

use super::convert;

/// Entries `first..=last`, and the term of the entry before the first.
///
/// Invariant: `entries[i].index == before + 1 + i`.
pub(super) struct LogTail {
    /// Hard state and configuration that the engine starts from; not kept up to date.
    initial: RaftState,
    /// Index of the entry before the first one kept.
    before: u64,
    before_term: u64,
    entries: VecDeque<eraftpb::Entry>,
    /// Sum of the kept entries' data lengths.
    bytes: usize,
    /// Last applied entry, its term, and the configuration after it: where a snapshot for a
    /// follower would stand.
    applied: SnapshotMeta,
}

impl LogTail {
    pub(super) fn new(initial: RaftState, before: (LogIndex, Term)) -> LogTail {
        let (LogIndex(before), Term(before_term)) = before;
        LogTail {
            initial,
            before,
            before_term,
            entries: VecDeque::new(),
            bytes: 0,
            applied: SnapshotMeta::default(),
        }
    }

    /// Everything up to this entry is applied.
    pub(super) fn on_applied(&mut self, index: LogIndex) {
        if let Some(term) = self.term_of(index.0) {
            self.applied.index = index;
            self.applied.term = Term(term);
        }
    }

    pub(super) fn set_conf(&mut self, conf: &ConfState) {
        self.applied.conf.clone_from(conf);
    }

    /// A snapshot takes the place of the whole log.
    pub(super) fn restore(&mut self, meta: &SnapshotMeta) {
        self.entries.clear();
        self.bytes = 0;
        self.before = meta.index.0;
        self.before_term = meta.term.0;
        self.applied.clone_from(meta);
    }

    /// Appends one entry that was checked to continue the log.
    pub(super) fn push(&mut self, entry: &Entry) {
        assert_eq!(entry.index.0, self.last() + 1, "log gap");
        self.bytes += entry.data.len();
        self.entries.push_back(convert::entry_in(entry));
    }

    /// Appends what the engine handed out; entries from the first new index on are replaced.
    pub(super) fn append(&mut self, entries: &[eraftpb::Entry]) {
        let Some(first) = entries.first() else { return };
        assert!(
            first.index > self.before && first.index <= self.last() + 1,
            "entry {} does not continue log {}..={}",
            first.index,
            self.before + 1,
            self.last(),
        );
        let kept = (first.index - self.before - 1) as usize;
        for dropped in self.entries.drain(kept..) {
            self.bytes -= len_of(&dropped);
        }
        self.bytes += entries.iter().map(len_of).sum::<usize>();
        self.entries.extend(entries.iter().cloned());
    }

    /// Forgets entries up to and including `index`; the last entry is never passed.
    pub(super) fn compact(&mut self, index: LogIndex) {
        while self.before < index.0 && self.forget_first() {}
    }

    /// Forgets entries, not beyond `index`, until the data of those left fits in `bytes`.
    pub(super) fn shrink(&mut self, bytes: usize, index: LogIndex) {
        while self.bytes > bytes && self.before < index.0 && self.forget_first() {}
    }

    fn forget_first(&mut self) -> bool {
        let Some(entry) = self.entries.pop_front() else {
            return false;
        };
        self.before = entry.index;
        self.before_term = entry.term;
        self.bytes -= len_of(&entry);
        true
    }

    /// Term of an entry that is kept, or of the one before the first.
    pub(super) fn term_of(&self, index: u64) -> Option<u64> {
        if index == self.before {
            return Some(self.before_term);
        }
        let at = index.checked_sub(self.before + 1)?;
        self.entries.get(at as usize).map(|entry| entry.term)
    }

    pub(super) fn first(&self) -> u64 {
        self.before + 1
    }

    pub(super) fn last(&self) -> u64 {
        self.before + self.entries.len() as u64
    }
}

/// Data of an entry, whichever field the adapter put it in.
fn len_of(entry: &eraftpb::Entry) -> usize {
    entry.data.len() + entry.context.len()
}

impl Storage for LogTail {
    fn initial_state(&self) -> raft::Result<RaftState> {
        Ok(self.initial.clone())
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _: GetEntriesContext,
    ) -> raft::Result<Vec<eraftpb::Entry>> {
        if low <= self.before {
            return Err(Error::Store(StorageError::Compacted));
        }
        if high > self.last() + 1 {
            return Err(Error::Store(StorageError::Unavailable));
        }
        let max_size = max_size.into().unwrap_or(u64::MAX);
        let from = (low - self.before - 1) as usize;
        let until = (high - self.before - 1) as usize;
        let mut size = 0u64;
        let mut taken = Vec::with_capacity(until.saturating_sub(from).min(1024));
        for entry in self.entries.range(from..until) {
            size += len_of(entry) as u64 + ENTRY_OVERHEAD_BYTES;
            if size > max_size && !taken.is_empty() {
                break;
            }
            taken.push(entry.clone());
        }
        Ok(taken)
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        if index < self.before {
            return Err(Error::Store(StorageError::Compacted));
        }
        self.term_of(index)
            .ok_or(Error::Store(StorageError::Unavailable))
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.first())
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.last())
    }

    fn snapshot(&self, _: u64, _: u64) -> raft::Result<Snapshot> {
        // Where it stands is decided anew when the database is pinned; see `member::snapshot`.
        if self.applied.index == LogIndex(0) {
            return Err(Error::Store(StorageError::SnapshotTemporarilyUnavailable));
        }
        Ok(convert::snapshot_meta_in(&self.applied))
    }
}

/// What an encoded entry takes besides its data: tags, index and term.
const ENTRY_OVERHEAD_BYTES: u64 = 24;
