//! `etcdserverpb.Lease`, but for keep-alive streams.

use api::pb::etcdserverpb as pb;
use api::{Status, validate};
use bytes::Bytes;
use prost::Message;
use state::{LeaseKeys, TheseKeys};

use super::pending::{Pending, Read, Waiting};
use super::{Services, decode};
use crate::drive::entry;
use crate::drive::lessor::Left;
use crate::drive::post::token;
use crate::front::Net;
use crate::peer::ToPeers;

impl Services {
    pub(super) fn lease_grant(&mut self, waiting: Waiting, message: &Bytes) -> Result<(), Status> {
        let mut request: pb::LeaseGrantRequest = decode(message.clone())?;
        validate::lease_grant(&request)?;
        self.user(&waiting)?;
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
        !chosen_by_client && self.shared.view.lease(request.id).is_some()
    }

    pub(super) fn lease_revoke(&mut self, waiting: Waiting, message: Bytes) -> Result<(), Status> {
        let _: pb::LeaseRevokeRequest = decode(message.clone())?;
        self.user(&waiting)?;
        self.propose(waiting, entry::LEASE_REVOKE, &message, Pending::Write)
    }

    pub(super) fn lease_leases(&mut self, net: &mut Net, waiting: Waiting) -> Result<(), Status> {
        let caller = waiting.who.caller()?;
        self.shared.view.authorise_all_leases(caller)?;
        let leases = self.shared.lessor.by_expiry();
        let response = pb::LeaseLeasesResponse {
            header: Some(self.header().message(self.shared.view.revision())),
            leases: leases
                .into_iter()
                .map(|id| pb::LeaseStatus { id })
                .collect(),
        };
        self.send_message(net, &waiting, &response);
        Ok(())
    }

    pub(super) fn lease_time_to_live(
        &mut self,
        net: &mut Net,
        waiting: Waiting,
        message: &Bytes,
    ) -> Result<(), Status> {
        let request = decode(message.clone())?;
        self.user(&waiting)?;
        self.read(net, waiting, Read::TimeToLive(request), false);
        Ok(())
    }

    pub(super) fn serve_time_to_live(
        &mut self,
        net: &mut Net,
        waiting: &Waiting,
        request: &pb::LeaseTimeToLiveRequest,
    ) -> Result<(), Status> {
        let keys = match request.keys {
            true => Some(self.authorise(waiting, LeaseKeys(request.id))?),
            false => None,
        };
        let view = &self.shared.view;
        let mut response = pb::LeaseTimeToLiveResponse {
            header: Some(self.header().message(view.revision())),
            id: request.id,
            ttl: -1,
            ..Default::default()
        };
        if let Some(lease) = view.lease(request.id) {
            response.ttl = match self.shared.lessor.left(&lease) {
                Left::Seconds(seconds) => seconds,
                Left::Unknown => {
                    let pending = match request.keys {
                        true => Pending::LeaseKeys(waiting.clone()),
                        false => Pending::Answer(waiting.clone()),
                    };
                    let slot = self.slots.insert(pending);
                    let token = token(self.thread, slot);
                    let asked = ToPeers::TimeToLive(*request, token);
                    self.shared.peers.push(asked);
                    return Ok(());
                }
            };
            response.granted_ttl = lease.ttl;
            if let Some(keys) = keys {
                response.keys = view.lease_keys(&keys)?;
            }
        }
        self.send_message(net, waiting, &response);
        Ok(())
    }

    /// The leader may know of keys that were attached since this member asked for its client.
    pub(super) fn check_lease_keys(&self, waiting: &Waiting, answer: &[u8]) -> Result<(), Status> {
        if self.shared.view.auth_stamp() != 0 {
            let response: pb::LeaseTimeToLiveResponse = decode(answer)?;
            self.authorise(waiting, TheseKeys(response.keys))?;
        }
        Ok(())
    }
}
