//! Tokens: what a client shows instead of its password.
//!
//! ```text
//!   Authenticate ─▶ password checked ─▶ entry (name, seed) ─▶ applied on every member
//!                                                              │ seed: on_assigned, everywhere
//!                                                              └ no seed: assign, where it was asked
//!   any request ─▶ resolve
//! ```

use std::sync::Arc;

use api::Status;
use storage::log::LogIndex;

/// Who a request comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    /// The user's name; whether there is such a user is not known here.
    pub(crate) user: Arc<str>,
    /// The auth revision at which the user was identified. `None` for whatever is the revision
    /// when the request is checked: tokens that this member can revoke, and certificates.
    pub(crate) revision: Option<u64>,
}

/// What a token is worth.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Resolved {
    Known(Identity),
    /// It may have been made by an entry that this member has yet to apply: ask again when
    /// everything that is committed now was applied, and take it for unknown if it still is.
    NotYet,
    Unknown,
}

/// A kind of token: one per process, chosen by `--auth-token`, shared by all threads.
///
/// `resolve` runs on a net thread for every request that shows a token, and must neither block nor
/// take long; `assign` runs on a hashing thread; the `on_` methods run on the core thread in the
/// order of the log, and must not block.
pub(crate) trait Tokens: Send + Sync {
    /// What the entry of an authentication carries. Apply makes the token out of it, on every
    /// member the same. Empty for tokens that the asked member makes by itself, with
    /// [`Tokens::assign`], when the entry was applied.
    ///
    /// # Errors
    /// What the client is told.
    fn seed(&self) -> Result<String, Status>;

    /// A token for a user whose password was right at an auth revision. Only asked when
    /// [`Tokens::seed`] is empty.
    ///
    /// # Errors
    /// What the client is told.
    fn assign(&self, user: &str, revision: u64) -> Result<String, Status>;

    /// Whose token this is. The bytes are the client's, whatever they may be.
    fn resolve(&self, token: &[u8]) -> Resolved;

    /// Apply made a token out of a seed.
    fn on_assigned(&self, user: &str, token: &str) {
        let _ = (user, token);
    }

    /// The user is gone or has another password; `None` when that may be true of every user:
    /// authentication was switched off, or the state was replaced by a received one.
    fn on_revoked(&self, user: Option<&str>) {
        let _ = user;
    }

    /// What entries up to this one made was handed over.
    fn on_applied(&self, index: LogIndex) {
        let _ = index;
    }
}

/// An empty `--auth-token`: nobody gets a token, and none is good.
pub(crate) struct NoTokens;

impl Tokens for NoTokens {
    fn seed(&self) -> Result<String, Status> {
        Err(api::Error::AuthFailed.into())
    }

    fn assign(&self, _: &str, _: u64) -> Result<String, Status> {
        Err(api::Error::AuthFailed.into())
    }

    fn resolve(&self, _: &[u8]) -> Resolved {
        Resolved::Unknown
    }
}
