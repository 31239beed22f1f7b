//! The peer listeners: connections of other members, and of anybody else who finds the port.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, UnixListener};

use super::Net;
use super::routes;
use super::socket::{Socket, Timed};
use crate::front;

/// Connections at a time; more are closed as they come. A member has about a dozen.
const CONNECTIONS_MAX: usize = 1024;
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
    /// A connection, and where it comes from.
    async fn accept(&self) -> io::Result<(Box<dyn Socket>, String)> {
        match self {
            Listener::Tcp(listener) => {
                let (stream, address) = listener.accept().await?;
                stream.set_nodelay(true)?;
                Ok((Box::new(stream), address.to_string()))
            }
            Listener::Unix(listener) => {
                let (stream, _) = listener.accept().await?;
                Ok((Box::new(stream), "@".into()))
            }
        }
    }
}

/// Serves a listener for as long as the runtime runs; called on the runtime.
///
/// # Errors
/// The socket cannot be registered.
pub(super) fn listen(net: &Arc<Net>, listener: front::Listener) -> io::Result<()> {
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
            return Err(io::ErrorKind::Unsupported.into());
        }
    };
    let net = Arc::clone(net);
    tokio::spawn(async move {
        loop {
            match listener.accept().await {
                Ok((socket, from)) => admit(&net, socket, from),
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

fn admit(net: &Arc<Net>, socket: Box<dyn Socket>, from: String) {
    let Some(place) = Place::take(&net.connections) else {
        tracing::warn!(
            from,
            limit = CONNECTIONS_MAX,
            "closing peer connection; too many are open"
        );
        return;
    };
    let net = Arc::clone(net);
    tokio::spawn(async move {
        let _place = place;
        let from: Arc<str> = from.into();
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
    });
}
