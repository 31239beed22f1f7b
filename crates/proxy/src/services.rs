//! The methods of etcd's services, each with what answers it.

mod kv;

use std::sync::Arc;

use api::pb::etcdserverpb::{LeaseTimeToLiveRequest, MemberListRequest};
use client::Channel;
use http::{Request, Response};
use tonic::Status;
use tonic::body::Body;

use crate::below::{Below, Caller, status};
use crate::cluster::Cluster;
use crate::leader::Leader;
use crate::metrics::Metrics;
use crate::pass::{self, Limits};
use crate::settings::Settings;
use crate::{lease, namespace, rpc, watch};

/// Methods that the proxy need not understand, by service. Election and Lock name keys of the
/// cluster, whatever the namespace; etcd's proxy does the same.
const PASSED: &[(&str, &[&str])] = &[
    (
        "etcdserverpb.Auth",
        &[
            "AuthEnable",
            "AuthDisable",
            "AuthStatus",
            "Authenticate",
            "UserAdd",
            "UserGet",
            "UserList",
            "UserDelete",
            "UserChangePassword",
            "UserGrantRole",
            "UserRevokeRole",
            "RoleAdd",
            "RoleGet",
            "RoleList",
            "RoleDelete",
            "RoleGrantPermission",
            "RoleRevokePermission",
        ],
    ),
    (
        "etcdserverpb.Cluster",
        &[
            "MemberAdd",
            "MemberRemove",
            "MemberUpdate",
            "MemberPromote",
            "MemberList",
        ],
    ),
    (
        "etcdserverpb.Lease",
        &[
            "LeaseGrant",
            "LeaseRevoke",
            "LeaseTimeToLive",
            "LeaseLeases",
        ],
    ),
    (
        "etcdserverpb.Maintenance",
        &[
            "Alarm",
            "Status",
            "Defragment",
            "Hash",
            "HashKV",
            "Snapshot",
            "MoveLeader",
            "Downgrade",
        ],
    ),
    (
        "v3electionpb.Election",
        &["Campaign", "Proclaim", "Leader", "Observe", "Resign"],
    ),
    ("v3lockpb.Lock", &["Lock", "Unlock"]),
];

/// Everything that answers gRPC calls.
pub(crate) struct Services {
    kv: Arc<kv::Service>,
    watch: Arc<watch::Service>,
    lease: Arc<lease::Service>,
    cluster: Cluster,
    below: Below,
    /// For what is passed on: clients that do not read their answers keep back nothing else.
    channel: Channel,
    limits: Limits,
}

impl Services {
    pub(crate) fn start(below: &Below, settings: &Settings, metrics: &Arc<Metrics>) -> Self {
        let leader = Arc::new(Leader::new(below.client.clone()));
        let kv = kv::Service::new(Arc::clone(&below.kv), Arc::clone(metrics));
        let lease = lease::Service::new(below.client.clone(), Arc::clone(&leader));
        let watch = watch::Service::start(below, leader, Arc::clone(metrics));
        let channel = below.client.channel().apart();
        Services {
            kv: Arc::new(kv),
            watch: Arc::new(watch),
            lease: Arc::new(lease),
            cluster: Cluster::start(below, settings, &channel),
            below: below.clone(),
            channel,
            limits: Limits {
                request: settings.cluster.request_bytes_max,
                answer: settings.cluster.response_bytes_max,
            },
        }
    }

    /// Gives up what others would wait for once the process has gone.
    pub(crate) async fn close(&self) {
        self.cluster.close().await;
    }

    /// Answers one call.
    pub(crate) async fn answer(&self, request: Request<Body>) -> Response<Body> {
        let path = request.uri().path().to_owned();
        let Some((service, method)) = path.strip_prefix('/').and_then(|it| it.split_once('/'))
        else {
            return Status::unimplemented(format!("malformed method name: {path:?}")).into_http();
        };
        match (service, method) {
            ("etcdserverpb.KV", _) => self.kv(method, request).await,
            ("etcdserverpb.Watch", "Watch") => {
                let watch = Arc::clone(&self.watch);
                rpc::streaming(request, |caller, it| watch.watch(caller, it)).await
            }
            ("etcdserverpb.Watch", _) => unknown(service, Some(method)),
            ("etcdserverpb.Lease", "LeaseKeepAlive") => {
                let lease = Arc::clone(&self.lease);
                rpc::streaming(request, |caller, it| lease.keep_alive(caller, it)).await
            }
            ("etcdserverpb.Cluster", "MemberList") => self.member_list(request).await,
            ("etcdserverpb.Lease", "LeaseTimeToLive") if !self.below.namespace.is_empty() => {
                self.time_to_live(request).await
            }
            ("etcdserverpb.Maintenance", "Snapshot") => {
                // It goes on for as long as the client likes; a connection that is full of such
                // answers brings no others.
                let channel = self.channel.apart();
                pass::pass(channel, self.limits, request).await
            }
            _ => {
                let _after = Forgetting::after(service, method, &self.kv);
                self.pass(service, method, request).await
            }
        }
    }

    async fn member_list(&self, request: Request<Body>) -> Response<Body> {
        match self.cluster.members() {
            None => {
                self.pass("etcdserverpb.Cluster", "MemberList", request)
                    .await
            }
            Some(members) => {
                rpc::unary(request, |_, _: MemberListRequest| async { Ok(members) }).await
            }
        }
    }

    /// Keys are shown under the names that clients have for them.
    async fn time_to_live(&self, request: Request<Body>) -> Response<Body> {
        let below = self.below.clone();
        let ask = |caller: Caller, request: LeaseTimeToLiveRequest| async move {
            let client = caller.client(&below.client);
            let mut answer = client.lease_time_to_live(request).await.map_err(status)?;
            namespace::keep_own_keys(&below.namespace, &mut answer);
            Ok(answer)
        };
        rpc::unary(request, ask).await
    }

    async fn kv(&self, method: &str, request: Request<Body>) -> Response<Body> {
        let kv = Arc::clone(&self.kv);
        match method {
            "Range" => {
                rpc::unary(
                    request,
                    |caller, it| async move { kv.range(&caller, it).await },
                )
                .await
            }
            "Put" => {
                rpc::unary(
                    request,
                    |caller, it| async move { kv.put(&caller, it).await },
                )
                .await
            }
            "DeleteRange" => {
                rpc::unary(request, |caller, it| async move {
                    kv.delete_range(&caller, it).await
                })
                .await
            }
            "Txn" => {
                rpc::unary(
                    request,
                    |caller, it| async move { kv.txn(&caller, it).await },
                )
                .await
            }
            "Compact" => {
                rpc::unary(request, |caller, it| async move {
                    kv.compact(&caller, it).await
                })
                .await
            }
            "RangeStream" => {
                Status::unimplemented("RangeStream is not supported by the gRPC proxy").into_http()
            }
            _ => unknown("etcdserverpb.KV", Some(method)),
        }
    }

    async fn pass(&self, service: &str, method: &str, request: Request<Body>) -> Response<Body> {
        let Some((_, methods)) = PASSED.iter().find(|(name, _)| *name == service) else {
            return unknown(service, None);
        };
        if !methods.contains(&method) {
            return unknown(service, Some(method));
        }
        pass::pass(self.channel.clone(), self.limits, request).await
    }
}

/// What a call that is passed on makes of answers that are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outdates {
    /// Who may see them.
    Readers,
    /// The keys that they are about, whichever they are.
    Keys,
}

impl Outdates {
    fn by(service: &str, method: &str) -> Option<Self> {
        match (service, method) {
            // Who gets a token has one because others need one.
            ("etcdserverpb.Auth", "AuthEnable" | "Authenticate") => Some(Outdates::Readers),
            ("etcdserverpb.Lease", "LeaseRevoke")
            | ("v3electionpb.Election", "Campaign" | "Proclaim" | "Resign")
            | ("v3lockpb.Lock", "Lock" | "Unlock") => Some(Outdates::Keys),
            _ => None,
        }
    }
}

/// Has answers forgotten when a call is over, or its client has gone.
struct Forgetting<'a>(Outdates, &'a kv::Service);

impl<'a> Forgetting<'a> {
    fn after(service: &str, method: &str, kv: &'a kv::Service) -> Option<Self> {
        let what = Outdates::by(service, method)?;
        Some(Forgetting(what, kv))
    }
}

impl Drop for Forgetting<'_> {
    fn drop(&mut self) {
        match self.0 {
            Outdates::Readers => self.1.forget(),
            Outdates::Keys => self.1.clear(),
        }
    }
}

/// gRPC's words for what is not there.
fn unknown(service: &str, method: Option<&str>) -> Response<Body> {
    let text = match method {
        None => format!("unknown service {service}"),
        Some(method) => format!("unknown method {method} for service {service}"),
    };
    Status::unimplemented(text).into_http()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_that_outdate_answers_are_methods_that_are_passed_on() {
        let methods = PASSED.iter().flat_map(|(service, methods)| {
            let methods = methods.iter();
            methods.map(move |method| (*service, *method))
        });
        let outdating = methods.filter(|(service, method)| Outdates::by(service, method).is_some());
        let names: Vec<&str> = outdating.map(|(_, method)| method).collect();
        let want = [
            "AuthEnable",
            "Authenticate",
            "LeaseRevoke",
            "Campaign",
            "Proclaim",
            "Resign",
            "Lock",
            "Unlock",
        ];
        assert_eq!(names, want);
    }
}
