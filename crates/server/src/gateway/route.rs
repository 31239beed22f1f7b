//! The paths of the JSON API and the methods behind them.

use std::collections::HashMap;

use super::schema::{METHODS, Method};

/// Below this everything belongs to the gateway.
pub(crate) const PREFIX: &str = "/v3/";

/// Path behind [`PREFIX`] and the method's path; all are called with POST.
const ROUTES: [(&str, &str); 51] = [
    ("kv/range", "/etcdserverpb.KV/Range"),
    ("kv/put", "/etcdserverpb.KV/Put"),
    ("kv/deleterange", "/etcdserverpb.KV/DeleteRange"),
    ("kv/txn", "/etcdserverpb.KV/Txn"),
    ("kv/compaction", "/etcdserverpb.KV/Compact"),
    ("watch", "/etcdserverpb.Watch/Watch"),
    ("lease/grant", "/etcdserverpb.Lease/LeaseGrant"),
    ("lease/revoke", "/etcdserverpb.Lease/LeaseRevoke"),
    ("kv/lease/revoke", "/etcdserverpb.Lease/LeaseRevoke"),
    ("lease/keepalive", "/etcdserverpb.Lease/LeaseKeepAlive"),
    ("lease/timetolive", "/etcdserverpb.Lease/LeaseTimeToLive"),
    ("kv/lease/timetolive", "/etcdserverpb.Lease/LeaseTimeToLive"),
    ("lease/leases", "/etcdserverpb.Lease/LeaseLeases"),
    ("kv/lease/leases", "/etcdserverpb.Lease/LeaseLeases"),
    ("cluster/member/add", "/etcdserverpb.Cluster/MemberAdd"),
    (
        "cluster/member/remove",
        "/etcdserverpb.Cluster/MemberRemove",
    ),
    (
        "cluster/member/update",
        "/etcdserverpb.Cluster/MemberUpdate",
    ),
    ("cluster/member/list", "/etcdserverpb.Cluster/MemberList"),
    (
        "cluster/member/promote",
        "/etcdserverpb.Cluster/MemberPromote",
    ),
    ("maintenance/alarm", "/etcdserverpb.Maintenance/Alarm"),
    ("maintenance/status", "/etcdserverpb.Maintenance/Status"),
    (
        "maintenance/defragment",
        "/etcdserverpb.Maintenance/Defragment",
    ),
    ("maintenance/hash", "/etcdserverpb.Maintenance/Hash"),
    ("maintenance/hashkv", "/etcdserverpb.Maintenance/HashKV"),
    ("maintenance/snapshot", "/etcdserverpb.Maintenance/Snapshot"),
    (
        "maintenance/transfer-leadership",
        "/etcdserverpb.Maintenance/MoveLeader",
    ),
    (
        "maintenance/downgrade",
        "/etcdserverpb.Maintenance/Downgrade",
    ),
    ("auth/enable", "/etcdserverpb.Auth/AuthEnable"),
    ("auth/disable", "/etcdserverpb.Auth/AuthDisable"),
    ("auth/status", "/etcdserverpb.Auth/AuthStatus"),
    ("auth/authenticate", "/etcdserverpb.Auth/Authenticate"),
    ("auth/user/add", "/etcdserverpb.Auth/UserAdd"),
    ("auth/user/get", "/etcdserverpb.Auth/UserGet"),
    ("auth/user/list", "/etcdserverpb.Auth/UserList"),
    ("auth/user/delete", "/etcdserverpb.Auth/UserDelete"),
    (
        "auth/user/changepw",
        "/etcdserverpb.Auth/UserChangePassword",
    ),
    ("auth/user/grant", "/etcdserverpb.Auth/UserGrantRole"),
    ("auth/user/revoke", "/etcdserverpb.Auth/UserRevokeRole"),
    ("auth/role/add", "/etcdserverpb.Auth/RoleAdd"),
    ("auth/role/get", "/etcdserverpb.Auth/RoleGet"),
    ("auth/role/list", "/etcdserverpb.Auth/RoleList"),
    ("auth/role/delete", "/etcdserverpb.Auth/RoleDelete"),
    ("auth/role/grant", "/etcdserverpb.Auth/RoleGrantPermission"),
    (
        "auth/role/revoke",
        "/etcdserverpb.Auth/RoleRevokePermission",
    ),
    ("lock/lock", "/v3lockpb.Lock/Lock"),
    ("lock/unlock", "/v3lockpb.Lock/Unlock"),
    ("election/campaign", "/v3electionpb.Election/Campaign"),
    ("election/proclaim", "/v3electionpb.Election/Proclaim"),
    ("election/leader", "/v3electionpb.Election/Leader"),
    ("election/observe", "/v3electionpb.Election/Observe"),
    ("election/resign", "/v3electionpb.Election/Resign"),
];

/// The routes, found by path.
pub(super) struct Routes {
    by_path: HashMap<&'static str, &'static Method>,
}

impl Routes {
    pub(super) fn new() -> Routes {
        let method = |path: &str| METHODS.iter().find(|method| method.path == path);
        let routes = ROUTES.iter();
        let by_path = routes.map(|(path, method_path)| {
            let method = method(method_path).expect("a test looks for every method");
            (*path, method)
        });
        Routes {
            by_path: by_path.collect(),
        }
    }

    /// The method of a path that begins with [`PREFIX`].
    pub(super) fn find(&self, path: &str) -> Option<&'static Method> {
        self.by_path.get(path.strip_prefix(PREFIX)?).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_route_has_its_method() {
        let routes = Routes::new();
        assert_eq!(routes.by_path.len(), ROUTES.len());
        for (path, method) in ROUTES {
            assert_eq!(routes.find(&format!("/v3/{path}")).unwrap().path, method);
        }
        for path in [
            "/v3/",
            "/v3/kv",
            "/v3/kv/range/",
            "/kv/range",
            "/v3/kv/rangestream",
        ] {
            assert!(routes.find(path).is_none(), "{path}");
        }
        // All methods of the API but the one without a route.
        let routed = |method: &&Method| ROUTES.iter().any(|(_, path)| *path == method.path);
        let left: Vec<_> = METHODS.iter().filter(|method| !routed(method)).collect();
        assert_eq!(left.len(), 1);
        assert_eq!(left[0].path, "/etcdserverpb.KV/RangeStream");
    }
}
