//! Who may do what: one question per operation, and the proof that it was asked.
//!
//! Code that gives away or changes what belongs to somebody takes an [`Authorised`] request, which
//! only this module makes. A proof is good for the auth revision at which it was made: readers
//! compare its stamp under the lock under which they read.

use std::ops::Deref;

use api::Error;
use api::pb::etcdserverpb::request_op::Request;
use api::pb::etcdserverpb::{DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest};
use bytes::Bytes;

use super::permission::Kind;
use super::{Auth, ROOT};
use crate::command::{AuthCommand, Command};
use crate::lease::{Lease, Leases};

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller<'a> {
    /// Empty for nobody.
    pub user: &'a str,
    /// The auth revision at which the user was identified, 0 for nobody; `None` for whatever it is
    /// when the question is asked.
    pub revision: Option<u64>,
}

impl Caller<'_> {
    /// A request that shows neither a token nor a certificate.
    pub const NOBODY: Caller<'static> = Caller {
        user: "",
        revision: Some(0),
    };

    /// This member itself, which may do everything.
    pub const ROOT: Caller<'static> = Caller {
        user: ROOT,
        revision: None,
    };
}

/// An operation whose caller may do it.
#[derive(Clone, Debug)]
pub struct Authorised<T> {
    operation: T,
    /// See [`Auth::stamp`].
    stamp: u64,
}

impl<T> Authorised<T> {
    pub(crate) fn stamp(&self) -> u64 {
        self.stamp
    }

    pub(crate) fn into_operation(self) -> T {
        self.operation
    }
}

impl<T> Deref for Authorised<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.operation
    }
}

impl<T: Operation> Authorised<T> {
    /// The operation while authentication is off.
    pub(crate) fn unasked(operation: T) -> Authorised<T> {
        Authorised {
            operation,
            stamp: 0,
        }
    }

    /// Asks.
    pub(crate) fn new(access: Access<'_>, operation: T) -> Result<Authorised<T>, Error> {
        if access.auth.enabled {
            operation.check(access)?;
        }
        Ok(Authorised {
            operation,
            stamp: access.auth.stamp(),
        })
    }
}

/// The stamp of what another member asked its own state for; no auth revision is as high.
pub(crate) const BY_MEMBER: u64 = u64::MAX;

impl Authorised<LeaseKeys> {
    /// Another member asks, which has asked who its client is.
    #[must_use]
    pub fn by_member(operation: LeaseKeys) -> Authorised<LeaseKeys> {
        Authorised {
            operation,
            stamp: BY_MEMBER,
        }
    }
}

/// What a question is decided on.
#[derive(Clone, Copy)]
pub struct Access<'a> {
    pub(crate) auth: &'a Auth,
    pub(crate) leases: &'a Leases,
    pub(crate) caller: Caller<'a>,
}

/// Something that a caller wants to do. Only the operations of this module exist.
pub trait Operation: sealed::Sealed {
    /// Whether the caller may, authentication being on.
    ///
    /// # Errors
    /// `UserEmpty`, `UserNotFound`, `AuthOldRevision`, `PermissionDenied`.
    fn check(&self, access: Access<'_>) -> Result<(), Error>;
}

mod sealed {
    pub trait Sealed {}
}

macro_rules! operations {
    ($($name:ty: $check:expr;)*) => {
        $(
            impl sealed::Sealed for $name {}
            impl Operation for $name {
                fn check(&self, access: Access<'_>) -> Result<(), Error> {
                    let check: fn(&Self, Access<'_>) -> Result<(), Error> = $check;
                    check(self, access)
                }
            }
        )*
    };
}

/// What needs an identity and nothing else.
#[derive(Clone, Copy, Debug)]
pub struct LoggedIn;

/// What only a user with the root role may do.
#[derive(Clone, Copy, Debug)]
pub struct Root;

/// The keys of a watcher.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WatchKeys {
    One(Bytes),
    /// From the first key to before the second, or to the end.
    Range(Bytes, Option<Bytes>),
}

impl WatchKeys {
    /// Whether a key is among them.
    #[must_use]
    pub fn contains(&self, key: &[u8]) -> bool {
        match self {
            WatchKeys::One(one) => *one == key,
            WatchKeys::Range(begin, end) => {
                key >= &begin[..] && end.as_ref().is_none_or(|end| key < &end[..])
            }
        }
    }
}

/// To prolong a lease.
#[derive(Clone, Copy, Debug)]
pub struct LeaseRenewal(pub i64);

/// To see which keys are attached to a lease.
#[derive(Clone, Copy, Debug)]
pub struct LeaseKeys(pub i64);

/// To see keys that were attached to a lease, by whatever source.
#[derive(Clone, Debug)]
pub struct TheseKeys(pub Vec<Bytes>);

/// To see that the leases of a part of all exist: those from the first one on, so many.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SomeLeases(pub(crate) i64, pub(crate) usize);

operations! {
    LoggedIn: |_, access| access.logged_in();
    Root: |_, access| access.root();
    RangeRequest: |range, access| access.read(&range.key, &range.range_end);
    TxnRequest: |txn, access| access.txn(txn);
    WatchKeys: |keys, access| match keys {
        WatchKeys::One(key) => access.read(key, &[]),
        WatchKeys::Range(key, None) => access.read(key, &[0]),
        WatchKeys::Range(key, Some(end)) => access.read(key, end),
    };
    LeaseRenewal: |lease, access| access.known_keys(Kind::Write, lease.0);
    LeaseKeys: |lease, access| access.known_keys(Kind::Read, lease.0);
    TheseKeys: |keys, access| match access.root() {
        Ok(()) => Ok(()),
        Err(_) => keys.0.iter().try_for_each(|key| access.read(key, &[])),
    };
    SomeLeases: |some, access| access.some_leases(*some);
    Command: |command, access| access.command(command);
}

impl<'a> Access<'a> {
    fn logged_in(self) -> Result<(), Error> {
        match self.caller.revision {
            Some(0) => Err(Error::UserEmpty),
            _ => Ok(()),
        }
    }

    fn root(self) -> Result<(), Error> {
        self.auth.check_root(self.caller)
    }

    fn read(self, key: &[u8], range_end: &[u8]) -> Result<(), Error> {
        self.auth.check(self.caller, Kind::Read, key, range_end)
    }

    fn write(self, key: &[u8], range_end: &[u8]) -> Result<(), Error> {
        self.auth.check(self.caller, Kind::Write, key, range_end)
    }

    /// A put needs its key, every key of its lease (or it could not be revoked by this user),
    /// and to read what it asks back.
    fn put(self, put: &PutRequest) -> Result<(), Error> {
        self.write(&put.key, &[])?;
        self.attached(Kind::Write, put.lease)?;
        if put.prev_kv {
            self.read(&put.key, &[])
        } else {
            Ok(())
        }
    }

    fn delete(self, delete: &DeleteRangeRequest) -> Result<(), Error> {
        self.write(&delete.key, &delete.range_end)?;
        if delete.prev_kv {
            self.read(&delete.key, &delete.range_end)?;
        }
        Ok(())
    }

    /// Both branches count, whichever is taken.
    fn txn(self, txn: &TxnRequest) -> Result<(), Error> {
        for compare in &txn.compare {
            self.read(&compare.key, &compare.range_end)?;
        }
        let mut ops = txn.success.iter().chain(&txn.failure);
        ops.try_for_each(|op| self.op(op))
    }

    fn op(self, op: &RequestOp) -> Result<(), Error> {
        match &op.request {
            Some(Request::RequestRange(range)) => self.read(&range.key, &range.range_end),
            Some(Request::RequestPut(put)) => self.put(put),
            Some(Request::RequestDeleteRange(delete)) => {
                if delete.prev_kv {
                    self.read(&delete.key, &delete.range_end)?;
                }
                self.write(&delete.key, &delete.range_end)
            }
            Some(Request::RequestTxn(nested)) => self.txn(nested),
            None => Ok(()),
        }
    }

    /// Every key attached to the lease must be within the caller's rights, unless it is root; a
    /// missing lease needs nothing.
    fn attached(self, kind: Kind, id: i64) -> Result<(), Error> {
        match self.leases.by_id.get(&id) {
            Some(lease) if self.root().is_err() => self.keys_of(kind, lease),
            _ => Ok(()),
        }
    }

    /// The same where an identity is needed also without a lease, or without keys.
    fn known_keys(self, kind: Kind, id: i64) -> Result<(), Error> {
        self.logged_in()?;
        self.attached(kind, id)
    }

    fn keys_of(self, kind: Kind, lease: &Lease) -> Result<(), Error> {
        let mut keys = lease.keys.iter();
        keys.try_for_each(|key| self.auth.check(self.caller, kind, key, &[]))
    }

    fn some_leases(self, some: SomeLeases) -> Result<(), Error> {
        self.logged_in()?;
        if self.root().is_ok() {
            return Ok(());
        }
        let mut leases = self.leases.by_id.range(some.0..).take(some.1);
        leases.try_for_each(|(_, lease)| self.keys_of(Kind::Read, lease))
    }

    fn command(self, command: &Command) -> Result<(), Error> {
        match command {
            Command::Range(range) => self.read(&range.key, &range.range_end),
            Command::Put(put) => self.put(put),
            Command::DeleteRange(delete) => self.delete(delete),
            Command::Txn(txn) => self.txn(txn),
            Command::LeaseRevoke(revoke) => self.attached(Kind::Write, revoke.id),
            Command::Auth(AuthCommand::UserGet(request)) => match self.root() {
                Err(_) if request.name == self.caller.user => Ok(()),
                checked => checked,
            },
            Command::Auth(AuthCommand::RoleGet(request)) => self.root().or_else(|error| {
                let user = self.auth.user(self.caller.user);
                let has = user.is_some_and(|user| user.roles.contains(&request.role));
                if has { Ok(()) } else { Err(error) }
            }),
            Command::Auth(AuthCommand::Authenticate(_) | AuthCommand::Status) => Ok(()),
            Command::Auth(_) => self.root(),
            // Asked before they are proposed, as in etcd, or this member's own.
            Command::Compact(_)
            | Command::LeaseGrant(_)
            | Command::LeaseCheckpoint(_)
            | Command::Alarm(_)
            | Command::SetClusterVersion(_)
            | Command::SetAttributes(_)
            | Command::SetDowngrade(_)
            | Command::TestVersion
            | Command::LegacyNoOp => Ok(()),
        }
    }
}
