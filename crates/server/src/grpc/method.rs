//! The gRPC methods that exist, as data: the front end matches paths against this table.

use crate::front::{Method, MethodId, MethodKind};

macro_rules! methods {
    ($($name:ident $kind:ident $path:literal;)*) => {
        /// A method of one of the services.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u16)]
        pub(crate) enum Rpc {
            $($name,)*
        }

        /// What [`crate::front::Config::methods`] is told.
        pub(crate) const METHODS: &[Method] = &[
            $(Method { path: $path, kind: MethodKind::$kind },)*
        ];

        impl Rpc {
            const ALL: &'static [Rpc] = &[$(Rpc::$name,)*];
        }
    };
}

methods! {
    Range Unary "/etcdserverpb.KV/Range";
    RangeStream Unary "/etcdserverpb.KV/RangeStream";
    Put Unary "/etcdserverpb.KV/Put";
    DeleteRange Unary "/etcdserverpb.KV/DeleteRange";
    Txn Unary "/etcdserverpb.KV/Txn";
    Compact Unary "/etcdserverpb.KV/Compact";
    LeaseGrant Unary "/etcdserverpb.Lease/LeaseGrant";
    LeaseRevoke Unary "/etcdserverpb.Lease/LeaseRevoke";
    LeaseLeases Unary "/etcdserverpb.Lease/LeaseLeases";
    LeaseTimeToLive Unary "/etcdserverpb.Lease/LeaseTimeToLive";
    LeaseKeepAlive Streaming "/etcdserverpb.Lease/LeaseKeepAlive";
    MemberList Unary "/etcdserverpb.Cluster/MemberList";
    MemberAdd Unary "/etcdserverpb.Cluster/MemberAdd";
    MemberRemove Unary "/etcdserverpb.Cluster/MemberRemove";
    MemberUpdate Unary "/etcdserverpb.Cluster/MemberUpdate";
    MemberPromote Unary "/etcdserverpb.Cluster/MemberPromote";
    Alarm Unary "/etcdserverpb.Maintenance/Alarm";
    Watch Streaming "/etcdserverpb.Watch/Watch";
    Status Unary "/etcdserverpb.Maintenance/Status";
    MoveLeader Unary "/etcdserverpb.Maintenance/MoveLeader";
    Defragment Unary "/etcdserverpb.Maintenance/Defragment";
    Snapshot Unary "/etcdserverpb.Maintenance/Snapshot";
    Downgrade Unary "/etcdserverpb.Maintenance/Downgrade";
    Hash Unary "/etcdserverpb.Maintenance/Hash";
    HashKv Unary "/etcdserverpb.Maintenance/HashKV";
    Authenticate Unary "/etcdserverpb.Auth/Authenticate";
    AuthEnable Unary "/etcdserverpb.Auth/AuthEnable";
    AuthDisable Unary "/etcdserverpb.Auth/AuthDisable";
    AuthStatus Unary "/etcdserverpb.Auth/AuthStatus";
    UserAdd Unary "/etcdserverpb.Auth/UserAdd";
    UserGet Unary "/etcdserverpb.Auth/UserGet";
    UserList Unary "/etcdserverpb.Auth/UserList";
    UserDelete Unary "/etcdserverpb.Auth/UserDelete";
    UserChangePassword Unary "/etcdserverpb.Auth/UserChangePassword";
    UserGrantRole Unary "/etcdserverpb.Auth/UserGrantRole";
    UserRevokeRole Unary "/etcdserverpb.Auth/UserRevokeRole";
    RoleAdd Unary "/etcdserverpb.Auth/RoleAdd";
    RoleGet Unary "/etcdserverpb.Auth/RoleGet";
    RoleList Unary "/etcdserverpb.Auth/RoleList";
    RoleDelete Unary "/etcdserverpb.Auth/RoleDelete";
    RoleGrantPermission Unary "/etcdserverpb.Auth/RoleGrantPermission";
    RoleRevokePermission Unary "/etcdserverpb.Auth/RoleRevokePermission";
    Lock Unary "/v3lockpb.Lock/Lock";
    Unlock Unary "/v3lockpb.Lock/Unlock";
    Campaign Unary "/v3electionpb.Election/Campaign";
    Proclaim Unary "/v3electionpb.Election/Proclaim";
    Leader Unary "/v3electionpb.Election/Leader";
    Observe Unary "/v3electionpb.Election/Observe";
    Resign Unary "/v3electionpb.Election/Resign";
    HealthCheck Unary "/grpc.health.v1.Health/Check";
    HealthList Unary "/grpc.health.v1.Health/List";
    HealthWatch Unary "/grpc.health.v1.Health/Watch";
}

impl Rpc {
    /// Whether one request gets one answer.
    pub(crate) fn is_unary(self) -> bool {
        !matches!(
            self,
            Rpc::RangeStream
                | Rpc::LeaseKeepAlive
                | Rpc::Watch
                | Rpc::Snapshot
                | Rpc::Observe
                | Rpc::HealthWatch
        )
    }

    /// Whether the answer comes from the keys of this member.
    pub(crate) fn shows_data(self) -> bool {
        matches!(
            self,
            Rpc::Range
                | Rpc::RangeStream
                | Rpc::Txn
                | Rpc::Watch
                | Rpc::Snapshot
                | Rpc::Lock
                | Rpc::Campaign
                | Rpc::Leader
                | Rpc::Observe
        )
    }

    /// The path of the method.
    pub(crate) fn path(self) -> &'static str {
        METHODS[self as usize].path
    }

    /// The row that the front end matched.
    pub(crate) fn of(id: MethodId) -> Rpc {
        Self::ALL[usize::from(id.0)]
    }
}
