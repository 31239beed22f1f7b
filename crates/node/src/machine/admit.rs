//! Which proposals are taken in while the state machine lags, or while nobody leads.

use api::Error;
use api::pb::etcdserverpb::InternalRaftRequest;
use prost::Message;

use super::{Node, Output, Proposal};

/// Committed entries that may wait for apply before requests are refused, as etcd has it.
const COMMITTED_UNAPPLIED_MAX: u64 = 5000;
/// The same for requests that go first.
const PRIORITY_UNAPPLIED_MAX: u64 = 2 * COMMITTED_UNAPPLIED_MAX;
/// Proposals that may wait for a leader.
const PARKED_MAX: usize = 5000;

impl Node {
    /// Takes clients' ends of leases in while others are refused already, for they make work less
    /// (the feature gate `PriorityRequest`).
    pub fn prioritise_revocations(&mut self) {
        self.prioritises_revocations = true;
    }

    pub(super) fn on_propose(&mut self, mut proposals: Vec<Proposal>, outputs: &mut Vec<Output>) {
        let has_room = self.leader.is_some() || self.parked.len() + proposals.len() <= PARKED_MAX;
        let gap = self.raft.committed().0 - self.apply.applied.0;
        let refused = if self.is_removed || !has_room {
            std::mem::take(&mut proposals)
        } else if gap > COMMITTED_UNAPPLIED_MAX {
            let goes_first = |proposal: &mut Proposal| {
                gap <= PRIORITY_UNAPPLIED_MAX && self.prioritises_revocations && revokes(proposal)
            };
            let urgent: Vec<Proposal> = proposals.extract_if(.., goes_first).collect();
            std::mem::replace(&mut proposals, urgent)
        } else {
            Vec::new()
        };
        if !refused.is_empty() {
            let error = match self.is_removed {
                true => Error::Stopped,
                false => Error::TooManyRequests,
            };
            let refused = refused.into_iter().map(|proposal| (proposal.token, error));
            outputs.push(Output::Rejected(refused.collect()));
        }
        for proposal in &proposals {
            self.waiters.insert(proposal.id, proposal.token, self.tick);
        }
        self.parked.append(&mut proposals);
    }
}

/// Whether a proposal ends a lease.
fn revokes(proposal: &Proposal) -> bool {
    let request = InternalRaftRequest::decode(proposal.data.clone());
    request.is_ok_and(|request| request.lease_revoke.is_some())
}
