//! check perf, datascale.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::IsTerminal;
use std::sync::Arc;
use std::time::Duration;

use api::pb::etcdserverpb::{
    CompactionRequest, DefragmentRequest, DeleteRangeRequest, PutRequest, RangeRequest,
};
use bytes::Bytes;
use client::{Client, prefix_end};
use tokio::sync::{Mutex, mpsc};
use tokio::time::Instant;

use crate::cli::flags::Flag;
use crate::cli::globals::Session;
use crate::cli::{Call, Command, group};
use crate::exit::{self, Failure, Outcome};
use crate::out;
use crate::text::quote;

pub(super) const CHECK: Command = Command {
    name: "check",
    short: "Tests of a cluster. `etcdctl check --help` lists the sub-commands",
    long: "Tests of what a cluster can do",
    group: group::UTILITY,
    commands: &[
        Command {
            name: "perf",
            usage: "[options]",
            short: "Tests whether a cluster keeps up with a load",
            flags: &[
                Flag::text("load", "s", LOAD_HELP),
                Flag::text("prefix", "/etcdctl-check-perf/", PREFIX_HELP),
                AUTO_COMPACT,
                AUTO_DEFRAG,
            ],
            run: Some(|call| Box::pin(perf(call))),
            ..Command::EMPTY
        },
        Command {
            name: "datascale",
            usage: "[options]",
            short: "Tests how much memory a server needs for a number of keys",
            long: "\
Tests how much memory a server needs for a number of keys. Of several endpoints the first is
asked.
",
            flags: &[
                Flag::text("load", "s", LOAD_HELP),
                Flag::text("prefix", "/etcdctl-check-datascale/", PREFIX_HELP),
                AUTO_COMPACT,
                AUTO_DEFRAG,
            ],
            run: Some(|call| Box::pin(datascale(call))),
            ..Command::EMPTY
        },
    ],
    ..Command::EMPTY
};

const LOAD_HELP: &str = "s(small), m(medium), l(large) or xl(xLarge)";
const PREFIX_HELP: &str = "the prefix of the keys that the test writes";
const AUTO_COMPACT: Flag = Flag::switch("auto-compact", "compact the history after the test");
const AUTO_DEFRAG: Flag = Flag::switch("auto-defrag", "defragment the endpoints after the test");

/// How long `check perf` writes, and what it demands: the share of the load that is reached,
/// the slowest request and the standard deviation, in seconds.
const PERF_SECONDS: u64 = 60;
const THROUGHPUT_SHARE_MIN: f64 = 0.9;
const SLOWEST_SECONDS_MAX: f64 = 0.5;
const DEVIATION_SECONDS_MAX: f64 = 0.1;

/// How long cleaning up may take.
const CLEANUP_WAIT: Duration = Duration::from_secs(30);

#[derive(Clone, Copy)]
enum Load {
    Small,
    Medium,
    Large,
    ExtraLarge,
}

impl Load {
    fn read(flag: &str) -> Result<Self, Failure> {
        match flag {
            "s" | "small" => Ok(Load::Small),
            "m" | "medium" => Ok(Load::Medium),
            "l" | "large" => Ok(Load::Large),
            "xl" | "xLarge" => Ok(Load::ExtraLarge),
            other => Err(Failure::new(
                exit::BAD_FEATURE,
                format!("unknown load option {other}"),
            )),
        }
    }

    fn clients(self) -> usize {
        match self {
            Load::Small => 50,
            Load::Medium => 200,
            Load::Large => 500,
            Load::ExtraLarge => 1000,
        }
    }

    fn writes_per_second(self) -> u32 {
        match self {
            Load::Small => 150,
            Load::Medium => 1_000,
            Load::Large => 8_000,
            Load::ExtraLarge => 15_000,
        }
    }

    fn pairs(self) -> u64 {
        match self {
            Load::Small => 10_000,
            Load::Medium => 100_000,
            Load::Large => 1_000_000,
            Load::ExtraLarge => 3_000_000,
        }
    }
}

/// What the writers of a test saw.
#[derive(Default)]
struct Report {
    seconds: Vec<f64>,
    errors: BTreeMap<String, u64>,
    took: Duration,
}

impl Report {
    fn add(&mut self, elapsed: Duration, outcome: Result<(), client::Error>) {
        match outcome {
            Ok(()) => self.seconds.push(elapsed.as_secs_f64()),
            Err(error) => *self.errors.entry(error.to_string()).or_default() += 1,
        }
    }

    fn per_second(&self) -> f64 {
        self.seconds.len() as f64 / self.took.as_secs_f64()
    }

    fn slowest(&self) -> f64 {
        self.seconds.iter().copied().fold(0.0, f64::max)
    }

    fn deviation(&self) -> f64 {
        let count = self.seconds.len().max(1) as f64;
        let mean = self.seconds.iter().sum::<f64>() / count;
        let squares = self.seconds.iter().map(|seconds| (seconds - mean).powi(2));
        (squares.sum::<f64>() / count).sqrt()
    }

    fn print_errors(&self) {
        if self.errors.is_empty() {
            return;
        }
        out::line("FAIL: too many errors");
        for (error, count) in &self.errors {
            out::line(&format!("FAIL: ERROR({error}) -> {count}"));
        }
    }
}

/// Writers with a connection each, which take keys from one queue.
struct Writers {
    keys: mpsc::Sender<Bytes>,
    report: Arc<Mutex<Report>>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
    begin: Instant,
}

impl Writers {
    fn start(clients: &[Client], value: &Bytes) -> Self {
        let (keys, queue) = mpsc::channel(clients.len());
        let queue = Arc::new(Mutex::new(queue));
        let report = Arc::new(Mutex::new(Report::default()));
        let writer = |client: &Client| {
            let (client, value) = (client.clone(), value.clone());
            let (queue, report) = (Arc::clone(&queue), Arc::clone(&report));
            tokio::spawn(async move {
                loop {
                    let key = queue.lock().await.recv().await;
                    let Some(key) = key else { return };
                    let begin = Instant::now();
                    let request = PutRequest {
                        key,
                        value: value.clone(),
                        ..Default::default()
                    };
                    let outcome = client.put(request).await.map(|_| ());
                    report.lock().await.add(begin.elapsed(), outcome);
                }
            })
        };
        let tasks = clients.iter().map(writer).collect();
        Writers {
            keys,
            report,
            tasks,
            begin: Instant::now(),
        }
    }

    async fn finish(self) -> Report {
        drop(self.keys);
        for task in self.tasks {
            // A writer that panicked has told so; the others' figures remain.
            let _ended = task.await;
        }
        let mut report = std::mem::take(&mut *self.report.lock().await);
        report.took = self.begin.elapsed();
        report
    }
}

/// Random keys below a prefix: a number and zeros behind it.
struct Keys {
    prefix: String,
    bytes: usize,
    state: u64,
}

impl Keys {
    fn new(prefix: &str, bytes: usize) -> Self {
        Keys {
            prefix: prefix.to_owned(),
            bytes,
            state: RandomState::new().build_hasher().finish(),
        }
    }

    /// The next number of a splitmix64 sequence as a key.
    fn next(&mut self) -> Bytes {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut number = self.state;
        number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        number ^= number >> 31;
        let mut key = self.prefix.clone().into_bytes();
        let end = key.len() + self.bytes;
        key.extend(number.to_be_bytes());
        key.resize(end, 0);
        key.into()
    }
}

async fn clients(session: &Session, load: Load) -> Result<Vec<Client>, Failure> {
    let mut clients = Vec::new();
    for _ in 0..load.clients() {
        clients.push(session.connect().await?);
    }
    Ok(clients)
}

async fn check_empty(client: &Client, prefix: &str, quotes: &str) -> Outcome {
    let key = Bytes::from(prefix.to_owned());
    let range_end = prefix_end(&key);
    let request = RangeRequest {
        key,
        range_end,
        limit: 1,
        ..RangeRequest::default()
    };
    if client.range(request).await?.kvs.is_empty() {
        return Ok(());
    }
    let quoted = quote(prefix.as_bytes());
    let text = format!(
        "prefix {quoted} has keys. Delete with {quotes}etcdctl del --prefix {prefix}{quotes} first"
    );
    Err(Failure::new(exit::INVALID_INPUT, text))
}

fn progress(text: &str) {
    if std::io::stderr().is_terminal() {
        eprint!("\r{text}");
    }
}

async fn perf(mut call: Call) -> Outcome {
    let load = Load::read(call.flags.text("load"))?;
    let prefix = call.flags.text("prefix").to_owned();
    let session = Session::new(&mut call)?;
    let clients = clients(&session, load).await?;
    check_empty(&clients[0], &prefix, "'").await?;
    let writers = Writers::start(&clients, &Bytes::from(vec![0; 1024]));
    let mut keys = Keys::new(&prefix, 256);
    let begin = Instant::now();
    let end = begin + Duration::from_secs(PERF_SECONDS);
    let interval = Duration::from_secs(1) / load.writes_per_second();
    let mut due = begin;
    let mut interrupt = std::pin::pin!(tokio::signal::ctrl_c());
    let mut is_interrupted = false;
    while due < end && !is_interrupted {
        tokio::select! {
            _ = &mut interrupt => is_interrupted = true,
            () = tokio::time::sleep_until(due) => {
                // Writers that cannot keep up make the queue wait, and the load is missed.
                let _queued = writers.keys.send(keys.next()).await;
                due = (due + interval).max(begin);
                progress(&format!("{} / {PERF_SECONDS} s ", begin.elapsed().as_secs()));
                if Instant::now() >= end {
                    break;
                }
            }
        }
    }
    progress("\n");
    let report = writers.finish().await;
    clean_up(
        &clients[0],
        &prefix,
        call.flags.bool("auto-compact") && !is_interrupted,
    )
    .await;
    if call.flags.bool("auto-defrag") && !is_interrupted {
        defragment(&session).await?;
    }
    judge(&report, f64::from(load.writes_per_second()))
}

fn judge(report: &Report, wanted: f64) -> Outcome {
    report.print_errors();
    let mut passed = report.errors.is_empty();
    let mut check = |good: bool, pass: String, fail: String| {
        out::line(if good { &pass } else { &fail });
        passed &= good;
    };
    let rate = report.per_second();
    let whole = rate as u64 + 1;
    check(
        rate / wanted > THROUGHPUT_SHARE_MIN,
        format!("PASS: Throughput is {whole} writes/s"),
        format!("FAIL: Throughput too low: {whole} writes/s"),
    );
    let slowest = report.slowest();
    check(
        slowest <= SLOWEST_SECONDS_MAX,
        format!("PASS: Slowest request took {slowest:.6}s"),
        format!("Slowest request took too long: {slowest:.6}s"),
    );
    let deviation = report.deviation();
    check(
        deviation <= DEVIATION_SECONDS_MAX,
        format!("PASS: Stddev is {deviation:.6}s"),
        format!("Stddev too high: {deviation:.6}s"),
    );
    out::line(if passed { "PASS" } else { "FAIL" });
    if passed {
        Ok(())
    } else {
        Err(Failure::silent(exit::ERROR))
    }
}

async fn clean_up(client: &Client, prefix: &str, compact: bool) {
    let client = client.clone().with_deadline(Instant::now() + CLEANUP_WAIT);
    match delete_all(&client, prefix).await {
        Ok(revision) if compact => {
            if let Err(error) = compact_to(&client, revision).await {
                out::line(&format!(
                    "FAIL: Cleanup failed during compaction: ERROR({error})"
                ));
            }
        }
        Ok(_) => {}
        Err(error) => {
            out::line(&format!(
                "FAIL: Cleanup failed during key deletion: ERROR({error})"
            ));
        }
    }
}

/// Deletes the test's keys and returns the revision of that.
async fn delete_all(client: &Client, prefix: &str) -> Result<i64, client::Error> {
    let key = Bytes::from(prefix.to_owned());
    let range_end = prefix_end(&key);
    let request = DeleteRangeRequest {
        key,
        range_end,
        prev_kv: false,
    };
    Ok(client
        .delete_range(request)
        .await?
        .header
        .unwrap_or_default()
        .revision)
}

async fn compact_to(client: &Client, revision: i64) -> Result<(), client::Error> {
    out::line(&format!("Compacting with revision {revision}"));
    client
        .compact(CompactionRequest {
            revision,
            physical: true,
        })
        .await?;
    out::line(&format!("Compacted with revision {revision}"));
    Ok(())
}

async fn defragment(session: &Session) -> Outcome {
    for endpoint in &session.config.endpoints {
        let quoted = quote(endpoint.as_bytes());
        out::line(&format!("Defragmenting {quoted}"));
        let client = session.connect_to(endpoint).await?;
        let client = client.with_deadline(Instant::now() + CLEANUP_WAIT);
        client.defragment(DefragmentRequest {}).await?;
        out::line(&format!("Defragmented {quoted}"));
    }
    Ok(())
}

async fn datascale(mut call: Call) -> Outcome {
    let load = Load::read(call.flags.text("load"))?;
    let prefix = call.flags.text("prefix").to_owned();
    let session = Session::new(&mut call)?;
    let clients = clients(&session, load).await?;
    check_empty(&clients[0], &prefix, "").await?;
    let before = resident_bytes(&session, "before").await?;
    out::line(&format!(
        "Start data scale check for work load [{} key-value pairs, 1024 bytes per key-value, {} \
         concurrent clients].",
        load.pairs(),
        load.clients()
    ));
    let writers = Writers::start(&clients, &Bytes::from(vec![0; 512]));
    let mut keys = Keys::new(&prefix, 512);
    for written in 0..load.pairs() {
        // A queue without writers would have ended the command.
        let _queued = writers.keys.send(keys.next()).await;
        progress(&format!("{written} / {} ", load.pairs()));
    }
    progress("\n");
    let report = writers.finish().await;
    let after = resident_bytes(&session, "after").await?;
    let revision = delete_all(&clients[0], &prefix).await?;
    if call.flags.bool("auto-compact") {
        compact_to(&clients[0], revision).await?;
    }
    if call.flags.bool("auto-defrag") {
        defragment(&session).await?;
    }
    if !report.errors.is_empty() {
        report.print_errors();
        return Err(Failure::silent(exit::ERROR));
    }
    let megabytes = (after - before) / f64::from(1 << 20);
    out::line(&format!(
        "PASS: Approximate system memory used : {megabytes:.2} MB."
    ));
    Ok(())
}

/// The resident memory of the first endpoint, from its metrics.
async fn resident_bytes(session: &Session, when: &str) -> Result<f64, Failure> {
    const METRIC: &str = "process_resident_memory_bytes";
    let page = client::fetch(&session.config, "/metrics").await;
    let value = match &page {
        Ok(page) => String::from_utf8_lossy(page)
            .lines()
            .find_map(|line| line.strip_prefix(METRIC)?.trim().parse::<f64>().ok()),
        Err(error) => {
            out::line(&format!("fetch error: {error}"));
            None
        }
    };
    value.ok_or_else(|| {
        out::line(&format!(
            "FAIL: Could not read {METRIC} {when} the put operations."
        ));
        Failure::silent(exit::ERROR)
    })
}
