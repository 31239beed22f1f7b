//! Proxies that own keys.

use std::time::Instant;

use api::pb::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use api::pb::etcdserverpb::request_op::Request;
use api::pb::etcdserverpb::{Compare, PutRequest, RangeRequest, RequestOp, TxnRequest};
use e2e::kv::Kv;
use e2e::{binary, is_ours};

use crate::process::{Below, LIMIT, PAUSE, Proxy, member};

const FLAG: &str = "--experimental-leasing-prefix=_leases/";

fn read(key: &str) -> RangeRequest {
    RangeRequest {
        key: key.to_owned().into(),
        ..RangeRequest::default()
    }
}

async fn get(kv: &Kv, key: &str) -> String {
    let answer = kv.range(read(key)).await.expect("a read");
    let kv = answer.kvs.first();
    kv.map_or_else(String::new, |kv| {
        String::from_utf8_lossy(&kv.value).into_owned()
    })
}

async fn put(kv: &Kv, key: &str, value: &str) {
    let put = kv.put(key.to_owned().into(), value.to_owned().into());
    put.await.expect("a put");
}

/// Reads until the proxy owns the key.
async fn own(proxy: &Kv, direct: &Kv, key: &str) {
    let deadline = Instant::now() + LIMIT;
    loop {
        get(proxy, key).await;
        let answer = direct.range(read(&format!("_leases/{key}"))).await;
        if !answer.expect("a read").kvs.is_empty() {
            return;
        }
        assert!(Instant::now() < deadline, "{key} is nobody's");
        tokio::time::sleep(PAUSE).await;
    }
}

/// Adds one to a number, whoever else does.
async fn count(kv: &Kv, key: &str) {
    loop {
        let now = kv.range(read(key)).await.expect("a read");
        let old = now.kvs.first();
        let number: u64 = old.map_or(0, |kv| {
            String::from_utf8_lossy(&kv.value)
                .parse()
                .expect("a number")
        });
        let compare = Compare {
            result: CompareResult::Equal.into(),
            target: CompareTarget::Mod.into(),
            key: key.to_owned().into(),
            target_union: Some(TargetUnion::ModRevision(
                old.map_or(0, |kv| kv.mod_revision),
            )),
            ..Compare::default()
        };
        let put = PutRequest {
            key: key.to_owned().into(),
            value: (number + 1).to_string().into(),
            ..PutRequest::default()
        };
        let request = TxnRequest {
            compare: vec![compare],
            success: vec![RequestOp {
                request: Some(Request::RequestPut(put)),
            }],
            failure: Vec::new(),
        };
        if kv.txn(request).await.expect("a transaction").succeeded {
            return;
        }
    }
}

/// Two proxies on one prefix: each sees what the other one writes, at once.
async fn share(one: &Kv, other: &Kv, direct: &Kv) {
    for round in 0..4 {
        let (writer, reader) = if round % 2 == 0 {
            (one, other)
        } else {
            (other, one)
        };
        let key = format!("k{}", round / 2);
        own(reader, direct, &key).await;
        put(writer, &key, &format!("put {round}")).await;
        assert_eq!(get(reader, &key).await, format!("put {round}"));
        own(reader, direct, &key).await;
        let deleted = writer.delete("k".into(), "l".into()).await;
        deleted.expect("a deletion");
        assert_eq!(get(reader, &key).await, "");
    }
    let counters = (0..20).map(|n| {
        let kv = if n % 2 == 0 {
            one.clone()
        } else {
            other.clone()
        };
        tokio::spawn(async move { count(&kv, "counter").await })
    });
    for counter in counters.collect::<Vec<_>>() {
        counter.await.expect("no panic");
    }
    for kv in [one, other, direct] {
        assert_eq!(get(kv, "counter").await, "20");
    }
}

#[tokio::test]
async fn proxies_on_one_prefix_see_each_others_writes() {
    let member = member(Below::Same);
    let one = Proxy::start(member.address(), &[FLAG]).await;
    let other = Proxy::start(member.address(), &[FLAG]).await;
    share(&one.kv(), &other.kv(), &Kv::to(member.address())).await;
}

/// A proxy of Go's (`ETCD_REFERENCE`) and the one under test.
#[cfg(feature = "mixed")]
#[tokio::test]
async fn proxies_of_both_see_each_others_writes() {
    let member = member(Below::Same);
    let one = Proxy::start(member.address(), &[FLAG]).await;
    let other = Proxy::start_of(crate::process::reference(), member.address(), &[FLAG]).await;
    share(&one.kv(), &other.kv(), &Kv::to(member.address())).await;
}

#[tokio::test]
async fn owned_keys_are_answered_without_the_cluster() {
    let member = member(Below::Same);
    let mut proxy = Proxy::start(member.address(), &[FLAG]).await;
    let (kv, direct) = (proxy.kv(), Kv::to(member.address()));
    own(&kv, &direct, "k").await;
    put(&kv, "k", "v").await;
    assert_eq!(get(&kv, "k").await, "v");
    member.signal("STOP").expect("it runs");
    let local = tokio::time::timeout(LIMIT / 6, get(&kv, "k")).await;
    member.signal("CONT").expect("it runs");
    assert_eq!(local.expect("an answer without the member"), "v");
    if is_ours(&binary().expect("a binary")).expect("a version") {
        // One that is told to stop leaves nothing that others must wait for; Go's does.
        proxy.stop();
        let left = direct.range(read("_leases/k")).await.expect("a read");
        assert_eq!(left.count, 0);
    }
}

/// Not on Go's proxy, which goes on to answer everybody.
#[tokio::test]
async fn owned_keys_are_nobodys_once_users_have_names() {
    if !is_ours(&binary().expect("a binary")).expect("a version") {
        return;
    }
    let member = member(Below::Same);
    let proxy = Proxy::start(member.address(), &[FLAG]).await;
    let (kv, direct) = (proxy.kv(), Kv::to(member.address()));
    own(&kv, &direct, "k").await;
    crate::watch::enable_auth(&direct).await;
    let deadline = Instant::now() + LIMIT;
    // The proxy is not told, and learns it from its next renewal.
    while kv.range(read("k")).await.is_ok() {
        assert!(Instant::now() < deadline, "everybody is answered");
        tokio::time::sleep(PAUSE).await;
    }
    let refused = kv.range(read("k")).await.expect_err("a refusal");
    assert_eq!(refused.message(), "etcdserver: user name is empty");
}
