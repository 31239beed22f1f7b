//! Proof that a database file is sound.

use std::collections::BTreeSet;

use bytes::Bytes;

use super::error::{Damage, Error};
use super::freelist::Run;
use super::meta::Meta;
use super::node::DEPTH_MAX;
use super::page::{HEADER_BYTES, Kind, Page};
use super::read::{Bucket, BucketRoot, Pin, ReadTx};
use super::scan::PageSet;
use super::{PageId, Result};

/// Violations that a report lists at most.
const VIOLATIONS_MAX: usize = 1000;

/// What is wrong with which page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Violation {
    pub page: PageId,
    pub damage: Damage,
}

/// What a check found.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Pages below the high-water mark, the two meta pages included.
    pub pages: u64,
    /// Pages of branches and leaves, with their overflow pages.
    pub reachable_pages: u64,
    /// Keys with values, in all buckets.
    pub keys: u64,
    pub buckets: u64,
    /// Entries of branch pages that sort before the first key of their child. Legal, but bbolt
    /// writes none and takes them amiss when it changes the child.
    pub loose_entries: u64,
    /// The first thousand violations; empty when the file is sound.
    pub violations: Vec<Violation>,
}

impl Report {
    /// Whether every rule of the format holds.
    pub fn is_sound(&self) -> bool {
        self.violations.is_empty()
    }
}

/// Checks the state of `tx`. `unused` lists the pages that the state does not use, where known.
pub(super) fn check(tx: &ReadTx, unused: Option<Vec<Run>>) -> Result<Report> {
    let meta = &tx.pin.meta;
    let mut check = Check {
        pin: &tx.pin,
        seen: PageSet::new(meta.high_water),
        complete: true,
        roots: vec![meta.root],
        report: Report {
            pages: meta.high_water.0,
            ..Report::default()
        },
    };
    check.metas(meta)?;
    while let Some(root) = check.roots.pop() {
        check.tree(root, Range::default(), 0)?;
    }
    check.unused(unused.as_deref());
    Ok(check.report)
}

/// Keys that may occur in a subtree: from `low` to below `high`.
#[derive(Clone, Default)]
struct Range {
    low: Bytes,
    high: Option<Bytes>,
}

struct Check<'a> {
    pin: &'a Pin,
    seen: PageSet,
    /// Every subtree could be visited, so that what was not seen is not in use.
    complete: bool,
    /// Trees that are still to be visited.
    roots: Vec<PageId>,
    report: Report,
}

impl Check<'_> {
    fn violation(&mut self, page: PageId, damage: Damage) {
        if self.report.violations.len() < VIOLATIONS_MAX {
            self.report.violations.push(Violation { page, damage });
        }
    }

    /// One of the two meta pages must hold the state, unless a newer one has replaced it.
    fn metas(&mut self, meta: &Meta) -> Result<()> {
        let mut found = BTreeSet::new();
        for slot in 0..2 {
            let mut bytes = vec![0; self.pin.shared.store.page_size];
            self.pin.shared.store.read(PageId(slot), 0, &mut bytes)?;
            if let Some(stored) = Meta::decode(&bytes[HEADER_BYTES..]) {
                if stored == *meta {
                    return Ok(());
                }
                found.insert(stored.tx);
            }
        }
        if found.last().is_none_or(|newest| *newest <= meta.tx) {
            self.violation(PageId(meta.tx.0 % 2), Damage::Meta);
        }
        Ok(())
    }

    /// Checks a page that is not shared with another parent and everything below it.
    fn tree(&mut self, id: PageId, range: Range, depth: usize) -> Result<()> {
        if depth > DEPTH_MAX {
            self.complete = false;
            self.violation(id, Damage::TooDeep);
            return Ok(());
        }
        let page = match self
            .pin
            .shared
            .store
            .read_page(id, self.pin.meta.high_water)
        {
            Ok(page) => page,
            Err(Error::Damaged { page, damage }) => {
                self.complete = false;
                self.violation(page, damage);
                return Ok(());
            }
            Err(e) => return Err(e),
        };
        for id in id.0..id.0 + page.pages {
            if !self.seen.insert(PageId(id)) {
                self.complete = false;
                self.violation(PageId(id), Damage::SharedPage);
                return Ok(());
            }
        }
        self.report.reachable_pages += page.pages;
        if let Err(Error::Damaged { page, damage }) =
            page.check_range(&range.low, range.high.as_deref())
        {
            self.violation(page, damage);
        }
        if depth > 0 && page.len() > 0 && *page.key(0) > range.low[..] {
            self.report.loose_entries += 1;
        }
        match page.kind {
            Kind::Branch => self.branch(&page, range, depth),
            Kind::Leaf => {
                if page.len() == 0 && depth > 0 {
                    self.violation(id, Damage::EmptyLeaf);
                }
                self.leaf(&page);
                Ok(())
            }
        }
    }

    fn branch(&mut self, page: &Page, range: Range, depth: usize) -> Result<()> {
        for index in 0..page.len() {
            let high = match index + 1 < page.len() {
                true => Some(page.key_bytes(index + 1)),
                false => range.high.clone(),
            };
            let low = page.key_bytes(index);
            self.tree(page.child(index), Range { low, high }, depth + 1)?;
        }
        Ok(())
    }

    fn leaf(&mut self, page: &Page) {
        for index in 0..page.len() {
            if !page.is_bucket(index) {
                self.report.keys += 1;
                continue;
            }
            self.report.buckets += 1;
            match Bucket::decode(page, index).map(|bucket| bucket.root) {
                Ok(BucketRoot::Page(id)) => self.roots.push(id),
                Ok(BucketRoot::Inline(inline)) => self.report.keys += inline.len() as u64,
                Err(_) => {
                    self.complete = false;
                    self.violation(page.id, Damage::BucketValue { index });
                }
            }
        }
    }

    /// Every page must be in use or unused, and not both.
    fn unused(&mut self, unused: Option<&[Run]>) {
        let Some(unused) = unused else {
            return;
        };
        let high_water = self.pin.meta.high_water;
        let mut free = PageSet::new(high_water);
        for id in unused
            .iter()
            .flat_map(|run| run.first.0..run.first.0 + run.pages)
        {
            if id >= high_water.0 {
                self.violation(PageId(id), Damage::OutOfRange { high_water });
                continue;
            }
            free.insert(PageId(id));
            if self.seen.contains(PageId(id)) {
                self.violation(PageId(id), Damage::ReachableFree);
            }
        }
        for id in (2..high_water.0).map(PageId) {
            if self.complete && !self.seen.contains(id) && !free.contains(id) {
                self.violation(id, Damage::Leaked);
            }
        }
    }
}
