//! `etcdserverpb.Cluster`.

use api::Status;
use api::pb::etcdserverpb as pb;
use bytes::Bytes;

use super::pending::{Read, Waiting};
use super::{Services, decode};
use crate::front::Net;

impl Services {
    pub(super) fn member_list(
        &mut self,
        net: &mut Net,
        waiting: Waiting,
        message: &Bytes,
    ) -> Result<(), Status> {
        let request: pb::MemberListRequest = decode(message.clone())?;
        self.read(net, waiting, Read::MemberList, !request.linearizable);
        Ok(())
    }

    pub(super) fn serve_member_list(
        &mut self,
        net: &mut Net,
        waiting: &Waiting,
    ) -> Result<(), Status> {
        let members = self.shared.view.members();
        // The cluster service never fills in a revision.
        let response = pb::MemberListResponse {
            header: Some(self.header().message(0)),
            members: members.iter().map(state::Member::to_message).collect(),
        };
        self.send_message(net, waiting, &response);
        Ok(())
    }
}
