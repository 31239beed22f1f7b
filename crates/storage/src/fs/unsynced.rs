//! A file system whose syncs do nothing: `--unsafe-no-fsync`.

use std::io;
use std::path::Path;

use super::{File, Fs, LockKind, Open};

/// Leaves to the operating system when anything becomes durable: what was acknowledged survives
/// the end of the process, and not that of the machine.
pub struct Unsynced<F>(pub F);

struct UnsyncedFile(Box<dyn File>);

impl<F: Fs> Fs for Unsynced<F> {
    fn open(&self, path: &Path, how: Open) -> io::Result<Box<dyn File>> {
        Ok(Box::new(UnsyncedFile(self.0.open(path, how)?)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.0.rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.0.remove_file(path)
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        self.0.remove_dir_all(path)
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.0.create_dir_all(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.0.list(dir)
    }

    fn exists(&self, path: &Path) -> bool {
        self.0.exists(path)
    }

    fn mode(&self, path: &Path) -> io::Result<u32> {
        self.0.mode(path)
    }

    fn sync_dir(&self, _dir: &Path) -> io::Result<()> {
        Ok(())
    }
}

impl File for UnsyncedFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.read_at(buf, offset)
    }

    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_all_at(buf, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn try_lock(&self, kind: LockKind) -> io::Result<bool> {
        self.0.try_lock(kind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simfs::SimFs;

    #[test]
    fn bytes_arrive_and_no_sync_does() {
        let fs = Unsynced(SimFs::new());
        let (dir, path) = (Path::new("/d"), Path::new("/d/f"));
        fs.create_dir_all(dir).unwrap();
        let file = fs.open(path, Open::CreateNew { mode: 0o600 }).unwrap();
        file.write_all_at(b"abc", 0).unwrap();
        file.sync_data().unwrap();
        fs.sync_dir(dir).unwrap();
        assert_eq!(fs.0.syncs(), 0);
        assert_eq!(fs.0.contents(path).unwrap(), b"abc");
        // What it does not do is what makes bytes durable.
        let file = fs.0.open(path, Open::ReadWrite).unwrap();
        file.sync_data().unwrap();
        assert!(fs.0.syncs() > 0);
    }
}
