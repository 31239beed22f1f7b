//! An encrypted byte stream beside tokio.

use std::fmt;
use std::io::{self, Read, Write};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use rustls::{CommonState, Connection};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What one read of the socket takes at most.
const INCOMING_BYTES: usize = 32 * 1024;

use super::{Identity, refusal};

/// Why a handshake failed.
#[derive(Debug)]
pub enum HandshakeError {
    /// It took too long.
    Timeout,
    /// The connection broke, or the other side was refused; the reason is in the source.
    Failed(io::Error),
}

impl HandshakeError {
    /// The reason for the log, in Go's words where it has some.
    #[must_use]
    pub fn reason(&self) -> String {
        match self {
            HandshakeError::Timeout => self.to_string(),
            HandshakeError::Failed(error) => {
                let cause = error.get_ref().and_then(|it| it.downcast_ref());
                match (cause, error.kind()) {
                    (Some(cause), _) => refusal(cause),
                    (None, io::ErrorKind::UnexpectedEof) => "EOF".into(),
                    (None, _) => error.to_string(),
                }
            }
        }
    }
}

impl fmt::Display for HandshakeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            HandshakeError::Timeout => "TLS handshake timeout",
            HandshakeError::Failed(_) => "TLS handshake",
        })
    }
}

impl std::error::Error for HandshakeError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            HandshakeError::Timeout => None,
            HandshakeError::Failed(source) => Some(source),
        }
    }
}

/// Who is at the other end of a session, if it showed a certificate (which was verified then).
pub(crate) fn identity(session: &CommonState) -> Option<Arc<Identity>> {
    let leaf = session.peer_certificates()?.first()?;
    // What was verified was read without an error a moment ago.
    Identity::of(leaf).ok().map(Arc::new)
}

/// A session over a socket of tokio's, with or without its handshake done.
pub struct Stream<S> {
    socket: S,
    session: Box<Connection>,
    /// For what is read from the socket; the library itself would read 4 KiB at a time.
    incoming: Vec<u8>,
    /// Bytes of `incoming` that the session has, and that were read.
    taken: usize,
    filled: usize,
    closing: bool,
}

/// tokio's socket as the library reads and writes it.
struct Ready<'a, 'b, S> {
    socket: &'a mut S,
    context: &'a mut Context<'b>,
}

fn or_block<T>(polled: Poll<io::Result<T>>) -> io::Result<T> {
    match polled {
        Poll::Ready(result) => result,
        Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
    }
}

impl<S: AsyncWrite + Unpin> Write for Ready<'_, '_, S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        or_block(Pin::new(&mut *self.socket).poll_write(self.context, bytes))
    }

    fn write_vectored(&mut self, slices: &[io::IoSlice<'_>]) -> io::Result<usize> {
        or_block(Pin::new(&mut *self.socket).poll_write_vectored(self.context, slices))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Stream<S> {
    /// A stream that goes on with `session`.
    #[must_use]
    pub fn new(socket: S, session: impl Into<Connection>) -> Self {
        Stream {
            socket,
            session: Box::new(session.into()),
            incoming: Vec::new(),
            taken: 0,
            filled: 0,
            closing: false,
        }
    }

    /// Completes the handshake.
    ///
    /// # Errors
    /// The other side was refused or gave up, or `limit` passed.
    pub async fn handshake(&mut self, limit: Duration) -> Result<(), HandshakeError> {
        let done = std::future::poll_fn(|context| self.poll_handshake(context));
        match tokio::time::timeout(limit, done).await {
            Ok(result) => result.map_err(HandshakeError::Failed),
            Err(_) => Err(HandshakeError::Timeout),
        }
    }

    /// Who is at the other end, once the handshake is done.
    #[must_use]
    pub fn identity(&self) -> Option<Arc<Identity>> {
        identity(&self.session)
    }

    fn poll_handshake(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.session.is_handshaking() {
            if self.session.wants_write() {
                std::task::ready!(self.poll_drain(context))?;
            } else if std::task::ready!(self.poll_fill(context))? == 0 {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
        }
        self.poll_drain(context)
    }

    /// Gives the session more of what was read, or reads; zero at the socket's end.
    fn poll_fill(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.taken == self.filled {
            (self.taken, self.filled) = (0, 0);
            if self.incoming.is_empty() {
                self.incoming = vec![0; INCOMING_BYTES];
            }
            let mut buffer = ReadBuf::new(&mut self.incoming);
            std::task::ready!(Pin::new(&mut self.socket).poll_read(context, &mut buffer))?;
            self.filled = buffer.filled().len();
        }
        let read = self.incoming.get(self.taken..self.filled);
        let mut bytes = read.unwrap_or_default();
        let count = self.session.read_tls(&mut bytes)?;
        self.taken += count;
        if let Err(error) = self.session.process_new_packets() {
            // The alert is worth one attempt.
            let _ = self.poll_drain(context);
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, error)));
        }
        Poll::Ready(Ok(count))
    }

    /// Writes what the session has for the socket.
    fn poll_drain(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.session.wants_write() {
            let mut ready = Ready {
                socket: &mut self.socket,
                context,
            };
            match self.session.write_tls(&mut ready) {
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Poll::Pending,
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Stream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        loop {
            match this.session.reader().read(buffer.initialize_unfilled()) {
                Ok(count) => {
                    buffer.advance(count);
                    return Poll::Ready(Ok(()));
                }
                // An end without a farewell; HTTP has lengths of its own.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
            // Answers to the other side's records; whether they leave now is not for the reader.
            let _ = this.poll_drain(context)?;
            // An end of the socket is what the reader reports in the next round.
            std::task::ready!(this.poll_fill(context))?;
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Stream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        std::task::ready!(self.poll_drain(context))?;
        let taken = self.session.writer().write(bytes)?;
        // What does not leave now leaves before the next piece, or with the flush.
        let _ = self.poll_drain(context)?;
        Poll::Ready(Ok(taken))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        std::task::ready!(self.poll_drain(context))?;
        let taken = self.session.writer().write_vectored(slices)?;
        let _ = self.poll_drain(context)?;
        Poll::Ready(Ok(taken))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        std::task::ready!(self.poll_drain(context))?;
        Pin::new(&mut self.socket).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !std::mem::replace(&mut self.closing, true) {
            self.session.send_close_notify();
        }
        std::task::ready!(self.poll_drain(context))?;
        Pin::new(&mut self.socket).poll_shutdown(context)
    }
}
