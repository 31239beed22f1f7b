//! `etcdserverpb.Watch`: watchers as cursors on the event log.
//!
//! ```text
//!   event log ── new batches ──▶ matcher ──▶ synced watchers ──▶ their streams
//!        └────── from a cursor ─▶ matcher ──▶ lagging watchers ──▶ (until they are synced)
//!   history ──┘
//! ```
//!
//! Everything here belongs to one net thread. A watcher is *synced* when it has everything up to
//! [`Hub::routed`]; *lagging* when it has to read from its cursor first, in turns with the others;
//! *parked* when its stream has too much queued: it stays a cursor until the client has read on.
//! No events are queued anywhere but in the stream, and there only up to a bound.

mod deliver;
mod matcher;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use api::pb::etcdserverpb as pb;
use api::pb::etcdserverpb::watch_create_request::FilterType;
use api::pb::etcdserverpb::watch_request::RequestUnion;
use api::{Code, Error, Status};
use bytes::Bytes;
use prost::Message;
use slab::Slab;
use state::Authorised;

use self::deliver::Round;
use self::matcher::{Keys, Matcher, WatcherId};
use super::decode;
use super::method::Rpc;
use super::pending::Waiting;
use crate::auth::Credentials;
use crate::drive::Shared;
use crate::drive::post::Mail;
use crate::front::{CallId, Mailbox, Net};
use crate::metrics::Method as Meter;
use crate::trace::Begun;

/// The id in answers that concern no watcher.
const NO_ID: i64 = -1;
const DUPLICATE_ID: &str = "mvcc: duplicate watch ID provided on the WatchStream";
const EMPTY_RANGE: &str = "mvcc: watcher range is empty";

/// What a watcher takes in memory besides its keys.
const WATCHER_BYTES: usize = 384;
/// What the watchers of one net thread may take; more are refused.
const WATCHERS_BYTES_MAX: usize = 512 << 20;

/// How far a watcher is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    /// It has everything up to [`Hub::routed`], or waits for a later revision.
    Synced,
    /// It waits for its turn to read on from its cursor.
    Lagging,
    /// It is being served from its cursor right now.
    Reading,
    /// It waits for its stream.
    Parked,
}

struct Watcher {
    stream: usize,
    id: i64,
    /// What it may see was decided when it was created, and stays so, as in etcd.
    keys: Authorised<Keys>,
    /// As asked for; 0 for "from now on".
    start: i64,
    /// The cursor: nothing before this revision is due.
    next: i64,
    progress: Progress,
    no_put: bool,
    no_delete: bool,
    prev_kv: bool,
    fragment: bool,
    notify: bool,
    /// Nothing was sent to it since the last round of notifications.
    quiet: bool,
    /// Events that this round has for it, by their place in the round.
    pending: Vec<u32>,
}

struct Stream {
    call: CallId,
    begun: Instant,
    span: Option<Begun>,
    watchers: BTreeMap<i64, WatcherId>,
    /// The next id to give to a watcher without one.
    next_id: i64,
    needs_leader: bool,
    /// Looked at for each watcher that is created.
    credentials: Credentials,
    /// So much is queued on it that nothing may be added.
    choked: bool,
    parked: Vec<WatcherId>,
    /// Watchers that are not synced.
    behind: usize,
    /// Watchers that want notifications.
    notified: usize,
    /// When their next round is due.
    notify_at: Instant,
}

/// The watch streams of one net thread.
pub(super) struct Hub {
    shared: Arc<Shared>,
    thread: u8,
    meter: Option<Meter>,
    /// This thread's own, to be woken for more work.
    mailbox: Mailbox<Mail>,
    streams: Slab<Stream>,
    by_call: HashMap<CallId, usize>,
    watchers: Slab<Watcher>,
    matcher: Matcher,
    /// Events up to this revision were given to the synced watchers.
    routed: i64,
    /// The lagging ones by cursor.
    lagging: BTreeSet<(i64, WatcherId)>,
    /// Where the rounds through the lagging ones are.
    turn: (i64, WatcherId),
    /// The next round serves whoever lags least.
    least_next: bool,
    /// The newest revision when the last round of catching up began.
    round_revision: i64,
    /// Parked watchers, who need no events.
    parked: usize,
    /// Events are kept for this thread, and routed.
    following: bool,
    /// Streams that are choked.
    choked: usize,
    /// Memory of all watchers, in bytes.
    bytes: usize,
    /// Watchers with pending events in this round.
    touched: Vec<WatcherId>,
    round: Round,
    /// Since when no leader is known.
    leaderless: Option<Instant>,
    /// Spreads the rounds of notifications.
    jitter: u32,
}

impl Hub {
    pub(super) fn new(
        shared: Arc<Shared>,
        thread: u8,
        meter: Option<Meter>,
        mailbox: Mailbox<Mail>,
    ) -> Hub {
        Hub {
            shared,
            thread,
            meter,
            mailbox,
            streams: Slab::new(),
            by_call: HashMap::new(),
            watchers: Slab::new(),
            matcher: Matcher::default(),
            routed: 0,
            lagging: BTreeSet::new(),
            turn: (0, 0),
            least_next: false,
            round_revision: 0,
            parked: 0,
            following: false,
            choked: 0,
            bytes: 0,
            touched: Vec::new(),
            round: Round::default(),
            leaderless: None,
            jitter: u32::from(thread) * 7,
        }
    }

    pub(super) fn open(
        &mut self,
        net: &Net,
        waiting: &Waiting,
        needs_leader: bool,
        credentials: Credentials,
    ) {
        let call = waiting.call;
        let notify_at = net.now() + self.interval();
        let stream = self.streams.insert(Stream {
            call,
            begun: waiting.begun,
            span: waiting.span.as_deref().copied(),
            watchers: BTreeMap::new(),
            next_id: 0,
            needs_leader,
            credentials,
            choked: false,
            parked: Vec::new(),
            behind: 0,
            notified: 0,
            notify_at,
        });
        self.by_call.insert(call, stream);
        self.shared.metrics.watch_streams.add(1);
    }

    /// Whether a call is a watch stream.
    pub(super) fn has(&self, call: CallId) -> bool {
        self.by_call.contains_key(&call)
    }

    /// What the stream showed.
    pub(super) fn credentials(&mut self, call: CallId) -> Option<&mut Credentials> {
        let stream = *self.by_call.get(&call)?;
        Some(&mut self.streams[stream].credentials)
    }

    /// The interval of notifications, and up to a tenth of it more.
    fn interval(&mut self) -> Duration {
        self.jitter = (self.jitter + 37) % 101;
        let interval = self.shared.limits.progress_interval;
        interval + interval / 1000 * self.jitter
    }

    pub(super) fn on_message(&mut self, net: &mut Net, call: CallId, message: Bytes) {
        let Some(&stream) = self.by_call.get(&call) else {
            return;
        };
        if let Some(meter) = self.meter {
            self.shared.metrics.grpc.received(meter, 1);
        }
        let request: pb::WatchRequest = match decode(message) {
            Ok(request) => request,
            Err(status) => {
                let failures = &self.shared.metrics.stream_failures;
                failures.with(["watch", "receive"]).inc();
                return self.end(net, stream, status);
            }
        };
        match request.request_union {
            Some(RequestUnion::CreateRequest(request)) => self.create(net, stream, &request),
            Some(RequestUnion::CancelRequest(request)) => {
                self.cancel(net, stream, request.watch_id);
            }
            Some(RequestUnion::ProgressRequest(_)) => self.report_progress(net, stream),
            None => {}
        }
    }

    fn create(&mut self, net: &mut Net, stream: usize, request: &pb::WatchCreateRequest) {
        self.start_following();
        let now = self.shared.view.tail(i64::MAX);
        let mut response = pb::WatchResponse {
            header: Some(self.shared.header().message(now.revision)),
            created: true,
            ..Default::default()
        };
        let keys = match self.check(stream, request) {
            Ok(keys) => keys,
            Err(reason) => {
                response.watch_id = NO_ID;
                response.canceled = true;
                response.cancel_reason = reason.into_owned();
                self.send(net, stream, &response);
                self.stop_watching_if_idle();
                return;
            }
        };
        let id = self.id_for(stream, request.watch_id);
        response.watch_id = id;
        self.send(net, stream, &response);
        let start = request.start_revision;
        if start > 0 && start < now.compacted {
            self.send_compacted(net, stream, id, now.compacted);
            self.stop_watching_if_idle();
            return;
        }
        let (next, progress) = match start {
            0 => (now.revision + 1, Progress::Synced),
            start if start > now.revision => (start, Progress::Synced),
            start => (start, Progress::Lagging),
        };
        let has = |filter: FilterType| request.filters.contains(&(filter as i32));
        let watcher = Watcher {
            stream,
            id,
            keys,
            start,
            next,
            progress: Progress::Synced,
            no_put: has(FilterType::Noput),
            no_delete: has(FilterType::Nodelete),
            prev_kv: request.prev_kv,
            fragment: request.fragment,
            notify: request.progress_notify,
            quiet: true,
            pending: Vec::new(),
        };
        self.add(watcher, progress);
    }

    /// What a watcher may watch, or why it is refused.
    fn check(
        &self,
        stream: usize,
        request: &pb::WatchCreateRequest,
    ) -> Result<Authorised<Keys>, Cow<'static, str>> {
        if request.start_revision < 0 {
            return Err(Error::Compacted.message().into());
        }
        let keys = self.authorise(stream, keys_of(request))?;
        if let Keys::Range(begin, Some(end)) = &*keys
            && begin >= end
        {
            return Err(EMPTY_RANGE.into());
        }
        let id = request.watch_id;
        if id != 0 && self.streams[stream].watchers.contains_key(&id) {
            return Err(DUPLICATE_ID.into());
        }
        if self.bytes + WATCHER_BYTES + matcher::len(&keys) > WATCHERS_BYTES_MAX {
            return Err(Error::TooManyRequests.message().into());
        }
        Ok(keys)
    }

    /// Asks for the caller as the stream's credentials name it now.
    fn authorise(&self, stream: usize, keys: Keys) -> Result<Authorised<Keys>, Cow<'static, str>> {
        let who = self.shared.sender(&self.streams[stream].credentials);
        let caller = who.caller();
        let authorised = caller.and_then(|caller| self.shared.view.authorise(caller, keys));
        authorised.map_err(|error| Cow::Owned(go_status(error)))
    }

    fn id_for(&mut self, stream: usize, asked: i64) -> i64 {
        if asked != 0 {
            return asked;
        }
        let stream = &mut self.streams[stream];
        while stream.watchers.contains_key(&stream.next_id) {
            stream.next_id += 1;
        }
        stream.next_id += 1;
        stream.next_id - 1
    }

    fn add(&mut self, watcher: Watcher, progress: Progress) {
        self.bytes += WATCHER_BYTES + matcher::len(&watcher.keys);
        self.shared.metrics.watchers.add(1);
        let (stream, id, next) = (watcher.stream, watcher.id, watcher.next);
        let notified = usize::from(watcher.notify);
        let keys = watcher.keys.clone();
        let at = self.watchers.insert(watcher);
        let at = WatcherId::try_from(at).expect("the bound on memory comes long before");
        self.matcher.insert(&keys, at);
        let stream = &mut self.streams[stream];
        stream.watchers.insert(id, at);
        stream.notified += notified;
        self.move_to(at, progress, next);
    }

    /// Puts a watcher's cursor at `next`.
    fn move_to(&mut self, at: WatcherId, progress: Progress, next: i64) {
        let watcher = &mut self.watchers[at as usize];
        if watcher.progress == Progress::Lagging {
            self.lagging.remove(&(watcher.next, at));
        }
        let was_synced = watcher.progress == Progress::Synced;
        let was_parked = watcher.progress == Progress::Parked;
        watcher.progress = progress;
        watcher.next = next;
        self.parked -= usize::from(was_parked);
        self.parked += usize::from(progress == Progress::Parked);
        let stream = &mut self.streams[watcher.stream];
        match (was_synced, progress == Progress::Synced) {
            (true, false) => {
                stream.behind += 1;
                self.shared.metrics.slow_watchers.add(1);
            }
            (false, true) => {
                stream.behind -= 1;
                self.shared.metrics.slow_watchers.add(-1);
            }
            _ => {}
        }
        match progress {
            Progress::Lagging => {
                self.lagging.insert((next, at));
            }
            Progress::Parked => stream.parked.push(at),
            Progress::Synced | Progress::Reading => {}
        }
        if was_parked && progress != Progress::Parked {
            self.start_following();
        }
    }

    /// Has apply keep events for this thread. What it published before is not due: nobody was
    /// synced.
    fn start_following(&mut self) {
        if !self.following {
            self.following = true;
            self.shared.view.set_watching(self.thread, true);
            self.routed = self.shared.view.tail(i64::MAX).revision;
        }
    }

    fn remove(&mut self, at: WatcherId) {
        let next = self.watchers[at as usize].next;
        self.move_to(at, Progress::Synced, next);
        let watcher = self.watchers.remove(at as usize);
        self.matcher.remove(&watcher.keys, at);
        self.bytes -= WATCHER_BYTES + matcher::len(&watcher.keys);
        self.shared.metrics.watchers.add(-1);
        let stream = &mut self.streams[watcher.stream];
        stream.watchers.remove(&watcher.id);
        stream.notified -= usize::from(watcher.notify);
    }

    /// Nobody is here, or everybody waits for a client: writers owe this thread nothing.
    pub(super) fn stop_watching_if_idle(&mut self) {
        if self.parked == self.watchers.len() {
            self.following = false;
            self.shared.view.set_watching(self.thread, false);
        }
    }

    fn cancel(&mut self, net: &mut Net, stream: usize, id: i64) {
        let Some(&at) = self.streams[stream].watchers.get(&id) else {
            return;
        };
        self.remove(at);
        self.stop_watching_if_idle();
        let response = pb::WatchResponse {
            header: Some(self.shared.header().message(self.shared.view.revision())),
            watch_id: id,
            canceled: true,
            ..Default::default()
        };
        self.send(net, stream, &response);
    }

    /// Tells how far the stream is, when all its watchers are that far.
    fn report_progress(&mut self, net: &mut Net, stream: usize) {
        self.follow(net);
        let routed = self.routed;
        let Stream {
            watchers,
            behind,
            choked,
            ..
        } = &self.streams[stream];
        let waits = |at: &WatcherId| self.watchers[*at as usize].start > routed;
        if watchers.is_empty() || *behind > 0 || *choked || watchers.values().any(waits) {
            return;
        }
        self.send_progress(net, stream, NO_ID);
    }

    fn send_progress(&mut self, net: &mut Net, stream: usize, watch_id: i64) {
        let begin = Instant::now();
        let response = pb::WatchResponse {
            header: Some(self.shared.header().message(self.routed)),
            watch_id,
            ..Default::default()
        };
        self.put(net, stream, &response);
        let progress = &self.shared.metrics.watch_progress;
        progress.observe_seconds(begin.elapsed());
    }

    /// A watcher's cursor lies below the compaction: it cannot have every event.
    fn send_compacted(&mut self, net: &mut Net, stream: usize, watch_id: i64, compacted: i64) {
        let response = pb::WatchResponse {
            header: Some(self.shared.header().message(0)),
            watch_id,
            canceled: true,
            compact_revision: compacted,
            ..Default::default()
        };
        self.send(net, stream, &response);
    }

    /// Sends what a request on the stream is answered with, or what ends a watcher.
    fn send(&mut self, net: &mut Net, stream: usize, response: &pb::WatchResponse) {
        let begin = Instant::now();
        self.put(net, stream, response);
        let control = &self.shared.metrics.watch_control;
        control.observe_seconds(begin.elapsed());
    }

    fn put(&mut self, net: &mut Net, stream: usize, response: &pb::WatchResponse) {
        net.send(self.streams[stream].call, response.encode_to_vec());
        self.count_sent();
        // What was asked on a stream that is not read from must not pile up either.
        self.is_choked(net, stream);
    }

    fn count_sent(&self) {
        if let Some(meter) = self.meter {
            self.shared.metrics.grpc.sent(meter, 1);
        }
    }

    fn end(&mut self, net: &mut Net, stream: usize, status: Status) {
        net.finish(self.streams[stream].call, status.clone());
        self.forget(stream, status.code);
    }

    fn forget(&mut self, stream: usize, code: Code) {
        let watchers = std::mem::take(&mut self.streams[stream].watchers);
        watchers.into_values().rev().for_each(|at| self.remove(at));
        let stream = self.streams.remove(stream);
        self.choked -= usize::from(stream.choked);
        self.by_call.remove(&stream.call);
        self.stop_watching_if_idle();
        self.shared.metrics.watch_streams.add(-1);
        if let (Some(span), Some(tracer)) = (stream.span, &self.shared.tracer) {
            tracer.end(span, Rpc::Watch.path(), stream.begun, code);
        }
        if let Some(meter) = self.meter {
            let grpc = &self.shared.metrics.grpc;
            grpc.handled(meter, code, 1);
            grpc.took(meter, stream.begun);
        }
    }

    pub(super) fn on_cancel(&mut self, call: CallId) {
        if let Some(&stream) = self.by_call.get(&call) {
            self.forget(stream, Code::Canceled);
        }
    }

    /// The client has read on.
    pub(super) fn on_writable(&mut self, net: &mut Net, call: CallId) {
        let Some(&at) = self.by_call.get(&call) else {
            return;
        };
        let stream = &mut self.streams[at];
        if std::mem::take(&mut stream.choked) {
            self.choked -= 1;
            net.resume(call);
        }
        for watcher in std::mem::take(&mut stream.parked) {
            // The place may have another watcher by now, or none.
            if let Some(parked) = self.watchers.get(watcher as usize)
                && parked.stream == at
                && parked.progress == Progress::Parked
            {
                let next = parked.next;
                self.move_to(watcher, Progress::Lagging, next);
            }
        }
    }

    pub(super) fn on_drain(&mut self, net: &mut Net) {
        let streams: Vec<usize> = self.by_call.values().copied().collect();
        for stream in streams {
            self.end(net, stream, Error::Stopped.into());
        }
    }

    pub(super) fn on_tick(&mut self, net: &mut Net, now: Instant) {
        self.check_leader(net, now);
        self.revive(net);
        let due: Vec<usize> = self
            .streams
            .iter()
            .filter(|(_, stream)| stream.notified > 0 && stream.notify_at <= now)
            .map(|(at, _)| at)
            .collect();
        if due.is_empty() {
            return;
        }
        self.follow(net);
        for stream in due {
            self.streams[stream].notify_at = now + self.interval();
            let watchers: Vec<WatcherId> =
                self.streams[stream].watchers.values().copied().collect();
            for at in watchers {
                let watcher = &mut self.watchers[at as usize];
                let quiet = std::mem::replace(&mut watcher.quiet, true);
                let synced = watcher.progress == Progress::Synced && watcher.start <= self.routed;
                let id = watcher.id;
                if watcher.notify && quiet && synced && !self.is_choked(net, stream) {
                    self.send_progress(net, stream, id);
                }
            }
        }
    }

    /// Ends the streams that need a leader when there has been none for too long.
    fn check_leader(&mut self, net: &mut Net, now: Instant) {
        if self.shared.status.leader().is_some() {
            self.leaderless = None;
            return;
        }
        let since = *self.leaderless.get_or_insert(now);
        if now - since < self.shared.limits.leaderless_max {
            return;
        }
        let streams: Vec<usize> = self
            .streams
            .iter()
            .filter(|(_, stream)| stream.needs_leader)
            .map(|(at, _)| at)
            .collect();
        for stream in streams {
            self.end(net, stream, Error::NoLeader.into());
        }
    }
}

/// A refusal as Go prints a status.
fn go_status(error: Error) -> String {
    format!("rpc error: code = {:?} desc = {error}", error.code())
}

/// What a request watches: its bytes are copied, so that they keep nothing else alive.
fn keys_of(request: &pb::WatchCreateRequest) -> Keys {
    let key = match &request.key[..] {
        [] => Bytes::from_static(&[0]),
        key => Bytes::copy_from_slice(key),
    };
    match &request.range_end[..] {
        [] => Keys::One(key),
        [0] => Keys::Range(key, None),
        end => Keys::Range(key, Some(Bytes::copy_from_slice(end))),
    }
}
