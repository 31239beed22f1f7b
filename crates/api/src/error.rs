//! Every answer that is an error: one table of gRPC code and text.
//!
//! Clients compare the text (Go's by a map from it, others by code and text), so both are
//! interface. The codes are those seen on the wire: etcd sends `MemberNotEnoughStarted` and
//! `TooManyRequests` as `Unknown`, whatever its own table says.

use std::fmt;

#[cfg(test)]
mod tests;

/// A gRPC status code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Code {
    Ok = 0,
    Canceled = 1,
    Unknown = 2,
    InvalidArgument = 3,
    DeadlineExceeded = 4,
    NotFound = 5,
    AlreadyExists = 6,
    PermissionDenied = 7,
    ResourceExhausted = 8,
    FailedPrecondition = 9,
    Aborted = 10,
    OutOfRange = 11,
    Unimplemented = 12,
    Internal = 13,
    Unavailable = 14,
    DataLoss = 15,
    Unauthenticated = 16,
}

macro_rules! errors {
    ($($name:ident, $code:ident, $text:literal;)*) => {
        /// What a client is told when its request is refused.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Error {
            $(#[doc = $text] $name,)*
        }

        impl Error {
            /// Every error, in the order of the table.
            pub const ALL: &'static [Error] = &[$(Error::$name,)*];

            /// The gRPC status code on the wire.
            #[must_use]
            pub fn code(self) -> Code {
                match self {
                    $(Error::$name => Code::$code,)*
                }
            }

            /// The gRPC status message.
            #[must_use]
            pub fn message(self) -> &'static str {
                match self {
                    $(Error::$name => $text,)*
                }
            }

            /// The name used in the list of errors, for example `EmptyKey`.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $(Error::$name => stringify!($name),)*
                }
            }
        }
    };
}

errors! {
    EmptyKey, InvalidArgument, "etcdserver: key is not provided";
    KeyNotFound, InvalidArgument, "etcdserver: key not found";
    ValueProvided, InvalidArgument, "etcdserver: value is provided";
    LeaseProvided, InvalidArgument, "etcdserver: lease is provided";
    TooManyOps, InvalidArgument, "etcdserver: too many operations in txn request";
    DuplicateKey, InvalidArgument, "etcdserver: duplicate key given in txn request";
    InvalidClientAPIVersion, InvalidArgument, "etcdserver: invalid client api version";
    InvalidSortOption, InvalidArgument, "etcdserver: invalid sort option";
    Compacted, OutOfRange, "etcdserver: mvcc: required revision has been compacted";
    FutureRev, OutOfRange, "etcdserver: mvcc: required revision is a future revision";
    NoSpace, ResourceExhausted, "etcdserver: mvcc: database space exceeded";
    LeaseNotFound, NotFound, "etcdserver: requested lease not found";
    LeaseExist, FailedPrecondition, "etcdserver: lease already exists";
    LeaseTTLTooLarge, OutOfRange, "etcdserver: too large lease TTL";
    WatchCanceled, Canceled, "etcdserver: watch canceled";
    MemberExist, FailedPrecondition, "etcdserver: member ID already exist";
    PeerURLExist, FailedPrecondition, "etcdserver: Peer URLs already exists";
    MemberNotEnoughStarted, Unknown, "etcdserver: re-configuration failed due to not enough started members";
    MemberBadURLs, InvalidArgument, "etcdserver: given member URLs are invalid";
    MemberNotFound, NotFound, "etcdserver: member not found";
    MemberNotLearner, FailedPrecondition, "etcdserver: can only promote a learner member";
    LearnerNotReady, FailedPrecondition, "etcdserver: can only promote a learner member which is in sync with leader";
    TooManyLearners, FailedPrecondition, "etcdserver: too many learner members in cluster";
    ClusterIDMismatch, FailedPrecondition, "etcdserver: cluster ID mismatch";
    RequestTooLarge, InvalidArgument, "etcdserver: request is too large";
    TooManyRequests, Unknown, "etcdserver: too many requests";
    RootUserNotExist, FailedPrecondition, "etcdserver: root user does not exist";
    RootRoleNotExist, FailedPrecondition, "etcdserver: root user does not have root role";
    UserAlreadyExist, FailedPrecondition, "etcdserver: user name already exists";
    UserEmpty, InvalidArgument, "etcdserver: user name is empty";
    UserNotFound, FailedPrecondition, "etcdserver: user name not found";
    RoleAlreadyExist, FailedPrecondition, "etcdserver: role name already exists";
    RoleNotFound, FailedPrecondition, "etcdserver: role name not found";
    RoleEmpty, InvalidArgument, "etcdserver: role name is empty";
    AuthFailed, InvalidArgument, "etcdserver: authentication failed, invalid user ID or password";
    NoPasswordUser, Unknown, "auth: authentication failed, password was given for no password user";
    PermissionNotGiven, InvalidArgument, "etcdserver: permission not given";
    PermissionDenied, PermissionDenied, "etcdserver: permission denied";
    RoleNotGranted, FailedPrecondition, "etcdserver: role is not granted to the user";
    PermissionNotGranted, FailedPrecondition, "etcdserver: permission is not granted to the role";
    AuthNotEnabled, FailedPrecondition, "etcdserver: authentication is not enabled";
    InvalidAuthToken, Unauthenticated, "etcdserver: invalid auth token";
    InvalidAuthMgmt, InvalidArgument, "etcdserver: invalid auth management";
    AuthOldRevision, InvalidArgument, "etcdserver: revision of auth store is old";
    NoLeader, Unavailable, "etcdserver: no leader";
    NotLeader, FailedPrecondition, "etcdserver: not leader";
    LeaderChanged, Unavailable, "etcdserver: leader changed";
    NotCapable, FailedPrecondition, "etcdserver: not capable";
    Stopped, Unavailable, "etcdserver: server stopped";
    Timeout, Unavailable, "etcdserver: request timed out";
    TimeoutDueToLeaderFail, Unavailable, "etcdserver: request timed out, possibly due to previous leader failure";
    TimeoutDueToConnectionLost, Unavailable, "etcdserver: request timed out, possibly due to connection lost";
    TimeoutWaitAppliedIndex, Unavailable, "etcdserver: request timed out, waiting for the applied index took too long";
    Unhealthy, Unavailable, "etcdserver: unhealthy cluster";
    Corrupt, DataLoss, "etcdserver: corrupt cluster";
    NotSupportedForLearner, FailedPrecondition, "etcdserver: rpc not supported for learner";
    BadLeaderTransferee, FailedPrecondition, "etcdserver: bad leader transferee";
    LeaderTransferTimeout, Unknown, "etcdserver: request timed out, leader transfer took too long";
    WrongDowngradeVersionFormat, InvalidArgument, "etcdserver: wrong downgrade target version format";
    InvalidDowngradeTargetVersion, InvalidArgument, "etcdserver: invalid downgrade target version";
    ClusterVersionUnavailable, FailedPrecondition, "etcdserver: cluster version not found during downgrade";
    DowngradeInProcess, FailedPrecondition, "etcdserver: cluster has a downgrade job in progress";
    NoInflightDowngrade, FailedPrecondition, "etcdserver: no inflight downgrade job";
    Canceled, Canceled, "etcdserver: request canceled";
    DeadlineExceeded, DeadlineExceeded, "etcdserver: context deadline exceeded";
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.message())
    }
}

impl std::error::Error for Error {}

/// A gRPC status: one of the table, or a text that only one place can produce.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    pub code: Code,
    pub message: std::borrow::Cow<'static, str>,
}

impl Status {
    /// A status with a text outside the table.
    pub fn new(code: Code, message: impl Into<std::borrow::Cow<'static, str>>) -> Self {
        Status {
            code,
            message: message.into(),
        }
    }
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        Status::new(error.code(), error.message())
    }
}
