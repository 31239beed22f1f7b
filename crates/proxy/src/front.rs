//! Connections of clients: HTTP/2 and HTTP/1.1 on one port, gRPC and pages on one connection.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use client::Client;
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
use tonic::body::Body;

use crate::below::{Below, Direct, Kv, Watches};
use crate::leasing::Leasing;
use crate::namespace::Namespaced;
use crate::ordering::Ordered;
use crate::pass::Limits;
use crate::services::Services;
use crate::settings::Settings;

/// Flow-control window of a stream and of a connection, in bytes: large answers need few turns.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 4 << 20;

/// Time for a request's head on a connection without HTTP/2.
const HEAD_TIMEOUT: Duration = Duration::from_secs(90);

/// The running proxy: give it byte streams.
pub struct Proxy {
    services: Services,
    builder: auto::Builder<TokioExecutor>,
    leasing: Option<Arc<Leasing>>,
}

/// The layers that the settings ask for.
async fn stack(settings: &Settings) -> Result<(Below, Option<Arc<Leasing>>), client::Error> {
    let client = Client::connect(settings.cluster.clone()).await?;
    let direct = Arc::new(Direct::new(client.clone()));
    let namespace = settings.namespace.clone();
    let mut kv: Arc<dyn Kv> = Arc::clone(&direct) as _;
    let mut watches: Arc<dyn Watches> = Arc::clone(&direct) as _;
    if settings.ordering {
        kv = Arc::new(Ordered::new(kv, client.channel()));
    }
    if !namespace.is_empty() {
        kv = Arc::new(Namespaced::new(kv, namespace.clone()));
        watches = Arc::new(Namespaced::new(watches, namespace.clone()));
    }
    let mut below = Below {
        unleased: Arc::clone(&kv),
        kv,
        watches,
        client,
        namespace,
    };
    let mut leasing = None;
    if !settings.leasing_prefix.is_empty() {
        let started = Arc::new(Leasing::start(&below, settings.leasing_prefix.clone()));
        below.kv = Arc::clone(&started) as _;
        leasing = Some(started);
    }
    Ok((below, leasing))
}

impl Proxy {
    /// Puts the layers together; no connection is needed for that.
    ///
    /// # Errors
    /// Endpoints or TLS files that cannot be used.
    pub async fn start(settings: &Settings) -> Result<Self, client::Error> {
        let (below, leasing) = stack(settings).await?;
        let limits = Limits {
            request: settings.cluster.request_bytes_max,
            answer: settings.cluster.response_bytes_max,
        };
        Ok(Proxy {
            services: Services::new(&below, limits),
            builder: builder(settings),
            leasing,
        })
    }

    /// Gives up what others would wait for once the process has gone.
    pub async fn close(&self) {
        if let Some(leasing) = &self.leasing {
            leasing.close().await;
        }
    }

    /// Serves one connection until it ends.
    ///
    /// # Errors
    /// How it broke.
    pub async fn serve<S>(self: Arc<Self>, stream: S) -> io::Result<()>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let proxy = Arc::clone(&self);
        let service = service_fn(move |request| {
            let proxy = Arc::clone(&proxy);
            async move { Ok::<_, Infallible>(proxy.answer(request).await) }
        });
        let served = self.builder.serve_connection(TokioIo::new(stream), service);
        served.await.map_err(io::Error::other)
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        match is_grpc(&request) {
            true => self.services.answer(request).await,
            false => not_found(),
        }
    }
}

fn builder(settings: &Settings) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    let keepalive = Some(settings.keepalive_interval).filter(|it| !it.is_zero());
    builder
        .http2()
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_concurrent_streams(settings.concurrent_streams_max)
        .keep_alive_interval(keepalive)
        .keep_alive_timeout(settings.keepalive_timeout);
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .title_case_headers(true);
    builder
}

fn is_grpc(request: &Request<Incoming>) -> bool {
    let kind = request.headers().get(http::header::CONTENT_TYPE);
    let kind = kind.and_then(|value| value.to_str().ok());
    request.version() == http::Version::HTTP_2
        && kind.is_some_and(|kind| kind.starts_with("application/grpc"))
}

fn not_found() -> Response<Body> {
    let body = http_body_util::Full::from("404 page not found\n");
    let body = body.map_err(|never| match never {});
    let mut answer = Response::new(Body::new(body));
    *answer.status_mut() = StatusCode::NOT_FOUND;
    answer
}
