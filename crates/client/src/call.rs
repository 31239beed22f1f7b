//! One method of [`Client`] for each unary RPC, and when a request is sent again.

use std::future::Future;
use std::time::{Duration, Instant};

use api::Code;
use api::pb::etcdserverpb::*;
use prost::Message;
use tonic::{Request, Response, Status};

use crate::channel::Channel;
use crate::client::Client;
use crate::error::Error;
use crate::stub::{AuthClient, ClusterClient, KvClient, LeaseClient, MaintenanceClient};

/// How often a request is sent at most, and how long after a failure.
const ATTEMPTS_MAX: u32 = 100;
const RETRY_WAIT: Duration = Duration::from_millis(25);

/// How often one request may ask for a new token.
const REFRESHES_MAX: u32 = 2;

/// Whether a request may be sent again after it may have been processed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Repeat {
    /// It changes nothing.
    Safe,
    /// It changes something: once only.
    Never,
}

impl Client {
    async fn unary<Q, A, S, F>(&self, repeat: Repeat, message: Q, send: S) -> Result<A, Error>
    where
        Q: Message + Clone,
        S: Fn(Channel, usize, Request<Q>) -> F,
        F: Future<Output = Result<Response<A>, Status>>,
    {
        self.check_size(&message)?;
        let mut refreshes = 0;
        let mut attempt = 0;
        let mut last = None;
        let begun = Instant::now();
        loop {
            attempt += 1;
            let request = self.request(message.clone());
            let answer = send(self.channel(), self.response_bytes_max(), request);
            let error = match self.limited(answer).await {
                Ok(answer) => return Ok(answer.into_inner()),
                Err(Error::Deadline { cause }) => {
                    let cause = cause.or(last);
                    return Err(Error::Deadline { cause });
                }
                Err(error) => error,
            };
            if self.may_refresh_for(&error) && refreshes < REFRESHES_MAX {
                refreshes += 1;
                self.authenticate().await?;
                continue;
            }
            // The endpoint whose turn is next may be a voter's; a learner did nothing with it.
            let by_learner = error.is(api::Error::NotSupportedForLearner);
            let again = match by_learner {
                true => self.channel().endpoint_count() > 1,
                false => repeat == Repeat::Safe && error.code() == Some(Code::Unavailable),
            };
            let in_time = self.channel().may_wait_since(begun);
            if !(again && in_time) || attempt == ATTEMPTS_MAX {
                return Err(error);
            }
            last = Some(error.to_string());
            tokio::time::sleep(RETRY_WAIT).await;
        }
    }

    fn check_size(&self, message: &impl Message) -> Result<(), Error> {
        let size = message.encoded_len();
        let max = self.request_bytes_max();
        if size <= max {
            return Ok(());
        }
        let message = format!("trying to send message larger than max ({size} vs. {max})");
        Err(Error::Rpc {
            code: Code::ResourceExhausted,
            message,
        })
    }

    /// Runs a transaction; one that only reads may be repeated.
    ///
    /// # Errors
    /// The server refused it, or it may or may not have been processed.
    pub async fn txn(&self, request: TxnRequest) -> Result<TxnResponse, Error> {
        let repeat = if is_read_only(&request) {
            Repeat::Safe
        } else {
            Repeat::Never
        };
        self.unary(repeat, request, |channel, max, request| async move {
            KvClient::new(channel)
                .max_decoding_message_size(max)
                .txn(request)
                .await
        })
        .await
    }
}

fn is_read_only(txn: &TxnRequest) -> bool {
    txn.success
        .iter()
        .chain(&txn.failure)
        .all(|op| match &op.request {
            Some(request_op::Request::RequestRange(_)) => true,
            Some(request_op::Request::RequestTxn(nested)) => is_read_only(nested),
            _ => false,
        })
}

macro_rules! unary {
    ($($(#[$doc:meta])* $name:ident: $stub:ident, $request:ident => $answer:ident, $repeat:ident;)*) => {
        impl Client {
            $(
                $(#[$doc])*
                ///
                /// # Errors
                /// The server refused it, it was lost on the way, or the deadline passed.
                pub async fn $name(&self, request: $request) -> Result<$answer, Error> {
                    self.unary(Repeat::$repeat, request, |channel, max, request| async move {
                        $stub::new(channel).max_decoding_message_size(max).$name(request).await
                    })
                    .await
                }
            )*
        }
    };
}

unary! {
    /// Reads keys.
    range: KvClient, RangeRequest => RangeResponse, Safe;
    /// Writes a key.
    put: KvClient, PutRequest => PutResponse, Never;
    /// Deletes keys.
    delete_range: KvClient, DeleteRangeRequest => DeleteRangeResponse, Never;
    /// Drops history before a revision.
    compact: KvClient, CompactionRequest => CompactionResponse, Never;
    /// Creates a lease.
    lease_grant: LeaseClient, LeaseGrantRequest => LeaseGrantResponse, Never;
    /// Ends a lease and deletes its keys.
    lease_revoke: LeaseClient, LeaseRevokeRequest => LeaseRevokeResponse, Never;
    /// Tells how long a lease will live.
    lease_time_to_live: LeaseClient, LeaseTimeToLiveRequest => LeaseTimeToLiveResponse, Safe;
    /// Lists leases.
    lease_leases: LeaseClient, LeaseLeasesRequest => LeaseLeasesResponse, Safe;
    /// Adds a member.
    member_add: ClusterClient, MemberAddRequest => MemberAddResponse, Never;
    /// Removes a member.
    member_remove: ClusterClient, MemberRemoveRequest => MemberRemoveResponse, Never;
    /// Changes a member's peer URLs.
    member_update: ClusterClient, MemberUpdateRequest => MemberUpdateResponse, Never;
    /// Lists members.
    member_list: ClusterClient, MemberListRequest => MemberListResponse, Safe;
    /// Makes a learner a voter.
    member_promote: ClusterClient, MemberPromoteRequest => MemberPromoteResponse, Never;
    /// Lists, raises or clears alarms.
    alarm: MaintenanceClient, AlarmRequest => AlarmResponse, Safe;
    /// Tells how a member is.
    status: MaintenanceClient, StatusRequest => StatusResponse, Safe;
    /// Gives space of a member's database back.
    defragment: MaintenanceClient, DefragmentRequest => DefragmentResponse, Never;
    /// Hashes a member's history of keys.
    hash_kv: MaintenanceClient, HashKvRequest => HashKvResponse, Safe;
    /// Hands leadership to another member.
    move_leader: MaintenanceClient, MoveLeaderRequest => MoveLeaderResponse, Safe;
    /// Prepares, starts or cancels the cluster's way back to an older version.
    downgrade: MaintenanceClient, DowngradeRequest => DowngradeResponse, Never;
    /// Switches authentication on.
    auth_enable: AuthClient, AuthEnableRequest => AuthEnableResponse, Never;
    /// Switches authentication off.
    auth_disable: AuthClient, AuthDisableRequest => AuthDisableResponse, Never;
    /// Tells whether authentication is on.
    auth_status: AuthClient, AuthStatusRequest => AuthStatusResponse, Safe;
    /// Adds a user.
    user_add: AuthClient, AuthUserAddRequest => AuthUserAddResponse, Never;
    /// Tells a user's roles.
    user_get: AuthClient, AuthUserGetRequest => AuthUserGetResponse, Safe;
    /// Lists users.
    user_list: AuthClient, AuthUserListRequest => AuthUserListResponse, Safe;
    /// Deletes a user.
    user_delete: AuthClient, AuthUserDeleteRequest => AuthUserDeleteResponse, Never;
    /// Changes a user's password.
    user_change_password: AuthClient,
        AuthUserChangePasswordRequest => AuthUserChangePasswordResponse, Never;
    /// Gives a user a role.
    user_grant_role: AuthClient, AuthUserGrantRoleRequest => AuthUserGrantRoleResponse, Never;
    /// Takes a role from a user.
    user_revoke_role: AuthClient, AuthUserRevokeRoleRequest => AuthUserRevokeRoleResponse, Never;
    /// Adds a role.
    role_add: AuthClient, AuthRoleAddRequest => AuthRoleAddResponse, Never;
    /// Tells a role's permissions.
    role_get: AuthClient, AuthRoleGetRequest => AuthRoleGetResponse, Safe;
    /// Lists roles.
    role_list: AuthClient, AuthRoleListRequest => AuthRoleListResponse, Safe;
    /// Deletes a role.
    role_delete: AuthClient, AuthRoleDeleteRequest => AuthRoleDeleteResponse, Never;
    /// Gives a role a permission.
    role_grant_permission: AuthClient,
        AuthRoleGrantPermissionRequest => AuthRoleGrantPermissionResponse, Never;
    /// Takes a permission from a role.
    role_revoke_permission: AuthClient,
        AuthRoleRevokePermissionRequest => AuthRoleRevokePermissionResponse, Never;
}
