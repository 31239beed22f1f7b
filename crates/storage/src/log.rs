//! What a raft log consists of on disk: entries, hard state, snapshot metadata.
//!
//! Field numbers are raftpb's (`raft.proto` of etcd-io/raft). Writers emit explicit zeros, as the
//! releases up to 3.6 do; readers accept the absence of any field.

use std::fmt;

use bytes::Bytes;

pub mod codec;

macro_rules! counter {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

counter!(
    /// A raft term; 0 is before the first election.
    Term
);
counter!(
    /// A position in the raft log; the first entry has index 1, 0 is before it.
    LogIndex
);

impl LogIndex {
    /// The position after this one.
    #[must_use]
    pub fn next(self) -> LogIndex {
        LogIndex(self.0 + 1)
    }
}

/// What the data of an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EntryKind {
    /// An `InternalRaftRequest`, or empty for a new leader's first entry.
    Normal,
    /// A raftpb `ConfChange` whose context is JSON.
    ConfChange,
}

/// One entry of the raft log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub kind: EntryKind,
    pub term: Term,
    pub index: LogIndex,
    pub data: Bytes,
}

/// What a member must remember to keep its promises: its term, its vote in it, and how far it
/// knows the log to be committed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HardState {
    pub term: Term,
    /// The member voted for in `term`; 0 for none.
    pub vote: u64,
    pub commit: LogIndex,
}

/// The raft configuration. Joint consensus is never used by etcd; the outgoing halves are kept
/// so that a file that has them is not misread.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConfState {
    pub voters: Vec<u64>,
    pub learners: Vec<u64>,
    pub voters_outgoing: Vec<u64>,
    pub learners_next: Vec<u64>,
    pub auto_leave: bool,
}

/// Where a snapshot stands in the log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SnapshotMeta {
    pub index: LogIndex,
    pub term: Term,
    pub conf: ConfState,
}

/// A raft snapshot as it is kept in `.snap` files and sent to peers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    pub meta: SnapshotMeta,
    /// The old store's JSON, which holds the members; the database travels beside it.
    pub data: Bytes,
}
