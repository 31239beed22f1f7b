//! Leases.

use std::time::{Duration, Instant};

use etcd_client::{Client, LeaseGrantOptions, LeaseTimeToLiveOptions, PutOptions, WatchOptions};

use crate::watch::events;
use crate::{Outcome, refused, same};

const NOT_FOUND: &str = "etcdserver: requested lease not found";

pub(crate) async fn basics(mut client: Client) -> Outcome {
    let own = LeaseGrantOptions::new().with_id(4711);
    let lease = client.lease_grant(60, Some(own.clone())).await?;
    same("granted", (lease.id(), lease.ttl()), (4711, 60))?;
    refused(
        client.lease_grant(60, Some(own)).await,
        "etcdserver: lease already exists",
    )?;
    for key in ["lease/a", "lease/b"] {
        let options = PutOptions::new().with_lease(lease.id());
        client.put(key, "x", Some(options)).await?;
    }
    client
        .put("lease/a", "y", Some(PutOptions::new().with_ignore_lease()))
        .await?;
    let with_keys = LeaseTimeToLiveOptions::new().with_keys();
    let left = client
        .lease_time_to_live(lease.id(), Some(with_keys))
        .await?;
    let mut keys = left.keys().to_vec();
    keys.sort();
    same("keys", keys, vec![b"lease/a".to_vec(), b"lease/b".to_vec()])?;
    same("granted", left.granted_ttl(), 60)?;
    same("most is left", (50..=60).contains(&left.ttl()), true)?;
    let leases = client.leases().await?;
    let listed = leases.leases().iter().any(|one| one.id() == lease.id());
    same("listed", listed, true)?;
    let watch_all = WatchOptions::new().with_prefix();
    let mut stream = client.watch("lease/", Some(watch_all)).await?;
    client.lease_revoke(lease.id()).await?;
    let wanted = "DELETE lease/a, DELETE lease/b";
    same("events", events(&mut stream, 2).await?.as_str(), wanted)?;
    refused(client.lease_revoke(lease.id()).await, NOT_FOUND)?;
    let gone = client.lease_time_to_live(lease.id(), None).await?;
    same("ttl", gone.ttl(), -1)
}

pub(crate) async fn expiry(mut client: Client) -> Outcome {
    let lease = client.lease_grant(1, None).await?;
    let watch_all = WatchOptions::new().with_prefix();
    let mut stream = client.watch("expiry/", Some(watch_all)).await?;
    let options = PutOptions::new().with_lease(lease.id());
    client.put("expiry/a", "x", Some(options)).await?;
    let (mut keeper, mut answers) = client.lease_keep_alive(lease.id()).await?;
    // Twice its time.
    let begin = Instant::now();
    let mut tick = tokio::time::interval(Duration::from_millis(300));
    while begin.elapsed() < Duration::from_secs(4) {
        tick.tick().await;
        keeper.keep_alive().await?;
        let answer = answers.message().await?.ok_or("the stream ended")?;
        same("ttl", (answer.id(), answer.ttl() >= 1), (lease.id(), true))?;
    }
    same("count", client.get("expiry/a", None).await?.count(), 1)?;
    let wanted = "PUT expiry/a x, DELETE expiry/a";
    same("events", events(&mut stream, 2).await?.as_str(), wanted)?;
    keeper.keep_alive().await?;
    let answer = answers.message().await?.ok_or("the stream ended")?;
    same("ttl of what is gone", answer.ttl(), 0)
}
