//! All endpoints as one service: balances requests over connections and fails over.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
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
/// the request waits: the caller's deadline ends that, or the configuration's limit.
#[derive(Clone)]
pub struct Channel {
    shared: Arc<Shared>,
}

struct Shared {
    /// With the endpoints of the beginning.
    config: Config,
    /// Replaced whole when the endpoints change. Held only to copy the reference.
    places: RwLock<Arc<Places>>,
    /// Counts requests; the remainder by the number of endpoints is whose turn it is.
    turn: AtomicUsize,
}

struct Places {
    all: Vec<Arc<Place>>,
    options: Arc<Options>,
}

#[derive(Default)]
struct Slot {
    connection: Option<Connection>,
    /// Until when there is no further attempt after one that failed.
    rests_until: Option<Instant>,
}

/// One endpoint.
struct Place {
    endpoint: Endpoint,
    /// An async lock, so that requests that need the same new connection wait for one attempt
    /// instead of starting one each.
    slot: tokio::sync::Mutex<Slot>,
    /// The last failure to connect since it last worked, for error messages.
    failure: Mutex<Option<String>>,
}

impl Channel {
    /// Prepares a channel; connections are made when requests need them.
    ///
    /// # Errors
    /// No endpoints, an endpoint that is no address, or TLS files that cannot be used.
    pub fn new(config: &Config) -> Result<Self, Error> {
        let places = Places::new(config, None)?;
        Ok(Channel {
            shared: Arc::new(Shared {
                config: config.clone(),
                places: RwLock::new(Arc::new(places)),
                turn: AtomicUsize::new(0),
            }),
        })
    }

    /// Goes over to other endpoints. Those that stay keep their connections; requests under way
    /// go on where they are.
    ///
    /// # Errors
    /// As [`Channel::new`]; nothing has changed then.
    pub fn set_endpoints(&self, endpoints: &[String]) -> Result<(), Error> {
        let before = self.shared.places();
        let texts = before.all.iter().map(|place| place.endpoint.as_str());
        if texts.eq(endpoints.iter().map(String::as_str)) {
            return Ok(());
        }
        let config = Config {
            endpoints: endpoints.to_vec(),
            ..self.shared.config.clone()
        };
        let after = Arc::new(Places::new(&config, Some(&before))?);
        let places = self.shared.places.write();
        *places.unwrap_or_else(PoisonError::into_inner) = after;
        Ok(())
    }

    /// The same endpoints, over connections of its own: an answer that nobody reads there takes
    /// no room from those that come here.
    #[must_use]
    pub fn apart(&self) -> Self {
        let places = self.shared.places();
        let endpoints = places.all.iter().map(|place| place.endpoint.clone());
        let places = Places {
            all: endpoints.map(|it| Arc::new(Place::new(it))).collect(),
            options: Arc::clone(&places.options),
        };
        let turn = self.shared.turn.fetch_add(1, Ordering::Relaxed);
        Channel {
            shared: Arc::new(Shared {
                config: self.shared.config.clone(),
                places: RwLock::new(Arc::new(places)),
                turn: AtomicUsize::new(turn),
            }),
        }
    }

    /// How many endpoints take turns.
    #[must_use]
    pub fn endpoint_count(&self) -> usize {
        self.shared.places().all.len()
    }

    /// Whether a request that began then may wait for an endpoint still.
    pub(crate) fn may_wait_since(&self, begun: Instant) -> bool {
        let limit = self.shared.config.connect_limit;
        limit.is_none_or(|limit| begun.elapsed() < limit)
    }

    /// The last failures to connect, one for each endpoint that failed since it last worked.
    pub(crate) fn failures(&self) -> Option<String> {
        let places = self.shared.places();
        let failures = places.all.iter().filter_map(|place| {
            let failure = place.failure.lock();
            failure.unwrap_or_else(PoisonError::into_inner).clone()
        });
        let texts: Vec<_> = failures.collect();
        (!texts.is_empty()).then(|| texts.join("; "))
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

impl Places {
    /// Endpoints that were there before keep their connections.
    fn new(config: &Config, before: Option<&Places>) -> Result<Self, Error> {
        if config.endpoints.is_empty() {
            let text = "at least one Endpoint is required in client config";
            return Err(Error::Config(text.to_owned()));
        }
        let (endpoints, options) = prepare(config)?;
        let all = endpoints.into_iter().map(|endpoint| {
            let mut old = before.into_iter().flat_map(|places| &places.all);
            let old = old.find(|place| place.endpoint == endpoint);
            old.cloned()
                .unwrap_or_else(|| Arc::new(Place::new(endpoint)))
        });
        Ok(Places {
            all: all.collect(),
            options: Arc::new(options),
        })
    }
}

impl Place {
    fn new(endpoint: Endpoint) -> Self {
        Place {
            endpoint,
            slot: tokio::sync::Mutex::default(),
            failure: Mutex::new(None),
        }
    }

    /// A working connection to the endpoint, the one in use or a new one.
    ///
    /// An attempt that fails counts for all who wait for it, and for those who come after it within
    /// the time that it took: where a host does not answer, each would wait for a timeout of its
    /// own, one after the other.
    async fn connection(&self, options: &Options) -> Option<Connection> {
        let asked = Instant::now();
        let mut slot = self.slot.lock().await;
        if let Some(connection) = slot.connection.as_mut() {
            let sender = &mut connection.sender;
            if !sender.is_closed() && sender.ready().await.is_ok() {
                return Some(connection.clone());
            }
            slot.connection = None;
        }
        if slot.rests_until.is_some_and(|until| asked < until) {
            return None;
        }
        let begun = Instant::now();
        match connection::connect(&self.endpoint, options).await {
            Ok(connection) => {
                slot.connection = Some(connection.clone());
                Some(connection)
            }
            Err(text) => {
                let rest = begun.elapsed().min(RECONNECT_WAIT_MAX);
                slot.rests_until = Some(Instant::now() + rest);
                self.note(Some(text));
                None
            }
        }
    }

    /// Remembers how the last use of the endpoint failed, or that it did not.
    fn note(&self, failure: Option<String>) {
        *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = failure;
    }

    fn address(&self, request: &mut Request<Body>, options: &Options) -> Result<(), Status> {
        let scheme = match options.is_secure(&self.endpoint) {
            true => "https",
            false => "http",
        };
        let path = request.uri().path_and_query();
        let path = path.map_or("/", |path| path.as_str()).to_owned();
        *request.uri_mut() = Uri::builder()
            .scheme(scheme)
            .authority(self.endpoint.authority.as_str())
            .path_and_query(path)
            .build()
            .map_err(|error| Status::internal(format!("cannot address a request: {error}")))?;
        Ok(())
    }
}

impl Shared {
    fn places(&self) -> Arc<Places> {
        let places = self.places.read();
        Arc::clone(&places.unwrap_or_else(PoisonError::into_inner))
    }
}

impl Channel {
    /// Gives the request to the first connection that takes it.
    async fn send(&self, mut request: Request<Body>) -> Result<Response<Incoming>, Status> {
        let first = self.shared.turn.fetch_add(1, Ordering::Relaxed);
        let mut wait = RECONNECT_WAIT_MIN;
        let begun = Instant::now();
        loop {
            // New ones are for requests that wait, too.
            let places = self.shared.places();
            for offset in 0..places.all.len() {
                let place = &places.all[first.wrapping_add(offset) % places.all.len()];
                let Some(mut connection) = place.connection(&places.options).await else {
                    continue;
                };
                place.address(&mut request, &places.options)?;
                let mut error = match connection.sender.try_send_request(request).await {
                    Ok(response) => {
                        place.note(None);
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
                place.note(Some(format!("connection closed: {text}")));
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
}

impl Service<Request<Body>> for Channel {
    type Response = Response<Incoming>;
    type Error = Status;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Status>> + Send>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let channel = self.clone();
        Box::pin(async move { channel.send(request).await })
    }
}

#[cfg(test)]
mod tests;
