//! Leases in time and under load. Each test passes on a Go etcd too (`ETCD_BIN`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use api::pb::etcdserverpb::request_op::Request;
use api::pb::etcdserverpb::watch_request::RequestUnion;
use api::pb::etcdserverpb::{
    LeaseGrantRequest, LeaseKeepAliveRequest, LeaseLeasesRequest, LeaseRevokeRequest,
    LeaseTimeToLiveRequest, PutRequest, RangeRequest, RequestOp, TxnRequest, WatchCreateRequest,
    WatchRequest,
};
use bytes::Bytes;
use client::stub::{LeaseClient, WatchClient};
use e2e::kv::Kv;
use e2e::{Member, Options};
use tokio::sync::mpsc;
use tonic::Status;
use tonic::codegen::tokio_stream;
use tonic::codegen::tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::transport::Channel;

const LIMIT: Duration = Duration::from_secs(60);
/// The least that a server with the default election timeout grants.
const SHORTEST: i64 = 2;

fn start() -> (Member, Kv, LeaseClient<Channel>) {
    let member = Member::start(Options::default()).expect("a member");
    let kv = Kv::to(member.address());
    let leases = LeaseClient::new(kv.channel());
    (member, kv, leases)
}

async fn put(kv: &Kv, key: &str, lease: i64) -> Result<(), Status> {
    let put = PutRequest {
        key: Bytes::copy_from_slice(key.as_bytes()),
        value: "v".into(),
        lease,
        ..Default::default()
    };
    let request = TxnRequest {
        success: vec![RequestOp {
            request: Some(Request::RequestPut(put)),
        }],
        ..Default::default()
    };
    kv.txn(request).await.map(|_| ())
}

async fn count(kv: &Kv, begin: &str, end: &str) -> i64 {
    let request = RangeRequest {
        key: Bytes::copy_from_slice(begin.as_bytes()),
        range_end: Bytes::copy_from_slice(end.as_bytes()),
        count_only: true,
        ..Default::default()
    };
    kv.range(request).await.expect("a count").count
}

/// Deletions of keys between two, with the time of their arrival.
fn deletions(kv: &Kv, begin: &str, end: &str) -> mpsc::UnboundedReceiver<(Bytes, Instant)> {
    let create = WatchCreateRequest {
        key: Bytes::copy_from_slice(begin.as_bytes()),
        range_end: Bytes::copy_from_slice(end.as_bytes()),
        start_revision: 1,
        filters: vec![0],
        ..Default::default()
    };
    let request = WatchRequest {
        request_union: Some(RequestUnion::CreateRequest(create)),
    };
    let (sender, receiver) = mpsc::unbounded_channel();
    let mut client = WatchClient::new(kv.channel());
    tokio::spawn(async move {
        // The stream of requests stays open.
        let requests = tokio_stream::StreamExt::chain(
            tokio_stream::once(request),
            tokio_stream::pending::<WatchRequest>(),
        );
        let mut stream = client.watch(requests).await.expect("a watch").into_inner();
        while let Ok(Some(answer)) = stream.message().await {
            let now = Instant::now();
            for kv in answer.events.into_iter().filter_map(|event| event.kv) {
                if sender.send((kv.key, now)).is_err() {
                    return;
                }
            }
        }
    });
    receiver
}

/// Ten thousand leases are over at one moment. They go at etcd's pace of 1,000 a second, none too
/// early, and a writer beside them goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_leases_expire_at_once() {
    const LEASES: i64 = 10_000;
    const TTL: i64 = 10;
    let (_member, kv, leases) = start();
    let mut gone = deletions(&kv, "lease/", "lease0");
    let mut tasks = Vec::new();
    for task in 0..50 {
        let (kv, mut leases) = (kv.clone(), leases.clone());
        tasks.push(tokio::spawn(async move {
            let mut granted = BTreeMap::new();
            for id in (1..=LEASES).filter(|id| id % 50 == task) {
                let request = LeaseGrantRequest { id, ttl: TTL };
                let before = Instant::now();
                leases.lease_grant(request).await.expect("a lease");
                let key = format!("lease/{id}");
                put(&kv, &key, id).await.expect("a key");
                granted.insert(Bytes::from(key), before);
            }
            granted
        }));
    }
    let mut granted = BTreeMap::new();
    for task in tasks {
        granted.extend(task.await.expect("grants"));
    }
    let stop = Arc::new(AtomicBool::new(false));
    let slowest = Arc::new(AtomicU64::new(0));
    let writer = {
        let (kv, stop, slowest) = (kv.clone(), Arc::clone(&stop), Arc::clone(&slowest));
        tokio::spawn(async move {
            let mut puts = 0;
            while !stop.load(Ordering::SeqCst) {
                let begin = Instant::now();
                put(&kv, "other", 0).await.expect("a put");
                let took = begin.elapsed().as_millis() as u64;
                slowest.fetch_max(took, Ordering::SeqCst);
                puts += 1;
            }
            puts
        })
    };
    let mut times = Vec::new();
    for _ in 0..LEASES {
        let next = tokio::time::timeout(LIMIT, gone.recv()).await;
        let (key, at) = next.expect("in time").expect("the watch goes on");
        let before = granted.remove(&key).expect("each is deleted once");
        let lived = at - before;
        assert!(
            lived >= Duration::from_secs(TTL as u64),
            "{key:?} lived {lived:?}"
        );
        times.push(at);
    }
    stop.store(true, Ordering::SeqCst);
    let puts = writer.await.expect("a writer");
    let took = *times.last().expect("deletions") - times[0];
    eprintln!("gone within {took:?}; {puts} puts, the slowest {slowest:?} ms");
    assert!(took >= Duration::from_secs(8), "{took:?}");
    assert!(took < Duration::from_secs(40), "{took:?}");
    assert!(slowest.load(Ordering::SeqCst) < 2000);
    let left = leases.clone().lease_leases(LeaseLeasesRequest {}).await;
    assert!(left.expect("a list").into_inner().leases.is_empty());
    assert_eq!(count(&kv, "lease/", "lease0").await, 0);
}

/// Renews leases in turn, as fast as the answers come, until `stop`; returns when each was asked
/// for the last time.
async fn renew(
    mut client: LeaseClient<Channel>,
    ids: Vec<i64>,
    stop: Arc<AtomicBool>,
) -> BTreeMap<i64, Instant> {
    let (requests, queue) = mpsc::unbounded_channel();
    let ask = |id| requests.send(LeaseKeepAliveRequest { id }).expect("open");
    ids.iter().copied().for_each(&ask);
    let stream = client.lease_keep_alive(UnboundedReceiverStream::new(queue));
    let mut stream = stream.await.expect("a stream").into_inner();
    let mut asked: BTreeMap<i64, Instant> = ids.iter().map(|id| (*id, Instant::now())).collect();
    let mut outstanding = ids.len();
    while outstanding > 0 {
        let answer = stream.message().await.expect("no error").expect("no end");
        assert_eq!(answer.ttl, SHORTEST, "{answer:?}");
        outstanding -= 1;
        if !stop.load(Ordering::SeqCst) {
            asked.insert(answer.id, Instant::now());
            ask(answer.id);
            outstanding += 1;
        }
    }
    asked
}

/// Leases of the shortest kind live through a storm of renewals, and no longer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn renewals_keep_leases() {
    const LEASES: i64 = 200;
    let (_member, kv, mut leases) = start();
    let mut gone = deletions(&kv, "lease/", "lease0");
    let stop = Arc::new(AtomicBool::new(false));
    let mut streams = Vec::new();
    for stream in 0..4 {
        let ids: Vec<i64> = (1..=LEASES).filter(|id| id % 4 == stream).collect();
        for &id in &ids {
            let request = LeaseGrantRequest { id, ttl: SHORTEST };
            leases.lease_grant(request).await.expect("a lease");
            put(&kv, &format!("lease/{id:03}"), id)
                .await
                .expect("a key");
        }
        let renewals = renew(leases.clone(), ids, Arc::clone(&stop));
        streams.push(tokio::spawn(renewals));
    }
    // Three times what they would live by themselves.
    let storm = Duration::from_secs(3 * SHORTEST as u64);
    let early = tokio::time::timeout(storm, gone.recv()).await;
    assert!(early.is_err(), "{early:?}");
    assert_eq!(count(&kv, "lease/", "lease0").await, LEASES);
    stop.store(true, Ordering::SeqCst);
    let mut asked = BTreeMap::new();
    for stream in streams {
        asked.extend(stream.await.expect("renewals"));
    }
    for _ in 0..LEASES {
        let next = tokio::time::timeout(LIMIT, gone.recv()).await;
        let (key, at) = next.expect("in time").expect("the watch goes on");
        let id: i64 = String::from_utf8_lossy(&key[6..]).parse().expect("an id");
        let lived = at - asked.remove(&id).expect("each is deleted once");
        assert!(lived >= Duration::from_secs(SHORTEST as u64), "{lived:?}");
    }
    let unknown = renewal_of(&mut leases, 1).await;
    assert_eq!((unknown.0, unknown.1), (1, 0));
}

async fn renewal_of(leases: &mut LeaseClient<Channel>, id: i64) -> (i64, i64) {
    let request = LeaseKeepAliveRequest { id };
    let stream = leases.lease_keep_alive(tokio_stream::once(request)).await;
    let answer = stream.expect("a stream").into_inner().message().await;
    let answer = answer.expect("no error").expect("an answer");
    (answer.id, answer.ttl)
}

/// Writers use leases that are being revoked: a put either comes before, and its key goes with the
/// lease, or is refused. Keys that have left the lease stay.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leases_are_revoked_in_use() {
    let (_member, kv, mut leases) = start();
    for round in 0..20_i64 {
        let (id, stays) = (2 * round + 1, 2 * round + 2);
        for id in [id, stays] {
            let request = LeaseGrantRequest { id, ttl: 1000 };
            leases.lease_grant(request).await.expect("a lease");
        }
        let mut writers = Vec::new();
        for writer in 0..8 {
            let kv = kv.clone();
            writers.push(tokio::spawn(async move {
                let mut refused = 0;
                for number in 0.. {
                    let key = format!("{round}/{writer}/{}", number % 10);
                    match put(&kv, &key, id).await {
                        Ok(()) => {}
                        Err(status) => {
                            let text = "etcdserver: requested lease not found";
                            assert_eq!(status.message(), text);
                            refused += 1;
                        }
                    }
                    if refused == 3 {
                        return;
                    }
                }
            }));
        }
        for key in ["moved", "freed"] {
            put(&kv, &format!("{key}/{round:02}"), id)
                .await
                .expect("a key");
        }
        put(&kv, &format!("moved/{round:02}"), stays)
            .await
            .expect("a key");
        put(&kv, &format!("freed/{round:02}"), 0)
            .await
            .expect("a key");
        let request = LeaseTimeToLiveRequest { id, keys: true };
        let live = leases.lease_time_to_live(request).await.expect("it lives");
        let live = live.into_inner();
        assert_eq!(live.granted_ttl, 1000);
        let keys: BTreeSet<Bytes> = live.keys.into_iter().collect();
        assert!(
            keys.iter()
                .all(|key| key.starts_with(format!("{round}/").as_bytes()))
        );
        leases
            .lease_revoke(LeaseRevokeRequest { id })
            .await
            .expect("the end");
        for writer in writers {
            writer.await.expect("a writer");
        }
        assert_eq!(
            count(&kv, &format!("{round}/"), &format!("{round}0")).await,
            0
        );
        let again = leases.lease_revoke(LeaseRevokeRequest { id }).await;
        assert_eq!(
            again.expect_err("gone").message(),
            "etcdserver: requested lease not found"
        );
    }
    assert_eq!(count(&kv, "moved/", "moved0").await, 20);
    assert_eq!(count(&kv, "freed/", "freed0").await, 20);
}
