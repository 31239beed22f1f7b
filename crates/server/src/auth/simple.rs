//! Simple tokens: sixteen letters and the index of an entry, known to every member by its log.
//!
//! A member keeps them in memory and forgets them when it restarts. One that was made through
//! another member is known here only when its entry was applied, so the index in it tells whether
//! waiting helps.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use api::{Code, Status};
use rustls::crypto::aws_lc_rs;
use storage::log::LogIndex;

use super::token::{Identity, Resolved, Tokens};

/// What a seed is made of, and how many of them.
const LETTERS: &[u8; 52] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
const SEED_LEN: usize = 16;
/// Expired tokens are looked for at most this often.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// The simple tokens that this member knows.
pub(crate) struct SimpleTokens {
    /// Unused for so long, a token is void: `--auth-token-ttl`.
    ttl: Duration,
    known: Mutex<Known>,
    /// Entries up to this index have left their tokens in `known`. Written by the core thread,
    /// after `known`.
    applied: AtomicU64,
}

struct Known {
    tokens: HashMap<String, Token>,
    swept: Instant,
}

struct Token {
    user: Arc<str>,
    void_at: Instant,
}

impl SimpleTokens {
    pub(crate) fn new(ttl: Duration) -> SimpleTokens {
        SimpleTokens {
            ttl,
            known: Mutex::new(Known {
                tokens: HashMap::new(),
                swept: Instant::now(),
            }),
            applied: AtomicU64::new(0),
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn assign_at(&self, user: &str, token: &str, now: Instant) {
        let mut known = self.known();
        if now.saturating_duration_since(known.swept) >= SWEEP_INTERVAL {
            known.swept = now;
            known.tokens.retain(|_, token| now <= token.void_at);
        }
        let made = Token {
            user: Arc::from(user),
            void_at: now + self.ttl,
        };
        known.tokens.insert(token.to_owned(), made);
    }

    fn resolve_at(&self, token: &[u8], now: Instant) -> Resolved {
        let Some((text, index)) = parse(token) else {
            return Resolved::Unknown;
        };
        // Read first: what an entry up to here made is in `known` by now.
        let applied = self.applied.load(Ordering::Acquire);
        let mut known = self.known();
        match known.tokens.get_mut(text) {
            Some(token) if now <= token.void_at => {
                token.void_at = now + self.ttl;
                Resolved::Known(Identity {
                    user: Arc::clone(&token.user),
                    revision: None,
                })
            }
            Some(_) => Resolved::Unknown,
            // The token of entry N carries N - 1.
            None if index >= applied => Resolved::NotYet,
            None => Resolved::Unknown,
        }
    }
}

/// The token as text, and the index in it.
fn parse(token: &[u8]) -> Option<(&str, u64)> {
    let text = std::str::from_utf8(token).ok()?;
    let (seed, index) = text.split_once('.')?;
    let is_number = !index.is_empty() && index.bytes().all(|byte| byte.is_ascii_digit());
    if seed.is_empty() || !is_number {
        return None;
    }
    Some((text, index.parse().ok()?))
}

impl Tokens for SimpleTokens {
    fn seed(&self) -> Result<String, Status> {
        let mut seed = String::with_capacity(SEED_LEN);
        while seed.len() < SEED_LEN {
            let mut random = [0; 2 * SEED_LEN];
            let source = aws_lc_rs::default_provider().secure_random;
            source
                .fill(&mut random)
                .map_err(|_| Status::new(Code::Unknown, "the system has no random numbers"))?;
            // Every letter is equally likely: 208 is four times the letters.
            let fair = random.iter().filter(|byte| **byte < 208);
            let letters = fair.map(|byte| char::from(LETTERS[usize::from(byte % 52)]));
            seed.extend(letters.take(SEED_LEN - seed.len()));
        }
        Ok(seed)
    }

    fn assign(&self, _: &str, _: u64) -> Result<String, Status> {
        // Apply makes them: a seed is never empty.
        Err(Status::new(Code::Unknown, "failed to assign"))
    }

    fn resolve(&self, token: &[u8]) -> Resolved {
        self.resolve_at(token, Instant::now())
    }

    fn on_assigned(&self, user: &str, token: &str) {
        self.assign_at(user, token, Instant::now());
    }

    fn on_revoked(&self, user: Option<&str>) {
        let mut known = self.known();
        match user {
            Some(user) => known.tokens.retain(|_, token| *token.user != *user),
            None => known.tokens.clear(),
        }
    }

    fn on_applied(&self, index: LogIndex) {
        self.applied.store(index.0, Ordering::Release);
    }
}

#[cfg(test)]
mod tests;
