//! The write-ahead log, in etcd's format.
//!
//! A directory of segments, each a run of records (see `record`) and each beginning with the
//! running checksum and the metadata; all but the first go on with the last hard state. A segment
//! is at most a little longer than [`SEGMENT_BYTES`]; the last one is followed by zeros.
//!
//! Order of durability: [`Wal::append`] only writes; what it wrote may be acknowledged once
//! [`Wal::sync`] has returned. A commit index is never written before the entries that it covers
//! are synced, so that it proves, when found beyond a torn record, that these were (see `tail`).
//! After the first failed write or sync the log refuses everything: nobody knows what is on disk.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;

use crate::fs::{File, Fs, Open};
use crate::log::{Entry, HardState, LogIndex, SnapshotMeta, Term};
use crate::wire::{Fields, WireError, put_uint};

mod ahead;
mod error;
mod open;
mod record;
mod replay;
pub(crate) mod segment;
mod tail;

pub use error::{Damage, Error};
pub use open::{exists, purge, read, valid_snapshots};

use ahead::{Frontier, ZeroAhead};
use record::Encoder;
use segment::SegmentName;

/// A segment is cut once it has this many bytes.
pub const SEGMENT_BYTES: u64 = 64_000_000;
/// Mode of segments.
const FILE_MODE: u32 = 0o600;
/// The encoder's buffer is given back to the allocator above this.
const BUFFER_BYTES_MAX: usize = 8 << 20;

/// Whose log it is; repeated at the head of each segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metadata {
    pub node_id: u64,
    pub cluster_id: u64,
}

impl Metadata {
    /// etcdserverpb.Metadata: 1 NodeID, 2 ClusterID.
    fn encode(&self) -> Vec<u8> {
        let mut message = Vec::new();
        put_uint(&mut message, 1, self.node_id);
        put_uint(&mut message, 2, self.cluster_id);
        message
    }

    fn decode(src: &[u8]) -> Result<Metadata, WireError> {
        let mut metadata = Metadata {
            node_id: 0,
            cluster_id: 0,
        };
        for field in Fields::new(src) {
            let field = field?;
            match field.number {
                1 => metadata.node_id = field.uint()?,
                2 => metadata.cluster_id = field.uint()?,
                number => return Err(WireError::FieldNumber(number.into())),
            }
        }
        Ok(metadata)
    }
}

/// The snapshot after which a log is read; zeros for the whole log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WalSnapshot {
    pub index: LogIndex,
    pub term: Term,
}

/// What the database has applied: entries that the log must still have or have had.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    pub index: LogIndex,
    /// Term of that entry; 0 when the database does not tell it.
    pub term: Term,
    /// Accept a log that ends cleanly below `index`. Go's etcd applies entries that a quorum has
    /// before its own log has them, so its directories may look so after a crash; ours never do.
    pub may_lead: bool,
}

/// How a log is run.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Size at which a segment is cut: [`SEGMENT_BYTES`] but in tests.
    pub segment_bytes: u64,
    /// Whether a thread writes zeros ahead of the log. Off in simulations.
    pub zero_ahead: bool,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            segment_bytes: SEGMENT_BYTES,
            zero_ahead: true,
        }
    }
}

impl Options {
    /// No thread: every effect happens inside the call that asks for it.
    #[must_use]
    pub fn inline() -> Options {
        Options {
            zero_ahead: false,
            ..Options::default()
        }
    }
}

/// What a log held when it was opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovered {
    pub metadata: Metadata,
    /// The last one; zeros when there is none.
    pub hard_state: HardState,
    /// All entries after the snapshot, uncommitted ones too, without replaced ones.
    pub entries: Vec<Entry>,
    /// Whether the log has a record of the snapshot it was opened at.
    pub snapshot_found: bool,
    /// A torn end that was cut off, or, when reading only, passed over.
    pub torn: Option<TornTail>,
}

/// The end of a segment that a crash left incomplete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TornTail {
    pub segment: PathBuf,
    /// Where the last complete record ends.
    pub offset: u64,
    /// Where the segment is kept as it was; empty when reading only.
    pub copy: Option<PathBuf>,
}

struct Segment {
    name: SegmentName,
    /// Keeps the lock.
    file: Box<dyn File>,
}

/// The next segment, while it is still called `0.tmp` or `1.tmp`.
struct Prepared {
    path: PathBuf,
    file: Box<dyn File>,
    frontier: Arc<Frontier>,
}

/// A log that is open for writing. It holds a lock on each of its segments.
pub struct Wal {
    fs: Arc<dyn Fs>,
    dir: PathBuf,
    options: Options,
    metadata: Vec<u8>,
    /// From the oldest that is not released to the one being written; never empty.
    segments: VecDeque<Segment>,
    frontier: Arc<Frontier>,
    next: Option<Prepared>,
    /// How many next segments were prepared; their names alternate.
    prepared_count: u64,
    zeroer: Option<ZeroAhead>,
    encoder: Encoder,
    /// Where the next record goes in the last segment.
    offset: u64,
    /// Index of the last entry record: the log's last index.
    last: LogIndex,
    /// Entries up to here have been synced, as far as they have not been replaced since.
    synced: LogIndex,
    /// The hard state as it was last given.
    told: HardState,
    /// The hard state as it was last written; its commit index may lag.
    written: HardState,
    /// Written since the last sync.
    dirty: bool,
    poisoned: bool,
    /// See [`Wal::written_bytes`].
    written_bytes: u64,
}

impl std::fmt::Debug for Wal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Wal")
            .field("dir", &self.dir)
            .field("offset", &self.offset)
            .field("last", &self.last)
            .field("synced", &self.synced)
            .field("poisoned", &self.poisoned)
            .finish_non_exhaustive()
    }
}

impl Wal {
    /// Writes a batch: the entries, then the hard state unless it is empty or already written.
    /// Nothing is durable before [`Wal::sync`].
    ///
    /// The commit index that is written is at most the last synced index. When it had to be held
    /// back, the sync that makes its entries durable writes it, and the sync after that makes it
    /// durable: whoever needs it durable (the first log of a new cluster) syncs twice.
    ///
    /// # Errors
    /// Any failure poisons the log.
    pub fn append(
        &mut self,
        hard_state: Option<HardState>,
        entries: &[Entry],
    ) -> Result<(), Error> {
        self.guarded(|wal| {
            wal.cut_when_full()?;
            for entry in entries {
                wal.encoder.entry(entry);
            }
            if let (Some(first), Some(last)) = (entries.first(), entries.last()) {
                wal.synced = wal.synced.min(LogIndex(first.index.0.saturating_sub(1)));
                wal.last = last.index;
            }
            if let Some(state) = hard_state
                && state != HardState::default()
            {
                wal.told = state;
                wal.encode_due_state();
            }
            wal.write()
        })
    }

    /// Makes everything written so far durable.
    ///
    /// # Errors
    /// Any failure poisons the log: the sync must not be tried again.
    pub fn sync(&mut self) -> Result<(), Error> {
        self.guarded(|wal| {
            if wal.dirty {
                wal.sync_tail()?;
                wal.encode_due_state();
                wal.write()?;
            }
            Ok(())
        })
    }

    /// Writes the record of a snapshot and makes it durable. Its `.snap` file must be durable
    /// already. The log goes on after the snapshot's index when that is beyond its own last.
    ///
    /// # Errors
    /// Any failure poisons the log.
    pub fn save_snapshot(&mut self, meta: &SnapshotMeta) -> Result<(), Error> {
        self.guarded(|wal| {
            wal.cut_when_full()?;
            if wal.dirty {
                // The record proves that all before it was durable.
                wal.sync_tail()?;
            }
            wal.encode_due_state();
            wal.encoder.snapshot(meta);
            wal.last = wal.last.max(meta.index);
            wal.write()?;
            wal.sync_tail()
        })
    }

    /// Writes the record of a snapshot that came from a leader, which takes the place of the whole
    /// log, and makes it durable with the commit index that makes it count: a crash leaves the old
    /// log or the new one. Its `.snap` file must be durable already.
    ///
    /// # Errors
    /// Any failure poisons the log.
    pub fn save_received(
        &mut self,
        meta: &SnapshotMeta,
        hard_state: HardState,
    ) -> Result<(), Error> {
        self.save_snapshot(meta)?;
        self.last = meta.index;
        self.synced = meta.index;
        let commit = meta.index;
        self.append(
            Some(HardState {
                commit,
                ..hard_state
            }),
            &[],
        )?;
        self.sync()
    }

    /// Gives up the locks on segments that hold nothing after `index`, so that they can be
    /// purged: all before the last one that begins below it.
    pub fn release_to(&mut self, index: LogIndex) {
        let at_or_above = self.segments.iter().position(|s| s.name.first >= index);
        let keep_from = at_or_above.unwrap_or(self.segments.len()).saturating_sub(1);
        self.segments.drain(..keep_from);
    }

    /// Index of the last entry, or of the last snapshot when that is beyond it.
    #[must_use]
    pub fn last_index(&self) -> LogIndex {
        self.last
    }

    /// Bytes of records written since the log was opened.
    #[must_use]
    pub fn written_bytes(&self) -> u64 {
        self.written_bytes
    }

    /// Whether something was written that no sync has covered.
    #[must_use]
    pub fn is_dirty(&self) -> bool {
        self.dirty
    }

    /// Syncs and closes. Dropping closes as well, without the sync.
    ///
    /// # Errors
    /// As [`Wal::sync`].
    pub fn close(mut self) -> Result<(), Error> {
        self.sync()?;
        self.sync()
    }

    fn guarded(
        &mut self,
        operation: impl FnOnce(&mut Wal) -> Result<(), Error>,
    ) -> Result<(), Error> {
        if self.poisoned {
            return Err(Error::Poisoned);
        }
        // Also when the operation panics.
        self.poisoned = true;
        operation(self)?;
        self.poisoned = false;
        Ok(())
    }

    fn tail(&self) -> &Segment {
        self.segments
            .back()
            .expect("a log has a segment being written")
    }

    fn tail_path(&self) -> PathBuf {
        self.dir.join(self.tail().name.file_name())
    }

    /// Encodes the hard state if it is newer than the written one, its commit index held back to
    /// what is synced.
    fn encode_due_state(&mut self) {
        let commit = self.told.commit.min(self.synced).max(self.written.commit);
        let state = HardState {
            commit,
            ..self.told
        };
        if state != self.written && state.term.0 > 0 {
            self.encoder.state(&state);
            self.written = state;
        }
    }

    fn write(&mut self) -> Result<(), Error> {
        let bytes = self.encoder.buf.len() as u64;
        if bytes == 0 {
            return Ok(());
        }
        self.frontier.claim(self.offset + bytes);
        let written = self
            .tail()
            .file
            .write_all_at(&self.encoder.buf, self.offset);
        written.map_err(|e| Error::io("write WAL segment", &self.tail_path())(e))?;
        self.offset += bytes;
        self.written_bytes += bytes;
        self.dirty = true;
        self.encoder.buf.clear();
        self.encoder.buf.shrink_to(BUFFER_BYTES_MAX);
        self.prepare_next()
    }

    fn sync_tail(&mut self) -> Result<(), Error> {
        let synced = self.tail().file.sync_data();
        synced.map_err(|e| Error::io("sync WAL segment", &self.tail_path())(e))?;
        self.synced = self.last;
        self.dirty = false;
        Ok(())
    }

    /// Has the next segment zeroed once this one is half full.
    fn prepare_next(&mut self) -> Result<(), Error> {
        if self.zeroer.is_some()
            && self.next.is_none()
            && self.offset >= self.options.segment_bytes / 2
        {
            let prepared = self.create_next()?;
            if let Some(zeroer) = &self.zeroer {
                let end = self.options.segment_bytes;
                zeroer.fill(&*self.fs, &prepared.path, &prepared.frontier, end);
            }
            self.next = Some(prepared);
        }
        Ok(())
    }

    fn create_next(&mut self) -> Result<Prepared, Error> {
        let path = self.dir.join(format!("{}.tmp", self.prepared_count % 2));
        self.prepared_count += 1;
        let file = self
            .fs
            .open(&path, Open::Create { mode: FILE_MODE })
            .map_err(Error::io("create WAL segment", &path))?;
        open::lock(&*file, &path)?;
        file.set_len(0)
            .map_err(Error::io("empty WAL segment", &path))?;
        Ok(Prepared {
            path,
            file,
            frontier: Arc::new(Frontier::new(0)),
        })
    }

    fn cut_when_full(&mut self) -> Result<(), Error> {
        if self.offset < self.options.segment_bytes {
            Ok(())
        } else {
            self.cut()
        }
    }

    /// Ends the segment being written and goes on in a new one, which gets its name only after
    /// its head is durable.
    fn cut(&mut self) -> Result<(), Error> {
        self.frontier.close();
        let old = self.tail();
        let cut = old.file.set_len(self.offset);
        cut.map_err(|e| Error::io("cut WAL segment", &self.tail_path())(e))?;
        self.sync_tail()?;
        let prepared = match self.next.take() {
            Some(prepared) => prepared,
            None => self.create_next()?,
        };
        let name = SegmentName {
            sequence: self.tail().name.sequence + 1,
            first: self.last.next(),
        };
        let path = self.dir.join(name.file_name());
        self.encoder.crc_record();
        self.encoder.metadata(&self.metadata);
        self.written.term = Term(0);
        self.encode_due_state();
        prepared.frontier.claim(self.encoder.buf.len() as u64);
        prepared
            .file
            .write_all_at(&self.encoder.buf, 0)
            .and_then(|()| prepared.file.sync_data())
            .map_err(Error::io("write WAL segment", &prepared.path))?;
        self.fs
            .rename(&prepared.path, &path)
            .map_err(Error::io("rename WAL segment", &prepared.path))?;
        self.fs
            .sync_dir(&self.dir)
            .map_err(Error::io("sync the WAL directory", &self.dir))?;
        self.offset = self.encoder.buf.len() as u64;
        self.encoder.buf.clear();
        self.frontier = prepared.frontier;
        self.segments.push_back(Segment {
            name,
            file: prepared.file,
        });
        Ok(())
    }
}

impl Drop for Wal {
    fn drop(&mut self) {
        self.frontier.close();
        if let Some(prepared) = self.next.take() {
            prepared.frontier.close();
            // A left-over is removed when the log is opened.
            let _ = self.fs.remove_file(&prepared.path);
        }
    }
}

#[cfg(test)]
mod tests;
