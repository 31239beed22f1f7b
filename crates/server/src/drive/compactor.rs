//! Automatic compaction: which revision the leader gives up, and when.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::config::AutoCompaction;

/// Longest time between two compactions by age.
const PERIOD_MAX: Duration = Duration::from_secs(3600);
/// Revisions are noted this many times between two compactions by age.
const SAMPLES: u32 = 10;
/// Time between two compactions by count.
const COUNT_INTERVAL: Duration = Duration::from_secs(300);

/// What a member knows when it asks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Now {
    pub(crate) time: Instant,
    pub(crate) revision: i64,
    /// Revision of the last compaction; -1 before the first.
    pub(crate) compacted: i64,
    pub(crate) leads: bool,
}

/// Decides; whoever owns it proposes.
pub(crate) struct Compactor {
    policy: AutoCompaction,
    next: Instant,
    /// Revisions at the last samples, the oldest first: they reach a whole period back.
    samples: VecDeque<i64>,
    /// When the last compaction began that succeeded; at first, when this member started.
    succeeded: Instant,
    /// The revision that it gave up.
    last: i64,
    /// One whose outcome is not known yet, and when it began.
    pending: Option<(i64, Instant)>,
    is_first: bool,
}

impl Compactor {
    pub(crate) fn new(policy: AutoCompaction, start: Instant, revision: i64) -> Compactor {
        let mut compactor = Compactor {
            policy,
            next: start,
            samples: VecDeque::new(),
            succeeded: start,
            last: 0,
            pending: None,
            is_first: true,
        };
        compactor.next = start + compactor.interval();
        compactor.samples.push_back(revision);
        compactor
    }

    fn interval(&self) -> Duration {
        match self.policy {
            AutoCompaction::Age(period) => period.min(PERIOD_MAX) / SAMPLES,
            AutoCompaction::Count(_) => COUNT_INTERVAL,
        }
    }

    /// The revision to compact now, if any. Asked often.
    pub(crate) fn due(&mut self, now: Now) -> Option<i64> {
        if now.time < self.next {
            return None;
        }
        let interval = self.interval();
        self.next = (self.next + interval).max(now.time);
        if let Some((revision, began)) = self.pending.take()
            && now.compacted >= revision
        {
            (self.last, self.succeeded) = (revision, began);
            self.is_first = false;
        }
        let revision = match self.policy {
            AutoCompaction::Age(period) => self.of_age(period, now),
            AutoCompaction::Count(count) => now.revision - count,
        };
        let is_new = revision > 0 && revision != self.last && revision > now.compacted;
        if !is_new || !now.leads {
            return None;
        }
        if let AutoCompaction::Age(period) = self.policy {
            let wait = if self.is_first {
                period
            } else {
                period.min(PERIOD_MAX)
            };
            if now.time - self.succeeded < wait {
                return None;
            }
        }
        self.pending = Some((revision, now.time));
        Some(revision)
    }

    /// The revision of a period and one sample ago, or the oldest one known.
    fn of_age(&mut self, period: Duration, now: Now) -> i64 {
        let oldest = self.samples.front().copied().unwrap_or_default();
        self.samples.push_back(now.revision);
        let interval = self.interval().max(Duration::from_nanos(1));
        let kept = period.as_nanos() / interval.as_nanos() + 1;
        while self.samples.len() as u128 > kept {
            self.samples.pop_front();
        }
        oldest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Rig {
        compactor: Compactor,
        start: Instant,
        compacted: i64,
    }

    impl Rig {
        fn new(policy: AutoCompaction) -> Rig {
            let start = Instant::now();
            Rig {
                compactor: Compactor::new(policy, start, 1),
                start,
                compacted: -1,
            }
        }

        fn at(&mut self, seconds: u64, revision: i64, leads: bool) -> Option<i64> {
            let due = self.compactor.due(Now {
                time: self.start + Duration::from_secs(seconds),
                revision,
                compacted: self.compacted,
                leads,
            });
            self.compacted = due.unwrap_or(self.compacted);
            due
        }
    }

    /// One revision a second: what is asked for at each second.
    fn compactions(rig: &mut Rig, seconds: std::ops::Range<u64>) -> Vec<(u64, i64)> {
        let ask = |second| Some((second, rig.at(second, second as i64 + 1, true)?));
        seconds.filter_map(ask).collect()
    }

    #[test]
    fn by_age_what_is_older_than_a_period_goes() {
        let mut rig = Rig::new(AutoCompaction::Age(Duration::from_secs(100)));
        let found = compactions(&mut rig, 0..450);
        assert_eq!(found, [(100, 1), (200, 91), (300, 191), (400, 291)]);
    }

    #[test]
    fn long_periods_are_compacted_every_hour() {
        let mut rig = Rig::new(AutoCompaction::Age(Duration::from_secs(3 * 3600)));
        let found = compactions(&mut rig, 0..5 * 3600 + 1);
        assert_eq!(found, [(10_800, 1), (14_400, 3_241), (18_000, 6_841)]);
    }

    #[test]
    fn by_count_the_newest_revisions_stay() {
        let mut rig = Rig::new(AutoCompaction::Count(500));
        let found = compactions(&mut rig, 0..1000);
        assert_eq!(found, [(600, 101), (900, 401)]);
        // Nothing new, nothing to do.
        assert_eq!(rig.at(1200, 901, true), None);
    }

    #[test]
    fn only_a_leader_compacts_and_a_failure_is_tried_again() {
        let mut rig = Rig::new(AutoCompaction::Age(Duration::from_secs(100)));
        for second in 0..150 {
            assert_eq!(rig.at(second, second as i64 + 1, false), None);
        }
        assert_eq!(rig.at(150, 151, true), Some(41));
        // It got lost.
        rig.compacted = -1;
        assert_eq!(rig.at(151, 152, true), None);
        assert_eq!(rig.at(160, 161, true), Some(51));
        assert_eq!(
            rig.at(170, 171, true),
            None,
            "the next one is a period later"
        );
    }
}
