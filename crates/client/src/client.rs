//! The client: token, deadline and limits around one [`Channel`].

use std::future::Future;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use api::pb::etcdserverpb::{AuthenticateRequest, RangeRequest, RangeResponse, SnapshotResponse};
use bytes::Bytes;
use tokio::time::Instant;
use tonic::metadata::{AsciiMetadataKey, AsciiMetadataValue};
use tonic::{Request, Streaming};

use crate::channel::Channel;
use crate::config::{Config, Credentials};
use crate::error::Error;
use crate::stub::{AuthClient, KvClient, LeaseClient, MaintenanceClient, WatchClient};
use crate::watch::Watches;

/// The API level that requests announce.
pub const API_VERSION: &str = "3.7";

/// A client of one cluster. Cheap to clone; clones share connections and token.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
    deadline: Option<Instant>,
    requires_leader: bool,
    /// Sent instead of the one that clones share.
    own_token: Option<AsciiMetadataValue>,
}

struct Inner {
    channel: Channel,
    credentials: Option<Credentials>,
    /// A token from the configuration is never refreshed.
    has_fixed_token: bool,
    /// Written after each authentication, read for each request. Held only to copy the value.
    token: RwLock<Option<AsciiMetadataValue>>,
    dial_timeout: Duration,
    request_bytes_max: usize,
    response_bytes_max: usize,
}

impl Client {
    /// Makes a client and, when the configuration names a user, authenticates.
    ///
    /// # Errors
    /// A configuration that cannot be used, or an authentication that failed. A server that
    /// cannot be reached is an error only when there is a user to authenticate.
    pub async fn connect(config: Config) -> Result<Self, Error> {
        let channel = Channel::new(&config)?;
        let fixed = config.token.as_deref().map(token_value).transpose()?;
        let client = Client {
            inner: Arc::new(Inner {
                channel,
                credentials: config.credentials,
                has_fixed_token: fixed.is_some(),
                token: RwLock::new(fixed),
                dial_timeout: config.dial_timeout,
                request_bytes_max: config.request_bytes_max,
                response_bytes_max: config.response_bytes_max,
            }),
            deadline: None,
            requires_leader: false,
            own_token: None,
        };
        let limit = Instant::now() + client.inner.dial_timeout;
        client.clone().with_deadline(limit).authenticate().await?;
        Ok(client)
    }

    /// The same client whose requests fail when `deadline` has passed.
    #[must_use]
    pub fn with_deadline(mut self, deadline: Instant) -> Self {
        self.deadline = Some(deadline);
        self
    }

    /// The same client whose requests fail on a member that knows no leader.
    #[must_use]
    pub fn requiring_leader(mut self) -> Self {
        self.requires_leader = true;
        self
    }

    /// The same client in the name of whoever has `token`, which is not refreshed.
    #[must_use]
    pub fn with_token(mut self, token: AsciiMetadataValue) -> Self {
        self.own_token = Some(token);
        self
    }

    /// Watches that share one stream.
    #[must_use]
    pub fn watches(&self) -> Watches {
        Watches::start(self.clone())
    }

    /// Whether an error means that a new token may help.
    pub(crate) fn may_refresh_for(&self, error: &Error) -> bool {
        if self.inner.has_fixed_token || self.own_token.is_some() {
            return false;
        }
        if error.is(api::Error::UserEmpty) {
            return self.inner.credentials.is_some();
        }
        error.is(api::Error::InvalidAuthToken) || error.is(api::Error::AuthOldRevision)
    }

    /// Gets a token for the configured user, if there is one.
    pub(crate) async fn authenticate(&self) -> Result<(), Error> {
        let Some(credentials) = &self.inner.credentials else {
            return Ok(());
        };
        let request = AuthenticateRequest {
            name: credentials.name.clone(),
            password: credentials.password.clone(),
        };
        let mut stub = AuthClient::new(self.inner.channel.clone());
        let answer = self.limited(stub.authenticate(Request::new(request))).await;
        let token = match answer {
            Ok(answer) => Some(token_value(&answer.into_inner().token)?),
            Err(error) if error.is(api::Error::AuthNotEnabled) => None,
            Err(error) => return Err(error),
        };
        *self
            .inner
            .token
            .write()
            .unwrap_or_else(PoisonError::into_inner) = token;
        Ok(())
    }

    /// Waits for an answer until the deadline.
    pub(crate) async fn limited<T, F>(&self, answer: F) -> Result<T, Error>
    where
        F: Future<Output = Result<T, tonic::Status>>,
    {
        let Some(deadline) = self.deadline else {
            return answer.await.map_err(Error::from);
        };
        match tokio::time::timeout_at(deadline, answer).await {
            Ok(answer) => answer.map_err(Error::from),
            Err(_) => Err(Error::Deadline {
                cause: self.inner.channel.failures(),
            }),
        }
    }

    /// Wraps a message with what every request says about its sender, for calls by a stub of
    /// [`Client::channel`].
    pub fn request<M>(&self, message: M) -> Request<M> {
        let mut request = Request::new(message);
        if let Some(deadline) = self.deadline {
            request.set_timeout(deadline.saturating_duration_since(Instant::now()));
        }
        let headers = request.metadata_mut();
        headers.insert(
            "client-api-version",
            AsciiMetadataValue::from_static(API_VERSION),
        );
        if self.requires_leader {
            headers.insert("hasleader", AsciiMetadataValue::from_static("true"));
        }
        let shared = || {
            let token = self.inner.token.read();
            token.unwrap_or_else(PoisonError::into_inner).clone()
        };
        if let Some(token) = self.own_token.clone().or_else(shared) {
            headers.insert(AsciiMetadataKey::from_static("token"), token);
        }
        request
    }

    /// The connections that all clones share, for calls that the caller frames itself.
    #[must_use]
    pub fn channel(&self) -> Channel {
        self.inner.channel.clone()
    }

    pub(crate) fn request_bytes_max(&self) -> usize {
        self.inner.request_bytes_max
    }

    pub(crate) fn response_bytes_max(&self) -> usize {
        self.inner.response_bytes_max
    }

    pub(crate) fn watch_stub(&self) -> WatchClient<Channel> {
        WatchClient::new(self.channel()).max_decoding_message_size(self.response_bytes_max())
    }

    pub(crate) fn lease_stub(&self) -> LeaseClient<Channel> {
        LeaseClient::new(self.channel()).max_decoding_message_size(self.response_bytes_max())
    }

    /// Reads a range as a stream of parts and joins them into the answer that a unary read
    /// would have given.
    ///
    /// # Errors
    /// Whatever ends the stream early.
    pub async fn range_stream(&self, request: RangeRequest) -> Result<RangeResponse, Error> {
        let mut stub =
            KvClient::new(self.channel()).max_decoding_message_size(self.response_bytes_max());
        let mut stream = self
            .limited(stub.range_stream(self.request(request)))
            .await?
            .into_inner();
        let mut whole = RangeResponse::default();
        while let Some(part) = self.limited(stream.message()).await? {
            let Some(part) = part.range_response else {
                continue;
            };
            whole.header = part.header.or(whole.header);
            whole.kvs.extend(part.kvs);
            whole.more |= part.more;
            whole.count = part.count.max(whole.count);
        }
        Ok(whole)
    }

    /// Opens a stream of one member's database file.
    ///
    /// # Errors
    /// The request was refused.
    pub async fn snapshot(&self) -> Result<Streaming<SnapshotResponse>, Error> {
        let mut stub = MaintenanceClient::new(self.channel())
            .max_decoding_message_size(self.response_bytes_max());
        let request = self.request(api::pb::etcdserverpb::SnapshotRequest {});
        Ok(self.limited(stub.snapshot(request)).await?.into_inner())
    }

    /// The next part of a stream from [`Client::snapshot`], within the deadline.
    ///
    /// # Errors
    /// Whatever ends the stream early.
    pub async fn next_part(
        &self,
        stream: &mut Streaming<SnapshotResponse>,
    ) -> Result<Option<SnapshotResponse>, Error> {
        self.limited(stream.message()).await
    }
}

fn token_value(token: &str) -> Result<AsciiMetadataValue, Error> {
    AsciiMetadataValue::try_from(token)
        .map_err(|_| Error::Config("the auth token is not printable text".to_owned()))
}

/// The end of the range of all keys that begin with `prefix`: the prefix with its last byte
/// that is not 0xff raised by one, or "\0", which means without end.
#[must_use]
pub fn prefix_end(prefix: &[u8]) -> Bytes {
    let mut end = prefix.to_vec();
    while let Some(last) = end.last_mut() {
        if *last < 0xff {
            *last += 1;
            return end.into();
        }
        end.pop();
    }
    Bytes::from_static(b"\0")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_of_prefixes() {
        assert_eq!(prefix_end(b"a"), "b");
        assert_eq!(prefix_end(b"a\xff"), "b");
        assert_eq!(prefix_end(b"\xff\xff").as_ref(), b"\0");
        assert_eq!(prefix_end(b"").as_ref(), b"\0");
    }
}
