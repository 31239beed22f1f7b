//! `--force-new-cluster`: the entries that make a member of a cluster its only one.

use std::collections::BTreeMap;

use api::ids::MemberId;
use prost::Message;
use state::{ChangeContext, ChangeKind, ConfChange, Member, Members};
use storage::log::{Entry, EntryKind, HardState, LogIndex, Term};

/// Entries to append behind the last committed one, which commit with it: this member votes, and
/// nobody else is left. `committed` are the entries that the state has not applied.
///
/// # Errors
/// A configuration change among `committed` cannot be read.
pub(crate) fn force(
    own: MemberId,
    members: &Members,
    committed: &[Entry],
    hard_state: HardState,
) -> Result<Vec<Entry>, prost::DecodeError> {
    // Id, and whether it learns.
    let mut ids: BTreeMap<u64, bool> = members
        .iter()
        .map(|member| (member.id, member.is_learner))
        .collect();
    for entry in committed {
        if entry.kind == EntryKind::ConfChange {
            let change = ConfChange::decode(&entry.data[..])?;
            match ChangeKind::from_number(change.kind) {
                Some(ChangeKind::AddNode) => drop(ids.insert(change.node_id, false)),
                Some(ChangeKind::AddLearnerNode) => drop(ids.insert(change.node_id, true)),
                Some(ChangeKind::RemoveNode) => drop(ids.remove(&change.node_id)),
                Some(ChangeKind::UpdateNode) | None => {}
            }
        }
    }
    let mut changes = Vec::new();
    if ids.get(&own.0) != Some(&false) {
        let context = ChangeContext {
            member: Member {
                id: own.0,
                ..Member::default()
            },
            is_promote: ids.contains_key(&own.0),
        };
        changes.push((ChangeKind::AddNode, own.0, context.to_json()));
    }
    let others = ids.keys().filter(|id| **id != own.0);
    changes.extend(others.map(|id| (ChangeKind::RemoveNode, *id, String::new())));
    let entry = |((kind, node_id, context), index): ((ChangeKind, u64, String), u64)| Entry {
        kind: EntryKind::ConfChange,
        term: hard_state.term.max(Term(1)),
        index: LogIndex(index),
        data: ConfChange {
            id: 0,
            kind: kind as i32,
            node_id,
            context: context.into(),
        }
        .encode_to_vec()
        .into(),
    };
    let first = hard_state.commit.0 + 1;
    Ok(changes.into_iter().zip(first..).map(entry).collect())
}
