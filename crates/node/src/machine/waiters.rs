//! Requests that wait for their log entry to be applied.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use api::ids::RequestId;

use super::Token;

/// Ids are unique by construction and chosen by us, so one multiplication spreads them.
#[derive(Default)]
struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = (self.0 ^ value)
            .wrapping_mul(0x9e37_79b9_7f4a_7c15)
            .rotate_left(29);
    }
}

#[derive(Clone, Copy, Debug)]
struct Waiter {
    token: Token,
    since_tick: u64,
}

/// Who waits for which request.
#[derive(Default)]
pub(super) struct Waiters {
    by_id: HashMap<u64, Waiter, BuildHasherDefault<IdHasher>>,
}

impl Waiters {
    pub(super) fn insert(&mut self, id: RequestId, token: Token, since_tick: u64) {
        let before = self.by_id.insert(id.0, Waiter { token, since_tick });
        assert!(before.is_none(), "request id {id} is used twice");
    }

    pub(super) fn take(&mut self, id: RequestId) -> Option<Token> {
        self.by_id.remove(&id.0).map(|waiter| waiter.token)
    }

    pub(super) fn contains(&self, id: RequestId) -> bool {
        self.by_id.contains_key(&id.0)
    }

    pub(super) fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Removes those that have waited since `deadline` or longer, oldest id first.
    pub(super) fn expire(&mut self, deadline: u64) -> Vec<(Token, u64)> {
        let mut ids: Vec<u64> = self
            .by_id
            .iter()
            .filter(|(_, waiter)| waiter.since_tick <= deadline)
            .map(|(id, _)| *id)
            .collect();
        ids.sort_unstable();
        ids.iter()
            .filter_map(|id| self.by_id.remove(id))
            .map(|waiter| (waiter.token, waiter.since_tick))
            .collect()
    }
}
