//! The process around a member: configuration, listeners, endpoints, log, metrics, shutdown.

pub mod config;
pub mod front;
pub mod http;
pub mod listen;
pub mod log;
pub mod metrics;
pub mod process;
pub mod run;
pub mod shutdown;

use std::error::Error;

/// Builds a member behind bound sockets.
///
/// # Errors
/// Whatever keeps it from serving.
pub fn start(
    _config: &config::Config,
    _sockets: listen::Sockets,
    _stopper: shutdown::Stopper,
) -> Result<Box<dyn run::Running>, Box<dyn Error + Send + Sync>> {
    Err("no member can be started yet".into())
}
