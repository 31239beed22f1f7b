//! The file's pages: the one place through which pages are read and written.

use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;

use super::cache::Cache;
use super::error::{Damage, Error};
use super::page::{Header, Kind, Page, extent};
use super::{PageId, Result};
use crate::fs::File;

/// Bytes that one write call carries at most when neighbouring pages are written together.
const WRITE_BYTES: usize = 1 << 20;

pub(super) struct Store {
    pub(super) file: Box<dyn File>,
    pub(super) page_size: usize,
    cache: Cache,
    /// Set when a sync or a meta write failed: the file's content is unknown from there on.
    poisoned: AtomicBool,
}

/// The encoded bytes of a page and its overflow pages, ready to be written.
pub(super) struct Fresh {
    pub(super) id: PageId,
    pub(super) pages: u64,
    pub(super) bytes: Bytes,
    /// Likely to be read again soon.
    pub(super) hot: bool,
}

impl Store {
    pub(super) fn new(file: Box<dyn File>, page_size: u32, cache_bytes: usize) -> Store {
        Store {
            file,
            page_size: page_size as usize,
            cache: Cache::new(cache_bytes),
            poisoned: AtomicBool::new(false),
        }
    }

    pub(super) fn offset(&self, id: PageId) -> u64 {
        // Ids are checked against the high-water mark, which lies within the file.
        id.0 * self.page_size as u64
    }

    /// The branch or leaf page `id` of a state with this high-water mark.
    pub(super) fn page(&self, id: PageId, high_water: PageId) -> Result<Page> {
        check_range(id, high_water)?;
        if let Some(page) = self.cache.get(id) {
            return Ok(page);
        }
        let page = self.read_page(id, high_water)?;
        self.cache.insert(page.clone());
        Ok(page)
    }

    /// Reads a page without looking into the cache or filling it.
    pub(super) fn read_page(&self, id: PageId, high_water: PageId) -> Result<Page> {
        check_range(id, high_water)?;
        let mut bytes = vec![0; self.page_size];
        self.read(id, 0, &mut bytes)?;
        let header = Header::decode(&bytes);
        let kind = header.check(id, high_water)?;
        self.read_rest(id, &header, kind, &mut bytes)?;
        Page::parse(id, &header, kind, bytes.into())
    }

    /// Takes page `id` out of `chunk`, which holds file bytes from that page on, reading further
    /// bytes when the page is longer.
    pub(super) fn page_of_chunk(
        &self,
        id: PageId,
        high_water: PageId,
        chunk: &Bytes,
    ) -> Result<Page> {
        check_range(id, high_water)?;
        let header = Header::decode(chunk);
        let kind = header.check(id, high_water)?;
        if header.pages() == 1 {
            return Page::parse(id, &header, kind, chunk.slice(..self.page_size));
        }
        self.read_page(id, high_water)
    }

    /// Extends `bytes`, the first page of a run, to the last byte that its elements use. What the
    /// elements claim bounds the allocation together with the run's length, so that one damaged
    /// field does not make the whole file be read.
    fn read_rest(
        &self,
        id: PageId,
        header: &Header,
        kind: Kind,
        bytes: &mut Vec<u8>,
    ) -> Result<()> {
        let run_bytes = header.pages() * self.page_size as u64;
        let bounds = || Error::damaged(id, Damage::ElementBounds { index: 0 });
        let table_bytes = header.table_bytes();
        if table_bytes as u64 > run_bytes {
            return Err(bounds());
        }
        self.grow_to(id, bytes, table_bytes)?;
        let extent = extent(bytes, header, kind);
        if extent > run_bytes {
            return Err(bounds());
        }
        self.grow_to(id, bytes, extent as usize)
    }

    fn grow_to(&self, id: PageId, bytes: &mut Vec<u8>, len: usize) -> Result<()> {
        let have = bytes.len();
        if len > have {
            bytes.resize(len, 0);
            self.read(id, have as u64, &mut bytes[have..])?;
        }
        Ok(())
    }

    /// Fills `into` with file bytes from `skip` bytes after the start of page `id`.
    pub(super) fn read(&self, id: PageId, skip: u64, into: &mut [u8]) -> Result<()> {
        let offset = self.offset(id) + skip;
        let failed = |source| Error::Io {
            what: "read database pages",
            offset,
            source,
        };
        self.file.read_exact_at(into, offset).map_err(failed)
    }

    /// Writes pages, neighbours together. Nothing is durable before [`Store::sync`].
    pub(super) fn write(&self, fresh: &mut [Fresh]) -> Result<()> {
        fresh.sort_unstable_by_key(|page| page.id);
        let mut staged: Vec<u8> = Vec::new();
        let mut begin = PageId(0);
        for page in fresh.iter() {
            let end = begin.0 + (staged.len() / self.page_size) as u64;
            if page.id.0 != end || staged.len() + page.bytes.len() > WRITE_BYTES {
                self.write_at(&staged, begin)?;
                staged.clear();
                begin = page.id;
            }
            if page.bytes.len() >= WRITE_BYTES {
                self.write_at(&page.bytes, page.id)?;
                begin = PageId(page.id.0 + page.pages);
            } else {
                staged.extend_from_slice(&page.bytes);
            }
        }
        self.write_at(&staged, begin)
    }

    fn write_at(&self, bytes: &[u8], id: PageId) -> Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        let offset = self.offset(id);
        let failed = |source| Error::Io {
            what: "write database pages",
            offset,
            source,
        };
        self.file.write_all_at(bytes, offset).map_err(failed)
    }

    /// Forgets what the cache held under ids that have new content, and keeps the new content of
    /// hot pages. Called before the state that refers to them is published.
    pub(super) fn replace_cached(&self, fresh: Vec<Fresh>) {
        for page in fresh {
            let header = Header::decode(&page.bytes);
            match header.kind() {
                Some(kind) if page.hot => match Page::parse(page.id, &header, kind, page.bytes) {
                    Ok(page) => self.cache.insert(page),
                    Err(_) => self.cache.remove(page.id),
                },
                _ => self.cache.remove(page.id),
            }
        }
    }

    /// Writes one meta page; a failure leaves the file's state unknown.
    pub(super) fn write_meta(&self, slot: u64, page: &[u8]) -> Result<()> {
        self.write_at(page, PageId(slot))
            .inspect_err(|_| self.poison())
    }

    pub(super) fn sync(&self) -> Result<()> {
        self.file.sync_data().map_err(|source| {
            self.poison();
            Error::Io {
                what: "sync the database file",
                offset: 0,
                source,
            }
        })
    }

    fn poison(&self) {
        self.poisoned.store(true, Ordering::SeqCst);
    }

    pub(super) fn is_poisoned(&self) -> bool {
        self.poisoned.load(Ordering::SeqCst)
    }
}

fn check_range(id: PageId, high_water: PageId) -> Result<()> {
    if id.0 < 2 || id >= high_water {
        return Err(Error::damaged(id, Damage::OutOfRange { high_water }));
    }
    Ok(())
}
