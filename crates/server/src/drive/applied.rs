//! Times of applying, by what was applied.

use std::sync::Arc;
use std::time::Duration;

use state::Applied;

use crate::metrics::{Histogram, Metrics};

/// The label `version` of `etcd_server_apply_duration_seconds`.
const API: &str = "v3";

/// Histograms that were looked up: an operation, whether it succeeded, and its times.
#[derive(Default)]
pub(crate) struct ApplyTimes {
    known: Vec<(&'static str, bool, Arc<Histogram>)>,
}

impl ApplyTimes {
    /// Counts entries that were applied together in `took`: each has an equal share of it, since
    /// a look at the clock for each of them would cost a tenth of what applying it does.
    pub(crate) fn observe(&mut self, metrics: &Metrics, applied: &[Applied], took: Duration) {
        let share = took.as_secs_f64() / applied.len().max(1) as f64;
        let kind = |one: &Applied| (one.operation, one.outcome.is_ok());
        for alike in applied.chunk_by(|a, b| kind(a) == kind(b)) {
            let Some((Some(operation), success)) = alike.first().map(kind) else {
                continue;
            };
            self.times(metrics, operation, success)
                .observe_many(share, alike.len() as u64);
        }
    }

    fn times(&mut self, metrics: &Metrics, operation: &'static str, success: bool) -> &Histogram {
        let same = |(name, ok, _): &(&'static str, bool, _)| *name == operation && *ok == success;
        let at = self.known.iter().position(same).unwrap_or_else(|| {
            let word = if success { "true" } else { "false" };
            let times = metrics.apply.with([operation, word, API]);
            self.known.push((operation, success, times));
            self.known.len() - 1
        });
        &self.known[at].2
    }
}
