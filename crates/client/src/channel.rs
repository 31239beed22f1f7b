//! All endpoints as one service: balances requests over connections and fails over.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use hyper::body::Incoming;
use hyper::{Request, Response, Uri};
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::Service;

use crate::config::{Config, TlsConfig};
use crate::connection::{self, Connection, Options};
use crate::endpoint::{Endpoint, Security};
use crate::error::Error;
use crate::tls;

/// How long to wait when no endpoint took a connection; doubles up to the second value.
const RECONNECT_WAIT_MIN: Duration = Duration::from_millis(25);
const RECONNECT_WAIT_MAX: Duration = Duration::from_secs(2);

/// All endpoints as one gRPC service. Cheap to clone; clones share the connections.
///
/// A request goes to the next endpoint in turn that has or takes a connection. While none does,
/// the request waits: the caller's deadline ends that.
#[derive(Clone)]
pub struct Channel {
    shared: Arc<Shared>,
}

struct Shared {
    endpoints: Vec<Endpoint>,
    options: Options,
    /// The connection of each endpoint. An async lock, so that requests that need the same new
    /// connection wait for one attempt instead of starting one each.
    slots: Vec<tokio::sync::Mutex<Option<Connection>>>,
    /// Counts requests; the remainder by the number of endpoints is whose turn it is.
    turn: AtomicUsize,
    /// How long a request waits while no endpoint takes a connection.
    connect_limit: Option<Duration>,
    /// The last failure to connect to each endpoint, by index, for error messages.
    failures: Mutex<HashMap<usize, String>>,
}

impl Channel {
    /// Prepares a channel; connections are made when requests need them.
    ///
    /// # Errors
    /// No endpoints, an endpoint that is no address, or TLS files that cannot be used.
    pub fn new(config: &Config) -> Result<Self, Error> {
        if config.endpoints.is_empty() {
            let text = "at least one Endpoint is required in client config";
            return Err(Error::Config(text.to_owned()));
        }
        let (endpoints, options) = prepare(config)?;
        let slots = endpoints
            .iter()
            .map(|_| tokio::sync::Mutex::new(None))
            .collect();
        Ok(Channel {
            shared: Arc::new(Shared {
                endpoints,
                options,
                slots,
                turn: AtomicUsize::new(0),
                connect_limit: config.connect_limit,
                failures: Mutex::new(HashMap::new()),
            }),
        })
    }

    /// How many endpoints take turns.
    #[must_use]
    pub fn endpoint_count(&self) -> usize {
        self.shared.endpoints.len()
    }

    /// Whether a request that began then may wait for an endpoint still.
    pub(crate) fn may_wait_since(&self, begun: Instant) -> bool {
        self.shared.may_wait_since(begun)
    }

    /// The last failures to connect, one for each endpoint that failed since it last worked.
    pub(crate) fn failures(&self) -> Option<String> {
        self.shared.failures()
    }
}

/// Reads a configuration's endpoints and the files that it names.
pub(crate) fn prepare(config: &Config) -> Result<(Vec<Endpoint>, Options), Error> {
    let endpoints = config
        .endpoints
        .iter()
        .map(|text| Endpoint::parse(text).map_err(Error::Config))
        .collect::<Result<Vec<_>, _>>()?;
    let tls = config.tls.as_ref().map(tls::client_config).transpose()?;
    let is_required = endpoints
        .iter()
        .any(|endpoint| endpoint.security == Security::Required);
    let tls_required = match &tls {
        Some(tls) => Some(Arc::clone(tls)),
        None if is_required => Some(tls::client_config(&TlsConfig::default())?),
        None => None,
    };
    let options = Options {
        tls,
        tls_required,
        server_name: config.tls.as_ref().and_then(|tls| tls.server_name.clone()),
        dial_timeout: config.dial_timeout,
        keepalive_interval: config.keepalive_interval,
        keepalive_while_idle: config.keepalive_while_idle,
        keepalive_timeout: config.keepalive_timeout,
    };
    Ok((endpoints, options))
}

impl Shared {
    /// A working connection to the endpoint, the one in use or a new one.
    async fn connection(&self, index: usize) -> Option<Connection> {
        let mut slot = self.slots[index].lock().await;
        if let Some(connection) = slot.as_mut() {
            let sender = &mut connection.sender;
            if !sender.is_closed() && sender.ready().await.is_ok() {
                return Some(connection.clone());
            }
            *slot = None;
        }
        let outcome = connection::connect(&self.endpoints[index], &self.options).await;
        match outcome {
            Ok(connection) => {
                *slot = Some(connection.clone());
                Some(connection)
            }
            Err(text) => {
                self.note(index, Some(text));
                None
            }
        }
    }

    fn may_wait_since(&self, begun: Instant) -> bool {
        let limit = self.connect_limit;
        limit.is_none_or(|limit| begun.elapsed() < limit)
    }

    fn failures(&self) -> Option<String> {
        let failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let texts: Vec<_> = failures.values().map(String::as_str).collect();
        (!texts.is_empty()).then(|| texts.join("; "))
    }

    /// Remembers how the last use of an endpoint failed, or that it did not.
    fn note(&self, index: usize, failure: Option<String>) {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        match failure {
            Some(text) => failures.insert(index, text),
            None => failures.remove(&index),
        };
    }

    /// Gives the request to the first connection that takes it.
    async fn send(&self, mut request: Request<Body>) -> Result<Response<Incoming>, Status> {
        let first = self.turn.fetch_add(1, Ordering::Relaxed);
        let mut wait = RECONNECT_WAIT_MIN;
        let begun = Instant::now();
        loop {
            for offset in 0..self.endpoints.len() {
                let index = first.wrapping_add(offset) % self.endpoints.len();
                let Some(mut connection) = self.connection(index).await else {
                    continue;
                };
                self.address(&mut request, index)?;
                let mut error = match connection.sender.try_send_request(request).await {
                    Ok(response) => {
                        self.note(index, None);
                        return Ok(response);
                    }
                    Err(error) => error,
                };
                let unsent = error.take_message();
                let error = connection::chain(&error.into_error());
                let text = connection.end().map_or(error, str::to_owned);
                let Some(unsent) = unsent else {
                    let text = format!("error reading from server: {text}");
                    return Err(Status::unavailable(text));
                };
                // The connection closed before it took the request: not sent.
                self.note(index, Some(format!("connection closed: {text}")));
                request = unsent;
            }
            if !self.may_wait_since(begun) {
                let why = self.failures().unwrap_or_default();
                return Err(Status::unavailable(format!("connection error: {why}")));
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(RECONNECT_WAIT_MAX);
        }
    }

    fn address(&self, request: &mut Request<Body>, index: usize) -> Result<(), Status> {
        let endpoint = &self.endpoints[index];
        let scheme = if self.options.is_secure(endpoint) {
            "https"
        } else {
            "http"
        };
        let path = request
            .uri()
            .path_and_query()
            .map_or("/", |path| path.as_str())
            .to_owned();
        *request.uri_mut() = Uri::builder()
            .scheme(scheme)
            .authority(endpoint.authority.as_str())
            .path_and_query(path)
            .build()
            .map_err(|error| Status::internal(format!("cannot address a request: {error}")))?;
        Ok(())
    }
}

impl Service<Request<Body>> for Channel {
    type Response = Response<Incoming>;
    type Error = Status;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Status>> + Send>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let shared = Arc::clone(&self.shared);
        Box::pin(async move { shared.send(request).await })
    }
}
