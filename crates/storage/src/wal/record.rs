//! Frames and records.
//!
//! ```text
//! frame   u64 LE length word | record (n bytes) | zero padding to a multiple of 8
//! word    n, or n | (0x80 | padding) << 56 when there is padding
//! record  08 type  10 crc  1a len data        (a crc record ends after its crc)
//! ```
//! The checksum is CRC-32C running over the data of every record since the log's creation. It
//! covers neither the word nor the record's header, so both are read strictly: only bytes that a
//! writer makes are accepted, and the length that the header implies must be the word's.

use crate::log::codec;
use crate::log::{Entry, HardState, SnapshotMeta};
use crate::wire::{put_bytes, put_uint, put_varint, take_varint, varint_len};

/// Bytes of the length word.
pub(super) const WORD_BYTES: u64 = 8;
const LENGTH_MASK: u64 = (1 << 56) - 1;
/// The shortest record: type and checksum of one byte each.
const RECORD_BYTES_MIN: u64 = 4;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Metadata = 1,
    Entry = 2,
    State = 3,
    Crc = 4,
    Snapshot = 5,
}

impl Kind {
    fn parse(byte: u8) -> Option<Kind> {
        Some(match byte {
            1 => Kind::Metadata,
            2 => Kind::Entry,
            3 => Kind::State,
            4 => Kind::Crc,
            5 => Kind::Snapshot,
            _ => return None,
        })
    }
}

/// Encodes records into one buffer that is written in one piece.
#[derive(Debug)]
pub(super) struct Encoder {
    /// The running checksum after the last record.
    pub(super) crc: u32,
    pub(super) buf: Vec<u8>,
    scratch: Vec<u8>,
}

impl Encoder {
    pub(super) fn new(crc: u32) -> Encoder {
        Encoder {
            crc,
            buf: Vec::new(),
            scratch: Vec::new(),
        }
    }

    /// The record at the head of a segment that carries the running checksum over.
    pub(super) fn crc_record(&mut self) {
        let start = self.begin(Kind::Crc);
        self.finish(start);
    }

    pub(super) fn metadata(&mut self, message: &[u8]) {
        self.record(Kind::Metadata, message, &[]);
    }

    pub(super) fn entry(&mut self, entry: &Entry) {
        let mut head = std::mem::take(&mut self.scratch);
        codec::put_entry_head(&mut head, entry);
        self.record(Kind::Entry, &head, &entry.data);
        head.clear();
        self.scratch = head;
    }

    pub(super) fn state(&mut self, state: &HardState) {
        let mut message = std::mem::take(&mut self.scratch);
        codec::put_hard_state(&mut message, state);
        self.record(Kind::State, &message, &[]);
        message.clear();
        self.scratch = message;
    }

    /// Index, term and, but for the empty snapshot of a new log, the configuration.
    pub(super) fn snapshot(&mut self, meta: &SnapshotMeta) {
        let mut message = Vec::new();
        put_uint(&mut message, 1, meta.index.0);
        put_uint(&mut message, 2, meta.term.0);
        if meta.index.0 > 0 {
            let mut conf = Vec::new();
            codec::put_conf_state(&mut conf, &meta.conf);
            put_bytes(&mut message, 3, &conf);
        }
        self.record(Kind::Snapshot, &message, &[]);
    }

    /// A record whose data is `head` followed by `tail`.
    fn record(&mut self, kind: Kind, head: &[u8], tail: &[u8]) {
        self.crc = crc32c::crc32c_append(self.crc, head);
        self.crc = crc32c::crc32c_append(self.crc, tail);
        let start = self.begin(kind);
        put_varint(&mut self.buf, 3 << 3 | 2);
        put_varint(&mut self.buf, (head.len() + tail.len()) as u64);
        self.buf.extend_from_slice(head);
        self.buf.extend_from_slice(tail);
        self.finish(start);
    }

    fn begin(&mut self, kind: Kind) -> usize {
        let start = self.buf.len();
        self.buf.extend_from_slice(&[0; WORD_BYTES as usize]);
        put_uint(&mut self.buf, 1, kind as u64);
        put_uint(&mut self.buf, 2, u64::from(self.crc));
        start
    }

    fn finish(&mut self, start: usize) {
        let body = start + WORD_BYTES as usize;
        let record_bytes = (self.buf.len() - body) as u64;
        let word = length_word(record_bytes);
        self.buf[start..body].copy_from_slice(&word.to_le_bytes());
        self.buf
            .resize(self.buf.len() + padding(record_bytes) as usize, 0);
    }
}

fn padding(record_bytes: u64) -> u64 {
    record_bytes.wrapping_neg() % 8
}

fn length_word(record_bytes: u64) -> u64 {
    match padding(record_bytes) {
        0 => record_bytes,
        pad => record_bytes | (0x80 | pad) << 56,
    }
}

/// A length word that a writer could have made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FrameLen {
    pub(super) record_bytes: u64,
    pub(super) padding: u64,
}

impl FrameLen {
    pub(super) fn parse(word: u64) -> Option<FrameLen> {
        let record_bytes = word & LENGTH_MASK;
        if record_bytes < RECORD_BYTES_MIN || length_word(record_bytes) != word {
            return None;
        }
        Some(FrameLen {
            record_bytes,
            padding: padding(record_bytes),
        })
    }

    /// Length word, record and padding.
    pub(super) fn frame_bytes(self) -> u64 {
        WORD_BYTES + self.record_bytes + self.padding
    }
}

/// The part of a record before its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) kind: Kind,
    pub(super) crc: u32,
    head_bytes: u64,
    data_bytes: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HeadError {
    /// The bytes end inside the header.
    Short,
    Malformed,
}

impl Head {
    pub(super) fn parse(src: &[u8]) -> Result<Head, HeadError> {
        let [type_tag, kind, crc_tag, ..] = *src else {
            return Err(HeadError::Short);
        };
        let kind = Kind::parse(kind).ok_or(HeadError::Malformed)?;
        if type_tag != 0x08 || crc_tag != 0x10 {
            return Err(HeadError::Malformed);
        }
        let mut rest = &src[3..];
        let crc = u32::try_from(varint(&mut rest)?).map_err(|_| HeadError::Malformed)?;
        let mut data_bytes = 0;
        if kind != Kind::Crc {
            let (&tag, after) = rest.split_first().ok_or(HeadError::Short)?;
            if tag != 0x1a {
                return Err(HeadError::Malformed);
            }
            rest = after;
            data_bytes = varint(&mut rest)?;
        }
        let head_bytes = (src.len() - rest.len()) as u64;
        if data_bytes > LENGTH_MASK - head_bytes {
            return Err(HeadError::Malformed);
        }
        Ok(Head {
            kind,
            crc,
            head_bytes,
            data_bytes,
        })
    }

    /// The length that this header gives its record.
    pub(super) fn record_bytes(&self) -> u64 {
        self.head_bytes + self.data_bytes
    }

    pub(super) fn head_bytes(&self) -> usize {
        self.head_bytes as usize
    }
}

/// A varint in its shortest form.
fn varint(src: &mut &[u8]) -> Result<u64, HeadError> {
    let before = src.len();
    let value = take_varint(src).map_err(|e| match e {
        crate::wire::WireError::Truncated => HeadError::Short,
        _ => HeadError::Malformed,
    })?;
    if before - src.len() == varint_len(value) {
        Ok(value)
    } else {
        Err(HeadError::Malformed)
    }
}

/// A record whose frame, header and padding are sound; its checksum may not be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Record<'a> {
    pub(super) kind: Kind,
    pub(super) crc: u32,
    pub(super) data: &'a [u8],
}

/// Splits `frame` (record and padding, without the length word) into its parts.
pub(super) fn parse_record(frame: &[u8], len: FrameLen) -> Result<Record<'_>, super::Damage> {
    let record_bytes = len.record_bytes as usize;
    let record = frame.get(..record_bytes).ok_or(super::Damage::Header)?;
    let head = Head::parse(record).map_err(|_| super::Damage::Header)?;
    if head.record_bytes() != len.record_bytes {
        return Err(super::Damage::Header);
    }
    if frame[record_bytes..].iter().any(|&byte| byte != 0) {
        return Err(super::Damage::Padding);
    }
    Ok(Record {
        kind: head.kind,
        crc: head.crc,
        data: &record[head.head_bytes()..],
    })
}
