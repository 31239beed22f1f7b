//! HTTP/2 requests that are not gRPC, on ports that serve both (TLS): handed to the HTTP side and
//! answered through the owning net thread.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use bytes::Bytes;

use super::call::CallId;

/// A complete request. Pseudo-headers come first, with their colons.
#[derive(Debug)]
pub struct BridgeRequest {
    pub fields: Vec<(Bytes, Bytes)>,
    pub body: Bytes,
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

/// The way back to a bridged request's client, from any thread. Dropped before [`Self::finish`],
/// it resets the stream.
pub struct BridgeReply {
    call: CallId,
    send: SendPart,
    queued_bytes: Arc<AtomicUsize>,
    finished: bool,
}

impl BridgeReply {
    pub(super) fn new(call: CallId, send: SendPart) -> Self {
        BridgeReply {
            call,
            send,
            queued_bytes: Arc::default(),
            finished: false,
        }
    }

    /// Status and headers (lower-case names, no connection-specific ones), once, first.
    pub fn head(&mut self, status: u16, fields: Vec<(Bytes, Bytes)>) {
        (self.send)(self.call, BridgePart::Head(status, fields));
    }

    /// The next piece of the body.
    pub fn chunk(&mut self, chunk: Bytes) {
        self.queued_bytes.fetch_add(chunk.len(), Relaxed);
        let queued_bytes = Arc::clone(&self.queued_bytes);
        let chunk = Bytes::from_owner(Counted {
            chunk,
            queued_bytes,
        });
        (self.send)(self.call, BridgePart::Chunk(chunk));
    }

    /// Bytes that were handed over and have not left this process: the writer's brake.
    pub fn queued_bytes(&self) -> usize {
        self.queued_bytes.load(Relaxed)
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
    queued_bytes: Arc<AtomicUsize>,
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.chunk
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.queued_bytes.fetch_sub(self.chunk.len(), Relaxed);
    }
}
