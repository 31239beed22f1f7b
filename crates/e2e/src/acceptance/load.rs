//! The load, under kills: nothing that was acknowledged is lost, no revision comes twice.

use std::collections::HashSet;
use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::{Plan, expect_keys};
use crate::dpkg::Record;
use crate::kv::{Keys, Kv, said};
use crate::random::Random;
use crate::{Error, Member};

/// Records that the old command line tool puts, one process each.
const BY_OLD_CTL: usize = 40;
/// Connections that the clients share.
const CONNECTIONS: usize = 8;
/// Longest time that a client tries one record.
const PATIENCE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(5);

/// A write that the server acknowledged.
#[derive(Debug, Clone, Copy)]
struct Ack {
    record: usize,
    revision: i64,
}

struct Shared {
    records: Vec<Record>,
    next: AtomicUsize,
    acks: Mutex<Vec<Ack>>,
    acknowledged: AtomicUsize,
    retried: AtomicUsize,
    done: AtomicBool,
}

/// Loads every record and returns the state at the end.
pub(super) async fn run(
    plan: &Plan,
    records: &[Record],
    member: &mut Member,
    random: &mut Random,
) -> Result<Keys, Error> {
    let first = match &plan.old_ctl {
        Some(ctl) => by_old_ctl(ctl, member.address(), &records[..BY_OLD_CTL])?,
        None => 0,
    };
    let shared = Arc::new(Shared {
        records: records.to_vec(),
        next: AtomicUsize::new(first),
        acks: Mutex::new(Vec::new()),
        acknowledged: AtomicUsize::new(0),
        retried: AtomicUsize::new(0),
        done: AtomicBool::new(false),
    });
    let begin = Instant::now();
    let connections: Vec<Kv> = (0..CONNECTIONS).map(|_| Kv::to(member.address())).collect();
    let clients: Vec<_> = (0..plan.clients)
        .map(|index| {
            tokio::spawn(client(
                shared.clone(),
                connections[index % CONNECTIONS].clone(),
            ))
        })
        .collect();
    let monitor = tokio::spawn(monitor(shared.clone(), Kv::to(member.address())));
    kill_and_check(plan, &shared, member, random).await?;
    for client in clients {
        client.await.map_err(|error| Error(error.to_string()))??;
    }
    shared.done.store(true, Ordering::Release);
    let looks = monitor.await.map_err(|error| Error(error.to_string()))??;
    println!(
        "{} keys in {:.1} s with {} kills; {} calls were repeated; {looks} looks at the revision",
        records.len(),
        begin.elapsed().as_secs_f64(),
        plan.kills,
        shared.retried.load(Ordering::Relaxed),
    );
    check_end(&shared, member, first).await
}

/// Debian's etcdctl 3.4 puts the first records and reads one back.
fn by_old_ctl(ctl: &Path, address: SocketAddr, records: &[Record]) -> Result<usize, Error> {
    let command = |words: &[&str]| {
        let mut command = Command::new(ctl);
        command
            .env("ETCDCTL_API", "3")
            .arg(format!("--endpoints=http://{address}"))
            .args(words);
        command
    };
    for record in records {
        let key = String::from_utf8_lossy(&record.key);
        let mut child = command(&["put", "--", &key])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()?;
        if let Some(mut input) = child.stdin.take() {
            input.write_all(&record.value)?;
        }
        let status = child.wait()?;
        if !status.success() {
            return Err(Error(format!("etcdctl put {key}: {status}")));
        }
    }
    let key = String::from_utf8_lossy(&records[0].key);
    let output = command(&["get", "--print-value-only", "--", &key]).output()?;
    let same = output.stdout.strip_suffix(b"\n") == Some(&records[0].value);
    if !same {
        return Err(Error(format!("etcdctl get {key} gave something else")));
    }
    println!("{} keys by {}", records.len(), ctl.display());
    Ok(records.len())
}

async fn client(shared: Arc<Shared>, kv: Kv) -> Result<(), Error> {
    loop {
        let record = shared.next.fetch_add(1, Ordering::Relaxed);
        let Some(Record { key, value }) = shared.records.get(record) else {
            return Ok(());
        };
        let begin = Instant::now();
        let revision = loop {
            match kv.put(key.clone(), value.clone()).await {
                Ok(revision) => break revision,
                // A refusal is never the answer here; a broken connection says nothing.
                Err(status) if status.message().starts_with("etcdserver: ") => {
                    return Err(said(status));
                }
                Err(status) if begin.elapsed() > PATIENCE => return Err(said(status)),
                Err(_) => {
                    shared.retried.fetch_add(1, Ordering::Relaxed);
                    tokio::time::sleep(PAUSE).await;
                }
            }
        };
        shared
            .acks
            .lock()
            .expect("no holder panics")
            .push(Ack { record, revision });
        shared.acknowledged.fetch_add(1, Ordering::Release);
    }
}

/// Looks at the revision all the time; it may never fall.
async fn monitor(shared: Arc<Shared>, kv: Kv) -> Result<usize, Error> {
    let mut highest = 0;
    let mut looks = 0;
    while !shared.done.load(Ordering::Acquire) {
        // Nothing is said when the member is down.
        if let Ok(revision) = kv.revision(looks % 2 == 0).await {
            if revision < highest {
                return Err(Error(format!(
                    "the revision fell from {highest} to {revision}"
                )));
            }
            highest = revision;
            looks += 1;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    Ok(looks)
}

/// Kills at random moments; after each start everything acknowledged before must be there.
async fn kill_and_check(
    plan: &Plan,
    shared: &Shared,
    member: &mut Member,
    random: &mut Random,
) -> Result<(), Error> {
    let total = shared.records.len() as u64;
    // None in the last tenth: the last kill should still find writers.
    let mut moments: Vec<u64> = (0..plan.kills)
        .map(|_| random.below(total * 9 / 10))
        .collect();
    moments.sort_unstable();
    for moment in moments {
        let begin = Instant::now();
        while (shared.acknowledged.load(Ordering::Acquire) as u64) < moment {
            if begin.elapsed() > PATIENCE {
                return Err(Error(format!(
                    "stuck before kill at {moment}:\n{}",
                    member.log()
                )));
            }
            tokio::time::sleep(Duration::from_micros(200)).await;
        }
        tokio::time::sleep(Duration::from_micros(random.below(3000))).await;
        member.kill()?;
        let acks: Vec<Ack> = shared.acks.lock().expect("no holder panics").clone();
        let down = Instant::now();
        tokio::task::block_in_place(|| member.restart())?;
        let up = down.elapsed();
        let kv = Kv::to(member.address());
        let (revision, keys) = kv.all(0).await?;
        check_acks(shared, &acks, revision, &keys)?;
        println!(
            "killed after {} acknowledgements, healthy again in {:.0} ms: revision {revision}, all there",
            acks.len(),
            up.as_secs_f64() * 1000.0,
        );
    }
    Ok(())
}

fn check_acks(shared: &Shared, acks: &[Ack], revision: i64, keys: &Keys) -> Result<(), Error> {
    let mut seen = HashSet::new();
    for ack in acks {
        let Record { key, value } = &shared.records[ack.record];
        let kv = keys
            .get(key)
            .ok_or_else(|| Error(format!("LOST: {key:?}, {ack:?}")))?;
        if kv.value != value || kv.mod_revision != ack.revision {
            return Err(Error(format!("CHANGED: {key:?} is {kv:?}, {ack:?}")));
        }
        if !seen.insert(ack.revision) {
            return Err(Error(format!("TWICE: revision {}", ack.revision)));
        }
        if ack.revision > revision {
            return Err(Error(format!("FELL: to {revision} below {}", ack.revision)));
        }
    }
    let mut revisions = HashSet::new();
    match keys.values().find(|kv| !revisions.insert(kv.mod_revision)) {
        Some(kv) => Err(Error(format!(
            "TWICE: revision {} in the store",
            kv.mod_revision
        ))),
        None => Ok(()),
    }
}

/// At the end everything is there, and nothing else.
async fn check_end(shared: &Shared, member: &Member, first: usize) -> Result<Keys, Error> {
    let acks = shared.acks.lock().expect("no holder panics").clone();
    if acks.len() + first != shared.records.len() {
        return Err(Error(format!("{} acknowledgements", acks.len())));
    }
    let (revision, keys) = Kv::to(member.address()).all(0).await?;
    check_acks(shared, &acks, revision, &keys)?;
    let mut wanted = Keys::new();
    for record in &shared.records {
        let kv = keys.get(&record.key).filter(|kv| kv.value == record.value);
        let kv = kv.ok_or_else(|| Error(format!("{:?} reads back wrong", record.key)))?;
        wanted.insert(record.key.clone(), kv.clone());
    }
    expect_keys(&wanted, &keys, "after the load")?;
    println!("{} keys read back equal at revision {revision}", keys.len());
    Ok(keys)
}
