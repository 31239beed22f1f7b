//! Write transactions: copy-on-write, one at a time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::defrag::{self, Action};
use super::error::{Damage, Error};
use super::freelist::{Freelist, Run};
use super::meta::Meta;
use super::node::{Change, Item, Leaf, Link, Loader, Node, Sink, spill_root};
use super::page::{BUCKET_BYTES, BUCKET_FLAG, KEY_BYTES_MAX, Page, VALUE_BYTES_MAX};
use super::read::{Bucket, BucketRoot, leaf_under};
use super::store::Fresh;
use super::{Db, PageId, Result, Shared, TxId, Writer};

/// Percent to which pages are filled when a node is split.
const FILL: usize = 50;
/// Revisions arrive in order and are never changed: no page of theirs needs room for more.
const FILL_APPEND: usize = 100;
const APPEND_BUCKET: &[u8] = b"key";

/// What a commit cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CommitStats {
    /// Pages written, the meta page included; 0 when there was nothing to write.
    pub pages: u64,
    /// Bytes written.
    pub bytes: u64,
    /// The transaction that was committed.
    pub tx: TxId,
    /// Time of laying out the new pages.
    pub spilling: Duration,
    /// Time of writing and syncing them.
    pub writing: Duration,
}

/// A bucket that this transaction has changed.
struct Tree {
    root: Link,
    sequence: u64,
}

/// The only transaction that may change the database at its time. Dropping it undoes everything.
pub struct WriteTx {
    shared: Arc<Shared>,
    /// `None` after the commit has given it back.
    writer: Option<Writer>,
    meta: Meta,
    /// The tree of top-level buckets.
    root: Link,
    trees: BTreeMap<Vec<u8>, Tree>,
    /// Pages of the state before that this one does not use any more.
    freed: Vec<Run>,
    /// A call failed half-way: the trees are not to be committed.
    failed: bool,
    /// Pages are filled, and lie as low in the file as there is room.
    packed: bool,
}

impl WriteTx {
    pub(super) fn new(shared: Arc<Shared>, writer: Writer, meta: Meta) -> WriteTx {
        let root = Link::Page(meta.root);
        WriteTx {
            shared,
            writer: Some(writer),
            meta,
            root,
            trees: BTreeMap::new(),
            freed: Vec::new(),
            failed: false,
            packed: false,
        }
    }

    /// Creates a top-level bucket unless it exists; returns whether it did not.
    pub fn create_bucket(&mut self, name: &[u8]) -> Result<bool> {
        check_key(name)?;
        if self.trees.contains_key(name) || self.find_bucket(name)?.is_some() {
            return Ok(false);
        }
        let tree = Tree {
            root: Link::Node(Node::Leaf(Leaf::default())),
            sequence: 0,
        };
        self.trees.insert(name.to_vec(), tree);
        Ok(true)
    }

    /// The value of `key` as this transaction sees it.
    pub fn get(&self, bucket: &[u8], key: &[u8]) -> Result<Option<Bytes>> {
        let missing = || Error::BucketMissing {
            name: bucket.to_vec(),
        };
        let item = match self.trees.get(bucket) {
            Some(tree) => self.find(&tree.root, key)?,
            None => match self.find_bucket(bucket)?.ok_or_else(missing)?.root {
                BucketRoot::Page(id) => self.find(&Link::Page(id), key)?,
                BucketRoot::Inline(page) => find_in(&page, key),
            },
        };
        Ok(item
            .filter(|item| item.flags != BUCKET_FLAG)
            .map(|item| item.value))
    }

    /// Sets `key` to `value`.
    pub fn put(&mut self, bucket: &[u8], key: &[u8], value: &[u8]) -> Result<()> {
        check_key(key)?;
        check_value(value)?;
        let key = Bytes::copy_from_slice(key);
        let item = Item {
            key,
            value: Bytes::copy_from_slice(value),
            flags: 0,
        };
        self.change(bucket, |loader, root| loader.put(root, item))
    }

    /// Removes `key`; returns whether it was there.
    pub fn delete(&mut self, bucket: &[u8], key: &[u8]) -> Result<bool> {
        if self.get(bucket, key)?.is_none() {
            return Ok(false);
        }
        self.change(bucket, |loader, root| loader.delete(root, key))
    }

    /// Applies changes in strictly ascending key order: a value is put, `None` deletes. Cheaper
    /// than single calls, because every leaf is visited once.
    pub fn apply_sorted(&mut self, bucket: &[u8], changes: &[Change]) -> Result<()> {
        for (index, (key, value)) in changes.iter().enumerate() {
            check_key(key)?;
            check_value(value.as_deref().unwrap_or_default())?;
            if index > 0 && changes[index - 1].0 >= key {
                return Err(Error::Unsorted { index });
            }
        }
        self.change(bucket, |loader, root| loader.apply(root, changes, 0))
    }

    /// Removes a top-level bucket with everything in it; returns whether there was one.
    pub fn delete_bucket(&mut self, name: &[u8]) -> Result<bool> {
        if self.failed {
            return Err(Error::Aborted);
        }
        let stored = self.find_bucket(name)?;
        let changed = self.trees.remove(name);
        let root = match (changed, stored) {
            (None, None) => return Ok(false),
            (Some(tree), _) => Some(tree.root),
            (None, Some(bucket)) => match bucket.root {
                BucketRoot::Page(id) => Some(Link::Page(id)),
                BucketRoot::Inline(_) => None,
            },
        };
        if let Some(root) = root {
            self.run(|loader, _| loader.free(root))?;
        }
        self.run(|loader, buckets| loader.delete_bucket(buckets, name))?;
        Ok(true)
    }

    /// Mark and used pages of the state before, in pages.
    pub(super) fn extent(&self) -> (u64, u64) {
        let mark = self.meta.high_water.0;
        (mark, mark - self.freelist().unused_pages())
    }

    fn freelist(&self) -> &Freelist {
        let writer = self.writer.as_ref();
        &writer
            .expect("only the end of the transaction takes it")
            .freelist
    }

    pub(super) fn page_size(&self) -> usize {
        self.shared.store.page_size
    }

    pub(super) fn pending_pages(&self) -> u64 {
        self.freelist().pending_pages()
    }

    pub(super) fn free_below(&self, end: u64) -> u64 {
        self.freelist().free_below(end)
    }

    /// Whether so many neighbouring pages are free below a page.
    pub(super) fn has_run(&self, pages: u64, below: PageId) -> bool {
        let lowest = self.freelist().lowest(pages);
        lowest.is_some_and(|first| first < below)
    }

    pub(super) fn page_uncached(&self, id: PageId) -> Result<Page> {
        self.shared.store.read_page(id, self.meta.high_water)
    }

    /// The first top-level bucket that is not before `name`, as it was before this transaction.
    pub(super) fn bucket_from(&self, name: &[u8]) -> Result<Option<Vec<u8>>> {
        // The newest state is this transaction's own while it lasts.
        let db = Db {
            shared: Arc::clone(&self.shared),
        };
        let names = db.begin_read().buckets()?;
        let found = names.into_iter().find(|found| &found[..] >= name);
        Ok(found.map(|found| found.to_vec()))
    }

    /// Moves and joins pages of a bucket.
    pub(super) fn rearrange(&mut self, bucket: &[u8], actions: &[Action]) -> Result<()> {
        if actions.is_empty() {
            return Ok(());
        }
        self.packed = true;
        self.change(bucket, |loader, root| {
            let mut actions = actions.iter();
            actions.try_for_each(|action| loader.rearrange(root, action))
        })
    }

    /// Moves the root of the tree of buckets if it lies at this page or beyond.
    pub(super) fn move_root(&mut self, from: PageId) -> Result<()> {
        if !matches!(self.root, Link::Page(id) if id >= from) {
            return Ok(());
        }
        let (key, depth) = (Bytes::new(), 0);
        self.run(|loader, root| loader.rearrange(root, &Action::Branch { key, depth }))
    }

    /// Commits what [`WriteTx::rearrange`] did, and the mark alone where nothing changed.
    pub(super) fn commit_packed(mut self) -> Result<CommitStats> {
        self.packed = true;
        self.commit()
    }

    /// Whether a commit without changes lets more of the file's end be cut.
    pub(super) fn has_loose_end(&self) -> bool {
        let mark = self.meta.high_water;
        self.freelist().ends_at(mark) || self.shared.state().mark_before > mark
    }

    /// Runs a change on the tree of buckets.
    fn run<T>(&mut self, run: impl FnOnce(&mut Loader<'_>, &mut Link) -> Result<T>) -> Result<T> {
        let mut loader = Loader {
            store: &self.shared.store,
            high_water: self.meta.high_water,
            freed: &mut self.freed,
        };
        let result = run(&mut loader, &mut self.root);
        self.failed |= result.is_err();
        result
    }

    /// Makes the changes durable, then visible to new readers.
    ///
    /// After a failed sync or meta write the database is poisoned, because it is unknown which
    /// state the file holds; after any other failure it is as it was before the transaction.
    pub fn commit(mut self) -> Result<CommitStats> {
        if self.failed {
            return Err(Error::Aborted);
        }
        let is_clean = self.trees.is_empty() && matches!(self.root, Link::Page(_));
        if is_clean && !(self.packed && self.has_loose_end()) {
            return Ok(CommitStats {
                tx: self.meta.tx,
                ..CommitStats::default()
            });
        }
        let mut writer = self
            .writer
            .take()
            .expect("only the end of the transaction takes it");
        let begin = Instant::now();
        let mut spill = Spill::new(&mut writer.freelist, &self);
        let built = build(&mut self, &mut spill);
        let Spill {
            mut high_water,
            fresh,
            mut taken,
            ..
        } = spill;
        if let Some(end) = writer.freelist.trim(high_water) {
            high_water = end.first;
            taken.push(end);
        }
        let spilling = begin.elapsed();
        let written = built.and_then(|root| {
            let tx = TxId(self.meta.tx.0 + 1);
            let meta = Meta {
                root,
                freelist: None,
                high_water,
                tx,
                ..self.meta
            };
            Ok((
                meta,
                write(&self.shared, &mut writer.file_bytes, &meta, fresh)?,
            ))
        });
        match &written {
            Ok((meta, _)) => {
                let mut freed = std::mem::take(&mut self.freed);
                freed.extend(writer.stored_freelist.take());
                writer.freelist.hold(meta.tx, freed);
                self.shared.publish(*meta, writer.freelist.unused_pages());
            }
            Err(_) => taken.into_iter().for_each(|run| writer.freelist.put(run)),
        }
        self.shared.end_write(writer);
        written.map(|(_, stats)| CommitStats {
            spilling,
            writing: begin.elapsed().saturating_sub(spilling),
            ..stats
        })
    }

    /// Runs a change on the tree of `bucket`. A failure may leave the tree half changed and
    /// spoils the transaction.
    fn change<T>(
        &mut self,
        bucket: &[u8],
        run: impl FnOnce(&mut Loader<'_>, &mut Link) -> Result<T>,
    ) -> Result<T> {
        if self.failed {
            return Err(Error::Aborted);
        }
        if !self.trees.contains_key(bucket) {
            let found = self.find_bucket(bucket)?;
            let found = found.ok_or_else(|| Error::BucketMissing {
                name: bucket.to_vec(),
            })?;
            let root = match found.root {
                BucketRoot::Page(id) => Link::Page(id),
                BucketRoot::Inline(page) => Link::Node(Node::Leaf(Leaf::from_page(&page))),
            };
            self.trees.insert(
                bucket.to_vec(),
                Tree {
                    root,
                    sequence: found.sequence,
                },
            );
        }
        let tree = self
            .trees
            .get_mut(bucket)
            .expect("inserted above when missing");
        let mut loader = Loader {
            store: &self.shared.store,
            high_water: self.meta.high_water,
            freed: &mut self.freed,
        };
        let result = run(&mut loader, &mut tree.root);
        self.failed |= result.is_err();
        result
    }

    /// A bucket that this transaction has not changed.
    pub(super) fn find_bucket(&self, name: &[u8]) -> Result<Option<Bucket>> {
        match self.find(&self.root, name)? {
            Some(item) if item.flags == BUCKET_FLAG => {
                // The leaf was proved to hold the item; only the bucket's header can be wrong.
                let damage = Damage::BucketValue { index: 0 };
                let damaged = || Error::damaged(self.meta.root, damage);
                Bucket::from_value(&item.value)
                    .ok_or_else(damaged)
                    .map(Some)
            }
            _ => Ok(None),
        }
    }

    /// The item of `key` under `link`, in memory or on its page.
    fn find(&self, mut link: &Link, key: &[u8]) -> Result<Option<Item>> {
        loop {
            match link {
                Link::Page(id) => return Ok(find_in(&self.leaf(self.page(*id)?, key)?, key)),
                Link::Node(Node::Leaf(leaf)) => return Ok(leaf.find(key).cloned()),
                Link::Node(Node::Branch(branch)) => link = branch.child(key),
            }
        }
    }

    fn page(&self, id: PageId) -> Result<Page> {
        self.shared.store.page(id, self.meta.high_water)
    }

    fn leaf(&self, root: Page, key: &[u8]) -> Result<Page> {
        leaf_under(root, key, |id| self.page(id))
    }
}

impl Drop for WriteTx {
    fn drop(&mut self) {
        if let Some(writer) = self.writer.take() {
            self.shared.end_write(writer);
        }
    }
}

/// Percent to which pages of a bucket are filled when they are split.
pub(super) fn fill(bucket: &[u8], packed: bool) -> usize {
    if bucket == APPEND_BUCKET {
        FILL_APPEND
    } else if packed {
        defrag::FILL
    } else {
        FILL
    }
}

/// Turns the changed trees into new pages; returns the page of the new root of the database.
fn build(tx: &mut WriteTx, spill: &mut Spill<'_>) -> Result<PageId> {
    let mut loader = Loader {
        store: &tx.shared.store,
        high_water: tx.meta.high_water,
        freed: &mut tx.freed,
    };
    let mut root = std::mem::replace(&mut tx.root, Link::Page(tx.meta.root));
    for (name, mut tree) in std::mem::take(&mut tx.trees) {
        loader.settle_root(&mut tree.root)?;
        let page = spill_root(tree.root, fill(&name, tx.packed), spill);
        let mut value = Vec::with_capacity(BUCKET_BYTES);
        value.extend_from_slice(&page.0.to_le_bytes());
        value.extend_from_slice(&tree.sequence.to_le_bytes());
        let item = Item {
            key: name.into(),
            value: value.into(),
            flags: BUCKET_FLAG,
        };
        loader.put(&mut root, item)?;
    }
    loader.settle_root(&mut root)?;
    Ok(spill_root(root, FILL, spill))
}

/// Writes the pages, syncs, writes the meta page that refers to them, syncs.
fn write(
    shared: &Shared,
    file_bytes: &mut u64,
    meta: &Meta,
    mut fresh: Vec<Fresh>,
) -> Result<CommitStats> {
    let store = &shared.store;
    if store.is_poisoned() {
        return Err(Error::Poisoned);
    }
    shared.grow(file_bytes, meta.size_bytes())?;
    store.write(&mut fresh)?;
    store.sync()?;
    let slot = meta.tx.0 % 2;
    store.write_meta(slot, &meta.encode(slot))?;
    store.sync()?;
    let pages = fresh.iter().map(|page| page.pages).sum::<u64>() + 1;
    store.replace_cached(fresh);
    Ok(CommitStats {
        pages,
        bytes: pages * u64::from(meta.page_size),
        tx: meta.tx,
        ..CommitStats::default()
    })
}

fn find_in(leaf: &Page, key: &[u8]) -> Option<Item> {
    leaf.search(key).ok().map(|index| leaf.item(index))
}

fn check_key(key: &[u8]) -> Result<()> {
    if key.is_empty() || key.len() > KEY_BYTES_MAX {
        return Err(Error::KeyLen { len: key.len() });
    }
    Ok(())
}

fn check_value(value: &[u8]) -> Result<()> {
    if value.len() > VALUE_BYTES_MAX {
        return Err(Error::ValueLen { len: value.len() });
    }
    Ok(())
}

/// New pages of a commit, in memory until all of them are known.
struct Spill<'a> {
    freelist: &'a mut Freelist,
    page_size: usize,
    packed: bool,
    high_water: PageId,
    fresh: Vec<Fresh>,
    /// What came from the freelist, to be given back when the commit fails.
    taken: Vec<Run>,
}

impl<'a> Spill<'a> {
    fn new(freelist: &'a mut Freelist, tx: &WriteTx) -> Spill<'a> {
        Spill {
            freelist,
            page_size: tx.shared.store.page_size,
            packed: tx.packed,
            high_water: tx.meta.high_water,
            fresh: Vec::new(),
            taken: Vec::new(),
        }
    }
}

impl Sink for Spill<'_> {
    fn page_size(&self) -> usize {
        self.page_size
    }

    fn allocate(&mut self, pages: u64) -> PageId {
        let place = if self.packed {
            self.freelist.take_lowest(pages)
        } else {
            self.freelist.take(pages)
        };
        if let Some(first) = place {
            self.taken.push(Run { first, pages });
            return first;
        }
        let first = self.high_water;
        self.high_water = PageId(first.0 + pages);
        first
    }

    fn emit(&mut self, id: PageId, pages: u64, bytes: Bytes, hot: bool) {
        self.fresh.push(Fresh {
            id,
            pages,
            bytes,
            hot,
        });
    }
}
