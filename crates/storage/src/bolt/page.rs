//! Pages as bytes: header, branch and leaf element tables.
//!
//! ```text
//! header   u64 id, u16 flags, u16 count, u32 overflow      all little-endian
//! leaf     count x { u32 flags, u32 pos, u32 key size, u32 value size }, then keys and values
//! branch   count x { u32 pos, u32 key size, u64 child page }, then keys
//! ```
//! `pos` counts from the start of the element itself. A page's `overflow` pages follow it
//! directly. A [`Page`] exists only after every element of it was found within bounds and in
//! ascending key order, so that its accessors need no further checks.

use std::cmp::Ordering;

use bytes::Bytes;

use super::error::{Damage, Error};
use super::node::{Child, Item};
use super::{PageId, Result};

pub(super) const HEADER_BYTES: usize = 16;
/// Size of one entry of a leaf's or a branch's element table.
pub(super) const ELEMENT_BYTES: usize = 16;

const BRANCH_FLAG: u16 = 0x01;
const LEAF_FLAG: u16 = 0x02;
pub(super) const META_FLAG: u16 = 0x04;
pub(super) const FREELIST_FLAG: u16 = 0x10;

/// The element holds a bucket, not a value.
pub(super) const BUCKET_FLAG: u32 = 0x01;

/// Root page id and sequence in front of a bucket's optional inline page.
pub(super) const BUCKET_BYTES: usize = 16;

pub(super) const KEY_BYTES_MAX: usize = 32_768;
pub(super) const VALUE_BYTES_MAX: usize = (1 << 31) - 2;

pub(super) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(bytes[at..at + 2].try_into().expect("two bytes were sliced"))
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(
        bytes[at..at + 4]
            .try_into()
            .expect("four bytes were sliced"),
    )
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(
        bytes[at..at + 8]
            .try_into()
            .expect("eight bytes were sliced"),
    )
}

/// The first 16 bytes of every page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) id: PageId,
    pub(super) flags: u16,
    pub(super) count: u16,
    /// Pages that follow this one and belong to it.
    pub(super) overflow: u32,
}

impl Header {
    /// `bytes` holds at least [`HEADER_BYTES`].
    pub(super) fn decode(bytes: &[u8]) -> Header {
        Header {
            id: PageId(u64_at(bytes, 0)),
            flags: u16_at(bytes, 8),
            count: u16_at(bytes, 10),
            overflow: u32_at(bytes, 12),
        }
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.id.0.to_le_bytes());
        out.extend_from_slice(&self.flags.to_le_bytes());
        out.extend_from_slice(&self.count.to_le_bytes());
        out.extend_from_slice(&self.overflow.to_le_bytes());
    }

    pub(super) fn pages(&self) -> u64 {
        u64::from(self.overflow) + 1
    }

    pub(super) fn kind(&self) -> Option<Kind> {
        match self.flags {
            BRANCH_FLAG => Some(Kind::Branch),
            LEAF_FLAG => Some(Kind::Leaf),
            _ => None,
        }
    }

    /// Bytes of header and element table together.
    pub(super) fn table_bytes(&self) -> usize {
        HEADER_BYTES + usize::from(self.count) * ELEMENT_BYTES
    }

    /// Checks the header of page `id` as a tree page within `high_water`.
    pub(super) fn check(&self, id: PageId, high_water: PageId) -> Result<Kind> {
        let damage = if self.id != id {
            Damage::Id { found: self.id.0 }
        } else if id.0 + self.pages() > high_water.0 {
            Damage::Overflow {
                pages: self.pages(),
            }
        } else {
            match self.kind() {
                Some(Kind::Branch) if self.count == 0 => Damage::EmptyBranch,
                Some(kind) => return Ok(kind),
                None => Damage::Flags { found: self.flags },
            }
        };
        Err(Error::damaged(id, damage))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Branch,
    Leaf,
}

impl Kind {
    fn flag(self) -> u16 {
        match self {
            Kind::Branch => BRANCH_FLAG,
            Kind::Leaf => LEAF_FLAG,
        }
    }
}

/// Where an element's key and value lie, relative to the page.
#[derive(Clone, Copy, Debug)]
struct Span {
    key: u64,
    value: u64,
    end: u64,
}

fn span(table: &[u8], kind: Kind, index: usize) -> Span {
    let at = HEADER_BYTES + index * ELEMENT_BYTES;
    let (pos, key_len, value_len) = match kind {
        Kind::Leaf => (
            u32_at(table, at + 4),
            u32_at(table, at + 8),
            u32_at(table, at + 12),
        ),
        Kind::Branch => (u32_at(table, at), u32_at(table, at + 4), 0),
    };
    let key = at as u64 + u64::from(pos);
    let value = key + u64::from(key_len);
    Span {
        key,
        value,
        end: value + u64::from(value_len),
    }
}

/// Where the last byte of the page's elements lies, from its complete element `table`.
pub(super) fn extent(table: &[u8], header: &Header, kind: Kind) -> u64 {
    (0..usize::from(header.count))
        .map(|index| span(table, kind, index).end)
        .fold(header.table_bytes() as u64, u64::max)
}

/// A branch or leaf page whose elements were proved to lie within it, in order.
#[derive(Clone, Debug)]
pub(super) struct Page {
    pub(super) id: PageId,
    pub(super) kind: Kind,
    count: u16,
    /// Pages of the file that it occupies; 0 for an inline page.
    pub(super) pages: u64,
    bytes: Bytes,
}

impl Page {
    /// Checks `bytes`, which hold the page from its header to its last element at least.
    pub(super) fn parse(id: PageId, header: &Header, kind: Kind, bytes: Bytes) -> Result<Page> {
        let page = Page {
            id,
            kind,
            count: header.count,
            pages: header.pages(),
            bytes,
        };
        page.check_elements()
            .map_err(|damage| Error::damaged(id, damage))?;
        Ok(page)
    }

    /// Reads the page that follows the bucket header in the value of a small bucket.
    pub(super) fn parse_inline(bytes: Bytes) -> std::result::Result<Page, Damage> {
        if bytes.len() < HEADER_BYTES {
            return Err(Damage::ElementBounds { index: 0 });
        }
        let header = Header::decode(&bytes);
        if header.kind() != Some(Kind::Leaf) {
            return Err(Damage::Flags {
                found: header.flags,
            });
        }
        let page = Page {
            id: PageId(0),
            kind: Kind::Leaf,
            count: header.count,
            pages: 0,
            bytes,
        };
        page.check_elements()?;
        Ok(page)
    }

    fn check_elements(&self) -> std::result::Result<(), Damage> {
        let len = self.bytes.len() as u64;
        let table_end = (HEADER_BYTES + self.len() * ELEMENT_BYTES) as u64;
        if table_end > len {
            return Err(Damage::ElementBounds { index: 0 });
        }
        // A smaller count in a damaged header would hide elements: what the table describes must
        // begin right behind it and leave no gaps, as every writer of the format lays it out.
        let first_slot = &self.bytes[HEADER_BYTES..self.bytes.len().min(table_end as usize + 16)];
        if self.len() == 0 && first_slot.iter().any(|byte| *byte != 0) {
            return Err(Damage::ElementBounds { index: 0 });
        }
        let mut begin = table_end;
        let mut last: Option<&[u8]> = None;
        for index in 0..self.len() {
            let span = span(&self.bytes, self.kind, index);
            if span.key != begin || span.end > len {
                return Err(Damage::ElementBounds { index });
            }
            begin = span.end;
            let key = &self.bytes[span.key as usize..span.value as usize];
            if key.len() > KEY_BYTES_MAX || key.is_empty() && self.kind == Kind::Leaf {
                return Err(Damage::KeyLen { index });
            }
            if last.is_some_and(|last| last >= key) {
                return Err(Damage::KeyOrder { index });
            }
            if self.kind == Kind::Leaf && self.flags(index) > BUCKET_FLAG {
                return Err(Damage::ElementFlags { index });
            }
            last = Some(key);
        }
        Ok(())
    }

    pub(super) fn len(&self) -> usize {
        usize::from(self.count)
    }

    /// Bytes of memory that the page keeps alive.
    pub(super) fn memory_bytes(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn key(&self, index: usize) -> &[u8] {
        let span = span(&self.bytes, self.kind, index);
        &self.bytes[span.key as usize..span.value as usize]
    }

    pub(super) fn key_bytes(&self, index: usize) -> Bytes {
        let span = span(&self.bytes, self.kind, index);
        self.bytes.slice(span.key as usize..span.value as usize)
    }

    /// The value of a leaf's element.
    pub(super) fn value(&self, index: usize) -> Bytes {
        let span = span(&self.bytes, self.kind, index);
        self.bytes.slice(span.value as usize..span.end as usize)
    }

    fn flags(&self, index: usize) -> u32 {
        u32_at(&self.bytes, HEADER_BYTES + index * ELEMENT_BYTES)
    }

    /// Whether a leaf's element holds a bucket.
    pub(super) fn is_bucket(&self, index: usize) -> bool {
        self.flags(index) == BUCKET_FLAG
    }

    /// The child of a branch's element.
    pub(super) fn child(&self, index: usize) -> PageId {
        PageId(u64_at(
            &self.bytes,
            HEADER_BYTES + index * ELEMENT_BYTES + 8,
        ))
    }

    /// The position of `key`, or where it would have to be inserted.
    pub(super) fn search(&self, key: &[u8]) -> std::result::Result<usize, usize> {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = low + (high - low) / 2;
            match self.key(middle).cmp(key) {
                Ordering::Less => low = middle + 1,
                Ordering::Greater => high = middle,
                Ordering::Equal => return Ok(middle),
            }
        }
        Err(low)
    }

    /// The child of a branch under which `key` belongs.
    pub(super) fn child_index(&self, key: &[u8]) -> usize {
        match self.search(key) {
            Ok(index) => index,
            Err(index) => index.saturating_sub(1),
        }
    }

    /// Checks that the page's keys belong where its parent puts it: from `low` to below `high`.
    pub(super) fn check_range(&self, low: &[u8], high: Option<&[u8]>) -> Result<()> {
        let Some(last) = self.len().checked_sub(1) else {
            return Ok(());
        };
        let index = if self.key(0) < low {
            0
        } else if high.is_some_and(|high| self.key(last) >= high) {
            last
        } else {
            return Ok(());
        };
        Err(Error::damaged(self.id, Damage::KeyRange { index }))
    }

    /// The child page at `index` of a branch, once `child` was found to belong there.
    pub(super) fn check_child(&self, index: usize, child: &Page) -> Result<()> {
        let high = (index + 1 < self.len()).then(|| self.key(index + 1));
        child.check_range(self.key(index), high)
    }

    /// Bytes of header, table, keys and values, as a writer would lay them out.
    pub(super) fn packed_bytes(&self) -> usize {
        let content: u64 = (0..self.len())
            .map(|index| {
                let span = span(&self.bytes, self.kind, index);
                span.end - span.key
            })
            .sum();
        HEADER_BYTES + self.len() * ELEMENT_BYTES + content as usize
    }

    /// Bytes of an element with its entry in the table.
    pub(super) fn item_bytes(&self, index: usize) -> usize {
        let span = span(&self.bytes, self.kind, index);
        ELEMENT_BYTES + (span.end - span.key) as usize
    }

    pub(super) fn item(&self, index: usize) -> Item {
        Item {
            key: self.key_bytes(index),
            value: self.value(index),
            flags: self.flags(index),
        }
    }
}

/// Lays out a leaf page of `pages` pages.
pub(super) fn encode_leaf(id: PageId, items: &[Item], pages: u64, page_size: usize) -> Bytes {
    let lens = items.iter().map(|item| (item.key.len(), item.value.len()));
    let mut out = start(id, Kind::Leaf, items.len(), pages, page_size);
    let mut pos = items.len() * ELEMENT_BYTES;
    for (item, (key_len, value_len)) in items.iter().zip(lens) {
        out.extend_from_slice(&item.flags.to_le_bytes());
        out.extend_from_slice(&(pos as u32).to_le_bytes());
        out.extend_from_slice(&(key_len as u32).to_le_bytes());
        out.extend_from_slice(&(value_len as u32).to_le_bytes());
        pos = pos + key_len + value_len - ELEMENT_BYTES;
    }
    for item in items {
        out.extend_from_slice(&item.key);
        out.extend_from_slice(&item.value);
    }
    finish(out, pages, page_size)
}

/// Lays out a branch page of `pages` pages.
pub(super) fn encode_branch(
    id: PageId,
    children: &[(Bytes, PageId)],
    pages: u64,
    page_size: usize,
) -> Bytes {
    let mut out = start(id, Kind::Branch, children.len(), pages, page_size);
    let mut pos = children.len() * ELEMENT_BYTES;
    for (key, child) in children {
        out.extend_from_slice(&(pos as u32).to_le_bytes());
        out.extend_from_slice(&(key.len() as u32).to_le_bytes());
        out.extend_from_slice(&child.0.to_le_bytes());
        pos = pos + key.len() - ELEMENT_BYTES;
    }
    for (key, _) in children {
        out.extend_from_slice(key);
    }
    finish(out, pages, page_size)
}

fn start(id: PageId, kind: Kind, count: usize, pages: u64, page_size: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(pages as usize * page_size);
    let count = u16::try_from(count).expect("a page is split before it has 65536 elements");
    let overflow = u32::try_from(pages - 1).expect("a page's elements are below 2^42 bytes");
    Header {
        id,
        flags: kind.flag(),
        count,
        overflow,
    }
    .encode(&mut out);
    out
}

fn finish(mut out: Vec<u8>, pages: u64, page_size: usize) -> Bytes {
    let bytes = pages as usize * page_size;
    debug_assert!(out.len() <= bytes, "the page was sized too small");
    out.resize(bytes, 0);
    out.into()
}

/// Children of a branch page, none of them loaded.
pub(super) fn children(page: &Page) -> Vec<Child> {
    (0..page.len())
        .map(|index| Child::on_page(page.key_bytes(index), page.child(index)))
        .collect()
}
