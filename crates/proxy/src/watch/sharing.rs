//! Which watchers share which watch below: a machine without sockets, time or tasks.
//!
//! Every watcher is a cursor, the first revision that its client has not been given. Watchers of
//! one key range sit on a *broadcast*, one watch below; a range has one live broadcast as a rule,
//! and beside it those that catch up from older revisions. One that has caught up gives its
//! watchers to the live one and goes. A watcher whose client does not read leaves its broadcast
//! and is placed again by its cursor when the client has read: nobody waits for it, and nothing is
//! kept for it meanwhile.
//!
//! `next` of a broadcast, `n`: each of its watchers was given everything below `n` that it asked
//! for, and the broadcast will give everything from `n` on. So
//! - a watcher may join when its cursor is `n` or later;
//! - a broadcast may hand its watchers to another one whose `next` is not later than its own: what
//!   comes twice lies below their cursors, and is left out.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use api::pb::etcdserverpb::watch_create_request::FilterType;
use api::pb::etcdserverpb::{ResponseHeader, WatchCreateRequest, WatchResponse};
use api::pb::mvccpb::Event;
use api::pb::mvccpb::event::EventType;
use bytes::Bytes;
use client::{Cancellation, WatchEvent};

use crate::below::Caller;
use crate::metrics::Metrics;

#[cfg(test)]
mod tests;

/// The id in answers that concern no watcher.
const NO_WATCHER: i64 = -1;

/// Why a watcher of nothing is refused; the server's words.
const EMPTY_RANGE: &str = "mvcc: watcher range is empty";

/// Why a second watcher of the same id is refused; the server's words.
const DUPLICATE_ID: &str = "mvcc: duplicate watch ID provided on the WatchStream";

/// A client's stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct StreamId(pub(super) u64);

/// A watch below.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct BroadcastId(u64);

/// The id of a watcher among those of its stream.
type WatchId = i64;

/// A watcher among all.
type Place = (StreamId, WatchId);

/// Where a stream's answers go.
pub(super) trait Outlet {
    /// Whether another answer may be added. After `false`, [`Sharing::on_room`] must follow once
    /// there is room.
    fn has_room(&mut self) -> bool;

    /// Adds an answer of about so many bytes, whether there is room or not.
    fn push(&mut self, answer: WatchResponse, bytes: usize);
}

/// What must be done below.
#[derive(Clone, Debug)]
pub(super) enum Effect {
    /// Begin a watch in the caller's name.
    Open(BroadcastId, Caller, WatchCreateRequest),
    /// End it; its answers do not matter any more.
    Close(BroadcastId),
    /// Ask how far it has come.
    Ask(BroadcastId),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Range {
    key: Bytes,
    end: Bytes,
}

struct Stream<O> {
    outlet: O,
    caller: Caller,
    watchers: BTreeMap<WatchId, Watcher>,
    /// The lowest id that was not yet given to anybody.
    next_id: WatchId,
    lagging: BTreeSet<WatchId>,
    /// The client wants to know how far its watchers have come.
    awaited: Option<Awaited>,
}

struct Awaited {
    missing: HashSet<BroadcastId>,
    /// How far those have come that answered.
    least: Option<ResponseHeader>,
}

struct Watcher {
    range: Range,
    /// The first revision that the client was not given.
    next: i64,
    /// Begins where its broadcast is.
    from_now: bool,
    /// The client knows of it.
    created: bool,
    /// The header of the last answer.
    header: ResponseHeader,
    wants_progress: bool,
    wants_previous: bool,
    no_puts: bool,
    no_deletions: bool,
    /// Nothing while its client does not read.
    broadcast: Option<BroadcastId>,
}

struct Broadcast {
    range: Range,
    caller: Caller,
    /// See above; 0 while a watch from now on is not yet established.
    next: i64,
    /// The cluster has confirmed it.
    established: bool,
    /// Has had everything that there was.
    live: bool,
    watchers: BTreeSet<Place>,
}

/// All watchers of the proxy and the watches below that they share.
pub(super) struct Sharing<O> {
    streams: HashMap<StreamId, Stream<O>>,
    broadcasts: HashMap<BroadcastId, Broadcast>,
    by_range: HashMap<Range, Vec<BroadcastId>>,
    /// Broadcasts made so far.
    count: u64,
    effects: Vec<Effect>,
    metrics: Arc<Metrics>,
}

/// Events of one answer, as watchers want them.
struct Batch {
    with_previous: Vec<Event>,
    without: Vec<Event>,
    header: ResponseHeader,
    first: i64,
    last: i64,
    bytes: usize,
}

impl<O: Outlet> Sharing<O> {
    pub(super) fn new(metrics: Arc<Metrics>) -> Self {
        Sharing {
            streams: HashMap::new(),
            broadcasts: HashMap::new(),
            by_range: HashMap::new(),
            count: 0,
            effects: Vec::new(),
            metrics,
        }
    }

    /// What must be done below since the last call, in order.
    pub(super) fn take_effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }

    /// Whether a range has more than one broadcast: then [`Sharing::on_tick`] helps.
    pub(super) fn is_catching_up(&self) -> bool {
        self.by_range.len() < self.broadcasts.len()
    }

    pub(super) fn open(&mut self, stream: StreamId, caller: Caller, outlet: O) {
        let opened = Stream {
            outlet,
            caller,
            watchers: BTreeMap::new(),
            next_id: 0,
            lagging: BTreeSet::new(),
            awaited: None,
        };
        self.streams.insert(stream, opened);
    }

    /// Forgets a stream and all its watchers.
    pub(super) fn close(&mut self, stream: StreamId) {
        let Some(closed) = self.streams.remove(&stream) else {
            return;
        };
        for (id, watcher) in closed.watchers {
            if let Some(broadcast) = watcher.broadcast {
                self.leave(broadcast, (stream, id));
            }
        }
    }

    /// Tells a client that a watcher was not made.
    pub(super) fn refuse(&mut self, stream: StreamId, header: ResponseHeader, reason: String) {
        if let Some(stream) = self.streams.get_mut(&stream) {
            stream.refuse(header, reason);
        }
    }

    /// Makes a watcher for a client that may read the range. `header` is from after the request
    /// arrived: the store was there already.
    pub(super) fn create(
        &mut self,
        stream: StreamId,
        request: WatchCreateRequest,
        header: ResponseHeader,
    ) {
        let Some(state) = self.streams.get_mut(&stream) else {
            return;
        };
        let Some(id) = state.id_for(request.watch_id) else {
            return state.refuse(header, DUPLICATE_ID.to_owned());
        };
        if is_empty(&request) {
            return state.refuse(header, EMPTY_RANGE.to_owned());
        }
        state.next_id = state.next_id.max(id.saturating_add(1));
        state.watchers.insert(id, Watcher::new(request, header));
        state.awaited = None;
        self.place((stream, id));
    }

    /// Ends a watcher, if it is there.
    pub(super) fn cancel(&mut self, stream: StreamId, id: WatchId) {
        let Some(watcher) = self.remove((stream, id)) else {
            return;
        };
        self.push(
            stream,
            WatchResponse {
                header: Some(watcher.header),
                watch_id: id,
                canceled: true,
                ..WatchResponse::default()
            },
        );
    }

    /// Answers how far a stream's watchers have come once all of them know; a stream without
    /// watchers, or with one that is behind, is not answered, as by a server.
    pub(super) fn ask_progress(&mut self, stream: StreamId) {
        let Some(state) = self.streams.get_mut(&stream) else {
            return;
        };
        let on = |watcher: &Watcher| watcher.broadcast.filter(|_| watcher.created);
        let broadcasts: Option<BTreeSet<_>> = state.watchers.values().map(on).collect();
        let Some(broadcasts) = broadcasts.filter(|them| !them.is_empty()) else {
            return;
        };
        self.effects
            .extend(broadcasts.iter().copied().map(Effect::Ask));
        state.awaited = Some(Awaited {
            missing: broadcasts.into_iter().collect(),
            least: None,
        });
    }

    /// The client has read: its watchers go on.
    pub(super) fn on_room(&mut self, stream: StreamId) {
        let Some(state) = self.streams.get_mut(&stream) else {
            return;
        };
        for id in std::mem::take(&mut state.lagging) {
            self.place((stream, id));
        }
    }

    /// Asks the broadcasts of one range how far they have come: one that catches up and finds no
    /// newer events would not know otherwise that it is there.
    pub(super) fn on_tick(&mut self) {
        let several = self.by_range.values().filter(|them| them.len() > 1);
        let established = several.flatten().filter(|id| {
            let broadcast = self.broadcasts.get(id);
            broadcast.is_some_and(|it| it.established)
        });
        self.effects.extend(established.map(|id| Effect::Ask(*id)));
    }

    /// A watch below has said something.
    pub(super) fn on_answer(&mut self, id: BroadcastId, answer: WatchEvent) {
        if !self.broadcasts.contains_key(&id) {
            // Closed since.
            return;
        }
        let header = answer.header.unwrap_or_default();
        match answer.cancelled {
            Some(Cancellation::Compacted(revision)) => return self.on_compacted(id, revision),
            Some(Cancellation::Refused(reason)) => return self.on_refused(id, &reason),
            None if answer.created => self.on_created(id, header),
            None if answer.events.is_empty() => self.on_progress(id, header, answer.requested),
            None => self.on_events(id, Batch::new(answer.events, header)),
        }
        self.merge(id);
    }

    /// Finds a broadcast for a watcher, or begins one.
    fn place(&mut self, place: Place) {
        let Some(watcher) = self.watcher(place) else {
            return;
        };
        let (range, next, from_now) = (watcher.range.clone(), watcher.next, watcher.from_now);
        let fits = |broadcast: &Broadcast| match (broadcast.next, from_now) {
            (0, _) => from_now,
            (_, true) => broadcast.live,
            (reached, false) => reached <= next,
        };
        let candidates = self.by_range.get(&range).into_iter().flatten();
        let found = candidates
            .filter_map(|id| Some((self.broadcasts.get(id)?, *id)))
            .filter(|(broadcast, _)| fits(broadcast))
            .max_by_key(|(broadcast, _)| (broadcast.live, broadcast.next))
            .map(|(_, id)| id);
        let id = found.unwrap_or_else(|| {
            let start = if from_now { 0 } else { next };
            self.begin(range, start, place.0)
        });
        self.join(id, place);
    }

    fn begin(&mut self, range: Range, start: i64, stream: StreamId) -> BroadcastId {
        let id = BroadcastId(self.count);
        self.count += 1;
        let caller = self.streams.get(&stream).map(|it| it.caller.clone());
        let caller = caller.unwrap_or_default();
        let request = WatchCreateRequest {
            key: range.key.clone(),
            range_end: range.end.clone(),
            start_revision: start,
            progress_notify: true,
            prev_kv: true,
            ..WatchCreateRequest::default()
        };
        self.effects.push(Effect::Open(id, caller.clone(), request));
        self.by_range.entry(range.clone()).or_default().push(id);
        let broadcast = Broadcast {
            range,
            caller,
            next: start,
            established: false,
            live: false,
            watchers: BTreeSet::new(),
        };
        self.broadcasts.insert(id, broadcast);
        id
    }

    fn join(&mut self, id: BroadcastId, place: Place) {
        let Some(broadcast) = self.broadcasts.get_mut(&id) else {
            return;
        };
        let before = broadcast.watchers.len();
        broadcast.watchers.insert(place);
        count(&self.metrics, before, broadcast.watchers.len());
        let (established, reached) = (broadcast.established, broadcast.next);
        let Some(watcher) = self.watcher(place) else {
            return;
        };
        watcher.broadcast = Some(id);
        if established && !watcher.created {
            let header = watcher.header;
            self.announce(place, reached, header);
        }
    }

    /// Tells the client that its watcher is there. One from now on begins where the broadcast is,
    /// or where the store was when the client asked, whichever is later.
    fn announce(&mut self, place: Place, reached: i64, mut header: ResponseHeader) {
        let Some(watcher) = self.watcher(place) else {
            return;
        };
        if watcher.from_now {
            watcher.from_now = false;
            watcher.next = watcher.next.max(reached);
            header.revision = watcher.next - 1;
        }
        watcher.created = true;
        watcher.header = header;
        self.push(
            place.0,
            WatchResponse {
                header: Some(header),
                watch_id: place.1,
                created: true,
                ..WatchResponse::default()
            },
        );
    }

    fn on_created(&mut self, id: BroadcastId, header: ResponseHeader) {
        let Some(broadcast) = self.broadcasts.get_mut(&id) else {
            return;
        };
        broadcast.established = true;
        if broadcast.next == 0 {
            broadcast.next = header.revision + 1;
        }
        // One that begins in the future has missed nothing either, but does not yet give what
        // comes before.
        broadcast.live = broadcast.next == header.revision + 1;
        let reached = broadcast.next;
        for place in broadcast.watchers.clone() {
            if self.watcher(place).is_some_and(|it| !it.created) {
                self.announce(place, reached, header);
            }
        }
    }

    fn on_progress(&mut self, id: BroadcastId, header: ResponseHeader, requested: bool) {
        let Some(broadcast) = self.broadcasts.get_mut(&id) else {
            return;
        };
        broadcast.next = broadcast.next.max(header.revision + 1);
        broadcast.live |= broadcast.next == header.revision + 1;
        let spared = broadcast.watchers.len().saturating_sub(1);
        self.metrics
            .events_coalescing
            .fetch_add(spared as u64, Relaxed);
        for place in broadcast.watchers.clone() {
            let Some(state) = self.streams.get_mut(&place.0) else {
                continue;
            };
            if requested {
                state.on_progress_of(id, header);
            }
            let Some(watcher) = state.watchers.get_mut(&place.1) else {
                continue;
            };
            watcher.next = watcher.next.max(header.revision + 1);
            if !requested && watcher.wants_progress && state.outlet.has_room() {
                watcher.header = header;
                state.push(WatchResponse {
                    header: Some(header),
                    watch_id: place.1,
                    ..WatchResponse::default()
                });
            }
        }
    }

    fn on_events(&mut self, id: BroadcastId, batch: Batch) {
        let Some(broadcast) = self.broadcasts.get_mut(&id) else {
            return;
        };
        broadcast.next = broadcast.next.max(batch.last + 1);
        broadcast.live |= batch.last >= batch.header.revision;
        let spared = broadcast.watchers.len().saturating_sub(1);
        self.metrics
            .events_coalescing
            .fetch_add(spared as u64, Relaxed);
        let mut slow = Vec::new();
        for place in &broadcast.watchers {
            let Some(state) = self.streams.get_mut(&place.0) else {
                continue;
            };
            if !state.deliver(place.1, &batch) {
                slow.push(*place);
            }
        }
        for place in slow {
            self.leave(id, place);
        }
    }

    /// Watchers whose events are gone are told so; others go on elsewhere.
    fn on_compacted(&mut self, id: BroadcastId, revision: i64) {
        for place in self.dissolve(id) {
            let is_lost = self.watcher(place).is_some_and(|it| it.next < revision);
            if !is_lost {
                self.place(place);
                continue;
            }
            if let Some(watcher) = self.remove(place) {
                if !watcher.created {
                    self.push(
                        place.0,
                        WatchResponse {
                            header: Some(watcher.header),
                            watch_id: place.1,
                            created: true,
                            ..WatchResponse::default()
                        },
                    );
                }
                self.push(
                    place.0,
                    WatchResponse {
                        header: Some(ResponseHeader::default()),
                        watch_id: place.1,
                        canceled: true,
                        compact_revision: revision,
                        ..WatchResponse::default()
                    },
                );
            }
        }
    }

    /// The cluster ended a watch that was opened in somebody's name: that one's watchers end, the
    /// others go on in their own names.
    fn on_refused(&mut self, id: BroadcastId, reason: &str) {
        let token = self.broadcasts.get(&id).map(|it| it.caller.token.clone());
        for place in self.dissolve(id) {
            let own = self.streams.get(&place.0).map(|it| it.caller.token.clone());
            if own != token {
                self.place(place);
                continue;
            }
            let Some(watcher) = self.remove(place) else {
                continue;
            };
            match watcher.created {
                true => self.push(
                    place.0,
                    WatchResponse {
                        header: Some(watcher.header),
                        watch_id: place.1,
                        canceled: true,
                        cancel_reason: reason.to_owned(),
                        ..WatchResponse::default()
                    },
                ),
                false => self.refuse(place.0, watcher.header, reason.to_owned()),
            }
        }
    }

    /// Hands a broadcast's watchers to a live one of the same range, if it may.
    fn merge(&mut self, id: BroadcastId) {
        let Some(own) = self.broadcasts.get(&id).filter(|it| it.established) else {
            return;
        };
        let others = self.by_range.get(&own.range).into_iter().flatten();
        let fits = |other: &&BroadcastId| {
            let Some(target) = self.broadcasts.get(other).filter(|_| **other != id) else {
                return false;
            };
            let is_smaller = target.watchers.len() >= own.watchers.len();
            target.live && target.next <= own.next && (is_smaller || !own.live)
        };
        let Some(target) = others.copied().find(|other| fits(&other)) else {
            return;
        };
        let reached = own.next;
        let moved = self.dissolve(id);
        for place in moved {
            if let Some(watcher) = self.watcher(place) {
                watcher.next = watcher.next.max(reached);
            }
            self.join(target, place);
        }
    }

    /// Ends a broadcast. Returns who was on it; each must be placed or removed.
    fn dissolve(&mut self, id: BroadcastId) -> BTreeSet<Place> {
        let Some(gone) = self.broadcasts.remove(&id) else {
            return BTreeSet::new();
        };
        self.effects.push(Effect::Close(id));
        if let Some(siblings) = self.by_range.get_mut(&gone.range) {
            siblings.retain(|sibling| *sibling != id);
            if siblings.is_empty() {
                self.by_range.remove(&gone.range);
            }
        }
        count(&self.metrics, gone.watchers.len(), 0);
        for place in &gone.watchers {
            if let Some(state) = self.streams.get_mut(&place.0) {
                // Whoever wants to know how far all have come asks again.
                state.awaited = None;
                if let Some(watcher) = state.watchers.get_mut(&place.1) {
                    watcher.broadcast = None;
                }
            }
        }
        gone.watchers
    }

    /// Takes a watcher off a broadcast, which goes when nobody is left.
    fn leave(&mut self, id: BroadcastId, place: Place) {
        let Some(broadcast) = self.broadcasts.get_mut(&id) else {
            return;
        };
        let before = broadcast.watchers.len();
        broadcast.watchers.remove(&place);
        count(&self.metrics, before, broadcast.watchers.len());
        if broadcast.watchers.is_empty() {
            self.dissolve(id);
        }
    }

    fn remove(&mut self, place: Place) -> Option<Watcher> {
        let state = self.streams.get_mut(&place.0)?;
        let watcher = state.watchers.remove(&place.1)?;
        state.lagging.remove(&place.1);
        state.awaited = None;
        if let Some(broadcast) = watcher.broadcast {
            self.leave(broadcast, place);
        }
        Some(watcher)
    }

    fn watcher(&mut self, place: Place) -> Option<&mut Watcher> {
        self.streams.get_mut(&place.0)?.watchers.get_mut(&place.1)
    }

    fn push(&mut self, stream: StreamId, answer: WatchResponse) {
        if let Some(stream) = self.streams.get_mut(&stream) {
            stream.push(answer);
        }
    }
}

impl<O: Outlet> Stream<O> {
    /// The id for a watcher that asks for `asked`, 0 for any; nothing if it is taken.
    fn id_for(&self, asked: WatchId) -> Option<WatchId> {
        match asked {
            0 => {
                // A client may have asked for the last one: then those that are free come again.
                let ids = (self.next_id..=WatchId::MAX).chain(0..self.next_id);
                ids.into_iter().find(|id| !self.watchers.contains_key(id))
            }
            asked => (!self.watchers.contains_key(&asked)).then_some(asked),
        }
    }

    fn refuse(&mut self, header: ResponseHeader, reason: String) {
        self.push(WatchResponse {
            header: Some(header),
            watch_id: NO_WATCHER,
            created: true,
            canceled: true,
            cancel_reason: reason,
            ..WatchResponse::default()
        });
    }

    fn push(&mut self, answer: WatchResponse) {
        let bytes = size_of::<WatchResponse>() + answer.cancel_reason.len();
        self.outlet.push(answer, bytes);
    }

    /// Gives a watcher what concerns it. Returns false when its client must read first; then it
    /// has left its broadcast as far as the stream is concerned.
    fn deliver(&mut self, id: WatchId, batch: &Batch) -> bool {
        let Some(watcher) = self.watchers.get_mut(&id) else {
            return true;
        };
        let events = watcher.select(batch);
        if !events.is_empty() {
            if !self.outlet.has_room() {
                watcher.broadcast = None;
                self.lagging.insert(id);
                self.awaited = None;
                return false;
            }
            watcher.header = batch.header;
            let answer = WatchResponse {
                header: Some(batch.header),
                watch_id: id,
                events,
                ..WatchResponse::default()
            };
            self.outlet.push(answer, batch.bytes);
        }
        watcher.next = watcher.next.max(batch.last + 1);
        true
    }

    /// A broadcast of which the client wants to know has come so far.
    fn on_progress_of(&mut self, id: BroadcastId, header: ResponseHeader) {
        let Some(awaited) = &mut self.awaited else {
            return;
        };
        if !awaited.missing.remove(&id) {
            return;
        }
        let least = awaited.least.filter(|it| it.revision < header.revision);
        let least = least.unwrap_or(header);
        awaited.least = Some(least);
        if awaited.missing.is_empty() {
            self.awaited = None;
            self.push(WatchResponse {
                header: Some(least),
                watch_id: NO_WATCHER,
                ..WatchResponse::default()
            });
        }
    }
}

impl Watcher {
    fn new(request: WatchCreateRequest, header: ResponseHeader) -> Self {
        let filters = |kind: FilterType| request.filters.contains(&i32::from(kind));
        let from_now = request.start_revision == 0;
        Watcher {
            next: match from_now {
                true => header.revision + 1,
                false => request.start_revision,
            },
            from_now,
            created: false,
            header,
            wants_progress: request.progress_notify,
            wants_previous: request.prev_kv,
            no_puts: filters(FilterType::Noput),
            no_deletions: filters(FilterType::Nodelete),
            broadcast: None,
            range: Range {
                key: request.key,
                end: request.range_end,
            },
        }
    }

    /// What of a batch the client was not given yet and wants.
    fn select(&self, batch: &Batch) -> Vec<Event> {
        let events = match self.wants_previous {
            true => &batch.with_previous,
            false => &batch.without,
        };
        if self.next <= batch.first && !self.no_puts && !self.no_deletions {
            return events.clone();
        }
        let wanted = |event: &&Event| {
            let is_filtered = match event.r#type() {
                EventType::Put => self.no_puts,
                EventType::Delete => self.no_deletions,
            };
            !is_filtered && revision(event) >= self.next
        };
        events.iter().filter(wanted).cloned().collect()
    }
}

impl Batch {
    fn new(events: Vec<Event>, header: ResponseHeader) -> Self {
        let length = |event: &Event| {
            let kvs = event.kv.iter().chain(&event.prev_kv);
            let bytes: usize = kvs.map(|kv| kv.key.len() + kv.value.len()).sum();
            size_of::<Event>() + bytes
        };
        let without = events.iter().map(|event| Event {
            prev_kv: None,
            ..event.clone()
        });
        Batch {
            without: without.collect(),
            header,
            first: events.first().map_or(0, revision),
            last: events.last().map_or(0, revision),
            bytes: events.iter().map(length).sum(),
            with_previous: events,
        }
    }
}

fn revision(event: &Event) -> i64 {
    event.kv.as_ref().map_or(0, |kv| kv.mod_revision)
}

fn is_empty(request: &WatchCreateRequest) -> bool {
    let end = &request.range_end[..];
    !end.is_empty() && end != b"\0" && *end <= request.key[..]
}

/// A broadcast of one watcher spares nothing; each further one is a watch less below.
fn count(metrics: &Metrics, before: usize, after: usize) {
    let spared = |watchers: usize| watchers.saturating_sub(1) as i64;
    let change = spared(after) - spared(before);
    metrics.watchers_coalescing.fetch_add(change, Relaxed);
}
