//! The package database written by three kinds of client at once and watched by three.
//!
//! etcdctl puts its share one process a key, curl posts its share over one connection, the rest
//! comes by gRPC; each key is under the lease of its package. A gRPC client, an `etcdctl watch`
//! and a JSON stream that curl reads watch all of it from the first revision on. The server is
//! killed while all three write. At the end some leases are revoked and some are left to expire.
//!
//! Every write of the story is below the watched prefix, so every revision has an event: a
//! watcher that missed, repeated or mixed up anything shows a gap or a step back.

mod history;
mod leases;
mod load;
mod watchers;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use crate::kv::{Keys, Kv, said};
use crate::random::Random;
use crate::{Error, Member, Options, dpkg};

use history::{Event, Log};

/// What `writers` needs.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The server under test.
    pub binary: PathBuf,
    /// The etcdctl that writes and watches.
    pub etcdctl: PathBuf,
    /// The package database.
    pub database: PathBuf,
    /// How often the member is killed while it loads.
    pub kills: usize,
    /// Chooses the moments of the kills.
    pub seed: u64,
}

/// Everything is watched from here.
const PREFIX: &str = "/";
const PREFIX_END: &str = "0";

/// One key to write.
#[derive(Debug, Clone)]
struct Record {
    key: Bytes,
    value: Bytes,
    lease: i64,
}

/// A write that a server acknowledged.
#[derive(Debug, Clone, Copy)]
struct Ack {
    /// Position among the records.
    record: usize,
    revision: i64,
}

/// Loads, kills, watches, revokes and waits.
///
/// # Errors
/// The first thing that is wrong.
pub async fn run(plan: &Plan) -> Result<(), Error> {
    let begin = Instant::now();
    let (packages, records) = read(plan)?;
    let options = Options {
        binary: Some(plan.binary.clone()),
        ..Options::default()
    };
    let mut member = Member::start(options)?;
    let kv = Kv::to(member.address());
    let first = kv.revision(false).await.map_err(said)? + 1;
    let leases = leases::grant(&kv, &packages, &records).await?;
    let watchers = watchers::start(plan, member.address(), first).await?;
    let keeping = leases.keep(kv.clone());

    let records = Arc::new(records);
    let mut random = Random::new(plan.seed);
    let acks = load::run(plan, &records, &mut member, &mut random).await?;
    let loaded = kv.revision(false).await.map_err(said)?;
    let logs = watchers.wait_for(loaded).await?;
    check_logs(&logs, first, loaded)?;
    check_acks(&logs[0].1, first, &records, &acks)?;
    check_keys(&kv, &logs[0].1, &records).await?;
    println!(
        "{} revisions, all acknowledged writes among them, {:.1} s",
        loaded - first + 1,
        begin.elapsed().as_secs_f64()
    );

    leases.revoke(plan, member.address(), &kv).await?;
    leases.expire(keeping, &kv).await?;
    let last = kv.revision(false).await.map_err(said)?;
    let logs = watchers.stop_at(last).await?;
    check_logs(&logs, first, last)?;
    leases.check_gone(&logs[0].1, loaded, &records)?;
    let left = check_keys(&kv, &logs[0].1, &records).await?;
    println!(
        "{left} keys are left, {:.1} s",
        begin.elapsed().as_secs_f64()
    );
    Ok(())
}

/// The packages by name with their lease, and the records in the order of the database.
fn read(plan: &Plan) -> Result<(BTreeMap<String, i64>, Vec<Record>), Error> {
    let records = dpkg::read(&plan.database)?;
    if records.len() < load::FEWEST {
        return Err(Error(format!("{} keys are too few", records.len())));
    }
    let mut packages = BTreeMap::new();
    for record in &records {
        packages.insert(package_of(&record.key), 0);
    }
    for (lease, number) in packages.values_mut().zip(1..) {
        *lease = leases::FIRST + number;
    }
    let with_lease = records.into_iter().map(|record| Record {
        lease: packages[&package_of(&record.key)],
        key: record.key,
        value: record.value,
    });
    let records = with_lease.collect();
    Ok((packages, records))
}

/// `/dpkg/<package>` or `/files/<package>/<n>`.
fn package_of(key: &[u8]) -> String {
    let key = String::from_utf8_lossy(key);
    key.split('/').nth(2).unwrap_or_default().to_owned()
}

/// All watchers saw the same, from the first revision to the last.
fn check_logs(logs: &[(&'static str, Log)], first: i64, last: i64) -> Result<(), Error> {
    let (name, one) = &logs[0];
    for (other_name, other) in logs {
        if other.first() != Some(first) || other.last() != last {
            return Err(Error(format!(
                "{other_name} saw {:?} to {}, not {first} to {last}",
                other.first(),
                other.last()
            )));
        }
        if let Some((mine, theirs)) = one.first_difference(other) {
            return Err(Error(format!(
                "{name} saw {mine:?}, {other_name} saw {theirs:?}"
            )));
        }
    }
    let counts: Vec<String> = logs
        .iter()
        .map(|(name, log)| format!("{name} {} in {} answers", log.events().len(), log.answers()))
        .collect();
    println!("events seen: {}", counts.join(", "));
    Ok(())
}

/// Each acknowledged write stands in the history at its revision.
fn check_acks(log: &Log, first: i64, records: &[Record], acks: &[Ack]) -> Result<(), Error> {
    for ack in acks {
        let record = &records[ack.record];
        // While the database is loaded each revision is one put.
        let event = usize::try_from(ack.revision - first)
            .ok()
            .and_then(|at| log.events().get(at));
        let same = event.is_some_and(|event| {
            event.revision == ack.revision
                && !event.deleted
                && event.key == record.key
                && event.value == record.value
                && event.lease == record.lease
        });
        if !same {
            return Err(Error(format!(
                "LOST: {ack:?} of {:?}, seen {event:?}",
                record.key
            )));
        }
    }
    Ok(())
}

/// The store is what the history ends with. Returns how many keys that are.
async fn check_keys(kv: &Kv, log: &Log, records: &[Record]) -> Result<usize, Error> {
    let (_, keys) = kv.all(0).await?;
    let mut wanted: BTreeMap<&Bytes, &Event> = BTreeMap::new();
    for event in log.events() {
        match event.deleted {
            true => wanted.remove(&event.key),
            false => wanted.insert(&event.key, event),
        };
    }
    if wanted.len() != keys.len() {
        return Err(Error(format!(
            "{} keys, the events make {}",
            keys.len(),
            wanted.len()
        )));
    }
    for (key, event) in wanted {
        let kv = keys.get(key);
        let same = kv.is_some_and(|kv| {
            kv.mod_revision == event.revision && kv.value == event.value && kv.lease == event.lease
        });
        if !same {
            return Err(Error(format!(
                "{key:?} is {kv:?}, the events say {event:?}"
            )));
        }
    }
    check_values(&keys, records)?;
    Ok(keys.len())
}

fn check_values(keys: &Keys, records: &[Record]) -> Result<(), Error> {
    let wrong = records.iter().find(|record| {
        let kv = keys.get(&record.key);
        kv.is_some_and(|kv| kv.value != record.value)
    });
    match wrong {
        Some(record) => Err(Error(format!("{:?} reads back wrong", record.key))),
        None => Ok(()),
    }
}
