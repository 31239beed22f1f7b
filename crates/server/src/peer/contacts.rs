//! Which members are connected, for every thread to read.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use api::ids::MemberId;

/// Since when each connected member has been so without a break; written by the peer thread.
#[derive(Default)]
pub(crate) struct Contacts(Mutex<BTreeMap<MemberId, Instant>>);

impl Contacts {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<MemberId, Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The member was reached; false when that is nothing new.
    pub(super) fn begin(&self, id: MemberId) -> bool {
        let mut since = self.lock();
        let is_new = !since.contains_key(&id);
        since.entry(id).or_insert_with(Instant::now);
        is_new
    }

    /// The member was not reached; false when that is nothing new.
    pub(super) fn end(&self, id: MemberId) -> bool {
        self.lock().remove(&id).is_some()
    }

    /// For how many milliseconds each member has been connected.
    pub(crate) fn connected_ms(&self) -> BTreeMap<MemberId, u64> {
        let ms = |since: &Instant| since.elapsed().as_millis() as u64;
        self.lock().iter().map(|(id, at)| (*id, ms(at))).collect()
    }
}
