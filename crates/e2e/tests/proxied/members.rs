//! Proxies that know each other.

use std::time::Instant;

use api::pb::etcdserverpb::RangeRequest;
use client::prefix_end;
use e2e::kv::Kv;
use e2e::{Member, Options, binary, is_ours};

use crate::process::{LIMIT, PAUSE, Proxy};

/// Waits until the member list that the proxy gives has these client URLs.
async fn wait_for(proxy: &Proxy, wanted: &[String]) {
    let deadline = Instant::now() + LIMIT;
    loop {
        let members = proxy.kv().members().await.expect("a list");
        assert!(members.iter().all(|member| !member.name.is_empty()));
        let mut urls: Vec<String> = members.into_iter().flat_map(|it| it.client_ur_ls).collect();
        urls.sort();
        if urls == wanted {
            return;
        }
        assert!(Instant::now() < deadline, "{urls:?} are not {wanted:?}");
        tokio::time::sleep(PAUSE).await;
    }
}

#[tokio::test]
async fn a_proxy_is_the_member_that_clients_see() {
    let member = Member::start(Options::default()).expect("a member");
    let proxy = Proxy::start(member.address(), &[]).await;
    wait_for(&proxy, &[proxy.address().to_string()]).await;
    let hidden = ["--advertise-client-url="];
    let hidden = Proxy::start(member.address(), &hidden).await;
    wait_for(&hidden, &[format!("http://{}", member.address())]).await;
}

#[tokio::test]
async fn proxies_with_a_resolver_prefix_are_one_cluster() {
    let member = Member::start(Options::default()).expect("a member");
    let flags = ["--resolver-prefix=proxies", "--resolver-ttl=2"];
    let first = Proxy::start(member.address(), &flags).await;
    let mut second = Proxy::start(member.address(), &flags).await;
    let mut both = [first.address().to_string(), second.address().to_string()];
    both.sort();
    wait_for(&first, &both).await;
    wait_for(&second, &both).await;
    let range = RangeRequest {
        key: "proxies/".into(),
        range_end: prefix_end(b"proxies/"),
        ..RangeRequest::default()
    };
    let direct = Kv::to(member.address());
    let answer = direct.range(range).await.expect("an answer");
    for kv in &answer.kvs {
        let record: serde_json::Value = serde_json::from_slice(&kv.value).expect("JSON");
        let address = record["Addr"].as_str().expect("an address");
        assert_eq!(kv.key, format!("proxies/{address}"));
        assert_ne!(kv.lease, 0);
        let metadata = record["Metadata"].as_str().expect("a text");
        let metadata: serde_json::Value = serde_json::from_str(metadata).expect("JSON");
        assert!(metadata["name"].is_string());
    }
    assert_eq!(answer.count, 2);
    second.stop();
    let begun = Instant::now();
    wait_for(&first, &[first.address().to_string()]).await;
    if is_ours(&binary().expect("a binary")).expect("a version") {
        // Go's proxies leave that to the lease.
        assert!(begun.elapsed().as_secs_f64() < 1.5, "{:?}", begun.elapsed());
    }
}
