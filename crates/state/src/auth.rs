//! Users, roles and the switch, as replicated state; and the questions that requests ask of them.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::Error;
use api::pb::authpb::{Role, User};
use api::pb::etcdserverpb::request_op::Request;
use api::pb::etcdserverpb::{DeleteRangeRequest, PutRequest, RequestOp, TxnRequest};
use prost::Message;
use storage::backend::{ApplyTxn, Bucket, Reader, Value};

use crate::fatal::Fatal;
use crate::lease::Leases;
use crate::schema;

mod change;
mod permission;
#[cfg(test)]
mod tests;

pub(crate) use change::Change;
pub(crate) use permission::Kind;
use permission::Permissions;

/// The user and the role that may do everything.
pub(crate) const ROOT: &str = "root";

/// Who asks, by the header of the request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Caller {
    /// Empty for nobody.
    pub user: String,
    /// The auth revision at which the user was identified; 0 for nobody.
    pub revision: u64,
}

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

    /// Whether the caller may do this to `[key, range_end)`.
    ///
    /// # Errors
    /// `UserEmpty`, `AuthOldRevision`, `PermissionDenied`.
    pub(crate) fn check(
        &self,
        caller: &Caller,
        kind: Kind,
        key: &[u8],
        range_end: &[u8],
    ) -> Result<(), Error> {
        if !self.enabled {
            return Ok(());
        }
        if caller.revision == 0 {
            return Err(Error::UserEmpty);
        }
        if caller.revision < self.revision {
            return Err(Error::AuthOldRevision);
        }
        let account = self
            .users
            .get(&caller.user)
            .ok_or(Error::PermissionDenied)?;
        if has_root_role(&account.user) {
            return Ok(());
        }
        let permissions = account
            .permissions
            .get_or_init(|| Permissions::of(&account.user, &self.roles));
        if permissions.allow(kind, key, range_end) {
            Ok(())
        } else {
            Err(Error::PermissionDenied)
        }
    }

    /// Whether the caller has the root role.
    ///
    /// # Errors
    /// `UserEmpty`, `UserNotFound`, `PermissionDenied`.
    pub(crate) fn check_root(&self, caller: &Caller) -> Result<(), Error> {
        if !self.enabled {
            return Ok(());
        }
        if caller.user.is_empty() {
            return Err(Error::UserEmpty);
        }
        let user = self.user(&caller.user).ok_or(Error::UserNotFound)?;
        if has_root_role(user) {
            Ok(())
        } else {
            Err(Error::PermissionDenied)
        }
    }

    /// A put needs its key, every key of its lease (or it could not be revoked by this user),
    /// and to read what it asks back.
    pub(crate) fn check_put(
        &self,
        caller: &Caller,
        leases: &Leases,
        put: &PutRequest,
    ) -> Result<(), Error> {
        self.check(caller, Kind::Write, &put.key, &[])?;
        self.check_lease(caller, leases, put.lease)?;
        if put.prev_kv {
            self.check(caller, Kind::Read, &put.key, &[])
        } else {
            Ok(())
        }
    }

    /// Every key attached to the lease must be writable; a missing lease needs nothing.
    pub(crate) fn check_lease(
        &self,
        caller: &Caller,
        leases: &Leases,
        id: i64,
    ) -> Result<(), Error> {
        let Some(lease) = leases.by_id.get(&id) else {
            return Ok(());
        };
        if self.check_root(caller).is_ok() {
            return Ok(());
        }
        lease
            .keys
            .iter()
            .try_for_each(|key| self.check(caller, Kind::Write, key, &[]))
    }

    pub(crate) fn check_delete(
        &self,
        caller: &Caller,
        request: &DeleteRangeRequest,
    ) -> Result<(), Error> {
        self.check(caller, Kind::Write, &request.key, &request.range_end)?;
        if request.prev_kv {
            self.check(caller, Kind::Read, &request.key, &request.range_end)?;
        }
        Ok(())
    }

    /// Both branches count, whichever is taken.
    pub(crate) fn check_txn(
        &self,
        caller: &Caller,
        leases: &Leases,
        txn: &TxnRequest,
    ) -> Result<(), Error> {
        for compare in &txn.compare {
            self.check(caller, Kind::Read, &compare.key, &compare.range_end)?;
        }
        let mut ops = txn.success.iter().chain(&txn.failure);
        ops.try_for_each(|op| self.check_op(caller, leases, op))
    }

    fn check_op(&self, caller: &Caller, leases: &Leases, op: &RequestOp) -> Result<(), Error> {
        match &op.request {
            Some(Request::RequestRange(range)) => {
                self.check(caller, Kind::Read, &range.key, &range.range_end)
            }
            Some(Request::RequestPut(put)) => self.check_put(caller, leases, put),
            Some(Request::RequestDeleteRange(delete)) => {
                if delete.prev_kv {
                    self.check(caller, Kind::Read, &delete.key, &delete.range_end)?;
                }
                self.check(caller, Kind::Write, &delete.key, &delete.range_end)
            }
            Some(Request::RequestTxn(nested)) => self.check_txn(caller, leases, nested),
            None => Ok(()),
        }
    }
}

fn revision_record(revision: u64) -> Value {
    Arc::from(revision.to_be_bytes())
}
