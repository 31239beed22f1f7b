//! `etcd grpc-proxy start`: one process between many clients and a cluster.
//!
//! It speaks etcd's API on both sides. What it must not know: how a server stores or replicates
//! anything, what a certificate is, how a process logs. It takes accepted byte streams
//! ([`Proxy::serve`]) and asks a [`Host`] for what belongs to the process; `server` has both.
//!
//! ```text
//!   byte streams ─▶ front ──gRPC──▶ services ── by method
//!                     │               ├ kv       cache of ranges ─┐
//!                     │               ├ watch    coalescing       ├─▶ Below
//!                     │               ├ lease    keep-alives     ─┘
//!                     │               ├ cluster  who is registered
//!                     │               └ pass     everything else, as bytes
//!                     └──HTTP───▶ routes   metrics and health
//!
//!   Below::kv        leasing ─▶ namespace ─▶ ordering ─▶ Direct      each a `Kv` over a `Kv`
//!   Below::watches             namespace ─────────────▶ Direct      each a `Watches`
//!   Below::client    the client of the cluster, for leases and for what is passed on
//! ```
//!
//! The order of the layers is etcd's: a lease key lies within the namespace, and so do the keys
//! under which proxies register. A layer that is not asked for is not there.
//!
//! Each call brings a [`Caller`]: token, deadline and whether a leader is required go with it all
//! the way down. Whoever shares an answer or a stream between callers must ask the cluster first
//! whether the second caller may see it.

pub mod below;
mod cache;
mod calls;
mod cluster;
mod discovery;
mod front;
mod host;
mod leader;
mod lease;
mod leasing;
mod metrics;
pub mod namespace;
mod ordering;
mod pass;
mod registry;
mod routes;
pub mod rpc;
mod services;
mod settings;
mod watch;

pub use below::{Below, Caller, Direct, Kv, Watches, Watching};
pub use discovery::discover;
pub use front::Proxy;
pub use host::{CallEvent, Host, Page};
pub use metrics::Metrics;
pub use routes::Pages;
pub use settings::{FLAGS, ListenTls, Settings, TlsVersion};
