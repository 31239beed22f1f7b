//! Commands about authentication, and what others need of it.

use api::Error;
use api::pb::etcdserverpb as pb;
use prost::Message;

use super::{Applying, Effect, Outcome};
use crate::auth::{Access, Authorised, Caller, Change, ROOT};
use crate::command::{AuthCommand, Command};
use crate::fatal::Fatal;
use crate::reply::Reply;

impl Applying<'_> {
    /// Whether the caller may do what the command does.
    pub(super) fn authorise(&self, command: Command) -> Result<Authorised<Command>, Error> {
        let state = &*self.writing.state;
        let access = Access {
            auth: &state.auth,
            leases: &state.leases,
            caller: Caller {
                user: &self.header.username,
                revision: Some(self.header.auth_revision),
            },
        };
        Authorised::new(access, command)
    }

    /// Applies a command about authentication.
    pub(super) fn auth(&mut self, command: AuthCommand) -> Result<Outcome, Fatal> {
        let revision_before = self.writing.state.auth.revision;
        let outcome = match command {
            AuthCommand::Authenticate(request) => return Ok(self.authenticate(request)),
            AuthCommand::Status
            | AuthCommand::UserGet(_)
            | AuthCommand::UserList
            | AuthCommand::RoleGet(_)
            | AuthCommand::RoleList => return Ok(self.auth_read(&command)),
            command => self.auth_change(command),
        };
        if self.writing.state.auth.revision != revision_before {
            self.effects.push(Effect::AuthChanged);
        }
        let revision = self.writing.state.revision;
        Ok(outcome.map(|()| Reply::Auth {
            revision,
            rest: Vec::new(),
        }))
    }

    fn auth_change(&mut self, command: AuthCommand) -> Result<(), Error> {
        let mut salt = [0; 16];
        salt[..8].copy_from_slice(&self.header.id.to_be_bytes());
        salt[8..].copy_from_slice(&self.index.0.to_be_bytes());
        let mut change = Change {
            auth: &mut self.writing.state.auth,
            txn: &mut self.writing.txn,
            salt,
        };
        match command {
            AuthCommand::Enable => {
                let changed = change.enable()?;
                self.effects.extend(changed.then_some(Effect::AuthChanged));
            }
            AuthCommand::Disable => {
                let revoked = Effect::TokensRevoked { user: None };
                let changed = change.disable();
                self.effects.extend(changed.then_some(revoked));
            }
            AuthCommand::UserAdd(request) => change.user_add(request)?,
            AuthCommand::UserDelete(request) => {
                change.user_delete(&request.name)?;
                self.effects.push(Effect::TokensRevoked {
                    user: Some(request.name),
                });
            }
            AuthCommand::UserChangePassword(request) => {
                change.change_password(&request)?;
                self.effects.push(Effect::TokensRevoked {
                    user: Some(request.name),
                });
            }
            AuthCommand::UserGrantRole(request) => {
                change.grant_role(&request.user, &request.role)?;
            }
            AuthCommand::UserRevokeRole(request) => {
                change.revoke_role(&request.name, &request.role)?;
            }
            AuthCommand::RoleAdd(request) => change.role_add(&request.name)?,
            AuthCommand::RoleDelete(request) => change.role_delete(&request.role)?,
            AuthCommand::RoleGrantPermission(request) => {
                change.grant_permission(&request.name, request.perm)?;
            }
            AuthCommand::RoleRevokePermission(request) => {
                change.revoke_permission(&request.role, &request.key, &request.range_end)?;
            }
            _ => {}
        }
        Ok(())
    }

    /// The password was checked before the request was proposed. A simple token gets the number
    /// of the entry before this one, on every member alike.
    fn authenticate(&mut self, request: pb::InternalAuthenticateRequest) -> Outcome {
        let state = &*self.writing.state;
        if !state.auth.enabled {
            return Err(Error::AuthNotEnabled);
        }
        let user = state.auth.user(&request.name).ok_or(Error::AuthFailed)?;
        if user.options.is_some_and(|options| options.no_password) {
            return Err(Error::AuthFailed);
        }
        let mut response = pb::AuthenticateResponse::default();
        if !request.simple_token.is_empty() {
            response.token = format!("{}.{}", request.simple_token, self.index.0 - 1);
            let (user, token) = (request.name, response.token.clone());
            self.effects.push(Effect::TokenAssigned { user, token });
        }
        Ok(Reply::Auth {
            revision: state.revision,
            rest: response.encode_to_vec(),
        })
    }

    fn auth_read(&self, command: &AuthCommand) -> Outcome {
        let state = &*self.writing.state;
        let auth = &state.auth;
        let rest = match command {
            AuthCommand::Status => pb::AuthStatusResponse {
                enabled: auth.enabled,
                auth_revision: auth.revision,
                ..Default::default()
            }
            .encode_to_vec(),
            AuthCommand::UserGet(request) => {
                let roles = auth
                    .user(&request.name)
                    .ok_or(Error::UserNotFound)?
                    .roles
                    .clone();
                pb::AuthUserGetResponse {
                    roles,
                    ..Default::default()
                }
                .encode_to_vec()
            }
            AuthCommand::UserList => {
                let users = auth.users().cloned().collect();
                pb::AuthUserListResponse {
                    users,
                    ..Default::default()
                }
                .encode_to_vec()
            }
            AuthCommand::RoleList => {
                let roles = auth.roles().cloned().collect();
                pb::AuthRoleListResponse {
                    roles,
                    ..Default::default()
                }
                .encode_to_vec()
            }
            AuthCommand::RoleGet(request) => {
                let role = auth.role(&request.role).ok_or(Error::RoleNotFound)?;
                let mut perm = role.key_permission.clone();
                if request.role == ROOT {
                    perm = vec![api::pb::authpb::Permission {
                        perm_type: api::pb::authpb::permission::Type::Readwrite as i32,
                        key: Default::default(),
                        range_end: vec![0].into(),
                    }];
                }
                pb::AuthRoleGetResponse {
                    perm,
                    ..Default::default()
                }
                .encode_to_vec()
            }
            _ => Vec::new(),
        };
        Ok(Reply::Auth {
            revision: state.revision,
            rest,
        })
    }
}
