//! The peer listeners: connections of other members, and of anybody else who finds the port.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, UnixListener};
use tokio::task::AbortHandle;

use super::Net;
use super::routes;
use super::socket::{HANDSHAKE_LIMIT, Socket, Timed};
use crate::front;
use crate::tls::{self, Credentials};

/// Connections at a time; more are closed as they come. A member has about a dozen.
const CONNECTIONS_MAX: usize = 1024;
/// TLS handshakes under way on one listener; beyond them the oldest ones are given up, so that
/// nobody without a certificate can keep members out.
const HANDSHAKES_MAX: usize = 256;
/// Time for a request's head, and for silence between two requests.
const HEAD_LIMIT: Duration = Duration::from_secs(90);
/// Bytes of a request's head.
const HEAD_BYTES_MAX: usize = 64 << 10;
/// Pause after a connection could not be accepted for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A listener of the peer thread's runtime.
enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listener {
    /// A connection, and where it comes from (nowhere for unix sockets).
    async fn accept(&self) -> io::Result<(Box<dyn Socket>, Option<SocketAddr>)> {
        match self {
            Listener::Tcp(listener) => {
                let (stream, address) = listener.accept().await?;
                stream.set_nodelay(true)?;
                Ok((Box::new(stream), Some(address)))
            }
            Listener::Unix(listener) => {
                let (stream, _) = listener.accept().await?;
                Ok((Box::new(stream), None))
            }
        }
    }
}

/// Serves a listener for as long as the runtime runs; called on the runtime.
///
/// # Errors
/// The socket cannot be registered.
pub(super) fn listen(net: &Arc<Net>, listener: front::Listener) -> io::Result<()> {
    let (listener, tls) = match listener {
        front::Listener::Secure(inner, credentials) => (*inner, Some(credentials)),
        plain => (plain, None),
    };
    let listener = match listener {
        front::Listener::Tcp(listener) => {
            listener.set_nonblocking(true)?;
            Listener::Tcp(TcpListener::from_std(listener)?)
        }
        front::Listener::Unix(listener) => {
            listener.set_nonblocking(true)?;
            Listener::Unix(UnixListener::from_std(listener)?)
        }
        front::Listener::Secure(..) | front::Listener::Either(..) => {
            return Err(io::Error::other("a peer port is behind TLS or is not"));
        }
    };
    let net = Arc::clone(net);
    tokio::spawn(async move {
        let mut handshakes = VecDeque::new();
        loop {
            match listener.accept().await {
                Ok((socket, address)) => match &tls {
                    None => admit(&net, socket, name(address)),
                    Some(tls) => {
                        let task = shake_hands(&net, socket, address, Arc::clone(tls));
                        bound(&mut handshakes, task);
                    }
                },
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a peer connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    });
    Ok(())
}

/// One of the connections that may be open.
struct Place(Arc<AtomicUsize>);

impl Place {
    fn take(open: &Arc<AtomicUsize>) -> Option<Place> {
        let taken = open.fetch_add(1, Relaxed);
        let place = Place(Arc::clone(open));
        (taken < CONNECTIONS_MAX).then_some(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

fn name(address: Option<SocketAddr>) -> Arc<str> {
    match address {
        Some(address) => address.to_string().into(),
        None => "@".into(),
    }
}

/// Adds a handshake to those under way, and gives up the oldest one when there are too many.
fn bound(handshakes: &mut VecDeque<AbortHandle>, task: AbortHandle) {
    handshakes.push_back(task);
    if handshakes.len() > HANDSHAKES_MAX {
        handshakes.retain(|task| !task.is_finished());
    }
    if handshakes.len() > HANDSHAKES_MAX
        && let Some(oldest) = handshakes.pop_front()
    {
        oldest.abort();
    }
}

/// Admits a connection once its handshake is done.
fn shake_hands(
    net: &Arc<Net>,
    socket: Box<dyn Socket>,
    address: Option<SocketAddr>,
    credentials: Arc<Credentials>,
) -> AbortHandle {
    let net = Arc::clone(net);
    let task = tokio::spawn(async move {
        let from = name(address);
        match secured(socket, address, &credentials).await {
            Ok(socket) => admit(&net, socket, from),
            Err(error) => {
                let address = &*from;
                tracing::warn!(
                    "remote-addr" = address,
                    error,
                    "rejected connection on peer endpoint"
                );
            }
        }
    });
    task.abort_handle()
}

fn admit(net: &Arc<Net>, socket: Box<dyn Socket>, from: Arc<str>) {
    let Some(place) = Place::take(&net.connections) else {
        tracing::warn!(
            %from,
            limit = CONNECTIONS_MAX,
            "closing peer connection; too many are open"
        );
        return;
    };
    let net = Arc::clone(net);
    tokio::spawn(async move {
        let _place = place;
        converse(net, socket, from).await;
    });
}

/// Shakes hands with a member, whose certificate must belong to its address.
async fn secured(
    socket: Box<dyn Socket>,
    address: Option<SocketAddr>,
    credentials: &Credentials,
) -> Result<Box<dyn Socket>, String> {
    let session = credentials
        .accept_http1()
        .map_err(|error| error.to_string())?;
    let mut stream = tls::Stream::new(socket, session);
    let shaken = stream.handshake(HANDSHAKE_LIMIT).await;
    shaken.map_err(|error| error.reason())?;
    if let (Some(identity), Some(address)) = (stream.identity(), address)
        && credentials.checks_address()
    {
        tokio::task::spawn_blocking(move || tls::check_address(&identity, address.ip()))
            .await
            .map_err(|error| error.to_string())?
            .map_err(|error| error.to_string())?;
    }
    Ok(Box::new(stream))
}

async fn converse(net: Arc<Net>, socket: Box<dyn Socket>, from: Arc<str>) {
    let service = {
        let from = Arc::clone(&from);
        let net = Arc::clone(&net);
        service_fn(move |request: Request<Incoming>| {
            let (net, from) = (Arc::clone(&net), Arc::clone(&from));
            async move { Ok::<_, Infallible>(routes::answer(&net, request, &from).await) }
        })
    };
    let socket = TokioIo::new(Timed::new(socket, net.write_limit));
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_LIMIT)
        .max_buf_size(HEAD_BYTES_MAX)
        .title_case_headers(true)
        .serve_connection(socket, service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, %from, "peer connection ended");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_oldest_handshake_is_given_up() {
        let mut handshakes = VecDeque::new();
        let endless: Vec<_> = (0..=HANDSHAKES_MAX)
            .map(|_| tokio::spawn(std::future::pending::<()>()))
            .collect();
        for task in &endless {
            bound(&mut handshakes, task.abort_handle());
        }
        let mut endless = endless.into_iter();
        let first = endless.next().expect("there are some").await;
        assert!(first.is_err_and(|error| error.is_cancelled()));
        assert!(endless.all(|task| !task.is_finished()));
        assert_eq!(handshakes.len(), HANDSHAKES_MAX);
    }

    #[tokio::test]
    async fn handshakes_that_are_done_make_room() {
        let mut handshakes = VecDeque::new();
        let endless = tokio::spawn(std::future::pending::<()>());
        bound(&mut handshakes, endless.abort_handle());
        for _ in 0..4 * HANDSHAKES_MAX {
            let done = tokio::spawn(async {});
            let task = done.abort_handle();
            done.await.expect("nothing to fail");
            bound(&mut handshakes, task);
        }
        assert!(!endless.is_finished() && handshakes.len() <= HANDSHAKES_MAX);
    }
}
