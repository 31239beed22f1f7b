//! The client port: our own HTTP/2 and gRPC server on epoll.
//!
//! A net thread owns its connections, and everything on it happens in turns: read every socket
//! that has bytes, parse all their frames, call the [`Handler`] once per request or message, tell
//! it [`Handler::on_turn_end`], then write each connection once. Other threads answer through a
//! [`Mailbox`], whose batches become [`Handler::on_mail`] in the next turn.
//!
//! Reading order: [`Handler`] (what a service implements), [`Net`] (what it answers with),
//! [`start`]; inside, `h2` (one connection without I/O), `net` (the loop), `mailbox`.
//!
//! No async runtime lives here, and nothing here knows what a message means. Everything that a
//! peer can make grow has a bound in [`Limits`].

mod bridge;
mod call;
mod grpc;
mod h2;
mod mailbox;
mod net;
mod socket;
mod stats;

pub use bridge::{Bridge, BridgeReply, BridgeRequest};
pub use call::{
    BodySource, CallId, Drawn, MessageSource, Method, MethodId, MethodKind, Payload, RequestHead,
};
pub use mailbox::Mailbox;
pub use net::{Control, Front, Net, Peer, start};
pub use socket::{Listener, Plain, SecureSocket, Socket};
pub use stats::{Stats, StatsSnapshot};

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use api::Status;
use bytes::Bytes;

/// The services of one net thread. Every method runs on that thread and must not block.
///
/// Answers go through [`Net`] at once or later, in any order; those for a call that is gone are
/// dropped.
pub trait Handler {
    /// What other threads send to this thread's [`Handler::on_mail`].
    type Mail: Send + 'static;

    /// A unary request, complete. Exactly one of the `reply` methods or [`Net::finish`] with an
    /// error is due.
    fn on_unary(&mut self, net: &mut Net, call: CallId, head: &RequestHead, message: Bytes);

    /// A call of a streaming method began. An error refuses it, and nothing more is heard of it.
    fn on_open(&mut self, net: &mut Net, call: CallId, head: &RequestHead) -> Result<(), Status>;

    /// The next message of a streaming call.
    fn on_message(&mut self, net: &mut Net, call: CallId, message: Bytes);

    /// The client will send no more messages on this streaming call.
    fn on_half_close(&mut self, net: &mut Net, call: CallId);

    /// The call (unary or streaming) is over without the handler's doing: cancelled, timed out,
    /// its connection lost, or its client broke a rule.
    fn on_cancel(&mut self, net: &mut Net, call: CallId);

    /// What was queued on the call has fallen below [`Limits::low_water_bytes`] after having been
    /// above it.
    fn on_writable(&mut self, net: &mut Net, call: CallId) {
        let _ = (net, call);
    }

    /// Everything that this wake-up brought has been handed over; batches leave now.
    fn on_turn_end(&mut self, net: &mut Net);

    /// A batch from other threads; drained by the handler, the vector is reused.
    fn on_mail(&mut self, net: &mut Net, mail: &mut Vec<Self::Mail>);

    /// A graceful shutdown began: no new calls come, and streams that have no end of their own
    /// should be given one.
    fn on_drain(&mut self, net: &mut Net) {
        let _ = net;
    }

    /// About every 100 ms.
    fn on_tick(&mut self, net: &mut Net, now: Instant) {
        let _ = (net, now);
    }
}

/// How a keep-alive ping of a client is judged.
#[derive(Clone, Copy, Debug)]
pub struct KeepAlive {
    /// `--grpc-keepalive-interval`: idle time after which the server pings. Zero: never.
    pub interval: Duration,
    /// `--grpc-keepalive-timeout`: how long an answer may take before the connection is closed.
    pub timeout: Duration,
    /// `--grpc-keepalive-min-time`: the shortest interval between a client's pings.
    pub min_time: Duration,
    /// Cut off clients that ping more often (GOAWAY ENHANCE_YOUR_CALM `too_many_pings`), as Go's
    /// server does; without it their pings are answered at a bounded rate.
    pub strict: bool,
}

/// The bounds of what peers can use.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Longest request message, bytes (`--max-request-bytes` + 512 KiB).
    pub message_bytes_max: usize,
    /// `--max-concurrent-streams`, per connection.
    pub concurrent_streams_max: u32,
    /// Connections of all net threads together; more are closed when they arrive.
    pub connections_max: usize,
    /// Header list of one request, counted as RFC 9113 §6.5.2 does.
    pub header_list_bytes_max: usize,
    /// Receive window of a stream, bytes.
    pub stream_window_bytes: u32,
    /// Receive window of a connection, bytes.
    pub connection_window_bytes: u32,
    /// Streams of all connections together; more are refused.
    pub streams_max: usize,
    /// Requests that are still incomplete, bytes, over all connections.
    pub partial_bytes_max: usize,
    /// Answers that wait for their clients, bytes, over all connections (what a [`BodySource`]
    /// has yet to give does not count). Above it new calls are refused.
    pub queued_bytes_max: usize,
    /// See [`Handler::on_writable`].
    pub low_water_bytes: usize,
    /// Time for the first bytes and the HTTP/2 handshake.
    pub handshake_timeout: Duration,
    /// Time for the TLS handshake, of the above.
    pub tls_handshake_timeout: Duration,
    /// TLS handshakes under way on one net thread; beyond them the oldest ones are closed.
    pub tls_handshakes_max: usize,
    /// A connection that takes nothing of what is due to it for this long is closed.
    pub write_stall_timeout: Duration,
    pub keep_alive: KeepAlive,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            message_bytes_max: 2 * 1024 * 1024,
            concurrent_streams_max: u32::MAX,
            connections_max: 100_000,
            header_list_bytes_max: 64 * 1024,
            stream_window_bytes: 1024 * 1024,
            connection_window_bytes: 16 * 1024 * 1024,
            streams_max: 1_000_000,
            partial_bytes_max: 512 * 1024 * 1024,
            queued_bytes_max: 512 * 1024 * 1024,
            low_water_bytes: 64 * 1024,
            handshake_timeout: Duration::from_secs(20),
            tls_handshake_timeout: Duration::from_secs(10),
            tls_handshakes_max: 1024,
            write_stall_timeout: Duration::from_secs(300),
            keep_alive: KeepAlive {
                interval: Duration::from_secs(7200),
                timeout: Duration::from_secs(20),
                min_time: Duration::from_secs(5),
                strict: false,
            },
        }
    }
}

/// A client's place among [`Limits::connections_max`], given back when it is dropped.
#[derive(Debug)]
pub struct Place(Arc<AtomicUsize>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// Takes a connection that does not speak HTTP/2, with the bytes that were read from it and its
/// place.
pub type Foreign = Arc<dyn Fn(Socket, Vec<u8>, Place) + Send + Sync>;

/// What a listener's connections may speak.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Traffic {
    /// gRPC, and what [`Config::foreign`] and [`Config::bridge`] take.
    #[default]
    All,
    /// gRPC alone.
    Grpc,
    /// What is not gRPC; HTTP/2 only behind TLS, where nobody is told that gRPC is served too.
    Http,
}

/// What [`start`] needs.
pub struct Config {
    pub limits: Limits,
    /// Every gRPC method that exists; a [`MethodId`] is an index into it.
    pub methods: &'static [Method],
    /// Of each listener; those beyond its end may speak everything.
    pub traffic: Vec<Traffic>,
    /// Where connections with another protocol go; `None` closes them.
    pub foreign: Option<Foreign>,
    /// Where HTTP/2 requests that are not gRPC go when they come over TLS. Plain connections, and
    /// all of them with `None`, refuse such requests as a gRPC-only port does.
    pub bridge: Option<Arc<dyn Bridge>>,
}
