//! Watchers: each gets every change from where it began, once, in order, or learns that
//! compaction took what it needs. One that loses its member goes on at another.

use state::View;
use storage::simfs::Rng;

use super::truth::Truth;
use crate::{Broken, broken};

/// Watches everything from a revision on.
#[derive(Debug)]
pub struct Watcher {
    pub site: usize,
    /// All changes below were delivered.
    next: i64,
}

/// What looking for changes came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Looked {
    Delivered(usize),
    Cancelled,
}

impl Watcher {
    pub fn new(site: usize) -> Watcher {
        Watcher { site, next: 1 }
    }

    /// Takes what the member at its site has for it.
    pub fn look(&mut self, view: &View, truth: &Truth, rng: &mut Rng) -> Result<Looked, Broken> {
        let records_max = 1 + rng.below(20) as usize;
        let chunk = view
            .events(self.next, records_max, 4000)
            .map_err(|error| broken!("a watcher cannot read: {error}"))?;
        let from = self.next;
        if chunk.compacted > from {
            // Whoever says so must have it from the log.
            if truth.model().compacted() < chunk.compacted {
                return Err(broken!(
                    "a watcher is told of no compaction {}",
                    chunk.compacted
                ));
            }
            self.next = chunk.compacted + 1;
            return Ok(Looked::Cancelled);
        }
        let found: Vec<_> = chunk
            .events
            .iter()
            .map(|event| (event.revision(), event.key().to_vec(), event.is_delete()))
            .collect();
        let through = chunk.through;
        let wanted = truth.model().changes(from, through);
        if found != wanted {
            return Err(broken!(
                "a watcher from {from} gets {} changes through {through}, there are {}: {:?} \
                 instead of {:?}",
                found.len(),
                wanted.len(),
                brief(&found),
                brief(&wanted),
            ));
        }
        self.next = self.next.max(through + 1);
        Ok(Looked::Delivered(found.len()))
    }

    pub fn next(&self) -> i64 {
        self.next
    }

    /// Begins anew at a revision, also one that is not there yet.
    pub fn begin_at(&mut self, revision: i64) {
        self.next = revision;
    }
}

fn brief(changes: &[(i64, Vec<u8>, bool)]) -> Vec<(i64, String, bool)> {
    let text = |key: &[u8]| String::from_utf8_lossy(key).into_owned();
    let line = |(revision, key, deleted): &(i64, Vec<u8>, bool)| (*revision, text(key), *deleted);
    changes.iter().take(8).map(line).collect()
}
