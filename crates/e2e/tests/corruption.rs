//! Three members, one of whose databases is changed while it is stopped: the checks find it, the
//! alarm accuses it, and writes wait for an operator.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use api::pb::etcdserverpb::alarm_request::AlarmAction;
use api::pb::etcdserverpb::{
    AlarmMember, AlarmRequest, AlarmType, MoveLeaderRequest, RangeRequest,
};
use client::stub::MaintenanceClient;
use e2e::kv::said;
use e2e::{Cluster, http};
use storage::bolt::{Db, Options};
use storage::fs::RealFs;
use tonic::Code;

const LIMIT: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(50);
const KEYS: usize = 20;
const BEFORE: &[u8] = b"value-of-key";
const AFTER: &[u8] = b"value-of-kez";
const COMPACT_CHECK: [&str; 2] = [
    "--feature-gates=CompactHashCheck=true",
    "--compact-hash-check-time=1s",
];

/// Whether the binary is ours, which keeps the data of an accused member to itself.
fn is_ours() -> bool {
    let binary = e2e::binary().expect("a binary");
    e2e::is_ours(&binary).expect("it runs")
}

async fn start(flags: &[&str]) -> Cluster {
    let cluster = Cluster::start(vec![None, None, None], flags).expect("three members start");
    let mut revision = 0;
    for n in 0..KEYS {
        let value = format!("{}-{n}", String::from_utf8_lossy(BEFORE));
        let key = format!("key-{n}");
        let put = cluster.put_until_done(n % 3, &key, &value).await;
        revision = put.expect("a put");
    }
    cluster.agreed_hash(revision).await.expect("members agree");
    cluster
}

/// Changes one value in the database of a member that does not run.
fn damage(directory: &Path) {
    let path = directory.join("member/snap/db");
    let db = Db::open(Arc::new(RealFs), &path, Options::default()).expect("the database opens");
    let found = {
        let tx = db.begin_read();
        let mut cursor = tx.cursor(b"key").expect("a bucket of keys");
        let mut record = cursor.seek(&[]).expect("records");
        loop {
            let (key, value) = record.expect("a record with the value");
            let at = value.windows(BEFORE.len()).position(|part| part == BEFORE);
            if let Some(at) = at {
                let mut value = value.to_vec();
                value[at..at + AFTER.len()].copy_from_slice(AFTER);
                break (key, value);
            }
            record = cursor.next().expect("records");
        }
    };
    let mut tx = db.begin_write().expect("a transaction");
    tx.put(b"key", &found.0, &found.1)
        .expect("a changed record");
    tx.commit().expect("the change is durable");
}

/// Stops a follower and changes its database; gives its place.
async fn damage_a_follower(cluster: &mut Cluster) -> usize {
    let leader = cluster.leader().await.expect("a leader");
    let other = (leader + 1) % 3;
    cluster.member(other).stop().expect("it stops");
    damage(&cluster.members()[other].data_dir());
    other
}

async fn id_of(cluster: &Cluster, at: usize) -> u64 {
    let status = cluster.kv(at).status().await.expect("a status");
    status.header.expect("a header").member_id
}

/// Members that check at compactions, and the place and the ID of the one that differs.
async fn start_with_a_damaged_follower() -> (Cluster, usize, u64) {
    let mut cluster = start(&COMPACT_CHECK).await;
    let damaged = damage_a_follower(&mut cluster).await;
    cluster.member(damaged).restart().expect("it starts");
    let id = id_of(&cluster, damaged).await;
    (cluster, damaged, id)
}

async fn alarm(
    cluster: &Cluster,
    at: usize,
    action: AlarmAction,
    member_id: u64,
) -> Result<Vec<AlarmMember>, e2e::Error> {
    let request = AlarmRequest {
        action: action as i32,
        member_id,
        alarm: AlarmType::Corrupt as i32,
    };
    let mut maintenance = MaintenanceClient::new(cluster.kv(at).channel());
    let answer = maintenance.alarm(request).await.map_err(said)?;
    Ok(answer.into_inner().alarms)
}

/// Waits until an alarm stands, and gives whom it accuses.
async fn accused(cluster: &Cluster, at: usize) -> Vec<u64> {
    let deadline = Instant::now() + LIMIT;
    loop {
        let alarms = alarm(cluster, at, AlarmAction::Get, 0).await;
        match &alarms {
            Ok(alarms) if !alarms.is_empty() => {
                return alarms.iter().map(|alarm| alarm.member_id).collect();
            }
            _ => {}
        }
        let log = cluster.members()[at].log();
        assert!(Instant::now() < deadline, "{alarms:?}:\n{log}");
        tokio::time::sleep(PAUSE).await;
    }
}

/// Lifts the alarm that accuses a member: writes go on.
async fn lift(cluster: &Cluster, at: usize, accused: u64) {
    let lifted = alarm(cluster, at, AlarmAction::Deactivate, accused).await;
    assert_eq!(lifted.expect("lifted").len(), 1);
    let put = cluster.put_until_done(at, "key", "again").await;
    put.expect("writes go on");
}

/// What an alarm of corruption means for clients.
async fn check_refusals(cluster: &Cluster, damaged: usize) {
    for at in 0..3 {
        let put = cluster.kv(at).put("key".into(), "x".into()).await;
        let status = put.expect_err("writes are refused");
        assert_eq!(status.code(), Code::DataLoss);
        assert_eq!(status.message(), "etcdserver: corrupt cluster");
        let compaction = cluster.kv(at).compact(2).await;
        assert_eq!(compaction.expect_err("refused").code(), Code::DataLoss);
        let address = cluster.members()[at].address();
        let ready = http::get(address, "/readyz").expect("an answer");
        assert_eq!(ready.status, 503);
        assert!(
            ready
                .body
                .contains("[-]data_corruption failed: alarm activated: CORRUPT")
        );
        let health = http::get(address, "/health").expect("an answer");
        assert_eq!(health.status, 503);
        assert!(health.body.contains("ALARM CORRUPT"), "{}", health.body);
        for serializable in [false, true] {
            let range = RangeRequest {
                key: "key-1".into(),
                serializable,
                ..RangeRequest::default()
            };
            let read = cluster.kv(at).range(range).await;
            if at == damaged && is_ours() {
                let status = read.expect_err("what may be wrong is not shown");
                assert_eq!(status.code(), Code::DataLoss);
            } else {
                assert_eq!(read.expect("a read").count, 1);
            }
        }
    }
}

#[tokio::test]
async fn a_periodic_check_accuses_the_one_that_differs() {
    let mut cluster = start(&["--corrupt-check-time=1s"]).await;
    let damaged = damage_a_follower(&mut cluster).await;
    cluster.member(damaged).spawn().expect("it starts");
    let other = (damaged + 1) % 3;
    let deadline = Instant::now() + LIMIT;
    while cluster.kv(damaged).status().await.is_err() {
        assert!(Instant::now() < deadline, "it does not come back");
        tokio::time::sleep(PAUSE).await;
    }
    let id = id_of(&cluster, damaged).await;
    assert_eq!(accused(&cluster, other).await, [id]);
    check_refusals(&cluster, damaged).await;
    // It is taken out of service, and an operator lifts the alarm.
    cluster.member(damaged).stop().expect("it stops");
    lift(&cluster, other, id).await;
}

#[tokio::test]
async fn a_compaction_check_accuses_the_one_that_differs() {
    let (cluster, damaged, id) = start_with_a_damaged_follower().await;
    let other = (damaged + 1) % 3;
    let revision = cluster.put_until_done(damaged, "key", "compact").await;
    let compacted = cluster.kv(other).compact(revision.expect("a put")).await;
    compacted.expect("a compaction");
    assert_eq!(accused(&cluster, other).await, [id]);
    check_refusals(&cluster, damaged).await;
    lift(&cluster, other, id).await;
}

#[tokio::test]
async fn a_leader_that_differs_is_accused_too() {
    let (cluster, damaged, id) = start_with_a_damaged_follower().await;
    let leader = cluster.leader().await.expect("a leader");
    let mut maintenance = MaintenanceClient::new(cluster.kv(leader).channel());
    let request = MoveLeaderRequest { target_id: id };
    maintenance.move_leader(request).await.expect("it leads");
    let revision = cluster.put_until_done(damaged, "key", "compact").await;
    let compacted = cluster.kv(leader).compact(revision.expect("a put")).await;
    compacted.expect("a compaction");
    assert_eq!(accused(&cluster, leader).await, [id]);
    check_refusals(&cluster, damaged).await;
    if is_ours() {
        // It would give its database to others.
        let deadline = Instant::now() + LIMIT;
        while cluster.leader().await.expect("a leader") == damaged {
            assert!(Instant::now() < deadline, "it still leads");
            tokio::time::sleep(PAUSE).await;
        }
    }
}

#[tokio::test]
async fn an_initial_check_keeps_the_one_that_differs_from_serving() {
    let mut cluster = start(&["--feature-gates=InitialCorruptCheck=true"]).await;
    let damaged = damage_a_follower(&mut cluster).await;
    cluster.member(damaged).spawn().expect("it starts");
    let status = cluster.member(damaged).wait_for_exit().expect("it ends");
    assert_eq!(status.code(), Some(1));
    let log = cluster.members()[damaged].log();
    assert!(log.contains("found data inconsistency with peers"), "{log}");
    let other = (damaged + 1) % 3;
    let put = cluster.put_until_done(other, "key", "again").await;
    put.expect("the others go on");
    // The others differ from nobody, and start again.
    let leader = cluster.leader().await.expect("a leader");
    cluster.member(leader).stop().expect("it stops");
    cluster.member(leader).restart().expect("it starts");
}
