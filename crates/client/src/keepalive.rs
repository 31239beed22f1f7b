//! Keeping a lease alive.

use std::time::Duration;

use api::pb::etcdserverpb::{LeaseKeepAliveRequest, LeaseKeepAliveResponse};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tonic::Streaming;
use tonic::codegen::tokio_stream::wrappers::ReceiverStream;

use crate::client::Client;
use crate::error::Error;

/// How long to wait before a broken stream is opened again.
const RESUME_WAIT: Duration = Duration::from_millis(500);

/// A lease that is renewed at a third of its time to live, for as long as this is polled.
pub struct KeepAlive {
    client: Client,
    lease: i64,
    stream: Option<Stream>,
    /// When to renew next.
    next: Instant,
    /// When the lease is lost unless a renewal is answered; unknown before the first answer.
    lost_at: Option<Instant>,
}

struct Stream {
    requests: mpsc::Sender<LeaseKeepAliveRequest>,
    answers: Streaming<LeaseKeepAliveResponse>,
}

impl Client {
    /// Renews a lease until it is gone; nothing happens before [`KeepAlive::next`] is called.
    #[must_use]
    pub fn keep_alive(&self, lease: i64) -> KeepAlive {
        KeepAlive {
            client: self.clone(),
            lease,
            stream: None,
            next: Instant::now(),
            lost_at: None,
        }
    }

    /// Renews a lease once.
    ///
    /// # Errors
    /// The lease is gone, or the server refused.
    pub async fn keep_alive_once(&self, lease: i64) -> Result<LeaseKeepAliveResponse, Error> {
        loop {
            let outcome = self.limited(renew(self, lease)).await;
            match outcome {
                Ok(answer) if answer.ttl <= 0 => {
                    let gone = api::Error::LeaseNotFound;
                    return Err(Error::Rpc {
                        code: gone.code(),
                        message: gone.message().into(),
                    });
                }
                Err(error) if error.is_transient() => tokio::time::sleep(RESUME_WAIT).await,
                other => return other,
            }
        }
    }
}

async fn renew(client: &Client, lease: i64) -> Result<LeaseKeepAliveResponse, tonic::Status> {
    let mut stream = open(client, lease).await?;
    stream.answers.message().await?.ok_or_else(ended)
}

fn ended() -> tonic::Status {
    tonic::Status::unavailable("the keep-alive stream ended")
}

/// Opens a stream with a first renewal: a server may say nothing before it was asked.
async fn open(client: &Client, lease: i64) -> Result<Stream, tonic::Status> {
    let (requests, queue) = mpsc::channel(1);
    requests
        .try_send(LeaseKeepAliveRequest { id: lease })
        .map_err(|_| ended())?;
    let request = client.request(ReceiverStream::new(queue));
    let answers = client
        .lease_stub()
        .lease_keep_alive(request)
        .await?
        .into_inner();
    Ok(Stream { requests, answers })
}

impl KeepAlive {
    /// Waits until a renewal is due, renews, and returns the answer; `None` when the lease is
    /// gone: expired, revoked, or not renewed in time because no server answered.
    ///
    /// # Errors
    /// The server refuses to renew.
    pub async fn next(&mut self) -> Result<Option<LeaseKeepAliveResponse>, Error> {
        loop {
            tokio::time::sleep_until(self.next).await;
            let lost_at = self.lost_at;
            let attempt = self.renew();
            let outcome = match lost_at {
                None => attempt.await,
                Some(lost_at) => match tokio::time::timeout_at(lost_at, attempt).await {
                    Ok(outcome) => outcome,
                    Err(_) => return Ok(None),
                },
            };
            match outcome {
                Ok(answer) if answer.ttl <= 0 => return Ok(None),
                Ok(answer) => {
                    let ttl = Duration::from_secs(answer.ttl.unsigned_abs());
                    let now = Instant::now();
                    self.next = now + ttl / 3;
                    self.lost_at = Some(now + ttl);
                    return Ok(Some(answer));
                }
                Err(error) => {
                    self.stream = None;
                    let error = Error::from(error);
                    if self.client.may_refresh_for(&error) {
                        self.client.authenticate().await?;
                    } else if !error.is_transient() {
                        return Err(error);
                    }
                    self.next = Instant::now() + RESUME_WAIT;
                }
            }
        }
    }

    async fn renew(&mut self) -> Result<LeaseKeepAliveResponse, tonic::Status> {
        let request = LeaseKeepAliveRequest { id: self.lease };
        let stream = match &mut self.stream {
            Some(stream) => {
                stream.requests.send(request).await.map_err(|_| ended())?;
                stream
            }
            empty => empty.insert(open(&self.client, self.lease).await?),
        };
        stream.answers.message().await?.ok_or_else(ended)
    }
}
