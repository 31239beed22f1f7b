//! Watches that survive broken connections.
//!
//! All watches of one [`Watches`] share one stream, served by one task. The server answers
//! creations in order, so one is asked for at a time and the answer names its id. After a
//! broken stream each watch is created again from the revision after the last that it
//! delivered.

use std::collections::{HashMap, VecDeque};
use std::task::{Context, Poll};
use std::time::Duration;

use api::pb::etcdserverpb::watch_request::RequestUnion;
use api::pb::etcdserverpb::{
    ResponseHeader, WatchCancelRequest, WatchCreateRequest, WatchProgressRequest, WatchRequest,
    WatchResponse,
};
use api::pb::mvccpb::Event;
use tokio::sync::mpsc;
use tonic::Streaming;
use tonic::codegen::tokio_stream::wrappers::UnboundedReceiverStream;

use crate::client::Client;
use crate::error::Error;

/// How long to wait before a broken stream is opened again; doubles up to the second value.
const RESUME_WAIT_MIN: Duration = Duration::from_millis(1);
const RESUME_WAIT_MAX: Duration = Duration::from_millis(100);

/// How many answers wait for a slow reader before the stream, and with it the server, waits.
const ANSWERS_MAX: usize = 128;

/// Why a watch ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cancellation {
    /// The start revision was compacted; the answer carries the revision that is left.
    Compacted(i64),
    /// The server's own words, or how the stream failed for good.
    Refused(String),
}

/// One answer to a watch.
#[derive(Clone, Debug, Default)]
pub struct WatchEvent {
    pub header: Option<ResponseHeader>,
    /// In order of revision; empty for a progress notification and for the end.
    pub events: Vec<Event>,
    /// The server has made the watch; only said when that was asked for, and before all else.
    pub created: bool,
    /// A progress notification that was asked for.
    pub requested: bool,
    /// The watch delivers nothing after an answer with this set.
    pub cancelled: Option<Cancellation>,
}

impl WatchEvent {
    /// Whether the answer only says how far the watch has come.
    #[must_use]
    pub fn is_progress(&self) -> bool {
        self.events.is_empty()
            && self.cancelled.is_none()
            && !self.created
            && self.header.is_some_and(|header| header.revision != 0)
    }
}

/// Watches that share one stream. The stream closes when this and every [`Watcher`] are gone.
#[derive(Clone)]
pub struct Watches {
    commands: mpsc::UnboundedSender<Command>,
}

/// The answers to one watch. Dropping it cancels the watch: at once when nobody else uses its
/// stream, otherwise when its next answer comes.
pub struct Watcher {
    answers: mpsc::Receiver<WatchEvent>,
    /// Keeps the task alive while somebody listens.
    _commands: mpsc::UnboundedSender<Command>,
}

enum Command {
    Create(Watch),
    Progress,
}

impl Watches {
    pub(crate) fn start(client: Client) -> Self {
        let (commands, queue) = mpsc::unbounded_channel();
        tokio::spawn(async move { Task::new(client).run(queue).await });
        Watches { commands }
    }

    /// Watches what the request says.
    #[must_use]
    pub fn create(&self, request: WatchCreateRequest) -> Watcher {
        self.begin(request, false)
    }

    /// Watches what the request says, and says first that the watch is there, with the server's
    /// header.
    #[must_use]
    pub fn create_announced(&self, request: WatchCreateRequest) -> Watcher {
        self.begin(request, true)
    }

    fn begin(&self, request: WatchCreateRequest, announced: bool) -> Watcher {
        let (sender, answers) = mpsc::channel(ANSWERS_MAX);
        let watch = Watch {
            request,
            answers: sender,
            fragments: Vec::new(),
            announced,
        };
        // The task lives as long as a sender of commands does.
        let _sent = self.commands.send(Command::Create(watch));
        Watcher {
            answers,
            _commands: self.commands.clone(),
        }
    }

    /// Asks the server how far the watches have come; each of them gets the answer.
    pub fn request_progress(&self) {
        let _sent = self.commands.send(Command::Progress);
    }
}

impl Watcher {
    /// The next answer; `None` after the end.
    pub async fn next(&mut self) -> Option<WatchEvent> {
        self.answers.recv().await
    }

    /// As [`Watcher::next`], for streams.
    pub fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<WatchEvent>> {
        self.answers.poll_recv(context)
    }
}

/// One watch, on its way to the server or established.
struct Watch {
    request: WatchCreateRequest,
    answers: mpsc::Sender<WatchEvent>,
    /// Parts of an answer that the server split.
    fragments: Vec<Event>,
    /// Its reader wants to know when it is there.
    announced: bool,
}

struct Stream {
    requests: mpsc::UnboundedSender<WatchRequest>,
    answers: Streaming<WatchResponse>,
}

struct Task {
    client: Client,
    established: HashMap<i64, Watch>,
    /// The first of these was asked for; the rest wait.
    waiting: VecDeque<Watch>,
}

impl Task {
    fn new(client: Client) -> Self {
        Task {
            client,
            established: HashMap::new(),
            waiting: VecDeque::new(),
        }
    }

    async fn run(mut self, mut commands: mpsc::UnboundedReceiver<Command>) {
        let mut wait = RESUME_WAIT_MIN;
        // Without a watch there is no need for a stream.
        while let Some(command) = commands.recv().await {
            let Command::Create(watch) = command else {
                continue;
            };
            self.waiting.push_back(watch);
            while !self.is_idle() {
                let error = match self.open().await {
                    Ok(mut stream) => {
                        wait = RESUME_WAIT_MIN;
                        self.serve(&mut stream, &mut commands).await
                    }
                    Err(error) => Some(error),
                };
                let Some(error) = error else { return };
                self.resume_after(error, &mut wait).await;
            }
        }
    }

    fn is_idle(&self) -> bool {
        self.established.is_empty() && self.waiting.is_empty()
    }

    async fn open(&mut self) -> Result<Stream, Error> {
        let (requests, queue) = mpsc::unbounded_channel();
        let request = self.client.request(UnboundedReceiverStream::new(queue));
        let mut stub = self.client.watch_stub();
        // A server sends response headers with the first message; without a request first,
        // both sides would wait.
        let stream = Requests(&requests);
        self.create_first(&stream);
        let answers = self.client.limited(stub.watch(request)).await?.into_inner();
        Ok(Stream { requests, answers })
    }

    fn create_first(&self, requests: &Requests<'_>) {
        if let Some(watch) = self.waiting.front() {
            requests.send(RequestUnion::CreateRequest(watch.request.clone()));
        }
    }

    /// Serves one stream. Returns why it ended, or `None` when nobody needs it any more.
    async fn serve(
        &mut self,
        stream: &mut Stream,
        commands: &mut mpsc::UnboundedReceiver<Command>,
    ) -> Option<Error> {
        loop {
            tokio::select! {
                command = commands.recv() => match command {
                    None => return None,
                    Some(Command::Progress) => {
                        let requests = Requests(&stream.requests);
                        requests.send(RequestUnion::ProgressRequest(WatchProgressRequest {}));
                    }
                    Some(Command::Create(watch)) => {
                        self.waiting.push_back(watch);
                        if self.waiting.len() == 1 {
                            self.create_first(&Requests(&stream.requests));
                        }
                    }
                },
                answer = stream.answers.message() => match answer {
                    Ok(Some(answer)) => {
                        self.on_answer(answer, &Requests(&stream.requests)).await;
                    }
                    Ok(None) => {
                        let message = "the watch stream ended".to_owned();
                        return Some(Error::Rpc { code: api::Code::Unavailable, message });
                    }
                    Err(status) => return Some(status.into()),
                },
            }
        }
    }

    async fn on_answer(&mut self, answer: WatchResponse, requests: &Requests<'_>) {
        if answer.created {
            return self.on_created(answer, requests).await;
        }
        if answer.canceled {
            if let Some(watch) = self.established.remove(&answer.watch_id) {
                end(&watch, answer).await;
            }
            return;
        }
        if answer.watch_id < 0 {
            // Progress that was asked for concerns every watch of the stream.
            for watch in self.established.values_mut() {
                let progress = WatchEvent {
                    header: answer.header,
                    requested: true,
                    ..WatchEvent::default()
                };
                watch.deliver(progress).await;
            }
            return;
        }
        let id = answer.watch_id;
        let delivered = match self.established.get_mut(&id) {
            Some(watch) => watch.on_events(answer).await,
            None => false,
        };
        if !delivered {
            self.established.remove(&id);
            requests.send(RequestUnion::CancelRequest(WatchCancelRequest {
                watch_id: id,
            }));
        }
    }

    async fn on_created(&mut self, answer: WatchResponse, requests: &Requests<'_>) {
        if let Some(mut watch) = self.waiting.pop_front() {
            if answer.canceled {
                end(&watch, answer).await;
            } else {
                if watch.request.start_revision == 0 {
                    // From now on: what was missed if the stream breaks before the first event.
                    let now = answer.header.map_or(0, |header| header.revision);
                    watch.request.start_revision = now + 1;
                }
                if std::mem::take(&mut watch.announced) {
                    watch.announce(answer.header).await;
                }
                self.established.insert(answer.watch_id, watch);
            }
        }
        self.create_first(requests);
    }

    /// Prepares the watches for a new stream, or ends them when another would fail as well.
    async fn resume_after(&mut self, error: Error, wait: &mut Duration) {
        let established = std::mem::take(&mut self.established);
        for (_, mut watch) in established {
            watch.fragments.clear();
            self.waiting.push_back(watch);
        }
        self.waiting.retain(|watch| !watch.answers.is_closed());
        let refresh = self.client.may_refresh_for(&error);
        let hopeless = error.is(api::Error::NoLeader) || !(error.is_transient() || refresh);
        let error = match hopeless {
            true => Some(error),
            false if refresh => self.client.authenticate().await.err(),
            false => None,
        };
        if let Some(error) = error {
            for watch in self.waiting.drain(..) {
                let reason = Some(Cancellation::Refused(error.to_string()));
                let last = WatchEvent {
                    cancelled: reason,
                    ..WatchEvent::default()
                };
                // A reader that has gone needs no reason.
                let _sent = watch.answers.send(last).await;
            }
            return;
        }
        tokio::time::sleep(*wait).await;
        *wait = (*wait * 2).min(RESUME_WAIT_MAX);
    }
}

/// The sending half of a stream. A closed stream shows in its answers, so sending cannot fail.
struct Requests<'a>(&'a mpsc::UnboundedSender<WatchRequest>);

impl Requests<'_> {
    fn send(&self, request: RequestUnion) {
        let _sent = self.0.send(WatchRequest {
            request_union: Some(request),
        });
    }
}

impl Watch {
    /// Delivers events and remembers how far they reach. Returns whether somebody listens.
    async fn on_events(&mut self, answer: WatchResponse) -> bool {
        self.fragments.extend(answer.events);
        if answer.fragment {
            return true;
        }
        let events = std::mem::take(&mut self.fragments);
        if let Some(kv) = events.last().and_then(|event| event.kv.as_ref()) {
            self.request.start_revision = kv.mod_revision + 1;
        }
        self.deliver(WatchEvent {
            header: answer.header,
            events,
            ..WatchEvent::default()
        })
        .await
    }

    /// Says that the watch is there. One whose reader has gone ends with the next answer.
    async fn announce(&mut self, header: Option<ResponseHeader>) {
        let created = WatchEvent {
            header,
            created: true,
            ..WatchEvent::default()
        };
        self.deliver(created).await;
    }

    async fn deliver(&mut self, event: WatchEvent) -> bool {
        if event.is_progress() {
            let reached = event.header.map_or(0, |header| header.revision) + 1;
            self.request.start_revision = self.request.start_revision.max(reached);
        }
        self.answers.send(event).await.is_ok()
    }
}

async fn end(watch: &Watch, answer: WatchResponse) {
    let reason = match answer.compact_revision {
        0 => Cancellation::Refused(answer.cancel_reason),
        revision => Cancellation::Compacted(revision),
    };
    let header = answer.header.filter(|_| answer.compact_revision != 0);
    // A reader that has gone needs no reason.
    let _sent = watch
        .answers
        .send(WatchEvent {
            header,
            cancelled: Some(reason),
            ..WatchEvent::default()
        })
        .await;
}
