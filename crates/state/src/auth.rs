//! Users, roles and the switch, as replicated state; and the questions that requests ask of them.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::Error;
use api::pb::authpb::{Role, User};
use bytes::Bytes;
use prost::Message;
use storage::backend::{ApplyTxn, Bucket, Reader, Value};

use crate::fatal::Fatal;
use crate::schema;

mod access;
mod change;
mod order;
mod permission;
#[cfg(test)]
mod tests;

pub(crate) use access::{Access, BY_MEMBER, SomeLeases};
pub use access::{
    Authorised, Caller, LeaseKeys, LeaseRenewal, LoggedIn, Operation, Root, TheseKeys, WatchKeys,
};
pub(crate) use change::Change;
use permission::{Granted, Kind, Permissions};

/// The user and the role that may do everything.
pub(crate) const ROOT: &str = "root";

/// A user with what its roles allow, put together when it is first asked for.
#[derive(Debug)]
struct Account {
    user: User,
    permissions: std::sync::OnceLock<Permissions>,
}

/// The replicated state of authentication.
#[derive(Debug, Default)]
pub(crate) struct Auth {
    pub(crate) enabled: bool,
    /// 0 until the first entry stores the initial 1.
    pub(crate) revision: u64,
    users: BTreeMap<String, Account>,
    roles: BTreeMap<String, Role>,
}

fn has_root_role(user: &User) -> bool {
    user.roles.iter().any(|role| role == ROOT)
}

impl Auth {
    pub(crate) fn restore(reader: &Reader) -> Result<Auth, Fatal> {
        let damaged = |what: &str| Fatal::Damaged {
            bucket: "auth",
            what: what.to_string(),
        };
        let enabled = reader.get(Bucket::Auth, schema::AUTH_ENABLED)?;
        let enabled = enabled.is_some_and(|value| value[..] == [1]);
        let revision = match reader.get(Bucket::Auth, schema::AUTH_REVISION)? {
            None => 0,
            Some(value) => {
                let bytes = value[..].try_into().map_err(|_| damaged("authRevision"))?;
                u64::from_be_bytes(bytes)
            }
        };
        Ok(Auth {
            enabled,
            revision,
            ..Auth::default()
        })
    }

    pub(crate) fn restore_user(&mut self, record: &[u8]) -> Result<(), Fatal> {
        let user = User::decode(record).map_err(|e| Fatal::Damaged {
            bucket: "authUsers",
            what: e.to_string(),
        })?;
        let name = String::from_utf8_lossy(&user.name).into_owned();
        self.users.insert(
            name,
            Account {
                user,
                permissions: Default::default(),
            },
        );
        Ok(())
    }

    pub(crate) fn restore_role(&mut self, record: &[u8]) -> Result<(), Fatal> {
        let role = Role::decode(record).map_err(|e| Fatal::Damaged {
            bucket: "authRoles",
            what: e.to_string(),
        })?;
        self.roles
            .insert(String::from_utf8_lossy(&role.name).into_owned(), role);
        Ok(())
    }

    /// Stores the initial revision, once.
    pub(crate) fn ensure_revision(&mut self, txn: &mut ApplyTxn<'_>) {
        if self.revision == 0 {
            self.revision = 1;
            txn.put(Bucket::Auth, schema::AUTH_REVISION, revision_record(1));
        }
    }

    pub(crate) fn user(&self, name: &str) -> Option<&User> {
        self.users.get(name).map(|account| &account.user)
    }

    pub(crate) fn role(&self, name: &str) -> Option<&Role> {
        self.roles.get(name)
    }

    pub(crate) fn users(&self) -> impl Iterator<Item = &String> {
        self.users.keys()
    }

    pub(crate) fn roles(&self) -> impl Iterator<Item = &String> {
        self.roles.keys()
    }

    /// Names the state of the switch and the revision in one number: 0 while authentication is
    /// off, else the revision, which is never 0 then. A number never comes back.
    pub(crate) fn stamp(&self) -> u64 {
        if self.enabled { self.revision } else { 0 }
    }

    /// Whether what was asked at a stamp still holds.
    ///
    /// # Errors
    /// `UserEmpty` when nobody was asked, `AuthOldRevision`.
    pub(crate) fn confirm(&self, stamp: u64) -> Result<(), Error> {
        match stamp {
            stamp if stamp == self.stamp() => Ok(()),
            0 => Err(Error::UserEmpty),
            // Who was let in while it was on may go on when it is off.
            _ if !self.enabled => Ok(()),
            _ => Err(Error::AuthOldRevision),
        }
    }

    /// The password hash of a user who wants to log in, and the auth revision.
    pub(crate) fn login(&self, name: &str) -> Result<(Bytes, u64), Error> {
        if !self.enabled {
            return Err(Error::AuthNotEnabled);
        }
        let user = self.user(name).ok_or(Error::AuthFailed)?;
        match user.options {
            Some(options) if options.no_password => Err(Error::NoPasswordUser),
            _ => Ok((user.password.clone(), self.revision)),
        }
    }

    /// Whether the caller may do this to `[key, range_end)`.
    fn check(
        &self,
        caller: Caller<'_>,
        kind: Kind,
        key: &[u8],
        range_end: &[u8],
    ) -> Result<(), Error> {
        match caller.revision {
            Some(0) => return Err(Error::UserEmpty),
            Some(revision) if revision < self.revision => return Err(Error::AuthOldRevision),
            _ => {}
        }
        let account = self.users.get(caller.user).ok_or(Error::PermissionDenied)?;
        if has_root_role(&account.user) {
            return Ok(());
        }
        let granted = Granted {
            user: &account.user,
            roles: &self.roles,
        };
        let permissions = account.permissions.get_or_init(|| Permissions::of(granted));
        if permissions.allow(granted, kind, key, range_end) {
            Ok(())
        } else {
            Err(Error::PermissionDenied)
        }
    }

    /// Whether the caller has the root role.
    fn check_root(&self, caller: Caller<'_>) -> Result<(), Error> {
        if caller.user.is_empty() {
            return Err(Error::UserEmpty);
        }
        let user = self.user(caller.user).ok_or(Error::UserNotFound)?;
        if has_root_role(user) {
            Ok(())
        } else {
            Err(Error::PermissionDenied)
        }
    }
}

fn revision_record(revision: u64) -> Value {
    Arc::from(revision.to_be_bytes())
}
