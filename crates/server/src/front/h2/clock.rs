//! What time does to a connection: deadlines, keep-alive, and the judgement of a client's pings.

use std::sync::atomic::Ordering::Relaxed;

use api::{Code, Status};

use super::frame::Reason;
use super::send::{DRAIN_PING, KEEP_ALIVE_PING};
use super::{Conn, Event, Fault, Phase};

/// Pings of a client without streams: the least interval (grpc-go's `defaultPingTimeout`).
const IDLE_PING_MS: u64 = 2 * 3600 * 1000;
/// That many pings in too short intervals are forgiven.
const STRIKES_MAX: u32 = 2;

impl Conn {
    /// Ends calls whose time is over and keeps the connection alive. False if the peer is gone.
    pub(in crate::front) fn tick(&mut self, now_ms: u64, events: &mut Vec<Event>) -> bool {
        self.now_ms = now_ms;
        if self.deadlines > 0 {
            self.end_late_calls(events);
        }
        if self.streams.shrink() {
            self.shared
                .stream_slots
                .fetch_sub(self.slots_counted, Relaxed);
            self.slots_counted = 0;
        }
        let keep_alive = &self.shared.limits.keep_alive;
        if keep_alive.interval.is_zero() || self.phase != Phase::Open {
            return true;
        }
        let sent_ms = self.pings.sent_ms;
        if sent_ms != 0 {
            if self.heard_ms < sent_ms {
                return now_ms.saturating_sub(sent_ms) < keep_alive.timeout.as_millis() as u64;
            }
            self.pings.sent_ms = 0;
        }
        if now_ms.saturating_sub(self.heard_ms) >= keep_alive.interval.as_millis() as u64 {
            self.pings.sent_ms = now_ms;
            self.write_ping(KEEP_ALIVE_PING);
        }
        true
    }

    fn end_late_calls(&mut self, events: &mut Vec<Event>) {
        let now_ms = self.now_ms;
        let due = |deadline_ms: u64| deadline_ms != 0 && deadline_ms <= now_ms;
        let late_slots: Vec<u32> = self
            .streams
            .iter_mut()
            .filter(|(_, stream)| due(stream.deadline_ms))
            .map(|(slot, _)| slot)
            .collect();
        for slot in late_slots {
            self.fail_stream(slot, &late(), events);
        }
    }

    pub(super) fn on_pong(&mut self, payload: &[u8]) {
        if payload == DRAIN_PING {
            self.finish_drain();
        }
    }

    /// Go's enforcement policy: pings in too short intervals, unless something was sent in
    /// between, are strikes, and the third ends the connection.
    pub(super) fn judge_ping(&mut self) -> Result<(), Fault> {
        let keep_alive = &self.shared.limits.keep_alive;
        let last_ms = std::mem::replace(&mut self.pings.received_ms, self.now_ms);
        if std::mem::take(&mut self.pings.sent_since) {
            self.pings.strikes = 0;
            return Ok(());
        }
        if !keep_alive.strict || last_ms == 0 {
            return Ok(());
        }
        let min_ms = if self.streams.len() == 0 {
            IDLE_PING_MS
        } else {
            keep_alive.min_time.as_millis() as u64
        };
        if self.now_ms < last_ms + min_ms {
            self.pings.strikes += 1;
        }
        if self.pings.strikes > STRIKES_MAX {
            return Err(Fault::Connection(Reason::EnhanceYourCalm, "too_many_pings"));
        }
        Ok(())
    }
}

/// The status of a call whose time is over.
pub(super) fn late() -> Status {
    Status::new(Code::DeadlineExceeded, "context deadline exceeded")
}
