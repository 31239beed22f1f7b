//! A watch stream on a transport that is not ours, and how a test talks on it.

use std::net::SocketAddr;
use std::time::Duration;

use api::pb::etcdserverpb::watch_request::RequestUnion;
use api::pb::etcdserverpb::{
    WatchCancelRequest, WatchCreateRequest, WatchProgressRequest, WatchRequest, WatchResponse,
};
use bytes::Bytes;
use client::stub::WatchClient;
use e2e::kv::Kv;
use e2e::{Member, Options};
use tokio::sync::mpsc;
use tonic::Status;
use tonic::codegen::tokio_stream::wrappers::UnboundedReceiverStream;

pub(crate) const LIMIT: Duration = Duration::from_secs(30);

pub(crate) struct Stream {
    requests: mpsc::UnboundedSender<WatchRequest>,
    /// Holds one answer only: whoever does not take it keeps the stream from being read.
    pub(crate) answers: mpsc::Receiver<Result<WatchResponse, Status>>,
}

impl Stream {
    /// The server says nothing, not even that the stream is open, before the first request.
    pub(crate) fn open(kv: &Kv) -> Stream {
        let (requests, queue) = mpsc::unbounded_channel();
        let (sender, answers) = mpsc::channel(1);
        let mut client = WatchClient::new(kv.channel()).max_decoding_message_size(usize::MAX);
        tokio::spawn(async move {
            let mut stream = match client.watch(UnboundedReceiverStream::new(queue)).await {
                Ok(stream) => stream.into_inner(),
                Err(status) => {
                    // Whoever asks is told; nobody may.
                    let _ = sender.send(Err(status)).await;
                    return;
                }
            };
            while let Some(answer) = stream.message().await.transpose() {
                let is_last = answer.is_err();
                if sender.send(answer).await.is_err() || is_last {
                    return;
                }
            }
        });
        Stream { requests, answers }
    }

    pub(crate) fn ask(&self, request: RequestUnion) {
        let request_union = Some(request);
        self.requests
            .send(WatchRequest { request_union })
            .expect("the stream is open");
    }

    pub(crate) fn create(&self, request: WatchCreateRequest) {
        self.ask(RequestUnion::CreateRequest(request));
    }

    pub(crate) async fn next(&mut self) -> WatchResponse {
        let answer = tokio::time::timeout(LIMIT, self.answers.recv()).await;
        let answer = answer.expect("an answer in time");
        answer.expect("no end").expect("no error")
    }

    pub(crate) fn cancel(&self, watch_id: i64) {
        self.ask(RequestUnion::CancelRequest(WatchCancelRequest { watch_id }));
    }

    /// Creates a watch and returns its first answer.
    pub(crate) async fn created(&mut self, request: WatchCreateRequest) -> WatchResponse {
        self.create(request);
        let answer = self.next().await;
        assert!(answer.created, "{answer:?}");
        answer
    }

    /// The answer to a progress request, which tells that nothing else was on its way.
    pub(crate) async fn progress(&mut self) -> i64 {
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

pub(crate) fn revision(answer: &WatchResponse) -> i64 {
    answer.header.as_ref().map_or(0, |header| header.revision)
}

pub(crate) fn on(key: &str, end: &str) -> WatchCreateRequest {
    WatchCreateRequest {
        key: Bytes::copy_from_slice(key.as_bytes()),
        range_end: Bytes::copy_from_slice(end.as_bytes()),
        ..Default::default()
    }
}

pub(crate) fn start() -> (Member, Kv) {
    let member = Member::start(Options::default()).expect("a member");
    let address: SocketAddr = member.address();
    (member, Kv::to(address))
}

pub(crate) async fn put(kv: &Kv, key: &str, value: &str) -> i64 {
    let (key, value) = (key.to_owned().into(), value.to_owned().into());
    kv.put(key, value).await.expect("a put")
}
