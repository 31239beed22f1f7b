//! `etcdserverpb.Maintenance` and `grpc.health.v1.Health`.

use api::pb::etcdserverpb as pb;
use api::pb::etcdserverpb::alarm_request::AlarmAction;
use api::pb::etcdserverpb::downgrade_request::DowngradeAction;
use api::pb::health;
use api::pb::health::health_check_response::ServingStatus;
use api::pb::membershippb::DowngradeInfoSetRequest;
use api::{Code, Error, Status};
use bytes::Bytes;
use prost::Message;
use state::{Authorised, Root};

use super::pending::{DowngradeWish, Pending, Read, Waiting};
use super::{Services, decode};
use crate::drive::commit::ToCommit;
use crate::drive::entry;
use crate::drive::hashing::ToHash;
use crate::drive::post::token;
use crate::front::Net;

/// etcd's text for an action that it does not know.
const UNKNOWN_METHOD: &str = "etcdserver: unknown method";

fn reject(error: &Error) {
    tracing::warn!(%error, "reject downgrade request");
}

impl Services {
    pub(super) fn alarm(
        &mut self,
        net: &mut Net,
        waiting: Waiting,
        message: Bytes,
    ) -> Result<(), Status> {
        let request: pb::AlarmRequest = decode(message.clone())?;
        if request.action == AlarmAction::Get as i32 {
            self.user(&waiting)?;
            // A read needs no entry in the log.
            self.read(net, waiting, Read::Alarms(request.alarm), false);
            return Ok(());
        }
        self.root(&waiting)?;
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

    pub(super) fn status(&mut self, net: &mut Net, waiting: &Waiting) -> Result<(), Status> {
        self.user(waiting)?;
        let response = self.shared.status_response();
        self.send_message(net, waiting, &response);
        Ok(())
    }

    pub(super) fn hash(&mut self, _: &Authorised<Root>, waiting: Waiting) {
        let slot = self.slots.insert(Pending::Answer(waiting));
        self.shared
            .hashing
            .push(ToHash::All(token(self.thread, slot)));
    }

    pub(super) fn hash_kv(
        &mut self,
        _: &Authorised<Root>,
        waiting: Waiting,
        message: &Bytes,
    ) -> Result<(), Status> {
        let request: pb::HashKvRequest = decode(message.clone())?;
        let slot = self.slots.insert(Pending::Answer(waiting));
        let token = token(self.thread, slot);
        self.shared.hashing.push(ToHash::Keys {
            revision: request.revision,
            token,
        });
        Ok(())
    }

    pub(super) fn defragment(
        &mut self,
        _: &Authorised<Root>,
        waiting: Waiting,
        message: &Bytes,
    ) -> Result<(), Status> {
        let _: pb::DefragmentRequest = decode(message.clone())?;
        let slot = self.slots.insert(Pending::Answer(waiting));
        let token = token(self.thread, slot);
        self.shared.commits.push(ToCommit::Defragment(token));
        Ok(())
    }

    pub(super) fn downgrade(
        &mut self,
        _: &Authorised<Root>,
        net: &mut Net,
        waiting: Waiting,
        message: &Bytes,
    ) -> Result<(), Status> {
        let request: pb::DowngradeRequest = decode(message.clone())?;
        let target =
            || api::version::minor(&request.version).ok_or(Error::WrongDowngradeVersionFormat);
        let wish = match DowngradeAction::try_from(request.action) {
            Ok(DowngradeAction::Validate) => {
                let (major, minor) = target()?;
                DowngradeWish::Validate(major, minor)
            }
            Ok(DowngradeAction::Enable) => {
                let (major, minor) = target().inspect_err(reject)?;
                DowngradeWish::Enable(major, minor)
            }
            Ok(DowngradeAction::Cancel) => DowngradeWish::Cancel,
            Err(_) => return Err(Status::new(Code::Unknown, UNKNOWN_METHOD)),
        };
        self.read(net, waiting, Read::Downgrade(wish), false);
        Ok(())
    }

    /// Decides on the state as it is now whether a downgrade may begin or has to end.
    pub(super) fn serve_downgrade(
        &mut self,
        net: &mut Net,
        waiting: &Waiting,
        wish: DowngradeWish,
    ) -> Result<(), Status> {
        let set = match wish {
            DowngradeWish::Validate(major, minor) => {
                self.check_downgrade((major, minor))?;
                None
            }
            DowngradeWish::Enable(major, minor) => {
                self.check_downgrade((major, minor)).inspect_err(reject)?;
                Some(format!("{major}.{minor}.0"))
            }
            DowngradeWish::Cancel if self.shared.downgrade().is_some() => Some(String::new()),
            DowngradeWish::Cancel => {
                let error = Error::NoInflightDowngrade;
                tracing::warn!(%error, "failed to cancel downgrade");
                None
            }
        };
        let members = self.shared.view.members();
        let version = members.cluster_version().and_then(api::version::minor);
        let version = version.map_or_else(String::new, |(major, minor)| format!("{major}.{minor}"));
        let Some(ver) = set else {
            self.answer_downgrade(net, waiting, version);
            return Ok(());
        };
        let request = DowngradeInfoSetRequest {
            enabled: !ver.is_empty(),
            ver,
        };
        let request = request.encode_to_vec();
        self.propose(
            waiting.clone(),
            entry::DOWNGRADE_INFO_SET,
            &request,
            |waiting| Pending::Downgrade(waiting, version),
        )
    }

    fn check_downgrade(&self, target: (u64, u64)) -> Result<(), Error> {
        let members = self.shared.view.members();
        let current = members.cluster_version().and_then(api::version::minor);
        let (major, minor) = current.ok_or(Error::ClusterVersionUnavailable)?;
        if minor.checked_sub(1).map(|minor| (major, minor)) != Some(target) {
            return Err(Error::InvalidDowngradeTargetVersion);
        }
        if members.downgrade().enabled {
            return Err(Error::DowngradeInProcess);
        }
        Ok(())
    }

    /// Answers with the version that the cluster had.
    pub(super) fn answer_downgrade(&mut self, net: &mut Net, waiting: &Waiting, version: String) {
        let response = pb::DowngradeResponse {
            header: Some(self.header().message(self.shared.view.revision())),
            version,
        };
        self.send_message(net, waiting, &response);
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
        self.lookouts.insert(waiting.call, waiting);
        Ok(())
    }
}

fn serving(status: ServingStatus) -> health::HealthCheckResponse {
    health::HealthCheckResponse {
        status: status as i32,
    }
}
