//! Nodes: pages that a write transaction has taken into memory to change them.
//!
//! A tree starts as a link to its root page. Changing a key turns the pages on its path into
//! nodes and gives their old pages back. At commit the changed nodes are settled (empty ones
//! dropped, sparse ones merged) and written bottom-up to new pages, split where they are too
//! large; the parent's entry always becomes the exact first key of the child, which bbolt relies
//! on when it changes the child later.

use bytes::Bytes;

use super::defrag::Action;
use super::error::{Damage, Error};
use super::freelist::Run;
use super::page::{self, BUCKET_FLAG, ELEMENT_BYTES, HEADER_BYTES, Kind, Page};
use super::read::{Bucket, BucketRoot};
use super::scan::PageSet;
use super::store::Store;
use super::{PageId, Result};

/// Levels of any tree: even with two children a branch this exceeds what a file can hold.
pub(super) const DEPTH_MAX: usize = 48;

/// Percent of a page that merged nodes may fill: the next insert does not split them again.
const MERGED_FILL: usize = 95;

/// A key with its value, or with a bucket's header.
#[derive(Clone, Debug)]
pub(super) struct Item {
    pub(super) key: Bytes,
    pub(super) value: Bytes,
    pub(super) flags: u32,
}

impl Item {
    fn packed_bytes(&self) -> usize {
        ELEMENT_BYTES + self.key.len() + self.value.len()
    }
}

#[derive(Debug)]
pub(super) struct Child {
    key: Bytes,
    pub(super) link: Link,
}

impl Child {
    pub(super) fn on_page(key: Bytes, id: PageId) -> Child {
        Child {
            key,
            link: Link::Page(id),
        }
    }
}

/// Where a subtree is.
#[derive(Debug)]
pub(super) enum Link {
    /// Unchanged, on its page.
    Page(PageId),
    /// Changed, in memory.
    Node(Node),
}

#[derive(Debug)]
pub(super) enum Node {
    Leaf(Leaf),
    Branch(Branch),
}

#[derive(Debug, Default)]
pub(super) struct Leaf {
    pub(super) items: Vec<Item>,
    /// Lost items since it was loaded: may have to be merged.
    shrunk: bool,
}

#[derive(Debug)]
pub(super) struct Branch {
    pub(super) children: Vec<Child>,
    shrunk: bool,
}

/// What a write transaction needs to load nodes.
pub(super) struct Loader<'a> {
    pub(super) store: &'a Store,
    pub(super) high_water: PageId,
    /// Pages whose content moved into nodes.
    pub(super) freed: &'a mut Vec<Run>,
}

/// One change of a sorted batch: the key, and its new value or `None` to delete it.
pub(super) type Change = (Bytes, Option<Bytes>);

impl Node {
    fn from_page(page: &Page) -> Node {
        match page.kind {
            Kind::Leaf => Node::Leaf(Leaf::from_page(page)),
            Kind::Branch => Node::Branch(Branch {
                children: page::children(page),
                shrunk: false,
            }),
        }
    }

    fn len(&self) -> usize {
        match self {
            Node::Leaf(leaf) => leaf.items.len(),
            Node::Branch(branch) => branch.children.len(),
        }
    }

    fn packed_bytes(&self) -> usize {
        let content: usize = match self {
            Node::Leaf(leaf) => leaf.items.iter().map(Item::packed_bytes).sum(),
            Node::Branch(branch) => branch
                .children
                .iter()
                .map(|child| ELEMENT_BYTES + child.key.len())
                .sum(),
        };
        HEADER_BYTES + content
    }

    /// Whether deletions left so little that a neighbour may have room for it.
    fn is_sparse(&self, page_size: usize) -> bool {
        let (shrunk, len_min) = match self {
            Node::Leaf(leaf) => (leaf.shrunk, 1),
            Node::Branch(branch) => (branch.shrunk, 2),
        };
        shrunk && (self.len() < len_min || self.packed_bytes() < page_size / 2)
    }

    /// Appends the content of the right neighbour.
    fn absorb(&mut self, right: Node) -> Option<()> {
        match (self, right) {
            (Node::Leaf(left), Node::Leaf(right)) => {
                left.items.extend(right.items);
                left.shrunk = true;
            }
            (Node::Branch(left), Node::Branch(right)) => {
                left.children.extend(right.children);
                left.shrunk = true;
            }
            _ => return None,
        }
        Some(())
    }
}

impl Leaf {
    pub(super) fn from_page(page: &Page) -> Leaf {
        Leaf {
            items: (0..page.len()).map(|index| page.item(index)).collect(),
            shrunk: false,
        }
    }

    pub(super) fn find(&self, key: &[u8]) -> Option<&Item> {
        let index = self
            .items
            .binary_search_by(|item| item.key[..].cmp(key))
            .ok()?;
        Some(&self.items[index])
    }

    fn put(&mut self, item: Item) -> Result<()> {
        if self.items.last().is_none_or(|last| last.key < item.key) {
            self.items.push(item);
            return Ok(());
        }
        match self
            .items
            .binary_search_by(|probe| probe.key.cmp(&item.key))
        {
            Ok(index) => {
                check_same_kind(&self.items[index], item.flags)?;
                self.items[index] = item;
            }
            Err(index) => self.items.insert(index, item),
        }
        Ok(())
    }

    fn delete(&mut self, key: &[u8]) -> Result<bool> {
        let Ok(index) = self.items.binary_search_by(|item| item.key[..].cmp(key)) else {
            return Ok(false);
        };
        check_same_kind(&self.items[index], 0)?;
        self.items.remove(index);
        self.shrunk = true;
        Ok(true)
    }

    /// Applies sorted changes in one pass.
    fn apply(&mut self, changes: &[Change]) -> Result<()> {
        let Some((first, _)) = changes.first() else {
            return Ok(());
        };
        let keep = self.items.partition_point(|item| item.key < first);
        let mut old = self.items.split_off(keep).into_iter().peekable();
        self.items.reserve(changes.len() + old.len());
        for (key, value) in changes {
            while let Some(item) = old.next_if(|item| item.key < key) {
                self.items.push(item);
            }
            let replaced = old.next_if(|item| item.key == key);
            if let Some(item) = &replaced {
                check_same_kind(item, 0)?;
            }
            match value {
                Some(value) => {
                    self.items.push(Item {
                        key: key.clone(),
                        value: value.clone(),
                        flags: 0,
                    });
                }
                None => self.shrunk |= replaced.is_some(),
            }
        }
        self.items.extend(old);
        Ok(())
    }
}

fn check_same_kind(item: &Item, flags: u32) -> Result<()> {
    if item.flags != flags {
        return Err(Error::IsBucket {
            key: item.key.to_vec(),
        });
    }
    Ok(())
}

impl Branch {
    /// The child under which `key` belongs. A branch in memory has children until it is settled.
    pub(super) fn child(&self, key: &[u8]) -> &Link {
        &self.children[self.child_index(key)].link
    }

    fn child_index(&self, key: &[u8]) -> usize {
        if let Some(last) = self.children.last()
            && &last.key[..] <= key
        {
            return self.children.len() - 1;
        }
        self.children
            .partition_point(|child| &child.key[..] <= key)
            .saturating_sub(1)
    }
}

impl Loader<'_> {
    /// The node behind `link`, taken from its page when it is still there.
    fn load<'l>(&mut self, link: &'l mut Link) -> Result<&'l mut Node> {
        if let Link::Page(id) = *link {
            let page = self.store.page(id, self.high_water)?;
            self.freed.push(Run {
                first: id,
                pages: page.pages,
            });
            *link = Link::Node(Node::from_page(&page));
        }
        match link {
            Link::Node(node) => Ok(node),
            Link::Page(_) => unreachable!("the page was replaced by its node above"),
        }
    }

    /// Loads the child at `index` after checking that its keys belong there.
    fn load_child<'l>(&mut self, branch: &'l mut Branch, index: usize) -> Result<&'l mut Link> {
        if let Link::Page(id) = branch.children[index].link {
            let page = self.store.page(id, self.high_water)?;
            let low = &branch.children[index].key;
            let high = branch.children.get(index + 1).map(|child| &child.key[..]);
            page.check_range(low, high)?;
        }
        let link = &mut branch.children[index].link;
        self.load(link)?;
        Ok(link)
    }

    /// The leaf in which `key` belongs.
    fn leaf<'l>(&mut self, root: &'l mut Link, key: &[u8]) -> Result<&'l mut Leaf> {
        let mut link = root;
        for _ in 0..DEPTH_MAX {
            match self.load(link)? {
                Node::Leaf(leaf) => return Ok(leaf),
                Node::Branch(branch) => {
                    let index = branch.child_index(key);
                    link = self.load_child(branch, index)?;
                }
            }
        }
        Err(Error::damaged(PageId(0), Damage::TooDeep))
    }

    pub(super) fn put(&mut self, root: &mut Link, item: Item) -> Result<()> {
        self.leaf(root, &item.key)?.put(item)
    }

    pub(super) fn delete(&mut self, root: &mut Link, key: &[u8]) -> Result<bool> {
        self.leaf(root, key)?.delete(key)
    }

    /// Removes the bucket `key` from a tree of buckets.
    pub(super) fn delete_bucket(&mut self, root: &mut Link, key: &[u8]) -> Result<()> {
        let leaf = self.leaf(root, key)?;
        if let Ok(index) = leaf.items.binary_search_by(|item| item.key[..].cmp(key)) {
            leaf.items.remove(index);
            leaf.shrunk = true;
        }
        Ok(())
    }

    /// Gives back every page of a tree, those of nested buckets included.
    pub(super) fn free(&mut self, root: Link) -> Result<()> {
        let mut seen = PageSet::new(self.high_water);
        let mut rest = vec![root];
        while let Some(link) = rest.pop() {
            let node = match link {
                Link::Node(node) => node,
                Link::Page(id) => {
                    let page = self.store.page(id, self.high_water)?;
                    if !seen.insert(id) {
                        return Err(Error::damaged(id, Damage::SharedPage));
                    }
                    self.freed.push(Run {
                        first: id,
                        pages: page.pages,
                    });
                    Node::from_page(&page)
                }
            };
            match node {
                Node::Branch(branch) => rest.extend(branch.children.into_iter().map(|c| c.link)),
                Node::Leaf(leaf) => {
                    for item in leaf.items.iter().filter(|item| item.flags == BUCKET_FLAG) {
                        let damage = Damage::BucketValue { index: 0 };
                        let damaged = || Error::damaged(PageId(0), damage);
                        let bucket = Bucket::from_value(&item.value).ok_or_else(damaged)?;
                        if let BucketRoot::Page(id) = bucket.root {
                            rest.push(Link::Page(id));
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// Applies changes, which are in strictly ascending key order, visiting every leaf once.
    pub(super) fn apply(
        &mut self,
        link: &mut Link,
        mut changes: &[Change],
        depth: usize,
    ) -> Result<()> {
        if depth > DEPTH_MAX {
            return Err(Error::damaged(PageId(0), Damage::TooDeep));
        }
        let branch = match self.load(link)? {
            Node::Leaf(leaf) => return leaf.apply(changes),
            Node::Branch(branch) => branch,
        };
        while let Some((first, _)) = changes.first() {
            let index = branch.child_index(first);
            let here = match branch.children.get(index + 1) {
                Some(next) => changes.partition_point(|(key, _)| *key < next.key),
                None => changes.len(),
            };
            // The first change sorts before the next child by the choice of the index.
            let (now, later) = changes.split_at(here.max(1));
            let child = self.load_child(branch, index)?;
            self.apply(child, now, depth + 1)?;
            changes = later;
        }
        Ok(())
    }

    /// Takes pages into memory that are to be written elsewhere, or together.
    pub(super) fn rearrange(&mut self, root: &mut Link, action: &Action) -> Result<()> {
        match action {
            Action::Leaf { key } => self.leaf(root, key).map(|_| ()),
            Action::Branch { key, depth } => {
                let mut link = root;
                for _ in 0..*depth {
                    let Node::Branch(branch) = self.load(link)? else {
                        return Ok(());
                    };
                    let index = branch.child_index(key);
                    link = self.load_child(branch, index)?;
                }
                self.load(link).map(|_| ())
            }
            Action::Join { key, count } => self.join(root, key, *count),
        }
    }

    /// Joins leaves under one branch, from the one with this key on.
    fn join(&mut self, root: &mut Link, key: &[u8], count: usize) -> Result<()> {
        let mut link = root;
        for _ in 0..DEPTH_MAX {
            let Node::Branch(branch) = self.load(link)? else {
                return Ok(());
            };
            let index = branch.child_index(key);
            self.load_child(branch, index)?;
            if !matches!(branch.children[index].link, Link::Node(Node::Leaf(_))) {
                link = &mut branch.children[index].link;
                continue;
            }
            let end = (index + count).min(branch.children.len());
            for next in index + 1..end {
                self.load_child(branch, next)?;
            }
            let mut joined: Vec<Child> = branch.children.drain(index + 1..end).collect();
            branch.shrunk |= !joined.is_empty();
            let mixed = || Error::damaged(PageId(0), Damage::MixedKinds);
            for right in joined.drain(..) {
                let (Link::Node(left), Link::Node(right)) =
                    (&mut branch.children[index].link, right.link)
                else {
                    return Err(mixed());
                };
                left.absorb(right).ok_or_else(mixed)?;
            }
            return Ok(());
        }
        Err(Error::damaged(PageId(0), Damage::TooDeep))
    }

    /// Drops empty nodes and merges sparse ones, leaving a tree that can be written.
    pub(super) fn settle_root(&mut self, root: &mut Link) -> Result<()> {
        if let Link::Node(Node::Branch(branch)) = root {
            self.settle(branch)?;
        }
        while let Link::Node(Node::Branch(branch)) = root {
            match branch.children.len() {
                0 => *root = Link::Node(Node::Leaf(Leaf::default())),
                1 => *root = branch.children.remove(0).link,
                _ => break,
            }
        }
        Ok(())
    }

    fn settle(&mut self, branch: &mut Branch) -> Result<()> {
        for child in &mut branch.children {
            if let Link::Node(Node::Branch(child)) = &mut child.link {
                self.settle(child)?;
            }
        }
        let before = branch.children.len();
        branch
            .children
            .retain(|child| !matches!(&child.link, Link::Node(node) if node.len() == 0));
        branch.shrunk |= branch.children.len() < before;
        let page_size = self.store.page_size;
        let mut index = 0;
        while index < branch.children.len() {
            let sparse = match &branch.children[index].link {
                Link::Node(node) => node.is_sparse(page_size),
                Link::Page(_) => false,
            };
            match if sparse {
                self.merge(branch, index)?
            } else {
                None
            } {
                Some(merged) => index = merged,
                None => index += 1,
            }
        }
        Ok(())
    }

    /// Merges the sparse child at `index` with a neighbour when both fit into one page with some
    /// room left (always, when it is a branch with a single child). Returns where the merged child
    /// is.
    fn merge(&mut self, branch: &mut Branch, index: usize) -> Result<Option<usize>> {
        let Link::Node(node) = &branch.children[index].link else {
            return Ok(None);
        };
        let lonely = matches!(node, Node::Branch(_)) && node.len() < 2;
        let packed = node.packed_bytes() - HEADER_BYTES;
        let left = index.checked_sub(1);
        let right = Some(index + 1).filter(|&right| right < branch.children.len());
        for neighbour in [left, right].into_iter().flatten() {
            let joined = packed + self.packed_bytes(&branch.children[neighbour].link)?;
            if joined <= self.store.page_size * MERGED_FILL / 100 || lonely {
                let at = index.min(neighbour);
                self.load_child(branch, neighbour)?;
                let right = branch.children.remove(at + 1);
                let (Link::Node(left), Link::Node(right)) =
                    (&mut branch.children[at].link, right.link)
                else {
                    unreachable!("both neighbours were loaded above");
                };
                let mixed = || Error::damaged(PageId(0), Damage::MixedKinds);
                left.absorb(right).ok_or_else(mixed)?;
                branch.shrunk = true;
                return Ok(Some(at));
            }
        }
        Ok(None)
    }

    fn packed_bytes(&self, link: &Link) -> Result<usize> {
        match link {
            Link::Node(node) => Ok(node.packed_bytes()),
            Link::Page(id) => Ok(self.store.page(*id, self.high_water)?.packed_bytes()),
        }
    }
}

/// Where new pages come from.
pub(super) trait Sink {
    fn page_size(&self) -> usize;
    /// `pages` neighbouring pages that nothing refers to.
    fn allocate(&mut self, pages: u64) -> PageId;
    /// Takes the bytes of allocated pages; `hot` ones will be read again soon.
    fn emit(&mut self, id: PageId, pages: u64, bytes: Bytes, hot: bool);
}

/// Writes a settled tree's nodes to new pages and returns its root page.
/// Pages are filled to `fill` percent where they have to be split.
pub(super) fn spill_root(root: Link, fill: usize, sink: &mut dyn Sink) -> PageId {
    let mut level = Vec::new();
    match root {
        Link::Page(id) => return id,
        Link::Node(node) => spill(node, fill, sink, &mut level),
    }
    while level.len() > 1 {
        let mut above = Vec::new();
        spill_branch(&level, fill, sink, &mut above);
        level = above;
    }
    level
        .pop()
        .expect("every node is written to at least one page")
        .1
}

/// Pages of one level with their first keys.
type Level = Vec<(Bytes, PageId)>;

fn spill(node: Node, fill: usize, sink: &mut dyn Sink, out: &mut Level) {
    match node {
        Node::Leaf(leaf) => spill_leaf(&leaf.items, fill, sink, out),
        Node::Branch(branch) => {
            let mut level = Vec::with_capacity(branch.children.len());
            for child in branch.children {
                match child.link {
                    Link::Page(id) => level.push((child.key, id)),
                    Link::Node(node) => spill(node, fill, sink, &mut level),
                }
            }
            spill_branch(&level, fill, sink, out);
        }
    }
}

fn spill_leaf(mut items: &[Item], fill: usize, sink: &mut dyn Sink, out: &mut Level) {
    let page_size = sink.page_size();
    let mut rest = HEADER_BYTES + items.iter().map(Item::packed_bytes).sum::<usize>();
    loop {
        let (len, bytes) = if rest <= page_size {
            (items.len(), rest)
        } else {
            let sizes = items.iter().map(Item::packed_bytes);
            cut(sizes, HEADER_BYTES, page_size * fill / 100, 1)
        };
        let (chunk, later) = items.split_at(len);
        let pages = bytes.div_ceil(page_size) as u64;
        let id = sink.allocate(pages);
        let encoded = page::encode_leaf(id, chunk, pages, page_size);
        sink.emit(id, pages, encoded, later.is_empty());
        out.push((
            chunk
                .first()
                .map(|item| item.key.clone())
                .unwrap_or_default(),
            id,
        ));
        if later.is_empty() {
            return;
        }
        rest -= bytes - HEADER_BYTES;
        items = later;
    }
}

fn spill_branch(
    mut children: &[(Bytes, PageId)],
    fill: usize,
    sink: &mut dyn Sink,
    out: &mut Level,
) {
    let page_size = sink.page_size();
    let packed = |child: &(Bytes, PageId)| ELEMENT_BYTES + child.0.len();
    let mut rest = HEADER_BYTES + children.iter().map(packed).sum::<usize>();
    while let Some((first, _)) = children.first() {
        let (len, bytes) = if rest <= page_size || children.len() < 4 {
            (children.len(), rest)
        } else {
            // Two children at least on this page and on the next.
            let sizes = children[..children.len() - 2].iter().map(packed);
            cut(sizes, HEADER_BYTES, page_size * fill / 100, 2)
        };
        let (chunk, later) = children.split_at(len);
        let pages = bytes.div_ceil(page_size) as u64;
        let id = sink.allocate(pages);
        let encoded = page::encode_branch(id, chunk, pages, page_size);
        sink.emit(id, pages, encoded, true);
        out.push((first.clone(), id));
        rest -= bytes - HEADER_BYTES;
        children = later;
    }
}

/// Pages on which items of these sizes are laid out, all of them at once.
pub(super) fn leaf_pages(mut sizes: &[usize], fill: usize, page_size: usize) -> usize {
    let mut rest = HEADER_BYTES + sizes.iter().sum::<usize>();
    let mut pages = 0;
    loop {
        if rest <= page_size {
            return pages + 1;
        }
        let each = sizes.iter().copied();
        let (len, bytes) = cut(each, HEADER_BYTES, page_size * fill / 100, 1);
        pages += bytes.div_ceil(page_size);
        if len == sizes.len() {
            return pages;
        }
        rest -= bytes - HEADER_BYTES;
        sizes = &sizes[len..];
    }
}

/// How many elements go onto the next page, and the bytes it then holds.
fn cut(
    sizes: impl Iterator<Item = usize>,
    header: usize,
    target: usize,
    len_min: usize,
) -> (usize, usize) {
    let (mut len, mut bytes) = (0, header);
    for size in sizes {
        if len >= len_min && bytes + size > target {
            break;
        }
        len += 1;
        bytes += size;
    }
    (len, bytes)
}
