//! One member, from start to end of a scenario.

use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long a member may take to come up.
const START_WAIT: Duration = Duration::from_secs(20);

/// How long to wait before a condition is looked at again.
const POLL_WAIT: Duration = Duration::from_millis(20);

/// Ports for clients and peers.
#[derive(Clone, Copy)]
pub(crate) struct Ports {
    pub(crate) client: u16,
    pub(crate) peer: u16,
}

/// Two ports that nobody listened on a moment ago.
pub(crate) fn free_ports() -> Ports {
    let listeners = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    let [client, peer] = listeners.map(|listener| listener.local_addr().unwrap().port());
    Ports { client, peer }
}

/// A running member; killed when dropped.
pub(crate) struct Member {
    process: Child,
}

impl Member {
    pub(crate) fn start(server: &Path, directory: &Path, ports: Ports) -> Self {
        let client = format!("http://127.0.0.1:{}", ports.client);
        let peer = format!("http://127.0.0.1:{}", ports.peer);
        let log = std::fs::File::create(directory.join("server.log")).unwrap();
        let process = Command::new(server)
            .args(["--name", "s1", "--log-level", "error", "--data-dir"])
            .arg(directory.join("data"))
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
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut member = Member { process };
        let listens = wait_until(START_WAIT, || {
            assert!(
                member.process.try_wait().unwrap().is_none(),
                "the server ended"
            );
            TcpStream::connect(("127.0.0.1", ports.client)).is_ok()
        });
        assert!(listens, "the server does not listen");
        member
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _killed = self.process.kill();
        let _ended = self.process.wait();
    }
}

/// Looks at a condition again and again until it holds or the time is over.
pub(crate) fn wait_until(limit: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + limit;
    loop {
        if condition() {
            return true;
        }
        if Instant::now() >= deadline {
            return false;
        }
        std::thread::sleep(POLL_WAIT);
    }
}
