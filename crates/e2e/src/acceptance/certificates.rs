//! Certificates, revocations and authorities are replaced under load on three members, for clients
//! and among themselves: no request fails on a connection that stands, and new connections go by
//! the new files within five seconds, on every member and on both ports.
//!
//! Go's etcd reads its authorities once, and is left alone with that part.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use api::pb::etcdserverpb::PutRequest;
use client::{Client, Config, TlsConfig};
use tokio::task::JoinHandle;

use crate::curl::curl;
use crate::kv::{Kv, said};
use crate::machine::check_tools;
use crate::pki::{Leaf, Pki};
use crate::{Error, Member, Options, free_address};

use super::fleet::Plan;

/// How long a changed file may take to have its effect.
const LIMIT: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(50);
/// Longest wait for one put, and for the load to go on.
const PUT_LIMIT: Duration = Duration::from_secs(10);

/// Replaces everything that can be replaced.
///
/// # Errors
/// The first thing that is wrong, or a command that is missing.
pub async fn run(plan: &Plan) -> Result<(), Error> {
    check_tools(&["openssl", "curl"])?;
    let (old, new) = (Pki::new()?, Pki::new()?);
    let mut site = Site::start(plan, &old)?;
    let mut people = People::make(&old, &new)?;
    let loads = site.load(&people.user).await?;
    go_on(&loads).await?;

    site.replace_leaf(&old, "server-2", "server")?;
    site.all("the second certificate is shown to clients", || {
        site.clients_see("CN=server-2")
    })?;
    site.replace_leaf(&old, "peer-2", "peer")?;
    site.all("the second certificate is shown to members", || {
        site.peers_see("CN=peer-2")
    })?;
    site.check("before its revocation one gets in", || {
        site.both(&people.mallory, true)
    })?;
    old.revoke(Some("mallory"))?;
    site.all("after it, nowhere", || site.both(&people.mallory, false))?;
    site.check("others do", || site.both(&people.user, true))?;
    go_on(&loads).await?;

    if crate::is_ours(&plan.binary)? {
        replace_authority(&mut site, &old, &new, &people)?;
        people.user = people.successor;
        go_on(&loads).await?;
    } else {
        println!("left out: authorities, which Go's etcd reads once");
    }
    let mut done = 0;
    for load in loads {
        done += load.end().await?;
    }
    println!("{done} puts over three connections, none failed");
    // Members that start meet each other with what is there now.
    for at in 0..3 {
        site.members[at].stop()?;
        site.members[at].restart()?;
        site.replicates(at).await?;
    }
    site.check("after restarts as before", || site.both(&people.user, true))
}

/// From one authority to another in etcd's order: trust both, show the new, trust the new.
fn replace_authority(site: &mut Site, old: &Pki, new: &Pki, people: &People) -> Result<(), Error> {
    let chain = |pki: &Pki| fs::read_to_string(pki.path("chain.pem"));
    site.check("the new authority is unknown", || {
        site.both(&people.successor, false)
    })?;
    site.write("bundle.pem", &(chain(old)? + &chain(new)?))?;
    site.all("both authorities are trusted", || {
        site.both(&people.successor, true) && site.both(&people.user, true)
    })?;
    site.replace_leaf(new, "server-3", "server")?;
    site.replace_leaf(new, "peer-3", "peer")?;
    site.authority = new.path("chain.pem");
    site.all("certificates of the new one are shown", || {
        site.clients_see("CN=server-3") && site.peers_see("CN=peer-3")
    })?;
    site.write("bundle.pem", &chain(new)?)?;
    site.all("the old one is refused", || site.both(&people.user, false))?;
    site.check("the new one is not", || site.both(&people.successor, true))
}

/// Who comes to the ports.
struct People {
    user: Leaf,
    mallory: Leaf,
    /// Of the new authority.
    successor: Leaf,
}

impl People {
    fn make(old: &Pki, new: &Pki) -> Result<People, Error> {
        Ok(People {
            user: old.leaf("user", "peer")?,
            mallory: old.leaf("mallory", "peer")?,
            successor: new.leaf("successor", "peer")?,
        })
    }
}

/// Three members that use the same files, in the directory of the old authority.
struct Site {
    members: Vec<Member>,
    /// Where clients come by TLS.
    secure: Vec<SocketAddr>,
    peers: Vec<SocketAddr>,
    directory: PathBuf,
    /// What members are recognized by.
    authority: PathBuf,
}

impl Site {
    fn start(plan: &Plan, pki: &Pki) -> Result<Site, Error> {
        pki.leaf("server", "server")?;
        pki.leaf("peer", "peer")?;
        pki.revoke(None)?;
        fs::copy(pki.path("chain.pem"), pki.path("bundle.pem"))?;
        let addresses = || {
            (0..3)
                .map(|_| free_address())
                .collect::<Result<Vec<_>, _>>()
        };
        let (secure, peers) = (addresses()?, addresses()?);
        let url = |peer: &SocketAddr| format!("https://localhost:{}", peer.port());
        let listed = peers
            .iter()
            .zip(0..)
            .map(|(peer, at)| format!("m{at}={}", url(peer)));
        let listed = listed.collect::<Vec<_>>().join(",");
        let mut members = Vec::new();
        for (at, (client, peer)) in secure.iter().zip(&peers).enumerate() {
            let mut flags = vec![
                format!("--name=m{at}"),
                format!("--listen-client-urls=http://{{client}},https://{client}"),
                format!("--listen-peer-urls=https://{peer}"),
                format!("--initial-advertise-peer-urls={}", url(peer)),
                format!("--initial-cluster={listed}"),
                "--client-cert-auth".into(),
                "--peer-client-cert-auth".into(),
            ];
            let files = [
                ("trusted-ca-file", "bundle.pem"),
                ("cert-file", "server.pem"),
                ("key-file", "server-key.pem"),
                ("client-crl-file", "crl.der"),
                ("peer-trusted-ca-file", "bundle.pem"),
                ("peer-cert-file", "peer.pem"),
                ("peer-key-file", "peer-key.pem"),
                ("peer-crl-file", "crl.der"),
            ];
            let file = |(flag, name)| format!("--{flag}={}", pki.path(name).display());
            flags.extend(files.map(file));
            let options = Options {
                binary: Some(plan.binary.clone()),
                flags,
                ..Options::default()
            };
            let mut member = Member::prepare(options)?;
            member.spawn()?;
            members.push(member);
        }
        for member in &mut members {
            member.wait_until_healthy()?;
        }
        Ok(Site {
            members,
            secure,
            peers,
            directory: pki.path(""),
            authority: pki.path("chain.pem"),
        })
    }

    /// Puts a file in place at once, as tools that renew certificates do.
    fn write(&self, name: &str, text: &str) -> Result<(), Error> {
        let beside = self.directory.join(format!("{name}.new"));
        fs::write(&beside, text)?;
        Ok(fs::rename(&beside, self.directory.join(name))?)
    }

    /// The members' certificate for a kind of port becomes another one.
    fn replace_leaf(&self, by: &Pki, name: &str, kind: &str) -> Result<(), Error> {
        let leaf = by.leaf(name, kind)?;
        self.write(
            &format!("{kind}.pem"),
            &fs::read_to_string(leaf.certificate)?,
        )?;
        self.write(&format!("{kind}-key.pem"), &fs::read_to_string(leaf.key)?)
    }

    fn curl(&self, leaf: &Leaf, port: &SocketAddr, path: &str) -> crate::curl::Curled {
        let url = format!("https://localhost:{}/{path}", port.port());
        // Without ALPN: etcd's own peer port chooses h2 and does not speak it.
        curl(&self.authority, Some(leaf), &["--no-alpn", &url])
    }

    /// Whether somebody gets in on both ports of every member, or on none.
    fn both(&self, leaf: &Leaf, wanted: bool) -> bool {
        let clients = self
            .secure
            .iter()
            .map(|port| self.curl(leaf, port, "health"));
        let peers = self
            .peers
            .iter()
            .map(|port| self.curl(leaf, port, "version"));
        clients.chain(peers).all(|curled| {
            let served = curled.text.contains("\"true\"") || curled.text.contains("etcdserver");
            curled.done == wanted && served == wanted
        })
    }

    /// Whether every member shows a certificate with these words, to somebody whom it may refuse.
    fn shows(&self, ports: &[SocketAddr], words: &str) -> bool {
        let leaf = Leaf {
            certificate: self.directory.join("user.pem"),
            key: self.directory.join("user-key.pem"),
        };
        ports
            .iter()
            .all(|port| self.curl(&leaf, port, "version").talk.contains(words))
    }

    fn clients_see(&self, words: &str) -> bool {
        self.shows(&self.secure, words)
    }

    fn peers_see(&self, words: &str) -> bool {
        self.shows(&self.peers, words)
    }

    /// Waits until something holds on all members, and tells how long it took.
    fn all(&self, what: &str, holds: impl Fn() -> bool) -> Result<(), Error> {
        let begin = Instant::now();
        while !holds() {
            if begin.elapsed() > LIMIT {
                let logs: Vec<String> = self.members.iter().map(Member::log).collect();
                return Err(Error(format!(
                    "{what}: not in {LIMIT:?}\n{}",
                    logs.join("\n")
                )));
            }
            std::thread::sleep(PAUSE);
        }
        println!("{what}: after {} ms", begin.elapsed().as_millis());
        Ok(())
    }

    fn check(&self, what: &str, holds: impl Fn() -> bool) -> Result<(), Error> {
        match holds() {
            true => Ok(()),
            false => Err(Error(format!("it does not hold that {what}"))),
        }
    }

    /// Begins to put through every member, over one connection each.
    async fn load(&self, leaf: &Leaf) -> Result<Vec<Load>, Error> {
        let mut loads = Vec::new();
        for (port, at) in self.secure.iter().zip(0..) {
            loads.push(Load::start(port.port(), &self.authority, leaf, at).await?);
        }
        Ok(loads)
    }

    /// What is put at one member is read at each.
    async fn replicates(&self, at: usize) -> Result<(), Error> {
        let key = format!("/replicated/{at}");
        let to = Kv::to(self.members[at].address());
        let revision = to.put(key.into(), "v".into()).await.map_err(said)?;
        for member in &self.members {
            let seen = Kv::to(member.address())
                .revision(false)
                .await
                .map_err(said)?;
            if seen < revision {
                return Err(Error(format!(
                    "{seen} is read after {revision} was written"
                )));
            }
        }
        Ok(())
    }
}

/// Puts over one connection until told to stop, or until one fails.
struct Load {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
    task: JoinHandle<Result<(), Error>>,
}

impl Load {
    async fn start(port: u16, authority: &Path, leaf: &Leaf, number: usize) -> Result<Load, Error> {
        let mut config = Config::new(vec![format!("https://localhost:{port}")]);
        config.tls = Some(TlsConfig {
            ca_file: Some(authority.to_owned()),
            identity: Some((leaf.certificate.clone(), leaf.key.clone())),
            ..TlsConfig::default()
        });
        let failed =
            move |error: client::Error| Error(format!("a request of load {number}: {error}"));
        let client = Client::connect(config).await.map_err(failed)?;
        let (stop, done) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicU64::new(0)),
        );
        let (stopped, counted) = (Arc::clone(&stop), Arc::clone(&done));
        let task = tokio::spawn(async move {
            while !stopped.load(Ordering::Relaxed) {
                let request = PutRequest {
                    key: format!("/load/{number}").into(),
                    value: "v".into(),
                    ..PutRequest::default()
                };
                let deadline = tokio::time::Instant::now() + PUT_LIMIT;
                let put = client.clone().with_deadline(deadline).put(request).await;
                put.map_err(failed)?;
                counted.fetch_add(1, Ordering::Relaxed);
            }
            Ok(())
        });
        Ok(Load { stop, done, task })
    }

    /// Ends it; returns how many puts it did.
    async fn end(self) -> Result<u64, Error> {
        self.stop.store(true, Ordering::Relaxed);
        self.task
            .await
            .map_err(|error| Error(format!("a load: {error}")))??;
        Ok(self.done.load(Ordering::Relaxed))
    }
}

/// Waits until each has put some more.
async fn go_on(loads: &[Load]) -> Result<(), Error> {
    let deadline = Instant::now() + PUT_LIMIT;
    for load in loads {
        let before = load.done.load(Ordering::Relaxed);
        while load.done.load(Ordering::Relaxed) < before + 10 {
            if Instant::now() > deadline || load.task.is_finished() {
                return Err(Error("a load does not go on".into()));
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
    Ok(())
}
