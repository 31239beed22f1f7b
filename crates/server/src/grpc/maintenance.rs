//! `etcdserverpb.Maintenance` and `grpc.health.v1.Health`.

use api::pb::etcdserverpb as pb;
use api::pb::etcdserverpb::alarm_request::AlarmAction;
use api::pb::health;
use api::pb::health::health_check_response::ServingStatus;
use api::{Code, Status};
use bytes::Bytes;
use prost::Message;

use super::pending::{Pending, Read, Waiting};
use super::{Services, decode};
use crate::drive::commit::ToCommit;
use crate::drive::entry;
use crate::drive::hashing::ToHash;
use crate::drive::post::token;
use crate::front::Net;

impl Services {
    pub(super) fn alarm(
        &mut self,
        net: &mut Net,
        waiting: Waiting,
        message: Bytes,
    ) -> Result<(), Status> {
        let request: pb::AlarmRequest = decode(message.clone())?;
        if request.action == AlarmAction::Get as i32 {
            // A read needs no entry in the log.
            self.read(net, waiting, Read::Alarms(request.alarm), false);
            return Ok(());
        }
        self.propose(waiting, entry::ALARM, &message, Pending::Write)
    }

    pub(super) fn serve_alarms(
        &mut self,
        net: &mut Net,
        waiting: &Waiting,
        kind: i32,
    ) -> Result<(), Status> {
        let response = pb::AlarmResponse {
            header: Some(self.header().message(self.shared.view.revision())),
            alarms: self.shared.view.alarms(kind),
        };
        self.send_message(net, waiting, &response);
        Ok(())
    }

    pub(super) fn status(&mut self, net: &mut Net, waiting: Waiting) -> Result<(), Status> {
        let response = self.shared.status_response();
        self.send_message(net, &waiting, &response);
        Ok(())
    }

    pub(super) fn hash(&mut self, waiting: Waiting) -> Result<(), Status> {
        let slot = self.slots.insert(Pending::Answer(waiting));
        self.shared
            .hashing
            .push(ToHash::All(token(self.thread, slot)));
        Ok(())
    }

    pub(super) fn hash_kv(&mut self, waiting: Waiting, message: &Bytes) -> Result<(), Status> {
        let request: pb::HashKvRequest = decode(message.clone())?;
        let slot = self.slots.insert(Pending::Answer(waiting));
        let token = token(self.thread, slot);
        self.shared.hashing.push(ToHash::Keys {
            revision: request.revision,
            token,
        });
        Ok(())
    }

    pub(super) fn defragment(&mut self, waiting: Waiting, message: &Bytes) -> Result<(), Status> {
        let _: pb::DefragmentRequest = decode(message.clone())?;
        let slot = self.slots.insert(Pending::Answer(waiting));
        let token = token(self.thread, slot);
        self.shared.commits.push(ToCommit::Defragment(token));
        Ok(())
    }

    pub(super) fn health_check(
        &mut self,
        net: &mut Net,
        waiting: Waiting,
        message: &Bytes,
    ) -> Result<(), Status> {
        let request: health::HealthCheckRequest = decode(message.clone())?;
        if !request.service.is_empty() {
            return Err(Status::new(Code::NotFound, "unknown service"));
        }
        self.send_message(net, &waiting, &serving(ServingStatus::Serving));
        Ok(())
    }

    pub(super) fn health_list(&mut self, net: &mut Net, waiting: Waiting) -> Result<(), Status> {
        let statuses = [(String::new(), serving(ServingStatus::Serving))].into();
        self.send_message(net, &waiting, &health::HealthListResponse { statuses });
        Ok(())
    }

    /// Sends the present state; it never changes, and the stream stays open until the client
    /// ends it.
    pub(super) fn health_watch(
        &mut self,
        net: &mut Net,
        waiting: Waiting,
        message: &Bytes,
    ) -> Result<(), Status> {
        let request: health::HealthCheckRequest = decode(message.clone())?;
        let known = request.service.is_empty();
        let state = if known {
            ServingStatus::Serving
        } else {
            ServingStatus::ServiceUnknown
        };
        net.send(waiting.call, serving(state).encode_to_vec());
        if let Some(meter) = waiting.meter {
            self.shared.metrics.grpc.sent(meter, 1);
        }
        Ok(())
    }
}

fn serving(status: ServingStatus) -> health::HealthCheckResponse {
    health::HealthCheckResponse {
        status: status as i32,
    }
}
