//! The streams of one connection: their states in a slab, found by stream id.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::LazyLock;

use api::Status;
use bytes::Bytes;

use super::super::bridge::BridgeGuard;
use super::super::call::{BodySource, MessageSource, RequestHead};

/// How a stream's request is handled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Kind {
    #[default]
    Unary,
    Streaming,
    /// Not gRPC.
    Bridge,
}

/// A piece of a response that waits for its turn.
pub(crate) enum Chunk {
    /// The five bytes before a message, from the given offset on.
    Prefix([u8; 5], u8),
    Bytes(Bytes),
    Body {
        source: Box<dyn BodySource>,
        left: u64,
    },
    /// The rest of the call; always the last piece.
    Messages(Box<dyn MessageSource>),
}

/// What ends a stream after its queue.
pub(crate) enum End {
    /// gRPC trailers.
    Status(Status),
    /// No trailers (bridged HTTP).
    Plain,
}

/// A message that has not arrived completely.
#[derive(Default)]
pub(crate) struct Partial {
    pub(crate) prefix: [u8; 5],
    pub(crate) prefix_len: u8,
    /// Length of the message that is being received.
    pub(crate) need: Option<usize>,
    pub(crate) bytes: Vec<u8>,
    /// What the message counts in the budget of incomplete ones.
    pub(crate) reserved: usize,
}

impl Partial {
    pub(crate) fn is_empty(&self) -> bool {
        self.prefix_len == 0 && self.need.is_none()
    }
}

#[derive(Default)]
pub(crate) struct Stream {
    /// Zero: a free slot.
    pub(crate) id: u32,
    pub(crate) kind: Kind,
    pub(crate) gzip: bool,
    /// The handler was told of the call.
    pub(crate) dispatched: bool,
    /// A unary request's message is complete.
    pub(crate) delivered: bool,
    pub(crate) remote_closed: bool,
    pub(crate) head_sent: bool,
    /// Listed in the connection's queue of streams with something to send.
    pub(crate) in_ready: bool,
    /// The queue has been above the high-water mark since the last `Writable`.
    pub(crate) high: bool,
    /// No more receive window is given until the handler resumes.
    pub(crate) held: bool,
    /// May be negative after a SETTINGS change.
    pub(crate) send_window: i32,
    pub(crate) recv_window: i32,
    /// Milliseconds on the connection's clock; zero for none.
    pub(crate) deadline_ms: u64,
    pub(crate) head: RequestHead,
    pub(crate) partial: Partial,
    pub(crate) content_left: Option<u64>,
    pub(crate) queue: VecDeque<Chunk>,
    pub(crate) queued_bytes: u64,
    pub(crate) end: Option<End>,
    /// Method, path and headers of a request that goes to the bridge.
    pub(crate) bridge: Option<Box<BridgeHead>>,
    /// Tells who answers a bridged request of the stream's end.
    pub(crate) bridged: Option<BridgeGuard>,
}

/// What the bridge needs of a request's header block.
#[derive(Debug, Default)]
pub(crate) struct BridgeHead {
    pub(crate) fields: Vec<(Bytes, Bytes)>,
}

/// Multiplies by a secret odd number: ids are chosen by the client.
#[derive(Clone, Copy)]
pub(crate) struct IdHash(u64);

pub(crate) struct IdHasher(u64, u64);

impl BuildHasher for IdHash {
    type Hasher = IdHasher;
    fn build_hasher(&self) -> IdHasher {
        IdHasher(self.0, 0)
    }
}

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.1
    }
    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u32(u32::from(byte));
        }
    }
    fn write_u32(&mut self, id: u32) {
        let product = u128::from(self.1 ^ u64::from(id)) * u128::from(self.0);
        self.1 = product as u64 ^ (product >> 64) as u64;
    }
}

static SECRET: LazyLock<u64> = LazyLock::new(|| RandomState::new().hash_one(1u8) | 1 << 63 | 1);

/// Slots that are kept while no stream exists.
const SLOTS_KEPT: usize = 16;
/// How many closed streams are remembered.
const RECENT: usize = 64;

/// How a stream ended, for judging frames that come after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Closed {
    /// Both sides said END_STREAM.
    Normally,
    /// The client reset it.
    ByPeer,
    /// We reset it; frames may still be on their way.
    ByUs,
}

pub(crate) struct Streams {
    slots: Vec<Stream>,
    free: Vec<u32>,
    by_id: HashMap<u32, u32, IdHash>,
    /// The pair that was found last: a request's frames follow one another.
    last: (u32, u32),
    recent: [(u32, Closed); RECENT],
    recent_next: usize,
}

impl Streams {
    pub(crate) fn new() -> Self {
        Streams {
            slots: Vec::new(),
            free: Vec::new(),
            by_id: HashMap::with_hasher(IdHash(*SECRET)),
            last: (0, 0),
            recent: [(0, Closed::Normally); RECENT],
            recent_next: 0,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Makes a stream; its slot has only default values besides the id.
    pub(crate) fn insert(&mut self, id: u32) -> u32 {
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None => {
                self.slots.push(Stream::default());
                (self.slots.len() - 1) as u32
            }
        };
        self.slots[slot as usize].id = id;
        self.by_id.insert(id, slot);
        self.last = (id, slot);
        slot
    }

    pub(crate) fn find(&mut self, id: u32) -> Option<u32> {
        if self.last.0 == id {
            return Some(self.last.1);
        }
        let slot = *self.by_id.get(&id)?;
        self.last = (id, slot);
        Some(slot)
    }

    /// The stream in a slot, if it is still the one with this id.
    pub(crate) fn live(&mut self, slot: u32, id: u32) -> Option<&mut Stream> {
        self.slots
            .get_mut(slot as usize)
            .filter(|stream| stream.id == id && id != 0)
    }

    /// The stream of an occupied slot.
    pub(crate) fn at(&mut self, slot: u32) -> &mut Stream {
        &mut self.slots[slot as usize]
    }

    pub(crate) fn remove(&mut self, slot: u32, closed: Closed) {
        let stream = &mut self.slots[slot as usize];
        let id = stream.id;
        assert!(id != 0, "slot {slot} is free");
        // The queue's memory stays for the next stream if it is small.
        let mut queue = std::mem::take(&mut stream.queue);
        queue.clear();
        if queue.capacity() > 16 {
            queue = VecDeque::new();
        }
        *stream = Stream {
            queue,
            ..Stream::default()
        };
        self.by_id.remove(&id);
        self.free.push(slot);
        if self.last.0 == id {
            self.last = (0, 0);
        }
        self.remember(id, closed);
    }

    /// Notes how a stream ended.
    pub(crate) fn remember(&mut self, id: u32, closed: Closed) {
        self.recent[self.recent_next] = (id, closed);
        self.recent_next = (self.recent_next + 1) % RECENT;
    }

    /// Gives memory back after a burst, if no stream is left. True if it did.
    pub(crate) fn shrink(&mut self) -> bool {
        let shrinks = self.by_id.is_empty() && self.slots.len() > SLOTS_KEPT;
        if shrinks {
            self.slots = Vec::new();
            self.free = Vec::new();
            self.by_id.shrink_to_fit();
        }
        shrinks
    }

    /// Occupied and free slots.
    pub(crate) fn slot_count(&self) -> usize {
        self.slots.len()
    }

    /// How a stream that is gone ended, if it is still remembered.
    pub(crate) fn closed(&self, id: u32) -> Option<Closed> {
        self.recent
            .iter()
            .find(|entry| entry.0 == id)
            .map(|entry| entry.1)
    }

    /// Slots of all streams that exist.
    pub(crate) fn slots(&self) -> impl Iterator<Item = u32> + use<> {
        let occupied: Vec<u32> = (0..self.slots.len() as u32)
            .filter(|&slot| self.slots[slot as usize].id != 0)
            .collect();
        occupied.into_iter()
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (u32, &mut Stream)> {
        let slots = self.slots.iter_mut().enumerate();
        slots
            .filter(|(_, stream)| stream.id != 0)
            .map(|(slot, stream)| (slot as u32, stream))
    }
}
