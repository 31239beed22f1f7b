//! One HTTP/2 connection of the load generator: just enough of the protocol to keep a fixed
//! number of unary calls outstanding, for little processor time.
//!
//! Header blocks of answers are not decoded: a call succeeded when its stream delivered a
//! message before it ended, since an error answer of gRPC has no body.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};

use super::histogram::Histogram;
use super::request::{Requests, frame_header};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const LARGEST_WINDOW: u32 = (1 << 31) - 1;
const INITIAL_WINDOW: i64 = 65_535;
/// Give credit back when this much of the receive window is used.
const CREDIT_STEP: u32 = 1 << 29;
/// A control frame that is longer than this is not worth understanding.
const CONTROL_BYTES: usize = 4096;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const FLAG_ACK: u8 = 1;
const FLAG_END_STREAM: u8 = 1;

/// What the calls of all connections came to.
pub(crate) struct Outcomes {
    pub(crate) latencies: Histogram,
    pub(crate) completed: u64,
    pub(crate) failed: u64,
}

/// A call without an answer yet.
#[derive(Clone, Copy)]
struct Call {
    /// Nanoseconds of the loop's clock.
    started: u64,
    answer_bytes: usize,
}

pub(crate) struct Connection {
    socket: TcpStream,
    out: Vec<u8>,
    written: usize,
    frame: Frame,
    /// In the order of their streams.
    calls: VecDeque<Option<Call>>,
    /// Stream id of the first of `calls`.
    oldest_stream: u32,
    next_stream: u32,
    /// What the peer lets us send on the connection.
    window: i64,
    consumed: u32,
    /// Calls that wait for `window`.
    waiting: usize,
    outstanding: usize,
    /// The peer's settings arrived.
    pub(crate) ready: bool,
    /// The socket took only part of what was written.
    pub(crate) blocked: bool,
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
}

impl Connection {
    /// Connects and sends the preface.
    pub(crate) fn open(address: SocketAddr) -> std::io::Result<Self> {
        let socket = TcpStream::connect(address)?;
        socket.set_nodelay(true)?;
        socket.set_nonblocking(true)?;
        let mut out = PREFACE.to_vec();
        frame_header(&mut out, 6, SETTINGS, 0, 0);
        out.extend([0, 4]); // SETTINGS_INITIAL_WINDOW_SIZE
        out.extend(LARGEST_WINDOW.to_be_bytes());
        frame_header(&mut out, 4, WINDOW_UPDATE, 0, 0);
        out.extend((LARGEST_WINDOW - INITIAL_WINDOW as u32).to_be_bytes());
        let mut connection = Self {
            socket,
            out,
            written: 0,
            frame: Frame::default(),
            calls: VecDeque::new(),
            oldest_stream: 1,
            next_stream: 1,
            window: INITIAL_WINDOW,
            consumed: 0,
            waiting: 0,
            outstanding: 0,
            ready: false,
            blocked: false,
        };
        connection.flush()?;
        Ok(connection)
    }

    pub(crate) fn socket(&self) -> &TcpStream {
        &self.socket
    }

    pub(crate) fn outstanding(&self) -> usize {
        self.outstanding
    }

    /// Starts `count` calls, as far as the peer's window lets them go; the rest follow later.
    pub(crate) fn start(&mut self, count: usize, requests: &mut Requests, now: u64) {
        self.waiting += count;
        while self.waiting > 0 && self.window >= requests.body_len() as i64 {
            self.waiting -= 1;
            self.window -= requests.body_len() as i64;
            let stream = self.next_stream;
            self.next_stream += 2;
            requests.append(&mut self.out, stream, stream == 1);
            self.calls.push_back(Some(Call {
                started: now,
                answer_bytes: 0,
            }));
            self.outstanding += 1;
        }
    }

    /// Calls that were never started don't count when the load ends.
    pub(crate) fn stop(&mut self) {
        self.waiting = 0;
    }

    /// Writes what is queued; false when the socket took only part of it.
    pub(crate) fn flush(&mut self) -> std::io::Result<bool> {
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

    /// Reads once; returns how many calls ended.
    pub(crate) fn read(
        &mut self,
        buffer: &mut [u8],
        shortest_answer: usize,
        now: u64,
        outcomes: &mut Outcomes,
    ) -> std::io::Result<usize> {
        let count = match (&self.socket).read(buffer) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(0),
            Err(error) if error.kind() == ErrorKind::Interrupted => return Ok(0),
            Err(error) => return Err(error),
        };
        let before = self.outstanding;
        let mut bytes = &buffer[..count];
        while !bytes.is_empty() {
            bytes = self.parse(bytes);
            if self.frame.header_len == 9 && self.frame.left == 0 {
                self.end_frame(shortest_answer, now, outcomes)?;
                self.frame.header_len = 0;
                self.frame.payload.clear();
            }
        }
        Ok(before - self.outstanding)
    }

    /// Moves into the current frame and returns what follows it.
    fn parse<'a>(&mut self, mut bytes: &'a [u8]) -> &'a [u8] {
        let frame = &mut self.frame;
        if frame.header_len < 9 {
            let count = bytes.len().min(9 - frame.header_len);
            frame.header[frame.header_len..][..count].copy_from_slice(&bytes[..count]);
            frame.header_len += count;
            bytes = &bytes[count..];
            if frame.header_len == 9 {
                let [a, b, c, ..] = frame.header;
                frame.left = u32::from_be_bytes([0, a, b, c]) as usize;
            }
            return bytes;
        }
        let count = bytes.len().min(frame.left);
        frame.left -= count;
        match frame.kind() {
            DATA => {
                let stream = frame.stream();
                self.consumed += count as u32;
                if let Some(call) = self.call(stream) {
                    call.answer_bytes += count;
                }
            }
            HEADERS => {}
            _ if frame.payload.len() < CONTROL_BYTES => frame.payload.extend(&bytes[..count]),
            _ => {}
        }
        &bytes[count..]
    }

    fn call(&mut self, stream: u32) -> Option<&mut Call> {
        let at = stream.checked_sub(self.oldest_stream)? / 2;
        self.calls.get_mut(at as usize)?.as_mut()
    }

    fn end_frame(
        &mut self,
        shortest_answer: usize,
        now: u64,
        outcomes: &mut Outcomes,
    ) -> std::io::Result<()> {
        let (flags, stream) = (self.frame.flags(), self.frame.stream());
        let number = |payload: &[u8]| {
            payload
                .first_chunk()
                .map_or(0, |four| u32::from_be_bytes(*four) & LARGEST_WINDOW)
        };
        match self.frame.kind() {
            DATA | HEADERS if flags & FLAG_END_STREAM != 0 => {
                self.end_call(stream, shortest_answer, now, outcomes);
            }
            RST_STREAM => self.end_call(stream, usize::MAX, now, outcomes),
            SETTINGS if flags & FLAG_ACK == 0 => {
                self.ready = true;
                frame_header(&mut self.out, 0, SETTINGS, FLAG_ACK, 0);
            }
            PING if flags & FLAG_ACK == 0 => {
                frame_header(&mut self.out, self.frame.payload.len(), PING, FLAG_ACK, 0);
                self.out.extend(&self.frame.payload);
            }
            WINDOW_UPDATE if stream == 0 => self.window += i64::from(number(&self.frame.payload)),
            GOAWAY => {
                let reason = String::from_utf8_lossy(&self.frame.payload).into_owned();
                return Err(std::io::Error::other(format!(
                    "the server says goaway: {reason:?}"
                )));
            }
            _ => {}
        }
        if self.consumed >= CREDIT_STEP {
            frame_header(&mut self.out, 4, WINDOW_UPDATE, 0, 0);
            self.out.extend(self.consumed.to_be_bytes());
            self.consumed = 0;
        }
        Ok(())
    }

    fn end_call(&mut self, stream: u32, shortest: usize, now: u64, outcomes: &mut Outcomes) {
        let Some(&mut Call {
            started,
            answer_bytes,
        }) = self.call(stream)
        else {
            return;
        };
        let at = (stream - self.oldest_stream) / 2;
        self.calls[at as usize] = None;
        while let Some(None) = self.calls.front() {
            self.calls.pop_front();
            self.oldest_stream += 2;
        }
        self.outstanding -= 1;
        // An empty message still has its prefix of five bytes.
        if answer_bytes >= shortest.max(5) {
            outcomes.completed += 1;
            outcomes.latencies.record(now - started);
        } else {
            outcomes.failed += 1;
        }
    }
}

#[cfg(test)]
mod tests;
