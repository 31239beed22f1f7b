//! Which pages are in use: found at open by visiting every page of the tree.
//!
//! The tree is visited level by level, each level in page order and in large reads, so that a
//! database is read once from its beginning to its end, not along its keys. Of leaves only the
//! element tables are looked at.

use bytes::Bytes;

use super::error::{Damage, Error};
use super::freelist::{Freelist, Run};
use super::meta::Meta;
use super::page::{BUCKET_FLAG, ELEMENT_BYTES, FREELIST_FLAG, HEADER_BYTES, Header, Kind, u32_at};
use super::page::{Page, u64_at};
use super::read::{Bucket, BucketRoot};
use super::store::Store;
use super::{PageId, Result};

/// Bytes that one read covers at most.
const READ_BYTES: u64 = 1 << 20;
/// Unneeded bytes that a read may cover to save another one.
const GAP_BYTES: u64 = 64 << 10;
/// Entries of a stored freelist that one read covers.
const FREELIST_CHUNK: u64 = 8192;

/// A set of page ids below the high-water mark.
pub(super) struct PageSet {
    words: Vec<u64>,
}

impl PageSet {
    /// `high_water` lies within the file, which bounds the memory to a byte per 8 pages.
    pub(super) fn new(high_water: PageId) -> PageSet {
        PageSet {
            words: vec![0; high_water.0.div_ceil(64) as usize],
        }
    }

    /// Adds a page; returns whether it was missing.
    pub(super) fn insert(&mut self, id: PageId) -> bool {
        let word = &mut self.words[(id.0 / 64) as usize];
        let bit = 1 << (id.0 % 64);
        let missing = *word & bit == 0;
        *word |= bit;
        missing
    }

    pub(super) fn contains(&self, id: PageId) -> bool {
        self.words[(id.0 / 64) as usize] & (1 << (id.0 % 64)) != 0
    }

    /// Adds a run that lies below the high-water mark; fails at a page that is in the set.
    fn insert_run(&mut self, run: Run) -> Result<()> {
        for id in run.first.0..run.first.0 + run.pages {
            if !self.insert(PageId(id)) {
                return Err(Error::damaged(PageId(id), Damage::SharedPage));
            }
        }
        Ok(())
    }
}

/// What the scan at open found.
#[derive(Default)]
pub(super) struct Found {
    pub(super) freelist: Freelist,
    /// The freelist that the file stores, which the next commit drops.
    pub(super) stored_freelist: Option<Run>,
}

/// Finds the free pages of a state, proving that no page is used twice.
pub(super) fn scan(store: &Store, meta: &Meta) -> Result<Found> {
    let mut scan = Scan {
        store,
        high_water: meta.high_water,
        used: PageSet::new(meta.high_water),
    };
    scan.used.insert_run(Run {
        first: PageId(0),
        pages: 2,
    })?;
    let mut level = vec![meta.root];
    while !level.is_empty() {
        level = scan.visit(level)?;
    }
    let stored_freelist = match meta.freelist {
        Some(id) => Some(scan.check_freelist(id)?),
        None => None,
    };
    let mut freelist = Freelist::default();
    let mut first = 2;
    for id in 2..=meta.high_water.0 {
        if id == meta.high_water.0 || scan.used.contains(PageId(id)) {
            if id > first {
                freelist.put(Run {
                    first: PageId(first),
                    pages: id - first,
                });
            }
            first = id + 1;
        }
    }
    Ok(Found {
        freelist,
        stored_freelist,
    })
}

struct Scan<'a> {
    store: &'a Store,
    high_water: PageId,
    used: PageSet,
}

impl Scan<'_> {
    /// Visits pages of one level; returns the pages below them.
    fn visit(&mut self, mut level: Vec<PageId>) -> Result<Vec<PageId>> {
        level.sort_unstable();
        let page_size = self.store.page_size as u64;
        let mut below = Vec::new();
        let mut rest = &level[..];
        while let Some(&first) = rest.first() {
            let len = self.stretch(rest, READ_BYTES / page_size, GAP_BYTES / page_size);
            let last = rest[len - 1];
            if first.0 < 2 || last >= self.high_water {
                let id = if first.0 < 2 { first } else { last };
                let high_water = self.high_water;
                return Err(Error::damaged(id, Damage::OutOfRange { high_water }));
            }
            let mut bytes = vec![0; ((last.0 - first.0 + 1) * page_size) as usize];
            self.store.read(first, 0, &mut bytes)?;
            let chunk = Bytes::from(bytes);
            for &id in &rest[..len] {
                let at = ((id.0 - first.0) * page_size) as usize;
                self.visit_page(id, &chunk.slice(at..), &mut below)?;
            }
            rest = &rest[len..];
        }
        Ok(below)
    }

    /// How many of the sorted ids one read covers.
    fn stretch(&self, ids: &[PageId], pages_max: u64, gap_max: u64) -> usize {
        let near = ids.windows(2).take_while(|pair| {
            pair[1].0 - pair[0].0 <= gap_max && pair[1].0 - ids[0].0 < pages_max
        });
        near.count() + 1
    }

    /// `bytes` are the file's from page `id` on, one page at least.
    fn visit_page(&mut self, id: PageId, bytes: &Bytes, below: &mut Vec<PageId>) -> Result<()> {
        let header = Header::decode(bytes);
        let kind = header.check(id, self.high_water)?;
        self.used.insert_run(Run {
            first: id,
            pages: header.pages(),
        })?;
        match kind {
            Kind::Branch => {
                let page = self.store.page_of_chunk(id, self.high_water, bytes)?;
                below.extend((0..page.len()).map(|index| page.child(index)));
            }
            Kind::Leaf if may_hold_buckets(&header, &bytes[..self.store.page_size]) => {
                let page = self.store.page_of_chunk(id, self.high_water, bytes)?;
                buckets_below(&page, below)?;
            }
            Kind::Leaf => {}
        }
        Ok(())
    }

    /// Reads the stored freelist: it must not name a page of the tree, and its own pages become
    /// used ones.
    fn check_freelist(&mut self, id: PageId) -> Result<Run> {
        let mut head = [0; HEADER_BYTES + 8];
        self.store.read(id, 0, &mut head)?;
        let header = Header::decode(&head);
        let run = Run {
            first: id,
            pages: header.pages(),
        };
        let damage = if header.id != id {
            Damage::Id { found: header.id.0 }
        } else if header.flags != FREELIST_FLAG {
            Damage::Flags {
                found: header.flags,
            }
        } else if id.0 + run.pages > self.high_water.0 {
            Damage::Overflow { pages: run.pages }
        } else {
            self.used.insert_run(run)?;
            let (skip, count) = match header.count {
                0xFFFF => (HEADER_BYTES as u64 + 8, u64_at(&head, HEADER_BYTES)),
                count => (HEADER_BYTES as u64, u64::from(count)),
            };
            self.check_freelist_entries(run, skip, count)?;
            return Ok(run);
        };
        Err(Error::damaged(id, damage))
    }

    fn check_freelist_entries(&self, run: Run, skip: u64, count: u64) -> Result<()> {
        let damaged = |index| Error::damaged(run.first, Damage::Freelist { index });
        if count > (run.pages * self.store.page_size as u64 - skip) / 8 {
            return Err(damaged(count));
        }
        let mut last = PageId(1);
        let mut done = 0;
        while done < count {
            let len = (count - done).min(FREELIST_CHUNK);
            let mut bytes = vec![0; len as usize * 8];
            self.store.read(run.first, skip + done * 8, &mut bytes)?;
            for (index, entry) in (done..).zip(bytes.chunks_exact(8)) {
                let id = PageId(u64_at(entry, 0));
                if id <= last || id >= self.high_water {
                    return Err(damaged(index));
                }
                if self.used.contains(id) {
                    return Err(Error::damaged(id, Damage::ReachableFree));
                }
                last = id;
            }
            done += len;
        }
        Ok(())
    }
}

/// Whether the leaf whose first page is `bytes` has a bucket among its elements, or more
/// elements than the page can tell.
fn may_hold_buckets(header: &Header, bytes: &[u8]) -> bool {
    let Some(table) = bytes.get(HEADER_BYTES..header.table_bytes()) else {
        return true;
    };
    table
        .chunks_exact(ELEMENT_BYTES)
        .any(|element| u32_at(element, 0) & BUCKET_FLAG != 0)
}

/// Root pages of the buckets in a leaf.
pub(super) fn buckets_below(page: &Page, below: &mut Vec<PageId>) -> Result<()> {
    for index in (0..page.len()).filter(|&index| page.is_bucket(index)) {
        if let BucketRoot::Page(id) = Bucket::decode(page, index)?.root {
            below.push(id);
        }
    }
    Ok(())
}
