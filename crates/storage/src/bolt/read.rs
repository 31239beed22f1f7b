//! Read transactions: one state of the database, unchanged while writers go on.

use std::sync::Arc;

use bytes::Bytes;

use super::error::{Damage, Error};
use super::image::Image;
use super::meta::Meta;
use super::node::DEPTH_MAX;
use super::page::{BUCKET_BYTES, Kind, Page, u64_at};
use super::{PageId, Result, Shared, TxId};

/// Bytes that a cursor reads ahead at most.
const AHEAD_BYTES: usize = 256 << 10;

/// Keeps the pages of one state from being reused.
pub(super) struct Pin {
    pub(super) shared: Arc<Shared>,
    pub(super) meta: Meta,
}

impl Pin {
    pub(super) fn page(&self, id: PageId) -> Result<Page> {
        self.shared.store.page(id, self.meta.high_water)
    }

    /// The root page of the database, whose elements are the top-level buckets.
    fn root(&self) -> Result<Page> {
        self.page(self.meta.root)
    }

    fn leaf(&self, root: Page, key: &[u8]) -> Result<Page> {
        leaf_under(root, key, |id| self.page(id))
    }

    /// The root page of bucket `name` in the tree under `root`.
    fn bucket(&self, root: Page, name: &[u8]) -> Result<Page> {
        let leaf = self.leaf(root, name)?;
        match leaf.search(name) {
            Ok(index) if leaf.is_bucket(index) => {
                let bucket = Bucket::decode(&leaf, index)?;
                bucket.root_page(|id| self.page(id))
            }
            _ => Err(Error::BucketMissing {
                name: name.to_vec(),
            }),
        }
    }
}

/// The leaf under `root` in which `key` belongs, with pages fetched by `fetch`.
pub(super) fn leaf_under(
    root: Page,
    key: &[u8],
    fetch: impl Fn(PageId) -> Result<Page>,
) -> Result<Page> {
    let mut page = root;
    for _ in 0..DEPTH_MAX {
        if page.kind == Kind::Leaf {
            return Ok(page);
        }
        let index = page.child_index(key);
        let child = fetch(page.child(index))?;
        page.check_child(index, &child)?;
        page = child;
    }
    Err(Error::damaged(page.id, Damage::TooDeep))
}

impl Drop for Pin {
    fn drop(&mut self) {
        self.shared.unpin(self.meta.tx);
    }
}

/// The value of a leaf element that holds a bucket.
pub(super) struct Bucket {
    pub(super) root: BucketRoot,
    pub(super) sequence: u64,
}

/// Where a bucket's elements are.
pub(super) enum BucketRoot {
    Page(PageId),
    /// In the bucket's value itself.
    Inline(Page),
}

impl Bucket {
    pub(super) fn decode(leaf: &Page, index: usize) -> Result<Bucket> {
        let damaged = || Error::damaged(leaf.id, Damage::BucketValue { index });
        Bucket::from_value(&leaf.value(index)).ok_or_else(damaged)
    }

    /// Reads the value of an element that holds a bucket.
    pub(super) fn from_value(value: &Bytes) -> Option<Bucket> {
        if value.len() < BUCKET_BYTES {
            return None;
        }
        let sequence = u64_at(value, 8);
        let root = match PageId(u64_at(value, 0)) {
            PageId(0) => {
                let page = Page::parse_inline(value.slice(BUCKET_BYTES..)).ok()?;
                // Only buckets without further buckets are stored inline.
                if (0..page.len()).any(|index| page.is_bucket(index)) {
                    return None;
                }
                BucketRoot::Inline(page)
            }
            id => BucketRoot::Page(id),
        };
        Some(Bucket { root, sequence })
    }

    /// The bucket's root page, fetched with `page` unless it is inline.
    pub(super) fn root_page(self, page: impl FnOnce(PageId) -> Result<Page>) -> Result<Page> {
        match self.root {
            BucketRoot::Page(id) => page(id),
            BucketRoot::Inline(page) => Ok(page),
        }
    }
}

/// One state of the database; later commits do not show. Dropping it lets the pages that were
/// freed since be reused, so a long-lived one makes the file grow.
///
/// Keys and values that it returns share the memory of their whole page: whoever keeps one for
/// longer than a request copies it.
#[derive(Clone)]
pub struct ReadTx {
    pub(super) pin: Arc<Pin>,
}

impl ReadTx {
    /// The transaction that wrote the state.
    pub fn id(&self) -> TxId {
        self.pin.meta.tx
    }

    /// The value of `key`; `None` when the bucket has no such key or it names a nested bucket.
    pub fn get(&self, bucket: &[u8], key: &[u8]) -> Result<Option<Bytes>> {
        let root = self.pin.bucket(self.pin.root()?, bucket)?;
        let leaf = self.pin.leaf(root, key)?;
        let found = leaf
            .search(key)
            .ok()
            .filter(|&index| !leaf.is_bucket(index));
        Ok(found.map(|index| leaf.value(index)))
    }

    /// Whether there is a top-level bucket of that name.
    pub fn has_bucket(&self, name: &[u8]) -> Result<bool> {
        match self.pin.bucket(self.pin.root()?, name) {
            Ok(_) => Ok(true),
            Err(Error::BucketMissing { .. }) => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// The names of the top-level buckets, in order.
    pub fn buckets(&self) -> Result<Vec<Bytes>> {
        self.buckets_in(&[])
    }

    /// The names of the buckets nested in the bucket that `path` leads to.
    pub fn buckets_in(&self, path: &[&[u8]]) -> Result<Vec<Bytes>> {
        let mut cursor = self.cursor_at(path)?;
        let mut names = Vec::new();
        while let Some(entry) = cursor.step()? {
            if entry.is_bucket {
                names.push(entry.key);
            }
        }
        Ok(names)
    }

    /// A cursor before the first key of a top-level bucket.
    pub fn cursor(&self, bucket: &[u8]) -> Result<Cursor> {
        self.cursor_at(&[bucket])
    }

    /// A cursor before the first key of the bucket that `path` leads to; an empty path means the
    /// root, which holds nothing but buckets.
    pub fn cursor_at(&self, path: &[&[u8]]) -> Result<Cursor> {
        let mut root = self.pin.root()?;
        for name in path {
            root = self.pin.bucket(root, name)?;
        }
        Ok(Cursor {
            pin: Arc::clone(&self.pin),
            root,
            place: Place::Start,
            strides: 0,
            ahead: None,
            path: Vec::new(),
        })
    }

    /// The counter that bbolt keeps with a bucket.
    pub fn sequence(&self, bucket: &[u8]) -> Result<u64> {
        let leaf = self.pin.leaf(self.pin.root()?, bucket)?;
        match leaf.search(bucket) {
            Ok(index) if leaf.is_bucket(index) => Ok(Bucket::decode(&leaf, index)?.sequence),
            _ => Err(Error::BucketMissing {
                name: bucket.to_vec(),
            }),
        }
    }

    /// The whole state as the bytes of a bolt file.
    pub fn image(&self) -> Image {
        Image::new(Arc::clone(&self.pin))
    }

    /// Bytes of the state: used and free pages below the high-water mark.
    pub fn size(&self) -> u64 {
        self.pin.meta.size_bytes()
    }
}

/// A position in a bucket, in ascending key order. Nested buckets are passed over.
///
/// A cursor that goes on from leaf to leaf reads ahead: its keys and values then share the memory
/// of up to 256 KiB.
pub struct Cursor {
    pin: Arc<Pin>,
    root: Page,
    place: Place,
    /// Leaves entered by [`Cursor::next`] since the last jump.
    strides: u32,
    /// The file's bytes from a page on, read ahead of need.
    ahead: Option<(PageId, Bytes)>,
    /// From the root to the leaf, with the index of the element at which the cursor is.
    path: Vec<(Page, usize)>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Start,
    Within,
    End,
}

struct Entry {
    key: Bytes,
    value: Bytes,
    is_bucket: bool,
}

impl Cursor {
    /// Moves to the first key at or after `key` and returns it.
    pub fn seek(&mut self, key: &[u8]) -> Result<Option<(Bytes, Bytes)>> {
        self.descend(|page| match page.kind {
            Kind::Leaf => page.search(key).unwrap_or_else(|index| index),
            Kind::Branch => page.child_index(key),
        })?;
        let entry = self.settle()?;
        self.skip_buckets(entry)
    }

    /// Moves to the next key and returns it; the first one on a new cursor.
    #[expect(clippy::should_implement_trait, reason = "every step can fail")]
    pub fn next(&mut self) -> Result<Option<(Bytes, Bytes)>> {
        let entry = self.step()?;
        self.skip_buckets(entry)
    }

    /// Moves to the last key and returns it.
    pub fn last(&mut self) -> Result<Option<(Bytes, Bytes)>> {
        self.descend(|page| page.len().saturating_sub(1))?;
        loop {
            let Some((leaf, index)) = self.path.last().filter(|(leaf, _)| leaf.len() > 0) else {
                // An empty leaf below the root, which bbolt never leaves behind.
                self.place = Place::End;
                return Ok(None);
            };
            if !leaf.is_bucket(*index) {
                return Ok(Some((leaf.key_bytes(*index), leaf.value(*index))));
            }
            if !self.step_back()? {
                return Ok(None);
            }
        }
    }

    fn skip_buckets(&mut self, mut entry: Option<Entry>) -> Result<Option<(Bytes, Bytes)>> {
        while let Some(found) = entry {
            if !found.is_bucket {
                return Ok(Some((found.key, found.value)));
            }
            entry = self.step()?;
        }
        Ok(None)
    }

    /// Goes from the root to a leaf along the elements that `choose` picks.
    fn descend(&mut self, choose: impl Fn(&Page) -> usize) -> Result<()> {
        self.place = Place::Within;
        self.strides = 0;
        self.path.clear();
        let index = choose(&self.root);
        self.path.push((self.root.clone(), index));
        self.descend_further(choose)
    }

    fn descend_further(&mut self, choose: impl Fn(&Page) -> usize) -> Result<()> {
        while let Some((page, index)) = self.path.last()
            && page.kind == Kind::Branch
        {
            if self.path.len() > DEPTH_MAX {
                return Err(Error::damaged(page.id, Damage::TooDeep));
            }
            let child = match self.ahead_page(page, *index)? {
                Some(child) => child,
                None => self.pin.page(page.child(*index))?,
            };
            page.check_child(*index, &child)?;
            let index = choose(&child);
            self.path.push((child, index));
        }
        Ok(())
    }

    /// The next element, buckets included.
    fn step(&mut self) -> Result<Option<Entry>> {
        match self.place {
            Place::End => return Ok(None),
            Place::Start => self.descend(|_| 0)?,
            Place::Within => {
                if let Some((_, index)) = self.path.last_mut() {
                    *index += 1;
                }
            }
        }
        self.settle()
    }

    /// The element at the cursor, or the first one of the next leaf that has any.
    fn settle(&mut self) -> Result<Option<Entry>> {
        loop {
            if let Some((leaf, index)) = self.path.last()
                && *index < leaf.len()
            {
                let index = *index;
                return Ok(Some(Entry {
                    key: leaf.key_bytes(index),
                    value: leaf.value(index),
                    is_bucket: leaf.is_bucket(index),
                }));
            }
            self.path.pop();
            while let Some((branch, index)) = self.path.last_mut() {
                *index += 1;
                if *index < branch.len() {
                    break;
                }
                self.path.pop();
            }
            if self.path.is_empty() {
                self.place = Place::End;
                return Ok(None);
            }
            self.strides += 1;
            self.read_ahead()?;
            self.descend_further(|_| 0)?;
        }
    }

    /// The child at `index` of `branch`, when its bytes were read ahead.
    fn ahead_page(&self, branch: &Page, index: usize) -> Result<Option<Page>> {
        let id = branch.child(index);
        let Some((first, chunk)) = &self.ahead else {
            return Ok(None);
        };
        let store = &self.pin.shared.store;
        let at =
            id.0.wrapping_sub(first.0)
                .saturating_mul(store.page_size as u64);
        if at >= chunk.len() as u64 {
            return Ok(None);
        }
        let page = store.page_of_chunk(id, self.pin.meta.high_water, &chunk.slice(at as usize..));
        page.map(Some)
    }

    /// Reads the children that follow in the branch that the cursor has come to, as far as they
    /// lie behind each other in the file.
    fn read_ahead(&mut self) -> Result<()> {
        let Some((branch, index)) = self.path.last().filter(|_| self.strides > 1) else {
            return Ok(());
        };
        let store = &self.pin.shared.store;
        let first = branch.child(*index);
        let within = |(first_ahead, chunk): &(PageId, Bytes)| {
            let end = first_ahead.0 + (chunk.len() / store.page_size) as u64;
            (first_ahead.0..end).contains(&first.0)
        };
        if self.ahead.as_ref().is_some_and(within) {
            return Ok(());
        }
        let pages_max = AHEAD_BYTES / store.page_size;
        let following = (*index..branch.len()).take(pages_max).zip(first.0..);
        let pages = following
            .take_while(|(index, id)| branch.child(*index).0 == *id)
            .count();
        // Ids of a branch are not checked before they are followed.
        if pages < 2 || first.0 < 2 || first.0 + pages as u64 > self.pin.meta.high_water.0 {
            self.ahead = None;
            return Ok(());
        }
        let mut chunk = vec![0; pages * store.page_size];
        store.read(first, 0, &mut chunk)?;
        self.ahead = Some((first, chunk.into()));
        Ok(())
    }

    /// Moves one element towards the front, into the leaf before when needed.
    fn step_back(&mut self) -> Result<bool> {
        while let Some((_, index)) = self.path.last_mut() {
            if *index > 0 {
                *index -= 1;
                self.descend_further(|page| page.len().saturating_sub(1))?;
                return Ok(true);
            }
            self.path.pop();
        }
        self.place = Place::End;
        Ok(false)
    }
}
