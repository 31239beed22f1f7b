//! First starts: what fits, what is refused, and in which words. All of it passes on Go's etcd.

mod discovery;
#[cfg(feature = "dns")]
mod dns;
mod force;
mod refusals;
mod start;
