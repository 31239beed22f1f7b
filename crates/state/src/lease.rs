//! Leases as replicated state: which exist, their time to live, and the keys attached to them.
//! Expiry is the leader's own affair and no part of this: see [`LeaseClock`].

mod clock;
#[cfg(test)]
mod random;
mod wheel;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use prost::Message;
use storage::backend::Value;

use crate::fatal::Fatal;

pub use clock::{ClockConfig, Due, LeaseClock, Renewal};

/// A TTL above this is refused, in seconds.
pub const TTL_MAX: i64 = 9_000_000_000;

/// A granted lease.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Lease {
    /// Seconds.
    pub(crate) ttl: i64,
    /// Seconds left at the last checkpoint; 0 when there was none.
    pub(crate) remaining: i64,
    pub(crate) keys: BTreeSet<Box<[u8]>>,
}

impl Lease {
    /// The record in bucket `lease`.
    pub(crate) fn record(&self, id: i64) -> Value {
        let lease = api::pb::leasepb::Lease {
            id,
            ttl: self.ttl,
            remaining_ttl: self.remaining,
        };
        Arc::from(lease.encode_to_vec())
    }
}

/// All leases, by id.
#[derive(Debug, Default)]
pub(crate) struct Leases {
    pub(crate) by_id: BTreeMap<i64, Lease>,
}

impl Leases {
    /// Reads a record of bucket `lease`. A stored TTL below the minimum is raised in memory.
    pub(crate) fn restore(&mut self, record: &[u8], ttl_min: i64) -> Result<(), Fatal> {
        let lease = api::pb::leasepb::Lease::decode(record).map_err(|e| Fatal::Damaged {
            bucket: "lease",
            what: e.to_string(),
        })?;
        let ttl = lease.ttl.max(ttl_min);
        let remaining = lease.remaining_ttl;
        self.by_id.insert(
            lease.id,
            Lease {
                ttl,
                remaining,
                keys: BTreeSet::new(),
            },
        );
        Ok(())
    }

    pub(crate) fn contains(&self, id: i64) -> bool {
        self.by_id.contains_key(&id)
    }

    /// Attaches a key; 0 and unknown leases are ignored.
    pub(crate) fn attach(&mut self, id: i64, key: &[u8]) {
        if id != 0
            && let Some(lease) = self.by_id.get_mut(&id)
        {
            lease.keys.insert(key.into());
        }
    }

    /// Detaches a key; 0 and unknown leases are ignored.
    pub(crate) fn detach(&mut self, id: i64, key: &[u8]) {
        if id != 0
            && let Some(lease) = self.by_id.get_mut(&id)
        {
            lease.keys.remove(key);
        }
    }
}
