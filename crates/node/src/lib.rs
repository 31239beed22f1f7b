//! One member as a pure machine: what arrives goes in, what must be done comes out.
//!
//! In reading order:
//!
//! - [`raft`]: the consensus engine behind its seam.
//! - [`machine`]: [`machine::Node`] decides what is persisted, sent, applied, answered, and in
//!   which order. It has no clock, thread, socket, file or random source; `server::drive` and the
//!   simulator run the same code.
//! - [`peer`]: what members say to each other, as bytes.
//! - [`ids`]: request ids, member and cluster ids.
//! - [`boot`]: the decision table from what a data directory holds to what a member does.
//! - [`member`]: opens everything that a member consists of over a file system.
//!
//! Promises kept here: nothing is acknowledged before the sync that covers it returned, on a
//! quorum, also when that is one; a linearizable read is answered only after leadership was
//! confirmed by a round that began after it arrived; entries are applied in order, once.

pub mod boot;
pub mod ids;
pub mod machine;
pub mod member;
pub mod peer;
pub mod raft;

pub use machine::{Input, Node, Output};
