//! What clients get over HTTP that is not gRPC: versions, health, metrics, variables, and the
//! JSON API, which [`Gateway`] serves.
//!
//! ```text
//! front end (not HTTP/2) ──socket and first bytes──▶ Server ── hyper ──▶ Routes::answer
//! --listen-metrics-urls ──────accepted socket──────▶        │
//! front end (HTTP/2, not gRPC) ───────request───────────────┴──────────▶ Routes::answer
//! ```
//!
//! [`Routes`] knows paths, texts and headers and asks a [`MemberView`] for the rest; it does no
//! I/O. [`Server`] owns one thread with a single-threaded runtime; nothing here runs on a net
//! thread or touches the member's state.

mod access;
mod body;
mod bridge;
mod connection;
mod debug;
mod health;
mod path;
pub(crate) mod profile;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use api::ids::MemberId;
use bytes::Bytes;
use http::header::{ALLOW, CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, Uri};

pub(crate) use body::whole;
pub use body::{Body, RequestBody, Tail, Upgrade};
pub use connection::{Error, Server, Stream};

use crate::config::{self, LogLevel};
use crate::gateway::{self, Gateway, websocket};
use crate::metrics::{self, Metrics};

/// What etcd says to a client whose certificate would not be looked at.
const IGNORED_NAME: &str = "CommonName of client sending a request against gateway will be ignored \
                            and not used as expected";

/// What a check waits for; `Err` is the text that the client is shown.
pub type Check<'a> = Pin<Box<dyn Future<Output = Result<(), String>> + Send + 'a>>;

/// A kind of alarm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alarm {
    NoSpace,
    Corrupt,
    /// A number that this release does not know.
    Unknown(i32),
}

impl Alarm {
    /// The name that `exclude=` uses.
    fn name(self) -> String {
        match self {
            Alarm::NoSpace => "NOSPACE".into(),
            Alarm::Corrupt => "CORRUPT".into(),
            Alarm::Unknown(number) => number.to_string(),
        }
    }
}

/// How a health check reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Read {
    /// From this member's state as it is.
    Serializable,
    /// After the leader confirmed that the state is current.
    Linearizable,
}

/// What raft says about itself.
#[derive(Clone, Debug, Default)]
pub struct RaftStatus {
    pub member: MemberId,
    pub term: u64,
    pub vote: MemberId,
    pub commit: u64,
    pub applied: u64,
    pub leader: MemberId,
    pub state: RaftState,
    /// The member that leadership is being handed to.
    pub transferee: MemberId,
    /// On the leader: what each member has.
    pub progress: Vec<Progress>,
}

/// The role in the current term.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RaftState {
    #[default]
    Follower,
    PreCandidate,
    Candidate,
    Leader,
}

/// How far a member's log reaches, as the leader sees it.
#[derive(Clone, Debug)]
pub struct Progress {
    pub member: MemberId,
    pub matched: u64,
    pub next: u64,
    /// etcd's word: `StateProbe`, `StateReplicate` or `StateSnapshot`.
    pub state: &'static str,
}

/// The member as the endpoints see it. Every method is called on the HTTP thread and must not
/// block; only the future of `read` may take its time.
pub trait MemberView: Send + Sync + 'static {
    /// `X.Y.Z` of the cluster; `None` before it is decided.
    fn cluster_version(&self) -> Option<String>;

    /// `X.Y.Z` of the stored data; `None` when the data does not say.
    fn storage_version(&self) -> Option<String>;

    /// The alarms that are raised, of any member.
    fn alarms(&self) -> Vec<Alarm>;

    /// Whether callers must say who they are.
    fn is_auth_on(&self) -> bool;

    /// The leader, if one is known.
    fn leader(&self) -> Option<MemberId>;

    /// Whether this member is a learner.
    fn is_learner(&self) -> bool;

    /// Reads one key as root, without its value.
    fn read(&self, read: Read) -> Check<'_>;

    /// Raft's state.
    fn raft_status(&self) -> RaftStatus;

    /// Copies into `metrics` what is not counted there: revisions, sizes, indexes, roles.
    fn refresh(&self, metrics: &Metrics);
}

/// Which endpoints a listener has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listener {
    /// Everything, behind access control.
    Client,
    /// Metrics and health only, for anybody.
    Metrics,
}

/// The answer to a request.
pub type Answer = Response<Body>;

/// The head of a request.
#[derive(Clone, Debug)]
pub struct Request {
    pub method: Method,
    pub uri: Uri,
    pub headers: HeaderMap,
    pub channel: Channel,
}

/// What a request came through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Channel {
    /// The client is behind TLS.
    pub secure: bool,
    /// Its certificate has a common name.
    pub named: bool,
}

/// All endpoints of one member.
pub struct Routes {
    view: Arc<dyn MemberView>,
    metrics: Arc<Metrics>,
    access: access::Access,
    /// A certificate's common name is a user: `--client-cert-auth`.
    by_certificate: bool,
    /// None with `--enable-grpc-gateway=false`.
    gateway: Option<Arc<Gateway>>,
    /// Bound of the read in `/health`.
    read_timeout: Duration,
    /// The process's words, for /debug/vars.
    command_line: Vec<String>,
    /// Serve profiles: `--enable-pprof`, or a log at level debug.
    profiles: bool,
}

impl Routes {
    /// Endpoints for the member behind `view`.
    #[must_use]
    pub fn new(
        view: Arc<dyn MemberView>,
        metrics: Arc<Metrics>,
        config: &config::Config,
    ) -> Routes {
        Routes {
            view,
            metrics,
            access: access::Access::new(&config.http),
            by_certificate: config.security.client.client_cert_auth,
            gateway: None,
            read_timeout: config.raft.request_timeout(),
            command_line: std::env::args().collect(),
            profiles: config.http.profiles || config.log.level == LogLevel::Debug,
        }
    }

    /// The same endpoints with the JSON API.
    #[must_use]
    pub fn with_gateway(self, gateway: Gateway) -> Routes {
        Routes {
            gateway: Some(Arc::new(gateway)),
            ..self
        }
    }

    /// Whether a client may believe that its certificate tells the JSON API who it is.
    fn is_misled(&self, request: &Request) -> bool {
        request.channel.named
            && self.by_certificate
            && self.gateway.is_some()
            && request.uri.path().starts_with("/v3/")
            && self.view.is_auth_on()
    }

    /// Answers one request.
    pub async fn answer(&self, request: &Request, tail: Tail, listener: Listener) -> Answer {
        if listener == Listener::Metrics {
            return self.find(request, tail, listener).await;
        }
        if let Some(refusal) = self.access.refusal(request) {
            return refusal;
        }
        if self.is_misled(request) {
            return error(StatusCode::BAD_REQUEST, IGNORED_NAME);
        }
        let mut answer = match request.method {
            Method::OPTIONS => respond(StatusCode::OK, None, ""),
            _ => self.find(request, tail, listener).await,
        };
        if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
            self.access.add_headers(request, answer.headers_mut());
        }
        answer
    }

    /// The endpoint of the request's path; only the JSON API looks at the body.
    async fn find(&self, request: &Request, tail: Tail, listener: Listener) -> Answer {
        let Some(mut path) = path::unescape(request.uri.path()) else {
            return error(StatusCode::BAD_REQUEST, "400 Bad Request");
        };
        let gateway = match listener {
            Listener::Client => self.gateway.as_ref(),
            Listener::Metrics => None,
        };
        if let Some(rest) = path.strip_prefix("/v3beta/") {
            path = format!("{}{rest}", gateway::PREFIX);
        }
        if let Some(clean) = path::clean(&path) {
            return path::redirect(request, &clean);
        }
        if let Some(gateway) = gateway {
            if path.starts_with(gateway::PREFIX) {
                return json(gateway, path, request, tail).await;
            }
            if gateway::PREFIX.strip_suffix('/') == Some(&path) {
                return path::redirect(request, gateway::PREFIX);
            }
        }
        if let Some(answer) = self.monitoring(request, &path).await {
            return answer;
        }
        match path.as_str() {
            "/version" if listener == Listener::Client => self.version(request),
            "/debug/vars" if listener == Listener::Client => self.variables(request),
            path if listener == Listener::Client => {
                let profile = self.profile(request, path).await;
                profile.unwrap_or_else(not_found)
            }
            _ => not_found(),
        }
    }

    /// What metrics listeners serve too.
    async fn monitoring(&self, request: &Request, path: &str) -> Option<Answer> {
        match path {
            "/metrics" => Some(self.metrics(request)),
            "/health" => Some(self.health(request).await),
            _ => self.checks(request, path).await,
        }
    }

    fn version(&self, request: &Request) -> Answer {
        if let Some(refusal) = only_get(request) {
            return refusal;
        }
        let body = version_json(
            self.view.cluster_version().as_deref(),
            self.view.storage_version().as_deref(),
        );
        respond(StatusCode::OK, Some("application/json"), body)
    }

    fn metrics(&self, request: &Request) -> Answer {
        self.metrics.scrapes_in_flight.add(1);
        self.view.refresh(&self.metrics);
        let page = self.metrics.page();
        self.metrics.scrapes_in_flight.add(-1);
        self.metrics.scrapes.inc();
        let accepted = request.headers.get(http::header::ACCEPT_ENCODING);
        let gzip = accepted
            .and_then(|value| value.to_str().ok())
            .is_some_and(accepts_gzip);
        if !gzip {
            return respond(StatusCode::OK, Some(metrics::CONTENT_TYPE), page);
        }
        let body = compress(page.as_bytes());
        let mut answer = respond(StatusCode::OK, Some(metrics::CONTENT_TYPE), body);
        answer
            .headers_mut()
            .insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        answer
    }
}

/// The body of `/version`: of this build, of the cluster once it is decided, of the stored data
/// when it says so.
pub(crate) fn version_json(cluster: Option<&str>, storage: Option<&str>) -> String {
    let server = api::version::SERVER;
    let cluster = cluster.unwrap_or("not_decided");
    let storage = storage.unwrap_or("unknown");
    format!(
        "{{\"etcdserver\":\"{server}\",\"etcdcluster\":\"{cluster}\",\"storage\":\"{storage}\"}}"
    )
}

/// A request of the JSON API, or a web socket that stands for one.
async fn json(gateway: &Arc<Gateway>, path: String, request: &Request, tail: Tail) -> Answer {
    let Some(upgrade) = tail
        .upgrade
        .filter(|_| websocket::is_asked_for(&request.headers))
    else {
        return gateway.answer(&path, request, tail.body).await;
    };
    let answer = websocket::handshake(request);
    if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
        let (gateway, request) = (gateway.clone(), request.clone());
        upgrade.to(|socket| async move {
            websocket::converse(&gateway, &path, &request, socket).await;
        });
    }
    answer
}

fn accepts_gzip(accepted: &str) -> bool {
    accepted.split(',').any(|item| {
        let (coding, quality) = item.split_once(';').unwrap_or((item, ""));
        coding.trim() == "gzip" && !matches!(quality.trim(), "q=0" | "q=0.0" | "q=0.00" | "q=0.000")
    })
}

fn compress(page: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder
        .write_all(page)
        .and_then(|()| encoder.finish())
        .expect("memory takes everything")
}

pub(crate) fn respond(
    status: StatusCode,
    content_type: Option<&'static str>,
    body: impl Into<Bytes>,
) -> Answer {
    let mut answer = Response::new(whole(body));
    *answer.status_mut() = status;
    if let Some(kind) = content_type {
        answer
            .headers_mut()
            .insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    }
    answer
}

const TEXT: &str = "text/plain; charset=utf-8";

fn plain(status: StatusCode, body: impl Into<Bytes>) -> Answer {
    let mut answer = respond(status, Some(TEXT), body);
    let nosniff = HeaderValue::from_static("nosniff");
    answer
        .headers_mut()
        .insert(http::header::X_CONTENT_TYPE_OPTIONS, nosniff);
    answer
}

/// An error as Go's `http.Error` writes it: the text and a line end.
pub(crate) fn error(status: StatusCode, text: &str) -> Answer {
    plain(status, format!("{text}\n"))
}

pub(crate) fn not_found() -> Answer {
    error(StatusCode::NOT_FOUND, "404 page not found")
}

/// The refusal of everything but GET, HEAD included.
fn only_get(request: &Request) -> Option<Answer> {
    if request.method == Method::GET {
        return None;
    }
    let mut answer = error(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed");
    answer
        .headers_mut()
        .insert(ALLOW, HeaderValue::from_static("GET"));
    Some(answer)
}

/// The decoded values of `name` in the query; pairs with a `;` or a bad escape do not count.
fn query<'a>(request: &'a Request, name: &'a str) -> impl Iterator<Item = String> + 'a {
    let pairs = request.uri.query().unwrap_or_default().split('&');
    let pairs = pairs.filter(|pair| !pair.is_empty() && !pair.contains(';'));
    pairs.filter_map(move |pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        // In a query, a blank may be written as a plus.
        let unescape = |text: &str| path::unescape(&text.replace('+', " "));
        (unescape(key)? == name).then(|| unescape(value)).flatten()
    })
}

#[cfg(test)]
mod tests;
