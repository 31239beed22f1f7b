//! What kept requests waiting: the last long stalls of what all of them go through, for the
//! warnings of slow requests.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Stalls shorter than this explain nothing.
const STALL_MIN: Duration = Duration::from_millis(10);

/// What requests wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stall {
    /// The sync of the write-ahead log.
    LogSync,
    /// The state machine.
    Apply,
    /// The database, whose commits are behind.
    Commits,
}

const KINDS: [(Stall, &str); 3] = [
    (Stall::LogSync, "sync of the write-ahead log"),
    (Stall::Apply, "applying of entries"),
    (Stall::Commits, "commits of the database"),
];

/// The last long stall of each kind; written by the threads that stall, read by net threads.
pub(crate) struct Stalls {
    start: Instant,
    /// When it ended, in microseconds after `start`, and how long it was; 0 for none.
    last: [(AtomicU64, AtomicU64); KINDS.len()],
}

impl Stalls {
    pub(crate) fn new() -> Stalls {
        Stalls {
            start: Instant::now(),
            last: Default::default(),
        }
    }

    /// Something took so long until now.
    pub(crate) fn note(&self, stall: Stall, took: Duration) {
        if took >= STALL_MIN {
            let (ended, length) = &self.last[stall as usize];
            length.store(micros(took), Relaxed);
            ended.store(micros(self.start.elapsed()), Relaxed);
        }
    }

    /// What most of the time of a request went into that began then and took so long, when it is
    /// known.
    pub(crate) fn cause(&self, begun: Instant, took: Duration) -> Option<&'static str> {
        let begun = micros(begun.saturating_duration_since(self.start));
        let stalls = self.last.iter().zip(KINDS);
        let during = stalls.filter(|((ended, _), _)| ended.load(Relaxed) >= begun.max(1));
        let longest = during.max_by_key(|((_, length), _)| length.load(Relaxed))?;
        let ((_, length), (_, name)) = longest;
        (length.load(Relaxed) * 2 >= micros(took)).then_some(name)
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_stall_of_a_request_explains_it() {
        let stalls = Stalls::new();
        let begun = Instant::now();
        let ms = Duration::from_millis;
        assert_eq!(stalls.cause(begun, ms(400)), None);
        stalls.note(Stall::Apply, ms(9));
        assert_eq!(stalls.cause(begun, ms(10)), None, "too short to tell");
        stalls.note(Stall::Apply, ms(50));
        stalls.note(Stall::LogSync, ms(300));
        let cause = stalls.cause(begun, ms(400));
        assert_eq!(cause, Some("sync of the write-ahead log"));
        assert_eq!(stalls.cause(begun, ms(700)), None, "less than half of it");
        let later = Instant::now() + ms(1);
        assert_eq!(stalls.cause(later, ms(300)), None, "over before it began");
    }
}
