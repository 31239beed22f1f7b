//! Calls through the proxy: what it keeps, what it renames, what it passes on.

use api::pb::etcdserverpb::request_op::Request;
use api::pb::etcdserverpb::{
    AuthEnableRequest, AuthUserAddRequest, AuthUserGrantRoleRequest, LeaseGrantRequest,
    LeaseTimeToLiveRequest, PutRequest, RangeRequest, RequestOp, TxnRequest, WatchCreateRequest,
};
use api::pb::v3lockpb::{LockRequest, UnlockRequest};
use bytes::Bytes;
use client::stub::{KvClient, LockClient};
use client::{Client, Config, Credentials};
use e2e::kv::Kv;
use e2e::{Member, Options, binary, http, is_ours};
use tonic::Code;

use crate::process::Proxy;

async fn client_of(proxy: &Proxy) -> Client {
    let config = Config::new(vec![proxy.address().to_string()]);
    Client::connect(config).await.expect("a client")
}

fn key(key: &'static str, serializable: bool) -> RangeRequest {
    RangeRequest {
        key: key.into(),
        serializable,
        ..RangeRequest::default()
    }
}

/// The value of a key, or nothing.
async fn value(kv: &Kv, request: RangeRequest) -> Option<Bytes> {
    let answer = kv.range(request).await.expect("an answer");
    answer.kvs.into_iter().next().map(|kv| kv.value)
}

fn count(proxy: &Proxy, metric: &str) -> f64 {
    let page = http::get(proxy.address(), "/proxy/metrics").expect("an answer");
    let mut lines = page.body.lines().filter_map(|line| line.split_once(' '));
    let sample = lines.find(|(name, _)| *name == metric);
    sample.expect("a sample").1.parse().expect("a number")
}

#[tokio::test]
async fn serializable_reads_are_kept_until_the_proxy_writes() {
    let member = Member::start(Options::default()).expect("a member");
    let proxy = Proxy::start(member.address(), &[]).await;
    let (direct, kv) = (Kv::to(member.address()), proxy.kv());
    let misses = count(&proxy, "etcd_grpc_proxy_cache_misses_total");
    kv.put("k".into(), "1".into()).await.expect("a put");
    assert_eq!(value(&kv, key("k", true)).await.as_deref(), Some(&b"1"[..]));
    direct.put("k".into(), "2".into()).await.expect("a put");
    let stale = value(&kv, key("k", true)).await;
    assert_eq!(
        stale.as_deref(),
        Some(&b"1"[..]),
        "others' writes are not seen"
    );
    let fresh = value(&kv, key("k", false)).await;
    assert_eq!(fresh.as_deref(), Some(&b"2"[..]));
    let fresh = value(&kv, key("k", true)).await;
    assert_eq!(fresh.as_deref(), Some(&b"2"[..]), "what was read is kept");
    assert_eq!(count(&proxy, "etcd_grpc_proxy_cache_hits_total"), 2.0);
    let missed = count(&proxy, "etcd_grpc_proxy_cache_misses_total");
    assert_eq!(missed - misses, 1.0);
    assert!(count(&proxy, "etcd_grpc_proxy_cache_keys_total") >= 1.0);
    kv.put("k".into(), "3".into()).await.expect("a put");
    assert_eq!(value(&kv, key("k", true)).await.as_deref(), Some(&b"3"[..]));
    let put = PutRequest {
        key: "k".into(),
        value: "4".into(),
        ..PutRequest::default()
    };
    let txn = TxnRequest {
        success: vec![RequestOp {
            request: Some(Request::RequestPut(put)),
        }],
        ..TxnRequest::default()
    };
    kv.txn(txn).await.expect("a transaction");
    assert_eq!(value(&kv, key("k", true)).await.as_deref(), Some(&b"4"[..]));
    kv.delete("j".into(), "l".into()).await.expect("a deletion");
    assert_eq!(value(&kv, key("k", true)).await, None);
}

#[tokio::test]
async fn what_is_compacted_is_gone_from_the_proxy_too() {
    let member = Member::start(Options::default()).expect("a member");
    let proxy = Proxy::start(member.address(), &[]).await;
    let kv = proxy.kv();
    let first = kv.put("k".into(), "1".into()).await.expect("a put");
    let past = RangeRequest {
        revision: first,
        ..key("k", true)
    };
    assert!(value(&kv, past.clone()).await.is_some());
    let last = kv.put("k".into(), "2".into()).await.expect("a put");
    kv.compact(last).await.expect("a compaction");
    let refusal = kv.range(past).await.expect_err("it is gone");
    assert_eq!(refusal.message(), api::Error::Compacted.message());
    assert_eq!(value(&kv, key("k", true)).await.as_deref(), Some(&b"2"[..]));
}

#[tokio::test]
async fn refusals_come_through_and_ranges_are_not_streamed() {
    let member = Member::start(Options::default()).expect("a member");
    let proxy = Proxy::start(member.address(), &[]).await;
    let kv = proxy.kv();
    let refusal = kv.put(Bytes::new(), "1".into()).await;
    let refusal = refusal.expect_err("a key is needed");
    assert_eq!(refusal.message(), api::Error::EmptyKey.message());
    if is_ours(&binary().expect("a binary")).expect("a version") {
        // Go's proxy loses the codes of what it understands itself.
        assert_eq!(refusal.code(), Code::InvalidArgument);
    }
    let mut stub = KvClient::new(kv.channel());
    let outcome = stub.range_stream(key("k", false)).await;
    let outcome = match outcome {
        Ok(answer) => answer.into_inner().message().await.map(|_| ()),
        Err(status) => Err(status),
    };
    let refusal = outcome.expect_err("it is not supported");
    assert_eq!(refusal.code(), Code::Unimplemented);
    let text = "RangeStream is not supported by the gRPC proxy";
    assert_eq!(refusal.message(), text);
    let large = vec![7; (1 << 20) + (1 << 19)];
    let refusal = kv.put("k".into(), large.into()).await;
    let refusal = refusal.expect_err("it is too large for the way to the cluster");
    assert!(
        refusal
            .message()
            .contains("trying to send message larger than max"),
        "{refusal:?}"
    );
}

#[tokio::test]
async fn keys_lie_in_the_namespace() {
    let member = Member::start(Options::default()).expect("a member");
    let proxy = Proxy::start(member.address(), &["--namespace=ns/"]).await;
    let (direct, kv) = (Kv::to(member.address()), proxy.kv());
    let client = client_of(&proxy).await;
    let request = LeaseGrantRequest { ttl: 600, id: 0 };
    let lease = client.lease_grant(request).await.expect("a lease").id;
    direct.put("other".into(), "x".into()).await.expect("a put");
    for name in ["a", "b"] {
        let put = PutRequest {
            key: name.into(),
            value: "1".into(),
            lease,
            prev_kv: true,
            ..PutRequest::default()
        };
        kv.put_request(put).await.expect("a put");
    }
    let all = RangeRequest {
        key: Bytes::from_static(b"\0"),
        range_end: Bytes::from_static(b"\0"),
        ..RangeRequest::default()
    };
    let names = |answer: api::pb::etcdserverpb::RangeResponse| -> Vec<Bytes> {
        answer.kvs.into_iter().map(|kv| kv.key).collect()
    };
    let through = names(kv.range(all.clone()).await.expect("an answer"));
    assert_eq!(through, ["a", "b"]);
    let beside = names(direct.range(all).await.expect("an answer"));
    assert_eq!(beside, ["ns/a", "ns/b", "other"]);
    let request = LeaseTimeToLiveRequest {
        id: lease,
        keys: true,
    };
    let shown = client.lease_time_to_live(request).await.expect("an answer");
    assert_eq!(shown.keys, ["a", "b"]);
    let mut watcher = client.watches().create(WatchCreateRequest {
        key: Bytes::from_static(b"\0"),
        range_end: Bytes::from_static(b"\0"),
        start_revision: 1,
        ..WatchCreateRequest::default()
    });
    let event = watcher.next().await.expect("events");
    let keys = event.events.into_iter().filter_map(|event| event.kv);
    let first = keys.map(|kv| kv.key).next();
    assert_eq!(first.as_deref(), Some(&b"a"[..]));
    let refusal = kv.put(Bytes::new(), "1".into()).await;
    let refusal = refusal.expect_err("no name is no key");
    assert_eq!(refusal.message(), api::Error::EmptyKey.message());
}

#[tokio::test]
async fn services_that_the_proxy_does_not_understand_are_passed_on() {
    let member = Member::start(Options::default()).expect("a member");
    let proxy = Proxy::start(member.address(), &[]).await;
    let client = client_of(&proxy).await;
    let mut locks = LockClient::new(proxy.kv().channel());
    let request = LockRequest {
        name: "l".into(),
        lease: 0,
    };
    let key = locks
        .lock(request)
        .await
        .expect("the lock")
        .into_inner()
        .key;
    let range = RangeRequest {
        key: key.clone(),
        ..RangeRequest::default()
    };
    let held = proxy.kv().range(range).await.expect("an answer");
    assert_eq!(held.count, 1);
    let unlocked = locks.unlock(UnlockRequest { key }).await;
    assert!(unlocked.is_ok(), "{unlocked:?}");
    let mut stream = client.snapshot().await.expect("a stream");
    let mut bytes = 0;
    while let Some(part) = client.next_part(&mut stream).await.expect("no error") {
        bytes += part.blob.len();
    }
    assert!(bytes > 16 * 1024, "{bytes} bytes are no database");
}

#[tokio::test]
async fn a_token_goes_with_its_caller() {
    let member = Member::start(Options::default()).expect("a member");
    let proxy = Proxy::start(member.address(), &[]).await;
    let client = client_of(&proxy).await;
    proxy.kv().put("k".into(), "1".into()).await.expect("a put");
    let user = AuthUserAddRequest {
        name: "root".to_owned(),
        password: "pw".to_owned(),
        ..AuthUserAddRequest::default()
    };
    client.user_add(user).await.expect("a user");
    let grant = AuthUserGrantRoleRequest {
        user: "root".to_owned(),
        role: "root".to_owned(),
    };
    client.user_grant_role(grant).await.expect("a grant");
    client
        .auth_enable(AuthEnableRequest {})
        .await
        .expect("authentication");
    let mut config = Config::new(vec![proxy.address().to_string()]);
    config.credentials = Some(Credentials {
        name: "root".to_owned(),
        password: "pw".to_owned(),
    });
    let root = Client::connect(config).await.expect("root");
    let answer = root.range(key("k", true)).await.expect("an answer");
    assert_eq!(answer.count, 1);
    let refusal = proxy.kv().range(key("k", false)).await;
    let refusal = refusal.expect_err("nobody may read");
    assert_eq!(refusal.message(), api::Error::UserEmpty.message());
    if is_ours(&binary().expect("a binary")).expect("a version") {
        // Go's proxy gives what root read to everybody.
        let refusal = proxy.kv().range(key("k", true)).await;
        assert!(refusal.is_err(), "{refusal:?}");
    }
}
