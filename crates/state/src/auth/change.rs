//! Changing users, roles and the switch. Every change moves the auth revision by one, except
//! switching on and granting a role that the user has.

use std::sync::Arc;

use api::Error;
use api::pb::authpb::{Permission, Role, User};
use api::pb::etcdserverpb as pb;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bcrypt::Version;
use bytes::Bytes;
use prost::Message;
use storage::backend::{ApplyTxn, Bucket};

use super::{Account, Auth, ROOT, has_root_role, order, revision_record};
use crate::schema;

/// A name above this does not fit a key of the database, in bytes.
const NAME_MAX: usize = 32_768;

/// bcrypt does not look further, so etcd refuses to hash more, in bytes.
const PASSWORD_MAX: usize = 72;
/// The cost of hashes that are made here: etcd's default.
const COST: u32 = 10;

/// Authentication with the transaction that stores what changes.
pub(crate) struct Change<'a, 'b> {
    pub(crate) auth: &'a mut Auth,
    pub(crate) txn: &'a mut ApplyTxn<'b>,
    /// Different for each entry of the log, and the same on all members.
    pub(crate) salt: [u8; 16],
}

type Done = Result<(), Error>;

impl Change<'_, '_> {
    fn bump(&mut self) {
        self.auth.revision += 1;
        let record = revision_record(self.auth.revision);
        self.txn.put(Bucket::Auth, schema::AUTH_REVISION, record);
        for account in self.auth.users.values_mut() {
            account.permissions.take();
        }
    }

    fn save_user(&mut self, name: &str, user: User) {
        let record = Arc::from(user.encode_to_vec());
        self.txn.put(Bucket::AuthUsers, name.as_bytes(), record);
        let account = Account {
            user,
            permissions: Default::default(),
        };
        self.auth.users.insert(name.to_string(), account);
    }

    fn save_role(&mut self, name: &str, role: Role) {
        let record = Arc::from(role.encode_to_vec());
        self.txn.put(Bucket::AuthRoles, name.as_bytes(), record);
        self.auth.roles.insert(name.to_string(), role);
    }

    /// True when it was off.
    pub(crate) fn enable(&mut self) -> Result<bool, Error> {
        if self.auth.enabled {
            return Ok(false);
        }
        let root = self.auth.user(ROOT).ok_or(Error::RootUserNotExist)?;
        if !has_root_role(root) {
            return Err(Error::RootRoleNotExist);
        }
        self.auth.enabled = true;
        self.txn
            .put(Bucket::Auth, schema::AUTH_ENABLED, Arc::from([1]));
        Ok(true)
    }

    /// True when it was on.
    pub(crate) fn disable(&mut self) -> bool {
        if !self.auth.enabled {
            return false;
        }
        self.auth.enabled = false;
        self.txn
            .put(Bucket::Auth, schema::AUTH_ENABLED, Arc::from([0]));
        self.bump();
        true
    }

    pub(crate) fn user_add(&mut self, request: pb::AuthUserAddRequest) -> Done {
        if request.name.is_empty() {
            return Err(Error::UserEmpty);
        }
        if self.auth.users.contains_key(&request.name) {
            return Err(Error::UserAlreadyExist);
        }
        check_name(&request.name)?;
        let options = request.options.unwrap_or_default();
        let password = if options.no_password {
            Bytes::new()
        } else {
            self.hash_of(&request.password, &request.hashed_password)?
        };
        let name = request.name.clone();
        let user = User {
            name: request.name.into(),
            password,
            roles: Vec::new(),
            options: Some(options),
        };
        self.save_user(&name, user);
        self.bump();
        Ok(())
    }

    pub(crate) fn user_delete(&mut self, name: &str) -> Done {
        if self.auth.enabled && name == ROOT {
            return Err(Error::InvalidAuthMgmt);
        }
        self.auth.users.remove(name).ok_or(Error::UserNotFound)?;
        self.txn.delete(Bucket::AuthUsers, name.as_bytes());
        self.bump();
        Ok(())
    }

    pub(crate) fn change_password(&mut self, request: &pb::AuthUserChangePasswordRequest) -> Done {
        let name = &request.name;
        let mut user = self.auth.user(name).ok_or(Error::UserNotFound)?.clone();
        user.password = match user.options {
            Some(options) if options.no_password => Bytes::new(),
            _ => self.hash_of(&request.password, &request.hashed_password)?,
        };
        self.save_user(name, user);
        self.bump();
        Ok(())
    }

    /// The hash to store. Releases before 3.5 log the password itself, which each of etcd's
    /// members hashes with a salt of its own; here the salt comes from the entry, so that what is
    /// stored is the same everywhere.
    fn hash_of(&self, password: &str, hashed: &str) -> Result<Bytes, Error> {
        if password.is_empty() || !hashed.is_empty() {
            return decode_hash(hashed);
        }
        if password.len() > PASSWORD_MAX {
            return Err(Error::NoPasswordUser);
        }
        let parts = bcrypt::hash_with_salt(password, COST, self.salt);
        let parts = parts.map_err(|_| Error::NoPasswordUser)?;
        // The version that etcd writes.
        Ok(parts.format_for_version(Version::TwoA).into())
    }

    pub(crate) fn grant_role(&mut self, name: &str, role: &str) -> Done {
        let mut user = self.auth.user(name).ok_or(Error::UserNotFound)?.clone();
        if role != ROOT && !self.auth.roles.contains_key(role) {
            return Err(Error::RoleNotFound);
        }
        if user.roles.iter().any(|has| has == role) {
            return Ok(());
        }
        user.roles.push(role.to_string());
        user.roles.sort();
        self.save_user(name, user);
        self.bump();
        Ok(())
    }

    pub(crate) fn revoke_role(&mut self, name: &str, role: &str) -> Done {
        if self.auth.enabled && name == ROOT && role == ROOT {
            return Err(Error::InvalidAuthMgmt);
        }
        let mut user = self.auth.user(name).ok_or(Error::UserNotFound)?.clone();
        if !take_role(&mut user, role) {
            return Err(Error::RoleNotGranted);
        }
        self.save_user(name, user);
        self.bump();
        Ok(())
    }

    pub(crate) fn role_add(&mut self, name: &str) -> Done {
        if name.is_empty() {
            return Err(Error::RoleEmpty);
        }
        if self.auth.roles.contains_key(name) {
            return Err(Error::RoleAlreadyExist);
        }
        check_name(name)?;
        let role = Role {
            name: name.to_string().into(),
            key_permission: Vec::new(),
        };
        self.save_role(name, role);
        self.bump();
        Ok(())
    }

    pub(crate) fn role_delete(&mut self, name: &str) -> Done {
        if self.auth.enabled && name == ROOT {
            return Err(Error::InvalidAuthMgmt);
        }
        self.auth.roles.remove(name).ok_or(Error::RoleNotFound)?;
        self.txn.delete(Bucket::AuthRoles, name.as_bytes());
        let having = |account: &&Account| account.user.roles.iter().any(|role| role == name);
        let users: Vec<User> = self
            .auth
            .users
            .values()
            .filter(having)
            .map(|account| account.user.clone())
            .collect();
        for mut user in users {
            take_role(&mut user, name);
            let name = String::from_utf8_lossy(&user.name).into_owned();
            self.save_user(&name, user);
        }
        self.bump();
        Ok(())
    }

    pub(crate) fn grant_permission(&mut self, name: &str, permission: Option<Permission>) -> Done {
        let permission = permission.ok_or(Error::PermissionNotGiven)?;
        if !api::validate::is_permission_range(&permission.key, &permission.range_end) {
            return Err(Error::InvalidAuthMgmt);
        }
        let mut role = self.auth.role(name).ok_or(Error::RoleNotFound)?.clone();
        let held = &mut role.key_permission;
        let at = held.partition_point(|other| other.key < permission.key);
        match held.get_mut(at) {
            Some(other)
                if other.key == permission.key && other.range_end == permission.range_end =>
            {
                other.perm_type = permission.perm_type;
            }
            _ => order::insert(held, permission),
        }
        self.save_role(name, role);
        self.bump();
        Ok(())
    }

    pub(crate) fn revoke_permission(&mut self, name: &str, key: &[u8], range_end: &[u8]) -> Done {
        let mut role = self.auth.role(name).ok_or(Error::RoleNotFound)?.clone();
        let before = role.key_permission.len();
        role.key_permission
            .retain(|held| held.key != key || held.range_end != range_end);
        if role.key_permission.len() == before {
            return Err(Error::PermissionNotGranted);
        }
        self.save_role(name, role);
        self.bump();
        Ok(())
    }
}

/// True when the user had it.
fn take_role(user: &mut User, role: &str) -> bool {
    let before = user.roles.len();
    user.roles.retain(|has| has != role);
    user.roles.len() < before
}

/// Go's decoder does not see line ends.
fn decode_hash(hashed: &str) -> Result<Bytes, Error> {
    let bytes = hashed.bytes();
    let bytes: Vec<u8> = bytes
        .filter(|byte| !matches!(byte, b'\r' | b'\n'))
        .collect();
    STANDARD
        .decode(bytes)
        .map(Bytes::from)
        .map_err(|_| Error::NoPasswordUser)
}

fn check_name(name: &str) -> Done {
    if name.len() > NAME_MAX {
        Err(Error::InvalidAuthMgmt)
    } else {
        Ok(())
    }
}
