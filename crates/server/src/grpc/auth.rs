//! `etcdserverpb.Auth`.
//!
//! ```text
//!   Authenticate ─▶ linearizable read ─▶ password compared ─▶ entry ─▶ token ─▶ answered
//!                                            ▲                  │
//!                                            └ users changed ───┘
//!   UserAdd, UserChangePassword ─▶ password hashed ─▶ entry
//!   everything else ─▶ entry
//! ```
//!
//! Who may do what is decided when the entry is applied, as in etcd.

use api::pb::etcdserverpb as pb;
use api::{Error, Status};
use bytes::Bytes;
use prost::Message;
use state::Reply;

use super::method::Rpc;
use super::pending::{Pending, Read, Waiting};
use super::{Services, decode};
use crate::auth::Who;
use crate::auth::password::{Check, Job};
use crate::drive::entry;
use crate::drive::post::token;
use crate::front::Net;

/// Somebody who wants a token.
pub(super) struct Login {
    user: String,
    /// Kept until the token is out: users may change while the entry is on its way.
    password: String,
    /// The auth revision at which the password was compared.
    revision: u64,
    /// Apply makes the token.
    is_seeded: bool,
}

/// A request that waits for its password to be hashed.
pub(super) enum NewPassword {
    Add(pb::AuthUserAddRequest),
    Change(pb::AuthUserChangePasswordRequest),
}

impl Services {
    pub(super) fn auth(
        &mut self,
        net: &mut Net,
        waiting: Waiting,
        message: &Bytes,
    ) -> Result<(), Status> {
        match waiting.rpc {
            Rpc::Authenticate => {
                let request = decode(message.clone())?;
                self.read(net, waiting, Read::Authenticate(request), false);
                Ok(())
            }
            Rpc::UserAdd => self.user_add(waiting, decode(message.clone())?),
            Rpc::UserChangePassword => self.change_password(waiting, decode(message.clone())?),
            _ => self.auth_entry(waiting, message),
        }
    }

    /// What becomes an entry as it is.
    fn auth_entry(&mut self, waiting: Waiting, message: &Bytes) -> Result<(), Status> {
        macro_rules! entries {
            ($($rpc:ident, $request:ident => $field:ident;)*) => {
                match waiting.rpc {
                    $(Rpc::$rpc => {
                        let _: pb::$request = decode(message.clone())?;
                        entry::$field
                    })*
                    _ => return Err(Error::NotCapable.into()),
                }
            };
        }
        let field = entries! {
            AuthEnable, AuthEnableRequest => AUTH_ENABLE;
            AuthDisable, AuthDisableRequest => AUTH_DISABLE;
            AuthStatus, AuthStatusRequest => AUTH_STATUS;
            UserDelete, AuthUserDeleteRequest => AUTH_USER_DELETE;
            UserGet, AuthUserGetRequest => AUTH_USER_GET;
            UserList, AuthUserListRequest => AUTH_USER_LIST;
            UserGrantRole, AuthUserGrantRoleRequest => AUTH_USER_GRANT_ROLE;
            UserRevokeRole, AuthUserRevokeRoleRequest => AUTH_USER_REVOKE_ROLE;
            RoleAdd, AuthRoleAddRequest => AUTH_ROLE_ADD;
            RoleDelete, AuthRoleDeleteRequest => AUTH_ROLE_DELETE;
            RoleGet, AuthRoleGetRequest => AUTH_ROLE_GET;
            RoleList, AuthRoleListRequest => AUTH_ROLE_LIST;
            RoleGrantPermission, AuthRoleGrantPermissionRequest => AUTH_ROLE_GRANT_PERMISSION;
            RoleRevokePermission, AuthRoleRevokePermissionRequest => AUTH_ROLE_REVOKE_PERMISSION;
        };
        self.propose(waiting, field, message, Pending::Write)
    }

    fn user_add(
        &mut self,
        waiting: Waiting,
        mut request: pb::AuthUserAddRequest,
    ) -> Result<(), Status> {
        if request.options.is_some_and(|options| options.no_password) {
            // It would be in the log for nothing.
            request.password.clear();
            let request = request.encode_to_vec();
            return self.propose(waiting, entry::AUTH_USER_ADD, &request, Pending::Write);
        }
        let password = std::mem::take(&mut request.password);
        self.hash_password(waiting, password, NewPassword::Add(request))
    }

    fn change_password(
        &mut self,
        waiting: Waiting,
        mut request: pb::AuthUserChangePasswordRequest,
    ) -> Result<(), Status> {
        if request.password.is_empty() {
            let (field, request) = (entry::AUTH_USER_CHANGE_PASSWORD, request.encode_to_vec());
            return self.propose(waiting, field, &request, Pending::Write);
        }
        let password = std::mem::take(&mut request.password);
        self.hash_password(waiting, password, NewPassword::Change(request))
    }

    fn hash_password(
        &mut self,
        waiting: Waiting,
        password: String,
        request: NewPassword,
    ) -> Result<(), Status> {
        // Nobody without a name costs a hash; etcd finds out afterwards.
        waiting.who.caller()?;
        if waiting.who == Who::Nobody && self.shared.view.auth_stamp() != 0 {
            return Err(Error::UserEmpty.into());
        }
        self.ask_secret(
            Pending::Hash(waiting, Box::new(request)),
            Job::Hash { password },
        )
    }

    /// Leaves something to the threads for passwords.
    fn ask_secret(&mut self, pending: Pending, job: Job) -> Result<(), Status> {
        let slot = self.slots.insert(pending);
        let asked = self
            .shared
            .auth
            .passwords
            .ask(token(self.thread, slot), job);
        asked.map_err(|error| {
            self.slots.remove(slot);
            error.into()
        })
    }

    /// What a thread for passwords was asked for.
    pub(super) fn on_secret(
        &mut self,
        net: &mut Net,
        pending: Pending,
        secret: Result<String, Status>,
    ) {
        let waiting = pending.waiting().clone();
        let next = match (pending, secret) {
            (Pending::Login(_, login), Err(status)) => {
                warn_of(&login.user, &status.message);
                Err(status)
            }
            (_, Err(status)) => Err(status),
            (Pending::Hash(waiting, request), Ok(hash)) => self.add_hashed(waiting, *request, hash),
            (Pending::Login(waiting, login), Ok(_)) => self.propose_login(waiting, login),
            (Pending::Sign(waiting, revision), Ok(token)) => {
                self.send_token(net, &waiting, revision, token);
                Ok(())
            }
            _ => Ok(()),
        };
        if let Err(status) = next {
            self.refuse(net, &waiting, status);
        }
    }

    fn add_hashed(
        &mut self,
        waiting: Waiting,
        request: NewPassword,
        hash: String,
    ) -> Result<(), Status> {
        let (field, request) = match request {
            NewPassword::Add(mut request) => {
                request.hashed_password = hash;
                (entry::AUTH_USER_ADD, request.encode_to_vec())
            }
            NewPassword::Change(mut request) => {
                request.hashed_password = hash;
                (entry::AUTH_USER_CHANGE_PASSWORD, request.encode_to_vec())
            }
        };
        self.propose(waiting, field, &request, Pending::Write)
    }

    /// The read that a login begins with is done: users are as they were when it was asked for, or
    /// newer.
    pub(super) fn serve_authenticate(
        &mut self,
        waiting: Waiting,
        request: pb::AuthenticateRequest,
    ) -> Result<(), Status> {
        let login = Login {
            user: request.name,
            password: request.password,
            revision: 0,
            is_seeded: false,
        };
        self.check_login(waiting, Box::new(login))
    }

    fn check_login(&mut self, waiting: Waiting, mut login: Box<Login>) -> Result<(), Status> {
        let (hash, revision) = self.shared.view.login(&login.user).inspect_err(|error| {
            if *error != Error::AuthNotEnabled {
                warn_of(&login.user, error.message());
            }
        })?;
        login.revision = revision;
        let check = Check {
            user: login.user.clone(),
            password: login.password.clone(),
            hash,
        };
        if self.shared.auth.passwords.is_known(&check) {
            return self.propose_login(waiting, login);
        }
        self.ask_secret(Pending::Login(waiting, login), Job::Check(check))
    }

    /// The password is right: the entry has none.
    fn propose_login(&mut self, waiting: Waiting, mut login: Box<Login>) -> Result<(), Status> {
        let simple_token = self.shared.auth.tokens().seed()?;
        login.is_seeded = !simple_token.is_empty();
        let request = pb::InternalAuthenticateRequest {
            name: login.user.clone(),
            password: String::new(),
            simple_token,
        };
        let pending = |waiting| Pending::LoggedIn(waiting, login);
        self.propose(
            waiting,
            entry::AUTHENTICATE,
            &request.encode_to_vec(),
            pending,
        )
    }

    /// A login's entry was applied.
    pub(super) fn logged_in(
        &mut self,
        net: &mut Net,
        waiting: Waiting,
        login: Box<Login>,
        reply: &Reply,
    ) -> Result<(), Status> {
        if self.shared.view.auth_stamp() != login.revision {
            tracing::info!("revision when password checked became stale; retrying");
            return self.check_login(waiting, login);
        }
        if login.is_seeded {
            self.send_reply(net, &waiting, reply);
            return Ok(());
        }
        let (user, revision) = (login.user, login.revision);
        self.ask_secret(
            Pending::Sign(waiting, reply.revision()),
            Job::Assign { user, revision },
        )
    }

    fn send_token(&mut self, net: &mut Net, waiting: &Waiting, revision: i64, token: String) {
        let header = Some(self.header().message(revision));
        self.send_message(net, waiting, &pb::AuthenticateResponse { header, token });
    }
}

fn warn_of(user: &str, error: &str) {
    tracing::warn!(user, error, "invalid authentication was requested");
}
