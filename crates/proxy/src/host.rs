//! What belongs to the process around the proxy.

use std::future::Future;
use std::pin::Pin;

use api::Code;

use crate::metrics::Metrics;

/// Something that happened to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallEvent {
    /// It arrived.
    Started,
    /// So many messages came from the client.
    Received(u64),
    /// So many messages went to the client.
    Sent(u64),
    /// It ended with this status.
    Handled(Code),
}

/// A page that takes its time; `None` for one that is not there.
pub type Page<'a> = Pin<Box<dyn Future<Output = Option<String>> + Send + 'a>>;

/// The process around a proxy.
pub trait Host: Send + Sync + 'static {
    /// Counts a call; `path` is `/service/method`.
    fn on_call(&self, path: &str, event: CallEvent);

    /// Counts a health check.
    fn on_health(&self, is_healthy: bool);

    /// The page of `/proxy/metrics`.
    fn metrics_page(&self, metrics: &Metrics) -> String;

    /// The page of a path, of which this is what stands behind `/debug/pprof`, over so many
    /// seconds.
    fn profile<'a>(&'a self, what: &'a str, seconds: Option<&'a str>) -> Page<'a>;
}
