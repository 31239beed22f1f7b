//! Holders of leases: each keeps one alive, with a key under it, through whichever member answers.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use api::pb::etcdserverpb::{LeaseGrantRequest, LeaseKeepAliveRequest, PutRequest};
use bytes::Bytes;
use client::stub::LeaseClient;
use tonic::codegen::tokio_stream;

use super::history::History;
use crate::kv::Kv;

/// Below it stand the keys of the holders.
pub(super) const PREFIX: &str = "lease/";
/// Seconds that a lease lives without being renewed.
const TTL: i64 = 4;
/// Between two renewals.
const PAUSE: Duration = Duration::from_secs(1);
/// How long a holder waits for one member.
const LIMIT: Duration = Duration::from_secs(1);

/// A lease from its grant to its loss.
#[derive(Debug, Clone)]
pub struct Life {
    pub key: Bytes,
    /// When the last renewal (or the grant) that succeeded was asked, in microseconds since the
    /// beginning: until a TTL later nobody may revoke it.
    pub kept: u64,
    /// Microseconds.
    pub ttl: u64,
    pub renewals: usize,
    /// When a member said that it is gone.
    pub gone: Option<u64>,
}

impl Life {
    fn new(key: Bytes, kept: u64) -> Life {
        Life {
            key,
            kept,
            ttl: TTL as u64 * 1_000_000,
            renewals: 0,
            gone: None,
        }
    }
}

/// The holders at work.
pub(super) struct Holders {
    lives: Arc<Mutex<Vec<Life>>>,
    stopping: Arc<AtomicBool>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Holders {
    /// One that begins at each endpoint.
    pub(super) fn start(endpoints: &[SocketAddr], history: &Arc<History>) -> Holders {
        let lives = Arc::default();
        let stopping = Arc::new(AtomicBool::new(false));
        let tasks = (0..endpoints.len()).map(|number| {
            let holder = Holder {
                number,
                endpoints: endpoints.iter().map(|endpoint| Kv::to(*endpoint)).collect(),
                at: number,
                history: history.clone(),
                lives: Arc::clone(&lives),
            };
            tokio::spawn(holder.run(stopping.clone()))
        });
        let tasks = tasks.collect();
        Holders {
            lives,
            stopping,
            tasks,
        }
    }

    pub(super) async fn stop(self) -> Vec<Life> {
        self.stopping.store(true, Ordering::Release);
        for task in self.tasks {
            // Panics only on a lock whose holder panicked.
            let _ = task.await;
        }
        std::mem::take(&mut *self.lives.lock().expect("no holder panics"))
    }
}

struct Holder {
    number: usize,
    endpoints: Vec<Kv>,
    /// The member that it asks.
    at: usize,
    history: Arc<History>,
    lives: Arc<Mutex<Vec<Life>>>,
}

impl Holder {
    async fn run(mut self, stopping: Arc<AtomicBool>) {
        let mut lost = 0;
        while !stopping.load(Ordering::Acquire) {
            let key: Bytes = format!("{PREFIX}{}-{lost}", self.number).into();
            let granted = self.history.now();
            let Some(lease) = self.within(self.grant()).await else {
                self.go_on();
                continue;
            };
            let put = PutRequest {
                key: key.clone(),
                lease,
                ..PutRequest::default()
            };
            let kv = self.endpoints[self.at].clone();
            // Without the key nobody sees the lease go, but for its holder.
            let _ = self.within(async { kv.put_request(put).await.ok() }).await;
            let life = self.keep(lease, Life::new(key, granted), &stopping).await;
            self.lives.lock().expect("no holder panics").push(life);
            lost += 1;
        }
    }

    /// Renews until the lease is gone or the run ends.
    async fn keep(&mut self, lease: i64, mut life: Life, stopping: &AtomicBool) -> Life {
        while !stopping.load(Ordering::Acquire) {
            let call = self.history.now();
            match self.within(self.renew(lease)).await {
                Some(ttl) if ttl > 0 => {
                    life.kept = call;
                    life.renewals += 1;
                    tokio::time::sleep(PAUSE).await;
                }
                Some(_) => {
                    life.gone = Some(self.history.now());
                    break;
                }
                None => self.go_on(),
            }
        }
        life
    }

    /// Asks the next member from now on.
    fn go_on(&mut self) {
        self.at = (self.at + 1) % self.endpoints.len();
    }

    async fn within<T>(&self, asked: impl Future<Output = Option<T>>) -> Option<T> {
        let answer = tokio::time::timeout(LIMIT, asked).await.ok().flatten();
        if answer.is_none() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        answer
    }

    fn client(&self) -> LeaseClient<tonic::transport::Channel> {
        LeaseClient::new(self.endpoints[self.at].channel())
    }

    async fn grant(&self) -> Option<i64> {
        let request = LeaseGrantRequest { ttl: TTL, id: 0 };
        let granted = self.client().lease_grant(request).await.ok()?.into_inner();
        (granted.error.is_empty() && granted.ttl == TTL).then_some(granted.id)
    }

    /// The time to live after a renewal, 0 when the lease is gone.
    async fn renew(&self, id: i64) -> Option<i64> {
        let requests = tokio_stream::once(LeaseKeepAliveRequest { id });
        let answers = self.client().lease_keep_alive(requests).await.ok()?;
        let answer = answers.into_inner().message().await.ok()??;
        Some(answer.ttl)
    }
}
