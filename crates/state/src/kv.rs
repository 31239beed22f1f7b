//! Writing keys: the part of apply that makes revisions.

use std::sync::Arc;

use storage::backend::{ApplyTxn, Bucket, Reader, Value};

use crate::counts::{Counts, Operations};
use crate::fatal::Fatal;
use crate::index::{Change, Latest, Seen, Span};
use crate::record::{KeyValue, Revision};
use crate::shared::State;
use crate::watch::Event;

/// The writes of one log entry. All changes to keys get one main revision; the state's revision
/// moves when the entry is finished.
pub(crate) struct Writing<'a> {
    pub(crate) state: &'a mut State,
    pub(crate) txn: ApplyTxn<'a>,
    pub(crate) reader: &'a Reader,
    pub(crate) scratch: &'a mut Vec<u8>,
    pub(crate) changes: u32,
    /// What was done so far, and where it is counted in the end.
    pub(crate) done: Operations,
    pub(crate) counts: &'a Counts,
    /// Where the events of the changes go, when somebody watches.
    pub(crate) events: Option<&'a mut Vec<Event>>,
}

/// Loads the record of a revision, which must exist.
pub(crate) fn load(reader: &Reader, revision: Revision) -> Result<Value, Fatal> {
    reader
        .get(Bucket::Key, &revision.to_key())?
        .ok_or(Fatal::MissingRevision {
            main: revision.main,
            sub: revision.sub,
        })
}

/// The record behind what a reader sees, from memory or from the backend.
pub(crate) fn record_of(reader: &Reader, seen: &Seen<'_>) -> Result<Value, Fatal> {
    match seen.cached() {
        Some(value) => Ok(value.clone()),
        None => load(reader, seen.revision()),
    }
}

pub(crate) fn parse(record: &[u8]) -> Result<KeyValue<'_>, Fatal> {
    KeyValue::parse(record).ok_or_else(|| Fatal::Damaged {
        bucket: "key",
        what: format!("{} bytes are no KeyValue", record.len()),
    })
}

impl Writing<'_> {
    /// The revision that a reader inside this entry is at.
    pub(crate) fn revision(&self) -> i64 {
        self.state.revision + i64::from(self.changes > 0)
    }

    fn next(&self) -> Revision {
        Revision {
            main: self.state.revision + 1,
            sub: self.changes,
        }
    }

    /// The newest record of a key, if it exists.
    pub(crate) fn newest(&self, key: &[u8]) -> Result<Option<Value>, Fatal> {
        match self.state.index.get(key).and_then(|slot| slot.newest()) {
            Some(seen) => Ok(Some(record_of(self.reader, &seen)?)),
            None => Ok(None),
        }
    }

    /// The newest records of a span in key order.
    pub(crate) fn newest_of(&self, span: Span<'_>) -> Result<Vec<Value>, Fatal> {
        let seen = self.state.index.span(span).filter_map(|slot| slot.newest());
        seen.map(|seen| record_of(self.reader, &seen)).collect()
    }

    /// Writes a key; its lease becomes `lease`, 0 for none.
    pub(crate) fn put(&mut self, key: &[u8], value: &[u8], lease: i64) {
        self.done.puts += 1;
        self.done.put_bytes += (key.len() + value.len()) as u64;
        let revision = self.next();
        let found = self.state.index.find(key);
        let (create, version, lease_before) = match found {
            Some(at) => {
                let slot = self.state.index.slot(at);
                if slot.is_live() {
                    (slot.create, slot.version + 1, slot.lease)
                } else {
                    (revision.main, 1, 0)
                }
            }
            None => (revision.main, 1, 0),
        };
        let modified = revision.main;
        let kv = KeyValue {
            key,
            create,
            modified,
            version,
            value,
            lease,
        };
        let record = kv.encode(self.scratch);
        self.txn
            .put(Bucket::Key, &revision.to_key(), record.clone());
        if let Some(events) = &mut self.events {
            events.push(Event::new(revision.main, false, record.clone()));
        }
        let latest = Latest::Cached(record);
        let change = Change {
            revision,
            latest,
            create,
            version,
            lease,
        };
        match found {
            Some(at) => self.state.index.update(at, change),
            None => self.state.index.insert(key, change),
        }
        if lease_before != lease {
            self.state.leases.detach(lease_before, key);
            self.state.leases.attach(lease, key);
        }
        self.changes += 1;
    }

    /// Deletes the keys of a span in key order; returns how many there were.
    pub(crate) fn delete(&mut self, span: Span<'_>) -> i64 {
        self.done.deletes += 1;
        let mut deleted = 0;
        for at in self.state.index.found(span) {
            let slot = self.state.index.slot(at);
            if !slot.is_live() {
                continue;
            }
            let revision = self.next();
            let record = KeyValue {
                key: &slot.key,
                ..KeyValue::default()
            }
            .encode(self.scratch);
            if let Some(events) = &mut self.events {
                events.push(Event::new(revision.main, true, record.clone()));
            }
            self.txn
                .put(Bucket::Key, &revision.to_tombstone_key(), record);
            if slot.lease != 0 {
                self.state.leases.detach(slot.lease, &slot.key);
            }
            self.state.index.update(at, Change::tombstone(revision));
            self.changes += 1;
            deleted += 1;
        }
        deleted
    }

    /// Records an accepted compaction.
    pub(crate) fn set_scheduled_compact(&mut self, main: i64) {
        let key = Revision { main, sub: 0 }.to_key();
        self.txn.put(
            Bucket::Meta,
            crate::schema::SCHEDULED_COMPACT,
            Arc::from(key),
        );
    }

    /// Makes everything readable together.
    pub(crate) fn finish(self) {
        self.txn.commit();
        self.counts.add(&self.done);
        self.state.revision += i64::from(self.changes > 0);
        let budget = self.state.value_budget;
        self.state.index.evict(budget, EVICT_STEPS);
    }
}

/// Slots that eviction looks at per entry: enough to keep up, since an entry rarely adds more than
/// one record, and the hand passes at most twice before it takes one.
const EVICT_STEPS: usize = 16;
