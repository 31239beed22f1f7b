//! Connections of clients: HTTP/2 and HTTP/1.1 on one port, gRPC and pages on one connection.

mod calm;

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use client::Client;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
use tonic::body::Body;

use crate::below::{Below, Direct, Kv, Watches};
use crate::calls::Call;
use crate::host::Host;
use crate::leasing::Leasing;
use crate::metrics::Metrics;
use crate::namespace::Namespaced;
use crate::ordering::Ordered;
use crate::routes::{Pages, Routes};
use crate::services::Services;
use crate::settings::Settings;
use calm::{Calm, Open};

/// Flow-control window of a stream and of a connection, in bytes: large answers need few turns.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 4 << 20;

/// Time for a request's head on a connection without HTTP/2.
const HEAD_TIMEOUT: Duration = Duration::from_secs(90);

/// The running proxy: give it byte streams.
pub struct Proxy {
    services: Services,
    routes: Routes,
    host: Arc<dyn Host>,
    builder: auto::Builder<TokioExecutor>,
    leasing: Option<Arc<Leasing>>,
    log_calls: bool,
    /// The shortest pause between two probes of a client.
    probe_pause: Duration,
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
    pub async fn start(settings: &Settings, host: Arc<dyn Host>) -> Result<Self, client::Error> {
        let (below, leasing) = stack(settings).await?;
        let metrics = Arc::<Metrics>::default();
        Ok(Proxy {
            services: Services::start(&below, settings, &metrics),
            routes: Routes {
                below,
                cluster: settings.cluster.clone(),
                host: Arc::clone(&host),
                metrics,
                profiles: settings.profiles,
            },
            host,
            builder: builder(settings),
            log_calls: settings.log_calls,
            leasing,
            probe_pause: settings.keepalive_min,
        })
    }

    /// Gives up what others would wait for once the process has gone.
    pub async fn close(&self) {
        if let Some(leasing) = &self.leasing {
            leasing.close().await;
        }
        self.services.close().await;
    }

    /// Serves one connection until it ends: with gRPC and all pages, or with metrics and health.
    ///
    /// # Errors
    /// How it broke.
    pub async fn serve<S>(self: Arc<Self>, stream: S, pages: Pages) -> io::Result<()>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let proxy = Arc::clone(&self);
        let calls = Arc::<AtomicUsize>::default();
        let stream = Calm::new(stream, self.probe_pause, Arc::clone(&calls));
        let service = service_fn(move |request| {
            let proxy = Arc::clone(&proxy);
            let open = Open::new(&calls);
            async move {
                let answer = proxy.answer(request, pages).await;
                Ok::<_, Infallible>(answer.map(|body| Body::new(open.until_end_of(body))))
            }
        });
        let served = self.builder.serve_connection(TokioIo::new(stream), service);
        served.await.map_err(io::Error::other)
    }

    async fn answer(&self, request: Request<Incoming>, pages: Pages) -> Response<Body> {
        if pages == Pages::Monitoring || !is_grpc(&request) {
            let (method, uri) = (request.method(), request.uri());
            return self.routes.answer(method, uri, pages).await;
        }
        let call = Call::begin(&self.host, request.uri().path(), self.log_calls);
        let answer = self.services.answer(call.request(request)).await;
        call.answer(answer)
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
