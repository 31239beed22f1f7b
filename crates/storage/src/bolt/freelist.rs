//! Which pages may be written: free runs, and runs that wait for readers to leave.

use std::collections::{BTreeMap, BTreeSet};

use super::{PageId, TxId};

/// `pages` neighbouring pages from `first` on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Run {
    pub(super) first: PageId,
    pub(super) pages: u64,
}

/// Free pages of the newest state, owned by whoever holds the write transaction.
///
/// `free` runs never touch each other; `sizes` holds the same runs by size; no page is in both
/// `free` and `pending`.
#[derive(Clone, Debug, Default)]
pub(super) struct Freelist {
    free: BTreeMap<u64, u64>,
    sizes: BTreeSet<(u64, u64)>,
    free_pages: u64,
    /// Runs by the transaction that freed them: states before it still refer to them.
    pending: BTreeMap<TxId, Vec<Run>>,
    pending_pages: u64,
}

impl Freelist {
    /// Takes `pages` neighbouring pages: a single page from the lowest run, which keeps the file's
    /// end empty, and longer ones from the smallest run that holds them.
    pub(super) fn take(&mut self, pages: u64) -> Option<PageId> {
        let (len, first) = if pages == 1 {
            let (&first, &len) = self.free.first_key_value()?;
            (len, first)
        } else {
            *self.sizes.range((pages, 0)..).next()?
        };
        self.remove(first, len);
        if len > pages {
            self.insert(first + pages, len - pages);
        }
        Some(PageId(first))
    }

    /// Takes `pages` neighbouring pages as low in the file as they are to be had.
    pub(super) fn take_lowest(&mut self, pages: u64) -> Option<PageId> {
        let first = self.lowest(pages)?;
        let len = self.free[&first.0];
        self.remove(first.0, len);
        if len > pages {
            self.insert(first.0 + pages, len - pages);
        }
        Some(first)
    }

    /// Where the lowest free run of at least `pages` pages begins.
    pub(super) fn lowest(&self, pages: u64) -> Option<PageId> {
        let mut runs = self.free.iter();
        runs.find(|(_, len)| **len >= pages)
            .map(|(&first, _)| PageId(first))
    }

    /// Free pages below a page.
    pub(super) fn free_below(&self, end: u64) -> u64 {
        let below = self.free.range(..end);
        below.map(|(&first, &len)| len.min(end - first)).sum()
    }

    /// Pages that wait for readers to leave.
    pub(super) fn pending_pages(&self) -> u64 {
        self.pending_pages
    }

    /// Whether a free run ends at the high-water mark.
    pub(super) fn ends_at(&self, high_water: PageId) -> bool {
        let last = self.free.last_key_value();
        last.is_some_and(|(first, len)| first + len == high_water.0)
    }

    /// Takes the free run that ends at the high-water mark, if there is one.
    pub(super) fn trim(&mut self, high_water: PageId) -> Option<Run> {
        let (&first, &len) = self.free.last_key_value()?;
        if first + len != high_water.0 {
            return None;
        }
        self.remove(first, len);
        Some(Run {
            first: PageId(first),
            pages: len,
        })
    }

    /// Makes a run usable at once, joined with the runs beside it.
    pub(super) fn put(&mut self, run: Run) {
        let (mut first, mut len) = (run.first.0, run.pages);
        if let Some((&before, &before_len)) = self.free.range(..first).next_back() {
            debug_assert!(before + before_len <= first, "page {first} is freed twice");
            if before + before_len == first {
                self.remove(before, before_len);
                first = before;
                len += before_len;
            }
        }
        if let Some((&after, &after_len)) = self.free.range(first + len..).next()
            && first + len == after
        {
            self.remove(after, after_len);
            len += after_len;
        }
        self.insert(first, len);
    }

    fn insert(&mut self, first: u64, len: u64) {
        self.free.insert(first, len);
        self.sizes.insert((len, first));
        self.free_pages += len;
    }

    fn remove(&mut self, first: u64, len: u64) {
        self.free.remove(&first);
        self.sizes.remove(&(len, first));
        self.free_pages -= len;
    }

    /// Keeps what transaction `tx` freed until no reader is older.
    pub(super) fn hold(&mut self, tx: TxId, runs: Vec<Run>) {
        if !runs.is_empty() {
            self.pending_pages += runs.iter().map(|run| run.pages).sum::<u64>();
            self.pending.entry(tx).or_default().extend(runs);
        }
    }

    /// Frees what transactions up to `oldest` freed: no reader is at an older state.
    pub(super) fn release(&mut self, oldest: TxId) {
        while let Some(entry) = self.pending.first_entry() {
            if *entry.key() > oldest {
                break;
            }
            for run in entry.remove() {
                self.pending_pages -= run.pages;
                self.put(run);
            }
        }
    }

    /// Pages that the newest state does not use.
    pub(super) fn unused_pages(&self) -> u64 {
        self.free_pages + self.pending_pages
    }

    /// Every run, free or waiting, in page order.
    pub(super) fn runs(&self) -> Vec<Run> {
        let free = self.free.iter().map(|(&first, &pages)| Run {
            first: PageId(first),
            pages,
        });
        let mut runs: Vec<Run> = free
            .chain(self.pending.values().flatten().copied())
            .collect();
        runs.sort_unstable();
        runs
    }
}
