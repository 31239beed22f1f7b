//! DATA frames and the gRPC messages in them.

use std::sync::atomic::Ordering::Relaxed;

use api::{Code, Status};
use bytes::Bytes;

use super::super::grpc::{self, InflateError, PREFIX_BYTES};
use super::frame::{self, Header, Reason};
use super::receive::{protocol, unpad};
use super::stream::{Closed, Kind};
use super::{Conn, Event, Fault, StreamRef};

/// Where the buffer of an incomplete message starts.
const PARTIAL_BYTES_MIN: usize = 4096;

impl Conn {
    pub(super) fn data(
        &mut self,
        header: Header,
        payload: &[u8],
        events: &mut Vec<Event>,
    ) -> Result<(), Fault> {
        if header.stream == 0 {
            return Err(protocol("DATA on stream 0"));
        }
        self.take_connection_window(payload.len())?;
        let data = unpad(header, payload)?;
        let end_stream = header.has(frame::END_STREAM);
        let Some(slot) = self.streams.find(header.stream) else {
            return self.late_data(header.stream);
        };
        let stream = self.streams.at(slot);
        if stream.remote_closed {
            return Err(Fault::Stream(header.stream, Reason::StreamClosed));
        }
        stream.recv_window -= payload.len() as i32;
        if stream.recv_window < 0 {
            return Err(Fault::Stream(header.stream, Reason::FlowControlError));
        }
        if let Some(left) = &mut stream.content_left {
            *left = left
                .checked_sub(data.len() as u64)
                .ok_or(Fault::Stream(header.stream, Reason::ProtocolError))?;
        }
        stream.remote_closed = end_stream;
        if data.is_empty() && !end_stream {
            self.glitch()?;
        } else if let Err(status) = self.deframe(slot, data, events) {
            self.fail_stream(slot, &status, events);
            return Ok(());
        }
        if end_stream {
            return self.half_close(slot, events);
        }
        self.give_stream_window(slot);
        Ok(())
    }

    /// DATA for a stream that is gone.
    fn late_data(&mut self, id: u32) -> Result<(), Fault> {
        if self.is_idle(id) {
            return Err(protocol("DATA on an idle stream"));
        }
        if id > self.last_id || self.streams.closed(id) == Some(Closed::ByUs) {
            return Ok(());
        }
        Err(Fault::Stream(id, Reason::StreamClosed))
    }

    /// Cuts messages out of a stream's bytes.
    fn deframe(
        &mut self,
        slot: u32,
        mut data: &[u8],
        events: &mut Vec<Event>,
    ) -> Result<(), Status> {
        if self.streams.at(slot).kind == Kind::Bridge {
            return self.extend_partial(slot, data, usize::MAX);
        }
        loop {
            let stream = self.streams.at(slot);
            if stream.delivered {
                // A unary request is one message; grpc-go does not look at more either.
                return Ok(());
            }
            let partial = &mut stream.partial;
            let need = match partial.need {
                Some(need) => need,
                None => {
                    let missing = PREFIX_BYTES - usize::from(partial.prefix_len);
                    let taken = missing.min(data.len());
                    let (part, rest) = data.split_at(taken);
                    let from = usize::from(partial.prefix_len);
                    partial.prefix[from..from + taken].copy_from_slice(part);
                    partial.prefix_len += taken as u8;
                    data = rest;
                    if taken < missing {
                        return Ok(());
                    }
                    let need = self.check_prefix(slot)?;
                    self.streams.at(slot).partial.need = Some(need);
                    need
                }
            };
            let partial = &mut self.streams.at(slot).partial;
            let missing = need - partial.bytes.len();
            let Some((part, rest)) = data.split_at_checked(missing) else {
                return self.extend_partial(slot, data, need);
            };
            data = rest;
            let message = if partial.bytes.is_empty() {
                Bytes::copy_from_slice(part)
            } else {
                self.extend_partial(slot, part, need)?;
                self.take_partial(slot)
            };
            self.message(slot, message, events)?;
        }
    }

    /// The length in a complete prefix, if its message is acceptable.
    fn check_prefix(&mut self, slot: u32) -> Result<usize, Status> {
        let bytes_max = self.shared.limits.message_bytes_max;
        let stream = self.streams.at(slot);
        let [flag, length @ ..] = stream.partial.prefix;
        let length = u32::from_be_bytes(length) as usize;
        if flag > 1 {
            let text = format!("grpc: received unexpected payload format {flag}");
            return Err(Status::new(Code::Internal, text));
        }
        if length > bytes_max {
            let text = format!("grpc: received message larger than max ({length} vs. {bytes_max})");
            return Err(Status::new(Code::ResourceExhausted, text));
        }
        if flag == 1 && !stream.gzip {
            let text = "grpc: compressed flag set with identity or empty encoding";
            return Err(Status::new(Code::Internal, text));
        }
        Ok(length)
    }

    /// Adds to an incomplete message of `need` bytes, within the budget of all connections.
    fn extend_partial(&mut self, slot: u32, data: &[u8], need: usize) -> Result<(), Status> {
        let partial = &mut self.streams.at(slot).partial;
        let length = partial.bytes.len() + data.len();
        let limits = &self.shared.limits;
        if need == usize::MAX && length > limits.message_bytes_max {
            return Err(Status::new(
                Code::ResourceExhausted,
                "request body too large",
            ));
        }
        if length > partial.bytes.capacity() {
            let before = partial.bytes.capacity();
            let after = length.max(2 * before).max(PARTIAL_BYTES_MIN).min(need);
            self.reserve_partial(slot, after - before)?;
            let partial = &mut self.streams.at(slot).partial;
            partial.bytes.reserve_exact(after - partial.bytes.len());
        }
        self.streams.at(slot).partial.bytes.extend_from_slice(data);
        Ok(())
    }

    /// Counts bytes of an incomplete request in the budget of all connections.
    pub(super) fn reserve_partial(&mut self, slot: u32, more: usize) -> Result<(), Status> {
        let before = self.shared.partial_bytes.fetch_add(more, Relaxed);
        self.streams.at(slot).partial.reserved += more;
        if before + more > self.shared.limits.partial_bytes_max {
            return Err(Status::new(
                Code::ResourceExhausted,
                "too many incomplete requests",
            ));
        }
        Ok(())
    }

    /// The bytes of the incomplete message; it is over.
    fn take_partial(&mut self, slot: u32) -> Bytes {
        self.release_partial(slot);
        std::mem::take(&mut self.streams.at(slot).partial.bytes).into()
    }

    pub(super) fn release_partial(&mut self, slot: u32) {
        let partial = &mut self.streams.at(slot).partial;
        let reserved = std::mem::take(&mut partial.reserved);
        if reserved > 0 {
            self.shared.partial_bytes.fetch_sub(reserved, Relaxed);
        }
    }

    /// A complete message, as it came.
    fn message(
        &mut self,
        slot: u32,
        message: Bytes,
        events: &mut Vec<Event>,
    ) -> Result<(), Status> {
        let bytes_max = self.shared.limits.message_bytes_max;
        let stream = self.streams.at(slot);
        let compressed = stream.partial.prefix[0] == 1;
        stream.partial.prefix_len = 0;
        stream.partial.need = None;
        let message = if compressed {
            inflate(&message, bytes_max)?
        } else {
            message
        };
        self.counts.received_bytes += message.len() as u64;
        let at = StreamRef {
            slot,
            id: stream.id,
        };
        if stream.kind == Kind::Unary {
            stream.delivered = true;
            events.push(Event::Unary(at, std::mem::take(&mut stream.head), message));
        } else {
            events.push(Event::Message(at, message));
        }
        Ok(())
    }

    /// The client will send no more on this stream.
    pub(super) fn half_close(&mut self, slot: u32, events: &mut Vec<Event>) -> Result<(), Fault> {
        let stream = self.streams.at(slot);
        let id = stream.id;
        if stream.content_left.is_some_and(|left| left > 0) {
            return Err(Fault::Stream(id, Reason::ProtocolError));
        }
        stream.remote_closed = true;
        let at = StreamRef { slot, id };
        if stream.kind == Kind::Bridge {
            let head = stream.bridge.take().unwrap_or_default();
            let body = self.take_partial(slot);
            events.push(Event::Bridge(at, head.fields, body));
            return Ok(());
        }
        let status = if !stream.partial.is_empty() {
            Status::new(Code::Internal, "unexpected EOF")
        } else if stream.kind == Kind::Streaming {
            events.push(Event::HalfClose(at));
            return Ok(());
        } else if stream.delivered {
            return Ok(());
        } else {
            Status::new(
                Code::Internal,
                "cardinality violation: received no request message",
            )
        };
        self.fail_stream(slot, &status, events);
        Ok(())
    }
}

fn inflate(message: &[u8], bytes_max: usize) -> Result<Bytes, Status> {
    grpc::inflate(message, bytes_max).map_err(|error| match error {
        InflateError::Damaged => Status::new(
            Code::Internal,
            "grpc: failed to decompress the received message",
        ),
        InflateError::TooLarge => Status::new(
            Code::ResourceExhausted,
            format!("grpc: received message after decompression larger than max {bytes_max}"),
        ),
    })
}
