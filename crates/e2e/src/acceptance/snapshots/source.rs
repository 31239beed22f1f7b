//! The cluster of which a snapshot is saved while it is written to.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use api::pb::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use api::pb::etcdserverpb::request_op::Request;
use api::pb::etcdserverpb::watch_request::RequestUnion;
use api::pb::etcdserverpb::{
    Compare, DeleteRangeRequest, LeaseGrantRequest, LeaseRevokeRequest, PutRequest, RequestOp,
    TxnRequest, WatchCreateRequest, WatchRequest,
};
use api::pb::mvccpb::Event;
use bytes::Bytes;
use client::stub::{LeaseClient, WatchClient};
use tokio::task::JoinHandle;
use tonic::Status;
use tonic::codegen::tokio_stream::StreamExt as _;
use tonic::codegen::tokio_stream::{once, pending};

use super::check::Wanted;
use super::run_tool;
use crate::kv::{Kv, revision, said};
use crate::random::Random;
use crate::{Cluster, Error};

const WRITERS: u64 = 8;
/// Keys of each writer.
const KEYS: u64 = 150;
const LARGEST: u64 = 6_000;
/// Keys under each lease, and the leases that are there at a time, about.
const KEYS_OF_LEASE: i64 = 3;
const LEASES: i64 = 40;
/// Of every lease, in seconds: none ends by itself.
pub(super) const TTL: i64 = 100_000;
/// Revisions that compactions leave.
const KEPT: i64 = 400;
const LEASE_PERIOD: Duration = Duration::from_millis(20);
const COMPACT_PERIOD: Duration = Duration::from_millis(300);
const PAUSE: Duration = Duration::from_millis(10);
/// Longest wait for a condition.
const LIMIT: Duration = Duration::from_secs(120);

/// How a source is written to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    /// Acknowledged writes before the snapshot.
    pub(super) writes: u64,
    /// Whether compactions go on while it is saved.
    pub(super) compacts_on: bool,
    pub(super) seed: u64,
}

/// When a lease was there.
#[derive(Debug, Default, Clone, Copy)]
struct Life {
    granted: Option<Instant>,
    revoking: Option<Instant>,
    revoked: Option<Instant>,
}

/// What the tasks share.
struct Shared {
    stop: AtomicBool,
    compacts: AtomicBool,
    compactions: AtomicU64,
    writes: AtomicU64,
    /// Revision, key and value of acknowledged puts.
    acks: Mutex<Vec<(i64, Bytes, Bytes)>>,
    events: Mutex<Vec<Event>>,
    leases: Mutex<BTreeMap<i64, Life>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A cluster under writes.
pub(super) struct Source {
    cluster: Cluster,
    pace: Pace,
    shared: Arc<Shared>,
    watcher: JoinHandle<Result<(), Error>>,
    writers: Vec<JoinHandle<Result<(), Error>>>,
    /// When the snapshot was being saved, and the revision of a read before that.
    saved: Option<(Instant, Instant, i64)>,
}

impl Source {
    /// Starts it and waits until as much was written as asked for.
    pub(super) async fn start(etcd: &Path, pace: Pace) -> Result<Source, Error> {
        let cluster = Cluster::start(vec![Some(etcd.to_owned()); 3], &[])?;
        let shared = Arc::new(Shared {
            stop: AtomicBool::new(false),
            compacts: AtomicBool::new(true),
            compactions: AtomicU64::new(0),
            writes: AtomicU64::new(0),
            acks: Mutex::default(),
            events: Mutex::default(),
            leases: Mutex::default(),
        });
        let watcher = tokio::spawn(watch(cluster.kv(0), Arc::clone(&shared)));
        let mut writers = Vec::new();
        for number in 0..WRITERS {
            let kv = cluster.kv(number as usize % 3);
            let random = Random::new(pace.seed.wrapping_mul(1_000) + number);
            writers.push(tokio::spawn(write(kv, Arc::clone(&shared), number, random)));
        }
        writers.push(tokio::spawn(lease(cluster.kv(1), Arc::clone(&shared))));
        writers.push(tokio::spawn(compact(cluster.kv(2), Arc::clone(&shared))));
        let source = Source {
            cluster,
            pace,
            shared,
            watcher,
            writers,
            saved: None,
        };
        source.until(pace.writes).await?;
        Ok(source)
    }

    /// Waits until so many writes were acknowledged.
    async fn until(&self, writes: u64) -> Result<(), Error> {
        let deadline = Instant::now() + LIMIT;
        let few = || {
            self.shared.writes.load(Ordering::Relaxed) < writes
                || self.shared.compactions.load(Ordering::Relaxed) < 3
        };
        while few() {
            if Instant::now() > deadline || self.writers.iter().any(JoinHandle::is_finished) {
                return Err(Error("the writes do not go on".into()));
            }
            tokio::time::sleep(PAUSE).await;
        }
        Ok(())
    }

    /// Has a snapshot saved of a follower, and tells how many writes were acknowledged meanwhile.
    pub(super) async fn save(&mut self, etcdctl: &Path, file: &Path) -> Result<u64, Error> {
        if !self.pace.compacts_on {
            self.shared.compacts.store(false, Ordering::SeqCst);
        }
        let at = (self.cluster.leader().await? + 1) % 3;
        let address = self.cluster.members()[at].address();
        let known = self.cluster.kv(at).revision(false).await.map_err(said)?;
        let (etcdctl, file) = (etcdctl.to_owned(), file.display().to_string());
        let before = self.shared.writes.load(Ordering::Relaxed);
        let began = Instant::now();
        let save = move || {
            let endpoints = format!("--endpoints=http://{address}");
            run_tool(&etcdctl, &[&endpoints, "snapshot", "save", &file])
        };
        tokio::task::spawn_blocking(save)
            .await
            .map_err(|error| Error(error.to_string()))??;
        let during = self.shared.writes.load(Ordering::Relaxed) - before;
        self.saved = Some((began, Instant::now(), known));
        match during {
            0 => Err(Error("nothing was written while it was saved".into())),
            during => Ok(during),
        }
    }

    /// Ends the writes, and tells what a snapshot of this revision holds.
    pub(super) async fn end(mut self, at: i64) -> Result<Wanted, Error> {
        let (began, ended, known) = self.saved.ok_or_else(|| Error("nothing is saved".into()))?;
        self.until(self.pace.writes + 200).await?;
        self.shared.stop.store(true, Ordering::Relaxed);
        for writer in self.writers.drain(..) {
            writer.await.map_err(|error| Error(error.to_string()))??;
        }
        let last = self.cluster.kv(0).revision(false).await.map_err(said)?;
        if at < known || at > last {
            let text = format!("the snapshot is of revision {at}, not of {known} to {last}");
            return Err(Error(text));
        }
        self.told(last).await?;
        let events = std::mem::take(&mut *lock(&self.shared.events));
        check_acks(&lock(&self.shared.acks), &events)?;
        let mut wanted = Wanted::new(at, events);
        (wanted.leases_min, wanted.leases_max) = leases(&lock(&self.shared.leases), began, ended);
        if !self.pace.compacts_on {
            let hash = self.cluster.agreed_hash(at).await?;
            wanted.agree(0, (hash.hash, hash.compact_revision))?;
        }
        Ok(wanted)
    }

    /// Waits until the watcher was told of a revision.
    async fn told(&self, last: i64) -> Result<(), Error> {
        let deadline = Instant::now() + LIMIT;
        let seen = || lock(&self.shared.events).last().map_or(0, revision_of);
        while seen() < last {
            if Instant::now() > deadline || self.watcher.is_finished() {
                let text = format!("the watcher was told of {} and not of {last}", seen());
                return Err(Error(text));
            }
            tokio::time::sleep(PAUSE).await;
        }
        Ok(())
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.watcher.abort();
    }
}

pub(super) fn revision_of(event: &Event) -> i64 {
    event.kv.as_ref().map_or(0, |kv| kv.mod_revision)
}

/// Every acknowledged put stands in the history at its revision.
fn check_acks(acks: &[(i64, Bytes, Bytes)], events: &[Event]) -> Result<(), Error> {
    for (revision, key, value) in acks {
        let from = events.partition_point(|event| revision_of(event) < *revision);
        let there = events[from..]
            .iter()
            .take_while(|event| revision_of(event) == *revision)
            .filter_map(|event| event.kv.as_ref())
            .any(|kv| kv.key == *key && kv.value == *value);
        if !there {
            return Err(Error(format!("LOST: {key:?}, acknowledged at {revision}")));
        }
    }
    Ok(())
}

/// The leases that were there all the time while it was saved, and those that were at any time.
fn leases(
    lives: &BTreeMap<i64, Life>,
    began: Instant,
    ended: Instant,
) -> (BTreeSet<i64>, BTreeSet<i64>) {
    let before = |when: Option<Instant>, limit| when.is_some_and(|when| when < limit);
    let least = lives
        .iter()
        .filter(|(_, life)| before(life.granted, began) && !before(life.revoking, ended));
    let most = lives
        .iter()
        .filter(|(_, life)| !before(life.revoked, began));
    (
        least.map(|(id, _)| *id).collect(),
        most.map(|(id, _)| *id).collect(),
    )
}

/// Writes down everything that happens.
async fn watch(kv: Kv, shared: Arc<Shared>) -> Result<(), Error> {
    let create = WatchCreateRequest {
        key: Bytes::from_static(b"\0"),
        range_end: Bytes::from_static(b"\0"),
        start_revision: 2,
        ..WatchCreateRequest::default()
    };
    let create = WatchRequest {
        request_union: Some(RequestUnion::CreateRequest(create)),
    };
    let mut client = WatchClient::new(kv.channel()).max_decoding_message_size(usize::MAX);
    let answers = client.watch(once(create).chain(pending())).await;
    let mut answers = answers.map_err(said)?.into_inner();
    while let Some(answer) = answers.message().await.map_err(said)? {
        if answer.canceled {
            return Err(Error(format!("the watch ended: {}", answer.cancel_reason)));
        }
        lock(&shared.events).extend(answer.events);
    }
    Ok(())
}

/// One writer, to its end.
async fn write(kv: Kv, shared: Arc<Shared>, number: u64, mut random: Random) -> Result<(), Error> {
    let mut count = 0_u64;
    while !shared.stop.load(Ordering::Relaxed) {
        count += 1;
        let key = |n: u64| Bytes::from(format!("/writer/{number}/{n:03}"));
        let at = random.below(KEYS);
        let filling = "v".repeat(random.below(LARGEST) as usize);
        let value = Bytes::from(format!("{number} {count} {filling}"));
        let done = match random.below(100) {
            0..70 => put(&kv, &shared, key(at), value).await,
            70..80 => kv.delete(key(at), Bytes::new()).await.map(|_| ()),
            80..83 => kv.delete(key(at), key(at + 4)).await.map(|_| ()),
            83..90 => put(&kv, &shared, format!("/shared/{}", at % 20).into(), value).await,
            _ => txn(&kv, [key(at), key(at + KEYS), key(at + 2 * KEYS)], value).await,
        };
        done.map_err(said)?;
        shared.writes.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

async fn put(kv: &Kv, shared: &Shared, key: Bytes, value: Bytes) -> Result<(), Status> {
    let revision = kv.put(key.clone(), value.clone()).await?;
    lock(&shared.acks).push((revision, key, value));
    Ok(())
}

/// Puts two keys and deletes one if that one is there, and else puts it.
async fn txn(kv: &Kv, keys: [Bytes; 3], value: Bytes) -> Result<(), Status> {
    let [first, second, third] = keys;
    let is_there = Compare {
        key: first.clone(),
        target: CompareTarget::Version.into(),
        result: CompareResult::Greater.into(),
        target_union: Some(TargetUnion::Version(0)),
        ..Compare::default()
    };
    let op = |request| RequestOp {
        request: Some(request),
    };
    let put = |key: &Bytes| {
        op(Request::RequestPut(PutRequest {
            key: key.clone(),
            value: value.clone(),
            ..PutRequest::default()
        }))
    };
    let delete = DeleteRangeRequest {
        key: first.clone(),
        ..DeleteRangeRequest::default()
    };
    let request = TxnRequest {
        compare: vec![is_there],
        success: vec![
            put(&second),
            op(Request::RequestDeleteRange(delete)),
            put(&third),
        ],
        failure: vec![put(&first)],
    };
    kv.txn(request).await.map(|_| ())
}

/// Grants leases, puts keys under them, and revokes every other one after a while.
async fn lease(kv: Kv, shared: Arc<Shared>) -> Result<(), Error> {
    let mut client = LeaseClient::new(kv.channel());
    for id in 1_i64.. {
        if shared.stop.load(Ordering::Relaxed) {
            break;
        }
        lock(&shared.leases).insert(id, Life::default());
        let request = LeaseGrantRequest { ttl: TTL, id };
        client.lease_grant(request).await.map_err(said)?;
        lock(&shared.leases).entry(id).or_default().granted = Some(Instant::now());
        for number in 0..KEYS_OF_LEASE {
            let request = PutRequest {
                key: format!("/leased/{id}/{number}").into(),
                value: format!("{number} of {id}").into(),
                lease: id,
                ..PutRequest::default()
            };
            kv.put_request(request).await.map_err(said)?;
        }
        let old = id - LEASES;
        if old > 0 && old % 2 == 0 {
            lock(&shared.leases).entry(old).or_default().revoking = Some(Instant::now());
            let request = LeaseRevokeRequest { id: old };
            client.lease_revoke(request).await.map_err(said)?;
            lock(&shared.leases).entry(old).or_default().revoked = Some(Instant::now());
        }
        tokio::time::sleep(LEASE_PERIOD).await;
    }
    Ok(())
}

/// Compacts what is old.
async fn compact(kv: Kv, shared: Arc<Shared>) -> Result<(), Error> {
    while !shared.stop.load(Ordering::Relaxed) {
        tokio::time::sleep(COMPACT_PERIOD).await;
        let now = kv.revision(false).await.map_err(said)?;
        if now > 2 * KEPT && shared.compacts.load(Ordering::SeqCst) {
            kv.compact(now - KEPT).await.map_err(said)?;
            shared.compactions.fetch_add(1, Ordering::Relaxed);
        }
    }
    Ok(())
}

/// The revision of a put, by a client of its own.
pub(super) async fn put_with(kv: &Kv, key: &str, lease: i64) -> Result<i64, Error> {
    let request = PutRequest {
        key: key.to_owned().into(),
        value: "afterwards".into(),
        lease,
        ..PutRequest::default()
    };
    kv.put_request(request).await.map_err(said)
}

/// Deletes one key if it is there in one request with a put; gives the revision.
pub(super) async fn swap(kv: &Kv, gone: &Bytes, made: &str) -> Result<i64, Error> {
    let op = |request| RequestOp {
        request: Some(request),
    };
    let delete = DeleteRangeRequest {
        key: gone.clone(),
        ..DeleteRangeRequest::default()
    };
    let put = PutRequest {
        key: made.to_owned().into(),
        ..PutRequest::default()
    };
    let request = TxnRequest {
        success: vec![
            op(Request::RequestDeleteRange(delete)),
            op(Request::RequestPut(put)),
        ],
        ..TxnRequest::default()
    };
    Ok(revision(kv.txn(request).await.map_err(said)?.header))
}
