//! The receiving half: frames of the client.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::clock::late;
use super::frame::{self, HEADER_BYTES, Header, PAYLOAD_BYTES_MAX, PREFACE, Reason};
use super::request::{Accepted, Draft, Ignored, Verdict};
use super::stream::{Closed, Kind};
use super::{Conn, Drain, Event, Fault, Phase, StreamRef};

/// Streams of one connection, whatever number was announced.
const STREAMS_MAX: usize = 65_536;
/// Header values up to this length are not counted as part of an incomplete request.
const HEAD_BYTES_FREE: usize = 1024;
/// A header block that comes in more pieces is a flood.
const BLOCK_FRAMES_MAX: u32 = 64;

impl Conn {
    /// Takes what the peer sent; returns how much of it was used. The rest is the beginning of a
    /// frame, to be passed again with more behind it.
    pub(in crate::front) fn receive(
        &mut self,
        input: &[u8],
        now_ms: u64,
        events: &mut Vec<Event>,
    ) -> usize {
        self.now_ms = now_ms;
        self.heard_ms = now_ms;
        let mut used = 0;
        if self.phase == Phase::Preface {
            let known = input.len().min(PREFACE.len());
            if input[..known] != PREFACE[..known] {
                self.fail(Reason::ProtocolError, "invalid preface", events);
                return input.len();
            }
            if known < PREFACE.len() {
                return 0;
            }
            used = PREFACE.len();
            self.phase = Phase::Settings;
        }
        while self.phase != Phase::Closed {
            let Some(bytes) = input[used..].first_chunk::<HEADER_BYTES>() else {
                return used;
            };
            let header = Header::parse(bytes);
            let start = used + HEADER_BYTES;
            if header.length > PAYLOAD_BYTES_MAX {
                self.fail(Reason::FrameSizeError, "frame too large", events);
                break;
            }
            let Some(payload) = input.get(start..start + header.length) else {
                return used;
            };
            used = start + header.length;
            match self.frame(header, payload, events) {
                Ok(()) => {}
                Err(Fault::Stream(id, reason)) => {
                    self.reset_faulty(id, reason, events);
                }
                Err(Fault::Connection(reason, text)) => self.fail(reason, text, events),
            }
        }
        input.len()
    }

    fn frame(
        &mut self,
        header: Header,
        payload: &[u8],
        events: &mut Vec<Event>,
    ) -> Result<(), Fault> {
        if self.phase == Phase::Settings
            && (header.kind != frame::SETTINGS || header.has(frame::ACK))
        {
            return Err(protocol("SETTINGS expected"));
        }
        if self.open_block.stream != 0
            && (header.kind != frame::CONTINUATION || header.stream != self.open_block.stream)
        {
            return Err(protocol("CONTINUATION expected"));
        }
        match header.kind {
            frame::DATA => self.data(header, payload, events),
            frame::HEADERS => self.headers(header, payload, events),
            frame::CONTINUATION => self.continuation(header, payload, events),
            frame::WINDOW_UPDATE => self.window_update(header, payload),
            frame::RST_STREAM => self.rst_stream(header, payload, events),
            frame::PING => self.ping(header, payload),
            frame::SETTINGS => self.settings(header, payload),
            frame::PRIORITY => self.priority(header, payload),
            frame::PUSH_PROMISE => Err(protocol("PUSH_PROMISE from a client")),
            frame::GOAWAY if header.stream != 0 => Err(protocol("GOAWAY on a stream")),
            _ => self.glitch(),
        }
    }

    /// Counts an event that costs us something and brings the client nothing.
    pub(super) fn glitch(&mut self) -> Result<(), Fault> {
        if self.glitches.take(self.now_ms) {
            Ok(())
        } else {
            Err(Fault::Connection(
                Reason::EnhanceYourCalm,
                "too many useless frames",
            ))
        }
    }

    /// Whether the client never used this id. After the last GOAWAY newer streams are ignored, and
    /// so are their frames.
    pub(super) fn is_idle(&self, id: u32) -> bool {
        (id > self.last_id && self.drain != Drain::Final) || id.is_multiple_of(2)
    }

    fn headers(
        &mut self,
        header: Header,
        payload: &[u8],
        events: &mut Vec<Event>,
    ) -> Result<(), Fault> {
        if header.stream.is_multiple_of(2) {
            return Err(protocol("HEADERS on a stream that no client opens"));
        }
        let mut block = unpad(header, payload)?;
        let mut self_dependent = false;
        if header.has(frame::PRIORITIZED) {
            let (priority, rest) = block.split_first_chunk::<5>().ok_or(Fault::Connection(
                Reason::FrameSizeError,
                "HEADERS without priority",
            ))?;
            let [d0, d1, d2, d3, _] = *priority;
            self_dependent = u32::from_be_bytes([d0 & 0x7f, d1, d2, d3]) == header.stream;
            block = rest;
        }
        let end_stream = header.has(frame::END_STREAM);
        if !header.has(frame::END_HEADERS) {
            self.open_block.stream = header.stream;
            self.open_block.end_stream = end_stream;
            self.open_block.frames = 1;
            return self.extend_block(block);
        }
        self.block(header.stream, end_stream, block, events)?;
        if self_dependent {
            return Err(Fault::Stream(header.stream, Reason::ProtocolError));
        }
        Ok(())
    }

    fn continuation(
        &mut self,
        header: Header,
        payload: &[u8],
        events: &mut Vec<Event>,
    ) -> Result<(), Fault> {
        if self.open_block.stream == 0 {
            return Err(protocol("CONTINUATION without HEADERS"));
        }
        self.open_block.frames += 1;
        self.extend_block(payload)?;
        if header.has(frame::END_HEADERS) {
            let open = std::mem::take(&mut self.open_block);
            return self.block(open.stream, open.end_stream, &open.bytes, events);
        }
        Ok(())
    }

    fn extend_block(&mut self, part: &[u8]) -> Result<(), Fault> {
        let open = &mut self.open_block;
        let bytes_max = self
            .shared
            .limits
            .header_list_bytes_max
            .max(PAYLOAD_BYTES_MAX);
        if open.bytes.len() + part.len() > bytes_max || open.frames > BLOCK_FRAMES_MAX {
            return Err(Fault::Connection(
                Reason::EnhanceYourCalm,
                "header block too large",
            ));
        }
        open.bytes.extend_from_slice(part);
        Ok(())
    }

    /// A complete header block: a new request, or the end of a known one.
    fn block(
        &mut self,
        id: u32,
        end_stream: bool,
        block: &[u8],
        events: &mut Vec<Event>,
    ) -> Result<(), Fault> {
        if let Some(slot) = self.streams.find(id) {
            self.ignore_block(block)?;
            if self.streams.at(slot).remote_closed {
                return Err(Fault::Stream(id, Reason::StreamClosed));
            }
            if !end_stream {
                return Err(Fault::Stream(id, Reason::ProtocolError));
            }
            return self.half_close(slot, events);
        }
        if id <= self.last_id {
            self.ignore_block(block)?;
            return match self.streams.closed(id) {
                Some(Closed::ByUs) => Ok(()),
                Some(_) => Err(Fault::Connection(
                    Reason::StreamClosed,
                    "HEADERS after the end",
                )),
                None => Err(protocol("stream ids must rise")),
            };
        }
        if self.drain == Drain::Final {
            return self.ignore_block(block);
        }
        self.last_id = id;
        if !self.has_room() {
            self.ignore_block(block)?;
            return Err(Fault::Stream(id, Reason::RefusedStream));
        }
        let limits = &self.shared.limits;
        let mut draft = Draft::new(
            &self.shared.routes,
            limits.header_list_bytes_max,
            self.bridging,
        );
        self.decoder
            .decode(block, &mut draft)
            .map_err(|_| compression())?;
        match draft.finish() {
            Verdict::Malformed => Err(Fault::Stream(id, Reason::ProtocolError)),
            Verdict::TooLarge => Err(Fault::Stream(id, Reason::FrameSizeError)),
            Verdict::Refuse(http, status) => {
                self.write_refusal(id, http, &status, end_stream);
                Ok(())
            }
            Verdict::Accept(accepted) => self.accept(id, accepted, end_stream, events),
        }
    }

    /// Whether limits allow one more stream.
    fn has_room(&self) -> bool {
        let limits = &self.shared.limits;
        let count = self.streams.len();
        count < (limits.concurrent_streams_max as usize).min(STREAMS_MAX)
            && (count < self.slots_counted
                || self.shared.stream_slots.load(Relaxed) < limits.streams_max)
            && self.shared.queued_bytes.load(Relaxed) < limits.queued_bytes_max
    }

    fn ignore_block(&mut self, block: &[u8]) -> Result<(), Fault> {
        self.glitch()?;
        let mut ignored = Ignored(&self.shared.routes);
        self.decoder
            .decode(block, &mut ignored)
            .map_err(|_| compression())
    }

    fn accept(
        &mut self,
        id: u32,
        accepted: Accepted,
        end_stream: bool,
        events: &mut Vec<Event>,
    ) -> Result<(), Fault> {
        let slot = self.streams.insert(id);
        if self.streams.slot_count() > self.slots_counted {
            self.slots_counted += 1;
            self.shared.stream_slots.fetch_add(1, Relaxed);
        }
        let kept_bytes = accepted.kept_bytes();
        let stream = self.streams.at(slot);
        stream.kind = accepted.kind;
        stream.gzip = accepted.gzip;
        stream.remote_closed = end_stream;
        stream.content_left = accepted.content_length;
        stream.send_window = self.peer_stream_window;
        stream.recv_window = self.shared.limits.stream_window_bytes as i32;
        stream.bridge = accepted.bridge;
        let timeout = accepted.head.timeout;
        if let Some(timeout) = timeout {
            let timeout_ms = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
            stream.deadline_ms = self.now_ms.saturating_add(timeout_ms).max(1);
            self.deadlines += 1;
        }
        self.counts.calls += 1;
        if timeout == Some(Duration::ZERO) {
            self.fail_stream(slot, &late(), events);
            return Ok(());
        }
        if kept_bytes > HEAD_BYTES_FREE
            && let Err(status) = self.reserve_partial(slot, kept_bytes)
        {
            self.fail_stream(slot, &status, events);
            return Ok(());
        }
        let stream = self.streams.at(slot);
        if accepted.kind == Kind::Streaming {
            events.push(Event::Open(StreamRef { slot, id }, accepted.head));
        } else {
            stream.head = accepted.head;
        }
        if end_stream {
            return self.half_close(slot, events);
        }
        Ok(())
    }

    fn rst_stream(
        &mut self,
        header: Header,
        payload: &[u8],
        events: &mut Vec<Event>,
    ) -> Result<(), Fault> {
        if payload.len() != 4 {
            return Err(Fault::Connection(Reason::FrameSizeError, "RST_STREAM size"));
        }
        if self.is_idle(header.stream) {
            return Err(protocol("RST_STREAM on an idle stream"));
        }
        if !self.resets.take(self.now_ms) {
            return Err(Fault::Connection(
                Reason::EnhanceYourCalm,
                "too many resets",
            ));
        }
        if let Some(slot) = self.streams.find(header.stream) {
            self.drop_stream(slot, Closed::ByPeer, events);
        }
        Ok(())
    }

    fn ping(&mut self, header: Header, payload: &[u8]) -> Result<(), Fault> {
        if payload.len() != 8 {
            return Err(Fault::Connection(Reason::FrameSizeError, "PING size"));
        }
        if header.stream != 0 {
            return Err(protocol("PING on a stream"));
        }
        if header.has(frame::ACK) {
            self.on_pong(payload);
            return Ok(());
        }
        let answer = self.pings.sent_since || self.ping_answers.take(self.now_ms);
        self.judge_ping()?;
        if answer {
            let out = self.out.tail();
            out.extend_from_slice(&frame::header(8, frame::PING, frame::ACK, 0));
            out.extend_from_slice(payload);
        }
        Ok(())
    }

    fn settings(&mut self, header: Header, payload: &[u8]) -> Result<(), Fault> {
        if header.stream != 0 {
            return Err(protocol("SETTINGS on a stream"));
        }
        let size = Fault::Connection(Reason::FrameSizeError, "SETTINGS size");
        if header.has(frame::ACK) {
            return if payload.is_empty() {
                self.glitch()
            } else {
                Err(size)
            };
        }
        let (settings, []) = payload.as_chunks::<6>() else {
            return Err(size);
        };
        if !self.settings_frames.take(self.now_ms) {
            return Err(Fault::Connection(
                Reason::EnhanceYourCalm,
                "too many SETTINGS",
            ));
        }
        for [n0, n1, v0, v1, v2, v3] in settings {
            let name = u16::from_be_bytes([*n0, *n1]);
            self.setting(name, u32::from_be_bytes([*v0, *v1, *v2, *v3]))?;
        }
        self.phase = Phase::Open;
        let out = self.out.tail();
        out.extend_from_slice(&frame::header(0, frame::SETTINGS, frame::ACK, 0));
        Ok(())
    }

    fn setting(&mut self, name: u16, value: u32) -> Result<(), Fault> {
        match name {
            frame::SETTING_HEADER_TABLE_SIZE => self.encoder.on_table_size(value),
            frame::SETTING_ENABLE_PUSH if value > 1 => return Err(protocol("ENABLE_PUSH")),
            frame::SETTING_INITIAL_WINDOW_SIZE => {
                let window = i32::try_from(value)
                    .map_err(|_| Fault::Connection(Reason::FlowControlError, "initial window"))?;
                return self.change_stream_windows(window);
            }
            // Larger frames than the default are never sent, so only the range matters.
            frame::SETTING_MAX_FRAME_SIZE
                if !(PAYLOAD_BYTES_MAX as u32..1 << 24).contains(&value) =>
            {
                return Err(protocol("MAX_FRAME_SIZE"));
            }
            _ => {}
        }
        Ok(())
    }

    fn priority(&mut self, header: Header, payload: &[u8]) -> Result<(), Fault> {
        if header.stream == 0 {
            return Err(protocol("PRIORITY on stream 0"));
        }
        self.glitch()?;
        let Ok([d0, d1, d2, d3, _]) = <[u8; 5]>::try_from(payload) else {
            return Err(Fault::Stream(header.stream, Reason::FrameSizeError));
        };
        if u32::from_be_bytes([d0 & 0x7f, d1, d2, d3]) == header.stream {
            return Err(Fault::Stream(header.stream, Reason::ProtocolError));
        }
        Ok(())
    }
}

/// The payload without padding.
pub(super) fn unpad(header: Header, payload: &[u8]) -> Result<&[u8], Fault> {
    if !header.has(frame::PADDED) {
        return Ok(payload);
    }
    let (&padding, rest) = payload.split_first().ok_or(Fault::Connection(
        Reason::FrameSizeError,
        "padded frame without length",
    ))?;
    let length = rest
        .len()
        .checked_sub(usize::from(padding))
        .ok_or(protocol("more padding than payload"))?;
    Ok(&rest[..length])
}

pub(super) fn protocol(text: &'static str) -> Fault {
    Fault::Connection(Reason::ProtocolError, text)
}

fn compression() -> Fault {
    Fault::Connection(Reason::CompressionError, "header block")
}
