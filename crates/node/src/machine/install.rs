//! Snapshots between members: one that goes to a follower, one that comes from a leader.
//!
//! A received snapshot passes these points, each after the one before:
//!
//! ```text
//!   driver   database received, durable, looked at         Input::Received
//!   raft     the log is replaced, the configuration too    Ready::snapshot
//!   log      .snap file, record, commit index              Output::Persist, Input::Persisted
//!   state    the database takes its place                  Output::InstallSnapshot, Installed
//! ```
//! A crash before the commit index is durable leaves the old log and state; one after it leaves a
//! log that goes on after the snapshot, whose database the next boot puts in place.

use api::ids::MemberId;
use storage::log::{LogIndex, SnapshotMeta};

use super::{Message, Node, Output};

/// A snapshot that takes the place of the state.
pub(super) struct Installing {
    meta: SnapshotMeta,
    /// The batch that makes it durable.
    pub(super) number: u64,
    pub(super) is_durable: bool,
    is_handed_out: bool,
}

/// For a member that gets a snapshot the log after it is kept.
pub(super) struct Hold {
    after: LogIndex,
    /// None while the snapshot is on its way.
    pub(super) until_tick: Option<u64>,
}

impl Node {
    /// The engine replaced its log by a snapshot.
    pub(super) fn begin_install(
        &mut self,
        meta: SnapshotMeta,
        number: u64,
        outputs: &mut Vec<Output>,
    ) {
        self.set_sole_leader(false, outputs);
        // The snapshot has what these would do.
        self.apply.entries.clear();
        self.installing = Some(Installing {
            meta,
            number,
            is_durable: false,
            is_handed_out: false,
        });
    }

    /// The place of the snapshot that is about to become the state.
    #[must_use]
    pub fn installs(&self) -> Option<LogIndex> {
        self.installing
            .as_ref()
            .map(|installing| installing.meta.index)
    }

    pub(super) fn emit_install(&mut self, outputs: &mut Vec<Output>) {
        let quiet = self.apply.handed == self.apply.applied && !self.snapshots.under_way;
        if let Some(installing) = &mut self.installing
            && installing.is_durable
            && !installing.is_handed_out
            && quiet
        {
            installing.is_handed_out = true;
            outputs.push(Output::InstallSnapshot(installing.meta.clone()));
        }
    }

    pub(super) fn on_installed(&mut self, index: LogIndex) {
        let installed = self
            .installing
            .take()
            .expect("only what was handed out is installed");
        assert_eq!(installed.meta.index, index);
        self.apply.handed = index;
        self.apply.applied = index;
        self.apply.applied_term = installed.meta.term;
        self.snapshots.last = self.snapshots.last.max(index);
    }

    /// The engine wants a follower to get a snapshot.
    pub(super) fn send_snapshot(&mut self, message: Message, outputs: &mut Vec<Output>) {
        let hold = Hold {
            after: self.apply.applied,
            until_tick: None,
        };
        self.holds.insert(message.to, hold);
        outputs.push(Output::SendSnapshot(Box::new(message)));
    }

    pub(super) fn on_snapshot_sent(&mut self, peer: MemberId, arrived: bool) {
        self.raft.report_snapshot(peer, arrived);
        if !arrived {
            self.holds.remove(&peer);
        } else if let Some(hold) = self.holds.get_mut(&peer) {
            let keep_ticks = KEEP_AFTER_MS.div_ceil(self.config.tick_ms);
            hold.until_tick = Some(self.tick + keep_ticks);
        }
    }

    /// Forgets entries that nobody is likely to ask for.
    pub(super) fn compact(&mut self, applied: LogIndex) {
        let keep = self.config.catch_up_entries;
        let usual = LogIndex(applied.0.saturating_sub(keep));
        let held = self.holds.values().map(|hold| hold.after).min();
        let (before, bytes) = match held {
            Some(held) => (usual.min(held), TAIL_BYTES_MAX * HELD_FACTOR),
            None => (usual, TAIL_BYTES_MAX),
        };
        self.raft.compact(applied, before, bytes);
    }
}

/// Data of applied entries kept in memory for followers.
const TAIL_BYTES_MAX: usize = 64 << 20;
/// So many times as much while a snapshot is on its way.
const HELD_FACTOR: usize = 4;
/// How long after a snapshot arrived the log behind it is kept, as in etcd.
const KEEP_AFTER_MS: u64 = 30_000;
