//! The other members: etcd's peer protocol, on one thread.
//!
//! ```text
//!   core ──batches──▶ Outbox ──▶ router ──▶ Link ──▶ StreamBody ──▶ their GET …/stream/…
//!                                             └────▶ pipeline ────▶ POST /raft
//!   core ◀──batches── reader ◀── our GET …/stream/… at each member
//!        ◀─────────── routes ◀── POST /raft, POST /raft/snapshot
//! ```
//!
//! Each member dials two streams at every other one and reads what that one writes: appends on
//! one, everything else on the other. What is sent waits as messages, bounded in number, and is
//! encoded when its connection takes it; what arrives is decoded where it is read and goes to the
//! core as one batch per read. No message has a task of its own. One that cannot be sent is lost,
//! and raft is told so.
//!
//! [`Peers`] is the thread, [`Outbox`] the way to it, [`Net`] what its tasks share, [`link::Link`]
//! one other member.

mod body;
mod client;
mod cluster;
mod contacts;
mod corruption;
mod head;
mod join;
mod leases;
mod link;
mod outbox;
mod pipeline;
mod probe;
mod promote;
mod reader;
mod router;
mod routes;
mod serve;
mod snapshot;
mod socket;
mod upload;
mod versions;

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use api::Status;
use api::ids::MemberId;
use node::machine::Token;
use node::raft::Message;
use storage::datadir::DataDir;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::AbortHandle;

pub(crate) use contacts::Contacts;
pub(crate) use corruption::check_initially;
pub(crate) use join::Asker;
pub(crate) use outbox::{Outbox, ToPeers};

use crate::config::{Config, Url};
use crate::drive::Shared;
use crate::drive::core::ToCore;
use crate::drive::post::{Mail, Post};
use crate::front;
use crate::metrics::Metrics;
use crate::shutdown::Stopper;
use crate::tls::Credentials;
use client::Client;
use head::Identity;
use link::{Link, Meters};
use socket::Dialer;

/// Part of a dial's bound that does not depend on elections, as in etcd.
const DIAL_BASE: Duration = Duration::from_secs(1);
/// What `--raft-read-timeout` and `--raft-write-timeout` are raised to, as in etcd.
const LIMIT_MIN: Duration = Duration::from_secs(5);
/// Members outside of the cluster that are remembered; a new member knows few of us at first.
const REMOTES_MAX: usize = 64;

/// Messages that arrived together, and the room that they take until they are taken in.
pub(crate) struct Batch {
    #[expect(
        clippy::vec_box,
        reason = "each is passed on in the box that it was decoded into"
    )]
    pub(crate) messages: Vec<Box<Message>>,
    /// Given back when the core took the messages in.
    _room: Option<OwnedSemaphorePermit>,
}

/// A known member, and the tasks that work for it.
struct Known {
    link: Arc<Link>,
    tasks: Vec<AbortHandle>,
    /// A member of the cluster; otherwise somebody who asked us before we knew of it.
    is_member: bool,
}

impl Drop for Known {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

/// What the tasks of the peer thread share.
struct Net {
    identity: Identity,
    shared: Arc<Shared>,
    metrics: Arc<Metrics>,
    dialer: Arc<Dialer>,
    /// `--raft-read-timeout`: silence after which a stream is given up.
    read_limit: Duration,
    /// `--raft-write-timeout`: how long a write may make no progress.
    write_limit: Duration,
    /// Written by the router and by strangers' requests, read by requests.
    known: Mutex<BTreeMap<MemberId, Known>>,
    /// Connections that are open at the listeners.
    connections: Arc<serve::Connections>,
    /// Room for the bodies of requests.
    uploads: Semaphore,
    /// Connections to leaders that nobody uses now.
    idle: Mutex<Vec<Client>>,
    /// Places for databases that arrive.
    arriving: Semaphore,
    /// Held from the name of an arrived database to the node's word on it.
    naming: tokio::sync::Mutex<()>,
    /// Where they go.
    dir: DataDir,
    stopper: Stopper,
    /// The way to the net threads.
    post: Mutex<Post>,
    /// Time that a request may take, `ReqTimeout` in etcd.
    request_limit: Duration,
}

impl Net {
    fn known(&self) -> MutexGuard<'_, BTreeMap<MemberId, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Client>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The link to a member of the cluster.
    fn peer(&self, id: MemberId) -> Option<Arc<Link>> {
        let known = self.known();
        let found = known.get(&id).filter(|known| known.is_member)?;
        Some(Arc::clone(&found.link))
    }

    fn is_removed(&self, id: MemberId) -> bool {
        self.shared.view.members().is_removed(id)
    }

    fn deliver(&self, batch: Batch) {
        self.shared.core.push(ToCore::Messages(batch));
    }

    fn report_unreachable(&self, peer: MemberId) {
        self.shared.core.push(ToCore::Unreachable(peer));
    }

    /// Another member says that this one was removed, which it may not have applied itself.
    fn on_removed(&self) {
        tracing::warn!(
            "member-id" = %self.identity.member,
            "server error: the member has been permanently removed from the cluster; \
             data-dir used by this member must be removed"
        );
        self.stopper.stop();
    }

    fn meters(&self, id: MemberId) -> Meters {
        let (local, remote) = (self.identity.member.to_string(), id.to_string());
        let metrics = &self.metrics;
        metrics.known_peers.with([&local, &remote]).set(1);
        Meters {
            sent_bytes: metrics.peer_sent_bytes.with([&remote]),
            sent_failures: metrics.peer_sent_failures.with([&remote]),
            received_bytes: metrics.peer_received_bytes.with([&remote]),
            is_active: metrics.active_peers.with([&local, &remote]),
            disconnected: metrics.disconnected_peers.with([&local, &remote]),
        }
    }

    fn link(&self, id: MemberId, urls: Vec<Url>) -> Arc<Link> {
        let contacts = Arc::clone(&self.shared.contacts);
        Arc::new(Link::new(id, urls, contacts, self.meters(id)))
    }

    /// Answers a call that waits on a net thread.
    fn answer(&self, token: Token, answer: Result<Vec<u8>, Status>) {
        let mut post = self.post.lock().unwrap_or_else(PoisonError::into_inner);
        post.put(Mail::Answer(token, answer));
        post.deliver();
    }

    /// Remembers where a stranger is found, so that what raft has for it can be sent.
    fn add_remote(self: &Arc<Self>, id: MemberId, urls: &str) {
        let urls: Vec<Url> = urls
            .split(',')
            .filter_map(|url| Url::parse(url).ok())
            .collect();
        if urls.is_empty() || id == self.identity.member {
            return;
        }
        let mut known = self.known();
        if known.contains_key(&id) || known.len() >= REMOTES_MAX {
            return;
        }
        tracing::info!("remote-peer-id" = %id, "started HTTP pipelining with remote peer");
        let link = self.link(id, urls);
        let worker = tokio::spawn(pipeline::run(Arc::clone(self), Arc::clone(&link)));
        let tasks = vec![worker.abort_handle()];
        known.insert(
            id,
            Known {
                link,
                tasks,
                is_member: false,
            },
        );
    }
}

/// The two directions of connections between members.
pub(crate) struct Sides {
    /// Where the others dial.
    pub(crate) listeners: Vec<front::Listener>,
    /// What to dial the others with, when their URLs want it.
    pub(crate) tls: Option<Arc<Credentials>>,
}

/// A time limit of the configuration, which is not below the least.
fn limit(config: &Config, flag: &str) -> Duration {
    let ns = u64::try_from(config.raw.duration_ns(flag)).unwrap_or(0);
    Duration::from_nanos(ns).max(LIMIT_MIN)
}

fn dialer(config: &Config, tls: Option<Arc<Credentials>>) -> Arc<Dialer> {
    let election = config.raft.heartbeat * config.raft.election_ticks;
    let write_limit = limit(config, "raft-write-timeout");
    let local = local_address(config);
    Arc::new(Dialer::new(
        DIAL_BASE + election / 5,
        write_limit,
        tls,
        local,
    ))
}

/// The address that connections come from, with the gate `SetMemberLocalAddr`: the first of this
/// member's own that is no loopback, so that a certificate which names it fits.
fn local_address(config: &Config) -> Option<IpAddr> {
    let hosts = config.cluster.advertise_peer.iter().map(Url::host);
    let addresses = hosts.filter_map(|host| host.parse::<IpAddr>().ok());
    let mut fitting = addresses.filter(|address| !address.is_loopback());
    fitting
        .next()
        .filter(|_| config.gates.enabled("SetMemberLocalAddr"))
}

/// Who asks members before this one is among them.
///
/// # Errors
/// The system refuses an epoll instance.
pub(crate) fn asker(config: &Config, tls: Option<&Arc<Credentials>>) -> io::Result<Asker> {
    Asker::new(dialer(config, tls.cloned()))
}

/// The thread that talks to the other members.
pub(crate) struct Peers {
    outbox: Arc<Outbox>,
    stopping: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

impl Peers {
    /// Starts the thread; from now on the listeners answer.
    ///
    /// # Errors
    /// The system refuses a thread, an epoll instance or a socket.
    pub(crate) fn start(
        config: &Config,
        shared: &Arc<Shared>,
        sides: Sides,
        post: Post,
        stopper: Stopper,
    ) -> io::Result<Peers> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let urls: Vec<String> = config
            .cluster
            .advertise_peer
            .iter()
            .map(ToString::to_string)
            .collect();
        let net = Arc::new(Net {
            identity: Identity {
                member: shared.member,
                cluster: shared.cluster,
                urls: urls.join(","),
            },
            shared: Arc::clone(shared),
            metrics: Arc::clone(&shared.metrics),
            dialer: dialer(config, sides.tls),
            read_limit: limit(config, "raft-read-timeout"),
            write_limit: limit(config, "raft-write-timeout"),
            known: Mutex::default(),
            connections: Arc::default(),
            uploads: Semaphore::new(upload::PIECES_MAX),
            idle: Mutex::default(),
            arriving: Semaphore::new(snapshot::ARRIVING_MAX),
            naming: tokio::sync::Mutex::new(()),
            dir: DataDir::new(&config.data_dir, config.wal_dir.as_deref()),
            stopper,
            post: Mutex::new(post),
            request_limit: config.raft.request_timeout(),
        });
        let local = net.identity.member.to_string();
        net.metrics.known_peers.with([&local, &local]).set(1);
        {
            let _on_runtime = runtime.enter();
            for listener in sides.listeners {
                serve::listen(&net, listener)?;
            }
            corruption::start(&net, config);
        }
        let outbox = Arc::clone(&shared.peers);
        let (stopping, mut stop) = watch::channel(false);
        let thread = std::thread::Builder::new()
            .name("peers".into())
            .spawn(move || {
                runtime.block_on(async {
                    tokio::select! {
                        () = router::run(&net) => {}
                        _ = stop.wait_for(|stop| *stop) => {}
                    }
                });
                // A blocking task may hang in the resolver.
                runtime.shutdown_background();
            })?;
        Ok(Peers {
            outbox,
            stopping,
            thread: Some(thread),
        })
    }

    /// Closes every connection and listener.
    pub(crate) fn stop(mut self) {
        self.stopping.send_replace(true);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the peer thread panicked");
        }
        self.outbox.close();
    }
}
