//! A lease for each package; some are revoked and some expire.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::process::Command;
use std::time::{Duration, Instant};

use api::pb::etcdserverpb::{
    LeaseGrantRequest, LeaseKeepAliveRequest, LeaseLeasesRequest, LeaseRevokeRequest,
};
use bytes::Bytes;
use client::stub::LeaseClient;
use tonic::codegen::tokio_stream;
use tonic::transport::Channel;

use super::history::Log;
use super::{Plan, Record, package_of};
use crate::Error;
use crate::kv::{Kv, said};

/// Ids are counted from here.
pub(super) const FIRST: i64 = 0x10_0000;
/// Seconds that a lease lives that nobody lets go.
const LONG: i64 = 3600;
/// Seconds that a lease lives which will be left to expire; it is kept alive until then.
const SHORT: i64 = 12;
const KEEP_ALIVE_EVERY: Duration = Duration::from_secs(2);
/// Every so manieth package is revoked, and another expires.
const EVERY: i64 = 10;
/// Longest wait for leases to expire.
const LIMIT: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(50);

/// What becomes of the leases.
pub(super) struct Leases {
    all: usize,
    revoked: Vec<i64>,
    expiring: Vec<i64>,
}

/// Keeps the short leases alive until it is dropped.
pub(super) struct Keeping(tokio::task::JoinHandle<Error>);

impl Drop for Keeping {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn stub(kv: &Kv) -> LeaseClient<Channel> {
    LeaseClient::new(kv.channel())
}

/// Grants a lease for each package.
///
/// # Errors
/// What the server says.
pub(super) async fn grant(
    kv: &Kv,
    packages: &BTreeMap<String, i64>,
    records: &[Record],
) -> Result<Leases, Error> {
    let mut sizes: BTreeMap<i64, usize> = BTreeMap::new();
    for record in records {
        *sizes.entry(record.lease).or_default() += 1;
    }
    let largest = sizes
        .into_iter()
        .max_by_key(|(_, size)| *size)
        .map(|(lease, _)| lease);
    let mut leases = Leases {
        all: packages.len(),
        revoked: Vec::new(),
        expiring: Vec::new(),
    };
    for &id in packages.values() {
        let mut ttl = LONG;
        // The largest package goes in one revision.
        if Some(id) == largest || id % EVERY == 3 {
            leases.revoked.push(id);
        } else if id % EVERY == 7 {
            leases.expiring.push(id);
            ttl = SHORT;
        }
        let request = LeaseGrantRequest { ttl, id };
        stub(kv).lease_grant(request).await.map_err(said)?;
    }
    Ok(leases)
}

impl Leases {
    /// Keeps alive what shall not expire yet.
    pub(super) fn keep(&self, kv: Kv) -> Keeping {
        let expiring = self.expiring.clone();
        Keeping(tokio::spawn(async move {
            loop {
                match keep_alive(&kv, &expiring).await {
                    Ok(None) => tokio::time::sleep(KEEP_ALIVE_EVERY).await,
                    Ok(Some(id)) => return Error(format!("lease {id:x} expired too early")),
                    // The server is down.
                    Err(_) => tokio::time::sleep(PAUSE).await,
                }
            }
        }))
    }

    /// Revokes by each kind of client in turn.
    ///
    /// # Errors
    /// What the server or a program says.
    pub(super) async fn revoke(
        &self,
        plan: &Plan,
        address: SocketAddr,
        kv: &Kv,
    ) -> Result<(), Error> {
        for (&id, number) in self.revoked.iter().zip(0..) {
            match number % 3 {
                0 => {
                    let request = LeaseRevokeRequest { id };
                    stub(kv).lease_revoke(request).await.map_err(said)?;
                }
                1 => {
                    let mut etcdctl = Command::new(&plan.etcdctl);
                    etcdctl.arg(format!("--endpoints=http://{address}"));
                    let id = format!("{id:x}");
                    expect(etcdctl.args(["lease", "revoke", &id]), "revoked")?;
                }
                _ => {
                    let mut curl = Command::new("curl");
                    curl.args(["--silent", "--data", &format!(r#"{{"ID":"{id}"}}"#)]);
                    curl.arg(format!("http://{address}/v3/lease/revoke"));
                    expect(&mut curl, "header")?;
                }
            }
        }
        println!("{} leases were revoked", self.revoked.len());
        Ok(())
    }

    /// Stops keeping the short ones alive and waits until they are gone.
    ///
    /// # Errors
    /// One that went too early or stays, or another that is missing.
    pub(super) async fn expire(&self, keeping: Keeping, kv: &Kv) -> Result<(), Error> {
        let mut keeping = keeping;
        if keeping.0.is_finished() {
            let error = (&mut keeping.0).await;
            return Err(error.unwrap_or_else(|error| Error(error.to_string())));
        }
        drop(keeping);
        let begin = Instant::now();
        let left = self.all - self.revoked.len() - self.expiring.len();
        loop {
            let answer = stub(kv).lease_leases(LeaseLeasesRequest {}).await;
            let leases = answer.map_err(said)?.into_inner().leases;
            let listed: BTreeSet<i64> = leases.iter().map(|lease| lease.id).collect();
            if !self.expiring.iter().any(|id| listed.contains(id)) {
                if listed.len() != left {
                    return Err(Error(format!("{} leases, not {left}", listed.len())));
                }
                break;
            }
            if begin.elapsed() > LIMIT {
                return Err(Error("leases do not expire".into()));
            }
            tokio::time::sleep(PAUSE).await;
        }
        println!(
            "{} leases expired in {:.1} s, {left} are left",
            self.expiring.len(),
            begin.elapsed().as_secs_f64()
        );
        Ok(())
    }

    /// After `loaded`, each revision deleted all the keys of one package that had to go.
    ///
    /// # Errors
    /// A key that went without its package, or should have stayed, or did not go.
    pub(super) fn check_gone(
        &self,
        log: &Log,
        loaded: i64,
        records: &[Record],
    ) -> Result<(), Error> {
        let mut wanted: BTreeMap<i64, BTreeSet<&Bytes>> = BTreeMap::new();
        for record in records {
            wanted.entry(record.lease).or_default().insert(&record.key);
        }
        let going: BTreeSet<i64> = self.revoked.iter().chain(&self.expiring).copied().collect();
        wanted.retain(|lease, _| going.contains(lease));
        let lease_of: BTreeMap<String, i64> = records
            .iter()
            .map(|record| (package_of(&record.key), record.lease))
            .collect();
        let mut gone: BTreeMap<i64, BTreeSet<&Bytes>> = BTreeMap::new();
        for event in log.events().iter().filter(|event| event.revision > loaded) {
            if !event.deleted {
                return Err(Error(format!("a put after the load: {:?}", event.key)));
            }
            gone.entry(event.revision).or_default().insert(&event.key);
        }
        let mut deleted = 0;
        for (revision, keys) in gone {
            let package = keys.first().map(|key| package_of(key)).unwrap_or_default();
            let lease = lease_of.get(&package).copied().unwrap_or_default();
            if wanted.remove(&lease).as_ref() != Some(&keys) {
                return Err(Error(format!(
                    "revision {revision} deleted {} keys, not those of {package}",
                    keys.len()
                )));
            }
            deleted += keys.len();
        }
        if let Some(lease) = wanted.keys().next() {
            return Err(Error(format!("the keys of lease {lease:x} are not gone")));
        }
        println!("{deleted} keys of {} packages went with them", going.len());
        Ok(())
    }
}

/// Renews each lease once. Returns one that is gone.
async fn keep_alive(kv: &Kv, leases: &[i64]) -> Result<Option<i64>, tonic::Status> {
    let requests: Vec<LeaseKeepAliveRequest> = leases
        .iter()
        .map(|&id| LeaseKeepAliveRequest { id })
        .collect();
    let stream = tokio_stream::iter(requests);
    let mut answers = stub(kv).lease_keep_alive(stream).await?.into_inner();
    while let Some(answer) = answers.message().await? {
        if answer.ttl <= 0 {
            return Ok(Some(answer.id));
        }
    }
    Ok(None)
}

fn expect(command: &mut Command, text: &str) -> Result<(), Error> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command
        .output()
        .map_err(|error| Error(format!("cannot run {program}: {error}")))?;
    let said = String::from_utf8_lossy(&output.stdout);
    match output.status.success() && said.contains(text) {
        true => Ok(()),
        false => Err(Error(format!(
            "{program}: {}: {said}{}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        ))),
    }
}
