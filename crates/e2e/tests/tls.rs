//! TLS on real members: who gets in, and what changes while they serve. Needs the commands
//! `openssl` and `curl`.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::fs;
use std::net::SocketAddr;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use api::pb::etcdserverpb::{PutRequest, RangeRequest};
use bytes::Bytes;
use client::{Client, Config, TlsConfig};
use e2e::curl::{Curled, curl};
use e2e::pki::{Leaf, Pki};
use e2e::{Member, Options, free_address, http};

const LIMIT: Duration = Duration::from_secs(30);
/// How long a changed file may take to have its effect.
const RELOAD_LIMIT: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(50);

fn assert_healthy(curled: &Curled, version: &str) {
    let want = format!(" 200 {version}");
    let healthy = curled.done && curled.text.contains("\"true\"") && curled.text.ends_with(&want);
    assert!(healthy, "{curled:?}");
}

/// Waits until `holds`, for the time that a changed file may take.
fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + RELOAD_LIMIT;
    while !holds() {
        assert!(
            Instant::now() < deadline,
            "{what}: not within {RELOAD_LIMIT:?}"
        );
        std::thread::sleep(PAUSE);
    }
}

/// A client over TLS of a member at a port of `localhost`.
async fn client(port: u16, authority: &Path, leaf: &Leaf) -> Client {
    let mut config = Config::new(vec![format!("https://localhost:{port}")]);
    config.tls = Some(TlsConfig {
        ca_file: Some(authority.to_owned()),
        identity: Some((leaf.certificate.clone(), leaf.key.clone())),
        ..TlsConfig::default()
    });
    Client::connect(config)
        .await
        .expect("a usable configuration")
}

async fn put(client: &Client, value: &str) -> Result<(), client::Error> {
    let request = PutRequest {
        key: Bytes::from_static(b"k"),
        value: value.to_owned().into(),
        ..PutRequest::default()
    };
    let deadline = tokio::time::Instant::now() + LIMIT;
    client
        .clone()
        .with_deadline(deadline)
        .put(request)
        .await
        .map(|_| ())
}

async fn get(client: &Client) -> Result<Bytes, client::Error> {
    let request = RangeRequest {
        key: Bytes::from_static(b"k"),
        ..RangeRequest::default()
    };
    let answer = client.range(request).await?;
    Ok(answer
        .kvs
        .first()
        .map(|kv| kv.value.clone())
        .unwrap_or_default())
}

/// The first deployment's flags for the client side; a plain port beside it tells of health.
fn flags(pki: &Pki, leaf: &Leaf, secure: SocketAddr) -> Vec<String> {
    vec![
        format!("--listen-client-urls=http://{{client}},https://{secure}"),
        "--client-cert-auth".into(),
        format!("--trusted-ca-file={}", pki.path("chain.pem").display()),
        format!("--cert-file={}", leaf.certificate.display()),
        format!("--key-file={}", leaf.key.display()),
    ]
}

fn start(flags: Vec<String>) -> Member {
    let options = Options {
        flags,
        ..Options::default()
    };
    Member::start(options).expect("a healthy member")
}

/// Whether the binary under test is ours.
fn is_ours() -> bool {
    let binary = e2e::binary().expect("a binary");
    e2e::is_ours(&binary).expect("it runs")
}

/// Why some tests cannot pass on Go's etcd.
const READ_ONCE: &str =
    "Go's etcd reads its authorities once: leave this test out (--skip authorit)";

#[tokio::test(flavor = "multi_thread")]
async fn who_gets_in() {
    let (pki, other) = (Pki::new().unwrap(), Pki::new().unwrap());
    let server = pki.leaf("server", "server").unwrap();
    let (user, peer) = (
        pki.leaf("user", "user").unwrap(),
        pki.leaf("peer", "peer").unwrap(),
    );
    let revoked = pki.leaf("revoked", "user").unwrap();
    let stranger = other.leaf("stranger", "user").unwrap();
    pki.revoke(Some("revoked")).unwrap();
    let secure = free_address().unwrap();
    let mut all = flags(&pki, &server, secure);
    all.push(format!(
        "--client-crl-file={}",
        pki.path("crl.der").display()
    ));
    let _member = start(all);
    let url = format!("https://localhost:{}/health", secure.port());
    let authority = pki.path("chain.pem");
    for leaf in [&user, &peer] {
        assert_healthy(&curl(&authority, Some(leaf), &[&url]), "2");
        assert_healthy(&curl(&authority, Some(leaf), &["--http1.1", &url]), "1.1");
        assert_healthy(
            &curl(&authority, Some(leaf), &["--tls-max", "1.2", &url]),
            "2",
        );
    }
    let refused = [None, Some(&stranger), Some(&revoked), Some(&server)];
    for leaf in refused {
        for version in ["1.2", "1.3"] {
            let curled = curl(&authority, leaf, &["--tls-max", version, &url]);
            assert!(
                !curled.done && curled.text.ends_with(" 000 0"),
                "{leaf:?}: {curled:?}"
            );
        }
    }
    // What the member serves over TLS is what it serves elsewhere.
    let client = client(secure.port(), &authority, &user).await;
    put(&client, "v").await.unwrap();
    assert_eq!(get(&client).await.unwrap(), "v");
    let large = "x".repeat(1 << 20);
    put(&client, &large).await.unwrap();
    assert_eq!(get(&client).await.unwrap(), large);
    let unknown = curl(
        &authority,
        Some(&user),
        &[&url.replace("health", "nowhere")],
    );
    assert_eq!(unknown.text, "404 page not found\n 404 2");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_port_for_both() {
    let pki = Pki::new().unwrap();
    let server = pki.leaf("server", "server").unwrap();
    let user = pki.leaf("user", "user").unwrap();
    let mut all = flags(&pki, &server, SocketAddr::from(([127, 0, 0, 1], 1)));
    all[0] = "--listen-client-urls=http://{client},https://{client}".into();
    let member = start(all);
    let authority = pki.path("chain.pem");
    let port = member.address().port();
    let url = format!("https://localhost:{port}/health");
    assert_healthy(&curl(&authority, Some(&user), &[&url]), "2");
    assert!(!curl(&authority, None, &[&url]).done);
    let client = client(port, &authority, &user).await;
    put(&client, "secure").await.unwrap();
    let plain = Client::connect(Config::new(vec![format!("http://localhost:{port}")]));
    assert_eq!(get(&plain.await.unwrap()).await.unwrap(), "secure");
}

/// Puts over one connection until told to stop.
struct Load {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
    task: tokio::task::JoinHandle<Result<(), String>>,
}

impl Load {
    fn start(client: Client) -> Load {
        let (stop, done) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicU64::new(0)),
        );
        let (stopped, counted) = (Arc::clone(&stop), Arc::clone(&done));
        let task = tokio::spawn(async move {
            while !stopped.load(Ordering::Relaxed) {
                put(&client, "v").await.map_err(|error| error.to_string())?;
                counted.fetch_add(1, Ordering::Relaxed);
            }
            Ok(())
        });
        Load { stop, done, task }
    }

    /// Waits until more was put.
    fn go_on(&self) {
        let before = self.done.load(Ordering::Relaxed);
        wait_until("the load goes on", || {
            self.done.load(Ordering::Relaxed) > before + 10
        });
    }

    async fn end(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.task
            .await
            .expect("no panic")
            .expect("no failed request");
    }
}

fn replace(from: &Path, to: &Path) {
    // As tools that renew certificates do: the new file takes the old one's place at once.
    let beside = to.with_extension("new");
    fs::copy(from, &beside).unwrap();
    fs::rename(&beside, to).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_and_revocations_change_under_load() {
    let pki = Pki::new().unwrap();
    let server = pki.leaf("before", "server").unwrap();
    let after = pki.leaf("after", "server").unwrap();
    let user = pki.leaf("user", "user").unwrap();
    let mallory = pki.leaf("mallory", "user").unwrap();
    pki.revoke(None).unwrap();
    let secure = free_address().unwrap();
    let mut all = flags(&pki, &server, secure);
    all.push(format!(
        "--client-crl-file={}",
        pki.path("crl.der").display()
    ));
    let _member = start(all);
    let authority = pki.path("chain.pem");
    let load = Load::start(client(secure.port(), &authority, &user).await);
    load.go_on();
    let url = format!("https://localhost:{}/health", secure.port());
    let seen = curl(&authority, Some(&mallory), &[&url]);
    assert_healthy(&seen, "2");
    assert!(seen.talk.contains("CN=before"), "{seen:?}");
    replace(&after.certificate, &server.certificate);
    replace(&after.key, &server.key);
    wait_until("the new certificate is shown", || {
        curl(&authority, Some(&user), &[&url])
            .talk
            .contains("CN=after")
    });
    pki.revoke(Some("mallory")).unwrap();
    wait_until("the revoked one is refused", || {
        !curl(&authority, Some(&mallory), &[&url]).done
    });
    assert_healthy(&curl(&authority, Some(&user), &[&url]), "2");
    load.go_on();
    load.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn authorities_change_under_load() {
    assert!(is_ours(), "{READ_ONCE}");
    let (old, new) = (Pki::new().unwrap(), Pki::new().unwrap());
    let server = old.leaf("server", "server").unwrap();
    let (of_old, of_new) = (
        old.leaf("old", "user").unwrap(),
        new.leaf("new", "user").unwrap(),
    );
    let secure = free_address().unwrap();
    let mut all = flags(&old, &server, secure);
    let bundle = old.path("bundle.pem");
    replace(&old.path("chain.pem"), &bundle);
    all.push(format!("--trusted-ca-file={}", bundle.display()));
    let member = start(all);
    let authority = old.path("chain.pem");
    let load = Load::start(client(secure.port(), &authority, &of_old).await);
    load.go_on();
    let url = format!("https://localhost:{}/health", secure.port());
    let gets_in = |leaf: &Leaf| curl(&authority, Some(leaf), &[&url]).done;
    assert!(gets_in(&of_old) && !gets_in(&of_new));
    // What cannot be used changes nothing.
    fs::write(&bundle, "not a certificate").unwrap();
    let complaint = "cannot use changed TLS files; going on with the old ones";
    wait_until("the bad file is named", || member.log().contains(complaint));
    assert!(gets_in(&of_old) && !gets_in(&of_new));
    replace(&new.path("chain.pem"), &bundle);
    wait_until("the new authority is trusted", || gets_in(&of_new));
    assert!(!gets_in(&of_old));
    load.go_on();
    load.end().await;
}

#[test]
fn certificates_made_at_start() {
    let secure = free_address().unwrap();
    let mut member = start(vec![
        format!("--listen-client-urls=http://{{client}},https://{secure}"),
        "--auto-tls".into(),
    ]);
    let url = format!("https://127.0.0.1:{}/health", secure.port());
    let fixtures = member.data_dir().join("fixtures").join("client");
    let made = fs::read(fixtures.join("cert.pem")).unwrap();
    // Whoever has the file can verify the member by it.
    assert_healthy(&curl(&fixtures.join("cert.pem"), None, &[&url]), "2");
    member.stop().unwrap();
    member.restart().unwrap();
    assert_eq!(fs::read(fixtures.join("cert.pem")).unwrap(), made);
    assert_healthy(&curl(&fixtures.join("cert.pem"), None, &[&url]), "2");
}

#[test]
fn metrics_behind_tls() {
    let pki = Pki::new().unwrap();
    let server = pki.leaf("server", "server").unwrap();
    let (user, peer) = (
        pki.leaf("user", "user").unwrap(),
        pki.leaf("peer", "peer").unwrap(),
    );
    let (secure, metrics) = (free_address().unwrap(), free_address().unwrap());
    let mut all = flags(&pki, &server, secure);
    all.push(format!("--listen-metrics-urls=https://{metrics}"));
    let _member = start(all);
    let authority = pki.path("chain.pem");
    let url = format!("https://localhost:{}/metrics", metrics.port());
    // The peer's certificate names this address; the user's names none.
    for leaf in [&peer, &user] {
        let curled = curl(&authority, Some(leaf), &[&url]);
        assert!(
            curled.done && curled.text.contains("etcd_server_has_leader 1"),
            "{curled:?}"
        );
    }
    assert!(!curl(&authority, None, &[&url]).done);
}

#[test]
fn systemd_hears_of_readiness() {
    let name = format!("etcd-e2e-{}-ready", std::process::id());
    let address = std::os::unix::net::SocketAddr::from_abstract_name(&name).unwrap();
    let socket = UnixDatagram::bind_addr(&address).unwrap();
    socket.set_read_timeout(Some(LIMIT)).unwrap();
    let mut member = Member::prepare(Options {
        wrapper: vec!["env".into(), format!("NOTIFY_SOCKET=@{name}")],
        ..Options::default()
    })
    .unwrap();
    member.spawn().unwrap();
    let mut message = [0; 64];
    let length = socket.recv(&mut message).expect("a message in time");
    assert_eq!(&message[..length], b"READY=1");
    let answer = http::get(member.address(), "/health").expect("it serves");
    assert!(answer.body.contains("\"true\""), "{answer:?}");
}

/// Three members whose connections among themselves are behind TLS.
struct Cluster {
    members: Vec<Member>,
    peers: Vec<SocketAddr>,
}

impl Cluster {
    fn start(flags: &[String]) -> Cluster {
        let peers: Vec<SocketAddr> = (0..3).map(|_| free_address().unwrap()).collect();
        let urls = peers.iter().zip(1..);
        let urls: Vec<String> = urls
            .map(|(peer, number)| format!("m{number}=https://localhost:{}", peer.port()))
            .collect();
        let members = peers.iter().zip(1..).map(|(peer, number)| {
            let mut all = vec![
                format!("--name=m{number}"),
                format!("--listen-peer-urls=https://{peer}"),
                format!(
                    "--initial-advertise-peer-urls=https://localhost:{}",
                    peer.port()
                ),
                format!("--initial-cluster={}", urls.join(",")),
            ];
            all.extend_from_slice(flags);
            let options = Options {
                flags: all,
                ..Options::default()
            };
            let mut member = Member::prepare(options).unwrap();
            member.spawn().unwrap();
            member
        });
        let members: Vec<Member> = members.collect();
        let deadline = Instant::now() + LIMIT;
        for member in &members {
            let is_healthy = || {
                let answer = http::get(member.address(), "/health");
                answer.is_ok_and(|answer| answer.body.contains("\"true\""))
            };
            while !is_healthy() {
                assert!(Instant::now() < deadline, "no cluster:\n{}", member.log());
                std::thread::sleep(PAUSE);
            }
        }
        Cluster { members, peers }
    }

    /// What was put at one member is read at each.
    async fn assert_replicates(&self) {
        for member in &self.members {
            let url = |member: &Member| vec![format!("http://{}", member.address())];
            let client = Client::connect(Config::new(url(member))).await.unwrap();
            let value = member.address().to_string();
            put(&client, &value).await.unwrap();
            for member in &self.members {
                let client = Client::connect(Config::new(url(member))).await.unwrap();
                assert_eq!(get(&client).await.unwrap(), value);
            }
        }
    }
}

fn peer_flags(pki: &Pki, leaf: &Leaf) -> Vec<String> {
    vec![
        "--peer-client-cert-auth".into(),
        format!("--peer-trusted-ca-file={}", pki.path("chain.pem").display()),
        format!("--peer-cert-file={}", leaf.certificate.display()),
        format!("--peer-key-file={}", leaf.key.display()),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn members_by_their_certificates() {
    let (pki, other) = (Pki::new().unwrap(), Pki::new().unwrap());
    let peer = pki.leaf("peer", "peer").unwrap();
    let (revoked, user) = (
        pki.leaf("revoked", "peer").unwrap(),
        pki.leaf("user", "user").unwrap(),
    );
    let stranger = other.leaf("stranger", "peer").unwrap();
    pki.revoke(Some("revoked")).unwrap();
    let mut all = peer_flags(&pki, &peer);
    all.push(format!("--peer-crl-file={}", pki.path("crl.der").display()));
    all.push("--peer-cert-allowed-cn=peer,revoked".into());
    let cluster = Cluster::start(&all);
    cluster.assert_replicates().await;
    let authority = pki.path("chain.pem");
    let url = format!("https://localhost:{}/version", cluster.peers[0].port());
    // Not h2: etcd's own listener chooses it and then does not speak it.
    let ask = |leaf: Option<&Leaf>| curl(&authority, leaf, &["--no-alpn", &url]);
    let seen = ask(Some(&peer));
    assert!(seen.done && seen.text.contains("etcdserver"), "{seen:?}");
    for leaf in [None, Some(&stranger), Some(&revoked), Some(&user)] {
        let seen = ask(leaf);
        assert!(!seen.done, "{leaf:?}: {seen:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn members_change_their_authority_under_load() {
    assert!(is_ours(), "{READ_ONCE}");
    let (old, new) = (Pki::new().unwrap(), Pki::new().unwrap());
    let peer = old.leaf("peer", "peer").unwrap();
    let (of_old, of_new) = (
        old.leaf("old", "peer").unwrap(),
        new.leaf("new", "peer").unwrap(),
    );
    let bundle = old.path("bundle.pem");
    replace(&old.path("chain.pem"), &bundle);
    let mut all = peer_flags(&old, &peer);
    all.push(format!("--peer-trusted-ca-file={}", bundle.display()));
    let mut cluster = Cluster::start(&all);
    let plain = format!("http://{}", cluster.members[0].address());
    let load = Load::start(Client::connect(Config::new(vec![plain])).await.unwrap());
    load.go_on();
    let ports: Vec<u16> = cluster.peers.iter().map(SocketAddr::port).collect();
    // Whether every member lets somebody in, or every member does not.
    let all_let_in = |leaf: &Leaf, authority: &Path, want: bool| {
        let mut ports = ports.iter();
        ports.all(|port| {
            let url = format!("https://localhost:{port}/version");
            curl(authority, Some(leaf), &["--no-alpn", &url]).done == want
        })
    };
    let (by_old, by_new) = (old.path("chain.pem"), new.path("chain.pem"));
    // First both are trusted, then everybody shows a certificate of the new one, then it alone
    // is trusted.
    let chain = |pki: &Pki| fs::read_to_string(pki.path("chain.pem")).unwrap();
    fs::write(old.path("both.pem"), chain(&old) + &chain(&new)).unwrap();
    replace(&old.path("both.pem"), &bundle);
    wait_until("both are trusted", || all_let_in(&of_new, &by_old, true));
    replace(&of_new.certificate, &peer.certificate);
    replace(&of_new.key, &peer.key);
    wait_until("the new ones are shown", || {
        all_let_in(&of_old, &by_new, true)
    });
    replace(&by_new, &bundle);
    wait_until("the old one is not trusted", || {
        all_let_in(&of_old, &by_new, false)
    });
    assert!(all_let_in(&of_new, &by_new, true));
    load.go_on();
    load.end().await;
    // Connections that stand went on; these are made anew.
    for member in &mut cluster.members {
        member.restart().unwrap();
    }
    cluster.assert_replicates().await;
    assert!(all_let_in(&of_new, &by_new, true) && all_let_in(&of_old, &by_new, false));
}

#[tokio::test(flavor = "multi_thread")]
async fn members_with_certificates_made_at_start() {
    let cluster = Cluster::start(&["--peer-auto-tls".into()]);
    cluster.assert_replicates().await;
}
