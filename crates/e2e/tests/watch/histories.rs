//! Random histories, each watched from many revisions in many ways.
//!
//! A seed decides everything but the server's pace: `WATCH_SEED=N` runs that one alone.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use api::pb::etcdserverpb::request_op::Request;
use api::pb::etcdserverpb::watch_request::RequestUnion;
use api::pb::etcdserverpb::{
    DeleteRangeRequest, LeaseGrantRequest, LeaseRevokeRequest, PutRequest, RequestOp, TxnRequest,
    WatchCreateRequest, WatchProgressRequest, WatchResponse,
};
use bytes::Bytes;
use client::stub::LeaseClient;
use e2e::kv::Kv;
use e2e::random::Random;
use tonic::transport::Channel;

use super::stream::{Stream, revision, start};

const KEYS: u64 = 20;
const STREAMS: u64 = 4;
const STEPS: u64 = 1200;

/// A change as the writer knows it: the key, its value unless it is gone, and the value before.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Change {
    key: Bytes,
    value: Option<Bytes>,
    before: Option<Bytes>,
}

/// The changes of each revision, in order.
type History = BTreeMap<i64, Vec<Change>>;

/// A writer that knows what its writes must be seen as.
struct Writer {
    kv: Kv,
    leases: LeaseClient<Channel>,
    random: Random,
    keys: BTreeMap<Bytes, Bytes>,
    /// Keys under each lease that exists.
    leased: BTreeMap<i64, BTreeSet<Bytes>>,
    history: History,
    compacted: i64,
    newest: i64,
}

impl Writer {
    fn new(kv: &Kv, seed: u64) -> Self {
        Self {
            kv: kv.clone(),
            leases: LeaseClient::new(kv.channel()),
            random: Random::new(seed),
            keys: BTreeMap::new(),
            leased: BTreeMap::new(),
            history: History::new(),
            compacted: 0,
            newest: 1,
        }
    }

    fn key(&mut self) -> Bytes {
        format!("k{:02}", self.random.below(KEYS)).into()
    }

    /// Most are short; some are so long that a client which does not read soon has a backlog.
    fn value(&mut self) -> Bytes {
        let width = if self.random.below(10) == 0 {
            30_000
        } else {
            50
        };
        format!("{:0width$}", self.newest).into()
    }

    /// Notes what a write that made a new revision has changed.
    fn note(&mut self, at: i64, changes: Vec<(Bytes, Option<Bytes>)>) {
        assert_eq!(at, self.newest + 1);
        self.newest = at;
        let mut noted = Vec::new();
        for (key, value) in changes {
            let before = match &value {
                Some(value) => self.keys.insert(key.clone(), value.clone()),
                None => self.keys.remove(&key),
            };
            self.leased.values_mut().for_each(|keys| {
                keys.remove(&key);
            });
            noted.push(Change { key, value, before });
        }
        self.history.insert(at, noted);
    }

    async fn put(&mut self, key: Bytes) {
        let value = self.value();
        let at = self.kv.put(key.clone(), value.clone()).await;
        self.note(at.expect("a put"), vec![(key, Some(value))]);
    }

    async fn delete(&mut self) {
        let (a, b) = (self.key(), self.key());
        let (begin, end) = (a.clone().min(b.clone()), a.max(b));
        if begin == end {
            return;
        }
        let keys = self.keys.range(begin.clone()..end.clone());
        let gone: Vec<(Bytes, Option<Bytes>)> = keys.map(|(key, _)| (key.clone(), None)).collect();
        self.kv.delete(begin, end).await.expect("a deletion");
        if !gone.is_empty() {
            self.note(self.newest + 1, gone);
        }
    }

    /// Puts and deletions of keys in no order.
    async fn txn(&mut self) {
        let value = self.value();
        let mut changes: Vec<(Bytes, Option<Bytes>)> = Vec::new();
        let (mut named, mut success) = (BTreeSet::new(), Vec::new());
        for _ in 0..1 + self.random.below(5) {
            let key = self.key();
            if !named.insert(key.clone()) {
                continue;
            }
            let request = if self.random.below(3) > 0 {
                changes.push((key.clone(), Some(value.clone())));
                Request::RequestPut(PutRequest {
                    key,
                    value: value.clone(),
                    ..Default::default()
                })
            } else {
                if self.keys.contains_key(&key) {
                    changes.push((key.clone(), None));
                }
                Request::RequestDeleteRange(DeleteRangeRequest {
                    key,
                    ..Default::default()
                })
            };
            success.push(RequestOp {
                request: Some(request),
            });
        }
        let request = TxnRequest {
            success,
            ..Default::default()
        };
        self.kv.txn(request).await.expect("a transaction");
        if !changes.is_empty() {
            self.note(self.newest + 1, changes);
        }
    }

    async fn put_with_lease(&mut self) {
        let id = 1 + self.random.below(3) as i64;
        if !self.leased.contains_key(&id) {
            let request = LeaseGrantRequest { id, ttl: 1000 };
            self.leases.lease_grant(request).await.expect("a lease");
            self.leased.insert(id, BTreeSet::new());
        }
        let (key, value) = (self.key(), self.value());
        let put = PutRequest {
            key: key.clone(),
            value: value.clone(),
            lease: id,
            ..Default::default()
        };
        let request = TxnRequest {
            success: vec![RequestOp {
                request: Some(Request::RequestPut(put)),
            }],
            ..Default::default()
        };
        self.kv.txn(request).await.expect("a put with a lease");
        self.note(self.newest + 1, vec![(key.clone(), Some(value))]);
        self.leased.entry(id).or_default().insert(key);
    }

    async fn revoke(&mut self) {
        let Some((id, keys)) = self.leased.pop_first() else {
            return;
        };
        let request = LeaseRevokeRequest { id };
        self.leases.lease_revoke(request).await.expect("the end");
        if !keys.is_empty() {
            let gone = keys.into_iter().map(|key| (key, None)).collect();
            self.note(self.newest + 1, gone);
        }
    }

    async fn step(&mut self) {
        match self.random.below(24) {
            0..3 => self.txn().await,
            3..6 => self.delete().await,
            6..9 => self.put_with_lease().await,
            9 => self.revoke().await,
            10 if self.newest > self.compacted + 200 => {
                self.compacted = self.newest - 100;
                self.kv.compact(self.compacted).await.expect("a compaction");
            }
            _ => {
                let key = self.key();
                self.put(key).await;
            }
        }
    }
}

/// What a watch must see, and what it saw.
struct Watched {
    request: WatchCreateRequest,
    seen: History,
    count: usize,
    last: i64,
    is_created: bool,
    /// The server has said, after the watch's first event, that everything up to here was sent.
    /// (Go's server may confirm a watch before it says what it meant to say earlier.)
    progress: i64,
    /// The last answer was not the last part of its events.
    in_parts: bool,
    is_compacted: bool,
    is_cancelled: bool,
}

impl Watched {
    fn new(request: WatchCreateRequest) -> Self {
        Self {
            request,
            seen: History::new(),
            count: 0,
            last: 0,
            is_created: false,
            progress: 0,
            in_parts: false,
            is_compacted: false,
            is_cancelled: false,
        }
    }

    fn take(&mut self, answer: &WatchResponse) {
        if self.is_compacted && answer.canceled {
            // Go's server says so too when it is asked to cancel a watch that has ended.
            return;
        }
        assert!(!self.is_compacted && !self.is_cancelled, "{answer:?}");
        if answer.canceled {
            self.is_compacted = answer.compact_revision > 0;
            self.is_cancelled = !self.is_compacted;
            if self.is_compacted {
                assert!(answer.compact_revision > self.last.max(self.request.start_revision - 1));
            }
            return;
        }
        assert!(!answer.events.is_empty() && (self.request.fragment || !answer.fragment));
        let mut goes_on = self.in_parts.then_some(self.last);
        for event in &answer.events {
            let kv = event.kv.as_ref().expect("a key");
            let at = kv.mod_revision;
            assert!(at > self.last || goes_on == Some(at), "{at} {}", self.last);
            assert!(at >= self.request.start_revision && at <= revision(answer));
            assert!(at > self.progress, "{at} {}", self.progress);
            (goes_on, self.last) = (Some(at), at);
            let change = Change {
                key: kv.key.clone(),
                value: (event.r#type == 0).then(|| kv.value.clone()),
                before: event.prev_kv.as_ref().map(|before| before.value.clone()),
            };
            self.seen.entry(at).or_default().push(change);
            self.count += 1;
        }
        self.in_parts = answer.fragment;
    }

    fn wants(&self, change: &Change) -> bool {
        let filter = i32::from(change.value.is_none());
        let is_in = match &self.request.range_end[..] {
            [] => change.key == self.request.key,
            [0] => change.key >= self.request.key,
            end => change.key >= self.request.key && change.key[..] < *end,
        };
        is_in && !self.request.filters.contains(&filter)
    }

    /// Everything up to the end of the history, or to where the watch ended.
    fn expected(&self, history: &History) -> History {
        let ended = self.is_compacted || self.is_cancelled;
        let end = if ended { self.last } else { i64::MAX };
        let revisions = history.range(self.request.start_revision..);
        let wanted =
            revisions
                .take_while(|(revision, _)| **revision <= end)
                .map(|(revision, changes)| {
                    let mine = changes.iter().filter(|change| self.wants(change));
                    (*revision, mine.cloned().collect::<Vec<_>>())
                });
        wanted.filter(|(_, changes)| !changes.is_empty()).collect()
    }

    /// `compacted`: values before revisions up to this one may be missing.
    fn check(&self, history: &History, compacted: i64) {
        let mut expected = self.expected(history);
        for (at, changes) in &mut expected {
            let seen = self.seen.get(at).map_or(&[][..], |seen| seen);
            for (change, seen) in changes.iter_mut().zip(seen) {
                let may_miss = *at <= compacted;
                if !self.request.prev_kv || may_miss && seen.before.is_none() {
                    change.before = None;
                }
            }
        }
        assert_eq!(self.seen, expected, "{:?}", self.request);
    }

    fn is_done(&self, history: &History) -> bool {
        let ended = self.is_compacted || self.is_cancelled;
        let all = || self.expected(history).values().map(Vec::len).sum::<usize>();
        ended || self.count >= all()
    }
}

/// A stream and its watches.
struct Watching {
    stream: Stream,
    watched: HashMap<i64, Watched>,
}

impl Watching {
    fn take(&mut self, answer: &WatchResponse) {
        if answer.watch_id == -1 {
            assert!(answer.events.is_empty() && !answer.canceled, "{answer:?}");
            for watched in self.watched.values_mut().filter(|one| one.count > 0) {
                assert!(revision(answer) >= watched.progress);
                watched.progress = revision(answer);
            }
            return;
        }
        let watched = self.watched.get_mut(&answer.watch_id).expect("a watch");
        if answer.created {
            watched.is_created = true;
        } else {
            assert!(watched.is_created);
            watched.take(answer);
        }
    }

    fn add(&mut self, request: WatchCreateRequest) {
        self.stream.create(request.clone());
        let id = self.watched.len() as i64;
        self.watched.insert(id, Watched::new(request));
    }

    /// Takes what has arrived, at most so many answers.
    fn read(&mut self, most: u64) {
        for _ in 0..most {
            let Ok(answer) = self.stream.answers.try_recv() else {
                return;
            };
            self.take(&answer.expect("no error"));
        }
    }

    async fn finish(mut self, writer: &Writer) {
        let history = &writer.history;
        while !self.watched.values().all(|one| one.is_done(history)) {
            let answer = self.stream.next().await;
            self.take(&answer);
        }
        for watched in self.watched.values() {
            watched.check(history, writer.compacted);
        }
    }
}

fn random_request(random: &mut Random, newest: i64) -> WatchCreateRequest {
    let key: Bytes = format!("k{:02}", random.below(KEYS)).into();
    let range_end: Bytes = match random.below(3) {
        0 => Bytes::new(),
        1 => Bytes::from_static(&[0]),
        _ if key < "k15~" => "k15~".into(),
        _ => "l".into(),
    };
    let oldest = newest.saturating_sub(150).max(1);
    WatchCreateRequest {
        key,
        range_end,
        start_revision: oldest + random.below(160) as i64,
        prev_kv: random.below(2) == 0,
        fragment: random.below(3) == 0,
        filters: [vec![], vec![], vec![0], vec![1]][random.below(4) as usize].clone(),
        ..Default::default()
    }
}

async fn run(seed: u64) {
    eprintln!("seed {seed}");
    let (member, kv) = start();
    let mut writer = Writer::new(&kv, seed);
    let mut random = Random::new(seed.wrapping_add(1000));
    let mut streams: Vec<Watching> = (0..STREAMS)
        .map(|_| Watching {
            // A stream that is not read may use up the window of its connection.
            stream: Stream::open(&Kv::to(member.address())),
            watched: HashMap::new(),
        })
        .collect();
    for step in 0..STEPS {
        writer.step().await;
        let which = random.below(STREAMS) as usize;
        let watching = &mut streams[which];
        match random.below(50) {
            0 | 1 => watching.add(random_request(&mut random, writer.newest)),
            2 if !watching.watched.is_empty() => {
                let id = random.below(watching.watched.len() as u64) as i64;
                watching.stream.cancel(id);
            }
            3 => {
                let request = RequestUnion::ProgressRequest(WatchProgressRequest {});
                watching.stream.ask(request);
            }
            _ => {}
        }
        // One stream is read at once, one not before the end, the others now and then.
        match which {
            0 => {}
            1 => watching.read(u64::MAX),
            _ if step % 100 < 20 => watching.read(random.below(10)),
            _ => {}
        }
    }
    // Every watch, on the future too, has something to see at the end.
    for key in 0..KEYS {
        writer.put(format!("k{key:02}").into()).await;
    }
    for watching in streams {
        watching.finish(&writer).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_histories() {
    match std::env::var("WATCH_SEED") {
        Ok(seed) => run(seed.parse().expect("a number")).await,
        Err(_) => {
            for seed in [11, 12, 13] {
                run(seed).await;
            }
        }
    }
}
