//! Passwords: hashed and compared by a few threads of their own, and remembered while they are
//! right.
//!
//! A comparison costs tens of milliseconds by design, so neither apply nor a net thread makes one,
//! and whoever logs in again with the password that was right is let in without: what is
//! remembered is a keyed digest of it, good for as long as the user's stored hash is the same.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use api::{Code, Error, Status};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bcrypt::Version;
use bytes::Bytes;
use node::machine::Token;
use rustls::crypto::aws_lc_rs;
use sha2::{Digest, Sha256};

use super::token::Tokens;
use crate::drive::post::{Mail, Post};

#[cfg(test)]
mod tests;

/// Jobs that wait; more are refused.
const JOBS_MAX: usize = 4096;
/// Users whose password is remembered.
const REMEMBERED_MAX: usize = 4096;
/// bcrypt does not look further, so Go's refuses to hash more, in bytes.
const PASSWORD_MAX: usize = 72;
/// The threads give way to those that serve requests.
const NICE: i32 = 10;

/// What the threads do. Secrets: never printed.
pub(crate) enum Job {
    /// Hashes a password; the answer is the hash in base64, as entries carry it.
    Hash { password: String },
    /// Compares a password with a stored hash; the answer is empty.
    Check(Check),
    /// Makes a token.
    Assign { user: String, revision: u64 },
}

/// A password that may be right.
pub(crate) struct Check {
    pub(crate) user: String,
    pub(crate) password: String,
    /// What is stored for the user.
    pub(crate) hash: Bytes,
}

/// The queue of the threads, and what they found out.
pub(crate) struct Passwords {
    cost: u32,
    tokens: Arc<dyn Tokens>,
    queue: Mutex<Queue>,
    wake: Condvar,
    remembered: Mutex<Remembered>,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<(Token, Job)>,
    stopping: bool,
}

struct Remembered {
    /// Without it the digests are worth nothing; made anew by each process.
    key: [u8; 32],
    by_user: HashMap<String, Right>,
}

/// A password that was right.
struct Right {
    hash: Bytes,
    digest: [u8; 32],
}

impl Remembered {
    fn digest(&self, check: &Check) -> [u8; 32] {
        let mut digest = Sha256::new_with_prefix(self.key);
        digest.update(check.password.as_bytes());
        digest.finalize().into()
    }
}

impl Passwords {
    /// `cost` is that of new hashes.
    pub(crate) fn new(cost: u32, tokens: Arc<dyn Tokens>) -> Passwords {
        let mut key = [0; 32];
        let source = aws_lc_rs::default_provider().secure_random;
        source
            .fill(&mut key)
            .expect("the system has random numbers");
        Passwords {
            cost,
            tokens,
            queue: Mutex::default(),
            wake: Condvar::new(),
            remembered: Mutex::new(Remembered {
                key,
                by_user: HashMap::new(),
            }),
        }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn remembered(&self) -> MutexGuard<'_, Remembered> {
        self.remembered
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Has a job done; [`Mail::Secret`] brings the answer.
    ///
    /// # Errors
    /// Too many wait.
    pub(crate) fn ask(&self, token: Token, job: Job) -> Result<(), Error> {
        let mut queue = self.queue();
        if queue.jobs.len() >= JOBS_MAX {
            return Err(Error::TooManyRequests);
        }
        queue.jobs.push_back((token, job));
        self.wake.notify_one();
        Ok(())
    }

    /// True when the password was right before and the user's hash is still the same.
    pub(crate) fn is_known(&self, check: &Check) -> bool {
        let remembered = self.remembered();
        let Some(right) = remembered.by_user.get(&check.user) else {
            return false;
        };
        right.hash == check.hash && is_equal(&right.digest, &remembered.digest(check))
    }

    fn remember(&self, check: Check) {
        let mut remembered = self.remembered();
        if remembered.by_user.len() >= REMEMBERED_MAX {
            remembered.by_user.clear();
        }
        let digest = remembered.digest(&check);
        let hash = check.hash;
        remembered
            .by_user
            .insert(check.user, Right { hash, digest });
    }

    /// Forgets the password of a user, or of all.
    pub(super) fn forget(&self, user: Option<&str>) {
        let mut remembered = self.remembered();
        match user {
            Some(user) => {
                remembered.by_user.remove(user);
            }
            None => remembered.by_user.clear(),
        }
    }

    /// Ends the threads; jobs that wait are lost.
    pub(crate) fn stop(&self) {
        self.queue().stopping = true;
        self.wake.notify_all();
    }

    /// One of the threads.
    pub(crate) fn run(&self, mut post: Post) {
        // A thread that may not give way serves all the same.
        let _ = rustix::process::nice(NICE);
        while let Some((token, job)) = self.next() {
            post.put(Mail::Secret(token, self.work(job)));
            post.deliver();
        }
    }

    fn next(&self) -> Option<(Token, Job)> {
        let mut queue = self.queue();
        loop {
            if queue.stopping {
                return None;
            }
            if let Some(job) = queue.jobs.pop_front() {
                return Some(job);
            }
            queue = self
                .wake
                .wait(queue)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn work(&self, job: Job) -> Result<String, Status> {
        match job {
            Job::Hash { password } => self.hash(&password),
            Job::Check(check) => {
                // Whoever waited before may have asked the same.
                if !self.is_known(&check) {
                    compare(&check)?;
                    self.remember(check);
                }
                Ok(String::new())
            }
            Job::Assign { user, revision } => self.tokens.assign(&user, revision),
        }
    }

    fn hash(&self, password: &str) -> Result<String, Status> {
        if password.len() > PASSWORD_MAX {
            let text = "bcrypt: password length exceeds 72 bytes";
            return Err(Status::new(Code::Unknown, text));
        }
        let parts = bcrypt::hash_with_result(password, self.cost)
            .map_err(|error| Status::new(Code::Unknown, error.to_string()))?;
        // The version that Go's writes.
        Ok(STANDARD.encode(parts.format_for_version(Version::TwoA)))
    }
}

/// # Errors
/// `AuthFailed`; also for a stored hash that is none.
fn compare(check: &Check) -> Result<(), Error> {
    let hash = std::str::from_utf8(&check.hash).map_err(|_| Error::AuthFailed)?;
    match bcrypt::verify(&check.password, hash) {
        Ok(true) => Ok(()),
        Ok(false) | Err(_) => Err(Error::AuthFailed),
    }
}

/// In a time that does not tell where they differ.
fn is_equal(one: &[u8; 32], other: &[u8; 32]) -> bool {
    let pairs = one.iter().zip(other);
    pairs.fold(0, |differences, (one, other)| differences | (one ^ other)) == 0
}
