//! What a cluster of three lives through, whoever its members are.

use api::pb::etcdserverpb::{
    LeaseGrantRequest, LeaseKeepAliveRequest, LeaseTimeToLiveRequest, RangeRequest,
};
use client::stub::LeaseClient;
use tonic::codegen::tokio_stream;

use super::Cluster;
use crate::Error;
use crate::kv::said;

/// Keys that are put through each member in turn.
const KEYS: usize = 60;

/// Writes through every endpoint, kills the leader, goes on without it, and takes it back from the
/// log; every member ends with the same hash.
///
/// # Errors
/// What did not go as it must.
pub async fn run(cluster: &mut Cluster) -> Result<(), Error> {
    write_and_read(cluster).await?;
    for round in 0..2 {
        let leader = cluster.leader().await?;
        cluster.member(leader).kill()?;
        let other = (leader + 1) % 3;
        for n in 0..KEYS {
            let (key, value) = (format!("without-{round}-{n}"), format!("v{n}"));
            cluster.put_until_done(other, &key, &value).await?;
        }
        cluster.member(leader).restart()?;
        let revision = cluster.put_until_done(leader, "back", "again").await?;
        cluster.agreed_hash(revision).await?;
    }
    stop_the_leader(cluster).await
}

/// Flags under which the log soon no longer reaches a member that was away.
pub const SHORT_LOG: [&str; 2] = ["--snapshot-count=50", "--snapshot-catchup-entries=10"];

/// Each member in turn is away for longer than the log reaches back, and gets the database. Needs
/// [`SHORT_LOG`].
///
/// # Errors
/// What did not go as it must.
pub async fn fall_behind(cluster: &mut Cluster) -> Result<(), Error> {
    for away in 0..3 {
        cluster.member(away).kill()?;
        let other = (away + 1) % 3;
        for n in 0..2 * KEYS {
            let key = format!("away-{away}-{n}");
            cluster.put_until_done(other, &key, "value").await?;
        }
        cluster.member(away).restart()?;
        let revision = cluster.put_until_done(away, "back", "again").await?;
        cluster.agreed_hash(revision).await?;
    }
    Ok(())
}

/// Every member renews a lease and tells how long it has left, whoever leads.
///
/// # Errors
/// What did not go as it must.
pub async fn renew_everywhere(cluster: &Cluster) -> Result<(), Error> {
    for at in 0..3 {
        let lease = |member: usize| LeaseClient::new(cluster.kv(member).channel());
        let grant = LeaseGrantRequest { ttl: 60, id: 0 };
        let id = lease(at).lease_grant(grant).await.map_err(said)?;
        let id = id.into_inner().id;
        for other in 0..3 {
            let request = LeaseKeepAliveRequest { id };
            let requests = tokio_stream::once(request);
            let answers = lease(other)
                .lease_keep_alive(requests)
                .await
                .map_err(said)?;
            let answer = answers.into_inner().message().await.map_err(said)?;
            let ttl = answer.map(|answer| answer.ttl);
            let left = LeaseTimeToLiveRequest { id, keys: false };
            let left = lease(other).lease_time_to_live(left).await.map_err(said)?;
            let left = left.into_inner();
            if ttl != Some(60) || !(50..=60).contains(&left.ttl) || left.granted_ttl != 60 {
                return Err(Error(format!(
                    "m{other} renews to {ttl:?}, has left {left:?}"
                )));
            }
        }
    }
    Ok(())
}

async fn write_and_read(cluster: &Cluster) -> Result<(), Error> {
    let mut revision = 0;
    for n in 0..KEYS {
        let kv = cluster.kv(n % 3);
        let put = kv.put(format!("key-{n}").into(), format!("value-{n}").into());
        revision = put.await.map_err(said)?;
        // Another member answers with it at once.
        let request = RangeRequest {
            key: format!("key-{n}").into(),
            ..RangeRequest::default()
        };
        let read = cluster.kv((n + 1) % 3).range(request).await.map_err(said)?;
        let value = read.kvs.first().map(|kv| kv.value.clone());
        if value != Some(format!("value-{n}").into()) {
            return Err(Error(format!("key-{n} reads as {value:?}")));
        }
    }
    cluster.agreed_hash(revision).await?;
    Ok(())
}

/// A leader that is asked to stop lets another one lead first.
async fn stop_the_leader(cluster: &mut Cluster) -> Result<(), Error> {
    let leader = cluster.leader().await?;
    let other = (leader + 1) % 3;
    let before = cluster.kv(other).status().await.map_err(said)?;
    cluster.member(leader).stop()?;
    let after = cluster.kv(other).status().await.map_err(said)?;
    if after.leader == before.leader || after.leader == 0 {
        return Err(Error(format!(
            "the leader was {:x} and is {:x} after its stop",
            before.leader, after.leader
        )));
    }
    let revision = cluster.put_until_done(other, "after", "stop").await?;
    cluster.member(leader).restart()?;
    cluster.agreed_hash(revision).await?;
    Ok(())
}
