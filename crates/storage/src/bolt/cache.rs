//! A bounded cache of parsed pages.
//!
//! Pages are never changed in place; an id gets new content only when a transaction reuses it,
//! which replaces or drops the entry before any reader can see the new state. Within a shard the
//! clock hand evicts pages that nobody asked for since it last passed, so that one long scan does
//! not drive out the upper levels of the tree.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::PageId;
use super::page::Page;

const SHARDS: usize = 16;
/// What an entry costs besides the bytes of its page.
const ENTRY_BYTES: usize = 128;

pub(super) struct Cache {
    shards: Vec<Mutex<Shard>>,
}

struct Shard {
    slots: HashMap<u64, usize, BuildHasherDefault<IdHasher>>,
    entries: Vec<Entry>,
    hand: usize,
    bytes: usize,
    bytes_max: usize,
}

struct Entry {
    page: Page,
    asked: bool,
}

impl Cache {
    pub(super) fn new(bytes_max: usize) -> Cache {
        let shard = || {
            Mutex::new(Shard {
                slots: HashMap::default(),
                entries: Vec::new(),
                hand: 0,
                bytes: 0,
                bytes_max: bytes_max / SHARDS,
            })
        };
        Cache {
            shards: (0..SHARDS).map(|_| shard()).collect(),
        }
    }

    fn shard(&self, id: PageId) -> MutexGuard<'_, Shard> {
        // A panic cannot leave a shard half changed in a way that matters: it is only a cache.
        self.shards[id.0 as usize % SHARDS]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn get(&self, id: PageId) -> Option<Page> {
        let mut shard = self.shard(id);
        let slot = *shard.slots.get(&id.0)?;
        let entry = &mut shard.entries[slot];
        entry.asked = true;
        Some(entry.page.clone())
    }

    pub(super) fn insert(&self, page: Page) {
        let mut shard = self.shard(page.id);
        shard.remove(page.id);
        let cost = page.memory_bytes() + ENTRY_BYTES;
        if cost > shard.bytes_max / 4 {
            return;
        }
        while shard.bytes + cost > shard.bytes_max {
            shard.evict();
        }
        shard.bytes += cost;
        let slot = shard.entries.len();
        shard.slots.insert(page.id.0, slot);
        shard.entries.push(Entry { page, asked: false });
    }

    pub(super) fn remove(&self, id: PageId) {
        self.shard(id).remove(id);
    }
}

impl Shard {
    fn remove(&mut self, id: PageId) {
        if let Some(slot) = self.slots.remove(&id.0) {
            self.drop_slot(slot);
        }
    }

    /// Drops the entry at `slot`, whose id is no longer in `slots`.
    fn drop_slot(&mut self, slot: usize) {
        let entry = self.entries.swap_remove(slot);
        self.bytes -= entry.page.memory_bytes() + ENTRY_BYTES;
        if let Some(moved) = self.entries.get(slot) {
            self.slots.insert(moved.page.id.0, slot);
        }
    }

    fn evict(&mut self) {
        loop {
            if self.hand >= self.entries.len() {
                self.hand = 0;
            }
            let entry = &mut self.entries[self.hand];
            if entry.asked {
                entry.asked = false;
                self.hand += 1;
            } else {
                let id = entry.page.id;
                self.slots.remove(&id.0);
                self.drop_slot(self.hand);
                return;
            }
        }
    }
}

/// Page ids are small numbers that no outsider chooses: one multiplication spreads them.
#[derive(Default)]
struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u64(self.0 ^ u64::from(byte));
        }
    }

    fn write_u64(&mut self, id: u64) {
        self.0 = id.wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(32);
    }
}
