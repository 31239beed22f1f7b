//! What an operator asks.

use etcd_client::{AlarmAction, AlarmType, Client};

use crate::{Outcome, refused, same};

/// Bytes of the checksum at a snapshot's end.
const SUM_BYTES: usize = 32;
/// Pages of the database are a multiple of this.
const SECTOR_BYTES: usize = 512;

pub(crate) async fn status(mut client: Client, url: &str) -> Outcome {
    let status = client.status().await?;
    let member = status.header().map_or(0, |header| header.member_id());
    same("leader", status.leader(), member)?;
    same(
        "sizes",
        status.db_size() >= status.raft_used_db_size(),
        true,
    )?;
    same(
        "index",
        status.raft_index() >= status.raft_applied_index(),
        true,
    )?;
    same(
        "errors and learner",
        (status.errors().len(), status.is_learner()),
        (0, false),
    )?;
    same("version", status.version().split('.').count(), 3)?;
    let members = client.member_list().await?;
    same("members", members.members().len(), 1)?;
    same("id", members.members()[0].id(), member)?;
    same(
        "URLs",
        members.members()[0].client_urls(),
        &[url.to_owned()],
    )
}

pub(crate) async fn hashes(mut client: Client) -> Outcome {
    client.put("hashed", "1", None).await?;
    let first = client.hash_kv(0).await?;
    let again = client.hash_kv(first.hash_revision()).await?;
    same("hash", again.hash(), first.hash())?;
    same("of the database", client.hash().await?.hash() != 0, true)
}

pub(crate) async fn alarms(mut client: Client) -> Outcome {
    let listed = client
        .alarm(AlarmAction::Get, AlarmType::None, None)
        .await?;
    same("alarms", listed.alarms().len(), 0)?;
    client
        .alarm(AlarmAction::Activate, AlarmType::Nospace, None)
        .await?;
    let answer = client.put("full", "x", None).await;
    refused(answer, "etcdserver: mvcc: database space exceeded")?;
    same("reads go on", client.get("hashed", None).await?.count(), 1)?;
    let listed = client
        .alarm(AlarmAction::Get, AlarmType::None, None)
        .await?;
    same("alarms", listed.alarms().len(), 1)?;
    client
        .alarm(AlarmAction::Deactivate, AlarmType::Nospace, None)
        .await?;
    client.put("full", "x", None).await?;
    Ok(())
}

pub(crate) async fn defragment(mut client: Client) -> Outcome {
    client.defragment().await?;
    same("count", client.get("hashed", None).await?.count(), 1)
}

pub(crate) async fn snapshot(mut client: Client) -> Outcome {
    let mut stream = client.snapshot().await?;
    let mut bytes = 0;
    let mut remaining = u64::MAX;
    while let Some(part) = stream.message().await? {
        same("remaining falls", part.remaining_bytes() <= remaining, true)?;
        remaining = part.remaining_bytes();
        bytes += part.blob().len();
    }
    same("remaining", remaining, 0)?;
    same("pages and a checksum", bytes % SECTOR_BYTES, SUM_BYTES)
}

pub(crate) async fn unknown_members(mut client: Client) -> Outcome {
    let unknown = client.move_leader(404).await;
    refused(unknown, "etcdserver: bad leader transferee")?;
    let unknown = client.member_remove(404).await;
    refused(unknown, "etcdserver: member not found")
}
