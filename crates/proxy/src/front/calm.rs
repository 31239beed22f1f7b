//! Clients that probe their connection too often are sent away, by gRPC's rules.
//!
//! A probe (a PING frame of HTTP/2) must come no sooner than the given pause after the one before;
//! two hours when the client has no call open. What the proxy sends in between counts as a new
//! beginning. More than two probes that come too soon end the connection with the word
//! `too_many_pings`, upon which gRPC's clients pause longer.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The pause that is asked for while no call is open.
const IDLE_PAUSE: Duration = Duration::from_secs(2 * 60 * 60);
/// Probes that may come too soon.
const STRIKES_MAX: u32 = 2;

/// What an HTTP/2 client says first.
const PREFACE_BYTES: usize = 24;
/// Before each frame: length, kind, flags, stream.
const HEAD_BYTES: usize = 9;

const KIND_DATA: u8 = 0;
const KIND_HEADERS: u8 = 1;
const KIND_PING: u8 = 6;
const FLAG_ACK: u8 = 1;

/// GOAWAY with ENHANCE_YOUR_CALM about every stream up to the largest.
const GO_AWAY: &[u8] = b"\0\0\x16\x07\0\0\0\0\0\x7f\xff\xff\xff\0\0\0\x0btoo_many_pings";

/// One way of a connection, frame by frame.
struct Frames {
    head: [u8; HEAD_BYTES],
    filled: usize,
    /// Bytes left of the preface or of the frame's payload.
    left: usize,
}

impl Frames {
    fn after(skipped: usize) -> Self {
        Frames {
            head: [0; HEAD_BYTES],
            filled: 0,
            left: skipped,
        }
    }

    /// Whether a frame has ended and the next has not begun.
    fn is_between(&self) -> bool {
        self.left == 0 && self.filled == 0
    }

    /// Goes through `bytes`, and tells kind and flags of each frame that begins.
    fn see(&mut self, mut bytes: &[u8], mut on_frame: impl FnMut(u8, u8)) {
        while !bytes.is_empty() {
            let skipped = self.left.min(bytes.len());
            self.left -= skipped;
            bytes = &bytes[skipped..];
            let taken = (HEAD_BYTES - self.filled).min(bytes.len());
            self.head[self.filled..][..taken].copy_from_slice(&bytes[..taken]);
            self.filled += taken;
            bytes = &bytes[taken..];
            if self.filled == HEAD_BYTES {
                self.filled = 0;
                let [a, b, c, kind, flags, ..] = self.head;
                self.left = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
                on_frame(kind, flags);
            }
        }
    }
}

/// The rule for one connection.
struct Rule {
    pause: Duration,
    last: Option<Instant>,
    strikes: u32,
}

impl Rule {
    /// Whether a probe that comes now is one too many.
    fn is_broken_by_probe(&mut self, now: Instant, has_calls: bool) -> bool {
        let pause = match has_calls {
            true => self.pause,
            false => IDLE_PAUSE,
        };
        let last = self.last.replace(now);
        if last.is_some_and(|last| now.duration_since(last) < pause) {
            self.strikes += 1;
        }
        self.strikes > STRIKES_MAX
    }

    fn on_sent(&mut self) {
        self.last = None;
        self.strikes = 0;
    }
}

/// A connection whose client may not probe too often.
pub(super) struct Calm<S> {
    inner: S,
    /// Unknown until the first bytes tell; `Some(false)` for what is not HTTP/2.
    is_http2: Option<bool>,
    incoming: Frames,
    outgoing: Frames,
    rule: Rule,
    calls: Arc<AtomicUsize>,
    is_over: bool,
}

impl<S> Calm<S> {
    /// `calls` counts those that are open. A pause of zero lets everything pass.
    pub(super) fn new(inner: S, pause: Duration, calls: Arc<AtomicUsize>) -> Self {
        Calm {
            inner,
            is_http2: pause.is_zero().then_some(false),
            incoming: Frames::after(PREFACE_BYTES),
            outgoing: Frames::after(0),
            rule: Rule {
                pause,
                last: None,
                strikes: 0,
            },
            calls,
            is_over: false,
        }
    }

    fn on_read(&mut self, bytes: &[u8]) {
        let begin = bytes.get(..3).unwrap_or(bytes);
        let is_http2 = *self
            .is_http2
            .get_or_insert_with(|| b"PRI".starts_with(begin));
        if !is_http2 {
            return;
        }
        let (rule, calls, is_over) = (&mut self.rule, &self.calls, &mut self.is_over);
        self.incoming.see(bytes, |kind, flags| {
            if kind == KIND_PING && flags & FLAG_ACK == 0 {
                let has_calls = calls.load(Relaxed) > 0;
                *is_over |= rule.is_broken_by_probe(Instant::now(), has_calls);
            }
        });
    }

    fn on_written(&mut self, bytes: &[u8]) {
        if self.is_http2 != Some(true) {
            return;
        }
        let rule = &mut self.rule;
        self.outgoing.see(bytes, |kind, _| {
            if matches!(kind, KIND_DATA | KIND_HEADERS) {
                rule.on_sent();
            }
        });
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Calm<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.inner).poll_read(context, buffer))?;
        let read = buffer.filled().get(before..).unwrap_or_default();
        if !read.is_empty() {
            self.on_read(read);
        }
        if !self.is_over {
            return Poll::Ready(Ok(()));
        }
        if self.outgoing.is_between() {
            // A client that takes nothing is closed without a word.
            let _ = Pin::new(&mut self.inner).poll_write(context, GO_AWAY);
            let _ = Pin::new(&mut self.inner).poll_flush(context);
        }
        Poll::Ready(Err(io::Error::other("too_many_pings")))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Calm<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.is_over {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let written = ready!(Pin::new(&mut self.inner).poll_write(context, bytes))?;
        self.on_written(bytes.get(..written).unwrap_or_default());
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}

/// A call that is open.
pub(super) struct Open(Arc<AtomicUsize>);

impl Open {
    pub(super) fn new(calls: &Arc<AtomicUsize>) -> Self {
        calls.fetch_add(1, Relaxed);
        Open(Arc::clone(calls))
    }

    /// Keeps the call open for as long as its answer goes out.
    pub(super) fn until_end_of<B>(self, inner: B) -> Answer<B> {
        Answer { inner, _open: self }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// The body of an answer whose call is open.
pub(super) struct Answer<B> {
    inner: B,
    _open: Open,
}

impl<B> http_body::Body for Answer<B>
where
    B: http_body::Body<Data = Bytes> + Unpin,
{
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        Pin::new(&mut self.inner).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_found_wherever_bytes_are_cut() {
        let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        bytes.extend(b"\0\0\0\x04\0\0\0\0\0");
        bytes.extend(b"\0\0\x08\x06\0\0\0\0\0abcdefgh");
        bytes.extend(b"\0\0\x08\x06\x01\0\0\0\0abcdefgh");
        for piece in 1..bytes.len() {
            let mut frames = Frames::after(PREFACE_BYTES);
            let mut seen = Vec::new();
            for part in bytes.chunks(piece) {
                frames.see(part, |kind, flags| seen.push((kind, flags)));
            }
            assert_eq!(seen, [(4, 0), (6, 0), (6, 1)], "{piece}");
            assert!(frames.is_between());
        }
        let mut last = Frames::after(0);
        last.see(GO_AWAY, |kind, _| assert_eq!(kind, 7));
        assert!(last.is_between(), "the farewell is one whole frame");
    }

    #[test]
    fn the_third_early_probe_is_one_too_many() {
        let pause = Duration::from_secs(5);
        let mut rule = Rule {
            pause,
            last: None,
            strikes: 0,
        };
        let mut now = Instant::now();
        let mut probe = |rule: &mut Rule, after: u64, has_calls| {
            now += Duration::from_secs(after);
            rule.is_broken_by_probe(now, has_calls)
        };
        assert!((0..10).all(|_| !probe(&mut rule, 5, true)));
        assert!(!probe(&mut rule, 1, true) && !probe(&mut rule, 1, true));
        rule.on_sent();
        assert!(!probe(&mut rule, 1, true));
        assert!(!probe(&mut rule, 10, false) && !probe(&mut rule, 10, false));
        assert!(probe(&mut rule, 10, false));
    }
}
