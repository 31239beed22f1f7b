//! HTTP/2 frames over one socket, read and written for little processor time.
//!
//! Flow control of the connection, settings and pings are dealt with here; what concerns a stream
//! is handed to whoever owns the connection. Header blocks of answers are not decoded.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};

use super::request::frame_header;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
pub(super) const LARGEST_WINDOW: u32 = (1 << 31) - 1;
const INITIAL_WINDOW: u32 = 65_535;
/// Give credit back when this much of a receive window is used.
pub(super) const CREDIT_STEP: u32 = 1 << 29;
/// A control frame that is longer than this is not worth understanding.
const CONTROL_BYTES: usize = 4096;

pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const RST_STREAM: u8 = 3;
pub(super) const SETTINGS: u8 = 4;
pub(super) const PING: u8 = 6;
pub(super) const GOAWAY: u8 = 7;
pub(super) const WINDOW_UPDATE: u8 = 8;
const FLAG_ACK: u8 = 1;
const FLAG_END_STREAM: u8 = 1;
const INITIAL_WINDOW_SIZE: u16 = 4;

/// What arrived on a stream.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Arrived<'a> {
    /// Part of the payload of a DATA frame.
    Data(&'a [u8]),
    /// The peer is done with the stream.
    End,
    Reset,
    /// The peer takes so many bytes more.
    Credit(u32),
}

pub(super) struct Transport {
    socket: TcpStream,
    /// Frames that wait to be written.
    pub(super) out: Vec<u8>,
    written: usize,
    frame: Frame,
    /// What the peer lets us send on the connection.
    pub(super) window: i64,
    /// What the peer lets us send on a new stream.
    pub(super) stream_window: i64,
    consumed: u32,
    /// The peer's settings arrived.
    pub(super) ready: bool,
    /// The socket took only part of what was written.
    pub(super) blocked: bool,
}

/// The frame that is being read.
#[derive(Default)]
struct Frame {
    header: [u8; 9],
    header_len: usize,
    left: usize,
    payload: Vec<u8>,
}

impl Frame {
    fn kind(&self) -> u8 {
        self.header[3]
    }

    fn flags(&self) -> u8 {
        self.header[4]
    }

    fn stream(&self) -> u32 {
        let [.., a, b, c, d] = self.header;
        u32::from_be_bytes([a, b, c, d]) & LARGEST_WINDOW
    }

    fn is_whole(&self) -> bool {
        self.header_len == 9 && self.left == 0
    }

    /// Moves into the frame and returns the part of a DATA payload, and what follows it.
    fn take<'a>(&mut self, bytes: &'a [u8]) -> (&'a [u8], &'a [u8]) {
        if self.header_len < 9 {
            let (head, rest) = bytes.split_at(bytes.len().min(9 - self.header_len));
            self.header[self.header_len..][..head.len()].copy_from_slice(head);
            self.header_len += head.len();
            if self.header_len == 9 {
                let [a, b, c, ..] = self.header;
                self.left = u32::from_be_bytes([0, a, b, c]) as usize;
            }
            return (&[], rest);
        }
        let (part, rest) = bytes.split_at(bytes.len().min(self.left));
        self.left -= part.len();
        match self.kind() {
            DATA => return (part, rest),
            HEADERS => {}
            _ if self.payload.len() < CONTROL_BYTES => self.payload.extend(part),
            _ => {}
        }
        (&[], rest)
    }
}

impl Transport {
    /// Connects and sends the preface; every stream may receive `stream_window` bytes unasked.
    pub(super) fn open(address: SocketAddr, stream_window: u32) -> std::io::Result<Self> {
        let socket = TcpStream::connect(address)?;
        socket.set_nodelay(true)?;
        socket.set_nonblocking(true)?;
        let mut out = PREFACE.to_vec();
        frame_header(&mut out, 6, SETTINGS, 0, 0);
        out.extend(INITIAL_WINDOW_SIZE.to_be_bytes());
        out.extend(stream_window.to_be_bytes());
        frame_header(&mut out, 4, WINDOW_UPDATE, 0, 0);
        out.extend((LARGEST_WINDOW - INITIAL_WINDOW).to_be_bytes());
        let mut transport = Self {
            socket,
            out,
            written: 0,
            frame: Frame::default(),
            window: i64::from(INITIAL_WINDOW),
            stream_window: i64::from(INITIAL_WINDOW),
            consumed: 0,
            ready: false,
            blocked: false,
        };
        transport.flush()?;
        Ok(transport)
    }

    pub(super) fn socket(&self) -> &TcpStream {
        &self.socket
    }

    /// Writes what is queued; false when the socket took only part of it.
    pub(super) fn flush(&mut self) -> std::io::Result<bool> {
        while self.written < self.out.len() {
            match (&self.socket).write(&self.out[self.written..]) {
                Ok(count) => self.written += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.out.clear();
        self.written = 0;
        Ok(true)
    }

    /// Lets the peer send so many bytes more on a stream, or with 0 on the connection.
    pub(super) fn give_credit(&mut self, stream: u32, bytes: u32) {
        frame_header(&mut self.out, 4, WINDOW_UPDATE, 0, stream);
        self.out.extend(bytes.to_be_bytes());
    }

    /// Reads once, and tells what arrived on which stream; returns the bytes that were read.
    pub(super) fn read(
        &mut self,
        buffer: &mut [u8],
        mut on: impl FnMut(u32, Arrived),
    ) -> std::io::Result<usize> {
        let count = match (&self.socket).read(buffer) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(0),
            Err(error) if error.kind() == ErrorKind::Interrupted => return Ok(0),
            Err(error) => return Err(error),
        };
        let mut bytes = &buffer[..count];
        while !bytes.is_empty() {
            let (data, rest) = self.frame.take(bytes);
            bytes = rest;
            if !data.is_empty() {
                self.consumed += data.len() as u32;
                on(self.frame.stream(), Arrived::Data(data));
            }
            if self.frame.is_whole() {
                self.end_frame(&mut on)?;
                self.frame.header_len = 0;
                self.frame.payload.clear();
            }
        }
        if self.consumed >= CREDIT_STEP {
            self.give_credit(0, self.consumed);
            self.consumed = 0;
        }
        Ok(count)
    }

    fn end_frame(&mut self, on: &mut impl FnMut(u32, Arrived)) -> std::io::Result<()> {
        let (flags, stream) = (self.frame.flags(), self.frame.stream());
        let payload = &self.frame.payload;
        let credit = payload
            .first_chunk()
            .map_or(0, |four| u32::from_be_bytes(*four) & LARGEST_WINDOW);
        match self.frame.kind() {
            DATA | HEADERS if flags & FLAG_END_STREAM != 0 => on(stream, Arrived::End),
            RST_STREAM => on(stream, Arrived::Reset),
            SETTINGS if flags & FLAG_ACK == 0 => {
                self.ready = true;
                for setting in payload.as_chunks::<6>().0 {
                    let [a, b, value @ ..] = *setting;
                    if u16::from_be_bytes([a, b]) == INITIAL_WINDOW_SIZE {
                        self.stream_window = i64::from(u32::from_be_bytes(value));
                    }
                }
                frame_header(&mut self.out, 0, SETTINGS, FLAG_ACK, 0);
            }
            PING if flags & FLAG_ACK == 0 => {
                frame_header(&mut self.out, payload.len(), PING, FLAG_ACK, 0);
                self.out.extend(payload);
            }
            WINDOW_UPDATE if stream == 0 => self.window += i64::from(credit),
            WINDOW_UPDATE => on(stream, Arrived::Credit(credit)),
            GOAWAY => {
                let reason = String::from_utf8_lossy(payload).into_owned();
                return Err(std::io::Error::other(format!(
                    "the server says goaway: {reason:?}"
                )));
            }
            _ => {}
        }
        Ok(())
    }
}
