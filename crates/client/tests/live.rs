//! The client against a running server: `ETCD_BIN`, or Go's as `ETCD_REFERENCE`.
//!
//! `ETCD_REFERENCE=… cargo test -p client --features live --test live`

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use api::pb::etcdserverpb::{
    LeaseGrantRequest, LeaseRevokeRequest, LeaseTimeToLiveRequest, PutRequest, RangeRequest,
    WatchCreateRequest,
};
use bytes::Bytes;
use client::concurrency::{Leadership, Lock, Session, observe};
use client::{Cancellation, Client, Config, Watcher, prefix_end};

/// How long anything may take that should happen at once.
const WAIT: Duration = Duration::from_secs(30);

/// A member that can be killed and started again.
struct Server {
    program: PathBuf,
    directory: PathBuf,
    client_port: u16,
    peer_port: u16,
    process: Option<Child>,
}

impl Server {
    fn new() -> Self {
        let program = std::env::var_os("ETCD_BIN").or(std::env::var_os("ETCD_REFERENCE"));
        let program = program.expect("ETCD_BIN or ETCD_REFERENCE names a server");
        let ports = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        let [client_port, peer_port] = ports.map(|port| port.local_addr().unwrap().port());
        let name = format!("client-live-{}-{client_port}", std::process::id());
        let directory = std::env::temp_dir().join(name);
        let program = PathBuf::from(program);
        let mut server = Server {
            program,
            directory,
            client_port,
            peer_port,
            process: None,
        };
        server.start();
        server
    }

    fn start(&mut self) {
        let client = self.endpoint();
        let peer = format!("http://127.0.0.1:{}", self.peer_port);
        let process = Command::new(&self.program)
            .args(["--name", "s1", "--log-level", "error", "--data-dir"])
            .arg(&self.directory)
            .args([
                "--listen-client-urls",
                &client,
                "--advertise-client-urls",
                &client,
            ])
            .args([
                "--listen-peer-urls",
                &peer,
                "--initial-advertise-peer-urls",
                &peer,
            ])
            .args(["--initial-cluster", &format!("s1={peer}")])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        self.process = Some(process);
        let deadline = Instant::now() + WAIT;
        while TcpStream::connect(("127.0.0.1", self.client_port)).is_err() {
            assert!(Instant::now() < deadline, "the server does not listen");
            std::thread::yield_now();
        }
    }

    /// SIGKILL: nothing is said to clients.
    fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.client_port)
    }

    async fn client(&self) -> Client {
        Client::connect(Config::new(vec![self.endpoint()]))
            .await
            .unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
        let _removed = std::fs::remove_dir_all(&self.directory);
    }
}

async fn put(client: &Client, key: &str, value: &str) -> i64 {
    let request = PutRequest {
        key: Bytes::from(key.to_owned()),
        value: Bytes::from(value.to_owned()),
        ..PutRequest::default()
    };
    client.put(request).await.unwrap().header.unwrap().revision
}

fn prefix_watch(prefix: &'static str) -> WatchCreateRequest {
    WatchCreateRequest {
        key: Bytes::from_static(prefix.as_bytes()),
        range_end: prefix_end(prefix.as_bytes()),
        ..WatchCreateRequest::default()
    }
}

/// The values of the next events, as many as wanted.
async fn values(watcher: &mut Watcher, count: usize) -> Vec<String> {
    let mut found = Vec::new();
    while found.len() < count {
        let answer = tokio::time::timeout(WAIT, watcher.next())
            .await
            .unwrap()
            .unwrap();
        assert_eq!(answer.cancelled, None);
        let text = |value: Bytes| String::from_utf8(value.to_vec()).unwrap();
        found.extend(
            answer
                .events
                .into_iter()
                .map(|event| text(event.kv.unwrap().value)),
        );
    }
    found
}

#[tokio::test]
async fn a_watch_survives_a_killed_server() {
    let mut server = Server::new();
    let client = server.client().await;
    let watches = client.watches();
    let first = put(&client, "k/0", "0").await;
    let mut from_first = watches.create(WatchCreateRequest {
        start_revision: first,
        ..prefix_watch("k/")
    });
    let mut from_now = watches.create(prefix_watch("k/"));
    assert_eq!(values(&mut from_first, 1).await, ["0"]);
    // The second watch is there when it hears of progress; a question may come too early.
    loop {
        watches.request_progress();
        let answer = tokio::time::timeout(Duration::from_millis(100), from_now.next()).await;
        if answer.is_ok_and(|answer| answer.unwrap().is_progress()) {
            break;
        }
    }
    for round in 1..4 {
        put(&client, "k/1", &format!("{round}a")).await;
        server.kill();
        server.start();
        // The client has to notice that its connection is gone; a read may be repeated.
        let key = Bytes::from_static(b"k/1");
        client
            .range(RangeRequest {
                key,
                ..RangeRequest::default()
            })
            .await
            .unwrap();
        put(&client, "k/2", &format!("{round}b")).await;
        let expected = [format!("{round}a"), format!("{round}b")];
        assert_eq!(values(&mut from_now, 2).await, expected);
    }
    let all = values(&mut from_first, 6).await;
    assert_eq!(all, ["1a", "1b", "2a", "2b", "3a", "3b"]);
}

#[tokio::test]
async fn a_compacted_watch_ends_with_the_reason() {
    let server = Server::new();
    let client = server.client().await;
    let mut last = 0;
    for value in ["1", "2", "3"] {
        last = put(&client, "a", value).await;
    }
    let request = api::pb::etcdserverpb::CompactionRequest {
        revision: last,
        physical: false,
    };
    client.compact(request).await.unwrap();
    let mut watcher = client.watches().create(WatchCreateRequest {
        start_revision: 1,
        ..prefix_watch("a")
    });
    let answer = tokio::time::timeout(WAIT, watcher.next())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(answer.cancelled, Some(Cancellation::Compacted(last)));
    assert!(watcher.next().await.is_none());
}

#[tokio::test]
async fn requests_go_to_the_endpoint_that_answers() {
    let server = Server::new();
    let dead = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let endpoints = vec![format!("http://{dead}"), server.endpoint()];
    let client = Client::connect(Config::new(endpoints)).await.unwrap();
    for value in 0..4 {
        put(&client, "a", &value.to_string()).await;
    }
}

#[tokio::test]
async fn without_a_server_the_deadline_ends_a_request() {
    let dead = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let client = Client::connect(Config::new(vec![dead.to_string()]))
        .await
        .unwrap();
    let client = client.with_deadline(tokio::time::Instant::now() + Duration::from_millis(100));
    let error = client.range(RangeRequest::default()).await.unwrap_err();
    assert!(
        matches!(error, client::Error::Deadline { cause: Some(_) }),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_lease_is_kept_alive_until_it_is_revoked() {
    let server = Server::new();
    let client = server.client().await;
    let lease = client
        .lease_grant(LeaseGrantRequest { ttl: 3, id: 0 })
        .await
        .unwrap()
        .id;
    let mut renewals = client.keep_alive(lease);
    let begin = Instant::now();
    for _ in 0..5 {
        let answer = tokio::time::timeout(WAIT, renewals.next())
            .await
            .unwrap()
            .unwrap();
        assert_eq!(answer.unwrap().ttl, 3);
    }
    // A third of the time to live lies between renewals, so the lease would be gone by now.
    assert!(begin.elapsed() > Duration::from_secs(3));
    let left = client.lease_time_to_live(LeaseTimeToLiveRequest {
        id: lease,
        keys: false,
    });
    assert!(left.await.unwrap().ttl >= 0);
    client
        .lease_revoke(LeaseRevokeRequest { id: lease })
        .await
        .unwrap();
    let last = tokio::time::timeout(WAIT, renewals.next())
        .await
        .unwrap()
        .unwrap();
    assert!(last.is_none());
    assert!(
        client
            .keep_alive_once(lease)
            .await
            .unwrap_err()
            .is(api::Error::LeaseNotFound)
    );
}

#[tokio::test]
async fn a_lock_has_one_owner_at_a_time() {
    let server = Server::new();
    let client = server.client().await;
    let holders = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let mut tasks = Vec::new();
    for _ in 0..5 {
        let (client, holders) = (client.clone(), std::sync::Arc::clone(&holders));
        tasks.push(tokio::spawn(async move {
            let session = Session::new(&client, 10).await.unwrap();
            for _ in 0..3 {
                let lock = Lock::acquire(&session, "lock").await.unwrap();
                let before = holders.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                assert_eq!(before, 0);
                // Others run now.
                put(&client, "held", "x").await;
                holders.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
                lock.release(&session).await.unwrap();
            }
            session.close().await.unwrap();
        }));
    }
    for task in tasks {
        tokio::time::timeout(WAIT, task).await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn an_election_is_handed_on_and_seen() {
    let server = Server::new();
    let client = server.client().await;
    let (sender, mut leaders) = tokio::sync::mpsc::unbounded_channel();
    let observer = client.clone();
    tokio::spawn(async move {
        observe(&observer, "e", |answer| {
            let _sent = sender.send(answer.kvs[0].value.clone());
        })
        .await
    });
    let first = Session::new(&client, 10).await.unwrap();
    let second = Session::new(&client, 10).await.unwrap();
    let leader = Leadership::campaign(&first, "e", Bytes::from_static(b"one"))
        .await
        .unwrap();
    let next = async |leaders: &mut tokio::sync::mpsc::UnboundedReceiver<Bytes>| {
        tokio::time::timeout(WAIT, leaders.recv())
            .await
            .unwrap()
            .unwrap()
    };
    assert_eq!(next(&mut leaders).await, "one");
    leader
        .proclaim(&first, Bytes::from_static(b"one again"))
        .await
        .unwrap();
    assert_eq!(next(&mut leaders).await, "one again");
    let campaign = Leadership::campaign(&second, "e", Bytes::from_static(b"two"));
    let (won, resigned) = tokio::join!(campaign, leader.resign(&first));
    resigned.unwrap();
    assert_eq!(next(&mut leaders).await, "two");
    won.unwrap().resign(&second).await.unwrap();
}
