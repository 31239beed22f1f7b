//! OpenTelemetry traces of requests (`--enable-distributed-tracing`): which ones are traced, and
//! the way to a collector over OTLP/gRPC.
//!
//! A request that continues a trace (`traceparent`) is traced when its caller's part is; others by
//! chance, at the rate of `--distributed-tracing-sampling-rate`. Net threads hand finished spans
//! to a thread of its own through a bounded queue; what does not fit is counted and lost.

mod export;
mod otlp;

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use api::Code;

use crate::config;
use export::Exporter;

/// Finished spans that may wait for the exporter.
const QUEUE_SPANS: usize = 2048;
/// The length of a `traceparent` header of version 00.
const TRACEPARENT_BYTES: usize = 55;

/// A span that has begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Begun {
    trace: u128,
    id: u64,
    /// 0 for none.
    parent: u64,
}

/// A span that has ended.
#[derive(Clone, Debug)]
struct Ended {
    begun: Begun,
    /// The path of the method.
    path: &'static str,
    began: SystemTime,
    took: Duration,
    code: Code,
}

/// What the net threads share.
pub(crate) struct Tracer {
    queue: SyncSender<Ended>,
    /// Traces to begin, out of a million.
    rate: u64,
    /// Makes ids that nobody can foretell, from a number that counts.
    random: RandomState,
    next: AtomicU64,
    lost: Arc<AtomicU64>,
}

impl Tracer {
    /// Starts the thread that exports.
    ///
    /// # Errors
    /// The system refuses a thread.
    pub(crate) fn start(settings: &config::Tracing) -> std::io::Result<Tracer> {
        let (tracer, spans) = Tracer::new(settings);
        let exporter = Exporter::new(settings, Arc::clone(&tracer.lost));
        thread::Builder::new()
            .name("traces".into())
            .spawn(move || exporter.run(&spans))?;
        tracing::info!(
            "distributed-tracing-address" = settings.address,
            "distributed-tracing-service-name" = settings.service,
            "distributed-tracing-sampling-rate" = settings.rate,
            "distributed tracing enabled"
        );
        Ok(tracer)
    }

    fn new(settings: &config::Tracing) -> (Tracer, Receiver<Ended>) {
        let (queue, spans) = sync_channel(QUEUE_SPANS);
        let tracer = Tracer {
            queue,
            rate: settings.rate,
            random: RandomState::new(),
            next: AtomicU64::new(0),
            lost: Arc::default(),
        };
        (tracer, spans)
    }

    /// Whether a request is traced, and as what.
    pub(crate) fn begin(&self, traceparent: Option<&[u8]>) -> Option<Begun> {
        if let Some((trace, parent, is_sampled)) = traceparent.and_then(parse) {
            return is_sampled.then(|| Begun {
                trace,
                id: self.id(),
                parent,
            });
        }
        if self.rate == 0 || self.id() % 1_000_000 >= self.rate {
            return None;
        }
        Some(Begun {
            trace: u128::from(self.id()) << 64 | u128::from(self.id()),
            id: self.id(),
            parent: 0,
        })
    }

    /// Hands a finished request on.
    pub(crate) fn end(&self, begun: Begun, path: &'static str, since: Instant, code: Code) {
        let took = since.elapsed();
        let ended = Ended {
            begun,
            path,
            began: SystemTime::now().checked_sub(took).unwrap_or(UNIX_EPOCH),
            took,
            code,
        };
        if self.queue.try_send(ended).is_err() {
            self.lost.fetch_add(1, Relaxed);
        }
    }

    /// An id, never 0.
    fn id(&self) -> u64 {
        let mut hasher = self.random.build_hasher();
        hasher.write_u64(self.next.fetch_add(1, Relaxed));
        hasher.finish().max(1)
    }
}

/// Trace, span and whether it is sampled, from a `traceparent` header (W3C Trace Context).
fn parse(header: &[u8]) -> Option<(u128, u64, bool)> {
    let text = std::str::from_utf8(header).ok()?;
    let (version, rest) = text.split_once('-')?;
    let (trace, rest) = rest.split_once('-')?;
    let (span, flags) = rest.split_once('-')?;
    let flags = flags.get(..2)?;
    let is_hex = |word: &str, digits: usize| {
        word.len() == digits
            && word
                .bytes()
                .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    };
    let fits = version != "ff" && (version != "00" || text.len() == TRACEPARENT_BYTES);
    if !fits || !is_hex(version, 2) || !is_hex(trace, 32) || !is_hex(span, 16) {
        return None;
    }
    let trace = u128::from_str_radix(trace, 16).ok().filter(|id| *id != 0)?;
    let span = u64::from_str_radix(span, 16).ok().filter(|id| *id != 0)?;
    let flags = u8::from_str_radix(flags, 16).ok()?;
    Some((trace, span, flags & 1 == 1))
}

#[cfg(test)]
mod tests;
