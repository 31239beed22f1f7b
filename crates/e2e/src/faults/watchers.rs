//! A watcher of everything at every endpoint, which goes on after the last revision it was told
//! when its stream ends.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use api::pb::etcdserverpb::watch_request::RequestUnion;
use api::pb::etcdserverpb::{
    WatchCreateRequest, WatchProgressRequest, WatchRequest, WatchResponse,
};
use api::pb::mvccpb::Event;
use api::pb::mvccpb::event::EventType;
use bytes::Bytes;
use client::stub::WatchClient;
use tokio::sync::mpsc;
use tonic::codegen::tokio_stream::wrappers::UnboundedReceiverStream;

use super::history::History;
use crate::Error;
use crate::kv::Kv;

/// Pause before a stream is opened anew.
const PAUSE: Duration = Duration::from_millis(50);
/// How often the watcher asks how far the member is.
const PROGRESS: Duration = Duration::from_millis(400);
/// Longest wait for a member to open a stream.
const LIMIT: Duration = Duration::from_secs(3);

/// What happened to a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    pub key: Bytes,
    /// Nothing when it was deleted.
    pub value: Option<Bytes>,
}

/// What a watcher was told about a revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    pub revision: i64,
    pub changes: Vec<Change>,
    /// When, in microseconds since the beginning.
    pub at: u64,
}

/// Everything that a watcher was told, in its order.
#[derive(Debug, Default)]
pub struct Log {
    pub told: Vec<Told>,
    /// No event at or below this revision may come.
    progress: i64,
    /// Streams that were opened.
    pub streams: usize,
    /// What no watcher may be told.
    pub broken: Vec<String>,
}

impl Log {
    fn last(&self) -> i64 {
        self.told.last().map_or(0, |told| told.revision)
    }

    /// Takes an answer of a stream in.
    pub(super) fn take(&mut self, answer: &WatchResponse, at: u64) {
        if answer.canceled {
            let reason = &answer.cancel_reason;
            self.broken
                .push(format!("the watch was cancelled: {reason}"));
        }
        let mut news: Vec<Told> = Vec::new();
        for event in &answer.events {
            let (revision, change) = change(event);
            match news.last_mut() {
                Some(told) if told.revision == revision => told.changes.push(change),
                _ => news.push(Told {
                    revision,
                    changes: vec![change],
                    at,
                }),
            }
        }
        for told in news {
            let (last, progress) = (self.last(), self.progress);
            if told.revision <= last.max(progress) {
                let text = format!("{told:?} came after revision {last}, progress {progress}");
                self.broken.push(text);
            }
            self.told.push(told);
        }
        let head = answer.header.as_ref().map_or(0, |header| header.revision);
        let is_progress = answer.events.is_empty() && !answer.created && !answer.canceled;
        if is_progress {
            self.progress = self.progress.max(head);
        } else if head < self.last() && !answer.created {
            let text = format!("events to {} under a header of {head}", self.last());
            self.broken.push(text);
        }
    }
}

fn change(event: &Event) -> (i64, Change) {
    let kv = event.kv.clone().unwrap_or_default();
    let is_put = event.r#type == i32::from(EventType::Put);
    let value = is_put.then_some(kv.value);
    (kv.mod_revision, Change { key: kv.key, value })
}

/// The watchers at work.
pub(super) struct Watchers {
    logs: Vec<Arc<Mutex<Log>>>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Watchers {
    /// One at each endpoint, from the revision `first` on.
    pub(super) fn start(endpoints: &[SocketAddr], first: i64, history: &Arc<History>) -> Watchers {
        let logs: Vec<Arc<Mutex<Log>>> = endpoints.iter().map(|_| Arc::default()).collect();
        let tasks = endpoints.iter().zip(&logs).map(|(endpoint, log)| {
            let (kv, log, history) = (Kv::to(*endpoint), log.clone(), history.clone());
            tokio::spawn(async move {
                loop {
                    // Whatever ended the stream, another one goes on where it stopped.
                    let _ = follow(&kv, &log, first, &history).await;
                    tokio::time::sleep(PAUSE).await;
                }
            })
        });
        let tasks = tasks.collect();
        Watchers { logs, tasks }
    }

    /// The last revision that each was told.
    pub(super) fn last(&self) -> Vec<i64> {
        let last = |log: &Arc<Mutex<Log>>| log.lock().expect("no holder panics").last();
        self.logs.iter().map(last).collect()
    }

    pub(super) fn stop(self) -> Vec<Log> {
        for task in &self.tasks {
            task.abort();
        }
        let logs = self.logs.iter();
        logs.map(|log| std::mem::take(&mut *log.lock().expect("no holder panics")))
            .collect()
    }
}

async fn follow(
    kv: &Kv,
    log: &Mutex<Log>,
    first: i64,
    history: &History,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let (requests, queue) = mpsc::unbounded_channel();
    let ask = |union| {
        requests.send(WatchRequest {
            request_union: Some(union),
        })
    };
    let from = log.lock().expect("no holder panics").last();
    ask(RequestUnion::CreateRequest(all((from + 1).max(first))))?;
    let mut client = WatchClient::new(kv.channel()).max_decoding_message_size(usize::MAX);
    let stream = client.watch(UnboundedReceiverStream::new(queue));
    let mut stream = tokio::time::timeout(LIMIT, stream).await??.into_inner();
    {
        let mut log = log.lock().expect("no holder panics");
        log.streams += 1;
        // Another stream, maybe of a member that is not so far.
        log.progress = 0;
    }
    let mut progress = tokio::time::interval(PROGRESS);
    loop {
        tokio::select! {
            answer = stream.message() => {
                let answer = answer?.ok_or("the stream ended")?;
                let at = history.now();
                log.lock().expect("no holder panics").take(&answer, at);
            }
            _ = progress.tick() => {
                ask(RequestUnion::ProgressRequest(WatchProgressRequest {}))?;
            }
        }
    }
}

fn all(first: i64) -> WatchCreateRequest {
    WatchCreateRequest {
        key: Bytes::from_static(b"\0"),
        range_end: Bytes::from_static(b"\0"),
        start_revision: first,
        ..WatchCreateRequest::default()
    }
}

/// Everything that happened from `first` to `last`, as a member tells it now.
///
/// # Errors
/// It does not tell it within 30 s, or tells it wrongly.
pub(super) async fn everything(kv: &Kv, first: i64, last: i64) -> Result<Vec<Told>, Error> {
    let log = Arc::new(Mutex::new(Log::default()));
    let history = History::default();
    let deadline = Duration::from_secs(30);
    let follow = follow(kv, &log, first, &history);
    let enough = async {
        while log.lock().expect("no holder panics").last() < last {
            tokio::time::sleep(PAUSE).await;
        }
    };
    tokio::select! {
        ended = follow => return Err(Error(format!("{:?}", ended.err()))),
        () = enough => {}
        () = tokio::time::sleep(deadline) => {
            let got = log.lock().expect("no holder panics").last();
            return Err(Error(format!("told of {got} and no more in 30 s, not of {last}")));
        }
    }
    let mut log = log.lock().expect("no holder panics");
    match log.broken.first() {
        Some(broken) => Err(Error(broken.clone())),
        None => Ok(std::mem::take(&mut log.told)),
    }
}
