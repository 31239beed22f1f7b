//! Between our types and the engine's.
//!
//! The data of a configuration change travels in the engine's `context` field: etcd's type
//! numbers differ from the engine's (2 is UpdateNode in etcd, AddLearnerNode there; 3 would be
//! a panic), so the engine must see an empty change, and whoever applies it reads etcd's bytes.

use api::ids::MemberId;
use bytes::Bytes;
use raft::eraftpb;
use storage::log::{
    ConfState, Entry, EntryKind, HardState, LogIndex, Snapshot, SnapshotMeta, Term,
};

use super::message::{Message, MessageKind};

pub(super) fn entry_in(entry: &Entry) -> eraftpb::Entry {
    let mut to = eraftpb::Entry {
        term: entry.term.0,
        index: entry.index.0,
        ..Default::default()
    };
    set_data(&mut to, entry.kind, entry.data.clone());
    to
}

pub(super) fn set_data(to: &mut eraftpb::Entry, kind: EntryKind, data: Bytes) {
    match kind {
        EntryKind::Normal => to.data = data,
        EntryKind::ConfChange => {
            to.set_entry_type(eraftpb::EntryType::EntryConfChange);
            to.context = data;
        }
    }
}

pub(super) fn entry_out(entry: eraftpb::Entry) -> Entry {
    let (kind, data) = match entry.get_entry_type() {
        eraftpb::EntryType::EntryNormal => (EntryKind::Normal, entry.data),
        eraftpb::EntryType::EntryConfChange => (EntryKind::ConfChange, entry.context),
        eraftpb::EntryType::EntryConfChangeV2 => {
            // The engine makes these only when it leaves a joint configuration, and messages
            // cannot carry one in.
            unreachable!("joint configuration change at index {}", entry.index)
        }
    };
    Entry {
        kind,
        term: Term(entry.term),
        index: LogIndex(entry.index),
        data,
    }
}

pub(super) fn hard_state_in(state: &HardState) -> eraftpb::HardState {
    eraftpb::HardState {
        term: state.term.0,
        vote: state.vote,
        commit: state.commit.0,
        ..Default::default()
    }
}

pub(super) fn hard_state_out(state: &eraftpb::HardState) -> HardState {
    HardState {
        term: Term(state.term),
        vote: state.vote,
        commit: LogIndex(state.commit),
    }
}

pub(super) fn conf_in(conf: &ConfState) -> eraftpb::ConfState {
    eraftpb::ConfState {
        voters: conf.voters.clone(),
        learners: conf.learners.clone(),
        voters_outgoing: conf.voters_outgoing.clone(),
        learners_next: conf.learners_next.clone(),
        auto_leave: conf.auto_leave,
        ..Default::default()
    }
}

/// The engine keeps sets; etcd writes the ids in ascending order.
pub(super) fn conf_out(conf: &eraftpb::ConfState) -> ConfState {
    let sorted = |ids: &[u64]| {
        let mut ids = ids.to_vec();
        ids.sort_unstable();
        ids
    };
    ConfState {
        voters: sorted(&conf.voters),
        learners: sorted(&conf.learners),
        voters_outgoing: sorted(&conf.voters_outgoing),
        learners_next: sorted(&conf.learners_next),
        auto_leave: conf.auto_leave,
    }
}

pub(super) fn message_in(message: &Message) -> eraftpb::Message {
    let mut to = eraftpb::Message {
        to: message.to.0,
        from: message.from.0,
        term: message.term.0,
        log_term: message.log_term.0,
        index: message.index.0,
        commit: message.commit.0,
        reject: message.reject,
        reject_hint: message.reject_hint.0,
        context: message.context.clone(),
        ..Default::default()
    };
    to.set_msg_type(kind_in(message.kind));
    to.set_entries(
        message
            .entries
            .iter()
            .map(entry_in)
            .collect::<Vec<_>>()
            .into(),
    );
    if let (MessageKind::Snapshot, Some(snapshot)) = (message.kind, &message.snapshot) {
        let mut inner = snapshot_meta_in(&snapshot.meta);
        inner.data = snapshot.data.clone();
        to.set_snapshot(inner);
    }
    to
}

/// A snapshot without its data.
pub(super) fn snapshot_meta_in(from: &SnapshotMeta) -> eraftpb::Snapshot {
    let mut to = eraftpb::Snapshot::default();
    let meta = to.mut_metadata();
    meta.index = from.index.0;
    meta.term = from.term.0;
    meta.set_conf_state(conf_in(&from.conf));
    to
}

pub(super) fn snapshot_out(mut from: eraftpb::Snapshot) -> Snapshot {
    let data = std::mem::take(&mut from.data);
    let meta = from.get_metadata();
    let conf = conf_out(meta.get_conf_state());
    let (index, term) = (LogIndex(meta.index), Term(meta.term));
    Snapshot {
        data,
        meta: SnapshotMeta { index, term, conf },
    }
}

/// `None` for the engine's messages to itself, which it never emits.
pub(super) fn message_out(mut message: eraftpb::Message) -> Option<Message> {
    let kind = kind_out(message.get_msg_type())?;
    let snapshot = (kind == MessageKind::Snapshot).then(|| snapshot_out(message.take_snapshot()));
    // The engine adds a commit index to votes, and to answers, which etcd does not know.
    let commit = match kind {
        MessageKind::Append | MessageKind::Heartbeat => message.commit,
        _ => 0,
    };
    Some(Message {
        kind,
        to: MemberId(message.to),
        from: MemberId(message.from),
        term: Term(message.term),
        log_term: Term(message.log_term),
        index: LogIndex(message.index),
        entries: message.take_entries().into_iter().map(entry_out).collect(),
        commit: LogIndex(commit),
        snapshot,
        reject: message.reject,
        reject_hint: LogIndex(message.reject_hint),
        context: message.context,
    })
}

fn kind_in(kind: MessageKind) -> eraftpb::MessageType {
    use eraftpb::MessageType as To;
    match kind {
        MessageKind::Propose => To::MsgPropose,
        MessageKind::Append => To::MsgAppend,
        MessageKind::AppendResponse => To::MsgAppendResponse,
        MessageKind::Vote => To::MsgRequestVote,
        MessageKind::VoteResponse => To::MsgRequestVoteResponse,
        MessageKind::Snapshot => To::MsgSnapshot,
        MessageKind::Heartbeat => To::MsgHeartbeat,
        MessageKind::HeartbeatResponse => To::MsgHeartbeatResponse,
        MessageKind::TransferLeader => To::MsgTransferLeader,
        MessageKind::TimeoutNow => To::MsgTimeoutNow,
        MessageKind::ReadIndex => To::MsgReadIndex,
        MessageKind::ReadIndexResponse => To::MsgReadIndexResp,
        MessageKind::PreVote => To::MsgRequestPreVote,
        MessageKind::PreVoteResponse => To::MsgRequestPreVoteResponse,
    }
}

fn kind_out(kind: eraftpb::MessageType) -> Option<MessageKind> {
    MessageKind::ALL
        .iter()
        .copied()
        .find(|to| kind_in(*to) == kind)
}
