//! The process around a member: configuration, listeners, endpoints, log, metrics, threads,
//! services, shutdown.

mod auth;
mod command;
pub mod config;
mod drive;
pub mod front;
pub mod gateway;
mod grpc;
mod grpc_proxy;
pub mod http;
pub mod listen;
pub mod log;
mod member;
pub mod metrics;
mod peer;
pub mod process;
pub mod run;
pub mod shutdown;
mod tcp_proxy;
pub mod tls;
mod trace;

pub use member::start;
