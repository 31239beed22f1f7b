//! Where the last segment stops: is it the end, a torn write, or damage?
//!
//! A write that was never synced may have reached the disk in part. Sectors are written whole, and
//! what was not written is still zero or beyond the end of the file, so a torn write shows as
//! missing sectors: the length word, which lies in one sector, is right or zero. Anything else is
//! damage. Even missing sectors are damage when something from there on can have been
//! acknowledged: when the database has applied it, or when a commit index or a snapshot that
//! follows covers it. (Writers here never write a commit index before the entries that it covers
//! are synced, so a commit index that follows a torn write of ours never does.)

use std::path::Path;

use super::record::{FrameLen, Head, HeadError, Kind, Record, WORD_BYTES, parse_record};
use super::replay::snapshot_record;
use super::{Damage, Error};
use crate::fs::File;
use crate::log::LogIndex;
use crate::log::codec;

const SECTOR_BYTES: u64 = 512;
/// Records beyond the last byte that is not zero may end in zeros; so much of them is looked at.
const SLACK_BYTES: u64 = 1 << 20;

/// A verdict that allows to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tail {
    /// Nothing but zeros follows.
    Clean,
    /// Bytes up to `used` follow that were never acknowledged.
    Torn { used: u64 },
}

/// Where reading stopped and why.
pub(super) struct Stop<'a> {
    pub(super) path: &'a Path,
    pub(super) offset: u64,
    /// `None`: a zero length word or the end of the file.
    pub(super) fault: Option<Damage>,
    pub(super) file_bytes: u64,
}

/// What is known from elsewhere about how far the log must reach.
pub(super) struct Known {
    /// The last index of the sound part.
    pub(super) last: LogIndex,
    /// What the database has applied.
    pub(super) applied: LogIndex,
}

pub(super) fn judge(file: &dyn File, stop: Stop<'_>, known: &Known) -> Result<Tail, Error> {
    let read = |e| Error::io("read WAL segment", stop.path)(e);
    let used = used_end(file, stop.offset, stop.file_bytes).map_err(read)?;
    let fault = match stop.fault {
        None | Some(Damage::ShortWord) if used == stop.offset => return Ok(Tail::Clean),
        None => Damage::ZeroWord,
        Some(fault) => fault,
    };
    let loaded = stop.file_bytes.min(used + SLACK_BYTES);
    let mut rest = vec![0; (loaded - stop.offset) as usize];
    file.read_exact_at(&mut rest, stop.offset).map_err(read)?;
    let rest = Rest {
        bytes: &rest,
        offset: stop.offset,
        file_bytes: stop.file_bytes,
    };
    if !rest.is_torn(&fault) {
        return Err(Error::damaged(stop.path, stop.offset, fault));
    }
    let (lost, proof) = rest.evidence(known);
    if proof >= lost {
        let damage = Damage::Acknowledged { lost, proof };
        return Err(Error::damaged(stop.path, stop.offset, damage));
    }
    Ok(Tail::Torn { used })
}

/// The offset after the last byte that is not zero, at least `from`.
fn used_end(file: &dyn File, from: u64, file_bytes: u64) -> std::io::Result<u64> {
    let mut buf = vec![0; 1 << 18];
    let mut used = from;
    let mut offset = from;
    while offset < file_bytes {
        let len = (buf.len() as u64).min(file_bytes - offset) as usize;
        file.read_exact_at(&mut buf[..len], offset)?;
        if let Some(last) = last_nonzero(&buf[..len]) {
            used = offset + last as u64 + 1;
        }
        offset += len as u64;
    }
    Ok(used)
}

fn last_nonzero(bytes: &[u8]) -> Option<usize> {
    // Whole words first: nearly all of a segment's rest is zero.
    let (chunks, tail) = bytes.as_chunks::<64>();
    if let Some(i) = tail.iter().rposition(|&b| b != 0) {
        return Some(chunks.len() * 64 + i);
    }
    let chunk = chunks.iter().rposition(|c| *c != [0; 64])?;
    chunks[chunk]
        .iter()
        .rposition(|&b| b != 0)
        .map(|i| chunk * 64 + i)
}

/// What follows the sound part; all beyond `bytes` is zero up to `file_bytes`.
struct Rest<'a> {
    bytes: &'a [u8],
    offset: u64,
    file_bytes: u64,
}

impl Rest<'_> {
    /// From a file offset on, empty beyond what was loaded.
    fn at(&self, offset: u64) -> &[u8] {
        self.bytes
            .get((offset - self.offset) as usize..)
            .unwrap_or(&[])
    }

    fn is_zero(&self, begin: u64, end: u64) -> bool {
        let len = end.min(self.file_bytes).saturating_sub(begin) as usize;
        self.at(begin).iter().take(len).all(|&byte| byte == 0)
    }

    fn word(&self) -> Option<FrameLen> {
        let word = self.bytes.first_chunk::<8>()?;
        FrameLen::parse(u64::from_le_bytes(*word))
    }

    /// What is there of the first record: up to the next sector when that one is missing.
    fn first_record(&self) -> &[u8] {
        let body = self.offset + WORD_BYTES;
        let sector_end = next_sector(self.offset);
        let present = self.at(body);
        if self.is_zero(sector_end, next_sector(sector_end)) {
            &present[..present.len().min((sector_end - body) as usize)]
        } else {
            present
        }
    }

    /// Whether a whole sector after `begin`'s own, with a part before `end`, is zero.
    fn misses_sector(&self, begin: u64, end: u64) -> bool {
        let mut sector = next_sector(begin);
        while sector < end {
            if self.is_zero(sector, next_sector(sector)) {
                return true;
            }
            sector = next_sector(sector);
        }
        false
    }

    /// Whether missing sectors alone explain the fault.
    fn is_torn(&self, fault: &Damage) -> bool {
        match fault {
            Damage::ZeroWord => self.is_zero(self.offset, next_sector(self.offset)),
            Damage::ShortWord => true,
            Damage::Overrun { record_bytes } => match Head::parse(self.first_record()) {
                Ok(head) => head.record_bytes() == *record_bytes,
                Err(error) => error == HeadError::Short,
            },
            Damage::Header | Damage::Padding | Damage::Crc { .. } => {
                let Some(len) = self.word() else { return false };
                let head = Head::parse(self.first_record());
                if head.is_ok_and(|head| head.record_bytes() != len.record_bytes) {
                    return false;
                }
                self.misses_sector(self.offset, self.offset + WORD_BYTES + len.record_bytes)
            }
            _ => false,
        }
    }

    /// The lowest index that would be lost, and the highest index that is known to have been
    /// committed or applied.
    fn evidence(&self, known: &Known) -> (LogIndex, LogIndex) {
        let mut lost = known.last.next();
        let mut proof = known.applied;
        let end = self.offset + self.bytes.len() as u64;
        let mut offset = self.offset + WORD_BYTES;
        if let (Some(len), Ok(head)) = (self.word(), Head::parse(self.first_record())) {
            // The record that stops us: what is left of it may still tell its index, but what its
            // data looks like is no evidence.
            if head.kind == Kind::Entry
                && let Some(index) = leading_index(&self.first_record()[head.head_bytes()..])
            {
                lost = lost.min(index);
            }
            offset = self.offset + len.frame_bytes();
        }
        while offset < end {
            let Some((record, frame_bytes)) = self.record_at(offset) else {
                offset += 8;
                continue;
            };
            let whole = !self.misses_sector(offset, offset + frame_bytes);
            match record.kind {
                Kind::Entry if whole => {
                    if let Ok(entry) = codec::entry_ref(record.data)
                        && entry.index.0 > 0
                    {
                        lost = lost.min(entry.index);
                    }
                }
                Kind::State => {
                    if let Ok(state) = codec::hard_state(record.data) {
                        proof = proof.max(state.commit);
                    }
                }
                Kind::Snapshot => {
                    if let Ok(meta) = snapshot_record(record.data) {
                        proof = proof.max(meta.index);
                    }
                }
                Kind::Entry | Kind::Metadata | Kind::Crc => {}
            }
            offset += frame_bytes;
        }
        (lost, proof)
    }

    fn record_at(&self, offset: u64) -> Option<(Record<'_>, u64)> {
        let (word, rest) = self.at(offset).split_first_chunk::<8>()?;
        let len = FrameLen::parse(u64::from_le_bytes(*word))?;
        let frame = rest.get(..usize::try_from(len.record_bytes + len.padding).ok()?)?;
        Some((parse_record(frame, len).ok()?, len.frame_bytes()))
    }
}

/// The index of an entry of which only the beginning may be there.
fn leading_index(data: &[u8]) -> Option<LogIndex> {
    for field in crate::wire::Fields::new(data) {
        let field = field.ok()?;
        match field.number {
            1 | 2 => {}
            3 => return field.uint().ok().filter(|&i| i > 0).map(LogIndex),
            _ => return None,
        }
    }
    None
}

fn next_sector(offset: u64) -> u64 {
    (offset / SECTOR_BYTES + 1) * SECTOR_BYTES
}
