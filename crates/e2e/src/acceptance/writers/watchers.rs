//! Three watchers of the same prefix: our client over gRPC, an `etcdctl watch`, and curl.
//!
//! The first resumes by itself. The other two are processes; one that ends is started again from
//! the revision after the last that it printed, as its user would.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use api::pb::etcdserverpb::WatchCreateRequest;
use api::pb::mvccpb::event::EventType;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use client::{Client, Config};
use serde_json::Value;

use super::history::{Event, Log, parse_events};
use super::{PREFIX, PREFIX_END, Plan};
use crate::Error;

/// Longest wait for a watcher to come so far as the writers are.
const LIMIT: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(20);

/// What the watcher's own thread or task and the story share.
struct Watcher {
    name: &'static str,
    log: Mutex<Log>,
    failed: Mutex<Option<Error>>,
    /// How often its process was started.
    starts: AtomicUsize,
    done: AtomicBool,
    /// The process that prints, if it is one.
    child: Mutex<Option<Child>>,
}

/// All three.
pub(super) struct Watchers {
    watchers: Vec<Arc<Watcher>>,
    threads: Vec<JoinHandle<()>>,
    task: tokio::task::JoinHandle<()>,
}

/// Starts to watch from `first` on.
///
/// # Errors
/// The client cannot be made.
pub(super) async fn start(plan: &Plan, address: SocketAddr, first: i64) -> Result<Watchers, Error> {
    let url = format!("http://{address}");
    let client = Client::connect(Config::new(vec![url.clone()]))
        .await
        .map_err(|error| Error(error.to_string()))?;
    let by_grpc = watcher("gRPC");
    let task = tokio::spawn(over_grpc(by_grpc.clone(), client, first));
    let by_etcdctl = watcher("etcdctl");
    let by_curl = watcher("curl");
    let programs = [
        (by_etcdctl.clone(), Program::Etcdctl(plan.etcdctl.clone())),
        (by_curl.clone(), Program::Curl),
    ];
    let threads = programs
        .into_iter()
        .map(|(watcher, program)| {
            let url = url.clone();
            std::thread::spawn(move || by_process(&watcher, &program, &url, first))
        })
        .collect();
    Ok(Watchers {
        watchers: vec![by_grpc, by_etcdctl, by_curl],
        threads,
        task,
    })
}

fn watcher(name: &'static str) -> Arc<Watcher> {
    Arc::new(Watcher {
        name,
        log: Mutex::default(),
        failed: Mutex::default(),
        starts: AtomicUsize::new(0),
        done: AtomicBool::new(false),
        child: Mutex::default(),
    })
}

impl Watcher {
    fn push(&self, events: Vec<Event>) {
        let outcome = self.log.lock().expect("no holder panics").push(events);
        if let Err(error) = outcome {
            self.fail(error);
        }
    }

    fn fail(&self, error: Error) {
        let mut failed = self.failed.lock().expect("no holder panics");
        failed.get_or_insert(Error(format!("{}: {error}", self.name)));
    }

    fn last(&self) -> i64 {
        self.log.lock().expect("no holder panics").last()
    }

    fn is_done(&self) -> bool {
        self.done.load(Ordering::Acquire)
    }

    /// Ends the process, if there is one. Returns whether there was.
    fn end_child(&self) -> bool {
        match self.child.lock().expect("no holder panics").take() {
            Some(mut child) => {
                // Both fail only when it has ended by itself.
                let _ = child.kill();
                let _ = child.wait();
                true
            }
            None => false,
        }
    }
}

impl Watchers {
    /// Waits until all have seen `revision`, and returns what each has seen.
    ///
    /// # Errors
    /// A watcher that saw something wrong, or does not come so far within 60 s.
    pub(super) async fn wait_for(&self, revision: i64) -> Result<Vec<(&'static str, Log)>, Error> {
        let begin = Instant::now();
        for watcher in &self.watchers {
            while watcher.last() < revision {
                if let Some(error) = watcher.failed.lock().expect("no holder panics").take() {
                    return Err(error);
                }
                if begin.elapsed() > LIMIT {
                    let last = watcher.last();
                    let name = watcher.name;
                    return Err(Error(format!("{name} stands at {last}, not {revision}")));
                }
                tokio::time::sleep(PAUSE).await;
            }
        }
        let logs = self.watchers.iter().map(|watcher| {
            let log = watcher.log.lock().expect("no holder panics").clone();
            (watcher.name, log)
        });
        Ok(logs.collect())
    }

    /// As [`Watchers::wait_for`], and ends them.
    ///
    /// # Errors
    /// As [`Watchers::wait_for`].
    pub(super) async fn stop_at(self, revision: i64) -> Result<Vec<(&'static str, Log)>, Error> {
        let logs = self.wait_for(revision).await?;
        for watcher in &self.watchers {
            let starts = watcher.starts.load(Ordering::Relaxed);
            if starts > 0 {
                println!("{} was started {starts} times to watch", watcher.name);
            }
        }
        Ok(logs)
    }
}

impl Drop for Watchers {
    fn drop(&mut self) {
        self.task.abort();
        for watcher in &self.watchers {
            watcher.done.store(true, Ordering::Release);
            watcher.end_child();
        }
        for thread in self.threads.drain(..) {
            // A panic of the thread was printed.
            let _ = thread.join();
        }
    }
}

async fn over_grpc(watcher: Arc<Watcher>, client: Client, first: i64) {
    let watches = client.watches();
    let mut answers = watches.create(WatchCreateRequest {
        key: PREFIX.into(),
        range_end: PREFIX_END.into(),
        start_revision: first,
        ..WatchCreateRequest::default()
    });
    while let Some(answer) = answers.next().await {
        if let Some(reason) = answer.cancelled {
            return watcher.fail(Error(format!("cancelled: {reason:?}")));
        }
        let events: Vec<Event> = answer
            .events
            .into_iter()
            .filter_map(|event| {
                let deleted = event.r#type == EventType::Delete as i32;
                event.kv.map(|kv| Event {
                    revision: kv.mod_revision,
                    deleted,
                    key: kv.key,
                    value: kv.value,
                    lease: kv.lease,
                })
            })
            .collect();
        if !events.is_empty() {
            watcher.push(events);
        }
    }
    watcher.fail(Error("the watch ended".into()));
}

/// A program that watches and prints a line of JSON for each answer.
enum Program {
    Etcdctl(PathBuf),
    Curl,
}

impl Program {
    fn command(&self, url: &str, revision: i64) -> Command {
        match self {
            Program::Etcdctl(path) => etcdctl(path, url, revision),
            Program::Curl => curl(url, revision),
        }
    }
}

fn etcdctl(path: &Path, url: &str, revision: i64) -> Command {
    let mut command = Command::new(path);
    command
        .arg(format!("--endpoints={url}"))
        .args(["watch", PREFIX, "--prefix", "-w", "json"])
        .arg(format!("--rev={revision}"));
    command
}

fn curl(url: &str, revision: i64) -> Command {
    let key = STANDARD.encode(PREFIX);
    let end = STANDARD.encode(PREFIX_END);
    let create = format!(
        r#"{{"create_request":{{"key":"{key}","range_end":"{end}","start_revision":"{revision}"}}}}"#
    );
    let mut command = Command::new("curl");
    command
        .args(["--silent", "--no-buffer", "--data", &create])
        .arg(format!("{url}/v3/watch"));
    command
}

/// Starts the program again whenever it ends.
fn by_process(watcher: &Watcher, program: &Program, url: &str, first: i64) {
    while !watcher.is_done() {
        let revision = first.max(watcher.last() + 1);
        if let Err(error) = read_all(watcher, program.command(url, revision)) {
            return watcher.fail(error);
        }
        // The server may be down.
        std::thread::sleep(PAUSE);
    }
}

fn read_all(watcher: &Watcher, mut command: Command) -> Result<(), Error> {
    let child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn();
    let mut child = child.map_err(|error| {
        let program = command.get_program().to_string_lossy();
        Error(format!("cannot run {program}: {error}"))
    })?;
    let output = child.stdout.take().expect("standard output is a pipe");
    *watcher.child.lock().expect("no holder panics") = Some(child);
    watcher.starts.fetch_add(1, Ordering::Relaxed);
    if watcher.is_done() {
        watcher.end_child();
    }
    let mut lines = BufReader::new(output);
    let mut line = Vec::new();
    loop {
        line.clear();
        // A line without its end was cut by a kill and comes again.
        if lines.read_until(b'\n', &mut line)? == 0 || line.pop() != Some(b'\n') {
            break;
        }
        if line.is_empty() {
            continue;
        }
        let answer: Value = serde_json::from_slice(&line)
            .map_err(|error| Error(format!("{error}: {}", String::from_utf8_lossy(&line))))?;
        let result = answer.get("result").unwrap_or(&answer);
        if let Some(error) = answer.get("error") {
            // The gateway says so when the server goes away.
            eprintln!("{}: {error}", watcher.name);
            continue;
        }
        if result.get("canceled").and_then(Value::as_bool) == Some(true) {
            return Err(Error(format!("cancelled: {answer}")));
        }
        let events = result.get("events").or_else(|| result.get("Events"));
        let events = events.map_or(Ok(Vec::new()), parse_events)?;
        if !events.is_empty() {
            watcher.push(events);
        }
    }
    watcher.end_child();
    Ok(())
}
