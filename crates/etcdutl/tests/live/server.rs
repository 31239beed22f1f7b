//! Members of Go's etcd or ours, and what etcdctl says about them.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long a member may take to come up or to end.
const LIMIT: Duration = Duration::from_secs(30);
/// How long to wait before a condition is looked at again.
const POLL: Duration = Duration::from_millis(20);

/// The value of a variable that names a binary.
pub(crate) fn binary(variable: &str) -> PathBuf {
    let value = std::env::var_os(variable);
    value
        .unwrap_or_else(|| panic!("{variable} names no binary"))
        .into()
}

/// What a finished process said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Said {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Runs a program to its end.
pub(crate) fn run(program: &Path, args: &[&str], directory: &Path) -> Said {
    let output = Command::new(program)
        .args(args)
        .current_dir(directory)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    Said {
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Where a member is.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) name: String,
    pub(crate) client: String,
    pub(crate) peer: String,
}

/// Places that nobody listened at a moment ago.
pub(crate) fn places(count: usize) -> Vec<Place> {
    let bound = || TcpListener::bind("127.0.0.1:0").unwrap();
    let listeners: Vec<_> = (0..count).map(|_| (bound(), bound())).collect();
    let url = |listener: &TcpListener| format!("http://{}", listener.local_addr().unwrap());
    listeners
        .iter()
        .enumerate()
        .map(|(index, (client, peer))| Place {
            name: format!("m{index}"),
            client: url(client),
            peer: url(peer),
        })
        .collect()
}

/// `--initial-cluster` of these places.
pub(crate) fn initial_cluster(places: &[Place]) -> String {
    let pairs: Vec<_> = places
        .iter()
        .map(|place| format!("{}={}", place.name, place.peer))
        .collect();
    pairs.join(",")
}

/// A running member; killed when dropped.
pub(crate) struct Member {
    process: Child,
    place: Place,
    log: PathBuf,
}

impl Member {
    pub(crate) fn spawn(binary: &Path, data_dir: &Path, place: &Place, cluster: &str) -> Member {
        let log = data_dir.with_extension("log");
        let output = std::fs::File::create(&log).unwrap();
        let process = Command::new(binary)
            .arg("--data-dir")
            .arg(data_dir)
            .args(["--name", &place.name, "--initial-cluster", cluster])
            .args(["--listen-client-urls", &place.client])
            .args(["--advertise-client-urls", &place.client])
            .args(["--listen-peer-urls", &place.peer])
            .args(["--initial-advertise-peer-urls", &place.peer])
            .stdin(Stdio::null())
            .stdout(output.try_clone().unwrap())
            .stderr(output)
            .spawn()
            .unwrap();
        Member {
            process,
            place: place.clone(),
            log,
        }
    }

    /// Starts a member that is a cluster by itself, and waits for its health.
    pub(crate) fn start(binary: &Path, data_dir: &Path, place: &Place) -> Member {
        let cluster = initial_cluster(std::slice::from_ref(place));
        let mut member = Member::spawn(binary, data_dir, place, &cluster);
        member.wait_until_healthy();
        member
    }

    pub(crate) fn wait_until_healthy(&mut self) {
        let deadline = Instant::now() + LIMIT;
        while self.ask(&["endpoint", "health"]).code != Some(0) {
            let log = || std::fs::read_to_string(&self.log).unwrap();
            let ended = self.process.try_wait().unwrap();
            assert!(ended.is_none(), "the member ended: {}", log());
            assert!(Instant::now() < deadline, "no health: {}", log());
            std::thread::sleep(POLL);
        }
    }

    /// What etcdctl says.
    pub(crate) fn ask(&self, args: &[&str]) -> Said {
        let args = [&["--endpoints", &self.place.client], args].concat();
        run(&binary("ETCDCTL_REFERENCE"), &args, Path::new("/"))
    }

    /// What etcdctl prints; it must succeed.
    pub(crate) fn tell(&self, args: &[&str]) -> String {
        let said = self.ask(args);
        assert_eq!(said.code, Some(0), "{args:?}: {}", said.stderr);
        said.stdout
    }

    /// Ends it as an operator does, so that all is on disk.
    pub(crate) fn stop(mut self) {
        let pid = self.process.id().to_string();
        let said = run(Path::new("/bin/kill"), &["-TERM", &pid], Path::new("/"));
        assert_eq!(said.code, Some(0), "{}", said.stderr);
        let deadline = Instant::now() + LIMIT;
        while self.process.try_wait().unwrap().is_none() {
            assert!(Instant::now() < deadline, "the member does not end");
            std::thread::sleep(POLL);
        }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _killed = self.process.kill();
        let _ended = self.process.wait();
    }
}
