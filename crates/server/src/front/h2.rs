//! One HTTP/2 connection, server side, without I/O: bytes in, events and bytes out (RFC 9113).
//!
//! [`Conn::receive`] (in `receive`) parses frames and collects [`Event`]s; the `send` half writes
//! answers into [`Conn::out`] as far as the peer's flow control allows and queues the rest on
//! their streams. The caller passes the time in; nothing here reads a clock.
//!
//! What a peer can make grow: streams (by the announced maximum), incomplete messages (by message
//! size and a budget over all connections), the header block (by its limit), the output of
//! control frames (the caller stops reading while much is unwritten), and repeated cheap events
//! (by token buckets).

mod clock;
mod deframe;
mod encode;
pub(crate) mod frame;
pub(crate) mod hpack;
mod huffman;
mod out;
mod receive;
mod request;
mod routes;
mod send;
mod stream;
mod window;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use bytes::Bytes;

use self::encode::Encoder;
use self::frame::{Reason, WINDOW_DEFAULT};
use self::hpack::Decoder;
use self::out::OutBuffer;
use self::routes::Routes;
use self::stream::Streams;
use super::Limits;
use super::call::RequestHead;

pub(super) use self::out::SLICES_MAX;

#[cfg(test)]
mod tests;

/// Cheap but useless frames: how many at once and how many a second.
const GLITCHES: (u32, u32) = (5_000, 1_000);
/// Requests that the client takes back.
const RESETS: (u32, u32) = (10_000, 5_000);
/// SETTINGS frames; each may touch every stream.
const SETTINGS_FRAMES: (u32, u32) = (100, 20);
/// Pings that are answered although nothing was sent in between.
const PINGS: (u32, u32) = (1_000, 1_000);

/// What all connections share.
pub(super) struct Shared {
    pub(super) limits: Limits,
    pub(super) routes: Routes,
    pub(super) bridging: bool,
    /// Bytes reserved for incomplete requests.
    pub(super) partial_bytes: AtomicUsize,
    /// Bytes queued on streams.
    pub(super) queued_bytes: AtomicUsize,
    /// Stream slots of all connections.
    pub(super) stream_slots: AtomicUsize,
}

impl Shared {
    pub(super) fn new(
        limits: Limits,
        methods: &'static [super::Method],
        bridging: bool,
    ) -> Arc<Self> {
        let routes = Routes::new(methods);
        Arc::new(Shared {
            limits,
            routes,
            bridging,
            partial_bytes: AtomicUsize::new(0),
            queued_bytes: AtomicUsize::new(0),
            stream_slots: AtomicUsize::new(0),
        })
    }
}

/// Names a stream among those of its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct StreamRef {
    pub(super) slot: u32,
    pub(super) id: u32,
}

/// What the bytes of a peer amount to.
#[derive(Debug)]
pub(super) enum Event {
    Unary(StreamRef, RequestHead, Bytes),
    Open(StreamRef, RequestHead),
    Message(StreamRef, Bytes),
    HalfClose(StreamRef),
    /// The stream is gone; comes only if the handler knows it.
    Cancel(StreamRef),
    Writable(StreamRef),
    /// A whole request that is not gRPC.
    Bridge(StreamRef, Vec<(Bytes, Bytes)>, Bytes),
}

/// How far a connection has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The preface has not arrived.
    Preface,
    /// The preface is here, the client's SETTINGS are not.
    Settings,
    Open,
    /// A GOAWAY ended it; what is in the output is still written.
    Closed,
}

/// Tokens that come back with time.
struct Bucket {
    tokens: u32,
    filled_ms: u64,
    size: u32,
    per_second: u32,
}

impl Bucket {
    fn new((size, per_second): (u32, u32), now_ms: u64) -> Self {
        Bucket {
            tokens: size,
            filled_ms: now_ms,
            size,
            per_second,
        }
    }

    fn take(&mut self, now_ms: u64) -> bool {
        if self.tokens == 0 {
            let passed = now_ms.saturating_sub(self.filled_ms).min(60_000);
            let back = (passed * u64::from(self.per_second) / 1000).min(u64::from(self.size));
            self.tokens = back as u32;
            if back == 0 {
                return false;
            }
            self.filled_ms = now_ms;
        }
        self.tokens -= 1;
        true
    }
}

/// A header block that CONTINUATION frames go on with.
#[derive(Default)]
struct OpenBlock {
    /// Zero: none is open.
    stream: u32,
    end_stream: bool,
    frames: u32,
    bytes: Vec<u8>,
}

/// Keep-alive in both directions, and the ping that a graceful shutdown waits for.
#[derive(Default)]
struct Pings {
    /// When the last keep-alive ping was sent; zero when none is unanswered.
    sent_ms: u64,
    /// When the client's last ping came.
    received_ms: u64,
    strikes: u32,
    /// Headers or data were sent since the last ping of the client.
    sent_since: bool,
}

/// How far a graceful shutdown has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Drain {
    No,
    /// The warning GOAWAY and a ping are out.
    Announced,
    /// The final GOAWAY is out: newer streams are ignored.
    Final,
}

/// The connection. `*_window` fields are what may still be sent or received.
pub(super) struct Conn {
    shared: Arc<Shared>,
    phase: Phase,
    drain: Drain,
    now_ms: u64,
    /// When the peer was last heard.
    heard_ms: u64,
    decoder: Decoder,
    encoder: Encoder,
    open_block: OpenBlock,
    streams: Streams,
    /// Highest stream id that the client used.
    last_id: u32,
    /// What of [`Shared::stream_slots`] is ours.
    slots_counted: usize,
    recv_window: i64,
    send_window: i64,
    peer_stream_window: i32,
    /// Streams with something to send and window to send it.
    ready: VecDeque<u32>,
    /// Streams that have a deadline, at least.
    deadlines: usize,
    pings: Pings,
    glitches: Bucket,
    resets: Bucket,
    settings_frames: Bucket,
    ping_answers: Bucket,
    violated: bool,
    /// Requests that are not gRPC are events too.
    bridging: bool,
    pub(super) out: OutBuffer,
    /// Message bytes since [`Conn::take_counts`].
    counts: Counts,
}

/// Message traffic since it was last asked for.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    pub(super) received_bytes: u64,
    pub(super) sent_bytes: u64,
    pub(super) calls: u64,
}

/// An error that ends a stream or the connection.
enum Fault {
    Connection(Reason, &'static str),
    Stream(u32, Reason),
}

impl Conn {
    /// A connection whose client has sent nothing; our SETTINGS are in the output.
    pub(super) fn new(shared: Arc<Shared>, now_ms: u64) -> Self {
        let mut conn = Conn {
            phase: Phase::Preface,
            drain: Drain::No,
            now_ms,
            heard_ms: now_ms,
            decoder: Decoder::new(),
            encoder: Encoder::default(),
            open_block: OpenBlock::default(),
            streams: Streams::new(),
            last_id: 0,
            slots_counted: 0,
            recv_window: i64::from(shared.limits.connection_window_bytes),
            send_window: i64::from(WINDOW_DEFAULT),
            peer_stream_window: WINDOW_DEFAULT,
            ready: VecDeque::new(),
            deadlines: 0,
            pings: Pings::default(),
            glitches: Bucket::new(GLITCHES, now_ms),
            resets: Bucket::new(RESETS, now_ms),
            settings_frames: Bucket::new(SETTINGS_FRAMES, now_ms),
            ping_answers: Bucket::new(PINGS, now_ms),
            violated: false,
            bridging: shared.bridging,
            out: OutBuffer::default(),
            counts: Counts::default(),
            shared,
        };
        conn.write_settings();
        conn
    }

    fn write_settings(&mut self) {
        let limits = &self.shared.limits;
        let settings = [
            (
                frame::SETTING_MAX_CONCURRENT_STREAMS,
                limits.concurrent_streams_max,
            ),
            (
                frame::SETTING_INITIAL_WINDOW_SIZE,
                limits.stream_window_bytes,
            ),
            (
                frame::SETTING_MAX_HEADER_LIST_SIZE,
                limits.header_list_bytes_max as u32,
            ),
        ];
        let more = limits
            .connection_window_bytes
            .saturating_sub(WINDOW_DEFAULT as u32);
        let out = self.out.tail();
        out.extend_from_slice(&frame::header(6 * settings.len(), frame::SETTINGS, 0, 0));
        for (name, value) in settings {
            out.extend_from_slice(&name.to_be_bytes());
            out.extend_from_slice(&value.to_be_bytes());
        }
        if more > 0 {
            self.write_window_update(0, more);
        }
    }

    /// No more bytes will be taken; what is in the output is still due.
    pub(super) fn is_closed(&self) -> bool {
        self.phase == Phase::Closed
    }

    /// Takes gRPC alone.
    pub(super) fn forbid_bridging(&mut self) {
        self.bridging = false;
    }

    /// The handshake is complete.
    pub(super) fn is_open(&self) -> bool {
        self.phase == Phase::Open
    }

    /// The peer broke a rule, and that ended the connection.
    pub(super) fn is_violated(&self) -> bool {
        self.violated
    }

    pub(super) fn take_counts(&mut self) -> Counts {
        std::mem::take(&mut self.counts)
    }
}

impl Drop for Conn {
    fn drop(&mut self) {
        for slot in self.streams.slots() {
            self.release(slot);
        }
        self.shared
            .stream_slots
            .fetch_sub(self.slots_counted, Relaxed);
    }
}
