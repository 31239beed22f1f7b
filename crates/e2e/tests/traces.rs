//! Traces at a collector: a span for each call, streams included, when it is over.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use api::pb::etcdserverpb::watch_request::RequestUnion;
use api::pb::etcdserverpb::{
    LeaseGrantRequest, LeaseKeepAliveRequest, WatchCreateRequest, WatchRequest,
};
use api::pb::health::HealthCheckRequest;
use bytes::BytesMut;
use client::stub::{HealthClient, LeaseClient, WatchClient};
use e2e::kv::Kv;
use e2e::{Member, Options};
use prost::Message;
use tokio::net::{TcpListener, TcpStream};
use tonic::codegen::tokio_stream;
use tonic::codegen::tokio_stream::wrappers::UnboundedReceiverStream;

/// Exporters wait five seconds for company.
const LIMIT: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(50);

/// The part of OpenTelemetry's messages that is looked at.
#[derive(Clone, PartialEq, Message)]
struct Export {
    #[prost(message, repeated, tag = "1")]
    resources: Vec<OfResource>,
}

#[derive(Clone, PartialEq, Message)]
struct OfResource {
    #[prost(message, repeated, tag = "2")]
    scopes: Vec<OfScope>,
}

#[derive(Clone, PartialEq, Message)]
struct OfScope {
    #[prost(message, repeated, tag = "2")]
    spans: Vec<Span>,
}

#[derive(Clone, PartialEq, Message)]
struct Span {
    #[prost(string, tag = "5")]
    name: String,
    #[prost(message, optional, tag = "15")]
    status: Option<Status>,
}

#[derive(Clone, PartialEq, Message)]
struct Status {
    #[prost(int32, tag = "3")]
    code: i32,
}

/// What arrived: names of spans, and whether they failed.
type Spans = Arc<Mutex<BTreeSet<(String, bool)>>>;

/// Takes all exports of a connection.
async fn collect(socket: TcpStream, spans: Spans) {
    let mut connection = h2::server::handshake(socket).await.expect("HTTP/2");
    while let Some(Ok((request, mut answer))) = connection.accept().await {
        let spans = Arc::clone(&spans);
        tokio::spawn(async move {
            let mut body = request.into_body();
            let mut bytes = BytesMut::new();
            while let Some(data) = body.data().await {
                let data = data.expect("a whole export");
                bytes.extend_from_slice(&data);
                let released = body.flow_control().release_capacity(data.len());
                released.expect("what was taken is given back");
            }
            // gRPC's prefix stands before the message.
            let export = Export::decode(&bytes[5..]).expect("an export");
            let scopes = export.resources.into_iter().flat_map(|of| of.scopes);
            for span in scopes.flat_map(|of| of.spans) {
                let failed = span.status.is_some_and(|status| status.code == 2);
                spans.lock().expect("no panic").insert((span.name, failed));
            }
            let mut trailers = http::HeaderMap::new();
            trailers.insert("grpc-status", http::HeaderValue::from_static("0"));
            let head = http::Response::builder().header("content-type", "application/grpc");
            let head = head.body(()).expect("a head");
            let mut stream = answer.send_response(head, false).expect("a stream");
            let message = bytes::Bytes::from_static(&[0; 5]);
            stream.send_data(message, false).expect("a stream");
            stream.send_trailers(trailers).expect("a stream");
        });
    }
}

/// A collector, and what it has.
async fn collector() -> (String, Spans) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    let spans = Spans::default();
    let collected = Arc::clone(&spans);
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            tokio::spawn(collect(socket, Arc::clone(&collected)));
        }
    });
    (address, spans)
}

/// A watch stream whose client goes away.
async fn watch(kv: &Kv) {
    let create = WatchRequest {
        request_union: Some(RequestUnion::CreateRequest(WatchCreateRequest {
            key: "a".into(),
            ..WatchCreateRequest::default()
        })),
    };
    let (send, receive) = tokio::sync::mpsc::unbounded_channel();
    send.send(create).expect("the stream is there");
    let mut stub = WatchClient::new(kv.channel());
    let answers = stub.watch(UnboundedReceiverStream::new(receive)).await;
    let mut answers = answers.expect("a stream").into_inner();
    let created = answers.message().await.expect("an answer");
    assert!(created.is_some_and(|created| created.created));
}

/// The same of who wants to know whether the service goes on.
async fn look_out(kv: &Kv) {
    let mut stub = HealthClient::new(kv.channel());
    let answers = stub.watch(HealthCheckRequest::default()).await;
    let mut answers = answers.expect("a stream").into_inner();
    assert!(answers.message().await.expect("an answer").is_some());
}

/// A stream of renewals that ends.
async fn renew(kv: &Kv) {
    let mut stub = LeaseClient::new(kv.channel());
    let request = LeaseGrantRequest { ttl: 60, id: 7 };
    stub.lease_grant(request).await.expect("a lease");
    let requests = tokio_stream::once(LeaseKeepAliveRequest { id: 7 });
    let answers = stub.lease_keep_alive(requests).await.expect("a stream");
    let mut answers = answers.into_inner();
    let renewed = answers.message().await.expect("an answer");
    assert!(renewed.is_some_and(|renewed| renewed.ttl == 60));
    assert_eq!(answers.message().await.expect("an end"), None);
}

#[tokio::test]
async fn streams_have_spans() {
    let (address, spans) = collector().await;
    let member = Member::start(Options {
        flags: vec![
            "--enable-distributed-tracing".into(),
            format!("--distributed-tracing-address={address}"),
            "--distributed-tracing-sampling-rate=1000000".into(),
        ],
        ..Options::default()
    })
    .expect("a member");
    let kv = Kv::to(member.address());
    kv.put("a".into(), "1".into()).await.expect("a put");
    watch(&kv).await;
    look_out(&kv).await;
    renew(&kv).await;
    let wanted = [
        "etcdserverpb.KV/Put",
        "etcdserverpb.Lease/LeaseGrant",
        "etcdserverpb.Lease/LeaseKeepAlive",
        "etcdserverpb.Watch/Watch",
        "grpc.health.v1.Health/Watch",
    ];
    let wanted: BTreeSet<(String, bool)> = wanted
        .iter()
        .map(|name| ((*name).to_owned(), false))
        .collect();
    let deadline = Instant::now() + LIMIT;
    loop {
        let seen = spans.lock().expect("no panic").clone();
        if wanted.is_subset(&seen) {
            return;
        }
        assert!(Instant::now() < deadline, "{seen:?}");
        tokio::time::sleep(PAUSE).await;
    }
}
