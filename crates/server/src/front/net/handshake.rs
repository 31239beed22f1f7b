//! Bounds of TLS handshakes on one net thread: how many are under way, and how much of a turn
//! they may take from the connections that stand.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// What handshakes may take of one turn; a step with an RSA key costs about a millisecond, and at
/// least one is taken in every turn.
const TURN: Duration = Duration::from_millis(1);
/// Lines about refused clients that are logged at once, and how long the next one then waits.
const LINES_MAX: u32 = 20;
const LINE_PERIOD: Duration = Duration::from_millis(200);

pub(super) struct Handshakes {
    /// Connections in the order of their arrival, some of which may be done.
    queue: VecDeque<(u32, u32)>,
    /// Those of them that are not.
    open: usize,
    spent: Duration,
    lines: u32,
    line_earned: Option<Instant>,
}

impl Handshakes {
    pub(super) fn new() -> Self {
        Handshakes {
            queue: VecDeque::new(),
            open: 0,
            spent: Duration::ZERO,
            lines: LINES_MAX,
            line_earned: None,
        }
    }

    pub(super) fn begin_turn(&mut self) {
        self.spent = Duration::ZERO;
    }

    /// Whether the others wait long enough already.
    pub(super) fn is_turn_over(&self) -> bool {
        self.spent >= TURN
    }

    pub(super) fn spend(&mut self, time: Duration) {
        self.spent += time;
    }

    /// A connection begins; the oldest one when there are more than `limit`.
    pub(super) fn begin(
        &mut self,
        index: u32,
        generation: u32,
        limit: usize,
        is_open: impl Fn(u32, u32) -> bool,
    ) -> Option<u32> {
        self.queue.push_back((index, generation));
        self.open += 1;
        // Most are done in milliseconds: the queue is swept when it is mostly that.
        if self.queue.len() > 2 * self.open + 64 {
            self.queue
                .retain(|(index, generation)| is_open(*index, *generation));
        }
        if self.open <= limit {
            return None;
        }
        while let Some((index, generation)) = self.queue.pop_front() {
            if is_open(index, generation) {
                return Some(index);
            }
        }
        None
    }

    /// One is done, well or not.
    pub(super) fn end(&mut self) {
        self.open -= 1;
    }

    /// Whether a refused client may be logged: a flood of them must not fill the disk.
    pub(super) fn may_log(&mut self, now: Instant) -> bool {
        let earned = *self.line_earned.get_or_insert(now);
        let periods = now.saturating_duration_since(earned).as_millis() / LINE_PERIOD.as_millis();
        if periods > 0 {
            let more = u32::try_from(periods).unwrap_or(LINES_MAX).min(LINES_MAX);
            self.lines = (self.lines + more).min(LINES_MAX);
            self.line_earned = Some(now);
        }
        if self.lines == 0 {
            return false;
        }
        self.lines -= 1;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_goes_first() {
        let mut handshakes = Handshakes::new();
        let open = |index: u32, _| index != 1;
        for index in 0..3 {
            assert_eq!(handshakes.begin(index, 0, 3, open), None);
        }
        // Number 1 completes.
        handshakes.end();
        assert_eq!(handshakes.begin(3, 0, 3, open), None);
        assert_eq!(handshakes.begin(4, 0, 3, open), Some(0));
        handshakes.end();
        assert_eq!(handshakes.begin(5, 0, 3, open), Some(2));
    }

    #[test]
    fn done_ones_do_not_pile_up() {
        let mut handshakes = Handshakes::new();
        handshakes.begin(0, 0, 8, |_, _| true);
        for index in 1..10_000 {
            assert_eq!(handshakes.begin(index, 0, 8, |index, _| index == 0), None);
            handshakes.end();
        }
        assert!(handshakes.queue.len() < 100, "{}", handshakes.queue.len());
    }

    #[test]
    fn lines_come_back_with_time() {
        let mut handshakes = Handshakes::new();
        let start = Instant::now();
        let allowed = (0..100).filter(|_| handshakes.may_log(start)).count();
        assert_eq!(allowed, LINES_MAX as usize);
        assert!(handshakes.may_log(start + LINE_PERIOD));
        assert!(!handshakes.may_log(start + LINE_PERIOD));
    }
}
