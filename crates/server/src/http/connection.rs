//! Sockets to requests: one thread, one single-threaded runtime, hyper for HTTP/1.1.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::{IpAddr, TcpListener};
use std::os::unix::net::UnixStream;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::runtime::{Handle, Runtime};
use tokio::sync::watch;

use super::body::{Afterwards, Upgrade};
use super::{Answer, Channel, Listener, Request, RequestBody, Routes, Tail, error};
use crate::front;
use crate::tls::{self, Credentials, Session};

/// Time for a request's head, and for silence between two requests.
const HEAD_TIMEOUT: Duration = Duration::from_secs(90);
/// Time for a TLS handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of a request's head.
const HEAD_BYTES_MAX: usize = 64 * 1024;
/// Connections to metrics listeners at a time; more are closed as they come. Health checks and
/// scrapes need few. Clients have their places from the front end.
const METRICS_CONNECTIONS_MAX: usize = 1024;

/// Why the endpoints cannot be served.
#[derive(Debug)]
pub enum Error {
    /// The runtime or its thread did not start.
    Start(io::Error),
    /// A listener could not be put to use.
    Listen(io::Error),
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Error::Start(_) => "start the HTTP thread",
            Error::Listen(_) => "take over an HTTP listener",
        })
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::Start(source) | Error::Listen(source) => Some(source),
        }
    }
}

/// An accepted connection.
pub enum Stream {
    Tcp(std::net::TcpStream),
    Unix(UnixStream),
    /// One of the above, with a TLS session on it.
    Secure(Box<Stream>, Box<Session>),
}

impl Stream {
    /// Gives the socket to tokio.
    fn open(self) -> io::Result<Box<dyn Socket>> {
        Ok(match self {
            Stream::Tcp(stream) => {
                stream.set_nonblocking(true)?;
                stream.set_nodelay(true)?;
                Box::new(tokio::net::TcpStream::from_std(stream)?)
            }
            Stream::Unix(stream) => {
                stream.set_nonblocking(true)?;
                Box::new(tokio::net::UnixStream::from_std(stream)?)
            }
            Stream::Secure(inner, session) => Box::new(tls::Stream::new(inner.open()?, *session)),
        })
    }
}

/// The running endpoints. Dropping it stops them; see [`Server::stop`] for the polite way.
pub struct Server {
    handle: Handle,
    routes: Arc<Routes>,
    open: Arc<AtomicUsize>,
    open_metrics: Arc<AtomicUsize>,
    stopping: watch::Sender<bool>,
    /// Taken by whoever stops the server first.
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Server {
    /// Starts the thread.
    ///
    /// # Errors
    /// The system refuses a thread or an epoll instance.
    pub fn start(routes: Routes) -> Result<Server, Error> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(Error::Start)?;
        let handle = runtime.handle().clone();
        let (stopping, stop) = watch::channel(false);
        let open = Arc::new(AtomicUsize::new(0));
        let open_metrics = Arc::new(AtomicUsize::new(0));
        let still_open = [open.clone(), open_metrics.clone()];
        let thread = thread::Builder::new()
            .name("http".into())
            .spawn(move || run(&runtime, stop, &still_open))
            .map_err(Error::Start)?;
        Ok(Server {
            handle,
            routes: Arc::new(routes),
            open,
            open_metrics,
            stopping,
            thread: Mutex::new(Some(thread)),
        })
    }

    /// Serves a client connection from which `read` was read already. Called by net threads.
    pub fn serve(&self, stream: Stream, read: Vec<u8>, place: Option<front::Place>) {
        let channel = match &stream {
            Stream::Secure(_, session) => Channel {
                secure: true,
                named: has_name(tls::identity(session).as_deref()),
            },
            _ => Channel::default(),
        };
        let held = (Place::of(&self.open), place);
        self.spawn(Listener::Client, channel, held, async move {
            let socket = stream.open()?;
            Ok(Box::new(Rewound {
                read,
                at: 0,
                socket,
            }) as Box<dyn Socket>)
        });
    }

    fn serve_metrics(&self, stream: TcpStream, address: IpAddr, tls: Option<Arc<Credentials>>) {
        let channel = Channel {
            secure: tls.is_some(),
            named: false,
        };
        let Some(place) = Place::of(&self.open_metrics).within(METRICS_CONNECTIONS_MAX) else {
            tracing::warn!(
                limit = METRICS_CONNECTIONS_MAX,
                "closing HTTP connection; too many are open"
            );
            return;
        };
        self.spawn(Listener::Metrics, channel, place, async move {
            stream.set_nodelay(true)?;
            match tls {
                None => Ok(Box::new(stream) as Box<dyn Socket>),
                Some(credentials) => secured(stream, address, &credentials).await,
            }
        });
    }

    /// Serves a connection on the runtime once `open` has made a byte stream of it.
    fn spawn(
        &self,
        listener: Listener,
        channel: Channel,
        held: impl Send + 'static,
        open: impl Future<Output = io::Result<Box<dyn Socket>>> + Send + 'static,
    ) {
        let routes = self.routes.clone();
        let stop = self.stopping.subscribe();
        self.handle.spawn(async move {
            let _held = held;
            match open.await {
                Ok(socket) => converse(socket, routes, listener, channel, stop).await,
                // The peer is gone already, or the process is out of descriptors.
                Err(error) => tracing::debug!(%error, "HTTP connection lost before it was served"),
            }
        });
    }

    /// Serves metrics and health on `listener` until the server stops.
    ///
    /// # Errors
    /// The socket cannot be made non-blocking or registered.
    pub fn listen_metrics(
        self: &Arc<Self>,
        listener: TcpListener,
        tls: Option<Arc<Credentials>>,
    ) -> Result<(), Error> {
        listener.set_nonblocking(true).map_err(Error::Listen)?;
        let registered = {
            let _runtime = self.handle.enter();
            tokio::net::TcpListener::from_std(listener).map_err(Error::Listen)?
        };
        // The task must not keep the server alive, or dropping it would stop nothing.
        let server = Arc::downgrade(self);
        let mut stop = self.stopping.subscribe();
        self.handle.spawn(async move {
            loop {
                let accepted = tokio::select! {
                    accepted = registered.accept() => accepted,
                    () = stopped(&mut stop) => return,
                };
                let Some(server) = server.upgrade() else {
                    return;
                };
                match accepted {
                    Ok((stream, address)) => {
                        server.serve_metrics(stream, address.ip(), tls.clone());
                    }
                    Err(error) => {
                        tracing::warn!(%error, "cannot accept a metrics connection");
                        // Out of descriptors: trying again at once would only burn the CPU.
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                }
            }
        });
        Ok(())
    }

    /// The endpoints, for requests that came by another way.
    #[must_use]
    pub fn routes(&self) -> &Arc<Routes> {
        &self.routes
    }

    /// The runtime that the endpoints run on, for requests that came by another way.
    #[must_use]
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Lets requests under way finish for at most five seconds, then closes everything.
    pub fn stop(&self) {
        self.stopping.send_replace(true);
        let thread = self
            .thread
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        // The accepting task may hold the last reference, and a thread cannot wait for itself.
        if let Some(thread) = thread.filter(|it| it.thread().id() != thread::current().id()) {
            // A panic of that thread was reported where it happened.
            let _ = thread.join();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

/// How long a stop waits for requests under way.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

fn run(runtime: &Runtime, mut stop: watch::Receiver<bool>, open: &[Arc<AtomicUsize>]) {
    runtime.block_on(async {
        stopped(&mut stop).await;
        let deadline = tokio::time::Instant::now() + STOP_TIMEOUT;
        let is_open = || open.iter().any(|count| count.load(Relaxed) > 0);
        while is_open() && tokio::time::Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
}

/// Waits for the stop; the sender lives in the server, which sets the flag before it goes.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

/// One of the connections that may be open.
struct Place(Arc<AtomicUsize>);

impl Place {
    fn of(open: &Arc<AtomicUsize>) -> Place {
        open.fetch_add(1, Relaxed);
        Place(open.clone())
    }

    /// Itself, unless more than `limit` are taken.
    fn within(self, limit: usize) -> Option<Place> {
        (self.0.load(Relaxed) <= limit).then_some(self)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// Shakes hands with somebody who reads metrics. A certificate must come from where it belongs.
async fn secured(
    stream: TcpStream,
    address: IpAddr,
    credentials: &Credentials,
) -> io::Result<Box<dyn Socket>> {
    let session = credentials.accept_http1().map_err(io::Error::other)?;
    let mut stream = tls::Stream::new(stream, session);
    stream
        .handshake(HANDSHAKE_TIMEOUT)
        .await
        .map_err(io::Error::other)?;
    if let Some(identity) = stream.identity()
        && credentials.checks_address()
    {
        tokio::task::spawn_blocking(move || tls::check_address(&identity, address))
            .await
            .map_err(io::Error::other)?
            .map_err(io::Error::other)?;
    }
    Ok(Box::new(stream))
}

/// Whether a certificate says who its owner is.
pub(super) fn has_name(identity: Option<&tls::Identity>) -> bool {
    identity.is_some_and(|identity| !identity.common_name.is_empty())
}

async fn converse(
    socket: Box<dyn Socket>,
    routes: Arc<Routes>,
    listener: Listener,
    channel: Channel,
    mut stop: watch::Receiver<bool>,
) {
    let afterwards = Afterwards::default();
    let next = afterwards.clone();
    let service = service_fn(move |mut request: hyper::Request<Incoming>| {
        let routes = routes.clone();
        let upgrade = Upgrade::new(hyper::upgrade::on(&mut request), next.clone());
        async move {
            let (parts, body) = request.into_parts();
            // One name, or the host list could be got around with two.
            let names = parts.headers.get_all(hyper::header::HOST).iter().count();
            if names > 1 || names == 0 && parts.version == hyper::Version::HTTP_11 {
                return Ok::<Answer, Infallible>(bad_host());
            }
            let request = Request {
                method: parts.method,
                uri: parts.uri,
                headers: parts.headers,
                channel,
            };
            let tail = Tail {
                body: RequestBody::Connection(body),
                upgrade: Some(upgrade),
            };
            Ok(routes.answer(&request, tail, listener).await)
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_BYTES_MAX)
        .title_case_headers(true)
        .serve_connection(TokioIo::new(socket), service)
        .with_upgrades();
    let mut connection = std::pin::pin!(connection);
    let outcome = tokio::select! {
        outcome = connection.as_mut() => outcome,
        () = stopped(&mut stop) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = outcome {
        tracing::debug!(%error, "HTTP connection ended");
    }
    if let Some(next) = afterwards.take() {
        next.await;
    }
}

fn bad_host() -> Answer {
    let status = hyper::StatusCode::BAD_REQUEST;
    let mut answer = error(status, "400 Bad Request: missing required Host header");
    let close = hyper::header::HeaderValue::from_static("close");
    answer
        .headers_mut()
        .insert(hyper::header::CONNECTION, close);
    answer
}

trait Socket: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Socket for S {}

/// A socket whose first bytes were read by somebody else.
struct Rewound {
    read: Vec<u8>,
    /// Bytes of `read` that were delivered.
    at: usize,
    socket: Box<dyn Socket>,
}

impl AsyncRead for Rewound {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.at < self.read.len() {
            let count = buffer.remaining().min(self.read.len() - self.at);
            buffer.put_slice(&self.read[self.at..self.at + count]);
            self.at += count;
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.socket).poll_read(context, buffer)
    }
}

impl AsyncWrite for Rewound {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(context)
    }
}
