//! A tonic client, with bytes as messages.

use std::time::Duration;

use bytes::{Buf, BufMut, Bytes};
use server::front::Limits;
use tokio_stream::StreamExt;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};

use super::demo::{FLOOD_MESSAGES, Seen, Server};

#[derive(Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Raw;
    type Decoder = Raw;
    fn encoder(&mut self) -> Raw {
        Raw
    }
    fn decoder(&mut self) -> Raw {
        Raw
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;
    fn encode(&mut self, item: Bytes, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        out.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;
    fn decode(&mut self, input: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(input.copy_to_bytes(input.remaining())))
    }
}

type Client = tonic::client::Grpc<Channel>;

async fn client(server: &Server) -> Client {
    let endpoint = Endpoint::from_shared(format!("http://{}", server.address)).unwrap();
    let channel = endpoint.connect().await.unwrap();
    tonic::client::Grpc::new(channel).max_decoding_message_size(1 << 30)
}

fn path(method: &'static str) -> PathAndQuery {
    PathAndQuery::from_static(method)
}

async fn unary(
    client: &mut Client,
    method: &'static str,
    message: impl Into<Bytes>,
) -> Result<Bytes, Status> {
    client.ready().await.unwrap();
    let request = Request::new(message.into());
    Ok(client.unary(request, path(method), Raw).await?.into_inner())
}

fn runtime() -> tokio::runtime::Runtime {
    // A thread of its own for the connection, since tests also wait for the server in blocking ways.
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap()
}

fn run(test: impl AsyncFnOnce(&Server)) {
    run_with(Limits::default(), test);
}

fn run_with(limits: Limits, test: impl AsyncFnOnce(&Server)) {
    let server = Server::start(limits);
    let runtime = runtime();
    runtime.block_on(async {
        tokio::time::timeout(Duration::from_secs(60), test(&server))
            .await
            .expect("in time");
    });
    drop(runtime);
    server.stop();
}

#[test]
fn unary_calls_are_answered_at_once_and_from_another_thread() {
    run(async |server| {
        let mut client = client(server).await;
        for size in [0, 1, 1000, 16_379, 16_380, 70_000, 1_500_000] {
            let message = Bytes::from(vec![b'z'; size]);
            assert_eq!(
                unary(&mut client, "/demo.Demo/Echo", message.clone())
                    .await
                    .unwrap(),
                message
            );
            assert_eq!(
                unary(&mut client, "/demo.Demo/Later", message.clone())
                    .await
                    .unwrap(),
                message
            );
        }
    });
}

#[test]
fn many_calls_share_a_connection() {
    run(async |server| {
        let client = client(server).await;
        let mut calls = tokio::task::JoinSet::new();
        for number in 0..500u32 {
            let mut client = client.clone();
            calls.spawn(async move {
                let method = if number % 2 == 0 {
                    "/demo.Demo/Echo"
                } else {
                    "/demo.Demo/Later"
                };
                let answer = unary(&mut client, method, number.to_string())
                    .await
                    .unwrap();
                assert_eq!(answer, number.to_string());
            });
        }
        while let Some(done) = calls.join_next().await {
            done.unwrap();
        }
    });
}

#[test]
fn a_big_body_comes_in_pieces() {
    run(async |server| {
        let mut client = client(server).await;
        let length = 64 << 20;
        let answer = unary(&mut client, "/demo.Demo/Big", length.to_string())
            .await
            .unwrap();
        assert_eq!(answer.len(), length);
        assert!(answer.iter().all(|&octet| octet == b'x'));
        assert_eq!(
            unary(&mut client, "/demo.Demo/Big", "0")
                .await
                .unwrap()
                .len(),
            0
        );
    });
}

#[test]
fn a_body_that_breaks_resets_the_call() {
    run(async |server| {
        let mut client = client(server).await;
        let error = unary(&mut client, "/demo.Demo/Broken", "1000000")
            .await
            .unwrap_err();
        assert_eq!(error.code(), Code::Internal);
        // Nothing was sent yet: the status itself arrives.
        let error = unary(&mut client, "/demo.Demo/Broken", "0")
            .await
            .unwrap_err();
        assert_eq!((error.code(), error.message()), (Code::DataLoss, "broken"));
    });
}

#[test]
fn messages_go_both_ways_on_a_stream() {
    run(async |server| {
        let mut client = client(server).await;
        client.ready().await.unwrap();
        let messages: Vec<Bytes> = (0..1000u32)
            .map(|number| number.to_string().into())
            .collect();
        let request = Request::new(tokio_stream::iter(messages.clone()));
        let answer = client
            .streaming(request, path("/demo.Demo/Chat"), Raw)
            .await
            .unwrap();
        let mut stream = answer.into_inner();
        for message in messages {
            assert_eq!(stream.next().await.unwrap().unwrap(), message);
        }
        assert!(stream.next().await.is_none());
    });
}

#[test]
fn a_stream_can_be_refused() {
    run(async |server| {
        let mut client = client(server).await;
        client.ready().await.unwrap();
        let mut request = Request::new(tokio_stream::iter([Bytes::from_static(b"hello")]));
        request
            .metadata_mut()
            .insert("token", "bad".parse().unwrap());
        let error = client
            .streaming(request, path("/demo.Demo/Chat"), Raw)
            .await
            .unwrap_err();
        assert_eq!(
            (error.code(), error.message()),
            (Code::Unauthenticated, "no entry")
        );
    });
}

#[test]
fn a_flood_waits_for_its_reader() {
    run(async |server| {
        let mut client = client(server).await;
        client.ready().await.unwrap();
        let request = Request::new(Bytes::new());
        let answer = client
            .server_streaming(request, path("/demo.Demo/Flood"), Raw)
            .await
            .unwrap();
        let mut stream = answer.into_inner();
        for _ in 0..FLOOD_MESSAGES {
            assert_eq!(stream.next().await.unwrap().unwrap().len(), 64 * 1024);
        }
        assert!(stream.next().await.is_none());
    });
}

#[test]
fn errors_come_with_their_texts() {
    run(async |server| {
        let mut client = client(server).await;
        let cases = [
            (
                "/demo.Demo/Fail",
                Code::NotFound,
                "50% of ümlauts\n are lost",
            ),
            (
                "/demo.Demo/None",
                Code::Unimplemented,
                "unknown method None for service demo.Demo",
            ),
            (
                "/other.Demo/None",
                Code::Unimplemented,
                "unknown service other.Demo",
            ),
            (
                "/none",
                Code::Unimplemented,
                "malformed method name: \"/none\"",
            ),
        ];
        for (method, code, text) in cases {
            let error = unary(&mut client, method, "hello").await.unwrap_err();
            assert_eq!((error.code(), error.message()), (code, text), "{method}");
        }
        let large = vec![0; 2 * 1024 * 1024 + 1];
        let error = unary(&mut client, "/demo.Demo/Echo", large)
            .await
            .unwrap_err();
        assert_eq!(error.code(), Code::ResourceExhausted);
        assert_eq!(
            error.message(),
            "grpc: received message larger than max (2097153 vs. 2097152)"
        );
        assert_eq!(
            unary(&mut client, "/demo.Demo/Echo", "still here")
                .await
                .unwrap(),
            "still here"
        );
    });
}

#[test]
fn a_dropped_call_is_cancelled() {
    run(async |server| {
        let mut client = client(server).await;
        client.ready().await.unwrap();
        let call = client.unary(Request::new(Bytes::new()), path("/demo.Demo/Hang"), Raw);
        let short = tokio::time::timeout(Duration::from_millis(50), call).await;
        assert!(short.is_err());
        server.wait_for(|seen| *seen == Seen::Cancelled);
    });
}

#[test]
fn the_token_is_the_first_of_its_name() {
    run(async |server| {
        let mut client = client(server).await;
        type Metadata = &'static [(&'static str, &'static str)];
        let cases: [(Metadata, Option<&str>); 4] = [
            (&[("authorization", "Bearer abc")], Some("abc")),
            (
                &[
                    ("authorization", "no"),
                    ("token", "yes"),
                    ("token", "other"),
                ],
                Some("yes"),
            ),
            (&[("token", "Bearer def")], Some("def")),
            (&[], None),
        ];
        for (fields, token) in cases {
            client.ready().await.unwrap();
            let mut request = Request::new(Bytes::new());
            for (name, value) in fields {
                request.metadata_mut().append(*name, value.parse().unwrap());
            }
            client
                .unary(request, path("/demo.Demo/Echo"), Raw)
                .await
                .unwrap();
            let token = token.map(|token| Bytes::copy_from_slice(token.as_bytes()));
            assert_eq!(server.wait_for(|_| true), Seen::Token(token));
        }
    });
}

#[test]
fn a_drain_lets_calls_end_and_then_closes() {
    let server = Server::start(Limits::default());
    let runtime = runtime();
    runtime.block_on(async {
        let mut client = client(&server).await;
        assert_eq!(
            unary(&mut client, "/demo.Demo/Echo", "1").await.unwrap(),
            "1"
        );
        let (sender, receiver) = tokio::sync::mpsc::channel(1);
        let requests = tokio_stream::wrappers::ReceiverStream::new(receiver);
        client.ready().await.unwrap();
        let answer = client.streaming(Request::new(requests), path("/demo.Demo/Chat"), Raw);
        sender.send(Bytes::from_static(b"before")).await.unwrap();
        let mut stream = answer.await.unwrap().into_inner();
        assert_eq!(stream.next().await.unwrap().unwrap(), "before");
        server.front.drain(Duration::from_secs(30));
        sender.send(Bytes::from_static(b"after")).await.unwrap();
        assert_eq!(stream.next().await.unwrap().unwrap(), "after");
        drop(sender);
        assert!(stream.next().await.is_none());
    });
    server.front.join().unwrap();
}
