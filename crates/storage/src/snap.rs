//! `.snap` files: a raft snapshot each, named `<term>-<index>.snap` in hexadecimal.
//!
//! ```text
//! file      1 crc (CRC-32C of data)  2 data
//! data      raftpb.Snapshot: 1 the old store's JSON  2 metadata {conf_state, index, term}
//! ```
//! The database is not in it: it lies in `db` beside the files.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::fs::{Fs, Open};
use crate::log::{LogIndex, Snapshot, SnapshotMeta, Term, codec};
use crate::wal::segment::hex16;
use crate::wire::{Fields, WireError, put_bytes, put_uint};

/// etcd creates these files with Go's default mode, less the umask.
const FILE_MODE: u32 = 0o666;
/// Larger files are taken for damaged; the JSON of a thousand members has less than 1 MiB.
const FILE_BYTES_MAX: u64 = 512 << 20;

/// A failed operation on `.snap` files.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot {operation} {}", path.display())]
    Io {
        operation: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error("snapshot file {} is damaged", path.display())]
    Damaged { path: PathBuf, source: Damage },
}

/// Why a file is not a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    #[error("the file is empty")]
    Empty,
    #[error("the file has {0} bytes")]
    Size(u64),
    #[error("the file has no data or no checksum")]
    NoData,
    #[error("checksum is {computed:08x}, the file says {stored:08x}")]
    Crc { stored: u32, computed: u32 },
    #[error("the file does not decode")]
    Message(#[from] WireError),
}

fn io_error(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::Io {
        operation,
        path: path.to_owned(),
        source,
    }
}

/// The newest usable file, and those that were found damaged on the way to it.
#[derive(Debug)]
pub struct Loaded {
    /// `None` when there is no usable file.
    pub newest: Option<(PathBuf, Snapshot)>,
    /// Damaged files, by their old names; each now has the suffix `.broken`.
    pub broken: Vec<Error>,
}

/// A file that was written.
#[derive(Debug)]
pub struct Saved {
    pub path: PathBuf,
    /// Time of putting its contents together.
    pub encoding: Duration,
    /// Time of syncing it.
    pub syncing: Duration,
}

/// The name of a snapshot's file.
#[must_use]
pub fn file_name(meta: &SnapshotMeta) -> String {
    format!("{:016x}-{:016x}.snap", meta.term.0, meta.index.0)
}

fn parse_name(name: &str) -> Option<(Term, LogIndex)> {
    let (term, index) = name.strip_suffix(".snap")?.split_once('-')?;
    Some((Term(hex16(term)?), LogIndex(hex16(index)?)))
}

/// Writes a snapshot; when this returns, the file is durable under its name.
///
/// # Errors
/// Fails on any failed operation; what is left then is removed at the next start.
pub fn save(fs: &dyn Fs, dir: &Path, snapshot: &Snapshot) -> Result<Saved, Error> {
    let begin = Instant::now();
    let mut data = Vec::new();
    codec::put_snapshot(&mut data, snapshot);
    let mut contents = Vec::with_capacity(data.len() + 16);
    put_uint(&mut contents, 1, u64::from(crc32c::crc32c(&data)));
    put_bytes(&mut contents, 2, &data);

    let encoding = begin.elapsed();
    let name = file_name(&snapshot.meta);
    let path = dir.join(&name);
    let unfinished = dir.join(format!("tmp.{name}"));
    let file = fs
        .open(&unfinished, Open::Create { mode: FILE_MODE })
        .map_err(io_error("create", &unfinished))?;
    file.set_len(0)
        .and_then(|()| file.write_all_at(&contents, 0))
        .map_err(io_error("write", &unfinished))?;
    let begin = Instant::now();
    file.sync_data().map_err(io_error("sync", &unfinished))?;
    let syncing = begin.elapsed();
    fs.rename(&unfinished, &path)
        .map_err(io_error("rename", &unfinished))?;
    fs.sync_dir(dir).map_err(io_error("sync", dir))?;
    Ok(Saved {
        path,
        encoding,
        syncing,
    })
}

/// Reads one file.
///
/// # Errors
/// Fails when it cannot be read or is damaged.
pub fn read(fs: &dyn Fs, path: &Path) -> Result<Snapshot, Error> {
    let file = fs.open(path, Open::Read).map_err(io_error("open", path))?;
    let len = file.len().map_err(io_error("read", path))?;
    let damaged = |source| Error::Damaged {
        path: path.to_owned(),
        source,
    };
    if len > FILE_BYTES_MAX {
        return Err(damaged(Damage::Size(len)));
    }
    let mut contents = vec![0; len as usize];
    file.read_exact_at(&mut contents, 0)
        .map_err(io_error("read", path))?;
    decode(&Bytes::from(contents)).map_err(damaged)
}

fn decode(contents: &Bytes) -> Result<Snapshot, Damage> {
    if contents.is_empty() {
        return Err(Damage::Empty);
    }
    let mut stored = 0;
    let mut data = Bytes::new();
    for field in Fields::new(contents) {
        let field = field?;
        match field.number {
            1 => {
                let value = field.uint()?;
                stored = u32::try_from(value).map_err(|_| WireError::Value { field: 1, value })?;
            }
            2 => data = contents.slice_ref(field.bytes()?),
            _ => {}
        }
    }
    if data.is_empty() || stored == 0 {
        return Err(Damage::NoData);
    }
    let computed = crc32c::crc32c(&data);
    if computed != stored {
        return Err(Damage::Crc { stored, computed });
    }
    Ok(codec::snapshot(&data)?)
}

/// Snapshot files, newest first.
fn names(fs: &dyn Fs, dir: &Path) -> Result<Vec<String>, Error> {
    let mut names = fs.list(dir).map_err(io_error("list", dir))?;
    names.retain(|name| parse_name(name).is_some());
    names.reverse();
    Ok(names)
}

/// Loads the newest file that is sound and that `accept` (for instance: the WAL knows it) takes.
/// Damaged ones that are met on the way get the suffix `.broken`.
///
/// # Errors
/// Fails when the directory or a file cannot be read, or a damaged one not be renamed.
pub fn load_newest(
    fs: &dyn Fs,
    dir: &Path,
    mut accept: impl FnMut(&SnapshotMeta) -> bool,
) -> Result<Loaded, Error> {
    let mut loaded = Loaded {
        newest: None,
        broken: Vec::new(),
    };
    for name in names(fs, dir)? {
        let path = dir.join(&name);
        match read(fs, &path) {
            Ok(snapshot) if accept(&snapshot.meta) => {
                loaded.newest = Some((path, snapshot));
                break;
            }
            Ok(_) => {}
            Err(error @ Error::Damaged { .. }) => {
                let broken = dir.join(format!("{name}.broken"));
                fs.rename(&path, &broken)
                    .map_err(io_error("rename", &path))?;
                loaded.broken.push(error);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(loaded)
}

/// Removes the oldest snapshots until `keep` are left, and likewise the received databases
/// (`<index>.snap.db`). Returns the names of the removed files.
///
/// # Errors
/// Fails when the directory cannot be read or a file not be removed.
pub fn purge(fs: &dyn Fs, dir: &Path, keep: usize) -> Result<Vec<String>, Error> {
    let all = fs.list(dir).map_err(io_error("list", dir))?;
    let mut removed = Vec::new();
    for suffix in [".snap", ".snap.db"] {
        // Names are sorted, and sort as their numbers do.
        let kind: Vec<_> = all.iter().filter(|name| name.ends_with(suffix)).collect();
        for name in kind.iter().take(kind.len().saturating_sub(keep)) {
            let path = dir.join(name);
            fs.remove_file(&path).map_err(io_error("remove", &path))?;
            removed.push((*name).clone());
        }
    }
    Ok(removed)
}

#[cfg(test)]
mod tests;
