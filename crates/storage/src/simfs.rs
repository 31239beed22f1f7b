//! A simulated disk: files in memory that know what a power failure would leave of them.
//!
//! Fault model. A write changes what every reader sees at once, but what the disk holds only when
//! the file is synced. At a [crash](SimFs::crash) each 512-byte sector that was written since
//! shows one of the contents it had since then, chosen per sector (so writes are lost, kept, torn
//! and reordered); the file's length is one of the lengths it had. Creating, renaming and removing
//! are durable once a directory that they touch is synced; at a crash each of those that are not
//! is kept or lost, as a whole, whatever became of the others. What was synced never changes.
//!
//! A sync that [fails](Faults::fail_sync_at) leaves its writes in doubt: readers still see them, no
//! later sync makes them durable unless they are written again, and a crash may keep or lose them.
//!
//! Everything follows from the seed and the calls. One [`SimFs`] value is one life of a process:
//! [`SimFs::crash`] and [`SimFs::restart`] return the disk for the next one, without locks.

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::fs::{File, Fs, LockKind, Open};

mod disk;

use disk::{Disk, NodeId};

/// Reproducible random numbers (splitmix64).
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    /// The same seed gives the same numbers.
    #[must_use]
    pub fn new(seed: u64) -> Rng {
        Rng(seed)
    }

    /// A number in all 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`, which is at least 1.
    pub fn below(&mut self, end: u64) -> u64 {
        self.next_u64() % end
    }

    /// `true` once in `n` times.
    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

/// Errors to inject, by the number of the operation ([`SimFs::operations`], [`SimFs::syncs`]).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// The sync with this number (the first is 0) fails with EIO.
    pub fail_sync_at: Option<u64>,
    /// From the operation with this number on (the first is 0) every operation fails without any
    /// effect: the process is about to crash.
    pub halt_at: Option<u64>,
    /// Growing files beyond this many bytes together fails with ENOSPC.
    pub capacity_bytes: Option<u64>,
}

/// A simulated disk, as one process sees it.
#[derive(Clone)]
pub struct SimFs {
    disk: Arc<Mutex<Disk>>,
    /// The life of the process that this value belongs to.
    life: u64,
}

impl Default for SimFs {
    fn default() -> SimFs {
        SimFs::new()
    }
}

impl std::fmt::Debug for SimFs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SimFs")
            .field("life", &self.life)
            .finish_non_exhaustive()
    }
}

impl SimFs {
    /// An empty disk with a root directory.
    #[must_use]
    pub fn new() -> SimFs {
        SimFs {
            disk: Arc::new(Mutex::new(Disk::new())),
            life: 0,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The disk for an operation, counted; an error when the process is dead or halted.
    fn operate(&self) -> io::Result<MutexGuard<'_, Disk>> {
        let mut disk = self.lock();
        disk.operate(self.life)?;
        Ok(disk)
    }

    /// A power failure now. The returned disk is another one: this one can crash again, otherwise.
    #[must_use]
    pub fn crash(&self, rng: &mut Rng) -> SimFs {
        let disk = self.lock().crashed(rng);
        SimFs {
            disk: Arc::new(Mutex::new(disk)),
            life: 0,
        }
    }

    /// The process dies, the machine does not: everything written is still there (and still not
    /// durable when it was not synced); locks are gone and files opened before fail.
    #[must_use]
    pub fn restart(&self) -> SimFs {
        let life = self.lock().next_life();
        SimFs {
            disk: Arc::clone(&self.disk),
            life,
        }
    }

    /// Sets the errors to inject from now on.
    pub fn set_faults(&self, faults: Faults) {
        self.lock().faults = faults;
    }

    /// The errors that are being injected.
    #[must_use]
    pub fn faults(&self) -> Faults {
        self.lock().faults
    }

    /// How many operations were asked for so far: reads of data and lengths, locks,
    /// [`Fs::exists`] and [`Fs::mode`] are not counted.
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.lock().operations
    }

    /// How many syncs of files and directories were asked for so far.
    #[must_use]
    pub fn syncs(&self) -> u64 {
        self.lock().syncs
    }

    /// What readers see in a file; for checks and for planting damage.
    ///
    /// # Errors
    /// Fails when there is no such file.
    pub fn contents(&self, path: &Path) -> io::Result<Vec<u8>> {
        let disk = self.lock();
        let node = disk.file(path)?;
        Ok(disk.data(node).to_vec())
    }

    /// Replaces a file durably, behind everybody's back; creates it in its existing directory.
    ///
    /// # Errors
    /// Fails when the directory does not exist.
    pub fn plant(&self, path: &Path, contents: &[u8]) -> io::Result<()> {
        self.lock().plant(path, contents)
    }
}

impl Fs for SimFs {
    fn open(&self, path: &Path, how: Open) -> io::Result<Box<dyn File>> {
        let mut disk = self.operate()?;
        let node = disk.open(path, how)?;
        let handle = disk.next_handle();
        let writable = how != Open::Read;
        Ok(Box::new(SimFile {
            fs: self.clone(),
            node,
            handle,
            writable,
        }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.operate()?.rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.operate()?.remove(path, false)
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        self.operate()?.remove(path, true)
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.operate()?.create_dir_all(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.operate()?.list(dir)
    }

    fn exists(&self, path: &Path) -> bool {
        self.lock().exists(path)
    }

    fn mode(&self, path: &Path) -> io::Result<u32> {
        self.lock().mode(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.operate()?.sync_dir(dir)
    }
}

struct SimFile {
    fs: SimFs,
    node: NodeId,
    /// Distinguishes this open file from others of the same node: it owns locks.
    handle: u64,
    writable: bool,
}

impl SimFile {
    fn operate_writable(&self) -> io::Result<MutexGuard<'_, Disk>> {
        if !self.writable {
            return Err(io::Error::from_raw_os_error(libc::EBADF));
        }
        self.fs.operate()
    }

    fn look(&self) -> io::Result<MutexGuard<'_, Disk>> {
        let disk = self.fs.lock();
        disk.alive(self.fs.life)?;
        Ok(disk)
    }
}

impl File for SimFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let disk = self.look()?;
        let data = disk.data(self.node);
        let start = usize::try_from(offset)
            .unwrap_or(usize::MAX)
            .min(data.len());
        let len = buf.len().min(data.len() - start);
        buf[..len].copy_from_slice(&data[start..start + len]);
        Ok(len)
    }

    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        self.operate_writable()?.write(self.node, buf, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.fs.operate()?.sync_file(self.node)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.operate_writable()?.set_len(self.node, len)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.look()?.data(self.node).len() as u64)
    }

    fn try_lock(&self, kind: LockKind) -> io::Result<bool> {
        let mut disk = self.look()?;
        Ok(disk.try_lock(self.node, kind, self.handle))
    }
}

impl Drop for SimFile {
    fn drop(&mut self) {
        self.fs.lock().unlock(self.node, self.handle);
    }
}

#[cfg(test)]
mod tests;
