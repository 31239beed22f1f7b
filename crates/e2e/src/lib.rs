//! Real binaries, ours or Go's, driven by the same scenarios.
//!
//! [`Member`] starts the binary that `ETCD_BIN` names (or builds ours) on free ports of the
//! loopback interface and a fresh directory. A [`scenario`] is a text file of calls and the
//! answers that they must get; every scenario has passed on Go etcd 3.7 first.

pub mod acceptance;
pub mod auth;
pub mod bad;
pub mod clients;
pub mod cluster;
pub mod curl;
pub mod dpkg;
pub mod faults;
pub mod http;
pub mod kv;
pub mod machine;
mod member;
pub mod pki;
pub mod random;
pub mod raw;
pub mod scenario;
pub mod walk;

pub use cluster::Cluster;
pub use member::{Error, Member, Options, binary, free_address, is_ours};
