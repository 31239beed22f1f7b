//! A client's watch stream.

use api::pb::etcdserverpb::watch_request::RequestUnion;
use api::pb::etcdserverpb::{WatchCreateRequest, WatchRequest, WatchResponse};
use client::stub::WatchClient;
use e2e::kv::Kv;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tonic::codegen::tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::{Request, Status};

use crate::process::LIMIT;

pub(crate) struct Stream {
    requests: mpsc::UnboundedSender<WatchRequest>,
    /// Holds one answer: whoever does not take it keeps the stream from being read.
    answers: mpsc::Receiver<Result<WatchResponse, Status>>,
    task: JoinHandle<()>,
}

impl Drop for Stream {
    fn drop(&mut self) {
        // The end of the requests alone would not end the answers.
        self.task.abort();
    }
}

impl Stream {
    pub(crate) fn open(kv: &Kv) -> Stream {
        Self::open_as(kv, &[])
    }

    /// With metadata.
    pub(crate) fn open_as(kv: &Kv, metadata: &[(&'static str, &str)]) -> Stream {
        let (requests, queue) = mpsc::unbounded_channel();
        let (sender, answers) = mpsc::channel(1);
        let mut client = WatchClient::new(kv.channel()).max_decoding_message_size(usize::MAX);
        let mut request = Request::new(UnboundedReceiverStream::new(queue));
        for (name, value) in metadata {
            let value = value.parse().expect("plain text");
            request.metadata_mut().insert(*name, value);
        }
        let task = tokio::spawn(async move {
            let mut stream = match client.watch(request).await {
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
        Stream {
            requests,
            answers,
            task,
        }
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

    /// The next answer, or how the stream ended.
    pub(crate) async fn outcome(&mut self) -> Result<WatchResponse, Status> {
        let answer = tokio::time::timeout(LIMIT, self.answers.recv()).await;
        answer.expect("an answer in time").expect("no silent end")
    }

    pub(crate) async fn next(&mut self) -> WatchResponse {
        self.outcome().await.expect("no error")
    }

    /// Creates a watch and returns its first answer.
    pub(crate) async fn created(&mut self, request: WatchCreateRequest) -> WatchResponse {
        self.create(request);
        let answer = self.next().await;
        assert!(answer.created, "{answer:?}");
        answer
    }

    /// Mod revisions up to `last`, of which no two answers may share one.
    pub(crate) async fn revisions_until(&mut self, last: i64) -> Vec<i64> {
        let mut seen = Vec::new();
        while seen.last() != Some(&last) {
            let answer = self.next().await;
            assert!(!answer.canceled, "{answer:?}");
            seen.extend(revisions(&answer));
        }
        seen
    }
}

pub(crate) fn revisions(answer: &WatchResponse) -> impl Iterator<Item = i64> {
    let kvs = answer.events.iter().filter_map(|event| event.kv.as_ref());
    kvs.map(|kv| kv.mod_revision)
}

/// All keys that begin with `k`, from a revision on; 0 for now.
pub(crate) fn keys_from(start_revision: i64) -> WatchCreateRequest {
    WatchCreateRequest {
        key: "k".into(),
        range_end: "l".into(),
        start_revision,
        ..WatchCreateRequest::default()
    }
}
