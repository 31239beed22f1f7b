//! Creating, opening, reading and purging logs.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::ahead::{Frontier, ZeroAhead};
use super::record::Encoder;
use super::replay::Replay;
use super::segment::{SegmentName, follow_each_other, segment_names, select};
use super::tail::{Known, Stop, Tail, judge};
use super::{
    Applied, Damage, Error, FILE_MODE, Metadata, Options, Recovered, Segment, TornTail, Wal,
    WalSnapshot,
};
use crate::fs::{File, Fs, LockKind, Open};
use crate::log::{HardState, LogIndex, SnapshotMeta, Term};

/// Whether the directory holds a log.
#[must_use]
pub fn exists(fs: &dyn Fs, dir: &Path) -> bool {
    segment_names(fs, dir).is_ok_and(|names| !names.is_empty())
}

/// Takes the lock of a segment.
pub(super) fn lock(file: &dyn File, path: &Path) -> Result<(), Error> {
    match file
        .try_lock(LockKind::Record)
        .map_err(Error::io("lock WAL segment", path))?
    {
        true => Ok(()),
        false => Err(Error::Locked(path.to_owned())),
    }
}

impl Wal {
    /// Creates a log with the empty snapshot. The directory appears with its first segment
    /// complete and durable, or not at all.
    ///
    /// # Errors
    /// Fails when there is a log already, or on any failed operation.
    pub fn create(
        fs: Arc<dyn Fs>,
        dir: &Path,
        metadata: &Metadata,
        options: Options,
    ) -> Result<Wal, Error> {
        if exists(&*fs, dir) {
            return Err(Error::Exists(dir.to_owned()));
        }
        let mut unfinished = dir.as_os_str().to_owned();
        unfinished.push(".tmp");
        let unfinished = PathBuf::from(unfinished);
        for left_over in [&unfinished, &dir.to_owned()] {
            if fs.exists(left_over) {
                fs.remove_dir_all(left_over)
                    .map_err(Error::io("remove", left_over))?;
            }
        }
        fs.create_dir_all(&unfinished)
            .map_err(Error::io("create", &unfinished))?;

        let name = SegmentName {
            sequence: 0,
            first: LogIndex(0),
        };
        let path = unfinished.join(name.file_name());
        let file = fs
            .open(&path, Open::CreateNew { mode: FILE_MODE })
            .map_err(Error::io("create WAL segment", &path))?;
        lock(&*file, &path)?;
        let mut encoder = Encoder::new(0);
        let metadata = metadata.encode();
        encoder.crc_record();
        encoder.metadata(&metadata);
        encoder.snapshot(&SnapshotMeta::default());
        file.write_all_at(&encoder.buf, 0)
            .and_then(|()| file.sync_data())
            .map_err(Error::io("write WAL segment", &path))?;
        fs.sync_dir(&unfinished)
            .map_err(Error::io("sync", &unfinished))?;
        fs.rename(&unfinished, dir)
            .map_err(Error::io("rename", &unfinished))?;
        sync_parent(&*fs, dir)?;

        let offset = encoder.buf.len() as u64;
        encoder.buf.clear();
        let segments = VecDeque::from([Segment { name, file }]);
        let start = Start {
            metadata,
            encoder,
            offset,
            zeros_to: offset,
            last: LogIndex(0),
            hard_state: HardState::default(),
        };
        Ok(start.run(fs, dir, options, segments))
    }

    /// Opens a log for writing and reads what follows `from`. A torn end is cut off, after a copy
    /// of its segment was made beside it with the suffix `.broken`.
    ///
    /// # Errors
    /// Fails when another process has it open, when the log does not fit `from` or `applied`, and
    /// on damage.
    pub fn open(
        fs: Arc<dyn Fs>,
        dir: &Path,
        from: WalSnapshot,
        applied: Applied,
        options: Options,
    ) -> Result<(Wal, Recovered), Error> {
        let names = select(&*fs, dir, from.index)?;
        let mut segments = VecDeque::new();
        for &name in &names {
            let path = dir.join(name.file_name());
            let file = fs
                .open(&path, Open::ReadWrite)
                .map_err(Error::io("open WAL segment", &path))?;
            lock(&*file, &path)?;
            segments.push_back(Segment { name, file });
        }
        // A predecessor may have died before these were durable.
        fs.sync_dir(dir).map_err(Error::io("sync", dir))?;
        sync_parent(&*fs, dir)?;
        for left_over in ["0.tmp", "1.tmp"].map(|name| dir.join(name)) {
            if fs.exists(&left_over) {
                fs.remove_file(&left_over)
                    .map_err(Error::io("remove", &left_over))?;
            }
        }

        let mut scan = Scan::run(dir, &segments, Replay::new(from, true), applied)?;
        let tail = segments
            .back()
            .expect("select returns at least one segment");
        scan.repair(&*fs, &*tail.file)?;
        if !cfg!(feature = "plant-trusted-cache") {
            rewrite(&*tail.file, scan.offset)
                .map_err(Error::io("write WAL segment again", &scan.path))?;
        }
        // What was read may be in memory only; from here on it counts as durable.
        tail.file
            .sync_data()
            .map_err(Error::io("sync WAL segment", &scan.path))?;
        let start = Start {
            metadata: scan
                .replay
                .metadata
                .clone()
                .expect("a scan sees the metadata"),
            encoder: Encoder::new(scan.replay.crc.expect("a scan sees a checksum")),
            offset: scan.offset,
            zeros_to: scan.zeros_to,
            last: scan.replay.last(),
            hard_state: scan.replay.hard_state,
        };
        let recovered = scan.recovered()?;
        Ok((start.run(fs, dir, options, segments), recovered))
    }
}

fn sync_parent(fs: &dyn Fs, dir: &Path) -> Result<(), Error> {
    match dir.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => {
            fs.sync_dir(parent).map_err(Error::io("sync", parent))
        }
        _ => Ok(()),
    }
}

/// Where writing begins.
struct Start {
    metadata: Vec<u8>,
    encoder: Encoder,
    offset: u64,
    /// From `offset` to here the file is zero already.
    zeros_to: u64,
    last: LogIndex,
    hard_state: HardState,
}

impl Start {
    fn run(
        self,
        fs: Arc<dyn Fs>,
        dir: &Path,
        options: Options,
        segments: VecDeque<Segment>,
    ) -> Wal {
        let frontier = Arc::new(Frontier::new(self.zeros_to));
        let zeroer = options.zero_ahead.then(ZeroAhead::start);
        if let (Some(zeroer), Some(tail)) = (&zeroer, segments.back()) {
            let path = dir.join(tail.name.file_name());
            zeroer.fill(&*fs, &path, &frontier, options.segment_bytes);
        }
        Wal {
            fs,
            dir: dir.to_owned(),
            options,
            metadata: self.metadata,
            segments,
            frontier,
            next: None,
            prepared_count: 0,
            zeroer,
            encoder: self.encoder,
            offset: self.offset,
            last: self.last,
            synced: self.last,
            told: self.hard_state,
            written: self.hard_state,
            dirty: false,
            poisoned: false,
            written_bytes: 0,
        }
    }
}

/// A log that was read to its end.
struct Scan {
    replay: Replay,
    /// The last segment.
    path: PathBuf,
    /// Where its last record ends.
    offset: u64,
    zeros_to: u64,
    tail: Tail,
    torn: Option<TornTail>,
}

impl Scan {
    fn run(
        dir: &Path,
        segments: &VecDeque<Segment>,
        mut replay: Replay,
        applied: Applied,
    ) -> Result<Scan, Error> {
        let mut end = None;
        for (i, segment) in segments.iter().enumerate() {
            let path = dir.join(segment.name.file_name());
            let is_last = i + 1 == segments.len();
            let stop = replay.segment(&*segment.file, &path, is_last)?;
            if is_last {
                let (offset, zeros_to) = (stop.offset, stop.file_bytes);
                let tail = check_end(&*segment.file, stop, &replay, applied)?;
                end = Some((path, offset, zeros_to, tail));
            }
        }
        let (path, offset, zeros_to, tail) = end.ok_or_else(|| Error::NotFound {
            dir: dir.to_owned(),
            index: applied.index,
        })?;
        let torn = matches!(tail, Tail::Torn { .. }).then(|| TornTail {
            segment: path.clone(),
            offset,
            copy: None,
        });
        Ok(Scan {
            replay,
            path,
            offset,
            zeros_to,
            tail,
            torn,
        })
    }

    /// Cuts a torn end off, after copying the segment.
    fn repair(&mut self, fs: &dyn Fs, file: &dyn File) -> Result<(), Error> {
        let Tail::Torn { used } = self.tail else {
            return Ok(());
        };
        let mut broken = self.path.as_os_str().to_owned();
        broken.push(".broken");
        let broken = PathBuf::from(broken);
        copy(fs, file, used, &broken).map_err(Error::io("copy WAL segment to", &broken))?;
        let dir = self.path.parent().unwrap_or(Path::new("."));
        fs.sync_dir(dir).map_err(Error::io("sync", dir))?;
        file.set_len(self.offset)
            .and_then(|()| file.sync_data())
            .map_err(Error::io("cut WAL segment", &self.path))?;
        self.zeros_to = self.offset;
        if let Some(torn) = &mut self.torn {
            torn.copy = Some(broken);
        }
        Ok(())
    }

    fn recovered(self) -> Result<Recovered, Error> {
        let raw = self.replay.metadata.as_deref().unwrap_or_default();
        let metadata = Metadata::decode(raw)
            .map_err(|source| Error::damaged(&self.path, 0, Damage::Message { kind: 1, source }))?;
        Ok(Recovered {
            metadata,
            hard_state: self.replay.hard_state,
            entries: self.replay.entries,
            snapshot_found: self.replay.matched,
            torn: self.torn,
        })
    }
}

/// Judges the end of the log against what is known to have been in it.
fn check_end(
    file: &dyn File,
    stop: Stop<'_>,
    replay: &Replay,
    applied: Applied,
) -> Result<Tail, Error> {
    let (path, offset) = (stop.path, stop.offset);
    let last = replay.last();
    let tail = judge(
        file,
        stop,
        &Known {
            last,
            applied: applied.index,
        },
    )?;
    if replay.hard_state.commit > last {
        let beyond = Damage::Structure("the commit index lies beyond the last entry");
        return Err(Error::damaged(path, offset, beyond));
    }
    if applied.index > last && !applied.may_lead {
        return Err(Error::Behind {
            path: path.to_owned(),
            offset,
            last,
            applied: applied.index,
        });
    }
    if applied.term != Term(0)
        && let Some(found) = replay.term_at(applied.index)
        && found != applied.term
    {
        return Err(Error::AppliedTerm {
            index: applied.index,
            applied: applied.term,
            found,
        });
    }
    Ok(tail)
}

fn copy(fs: &dyn Fs, from: &dyn File, len: u64, to: &Path) -> std::io::Result<()> {
    let target = fs.open(to, Open::Create { mode: FILE_MODE })?;
    target.set_len(0)?;
    let mut buf = vec![0; 1 << 20];
    let mut offset = 0;
    while offset < len {
        let part = (buf.len() as u64).min(len - offset) as usize;
        from.read_exact_at(&mut buf[..part], offset)?;
        target.write_all_at(&buf[..part], offset)?;
        offset += part as u64;
    }
    target.sync_data()
}

/// Writes what is there once more. After a sync that failed, and ended the process before this one,
/// the system shows what it could not write, believes it to be written, and would let the next
/// sync succeed without. Segments before the last are never in doubt: they were synced before it.
fn rewrite(file: &dyn File, len: u64) -> std::io::Result<()> {
    let mut buf = vec![0; 1 << 20];
    let mut offset = 0;
    while offset < len {
        let part = (buf.len() as u64).min(len - offset) as usize;
        file.read_exact_at(&mut buf[..part], offset)?;
        file.write_all_at(&buf[..part], offset)?;
        offset += part as u64;
    }
    Ok(())
}

fn open_for_reading(
    fs: &dyn Fs,
    dir: &Path,
    names: &[SegmentName],
) -> Result<VecDeque<Segment>, Error> {
    let open = |&name: &SegmentName| {
        let path = dir.join(name.file_name());
        let file = fs
            .open(&path, Open::Read)
            .map_err(Error::io("open WAL segment", &path))?;
        Ok(Segment { name, file })
    };
    names.iter().map(open).collect()
}

/// Reads what follows `from` without locks and without changing anything: for tools.
///
/// # Errors
/// As [`Wal::open`], and when the log has no record of the snapshot.
pub fn read(
    fs: &dyn Fs,
    dir: &Path,
    from: WalSnapshot,
    applied: Applied,
) -> Result<Recovered, Error> {
    let segments = open_for_reading(fs, dir, &select(fs, dir, from.index)?)?;
    let scan = Scan::run(dir, &segments, Replay::new(from, true), applied)?;
    if !scan.replay.matched {
        return Err(Error::SnapshotNotFound {
            index: from.index,
            term: from.term,
        });
    }
    scan.recovered()
}

/// All snapshot records of the log, oldest first, that its last commit index covers.
///
/// # Errors
/// Fails on damage; a torn end is passed over.
pub fn valid_snapshots(fs: &dyn Fs, dir: &Path) -> Result<Vec<SnapshotMeta>, Error> {
    let names = segment_names(fs, dir)?;
    follow_each_other(dir, &names)?;
    let segments = open_for_reading(fs, dir, &names)?;
    let mut replay = Replay::new(WalSnapshot::default(), false);
    for (i, segment) in segments.iter().enumerate() {
        let path = dir.join(segment.name.file_name());
        let is_last = i + 1 == segments.len();
        let stop = replay.segment(&*segment.file, &path, is_last)?;
        if is_last {
            let known = Known {
                last: replay.last(),
                applied: LogIndex(0),
            };
            judge(&*segment.file, stop, &known)?;
        }
    }
    let commit = replay.hard_state.commit;
    replay.snapshots.retain(|s| s.index <= commit);
    Ok(replay.snapshots)
}

/// Removes the oldest segments until `keep` are left, stopping at the first one that is locked.
/// Returns the names of the removed ones.
///
/// # Errors
/// Fails when the directory cannot be read or a file not be removed.
pub fn purge(fs: &dyn Fs, dir: &Path, keep: usize) -> Result<Vec<String>, Error> {
    let names = segment_names(fs, dir)?;
    let mut removed = Vec::new();
    for name in names.iter().take(names.len().saturating_sub(keep)) {
        let path = dir.join(name.file_name());
        let file = fs
            .open(&path, Open::ReadWrite)
            .map_err(Error::io("open WAL segment", &path))?;
        if !file
            .try_lock(LockKind::Record)
            .map_err(Error::io("lock WAL segment", &path))?
        {
            break;
        }
        fs.remove_file(&path).map_err(Error::io("remove", &path))?;
        // One after the other also on the disk: a crash must not leave a gap in the sequence.
        fs.sync_dir(dir).map_err(Error::io("sync", dir))?;
        removed.push(name.file_name());
    }
    Ok(removed)
}
