//! The level of compatibility that this build claims.

/// The etcd release whose behaviour is emulated.
pub const SERVER: &str = "3.7.1";

/// The oldest cluster version that a member of this build can join.
pub const MIN_CLUSTER: &str = "3.0.0";

/// The version of Quorate itself.
pub const QUORATE: &str = env!("CARGO_PKG_VERSION");
