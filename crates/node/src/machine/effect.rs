//! What goes into the machine and what comes out: two closed lists.

use api::ids::{MemberId, RequestId};
use bytes::Bytes;
use storage::log::{Entry, EntryKind, HardState, LogIndex, Snapshot, SnapshotMeta, Term};

use super::membership::Reconfigure;
use crate::raft::{ConfChange, Message};

/// How the driver recognises one of its requests; the machine only hands it back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(pub u64);

/// A request that wants to become a log entry.
#[derive(Clone, Debug)]
pub struct Proposal {
    /// The id inside of `data`, from [`crate::ids::RequestIds`].
    pub id: RequestId,
    pub kind: EntryKind,
    /// An encoded `InternalRaftRequest` or raftpb `ConfChange`.
    pub data: Bytes,
    pub token: Token,
}

/// Everything that can happen to a member.
#[derive(Debug)]
pub enum Input {
    /// The driver is ready to carry out outputs; comes once, first.
    Start,
    /// One heartbeat interval passed.
    Tick,
    /// Requests that arrived since the last batch.
    Propose(Vec<Proposal>),
    /// What only a leader may ask for, as the end of a lease: taken in while this member leads,
    /// and dropped otherwise, never handed to another leader, who may know better.
    ProposeAsLeader(Vec<Proposal>),
    /// Linearizable reads that arrived since the last batch.
    ReadIndex(Vec<Token>),
    /// The WAL did what [`Output::Persist`] of this number asked, in order.
    Persisted { number: u64 },
    /// The state machine applied everything up to here.
    Applied { index: LogIndex },
    /// The entry at `index` was applied and is a configuration change; `None` when it changes
    /// nothing for raft (refused, or a mere update). Comes before the `Applied` that covers it.
    ConfChange {
        index: LogIndex,
        change: Option<ConfChange>,
    },
    /// The state machine's cluster version is now this (`major.minor.patch`).
    ClusterVersion(String),
    /// The cluster is to be downgraded to this version (`major.minor.patch`), or no longer.
    Downgrade(Option<String>),
    /// A peer said something, in the order in which it said it; a snapshot does not count, see
    /// [`Input::Received`].
    Message(Box<Message>),
    /// A snapshot arrived: its message, and its database, which is durable under the name that
    /// `storage::datadir` gives it and was found by `member::verify` to be what the message says.
    /// The peer may be told of success when this was handled.
    Received(Box<Message>),
    /// A message to a peer was lost.
    ReportUnreachable { peer: MemberId },
    /// What became of [`Output::SendSnapshot`] to `peer`; due for each, also after a failure to
    /// make it.
    ReportSnapshot { peer: MemberId, arrived: bool },
    /// The database of [`Output::InstallSnapshot`] is in place, and the state is built from it.
    Installed { index: LogIndex },
    /// Change who the members are.
    Reconfigure(Box<Reconfigure>),
    /// Hand over leadership: to a member, or, when the driver stops, to whoever is nearest. The
    /// answer is [`Output::Transferred`] or a rejection.
    TransferLeader { to: Option<MemberId>, token: Token },
    /// The answer to [`Output::AskVersions`]: what each other member says that it runs, as far
    /// as it could be asked.
    Versions(Vec<(MemberId, Option<String>)>),
    /// Take a snapshot at the next opportunity, whatever the count: before a clean stop.
    ForceSnapshot,
    /// The procedure that [`Output::TakeSnapshot`] began is over, durably.
    SnapshotTaken { index: LogIndex },
    /// Write a commit index that was held back: before a clean stop.
    Flush,
}

/// One batch for the WAL: append all, sync when asked, then report the number.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Persist {
    pub number: u64,
    /// A received snapshot that the log goes on after: its file and the log's record of it come
    /// first. `member::persist` does all of it in order.
    pub snapshot: Option<Box<Snapshot>>,
    /// Written after the entries.
    pub hard_state: Option<HardState>,
    /// Entries from the first one's index on replace what the log has there.
    pub entries: Vec<Entry>,
    /// False when only the commit index changed.
    pub must_sync: bool,
}

/// What the driver must do, in this order.
#[derive(Debug, PartialEq)]
pub enum Output {
    /// Send to peers, each in the given order; may run while a [`Persist`] is under way. Whatever
    /// had to be durable for it is. A message that cannot be sent at once is dropped and reported
    /// with [`Input::ReportUnreachable`].
    Send(Vec<Message>),
    /// Send a database to a peer: `member::Outgoing` pins it and completes the message, whose
    /// place in the log is the database's. Ends with [`Input::ReportSnapshot`].
    SendSnapshot(Box<Message>),
    /// Put a received database in place (`member::Install`): nothing is being applied, and its
    /// record is durable. Ends with [`Input::Installed`].
    InstallSnapshot(SnapshotMeta),
    /// At most one is under way at any time.
    Persist(Persist),
    /// Apply in order, then report the last index; they are committed and durable here.
    Apply(Vec<Entry>),
    /// These reads may be served from the state as it is now, or later.
    ReadReady { tokens: Vec<Token>, index: LogIndex },
    /// These requests failed here. A proposal may be applied nevertheless.
    Rejected(Vec<(Token, api::Error)>),
    /// These proposals waited too long here, for a reason that who knows the connections can tell
    /// better; they may be applied nevertheless.
    Late(Vec<Token>),
    /// The leader or the term is now this.
    LeaderChanged {
        leader: Option<MemberId>,
        term: Term,
    },
    /// This member leads, and has applied an entry of its term and so whatever was asked of the
    /// leaders before it. Comes at most once after each [`Output::LeaderChanged`].
    Settled,
    /// While the last one said `true`, this member is the only voter, leads, and has applied an
    /// entry of its term, so that any thread may answer linearizable reads from the state.
    SoleLeader(bool),
    /// Take a snapshot of the state exactly as it is now: everything handed out was applied, and
    /// the WAL has reported a commit index that covers it.
    TakeSnapshot(SnapshotMeta),
    /// This member's name and client URLs are in the log and applied.
    Published,
    /// Leadership is where [`Input::TransferLeader`] wanted it.
    Transferred(Token),
    /// This member leads and wants to know what the others run, as `GET /version` tells.
    AskVersions,
    /// This member was removed for good, and the others had time to hear of it: stop.
    Removed,
}
