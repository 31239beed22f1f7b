//! What the records of a log add up to.

use std::path::Path;

use super::record::{Kind, Record};
use super::segment::{Next, SegmentReader};
use super::tail::Stop;
use super::{Damage, Error, Metadata, WalSnapshot};
use crate::fs::File;
use crate::log::codec;
use crate::log::{Entry, EntryKind, HardState, LogIndex, SnapshotMeta, Term};
use crate::wire::{Fields, WireError};

/// Collects the records after a snapshot.
pub(super) struct Replay {
    pub(super) from: WalSnapshot,
    /// The metadata message as it stands in the file, which new segments repeat to the byte.
    pub(super) metadata: Option<Vec<u8>>,
    pub(super) hard_state: HardState,
    /// Entries after `from`, without those that a later one with the same index replaced.
    pub(super) entries: Vec<Entry>,
    /// Index of the last entry record, or of a snapshot beyond it, wherever `from` is.
    pub(super) last_written: LogIndex,
    /// Whether a snapshot record for `from` was seen.
    pub(super) matched: bool,
    /// All snapshot records in their order.
    pub(super) snapshots: Vec<SnapshotMeta>,
    /// Running checksum after the last sound record.
    pub(super) crc: Option<u32>,
    keep_entries: bool,
    /// Term of the last record of an entry at the index of `from`, unless one before it was
    /// written since.
    at_from: Option<Term>,
}

impl Replay {
    pub(super) fn new(from: WalSnapshot, keep_entries: bool) -> Replay {
        Replay {
            from,
            metadata: None,
            hard_state: HardState::default(),
            entries: Vec::new(),
            last_written: LogIndex(0),
            matched: false,
            snapshots: Vec::new(),
            crc: None,
            keep_entries,
            at_from: None,
        }
    }

    /// The last index of the log: of the entries or, without any, of the snapshot.
    pub(super) fn last(&self) -> LogIndex {
        if !self.keep_entries {
            return self.last_written;
        }
        self.entries.last().map_or(self.from.index, |e| e.index)
    }

    /// The term of the entry at `index`, when the log still tells it.
    pub(super) fn term_at(&self, index: LogIndex) -> Option<Term> {
        if index == self.from.index {
            return Some(self.from.term);
        }
        let position = usize::try_from(index.0.checked_sub(self.from.index.0 + 1)?).ok()?;
        self.entries.get(position).map(|e| e.term)
    }

    /// Reads a whole segment. `is_last` is for the one that may end in a torn write: where and
    /// why its records stop is returned; every other segment must be sound.
    pub(super) fn segment<'p>(
        &mut self,
        file: &dyn File,
        path: &'p Path,
        is_last: bool,
    ) -> Result<Stop<'p>, Error> {
        let mut reader = SegmentReader::new(file, path)?;
        let file_bytes = reader.file_bytes();
        let mut records = 0u64;
        loop {
            let offset = reader.offset();
            let mut crc = self.crc;
            let fault = match reader.next(&mut crc)? {
                Next::Record(record) => {
                    self.record(&record, records)
                        .map_err(|damage| self.refuse(damage, path, offset))?;
                    self.crc = crc;
                    records += 1;
                    continue;
                }
                Next::End => None,
                Next::Fault(damage) => Some(damage),
            };
            if records < 2 {
                // A segment gets its name after its head was synced: nothing tears that.
                let missing = Damage::Structure("the segment has no head");
                return Err(Error::damaged(path, offset, fault.unwrap_or(missing)));
            }
            return match fault {
                Some(damage) if !is_last => Err(Error::damaged(path, offset, damage)),
                fault => Ok(Stop {
                    path,
                    offset,
                    fault,
                    file_bytes,
                }),
            };
        }
    }

    fn refuse(&self, refusal: Refusal, path: &Path, offset: u64) -> Error {
        match refusal {
            Refusal::Damage(damage) => Error::damaged(path, offset, damage),
            Refusal::Mismatch(found) => Error::SnapshotMismatch {
                index: self.from.index,
                wanted: self.from.term,
                found,
            },
        }
    }

    fn record(&mut self, record: &Record<'_>, position: u64) -> Result<(), Refusal> {
        let expected = match position {
            0 => Some(Kind::Crc),
            1 => Some(Kind::Metadata),
            _ => None,
        };
        if expected.is_some_and(|kind| kind != record.kind) {
            return Err(structure("the segment has no head"));
        }
        let message = |source| Damage::Message {
            kind: record.kind as u8,
            source,
        };
        match record.kind {
            Kind::Crc => {}
            Kind::Metadata => self.metadata(record.data)?,
            Kind::Entry => self.entry(record.data)?,
            Kind::State => self.state(record.data)?,
            Kind::Snapshot => {
                let meta = snapshot_record(record.data).map_err(message)?;
                if meta.index == self.from.index {
                    if self.keep_entries && meta.term != self.from.term {
                        return Err(Refusal::Mismatch(meta.term));
                    }
                    self.on_from()?;
                }
                self.last_written = self.last_written.max(meta.index);
                self.snapshots.push(meta);
            }
        }
        Ok(())
    }

    fn metadata(&mut self, data: &[u8]) -> Result<(), Refusal> {
        match &self.metadata {
            None => {
                Metadata::decode(data).map_err(|source| Damage::Message {
                    kind: Kind::Metadata as u8,
                    source,
                })?;
                self.metadata = Some(data.to_owned());
            }
            Some(first) if first != data => {
                return Err(structure("the metadata differs from the log's first"));
            }
            Some(_) => {}
        }
        Ok(())
    }

    /// The record of the wanted snapshot. One of the member's own is of an entry that the log has;
    /// one that came from a leader takes the place of a log that does not have it, and of all that
    /// stood behind.
    fn on_from(&mut self) -> Result<(), Refusal> {
        self.matched = true;
        if self.at_from != Some(self.from.term) {
            self.entries.clear();
            self.at_from = Some(self.from.term);
        }
        let next = self.entries.first().map_or(self.from.term, |e| e.term);
        if next < self.from.term {
            return Err(structure(LOWER_TERM));
        }
        Ok(())
    }

    // The record's type is outside its checksum. The rules below are such that a record of one
    // type never passes for another.

    fn entry(&mut self, data: &[u8]) -> Result<(), Refusal> {
        let entry = codec::entry_ref(data).map_err(|source| Damage::Message {
            kind: Kind::Entry as u8,
            source,
        })?;
        if entry.index.0 == 0 || entry.index.0 == u64::MAX || entry.term.0 == 0 {
            return Err(structure("an entry has no index or no term"));
        }
        if entry.kind == EntryKind::ConfChange && entry.data.is_empty() {
            return Err(structure("a configuration change is empty"));
        }
        self.last_written = entry.index;
        if entry.index <= self.from.index {
            self.at_from = (entry.index == self.from.index).then_some(entry.term);
            // It took the place of all that stood behind it too.
            self.entries.clear();
        }
        if !self.keep_entries || entry.index <= self.from.index {
            return Ok(());
        }
        let position = entry.index.0 - self.from.index.0 - 1;
        if position > self.entries.len() as u64 {
            let last = self.last();
            return Err(Damage::Gap {
                last,
                found: entry.index,
            }
            .into());
        }
        self.entries.truncate(position as usize);
        // Before the snapshot's record it is not known whether this is the log that it is of.
        let first_after = if self.matched {
            self.from.term
        } else {
            Term(0)
        };
        let before = self.entries.last().map_or(first_after, |e| e.term);
        if entry.term < before {
            return Err(structure(LOWER_TERM));
        }
        self.entries.push(entry.to_entry());
        Ok(())
    }

    fn state(&mut self, data: &[u8]) -> Result<(), Refusal> {
        let message = |source| Damage::Message {
            kind: Kind::State as u8,
            source,
        };
        for field in Fields::new(data) {
            let field = field.map_err(message)?;
            if field.number > 3 {
                return Err(message(WireError::FieldNumber(field.number.into())).into());
            }
        }
        let state = codec::hard_state(data).map_err(message)?;
        if state.term.0 == 0 || state.term < self.hard_state.term {
            return Err(structure("the term goes back"));
        }
        if state.commit < self.hard_state.commit {
            return Err(structure("the commit index goes back"));
        }
        self.hard_state = state;
        Ok(())
    }
}

const LOWER_TERM: &str = "an entry has a lower term than the one before it";

/// Why a record is not accepted.
enum Refusal {
    Damage(Damage),
    /// The wanted snapshot's record has this term.
    Mismatch(Term),
}

impl From<Damage> for Refusal {
    fn from(damage: Damage) -> Refusal {
        Refusal::Damage(damage)
    }
}

fn structure(what: &'static str) -> Refusal {
    Refusal::Damage(Damage::Structure(what))
}

/// The message of a snapshot record: 1 index, 2 term, 3 conf_state (since 3.5).
pub(super) fn snapshot_record(data: &[u8]) -> Result<SnapshotMeta, WireError> {
    let mut meta = SnapshotMeta::default();
    for field in Fields::new(data) {
        let field = field?;
        match field.number {
            1 => meta.index = LogIndex(field.uint()?),
            2 => meta.term = Term(field.uint()?),
            3 => meta.conf = codec::conf_state(field.bytes()?)?,
            _ => {}
        }
    }
    Ok(meta)
}
