//! Net threads: their connections, what a handler can do with them, starting and stopping.

mod connection;
mod event_loop;
mod handshake;

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use api::Status;

use self::connection::{Connection, Connections};
use self::event_loop::EventLoop;
use super::bridge::BridgePart;
use super::call::{BodySource, CallId, MessageSource, Payload};
use super::h2::{Conn, Shared, StreamRef};
use super::mailbox::Mailbox;
use super::socket::{Listener, Socket};
use super::stats::Stats;
use super::{Config, Handler};
use crate::tls::Identity;

/// Buffers that are kept for connections which have something to write.
const POOL_BUFFERS_MAX: usize = 64;
/// A buffer that grew beyond this is not kept.
const POOL_BUFFER_BYTES_MAX: usize = 512 * 1024;

/// Who is at the other end.
#[derive(Clone, Debug)]
pub struct Peer {
    /// `None` for unix sockets.
    pub address: Option<SocketAddr>,
    /// By the verified client certificate, if there is one.
    pub identity: Option<Arc<Identity>>,
    /// Index among the listeners given to [`start`]; [`Peer::LOCAL`] for this process itself.
    pub listener: usize,
}

impl Peer {
    /// The listener of connections that came by none; see [`Mailbox::connect`].
    pub const LOCAL: usize = usize::MAX;
}

/// What threads of the front end tell each other.
pub struct Control(Message);

pub(super) enum Message {
    Connection(Socket, Peer),
    /// A connection of this process to itself; it takes none of the clients' places.
    Local(Socket),
    Bridge(CallId, BridgePart),
    /// Stop accepting, let calls end until the deadline, then close.
    Drain(Instant),
}

/// One net thread as its handler sees it.
///
/// Answers are put together at once and written at the end of the turn.
pub struct Net {
    thread: u8,
    epoll: OwnedFd,
    shared: Arc<Shared>,
    stats: Arc<Stats>,
    started: Instant,
    now: Instant,
    now_ms: u64,
    connections: Connections,
    /// Connections that may have something to write.
    dirty: Vec<u32>,
    pool: Vec<Vec<u8>>,
    open_connections: Arc<AtomicUsize>,
}

impl Net {
    /// Index of this thread, and of its mailbox.
    pub fn thread(&self) -> usize {
        usize::from(self.thread)
    }

    /// The time at the beginning of this turn.
    pub fn now(&self) -> Instant {
        self.now
    }

    /// Who made a call; `None` when its connection is gone.
    pub fn peer(&self, call: CallId) -> Option<&Peer> {
        self.connections
            .get(call)
            .map(|connection| &connection.peer)
    }

    /// Whether answers to the call still have a receiver.
    pub fn is_live(&mut self, call: CallId) -> bool {
        self.touch(call, |conn, at| conn.is_live(at))
            .unwrap_or(false)
    }

    /// Bytes queued on a call that its client's flow control holds back; `None` when it is gone.
    /// What a [`BodySource`] has yet to give does not count.
    pub fn queued_bytes(&mut self, call: CallId) -> Option<u64> {
        self.touch(call, |conn, at| conn.queued_bytes(at)).flatten()
    }

    /// How much may be queued on a call before whoever has more to tell should wait: `usual`, but
    /// next to nothing while answers that wait for their clients, of all connections together,
    /// take half of [`super::Limits::queued_bytes_max`]. `None`: they take all of it, and nothing
    /// should be queued at all.
    pub fn queue_room(&self, usual: u64) -> Option<u64> {
        let queued = self.shared.queued_bytes.load(Relaxed);
        let queued_max = self.shared.limits.queued_bytes_max;
        match queued {
            _ if queued >= queued_max => None,
            _ if queued > queued_max / 2 => Some(0),
            _ => Some(usual),
        }
    }

    /// Answers a unary call with an encoded message. False if the call is gone.
    pub fn reply(&mut self, call: CallId, message: impl Into<Payload>) -> bool {
        self.write(call, |conn, at| conn.send_payload(at, message.into(), true))
    }

    /// Answers a unary call with a message of exactly `length` bytes, which `encode` appends to
    /// the connection's output: the cheapest way.
    ///
    /// # Panics
    /// If `encode` appends another number of bytes.
    pub fn reply_encoded(
        &mut self,
        call: CallId,
        length: usize,
        encode: impl FnOnce(&mut Vec<u8>),
    ) -> bool {
        self.write(call, |conn, at| conn.send_encoded(at, length, true, encode))
    }

    /// Answers a unary call with a message of exactly `length` bytes that is drawn from `source`
    /// piece by piece, as the client takes it.
    pub fn reply_body(&mut self, call: CallId, length: u64, source: Box<dyn BodySource>) -> bool {
        self.write(call, |conn, at| conn.send_body(at, length, source, true))
    }

    /// Sends one message of a stream of responses. False if the call is gone.
    pub fn send(&mut self, call: CallId, message: impl Into<Payload>) -> bool {
        self.write(call, |conn, at| {
            conn.send_payload(at, message.into(), false)
        })
    }

    /// Like [`Self::reply_encoded`], for one message of a stream of responses.
    pub fn send_encoded(
        &mut self,
        call: CallId,
        length: usize,
        encode: impl FnOnce(&mut Vec<u8>),
    ) -> bool {
        self.write(call, |conn, at| {
            conn.send_encoded(at, length, false, encode)
        })
    }

    /// Like [`Self::reply_body`], for one message of a stream of responses.
    pub fn send_body(&mut self, call: CallId, length: u64, source: Box<dyn BodySource>) -> bool {
        self.write(call, |conn, at| conn.send_body(at, length, source, false))
    }

    /// Sends the rest of a stream of responses, drawn message by message as the client takes them,
    /// and ends the call. False if it is gone.
    pub fn reply_messages(&mut self, call: CallId, source: Box<dyn MessageSource>) -> bool {
        self.write(call, |conn, at| conn.send_messages(at, source))
    }

    /// Ends a call after what is queued on it. False if it is gone.
    pub fn finish(&mut self, call: CallId, status: impl Into<Status>) -> bool {
        self.write(call, |conn, at| conn.finish(at, status.into()))
    }

    /// Gives the client no more flow-control window for this call's requests (what it has, at most
    /// [`super::Limits::stream_window_bytes`], may still come).
    pub fn hold(&mut self, call: CallId) {
        self.touch(call, |conn, at| conn.hold(at, true));
    }

    /// Undoes [`Self::hold`].
    pub fn resume(&mut self, call: CallId) {
        self.write(call, |conn, at| {
            conn.hold(at, false);
            true
        });
    }

    fn touch<R>(&mut self, call: CallId, f: impl FnOnce(&mut Conn, StreamRef) -> R) -> Option<R> {
        let connection = self.connections.get_mut(call)?;
        let at = StreamRef {
            slot: call.slot(),
            id: call.stream(),
        };
        Some(f(&mut connection.h2, at))
    }

    fn write(&mut self, call: CallId, f: impl FnOnce(&mut Conn, StreamRef) -> bool) -> bool {
        let Some(connection) = self.connections.get_mut(call) else {
            return false;
        };
        let at = StreamRef {
            slot: call.slot(),
            id: call.stream(),
        };
        if !connection.dirty {
            connection.dirty = true;
            self.dirty.push(call.connection());
            if !connection.h2.out.has_memory() {
                connection
                    .h2
                    .out
                    .give_memory(self.pool.pop().unwrap_or_default());
            }
        }
        f(&mut connection.h2, at)
    }

    fn mark_dirty(&mut self, index: u32) {
        if let Some(connection) = self.connections.at_mut(index)
            && !connection.dirty
        {
            connection.dirty = true;
            self.dirty.push(index);
        }
    }

    /// Takes back the buffer of a connection that has nothing to write.
    fn recycle(pool: &mut Vec<Vec<u8>>, connection: &mut Connection) {
        if connection.h2.out.is_empty() && connection.h2.out.has_memory() {
            let memory = connection.h2.out.take_memory();
            if pool.len() < POOL_BUFFERS_MAX && memory.capacity() <= POOL_BUFFER_BYTES_MAX {
                pool.push(memory);
            }
        }
    }
}

/// The running net threads.
pub struct Front<M> {
    mailboxes: Vec<Mailbox<M>>,
    stats: Vec<Arc<Stats>>,
    threads: Vec<JoinHandle<()>>,
}

impl<M> Front<M> {
    /// Each thread's counters.
    pub fn stats(&self) -> &[Arc<Stats>] {
        &self.stats
    }

    /// Stops accepting, tells clients (GOAWAY), lets calls end for at most `limit`, then closes
    /// everything. [`Self::join`] waits for that.
    pub fn drain(&self, limit: Duration) {
        let deadline = Instant::now() + limit;
        for mailbox in &self.mailboxes {
            mailbox.push_control(Control(Message::Drain(deadline)));
        }
    }

    /// Waits until all net threads have ended.
    ///
    /// # Errors
    /// A net thread panicked.
    pub fn join(self) -> std::thread::Result<()> {
        self.threads.into_iter().try_for_each(JoinHandle::join)
    }
}

/// Starts one net thread per mailbox on the given listeners. `handler` is called on each thread
/// with its index to make what serves it.
///
/// # Errors
/// No thread, epoll or eventfd could be had.
pub fn start<H: Handler>(
    config: Config,
    listeners: Vec<Listener>,
    mailboxes: Vec<Mailbox<H::Mail>>,
    handler: impl Fn(usize) -> H + Send + Sync + 'static,
) -> io::Result<Front<H::Mail>> {
    assert!(
        (1..256).contains(&mailboxes.len()),
        "{} net threads",
        mailboxes.len()
    );
    let shared = Shared::new(config.limits, config.methods, config.bridge.is_some());
    let open_connections = Arc::new(AtomicUsize::new(0));
    let handler = Arc::new(handler);
    let mut listeners = Some(listeners);
    let mut front = Front {
        mailboxes: mailboxes.clone(),
        stats: Vec::new(),
        threads: Vec::new(),
    };
    for thread in 0..mailboxes.len() {
        let stats = Arc::new(Stats::default());
        let parts = event_loop::Parts {
            thread: thread as u8,
            shared: Arc::clone(&shared),
            stats: Arc::clone(&stats),
            open_connections: Arc::clone(&open_connections),
            mailboxes: mailboxes.clone(),
            // One thread accepts and deals out in turn: SO_REUSEPORT would let a second process
            // bind the same port unnoticed.
            listeners: listeners.take().unwrap_or_default(),
            traffic: config.traffic.clone(),
            foreign: config.foreign.clone(),
            bridge: config.bridge.clone(),
        };
        let loop_parts = parts.prepare()?;
        let handler = Arc::clone(&handler);
        let join = std::thread::Builder::new()
            .name(format!("net-{thread}"))
            .spawn(move || EventLoop::new(loop_parts, handler(thread)).run())?;
        front.stats.push(stats);
        front.threads.push(join);
    }
    Ok(front)
}

impl<M> Mailbox<M> {
    /// Opens a connection of this process to itself, served by this mailbox's thread as any
    /// client's, without the port and its TLS.
    ///
    /// # Errors
    /// The process has no file descriptor left.
    pub fn connect(&self) -> io::Result<UnixStream> {
        let (near, far) = UnixStream::pair()?;
        far.set_nonblocking(true)?;
        self.push_control(Control(Message::Local(Socket::Unix(far))));
        Ok(near)
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        self.open_connections
            .fetch_sub(self.connections.len(), Relaxed);
    }
}

/// A closure for bridged answers that reaches the right net thread.
fn bridge_sender<M: Send + 'static>(
    mailboxes: &[Mailbox<M>],
) -> Arc<dyn Fn(CallId, BridgePart) + Send + Sync> {
    let mailboxes = mailboxes.to_vec();
    Arc::new(move |call, part| {
        if let Some(mailbox) = mailboxes.get(call.thread()) {
            mailbox.push_control(Control(Message::Bridge(call, part)));
        }
    })
}
