//! What a cluster that was made of a snapshot must serve.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

use api::pb::etcdserverpb::{
    LeaseGrantRequest, LeaseLeasesRequest, LeaseRevokeRequest, LeaseTimeToLiveRequest, RangeRequest,
};
use api::pb::mvccpb::Event;
use api::pb::mvccpb::event::EventType;
use bytes::Bytes;
use client::stub::LeaseClient;

use super::super::expect_keys;
use super::source::{TTL, put_with, revision_of, swap};
use crate::kv::{Keys, Kv, said};
use crate::{Cluster, Error};

/// Revisions before the snapshot's that are read.
const OLDER: i64 = 3;

/// What must come out of a snapshot.
pub(super) struct Wanted {
    revision: i64,
    pub(super) keys: Keys,
    /// All events up to the revision.
    history: Vec<Event>,
    /// Leases that must be there, and those that may.
    pub(super) leases_min: BTreeSet<i64>,
    pub(super) leases_max: BTreeSet<i64>,
    agreed: Mutex<Agreed>,
}

/// What the first cluster had, which the others must have too.
#[derive(Default)]
struct Agreed {
    /// Hash and compact revision, by how far the revision was raised.
    hashes: BTreeMap<i64, (u32, i64)>,
    leases: Option<BTreeSet<i64>>,
}

/// The keys that a history leaves.
fn replay(history: &[Event], at: i64) -> Keys {
    let mut keys = Keys::new();
    for event in history.iter().take_while(|event| revision_of(event) <= at) {
        let kv = event.kv.clone().unwrap_or_default();
        match event.r#type == i32::from(EventType::Put) {
            true => keys.insert(kv.key.clone(), kv),
            false => keys.remove(&kv.key),
        };
    }
    keys
}

impl Wanted {
    /// A snapshot at this revision of a store with this history.
    pub(super) fn new(revision: i64, mut history: Vec<Event>) -> Wanted {
        history.retain(|event| revision_of(event) <= revision);
        Wanted {
            revision,
            keys: replay(&history, revision),
            history,
            leases_min: BTreeSet::new(),
            leases_max: BTreeSet::new(),
            agreed: Mutex::default(),
        }
    }

    /// Takes the first hash, and compares others with it.
    pub(super) fn agree(&self, bump: i64, hash: (u32, i64)) -> Result<(), Error> {
        let mut agreed = self.agreed.lock().unwrap_or_else(PoisonError::into_inner);
        match *agreed.hashes.entry(bump).or_insert(hash) {
            first if first == hash => Ok(()),
            first => Err(Error(format!(
                "the hash and its compact revision are {hash:?}, not {first:?}"
            ))),
        }
    }

    fn agree_on_leases(&self, leases: &BTreeSet<i64>) -> Result<(), Error> {
        let missing = self.leases_min.difference(leases).next();
        let wrong = leases.difference(&self.leases_max).next();
        if missing.or(wrong).is_some() {
            let text = format!("lease {missing:?} is missing, or {wrong:?} should not be there");
            return Err(Error(text));
        }
        let mut agreed = self.agreed.lock().unwrap_or_else(PoisonError::into_inner);
        match agreed.leases.get_or_insert_with(|| leases.clone()) {
            first if first == leases => Ok(()),
            first => Err(Error(format!("the leases are {leases:?}, not {first:?}"))),
        }
    }

    /// The keys under a lease.
    fn under(&self, lease: i64) -> BTreeSet<Bytes> {
        let under = self.keys.values().filter(|kv| kv.lease == lease);
        under.map(|kv| kv.key.clone()).collect()
    }
}

/// Every member serves what is wanted, with the revision raised so far, and they go on.
///
/// # Errors
/// The first thing that is wrong.
pub(super) async fn serves(cluster: &Cluster, wanted: &Wanted, bump: i64) -> Result<(), Error> {
    cluster.leader().await?;
    let now = wanted.revision + bump;
    let hash = cluster.agreed_hash(now).await?;
    wanted.agree(bump, (hash.hash, hash.compact_revision))?;
    let mut leases = BTreeSet::new();
    for at in 0..cluster.members().len() {
        let kv = cluster.kv(at);
        let (revision, keys) = kv.all(0).await?;
        if revision != now {
            return Err(Error(format!("m{at} is at revision {revision}, not {now}")));
        }
        expect_keys(&wanted.keys, &keys, &format!("m{at}"))?;
        past(&kv, wanted, hash.compact_revision)
            .await
            .map_err(|error| Error(format!("m{at}: {error}")))?;
        leases = leases_of(&kv, wanted).await?;
        wanted.agree_on_leases(&leases)?;
    }
    goes_on(cluster, wanted, now, &leases).await
}

/// What was is there from the compacted revision on, and refused before.
async fn past(kv: &Kv, wanted: &Wanted, compacted: i64) -> Result<(), Error> {
    let refused = RangeRequest {
        key: "a".into(),
        revision: (compacted - 1).min(wanted.revision),
        ..RangeRequest::default()
    };
    match kv.range(refused).await {
        Err(status) if status.message().contains("has been compacted") => {}
        other => return Err(Error(format!("below revision {compacted}: {other:?}"))),
    }
    if compacted >= wanted.revision {
        return Ok(());
    }
    for part in 0..OLDER {
        let at = compacted + (wanted.revision - compacted) * part / OLDER;
        let (_, keys) = kv.all(at).await?;
        expect_keys(
            &replay(&wanted.history, at),
            &keys,
            &format!("revision {at}"),
        )?;
    }
    Ok(())
}

/// The leases of a member, each with its time and its keys.
async fn leases_of(kv: &Kv, wanted: &Wanted) -> Result<BTreeSet<i64>, Error> {
    let mut client = LeaseClient::new(kv.channel());
    let answer = client.lease_leases(LeaseLeasesRequest {}).await;
    let leases = answer.map_err(said)?.into_inner().leases;
    let leases: BTreeSet<i64> = leases.iter().map(|lease| lease.id).collect();
    for id in &leases {
        let request = LeaseTimeToLiveRequest {
            id: *id,
            keys: true,
        };
        let answer = client.lease_time_to_live(request).await;
        let answer = answer.map_err(said)?.into_inner();
        let keys: BTreeSet<Bytes> = answer.keys.into_iter().collect();
        if answer.granted_ttl != TTL || keys != wanted.under(*id) {
            return Err(Error(format!(
                "lease {id} of {} s has {keys:?}, not {:?}",
                answer.granted_ttl,
                wanted.under(*id)
            )));
        }
    }
    Ok(leases)
}

/// Writes through every member, of every kind, and every member has them.
async fn goes_on(
    cluster: &Cluster,
    wanted: &Wanted,
    now: i64,
    leases: &BTreeSet<i64>,
) -> Result<(), Error> {
    let mut next = now;
    let mut expect = |revision: i64, what: &str| {
        next += 1;
        match revision == next {
            true => Ok(()),
            false => Err(Error(format!(
                "{what} made revision {revision}, not {next}"
            ))),
        }
    };
    let mut model = wanted.keys.clone();
    let free = wanted.keys.values().filter(|kv| kv.lease == 0);
    let mut free = free.map(|kv| kv.key.clone());
    for at in 0..cluster.members().len() {
        let kv = cluster.kv(at);
        let mut client = LeaseClient::new(kv.channel());
        let id = i64::MAX - at as i64;
        let grant = LeaseGrantRequest { ttl: TTL, id };
        client.lease_grant(grant).await.map_err(said)?;
        expect(put_with(&kv, &format!("/new/{at}"), id).await?, "a put")?;
        let gone = free.next().ok_or_else(|| Error("there is no key".into()))?;
        expect(swap(&kv, &gone, &format!("/swap/{at}")).await?, "a txn")?;
        model.remove(&gone);
        let mut full = leases.iter().filter(|id| !wanted.under(**id).is_empty());
        let id = full.nth(at).copied();
        let id = id.ok_or_else(|| Error("no lease has keys".into()))?;
        let revoke = LeaseRevokeRequest { id };
        let answer = client
            .lease_revoke(revoke)
            .await
            .map_err(said)?
            .into_inner();
        let header = answer.header.unwrap_or_default();
        expect(header.revision, "the end of a lease")?;
        model.retain(|_, kv| kv.lease != id);
    }
    for at in 0..cluster.members().len() {
        let (_, keys) = cluster.kv(at).all(0).await?;
        let is_new = |key: &Bytes| key.starts_with(b"/new/") || key.starts_with(b"/swap/");
        let (new, old): (Keys, Keys) = keys.into_iter().partition(|(key, _)| is_new(key));
        expect_keys(&model, &old, &format!("m{at} afterwards"))?;
        if new.len() != 2 * cluster.members().len() {
            return Err(Error(format!("m{at} has of the new keys {:?}", new.keys())));
        }
    }
    cluster.agreed_hash(next).await.map(|_| ())
}
