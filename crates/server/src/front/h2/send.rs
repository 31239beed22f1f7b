//! The sending half: answers, their queues, resets, GOAWAY and keep-alive.

use std::sync::atomic::Ordering::Relaxed;

use api::{Code, Status};
use bytes::Bytes;

use super::super::bridge::{BridgeGuard, BridgePart};
use super::super::call::{BodySource, Drawn, MessageSource, Payload};
use super::super::grpc::PREFIX_BYTES;
use super::encode;
use super::frame::{self, HEADER_BYTES, PAYLOAD_BYTES_MAX, Reason};
use super::stream::{Chunk, Closed, End, Kind, Stream};
use super::{Conn, Drain, Event, Fault, Phase, StreamRef};

/// Streams' queues move into the output while it is shorter than this.
const OUT_BYTES_TARGET: usize = 256 * 1024;
/// Whole small answers go straight to the output while it is shorter than this.
const OUT_BYTES_MAX: usize = 2 * 1024 * 1024;

/// How much of a body is drawn at once.
const BODY_CHUNK_BYTES: usize = 64 * 1024;

/// What became of one turn of a stream.
enum Turn {
    /// It has more and may send it.
    More,
    /// It waits for window, for more from the handler, or is gone.
    Idle,
    /// It has more, but the connection's window is used up.
    ConnectionBlocked,
}

impl Conn {
    /// Whether answers to this stream still have a receiver.
    pub(in crate::front) fn is_live(&mut self, at: StreamRef) -> bool {
        self.streams.live(at.slot, at.id).is_some()
    }

    /// Notes that the handler knows of the stream. False if it is gone or already known.
    pub(in crate::front) fn dispatch(&mut self, at: StreamRef) -> bool {
        match self.streams.live(at.slot, at.id) {
            Some(stream) if !stream.dispatched => {
                stream.dispatched = true;
                true
            }
            _ => false,
        }
    }

    /// Bytes queued on a stream and not yet in the output.
    pub(in crate::front) fn queued_bytes(&mut self, at: StreamRef) -> Option<u64> {
        self.streams
            .live(at.slot, at.id)
            .map(|stream| stream.queued_bytes)
    }

    /// Sends a message of `length` bytes that `write` appends, and with `last` the end of the
    /// call. It is written in place when nothing is in its way. False if the stream is gone.
    pub(in crate::front) fn send_encoded(
        &mut self,
        at: StreamRef,
        length: usize,
        last: bool,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> bool {
        let framed = length + PREFIX_BYTES;
        let roomy = self.send_window >= framed as i64 && self.out.len() < OUT_BYTES_MAX;
        let Some(stream) = self.streams.live(at.slot, at.id) else {
            return false;
        };
        if stream.end.is_some() {
            return false;
        }
        self.counts.sent_bytes += length as u64;
        let direct = roomy
            && framed <= PAYLOAD_BYTES_MAX
            && stream.queue.is_empty()
            && i64::from(stream.send_window) >= framed as i64;
        if !direct {
            let mut message = Vec::with_capacity(length);
            write(&mut message);
            debug_assert_eq!(message.len(), length);
            self.enqueue(at.slot, Payload::One(message.into()));
            self.finish_after(at, last);
            return true;
        }
        stream.send_window -= framed as i32;
        self.send_window -= framed as i64;
        self.write_head(at.slot);
        let out = self.out.data(at.id, framed);
        out.extend_from_slice(&prefix(length));
        let start = out.len();
        write(out);
        assert_eq!(
            out.len() - start,
            length,
            "a message's length was announced wrong"
        );
        if last {
            self.write_end(at.slot, &End::Status(ok()));
        }
        true
    }

    /// Sends a message that exists already.
    pub(in crate::front) fn send_payload(
        &mut self,
        at: StreamRef,
        payload: Payload,
        last: bool,
    ) -> bool {
        let length = payload.len();
        if length + PREFIX_BYTES <= PAYLOAD_BYTES_MAX {
            return self.send_encoded(at, length, last, |out| {
                payload
                    .as_parts()
                    .iter()
                    .for_each(|part| out.extend_from_slice(part));
            });
        }
        let Some(stream) = self.streams.live(at.slot, at.id) else {
            return false;
        };
        if stream.end.is_some() {
            return false;
        }
        self.counts.sent_bytes += length as u64;
        self.enqueue(at.slot, payload);
        self.finish_after(at, last);
        true
    }

    /// Sends a message of `length` bytes whose content is drawn as the client takes it.
    pub(in crate::front) fn send_body(
        &mut self,
        at: StreamRef,
        length: u64,
        source: Box<dyn BodySource>,
        last: bool,
    ) -> bool {
        let Some(stream) = self.streams.live(at.slot, at.id) else {
            return false;
        };
        if stream.end.is_some() {
            return false;
        }
        let Ok(prefix) = long_prefix(length) else {
            return self.finish(at, too_long(length));
        };
        stream.queue.push_back(Chunk::Prefix(prefix, 0));
        stream.queued_bytes += PREFIX_BYTES as u64;
        self.shared.queued_bytes.fetch_add(PREFIX_BYTES, Relaxed);
        if length > 0 {
            stream.queue.push_back(Chunk::Body {
                source,
                left: length,
            });
        }
        self.counts.sent_bytes += length;
        self.make_ready(at.slot);
        self.finish_after(at, last);
        true
    }

    /// Sends messages that are drawn one by one as the client takes them, then the end.
    pub(in crate::front) fn send_messages(
        &mut self,
        at: StreamRef,
        source: Box<dyn MessageSource>,
    ) -> bool {
        let Some(stream) = self.streams.live(at.slot, at.id) else {
            return false;
        };
        if stream.end.is_some() {
            return false;
        }
        stream.queue.push_back(Chunk::Messages(source));
        stream.end = Some(End::Status(ok()));
        self.make_ready(at.slot);
        true
    }

    fn enqueue(&mut self, slot: u32, payload: Payload) {
        let low_water = self.shared.limits.low_water_bytes as u64;
        let length = payload.len();
        let stream = self.streams.at(slot);
        stream.queue.push_back(Chunk::Prefix(prefix(length), 0));
        payload.for_each(|part| {
            if !part.is_empty() {
                stream.queue.push_back(Chunk::Bytes(part));
            }
        });
        stream.queued_bytes += (length + PREFIX_BYTES) as u64;
        self.shared
            .queued_bytes
            .fetch_add(length + PREFIX_BYTES, Relaxed);
        stream.high |= stream.queued_bytes > low_water;
        self.make_ready(slot);
    }

    fn finish_after(&mut self, at: StreamRef, last: bool) {
        if last {
            self.finish(at, ok());
        }
    }

    /// Ends a call once its queue is sent. False if it is gone or already ended.
    pub(in crate::front) fn finish(&mut self, at: StreamRef, status: Status) -> bool {
        self.end(at, End::Status(status))
    }

    /// Ends a stream once its queue is sent.
    pub(super) fn end(&mut self, at: StreamRef, end: End) -> bool {
        let Some(stream) = self.streams.live(at.slot, at.id) else {
            return false;
        };
        if stream.end.is_some() {
            return false;
        }
        if stream.queue.is_empty() {
            self.write_end(at.slot, &end);
        } else {
            stream.end = Some(end);
        }
        true
    }

    /// The response headers of a gRPC call, unless they are sent.
    pub(super) fn write_head(&mut self, slot: u32) {
        let stream = self.streams.at(slot);
        if std::mem::replace(&mut stream.head_sent, true) {
            return;
        }
        let id = stream.id;
        let encoder = &mut self.encoder;
        write_short_block(self.out.tail(), id, 0, |out| encoder.grpc_head(out));
        self.pings.sent_since = true;
    }

    /// The trailers, or the END_STREAM of a bridged answer; the stream is gone then.
    fn write_end(&mut self, slot: u32, end: &End) {
        let stream = self.streams.at(slot);
        let (id, head_sent) = (stream.id, stream.head_sent);
        let remote_closed = stream.remote_closed;
        self.pings.sent_since = true;
        let encoder = &mut self.encoder;
        let out = self.out.tail();
        match end {
            End::Status(status) => {
                write_block(out, id, frame::END_STREAM, |out| {
                    if head_sent {
                        encoder.begin(out);
                    } else {
                        encoder.grpc_head(out);
                    }
                    encoder.status(status, out);
                });
            }
            End::Plain => {
                out.extend_from_slice(&frame::header(0, frame::DATA, frame::END_STREAM, id));
            }
        }
        if remote_closed {
            self.remove_stream(slot, Closed::Normally);
        } else {
            self.write_reset(id, Reason::NoError);
            self.remove_stream(slot, Closed::ByUs);
        }
    }

    /// Answers a request that never became a stream.
    pub(super) fn write_refusal(&mut self, id: u32, http: u16, status: &Status, ended: bool) {
        let encoder = &mut self.encoder;
        write_block(self.out.tail(), id, frame::END_STREAM, |out| {
            encoder.begin(out);
            encode::http_status(http, out);
            encoder.grpc_content_type(out);
            encoder.status(status, out);
        });
        if ended {
            return self.streams.remember(id, Closed::Normally);
        }
        self.write_reset(id, Reason::NoError);
        self.streams.remember(id, Closed::ByUs);
    }

    /// Ends a stream at once with a status; what was queued is dropped.
    pub(in crate::front) fn fail_stream(
        &mut self,
        slot: u32,
        status: &Status,
        events: &mut Vec<Event>,
    ) {
        let stream = self.streams.at(slot);
        if stream.dispatched {
            events.push(Event::Cancel(StreamRef {
                slot,
                id: stream.id,
            }));
        }
        if stream.kind == Kind::Bridge || !stream.queue.is_empty() && stream.head_sent {
            // Part of a message may be out: trailers would end it in the middle.
            let id = stream.id;
            self.write_reset(id, Reason::Cancel);
            return self.remove_stream(slot, Closed::ByUs);
        }
        stream.queue.clear();
        self.write_end(slot, &End::Status(status.clone()));
    }

    /// Forgets a stream and tells the handler if it knows it.
    pub(super) fn drop_stream(&mut self, slot: u32, closed: Closed, events: &mut Vec<Event>) {
        let stream = self.streams.at(slot);
        if stream.dispatched {
            events.push(Event::Cancel(StreamRef {
                slot,
                id: stream.id,
            }));
        }
        self.remove_stream(slot, closed);
    }

    fn remove_stream(&mut self, slot: u32, closed: Closed) {
        self.release(slot);
        if self.streams.at(slot).deadline_ms != 0 {
            self.deadlines -= 1;
        }
        self.streams.remove(slot, closed);
    }

    /// Gives back what a stream counts in the budgets.
    pub(super) fn release(&mut self, slot: u32) {
        self.release_partial(slot);
        let queued = std::mem::take(&mut self.streams.at(slot).queued_bytes);
        if queued > 0 {
            self.shared.queued_bytes.fetch_sub(queued as usize, Relaxed);
        }
    }

    fn write_reset(&mut self, id: u32, reason: Reason) {
        let out = self.out.tail();
        out.extend_from_slice(&frame::header(4, frame::RST_STREAM, 0, id));
        out.extend_from_slice(&(reason as u32).to_be_bytes());
    }

    /// Resets a stream for a fault of the client.
    pub(super) fn reset_faulty(&mut self, id: u32, reason: Reason, events: &mut Vec<Event>) {
        if let Err(Fault::Connection(reason, text)) = self.glitch() {
            return self.fail(reason, text, events);
        }
        self.write_reset(id, reason);
        match self.streams.find(id) {
            Some(slot) => self.drop_stream(slot, Closed::ByUs, events),
            None => self.streams.remember(id, Closed::ByUs),
        }
    }

    /// Ends the connection for a fault of the client.
    pub(super) fn fail(&mut self, reason: Reason, text: &str, events: &mut Vec<Event>) {
        self.violated = true;
        self.write_goaway(self.last_id, reason, text);
        self.close(events);
    }

    /// Drops all streams; the output is still due.
    pub(in crate::front) fn close(&mut self, events: &mut Vec<Event>) {
        self.phase = Phase::Closed;
        self.ready.clear();
        for slot in self.streams.slots() {
            self.drop_stream(slot, Closed::ByUs, events);
        }
    }

    pub(super) fn write_goaway(&mut self, last_id: u32, reason: Reason, text: &str) {
        let out = self.out.tail();
        out.extend_from_slice(&frame::header(8 + text.len(), frame::GOAWAY, 0, 0));
        out.extend_from_slice(&last_id.to_be_bytes());
        out.extend_from_slice(&(reason as u32).to_be_bytes());
        out.extend_from_slice(text.as_bytes());
    }

    pub(super) fn write_ping(&mut self, payload: [u8; 8]) {
        let out = self.out.tail();
        out.extend_from_slice(&frame::header(8, frame::PING, 0, 0));
        out.extend_from_slice(&payload);
    }

    /// Ties whoever answers a bridged request to its stream; at once if that is gone.
    pub(in crate::front) fn keep_bridge(&mut self, at: StreamRef, guard: BridgeGuard) {
        if let Some(stream) = self.streams.live(at.slot, at.id) {
            stream.bridged = Some(guard);
        }
    }

    /// A step of a bridged answer. False if the stream is gone.
    pub(in crate::front) fn send_bridge_part(&mut self, at: StreamRef, part: BridgePart) -> bool {
        let Some(stream) = self.streams.live(at.slot, at.id) else {
            return false;
        };
        match part {
            BridgePart::Head(status, fields) if !stream.head_sent => {
                stream.head_sent = true;
                let encoder = &mut self.encoder;
                write_block(self.out.tail(), at.id, 0, |out| {
                    encoder.begin(out);
                    encode::http_status(status, out);
                    fields
                        .iter()
                        .for_each(|(name, value)| encode::literal(name, value, out));
                });
                true
            }
            BridgePart::Chunk(chunk) if stream.head_sent && stream.end.is_none() => {
                stream.queued_bytes += chunk.len() as u64;
                self.shared.queued_bytes.fetch_add(chunk.len(), Relaxed);
                if !chunk.is_empty() {
                    stream.queue.push_back(Chunk::Bytes(chunk));
                }
                self.make_ready(at.slot);
                true
            }
            BridgePart::End if stream.head_sent => self.end(at, End::Plain),
            _ => {
                self.write_reset(at.id, Reason::InternalError);
                self.remove_stream(at.slot, Closed::ByUs);
                true
            }
        }
    }

    /// Whether [`Self::pump`] would find something to do.
    pub(in crate::front) fn has_ready(&self) -> bool {
        !self.ready.is_empty() && self.send_window > 0 && self.phase != Phase::Closed
    }

    /// Moves what streams have queued into the output, a frame each in turn, as far as windows
    /// and a moderate output allow.
    pub(in crate::front) fn pump(&mut self, events: &mut Vec<Event>) {
        while self.out.len() < OUT_BYTES_TARGET && self.phase != Phase::Closed {
            let Some(slot) = self.ready.pop_front() else {
                break;
            };
            if !std::mem::take(&mut self.streams.at(slot).in_ready) {
                continue;
            }
            match self.serve(slot, events) {
                Turn::More => self.make_ready(slot),
                Turn::Idle => {}
                Turn::ConnectionBlocked => {
                    self.streams.at(slot).in_ready = true;
                    self.ready.push_front(slot);
                    break;
                }
            }
        }
    }

    /// One frame of a stream.
    fn serve(&mut self, slot: u32, events: &mut Vec<Event>) -> Turn {
        let stream = self.streams.at(slot);
        let id = stream.id;
        if !stream.queue.is_empty() {
            let window = i64::from(stream.send_window).min(PAYLOAD_BYTES_MAX as i64);
            if window <= 0 {
                return Turn::Idle;
            }
            let window = window.min(self.send_window);
            if window <= 0 {
                return Turn::ConnectionBlocked;
            }
            let before = stream.queued_bytes;
            let drawn = draw(stream, window as usize);
            let added = (stream.queued_bytes - before) as usize;
            self.shared.queued_bytes.fetch_add(added, Relaxed);
            match drawn {
                Ok(announced) => self.counts.sent_bytes += announced,
                Err(status) => return self.abort_body(slot, &status, events),
            }
            if !stream.queue.is_empty() {
                if stream.kind != Kind::Bridge {
                    self.write_head(slot);
                }
                self.write_data(slot, window as usize);
                self.on_drained(slot, events);
            }
        }
        let stream = self.streams.at(slot);
        if stream.id != id {
            return Turn::Idle;
        }
        if !stream.queue.is_empty() {
            return Turn::More;
        }
        if let Some(end) = stream.end.take() {
            self.write_end(slot, &end);
        }
        Turn::Idle
    }

    /// A body could not go on.
    fn abort_body(&mut self, slot: u32, status: &Status, events: &mut Vec<Event>) -> Turn {
        let stream = self.streams.at(slot);
        if !stream.head_sent {
            stream.queue.clear();
            self.fail_stream(slot, status, events);
        } else {
            let id = stream.id;
            self.write_reset(id, Reason::InternalError);
            self.drop_stream(slot, Closed::ByUs, events);
        }
        Turn::Idle
    }

    /// Writes a DATA frame of up to `window` bytes from the front of the queue.
    fn write_data(&mut self, slot: u32, window: usize) {
        let stream = self.streams.at(slot);
        let at = self.out.tail().len();
        self.out.tail().extend_from_slice(&[0; HEADER_BYTES]);
        let mut left = window;
        while left > 0 {
            match stream.queue.pop_front() {
                Some(Chunk::Prefix(bytes, from)) => {
                    let rest = &bytes[usize::from(from)..];
                    let taken = rest.len().min(left);
                    self.out.tail().extend_from_slice(&rest[..taken]);
                    left -= taken;
                    if taken < rest.len() {
                        stream
                            .queue
                            .push_front(Chunk::Prefix(bytes, from + taken as u8));
                    }
                }
                Some(Chunk::Bytes(mut bytes)) => {
                    let part = bytes.split_to(bytes.len().min(left));
                    left -= part.len();
                    self.out.push(part);
                    if !bytes.is_empty() {
                        stream.queue.push_front(Chunk::Bytes(bytes));
                    }
                }
                Some(later @ (Chunk::Body { .. } | Chunk::Messages(_))) => {
                    stream.queue.push_front(later);
                    break;
                }
                None => break,
            }
        }
        let length = window - left;
        let header = frame::header(length, frame::DATA, 0, stream.id);
        self.out.tail()[at..at + HEADER_BYTES].copy_from_slice(&header);
        stream.queued_bytes -= length as u64;
        self.shared.queued_bytes.fetch_sub(length, Relaxed);
        stream.send_window -= length as i32;
        self.send_window -= length as i64;
        self.pings.sent_since = true;
    }

    /// Announces the end: no new streams after what is on its way. Answers true when every
    /// stream is done and the connection may close.
    pub(in crate::front) fn drain(&mut self) {
        if self.drain == Drain::No && self.phase == Phase::Open {
            self.drain = Drain::Announced;
            self.write_goaway(i32::MAX as u32, Reason::NoError, "graceful_stop");
            self.write_ping(DRAIN_PING);
        }
    }

    /// The second GOAWAY: streams that the client began after the first are known by now.
    pub(in crate::front) fn finish_drain(&mut self) {
        if self.drain == Drain::Announced {
            self.drain = Drain::Final;
            self.write_goaway(self.last_id, Reason::NoError, "");
        }
    }

    /// Nothing is left to do after a drain.
    pub(in crate::front) fn is_drained(&self) -> bool {
        self.drain == Drain::Final && self.streams.len() == 0
    }
}

pub(super) const DRAIN_PING: [u8; 8] = *b"drained?";
pub(super) const KEEP_ALIVE_PING: [u8; 8] = *b"alive???";

/// Makes sure that the front of the queue is bytes, drawing from a body or a source of messages
/// if need be: everything that fits the frame, or one piece. Returns the length of the messages
/// that were announced.
fn draw(stream: &mut Stream, window: usize) -> Result<u64, Status> {
    let mut announced = 0;
    let mut ready = 0;
    let mut at = 0;
    while ready < window {
        match stream.queue.get_mut(at) {
            Some(Chunk::Prefix(_, from)) => ready += PREFIX_BYTES - usize::from(*from),
            Some(Chunk::Bytes(bytes)) => ready += bytes.len(),
            Some(Chunk::Body { source, left }) => {
                let bytes = source.next_chunk(BODY_CHUNK_BYTES)?.unwrap_or_default();
                let length = bytes.len() as u64;
                if length == 0 || length > *left {
                    return Err(wrong_length());
                }
                *left -= length;
                if *left == 0 {
                    stream.queue.remove(at);
                }
                stream.queued_bytes += length;
                stream.queue.insert(at, Chunk::Bytes(bytes));
                return Ok(announced);
            }
            Some(Chunk::Messages(source)) => {
                let next = source.next_message();
                announced += begin_message(stream, at, next);
                continue;
            }
            None => break,
        }
        at += 1;
    }
    Ok(announced)
}

/// Puts what a source of messages gave before it, or takes the source away with the call's end
/// behind it. Returns the message's length.
fn begin_message(stream: &mut Stream, at: usize, next: Result<Option<Drawn>, Status>) -> u64 {
    let next = next.and_then(|message| {
        let framed = message.map(|message| {
            let prefix = long_prefix(message.length).map_err(|_| too_long(message.length))?;
            Ok((prefix, message))
        });
        framed.transpose()
    });
    match next {
        Ok(Some((prefix, Drawn { length, content }))) => {
            stream.queued_bytes += PREFIX_BYTES as u64;
            if length > 0 {
                let body = Chunk::Body {
                    source: content,
                    left: length,
                };
                stream.queue.insert(at, body);
            }
            stream.queue.insert(at, Chunk::Prefix(prefix, 0));
            length
        }
        Ok(None) => {
            stream.queue.truncate(at);
            0
        }
        Err(status) => {
            stream.queue.truncate(at);
            stream.end = Some(End::Status(status));
            0
        }
    }
}

fn wrong_length() -> Status {
    Status::new(
        Code::Internal,
        "a response did not have the length that was announced",
    )
}

fn ok() -> Status {
    Status::new(Code::Ok, "")
}

fn too_long(length: u64) -> Status {
    let text = format!(
        "trying to send message larger than max ({length} vs. {})",
        u32::MAX
    );
    Status::new(Code::ResourceExhausted, text)
}

/// The prefix of a message of any length.
fn long_prefix(length: u64) -> Result<[u8; PREFIX_BYTES], std::num::TryFromIntError> {
    u32::try_from(length).map(|length| prefix(length as usize))
}

/// The five bytes before a message.
fn prefix(length: usize) -> [u8; PREFIX_BYTES] {
    let [l0, l1, l2, l3] = (length as u32).to_be_bytes();
    [0, l0, l1, l2, l3]
}

/// A HEADERS frame whose block is known to fit.
fn write_short_block(out: &mut Vec<u8>, id: u32, flags: u8, write: impl FnOnce(&mut Vec<u8>)) {
    let at = out.len();
    out.extend_from_slice(&[0; HEADER_BYTES]);
    write(out);
    let length = out.len() - at - HEADER_BYTES;
    let header = frame::header(length, frame::HEADERS, flags | frame::END_HEADERS, id);
    out[at..at + HEADER_BYTES].copy_from_slice(&header);
}

/// HEADERS and as many CONTINUATION frames as the block needs.
pub(super) fn write_block(out: &mut Vec<u8>, id: u32, flags: u8, write: impl FnOnce(&mut Vec<u8>)) {
    let at = out.len();
    write_short_block(out, id, flags, write);
    let length = out.len() - at - HEADER_BYTES;
    if length <= PAYLOAD_BYTES_MAX {
        return;
    }
    let block: Bytes = out.split_off(at + HEADER_BYTES).into();
    out.truncate(at);
    let pieces = block.len().div_ceil(PAYLOAD_BYTES_MAX);
    for (number, piece) in block.chunks(PAYLOAD_BYTES_MAX).enumerate() {
        let (kind, flags) = if number == 0 {
            (frame::HEADERS, flags)
        } else {
            (frame::CONTINUATION, 0)
        };
        let end = if number + 1 == pieces {
            frame::END_HEADERS
        } else {
            0
        };
        out.extend_from_slice(&frame::header(piece.len(), kind, flags | end, id));
        out.extend_from_slice(piece);
    }
}
