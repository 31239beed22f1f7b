//! What a peer may say: everything that the engine would panic on is refused before it.

use std::collections::BTreeSet;

use super::{
    ConfState, LogIndex, Message, MessageKind, Raft, Refused, Role, Snapshot, SnapshotMeta, Term,
};

/// No counter comes near this; what lies above would overflow when it is counted on.
const COUNTER_MAX: u64 = 1 << 62;

impl Raft {
    /// Refuses what the engine would panic on, or what no honest peer sends.
    pub(super) fn check(&self, message: &Message) -> Result<(), Refused> {
        let log = &self.node.raft.raft_log;
        if message.to.0 != self.node.raft.id || message.from.0 == raft::INVALID_ID {
            return Err(Refused("not addressed to this member"));
        }
        let counters = [
            message.term.0,
            message.log_term.0,
            message.index.0,
            message.commit.0,
            message.reject_hint.0,
        ];
        if counters.into_iter().any(|counter| counter > COUNTER_MAX) {
            return Err(Refused("a counter is out of range"));
        }
        let local = matches!(message.kind, MessageKind::Propose | MessageKind::ReadIndex);
        if local != (message.term == Term(0)) {
            return Err(Refused("term does not fit the kind of message"));
        }
        match message.kind {
            MessageKind::Append => self.check_append(message),
            MessageKind::Heartbeat if message.commit.0 > log.last_index() => {
                Err(Refused("heartbeat commits beyond the log"))
            }
            MessageKind::Propose if message.entries.is_empty() => Err(Refused("empty proposal")),
            MessageKind::ReadIndex | MessageKind::ReadIndexResponse
                if message.entries.len() != 1 =>
            {
                Err(Refused("read index without one context"))
            }
            MessageKind::AppendResponse
                if message.term == self.term() && message.index.0 > log.last_index() =>
            {
                Err(Refused("acknowledges entries beyond the log"))
            }
            // A follower would pass it on, and the engine cannot pass on what has a term.
            MessageKind::TransferLeader if self.role() != Role::Leader => {
                Err(Refused("asks a follower to hand over leadership"))
            }
            MessageKind::TimeoutNow if self.restoring.is_some() => {
                Err(Refused("no election while a snapshot is taken in"))
            }
            MessageKind::Snapshot => match &message.snapshot {
                Some(snapshot) => self.check_snapshot(message, snapshot),
                None => Err(Refused("snapshot without its description")),
            },
            _ => Ok(()),
        }
    }

    fn check_append(&self, message: &Message) -> Result<(), Refused> {
        // The engine looks for the last entry whose term is not above the message's, and gives
        // up when it finds none. What is committed has terms that no leader is behind.
        let committed = self.committed();
        if message.index >= committed
            && self
                .term_of(committed)
                .is_some_and(|term| message.log_term < term)
        {
            return Err(Refused("the entry before has a term below a committed one"));
        }
        let mut next = message.index.next();
        for entry in &message.entries {
            if entry.index != next || entry.term > message.term {
                return Err(Refused("entries out of order"));
            }
            if entry.index <= committed
                && self
                    .term_of(entry.index)
                    .is_some_and(|term| term != entry.term)
            {
                return Err(Refused("entry conflicts with a committed one"));
            }
            next = next.next();
        }
        Ok(())
    }

    fn check_snapshot(&self, message: &Message, snapshot: &Snapshot) -> Result<(), Refused> {
        let SnapshotMeta { index, term, conf } = &snapshot.meta;
        let in_range = *index > LogIndex(0) && index.0 < COUNTER_MAX;
        if !in_range || *term == Term(0) || *term > message.term {
            return Err(Refused("snapshot at no place of a log"));
        }
        if !is_simple(conf) {
            return Err(Refused("snapshot with an impossible configuration"));
        }
        let mut ids = conf.voters.iter().chain(&conf.learners);
        if !ids.any(|id| *id == self.node.raft.id) {
            return Err(Refused("snapshot of a cluster that this member is not in"));
        }
        // One at a time, and no second look at the log before the first is durable.
        if self.restoring.is_some() {
            return Err(Refused("another snapshot is being taken in"));
        }
        Ok(())
    }
}

/// Whether a configuration has voters, no id twice, and no trace of joint consensus.
fn is_simple(conf: &ConfState) -> bool {
    let ids: Vec<u64> = conf.voters.iter().chain(&conf.learners).copied().collect();
    let distinct: BTreeSet<u64> = ids.iter().copied().collect();
    let joint =
        !conf.voters_outgoing.is_empty() || !conf.learners_next.is_empty() || conf.auto_leave;
    !conf.voters.is_empty() && distinct.len() == ids.len() && !distinct.contains(&0) && !joint
}
