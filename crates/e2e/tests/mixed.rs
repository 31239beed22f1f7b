//! Our members and Go's (`ETCD_REFERENCE`) in one cluster.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use api::pb::etcdserverpb::downgrade_request::DowngradeAction;
use api::pb::etcdserverpb::{DowngradeRequest, StatusResponse};
use client::stub::MaintenanceClient;
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

/// Members go down to the release before one by one (`ETCD_OLDER_REFERENCE`, a Go etcd 3.6), on the
/// directories that ours leave; the last of them ends the downgrade.
#[tokio::test]
async fn ours_are_replaced_by_gos_of_the_release_before() {
    let older = std::env::var_os("ETCD_OLDER_REFERENCE");
    let older = PathBuf::from(older.expect("ETCD_OLDER_REFERENCE names a Go etcd 3.6"));
    let mut cluster = Cluster::start(vec![None, None, None], &[]).expect("three members start");
    let mut revision = cluster
        .put_until_done(0, "key", "3.7")
        .await
        .expect("a put");
    let request = DowngradeRequest {
        action: DowngradeAction::Enable as i32,
        version: "3.6".into(),
    };
    let mut maintenance = MaintenanceClient::new(cluster.kv(0).channel());
    maintenance.downgrade(request).await.expect("begins");
    until(&cluster, |status| status.storage_version == "3.6.0").await;
    for at in 0..3 {
        cluster.member(at).stop().expect("it stops");
        cluster.member(at).set_binary(older.clone());
        cluster
            .member(at)
            .restart()
            .expect("3.6 starts on its directory");
        let value = format!("m{at} is down");
        revision = cluster
            .put_until_done(at, "key", &value)
            .await
            .expect("a put");
        cluster.agreed_hash(revision).await.expect("members agree");
    }
    until(&cluster, |status| {
        let info = status.downgrade_info.as_ref();
        status.version.starts_with("3.6.") && !info.is_some_and(|info| info.enabled)
    })
    .await;
    cluster.agreed_hash(revision).await.expect("members agree");
}

/// Waits until every member's status is as wanted.
async fn until(cluster: &Cluster, wanted: impl Fn(&StatusResponse) -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    for at in 0..3 {
        loop {
            let status = cluster.kv(at).status().await.expect("a status");
            if wanted(&status) {
                break;
            }
            assert!(Instant::now() < deadline, "m{at}: {status:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}
