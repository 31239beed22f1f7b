//! Leadership that is being handed over, and who waits for that.

use api::Error;
use api::ids::MemberId;

use super::{Node, Output, Token};
use crate::raft::Role;

pub(super) struct Transfer {
    token: Token,
    to: MemberId,
    deadline_tick: u64,
}

impl Node {
    pub(super) fn on_transfer(
        &mut self,
        to: Option<MemberId>,
        token: Token,
        outputs: &mut Vec<Output>,
    ) {
        let to = match self.transferee(to) {
            Ok(to) => to,
            Err(error) => {
                outputs.push(Output::Rejected(vec![(token, error)]));
                return;
            }
        };
        if to == self.config.raft.id {
            outputs.push(Output::Transferred(token));
            return;
        }
        let deadline_tick = self.tick + self.timeout_ticks();
        self.transfers.push(Transfer {
            token,
            to,
            deadline_tick,
        });
        self.raft.transfer_leader(to);
    }

    /// Who is to lead: who was named, or the voter whose log is nearest.
    fn transferee(&self, to: Option<MemberId>) -> Result<MemberId, Error> {
        if self.raft.role() != Role::Leader {
            return Err(Error::NotLeader);
        }
        let own = self.config.raft.id;
        let voters = || self.raft.conf().voters.iter().copied().map(MemberId);
        match to {
            Some(to) if voters().any(|id| id == to) => Ok(to),
            Some(_) => Err(Error::BadLeaderTransferee),
            None => voters()
                .filter(|id| *id != own)
                .filter_map(|id| Some((self.raft.progress(id)?, id)))
                .filter(|(progress, _)| progress.is_active)
                .max_by_key(|(progress, _)| progress.matched)
                .map(|(_, id)| id)
                .ok_or(Error::Unhealthy),
        }
    }

    /// A leader that was removed lets another one lead.
    pub(super) fn hand_over(&mut self) {
        if self.is_removed
            && !self.raft.is_transferring()
            && let Ok(to) = self.transferee(None)
        {
            self.raft.transfer_leader(to);
        }
    }

    /// Somebody else may lead now.
    pub(super) fn finish_transfers(&mut self, outputs: &mut Vec<Output>) {
        let leader = self.leader;
        self.transfers.retain(|transfer| {
            let waits = leader != Some(transfer.to);
            if !waits {
                outputs.push(Output::Transferred(transfer.token));
            }
            waits
        });
    }

    pub(super) fn expire_transfers(&mut self, outputs: &mut Vec<Output>) {
        let tick = self.tick;
        let mut late = Vec::new();
        self.transfers.retain(|transfer| {
            let waits = tick < transfer.deadline_tick;
            if !waits {
                late.push((transfer.token, Error::LeaderTransferTimeout));
            }
            waits
        });
        if !late.is_empty() {
            outputs.push(Output::Rejected(late));
        }
    }
}
