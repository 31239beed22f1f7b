//! Our members and Go's (`ETCD_REFERENCE`) in one cluster.

use std::path::PathBuf;

use e2e::Cluster;
use e2e::cluster::story;

fn reference() -> Option<PathBuf> {
    let path = std::env::var_os("ETCD_REFERENCE").expect("ETCD_REFERENCE names a Go etcd");
    Some(path.into())
}

#[tokio::test]
async fn one_of_ours_among_two_of_gos() {
    let binaries = vec![reference(), None, reference()];
    let mut cluster = Cluster::start(binaries, &[]).expect("three members start");
    story::run(&mut cluster).await.expect("the story goes on");
}

#[tokio::test]
async fn one_of_gos_among_two_of_ours() {
    let binaries = vec![None, reference(), None];
    let mut cluster = Cluster::start(binaries, &[]).expect("three members start");
    story::run(&mut cluster).await.expect("the story goes on");
}

#[tokio::test]
async fn databases_go_both_ways() {
    let binaries = vec![reference(), None, reference()];
    let mut cluster = Cluster::start(binaries, &story::SHORT_LOG).expect("three members start");
    story::fall_behind(&mut cluster)
        .await
        .expect("the story goes on");
    story::renew_everywhere(&cluster)
        .await
        .expect("leases live on");
    let binaries = vec![None, reference(), None];
    let mut cluster = Cluster::start(binaries, &story::SHORT_LOG).expect("three members start");
    story::fall_behind(&mut cluster)
        .await
        .expect("the story goes on");
    story::renew_everywhere(&cluster)
        .await
        .expect("leases live on");
}
