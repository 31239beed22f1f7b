//! What members say to each other, with every field that raftpb's `Message` has.

use api::ids::MemberId;
use bytes::Bytes;
use storage::log::{Entry, LogIndex, Snapshot, Term};

/// The types of message that may cross the wire; the numbers are raftpb's.
///
/// Numbers 0, 1, 10, 11, 12 and those above 18 are a process's messages to itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum MessageKind {
    Propose = 2,
    Append = 3,
    AppendResponse = 4,
    Vote = 5,
    VoteResponse = 6,
    Snapshot = 7,
    Heartbeat = 8,
    HeartbeatResponse = 9,
    TransferLeader = 13,
    TimeoutNow = 14,
    ReadIndex = 15,
    ReadIndexResponse = 16,
    PreVote = 17,
    PreVoteResponse = 18,
}

impl MessageKind {
    /// Every kind, in the order of the numbers.
    pub const ALL: &'static [MessageKind] = &[
        MessageKind::Propose,
        MessageKind::Append,
        MessageKind::AppendResponse,
        MessageKind::Vote,
        MessageKind::VoteResponse,
        MessageKind::Snapshot,
        MessageKind::Heartbeat,
        MessageKind::HeartbeatResponse,
        MessageKind::TransferLeader,
        MessageKind::TimeoutNow,
        MessageKind::ReadIndex,
        MessageKind::ReadIndexResponse,
        MessageKind::PreVote,
        MessageKind::PreVoteResponse,
    ];

    /// Whether the message promises something that a crash must not undo, or asks for such a
    /// promise, so that it may leave only after the sync of what it was made from.
    #[must_use]
    pub fn waits_for_sync(self) -> bool {
        matches!(
            self,
            MessageKind::Vote
                | MessageKind::VoteResponse
                | MessageKind::PreVote
                | MessageKind::PreVoteResponse
                | MessageKind::AppendResponse
        )
    }

    /// The kind with a number from the wire; none for local and unknown ones.
    #[must_use]
    pub fn from_number(number: u64) -> Option<MessageKind> {
        Self::ALL
            .iter()
            .copied()
            .find(|kind| *kind as u64 == number)
    }
}

/// One message; which fields mean something depends on the kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    pub kind: MessageKind,
    pub to: MemberId,
    pub from: MemberId,
    /// 0 on `Propose` and `ReadIndex`.
    pub term: Term,
    /// Term of the entry at `index`.
    pub log_term: Term,
    pub index: LogIndex,
    pub entries: Vec<Entry>,
    pub commit: LogIndex,
    /// Carries the membership; the database travels beside it.
    pub snapshot: Option<Snapshot>,
    pub reject: bool,
    pub reject_hint: LogIndex,
    /// Identifies a read-index round, or says `CampaignTransfer` on a vote.
    pub context: Bytes,
}

impl Message {
    /// A message with nothing but its kind and ends.
    #[must_use]
    pub fn new(kind: MessageKind, from: MemberId, to: MemberId) -> Message {
        Message {
            kind,
            to,
            from,
            term: Term(0),
            log_term: Term(0),
            index: LogIndex(0),
            entries: Vec::new(),
            commit: LogIndex(0),
            snapshot: None,
            reject: false,
            reject_hint: LogIndex(0),
            context: Bytes::new(),
        }
    }
}
