//! A member with users, roles and authentication on.

use api::pb::authpb::Permission;
use api::pb::etcdserverpb::{
    AuthDisableRequest, AuthEnableRequest, AuthRoleAddRequest, AuthRoleGrantPermissionRequest,
    AuthUserAddRequest, AuthUserGrantRoleRequest, AuthenticateRequest,
};
use client::stub::AuthClient;
use tonic::transport::Channel;
use tonic::{Request, Status};

use super::users::{self, User};
use crate::Error;
use crate::kv::{Kv, said};

/// The password of a user, from the name.
#[must_use]
pub fn password(name: &str) -> String {
    format!("password of {name}")
}

/// What root does, with a token once authentication is on.
#[derive(Clone)]
pub struct Root {
    channel: Channel,
    /// Sent with each call; none before authentication is on.
    pub token: Option<String>,
}

impl Root {
    /// Without a token yet.
    #[must_use]
    pub fn at(kv: &Kv) -> Root {
        Root {
            channel: kv.channel(),
            token: None,
        }
    }

    fn stub(&self) -> AuthClient<Channel> {
        AuthClient::new(self.channel.clone())
    }

    /// A request with root's token.
    ///
    /// # Panics
    /// Never: tokens are printable.
    pub fn request<T>(&self, message: T) -> Request<T> {
        with_token(message, self.token.as_deref())
    }

    /// A token for a user with the password of [`password`].
    ///
    /// # Errors
    /// What the server or the connection says.
    pub async fn authenticate(&self, name: &str) -> Result<String, Status> {
        self.authenticate_by(name, &password(name)).await
    }

    /// A token for a user with any password.
    ///
    /// # Errors
    /// What the server or the connection says.
    pub async fn authenticate_by(&self, name: &str, password: &str) -> Result<String, Status> {
        let request = AuthenticateRequest {
            name: name.into(),
            password: password.into(),
        };
        Ok(self.stub().authenticate(request).await?.into_inner().token)
    }

    /// Adds a role with permissions, if it has any, and a user to it.
    ///
    /// # Errors
    /// What the server or the connection says.
    pub async fn add(&self, user: &User) -> Result<(), Status> {
        self.add_user(&user.name).await?;
        if user.root {
            return self.grant(&user.name, "root").await;
        }
        if !user.has_role {
            return Ok(());
        }
        self.add_role(&user.name).await?;
        for one in &user.permissions {
            self.permit(&user.name, one).await?;
        }
        self.grant(&user.name, &user.name).await
    }

    /// # Errors
    /// What the server or the connection says.
    pub async fn add_user(&self, name: &str) -> Result<(), Status> {
        let request = self.request(AuthUserAddRequest {
            name: name.into(),
            password: password(name),
            ..AuthUserAddRequest::default()
        });
        self.stub().user_add(request).await.map(|_| ())
    }

    /// # Errors
    /// What the server or the connection says.
    pub async fn add_role(&self, name: &str) -> Result<(), Status> {
        let request = self.request(AuthRoleAddRequest { name: name.into() });
        self.stub().role_add(request).await.map(|_| ())
    }

    /// # Errors
    /// What the server or the connection says.
    pub async fn permit(&self, role: &str, what: &users::Permission) -> Result<(), Status> {
        let kind = match what.kind {
            users::Kind::Read => 0,
            users::Kind::Write => 1,
            users::Kind::ReadWrite => 2,
        };
        let request = self.request(AuthRoleGrantPermissionRequest {
            name: role.into(),
            perm: Some(Permission {
                perm_type: kind,
                key: what.key.into(),
                range_end: what.end.into(),
            }),
        });
        self.stub().role_grant_permission(request).await.map(|_| ())
    }

    /// # Errors
    /// What the server or the connection says.
    pub async fn grant(&self, user: &str, role: &str) -> Result<(), Status> {
        let request = self.request(AuthUserGrantRoleRequest {
            user: user.into(),
            role: role.into(),
        });
        self.stub().user_grant_role(request).await.map(|_| ())
    }

    /// Adds everybody, `root` among them, and switches authentication on.
    ///
    /// # Errors
    /// What the server or the connection says.
    pub async fn enable(&mut self, users: &[User]) -> Result<(), Error> {
        for user in users {
            self.add(user).await.map_err(said)?;
        }
        self.switch_on().await.map_err(said)
    }

    /// Switches authentication on and takes a token.
    ///
    /// # Errors
    /// What the server or the connection says.
    pub async fn switch_on(&mut self) -> Result<(), Status> {
        let request = self.request(AuthEnableRequest {});
        self.stub().auth_enable(request).await?;
        self.renew().await
    }

    /// Takes another token.
    ///
    /// # Errors
    /// What the server or the connection says.
    pub async fn renew(&mut self) -> Result<(), Status> {
        self.token = Some(self.authenticate("root").await?);
        Ok(())
    }

    /// Switches authentication off.
    ///
    /// # Errors
    /// What the server or the connection says.
    pub async fn switch_off(&self) -> Result<(), Status> {
        let request = self.request(AuthDisableRequest {});
        self.stub().auth_disable(request).await.map(|_| ())
    }
}

/// A request that carries a token, if there is one.
///
/// # Panics
/// The token is not printable.
pub fn with_token<T>(message: T, token: Option<&str>) -> Request<T> {
    let mut request = Request::new(message);
    if let Some(token) = token {
        let value = token.parse().expect("a printable token");
        request.metadata_mut().insert("token", value);
    }
    request
}
