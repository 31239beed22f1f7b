//! The messages of one call, as JSON while they arrive.

use std::task::{Context, Poll, ready};

use api::{Code, Status};
use bytes::Bytes;
use h2::RecvStream;

use super::channel;
use super::decode::{Converter, Malformed, Style};
use super::schema::Method;

/// Flag and length before each message.
const PREFIX_BYTES: usize = 5;

/// A message of a stream is one piece, because some clients take each chunk of HTTP for a whole
/// line; one whose JSON is longer than this comes in several, so that a slow reader holds no more.
const PIECE_BYTES: usize = 256 * 1024;

/// What comes next.
pub(super) enum Piece {
    /// Part of the output.
    Json(Vec<u8>),
    /// The call is over.
    End(Status),
}

/// The receiving half of a call. Nothing is received but what is asked for.
pub(super) struct Download {
    recv: RecvStream,
    method: &'static Method,
    prefix: Vec<u8>,
    /// The message under way and its bytes that are still due.
    message: Option<(Converter, usize)>,
    /// Received, but not yet converted.
    rest: Bytes,
    /// The piece under way.
    out: Vec<u8>,
}

impl Download {
    pub(super) fn new(method: &'static Method, recv: RecvStream) -> Download {
        Download {
            recv,
            method,
            prefix: Vec::with_capacity(PREFIX_BYTES),
            message: None,
            rest: Bytes::new(),
            out: Vec::new(),
        }
    }

    /// Waits for the next piece; nothing follows an end.
    pub(super) fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Piece> {
        loop {
            if self.rest.is_empty() {
                self.rest = match ready!(self.recv.poll_data(cx)) {
                    Some(Ok(data)) => data,
                    Some(Err(error)) => return Poll::Ready(Piece::End(channel::fault(&error))),
                    None => return self.poll_end(cx),
                };
                let received = self.rest.len();
                if let Err(error) = self.recv.flow_control().release_capacity(received) {
                    return Poll::Ready(Piece::End(channel::fault(&error)));
                }
            }
            let Ok(ended) = self.take() else {
                let text = "the service's answer cannot be understood";
                return Poll::Ready(Piece::End(Status::new(Code::Internal, text)));
            };
            let whole = ended || !self.method.server_streaming || self.out.len() >= PIECE_BYTES;
            if whole && !self.out.is_empty() {
                return Poll::Ready(Piece::Json(std::mem::take(&mut self.out)));
            }
        }
    }

    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<Piece> {
        let status = match ready!(self.recv.poll_trailers(cx)) {
            Ok(trailers) => trailers.as_ref().and_then(channel::status),
            Err(error) => Some(channel::fault(&error)),
        };
        let status = status.unwrap_or_else(|| {
            let text = "server closed the stream without sending trailers";
            Status::new(Code::Internal, text)
        });
        let cut = self.message.is_some() || !self.prefix.is_empty();
        Poll::Ready(Piece::End(match cut && status.code == Code::Ok {
            true => Status::new(Code::Internal, "unexpected EOF"),
            false => status,
        }))
    }

    /// Takes received bytes of the gRPC framing, at most to the end of a message. Returns whether
    /// it has come.
    fn take(&mut self) -> Result<bool, Malformed> {
        loop {
            if let Some((converter, due)) = &mut self.message {
                let now = self.rest.split_to(self.rest.len().min(*due));
                converter.feed(&now, &mut self.out)?;
                *due -= now.len();
                if *due > 0 {
                    return Ok(false);
                }
                self.end_message()?;
                return Ok(true);
            }
            let missing = PREFIX_BYTES - self.prefix.len();
            let now = self.rest.split_to(self.rest.len().min(missing));
            self.prefix.extend_from_slice(&now);
            let Some([flag, length @ ..]) = self.prefix.first_chunk::<PREFIX_BYTES>() else {
                return Ok(false);
            };
            // We said that we take nothing compressed.
            if *flag != 0 {
                return Err(Malformed);
            }
            let due = u32::from_be_bytes(*length) as usize;
            self.prefix.clear();
            self.message = Some((self.begin_message(), due));
        }
    }

    fn begin_message(&mut self) -> Converter {
        match self.method.server_streaming {
            true => {
                self.out.extend_from_slice(b"{\"result\":");
                Converter::new(self.method.output, Style::Html, &mut self.out)
            }
            false => Converter::new(self.method.output, Style::Plain, &mut self.out),
        }
    }

    fn end_message(&mut self) -> Result<(), Malformed> {
        if let Some((converter, _)) = self.message.take() {
            converter.end(&mut self.out)?;
        }
        if self.method.server_streaming {
            self.out.extend_from_slice(b"}\n");
        }
        Ok(())
    }
}
