//! Three members of one binary: `ETCD_BIN`, or ours.

use e2e::Cluster;
use e2e::cluster::story;

#[tokio::test]
async fn three_members_survive_their_leaders() {
    let mut cluster = Cluster::start(vec![None, None, None], &[]).expect("three members start");
    story::run(&mut cluster).await.expect("the story goes on");
}
