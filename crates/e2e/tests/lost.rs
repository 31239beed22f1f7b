//! Proposals that find no answer: what clients are told of the reason.

use std::time::{Duration, Instant};

use e2e::{Cluster, http};
use tokio::task::JoinHandle;
use tonic::{Code, Status};

/// Elections that are over soon. A proposal then has six seconds.
const QUICK: [&str; 2] = ["--heartbeat-interval=50", "--election-timeout=500"];
/// From the loss of the leader to its return: longer than an election's doubled timeout, so that
/// the loss does not count as the reason, and short enough to have a leader again in time.
const AWAY: Duration = Duration::from_secs(3);
const LIMIT: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(10);

/// How many proposals of a member wait to be applied.
fn pending(cluster: &Cluster, at: usize) -> f64 {
    let metrics = http::get(cluster.members()[at].address(), "/metrics").expect("an answer");
    let mut lines = metrics.body.lines();
    let count = lines.find_map(|line| line.strip_prefix("etcd_server_proposals_pending "));
    count.expect("a sample").parse().expect("a number")
}

async fn wait_until_pending(cluster: &Cluster, at: usize, count: f64) {
    let deadline = Instant::now() + LIMIT;
    loop {
        // Whatever was begun goes on meanwhile.
        tokio::time::sleep(PAUSE).await;
        let now = pending(cluster, at);
        if now == count {
            return;
        }
        assert!(Instant::now() < deadline, "{now} proposals are pending");
    }
}

/// A follower passes a proposal on to a leader that never sees it and is gone then. Gives the
/// cluster, the leader and what becomes of the proposal.
async fn lose_a_proposal(members: usize) -> (Cluster, usize, JoinHandle<Result<i64, Status>>) {
    let mut cluster = Cluster::start(vec![None; members], &QUICK).expect("members start");
    let leader = cluster.leader().await.expect("a leader");
    let follower = (leader + 1) % members;
    let put = cluster.put_until_done(follower, "before", "it").await;
    put.expect("a put");
    // Once the leader stands still, a proposal has no time to lose with a connection.
    let kv = cluster.kv(follower);
    kv.revision(true).await.expect("a read");
    wait_until_pending(&cluster, follower, 0.0).await;
    cluster.members()[leader].signal("STOP").expect("it stops");
    let put = tokio::spawn(async move { kv.put("lost".into(), "x".into()).await });
    wait_until_pending(&cluster, follower, 1.0).await;
    cluster.member(leader).kill().expect("it is killed");
    (cluster, leader, put)
}

/// What the client of a lost proposal is told.
async fn check_refusal(put: JoinHandle<Result<i64, Status>>, why: &str) {
    let refused = put.await.expect("no panic").expect_err("it was lost");
    let message = format!("etcdserver: request timed out, possibly due to {why}");
    assert_eq!(refused.message(), message);
    assert_eq!(refused.code(), Code::Unavailable);
}

/// A follower loses a proposal with its leader, and finds it again too late.
#[tokio::test]
async fn a_proposal_that_is_lost_on_its_way() {
    let (mut cluster, leader, put) = lose_a_proposal(2).await;
    tokio::time::sleep(AWAY).await;
    cluster.member(leader).spawn().expect("it starts again");
    check_refusal(put, "connection lost").await;
}

/// A follower loses a proposal with its leader, and follows another one.
#[tokio::test]
async fn a_proposal_that_is_lost_with_its_leader() {
    let (_cluster, _, put) = lose_a_proposal(3).await;
    check_refusal(put, "previous leader failure").await;
}
