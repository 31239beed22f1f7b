//! The three writers, the kills, and what was acknowledged.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use api::pb::etcdserverpb::PutRequest;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::history::number;
use super::{Ack, Plan, Record};
use crate::kv::{Kv, said};
use crate::random::Random;
use crate::{Error, Member};

/// The fewest keys that make the story worth telling.
pub(super) const FEWEST: usize = 50_000;
/// Keys by etcdctl, one process each.
const BY_ETCDCTL: usize = 1000;
/// Keys by curl.
const BY_CURL: usize = 10_000;
/// Puts outstanding over gRPC, and the connections that they share.
const TASKS: usize = 32;
const CONNECTIONS: usize = 4;
/// How far, in parts of a thousand, a writer may be ahead of the slowest, so that all three are
/// at work until the end.
const AHEAD: usize = 20;
/// Longest time that a writer tries one key.
const PATIENCE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(5);

/// One writer's share and how far it is.
struct Share {
    name: &'static str,
    /// Positions among the records.
    records: Vec<usize>,
    written: AtomicUsize,
}

impl Share {
    fn new(name: &'static str, records: &[usize]) -> Self {
        Self {
            name,
            records: records.to_vec(),
            written: AtomicUsize::new(0),
        }
    }

    fn written(&self) -> usize {
        self.written.load(Ordering::Acquire)
    }

    /// In parts of a thousand.
    fn progress(&self) -> usize {
        self.written() * 1000 / self.records.len().max(1)
    }

    fn is_done(&self) -> bool {
        self.written() >= self.records.len()
    }
}

struct Shared {
    records: Arc<Vec<Record>>,
    etcdctl: Share,
    curl: Share,
    grpc: Share,
    next: AtomicUsize,
    repeated: AtomicUsize,
    acks: Mutex<Vec<Ack>>,
    /// Set when a writer gave up, so that nobody waits for it.
    failed: AtomicBool,
}

impl Shared {
    fn acknowledge(&self, share: &Share, record: usize, revision: i64) {
        let ack = Ack { record, revision };
        self.acks.lock().expect("no holder panics").push(ack);
        share.written.fetch_add(1, Ordering::Release);
    }

    /// Whether that writer should wait for the others. Nobody waits for one that gave up.
    fn is_ahead(&self, share: &Share) -> bool {
        let slower = self.etcdctl.progress().min(self.curl.progress());
        share.progress() > slower + AHEAD && !self.failed.load(Ordering::Acquire)
    }

    fn counts(&self) -> String {
        let counts: Vec<String> = [&self.etcdctl, &self.curl, &self.grpc]
            .iter()
            .map(|share| {
                let (written, all) = (share.written(), share.records.len());
                format!("{written} of {all} by {}", share.name)
            })
            .collect();
        counts.join(", ")
    }
}

/// Loads every record and returns what was acknowledged.
///
/// # Errors
/// A write that was refused or can't be made, or a member that does not come back.
pub(super) async fn run(
    plan: &Plan,
    records: &Arc<Vec<Record>>,
    member: &mut Member,
    random: &mut Random,
) -> Result<Vec<Ack>, Error> {
    let mut order: Vec<usize> = (0..records.len()).collect();
    for last in (1..order.len()).rev() {
        order.swap(last, random.below(last as u64 + 1) as usize);
    }
    let (by_etcdctl, rest) = order.split_at(BY_ETCDCTL);
    let (by_curl, by_grpc) = rest.split_at(BY_CURL);
    let shared = Arc::new(Shared {
        records: records.clone(),
        etcdctl: Share::new("etcdctl", by_etcdctl),
        curl: Share::new("curl", by_curl),
        grpc: Share::new("gRPC", by_grpc),
        next: AtomicUsize::new(0),
        repeated: AtomicUsize::new(0),
        acks: Mutex::default(),
        failed: AtomicBool::new(false),
    });
    let begin = Instant::now();
    let writers = start(plan, &shared, member.address());
    kill(plan, &shared, member, random).await?;
    for writer in writers {
        writer.await.map_err(|error| Error(error.to_string()))??;
    }
    println!(
        "written in {:.1} s with {} kills: {}; {} puts were repeated",
        begin.elapsed().as_secs_f64(),
        plan.kills,
        shared.counts(),
        shared.repeated.load(Ordering::Relaxed),
    );
    Ok(shared.acks.lock().expect("no holder panics").clone())
}

type Writer = tokio::task::JoinHandle<Result<(), Error>>;

fn start(plan: &Plan, shared: &Arc<Shared>, address: SocketAddr) -> Vec<Writer> {
    let connections: Vec<Kv> = (0..CONNECTIONS).map(|_| Kv::to(address)).collect();
    let mut writers: Vec<Writer> = (0..TASKS)
        .map(|task| {
            let shared = shared.clone();
            let kv = connections[task % CONNECTIONS].clone();
            tokio::spawn(async move {
                let outcome = over_grpc(&shared, &kv).await;
                note(&shared, outcome)
            })
        })
        .collect();
    let (etcdctl, one) = (plan.etcdctl.clone(), shared.clone());
    writers.push(tokio::task::spawn_blocking(move || {
        note(&one, by_etcdctl(&one, &etcdctl, address))
    }));
    let one = shared.clone();
    let (kills, file) = (plan.kills, config_path());
    writers.push(tokio::task::spawn_blocking(move || {
        let outcome = by_curl(&one, address, kills, &file);
        // Left behind at worst.
        let _ = std::fs::remove_file(file);
        note(&one, outcome)
    }));
    writers
}

fn note(shared: &Shared, outcome: Result<(), Error>) -> Result<(), Error> {
    if outcome.is_err() {
        shared.failed.store(true, Ordering::Release);
    }
    outcome
}

/// Kills while all three write.
async fn kill(
    plan: &Plan,
    shared: &Shared,
    member: &mut Member,
    random: &mut Random,
) -> Result<(), Error> {
    // None in the last fifth: every kill should find all writers at work.
    let mut moments: Vec<u64> = (0..plan.kills).map(|_| 100 + random.below(700)).collect();
    moments.sort_unstable();
    for moment in moments {
        let reached =
            || shared.curl.progress() as u64 >= moment || shared.failed.load(Ordering::Acquire);
        let begin = Instant::now();
        while !reached() {
            if begin.elapsed() > PATIENCE {
                return Err(Error(format!("nobody writes: {}", shared.counts())));
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        member.kill()?;
        let down = Instant::now();
        tokio::task::block_in_place(|| member.restart())?;
        println!(
            "killed after {}; healthy again in {:.0} ms",
            shared.counts(),
            down.elapsed().as_secs_f64() * 1000.0
        );
    }
    Ok(())
}

async fn over_grpc(shared: &Shared, kv: &Kv) -> Result<(), Error> {
    loop {
        let next = shared.next.fetch_add(1, Ordering::Relaxed);
        let Some(&position) = shared.grpc.records.get(next) else {
            return Ok(());
        };
        let record = &shared.records[position];
        while shared.is_ahead(&shared.grpc) {
            tokio::time::sleep(PAUSE).await;
        }
        let begin = Instant::now();
        loop {
            let request = PutRequest {
                key: record.key.clone(),
                value: record.value.clone(),
                lease: record.lease,
                ..PutRequest::default()
            };
            match kv.put_request(request).await {
                Ok(revision) => {
                    shared.acknowledge(&shared.grpc, position, revision);
                    break;
                }
                // A refusal is never the answer here; a broken connection says nothing.
                Err(status) if status.message().starts_with("etcdserver: ") => {
                    return Err(said(status));
                }
                Err(status) if begin.elapsed() > PATIENCE => return Err(said(status)),
                Err(_) => {
                    shared.repeated.fetch_add(1, Ordering::Relaxed);
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }
}

fn by_etcdctl(shared: &Shared, etcdctl: &Path, address: SocketAddr) -> Result<(), Error> {
    for &position in &shared.etcdctl.records {
        while shared.is_ahead(&shared.etcdctl) {
            std::thread::sleep(PAUSE);
        }
        let begin = Instant::now();
        loop {
            match put_by_etcdctl(etcdctl, address, &shared.records[position])? {
                Ok(revision) => break shared.acknowledge(&shared.etcdctl, position, revision),
                Err(error) if begin.elapsed() > PATIENCE => return Err(error),
                Err(_) => {
                    shared.repeated.fetch_add(1, Ordering::Relaxed);
                    std::thread::sleep(PAUSE);
                }
            }
        }
    }
    Ok(())
}

/// The outer error is one that trying again does not help.
fn put_by_etcdctl(
    etcdctl: &Path,
    address: SocketAddr,
    record: &Record,
) -> Result<Result<i64, Error>, Error> {
    let mut child = Command::new(etcdctl)
        .arg(format!("--endpoints=http://{address}"))
        .args(["put", "-w", "json"])
        .arg(format!("--lease={:x}", record.lease))
        .arg("--")
        .arg(String::from_utf8_lossy(&record.key).as_ref())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| Error(format!("{}: {error}", etcdctl.display())))?;
    let mut input = child.stdin.take().expect("standard input is a pipe");
    // One that ended early says why.
    let _ = input.write_all(&record.value);
    drop(input);
    let output = child.wait_with_output()?;
    if output.status.success() {
        let answer: Value = serde_json::from_slice(&output.stdout)
            .map_err(|error| Error(format!("etcdctl put: {error}")))?;
        return Ok(Ok(revision_of(&answer)?));
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    Ok(Err(Error(format!("etcdctl put: {stderr}"))))
}

fn revision_of(answer: &Value) -> Result<i64, Error> {
    let revision = answer
        .get("header")
        .and_then(|header| number(header.get("revision")))
        .filter(|revision| *revision > 0);
    revision.ok_or_else(|| Error(format!("no revision: {answer}")))
}

fn config_path() -> PathBuf {
    std::env::temp_dir().join(format!("etcd-e2e-{}.curl", std::process::id()))
}

/// One curl process posts one key after the other over one connection; after a kill another
/// goes on where it ended.
fn by_curl(shared: &Shared, address: SocketAddr, kills: usize, file: &Path) -> Result<(), Error> {
    let (mut rounds, mut connects) = (0, 0);
    let mut progress = (0, Instant::now());
    while !shared.curl.is_done() {
        let written = shared.curl.written();
        if written > progress.0 {
            progress = (written, Instant::now());
        } else if progress.1.elapsed() > PATIENCE {
            return Err(Error(format!("curl stands at {written}")));
        }
        let left = &shared.curl.records[written..];
        std::fs::write(file, curl_config(shared, left, address))?;
        connects += run_curl(shared, left, file)?;
        rounds += 1;
        std::thread::sleep(PAUSE);
    }
    // curl itself connects anew once when it finds its connection dead.
    if connects > rounds + kills {
        return Err(Error(format!(
            "curl made {connects} connections in {rounds} runs"
        )));
    }
    println!("curl ran {rounds} times and made {connects} connections");
    Ok(())
}

fn curl_config(shared: &Shared, left: &[usize], address: SocketAddr) -> String {
    let mut config = String::new();
    for &position in left {
        let record = &shared.records[position];
        let (key, value) = (STANDARD.encode(&record.key), STANDARD.encode(&record.value));
        let lease = record.lease;
        let body = format!(r#"{{\"key\":\"{key}\",\"value\":\"{value}\",\"lease\":\"{lease}\"}}"#);
        if !config.is_empty() {
            config.push_str("next\n");
        }
        let written = write!(
            config,
            "url = \"http://{address}/v3/kv/put\"\ndata = \"{body}\"\nsilent\nno-buffer\n\
             fail-early\nwrite-out = \"\\n%{{http_code}} %{{num_connects}}\\n\"\n"
        );
        written.expect("a string takes what is written");
    }
    config
}

/// Reads an answer and a line of curl's own for each transfer. Returns the connections made.
fn run_curl(shared: &Shared, left: &[usize], file: &Path) -> Result<usize, Error> {
    let mut child = Command::new("curl")
        .arg("--config")
        .arg(file)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| Error(format!("cannot run curl: {error}")))?;
    let output = child.stdout.take().expect("standard output is a pipe");
    let outcome = read_curl(shared, left, BufReader::new(output));
    // It has ended, unless what it printed made no sense.
    let _ = child.kill();
    child.wait()?;
    outcome
}

fn read_curl(shared: &Shared, left: &[usize], output: impl BufRead) -> Result<usize, Error> {
    let mut connects = 0;
    let mut body = String::new();
    let mut left = left.iter();
    for line in output.lines() {
        let line = line?;
        if line.starts_with('{') {
            body = line;
            continue;
        }
        let words: Vec<usize> = line
            .split(' ')
            .filter_map(|word| word.parse().ok())
            .collect();
        let &[status, new] = words.as_slice() else {
            continue;
        };
        connects += new;
        match status {
            200 => {}
            // The server went away.
            0 | 503 => break,
            _ => return Err(Error(format!("curl was answered {status}: {body}"))),
        }
        let answer: Value =
            serde_json::from_str(&body).map_err(|error| Error(format!("{error}: {body}")))?;
        let Some(&position) = left.next() else {
            return Err(Error("curl has more answers than questions".into()));
        };
        shared.acknowledge(&shared.curl, position, revision_of(&answer)?);
    }
    Ok(connects)
}
