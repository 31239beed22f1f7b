//! The peer listeners: connections of other members, and of anybody else who finds the port.

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
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

/// Connections at a time; a member has about a dozen. Beyond them the oldest on which no member
/// of the cluster has asked anything is closed, so that whoever holds many keeps no member out.
const CONNECTIONS_MAX: usize = 512;
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

/// Connections that are open, in the order in which they were made.
#[derive(Default)]
pub(super) struct Connections(Mutex<Open>);

#[derive(Default)]
struct Open {
    made: u64,
    all: BTreeMap<u64, Connection>,
}

#[derive(Default)]
struct Connection {
    /// Absent until the task runs.
    task: Option<AbortHandle>,
    /// A member of the cluster has asked something on it.
    is_member: bool,
}

impl Connections {
    fn open(&self) -> MutexGuard<'_, Open> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for one more, for which a stranger's is taken away if need be.
    fn take(self: &Arc<Self>) -> Option<Place> {
        let mut open = self.open();
        if open.all.len() >= CONNECTIONS_MAX {
            let mut all = open.all.iter();
            let (number, _) = all.find(|(_, connection)| !connection.is_member)?;
            let number = *number;
            let oldest = open.all.remove(&number);
            if let Some(task) = oldest.and_then(|oldest| oldest.task) {
                task.abort();
            }
        }
        open.made += 1;
        let number = open.made;
        open.all.insert(number, Connection::default());
        let connections = Arc::clone(self);
        Some(Place {
            connections,
            number,
        })
    }
}

/// One of the connections that may be open.
struct Place {
    connections: Arc<Connections>,
    number: u64,
}

impl Place {
    fn change(&self, change: impl FnOnce(&mut Connection)) {
        if let Some(connection) = self.connections.open().all.get_mut(&self.number) {
            change(connection);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.connections.open().all.remove(&self.number);
    }
}

/// Whoever is at the other end of a connection.
pub(super) struct Visitor {
    pub(super) address: Arc<str>,
    place: Place,
}

impl Visitor {
    /// The one at the other end knows the cluster.
    pub(super) fn is_one_of_us(&self) {
        self.place.change(|connection| connection.is_member = true);
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
    let Some(place) = net.connections.take() else {
        tracing::warn!(
            %from,
            limit = CONNECTIONS_MAX,
            "closing peer connection; too many are open"
        );
        return;
    };
    let (net, connections) = (Arc::clone(net), Arc::clone(&net.connections));
    let number = place.number;
    let visitor = Arc::new(Visitor {
        address: from,
        place,
    });
    let task = tokio::spawn(converse(net, socket, visitor));
    // It does not run before this thread waits for something.
    if let Some(connection) = connections.open().all.get_mut(&number) {
        connection.task = Some(task.abort_handle());
    }
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

async fn converse(net: Arc<Net>, socket: Box<dyn Socket>, visitor: Arc<Visitor>) {
    let service = {
        let visitor = Arc::clone(&visitor);
        let net = Arc::clone(&net);
        service_fn(move |request: Request<Incoming>| {
            let (net, visitor) = (Arc::clone(&net), Arc::clone(&visitor));
            async move { Ok::<_, Infallible>(routes::answer(&net, request, &visitor).await) }
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
        let from = &*visitor.address;
        tracing::debug!(%error, from, "peer connection ended");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn strangers_make_room_for_members() {
        let connections = Arc::new(Connections::default());
        let mut places: Vec<Place> = Vec::new();
        for _ in 0..CONNECTIONS_MAX {
            places.push(connections.take().expect("there is room"));
        }
        let endless = tokio::spawn(std::future::pending::<()>());
        let abort = endless.abort_handle();
        places[0].change(|connection| connection.is_member = true);
        places[1].change(|connection| connection.task = Some(abort));
        let late = connections.take().expect("a stranger goes");
        let ended = endless.await;
        assert!(ended.is_err_and(|error| error.is_cancelled()));
        // The place of the one that went is not given back a second time.
        drop(places.remove(1));
        assert_eq!(connections.open().all.len(), CONNECTIONS_MAX);
        for place in places.iter().chain([&late]) {
            place.change(|connection| connection.is_member = true);
        }
        assert!(connections.take().is_none(), "members stay");
        drop(late);
        assert!(connections.take().is_some());
    }

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
