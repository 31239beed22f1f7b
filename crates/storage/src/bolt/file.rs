//! Opening and creating the file: lock, meta pages, the first four pages.

use std::io;
use std::path::{Path, PathBuf};

use super::error::{Damage, Error};
use super::meta::{self, META_BYTES, Meta};
use super::page::{HEADER_BYTES, encode_leaf};
use super::{Options, PageId, Result, TxId};
use crate::fs::{File, Fs, LockKind, Open};

/// The file at `path`, locked, created before when it is missing or empty.
///
/// What is in a file that can be opened need not be durable: the process before may have died
/// between a write and its sync. A commit that trusted such a meta page would overwrite pages of
/// the state that a power failure brings back, so the file and its name are synced first. The
/// newest meta page is written again before that: when its sync failed, and ended the process, the
/// system shows it, believes it to be written, and would sync nothing. What it points to was synced
/// before it was written.
pub(super) fn open(fs: &dyn Fs, path: &Path, options: &Options) -> Result<Box<dyn File>> {
    let failed = |source| Error::Open {
        path: path.to_owned(),
        source,
    };
    if let Some(page_size) = options.page_size
        && !meta::valid_page_size(page_size)
    {
        return Err(Error::BadPageSize { page_size });
    }
    if options.read_only {
        let file = fs.open(path, Open::Read).map_err(failed)?;
        lock(&*file, path, options)?;
        return Ok(file);
    }
    if !exists(fs, path)? {
        create(fs, path, options)?;
    }
    let file = fs.open(path, Open::ReadWrite).map_err(failed)?;
    lock(&*file, path, options)?;
    let Newest { meta, .. } = newest_meta(&*file, path)?;
    if !cfg!(feature = "plant-trusted-cache") {
        rewrite_meta(&*file, &meta).map_err(failed)?;
    }
    file.sync_data().map_err(failed)?;
    fs.sync_dir(parent(path)).map_err(failed)?;
    Ok(file)
}

fn rewrite_meta(file: &dyn File, meta: &Meta) -> io::Result<()> {
    let mut page = vec![0; meta.page_size as usize];
    let offset = meta.tx.0 % 2 * u64::from(meta.page_size);
    file.read_exact_at(&mut page, offset)?;
    file.write_all_at(&page, offset)
}

fn lock(file: &dyn File, path: &Path, options: &Options) -> Result<()> {
    let failed = |source| Error::Open {
        path: path.to_owned(),
        source,
    };
    let kind = match options.read_only {
        true => LockKind::FlockShared,
        false => LockKind::Flock,
    };
    if options.lock && !file.try_lock(kind).map_err(failed)? {
        return Err(Error::Locked {
            path: path.to_owned(),
        });
    }
    Ok(())
}

/// Whether there is a file with content.
fn exists(fs: &dyn Fs, path: &Path) -> Result<bool> {
    let failed = |source| Error::Open {
        path: path.to_owned(),
        source,
    };
    if !fs.exists(path) {
        return Ok(false);
    }
    let file = fs.open(path, Open::Read).map_err(failed)?;
    Ok(!file.is_empty().map_err(failed)?)
}

fn parent(path: &Path) -> &Path {
    let parent = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    parent.unwrap_or(Path::new("."))
}

/// Writes an empty database beside `path` and renames it into place, so that a crash never
/// leaves half a file behind.
fn create(fs: &dyn Fs, path: &Path, options: &Options) -> Result<()> {
    let failed = |source| Error::Open {
        path: path.to_owned(),
        source,
    };
    let mut name = path.as_os_str().to_owned();
    name.push(".tmp.new");
    let beside = PathBuf::from(name);
    let file = fs
        .open(&beside, Open::Create { mode: 0o600 })
        .map_err(failed)?;
    lock(&*file, path, options)?;
    if exists(fs, path)? {
        // Another process was faster; its lock decides.
        return Ok(());
    }
    let page_size = options.page_size.unwrap_or_else(os_page_size);
    file.set_len(0).map_err(failed)?;
    file.write_all_at(&empty(page_size), 0).map_err(failed)?;
    file.sync_data().map_err(failed)?;
    fs.rename(&beside, path).map_err(failed)?;
    fs.sync_dir(parent(path)).map_err(failed)
}

/// The bytes of a database without buckets, laid out as bbolt does, but for the unused page 2.
fn empty(page_size: u32) -> Vec<u8> {
    let first = Meta {
        page_size,
        flags: 0,
        root: PageId(3),
        sequence: 0,
        freelist: None,
        high_water: PageId(4),
        tx: TxId(0),
    };
    let second = Meta {
        tx: TxId(1),
        ..first
    };
    let mut bytes = first.encode(0);
    bytes.extend_from_slice(&second.encode(1));
    bytes.resize(3 * page_size as usize, 0);
    bytes.extend_from_slice(&encode_leaf(PageId(3), &[], 1, page_size as usize));
    bytes
}

fn os_page_size() -> u32 {
    let page_size = u32::try_from(rustix::param::page_size()).unwrap_or(u32::MAX);
    if meta::valid_page_size(page_size) {
        page_size
    } else {
        4096
    }
}

/// What the meta pages say.
pub(super) struct Newest {
    pub(super) meta: Meta,
    pub(super) file_bytes: u64,
    /// The meta page that is not valid.
    pub(super) lost: Option<PageId>,
}

/// The newer of the two meta pages, of those that are valid.
///
/// The page size is in the meta page itself: when the first one is lost, the second is looked for
/// at every page size.
pub(super) fn newest_meta(file: &dyn File, path: &Path) -> Result<Newest> {
    let failed = |source| Error::Open {
        path: path.to_owned(),
        source,
    };
    let file_bytes = file.len().map_err(failed)?;
    let first = meta_at(file, 0)?;
    let seconds = match first {
        Some(first) => first.page_size..=first.page_size,
        None => meta::PAGE_SIZE_MIN..=meta::PAGE_SIZE_MAX,
    };
    let mut newest = first;
    let mut lost = first.is_none().then_some(PageId(0));
    let mut page_size = *seconds.start();
    while page_size <= *seconds.end() {
        let second = meta_at(file, u64::from(page_size))?;
        let second = second.filter(|second| second.page_size == page_size);
        if let Some(second) = second
            && newest.is_none_or(|newest| newest.tx < second.tx)
        {
            newest = Some(second);
        }
        if first.is_some() && second.is_none() {
            lost = Some(PageId(1));
        }
        page_size *= 2;
    }
    let meta = newest.ok_or_else(|| Error::NoValidMeta {
        path: path.to_owned(),
    })?;
    if meta.high_water.0 > file_bytes / u64::from(meta.page_size) {
        let last = PageId(meta.high_water.0.saturating_sub(1));
        return Err(Error::damaged(last, Damage::FileTooShort { file_bytes }));
    }
    if !meta.fits(file_bytes) {
        return Err(Error::damaged(PageId(meta.tx.0 % 2), Damage::Meta));
    }
    Ok(Newest {
        meta,
        file_bytes,
        lost,
    })
}

/// The meta page that begins at `offset`, when there is a valid one.
fn meta_at(file: &dyn File, offset: u64) -> Result<Option<Meta>> {
    let mut bytes = [0; HEADER_BYTES + META_BYTES];
    match file.read_exact_at(&mut bytes, offset) {
        Ok(()) => Ok(Meta::decode(&bytes[HEADER_BYTES..])),
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        Err(source) => Err(Error::Io {
            what: "read the meta page",
            offset,
            source,
        }),
    }
}
