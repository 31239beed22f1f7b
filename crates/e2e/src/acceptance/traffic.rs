//! Writes that go on while members come, go and restart: what was acknowledged must be there at
//! the end, and how long nothing was acknowledged is measured.
//!
//! Each writer puts keys of its own through one member, and goes on to the next one when that
//! fails. A put is repeated until it is acknowledged, which changes nothing: its value follows
//! from its key.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use crate::Error;
use crate::kv::{Keys, Kv};

const WRITERS: usize = 8;
/// A writer begins a put this long after the one before it, at the earliest.
const PERIOD: Duration = Duration::from_millis(10);
/// Longest wait for one answer: an election timeout. What a leader that died had been given is never
/// answered, so that who waits longer sees a longer gap than the cluster has.
const ATTEMPT_LIMIT: Duration = Duration::from_secs(1);
/// Before the next attempt.
const PAUSE: Duration = Duration::from_millis(10);
/// Longest wait for the writes to go on.
const LIMIT: Duration = Duration::from_secs(60);

/// Writers at work; they stop with it.
pub(super) struct Traffic {
    shared: Arc<Shared>,
    writers: Vec<JoinHandle<()>>,
}

struct Shared {
    stop: AtomicBool,
    /// Members that may be written through.
    endpoints: Mutex<Vec<SocketAddr>>,
    record: Mutex<Record>,
}

#[derive(Default)]
struct Record {
    /// In the order of their answers.
    acks: Vec<Ack>,
    /// Attempts that were in vain: when, and why.
    failures: Vec<(Instant, String)>,
}

struct Ack {
    key: String,
    revision: i64,
    began: Instant,
    done: Instant,
}

/// What a stretch of time was like for the writers.
#[derive(Debug)]
pub(super) struct Stretch {
    writes: usize,
    /// The longest time without an answer to anybody.
    pub(super) gap: Duration,
    /// The longest time that one write took, with all its attempts.
    slowest: Duration,
    failures: BTreeMap<String, usize>,
}

impl fmt::Display for Stretch {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Stretch {
            writes,
            gap,
            slowest,
            failures,
        } = self;
        let (gap, slowest) = (gap.as_millis(), slowest.as_millis());
        write!(
            out,
            "{writes} writes, longest gap {gap} ms, slowest write {slowest} ms"
        )?;
        for (why, count) in failures {
            write!(out, "; {count} attempts: {why}")?;
        }
        Ok(())
    }
}

impl Traffic {
    /// Begins to write through these members.
    pub(super) fn start(endpoints: Vec<SocketAddr>) -> Traffic {
        let shared = Arc::new(Shared {
            stop: AtomicBool::new(false),
            endpoints: Mutex::new(endpoints),
            record: Mutex::default(),
        });
        let writers = (0..WRITERS).map(|writer| tokio::spawn(write(Arc::clone(&shared), writer)));
        Traffic {
            writers: writers.collect(),
            shared,
        }
    }

    /// Writes through other members from now on.
    pub(super) fn go_through(&self, endpoints: Vec<SocketAddr>) {
        *lock(&self.shared.endpoints) = endpoints;
    }

    /// Waits until every writer can have written several times from now on.
    ///
    /// # Errors
    /// They do not within a minute.
    pub(super) async fn go_on(&self) -> Result<(), Error> {
        let from = Instant::now();
        let deadline = from + LIMIT;
        loop {
            let stretch = self.since(from);
            if stretch.writes >= 10 * WRITERS {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(Error(format!("the writes do not go on: {stretch}")));
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// What it was like from then on, the time since the last answer included.
    pub(super) fn since(&self, from: Instant) -> Stretch {
        let record = lock(&self.shared.record);
        let now = Instant::now();
        let first = record.acks.partition_point(|ack| ack.done < from);
        let acks = &record.acks[first..];
        let (mut last, mut gap, mut slowest) = (from, Duration::ZERO, Duration::ZERO);
        for ack in acks {
            gap = gap.max(ack.done - last);
            slowest = slowest.max(ack.done - ack.began);
            last = ack.done;
        }
        let mut failures = BTreeMap::new();
        for (when, why) in &record.failures {
            if *when >= from {
                *failures.entry(why.clone()).or_default() += 1;
            }
        }
        Stretch {
            writes: acks.len(),
            gap: gap.max(now - last),
            slowest,
            failures,
        }
    }

    /// Ends the writing, and looks for every acknowledged write among the keys of each member.
    /// Returns how many they were.
    ///
    /// # Errors
    /// One is missing, or has another value, or a member does not answer.
    pub(super) async fn end(mut self, members: &[SocketAddr]) -> Result<usize, Error> {
        self.shared.stop.store(true, Ordering::Relaxed);
        for writer in self.writers.drain(..) {
            writer
                .await
                .map_err(|error| Error(format!("a writer: {error}")))?;
        }
        let acks = std::mem::take(&mut lock(&self.shared.record).acks);
        for member in members {
            let (_, keys) = Kv::to(*member).all(0).await?;
            check(&acks, &keys).map_err(|error| Error(format!("{member}: {error}")))?;
        }
        Ok(acks.len())
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
    }
}

fn check(acks: &[Ack], keys: &Keys) -> Result<(), Error> {
    for Ack { key, revision, .. } in acks {
        let found = keys.get(key.as_bytes());
        // An attempt that was thought to be in vain may have written it again.
        let same = found
            .is_some_and(|kv| kv.value == value(key).as_bytes() && kv.mod_revision >= *revision);
        if !same {
            return Err(Error(format!(
                "LOST: {key}, acknowledged at {revision}, is {found:?}"
            )));
        }
    }
    Ok(())
}

fn value(key: &str) -> String {
    format!("value of {key}")
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One writer, to its end.
async fn write(shared: Arc<Shared>, writer: usize) {
    let mut connections: HashMap<SocketAddr, Kv> = HashMap::new();
    let mut at = writer;
    for number in 0_u64.. {
        let key = format!("/traffic/{writer}/{number}");
        let began = Instant::now();
        while !shared.stop.load(Ordering::Relaxed) {
            let endpoint = {
                let endpoints = lock(&shared.endpoints);
                endpoints[at % endpoints.len()]
            };
            let kv = connections
                .entry(endpoint)
                .or_insert_with(|| Kv::to(endpoint));
            let put = kv.put(key.clone().into(), value(&key).into());
            let why = match tokio::time::timeout(ATTEMPT_LIMIT, put).await {
                Ok(Ok(revision)) => {
                    let mut record = lock(&shared.record);
                    let done = Instant::now();
                    record.acks.push(Ack {
                        key,
                        revision,
                        began,
                        done,
                    });
                    break;
                }
                Ok(Err(status)) => format!("{:?} {}", status.code(), status.message()),
                Err(_) => format!("no answer in {ATTEMPT_LIMIT:?}"),
            };
            lock(&shared.record).failures.push((Instant::now(), why));
            at += 1;
            tokio::time::sleep(PAUSE).await;
        }
        if shared.stop.load(Ordering::Relaxed) {
            return;
        }
        tokio::time::sleep_until((began + PERIOD).into()).await;
    }
}
