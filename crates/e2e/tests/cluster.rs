//! Three members of one binary: `ETCD_BIN`, or ours.

use e2e::Cluster;
use e2e::cluster::story;

#[tokio::test]
async fn three_members_survive_their_leaders() {
    let mut cluster = Cluster::start(vec![None, None, None], &[]).expect("three members start");
    story::run(&mut cluster).await.expect("the story goes on");
}

#[tokio::test]
async fn a_member_that_the_log_does_not_reach_gets_the_database() {
    let binaries = vec![None, None, None];
    let mut cluster = Cluster::start(binaries, &story::SHORT_LOG).expect("three members start");
    story::fall_behind(&mut cluster)
        .await
        .expect("the story goes on");
    story::renew_everywhere(&cluster)
        .await
        .expect("leases live on");
}
