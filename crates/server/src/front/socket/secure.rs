//! A socket behind TLS.

use std::fmt;
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use super::Plain;
use crate::tls::{self, Identity, Session};

/// A plain socket and the server's half of a TLS session on it.
pub struct SecureSocket {
    socket: Plain,
    session: Box<Session>,
    /// The session is over because of an error: what still comes is thrown away.
    broken: bool,
    peer_closed: bool,
}

impl fmt::Debug for SecureSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SecureSocket")
            .field("socket", &self.socket)
            .field("broken", &self.broken)
            .finish_non_exhaustive()
    }
}

impl SecureSocket {
    pub(super) fn new(socket: Plain, session: Session) -> Self {
        SecureSocket {
            socket,
            session: Box::new(session),
            broken: false,
            peer_closed: false,
        }
    }

    /// The parts, for whoever goes on with the connection.
    #[must_use]
    pub fn into_parts(self) -> (Plain, Box<Session>) {
        (self.socket, self.session)
    }

    /// One read of the network, all of which is decrypted into `buffer`. An error of the kind
    /// `InvalidData` leaves an alert to be written.
    pub(super) fn read(&mut self, buffer: &mut [u8], scratch: &mut [u8]) -> io::Result<usize> {
        let count = self.socket.read(scratch)?;
        if count == 0 {
            return Ok(0);
        }
        if self.broken {
            return Err(ErrorKind::WouldBlock.into());
        }
        let mut records = scratch.get(..count).unwrap_or_default();
        let mut filled = 0;
        while !records.is_empty() {
            if self.session.read_tls(&mut records)? == 0 {
                // Nothing counts behind the peer's farewell.
                break;
            }
            let state = match self.session.process_new_packets() {
                Ok(state) => state,
                Err(error) => {
                    self.broken = true;
                    return Err(io::Error::new(ErrorKind::InvalidData, error));
                }
            };
            self.peer_closed |= state.peer_has_closed();
            let mut waiting = state.plaintext_bytes_to_read();
            while waiting > 0 {
                let space = buffer.get_mut(filled..).unwrap_or_default();
                let read = self.session.reader().read(space)?;
                if read == 0 {
                    let why = format!("{waiting} bytes do not fit into {}", buffer.len());
                    return Err(io::Error::other(why));
                }
                filled += read;
                waiting -= read;
            }
        }
        match filled {
            0 if self.peer_closed => Ok(0),
            0 => Err(ErrorKind::WouldBlock.into()),
            _ => Ok(filled),
        }
    }

    /// Encrypts as much as the session's buffer takes and writes what the network takes of it.
    pub(super) fn write(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        if !self.flush()? {
            return Err(ErrorKind::WouldBlock.into());
        }
        let taken = self.session.writer().write_vectored(slices)?;
        self.flush()?;
        Ok(taken)
    }

    pub(super) fn flush(&mut self) -> io::Result<bool> {
        while self.session.wants_write() {
            match self.session.write_tls(&mut self.socket) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    pub(super) fn wants_write(&self) -> bool {
        self.session.wants_write()
    }

    pub(super) fn is_handshaking(&self) -> bool {
        !self.broken && self.session.is_handshaking()
    }

    pub(super) fn is_peer_closed(&self) -> bool {
        self.peer_closed
    }

    pub(super) fn identity(&self) -> Option<Arc<Identity>> {
        if self.session.is_handshaking() {
            return None;
        }
        tls::identity(&self.session)
    }

    /// Says farewell and closes the writing half.
    pub(super) fn shutdown_write(&mut self) -> io::Result<()> {
        if !self.broken {
            self.session.send_close_notify();
        }
        self.flush()?;
        self.socket.shutdown_write()
    }
}

impl AsFd for SecureSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
