//! `space`: a large database is compacted and defragmented while clients write and read, none of
//! whom may be kept waiting; and its file shrinks to what it holds.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
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
use crate::{Error, Member, Options};

/// What `space` needs.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The server under test.
    pub binary: PathBuf,
    /// Size of the file before, in MB.
    pub megabytes: u64,
    /// Puts offered in a second.
    pub puts: u64,
    /// Longest time for which a request may wait, in ms; 0 only reports.
    pub stall_ms: u64,
}

/// Five records of this size fill a page of the database well; of two kilobytes, one would.
const VALUE_BYTES: usize = 700;
/// Every key is written so often: three quarters of the file are history.
const ROUNDS: u64 = 4;
/// Puts in one transaction while the database is filled.
const BATCH: u64 = 100;
const FILLERS: usize = 16;
/// Clients of the load, and the keys that they write.
const WRITERS: u64 = 40;
const READERS: u64 = 10;
const LOAD_KEYS: u64 = 10_000;
const LOAD_VALUE_BYTES: usize = 256;
/// Gets offered in a second.
const GETS: u64 = 500;
/// How long the load is looked at before and after.
const CALM: Duration = Duration::from_secs(10);

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
    let kv = Kv::to(member.address());
    let keys = plan.megabytes * 1_000_000 / VALUE_BYTES as u64 / ROUNDS;
    fill(&member, keys).await?;
    let before = kv.status().await.map_err(said)?;
    println!(
        "{keys} keys of {VALUE_BYTES} bytes, written {ROUNDS} times: {} MB",
        before.db_size / 1_000_000
    );
    let stop = Arc::new(AtomicBool::new(false));
    let (samples, mut taken) = mpsc::unbounded_channel();
    let load = start_load(plan, &member, &stop, &samples);
    drop(samples);
    tokio::time::sleep(CALM).await;
    let begin = Instant::now();
    let revision = kv.revision(true).await.map_err(said)?;
    kv.compact(revision).await.map_err(said)?;
    let compacted = Instant::now();
    let mut maintenance = MaintenanceClient::new(kv.channel());
    let answer = maintenance.defragment(DefragmentRequest {}).await;
    answer.map_err(said)?;
    let defragmented = Instant::now();
    tokio::time::sleep(CALM).await;
    stop.store(true, Ordering::Relaxed);
    join(load).await?;
    let mut all = Vec::new();
    while let Some(sample) = taken.recv().await {
        all.push(sample);
    }
    let phases = [
        ("before", begin - CALM, begin),
        ("compaction", begin, compacted),
        ("defragmentation", compacted, defragmented),
        ("after", defragmented, defragmented + CALM),
    ];
    let mut longest = Duration::ZERO;
    for (name, from, to) in phases {
        longest = longest.max(report(name, from, to, &all));
    }
    let after = kv.status().await.map_err(said)?;
    let live = keys * VALUE_BYTES as u64 + LOAD_KEYS * LOAD_VALUE_BYTES as u64;
    let bound = live + live * 3 / 10 + 64_000_000;
    println!(
        "the file has {} MB for {} MB of live data, at most {} MB",
        after.db_size / 1_000_000,
        live / 1_000_000,
        bound / 1_000_000
    );
    if after.db_size as u64 > bound {
        return Err(Error("the file stays too large".into()));
    }
    if plan.stall_ms > 0 && longest > Duration::from_millis(plan.stall_ms) {
        return Err(Error(format!("a request waited for {longest:?}")));
    }
    Ok(())
}

/// Writes every key several times, the rounds one after the other.
async fn fill(member: &Member, keys: u64) -> Result<(), Error> {
    for round in 0..ROUNDS {
        let mut fillers = JoinSet::new();
        for filler in 0..FILLERS as u64 {
            let kv = Kv::to(member.address());
            let share = keys.div_ceil(FILLERS as u64);
            let (from, to) = (filler * share, ((filler + 1) * share).min(keys));
            fillers.spawn(async move {
                let mut next = from;
                while next < to {
                    let last = (next + BATCH).min(to);
                    let txn = TxnRequest {
                        success: (next..last).map(|key| put(key, round)).collect(),
                        ..TxnRequest::default()
                    };
                    kv.txn(txn).await.map_err(said)?;
                    next = last;
                }
                Ok(())
            });
        }
        join(fillers).await?;
    }
    Ok(())
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

/// Prints what requests of a phase took; gives the longest time.
fn report(name: &str, from: Instant, to: Instant, all: &[Sample]) -> Duration {
    let mut longest = Duration::ZERO;
    for (kind, is_put) in [("put", true), ("get", false)] {
        let in_phase = all.iter().filter(|sample| {
            let end = sample.due + sample.took;
            sample.is_put == is_put && end >= from && sample.due < to
        });
        let mut times: Vec<Duration> = in_phase.map(|sample| sample.took).collect();
        times.sort_unstable();
        let Some(max) = times.last() else { continue };
        let at = |part: f64| times[((times.len() - 1) as f64 * part) as usize];
        println!(
            "{name:>16} {kind}: {} in {:.1} s, p50 {:.2?}, p99 {:.2?}, longest {max:.2?}",
            times.len(),
            (to - from).as_secs_f64(),
            at(0.5),
            at(0.99),
        );
        longest = longest.max(*max);
    }
    longest
}
