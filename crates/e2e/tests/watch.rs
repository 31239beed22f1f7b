//! Watches over gRPC against a member: every rule of a conversation, and random histories.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::time::Duration;

use api::pb::etcdserverpb::request_op::Request;
use api::pb::etcdserverpb::watch_request::RequestUnion;
use api::pb::etcdserverpb::{
    DeleteRangeRequest, PutRequest, RequestOp, TxnRequest, WatchCancelRequest, WatchCreateRequest,
    WatchProgressRequest, WatchRequest, WatchResponse,
};
use bytes::Bytes;
use client::stub::WatchClient;
use e2e::kv::Kv;
use e2e::random::Random;
use e2e::{Member, Options};
use tokio::sync::mpsc;
use tonic::codegen::tokio_stream::wrappers::UnboundedReceiverStream;

const LIMIT: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(100);

struct Stream {
    requests: mpsc::UnboundedSender<WatchRequest>,
    /// Holds one answer only: whoever does not take it keeps the stream from being read.
    answers: mpsc::Receiver<WatchResponse>,
}

impl Stream {
    /// The server says nothing, not even that the stream is open, before the first request.
    fn open(kv: &Kv) -> Stream {
        let (requests, queue) = mpsc::unbounded_channel();
        let (sender, answers) = mpsc::channel(1);
        let mut client = WatchClient::new(kv.channel()).max_decoding_message_size(usize::MAX);
        tokio::spawn(async move {
            let stream = client.watch(UnboundedReceiverStream::new(queue)).await;
            let mut stream = stream.expect("a stream").into_inner();
            while let Ok(Some(answer)) = stream.message().await {
                if sender.send(answer).await.is_err() {
                    return;
                }
            }
        });
        Stream { requests, answers }
    }

    fn ask(&self, request: RequestUnion) {
        let request_union = Some(request);
        self.requests
            .send(WatchRequest { request_union })
            .expect("the stream is open");
    }

    fn create(&self, request: WatchCreateRequest) {
        self.ask(RequestUnion::CreateRequest(request));
    }

    async fn next(&mut self) -> WatchResponse {
        let answer = tokio::time::timeout(LIMIT, self.answers.recv()).await;
        answer.expect("an answer in time").expect("no end")
    }

    /// Creates a watch and returns its first answer.
    async fn created(&mut self, request: WatchCreateRequest) -> WatchResponse {
        self.create(request);
        let answer = self.next().await;
        assert!(answer.created, "{answer:?}");
        answer
    }

    /// The answer to a progress request, which tells that nothing else was on its way.
    async fn progress(&mut self) -> i64 {
        self.ask(RequestUnion::ProgressRequest(WatchProgressRequest {}));
        let answer = self.next().await;
        assert_eq!(
            (answer.watch_id, answer.events.len()),
            (-1, 0),
            "{answer:?}"
        );
        revision(&answer)
    }
}

fn revision(answer: &WatchResponse) -> i64 {
    answer.header.as_ref().map_or(0, |header| header.revision)
}

fn on(key: &str, end: &str) -> WatchCreateRequest {
    WatchCreateRequest {
        key: Bytes::copy_from_slice(key.as_bytes()),
        range_end: Bytes::copy_from_slice(end.as_bytes()),
        ..Default::default()
    }
}

fn start() -> (Member, Kv) {
    let member = Member::start(Options::default()).expect("a member");
    let address: SocketAddr = member.address();
    (member, Kv::to(address))
}

async fn put(kv: &Kv, key: &str, value: &str) -> i64 {
    let (key, value) = (key.to_owned().into(), value.to_owned().into());
    kv.put(key, value).await.expect("a put")
}

#[tokio::test]
async fn ids_and_refusals() {
    let (_member, kv) = start();
    let mut stream = Stream::open(&kv);
    assert_eq!(stream.created(on("a", "")).await.watch_id, 0);
    let explicit = |id| WatchCreateRequest {
        watch_id: id,
        ..on("a", "b")
    };
    assert_eq!(stream.created(explicit(2)).await.watch_id, 2);
    assert_eq!(stream.created(on("a", "")).await.watch_id, 1);
    assert_eq!(stream.created(on("a", "")).await.watch_id, 3);
    let negative = WatchCreateRequest {
        start_revision: -1,
        ..on("b", "a")
    };
    let refused = [
        (
            explicit(2),
            "mvcc: duplicate watch ID provided on the WatchStream",
        ),
        (on("b", "b"), "mvcc: watcher range is empty"),
        (on("b", "a"), "mvcc: watcher range is empty"),
        (
            negative,
            "etcdserver: mvcc: required revision has been compacted",
        ),
    ];
    for (request, reason) in refused {
        let answer = stream.created(request).await;
        assert_eq!((answer.watch_id, answer.canceled), (-1, true));
        assert_eq!(answer.cancel_reason, reason);
        assert_eq!(revision(&answer), 1);
    }
    let cancel = |watch_id| RequestUnion::CancelRequest(WatchCancelRequest { watch_id });
    stream.ask(cancel(55));
    stream.ask(cancel(2));
    let answer = stream.next().await;
    assert!(answer.canceled && answer.watch_id == 2 && answer.cancel_reason.is_empty());
    stream.ask(cancel(2));
    assert_eq!(stream.progress().await, 1);
}

#[tokio::test]
async fn events_filters_and_previous_values() {
    let (_member, kv) = start();
    let mut stream = Stream::open(&kv);
    let with_previous = WatchCreateRequest {
        prev_kv: true,
        filters: vec![0],
        ..on("a", "c")
    };
    stream.created(with_previous).await;
    put(&kv, "a", "1").await;
    put(&kv, "b", "2").await;
    let (key, end) = (Bytes::from("a"), Bytes::from("z"));
    kv.delete(key, end).await.expect("a deletion");
    // Puts are filtered; both deletions of the revision come together.
    let answer = stream.next().await;
    assert_eq!((revision(&answer), answer.events.len()), (4, 2));
    for (event, value) in answer.events.iter().zip(["1", "2"]) {
        let kv = event.kv.as_ref().expect("a key");
        assert_eq!(
            (event.r#type, kv.mod_revision, kv.create_revision),
            (1, 4, 0)
        );
        let before = event.prev_kv.as_ref().expect("a previous value");
        assert_eq!(before.value, value);
    }
    // A watch on the future is quiet until then, and keeps progress from being reported.
    let future = WatchCreateRequest {
        start_revision: 7,
        ..on("a", "")
    };
    assert_eq!(revision(&stream.created(future).await), 4);
    stream.ask(RequestUnion::ProgressRequest(WatchProgressRequest {}));
    for value in ["5", "6", "7"] {
        put(&kv, "a", value).await;
    }
    let answer = stream.next().await;
    assert_eq!((answer.watch_id, answer.events.len()), (1, 1), "{answer:?}");
    assert_eq!(answer.events[0].kv.as_ref().expect("a key").value, "7");
    assert_eq!(stream.progress().await, 7);
}

#[tokio::test]
async fn compacted_revisions() {
    let (_member, kv) = start();
    put(&kv, "a", "1").await;
    let (key, end) = (Bytes::from("a"), Bytes::new());
    kv.delete(key, end).await.expect("a deletion");
    put(&kv, "b", "1").await;
    kv.compact(3).await.expect("a compaction");
    let mut stream = Stream::open(&kv);
    let from = |start_revision| WatchCreateRequest {
        start_revision,
        prev_kv: true,
        ..on("a", "")
    };
    let created = stream.created(from(2)).await;
    assert_eq!((revision(&created), created.canceled), (4, false));
    let answer = stream.next().await;
    assert!(answer.canceled && !answer.created && answer.cancel_reason.is_empty());
    assert_eq!((answer.compact_revision, revision(&answer)), (3, 0));
    // The deletion at the compacted revision is still there, what it deleted is not.
    let created = stream.created(from(3)).await;
    let answer = stream.next().await;
    assert_eq!(created.watch_id, answer.watch_id);
    assert_eq!((answer.events.len(), answer.events[0].r#type), (1, 1));
    assert_eq!(answer.events[0].prev_kv, None);
    assert_eq!(stream.progress().await, 4);
}

#[tokio::test]
async fn fragments() {
    let (_member, kv) = start();
    for key in ["a", "b", "c"] {
        put(&kv, key, &"x".repeat(1 << 20)).await;
    }
    let mut stream = Stream::open(&kv);
    let whole = |fragment| WatchCreateRequest {
        fragment,
        prev_kv: true,
        ..on("a", "z")
    };
    stream.created(whole(false)).await;
    stream.created(whole(true)).await;
    let (key, end) = (Bytes::from("a"), Bytes::from("z"));
    kv.delete(key, end).await.expect("a deletion");
    let mut parts: HashMap<i64, Vec<(usize, bool)>> = HashMap::new();
    for _ in 0..4 {
        let answer = stream.next().await;
        assert_eq!(revision(&answer), 5);
        let part = (answer.events.len(), answer.fragment);
        parts.entry(answer.watch_id).or_default().push(part);
    }
    assert_eq!(parts[&0], [(3, false)]);
    assert_eq!(parts[&1], [(1, true), (1, true), (1, false)]);
}

#[tokio::test]
async fn notifications_of_progress() {
    let flags = vec!["--watch-progress-notify-interval=200ms".to_owned()];
    let options = Options {
        flags,
        ..Default::default()
    };
    let member = Member::start(options).expect("a member");
    let kv = Kv::to(member.address());
    let mut stream = Stream::open(&kv);
    let notified = WatchCreateRequest {
        progress_notify: true,
        ..on("a", "")
    };
    stream.created(notified).await;
    put(&kv, "other", "1").await;
    loop {
        let answer = stream.next().await;
        assert_eq!((answer.watch_id, answer.events.len()), (0, 0));
        if revision(&answer) == 2 {
            break;
        }
    }
}

/// Events of each revision, as the writer knows them: key, and value unless it is a deletion.
type History = BTreeMap<i64, Vec<(Bytes, Option<Bytes>)>>;

/// A writer that knows what its writes must be seen as.
struct Writer {
    kv: Kv,
    random: Random,
    keys: BTreeMap<Bytes, Bytes>,
    history: History,
    compacted: i64,
    newest: i64,
}

impl Writer {
    fn key(&mut self) -> Bytes {
        format!("k{:02}", self.random.below(20)).into()
    }

    async fn put(&mut self) {
        let key = self.key();
        let value: Bytes = format!("{:0200}", self.newest).into();
        let at = self.kv.put(key.clone(), value.clone()).await;
        self.newest = at.expect("a put");
        self.keys.insert(key.clone(), value.clone());
        self.history.insert(self.newest, vec![(key, Some(value))]);
    }

    async fn delete(&mut self) {
        let (a, b) = (self.key(), self.key());
        let (begin, end) = (a.clone().min(b.clone()), a.max(b));
        if begin == end {
            return;
        }
        let gone: Vec<Bytes> = self
            .keys
            .range(begin.clone()..end.clone())
            .map(|(key, _)| key.clone())
            .collect();
        self.kv.delete(begin, end).await.expect("a deletion");
        if gone.is_empty() {
            return;
        }
        self.newest += 1;
        gone.iter().for_each(|key| {
            self.keys.remove(key);
        });
        let events = gone.into_iter().map(|key| (key, None)).collect();
        self.history.insert(self.newest, events);
    }

    async fn txn(&mut self) {
        let keys = ["k00", "k07", "k19"].map(Bytes::from);
        let value: Bytes = format!("{}", self.newest).into();
        let put = |key: &Bytes| RequestOp {
            request: Some(Request::RequestPut(PutRequest {
                key: key.clone(),
                value: value.clone(),
                ..Default::default()
            })),
        };
        let nothing = RequestOp {
            request: Some(Request::RequestDeleteRange(DeleteRangeRequest {
                key: "none".into(),
                ..Default::default()
            })),
        };
        let mut success: Vec<RequestOp> = keys.iter().map(put).collect();
        success.insert(1, nothing);
        let request = TxnRequest {
            success,
            ..Default::default()
        };
        self.kv.txn(request).await.expect("a transaction");
        self.newest += 1;
        let events = keys.iter().map(|key| (key.clone(), Some(value.clone())));
        self.history.insert(self.newest, events.collect());
        for key in keys {
            self.keys.insert(key, value.clone());
        }
    }

    async fn step(&mut self) {
        match self.random.below(20) {
            0 => self.txn().await,
            1..4 => self.delete().await,
            4 if self.newest > self.compacted + 200 => {
                self.compacted = self.newest - 100;
                self.kv.compact(self.compacted).await.expect("a compaction");
            }
            _ => self.put().await,
        }
    }
}

/// What a watch must see, and what it saw.
struct Watched {
    start: i64,
    key: Bytes,
    end: Bytes,
    seen: History,
    last: i64,
    cancelled: bool,
}

impl Watched {
    fn take(&mut self, answer: &WatchResponse) {
        assert!(!self.cancelled);
        if answer.canceled {
            assert!(answer.compact_revision > self.last.max(self.start - 1));
            self.cancelled = true;
            return;
        }
        let mut of_this: Vec<i64> = Vec::new();
        for event in &answer.events {
            let kv = event.kv.as_ref().expect("a key");
            assert!(kv.mod_revision > self.last || of_this.last() == Some(&kv.mod_revision));
            assert!(kv.mod_revision >= self.start && kv.mod_revision <= revision(answer));
            of_this.push(kv.mod_revision);
            self.last = kv.mod_revision;
            let value = (event.r#type == 0).then(|| kv.value.clone());
            let seen = self.seen.entry(kv.mod_revision).or_default();
            seen.push((kv.key.clone(), value));
        }
    }

    fn has(&self, key: &Bytes) -> bool {
        match &self.end[..] {
            [] => *key == self.key,
            [0] => *key >= self.key,
            end => *key >= self.key && key[..] < *end,
        }
    }

    /// Everything up to the end of the history, or up to where it was cancelled.
    fn check(&self, history: &History) {
        let end = if self.cancelled { self.last } else { i64::MAX };
        let expected: History = history
            .range(self.start..)
            .take_while(|(revision, _)| **revision <= end)
            .map(|(revision, events)| {
                let mine = events.iter().filter(|(key, _)| self.has(key));
                (*revision, mine.cloned().collect::<Vec<_>>())
            })
            .filter(|(_, events)| !events.is_empty())
            .collect();
        assert_eq!(self.seen, expected);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_histories() {
    let (_member, kv) = start();
    let mut writer = Writer {
        kv: kv.clone(),
        random: Random::new(11),
        keys: BTreeMap::new(),
        history: History::new(),
        compacted: 0,
        newest: 1,
    };
    let mut random = Random::new(7);
    let mut streams: Vec<(Stream, HashMap<i64, Watched>)> = Vec::new();
    for _ in 0..4 {
        streams.push((Stream::open(&kv), HashMap::new()));
    }
    for round in 0..1500 {
        writer.step().await;
        if round % 30 == 0 {
            let which = random.below(4) as usize;
            let (stream, watched) = &mut streams[which];
            let key: Bytes = format!("k{:02}", random.below(20)).into();
            let end: Bytes = match random.below(3) {
                0 => Bytes::new(),
                1 => Bytes::from_static(&[0]),
                _ => "k15~".into(),
            };
            let end = if end.len() > 1 && key >= end {
                Bytes::new()
            } else {
                end
            };
            let oldest = writer.newest.saturating_sub(150).max(1);
            let start = oldest + random.below(160) as i64;
            let id = watched.len() as i64;
            let request = WatchCreateRequest {
                key: key.clone(),
                range_end: end.clone(),
                start_revision: start,
                ..Default::default()
            };
            stream.create(request);
            let new = Watched {
                start,
                key,
                end,
                seen: History::new(),
                last: 0,
                cancelled: false,
            };
            watched.insert(id, new);
        }
    }
    // So that no watch is one on the future any more.
    for _ in 0..50 {
        writer.put().await;
    }
    for (stream, mut watched) in streams {
        let mut stream = stream;
        loop {
            stream.ask(RequestUnion::ProgressRequest(WatchProgressRequest {}));
            let next = tokio::time::timeout(PAUSE, stream.answers.recv());
            // Nothing is said about progress while a watch lags: ask again.
            let Ok(answer) = next.await else { continue };
            let answer = answer.expect("no end");
            if answer.watch_id == -1 {
                assert_eq!(revision(&answer), writer.newest);
                break;
            }
            if !answer.created {
                watched
                    .get_mut(&answer.watch_id)
                    .expect("a watch")
                    .take(&answer);
            }
        }
        watched.values().for_each(|one| one.check(&writer.history));
    }
}

#[tokio::test]
async fn a_client_that_stops_reading_loses_nothing() {
    let (_member, kv) = start();
    let mut stream = Stream::open(&kv);
    stream.created(on("k", "l")).await;
    // More than windows and queues hold.
    let other = Kv::to(_member.address());
    let value = "x".repeat(100_000);
    let mut expected = Vec::new();
    for _ in 0..300 {
        expected.push(put(&other, "k", &value).await);
    }
    let mut seen = Vec::new();
    while seen.len() < expected.len() {
        let answer = stream.next().await;
        let events = answer.events.iter().filter_map(|event| event.kv.as_ref());
        seen.extend(events.map(|kv| kv.mod_revision));
    }
    assert_eq!(seen, expected);
    assert_eq!(stream.progress().await, *expected.last().expect("puts"));
}
