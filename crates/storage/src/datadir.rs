//! The layout of a data directory, and putting it in order before a start.
//!
//! ```text
//! <data-dir>/member/wal/    the write-ahead log (or --wal-dir)
//! <data-dir>/member/snap/   db, *.snap, *.snap.db
//! ```

use std::io;
use std::path::{Path, PathBuf};

use crate::fs::{Fs, Open};
use crate::log::LogIndex;

/// Directories with more permissions than this are reported.
pub const DIR_MODE: u32 = 0o700;
/// Written and removed to see whether a directory is writable.
const PROBE: &str = ".touch";

/// A failed operation on the data directory.
#[derive(Debug, thiserror::Error)]
#[error("cannot {operation} {}", path.display())]
pub struct Error {
    pub operation: &'static str,
    pub path: PathBuf,
    pub source: io::Error,
}

impl Error {
    fn new(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
        move |source| Error {
            operation,
            path: path.to_owned(),
            source,
        }
    }
}

/// Where a member keeps its files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataDir {
    root: PathBuf,
    wal: PathBuf,
}

/// What was found and done when a directory was put in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Prepared {
    /// Whether there is a WAL: without one the member is new.
    pub has_wal: bool,
    /// Left-overs of an interrupted process that were removed.
    pub removed: Vec<PathBuf>,
    /// Directories that others than the owner may enter, with their modes.
    pub loose: Vec<(PathBuf, u32)>,
}

impl DataDir {
    /// `wal` places the log elsewhere; nothing is touched yet.
    #[must_use]
    pub fn new(root: &Path, wal: Option<&Path>) -> DataDir {
        let wal = wal.map_or_else(|| root.join("member").join("wal"), Path::to_owned);
        DataDir {
            root: root.to_owned(),
            wal,
        }
    }

    /// The directory that the operator named.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// `member`, which holds all but a WAL that was placed elsewhere.
    #[must_use]
    pub fn member(&self) -> PathBuf {
        self.root.join("member")
    }

    /// The write-ahead log.
    #[must_use]
    pub fn wal(&self) -> &Path {
        &self.wal
    }

    /// `member/snap`.
    #[must_use]
    pub fn snap(&self) -> PathBuf {
        self.member().join("snap")
    }

    /// The bolt file.
    #[must_use]
    pub fn database(&self) -> PathBuf {
        self.snap().join("db")
    }

    /// A database that a leader sent with the snapshot at `index`.
    #[must_use]
    pub fn received_database(&self, index: LogIndex) -> PathBuf {
        self.snap().join(format!("{:016x}.snap.db", index.0))
    }

    /// Creates what is missing, durably, checks that it is writable, and removes left-overs:
    /// `tmp*` and `db.tmp*` beside the database, and a WAL that was never finished. The WAL's own
    /// directory is not created: it appears complete or not at all.
    ///
    /// # Errors
    /// Fails when a directory cannot be created or written.
    pub fn prepare(&self, fs: &dyn Fs) -> Result<Prepared, Error> {
        let mut prepared = Prepared::default();
        let snap = self.snap();
        fs.create_dir_all(&snap)
            .map_err(Error::new("create", &snap))?;
        let wal_parent = self
            .wal
            .parent()
            .filter(|parent| !parent.as_os_str().is_empty());
        if let Some(parent) = wal_parent {
            fs.create_dir_all(parent)
                .map_err(Error::new("create", parent))?;
        }
        for dir in [&self.root, &self.member(), &snap] {
            probe(fs, dir)?;
            let mode = fs.mode(dir).map_err(Error::new("read the mode of", dir))?;
            if mode & !DIR_MODE & 0o777 != 0 {
                prepared.loose.push((dir.clone(), mode));
            }
        }
        for name in fs.list(&snap).map_err(Error::new("list", &snap))? {
            if name.starts_with("tmp") || name.starts_with("db.tmp") {
                let path = snap.join(name);
                fs.remove_file(&path).map_err(Error::new("remove", &path))?;
                prepared.removed.push(path);
            }
        }
        let mut unfinished = self.wal.as_os_str().to_owned();
        unfinished.push(".tmp");
        let unfinished = PathBuf::from(unfinished);
        if fs.exists(&unfinished) {
            fs.remove_dir_all(&unfinished)
                .map_err(Error::new("remove", &unfinished))?;
            prepared.removed.push(unfinished);
        }
        for dir in [
            self.root.parent(),
            Some(&self.root),
            Some(&self.member()),
            wal_parent,
        ] {
            if let Some(dir) = dir.filter(|dir| !dir.as_os_str().is_empty()) {
                fs.sync_dir(dir).map_err(Error::new("sync", dir))?;
            }
        }
        prepared.has_wal = crate::wal::exists(fs, &self.wal);
        Ok(prepared)
    }
}

/// Creates and removes a file.
fn probe(fs: &dyn Fs, dir: &Path) -> Result<(), Error> {
    let path = dir.join(PROBE);
    fs.open(&path, Open::Create { mode: 0o600 })
        .map_err(Error::new("write to", dir))?;
    fs.remove_file(&path).map_err(Error::new("write to", dir))
}

#[cfg(test)]
mod tests;
