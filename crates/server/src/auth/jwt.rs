//! JSON Web Tokens (RFC 7519): tokens that say whose they are, signed by a key that members share.
//!
//! No member remembers them: whoever has the key, or its public half, can tell whether a token is
//! right. They carry the auth revision at which they were made and are refused once it has gone up.
//! Keys are read from files and taken up anew when the files change ([`Watch`]).
//!
//! The claims are etcd's: `username`, `revision` and `exp`, so that tokens of its members are good
//! here and ours there.

mod key;
mod method;
mod options;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use api::{Code, Status};
use base64::Engine;
use base64::alphabet::URL_SAFE;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde_json::{Value, json};

use super::token::{Identity, Resolved, Tokens};
use crate::tls::{Source, Watch};
use key::Keys;
pub(crate) use options::{Error, Options, given};

/// Tokens whose signature was found right and that may come again, at most.
const VERIFIED_MAX: usize = 4096;
/// Without padding; whatever the last bits are, as Go reads it.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new()
        .with_encode_padding(false)
        .with_decode_padding_mode(DecodePaddingMode::RequireNone)
        .with_decode_allow_trailing_bits(true),
);

/// Makes and reads tokens with keys that are always current.
pub(crate) struct JwtTokens {
    ring: Arc<Ring>,
    _watch: Watch,
}

/// Options and the keys that they name.
struct Ring {
    options: Options,
    /// Replaced whole when the files change.
    current: RwLock<Arc<Current>>,
}

/// What one reading of the files gave.
struct Current {
    keys: Keys,
    /// By the token itself, which is worth nothing to who does not have it already. With the keys,
    /// so that none outlives them; emptied when full, which only holders of right tokens can make
    /// it.
    verified: Mutex<HashMap<Box<[u8]>, Claims>>,
}

/// What a token says, its signature being right.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Claims {
    identity: Identity,
    /// Seconds since 1970: the first at which it is void, and the first at which it is good.
    exp_s: Option<i64>,
    nbf_s: Option<i64>,
}

impl Claims {
    /// None when a claim is absent or not what it must be.
    fn parse(payload: &[u8]) -> Option<Claims> {
        let claims: Value = serde_json::from_slice(payload).ok()?;
        let claims = claims.as_object()?;
        let date = |name| match claims.get(name) {
            None => Some(None),
            // As etcd's library has it, 0 is no date.
            Some(value) => {
                let seconds = value.as_f64()?;
                Some((seconds != 0.0).then_some(seconds as i64))
            }
        };
        let user = claims.get("username")?.as_str()?;
        let revision = claims.get("revision")?.as_f64()?;
        Some(Claims {
            identity: Identity {
                user: Arc::from(user),
                revision: Some(revision as u64),
            },
            exp_s: date("exp")?,
            nbf_s: date("nbf")?,
        })
    }

    fn resolve(&self, now_s: i64) -> Resolved {
        let is_early = self.nbf_s.is_some_and(|nbf| now_s < nbf);
        let is_late = self.exp_s.is_some_and(|exp| now_s >= exp);
        match is_early || is_late {
            true => Resolved::Unknown,
            false => Resolved::Known(self.identity.clone()),
        }
    }
}

impl JwtTokens {
    /// Reads the keys, and begins to look at their files.
    ///
    /// # Errors
    /// A file that cannot be used, or a system without another thread.
    pub(crate) fn open(options: Options) -> Result<JwtTokens, Error> {
        let current = RwLock::new(Arc::new(Current::read(&options)?));
        let ring = Arc::new(Ring { options, current });
        let watch = Watch::start(vec![Arc::clone(&ring) as Arc<dyn Source>]);
        Ok(JwtTokens {
            ring,
            _watch: watch.map_err(Error::Thread)?,
        })
    }

    fn assign_at(&self, user: &str, revision: u64, now_s: i64) -> Result<String, Status> {
        let ring = &self.ring;
        let keys = &ring.current().keys;
        let head = json!({ "alg": ring.options.method.name, "typ": "JWT" });
        let ttl_s = ring.options.ttl_ns.div_euclid(1_000_000_000);
        let claims =
            json!({ "exp": now_s.saturating_add(ttl_s), "revision": revision, "username": user });
        let encoded = |value: Value| BASE64.encode(value.to_string());
        let mut token = format!("{}.{}", encoded(head), encoded(claims));
        let signature = keys.sign(token.as_bytes())?;
        token.push('.');
        BASE64.encode_string(signature, &mut token);
        Ok(token)
    }

    fn resolve_at(&self, token: &[u8], now_s: i64) -> Resolved {
        let current = self.ring.current();
        let mut verified = current.verified();
        if let Some(claims) = verified.get(token) {
            return claims.resolve(now_s);
        }
        drop(verified);
        let name = self.ring.options.method.name;
        let Some(claims) = verify(token, name, &current.keys) else {
            return Resolved::Unknown;
        };
        verified = current.verified();
        if verified.len() >= VERIFIED_MAX {
            verified.clear();
        }
        verified.insert(token.into(), claims.clone());
        claims.resolve(now_s)
    }
}

/// What a token claims if a key of ours signed it.
fn verify(token: &[u8], method: &str, keys: &Keys) -> Option<Claims> {
    let mut dots = (0..token.len()).filter(|at| token[*at] == b'.');
    let (first, second, None) = (dots.next()?, dots.next()?, dots.next()) else {
        return None;
    };
    let head: Value = serde_json::from_slice(&BASE64.decode(&token[..first]).ok()?).ok()?;
    if head.get("alg")?.as_str()? != method {
        return None;
    }
    let signature = BASE64.decode(&token[second + 1..]).ok()?;
    keys.verify(&token[..second], &signature)?;
    Claims::parse(&BASE64.decode(&token[first + 1..second]).ok()?)
}

impl Current {
    fn read(options: &Options) -> Result<Current, Error> {
        Ok(Current {
            keys: Keys::read(options)?,
            verified: Mutex::default(),
        })
    }

    fn verified(&self) -> std::sync::MutexGuard<'_, HashMap<Box<[u8]>, Claims>> {
        self.verified.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ring {
    fn current(&self) -> Arc<Current> {
        let current = self.current.read();
        Arc::clone(&current.unwrap_or_else(PoisonError::into_inner))
    }
}

impl Source for Ring {
    fn paths(&self) -> Vec<PathBuf> {
        let both = [&self.options.private, &self.options.public];
        both.into_iter().flatten().cloned().collect()
    }

    fn reload(&self) -> Result<(), String> {
        let read = Current::read(&self.options).map_err(|error| error.detail())?;
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        // Tokens that were found right need not be looked at again for keys that are the same.
        if !current.keys.are(&read.keys) {
            *current = Arc::new(read);
        }
        Ok(())
    }

    fn tell(&self) {
        tracing::info!("took up changed JWT key files");
    }

    fn complain(&self, error: &str) {
        tracing::warn!(
            error,
            "cannot use changed JWT key files; going on with the old keys"
        );
    }
}

fn now_s() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since: Duration| since.as_secs() as i64)
}

impl Tokens for JwtTokens {
    fn seed(&self) -> Result<String, Status> {
        Ok(String::new())
    }

    fn assign(&self, user: &str, revision: u64) -> Result<String, Status> {
        self.assign_at(user, revision, now_s())
    }

    fn resolve(&self, token: &[u8]) -> Resolved {
        self.resolve_at(token, now_s())
    }
}

/// What who asks a member that can only verify is told.
fn verify_only() -> Status {
    Status::new(
        Code::Unknown,
        "auth: token signing attempted with verify-only key",
    )
}

#[cfg(test)]
mod tests;
