//! The two streams between members.
//!
//! ```text
//! message    u64 length, message                       link heartbeat: a message of type 8
//! msgappv2   00                                        link heartbeat
//!            01 u64 n, n × (u64 length, entry), u64 commit   an append that goes on where the
//!                                                      last one ended, in the same term
//!            02 u64 length, message                    any other append
//! ```
//! Numbers are big-endian. Both ends of `msgappv2` remember term and index of the last append.

use api::ids::MemberId;
use bytes::{Buf, Bytes, BytesMut};
use storage::log::{Entry, EntryKind, LogIndex, Term, codec};
use storage::wire::{put_uint, put_varint, varint_len};

use super::{ENTRIES_MAX, LINK_HEARTBEAT, MESSAGE_BYTES_MAX, PeerError, Received, decode, encode};
use crate::raft::{Message, MessageKind};

/// Appends an entry: fields that are zero are left out, as etcd 3.7 does.
pub(super) fn put_entry(out: &mut Vec<u8>, entry: &Entry) {
    for (field, value) in fields_of(entry) {
        if value != 0 {
            put_uint(out, field, value);
        }
    }
    if !entry.data.is_empty() {
        put_varint(out, 4 << 3 | 2);
        put_varint(out, entry.data.len() as u64);
        out.extend_from_slice(&entry.data);
    }
}

/// Bytes that [`put_entry`] appends.
pub(super) fn entry_len(entry: &Entry) -> usize {
    let numbers = fields_of(entry).into_iter().map(|(_, value)| value);
    let head: usize = numbers
        .filter(|value| *value != 0)
        .map(|value| 1 + varint_len(value))
        .sum();
    match entry.data.len() {
        0 => head,
        len => head + 1 + varint_len(len as u64) + len,
    }
}

fn fields_of(entry: &Entry) -> [(u32, u64); 3] {
    let kind = u64::from(entry.kind == EntryKind::ConfChange);
    [(1, kind), (2, entry.term.0), (3, entry.index.0)]
}

/// Appends a frame of the `message` stream.
pub fn put_message(message: &Message, out: &mut Vec<u8>) {
    let begin = out.len();
    out.extend_from_slice(&[0; 8]);
    encode(message, out);
    let len = (out.len() - begin - 8) as u64;
    out[begin..begin + 8].copy_from_slice(&len.to_be_bytes());
}

/// Appends the link heartbeat of the `message` stream.
pub fn put_message_heartbeat(out: &mut Vec<u8>) {
    out.extend_from_slice(&(LINK_HEARTBEAT.len() as u64).to_be_bytes());
    out.extend_from_slice(&LINK_HEARTBEAT);
}

/// Takes a frame of the `message` stream off the front of `buf`; `None` until it is complete.
///
/// # Errors
/// The stream must be closed.
pub fn take_message(buf: &mut BytesMut) -> Result<Option<Received>, PeerError> {
    match take_frame(buf, 0)? {
        Some(frame) => decode(&frame).map(Some),
        None => Ok(None),
    }
}

/// The length that stands `at` bytes into `buf`, and where what it announces begins.
fn length(buf: &[u8], at: usize) -> Result<Option<(u64, usize)>, PeerError> {
    let Some(bytes) = buf.get(at..).and_then(|rest| rest.first_chunk::<8>()) else {
        return Ok(None);
    };
    match u64::from_be_bytes(*bytes) {
        len if len > MESSAGE_BYTES_MAX => Err(PeerError::TooLong(len)),
        len => Ok(Some((len, at + 8))),
    }
}

/// Takes `skip` bytes, a length and what it announces off the front, and returns the last.
fn take_frame(buf: &mut BytesMut, skip: usize) -> Result<Option<Bytes>, PeerError> {
    let Some((len, begin)) = length(buf, skip)? else {
        return Ok(None);
    };
    let end = begin + len as usize;
    if buf.len() < end {
        return Ok(None);
    }
    Ok(Some(buf.split_to(end).freeze().slice(begin..)))
}

/// Where the last append on a `msgappv2` stream ended.
#[derive(Clone, Copy, Debug, Default)]
struct Place {
    term: Term,
    index: LogIndex,
}

impl Place {
    fn move_past(&mut self, message: &Message) {
        self.term = message.term;
        self.index = message
            .entries
            .last()
            .map_or(message.index, |entry| entry.index);
    }
}

/// The sending end of a `msgappv2` stream; a new connection begins with a new one.
#[derive(Debug, Default)]
pub struct AppendWriter {
    place: Place,
}

impl AppendWriter {
    /// Appends a link heartbeat.
    pub fn put_heartbeat(out: &mut Vec<u8>) {
        out.push(0);
    }

    /// Appends the frame of an [`MessageKind::Append`].
    pub fn put(&mut self, message: &Message, out: &mut Vec<u8>) {
        let Place { term, index } = self.place;
        let goes_on =
            message.index == index && message.log_term == term && message.log_term == message.term;
        if !goes_on {
            out.push(2);
            put_message(message, out);
            self.place.move_past(message);
            return;
        }
        out.push(1);
        out.extend_from_slice(&(message.entries.len() as u64).to_be_bytes());
        for entry in &message.entries {
            out.extend_from_slice(&(entry_len(entry) as u64).to_be_bytes());
            put_entry(out, entry);
        }
        out.extend_from_slice(&message.commit.0.to_be_bytes());
        self.place.move_past(message);
    }
}

/// The receiving end of a `msgappv2` stream between two members.
#[derive(Debug)]
pub struct AppendReader {
    from: MemberId,
    to: MemberId,
    place: Place,
    /// Entries of the frame under way, so that no byte is looked at twice.
    partial: Option<Partial>,
}

#[derive(Debug)]
struct Partial {
    left: u64,
    entries: Vec<Entry>,
    /// Bytes of the entries so far.
    bytes: u64,
}

impl AppendReader {
    /// A stream on which `from` writes and `to` reads.
    #[must_use]
    pub fn new(from: MemberId, to: MemberId) -> AppendReader {
        AppendReader {
            from,
            to,
            place: Place::default(),
            partial: None,
        }
    }

    /// Takes a frame off the front of `buf`; `None` until it is complete.
    ///
    /// # Errors
    /// The stream must be closed.
    pub fn take(&mut self, buf: &mut BytesMut) -> Result<Option<Received>, PeerError> {
        if self.partial.is_none() {
            match buf.first() {
                None => return Ok(None),
                Some(0) => {
                    buf.advance(1);
                    return Ok(Some(Received::LinkHeartbeat));
                }
                Some(1) => {
                    let Some((left, begin)) = length(buf, 1)? else {
                        return Ok(None);
                    };
                    if left > ENTRIES_MAX as u64 {
                        return Err(PeerError::TooMany(left));
                    }
                    buf.advance(begin);
                    self.partial = Some(Partial {
                        left,
                        entries: Vec::new(),
                        bytes: 0,
                    });
                }
                Some(2) => return self.take_whole(buf),
                Some(kind) => return Err(PeerError::Frame(*kind)),
            }
        }
        self.take_entries(buf)
    }

    fn take_whole(&mut self, buf: &mut BytesMut) -> Result<Option<Received>, PeerError> {
        let Some(frame) = take_frame(buf, 1)? else {
            return Ok(None);
        };
        let received = decode(&frame)?;
        if let Received::Message(message) = &received {
            self.place.move_past(message);
        }
        Ok(Some(received))
    }

    fn take_entries(&mut self, buf: &mut BytesMut) -> Result<Option<Received>, PeerError> {
        let Some(partial) = &mut self.partial else {
            return Ok(None);
        };
        while partial.left > 0 {
            let Some(frame) = take_frame(buf, 0)? else {
                return Ok(None);
            };
            partial.bytes += frame.len() as u64;
            if partial.bytes > MESSAGE_BYTES_MAX {
                return Err(PeerError::TooLong(partial.bytes));
            }
            partial.entries.push(codec::entry(&frame)?);
            partial.left -= 1;
        }
        let Some(commit) = buf.first_chunk::<8>().copied() else {
            return Ok(None);
        };
        buf.advance(8);
        let Place { term, index } = self.place;
        let message = Message {
            term,
            log_term: term,
            index,
            entries: std::mem::take(&mut partial.entries),
            commit: LogIndex(u64::from_be_bytes(commit)),
            ..Message::new(MessageKind::Append, self.from, self.to)
        };
        self.partial = None;
        self.place.move_past(&message);
        Ok(Some(Received::Message(Box::new(message))))
    }
}
