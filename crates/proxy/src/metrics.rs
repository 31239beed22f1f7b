//! What the proxy counts. Gauges and counters under etcd's names are made of it by [`Host`], which
//! owns the page.
//!
//! [`Host`]: crate::Host

use std::sync::atomic::{AtomicI64, AtomicU64};

/// Counts of one proxy; only ever added to, relaxed.
#[derive(Debug, Default)]
pub struct Metrics {
    /// Watches of clients that share another one's watch below:
    /// `etcd_grpc_proxy_watchers_coalescing_total`.
    pub watchers_coalescing: AtomicI64,
    /// Events that were sent to more clients than they came from below:
    /// `etcd_grpc_proxy_events_coalescing_total`.
    pub events_coalescing: AtomicU64,
    /// Answers in the cache: `etcd_grpc_proxy_cache_keys_total`.
    pub cache_keys: AtomicI64,
    /// Serializable reads that the cache answered: `etcd_grpc_proxy_cache_hits_total`.
    pub cache_hits: AtomicU64,
    /// Those that it could not answer: `etcd_grpc_proxy_cache_misses_total`.
    pub cache_misses: AtomicU64,
}
