//! The messages of one call, as JSON while they arrive.

use std::task::{Context, Poll, ready};

use api::{Code, Status};
use h2::RecvStream;

use super::channel;
use super::decode::{Converter, Malformed, Style};
use super::schema::Method;

/// Flag and length before each message.
const PREFIX_BYTES: usize = 5;

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
}

impl Download {
    pub(super) fn new(method: &'static Method, recv: RecvStream) -> Download {
        Download {
            recv,
            method,
            prefix: Vec::with_capacity(PREFIX_BYTES),
            message: None,
        }
    }

    /// Waits for the next piece; nothing follows an end.
    pub(super) fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Piece> {
        loop {
            let data = match ready!(self.recv.poll_data(cx)) {
                Some(Ok(data)) => data,
                Some(Err(error)) => return Poll::Ready(Piece::End(channel::fault(&error))),
                None => return self.poll_end(cx),
            };
            if let Err(error) = self.recv.flow_control().release_capacity(data.len()) {
                return Poll::Ready(Piece::End(channel::fault(&error)));
            }
            let mut out = Vec::new();
            if self.take(&data, &mut out).is_err() {
                let text = "the service's answer cannot be understood";
                return Poll::Ready(Piece::End(Status::new(Code::Internal, text)));
            }
            if !out.is_empty() {
                return Poll::Ready(Piece::Json(out));
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

    /// Takes bytes of the gRPC framing.
    fn take(&mut self, mut data: &[u8], out: &mut Vec<u8>) -> Result<(), Malformed> {
        loop {
            if let Some((converter, due)) = &mut self.message {
                let (now, rest) = data.split_at(data.len().min(*due));
                converter.feed(now, out)?;
                *due -= now.len();
                if *due > 0 {
                    return Ok(());
                }
                data = rest;
                self.end_message(out)?;
            }
            let missing = PREFIX_BYTES - self.prefix.len();
            let (now, rest) = data.split_at(data.len().min(missing));
            self.prefix.extend_from_slice(now);
            data = rest;
            let Some([flag, length @ ..]) = self.prefix.first_chunk::<PREFIX_BYTES>() else {
                return Ok(());
            };
            // We said that we take nothing compressed.
            if *flag != 0 {
                return Err(Malformed);
            }
            let due = u32::from_be_bytes(*length) as usize;
            self.prefix.clear();
            self.message = Some((self.begin_message(out), due));
        }
    }

    fn begin_message(&self, out: &mut Vec<u8>) -> Converter {
        match self.method.server_streaming {
            true => {
                out.extend_from_slice(b"{\"result\":");
                Converter::new(self.method.output, Style::Html, out)
            }
            false => Converter::new(self.method.output, Style::Plain, out),
        }
    }

    fn end_message(&mut self, out: &mut Vec<u8>) -> Result<(), Malformed> {
        if let Some((converter, _)) = self.message.take() {
            converter.end(out)?;
        }
        if self.method.server_streaming {
            out.extend_from_slice(b"}\n");
        }
        Ok(())
    }
}
