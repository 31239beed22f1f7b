//! `etcd gateway start`: connections are passed on, endpoints that fail are left out and taken back.

use std::io::Read;
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use e2e::kv::Kv;
use e2e::{Member, Options, binary, free_address};

const LIMIT: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(20);

/// A gateway that is killed by its id when dropped.
struct Gateway {
    child: Child,
    address: SocketAddr,
}

impl Gateway {
    fn start(address: SocketAddr, endpoints: &str, output: Stdio) -> Self {
        let child = Command::new(binary().expect("a binary"))
            .args(["gateway", "start", "--retry-delay=100ms"])
            .arg(format!("--listen-addr={address}"))
            .arg(format!("--endpoints={endpoints}"))
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(Stdio::null())
            .spawn()
            .expect("the gateway starts");
        Gateway { child, address }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        // Both fail only when it has already gone.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Puts through the gateway, over a connection of its own, until it is acknowledged.
async fn put(gateway: &Gateway, key: &str) -> i64 {
    let deadline = Instant::now() + LIMIT;
    loop {
        let kv = Kv::to(gateway.address);
        let put = kv.put(key.to_owned().into(), "1".into());
        // One that is refused left nothing behind, one that waits may have been done already.
        match tokio::time::timeout(LIMIT, put).await {
            Ok(Ok(revision)) => return revision,
            Ok(Err(_)) if Instant::now() < deadline => tokio::time::sleep(PAUSE).await,
            came => panic!("{key}: {came:?}"),
        }
    }
}

#[tokio::test]
async fn connections_go_to_the_endpoint_that_takes_them() {
    let mut member = Member::start(Options::default()).expect("a member starts");
    let nobody = free_address().expect("a free port");
    let endpoints = format!("http://{nobody},{}", member.address());
    let address = free_address().expect("a free port");
    let gateway = Gateway::start(address, &endpoints, Stdio::null());
    for n in 0..4 {
        assert_eq!(put(&gateway, &format!("k{n}")).await, n + 2);
    }
    member.kill().expect("it runs");
    let gone = Kv::to(gateway.address).put("lost".into(), "1".into()).await;
    assert!(gone.is_err(), "{gone:?}");
    member.restart().expect("it starts again");
    assert_eq!(put(&gateway, "after").await, 6);
}

#[test]
fn a_gateway_is_no_endpoint_of_its_own() {
    let address = free_address().expect("a free port");
    let mut gateway = Gateway::start(address, &address.to_string(), Stdio::piped());
    let deadline = Instant::now() + LIMIT;
    let status = loop {
        if let Some(status) = gateway.child.try_wait().expect("a status") {
            break status;
        }
        assert!(Instant::now() < deadline, "it takes itself as an endpoint");
        std::thread::sleep(PAUSE);
    };
    let mut output = gateway.child.stdout.take().expect("a pipe");
    let mut text = String::new();
    output.read_to_string(&mut text).expect("what it said");
    assert_eq!(status.code(), Some(1), "{text}");
    assert!(
        text.contains("should not resolve to the gateway listen addr"),
        "{text}"
    );
}
