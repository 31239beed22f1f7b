//! What the proxy's services stand on: the cluster, seen through the layers that were asked for.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use api::pb::etcdserverpb::{
    CompactionRequest, CompactionResponse, DeleteRangeRequest, DeleteRangeResponse, PutRequest,
    PutResponse, RangeRequest, RangeResponse, TxnRequest, TxnResponse, WatchCreateRequest,
};
use bytes::Bytes;
use client::{Client, WatchEvent};
use http::HeaderMap;
use tokio::time::Instant;
use tonic::codegen::tokio_stream::Stream;
use tonic::metadata::AsciiMetadataValue;
use tonic::{Status, async_trait};

/// Who calls, and under which conditions. What the proxy does for itself has the default: nobody,
/// no deadline.
#[derive(Clone, Debug, Default)]
pub struct Caller {
    /// The token of an authenticated user.
    pub token: Option<AsciiMetadataValue>,
    /// Whether a member that knows no leader must refuse.
    pub requires_leader: bool,
    /// When the caller gives up.
    pub deadline: Option<Instant>,
}

impl Caller {
    /// What the head of a request says.
    #[must_use]
    pub fn of(headers: &HeaderMap) -> Self {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        // Older clients say `authorization`; members understand both.
        let token = text("token").or_else(|| text("authorization"));
        Caller {
            token: token
                .filter(|token| !token.is_empty())
                .and_then(|token| token.parse().ok()),
            requires_leader: text("hasleader") == Some("true"),
            deadline: text("grpc-timeout")
                .and_then(timeout)
                .and_then(|limit| Instant::now().checked_add(limit)),
        }
    }

    /// The same caller without a deadline: for what outlives the call.
    #[must_use]
    pub fn for_good(&self) -> Self {
        Caller {
            deadline: None,
            ..self.clone()
        }
    }

    /// A client that calls in this caller's name.
    #[must_use]
    pub fn client(&self, client: &Client) -> Client {
        let mut client = client.clone();
        if let Some(token) = &self.token {
            client = client.with_token(token.clone());
        }
        if let Some(deadline) = self.deadline {
            client = client.with_deadline(deadline);
        }
        if self.requires_leader {
            client = client.requiring_leader();
        }
        client
    }
}

/// Reads `grpc-timeout`: at most eight digits and a unit.
fn timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let count: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(count * 3600),
        "M" => Duration::from_secs(count * 60),
        "S" => Duration::from_secs(count),
        "m" => Duration::from_millis(count),
        "u" => Duration::from_micros(count),
        "n" => Duration::from_nanos(count),
        _ => return None,
    })
}

/// A key space: the cluster's, or a view of it that a layer makes.
#[async_trait]
pub trait Kv: Send + Sync + 'static {
    /// Reads keys.
    ///
    /// # Errors
    /// The cluster refused, or could not be asked in time; the same for all methods.
    async fn range(&self, caller: &Caller, request: RangeRequest) -> Result<RangeResponse, Status>;

    /// Writes a key.
    async fn put(&self, caller: &Caller, request: PutRequest) -> Result<PutResponse, Status>;

    /// Deletes keys.
    async fn delete_range(
        &self,
        caller: &Caller,
        request: DeleteRangeRequest,
    ) -> Result<DeleteRangeResponse, Status>;

    /// Runs a transaction.
    async fn txn(&self, caller: &Caller, request: TxnRequest) -> Result<TxnResponse, Status>;

    /// Drops history before a revision.
    async fn compact(
        &self,
        caller: &Caller,
        request: CompactionRequest,
    ) -> Result<CompactionResponse, Status>;

    /// Callers may need a name from now on: answers that were meant for anybody are for nobody.
    fn forget(&self) {}
}

/// One watch, across reconnections. Dropping it cancels the watch.
pub struct Watching {
    /// What it says, first that it is there; ends after an answer with `cancelled` set.
    pub answers: Pin<Box<dyn Stream<Item = WatchEvent> + Send>>,
    /// The stream on which the watch is alone.
    source: client::Watches,
}

impl Watching {
    /// Asks how far the watch has come. A member that is not sure does not answer.
    pub fn request_progress(&self) {
        self.source.request_progress();
    }
}

/// A source of events: the cluster, or a view of it that a layer makes.
pub trait Watches: Send + Sync + 'static {
    /// Watches what the request says, in the caller's name, for as long as somebody listens.
    fn watch(&self, caller: &Caller, request: WatchCreateRequest) -> Watching;
}

/// Everything that services may use.
#[derive(Clone)]
pub struct Below {
    /// The key space that clients see.
    pub kv: Arc<dyn Kv>,
    /// The same without leasing: what it answers comes from a member and is as new.
    pub unleased: Arc<dyn Kv>,
    /// Its events.
    pub watches: Arc<dyn Watches>,
    /// The cluster without any layer: for leases, and for what is passed on.
    pub client: Client,
    /// What every key that clients name begins with in the cluster; empty without a namespace.
    pub namespace: Bytes,
}

/// The cluster itself.
pub struct Direct {
    client: Client,
}

impl Direct {
    /// The cluster behind a client.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Direct { client }
    }
}

/// The answer to a caller whose request failed on the way or was refused.
pub(crate) fn status(error: client::Error) -> Status {
    match error {
        client::Error::Rpc { code, message } => Status::new((code as i32).into(), message),
        client::Error::Deadline { .. } => Status::deadline_exceeded(error.to_string()),
        client::Error::Config(text) | client::Error::Recipe(text) => Status::unknown(text),
    }
}

/// The answer to a caller whom the proxy itself refuses, in the cluster's words.
pub(crate) fn refused(error: api::Error) -> Status {
    Status::new((error.code() as i32).into(), error.message())
}

#[async_trait]
impl Kv for Direct {
    async fn range(&self, caller: &Caller, request: RangeRequest) -> Result<RangeResponse, Status> {
        caller
            .client(&self.client)
            .range(request)
            .await
            .map_err(status)
    }

    async fn put(&self, caller: &Caller, request: PutRequest) -> Result<PutResponse, Status> {
        caller
            .client(&self.client)
            .put(request)
            .await
            .map_err(status)
    }

    async fn delete_range(
        &self,
        caller: &Caller,
        request: DeleteRangeRequest,
    ) -> Result<DeleteRangeResponse, Status> {
        let client = caller.client(&self.client);
        client.delete_range(request).await.map_err(status)
    }

    async fn txn(&self, caller: &Caller, request: TxnRequest) -> Result<TxnResponse, Status> {
        caller
            .client(&self.client)
            .txn(request)
            .await
            .map_err(status)
    }

    async fn compact(
        &self,
        caller: &Caller,
        request: CompactionRequest,
    ) -> Result<CompactionResponse, Status> {
        caller
            .client(&self.client)
            .compact(request)
            .await
            .map_err(status)
    }
}

impl Watches for Direct {
    fn watch(&self, caller: &Caller, request: WatchCreateRequest) -> Watching {
        let source = caller.for_good().client(&self.client).watches();
        Watching {
            answers: Box::pin(Events(source.create_announced(request))),
            source,
        }
    }
}

/// A watcher of the client's as a stream.
struct Events(client::Watcher);

impl Stream for Events {
    type Item = WatchEvent;

    fn poll_next(
        mut self: Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<WatchEvent>> {
        self.0.poll_next(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_of_requests() {
        assert_eq!(timeout("5S"), Some(Duration::from_secs(5)));
        assert_eq!(timeout("250m"), Some(Duration::from_millis(250)));
        assert_eq!(
            timeout("99999999H"),
            Some(Duration::from_secs(99_999_999 * 3600))
        );
        for text in ["", "S", "5", "5s", "-1S", "+1S", "123456789S", "1µ"] {
            assert_eq!(timeout(text).filter(|_| text != "S"), None, "{text}");
        }
    }
}
