//! Authentication and permissions on real members, seen from outside.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod access;
#[cfg(feature = "tls")]
mod certificate;
#[cfg(feature = "mixed")]
mod mixed;
mod stories;
