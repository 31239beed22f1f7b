//! The meta page: two copies at pages 0 and 1, of which the newer valid one counts.
//!
//! ```text
//! off size  field                      (after the 16-byte page header)
//!   0    4  magic 0xED0CDAED
//!   4    4  version 2
//!   8    4  page size
//!  12    4  flags
//!  16    8  page id of the root bucket
//!  24    8  sequence of the root bucket
//!  32    8  page id of the freelist, all ones when it is not persisted
//!  40    8  high-water mark: the first page id never used
//!  48    8  transaction id
//!  56    8  FNV-1a-64 over the 56 bytes before
//! ```

use super::page::{HEADER_BYTES, Header, META_FLAG, u32_at, u64_at};
use super::{PageId, TxId};

pub(super) const MAGIC: u32 = 0xED0C_DAED;
const VERSION: u32 = 2;
const NO_FREELIST: u64 = u64::MAX;
const CHECKSUM_OFFSET: usize = 56;
/// Bytes of the meta fields, checksum included, without the page header.
pub(super) const META_BYTES: usize = 64;

pub(super) const PAGE_SIZE_MIN: u32 = 1 << 10;
pub(super) const PAGE_SIZE_MAX: u32 = 1 << 16;

/// The state of the database as of one transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Meta {
    pub(super) page_size: u32,
    /// Always zero today; carried over unchanged.
    pub(super) flags: u32,
    pub(super) root: PageId,
    pub(super) sequence: u64,
    /// `None` when the free pages are found by scanning.
    pub(super) freelist: Option<PageId>,
    pub(super) high_water: PageId,
    pub(super) tx: TxId,
}

impl Meta {
    /// Reads the fields that follow a meta page's header; `None` unless they prove themselves.
    pub(super) fn decode(fields: &[u8]) -> Option<Meta> {
        let fields = fields.get(..META_BYTES)?;
        let checksum = u64_at(fields, CHECKSUM_OFFSET);
        if u32_at(fields, 0) != MAGIC
            || u32_at(fields, 4) != VERSION
            || checksum != fnv1a(&fields[..CHECKSUM_OFFSET])
        {
            return None;
        }
        let page_size = u32_at(fields, 8);
        if !valid_page_size(page_size) {
            return None;
        }
        let freelist = u64_at(fields, 32);
        Some(Meta {
            page_size,
            flags: u32_at(fields, 12),
            root: PageId(u64_at(fields, 16)),
            sequence: u64_at(fields, 24),
            freelist: (freelist != NO_FREELIST).then_some(PageId(freelist)),
            high_water: PageId(u64_at(fields, 40)),
            tx: TxId(u64_at(fields, 48)),
        })
    }

    /// Whether the page ids make sense for a file of `file_bytes`.
    pub(super) fn fits(&self, file_bytes: u64) -> bool {
        let inside = |page: PageId| page.0 >= 2 && page < self.high_water;
        self.high_water.0 <= file_bytes / u64::from(self.page_size)
            && inside(self.root)
            && self.freelist.is_none_or(inside)
            && self.tx.0 < u64::MAX / 2
    }

    /// One whole page with these fields, to be written at page `slot` (0 or 1).
    pub(super) fn encode(&self, slot: u64) -> Vec<u8> {
        let mut page = Vec::with_capacity(self.page_size as usize);
        Header {
            id: PageId(slot),
            flags: META_FLAG,
            count: 0,
            overflow: 0,
        }
        .encode(&mut page);
        page.extend_from_slice(&MAGIC.to_le_bytes());
        page.extend_from_slice(&VERSION.to_le_bytes());
        page.extend_from_slice(&self.page_size.to_le_bytes());
        page.extend_from_slice(&self.flags.to_le_bytes());
        page.extend_from_slice(&self.root.0.to_le_bytes());
        page.extend_from_slice(&self.sequence.to_le_bytes());
        let freelist = self.freelist.map_or(NO_FREELIST, |page| page.0);
        page.extend_from_slice(&freelist.to_le_bytes());
        page.extend_from_slice(&self.high_water.0.to_le_bytes());
        page.extend_from_slice(&self.tx.0.to_le_bytes());
        let checksum = fnv1a(&page[HEADER_BYTES..]);
        page.extend_from_slice(&checksum.to_le_bytes());
        page.resize(self.page_size as usize, 0);
        page
    }

    pub(super) fn size_bytes(&self) -> u64 {
        self.high_water.0 * u64::from(self.page_size)
    }
}

pub(super) fn valid_page_size(page_size: u32) -> bool {
    page_size.is_power_of_two() && (PAGE_SIZE_MIN..=PAGE_SIZE_MAX).contains(&page_size)
}

fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}
