//! Conversations of many messages: a request whose body goes on while its answer comes, line by
//! line, over HTTP/1.1 or a web socket.

use std::io::{Error, ErrorKind, Read, Result, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::websocket::{self, Frame};
use super::{Headers, LIMIT, head, parse_head};

const PAUSE: Duration = Duration::from_millis(20);

/// How messages are framed.
enum Framing {
    /// Chunks; the answer's head is none until it came.
    Chunks {
        head: Option<(u16, Headers)>,
        /// Bytes of the chunk under way, with its line end, that are still due.
        due: usize,
    },
    /// The answer came in one piece, of which so many bytes are due.
    Whole {
        head: (u16, Headers),
        due: usize,
    },
    Frames,
}

/// One conversation.
pub struct Stream {
    socket: TcpStream,
    framing: Framing,
    /// Bytes that were read and not understood yet.
    raw: Vec<u8>,
    /// The beginning of a line.
    text: Vec<u8>,
    /// The other side said its last word.
    ended: bool,
}

impl Stream {
    /// Begins a POST whose body is not complete.
    ///
    /// # Errors
    /// No connection.
    pub fn post(address: SocketAddr, target: &str, headers: &[(String, String)]) -> Result<Stream> {
        let framing = Framing::Chunks { head: None, due: 0 };
        let mut stream = Stream::connect(address, framing)?;
        let head = head("POST", target, headers);
        let head = format!("{head}Transfer-Encoding: chunked\r\n\r\n");
        stream.socket.write_all(head.as_bytes())?;
        Ok(stream)
    }

    /// Opens a web socket.
    ///
    /// # Errors
    /// No connection, or no web socket.
    pub fn socket(
        address: SocketAddr,
        target: &str,
        headers: &[(String, String)],
    ) -> Result<(Stream, Headers)> {
        let mut stream = Stream::connect(address, Framing::Frames)?;
        let head = head("GET", target, headers);
        let head = format!("{head}{}\r\n", websocket::HANDSHAKE);
        stream.socket.write_all(head.as_bytes())?;
        let deadline = Instant::now() + LIMIT;
        loop {
            if let Some((status, headers)) = stream.take_head() {
                return match status {
                    101 => Ok((stream, headers)),
                    _ => Err(Error::other(format!("status {status}: {headers:?}"))),
                };
            }
            stream.read_before(deadline)?;
        }
    }

    fn connect(address: SocketAddr, framing: Framing) -> Result<Stream> {
        let socket = TcpStream::connect(address)?;
        socket.set_read_timeout(Some(PAUSE))?;
        socket.set_nodelay(true)?;
        Ok(Stream {
            socket,
            framing,
            raw: Vec::new(),
            text: Vec::new(),
            ended: false,
        })
    }

    /// Status and headers of the answer, as soon as they came.
    #[must_use]
    pub fn head(&self) -> Option<&(u16, Headers)> {
        match &self.framing {
            Framing::Chunks { head, .. } => head.as_ref(),
            Framing::Whole { head, .. } => Some(head),
            Framing::Frames => None,
        }
    }

    /// Sends one message.
    ///
    /// # Errors
    /// The connection is lost.
    pub fn send(&mut self, text: &str) -> Result<()> {
        let bytes = match self.framing {
            Framing::Chunks { .. } | Framing::Whole { .. } => {
                format!("{:x}\r\n{text}\r\n", text.len()).into_bytes()
            }
            Framing::Frames => websocket::text(text.as_bytes()),
        };
        self.socket.write_all(&bytes)
    }

    /// Sends bytes as they are, or as many of them as the other side takes in 10 s.
    ///
    /// # Errors
    /// The socket is not ours to set.
    pub fn raw(&mut self, bytes: &[u8]) -> Result<()> {
        self.socket.set_write_timeout(Some(LIMIT))?;
        // Whoever has refused the first of them does not take the rest.
        let _ = self.socket.write_all(bytes);
        Ok(())
    }

    /// Says that no message will follow.
    ///
    /// # Errors
    /// The connection is lost.
    pub fn finish(&mut self) -> Result<()> {
        match self.framing {
            Framing::Chunks { .. } | Framing::Whole { .. } => self.socket.write_all(b"0\r\n\r\n"),
            Framing::Frames => self.socket.write_all(&websocket::close()),
        }
    }

    /// The next line of the answer; none at its end.
    ///
    /// # Errors
    /// Silence for 10 s, a lost connection, or bytes that break a rule.
    pub fn line(&mut self) -> Result<Option<String>> {
        let deadline = Instant::now() + LIMIT;
        loop {
            if let Some(end) = self.text.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.text.drain(..=end).collect();
                return Ok(Some(String::from_utf8_lossy(&line[..end]).into_owned()));
            }
            if self.ended {
                return Ok(None);
            }
            if !self.decode()? && !self.ended {
                self.read_before(deadline)?;
            }
        }
    }

    /// Whether nothing comes for that long.
    ///
    /// # Errors
    /// As [`Self::line`].
    pub fn is_silent(&mut self, time: Duration) -> Result<bool> {
        let deadline = Instant::now() + time;
        loop {
            while self.decode()? {}
            if !self.text.is_empty() || self.ended {
                return Ok(false);
            }
            match self.read_before(deadline) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::TimedOut => return Ok(true),
                Err(error) => return Err(error),
            }
        }
    }

    fn read_before(&mut self, deadline: Instant) -> Result<()> {
        let mut buffer = [0; 16 * 1024];
        loop {
            match self.socket.read(&mut buffer) {
                Ok(0) => {
                    self.ended = true;
                    return Ok(());
                }
                Ok(count) => {
                    self.raw.extend_from_slice(&buffer[..count]);
                    return Ok(());
                }
                Err(error) if error.kind() != ErrorKind::WouldBlock => return Err(error),
                Err(_) if Instant::now() >= deadline => {
                    return Err(Error::new(ErrorKind::TimedOut, "nothing came"));
                }
                Err(_) => {}
            }
        }
    }

    fn take_head(&mut self) -> Option<(u16, Headers)> {
        let text = String::from_utf8_lossy(&self.raw).into_owned();
        let (head, _) = text.split_once("\r\n\r\n")?;
        self.raw.drain(..head.len() + 4);
        parse_head(head)
    }

    /// Moves what is complete of the raw bytes to the text; false when more bytes are needed.
    fn decode(&mut self) -> Result<bool> {
        match self.framing {
            Framing::Frames => self.decode_frame(),
            Framing::Chunks { head: None, .. } => Ok(self.begin_answer()),
            Framing::Whole { ref mut due, .. } => {
                let count = self.raw.len().min(*due);
                self.text.extend(self.raw.drain(..count));
                *due -= count;
                self.ended = *due == 0;
                if self.ended && !self.text.is_empty() {
                    self.text.push(b'\n');
                }
                Ok(count > 0)
            }
            Framing::Chunks { due: 0, .. } => self.begin_chunk(),
            Framing::Chunks { ref mut due, .. } => {
                let count = self.raw.len().min(*due);
                // The last two bytes of what is due are the chunk's line end.
                let data = count.min(due.saturating_sub(2));
                let bytes: Vec<u8> = self.raw.drain(..count).collect();
                self.text.extend_from_slice(&bytes[..data]);
                *due -= count;
                Ok(count > 0)
            }
        }
    }

    /// Whether the answer's head has come.
    fn begin_answer(&mut self) -> bool {
        let Some(head) = self.take_head() else {
            return false;
        };
        let length = head.1.iter().find(|(name, _)| name == "content-length");
        let length = length.and_then(|(_, value)| value.parse().ok());
        self.framing = match length {
            Some(due) => Framing::Whole { head, due },
            None => Framing::Chunks {
                head: Some(head),
                due: 0,
            },
        };
        true
    }

    fn begin_chunk(&mut self) -> Result<bool> {
        let Some(end) = self.raw.windows(2).position(|two| two == b"\r\n") else {
            return Ok(false);
        };
        let line: Vec<u8> = self.raw.drain(..end + 2).collect();
        let size = String::from_utf8_lossy(&line[..end]).into_owned();
        let size = usize::from_str_radix(size.trim(), 16)
            .map_err(|_| Error::other(format!("no chunk: {size:?}")))?;
        match &mut self.framing {
            _ if size == 0 => self.ended = true,
            Framing::Chunks { due, .. } => *due = size + 2,
            Framing::Whole { .. } | Framing::Frames => {}
        }
        Ok(true)
    }

    fn decode_frame(&mut self) -> Result<bool> {
        let Some((frame, length)) = websocket::parse(&self.raw) else {
            return Ok(false);
        };
        match frame {
            Frame::Text(bytes, last) => {
                self.text.extend_from_slice(bytes);
                if last {
                    self.text.push(b'\n');
                }
            }
            Frame::Close => self.ended = true,
            Frame::Other => {}
        }
        self.raw.drain(..length);
        Ok(true)
    }
}
