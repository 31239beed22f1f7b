//! Proposals that find no answer: what clients are told of the reason.

use std::time::{Duration, Instant};

use e2e::Cluster;

/// Elections that are over soon. A proposal then has six seconds.
const QUICK: [&str; 2] = ["--heartbeat-interval=50", "--election-timeout=500"];
/// From the loss of the leader to its return: longer than an election's doubled timeout, so that
/// the loss does not count as the reason, and short enough to have a leader again in time.
const AWAY: Duration = Duration::from_secs(3);

fn signal(process: u32, signal: &str) {
    let status = std::process::Command::new("kill")
        .args([signal, &process.to_string()])
        .status();
    assert!(status.expect("kill runs").success());
}

/// A follower passes a proposal on to a leader that never sees it, and finds it again too late.
#[tokio::test]
async fn a_proposal_that_is_lost_on_its_way() {
    let mut cluster = Cluster::start(vec![None, None], &QUICK).expect("two members");
    let leader = cluster.leader().await.expect("a leader");
    let follower = 1 - leader;
    cluster
        .put_until_done(follower, "before", "it")
        .await
        .expect("a put");
    let process = cluster.members()[leader].process().expect("it runs");
    signal(process, "-STOP");
    let kv = cluster.kv(follower);
    let begun = Instant::now();
    let put = tokio::spawn(async move { kv.put("lost".into(), "x".into()).await });
    // The stream takes the proposal before anybody misses the leader.
    tokio::time::sleep(Duration::from_millis(200)).await;
    cluster.member(leader).kill().expect("it is killed");
    tokio::time::sleep(AWAY).await;
    cluster.member(leader).spawn().expect("it starts again");
    let refused = put.await.expect("no panic").expect_err("it was lost");
    assert_eq!(
        refused.message(),
        "etcdserver: request timed out, possibly due to connection lost",
        "after {:?}",
        begun.elapsed()
    );
    assert_eq!(refused.code(), tonic::Code::Unavailable);
}

/// A follower passes a proposal on to a leader that never sees it, and follows another one.
#[tokio::test]
async fn a_proposal_that_is_lost_with_its_leader() {
    let mut cluster = Cluster::start(vec![None, None, None], &QUICK).expect("three members");
    let leader = cluster.leader().await.expect("a leader");
    let follower = (leader + 1) % 3;
    cluster
        .put_until_done(follower, "before", "it")
        .await
        .expect("a put");
    let process = cluster.members()[leader].process().expect("it runs");
    signal(process, "-STOP");
    let kv = cluster.kv(follower);
    let put = tokio::spawn(async move { kv.put("lost".into(), "x".into()).await });
    tokio::time::sleep(Duration::from_millis(200)).await;
    cluster.member(leader).kill().expect("it is killed");
    let refused = put.await.expect("no panic").expect_err("it was lost");
    assert_eq!(
        refused.message(),
        "etcdserver: request timed out, possibly due to previous leader failure"
    );
    assert_eq!(refused.code(), tonic::Code::Unavailable);
}
