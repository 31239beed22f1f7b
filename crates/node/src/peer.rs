//! What members say to each other, as bytes: raftpb messages and the framings around them.
//!
//! - [`encode`], [`decode`]: one raftpb `Message`, as etcd 3.7 writes it and as every release
//!   since 3.4 may.
//! - [`stream`]: the two streams, `message` and `msgappv2`, as incremental readers and writers.
//! - [`envelope`]: the head of a snapshot post, after which the database follows.
//!
//! Nothing here trusts a length: a reader asks for no more memory than bytes have arrived.

pub mod stream;

#[cfg(test)]
mod tests;

use std::fmt;

use api::ids::MemberId;
use bytes::Bytes;
use storage::log::{LogIndex, Snapshot, Term, codec};
use storage::wire::{Fields, WireError, put_bytes, put_uint, put_varint};

use crate::raft::{Message, MessageKind};

/// Longest message that is read, in bytes, as in etcd.
pub const MESSAGE_BYTES_MAX: u64 = 512 << 20;
/// Longest message before a database that is read, in bytes, as in etcd 3.7.
pub const ENVELOPE_BYTES_MAX: u64 = 64 << 20;
/// Most entries of a message that is read: each takes memory, however few bytes it came in.
/// A member's message has a MiB of them, or one that is larger.
pub const ENTRIES_MAX: usize = 1 << 20;

/// Why bytes from a peer are no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerError {
    /// The protobuf encoding is broken.
    Wire(WireError),
    /// The number of a type that members keep to themselves, or of none.
    Kind(u64),
    /// A length above what is read.
    TooLong(u64),
    /// More entries than are read.
    TooMany(u64),
    /// A frame of a kind that the stream does not have.
    Frame(u8),
}

impl fmt::Display for PeerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PeerError::Wire(error) => error.fmt(f),
            PeerError::Kind(number) => write!(f, "message of type {number}"),
            PeerError::TooLong(bytes) => write!(f, "message of {bytes} bytes"),
            PeerError::TooMany(entries) => write!(f, "message of {entries} entries"),
            PeerError::Frame(number) => write!(f, "frame of type {number}"),
        }
    }
}

impl std::error::Error for PeerError {}

impl From<WireError> for PeerError {
    fn from(error: WireError) -> PeerError {
        PeerError::Wire(error)
    }
}

/// What a peer sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Received {
    Message(Box<Message>),
    /// The link is alive; nothing for raft.
    LinkHeartbeat,
}

/// The link heartbeat as a raftpb message: type 8, from and to nobody.
const LINK_HEARTBEAT: [u8; 2] = [0x08, 0x08];

/// Appends a message: fields that are zero are left out, as etcd 3.7 does.
pub fn encode(message: &Message, out: &mut Vec<u8>) {
    put_uint(out, 1, u64::from(message.kind as u8));
    let head = [
        (2, message.to.0),
        (3, message.from.0),
        (4, message.term.0),
        (5, message.log_term.0),
        (6, message.index.0),
    ];
    put_set(out, &head);
    for entry in &message.entries {
        put_varint(out, 7 << 3 | 2);
        put_varint(out, stream::entry_len(entry) as u64);
        stream::put_entry(out, entry);
    }
    put_set(out, &[(8, message.commit.0)]);
    if let Some(snapshot) = &message.snapshot {
        let mut inner = Vec::new();
        codec::put_snapshot(&mut inner, snapshot);
        put_bytes(out, 9, &inner);
    }
    let tail = [(10, u64::from(message.reject)), (11, message.reject_hint.0)];
    put_set(out, &tail);
    if !message.context.is_empty() {
        put_bytes(out, 12, &message.context);
    }
}

fn put_set(out: &mut Vec<u8>, fields: &[(u32, u64)]) {
    for (field, value) in fields {
        if *value != 0 {
            put_uint(out, *field, *value);
        }
    }
}

/// Reads a message; entries, snapshot and context share the memory of `src`. Absent fields are
/// zero, unknown ones are passed over, and an empty snapshot, which releases up to 3.5 put on
/// every message, is none.
///
/// # Errors
/// When the bytes are malformed, or the type is one that may not cross the wire.
pub fn decode(src: &Bytes) -> Result<Received, PeerError> {
    let mut message = Message::new(MessageKind::Propose, MemberId(0), MemberId(0));
    let mut kind = 0;
    for field in Fields::new(src) {
        let field = field?;
        match field.number {
            1 => kind = field.uint()?,
            2 => message.to = MemberId(field.uint()?),
            3 => message.from = MemberId(field.uint()?),
            4 => message.term = Term(field.uint()?),
            5 => message.log_term = Term(field.uint()?),
            6 => message.index = LogIndex(field.uint()?),
            7 => {
                let entry = codec::entry(&src.slice_ref(field.bytes()?))?;
                if message.entries.len() == ENTRIES_MAX {
                    return Err(PeerError::TooMany(ENTRIES_MAX as u64 + 1));
                }
                message.entries.push(entry);
            }
            8 => message.commit = LogIndex(field.uint()?),
            9 => {
                let snapshot = codec::snapshot(&src.slice_ref(field.bytes()?))?;
                message.snapshot = (snapshot.meta.index > LogIndex(0)).then_some(snapshot);
            }
            10 => message.reject = field.uint()? != 0,
            11 => message.reject_hint = LogIndex(field.uint()?),
            12 => message.context = src.slice_ref(field.bytes()?),
            _ => {}
        }
    }
    message.kind = MessageKind::from_number(kind).ok_or(PeerError::Kind(kind))?;
    let nobody = message.from == MemberId(0) && message.to == MemberId(0);
    if message.kind == MessageKind::Heartbeat && nobody {
        return Ok(Received::LinkHeartbeat);
    }
    if message.kind != MessageKind::Snapshot {
        message.snapshot = None;
    }
    Ok(Received::Message(Box::new(message)))
}

/// The head of a snapshot post: the length of the message, the message. The database's image
/// follows as it is, to the end of the body.
#[must_use]
pub fn envelope(message: &Message) -> Vec<u8> {
    let mut out = vec![0; 8];
    encode(message, &mut out);
    let len = (out.len() - 8) as u64;
    out[..8].copy_from_slice(&len.to_be_bytes());
    out
}

/// Takes the head of a snapshot post off the front of `src`; `None` until it is complete.
///
/// # Errors
/// When the head is too long, malformed, or no snapshot message.
pub fn open_envelope(src: &mut Bytes) -> Result<Option<Box<Message>>, PeerError> {
    let Some(head) = src.first_chunk::<8>() else {
        return Ok(None);
    };
    let len = u64::from_be_bytes(*head);
    if len > ENVELOPE_BYTES_MAX {
        return Err(PeerError::TooLong(len));
    }
    let end = 8 + len as usize;
    if src.len() < end {
        return Ok(None);
    }
    let head = src.split_to(end).slice(8..);
    match decode(&head)? {
        Received::Message(message) if is_snapshot(message.snapshot.as_ref()) => Ok(Some(message)),
        Received::Message(message) => Err(PeerError::Kind(u64::from(message.kind as u8))),
        Received::LinkHeartbeat => Err(PeerError::Kind(MessageKind::Heartbeat as u64)),
    }
}

fn is_snapshot(snapshot: Option<&Snapshot>) -> bool {
    snapshot.is_some_and(|snapshot| snapshot.meta.index > LogIndex(0))
}
