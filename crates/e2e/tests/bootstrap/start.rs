//! Members that are started by hand, and others that only say what a test wants them to say.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use e2e::free_address;

/// Longest wait for the end of a process.
const LIMIT: Duration = Duration::from_secs(40);
const PAUSE: Duration = Duration::from_millis(20);

/// How a first start ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    /// The error of the last line that has one.
    pub(crate) error: String,
    pub(crate) log: String,
}

/// A member that starts for the first time, or does not; killed when dropped.
pub(crate) struct Newcomer {
    /// Where clients connect.
    pub(crate) client: SocketAddr,
    command: Command,
    child: Child,
    dir: tempfile::TempDir,
}

impl Drop for Newcomer {
    fn drop(&mut self) {
        // It is gone already, as a rule.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The URL of a free address.
pub(crate) fn url() -> String {
    format!("http://{}", free_address().expect("a free port"))
}

fn spawn(command: &mut Command, dir: &Path) -> Child {
    let log = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(dir.join("log"));
    let log = log.expect("a log");
    let also = log.try_clone().expect("a second handle");
    command.stdin(Stdio::null()).stdout(also).stderr(log);
    command.spawn().expect("the binary starts")
}

/// The port of a URL.
#[cfg(feature = "dns")]
pub(crate) fn port_of(url: &str) -> u16 {
    let port = url.rsplit(':').next().and_then(|port| port.parse().ok());
    port.expect("the URL has a port")
}

impl Newcomer {
    /// Starts the binary under test as member `x` with the peer URL `own`, for which `{own}` in
    /// `flags` stands.
    pub(crate) fn start(own: &str, flags: &[&str]) -> Newcomer {
        Newcomer::start_within(&[], own, flags)
    }

    /// The same behind words that start it.
    pub(crate) fn start_within(wrapper: &[String], own: &str, flags: &[&str]) -> Newcomer {
        let client = free_address().expect("a free port");
        let dir = tempfile::tempdir().expect("a directory");
        let binary = e2e::binary().expect("a binary");
        let mut command = match wrapper.split_first() {
            None => Command::new(binary),
            Some((program, words)) => {
                let mut command = Command::new(program);
                command.args(words).arg(binary);
                command
            }
        };
        command
            .arg("--name=x")
            .arg(format!("--data-dir={}", dir.path().join("data").display()))
            .arg(format!("--listen-client-urls=http://{client}"))
            .arg(format!("--advertise-client-urls=http://{client}"))
            .arg(format!("--listen-peer-urls={own}"));
        let advertises = |flag: &&str| flag.starts_with("--initial-advertise");
        if !flags.iter().any(advertises) {
            command.arg(format!("--initial-advertise-peer-urls={own}"));
        }
        command.args(flags.iter().map(|flag| flag.replace("{own}", own)));
        let child = spawn(&mut command, dir.path());
        Newcomer {
            client,
            command,
            child,
            dir,
        }
    }

    /// Kills it and starts it again with the same flags.
    pub(crate) fn restart(&mut self) {
        self.child.kill().expect("its own child");
        self.child.wait().expect("its own child");
        self.child = spawn(&mut self.command, self.dir.path());
    }

    /// Waits until it serves clients.
    pub(crate) fn wait_until_healthy(&mut self) {
        let client = self.client;
        self.wait_until("it does not serve", |_| {
            let answer = e2e::http::get(client, "/health");
            answer.is_ok_and(|answer| answer.body.contains("\"true\""))
        });
    }

    /// Waits until its log has a text.
    pub(crate) fn wait_for_line(&mut self, text: &str) {
        self.wait_until(text, |newcomer| newcomer.log().contains(text));
    }

    fn wait_until(&mut self, what: &str, holds: impl Fn(&Newcomer) -> bool) {
        let deadline = Instant::now() + LIMIT;
        while !holds(self) {
            let ended = self.child.try_wait().expect("its own child");
            assert_eq!(ended, None, "it ended:\n{}", self.log());
            assert!(Instant::now() < deadline, "{what}:\n{}", self.log());
            std::thread::sleep(PAUSE);
        }
    }

    pub(crate) fn log(&self) -> String {
        let bytes = std::fs::read(self.dir.path().join("log")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Waits until it has a log of its own: the cluster is decided.
    pub(crate) fn wait_for_wal(&mut self) {
        let wal = "data/member/wal/0000000000000000-0000000000000000.wal";
        self.wait_until("no log", |newcomer| newcomer.dir.path().join(wal).exists());
    }

    /// Waits for its end.
    pub(crate) fn wait(&mut self) -> Ended {
        let deadline = Instant::now() + LIMIT;
        loop {
            if let Some(status) = self.child.try_wait().expect("its own child") {
                let log = self.log();
                return Ended {
                    code: status.code(),
                    error: last_error(&log),
                    log,
                };
            }
            assert!(Instant::now() < deadline, "it still runs:\n{}", self.log());
            std::thread::sleep(PAUSE);
        }
    }
}

fn last_error(log: &str) -> String {
    let lines = log.lines().rev();
    let values = lines.filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let mut errors = values.filter_map(|value| Some(value.get("error")?.as_str()?.to_owned()));
    errors.next().unwrap_or_default()
}

/// Answers of a peer port that nobody is behind.
pub(crate) struct Fake {
    address: SocketAddr,
}

impl Fake {
    /// Answers paths with the bodies that `answers` gives for the URL, and everything else with
    /// 404, until the process ends.
    pub(crate) fn serve(answers: impl FnOnce(&str) -> Vec<(&'static str, String)>) -> Fake {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let answers = Arc::new(answers(&format!("http://{address}")));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let answers = Arc::clone(&answers);
                // Whoever asks sees what went wrong.
                std::thread::spawn(move || drop(answer(stream, &answers)));
            }
        });
        Fake { address }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

fn answer(stream: TcpStream, answers: &[(&str, String)]) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut stream = stream;
    loop {
        let mut first = String::new();
        if reader.read_line(&mut first)? == 0 {
            return Ok(());
        }
        let mut line = String::new();
        while reader.read_line(&mut line)? > 2 {
            line.clear();
        }
        let path = first.split(' ').nth(1).unwrap_or_default();
        let found = answers.iter().find(|(known, _)| *known == path);
        let (status, body) = match found {
            Some((_, body)) => ("200 OK", body.as_str()),
            None => ("404 Not Found", "404 page not found\n"),
        };
        write!(
            stream,
            "HTTP/1.1 {status}\r\nX-Etcd-Cluster-Id: 99\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )?;
    }
}
