//! The loop of a net thread: wait, read, hand over, take mail, write.

use std::io::{self, ErrorKind, IoSlice};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::io::Errno;
use rustix::time::Timespec;

use super::super::bridge::{Bridge, BridgeReply, BridgeRequest, SendPart};
use super::super::call::CallId;
use super::super::h2::frame::PREFACE;
use super::super::h2::{Conn, Event, SLICES_MAX, Shared, StreamRef};
use super::super::mailbox::Mailbox;
use super::super::socket::{Listener, Socket};
use super::super::stats::Stats;
use super::super::{Foreign, Handler, Place, Traffic};
use super::connection::{Connection, Connections, Stage};
use super::handshake::Handshakes;
use super::{Control, Message, Net, Peer, bridge_sender};
use crate::tls;

/// Shared by all connections of a thread.
const READ_BYTES: usize = 256 * 1024;
/// Encrypted bytes that one read takes. Decrypted, with a record that was incomplete before, they
/// fit into the rest of the buffer above behind an incomplete frame.
const SCRATCH_BYTES: usize = 128 * 1024;
/// A connection with this much unwritten output is not read.
const READ_PAUSE_BYTES: usize = 512 * 1024;
const EVENTS_MAX: usize = 512;
const ACCEPTS_MAX: usize = 128;
/// Rounds of filling and writing one connection's output in a turn.
const WRITES_MAX: usize = 8;
const TICK: Duration = Duration::from_millis(100);
/// How long a connection that we ended may take to close.
const LINGER_MS: u64 = 1_000;
/// How long the answer to a drain's ping is waited for.
const DRAIN_PING_MS: u64 = 1_000;

const TOKEN_WAKE: u64 = u64::MAX;
/// Listeners count down from here.
const TOKEN_LISTENER: u64 = u64::MAX - 1;
const TOKEN_LISTENERS_END: u64 = u64::MAX - 1024;

/// What a net thread is made of.
pub(super) struct Parts<M> {
    pub(super) thread: u8,
    pub(super) shared: Arc<Shared>,
    pub(super) stats: Arc<Stats>,
    pub(super) open_connections: Arc<AtomicUsize>,
    pub(super) mailboxes: Vec<Mailbox<M>>,
    pub(super) listeners: Vec<Listener>,
    pub(super) traffic: Vec<Traffic>,
    pub(super) foreign: Option<Foreign>,
    pub(super) bridge: Option<Arc<dyn Bridge>>,
}

/// [`Parts`] whose descriptors are registered with epoll.
pub(super) struct Prepared<M> {
    parts: Parts<M>,
    net: Net,
    mailbox: Mailbox<M>,
}

impl<M> Parts<M> {
    /// Does what can fail, on the starting thread.
    pub(super) fn prepare(self) -> io::Result<Prepared<M>> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let mailbox = self.mailboxes[usize::from(self.thread)].clone();
        mailbox.register(&epoll, EventData::new_u64(TOKEN_WAKE))?;
        for (listener, back) in self.listeners.iter().zip(0..) {
            listener.set_nonblocking()?;
            let token = EventData::new_u64(TOKEN_LISTENER - back);
            epoll::add(&epoll, listener, token, EventFlags::IN)?;
        }
        let now = Instant::now();
        let net = Net {
            thread: self.thread,
            epoll,
            shared: Arc::clone(&self.shared),
            stats: Arc::clone(&self.stats),
            // A moment ago, so that no time on this clock is zero.
            started: now.checked_sub(Duration::from_secs(1)).unwrap_or(now),
            now,
            now_ms: 1_000,
            connections: Connections::default(),
            dirty: Vec::new(),
            pool: Vec::new(),
            open_connections: Arc::clone(&self.open_connections),
        };
        Ok(Prepared {
            parts: self,
            net,
            mailbox,
        })
    }
}

/// How a graceful shutdown goes on.
struct Draining {
    since_ms: u64,
    deadline: Instant,
}

pub(super) struct EventLoop<H: Handler> {
    net: Net,
    handler: H,
    mailbox: Mailbox<H::Mail>,
    mailboxes: Vec<Mailbox<H::Mail>>,
    listeners: Vec<Listener>,
    /// Accepting is suspended until the next tick: no descriptor was left.
    listeners_paused: bool,
    next_thread: usize,
    traffic: Vec<Traffic>,
    foreign: Option<Foreign>,
    bridge: Option<Arc<dyn Bridge>>,
    bridge_sender: SendPart,
    read_buffer: Vec<u8>,
    /// For [`Socket::read`]; empty until a connection with TLS comes.
    scratch: Vec<u8>,
    handshakes: Handshakes,
    /// Events of the connection at hand; empty between uses.
    events: Vec<Event>,
    /// Events that writing brought up, for the next turn.
    later: Vec<(u32, u32, Event)>,
    next_tick: Instant,
    draining: Option<Draining>,
}

impl<H: Handler> EventLoop<H> {
    pub(super) fn new(prepared: Prepared<H::Mail>, handler: H) -> Self {
        let Prepared {
            parts,
            net,
            mailbox,
        } = prepared;
        EventLoop {
            next_tick: net.now + TICK,
            net,
            handler,
            mailbox,
            bridge_sender: bridge_sender(&parts.mailboxes),
            next_thread: 0,
            mailboxes: parts.mailboxes,
            listeners: parts.listeners,
            listeners_paused: false,
            traffic: parts.traffic,
            foreign: parts.foreign,
            bridge: parts.bridge,
            read_buffer: vec![0; READ_BYTES],
            scratch: Vec::new(),
            handshakes: Handshakes::new(),
            events: Vec::new(),
            later: Vec::new(),
            draining: None,
        }
    }

    /// Runs until a drain is complete.
    pub(super) fn run(mut self) {
        let mut ready: Vec<epoll::Event> = Vec::with_capacity(EVENTS_MAX);
        let mut mail = Vec::new();
        let mut control = Vec::new();
        while !self.is_done() {
            self.wait(&mut ready);
            self.net.now = Instant::now();
            self.net.now_ms = (self.net.now - self.net.started).as_millis() as u64;
            self.net.stats.turns.add(1);
            self.handshakes.begin_turn();
            self.dispatch_later();
            for event in ready.drain(..) {
                let token = event.data.u64();
                let flags = event.flags;
                self.on_ready(token, flags);
            }
            self.mailbox.take(&mut mail, &mut control);
            for message in control.drain(..) {
                self.on_control(message);
            }
            if !mail.is_empty() {
                self.handler.on_mail(&mut self.net, &mut mail);
                mail.clear();
            }
            if self.net.now >= self.next_tick {
                self.tick();
            }
            self.handler.on_turn_end(&mut self.net);
            self.flush();
        }
    }

    fn is_done(&self) -> bool {
        self.draining.is_some() && self.net.connections.len() == 0
    }

    fn wait(&mut self, ready: &mut Vec<epoll::Event>) {
        let idle = self.later.is_empty() && self.net.dirty.is_empty() && self.mailbox.may_sleep();
        let timeout = if idle {
            self.next_tick.saturating_duration_since(Instant::now())
        } else {
            Duration::ZERO
        };
        // Rounded up: a tick that is not quite due would be waited for in a spin.
        let nanoseconds = timeout
            .as_nanos()
            .next_multiple_of(1_000_000)
            .min(200_000_000) as i64;
        let timeout = Timespec {
            tv_sec: 0,
            tv_nsec: nanoseconds,
        };
        match epoll::wait(&self.net.epoll, spare_capacity(ready), Some(&timeout)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => panic!("epoll_wait on our own descriptor: {error}"),
        }
        self.mailbox.awake();
    }

    fn on_ready(&mut self, token: u64, flags: EventFlags) {
        match token {
            // It has done its work: the wait is over.
            TOKEN_WAKE => {}
            TOKEN_LISTENERS_END.. => self.accept((TOKEN_LISTENER - token) as usize),
            _ => {
                let index = token as u32;
                if self.net.connections.generation(index) != Some((token >> 32) as u32) {
                    return;
                }
                if flags.intersects(EventFlags::OUT | EventFlags::ERR | EventFlags::HUP) {
                    self.net.mark_dirty(index);
                }
                if flags.intersects(EventFlags::IN | EventFlags::ERR | EventFlags::HUP) {
                    self.read(index);
                }
            }
        }
    }

    fn accept(&mut self, listener: usize) {
        for _ in 0..ACCEPTS_MAX {
            match self.listeners[listener].accept() {
                Ok((socket, address)) => {
                    let identity = None;
                    self.place(
                        socket,
                        Peer {
                            address,
                            identity,
                            listener,
                        },
                    );
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if exhausted(&error) => return self.pause_listeners(true),
                // The client gave up before it was accepted, or its options could not be set.
                Err(_) => {}
            }
        }
    }

    fn pause_listeners(&mut self, paused: bool) {
        self.listeners_paused = paused;
        let flags = if paused {
            EventFlags::empty()
        } else {
            EventFlags::IN
        };
        for (listener, back) in self.listeners.iter().zip(0..) {
            let token = EventData::new_u64(TOKEN_LISTENER - back);
            epoll::modify(&self.net.epoll, listener, token, flags)
                .expect("a listener stays registered");
        }
    }

    /// Gives a new connection to the next thread.
    fn place(&mut self, socket: Socket, peer: Peer) {
        let limit = self.net.shared.limits.connections_max;
        if self.net.open_connections.fetch_add(1, Relaxed) >= limit {
            self.net.open_connections.fetch_sub(1, Relaxed);
            return;
        }
        let thread = self.next_thread;
        self.next_thread = (thread + 1) % self.mailboxes.len();
        if thread == self.net.thread() {
            self.adopt(socket, peer);
        } else {
            self.mailboxes[thread].push_control(Control(Message::Connection(socket, peer)));
        }
    }

    fn adopt(&mut self, socket: Socket, peer: Peer) {
        let now_ms = self.net.now_ms;
        let handshaking = socket.is_handshaking();
        let connection = Connection {
            socket,
            handshaking,
            peer,
            h2: Conn::new(Arc::clone(&self.net.shared), now_ms),
            stage: Stage::Sniffing,
            partial: Vec::new(),
            dirty: false,
            reading: true,
            writing: false,
            since_ms: now_ms,
            progress_ms: now_ms,
            write_shut: false,
        };
        let added = self
            .net
            .connections
            .insert(connection)
            .filter(|(index, generation)| {
                let token = EventData::new_u64(u64::from(*generation) << 32 | u64::from(*index));
                let connection = self.net.connections.at_mut(*index).expect("just inserted");
                let added = epoll::add(&self.net.epoll, &connection.socket, token, EventFlags::IN);
                if added.is_err() {
                    self.net.connections.remove(*index);
                }
                added.is_ok()
            });
        if let Some((index, generation)) = added {
            self.net.stats.accepted.add(1);
            if handshaking {
                self.begin_handshake(index, generation);
            }
            if self.draining.is_some() {
                // Too late to be served; dropping it tells the client to go elsewhere.
                self.close_all_idle();
            }
        } else {
            self.net.open_connections.fetch_sub(1, Relaxed);
        }
    }

    /// Counts a handshake, and closes the oldest one when there are too many.
    fn begin_handshake(&mut self, index: u32, generation: u32) {
        if self.scratch.is_empty() {
            self.scratch = vec![0; SCRATCH_BYTES];
        }
        let limit = self.net.shared.limits.tls_handshakes_max;
        let connections = &self.net.connections;
        let oldest = self
            .handshakes
            .begin(index, generation, limit, |index, generation| {
                connections.is_handshaking(index, generation)
            });
        if let Some(oldest) = oldest {
            self.close(oldest);
        }
    }

    fn read(&mut self, index: u32) {
        let Some(connection) = self.net.connections.at_mut(index) else {
            return;
        };
        let shaking = connection.handshaking;
        if shaking && self.handshakes.is_turn_over() {
            // The socket stays readable, and epoll says so again.
            return;
        }
        if shaking && connection.socket.decide().is_err() {
            return self.close(index);
        }
        let kept = connection.partial.len();
        self.read_buffer[..kept].copy_from_slice(&connection.partial);
        let started = shaking.then(Instant::now);
        let rest = &mut self.read_buffer[kept..];
        let read = connection.socket.read(rest, &mut self.scratch);
        if connection.socket.wants_write() {
            self.net.mark_dirty(index);
        }
        if let Some(started) = started {
            self.handshakes.spend(started.elapsed());
            self.after_handshake_step(index);
        }
        match read {
            Ok(0) => self.close(index),
            Ok(count) => self.take_in(index, kept + count),
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Err(error) if error.kind() == ErrorKind::InvalidData => self.refuse(index, &error),
            Err(_) => self.close(index),
        }
    }

    /// Notes the end of a handshake, and who the client is.
    fn after_handshake_step(&mut self, index: u32) {
        let Some(connection) = self.net.connections.at_mut(index) else {
            return;
        };
        if !connection.socket.is_handshaking() {
            connection.handshaking = false;
            connection.peer.identity = connection.socket.identity();
            self.handshakes.end();
        }
    }

    /// Makes something of bytes that were read.
    fn take_in(&mut self, index: u32, length: usize) {
        let Some(connection) = self.net.connections.at_mut(index) else {
            return;
        };
        let ended = connection.socket.is_peer_closed();
        let traffic = self.traffic.get(connection.peer.listener);
        let traffic = traffic.copied().unwrap_or_default();
        match connection.stage {
            Stage::Lingering => connection.partial.clear(),
            Stage::Sniffing => {
                let known = length.min(PREFACE.len());
                let foreign = self.read_buffer[..known] != PREFACE[..known];
                let secure = connection.socket.is_secure();
                if foreign && traffic != Traffic::Grpc {
                    return self.hand_over(index, length);
                }
                if foreign || traffic == Traffic::Http && !secure && known == PREFACE.len() {
                    return self.close(index);
                }
                if known == PREFACE.len() {
                    connection.stage = Stage::Http2;
                    if !secure || traffic == Traffic::Grpc {
                        connection.h2.forbid_bridging();
                    }
                    self.receive(index, length);
                } else {
                    connection.partial.clear();
                    connection
                        .partial
                        .extend_from_slice(&self.read_buffer[..length]);
                }
            }
            Stage::Http2 => self.receive(index, length),
        }
        if ended {
            self.close(index);
        }
    }

    /// Ends a connection whose TLS failed, after the alert that says why.
    fn refuse(&mut self, index: u32, error: &io::Error) {
        let now = self.net.now;
        let Some(connection) = self.net.connections.at_mut(index) else {
            return;
        };
        if self.handshakes.may_log(now) {
            let address = connection.peer.address;
            let cause = error.get_ref().and_then(|it| it.downcast_ref());
            tracing::warn!(
                "remote-addr" = address.map_or(String::new(), |it| it.to_string()),
                error = cause.map_or_else(|| error.to_string(), tls::refusal),
                "rejected connection on client endpoint"
            );
        }
        connection.h2.close(&mut self.events);
        self.dispatch_events(index);
        let Some(connection) = self.net.connections.at_mut(index) else {
            return;
        };
        connection.h2.out.clear();
        connection.partial.clear();
        connection.stage = Stage::Lingering;
        connection.since_ms = self.net.now_ms;
        self.net.mark_dirty(index);
    }

    fn receive(&mut self, index: u32, length: usize) {
        let Some(connection) = self.net.connections.at_mut(index) else {
            return;
        };
        let input = &self.read_buffer[..length];
        let used = connection
            .h2
            .receive(input, self.net.now_ms, &mut self.events);
        connection.partial.clear();
        if used < length {
            connection.partial.extend_from_slice(&input[used..]);
        } else if connection.partial.capacity() > 0 {
            connection.partial = Vec::new();
        }
        let counts = connection.h2.take_counts();
        self.net.stats.received_bytes.add(counts.received_bytes);
        self.net.stats.sent_bytes.add(counts.sent_bytes);
        self.net.stats.calls.add(counts.calls);
        if !connection.h2.out.is_empty() || connection.h2.is_closed() || connection.h2.has_ready() {
            self.net.mark_dirty(index);
        }
        self.dispatch_events(index);
    }

    /// Hands the collected events of a connection to the handler.
    fn dispatch_events(&mut self, index: u32) {
        let Some(generation) = self.net.connections.generation(index) else {
            return self.events.clear();
        };
        let mut events = std::mem::take(&mut self.events);
        for event in events.drain(..) {
            self.dispatch(index, generation, event);
        }
        // Handling an event brings up no others on this thread's stack.
        self.events = events;
    }

    fn dispatch_later(&mut self) {
        if self.later.is_empty() {
            return;
        }
        let mut later = std::mem::take(&mut self.later);
        for (index, generation, event) in later.drain(..) {
            self.dispatch(index, generation, event);
        }
        if self.later.is_empty() {
            self.later = later;
        }
    }

    fn dispatch(&mut self, index: u32, generation: u32, event: Event) {
        let thread = self.net.thread;
        let call = |at: StreamRef| CallId::new(thread, index, generation, at.slot, at.id);
        let net = &mut self.net;
        match event {
            Event::Unary(at, head, message) => {
                if net.touch(call(at), Conn::dispatch) == Some(true) {
                    self.handler.on_unary(net, call(at), &head, message);
                }
            }
            Event::Open(at, head) => {
                if net.touch(call(at), Conn::dispatch) == Some(true)
                    && let Err(status) = self.handler.on_open(net, call(at), &head)
                {
                    net.finish(call(at), status);
                }
            }
            Event::Message(at, message) => {
                if net.is_live(call(at)) {
                    self.handler.on_message(net, call(at), message);
                }
            }
            Event::HalfClose(at) => {
                if net.is_live(call(at)) {
                    self.handler.on_half_close(net, call(at));
                }
            }
            Event::Cancel(at) => self.handler.on_cancel(net, call(at)),
            Event::Writable(at) => {
                if net.is_live(call(at)) {
                    self.handler.on_writable(net, call(at));
                }
            }
            Event::Bridge(at, fields, body) => {
                if net.is_live(call(at))
                    && let Some(bridge) = &self.bridge
                {
                    let sender = Arc::clone(&self.bridge_sender);
                    let (reply, guard) = BridgeReply::new(call(at), sender);
                    net.touch(call(at), |conn, at| conn.keep_bridge(at, guard));
                    let peer = net.peer(call(at));
                    let identity = peer.and_then(|peer| peer.identity.clone());
                    let request = BridgeRequest {
                        fields,
                        body,
                        identity,
                    };
                    bridge.on_request(request, reply);
                }
            }
        }
    }

    fn on_control(&mut self, control: Control) {
        match control.0 {
            Message::Connection(socket, peer) => self.adopt(socket, peer),
            Message::Local(socket) => {
                self.net.open_connections.fetch_add(1, Relaxed);
                let peer = Peer {
                    address: None,
                    identity: None,
                    listener: Peer::LOCAL,
                };
                self.adopt(socket, peer);
            }
            Message::Bridge(call, part) => {
                self.net
                    .write(call, |conn, at| conn.send_bridge_part(at, part));
            }
            Message::Drain(deadline) => {
                if self.draining.is_some() {
                    return;
                }
                self.draining = Some(Draining {
                    since_ms: self.net.now_ms,
                    deadline,
                });
                self.listeners.clear();
                self.handler.on_drain(&mut self.net);
                for index in 0..self.net.connections.index_end() {
                    if let Some(connection) = self.net.connections.at_mut(index) {
                        connection.h2.drain();
                        self.net.mark_dirty(index);
                    }
                }
                self.close_all_idle();
            }
        }
    }

    /// Closes connections that have not become HTTP/2.
    fn close_all_idle(&mut self) {
        for index in 0..self.net.connections.index_end() {
            let connection = self.net.connections.at_mut(index);
            if connection.is_some_and(|connection| connection.stage == Stage::Sniffing) {
                self.close(index);
            }
        }
    }

    fn tick(&mut self) {
        self.next_tick = self.net.now + TICK;
        if self.listeners_paused {
            self.pause_listeners(false);
        }
        for index in 0..self.net.connections.index_end() {
            self.tick_connection(index);
        }
        let now = self.net.now;
        self.handler.on_tick(&mut self.net, now);
    }

    fn tick_connection(&mut self, index: u32) {
        let now_ms = self.net.now_ms;
        let limits = &self.net.shared.limits;
        let Some(connection) = self.net.connections.at_mut(index) else {
            return;
        };
        let age_ms = now_ms.saturating_sub(connection.since_ms);
        let lingered = connection.stage == Stage::Lingering && age_ms >= LINGER_MS;
        let slow = connection.stage != Stage::Lingering
            && !connection.h2.is_open()
            && age_ms >= limits.handshake_timeout.as_millis() as u64;
        let unproven =
            connection.handshaking && age_ms >= limits.tls_handshake_timeout.as_millis() as u64;
        let stall_ms = limits.write_stall_timeout.as_millis() as u64;
        let stalled = connection.writing && now_ms - connection.progress_ms >= stall_ms;
        let mut drained = false;
        if let Some(draining) = &self.draining {
            if now_ms - draining.since_ms >= DRAIN_PING_MS {
                connection.h2.finish_drain();
            }
            drained = self.net.now >= draining.deadline;
        }
        if lingered || slow || unproven || stalled || drained {
            return self.close(index);
        }
        let alive = connection.h2.tick(now_ms, &mut self.events);
        if !connection.h2.out.is_empty() || connection.h2.is_drained() {
            self.net.mark_dirty(index);
        }
        self.dispatch_events(index);
        if !alive {
            self.close(index);
        }
    }

    /// Gives a connection that speaks something else away.
    fn hand_over(&mut self, index: u32, length: usize) {
        let Some(connection) = self.net.connections.remove(index) else {
            return;
        };
        let place = Place(Arc::clone(&self.net.open_connections));
        self.net.stats.closed.add(1);
        // Closing the descriptor would unregister it, but it lives on.
        let _ = epoll::delete(&self.net.epoll, &connection.socket);
        if let Some(foreign) = &self.foreign {
            foreign(
                connection.socket,
                self.read_buffer[..length].to_vec(),
                place,
            );
        }
    }

    /// Drops a connection; its calls are cancelled.
    fn close(&mut self, index: u32) {
        let Some(connection) = self.net.connections.at_mut(index) else {
            return;
        };
        connection.h2.close(&mut self.events);
        self.dispatch_events(index);
        let Some(mut connection) = self.net.connections.remove(index) else {
            return;
        };
        connection.h2.out.clear();
        if connection.handshaking {
            self.handshakes.end();
        }
        self.net.open_connections.fetch_sub(1, Relaxed);
        self.net.stats.closed.add(1);
        if connection.h2.is_violated() {
            self.net.stats.violations.add(1);
        }
    }

    /// Writes what this turn produced, each connection once unless it can take more.
    fn flush(&mut self) {
        let mut dirty = std::mem::take(&mut self.net.dirty);
        for index in dirty.drain(..) {
            self.flush_connection(index);
        }
        if self.net.dirty.is_empty() {
            self.net.dirty = dirty;
        }
    }

    fn flush_connection(&mut self, index: u32) {
        let Some(generation) = self.net.connections.generation(index) else {
            return;
        };
        let Some(connection) = self.net.connections.at_mut(index) else {
            return;
        };
        connection.dirty = false;
        let mut written = flush_socket(connection, self.net.now_ms);
        if connection.stage == Stage::Sniffing {
            // Nothing of HTTP/2 is due yet, but the handshake's records are.
            return match written {
                Ok(_) => self.after_flush(index, generation),
                Err(_) => self.close(index),
            };
        }
        for _ in 0..WRITES_MAX {
            if !matches!(written, Ok(true)) {
                break;
            }
            if connection.h2.has_ready() {
                connection.h2.pump(&mut self.events);
            }
            if connection.h2.out.is_empty() {
                break;
            }
            written = write_out(connection, self.net.now_ms);
        }
        for event in self.events.drain(..) {
            self.later.push((index, generation, event));
        }
        let counts = connection.h2.take_counts();
        self.net.stats.sent_bytes.add(counts.sent_bytes);
        Net::recycle(&mut self.net.pool, connection);
        if written.is_err() {
            return self.close(index);
        }
        let again = matches!(written, Ok(true)) && connection.h2.has_ready();
        if again {
            self.net.mark_dirty(index);
        }
        self.after_flush(index, generation);
    }

    /// Ends what is done and tells epoll what the connection waits for.
    fn after_flush(&mut self, index: u32, generation: u32) {
        let Some(connection) = self.net.connections.at_mut(index) else {
            return;
        };
        if connection.h2.is_drained() {
            connection.h2.close(&mut self.events);
        }
        if connection.h2.is_closed() && connection.stage != Stage::Lingering {
            connection.stage = Stage::Lingering;
            connection.since_ms = self.net.now_ms;
        }
        let unwritten = match connection.stage {
            Stage::Sniffing => 0,
            _ => connection.h2.out.len(),
        };
        let due = unwritten > 0 || connection.socket.wants_write();
        if connection.stage == Stage::Lingering && !due && !connection.write_shut {
            connection.write_shut = true;
            connection.socket.shutdown_write();
        }
        let reading = unwritten < READ_PAUSE_BYTES;
        let writing = due;
        if (reading, writing) != (connection.reading, connection.writing) {
            (connection.reading, connection.writing) = (reading, writing);
            let mut flags = EventFlags::empty();
            flags.set(EventFlags::IN, reading);
            flags.set(EventFlags::OUT, writing);
            let token = EventData::new_u64(u64::from(generation) << 32 | u64::from(index));
            epoll::modify(&self.net.epoll, &connection.socket, token, flags)
                .expect("a connection stays registered");
        }
    }
}

/// Writes what TLS still has. `Ok(true)` if there is nothing left of it.
fn flush_socket(connection: &mut Connection, now_ms: u64) -> io::Result<bool> {
    if !connection.socket.wants_write() {
        return Ok(true);
    }
    let flushed = connection.socket.flush()?;
    if flushed || !connection.writing {
        connection.progress_ms = now_ms;
    }
    Ok(flushed)
}

/// One write. `Ok(true)` if everything was taken, an error if the connection is lost.
fn write_out(connection: &mut Connection, now_ms: u64) -> io::Result<bool> {
    let mut slices = [IoSlice::new(&[]); SLICES_MAX];
    let count = connection.h2.out.slices(&mut slices);
    match connection.socket.write(&slices[..count]) {
        Ok(0) => Err(ErrorKind::WriteZero.into()),
        Ok(written) => {
            connection.h2.out.consume(written);
            connection.progress_ms = now_ms;
            Ok(connection.h2.out.is_empty())
        }
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
            if !connection.writing {
                connection.progress_ms = now_ms;
            }
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

/// No descriptor or memory is left for a new connection.
fn exhausted(error: &io::Error) -> bool {
    let codes = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM];
    error
        .raw_os_error()
        .is_some_and(|raw| codes.iter().any(|code| code.raw_os_error() == raw))
}
