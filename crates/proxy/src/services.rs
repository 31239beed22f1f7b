//! The methods of etcd's services, each with what answers it.

mod kv;

use std::sync::Arc;

use client::Channel;
use http::{Request, Response};
use hyper::body::Incoming;
use tonic::Status;
use tonic::body::Body;

use crate::below::Below;
use crate::leader::Leader;
use crate::metrics::Metrics;
use crate::pass::{self, Limits};
use crate::{lease, rpc, watch};

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
    channel: Channel,
    limits: Limits,
}

impl Services {
    pub(crate) fn new(below: &Below, limits: Limits) -> Self {
        let leader = Arc::new(Leader::new(below.client.clone()));
        let metrics = Arc::<Metrics>::default();
        let lease = lease::Service::new(below.client.clone(), Arc::clone(&leader));
        Services {
            watch: Arc::new(watch::Service::start(below, leader, metrics)),
            lease: Arc::new(lease),
            kv: Arc::new(kv::Service::new(Arc::clone(&below.kv))),
            channel: below.client.channel(),
            limits,
        }
    }

    /// Answers one call.
    pub(crate) async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
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
            _ => self.pass(service, method, request).await,
        }
    }

    async fn kv(&self, method: &str, request: Request<Incoming>) -> Response<Body> {
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

    async fn pass(
        &self,
        service: &str,
        method: &str,
        request: Request<Incoming>,
    ) -> Response<Body> {
        let Some((_, methods)) = PASSED.iter().find(|(name, _)| *name == service) else {
            return unknown(service, None);
        };
        if !methods.contains(&method) {
            return unknown(service, Some(method));
        }
        pass::pass(self.channel.clone(), self.limits, request).await
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
