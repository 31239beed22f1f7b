//! A B+tree in bbolt's file format: etcd's `member/snap/db`, to the byte.
//!
//! ```text
//! page 0, 1   meta pages: root, high-water mark, transaction id, checksum
//! page 2 ..   branch and leaf pages with their overflow pages, or free
//! ```
//! A commit never changes a page in use: it writes the changed pages to free places, syncs, writes
//! one meta page (that of the older state), syncs. Readers keep the state that they began with;
//! pages that a transaction frees are reused when no older reader is left. Pages are read with
//! pread and kept in a bounded cache; every page is proved sound before it is looked at.
//!
//! The list of free pages is not stored (the form that etcd uses on Linux, `NoFreelistSync`): the
//! scan at open finds it. Differences from bbolt: small buckets are never written inline, and a
//! large value gets a leaf of its own, so that its neighbours can change without rewriting it.

mod cache;
mod check;
mod defrag;
mod error;
mod file;
mod freelist;
mod image;
mod meta;
mod node;
mod page;
mod read;
mod scan;
mod store;
#[cfg(test)]
mod tests;
mod write;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

pub use check::{Report, Violation};
pub use defrag::{Defrag, DefragStep};
pub use error::{Damage, Error};
pub use image::Image;
pub use read::{Cursor, ReadTx};
pub use write::{CommitStats, WriteTx};

use crate::fs::Fs;
use file::Newest;
use freelist::{Freelist, Run};
use meta::Meta;
use read::Pin;
use scan::Found;
use store::Store;

type Result<T> = std::result::Result<T, Error>;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

id!(
    /// A page's number: its offset in the file, in pages.
    PageId
);
id!(
    /// A write transaction's number; each commit adds one.
    TxId
);

/// Bytes that the file is cut by at once: the file system does not write meanwhile.
const CUT_BYTES_MAX: u64 = 32 << 20;

/// How a database is opened.
#[derive(Clone, Debug)]
pub struct Options {
    /// Page size of a file that is created, in bytes; the operating system's when `None`. An
    /// existing file keeps its own.
    pub page_size: Option<u32>,
    /// Take etcd's lock on the file (`flock`; shared when `read_only`), without waiting.
    pub lock: bool,
    /// Neither create nor change the file. Free pages are then not looked for.
    pub read_only: bool,
    /// The file grows in multiples of this many bytes.
    pub grow_bytes: u64,
    /// Bytes of pages that are kept in memory.
    pub cache_bytes: usize,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            page_size: None,
            lock: true,
            read_only: false,
            grow_bytes: 16 << 20,
            cache_bytes: 32 << 20,
        }
    }
}

/// An open database. Clones share it; the file is closed, and its lock released, when the last
/// clone and the last transaction are gone.
#[derive(Clone)]
pub struct Db {
    shared: Arc<Shared>,
}

struct Shared {
    path: PathBuf,
    store: Store,
    lost_meta: Option<PageId>,
    read_only: bool,
    grow_bytes: u64,
    /// The newest state and who reads which; held for moments only.
    state: Mutex<State>,
    /// Empty while a write transaction is under way, which then owns the content.
    writer: Mutex<Option<Writer>>,
    writer_is_back: Condvar,
}

struct State {
    /// The newest durable state.
    meta: Meta,
    /// The high-water mark of the state before, which the other meta page may still hold.
    mark_before: PageId,
    /// Open read transactions by the state that they see.
    readers: BTreeMap<TxId, Readers>,
    /// Pages below the high-water mark that the newest state does not use.
    unused_pages: u64,
}

/// Read transactions on one state.
#[derive(Clone, Copy, Debug)]
struct Readers {
    count: usize,
    high_water: PageId,
}

/// What only the write transaction may touch.
struct Writer {
    freelist: Freelist,
    /// The freelist page that an older program stored and that nobody needs any more.
    stored_freelist: Option<Run>,
    file_bytes: u64,
}

impl Db {
    /// Opens the database at `path`, creating it when it is missing or empty.
    ///
    /// Fails at once with [`Error::Locked`] when another process has it. Reads the whole file
    /// once, in large pieces, to learn which pages are free (unless `read_only`).
    pub fn open(fs: Arc<dyn Fs>, path: &Path, options: Options) -> Result<Db> {
        let file = file::open(&*fs, path, &options)?;
        let Newest {
            meta,
            file_bytes,
            lost,
        } = file::newest_meta(&*file, path)?;
        let store = Store::new(file, meta.page_size, options.cache_bytes);
        let found = match options.read_only {
            true => Found::default(),
            false => scan::scan(&store, &meta)?,
        };
        let Found {
            freelist,
            stored_freelist,
        } = found;
        let unused_pages = freelist.unused_pages() + stored_freelist.map_or(0, |run| run.pages);
        let state = State {
            meta,
            mark_before: PageId(file_bytes / u64::from(meta.page_size)),
            readers: BTreeMap::new(),
            unused_pages,
        };
        let shared = Shared {
            path: path.to_owned(),
            store,
            lost_meta: lost,
            read_only: options.read_only,
            grow_bytes: options.grow_bytes,
            state: Mutex::new(state),
            writer: Mutex::new(Some(Writer {
                freelist,
                stored_freelist,
                file_bytes,
            })),
            writer_is_back: Condvar::new(),
        };
        Ok(Db {
            shared: Arc::new(shared),
        })
    }

    /// A transaction on the newest state.
    pub fn begin_read(&self) -> ReadTx {
        let meta = self.shared.state().pin_newest();
        ReadTx {
            pin: Arc::new(Pin {
                shared: Arc::clone(&self.shared),
                meta,
            }),
        }
    }

    /// Gives a piece of the file's end back that no state needs: neither of the two that the meta
    /// pages hold, nor one that a reader sees. True when nothing more is to be given back.
    fn cut(&self) -> Result<bool> {
        let mut writer = self.shared.take_writer();
        let cut = self.shared.cut(&mut writer.file_bytes);
        self.shared.end_write(writer);
        cut
    }

    /// The right to change the database; waits until the running write transaction ends.
    pub fn begin_write(&self) -> Result<WriteTx> {
        if self.shared.read_only {
            return Err(Error::ReadOnly);
        }
        let mut writer = self.shared.take_writer();
        if self.shared.store.is_poisoned() {
            self.shared.end_write(writer);
            return Err(Error::Poisoned);
        }
        let state = self.shared.state();
        let meta = state.meta;
        let oldest = state
            .readers
            .first_key_value()
            .map_or(meta.tx, |(&tx, _)| tx);
        drop(state);
        writer.freelist.release(oldest);
        Ok(WriteTx::new(Arc::clone(&self.shared), writer, meta))
    }

    /// Walks every page of the newest state and proves the file sound, or lists what is wrong.
    /// Writers wait only until it has pinned its state, not while it walks.
    ///
    /// Fails only when the file cannot be read.
    pub fn check(&self) -> Result<Report> {
        let writer = self.shared.take_writer();
        let tx = self.begin_read();
        let unused = (!self.shared.read_only).then(|| {
            let stored = writer.stored_freelist;
            writer.freelist.runs().into_iter().chain(stored).collect()
        });
        self.shared.end_write(writer);
        check::check(&tx, unused)
    }

    /// Bytes of the newest state, free pages included, as bbolt's `Tx.Size`: what etcd calls the
    /// size of the database. The file may be longer.
    pub fn size(&self) -> u64 {
        self.shared.state().meta.size_bytes()
    }

    /// Bytes of pages that the newest state uses. Equals [`Db::size`] when opened `read_only`.
    pub fn size_in_use(&self) -> u64 {
        self.sizes().1
    }

    /// [`Db::size`] and [`Db::size_in_use`] of one state.
    pub fn sizes(&self) -> (u64, u64) {
        let state = self.shared.state();
        let bytes = state.meta.size_bytes();
        let unused = state.unused_pages * u64::from(state.meta.page_size);
        (bytes, bytes - unused)
    }

    /// Bytes that the file occupies, with what was reserved for growth.
    pub fn file_bytes(&self) -> Result<u64> {
        let failed = |source| Error::Open {
            path: self.shared.path.clone(),
            source,
        };
        self.shared.store.file.len().map_err(failed)
    }

    /// Bytes of a page.
    pub fn page_size(&self) -> u32 {
        self.shared.state().meta.page_size
    }

    /// Read transactions that are open now.
    pub fn open_readers(&self) -> usize {
        self.shared
            .state()
            .readers
            .values()
            .map(|one| one.count)
            .sum()
    }

    /// True once a sync or a meta write has failed: what the file holds is unknown.
    pub fn is_poisoned(&self) -> bool {
        self.shared.store.is_poisoned()
    }

    /// The meta page, 0 or 1, that was not valid when the file was opened, so that the other one
    /// counts. A power failure during a commit leaves such a page, and loses nothing; but it may
    /// also have been the newer one, and have rotted since, and then a commit is lost.
    pub fn lost_meta(&self) -> Option<PageId> {
        self.shared.lost_meta
    }

    /// Where the file is.
    pub fn path(&self) -> &Path {
        &self.shared.path
    }
}

impl State {
    /// Notes one more reader of the newest state.
    fn pin_newest(&mut self) -> Meta {
        let high_water = self.meta.high_water;
        let readers = self.readers.entry(self.meta.tx);
        let readers = readers.or_insert(Readers {
            count: 0,
            high_water,
        });
        readers.count += 1;
        self.meta
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // Every change of the state is a single assignment or counter step.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn unpin(&self, tx: TxId) {
        let mut state = self.state();
        if let Some(readers) = state.readers.get_mut(&tx) {
            readers.count -= 1;
            if readers.count == 0 {
                state.readers.remove(&tx);
            }
        }
    }

    fn take_writer(&self) -> Writer {
        let mut slot = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            match slot.take() {
                Some(writer) => return writer,
                None => {
                    let waited = self.writer_is_back.wait(slot);
                    slot = waited.unwrap_or_else(PoisonError::into_inner);
                }
            }
        }
    }

    fn end_write(&self, writer: Writer) {
        *self.writer.lock().unwrap_or_else(PoisonError::into_inner) = Some(writer);
        self.writer_is_back.notify_one();
    }

    fn publish(&self, meta: Meta, unused_pages: u64) {
        let mut state = self.state();
        state.mark_before = state.meta.high_water;
        state.meta = meta;
        state.unused_pages = unused_pages;
    }

    /// Cuts the file towards the highest mark that is still known, to a multiple of its growth;
    /// true once it is there.
    fn cut(&self, file_bytes: &mut u64) -> Result<bool> {
        if self.store.is_poisoned() {
            return Err(Error::Poisoned);
        }
        let (mark, page_size) = {
            let state = self.state();
            let readers = state.readers.values().map(|one| one.high_water);
            let mark = readers.fold(state.meta.high_water.max(state.mark_before), PageId::max);
            (mark, u64::from(state.meta.page_size))
        };
        let needed = (mark.0 * page_size).next_multiple_of(self.grow_bytes.max(1));
        if needed >= *file_bytes {
            return Ok(true);
        }
        let len = needed.max(file_bytes.saturating_sub(CUT_BYTES_MAX));
        let failed = |source| Error::Io {
            what: "cut the database file",
            offset: len,
            source,
        };
        self.store.file.set_len(len).map_err(failed)?;
        *file_bytes = len;
        Ok(len == needed)
    }

    /// Makes the file hold `needed` bytes.
    fn grow(&self, file_bytes: &mut u64, needed: u64) -> Result<()> {
        if needed <= *file_bytes {
            return Ok(());
        }
        let len = needed.next_multiple_of(self.grow_bytes.max(1));
        let failed = |source| Error::Io {
            what: "grow the database file",
            offset: len,
            source,
        };
        self.store.file.set_len(len).map_err(failed)?;
        *file_bytes = len;
        Ok(())
    }
}
