//! Connections between members: dialing, and giving up on one whose other end does not read.

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpSocket, TcpStream, UnixStream};
use tokio::time::{Instant, Sleep, sleep, timeout};

use crate::config::Url;
use crate::tls::{self, Credentials};

/// Time for a TLS handshake.
pub(super) const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);

/// Any kind of connection.
pub(super) trait Socket: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Socket for S {}

/// Opens connections to other members.
pub(super) struct Dialer {
    /// Bound of one attempt.
    limit: Duration,
    /// How long a write may make no progress.
    write_limit: Duration,
    tls: Option<Arc<Credentials>>,
    /// Where connections come from; the system's choice when absent.
    local: Option<IpAddr>,
}

impl Dialer {
    pub(super) fn new(
        limit: Duration,
        write_limit: Duration,
        tls: Option<Arc<Credentials>>,
        local: Option<IpAddr>,
    ) -> Dialer {
        Dialer {
            limit,
            write_limit,
            tls,
            local,
        }
    }

    /// Connects to a URL.
    ///
    /// # Errors
    /// Nobody is there, or the time is over.
    pub(super) async fn connect(&self, url: &Url) -> io::Result<Timed<Box<dyn Socket>>> {
        let connected = timeout(self.limit, open(url, self.local));
        let mut socket = connected.await.map_err(|_| io::ErrorKind::TimedOut)??;
        if url.scheme().is_secure() {
            let Some(credentials) = &self.tls else {
                let why = format!("dial {url}: there is no certificate for other members");
                return Err(io::Error::new(io::ErrorKind::Unsupported, why));
            };
            socket = secured(socket, url, credentials).await?;
        }
        Ok(Timed::new(socket, self.write_limit))
    }
}

async fn open(url: &Url, local: Option<IpAddr>) -> io::Result<Box<dyn Socket>> {
    if url.scheme().is_unix() {
        return Ok(Box::new(UnixStream::connect(url.address()).await?));
    }
    let stream = match local {
        None => TcpStream::connect(url.address()).await?,
        Some(local) => connect_from(local, url.address()).await?,
    };
    stream.set_nodelay(true)?;
    Ok(Box::new(stream))
}

/// Connects from an address of this machine to the first of the other's that can be reached so.
async fn connect_from(local: IpAddr, address: &str) -> io::Result<TcpStream> {
    let mut failed = io::ErrorKind::AddrNotAvailable.into();
    for remote in tokio::net::lookup_host(address).await? {
        if remote.is_ipv4() != local.is_ipv4() {
            continue;
        }
        let socket = match local {
            IpAddr::V4(_) => TcpSocket::new_v4()?,
            IpAddr::V6(_) => TcpSocket::new_v6()?,
        };
        socket.bind(SocketAddr::new(local, 0))?;
        match socket.connect(remote).await {
            Ok(stream) => return Ok(stream),
            Err(error) => failed = error,
        }
    }
    Err(failed)
}

/// Shakes hands with the member at `url`, whose certificate must name the URL's host.
async fn secured(
    socket: Box<dyn Socket>,
    url: &Url,
    credentials: &Credentials,
) -> io::Result<Box<dyn Socket>> {
    let session = credentials.dial(url.host()).map_err(io::Error::other)?;
    let mut stream = tls::Stream::new(socket, session);
    match stream.handshake(HANDSHAKE_LIMIT).await {
        Ok(()) => Ok(Box::new(stream)),
        Err(error) => Err(io::Error::other(error.reason())),
    }
}

/// A connection on which a write that makes no progress for too long fails.
pub(super) struct Timed<S> {
    socket: S,
    limit: Duration,
    /// Runs while a write waits.
    deadline: Option<Pin<Box<Sleep>>>,
    /// Kept when no write waits, so that a busy connection does not allocate one per wait.
    spare: Option<Pin<Box<Sleep>>>,
}

impl<S> Timed<S> {
    pub(super) fn new(socket: S, limit: Duration) -> Timed<S> {
        Timed {
            socket,
            limit,
            deadline: None,
            spare: None,
        }
    }

    fn judge<T>(
        &mut self,
        context: &mut Context<'_>,
        poll: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if poll.is_ready() {
            if let Some(deadline) = self.deadline.take() {
                self.spare = Some(deadline);
            }
            return poll;
        }
        let limit = self.limit;
        let spare = &mut self.spare;
        let deadline = self.deadline.get_or_insert_with(|| match spare.take() {
            Some(mut deadline) => {
                deadline.as_mut().reset(Instant::now() + limit);
                deadline
            }
            None => Box::pin(sleep(limit)),
        });
        match deadline.as_mut().poll(context) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Timed<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Timed<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.socket).poll_write(context, bytes);
        self.judge(context, poll)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.socket).poll_write_vectored(context, pieces);
        self.judge(context, poll)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let poll = Pin::new(&mut self.socket).poll_flush(context);
        self.judge(context, poll)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let poll = Pin::new(&mut self.socket).poll_shutdown(context);
        self.judge(context, poll)
    }
}
