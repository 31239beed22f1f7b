//! `--force-new-cluster`: one member is left of three, with all that was acknowledged.

use std::time::{Duration, Instant};

use api::pb::etcdserverpb::{
    Member as Listed, MemberAddRequest, MemberPromoteRequest, RangeRequest,
};
use client::stub::ClusterClient;
use e2e::kv::{Kv, said};
use e2e::{Cluster, Error, Member};

const LIMIT: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(50);

async fn value(member: &Member, key: &str) -> Result<Option<String>, Error> {
    let request = RangeRequest {
        key: key.to_owned().into(),
        ..RangeRequest::default()
    };
    let answer = Kv::to(member.address())
        .range(request)
        .await
        .map_err(said)?;
    let kv = answer.kvs.first();
    Ok(kv.map(|kv| String::from_utf8_lossy(&kv.value).into_owned()))
}

/// Adds a learner at the peer URL of a member whose data is gone, and promotes it when it has
/// caught up.
async fn grow(cluster: &mut Cluster, through: usize, at: usize, listed: &str) -> Result<(), Error> {
    let channel = cluster.kv(through).channel();
    let mut members = ClusterClient::new(channel);
    let request = MemberAddRequest {
        peer_ur_ls: vec![format!("http://{}", cluster.members()[at].peer())],
        is_learner: true,
    };
    let deadline = Instant::now() + LIMIT;
    // Refused until the members that vote have been connected for a while.
    let added = loop {
        match members.member_add(request.clone()).await {
            Ok(added) => break added.into_inner(),
            Err(status) if Instant::now() > deadline => return Err(said(status)),
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    };
    let id = added.member.map_or(0, |member| member.id);
    std::fs::remove_dir_all(cluster.members()[at].data_dir())?;
    let initial = format!("--initial-cluster={listed}");
    let member = cluster.member(at);
    member.spawn_with(&[&initial, "--initial-cluster-state=existing"])?;
    let deadline = Instant::now() + LIMIT;
    loop {
        let promoted = members.member_promote(MemberPromoteRequest { id }).await;
        match promoted {
            Ok(_) => break,
            Err(status) if Instant::now() > deadline => return Err(said(status)),
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
    cluster.member(at).wait_until_healthy()
}

async fn story() -> Result<(), Error> {
    let mut cluster = Cluster::start(vec![None, None, None], &[])?;
    let mut revision = 0;
    for n in 0..30 {
        let (key, value) = (format!("k{n}"), format!("v{n}"));
        revision = cluster.put_until_done(n % 3, &key, &value).await?;
    }
    let hash = cluster.agreed_hash(revision).await?;
    let before = cluster.kv(0).status().await.map_err(said)?;
    let left = cluster.leader().await?;
    let own = cluster.kv(left).status().await.map_err(said)?;
    let id = |status: &api::pb::etcdserverpb::StatusResponse| {
        status
            .header
            .as_ref()
            .map(|header| (header.cluster_id, header.member_id))
    };
    // Something that only the member has that is left, and that nobody acknowledged.
    let others = [(left + 1) % 3, (left + 2) % 3];
    for other in others {
        cluster.member(other).kill()?;
    }
    let kv = cluster.kv(left);
    let put = kv.put("unacknowledged".into(), "x".into());
    let pending = tokio::time::timeout(Duration::from_millis(500), put).await;
    if matches!(pending, Ok(Ok(_))) {
        return Err(Error("acknowledged without a quorum".into()));
    }
    cluster.member(left).kill()?;

    cluster.member(left).spawn_with(&["--force-new-cluster"])?;
    cluster.member(left).wait_until_healthy()?;
    let after = cluster.kv(left).status().await.map_err(said)?;
    if id(&after) != id(&own) || id(&after).map(|id| id.0) != id(&before).map(|id| id.0) {
        return Err(Error(format!("it was {own:?}, it is {after:?}")));
    }
    if cluster.agreed_hash(revision).await?.hash != hash.hash {
        return Err(Error("the data differs".into()));
    }
    let alone = |members: &[Listed]| members.len() == 1 && members[0].name == format!("m{left}");
    let members = cluster.kv(left).members().await.map_err(said)?;
    if !alone(&members) {
        return Err(Error(format!("members: {members:?}")));
    }
    if value(&cluster.members()[left], "unacknowledged")
        .await?
        .is_some()
    {
        return Err(Error("what was not committed is there".into()));
    }
    cluster.put_until_done(left, "forced", "yes").await?;

    // Without the flag it stays alone.
    cluster.member(left).kill()?;
    cluster.member(left).restart()?;
    let members = cluster.kv(left).members().await.map_err(said)?;
    let forced = value(&cluster.members()[left], "forced").await?;
    if !alone(&members) || forced.as_deref() != Some("yes") {
        return Err(Error(format!("members: {members:?}, forced: {forced:?}")));
    }

    let url = |at: usize| format!("m{at}=http://{}", cluster.members()[at].peer());
    let two = format!("{},{}", url(left), url(others[0]));
    let three = format!("{two},{}", url(others[1]));
    grow(&mut cluster, left, others[0], &two).await?;
    grow(&mut cluster, left, others[1], &three).await?;
    let revision = cluster.put_until_done(others[1], "grown", "yes").await?;
    cluster.agreed_hash(revision).await?;
    let members = cluster.kv(others[1]).members().await.map_err(said)?;
    if members.len() != 3 || members.iter().any(|member| member.is_learner) {
        return Err(Error(format!("members: {members:?}")));
    }
    // Three again: one may go.
    cluster.member(left).kill()?;
    cluster.put_until_done(others[0], "without", "it").await?;
    Ok(())
}

#[tokio::test]
async fn one_of_three_goes_on_alone_and_grows_again() {
    story().await.expect("the story goes on");
}
