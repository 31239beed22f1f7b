//! Leases that are kept alive through the proxy.

use std::time::{Duration, Instant};

use api::pb::etcdserverpb::{
    LeaseGrantRequest, LeaseKeepAliveRequest, LeaseKeepAliveResponse, LeaseTimeToLiveRequest,
};
use client::stub::LeaseClient;
use tokio::sync::mpsc;
use tonic::Streaming;
use tonic::codegen::tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::transport::Channel;

use crate::process::{Below, LIMIT, PAUSE, Proxy, member};

struct KeepAlive {
    requests: mpsc::UnboundedSender<LeaseKeepAliveRequest>,
    answers: Streaming<LeaseKeepAliveResponse>,
}

impl KeepAlive {
    /// With a first renewal, whose answer is the first.
    async fn open(leases: &LeaseClient<Channel>, id: i64) -> KeepAlive {
        let (requests, queue) = mpsc::unbounded_channel();
        requests
            .send(LeaseKeepAliveRequest { id })
            .expect("a queue");
        let mut leases = leases.clone();
        let queue = UnboundedReceiverStream::new(queue);
        let opened = leases.lease_keep_alive(queue).await;
        let answers = opened.expect("a stream").into_inner();
        KeepAlive { requests, answers }
    }

    async fn next(&mut self) -> LeaseKeepAliveResponse {
        let answer = tokio::time::timeout(LIMIT, self.answers.message()).await;
        answer.expect("in time").expect("no error").expect("no end")
    }
}

async fn grant(leases: &mut LeaseClient<Channel>, ttl: i64) -> i64 {
    let request = LeaseGrantRequest { ttl, id: 0 };
    leases
        .lease_grant(request)
        .await
        .expect("a lease")
        .into_inner()
        .id
}

async fn time_to_live(leases: &mut LeaseClient<Channel>, id: i64) -> i64 {
    let request = LeaseTimeToLiveRequest { id, keys: false };
    let answer = leases.lease_time_to_live(request).await;
    answer.expect("an answer").into_inner().ttl
}

#[tokio::test]
async fn leases_live_as_long_as_their_clients_ask() {
    keep_alive(Below::Same).await;
}

/// The proxy under test before a member of Go's.
#[cfg(feature = "mixed")]
#[tokio::test]
async fn leases_live_on_the_reference_too() {
    keep_alive(Below::Reference).await;
}

async fn keep_alive(below: Below) {
    let mut member = member(below);
    let proxy = Proxy::start(member.address(), &[]).await;
    let mut leases = LeaseClient::new(proxy.kv().channel());
    let shared = grant(&mut leases, 3).await;
    let mut streams = Vec::new();
    for _ in 0..8 {
        streams.push(KeepAlive::open(&leases, shared).await);
    }
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(5) {
        for stream in &mut streams {
            let answer = stream.next().await;
            assert_eq!((answer.id, answer.ttl), (shared, 3));
            let again = LeaseKeepAliveRequest { id: shared };
            stream.requests.send(again).expect("an open stream");
        }
        tokio::time::sleep(PAUSE * 10).await;
    }
    assert!(time_to_live(&mut leases, shared).await >= 0);
    // A renewal that finds nobody is done when the member is back.
    let mut late = streams.pop().expect("a stream");
    late.next().await;
    member.kill().expect("it runs");
    let again = LeaseKeepAliveRequest { id: shared };
    late.requests.send(again).expect("an open stream");
    member.restart().expect("it starts again");
    assert_eq!(late.next().await.ttl, 3);
    drop(streams);
    drop(late);
    let deadline = Instant::now() + LIMIT;
    while time_to_live(&mut leases, shared).await != -1 {
        assert!(Instant::now() < deadline, "nobody renews it any more");
        tokio::time::sleep(PAUSE).await;
    }
    let mut gone = KeepAlive::open(&leases, shared).await;
    // A member says 0 here, Go's proxy -1.
    assert!(gone.next().await.ttl <= 0);
}
