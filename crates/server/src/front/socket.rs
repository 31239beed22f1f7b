//! Byte streams and listeners: TCP and unix sockets, plain and behind TLS.
//!
//! The connection above sees only [`Socket::read`], [`Socket::write`] and [`Socket::flush`]. A
//! socket behind TLS may hold bytes of its own for the network ([`Socket::wants_write`]); it holds
//! none for the reader.

mod secure;

use std::io::{self, IoSlice, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{RecvFlags, recv, sockopt};

pub use secure::SecureSocket;

use crate::tls::{Credentials, Identity};

/// etcd's period of TCP keep-alive on client connections.
const KEEP_ALIVE_PERIOD: Duration = Duration::from_secs(30);
/// The first byte of a TLS connection: a handshake record. No request of HTTP begins with it.
const TLS_HANDSHAKE: u8 = 22;

/// A bound socket that accepts clients.
#[derive(Debug)]
pub enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
    /// One of the above, behind TLS.
    Secure(Box<Listener>, Arc<Credentials>),
    /// One of the above, where the first byte of a connection tells whether it is behind TLS.
    Either(Box<Listener>, Arc<Credentials>),
}

impl Listener {
    pub(super) fn set_nonblocking(&self) -> io::Result<()> {
        match self {
            Listener::Tcp(listener) => listener.set_nonblocking(true),
            Listener::Unix(listener) => listener.set_nonblocking(true),
            Listener::Secure(inner, _) | Listener::Either(inner, _) => inner.set_nonblocking(),
        }
    }

    /// The next connection, ready for the event loop, and its address (none for unix sockets).
    pub(super) fn accept(&self) -> io::Result<(Socket, Option<SocketAddr>)> {
        match self {
            Listener::Tcp(listener) => {
                let (stream, address) = listener.accept()?;
                stream.set_nonblocking(true)?;
                stream.set_nodelay(true)?;
                sockopt::set_socket_keepalive(&stream, true)?;
                sockopt::set_tcp_keepidle(&stream, KEEP_ALIVE_PERIOD)?;
                sockopt::set_tcp_keepintvl(&stream, KEEP_ALIVE_PERIOD)?;
                Ok((Socket::Tcp(stream), Some(address)))
            }
            Listener::Unix(listener) => {
                let (stream, _) = listener.accept()?;
                stream.set_nonblocking(true)?;
                Ok((Socket::Unix(stream), None))
            }
            Listener::Secure(inner, credentials) => {
                let (socket, address) = inner.accept()?;
                let session = credentials.accept().map_err(io::Error::other)?;
                let secure = SecureSocket::new(Plain::of(socket)?, session);
                Ok((Socket::Secure(Box::new(secure)), address))
            }
            Listener::Either(inner, credentials) => {
                let (socket, address) = inner.accept()?;
                let undecided = Undecided {
                    socket: Some(Plain::of(socket)?),
                    credentials: Arc::clone(credentials),
                };
                Ok((Socket::Undecided(Box::new(undecided)), address))
            }
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Listener::Tcp(listener) => listener.as_fd(),
            Listener::Unix(listener) => listener.as_fd(),
            Listener::Secure(inner, _) | Listener::Either(inner, _) => inner.as_fd(),
        }
    }
}

/// A connection without TLS.
#[derive(Debug)]
pub enum Plain {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Plain {
    fn of(socket: Socket) -> io::Result<Plain> {
        match socket {
            Socket::Tcp(stream) => Ok(Plain::Tcp(stream)),
            Socket::Unix(stream) => Ok(Plain::Unix(stream)),
            Socket::Secure(_) | Socket::Undecided(_) => {
                Err(io::Error::other("a listener behind TLS inside another one"))
            }
        }
    }

    fn shutdown_write(&self) -> io::Result<()> {
        match self {
            Plain::Tcp(stream) => stream.shutdown(Shutdown::Write),
            Plain::Unix(stream) => stream.shutdown(Shutdown::Write),
        }
    }
}

impl From<Plain> for Socket {
    fn from(plain: Plain) -> Socket {
        match plain {
            Plain::Tcp(stream) => Socket::Tcp(stream),
            Plain::Unix(stream) => Socket::Unix(stream),
        }
    }
}

impl Read for Plain {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Plain::Tcp(stream) => stream.read(buffer),
            Plain::Unix(stream) => stream.read(buffer),
        }
    }
}

impl Write for Plain {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Plain::Tcp(stream) => stream.write(bytes),
            Plain::Unix(stream) => stream.write(bytes),
        }
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Plain::Tcp(stream) => stream.write_vectored(slices),
            Plain::Unix(stream) => stream.write_vectored(slices),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl AsFd for Plain {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Plain::Tcp(stream) => stream.as_fd(),
            Plain::Unix(stream) => stream.as_fd(),
        }
    }
}

/// A connection that has sent nothing, on a port for plain and encrypted ones.
#[derive(Debug)]
pub struct Undecided {
    /// Taken when the connection becomes another variant of [`Socket`].
    socket: Option<Plain>,
    credentials: Arc<Credentials>,
}

impl Undecided {
    fn socket(&self) -> &Plain {
        let socket = self.socket.as_ref();
        socket.expect("only `Socket::decide` takes it, and replaces the whole value at once")
    }
}

/// One accepted connection, non-blocking.
#[derive(Debug)]
pub enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
    Secure(Box<SecureSocket>),
    Undecided(Box<Undecided>),
}

impl Socket {
    /// Reads what fits into `buffer`, which must be longer than `scratch` by some records of TLS;
    /// `scratch` is overwritten.
    pub(super) fn read(&mut self, buffer: &mut [u8], scratch: &mut [u8]) -> io::Result<usize> {
        match self {
            Socket::Tcp(stream) => stream.read(buffer),
            Socket::Unix(stream) => stream.read(buffer),
            Socket::Secure(secure) => secure.read(buffer, scratch),
            // Decided first, by [`Socket::decide`].
            Socket::Undecided(_) => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    /// Looks at the first byte of an undecided connection, which tells what it is; nothing changes
    /// while there is none.
    ///
    /// # Errors
    /// The connection is lost or has ended.
    pub(super) fn decide(&mut self) -> io::Result<()> {
        let Socket::Undecided(undecided) = self else {
            return Ok(());
        };
        let mut first = [0u8];
        let count = match recv(undecided.socket(), &mut first, RecvFlags::PEEK) {
            Err(Errno::INTR | Errno::AGAIN) => return Ok(()),
            other => other?.0,
        };
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let session = match first {
            [TLS_HANDSHAKE] => Some(undecided.credentials.accept().map_err(io::Error::other)?),
            _ => None,
        };
        if let Some(socket) = undecided.socket.take() {
            *self = match session {
                Some(session) => Socket::Secure(Box::new(SecureSocket::new(socket, session))),
                None => socket.into(),
            };
        }
        Ok(())
    }

    pub(super) fn write(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match (self, slices) {
            (Socket::Tcp(stream), [one]) => stream.write(one),
            (Socket::Tcp(stream), _) => stream.write_vectored(slices),
            (Socket::Unix(stream), _) => stream.write_vectored(slices),
            (Socket::Secure(secure), _) => secure.write(slices),
            (Socket::Undecided(_), _) => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    /// Whether TLS has bytes for the network.
    pub(super) fn wants_write(&self) -> bool {
        matches!(self, Socket::Secure(secure) if secure.wants_write())
    }

    /// Writes what TLS has for the network. False if the network takes no more now.
    pub(super) fn flush(&mut self) -> io::Result<bool> {
        match self {
            Socket::Secure(secure) => secure.flush(),
            _ => Ok(true),
        }
    }

    pub(super) fn is_secure(&self) -> bool {
        matches!(self, Socket::Secure(_))
    }

    /// Whether a TLS handshake is under way, or may be about to begin.
    pub(super) fn is_handshaking(&self) -> bool {
        match self {
            Socket::Secure(secure) => secure.is_handshaking(),
            Socket::Undecided(_) => true,
            _ => false,
        }
    }

    /// Whether the other side said that it will send no more.
    pub(super) fn is_peer_closed(&self) -> bool {
        matches!(self, Socket::Secure(secure) if secure.is_peer_closed())
    }

    /// Who is at the other end, once a handshake with a client certificate is complete.
    pub(super) fn identity(&self) -> Option<Arc<Identity>> {
        match self {
            Socket::Secure(secure) => secure.identity(),
            _ => None,
        }
    }

    /// No more bytes will be written; the peer may still be read.
    pub(super) fn shutdown_write(&mut self) {
        // A peer that is gone already needs no farewell.
        let _ = match self {
            Socket::Tcp(stream) => stream.shutdown(Shutdown::Write),
            Socket::Unix(stream) => stream.shutdown(Shutdown::Write),
            Socket::Secure(secure) => secure.shutdown_write(),
            Socket::Undecided(undecided) => undecided.socket().shutdown_write(),
        };
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Socket::Tcp(stream) => stream.as_fd(),
            Socket::Unix(stream) => stream.as_fd(),
            Socket::Secure(secure) => secure.as_fd(),
            Socket::Undecided(undecided) => undecided.socket().as_fd(),
        }
    }
}
