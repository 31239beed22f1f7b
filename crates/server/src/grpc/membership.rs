//! `etcdserverpb.Cluster`.

use std::time::{SystemTime, UNIX_EPOCH};

use api::ids::{self, MemberId};
use api::pb::etcdserverpb as pb;
use api::{Error, Status, url};
use bytes::Bytes;
use node::machine::MemberChange;
use state::{Authorised, Root};

use super::pending::{Pending, Read, Waiting};
use super::{Services, decode};
use crate::drive::core::ToCore;
use crate::drive::post::token;
use crate::front::Net;
use crate::peer::ToPeers;

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
        self.user(waiting)?;
        let members = self.shared.view.members();
        // The cluster service never fills in a revision.
        let response = pb::MemberListResponse {
            header: Some(self.header().message(0)),
            members: members.iter().map(state::Member::to_message).collect(),
        };
        self.send_message(net, waiting, &response);
        Ok(())
    }

    pub(super) fn member_add(&mut self, waiting: Waiting, message: &Bytes) -> Result<(), Status> {
        let request: pb::MemberAddRequest = decode(message.clone())?;
        let urls = url::parse_sequence(request.peer_ur_ls.iter().map(String::as_str))
            .map_err(|_| Error::MemberBadURLs)?;
        if urls.is_empty() {
            return Err(Error::MemberBadURLs.into());
        }
        let peer_urls: Vec<String> = urls.iter().map(ToString::to_string).collect();
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let seconds = now.map_or(0, |now| now.as_secs());
        let member = state::Member {
            id: ids::member_id(&peer_urls, "", Some(seconds)).0,
            peer_urls,
            is_learner: request.is_learner,
            ..Default::default()
        };
        let added = Some(Box::new(member.to_message()));
        self.change_members(
            &self.root(&waiting)?,
            MemberChange::Add(member),
            Pending::Reconfigure(waiting, added),
        );
        Ok(())
    }

    pub(super) fn member_remove(
        &mut self,
        waiting: Waiting,
        message: &Bytes,
    ) -> Result<(), Status> {
        let request: pb::MemberRemoveRequest = decode(message.clone())?;
        let change = MemberChange::Remove(MemberId(request.id));
        let root = self.root(&waiting)?;
        self.change_members(&root, change, Pending::Reconfigure(waiting, None));
        Ok(())
    }

    pub(super) fn member_update(
        &mut self,
        waiting: Waiting,
        message: &Bytes,
    ) -> Result<(), Status> {
        let request: pb::MemberUpdateRequest = decode(message.clone())?;
        let change = MemberChange::Update {
            id: MemberId(request.id),
            peer_urls: request.peer_ur_ls,
        };
        let root = self.root(&waiting)?;
        self.change_members(&root, change, Pending::Reconfigure(waiting, None));
        Ok(())
    }

    pub(super) fn member_promote(
        &mut self,
        waiting: Waiting,
        message: &Bytes,
    ) -> Result<(), Status> {
        let request: pb::MemberPromoteRequest = decode(message.clone())?;
        let id = MemberId(request.id);
        let root = self.root(&waiting)?;
        let pending = Pending::Promote(waiting, id);
        self.change_members(&root, MemberChange::Promote(id), pending);
        Ok(())
    }

    fn change_members(&mut self, _: &Authorised<Root>, change: MemberChange, pending: Pending) {
        let slot = self.slots.insert(pending);
        let change = self.shared.reconfigure(change, token(self.thread, slot));
        self.shared.core.push(ToCore::Reconfigure(Box::new(change)));
    }

    /// Answers an addition that was applied, with the members as they are now.
    pub(super) fn answer_add(&mut self, net: &mut Net, waiting: &Waiting, added: pb::Member) {
        let members = self.shared.view.members();
        let response = pb::MemberAddResponse {
            header: Some(self.header().message(0)),
            member: Some(added),
            members: members.iter().map(state::Member::to_message).collect(),
        };
        self.send_message(net, waiting, &response);
    }

    /// Leaves a promotion to the leader.
    pub(super) fn forward_promotion(&mut self, waiting: Waiting, id: MemberId) {
        let bearer = waiting.who.bearer();
        let slot = self.slots.insert(Pending::Answer(waiting));
        let token = token(self.thread, slot);
        self.shared
            .peers
            .push(ToPeers::Promote { id, token, bearer });
    }

    pub(super) fn move_leader(
        &mut self,
        _: &Authorised<Root>,
        waiting: Waiting,
        message: &Bytes,
    ) -> Result<(), Status> {
        let request: pb::MoveLeaderRequest = decode(message.clone())?;
        let slot = self.slots.insert(Pending::Answer(waiting));
        self.shared.core.push(ToCore::MoveLeader {
            to: MemberId(request.target_id),
            token: token(self.thread, slot),
        });
        Ok(())
    }
}
