//! A cluster that goes down to the release before, and back.

use std::time::{Duration, Instant};

use api::pb::etcdserverpb::downgrade_request::DowngradeAction;
use api::pb::etcdserverpb::{DowngradeRequest, DowngradeResponse, StatusResponse};
use client::stub::MaintenanceClient;
use e2e::{Cluster, http};
use tonic::{Code, Status};

/// Longest wait for members to take a version up.
const LIMIT: Duration = Duration::from_secs(30);

async fn ask(
    cluster: &Cluster,
    at: usize,
    action: DowngradeAction,
    version: &str,
) -> Result<DowngradeResponse, Status> {
    let request = DowngradeRequest {
        action: action as i32,
        version: version.to_owned(),
    };
    let mut maintenance = MaintenanceClient::new(cluster.kv(at).channel());
    Ok(maintenance.downgrade(request).await?.into_inner())
}

/// Waits until every member says what `wanted` wants.
async fn wait_for(cluster: &Cluster, wanted: impl Fn(&StatusResponse, &str) -> bool) {
    let deadline = Instant::now() + LIMIT;
    for at in 0..3 {
        loop {
            let status = cluster.kv(at).status().await.expect("a status");
            let address = cluster.members()[at].address();
            let versions = http::get(address, "/version").expect("versions").body;
            if wanted(&status, &versions) {
                break;
            }
            let now = Instant::now();
            assert!(now < deadline, "m{at}: {status:?}, {versions}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

fn is_at(minor: u32) -> impl Fn(&StatusResponse, &str) -> bool {
    move |status, versions| {
        let cluster = format!("\"etcdcluster\":\"3.{minor}.0\"");
        status.storage_version == format!("3.{minor}.0") && versions.contains(&cluster)
    }
}

fn refusal(answer: Result<DowngradeResponse, Status>) -> (Code, String) {
    let status = answer.expect_err("a refusal");
    (status.code(), status.message().to_owned())
}

#[tokio::test]
async fn down_and_up_again() {
    use DowngradeAction::{Cancel, Enable, Validate};
    let cluster = Cluster::start(vec![None, None, None], &[]).expect("three members start");
    wait_for(&cluster, is_at(7)).await;
    for version in ["3.6", "3.6.4"] {
        let answer = ask(&cluster, 1, Validate, version).await.expect("valid");
        assert_eq!(answer.version, "3.7");
        assert!(answer.header.is_some_and(|header| header.revision == 1));
    }
    let wrong = (
        Code::InvalidArgument,
        "etcdserver: wrong downgrade target version format".to_owned(),
    );
    assert_eq!(refusal(ask(&cluster, 0, Validate, "x").await), wrong);
    assert_eq!(refusal(ask(&cluster, 0, Enable, "x").await), wrong);
    let invalid = (
        Code::InvalidArgument,
        "etcdserver: invalid downgrade target version".to_owned(),
    );
    for version in ["3.5", "3.7", "4.6"] {
        assert_eq!(refusal(ask(&cluster, 2, Validate, version).await), invalid);
    }
    let idle = ask(&cluster, 0, Cancel, "").await.expect("nothing to do");
    assert_eq!(idle.version, "3.7");

    let enabled = ask(&cluster, 0, Enable, "3.6.9").await.expect("begins");
    assert_eq!(enabled.version, "3.7");
    wait_for(&cluster, |status, _| {
        let info = status.downgrade_info.as_ref();
        info.is_some_and(|info| info.enabled && info.target_version == "3.6.0")
    })
    .await;
    wait_for(&cluster, is_at(6)).await;
    let busy = (
        Code::FailedPrecondition,
        "etcdserver: cluster has a downgrade job in progress".to_owned(),
    );
    assert_eq!(refusal(ask(&cluster, 1, Validate, "3.5").await), busy);
    assert_eq!(refusal(ask(&cluster, 1, Enable, "3.5").await), busy);
    let revision = cluster.put_until_done(2, "key", "while down").await;
    assert_eq!(revision.expect("a put"), 2);

    let cancelled = ask(&cluster, 2, Cancel, "").await.expect("ends");
    assert_eq!(cancelled.version, "3.6");
    wait_for(&cluster, is_at(7)).await;
    wait_for(&cluster, |status, _| {
        !status
            .downgrade_info
            .as_ref()
            .is_some_and(|info| info.enabled)
    })
    .await;
    cluster.agreed_hash(2).await.expect("members agree");
}
