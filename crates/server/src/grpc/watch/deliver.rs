//! Events on their way from the log to the streams.

use std::collections::HashMap;
use std::ops::{Bound, Range};
use std::time::Instant;

use state::Header;
use state::watch::{self, Event};
use storage::backend::Value;

use super::{Hub, Progress, Watcher, WatcherId};
use crate::drive::post::Mail;
use crate::drive::stop::fatal;
use crate::front::{CallId, Net};

/// A stream with more than this queued gets nothing until its client has read on. Above the
/// front end's low-water mark, whose crossing is reported.
const QUEUED_BYTES_MAX: u64 = 256 << 10;
/// A stream with less than this queued goes on by itself: below the low-water mark.
const REVIVED_BYTES_MAX: u64 = 16 << 10;
/// Several revisions share a response up to this size.
const RESPONSE_BYTES: usize = 1 << 20;
/// A round of catching up while nobody writes: long, so that many watchers share what is read.
const LONG: RoundLimits = RoundLimits {
    records: 500,
    bytes: 1 << 20,
    sent_bytes: 2 << 20,
};
/// One beside writers, who find their net thread at it: at most some 50 us.
const SHORT: RoundLimits = RoundLimits {
    records: 64,
    bytes: 32 << 10,
    sent_bytes: 64 << 10,
};
/// What a response may have beyond `--max-request-bytes` before it is split, as in etcd.
const FRAGMENT_OVERHEAD_BYTES: usize = 512 << 10;

/// Bounds of one round of catching up.
struct RoundLimits {
    /// Records that are read.
    records: usize,
    /// Their bytes, but for the last.
    bytes: usize,
    /// What is sent to all watchers that the round serves.
    sent_bytes: usize,
}

/// Above this the memory of a round is given back.
const ROUND_BYTES_KEPT: usize = 1 << 20;

/// The events that are handed out together, and what of them is encoded already.
#[derive(Default)]
pub(super) struct Round {
    /// Field `header` of all responses.
    header: Vec<u8>,
    /// The response up to its events.
    head: Vec<u8>,
    /// Events without what was before, encoded for the first of several watchers.
    encoded: Vec<u8>,
    /// Where an event is in `encoded`, by its place in the round; empty when it is not. None at
    /// all when there is only one watcher.
    ranges: Vec<Range<usize>>,
    /// Records before the events, by the event's place.
    before: HashMap<u32, Option<Value>>,
    /// Events and messages sent, for the metrics.
    sent: (u64, u64),
}

impl Round {
    fn begin(&mut self, header: &Header, revision: i64, events: usize, watchers: usize) {
        self.header.clear();
        watch::write_header(header, revision, &mut self.header);
        let shared = if watchers > 1 { events } else { 0 };
        self.ranges.resize(shared, 0..0);
    }

    /// Gives memory back; returns how many events and messages were sent.
    fn end(&mut self) -> (u64, u64) {
        self.encoded.clear();
        self.encoded.shrink_to(ROUND_BYTES_KEPT);
        self.ranges.clear();
        self.before.clear();
        std::mem::take(&mut self.sent)
    }

    /// The event of a place, encoded; `None` if it is encoded for each watcher.
    fn shared(&mut self, place: u32, event: &Event) -> Option<&[u8]> {
        let range = self.ranges.get_mut(place as usize)?;
        if range.start == range.end {
            let begin = self.encoded.len();
            event.write(None, &mut self.encoded);
            *range = begin..self.encoded.len();
        }
        Some(&self.encoded[range.clone()])
    }
}

/// Some of a round's events, for one watcher.
struct Selection<'a> {
    events: &'a [&'a Event],
    /// Places in `events`.
    chosen: &'a [u32],
    prev_kv: bool,
    id: i64,
    fragment: bool,
}

impl Selection<'_> {
    fn event_len(&self, place: u32, round: &mut Round) -> usize {
        let event = self.events[place as usize];
        if self.prev_kv {
            let before = round
                .before
                .get(&place)
                .and_then(|record| record.as_deref());
            return event.encoded_len(before);
        }
        match round.shared(place, event) {
            Some(bytes) => bytes.len(),
            None => event.encoded_len(None),
        }
    }

    /// Appends an event whose length was asked for.
    fn write(&self, place: u32, round: &Round, out: &mut Vec<u8>) {
        let event = self.events[place as usize];
        if self.prev_kv {
            let before = round
                .before
                .get(&place)
                .and_then(|record| record.as_deref());
            return event.write(before, out);
        }
        match round.ranges.get(place as usize) {
            Some(range) => out.extend_from_slice(&round.encoded[range.clone()]),
            None => event.write(None, out),
        }
    }

    fn send(&self, net: &mut Net, call: CallId, round: &mut Round) {
        let events: usize = self
            .chosen
            .iter()
            .map(|&place| self.event_len(place, round))
            .sum();
        round.head.clear();
        round.head.extend_from_slice(&round.header);
        watch::write_id(self.id, self.fragment, &mut round.head);
        net.send_encoded(call, round.head.len() + events, |out| {
            out.extend_from_slice(&round.head);
            for &place in self.chosen {
                self.write(place, round, out);
            }
        });
        round.sent.0 += self.chosen.len() as u64;
        round.sent.1 += 1;
    }
}

impl Watcher {
    fn wants(&self, event: &Event) -> bool {
        event.revision() >= self.next
            && !(if event.is_delete() {
                self.no_delete
            } else {
                self.no_put
            })
    }
}

impl Hub {
    /// Gives the synced watchers what was published since the last time.
    pub(super) fn follow(&mut self, net: &mut Net) {
        if !self.following || self.shared.view.revision() <= self.routed {
            return;
        }
        if self.watchers.len() == self.parked + self.lagging.len() {
            self.routed = self.shared.view.revision();
            return;
        }
        let tail = self.shared.view.tail(self.routed + 1);
        if tail.first > self.routed + 1 {
            self.fall_behind();
            self.routed = tail.revision;
            return;
        }
        let events: Vec<&Event> = tail
            .batches
            .iter()
            .flat_map(|batch| batch.events())
            .filter(|event| event.revision() > self.routed)
            .collect();
        self.route(&events, Progress::Synced);
        self.routed = tail.revision;
        self.deliver_round(net, &events, tail.revision);
    }

    /// Sends what was routed; a watcher whose stream has no room stays where it is.
    fn deliver_round(&mut self, net: &mut Net, events: &[&Event], revision: i64) {
        let touched = std::mem::take(&mut self.touched);
        let header = self.shared.header();
        let begin = Instant::now();
        self.round
            .begin(&header, revision, events.len(), touched.len());
        for &at in &touched {
            if let Some(next) = self.deliver(net, at, events) {
                self.move_to(at, Progress::Parked, next);
            }
        }
        self.touched = touched;
        let (events, messages) = self.round.end();
        let metrics = &self.shared.metrics;
        metrics.watch_events.add(events);
        if messages > 0 {
            // Responses of a round are sent together and take an equal share of its time each.
            let took = begin.elapsed().as_secs_f64();
            let share = took / messages as f64;
            metrics.watch_response.observe_many(share, messages);
            let per_event = took / events.max(1) as f64;
            metrics.watch_per_event.observe_many(per_event, messages);
        }
        if let Some(meter) = self.meter {
            self.shared.metrics.grpc.sent(meter, messages);
        }
    }

    /// The log no longer has what is due: the synced watchers read from the history.
    fn fall_behind(&mut self) {
        let from = self.routed + 1;
        let synced: Vec<WatcherId> = self
            .watchers
            .iter()
            .filter(|(_, watcher)| watcher.progress == Progress::Synced)
            .map(|(at, _)| at as WatcherId)
            .collect();
        for at in synced {
            let next = self.watchers[at as usize].next.max(from);
            self.move_to(at, Progress::Lagging, next);
        }
    }

    /// Hands events out to the watchers that are in this state of progress and want them.
    fn route(&mut self, events: &[&Event], progress: Progress) {
        let Hub {
            matcher,
            watchers,
            touched,
            ..
        } = self;
        touched.clear();
        for (place, event) in events.iter().enumerate() {
            matcher.for_each(event.key(), |at| {
                let watcher = &mut watchers[at as usize];
                if watcher.progress == progress && watcher.wants(event) {
                    if watcher.pending.is_empty() {
                        touched.push(at);
                    }
                    watcher.pending.push(place as u32);
                }
            });
        }
    }

    /// Whether nothing may be added to a stream's queue; its client is then asked for nothing.
    pub(super) fn is_choked(&mut self, net: &mut Net, stream: usize) -> bool {
        let stream = &mut self.streams[stream];
        let room = net.queue_room(QUEUED_BYTES_MAX);
        let queued = net.queued_bytes(stream.call).unwrap_or(0);
        if !stream.choked && room.is_none_or(|room| queued > room) {
            stream.choked = true;
            self.choked += 1;
            net.hold(stream.call);
        }
        stream.choked
    }

    /// Lets streams go on that were choked with too little queued for being told when it is gone.
    pub(super) fn revive(&mut self, net: &mut Net) {
        if self.choked == 0 || net.queue_room(REVIVED_BYTES_MAX) != Some(REVIVED_BYTES_MAX) {
            return;
        }
        let streams = self.streams.iter().filter(|(_, stream)| stream.choked);
        let calls: Vec<CallId> = streams.map(|(_, stream)| stream.call).collect();
        for call in calls {
            if net.queued_bytes(call).unwrap_or(0) <= REVIVED_BYTES_MAX {
                self.on_writable(net, call);
            }
        }
    }

    /// Sends a watcher its pending events. Returns the revision of the first that its stream has
    /// no room for.
    fn deliver(&mut self, net: &mut Net, at: WatcherId, events: &[&Event]) -> Option<i64> {
        let watcher = &mut self.watchers[at as usize];
        let stream = watcher.stream;
        let mut pending = std::mem::take(&mut watcher.pending);
        if watcher.prev_kv {
            self.look_up(at, &pending, events);
        }
        let mut rest = &pending[..];
        let mut undelivered = None;
        while let Some(&first) = rest.first() {
            if self.is_choked(net, stream) {
                undelivered = Some(events[first as usize].revision());
                break;
            }
            let (now, later) = rest.split_at(whole_revisions(rest, events));
            self.send_events(net, at, events, now);
            rest = later;
        }
        pending.clear();
        self.watchers[at as usize].pending = pending;
        undelivered
    }

    /// Sends events of whole revisions, in parts if the watcher wants that.
    fn send_events(&mut self, net: &mut Net, at: WatcherId, events: &[&Event], chosen: &[u32]) {
        let watcher = &mut self.watchers[at as usize];
        watcher.quiet = false;
        let call = self.streams[watcher.stream].call;
        let mut selection = Selection {
            events,
            chosen,
            prev_kv: watcher.prev_kv,
            id: watcher.id,
            fragment: false,
        };
        if !watcher.fragment {
            return selection.send(net, call, &mut self.round);
        }
        let part_max = self.shared.limits.request_bytes_max + FRAGMENT_OVERHEAD_BYTES;
        let mut left = chosen;
        while !left.is_empty() {
            let mut bytes = 0;
            let fits = |&&place: &&u32| {
                bytes += selection.event_len(place, &mut self.round);
                bytes < part_max
            };
            let count = left.iter().take_while(fits).count().max(1);
            let (part, rest) = left.split_at(count);
            selection.chosen = part;
            selection.fragment = !rest.is_empty();
            selection.send(net, call, &mut self.round);
            left = rest;
        }
    }

    /// Finds what keys were before events.
    fn look_up(&mut self, at: WatcherId, places: &[u32], events: &[&Event]) {
        let keys = &self.watchers[at as usize].keys;
        for &place in places {
            let event = events[place as usize];
            if event.is_create() || self.round.before.contains_key(&place) {
                continue;
            }
            match self.shared.view.before(keys, event.key(), event.revision()) {
                Ok(record) => self.round.before.insert(place, record),
                Err(error) => fatal("read the previous value of a key", &error),
            };
        }
    }

    /// The end of a turn: new events first, then one round for those who lag.
    pub(in crate::grpc) fn on_turn_end(&mut self, net: &mut Net) {
        self.follow(net);
        if !self.lagging.is_empty() {
            self.catch_up(net);
        }
        if !self.lagging.is_empty() {
            self.mailbox.push(&mut vec![Mail::Events]);
        } else if self.following {
            self.stop_watching_if_idle();
        }
    }

    /// Whoever is served next: in rounds by cursor, so that those who are close to each other
    /// share what is read; every other time whoever lags least, to be done with it.
    fn next_lagging(&mut self) -> Option<(i64, WatcherId)> {
        self.least_next = !self.least_next;
        if self.least_next {
            return self.lagging.last().copied();
        }
        let behind = (Bound::Excluded(self.turn), Bound::Unbounded);
        let next = self.lagging.range(behind).next().copied();
        self.turn = next.or_else(|| self.lagging.first().copied())?;
        Some(self.turn)
    }

    /// Short rounds while there were writes since the one before.
    fn round_limits(&mut self) -> &'static RoundLimits {
        let revision = self.shared.view.revision();
        let written = revision != self.round_revision;
        self.round_revision = revision;
        if written { &SHORT } else { &LONG }
    }

    /// Reads on from one cursor, for every watcher whose cursor lies in what is read.
    fn catch_up(&mut self, net: &mut Net) {
        let Some((from, first)) = self.next_lagging() else {
            return;
        };
        let stream = self.watchers[first as usize].stream;
        if self.is_choked(net, stream) {
            return self.move_to(first, Progress::Parked, from);
        }
        let limits = self.round_limits();
        let chunk = match self.shared.view.events(from, limits.records, limits.bytes) {
            Ok(chunk) => chunk,
            Err(error) => fatal("read the history of keys", &error),
        };
        let through = chunk.through.max(from - 1);
        let bytes: usize = chunk.events.iter().map(|one| one.encoded_len(None)).sum();
        let readers: Vec<(i64, WatcherId)> = self
            .lagging
            .range((from, 0)..=(through.max(from), WatcherId::MAX))
            .take(1 + limits.sent_bytes / bytes.max(1))
            .copied()
            .collect();
        for &(next, at) in &readers {
            let stream = self.watchers[at as usize].stream;
            if next < chunk.compacted {
                let id = self.watchers[at as usize].id;
                self.remove(at);
                self.send_compacted(net, stream, id, chunk.compacted);
            } else if self.is_choked(net, stream) {
                self.move_to(at, Progress::Parked, next);
            } else {
                self.move_to(at, Progress::Reading, next);
            }
        }
        let events: Vec<&Event> = chunk.events.iter().collect();
        self.route(&events, Progress::Reading);
        self.deliver_round(net, &events, chunk.revision);
        for (_, at) in readers {
            if let Some(watcher) = self.watchers.get(at as usize)
                && watcher.progress == Progress::Reading
            {
                let next = watcher.next.max(through + 1);
                let synced = through >= self.routed;
                let progress = if synced {
                    Progress::Synced
                } else {
                    Progress::Lagging
                };
                self.move_to(at, progress, next);
            }
        }
        self.stop_watching_if_idle();
    }
}

/// How many of the first events make a response: whole revisions, to about the usual size.
fn whole_revisions(places: &[u32], events: &[&Event]) -> usize {
    if places.len() == 1 {
        return 1;
    }
    let mut bytes = 0;
    let mut last = None;
    for (count, &place) in places.iter().enumerate() {
        let event = events[place as usize];
        if bytes > RESPONSE_BYTES && last != Some(event.revision()) {
            return count;
        }
        bytes += event.encoded_len(None);
        last = Some(event.revision());
    }
    places.len()
}
