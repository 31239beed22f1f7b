//! Space comes back: sparse leaves are joined, pages at the file's end move into free places, and
//! the file is cut, in steps of one small transaction each.
//!
//! A pass visits the leaves of every bucket in key order. Neighbours that would fill fewer pages
//! are rewritten together; a page beyond the [`Pass`]'s target, which lies a little above what
//! the used pages need, is rewritten to the lowest free place. Both are changes like any other:
//! copied, never in place, so that readers and a crash see one whole state. Each commit lowers
//! the high-water mark over free pages at the end, and the file is cut to the highest mark that
//! the two meta pages or an open reader still know.

use bytes::Bytes;

use super::error::{Damage, Error};
use super::node::{DEPTH_MAX, leaf_pages};
use super::page::{Kind, Page};
use super::read::BucketRoot;
use super::write::{self, WriteTx};
use super::{Db, PageId, Result};

/// Pages that one step looks at, and writes, at most (a little more at the end): a sync of the log
/// that comes meanwhile waits for them.
const STEP_READS: u64 = 1024;
const STEP_WRITES: u64 = 256;
/// Neighbours that are joined at once.
const WINDOW: usize = 32;
/// Percent that joined pages are filled to where keys come in any order.
pub(super) const FILL: usize = 90;
/// Neighbours are joined when that saves this part of their pages.
const SAVED: usize = 5;
/// Pages that a target leaves free below it: a part of the used ones, and a few.
const SLACK: u64 = 50;
const SLACK_PAGES: u64 = 64;
/// Passes that one run makes at most; each needs to have lowered the mark.
const PASSES_MAX: usize = 8;
/// Commits without changes at the end of a run, at most.
const TIE_UPS_MAX: usize = 4;
/// What readers may keep from being reused before a run gives up.
const PENDING_PAGES_MAX: u64 = 4096;

/// What is left of a run of [`Db::defragment`], from step to step.
#[derive(Debug, Default)]
pub struct Defrag {
    /// Where the pass goes on; `None` before its first step.
    pass: Option<Pass>,
    passes: usize,
    /// Mark and used pages at the begin of the pass.
    before: (u64, u64),
    /// Nothing is left but to cut the file.
    is_tight: bool,
}

#[derive(Debug)]
struct Pass {
    bucket: Vec<u8>,
    key: Vec<u8>,
    /// Pages from here on are to move.
    target: u64,
}

/// What a step did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DefragStep {
    /// Pages that it wrote.
    pub pages: u64,
    /// There is nothing more to gain, now.
    pub done: bool,
}

/// One change that a step makes, found by a key.
#[derive(Debug)]
pub(super) enum Action {
    /// Joins so many leaves from the one with this key on.
    Join { key: Bytes, count: usize },
    /// Moves the leaf with this key.
    Leaf { key: Bytes },
    /// Moves the pages on the way to this key, down to this depth.
    Branch { key: Bytes, depth: usize },
}

/// What a step found to do in one bucket.
struct Plan<'a> {
    tx: &'a WriteTx,
    target: u64,
    /// Percent that joined pages are filled to.
    fill: usize,
    actions: Vec<Action>,
    reads: u64,
    writes: u64,
    /// Free pages below the target that are not promised yet.
    room: u64,
}

impl Db {
    /// Makes one step of a run; a new run begins with a default [`Defrag`]. Others may write
    /// between two steps.
    ///
    /// # Errors
    /// As a commit's.
    pub fn defragment(&self, run: &mut Defrag) -> Result<DefragStep> {
        if run.is_tight {
            let done = self.cut()?;
            return Ok(DefragStep { pages: 0, done });
        }
        let mut tx = self.begin_write()?;
        let step = run.step(&mut tx)?;
        let mut pages = match step {
            Moved::Something | Moved::End => tx.commit_packed()?.pages,
            Moved::Nothing => {
                drop(tx);
                0
            }
        };
        run.is_tight = matches!(step, Moved::End) && run.ends(self);
        if run.is_tight {
            pages += self.tie_up()?;
        }
        let is_cut = self.cut()?;
        let done = run.is_tight && is_cut;
        Ok(DefragStep { pages, done })
    }
}

impl Db {
    /// Commits without changes until both meta pages know the lowest mark; what the last commit
    /// freed is free for the next one only.
    fn tie_up(&self) -> Result<u64> {
        let mut pages = 0;
        for _ in 0..TIE_UPS_MAX {
            let tx = self.begin_write()?;
            if !tx.has_loose_end() {
                break;
            }
            pages += tx.commit_packed()?.pages;
        }
        Ok(pages)
    }
}

enum Moved {
    Something,
    Nothing,
    /// The pass is at its end.
    End,
}

impl Defrag {
    fn step(&mut self, tx: &mut WriteTx) -> Result<Moved> {
        let pass = self.pass.get_or_insert_with(|| {
            let (mark, used) = tx.extent();
            self.before = (mark, used);
            Pass {
                bucket: Vec::new(),
                key: Vec::new(),
                target: used + used / SLACK + SLACK_PAGES,
            }
        });
        if tx.pending_pages() > PENDING_PAGES_MAX {
            return Ok(Moved::End);
        }
        let mut moved = false;
        let (mut reads, mut writes) = (0, 0);
        let mut room = tx.free_below(pass.target);
        loop {
            let Some(name) = tx.bucket_from(&pass.bucket)? else {
                tx.move_root(PageId(pass.target))?;
                return Ok(Moved::End);
            };
            if name != pass.bucket {
                pass.bucket.clone_from(&name);
                pass.key.clear();
            }
            let mut plan = Plan {
                tx,
                target: pass.target,
                fill: write::fill(&name, true),
                actions: Vec::new(),
                reads,
                writes,
                room,
            };
            let next = plan.bucket(&name, &pass.key)?;
            (reads, writes, room) = (plan.reads, plan.writes, plan.room);
            let actions = plan.actions;
            moved |= !actions.is_empty();
            tx.rearrange(&name, &actions)?;
            match next {
                Some(next) => pass.key = next.to_vec(),
                None => {
                    pass.bucket.push(0);
                    pass.key.clear();
                }
            }
            if reads >= STEP_READS || writes >= STEP_WRITES {
                return Ok(if moved {
                    Moved::Something
                } else {
                    Moved::Nothing
                });
            }
        }
    }

    /// Ends the pass; true when another one would gain nothing.
    fn ends(&mut self, db: &Db) -> bool {
        self.pass = None;
        self.passes += 1;
        let page_size = u64::from(db.page_size());
        let now = (db.size() / page_size, db.size_in_use() / page_size);
        let gained = (self.before.0 - now.0.min(self.before.0)).max(
            // Joined leaves: the next pass has a lower target.
            self.before.1 - now.1.min(self.before.1),
        );
        let is_tight = now.0 <= now.1 + now.1 / SLACK + 2 * SLACK_PAGES;
        // The first one may have grown the file to have room.
        let is_idle = self.passes > 1 && gained * 100 <= now.0;
        is_tight || is_idle || self.passes >= PASSES_MAX
    }
}

impl Plan<'_> {
    fn is_full(&self) -> bool {
        self.reads >= STEP_READS || self.writes >= STEP_WRITES
    }

    /// Reads a page with those that belong to it: a long value is as much as many leaves.
    fn page(&mut self, id: PageId) -> Result<Page> {
        let page = self.tx.page_uncached(id)?;
        self.reads += page.pages;
        Ok(page)
    }

    /// Plans from `key` on; returns where the next step goes on, or `None` at the bucket's end.
    fn bucket(&mut self, name: &[u8], key: &[u8]) -> Result<Option<Bytes>> {
        let root = match self.tx.find_bucket(name)?.map(|bucket| bucket.root) {
            Some(BucketRoot::Page(id)) => id,
            // It lies in its parent's leaf.
            Some(BucketRoot::Inline(_)) | None => return Ok(None),
        };
        let page = self.page(root)?;
        match page.kind {
            Kind::Leaf => {
                if page.id.0 >= self.target && self.claim(page.pages) {
                    // It may be empty.
                    let (key, depth) = (Bytes::new(), 0);
                    self.actions.push(Action::Branch { key, depth });
                }
                Ok(None)
            }
            Kind::Branch => self.branch(&page, key, 0),
        }
    }

    fn branch(&mut self, page: &Page, key: &[u8], depth: usize) -> Result<Option<Bytes>> {
        if depth > DEPTH_MAX {
            return Err(Error::damaged(page.id, Damage::TooDeep));
        }
        let mut at = page.child_index(key);
        if page.id.0 >= self.target && self.claim(1) {
            let key = page.key_bytes(at);
            self.actions.push(Action::Branch { key, depth });
        }
        let first = self.child(page, at)?;
        if first.kind == Kind::Leaf {
            return self.leaves(page, at, first);
        }
        let mut next = Some(first);
        while at < page.len() {
            let child = match next.take() {
                Some(child) => child,
                None => self.child(page, at)?,
            };
            let low = page.key_bytes(at);
            let from = if key > &low[..] { key } else { &low[..] };
            if let Some(rest) = self.branch(&child, from, depth + 1)? {
                return Ok(Some(rest));
            }
            at += 1;
            if self.is_full() && at < page.len() {
                return Ok(Some(page.key_bytes(at)));
            }
        }
        Ok(None)
    }

    fn child(&mut self, page: &Page, at: usize) -> Result<Page> {
        let child = self.page(page.child(at))?;
        page.check_child(at, &child)?;
        Ok(child)
    }

    /// The leaves under a branch, from `at` on.
    fn leaves(&mut self, page: &Page, mut at: usize, first: Page) -> Result<Option<Bytes>> {
        let mut ready = Some(first);
        let mut window: Vec<Page> = Vec::new();
        loop {
            let leaf = match ready.take() {
                Some(leaf) => Some(leaf),
                None if at < page.len() => Some(self.child(page, at)?),
                None => None,
            };
            at += 1;
            let single = leaf.as_ref().is_some_and(|leaf| leaf.pages == 1);
            if !single || window.len() == WINDOW {
                self.consider(&window);
                window.clear();
            }
            let Some(leaf) = leaf else { return Ok(None) };
            if single {
                window.push(leaf);
            } else {
                self.consider_leaf(&leaf);
            }
            if self.is_full() && at < page.len() {
                self.consider(&window);
                return Ok(Some(page.key_bytes(at)));
            }
        }
    }

    /// Neighbouring leaves of a page each: joined if that saves enough, else moved one by one.
    fn consider(&mut self, window: &[Page]) {
        let items = |leaf: &Page| (0..leaf.len()).map(|at| leaf.item_bytes(at)).collect();
        let sizes: Vec<usize> = window
            .iter()
            .flat_map(|leaf| -> Vec<_> { items(leaf) })
            .collect();
        let needed = leaf_pages(&sizes, self.fill, self.tx.page_size());
        let saved = window.len().saturating_sub(needed);
        if saved * SAVED >= window.len() && saved > 0 {
            if let Some(first) = window.first().filter(|first| first.len() > 0) {
                // Where no room is left, growth is paid back by what is joined.
                self.claim(needed as u64);
                self.writes += needed as u64;
                let (key, count) = (first.key_bytes(0), window.len());
                self.actions.push(Action::Join { key, count });
            }
            return;
        }
        window.iter().for_each(|leaf| self.consider_leaf(leaf));
    }

    fn consider_leaf(&mut self, leaf: &Page) {
        if leaf.id.0 < self.target || leaf.len() == 0 {
            return;
        }
        if leaf.pages > 1 && !self.tx.has_run(leaf.pages, leaf.id) {
            return;
        }
        if self.claim(leaf.pages) {
            let key = leaf.key_bytes(0);
            self.actions.push(Action::Leaf { key });
            self.writes += leaf.pages;
        }
    }

    /// Takes pages from the room below the target; false when there is too little.
    fn claim(&mut self, pages: u64) -> bool {
        let fits = self.room >= pages;
        self.room = self.room.saturating_sub(pages);
        fits
    }
}
