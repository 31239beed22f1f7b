//! The Watch service: many watchers of clients, few watches on the cluster.
//!
//! One task, the hub, owns [`Sharing`] and gives it whatever happens; a task for each client's
//! stream reads its requests and asks whether it may read the range; a task for each watch below
//! brings its answers. The hub never waits for a client: answers go to an outbox each, and who
//! does not empty it is left alone until it has.

mod outbox;
mod sharing;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use api::pb::etcdserverpb::watch_request::RequestUnion;
use api::pb::etcdserverpb::{
    RangeRequest, ResponseHeader, WatchCreateRequest, WatchRequest, WatchResponse,
};
use bytes::Bytes;
use client::{Cancellation, WatchEvent};
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;
use tonic::codegen::tokio_stream::StreamExt;
use tonic::{Status, Streaming};

use self::outbox::{Inlet, outbox};
use self::sharing::{BroadcastId, Effect, Sharing, StreamId};
use crate::below::{Below, Caller, Kv, Watches, Watching};
use crate::leader::{Leader, Observer};
use crate::metrics::Metrics;
use crate::rpc::Answers;

/// How many requests and answers wait for the hub before who brings them waits.
const QUEUE_LEN: usize = 256;

/// How often broadcasts that catch up are asked how far they are.
const TICK: Duration = Duration::from_millis(250);

/// The watchers of all clients.
pub(crate) struct Service {
    /// Answers whether somebody may read a range, and never from a cache.
    kv: Arc<dyn Kv>,
    leader: Arc<Leader>,
    commands: mpsc::Sender<Command>,
    room: mpsc::UnboundedSender<StreamId>,
    streams: AtomicU64,
}

/// What clients' streams tell the hub.
enum Command {
    Open(StreamId, Caller, Inlet),
    Create(StreamId, WatchCreateRequest, ResponseHeader),
    Refuse(StreamId, String),
    Cancel(StreamId, i64),
    Progress(StreamId),
    Close(StreamId),
}

impl Service {
    /// Starts the hub, which ends with the service.
    pub(crate) fn start(below: &Below, leader: Arc<Leader>, metrics: Arc<Metrics>) -> Self {
        let (commands, requests) = mpsc::channel(QUEUE_LEN);
        let (room, readers) = mpsc::unbounded_channel();
        let hub = Hub::new(Arc::clone(&below.watches), metrics);
        tokio::spawn(hub.run(requests, readers));
        Service {
            kv: Arc::clone(&below.unleased),
            leader,
            commands,
            room,
            streams: AtomicU64::new(0),
        }
    }

    /// Serves one client's stream.
    ///
    /// # Errors
    /// The caller requires a leader, and there is none.
    pub(crate) async fn watch(
        self: Arc<Self>,
        caller: Caller,
        requests: Streaming<WatchRequest>,
    ) -> Result<Answers<WatchResponse>, Status> {
        let observer = match caller.requires_leader {
            true => Some(self.leader.observe().await?),
            false => None,
        };
        let stream = StreamId(self.streams.fetch_add(1, Ordering::Relaxed));
        let (inlet, exit) = outbox(stream, self.room.clone());
        let client = Client {
            service: self,
            // A check outlives no deadline of the stream's; the watches below do not end with it.
            caller: caller.for_good(),
            stream,
            inlet,
        };
        tokio::spawn(client.run(requests, observer));
        Ok(Box::pin(exit))
    }

    async fn tell(&self, command: Command) {
        // Without the hub the proxy is about to end.
        let _sent = self.commands.send(command).await;
    }
}

/// The requests of one stream.
struct Client {
    service: Arc<Service>,
    caller: Caller,
    stream: StreamId,
    inlet: Inlet,
}

impl Client {
    async fn run(self, requests: Streaming<WatchRequest>, observer: Option<Observer>) {
        let open = Command::Open(self.stream, self.caller.clone(), self.inlet.clone());
        self.service.tell(open).await;
        let lost = async {
            match &observer {
                Some(observer) => observer.lost().await,
                None => std::future::pending().await,
            }
        };
        let end = tokio::select! {
            () = self.inlet.is_gone() => None,
            status = lost => Some(status),
            status = self.serve(requests) => Some(status),
        };
        self.inlet.end(end);
        self.service.tell(Command::Close(self.stream)).await;
    }

    /// Takes requests until the stream breaks. A client that has said everything may go on
    /// listening, as with a server.
    async fn serve(&self, mut requests: Streaming<WatchRequest>) -> Status {
        loop {
            // Who does not read what was said is not asked for more.
            self.inlet.room().await;
            match requests.message().await {
                Ok(Some(request)) => self.on_request(request).await,
                Ok(None) => std::future::pending().await,
                Err(status) => return status,
            }
        }
    }

    async fn on_request(&self, request: WatchRequest) {
        let command = match request.request_union {
            Some(RequestUnion::CreateRequest(request)) => self.check(request).await,
            Some(RequestUnion::CancelRequest(it)) => Command::Cancel(self.stream, it.watch_id),
            Some(RequestUnion::ProgressRequest(_)) => Command::Progress(self.stream),
            None => return,
        };
        self.service.tell(command).await;
    }

    /// Asks the cluster whether the client may read what it wants to watch.
    async fn check(&self, mut request: WatchCreateRequest) -> Command {
        if request.start_revision < 0 {
            let reason = api::Error::Compacted.message().to_owned();
            return Command::Refuse(self.stream, reason);
        }
        if request.key.is_empty() {
            // A server takes it for the first key that there can be.
            request.key = Bytes::from_static(b"\0");
        }
        let read = RangeRequest {
            key: request.key.clone(),
            range_end: request.range_end.clone(),
            serializable: true,
            count_only: true,
            limit: 1,
            ..RangeRequest::default()
        };
        match self.service.kv.range(&self.caller, read).await {
            Ok(answer) => {
                let header = answer.header.unwrap_or_default();
                Command::Create(self.stream, request, header)
            }
            Err(status) => Command::Refuse(self.stream, reason(&status)),
        }
    }
}

/// A refusal as a server words it in the answer to a creation.
fn reason(status: &Status) -> String {
    let code = status.code();
    format!("rpc error: code = {code:?} desc = {}", status.message())
}

/// The owner of [`Sharing`].
struct Hub {
    watches: Arc<dyn Watches>,
    sharing: Sharing<Inlet>,
    open: HashMap<BroadcastId, Watch>,
    /// Where watches below put their answers.
    answers: mpsc::Sender<(BroadcastId, WatchEvent)>,
    heard: mpsc::Receiver<(BroadcastId, WatchEvent)>,
}

/// The task of one watch below, which ends with this.
struct Watch {
    task: tokio::task::JoinHandle<()>,
    asks: mpsc::Sender<()>,
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Hub {
    fn new(watches: Arc<dyn Watches>, metrics: Arc<Metrics>) -> Self {
        let (answers, heard) = mpsc::channel(QUEUE_LEN);
        Hub {
            watches,
            sharing: Sharing::new(metrics),
            open: HashMap::new(),
            answers,
            heard,
        }
    }

    async fn run(
        mut self,
        mut requests: mpsc::Receiver<Command>,
        mut readers: mpsc::UnboundedReceiver<StreamId>,
    ) {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let is_catching_up = self.sharing.is_catching_up();
            tokio::select! {
                command = requests.recv() => match command {
                    Some(command) => self.on_command(command),
                    None => return,
                },
                Some(stream) = readers.recv() => self.sharing.on_room(stream),
                Some((id, answer)) = self.heard.recv() => self.sharing.on_answer(id, answer),
                _ = tick.tick(), if is_catching_up => self.sharing.on_tick(),
            }
            for effect in self.sharing.take_effects() {
                self.on_effect(effect);
            }
        }
    }

    fn on_command(&mut self, command: Command) {
        let sharing = &mut self.sharing;
        match command {
            Command::Open(stream, caller, inlet) => sharing.open(stream, caller, inlet),
            Command::Create(stream, request, header) => sharing.create(stream, request, header),
            Command::Refuse(stream, reason) => {
                sharing.refuse(stream, ResponseHeader::default(), reason);
            }
            Command::Cancel(stream, id) => sharing.cancel(stream, id),
            Command::Progress(stream) => sharing.ask_progress(stream),
            Command::Close(stream) => sharing.close(stream),
        }
    }

    fn on_effect(&mut self, effect: Effect) {
        match effect {
            Effect::Open(id, mut caller, request) => {
                // It is shared by callers who require a leader and by others.
                caller.requires_leader = false;
                let watching = self.watches.watch(&caller, request);
                // One question that waits asks for all.
                let (asks, questions) = mpsc::channel(1);
                let task = tokio::spawn(bring(id, watching, questions, self.answers.clone()));
                self.open.insert(id, Watch { task, asks });
            }
            Effect::Close(id) => drop(self.open.remove(&id)),
            Effect::Ask(id) => {
                if let Some(watch) = self.open.get(&id) {
                    let _asked = watch.asks.try_send(());
                }
            }
        }
    }
}

/// Brings the answers of a watch below to the hub.
async fn bring(
    id: BroadcastId,
    mut watching: Watching,
    mut asks: mpsc::Receiver<()>,
    hub: mpsc::Sender<(BroadcastId, WatchEvent)>,
) {
    loop {
        let answer = tokio::select! {
            answer = watching.answers.next() => answer,
            Some(()) = asks.recv() => {
                watching.request_progress();
                continue;
            }
        };
        let is_last = answer
            .as_ref()
            .is_none_or(|answer| answer.cancelled.is_some());
        let answer = answer.unwrap_or_else(|| WatchEvent {
            cancelled: Some(Cancellation::Refused("the watch ended".to_owned())),
            ..WatchEvent::default()
        });
        if hub.send((id, answer)).await.is_err() || is_last {
            return;
        }
    }
}
