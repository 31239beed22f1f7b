//! The file system as the store sees it, so that the simulator can own the disk.

use std::io;
use std::path::Path;

mod real;
#[cfg(feature = "stall-syncs")]
mod stall;
mod unsynced;

pub use real::RealFs;
pub use unsynced::Unsynced;

/// How a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Open {
    /// Must exist; read only.
    Read,
    /// Must exist; read and write.
    ReadWrite,
    /// Created with `mode` when absent, kept as it is when present; read and write.
    Create { mode: u32 },
    /// Must not exist; created with `mode`; read and write.
    CreateNew { mode: u32 },
}

/// Which of the locks that etcd's programs use is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockKind {
    /// Open-file-description write lock over the whole file: WAL segments.
    Record,
    /// `flock(LOCK_EX)`: the bolt file.
    Flock,
    /// `flock(LOCK_SH)`: the bolt file while it is only read, by any number of processes. Unlike
    /// the exclusive one it needs no right to write where locks cross a network.
    FlockShared,
}

/// A directory tree. Paths are absolute or relative to the process; names are UTF-8.
///
/// Creating, renaming and removing are durable only after [`Fs::sync_dir`] of the parent.
pub trait Fs: Send + Sync {
    fn open(&self, path: &Path, how: Open) -> io::Result<Box<dyn File>>;
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    fn remove_file(&self, path: &Path) -> io::Result<()>;
    fn remove_dir_all(&self, path: &Path) -> io::Result<()>;
    /// Creates the directory and its missing parents with mode 0700.
    fn create_dir_all(&self, path: &Path) -> io::Result<()>;
    /// Names in a directory, sorted bytewise.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;
    fn exists(&self, path: &Path) -> bool;
    /// The permission bits of a file or directory.
    fn mode(&self, path: &Path) -> io::Result<u32>;
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
}

/// An open file. Written bytes are durable only after [`File::sync_data`] returned `Ok`; after a
/// failed sync nothing about the file may be assumed and the caller stops the member.
pub trait File: Send + Sync {
    /// Reads at most `buf.len()` bytes; 0 at the end of the file.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize>;
    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()>;
    /// Makes data and the length needed to read it durable.
    fn sync_data(&self) -> io::Result<()>;
    fn set_len(&self, len: u64) -> io::Result<()>;
    fn len(&self) -> io::Result<u64>;
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
    /// Takes the lock without waiting; released when the file is dropped.
    /// `Ok(false)` means that another open file holds it.
    fn try_lock(&self, kind: LockKind) -> io::Result<bool>;

    /// Fills `buf` or fails with `UnexpectedEof`.
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let mut done = 0;
        while done < buf.len() {
            match self.read_at(&mut buf[done..], offset + done as u64) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(n) => done += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }
}
