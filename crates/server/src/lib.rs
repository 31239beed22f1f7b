//! The process around a member: configuration, listeners, endpoints, log, metrics, shutdown.

pub mod config;
pub mod front;
pub mod http;
pub mod log;
pub mod metrics;
