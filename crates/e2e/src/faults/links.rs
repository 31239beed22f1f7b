//! A proxy in front of every member's peer port, which knows who dials and treats each directed
//! link on its own: open, cut, slow, or reset.
//!
//! What a member sends to another travels both on connections that it dialed and on those that the
//! other did; a directed link is the bytes of that direction on all of them. A cut link keeps its
//! bytes, as a network does that will deliver them later or never: they go on when it is opened.
//! The bytes are not looked at, so that they may be TLS. Who dials is found by the owner of the
//! socket in /proc.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::Error;

/// Bytes that a pump takes at a time.
const CHUNK: usize = 64 << 10;
/// Chunks on their way on a slow link.
const CHUNKS: usize = 256;

/// How a directed link treats what is sent on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Condition {
    cut: bool,
    delay: Duration,
    /// Connections that were made when it was less are gone.
    resets: u64,
}

type Link = watch::Sender<Condition>;

struct Shared {
    /// By sender, receiver.
    links: Vec<Vec<Link>>,
    /// Process of each member that runs.
    processes: Mutex<HashMap<u32, usize>>,
}

/// The proxies of a cluster.
pub(super) struct Links {
    shared: Arc<Shared>,
    addresses: Vec<SocketAddr>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Links {
    /// A proxy in front of each of the addresses.
    ///
    /// # Errors
    /// No port is free.
    pub(super) async fn start(members: &[SocketAddr]) -> Result<Links, Error> {
        let count = members.len();
        let row = || (0..count).map(|_| Link::default()).collect();
        let shared = Arc::new(Shared {
            links: (0..count).map(|_| row()).collect(),
            processes: Mutex::default(),
        });
        let (mut addresses, mut tasks) = (Vec::new(), Vec::new());
        for (number, member) in members.iter().enumerate() {
            let listener = TcpListener::bind("127.0.0.1:0").await?;
            addresses.push(listener.local_addr()?);
            tasks.push(tokio::spawn(accept(
                listener,
                shared.clone(),
                number,
                *member,
            )));
        }
        Ok(Links {
            shared,
            addresses,
            tasks,
        })
    }

    /// Where the others find each member.
    pub(super) fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Tells which process is the member now.
    pub(super) fn belongs(&self, process: u32, member: usize) {
        let mut processes = self.shared.processes.lock().expect("no holder panics");
        processes.retain(|_, of| *of != member);
        processes.insert(process, member);
    }

    fn change(&self, from: usize, to: usize, change: impl FnOnce(&mut Condition)) {
        self.shared.links[from][to].send_modify(change);
    }

    /// Nothing that `from` sends reaches `to` any more.
    pub(super) fn cut(&self, from: usize, to: usize) {
        self.change(from, to, |link| link.cut = true);
    }

    /// What was kept goes on, and what follows.
    pub(super) fn open(&self, from: usize, to: usize) {
        self.change(from, to, |link| link.cut = false);
    }

    /// What `from` sends reaches `to` so much later.
    pub(super) fn delay(&self, from: usize, to: usize, delay: Duration) {
        self.change(from, to, |link| link.delay = delay);
    }

    /// Ends all connections of the link by a reset.
    pub(super) fn reset(&self, from: usize, to: usize) {
        self.change(from, to, |link| link.resets += 1);
    }
}

impl Drop for Links {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
        // Connections that wait at a cut link end, too.
        for link in self.shared.links.iter().flatten() {
            link.send_modify(|link| {
                link.cut = false;
                link.resets += 1;
            });
        }
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>, to: usize, member: SocketAddr) {
    // Fails only without descriptors, and then the run fails as it must.
    while let Ok((dialed, peer)) = listener.accept().await {
        let local = dialed.local_addr();
        let Some(from) = local.ok().and_then(|local| shared.owner(peer, local)) else {
            // A process that is gone already, or none of ours.
            continue;
        };
        tokio::spawn(connect(dialed, member, shared.clone(), from, to));
    }
}

impl Shared {
    /// The member that owns the socket with the address `peer` connected to `local`.
    fn owner(&self, peer: SocketAddr, local: SocketAddr) -> Option<usize> {
        let table = std::fs::read_to_string("/proc/net/tcp").ok()?;
        let ends = format!("{} {}", hexadecimal(peer)?, hexadecimal(local)?);
        let line = table.lines().find(|line| line.contains(&ends))?;
        let inode = line.split_whitespace().nth(9)?;
        let wanted = format!("socket:[{inode}]");
        let processes = self.processes.lock().expect("no holder panics").clone();
        let owns = |process: u32| {
            let files = std::fs::read_dir(format!("/proc/{process}/fd"));
            files.is_ok_and(|mut files| {
                files.any(|file| {
                    let link = file.and_then(|file| std::fs::read_link(file.path()));
                    link.is_ok_and(|link| link.as_os_str() == wanted.as_str())
                })
            })
        };
        let mut found = processes.into_iter().filter(|(process, _)| owns(*process));
        found.next().map(|(_, member)| member)
    }
}

/// An address as /proc/net/tcp writes it: the number in the machine's order, the port not.
fn hexadecimal(address: SocketAddr) -> Option<String> {
    let SocketAddr::V4(address) = address else {
        return None;
    };
    let number = u32::from_ne_bytes(address.ip().octets());
    Some(format!("{number:08X}:{:04X}", address.port()))
}

/// Carries one connection both ways, until an end closes it or a link of its is reset.
async fn connect(
    mut dialed: TcpStream,
    member: SocketAddr,
    shared: Arc<Shared>,
    from: usize,
    to: usize,
) {
    let (there, back) = (&shared.links[from][to], &shared.links[to][from]);
    let (mut resets, mut other) = (there.subscribe(), back.subscribe());
    let (first, second) = (resets.borrow().resets, other.borrow().resets);
    let Ok(mut answering) = TcpStream::connect(member).await else {
        return;
    };
    let nodelay = dialed.set_nodelay(true).and(answering.set_nodelay(true));
    if nodelay.is_err() {
        return;
    }
    let is_reset = {
        let (from_dialed, to_dialed) = dialed.split();
        let (from_answering, to_answering) = answering.split();
        let there = pump(from_dialed, to_answering, there.subscribe());
        let back = pump(from_answering, to_dialed, back.subscribe());
        tokio::select! {
            _ = async { tokio::join!(there, back) } => false,
            _ = resets.wait_for(|link| link.resets > first) => true,
            _ = other.wait_for(|link| link.resets > second) => true,
        }
    };
    if is_reset {
        // What fails here is a socket that is closed already.
        let _ = dialed.set_zero_linger();
        let _ = answering.set_zero_linger();
    }
}

/// Carries bytes one way, as the link lets it.
async fn pump(
    mut source: ReadHalf<'_>,
    mut target: WriteHalf<'_>,
    link: watch::Receiver<Condition>,
) {
    let (sender, mut queue) = mpsc::channel::<(Instant, Vec<u8>)>(CHUNKS);
    let reading = {
        let mut link = link.clone();
        async move {
            loop {
                let mut chunk = vec![0; CHUNK];
                if link.wait_for(|link| !link.cut).await.is_err() {
                    return;
                }
                let count = match source.read(&mut chunk).await {
                    Ok(0) | Err(_) => return,
                    Ok(count) => count,
                };
                chunk.truncate(count);
                let delay = link.borrow().delay;
                if sender.send((Instant::now() + delay, chunk)).await.is_err() {
                    return;
                }
            }
        }
    };
    let writing = {
        let mut link = link.clone();
        async move {
            while let Some((due, chunk)) = queue.recv().await {
                tokio::time::sleep_until(due).await;
                if link.wait_for(|link| !link.cut).await.is_err() {
                    return;
                }
                if target.write_all(&chunk).await.is_err() {
                    return;
                }
            }
            // The end of the stream goes on like its bytes.
            let _ = target.shutdown().await;
        }
    };
    tokio::join!(reading, writing);
}
