//! Names of segments, and reading one record after the other.

use std::path::{Path, PathBuf};

use super::record::{FrameLen, Kind, Record, WORD_BYTES, parse_record};
use super::{Damage, Error};
use crate::fs::{File, Fs};
use crate::log::LogIndex;

/// Bytes read from a file at a time.
const READ_BYTES: usize = 1 << 20;

/// `<sequence>-<index>.wal`, both as 16 hexadecimal digits. The index is that of the first entry
/// that the segment may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct SegmentName {
    pub(super) sequence: u64,
    pub(super) first: LogIndex,
}

impl SegmentName {
    pub(super) fn parse(name: &str) -> Option<SegmentName> {
        let (sequence, first) = name.strip_suffix(".wal")?.split_once('-')?;
        Some(SegmentName {
            sequence: hex16(sequence)?,
            first: LogIndex(hex16(first)?),
        })
    }

    pub(super) fn file_name(self) -> String {
        format!("{:016x}-{:016x}.wal", self.sequence, self.first.0)
    }
}

/// Sixteen hexadecimal digits.
pub(crate) fn hex16(text: &str) -> Option<u64> {
    let digits = text.len() == 16 && text.bytes().all(|b| b.is_ascii_hexdigit());
    if digits {
        u64::from_str_radix(text, 16).ok()
    } else {
        None
    }
}

/// The segments in a directory by sequence; other names are passed over.
pub(super) fn segment_names(fs: &dyn Fs, dir: &Path) -> Result<Vec<SegmentName>, Error> {
    let names = fs
        .list(dir)
        .map_err(Error::io("list the WAL directory", dir))?;
    let mut segments: Vec<_> = names.iter().filter_map(|n| SegmentName::parse(n)).collect();
    segments.sort_unstable();
    Ok(segments)
}

/// The segments that hold what follows `index`: from the last one that begins at or below it,
/// which must follow each other without a gap.
pub(super) fn select(fs: &dyn Fs, dir: &Path, index: LogIndex) -> Result<Vec<SegmentName>, Error> {
    let all = segment_names(fs, dir)?;
    let start = all.iter().rposition(|s| s.first <= index);
    let start = start.ok_or_else(|| Error::NotFound {
        dir: dir.to_owned(),
        index,
    })?;
    follow_each_other(dir, &all[start..])?;
    Ok(all[start..].to_vec())
}

pub(super) fn follow_each_other(dir: &Path, segments: &[SegmentName]) -> Result<(), Error> {
    for pair in segments.windows(2) {
        if pair[1].sequence.checked_sub(1) != Some(pair[0].sequence) {
            return Err(Error::Sequence {
                dir: dir.to_owned(),
                name: pair[1].file_name(),
            });
        }
    }
    Ok(())
}

/// What stands at the reader's position.
pub(super) enum Next<'a> {
    Record(Record<'a>),
    /// End of the file, or a zero length word: the segment ends here unless more data follows.
    End,
    Fault(Damage),
}

/// Reads the records of one segment and keeps the running checksum.
pub(super) struct SegmentReader<'a> {
    file: &'a dyn File,
    path: PathBuf,
    file_bytes: u64,
    /// Where the next frame begins.
    offset: u64,
    buf: Vec<u8>,
    /// File offset of `buf[0]`.
    buf_offset: u64,
}

impl<'a> SegmentReader<'a> {
    pub(super) fn new(file: &'a dyn File, path: &Path) -> Result<SegmentReader<'a>, Error> {
        let file_bytes = file.len().map_err(Error::io("read the length of", path))?;
        let path = path.to_owned();
        Ok(SegmentReader {
            file,
            path,
            file_bytes,
            offset: 0,
            buf: Vec::new(),
            buf_offset: 0,
        })
    }

    /// Where the next frame begins, that is, where the last sound record ended.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    pub(super) fn file_bytes(&self) -> u64 {
        self.file_bytes
    }

    /// Takes the next record; `crc` is the running checksum, `None` before the first segment's
    /// head has given it.
    pub(super) fn next(&mut self, crc: &mut Option<u32>) -> Result<Next<'_>, Error> {
        let offset = self.offset;
        let word = self.bytes(offset, WORD_BYTES)?;
        if word.is_empty() {
            return Ok(Next::End);
        }
        let Some(word) = word.first_chunk::<8>().map(|w| u64::from_le_bytes(*w)) else {
            return Ok(Next::Fault(Damage::ShortWord));
        };
        if word == 0 {
            return Ok(Next::End);
        }
        let Some(len) = FrameLen::parse(word) else {
            return Ok(Next::Fault(Damage::Length(word)));
        };
        if len.frame_bytes() > self.file_bytes - offset {
            return Ok(Next::Fault(Damage::Overrun {
                record_bytes: len.record_bytes,
            }));
        }
        let frame = self.bytes(offset + WORD_BYTES, len.record_bytes + len.padding)?;
        let record = match parse_record(frame, len) {
            Ok(record) => record,
            Err(damage) => return Ok(Next::Fault(damage)),
        };
        let computed = match (record.kind, *crc) {
            (Kind::Crc, None) => record.crc,
            (Kind::Crc, Some(crc)) => crc,
            (_, crc) => crc32c::crc32c_append(crc.unwrap_or(0), record.data),
        };
        if computed != record.crc {
            return Ok(Next::Fault(Damage::Crc {
                stored: record.crc,
                computed,
            }));
        }
        *crc = Some(computed);
        self.offset = offset + len.frame_bytes();
        // The record borrows the buffer, which `bytes` fills: look it up again.
        let frame = self.bytes(offset + WORD_BYTES, len.record_bytes + len.padding)?;
        parse_record(frame, len)
            .map(Next::Record)
            .or_else(|damage| Ok(Next::Fault(damage)))
    }

    /// The bytes at `offset`, fewer than `wanted` only at the end of the file.
    fn bytes(&mut self, offset: u64, wanted: u64) -> Result<&[u8], Error> {
        let wanted = wanted.min(self.file_bytes.saturating_sub(offset)) as usize;
        let held = self.buf.len() as u64;
        let inside = offset >= self.buf_offset && offset + wanted as u64 <= self.buf_offset + held;
        if !inside {
            let left = self.file_bytes.saturating_sub(offset) as usize;
            self.buf.resize(READ_BYTES.max(wanted).min(left), 0);
            self.buf_offset = offset;
            self.file
                .read_exact_at(&mut self.buf, offset)
                .map_err(Error::io("read WAL segment", &self.path))?;
        }
        let start = (offset - self.buf_offset) as usize;
        Ok(&self.buf[start..start + wanted])
    }
}
