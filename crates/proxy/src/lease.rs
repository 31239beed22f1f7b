//! The Lease service's keep-alives: the streams of many clients become one stream for each user.
//!
//! A renewal below is made when a client asks for one, and never without: a lease whose client has
//! gone ends in time. Requests for a lease of which a renewal is under way share the next one, so
//! that each client's answer is to a renewal that began after its request.

mod renewals;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use api::pb::etcdserverpb::{LeaseKeepAliveRequest, LeaseKeepAliveResponse};
use client::Client;
use client::stub::LeaseClient;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinHandle;
use tonic::codegen::tokio_stream::StreamExt;
use tonic::codegen::tokio_stream::wrappers::{ReceiverStream, UnboundedReceiverStream};
use tonic::metadata::AsciiMetadataValue;
use tonic::{Status, Streaming};

use self::renewals::{End, Renewals};
use crate::below::Caller;
use crate::leader::Leader;
use crate::rpc::Answers;

/// How many requests of one stream may be without an answer that its client has taken; more are
/// not read.
const REQUESTS_MAX: usize = 256;

/// How many requests of all streams wait for the task that serves them.
const QUEUE_LEN: usize = 256;

/// Pause before a broken stream below is opened again.
const REOPEN_WAIT: Duration = Duration::from_millis(50);

type Token = Option<AsciiMetadataValue>;

/// An answer, and the right to ask that it gives back when it is taken.
type Answer = (Result<LeaseKeepAliveResponse, Status>, OwnedSemaphorePermit);

/// One request of a client.
struct Ask {
    lease: i64,
    /// Has room for as many answers as there are permits.
    answers: mpsc::Sender<Answer>,
    permit: OwnedSemaphorePermit,
}

impl Ask {
    fn answer(self, answer: Result<LeaseKeepAliveResponse, Status>) {
        // A client that has gone needs no answer; one that is there has room.
        let _sent = self.answers.try_send((answer, self.permit));
    }
}

/// The keep-alives of all clients.
pub(crate) struct Service {
    client: Client,
    leader: Arc<Leader>,
    /// The task for each token in use. Locked to find or begin one.
    keepers: Mutex<HashMap<Token, Weak<mpsc::Sender<Ask>>>>,
}

impl Service {
    pub(crate) fn new(client: Client, leader: Arc<Leader>) -> Self {
        Service {
            client,
            leader,
            keepers: Mutex::default(),
        }
    }

    /// Serves one client's stream.
    ///
    /// # Errors
    /// The caller requires a leader, and there is none.
    pub(crate) async fn keep_alive(
        self: Arc<Self>,
        caller: Caller,
        requests: Streaming<LeaseKeepAliveRequest>,
    ) -> Result<Answers<LeaseKeepAliveResponse>, Status> {
        let observer = match caller.requires_leader {
            true => Some(self.leader.observe().await?),
            false => None,
        };
        let keeper = self.keeper(&caller);
        let (answers, taken) = mpsc::channel(REQUESTS_MAX + 1);
        tokio::spawn(async move {
            let lost = async {
                match &observer {
                    Some(observer) => observer.lost().await,
                    None => std::future::pending().await,
                }
            };
            let permits = Arc::new(Semaphore::new(REQUESTS_MAX));
            let status = tokio::select! {
                () = answers.closed() => return,
                status = lost => Some(status),
                status = ask(requests, &keeper, &answers, &permits) => status,
            };
            if let Some(status) = status {
                // One more than there are permits, for this.
                let last = Arc::new(Semaphore::new(1)).try_acquire_owned();
                if let Ok(permit) = last {
                    let _sent = answers.try_send((Err(status), permit));
                }
            }
        });
        let taken = ReceiverStream::new(taken).map(|(answer, _permit)| answer);
        Ok(Box::pin(taken))
    }

    fn keeper(&self, caller: &Caller) -> Arc<mpsc::Sender<Ask>> {
        let mut keepers = self.keepers.lock().unwrap_or_else(PoisonError::into_inner);
        keepers.retain(|_, keeper| keeper.strong_count() > 0);
        let known = keepers.get(&caller.token).and_then(Weak::upgrade);
        known.unwrap_or_else(|| {
            let mut caller = caller.for_good();
            // The streams that share it look after that themselves.
            caller.requires_leader = false;
            let (asks, queue) = mpsc::channel(QUEUE_LEN);
            let keeper = Keeper::new(caller.client(&self.client));
            tokio::spawn(keeper.run(queue));
            let asks = Arc::new(asks);
            keepers.insert(caller.token, Arc::downgrade(&asks));
            asks
        })
    }
}

/// Takes a client's requests to the keeper. Returns when the stream is broken, with how, or when
/// the client asks no more and everything is answered.
async fn ask(
    mut requests: Streaming<LeaseKeepAliveRequest>,
    keeper: &mpsc::Sender<Ask>,
    answers: &mpsc::Sender<Answer>,
    permits: &Arc<Semaphore>,
) -> Option<Status> {
    loop {
        let permit = Arc::clone(permits).acquire_owned().await.ok()?;
        match requests.message().await {
            Ok(Some(request)) => {
                let ask = Ask {
                    lease: request.id,
                    answers: answers.clone(),
                    permit,
                };
                keeper.send(ask).await.ok()?;
            }
            Ok(None) => break,
            Err(status) => return Some(status),
        }
    }
    let all = u32::try_from(REQUESTS_MAX).unwrap_or(u32::MAX);
    let _all = permits.acquire_many(all).await;
    None
}

/// The stream below for one token.
struct Keeper {
    client: Client,
    renewals: Renewals<Ask>,
    stream: Option<Below>,
    /// What streams below say, each with its number.
    heard: mpsc::UnboundedReceiver<(u64, Said)>,
    says: mpsc::UnboundedSender<(u64, Said)>,
    count: u64,
}

struct Below {
    requests: mpsc::UnboundedSender<LeaseKeepAliveRequest>,
    task: JoinHandle<()>,
}

impl Drop for Below {
    fn drop(&mut self) {
        self.task.abort();
    }
}

type Said = Result<LeaseKeepAliveResponse, Status>;

impl Keeper {
    fn new(client: Client) -> Self {
        let (says, heard) = mpsc::unbounded_channel();
        Keeper {
            client,
            renewals: Renewals::default(),
            stream: None,
            heard,
            says,
            count: 0,
        }
    }

    /// Serves until nobody can ask any more.
    async fn run(mut self, mut asks: mpsc::Receiver<Ask>) {
        loop {
            tokio::select! {
                ask = asks.recv() => match ask {
                    Some(ask) => self.renewals.ask(ask.lease, ask),
                    None => return,
                },
                Some((number, said)) = self.heard.recv() => {
                    if number == self.count {
                        self.on_said(said).await;
                    }
                }
            }
            self.send();
        }
    }

    async fn on_said(&mut self, said: Said) {
        let status = match said {
            Ok(answer) => {
                for ask in self.renewals.on_answer(answer.id) {
                    ask.answer(Ok(answer));
                }
                return;
            }
            Err(status) => status,
        };
        self.stream = None;
        let end = End::of(&status);
        for ask in self.renewals.on_end(end) {
            ask.answer(Err(status.clone()));
        }
        if end == End::Broken {
            tokio::time::sleep(REOPEN_WAIT).await;
        }
        // A lease whose client has gone meanwhile must end in time.
        self.renewals.retain(|ask| !ask.answers.is_closed());
    }

    /// Asks below for what is due.
    fn send(&mut self) {
        while let Some(id) = self.renewals.next() {
            let stream = self.stream.get_or_insert_with(|| {
                self.count += 1;
                open(self.client.clone(), self.count, self.says.clone())
            });
            // A stream that has ended says so itself.
            let _sent = stream.requests.send(LeaseKeepAliveRequest { id });
        }
    }
}

fn open(client: Client, number: u64, says: mpsc::UnboundedSender<(u64, Said)>) -> Below {
    let (requests, queue) = mpsc::unbounded_channel();
    let task = tokio::spawn(async move {
        let queue = UnboundedReceiverStream::new(queue);
        let mut stub = LeaseClient::new(client.channel());
        let status = match stub.lease_keep_alive(client.request(queue)).await {
            Ok(answers) => listen(answers.into_inner(), number, &says).await,
            Err(status) => status,
        };
        let _sent = says.send((number, Err(status)));
    });
    Below { requests, task }
}

async fn listen(
    mut answers: Streaming<LeaseKeepAliveResponse>,
    number: u64,
    says: &mpsc::UnboundedSender<(u64, Said)>,
) -> Status {
    loop {
        match answers.message().await {
            // Bounded by the requests: each brings one answer.
            Ok(Some(answer)) => drop(says.send((number, Ok(answer)))),
            Ok(None) => return Status::unavailable("the keep-alive stream ended"),
            Err(status) => return status,
        }
    }
}
