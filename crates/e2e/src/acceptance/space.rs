//! `space`: a large database is compacted and defragmented while clients write and read, none of
//! whom may be kept waiting; and its file shrinks to what it holds.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use api::pb::etcdserverpb::{
    DefragmentRequest, PutRequest, RangeRequest, RequestOp, TxnRequest, request_op::Request,
};
use bytes::Bytes;
use client::stub::MaintenanceClient;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

use crate::kv::{Kv, said};
use crate::{Error, Member, Options, http};

/// What `space` needs.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The server under test.
    pub binary: PathBuf,
    /// About the size of the database before, in MB.
    pub megabytes: u64,
    /// Puts offered in a second.
    pub puts: u64,
    /// Longest time for which a request may wait, in ms; 0 only reports.
    pub stall_ms: u64,
}

/// Four or five records of this size fill a page of the database well; of two kilobytes, one would.
const VALUE_BYTES: usize = 700;
const KEY_BYTES: usize = "data-00000000".len();
/// Every key is written so often: three quarters of the file are history.
const ROUNDS: u64 = 4;
/// Puts in one transaction while the database is filled.
const BATCH: u64 = 100;
const FILLERS: usize = 16;
/// Clients of the load, and the keys that they write.
const WRITERS: u64 = 40;
const READERS: u64 = 10;
const LOAD_KEYS: u64 = 10_000;
const LOAD_KEY_BYTES: usize = "load-000000".len();
const LOAD_VALUE_BYTES: usize = 256;
/// Gets offered in a second.
const GETS: u64 = 500;
/// How long the load is looked at before and after.
const CALM: Duration = Duration::from_secs(10);
/// What a compaction and a defragmentation may take.
const PATIENCE: Duration = Duration::from_secs(600);
/// Between two looks at the size of a database that is being filled.
const LOOK: Duration = Duration::from_millis(50);
/// The server's own account of the disk.
const LOG_SYNCS: &str = "etcd_disk_wal_fsync_duration_seconds";

/// One request of the load: when it was due, and how long its answer took from then on.
#[derive(Clone, Copy)]
struct Sample {
    due: Instant,
    took: Duration,
    is_put: bool,
}

/// Fills a database, then compacts and defragments it under load.
///
/// # Errors
/// A request fails or waits for too long, or the file stays too large.
pub async fn run(plan: &Plan) -> Result<(), Error> {
    let member = Member::start(Options {
        binary: Some(plan.binary.clone()),
        flags: vec!["--quota-backend-bytes=17179869184".into()],
        ..Options::default()
    })?;
    let kv = Kv::within(member.address(), PATIENCE);
    let keys = fill(&member, plan.megabytes * 1_000_000).await?;
    let before = kv.status().await.map_err(said)?;
    println!(
        "{keys} keys of {VALUE_BYTES} bytes, written {ROUNDS} times: {} MB",
        before.db_size / 1_000_000
    );
    let stop = Arc::new(AtomicBool::new(false));
    let (samples, mut taken) = mpsc::unbounded_channel();
    let load = start_load(plan, &member, &stop, &samples);
    drop(samples);
    let mut phases = Vec::new();
    let mut phase = Phase::begin("before", &member).await?;
    tokio::time::sleep(CALM).await;
    phases.push(phase.end(&member).await?);
    phase = Phase::begin("compaction", &member).await?;
    let revision = kv.revision(true).await.map_err(said)?;
    kv.compact(revision).await.map_err(said)?;
    phases.push(phase.end(&member).await?);
    phase = Phase::begin("defragmentation", &member).await?;
    let mut maintenance = MaintenanceClient::new(kv.channel());
    let answer = maintenance.defragment(DefragmentRequest {}).await;
    answer.map_err(said)?;
    phases.push(phase.end(&member).await?);
    phase = Phase::begin("after", &member).await?;
    tokio::time::sleep(CALM).await;
    phases.push(phase.end(&member).await?);
    stop.store(true, Ordering::Relaxed);
    join(load).await?;
    let mut all = Vec::new();
    while let Some(sample) = taken.recv().await {
        all.push(sample);
    }
    phases.iter().for_each(|phase| phase.report(&all));
    let file = member.data_dir().join("member/snap/db");
    let file_bytes = std::fs::metadata(&file)?.len();
    let live = keys * (KEY_BYTES + VALUE_BYTES) as u64
        + LOAD_KEYS * (LOAD_KEY_BYTES + LOAD_VALUE_BYTES) as u64;
    let bound = live + live * 3 / 10 + 64_000_000;
    println!(
        "the file has {} MB for {} MB of keys and values, at most {} MB",
        file_bytes / 1_000_000,
        live / 1_000_000,
        bound / 1_000_000
    );
    if file_bytes > bound {
        return Err(Error("the file stays too large".into()));
    }
    let longest = all.iter().map(|sample| sample.took).max();
    let longest = longest.unwrap_or_default();
    if plan.stall_ms > 0 && longest > Duration::from_millis(plan.stall_ms) {
        return Err(Error(format!("a request waited for {longest:?}")));
    }
    Ok(())
}

/// Keys that are still to be written in a round, taken in batches.
struct Round {
    number: u64,
    next: AtomicU64,
    end: AtomicU64,
}

impl Round {
    fn new(number: u64, end: u64) -> Arc<Round> {
        Arc::new(Round {
            number,
            next: AtomicU64::new(0),
            end: AtomicU64::new(end),
        })
    }

    /// The first key of the next batch.
    fn take(&self) -> Option<u64> {
        let end = self.end.load(Ordering::Relaxed);
        let advance = |next| (next < end).then_some(next + BATCH);
        let taken = self
            .next
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, advance);
        taken.ok()
    }

    /// Writes the keys; returns how many there were.
    async fn write(self: &Arc<Self>, member: &Member) -> Result<u64, Error> {
        let mut fillers = JoinSet::new();
        for _ in 0..FILLERS {
            let (round, kv) = (Arc::clone(self), Kv::to(member.address()));
            fillers.spawn(async move {
                while let Some(first) = round.take() {
                    let puts = (first..first + BATCH).map(|key| put(key, round.number));
                    let txn = TxnRequest {
                        success: puts.collect(),
                        ..TxnRequest::default()
                    };
                    kv.txn(txn).await.map_err(said)?;
                }
                Ok(())
            });
        }
        join(fillers).await?;
        Ok(self.next.load(Ordering::Relaxed))
    }
}

/// Writes every key several times, the rounds one after the other, so that the file gets about
/// this many bytes; returns the number of keys.
async fn fill(member: &Member, bytes: u64) -> Result<u64, Error> {
    let first = Round::new(0, u64::MAX);
    let kv = Kv::to(member.address());
    let look = async {
        let mut looks = interval(LOOK);
        while (kv.status().await.map_err(said)?.db_size as u64) < bytes / ROUNDS {
            looks.tick().await;
        }
        first.end.store(0, Ordering::Relaxed);
        Ok(())
    };
    let (keys, ()) = tokio::try_join!(first.write(member), look)?;
    for number in 1..ROUNDS {
        Round::new(number, keys).write(member).await?;
    }
    Ok(keys)
}

fn put(key: u64, round: u64) -> RequestOp {
    RequestOp {
        request: Some(Request::RequestPut(PutRequest {
            key: format!("data-{key:08}").into(),
            value: vec![round as u8; VALUE_BYTES].into(),
            ..PutRequest::default()
        })),
    }
}

async fn join(mut tasks: JoinSet<Result<(), Error>>) -> Result<(), Error> {
    while let Some(task) = tasks.join_next().await {
        task.map_err(|error| Error(error.to_string()))??;
    }
    Ok(())
}

/// Clients that ask at fixed times, whether or not earlier answers have come.
fn start_load(
    plan: &Plan,
    member: &Member,
    stop: &Arc<AtomicBool>,
    samples: &mpsc::UnboundedSender<Sample>,
) -> JoinSet<Result<(), Error>> {
    let mut clients = JoinSet::new();
    for client in 0..WRITERS + READERS {
        let is_put = client < WRITERS;
        let every = match is_put {
            true => Duration::from_secs(WRITERS).div_f64(plan.puts as f64),
            false => Duration::from_secs(READERS).div_f64(GETS as f64),
        };
        let kv = Kv::to(member.address());
        let (stop, samples) = (Arc::clone(stop), samples.clone());
        clients.spawn(async move {
            let mut times = interval(every);
            times.set_missed_tick_behavior(MissedTickBehavior::Burst);
            let mut number = client;
            while !stop.load(Ordering::Relaxed) {
                let due = times.tick().await.into_std();
                number = (number + WRITERS) % LOAD_KEYS;
                let key = Bytes::from(format!("load-{number:06}"));
                match is_put {
                    true => {
                        let value = Bytes::from(vec![b'v'; LOAD_VALUE_BYTES]);
                        kv.put(key, value).await.map_err(said)?;
                    }
                    false => {
                        let request = RangeRequest {
                            key,
                            ..RangeRequest::default()
                        };
                        kv.range(request).await.map_err(said)?;
                    }
                }
                let took = due.elapsed();
                // The receiver stays until all clients have ended.
                let _ = samples.send(Sample { due, took, is_put });
            }
            Ok(())
        });
    }
    clients
}

/// A part of the time in which the load is looked at.
struct Phase {
    name: &'static str,
    from: Instant,
    to: Instant,
    /// Syncs of the log, by their time, as a histogram.
    syncs: Vec<(String, u64)>,
}

impl Phase {
    async fn begin(name: &'static str, member: &Member) -> Result<Phase, Error> {
        let syncs = log_syncs(member).await?;
        let now = Instant::now();
        Ok(Phase {
            name,
            from: now,
            to: now,
            syncs,
        })
    }

    async fn end(mut self, member: &Member) -> Result<Phase, Error> {
        self.to = Instant::now();
        let after = log_syncs(member).await?;
        for ((_, count), (_, now)) in self.syncs.iter_mut().zip(after) {
            *count = now - *count;
        }
        Ok(self)
    }

    /// Prints what requests took, and the server's syncs.
    fn report(&self, all: &[Sample]) {
        for (kind, is_put) in [("put", true), ("get", false)] {
            let in_phase = all.iter().filter(|sample| {
                let end = sample.due + sample.took;
                sample.is_put == is_put && end >= self.from && sample.due < self.to
            });
            let mut times: Vec<(Duration, Instant)> =
                in_phase.map(|sample| (sample.took, sample.due)).collect();
            times.sort_unstable();
            let Some(&(max, due)) = times.last() else {
                continue;
            };
            let at = |part: f64| times[((times.len() - 1) as f64 * part) as usize].0;
            println!(
                "{:>16} {kind}: {} in {:.1} s, p50 {:.2?}, p99 {:.2?}, longest {max:.2?} \
                 (at {:.1} s)",
                self.name,
                times.len(),
                (self.to - self.from).as_secs_f64(),
                at(0.5),
                at(0.99),
                due.saturating_duration_since(self.from).as_secs_f64(),
            );
        }
        let total = self.syncs.last().map_or(0, |(_, count)| *count);
        let reached = self.syncs.iter().find(|(_, count)| *count == total);
        if let Some((bound, _)) = reached {
            println!(
                "{:>16}      {total} syncs of the log, none above {bound} s",
                ""
            );
        }
    }
}

/// How many syncs of the log took at most so long, by the server's own account.
async fn log_syncs(member: &Member) -> Result<Vec<(String, u64)>, Error> {
    let address = member.address();
    let asked = tokio::task::spawn_blocking(move || http::get(address, "/metrics")).await;
    let body = asked.map_err(|error| Error(error.to_string()))??.body;
    let buckets = body.lines().filter_map(|line| {
        let rest = line
            .strip_prefix(LOG_SYNCS)?
            .strip_prefix("_bucket{le=\"")?;
        let (bound, count) = rest.split_once("\"} ")?;
        Some((bound.to_owned(), count.parse().ok()?))
    });
    Ok(buckets.collect())
}
