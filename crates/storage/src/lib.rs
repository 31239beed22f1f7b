//! Every byte on disk: file system, write-ahead log, raft snapshots, the bolt file, the backend.
//!
//! Formats are etcd's own, to the byte. Nothing here knows what a key, a lease or a member means.

pub mod backend;
pub mod bolt;
pub mod datadir;
pub mod fs;
pub mod log;
#[cfg(any(test, feature = "sim"))]
pub mod simfs;
pub mod snap;
pub mod wal;
pub mod wire;
