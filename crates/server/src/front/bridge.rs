//! HTTP/2 requests that are not gRPC, on ports that serve both (TLS): handed to the HTTP side and
//! answered through the owning net thread.

use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;

use super::call::CallId;
use crate::tls::Identity;

/// A complete request. Pseudo-headers come first, with their colons.
#[derive(Debug)]
pub struct BridgeRequest {
    pub fields: Vec<(Bytes, Bytes)>,
    pub body: Bytes,
    /// By the verified client certificate, if there is one.
    pub identity: Option<Arc<Identity>>,
}

impl BridgeRequest {
    /// The first value of a (lower-case) name, pseudo-headers included.
    pub fn field(&self, name: &str) -> Option<&Bytes> {
        let mut fields = self.fields.iter();
        fields
            .find(|(known, _)| known == name.as_bytes())
            .map(|(_, value)| value)
    }
}

/// Takes bridged requests on a net thread; must not block.
pub trait Bridge: Send + Sync {
    fn on_request(&self, request: BridgeRequest, reply: BridgeReply);
}

/// One step of an answer.
#[derive(Debug)]
pub(super) enum BridgePart {
    Head(u16, Vec<(Bytes, Bytes)>),
    Chunk(Bytes),
    End,
    Abort,
}

pub(super) type SendPart = Arc<dyn Fn(CallId, BridgePart) + Send + Sync>;

/// What an answer's writer and its stream know of each other.
#[derive(Default)]
struct Pace {
    /// Bytes that were handed over and have not left this process.
    queued_bytes: AtomicUsize,
    /// The stream is no more.
    gone: AtomicBool,
    /// The writer, while it waits for a change of one of them.
    writer: Mutex<Option<Waker>>,
}

impl Pace {
    /// Called after every change that a writer may wait for.
    fn wake(&self) {
        let writer = self
            .writer
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(writer) = writer {
            writer.wake();
        }
    }

    /// Waits for `done`. Why no wake-up is lost: the writer is noted before it looks, and who
    /// changes something does so before it wakes.
    fn poll(&self, cx: &mut Context<'_>, done: impl Fn(&Pace) -> bool) -> Poll<()> {
        *self.writer.lock().unwrap_or_else(PoisonError::into_inner) = Some(cx.waker().clone());
        match done(self) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    }
}

/// Kept by a bridged stream for as long as it lives; its end tells the writer.
pub(super) struct BridgeGuard(Arc<Pace>);

impl Drop for BridgeGuard {
    fn drop(&mut self) {
        self.0.gone.store(true, SeqCst);
        self.0.wake();
    }
}

/// The way back to a bridged request's client, from any thread. Dropped before [`Self::finish`],
/// it resets the stream.
pub struct BridgeReply {
    call: CallId,
    send: SendPart,
    pace: Arc<Pace>,
    finished: bool,
}

impl BridgeReply {
    pub(super) fn new(call: CallId, send: SendPart) -> (Self, BridgeGuard) {
        let pace = Arc::<Pace>::default();
        let guard = BridgeGuard(Arc::clone(&pace));
        let reply = BridgeReply {
            call,
            send,
            pace,
            finished: false,
        };
        (reply, guard)
    }

    /// Status and headers (lower-case names, no connection-specific ones), once, first.
    pub fn head(&mut self, status: u16, fields: Vec<(Bytes, Bytes)>) {
        (self.send)(self.call, BridgePart::Head(status, fields));
    }

    /// The next piece of the body.
    pub fn chunk(&mut self, chunk: Bytes) {
        self.pace.queued_bytes.fetch_add(chunk.len(), SeqCst);
        let pace = Arc::clone(&self.pace);
        let chunk = Bytes::from_owner(Counted { chunk, pace });
        (self.send)(self.call, BridgePart::Chunk(chunk));
    }

    /// Bytes that were handed over and have not left this process.
    pub fn queued_bytes(&self) -> usize {
        self.pace.queued_bytes.load(SeqCst)
    }

    /// Waits until at most `bytes_max` of what was handed over are still in this process: the
    /// writer's brake. False when the client is gone.
    pub async fn room(&self, bytes_max: usize) -> bool {
        poll_fn(|cx| {
            self.pace.poll(cx, |pace| {
                pace.gone.load(SeqCst) || self.queued_bytes() <= bytes_max
            })
        })
        .await;
        !self.pace.gone.load(SeqCst)
    }

    /// Waits until the client is gone.
    pub async fn gone(&self) {
        poll_fn(|cx| self.pace.poll(cx, |pace| pace.gone.load(SeqCst))).await;
    }

    /// The body is complete.
    pub fn finish(mut self) {
        self.finished = true;
        (self.send)(self.call, BridgePart::End);
    }
}

impl Drop for BridgeReply {
    fn drop(&mut self) {
        if !self.finished {
            (self.send)(self.call, BridgePart::Abort);
        }
    }
}

/// A piece that is subtracted from the queue's length when it is written or dropped.
struct Counted {
    chunk: Bytes,
    pace: Arc<Pace>,
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.chunk
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.pace.queued_bytes.fetch_sub(self.chunk.len(), SeqCst);
        self.pace.wake();
    }
}
