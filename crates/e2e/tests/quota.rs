//! A database over its quota: what is refused, and the way out by deletion, compaction and disarm.

use std::time::{Duration, Instant};

use api::pb::etcdserverpb::alarm_request::AlarmAction;
use api::pb::etcdserverpb::{
    AlarmRequest, AlarmType, DefragmentRequest, LeaseGrantRequest, PutRequest, RangeRequest,
    RequestOp, TxnRequest, request_op::Request,
};
use bytes::Bytes;
use client::stub::{LeaseClient, MaintenanceClient};
use e2e::kv::Kv;
use e2e::{Member, Options, http};
use tonic::{Code, Status};

const QUOTA: &str = "--quota-backend-bytes=8000000";
const VALUE_BYTES: usize = 100_000;
const LIMIT: Duration = Duration::from_secs(30);

fn is_no_space(status: &Status) -> bool {
    status.code() == Code::ResourceExhausted
        && status.message() == "etcdserver: mvcc: database space exceeded"
}

async fn put(kv: &Kv, key: usize) -> Result<i64, Status> {
    let value = Bytes::from(vec![b'x'; VALUE_BYTES]);
    kv.put(format!("key-{key:04}").into(), value).await
}

/// Writes until the database is full; gives the number of keys.
async fn fill(kv: &Kv) -> usize {
    for key in 0..1000 {
        if let Err(status) = put(kv, key).await {
            assert!(is_no_space(&status), "{status:?}");
            return key;
        }
    }
    panic!("8 MB take 100 MB");
}

/// The members that raised the alarm; lifts them when asked to.
async fn alarms(kv: &Kv, lift: bool) -> Vec<u64> {
    let mut maintenance = MaintenanceClient::new(kv.channel());
    let request = |action: AlarmAction, member_id| AlarmRequest {
        action: action as i32,
        member_id,
        alarm: AlarmType::Nospace as i32,
    };
    let all = maintenance.alarm(request(AlarmAction::Get, 0)).await;
    let all = all.expect("alarms").into_inner().alarms;
    let members: Vec<u64> = all.iter().map(|alarm| alarm.member_id).collect();
    if lift {
        for &member in &members {
            let lifted = maintenance.alarm(request(AlarmAction::Deactivate, member));
            lifted.await.expect("lifted");
        }
    }
    members
}

/// What a full database refuses, and what it still does.
async fn check_full(member: &Member, kv: &Kv, keys: usize) {
    let status = kv.put("small".into(), "x".into()).await;
    assert!(is_no_space(&status.expect_err("a put is refused")));
    let write = RequestOp {
        request: Some(Request::RequestPut(PutRequest {
            key: "small".into(),
            ..PutRequest::default()
        })),
    };
    let txn = TxnRequest {
        success: vec![write],
        ..TxnRequest::default()
    };
    let status = kv.txn(txn).await.expect_err("a transaction is refused");
    assert!(is_no_space(&status));
    let mut lease = LeaseClient::new(kv.channel());
    let grant = LeaseGrantRequest { ttl: 60, id: 0 };
    let status = lease.lease_grant(grant).await;
    assert!(is_no_space(&status.expect_err("a lease is refused")));
    let range = RangeRequest {
        key: "key-".into(),
        range_end: "key.".into(),
        count_only: true,
        ..RangeRequest::default()
    };
    let count = kv.range(range).await.expect("reads go on").count;
    assert!(count >= keys as i64, "{count} of {keys}");
    let health = http::get(member.address(), "/health").expect("an answer");
    assert!(health.body.contains("ALARM NOSPACE"), "{}", health.body);
    let ready = http::get(member.address(), "/readyz").expect("an answer");
    assert_eq!(ready.status, 200);
}

/// Lifts the alarm until a write is taken: space comes back a little after the compaction.
async fn write_again(kv: &Kv) {
    let deadline = Instant::now() + LIMIT;
    loop {
        alarms(kv, true).await;
        match put(kv, 0).await {
            Ok(_) => return,
            Err(status) => assert!(is_no_space(&status), "{status:?}"),
        }
        assert!(Instant::now() < deadline, "no space comes back");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn a_full_database_recovers() {
    let binary = e2e::binary().expect("a binary");
    let member = Member::start(Options {
        flags: vec![QUOTA.into()],
        ..Options::default()
    });
    let member = member.expect("a member");
    let kv = Kv::to(member.address());
    for round in 0..3 {
        let keys = fill(&kv).await;
        assert!(keys > 40, "round {round}: {keys} keys");
        let deadline = Instant::now() + LIMIT;
        while alarms(&kv, false).await.is_empty() {
            assert!(Instant::now() < deadline, "no alarm");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        check_full(&member, &kv, keys).await;
        let deleted = kv.delete("key-".into(), "key.".into()).await;
        let deleted = deleted.expect("deletions go on");
        assert!(deleted.deleted >= keys as i64);
        let revision = deleted.header.expect("a header").revision;
        kv.compact(revision).await.expect("compactions go on");
        if !e2e::is_ours(&binary).expect("a version") {
            // etcd charges the file's length, which only a defragmentation brings down.
            let mut maintenance = MaintenanceClient::new(kv.channel());
            let shrunk = maintenance.defragment(DefragmentRequest {}).await;
            shrunk.expect("a smaller file");
        }
        write_again(&kv).await;
        assert!(alarms(&kv, false).await.is_empty());
    }
}
