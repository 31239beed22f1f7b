//! Authentication and permissions on real members, seen from outside.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod access;
#[cfg(feature = "tls")]
mod certificate;
#[cfg(any(feature = "tls", feature = "mixed"))]
mod keys;
#[cfg(feature = "mixed")]
mod mixed;
#[cfg(feature = "tls")]
mod rotation;
mod stories;
