//! `etcdserverpb.Lease`: what needs no clock.

use api::pb::etcdserverpb as pb;
use api::{Status, validate};
use bytes::Bytes;
use prost::Message;

use super::pending::{Pending, Waiting};
use super::{Services, decode};
use crate::drive::entry;
use crate::front::Net;

impl Services {
    pub(super) fn lease_grant(&mut self, waiting: Waiting, message: &Bytes) -> Result<(), Status> {
        let mut request: pb::LeaseGrantRequest = decode(message.clone())?;
        validate::lease_grant(&request)?;
        self.check_space(state::quota::LEASE_COST)?;
        while request.id == 0 || self.is_taken(&request, message) {
            request.id = (self.shared.request_ids.next().0 & (u64::MAX >> 1)) as i64;
        }
        self.propose(
            waiting,
            entry::LEASE_GRANT,
            &request.encode_to_vec(),
            Pending::Write,
        )
    }

    /// Whether an id that this member chose is in use; one that the client chose is its own affair.
    fn is_taken(&self, request: &pb::LeaseGrantRequest, message: &Bytes) -> bool {
        let chosen_by_client =
            pb::LeaseGrantRequest::decode(message.clone()).is_ok_and(|sent| sent.id != 0);
        !chosen_by_client && self.shared.view.lease(request.id, false).is_some()
    }

    pub(super) fn lease_revoke(&mut self, waiting: Waiting, message: Bytes) -> Result<(), Status> {
        let _: pb::LeaseRevokeRequest = decode(message.clone())?;
        self.propose(waiting, entry::LEASE_REVOKE, &message, Pending::Write)
    }

    pub(super) fn lease_leases(&mut self, net: &mut Net, waiting: Waiting) -> Result<(), Status> {
        let leases = self.shared.view.leases();
        let response = pb::LeaseLeasesResponse {
            header: Some(self.header().message(self.shared.view.revision())),
            leases: leases
                .iter()
                .map(|lease| pb::LeaseStatus { id: lease.id })
                .collect(),
        };
        self.send_message(net, &waiting, &response);
        Ok(())
    }
}
