//! Events in the order of their revisions, shared by all watchers.
//!
//! ```text
//!   apply ── one batch per lock of the state ──▶ [batch][batch][batch] ──▶ readers, one Arc each
//!                                                 ▲ first      last ▲
//!   older events: read from bucket `key`, where they are as long as compaction leaves them
//! ```
//!
//! The log only exists while somebody watches: [`Log::set_watching`]. An event is the stored
//! record of its change, which exists anyway; it is encoded by copying that.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use storage::backend::{Bucket, Reader, Value};

use crate::fatal::Fatal;
use crate::hash::parse_key;
use crate::kv::parse;
use crate::record::Revision;
use crate::reply::Header;
use crate::wire::{self, Content, Fields};

#[cfg(test)]
mod tests;

/// Field `events` of `WatchResponse`.
const EVENTS: u8 = 11;
/// What an event takes in memory besides its record.
const EVENT_BYTES: usize = 64;
/// What the log may hold, unless a single batch is larger.
const LOG_BYTES_MAX: usize = 32 << 20;

/// Batches that are looked through before the log is searched.
const NEAR_BATCHES: usize = 8;

/// One change of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    main: i64,
    is_delete: bool,
    /// As stored: of a deletion it only has the key.
    record: Value,
}

impl Event {
    pub(crate) fn new(main: i64, is_delete: bool, record: Value) -> Event {
        Event {
            main,
            is_delete,
            record,
        }
    }

    /// Main revision of the change.
    #[must_use]
    pub fn revision(&self) -> i64 {
        self.main
    }

    #[must_use]
    pub fn is_delete(&self) -> bool {
        self.is_delete
    }

    /// The key that changed.
    #[must_use]
    pub fn key(&self) -> &[u8] {
        match Fields(&self.record).next() {
            Some(Ok((1, Content::Bytes(key)))) => key,
            _ => parse(&self.record).map_or(&[], |kv| kv.key),
        }
    }

    /// The key's record as an encoded `KeyValue`; of a deletion it only has the key.
    #[must_use]
    pub fn record(&self) -> &[u8] {
        &self.record
    }

    /// True when the key did not exist before.
    #[must_use]
    pub fn is_create(&self) -> bool {
        !self.is_delete && parse(&self.record).is_ok_and(|kv| kv.create == kv.modified)
    }

    fn content_len(&self, before: Option<&[u8]>) -> usize {
        let event = if self.is_delete {
            2 + wire::field_len(self.record.len() + wire::int_len(self.main as u64))
        } else {
            wire::field_len(self.record.len())
        };
        event + before.map_or(0, |record| wire::field_len(record.len()))
    }

    /// Bytes that [`Self::write`] appends.
    #[must_use]
    pub fn encoded_len(&self, before: Option<&[u8]>) -> usize {
        wire::field_len(self.content_len(before))
    }

    /// Appends the event as a field of a `WatchResponse`, with the key's record before the change
    /// when it is given.
    pub fn write(&self, before: Option<&[u8]>, out: &mut Vec<u8>) {
        wire::put_head(out, EVENTS, self.content_len(before));
        if self.is_delete {
            wire::put_int(out, 1, 1);
            let len = self.record.len() + wire::int_len(self.main as u64);
            wire::put_head(out, 2, len);
            out.extend_from_slice(&self.record);
            wire::put_int(out, 3, self.main as u64);
        } else {
            wire::put_bytes(out, 2, &self.record);
        }
        if let Some(record) = before {
            wire::put_bytes(out, 3, record);
        }
    }
}

/// Appends what begins a `WatchResponse`: its header, the same for every watch of a member.
pub fn write_header(header: &Header, revision: i64, out: &mut Vec<u8>) {
    header.write(revision, out);
}

/// Appends what stands between the header and the events of a `WatchResponse`: the watch's id, and
/// whether more parts of the same response follow.
pub fn write_id(id: i64, fragment: bool, out: &mut Vec<u8>) {
    wire::put_int(out, 2, id as u64);
    wire::put_int(out, 7, u64::from(fragment));
}

/// Events that became readable together: whole revisions, in order.
#[derive(Debug)]
pub struct Batch {
    events: Vec<Event>,
    bytes: usize,
}

impl Batch {
    /// In order of revision; never empty.
    #[must_use]
    pub fn events(&self) -> &[Event] {
        &self.events
    }

    fn last(&self) -> i64 {
        self.events.last().map_or(0, Event::revision)
    }
}

/// What is readable from some revision on.
pub struct Tail {
    /// Some of the first batch's events may be older than asked for.
    pub batches: Vec<Arc<Batch>>,
    /// The log has all events from this revision on; older ones are only in the database.
    pub first: i64,
    /// Newest revision.
    pub revision: i64,
    /// Revision of the last compaction; -1 before the first.
    pub compacted: i64,
}

/// Part of the history.
#[derive(Debug)]
pub struct Chunk {
    /// All events from the revision that was asked for to `through`, unless it lies below
    /// `compacted`.
    pub events: Vec<Event>,
    pub through: i64,
    /// Newest revision.
    pub revision: i64,
    /// Revision of the last compaction; -1 before the first. Whoever needs events below it cannot
    /// have them all.
    pub compacted: i64,
}

struct Inner {
    /// Where older events are; it belongs to the same state as the revisions.
    reader: Option<Reader>,
    batches: VecDeque<Arc<Batch>>,
    bytes: usize,
    first: i64,
    revision: i64,
    compacted: i64,
    bytes_max: usize,
}

impl Inner {
    /// How many batches have nothing from a revision on. Whoever follows asks for the last ones.
    fn known(&self, from: i64) -> usize {
        let count = self.batches.len();
        let near = count.min(NEAR_BATCHES);
        let due = |batch: &&Arc<Batch>| batch.last() >= from;
        match self.batches.iter().rev().take(near).take_while(due).count() {
            new if new < near => count - new,
            _ => self.batches.partition_point(|batch| batch.last() < from),
        }
    }
}

/// See the module's page. Locked after the state; nobody reads or frees much under its lock.
pub(crate) struct Log {
    inner: Mutex<Inner>,
    /// Threads with watchers, a bit for each.
    watching: AtomicU64,
}

impl Log {
    pub(crate) fn new(revision: i64, compacted: i64, reader: Option<Reader>) -> Log {
        Log {
            inner: Mutex::new(Inner {
                reader,
                batches: VecDeque::new(),
                bytes: 0,
                first: revision + 1,
                revision,
                compacted,
                bytes_max: LOG_BYTES_MAX,
            }),
            watching: AtomicU64::new(0),
        }
    }

    pub(crate) fn watching(&self) -> u64 {
        self.watching.load(Ordering::SeqCst)
    }

    /// A thread begins or stops to watch. Whoever begins must read the tail after that.
    pub(crate) fn set_watching(&self, thread: u8, on: bool) {
        let bit = 1u64 << (thread % 64);
        if on {
            self.watching.fetch_or(bit, Ordering::SeqCst);
        } else {
            self.watching.fetch_and(!bit, Ordering::SeqCst);
        }
    }

    /// Makes events readable; `events` has all since the last time, or is `None` when nobody
    /// collected them. The state is locked for writing.
    pub(crate) fn publish(&self, revision: i64, compacted: i64, events: Option<Vec<Event>>) {
        let mut dropped = Vec::new();
        let mut inner = self.inner.lock();
        match events {
            Some(events) if !events.is_empty() => {
                let bytes = events
                    .iter()
                    .map(|event| event.record.len() + EVENT_BYTES)
                    .sum::<usize>();
                inner.bytes += bytes;
                inner.batches.push_back(Arc::new(Batch { events, bytes }));
            }
            Some(_) => {}
            None if revision > inner.revision => {
                dropped.extend(std::mem::take(&mut inner.batches));
                inner.bytes = 0;
                inner.first = revision + 1;
            }
            None => {}
        }
        while inner.bytes > inner.bytes_max && inner.batches.len() > 1 {
            if let Some(batch) = inner.batches.pop_front() {
                inner.bytes -= batch.bytes;
                inner.first = batch.last() + 1;
                dropped.push(batch);
            }
        }
        inner.revision = revision;
        inner.compacted = compacted;
        drop(inner);
    }

    /// A received state takes the place of the one before: what was published is forgotten, and
    /// `go_over` runs in the moment in which that happens.
    pub(crate) fn replace(
        &self,
        revision: i64,
        compacted: i64,
        reader: Reader,
        go_over: impl FnOnce(),
    ) {
        let mut inner = self.inner.lock();
        go_over();
        let dropped = std::mem::take(&mut inner.batches);
        inner.reader = Some(reader);
        inner.bytes = 0;
        inner.first = revision + 1;
        inner.revision = revision;
        inner.compacted = compacted;
        drop(inner);
        drop(dropped);
    }

    pub(crate) fn tail(&self, from: i64) -> Tail {
        self.inner.lock().tail(from)
    }

    /// Events from revision `from` on: whole revisions, until there are `records_max` records or
    /// `bytes_max` bytes of them, but at least one revision.
    pub(crate) fn chunk(
        &self,
        from: i64,
        records_max: usize,
        bytes_max: usize,
    ) -> Result<Chunk, Fatal> {
        let (tail, reader) = {
            let inner = self.inner.lock();
            let below = (from < inner.first).then(|| inner.reader.clone());
            (inner.tail(from), below.flatten())
        };
        let mut chunk = Chunk {
            events: Vec::new(),
            through: tail.revision,
            revision: tail.revision,
            compacted: tail.compacted,
        };
        let mut budget = Budget {
            records: records_max,
            bytes: bytes_max,
        };
        let Some(reader) = reader else {
            let events = tail.batches.iter().flat_map(|batch| batch.events());
            for event in events.skip_while(|event| event.main < from) {
                if !chunk.take(event.clone(), &mut budget) {
                    break;
                }
            }
            return Ok(chunk);
        };
        chunk.read(&reader, from, &mut budget)?;
        // What the reading may have missed was deleted below a compaction that is known by now.
        chunk.compacted = self.inner.lock().compacted;
        Ok(chunk)
    }
}

impl Inner {
    fn tail(&self, from: i64) -> Tail {
        let known = self.known(from);
        Tail {
            batches: self.batches.range(known..).cloned().collect(),
            first: self.first,
            revision: self.revision,
            compacted: self.compacted,
        }
    }
}

struct Budget {
    records: usize,
    bytes: usize,
}

impl Chunk {
    /// Takes the next event; false when it belongs to the next chunk.
    fn take(&mut self, event: Event, budget: &mut Budget) -> bool {
        let last = self.events.last().map(Event::revision);
        if (budget.records == 0 || budget.bytes == 0)
            && let Some(last) = last.filter(|&last| last < event.main)
        {
            self.through = last;
            return false;
        }
        budget.records = budget.records.saturating_sub(1);
        budget.bytes = budget
            .bytes
            .saturating_sub(event.record.len() + EVENT_BYTES);
        self.events.push(event);
        true
    }

    /// Reads history up to `through`.
    fn read(&mut self, reader: &Reader, from: i64, budget: &mut Budget) -> Result<(), Fatal> {
        let key = |main| Revision { main, sub: 0 }.to_key().to_vec();
        let end = key(self.through.saturating_add(1));
        let mut begin = Some(key(from));
        while let Some(at) = begin {
            let mut outcome = Ok(());
            let mut full = false;
            let limit = budget.records.clamp(RECORDS_MIN, RECORDS_MAX);
            begin = reader.scan(Bucket::Key, &at, Some(&end), limit, |key, record| {
                if full || outcome.is_err() {
                    return;
                }
                match parse_key(key) {
                    Ok((revision, is_delete)) => {
                        let event = Event::new(revision.main, is_delete, Arc::from(record));
                        full = !self.take(event, budget);
                    }
                    Err(error) => outcome = Err(error),
                }
            })?;
            outcome?;
            if full {
                break;
            }
        }
        Ok(())
    }
}

/// Bounds of one scan of the database, in records.
const RECORDS_MIN: usize = 16;
const RECORDS_MAX: usize = 1000;
