//! The keys that this proxy owns, with their values: a machine without sockets.
//!
//! An entry's value is the key's at every revision from its acquisition on, until the entry goes:
//! whoever writes the key without owning it asks for it first, and waits until the leasing key is
//! gone, which happens after the entry is. What this proxy writes itself is entered when it is
//! done; while it is under way, the cluster is asked.

use std::collections::{HashMap, HashSet};

use api::pb::etcdserverpb::{PutRequest, RangeRequest, RangeResponse, ResponseHeader};
use api::pb::mvccpb::KeyValue;
use bytes::Bytes;
use tokio::sync::oneshot;
use tokio::time::{Duration, Instant};

#[cfg(test)]
mod tests;

/// How long a key that somebody else wanted to write is left to the others.
const REST: Duration = Duration::from_secs(2);

/// Limits of what is kept; keys beyond are not acquired. The bytes are those of keys and values.
const ENTRIES_MAX: usize = 100_000;
const BYTES_MAX: usize = 128 << 20;

/// How many keys rest at least before those that rest no more are forgotten.
const RESTING_MIN: usize = 1024;

/// What a write changes, in the names of clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Target {
    Key(Bytes),
    /// Half open; an end of "\0" is none.
    Range(Bytes, Bytes),
}

impl Target {
    pub(super) fn has(&self, key: &[u8]) -> bool {
        match self {
            Target::Key(own) => own == key,
            Target::Range(begin, end) => key >= &begin[..] && (&end[..] == b"\0" || key < &end[..]),
        }
    }
}

/// What to do for a read.
#[derive(Debug, PartialEq)]
pub(super) enum Look {
    /// This is the answer.
    Local(RangeResponse),
    /// Read it and own it, under this lease; [`Cache::acquired`] must follow.
    Acquire(i64),
    /// Read it; the entry's value is unknown. [`Cache::refresh`] may follow.
    Refresh(Stamp),
    /// Let the cluster answer.
    Below,
}

/// A state of an entry: the same as long as no write begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    owned_at: i64,
    writes: u64,
}

/// A key that is owned, and since which revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Owned {
    pub(super) key: Bytes,
    pub(super) at: i64,
}

/// The lease under which keys are owned.
#[derive(Clone, Copy, Debug)]
struct Held {
    lease: i64,
    /// Until then it lives whatever happens.
    until: Instant,
}

enum Value {
    Known(Option<KeyValue>),
    /// Two writes overlapped, or one did not say what it wrote.
    Unknown,
}

struct Entry {
    value: Value,
    /// The create revision of the leasing key.
    owned_at: i64,
    /// Writes under way, and those that ever began.
    under_way: usize,
    writes: u64,
}

/// The keys that are owned.
#[derive(Default)]
pub(super) struct Cache {
    held: Option<Held>,
    /// Users are known by name, so that nobody is answered from here.
    suspended: bool,
    entries: HashMap<Bytes, Entry>,
    bytes: usize,
    /// Acquisitions under way, each with the last revision that took the key away meanwhile.
    acquiring: HashMap<Bytes, i64>,
    resting: HashMap<Bytes, Instant>,
    /// How many may rest before those that rest no more are forgotten.
    resting_max: usize,
    /// Who waits until a leasing key is gone.
    waiting: HashMap<Bytes, Vec<oneshot::Sender<()>>>,
    /// The newest that the cluster has sent.
    header: ResponseHeader,
}

impl Entry {
    /// The value, if nobody writes it.
    fn known(&self) -> Option<Option<&KeyValue>> {
        match &self.value {
            Value::Known(kv) if self.under_way == 0 => Some(kv.as_ref()),
            _ => None,
        }
    }

    fn bytes(&self) -> usize {
        match &self.value {
            Value::Known(Some(kv)) => kv.value.len(),
            _ => 0,
        }
    }

    /// Enters what a write that is done has left, unless another one is under way.
    fn set(&mut self, value: Option<KeyValue>) {
        let is_known = matches!(self.value, Value::Known(_)) && self.under_way <= 1;
        self.value = match is_known {
            true => Value::Known(value),
            false => Value::Unknown,
        };
    }
}

impl Cache {
    /// Keys may be owned under this lease from now on, and be answered for until then.
    pub(super) fn hold(&mut self, lease: i64, until: Instant) {
        self.held = Some(Held { lease, until });
        self.suspended = false;
    }

    /// Nothing is owned any more.
    pub(super) fn drop_all(&mut self) {
        self.held = None;
        self.entries.clear();
        self.bytes = 0;
        self.acquiring
            .values_mut()
            .for_each(|lost_at| *lost_at = i64::MAX);
    }

    /// The lease under which keys are owned, if it lives.
    pub(super) fn lease(&self, now: Instant) -> Option<i64> {
        let held = self.held.filter(|held| now < held.until)?;
        Some(held.lease)
    }

    /// Answers nobody until the lease is renewed, which shows that nobody needs a name.
    pub(super) fn suspend(&mut self) {
        self.suspended = true;
    }

    /// Whether anybody may be answered.
    pub(super) fn serves(&self, now: Instant) -> bool {
        !self.suspended && self.lease(now).is_some()
    }

    /// Notes how far the cluster is.
    pub(super) fn see(&mut self, header: Option<&ResponseHeader>) {
        if let Some(header) = header
            && header.revision >= self.header.revision
        {
            self.header = *header;
        }
    }

    /// Decides about a read of one key of now.
    pub(super) fn look(&mut self, request: &RangeRequest, now: Instant) -> Look {
        let Some(lease) = self.lease(now).filter(|_| !self.suspended) else {
            return Look::Below;
        };
        let Some(entry) = self.entries.get(&request.key) else {
            let rests = self.resting.get(&request.key).is_some_and(|it| *it > now);
            let is_full = self.entries.len() >= ENTRIES_MAX || self.bytes >= BYTES_MAX;
            let is_under_way = self.acquiring.contains_key(&request.key);
            if request.serializable || rests || is_full || is_under_way {
                return Look::Below;
            }
            self.acquiring.insert(request.key.clone(), 0);
            return Look::Acquire(lease);
        };
        match (entry.known(), &entry.value) {
            (Some(kv), _) => Look::Local(answer(kv, self.header, request)),
            (None, Value::Unknown) if entry.under_way == 0 && !request.serializable => {
                Look::Refresh(entry.stamp())
            }
            _ => Look::Below,
        }
    }

    /// The value of a key, if it is owned and nobody writes it.
    pub(super) fn known(&self, key: &[u8]) -> Option<Option<&KeyValue>> {
        self.entries.get(key)?.known()
    }

    /// The newest header; a local answer is as new.
    pub(super) fn header(&self) -> ResponseHeader {
        self.header
    }

    /// An acquisition ended. With `value`, the key was read and is owned under `lease` from `at`
    /// on, unless it was taken away since.
    pub(super) fn acquired(
        &mut self,
        key: &Bytes,
        lease: i64,
        owned: Option<(i64, Option<KeyValue>)>,
    ) {
        let lost_at = self.acquiring.remove(key).unwrap_or(i64::MAX);
        let is_held = self.held.is_some_and(|held| held.lease == lease);
        let Some((owned_at, kv)) = owned.filter(|(at, _)| is_held && *at > lost_at) else {
            return;
        };
        let entry = Entry {
            value: Value::Known(kv),
            owned_at,
            under_way: 0,
            writes: 0,
        };
        self.bytes += key.len() + entry.bytes();
        if let Some(old) = self.entries.insert(key.clone(), entry) {
            self.bytes -= key.len() + old.bytes();
        }
    }

    /// A read has found the value, at a time when nothing had been written since the stamp.
    pub(super) fn refresh(&mut self, key: &Bytes, stamp: Stamp, kv: Option<KeyValue>) {
        let is_leased = kv.as_ref().is_some_and(|kv| kv.lease != 0);
        self.change(key, i64::MAX, |entry| {
            if entry.stamp() == stamp && entry.under_way == 0 && !is_leased {
                entry.value = Value::Known(kv);
            }
        });
    }

    /// A write begins. Returns the keys that are owned of those that it changes; each must be
    /// given to [`Cache::end`] or [`Cache::evict`].
    pub(super) fn begin(&mut self, targets: &[Target]) -> Vec<Owned> {
        let mut owned = Vec::new();
        let mut marked = HashSet::new();
        let mut mark = |key: &Bytes, entry: &mut Entry| {
            if !marked.insert(key.clone()) {
                return;
            }
            entry.under_way += 1;
            entry.writes += 1;
            owned.push(Owned {
                key: key.clone(),
                at: entry.owned_at,
            });
        };
        for target in targets {
            match target {
                Target::Key(key) => {
                    if let Some(entry) = self.entries.get_mut(key) {
                        mark(key, entry);
                    }
                }
                Target::Range(..) => {
                    let within = self.entries.iter_mut().filter(|(key, _)| target.has(key));
                    within.for_each(|(key, entry)| mark(key, entry));
                }
            }
        }
        owned
    }

    /// A put at `revision` is done. Returns whether the key should be given up: one that can go
    /// by itself is not owned.
    pub(super) fn put(&mut self, request: &PutRequest, revision: i64) -> bool {
        self.change(&request.key, revision, |entry| {
            if request.ignore_value {
                entry.value = Value::Unknown;
                return;
            }
            let old = match &entry.value {
                Value::Known(old) => old.as_ref(),
                Value::Unknown => None,
            };
            let kv = KeyValue {
                key: request.key.clone(),
                create_revision: old.map_or(revision, |old| old.create_revision),
                mod_revision: revision,
                version: old.map_or(0, |old| old.version) + 1,
                value: request.value.clone(),
                lease: 0,
            };
            entry.set(Some(kv));
        }) && request.lease != 0
    }

    /// A deletion at `revision` is done.
    pub(super) fn delete(&mut self, target: &Target, revision: i64) {
        let keys = match target {
            Target::Key(key) => vec![key.clone()],
            Target::Range(..) => {
                let keys = self.entries.keys().filter(|key| target.has(key));
                keys.cloned().collect()
            }
        };
        for key in keys {
            self.change(&key, revision, |entry| entry.set(None));
        }
    }

    /// A write that began is over, and its changes, if any, are entered.
    pub(super) fn end(&mut self, owned: &[Owned]) {
        for Owned { key, at } in owned {
            if let Some(entry) = self.entries.get_mut(key)
                && entry.owned_at == *at
            {
                entry.under_way -= 1;
            }
        }
    }

    /// Gives a key up for a while, if it is still owned since then.
    pub(super) fn evict(&mut self, owned: &Owned, now: Instant) {
        let is_same = |entry: &Entry| entry.owned_at == owned.at;
        if self.entries.get(&owned.key).is_some_and(is_same) {
            self.take_away(&owned.key, now);
        }
    }

    /// Somebody wants the key (`revision` says so), or took it.
    pub(super) fn lose(&mut self, key: &Bytes, revision: i64, now: Instant) {
        if let Some(lost_at) = self.acquiring.get_mut(key) {
            *lost_at = revision.max(*lost_at);
        }
        let is_older = |entry: &Entry| entry.owned_at < revision;
        if self.entries.get(key).is_some_and(is_older) {
            self.take_away(key, now);
        }
    }

    /// As [`Cache::lose`], for every key.
    pub(super) fn lose_all(&mut self, revision: i64, now: Instant) {
        let acquiring = self.acquiring.values_mut();
        acquiring.for_each(|lost_at| *lost_at = revision.max(*lost_at));
        let older = self.entries.iter().filter(|(_, it)| it.owned_at < revision);
        for key in older.map(|(key, _)| key.clone()).collect::<Vec<_>>() {
            self.take_away(&key, now);
        }
    }

    /// Whether a key is owned.
    pub(super) fn is_owned(&self, key: &[u8]) -> bool {
        self.entries.contains_key(key)
    }

    /// Since when a key is owned.
    pub(super) fn owned_at(&self, key: &[u8]) -> Option<i64> {
        Some(self.entries.get(key)?.owned_at)
    }

    fn take_away(&mut self, key: &Bytes, now: Instant) {
        if let Some(entry) = self.entries.remove(key) {
            self.bytes -= key.len() + entry.bytes();
        }
        if self.resting.len() >= self.resting_max.max(RESTING_MIN) {
            self.resting.retain(|_, until| *until > now);
            // Many may go at once: to look at all of them for each one would take too long.
            self.resting_max = self.resting.len() * 2;
        }
        self.resting.insert(key.clone(), now + REST);
    }

    /// Told when the leasing key of a key is gone; [`Cache::forget`] must follow.
    pub(super) fn wait(&mut self, key: &Bytes) -> oneshot::Receiver<()> {
        let (tell, told) = oneshot::channel();
        self.waiting.entry(key.clone()).or_default().push(tell);
        told
    }

    /// Forgets those who do not wait any more.
    pub(super) fn forget(&mut self, key: &Bytes) {
        if let Some(waiting) = self.waiting.get_mut(key) {
            waiting.retain(|tell| !tell.is_closed());
            if waiting.is_empty() {
                self.waiting.remove(key);
            }
        }
    }

    /// The leasing key of a key is gone.
    pub(super) fn wake(&mut self, key: &Bytes) {
        for tell in self.waiting.remove(key).into_iter().flatten() {
            // Whoever waits no more need not know.
            let _told = tell.send(());
        }
    }

    /// Changes an entry by what was done at `revision`, unless it was read later than that.
    /// Returns whether it did.
    fn change(&mut self, key: &Bytes, revision: i64, change: impl FnOnce(&mut Entry)) -> bool {
        let Some(entry) = self.entries.get_mut(key) else {
            return false;
        };
        if entry.owned_at >= revision {
            return false;
        }
        self.bytes -= entry.bytes();
        change(entry);
        if self.bytes + entry.bytes() > BYTES_MAX {
            // It is owned still, but the cluster keeps its value.
            entry.value = Value::Unknown;
        }
        self.bytes += entry.bytes();
        true
    }
}

impl Entry {
    fn stamp(&self) -> Stamp {
        Stamp {
            owned_at: self.owned_at,
            writes: self.writes,
        }
    }
}

/// The answer to a read of one key of now that has this value.
pub(super) fn answer(
    kv: Option<&KeyValue>,
    header: ResponseHeader,
    request: &RangeRequest,
) -> RangeResponse {
    let within = |value: i64, min: i64, max: i64| value >= min && (max == 0 || value <= max);
    let wanted = |kv: &&KeyValue| {
        let (min, max) = (request.min_mod_revision, request.max_mod_revision);
        let is_modified = within(kv.mod_revision, min, max);
        let (min, max) = (request.min_create_revision, request.max_create_revision);
        !request.count_only && is_modified && within(kv.create_revision, min, max)
    };
    let kvs = kv.filter(wanted).map(|kv| KeyValue {
        value: match request.keys_only {
            true => Bytes::new(),
            false => kv.value.clone(),
        },
        ..kv.clone()
    });
    RangeResponse {
        header: Some(header),
        kvs: kvs.into_iter().collect(),
        more: false,
        count: i64::from(kv.is_some()),
    }
}
