//! Who is calling: tokens, passwords and certificates, on the side of the member that is asked.
//!
//! What a caller may do is the replicated state's to say (`state::View::authorise`); here a
//! request's token or certificate becomes the name that is asked about there. Nothing of this runs
//! while authentication is off.

pub(crate) mod jwt;
pub(crate) mod password;
pub(crate) mod simple;
pub(crate) mod token;

use std::sync::Arc;

use api::Error;
use bytes::Bytes;
use state::{Caller, Effect};
use storage::log::LogIndex;

use self::jwt::JwtTokens;
use self::password::Passwords;
use self::simple::SimpleTokens;
use self::token::{Identity, NoTokens, Resolved, Tokens};
use crate::config::Config;
use crate::front::{Peer, RequestHead};
use crate::tls;

/// What a call shows of its caller.
#[derive(Clone, Default)]
pub(crate) struct Credentials {
    token: Option<Bytes>,
    certificate: Option<Arc<tls::Identity>>,
    /// Everything that was committed when the call came was applied since.
    waited: bool,
}

impl Credentials {
    /// A certificate does not count for calls of the JSON gateway, which speaks for others.
    pub(crate) fn new(head: &RequestHead, peer: Option<&Peer>) -> Credentials {
        let certificate = peer.and_then(|peer| peer.identity.clone());
        Credentials {
            token: head.auth_token(),
            certificate: certificate.filter(|_| !head.from_gateway),
            waited: false,
        }
    }

    /// A token alone.
    pub(crate) fn of_token(token: Option<Bytes>) -> Credentials {
        Credentials {
            token,
            ..Credentials::default()
        }
    }

    /// A token that is still not known will never be.
    pub(crate) fn set_waited(&mut self) {
        self.waited = true;
    }

    /// Bytes that they take in memory.
    pub(crate) fn len(&self) -> usize {
        self.token.as_ref().map_or(0, Bytes::len)
    }
}

/// Who calls.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Who {
    /// Nothing was shown, or authentication is off and nobody looked.
    #[default]
    Nobody,
    /// Shared, so that calls stay small while authentication is off.
    Known(Arc<Known>),
    /// A token that is worth nothing was shown.
    Impostor,
}

/// A caller, and the token that was shown.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Known {
    identity: Identity,
    token: Option<Bytes>,
}

impl Who {
    fn known(identity: Identity, token: Option<&Bytes>) -> Who {
        let token = token.cloned();
        Who::Known(Arc::new(Known { identity, token }))
    }

    /// As the state asks about it.
    ///
    /// # Errors
    /// `InvalidAuthToken`.
    pub(crate) fn caller(&self) -> Result<Caller<'_>, Error> {
        match self {
            Who::Nobody => Ok(Caller::NOBODY),
            Who::Known(known) => Ok(Caller {
                user: &known.identity.user,
                revision: known.identity.revision,
            }),
            Who::Impostor => Err(Error::InvalidAuthToken),
        }
    }

    /// The token that was shown, to be shown to another member.
    pub(crate) fn bearer(&self) -> Option<Bytes> {
        match self {
            Who::Known(known) => known.token.clone(),
            _ => None,
        }
    }
}

/// All that this member needs to tell callers apart.
pub(crate) struct Auth {
    tokens: Arc<dyn Tokens>,
    pub(crate) passwords: Passwords,
    /// A certificate's common name is a user: `--client-cert-auth`.
    by_certificate: bool,
}

impl Auth {
    /// # Errors
    /// The kind of token is not known, or its options are wrong.
    pub(crate) fn new(config: &Config) -> Result<Auth, String> {
        let tokens = tokens(config)?;
        Ok(Auth {
            passwords: Passwords::new(config.auth.bcrypt_cost, Arc::clone(&tokens)),
            tokens,
            by_certificate: config.security.client.client_cert_auth,
        })
    }

    /// `None` while it depends on entries that this member has yet to apply.
    pub(crate) fn identify(&self, credentials: &Credentials) -> Option<Who> {
        if let Some(token) = &credentials.token {
            return match self.tokens.resolve(token) {
                Resolved::Known(identity) => Some(Who::known(identity, Some(token))),
                Resolved::NotYet if !credentials.waited => None,
                Resolved::NotYet | Resolved::Unknown => Some(Who::Impostor),
            };
        }
        let certificate = credentials.certificate.as_ref();
        Some(match certificate.filter(|_| self.by_certificate) {
            None => Who::Nobody,
            Some(certificate) => {
                let identity = Identity {
                    user: Arc::from(&*certificate.common_name),
                    revision: None,
                };
                Who::known(identity, None)
            }
        })
    }

    pub(crate) fn tokens(&self) -> &dyn Tokens {
        &*self.tokens
    }

    /// Something about tokens was applied.
    pub(crate) fn on_effect(&self, effect: &Effect) {
        match effect {
            Effect::TokenAssigned { user, token } => self.tokens.on_assigned(user, token),
            Effect::TokensRevoked { user } => self.on_revoked(user.as_deref()),
            _ => {}
        }
    }

    /// The tokens and the verified password of a user, or of all, are worth nothing any more.
    pub(crate) fn on_revoked(&self, user: Option<&str>) {
        self.tokens.on_revoked(user);
        self.passwords.forget(user);
    }

    /// The effects of entries up to this one were handed over.
    pub(crate) fn on_applied(&self, index: LogIndex) {
        self.tokens.on_applied(index);
    }
}

/// The tokens that `--auth-token` names.
fn tokens(config: &Config) -> Result<Arc<dyn Tokens>, String> {
    let made = make_tokens(config);
    made.map_err(|error| {
        tracing::error!(
            error = error.detail().as_str(),
            "cannot make the tokens that were asked for"
        );
        error.to_string()
    })
}

fn make_tokens(config: &Config) -> Result<Arc<dyn Tokens>, jwt::Error> {
    let mut parts = config.auth.token.split(',');
    let kind = parts.next().unwrap_or_default();
    let given = jwt::given(parts)?;
    match kind {
        "simple" => Ok(Arc::new(SimpleTokens::new(config.auth.token_ttl))),
        "jwt" => {
            let options = jwt::Options::parse(&given)?;
            let unknown = options.unknown().join(", ");
            if !unknown.is_empty() {
                tracing::warn!(keys = unknown.as_str(), "unknown JWT options");
            }
            Ok(Arc::new(JwtTokens::open(options)?))
        }
        "" => Ok(Arc::new(NoTokens)),
        _ => Err(jwt::Error::Options(format!("unknown token type {kind:?}"))),
    }
}
