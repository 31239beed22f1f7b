//! What a handler sees of a call and what it answers with.

use std::time::Duration;

use api::Status;
use bytes::Bytes;

/// One row of the table of methods.
#[derive(Clone, Copy, Debug)]
pub struct Method {
    /// `/package.Service/Method`
    pub path: &'static str,
    pub kind: MethodKind,
}

/// Whether a method takes and gives single messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MethodKind {
    /// One request, handed over whole with [`super::Handler::on_unary`]. The answer may still be a
    /// stream (server streaming): use [`super::Net::send`] and [`super::Net::finish`].
    Unary,
    /// A stream of requests.
    Streaming,
}

/// Index into [`super::Config::methods`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MethodId(pub u16);

/// Names one call for as long as the process lives: an answer to a call that is gone finds
/// nothing, even when its place has been taken by another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CallId {
    /// Net thread in the upper 8 bits, index of the connection in the others.
    place: u32,
    generation: u32,
    slot: u32,
    stream: u32,
}

impl CallId {
    pub(super) const CONNECTIONS_MAX: u32 = 1 << 24;

    pub(super) fn new(
        thread: u8,
        connection: u32,
        generation: u32,
        slot: u32,
        stream: u32,
    ) -> Self {
        debug_assert!(connection < Self::CONNECTIONS_MAX);
        CallId {
            place: u32::from(thread) << 24 | connection,
            generation,
            slot,
            stream,
        }
    }

    /// The net thread that owns the call: answers go to the [`super::Mailbox`] of that index.
    pub fn thread(self) -> usize {
        (self.place >> 24) as usize
    }

    pub(super) fn connection(self) -> u32 {
        self.place & (Self::CONNECTIONS_MAX - 1)
    }

    pub(super) fn generation(self) -> u32 {
        self.generation
    }

    pub(super) fn slot(self) -> u32 {
        self.slot
    }

    pub(super) fn stream(self) -> u32 {
        self.stream
    }
}

/// The part of a request's headers that a service may need.
#[derive(Clone, Debug, Default)]
pub struct RequestHead {
    pub(super) method: u16,
    /// The client gives up after this time (`grpc-timeout`). The front end ends the call then
    /// with DEADLINE_EXCEEDED and [`super::Handler::on_cancel`].
    pub timeout: Option<Duration>,
    /// First `token` value.
    pub token: Option<Bytes>,
    /// First `authorization` value.
    pub authorization: Option<Bytes>,
    /// First `client-api-version` value, as sent.
    pub client_api_version: Option<Bytes>,
    /// First `traceparent` value, as sent.
    pub traceparent: Option<Bytes>,
    /// `hasleader: true` was sent.
    pub needs_leader: bool,
    /// `grpcgateway-accept` was sent.
    pub from_gateway: bool,
}

impl RequestHead {
    /// The row of [`super::Config::methods`].
    pub fn method(&self) -> MethodId {
        MethodId(self.method)
    }

    /// The auth token: `token`, else `authorization`, without a leading `Bearer `.
    pub fn auth_token(&self) -> Option<Bytes> {
        let token = self.token.as_ref().or(self.authorization.as_ref())?;
        match token.strip_prefix(b"Bearer ") {
            Some(bare) => Some(token.slice_ref(bare)),
            None => Some(token.clone()),
        }
    }
}

/// An encoded message, in one piece or several.
#[derive(Debug)]
pub enum Payload {
    One(Bytes),
    Parts(Vec<Bytes>),
}

impl Payload {
    pub(super) fn len(&self) -> usize {
        match self {
            Payload::One(bytes) => bytes.len(),
            Payload::Parts(parts) => parts.iter().map(Bytes::len).sum(),
        }
    }

    pub(super) fn as_parts(&self) -> &[Bytes] {
        match self {
            Payload::One(bytes) => std::slice::from_ref(bytes),
            Payload::Parts(parts) => parts,
        }
    }

    pub(super) fn for_each(self, mut take: impl FnMut(Bytes)) {
        match self {
            Payload::One(bytes) => take(bytes),
            Payload::Parts(parts) => parts.into_iter().for_each(take),
        }
    }
}

impl From<Bytes> for Payload {
    fn from(bytes: Bytes) -> Self {
        Payload::One(bytes)
    }
}

impl From<Vec<u8>> for Payload {
    fn from(bytes: Vec<u8>) -> Self {
        Payload::One(bytes.into())
    }
}

impl From<Vec<Bytes>> for Payload {
    fn from(parts: Vec<Bytes>) -> Self {
        Payload::Parts(parts)
    }
}

/// The body of a large message, drawn piece by piece as the client takes it.
pub trait BodySource: Send {
    /// The next piece, `bytes_max` long or shorter where that is no trouble (a longer one is cut
    /// and its rest kept). `None` at the end, which must come at the length that was announced.
    ///
    /// # Errors
    /// Before the first byte was sent the status answers the call; later the stream is reset,
    /// since the announced length can no longer be kept.
    fn next_chunk(&mut self, bytes_max: usize) -> Result<Option<Bytes>, Status>;
}

/// A message whose content is drawn as the client takes it.
pub struct Drawn {
    /// Its exact length in bytes.
    pub length: u64,
    pub content: Box<dyn BodySource>,
}

/// The messages of a stream of responses, drawn one by one as the client takes them.
pub trait MessageSource: Send {
    /// The next message. `None` at the end, which ends the call with OK.
    ///
    /// # Errors
    /// The status ends the call after the messages before.
    fn next_message(&mut self) -> Result<Option<Drawn>, Status>;
}
