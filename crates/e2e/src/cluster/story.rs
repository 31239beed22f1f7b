//! What a cluster of three lives through, whoever its members are.

use api::pb::etcdserverpb::RangeRequest;

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
