//! Which requests are traced, and what a collector gets.

use std::sync::mpsc::channel;

use bytes::BytesMut;
use prost::Message;

use super::otlp::{EXPORT, ExportTraceServiceRequest};
use super::*;

const PARENT: &[u8] = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

fn settings(rate: u64, address: String) -> config::Tracing {
    config::Tracing {
        address,
        service: "etcd".into(),
        instance: "m1".into(),
        rate,
    }
}

#[test]
fn a_callers_decision_counts() {
    let (tracer, _spans) = Tracer::new(&settings(0, String::new()));
    let begun = tracer.begin(Some(PARENT)).unwrap();
    assert_eq!(begun.trace, 0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c);
    assert_eq!(begun.parent, 0xb7ad_6b71_6920_3331);
    assert_eq!(tracer.begin(None), None);
    let unsampled = [&PARENT[..PARENT.len() - 1], b"0"].concat();
    let (all, _spans) = Tracer::new(&settings(1_000_000, String::new()));
    assert_eq!(all.begin(Some(&unsampled)), None);
    assert_eq!(all.begin(None).unwrap().parent, 0);
    for broken in [
        &b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331"[..],
        b"00-00000000000000000000000000000000-b7ad6b7169203331-01",
        b"00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
        b"ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        b"00-0AF7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-x",
        b"\xff-",
        b"",
    ] {
        assert_eq!(parse(broken), None, "{broken:?}");
    }
}

#[test]
fn chance_keeps_to_the_rate() {
    let (tracer, _spans) = Tracer::new(&settings(250_000, String::new()));
    let traced = (0..10_000).filter(|_| tracer.begin(None).is_some()).count();
    assert!((2_000..3_000).contains(&traced), "{traced}");
}

/// A collector that takes one export; gives its path and message.
fn collector() -> (String, std::sync::mpsc::Receiver<(String, Vec<u8>)>) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    listener.set_nonblocking(true).unwrap();
    let (exports, received) = channel();
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            let (socket, _) = listener.accept().await.unwrap();
            let mut connection = h2::server::handshake(socket).await.unwrap();
            while let Some(Ok((request, mut answer))) = connection.accept().await {
                let exports = exports.clone();
                tokio::spawn(async move {
                    let path = request.uri().path().to_owned();
                    let mut body = request.into_body();
                    let mut bytes = BytesMut::new();
                    while let Some(Ok(data)) = body.data().await {
                        bytes.extend_from_slice(&data);
                    }
                    let mut trailers = http::HeaderMap::new();
                    trailers.insert("grpc-status", "0".parse().unwrap());
                    let mut stream = answer
                        .send_response(http::Response::new(()), false)
                        .unwrap();
                    stream.send_data(vec![0; 5].into(), false).unwrap();
                    stream.send_trailers(trailers).unwrap();
                    exports.send((path, bytes.to_vec())).unwrap();
                });
            }
        });
    });
    (address, received)
}

#[test]
fn spans_reach_a_collector() {
    let (address, received) = collector();
    let tracer = Tracer::start(&settings(0, address)).unwrap();
    let begun = tracer.begin(Some(PARENT)).unwrap();
    let since = Instant::now();
    tracer.end(begun, "/etcdserverpb.KV/Put", since, Code::Ok);
    tracer.end(begun, "/etcdserverpb.KV/Txn", since, Code::Unavailable);
    tracer.end(begun, "/etcdserverpb.Watch/Watch", since, Code::Canceled);
    // What waits is sent when the member stops.
    drop(tracer);
    let (path, body) = received.recv_timeout(Duration::from_secs(30)).unwrap();
    assert_eq!(path, EXPORT);
    let length = u32::from_be_bytes(body[1..5].try_into().unwrap()) as usize;
    assert_eq!((body[0], body.len()), (0, 5 + length));
    let request = ExportTraceServiceRequest::decode(&body[5..]).unwrap();
    let of = &request.resource_spans[0];
    let resource = of.resource.as_ref().unwrap();
    let texts = resource.attributes.iter().map(|pair| {
        let value = pair.value.as_ref().unwrap().string_value.clone();
        (pair.key.as_str(), value.unwrap())
    });
    let texts: Vec<(&str, String)> = texts.collect();
    let want = [
        ("service.name", "etcd".to_owned()),
        ("service.instance.id", "m1".to_owned()),
    ];
    assert_eq!(texts, want);
    let spans = &of.scope_spans[0].spans;
    assert_eq!(spans.len(), 3);
    assert_eq!(spans[0].name, "etcdserverpb.KV/Put");
    assert_eq!(spans[0].trace_id, begun.trace.to_be_bytes());
    assert_eq!(spans[0].parent_span_id, begun.parent.to_be_bytes());
    assert!(spans[0].status.is_none());
    assert!(spans[0].start_time_unix_nano <= spans[0].end_time_unix_nano);
    assert_eq!(spans[1].status.as_ref().unwrap().code, 2);
    // Nothing failed when the client went.
    assert!(spans[2].status.is_none());
}
