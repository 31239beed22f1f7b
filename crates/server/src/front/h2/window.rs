//! Flow control in both directions (RFC 9113 §5.2, §6.9).

use super::frame::{self, Header, Reason, WINDOW_MAX};
use super::receive::protocol;
use super::stream::Kind;
use super::{Conn, Event, Fault, StreamRef};

/// A stream with this much queued gets no more window to send requests.
const QUEUED_BYTES_MAX: u64 = 1024 * 1024;

impl Conn {
    /// Counts a DATA payload against the connection and gives the window back when half is used:
    /// memory is bounded by streams and messages, so a slow one does not stop the others.
    pub(super) fn take_connection_window(&mut self, bytes: usize) -> Result<(), Fault> {
        self.recv_window -= bytes as i64;
        if self.recv_window < 0 {
            return Err(Fault::Connection(
                Reason::FlowControlError,
                "connection window",
            ));
        }
        let full = i64::from(self.shared.limits.connection_window_bytes);
        if self.recv_window < full / 2 {
            self.write_window_update(0, (full - self.recv_window) as u32);
            self.recv_window = full;
        }
        Ok(())
    }

    /// Gives a stream its window back when half is used, unless its calls are not being answered.
    pub(super) fn give_stream_window(&mut self, slot: u32) {
        let full = self.shared.limits.stream_window_bytes as i32;
        let stream = self.streams.at(slot);
        if stream.recv_window >= full / 2
            || stream.remote_closed
            || stream.held
            || stream.delivered
            || stream.queued_bytes > QUEUED_BYTES_MAX
        {
            return;
        }
        let (id, more) = (stream.id, full - stream.recv_window);
        stream.recv_window = full;
        self.write_window_update(id, more as u32);
    }

    pub(super) fn write_window_update(&mut self, id: u32, more: u32) {
        let out = self.out.tail();
        out.extend_from_slice(&frame::header(4, frame::WINDOW_UPDATE, 0, id));
        out.extend_from_slice(&more.to_be_bytes());
    }

    pub(super) fn window_update(&mut self, header: Header, payload: &[u8]) -> Result<(), Fault> {
        let Ok(more) = <[u8; 4]>::try_from(payload) else {
            return Err(Fault::Connection(
                Reason::FrameSizeError,
                "WINDOW_UPDATE size",
            ));
        };
        let more = (u32::from_be_bytes(more) & 0x7fff_ffff) as i32;
        if header.stream == 0 {
            if more == 0 {
                return Err(protocol("WINDOW_UPDATE of zero"));
            }
            self.send_window += i64::from(more);
            if self.send_window > i64::from(WINDOW_MAX) {
                return Err(Fault::Connection(Reason::FlowControlError, "send window"));
            }
            return Ok(());
        }
        if self.is_idle(header.stream) {
            return Err(protocol("WINDOW_UPDATE on an idle stream"));
        }
        if more == 0 {
            return Err(Fault::Stream(header.stream, Reason::ProtocolError));
        }
        let Some(slot) = self.streams.find(header.stream) else {
            return Ok(());
        };
        let stream = self.streams.at(slot);
        stream.send_window = stream
            .send_window
            .checked_add(more)
            .ok_or(Fault::Stream(header.stream, Reason::FlowControlError))?;
        self.make_ready(slot);
        Ok(())
    }

    /// SETTINGS_INITIAL_WINDOW_SIZE changes the windows of the streams that exist.
    pub(super) fn change_stream_windows(&mut self, window: i32) -> Result<(), Fault> {
        let change = i64::from(window) - i64::from(self.peer_stream_window);
        self.peer_stream_window = window;
        if change == 0 {
            return Ok(());
        }
        for slot in self.streams.slots() {
            let stream = self.streams.at(slot);
            let changed = i64::from(stream.send_window) + change;
            stream.send_window = i32::try_from(changed)
                .map_err(|_| Fault::Connection(Reason::FlowControlError, "initial window"))?;
            self.make_ready(slot);
        }
        Ok(())
    }

    /// Lists a stream among those to be served if it has something that may be sent.
    pub(super) fn make_ready(&mut self, slot: u32) {
        let stream = self.streams.at(slot);
        let sendable = if stream.queue.is_empty() {
            stream.end.is_some()
        } else {
            stream.send_window > 0
        };
        if sendable && !stream.in_ready {
            stream.in_ready = true;
            self.ready.push_back(slot);
        }
    }

    /// What is queued on a stream became less.
    pub(super) fn on_drained(&mut self, slot: u32, events: &mut Vec<Event>) {
        let low_water = self.shared.limits.low_water_bytes as u64;
        let stream = self.streams.at(slot);
        if stream.high && stream.queued_bytes <= low_water {
            stream.high = false;
            if stream.kind != Kind::Bridge {
                events.push(Event::Writable(StreamRef {
                    slot,
                    id: stream.id,
                }));
            }
        }
        self.give_stream_window(slot);
    }

    /// Stops giving the client window on this stream, until it is resumed.
    pub(in crate::front) fn hold(&mut self, at: StreamRef, held: bool) {
        if let Some(stream) = self.streams.live(at.slot, at.id) {
            stream.held = held;
            if !held {
                self.give_stream_window(at.slot);
            }
        }
    }
}
