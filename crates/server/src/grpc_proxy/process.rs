//! What the proxy asks of its process: metrics and profiles.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Mutex, PoisonError};

use proxy::{CallEvent, Host, Page};

use crate::config::gates::Gates;
use crate::http::profile;
use crate::metrics::{self, Metrics};

/// The process around a proxy.
pub(super) struct Process {
    metrics: Metrics,
    /// The counts that were taken over last. Locked while they are.
    taken: Mutex<u64>,
    words: Vec<String>,
}

impl Process {
    pub(super) fn new() -> Self {
        Process {
            metrics: Metrics::new(&Gates::default(), None, false),
            taken: Mutex::new(0),
            words: std::env::args().collect(),
        }
    }
}

impl Host for Process {
    fn on_call(&self, path: &str, event: CallEvent) {
        // Other paths are no methods that anybody counts.
        let Some(method) = metrics::Method::from_path(path) else {
            return;
        };
        let counts = &self.metrics.grpc;
        match event {
            CallEvent::Started => counts.started(method, 1),
            CallEvent::Received(count) => counts.received(method, count),
            CallEvent::Sent(count) => counts.sent(method, count),
            CallEvent::Handled(status) => counts.handled(method, status, 1),
        }
    }

    fn on_health(&self, is_healthy: bool) {
        match is_healthy {
            true => self.metrics.health_success.inc(),
            false => self.metrics.health_failures.inc(),
        }
    }

    fn metrics_page(&self, proxy: &proxy::Metrics) -> String {
        let own = &self.metrics;
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        own.proxy_cache_hits.set_u64(proxy.cache_hits.load(Relaxed));
        own.proxy_cache_misses
            .set_u64(proxy.cache_misses.load(Relaxed));
        own.proxy_cache_keys.set(proxy.cache_keys.load(Relaxed));
        let watchers = proxy.watchers_coalescing.load(Relaxed);
        own.proxy_watchers_coalescing.set(watchers);
        let events = proxy.events_coalescing.load(Relaxed);
        let before = std::mem::replace(&mut *taken, events);
        let more = events.saturating_sub(before);
        own.proxy_events_coalescing.add(more);
        let page = own.page();
        own.scrapes.inc();
        page
    }

    fn profile<'a>(&'a self, what: &'a str, seconds: Option<&'a str>) -> Page<'a> {
        Box::pin(profile::page(what, seconds, &self.words))
    }
}
