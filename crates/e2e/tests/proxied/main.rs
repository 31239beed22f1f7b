//! `etcd grpc-proxy start` as clients see it that share watches, leases and keys through it. Each
//! test passes on a Go etcd too (`ETCD_BIN`, for the member and the proxy), but for those that say
//! why not.

mod calls;
#[cfg(feature = "tls")]
mod certificates;
mod coherence;
mod leases;
mod leasing;
mod members;
mod pages;
mod process;
mod stream;
mod watch;
