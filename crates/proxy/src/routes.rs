//! Pages beside gRPC: metrics and health, of the cluster and of the proxy.

use std::future::Future;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use api::pb::etcdserverpb::{RangeRequest, WatchCreateRequest};
use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderValue, Method, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Full};
use tokio::time::Instant;
use tonic::Code;
use tonic::body::Body;
use tonic::codegen::tokio_stream::StreamExt;

use crate::below::{Below, Caller};
use crate::host::Host;
use crate::metrics::Metrics;

/// The key that health checks read and watch, whether or not it is there.
const HEALTH_KEY: &[u8] = b"a";
/// Time for the read, and for the watch.
const READ_LIMIT: Duration = Duration::from_secs(1);
const WATCH_LIMIT: Duration = Duration::from_secs(3);

const TEXT: &str = "text/plain; charset=utf-8";
const METRICS: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The pages of one proxy.
pub(crate) struct Routes {
    pub(crate) below: Below,
    pub(crate) cluster: client::Config,
    pub(crate) host: Arc<dyn Host>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) profiles: bool,
}

/// Which pages a listener has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pages {
    /// All.
    All,
    /// Metrics and health.
    Monitoring,
}

impl Routes {
    /// The page of a path.
    pub(crate) async fn answer(&self, method: &Method, uri: &Uri, pages: Pages) -> Response<Body> {
        match uri.path() {
            "/metrics" => self.metrics().await,
            "/health" => self.health(method, self.read()).await,
            "/proxy/metrics" => {
                let page = self.host.metrics_page(&self.metrics);
                respond(StatusCode::OK, METRICS, page)
            }
            "/proxy/health" => self.health(method, self.read_and_watch()).await,
            path => match path.strip_prefix("/debug/pprof") {
                Some(what) if self.profiles && pages == Pages::All => {
                    self.profile(method, what, uri).await
                }
                _ => not_found(),
            },
        }
    }

    async fn profile(&self, method: &Method, what: &str, uri: &Uri) -> Response<Body> {
        if method != Method::GET {
            return not_allowed();
        }
        let mut pairs = uri.query().unwrap_or_default().split('&');
        let seconds = pairs.find_map(|pair| pair.strip_prefix("seconds="));
        match self.host.profile(what, seconds).await {
            Some(page) => respond(StatusCode::OK, TEXT, page),
            None => not_found(),
        }
    }

    /// The metrics of a member, whichever answers first.
    async fn metrics(&self) -> Response<Body> {
        let mut endpoints = self.cluster.endpoints.clone();
        let first = random_below(endpoints.len());
        endpoints.rotate_left(first);
        for endpoint in endpoints {
            let mut config = self.cluster.clone();
            config.endpoints = vec![endpoint];
            match client::fetch(&config, "/metrics").await {
                Ok(page) => return respond(StatusCode::OK, METRICS, page),
                Err(error) => tracing::warn!(%error, "failed to get the metrics of a member"),
            }
        }
        error(StatusCode::INTERNAL_SERVER_ERROR, "Internal server error")
    }

    async fn health(
        &self,
        method: &Method,
        check: impl Future<Output = Result<(), String>>,
    ) -> Response<Body> {
        if method != Method::GET {
            tracing::warn!("status-code" = 405, "/health error");
            return not_allowed();
        }
        let checked = check.await;
        self.host.on_health(checked.is_ok());
        let Err(reason) = checked else {
            let body = "{\"health\":\"true\",\"reason\":\"\"}";
            return respond(StatusCode::OK, TEXT, body);
        };
        let reason = serde_json::Value::from(reason);
        let body = format!("{{\"health\":\"false\",\"reason\":{reason}}}");
        tracing::warn!(output = body.as_str(), "status-code" = 503, "/health error");
        error(StatusCode::SERVICE_UNAVAILABLE, &body)
    }

    /// Reads a key; to be denied it is an answer too.
    async fn read(&self) -> Result<(), String> {
        let caller = Caller {
            deadline: Some(Instant::now() + READ_LIMIT),
            ..Caller::default()
        };
        let request = RangeRequest {
            key: Bytes::from_static(HEALTH_KEY),
            ..RangeRequest::default()
        };
        match self.below.kv.range(&caller, request).await {
            Ok(_) => Ok(()),
            Err(status) if status.code() == Code::PermissionDenied => Ok(()),
            Err(status) => Err(format!("GET ERROR:{}", status.message())),
        }
    }

    async fn read_and_watch(&self) -> Result<(), String> {
        self.read().await?;
        let request = WatchCreateRequest {
            key: Bytes::from_static(HEALTH_KEY),
            ..WatchCreateRequest::default()
        };
        let mut watching = self.below.watches.watch(&Caller::default(), request);
        let first = tokio::time::timeout(WATCH_LIMIT, watching.answers.next()).await;
        first.map(|_| ()).map_err(|_| "WATCH TIMEOUT".to_owned())
    }
}

/// A number below `end`, or 0; not for secrets.
fn random_below(end: usize) -> usize {
    let random = RandomState::new().build_hasher().finish() as usize;
    random.checked_rem(end).unwrap_or(0)
}

fn respond(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Response<Body> {
    let body = Full::new(body.into()).map_err(|never| match never {});
    let mut answer = Response::new(Body::new(body));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    answer
}

/// An error as Go's `http.Error` writes it: the text and a line end.
fn error(status: StatusCode, text: &str) -> Response<Body> {
    let mut answer = respond(status, TEXT, format!("{text}\n"));
    let nosniff = HeaderValue::from_static("nosniff");
    answer.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, nosniff);
    answer
}

fn not_allowed() -> Response<Body> {
    let mut refusal = error(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed");
    let allowed = HeaderValue::from_static("GET");
    refusal.headers_mut().insert(ALLOW, allowed);
    refusal
}

fn not_found() -> Response<Body> {
    error(StatusCode::NOT_FOUND, "404 page not found")
}
