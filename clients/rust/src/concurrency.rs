//! Lock and election, which the server itself serves, and the client's namespace.

use std::time::Duration;

use etcd_client::{
    Client, GetOptions, KvClientPrefix, LockOptions, ProclaimOptions, ResignOptions,
};

use crate::{Outcome, refused, same};

/// Long enough to see that something does not happen.
const MOMENT: Duration = Duration::from_millis(200);

pub(crate) async fn lock(mut client: Client) -> Outcome {
    let first = client.lock("held", None).await?;
    same("below the name", first.key().starts_with(b"held/"), true)?;
    let lease = client.lease_grant(30, None).await?.id();
    let mut other = client.clone();
    let mut waiting = tokio::spawn(async move {
        let options = LockOptions::new().with_lease(lease);
        other.lock("held", Some(options)).await
    });
    let early = tokio::time::timeout(MOMENT, &mut waiting).await;
    same("locked twice", early.is_ok(), false)?;
    client.unlock(first.key()).await?;
    let second = waiting.await??;
    same(
        "key's lease",
        second.key(),
        format!("held/{lease:x}").as_bytes(),
    )?;
    // The lock of a holder whose lease goes is free.
    let mut other = client.clone();
    let waiting = tokio::spawn(async move { other.lock("held", None).await });
    client.lease_revoke(lease).await?;
    let third = waiting.await??;
    client.unlock(third.key()).await?;
    let left = client
        .get("held/", Some(GetOptions::new().with_prefix()))
        .await?;
    same("left", left.count(), 0)?;
    let unknown = LockOptions::new().with_lease(404);
    let answer = client.lock("held", Some(unknown)).await;
    refused(answer, "etcdserver: requested lease not found")
}

pub(crate) async fn elect(mut client: Client) -> Outcome {
    refused(client.leader("office").await, "election: no leader")?;
    let lease = client.lease_grant(30, None).await?.id();
    let mut won = client.campaign("office", "first", lease).await?;
    let key = won.take_leader().ok_or("no leader's key")?;
    same("name", key.name(), b"office")?;
    // The server's headers come with the first answer, so there has to be a leader.
    let mut seen = client.observe("office").await?;
    let observed = seen.message().await?.ok_or("the stream ended")?;
    same(
        "observed",
        observed.kv().map(|kv| kv.value()),
        Some(b"first"),
    )?;
    let again = ProclaimOptions::new().with_leader(key.clone());
    client.proclaim("still first", Some(again)).await?;
    let observed = seen.message().await?.ok_or("the stream ended")?;
    same(
        "observed",
        observed.kv().map(|kv| kv.value()),
        Some(b"still first"),
    )?;
    let second_lease = client.lease_grant(30, None).await?.id();
    let mut other = client.clone();
    let mut campaign =
        tokio::spawn(async move { other.campaign("office", "second", second_lease).await });
    let early = tokio::time::timeout(MOMENT, &mut campaign).await;
    same("elected twice", early.is_ok(), false)?;
    client
        .resign(Some(ResignOptions::new().with_leader(key)))
        .await?;
    let mut next = campaign.await??;
    let leader = client.leader("office").await?;
    same("leader", leader.kv().map(|kv| kv.value()), Some(b"second"))?;
    let observed = seen.message().await?.ok_or("the stream ended")?;
    same(
        "observed",
        observed.kv().map(|kv| kv.value()),
        Some(b"second"),
    )?;
    let key = next.take_leader().ok_or("no leader's key")?;
    client
        .resign(Some(ResignOptions::new().with_leader(key)))
        .await?;
    refused(client.leader("office").await, "election: no leader")
}

pub(crate) async fn namespace(mut client: Client) -> Outcome {
    let mut space = KvClientPrefix::new(client.kv_client(), "space/".into());
    space.put("a", "1", None).await?;
    let got = space.get("a", None).await?;
    same("key", got.kvs()[0].key(), b"a")?;
    same("real key", client.get("space/a", None).await?.count(), 1)
}
