//! Founders that meet in a cluster that runs already.

use std::time::{Duration, Instant};

use api::pb::etcdserverpb::RangeRequest;
use e2e::kv::Kv;
use e2e::{Member, Options};

use super::start::{Newcomer, url};

const LIMIT: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(50);

async fn put(registry: &Member, key: &str, value: &str) {
    let key = format!("/_etcd/registry/{key}");
    let kv = Kv::to(registry.address());
    let put = kv.put(key.into(), value.to_owned().into());
    put.await.expect("the registry takes keys");
}

/// Starts a founder and compares its last words, in which `{own}` stands for its peer URL.
fn refused(registry: &Member, flags: &[&str], want: &str) {
    let own = url();
    let endpoints = format!("--discovery-endpoints={}", registry.address());
    let mut all = vec![endpoints.as_str()];
    all.extend(flags);
    let ended = Newcomer::start(&own, &all).wait();
    assert_eq!(ended.code, Some(1), "{flags:?}:\n{}", ended.log);
    assert_eq!(ended.error, want.replace("{own}", &own), "{flags:?}");
}

#[tokio::test]
async fn registries_that_have_no_place() {
    let registry = Member::start(Options::default()).expect("a registry");
    for (key, value) in [
        ("words/_config/size", "three"),
        ("none/_config/size", "0"),
        ("full/_config/size", "1"),
        ("full/members/1", "a=http://127.0.0.9:1"),
        ("urls/_config/size", "2"),
        ("urls/members/1", "a=nowhere"),
        ("joined/up/_config/size", "1"),
        ("joined/up/members/1", "a=http://127.0.0.9:1"),
    ] {
        put(&registry, key, value).await;
    }
    let failed = |why: &str| format!("failed to join discovery cluster (discovery: {why})");
    for (token, why) in [
        ("nobody", "size key not found"),
        ("words", "size key is bad"),
        ("none", "size key is bad"),
        ("full", "cluster is full"),
        ("urls", "invalid peer URL"),
        ("/joined//.//up/", "cluster is full"),
    ] {
        let token = format!("--discovery-token={token}");
        refused(&registry, &[&token], &failed(why));
    }
    let token = "--discovery-token=full";
    refused(
        &registry,
        &[token, "--initial-cluster-state=existing"],
        "discovery URL should not be set when joining existing initial cluster",
    );
    refused(
        &registry,
        &[token, "--initial-cluster=x={own}"],
        "multiple discovery or bootstrap flags are set. Choose one of \"initial-cluster\", \
         \"discovery-endpoints\" or \"discovery-srv\"",
    );
    refused(
        &registry,
        &[token, "--discovery-cert=nowhere"],
        "failed to join discovery cluster (KeyFile and CertFile must both be present[key: , cert: \
         nowhere])",
    );
}

#[tokio::test]
async fn a_founder_that_is_there_twice() {
    let registry = Member::start(Options::default()).expect("a registry");
    put(&registry, "twice/_config/size", "2").await;
    let own = url();
    put(&registry, "twice/members/1", &format!("a={own}")).await;
    let endpoints = format!("--discovery-endpoints={}", registry.address());
    let mut newcomer = Newcomer::start(&own, &[&endpoints, "--discovery-token=twice"]);
    let want = format!("discovery cluster a={own},x={own} has duplicate url");
    assert_eq!(newcomer.wait().error, want);
}

/// What the registry has below a token.
async fn registered(registry: &Member, token: &str) -> Vec<String> {
    let prefix = format!("/_etcd/registry/{token}/members/");
    let request = RangeRequest {
        key: prefix.clone().into(),
        range_end: client::prefix_end(prefix.as_bytes()),
        ..RangeRequest::default()
    };
    let answer = Kv::to(registry.address()).range(request).await;
    let kvs = answer.expect("the registry answers").kvs;
    kvs.iter()
        .map(|kv| String::from_utf8_lossy(&kv.value).into_owned())
        .collect()
}

#[tokio::test]
async fn founders_that_find_each_other() {
    let registry = Member::start(Options::default()).expect("a registry");
    put(&registry, "three/_config/size", "3").await;
    let endpoints = format!("--discovery-endpoints={}", registry.address());
    let mut founders: Vec<Newcomer> = Vec::new();
    let owns = [url(), url(), url()];
    for (n, own) in owns.iter().enumerate() {
        let name = format!("--name=n{n}");
        let flags = [name.as_str(), &endpoints, "--discovery-token=three"];
        founders.push(Newcomer::start(own, &flags));
        // One after the other, so that those before wait for those behind.
        let deadline = Instant::now() + LIMIT;
        while registered(&registry, "three").await.len() <= n {
            assert!(Instant::now() < deadline, "{}", founders[n].log());
            tokio::time::sleep(PAUSE).await;
        }
    }
    for founder in &mut founders {
        founder.wait_until_healthy();
    }
    let mut wanted: Vec<String> = (0..3).map(|n| format!("n{n}={}", owns[n])).collect();
    let mut found = registered(&registry, "three").await;
    found.sort();
    assert_eq!(found, wanted);
    let members = Kv::to(founders[2].client).members().await;
    let members = members.expect("a list");
    let named = members.iter();
    let mut named: Vec<String> = named
        .map(|member| format!("{}={}", member.name, member.peer_ur_ls.join(",")))
        .collect();
    named.sort();
    wanted.sort();
    assert_eq!(named, wanted);
    // Too late, and back again from its own data.
    refused(
        &registry,
        &["--discovery-token=three"],
        "failed to join discovery cluster (discovery: cluster is full)",
    );
    founders[0].restart();
    founders[0].wait_until_healthy();
    assert!(founders[0].log().contains(
        "discovery token is ignored since cluster already initialized; valid logs are found"
    ));
}

/// A registry that is not there is waited for.
#[tokio::test]
async fn a_registry_that_comes_later() {
    let mut registry = Member::start(Options::default()).expect("a registry");
    put(&registry, "late/_config/size", "1").await;
    registry.kill().expect("it runs");
    let endpoints = format!("--discovery-endpoints={}", registry.address());
    let mut founder = Newcomer::start(
        &url(),
        &[
            &endpoints,
            "--discovery-token=late",
            "--discovery-request-timeout=200ms",
        ],
    );
    founder.wait_for_line("retry connecting to discovery service");
    registry.restart().expect("the registry comes back");
    founder.wait_until_healthy();
}

/// A registry behind TLS that wants certificates of its clients.
#[cfg(feature = "tls")]
#[tokio::test]
async fn a_registry_behind_tls() {
    let pki = e2e::pki::Pki::new().expect("authorities");
    let server = pki.leaf("server", "server").expect("a certificate");
    let user = pki.leaf("user", "user").expect("a certificate");
    let secure = e2e::free_address().expect("a free port");
    let authority = pki.path("chain.pem").display().to_string();
    let options = Options {
        flags: vec![
            format!("--listen-client-urls=http://{{client}},https://{secure}"),
            "--client-cert-auth".into(),
            format!("--trusted-ca-file={authority}"),
            format!("--cert-file={}", server.certificate.display()),
            format!("--key-file={}", server.key.display()),
        ],
        ..Options::default()
    };
    let registry = Member::start(options).expect("a registry");
    put(&registry, "secure/_config/size", "1").await;
    let flags = [
        format!("--discovery-endpoints=https://localhost:{}", secure.port()),
        "--discovery-token=secure".to_owned(),
        "--discovery-insecure-transport=false".to_owned(),
        "--discovery-request-timeout=1s".to_owned(),
        format!("--discovery-cacert={authority}"),
        format!("--discovery-cert={}", user.certificate.display()),
        format!("--discovery-key={}", user.key.display()),
    ];
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    // Without a certificate nothing is found out.
    let mut stranger = Newcomer::start(&url(), &flags[..5]);
    stranger.wait_for_line("failed to get cluster size from discovery service");
    assert!(registered(&registry, "secure").await.is_empty());
    drop(stranger);
    Newcomer::start(&url(), &flags).wait_until_healthy();
    assert_eq!(registered(&registry, "secure").await.len(), 1);
}

/// A registry that wants to know who asks: Go's, `ETCD_REFERENCE`.
#[cfg(feature = "mixed")]
#[tokio::test]
async fn a_registry_with_users() {
    use api::pb::etcdserverpb::{AuthEnableRequest, AuthUserAddRequest, AuthUserGrantRoleRequest};
    use client::stub::AuthClient;

    let reference = std::env::var_os("ETCD_REFERENCE").expect("ETCD_REFERENCE names a Go etcd");
    let options = Options {
        binary: Some(reference.into()),
        ..Options::default()
    };
    let registry = Member::start(options).expect("a registry");
    put(&registry, "users/_config/size", "1").await;
    let mut auth = AuthClient::new(Kv::to(registry.address()).channel());
    let user = AuthUserAddRequest {
        name: "root".into(),
        password: "secret".into(),
        ..AuthUserAddRequest::default()
    };
    auth.user_add(user).await.expect("a user");
    let grant = AuthUserGrantRoleRequest {
        user: "root".into(),
        role: "root".into(),
    };
    auth.user_grant_role(grant).await.expect("a role");
    auth.auth_enable(AuthEnableRequest {})
        .await
        .expect("it is on");
    let token = "--discovery-token=users";
    refused(
        &registry,
        &[token, "--discovery-user=root", "--discovery-password=wrong"],
        "failed to join discovery cluster (etcdserver: authentication failed, invalid user ID or \
         password)",
    );
    let endpoints = format!("--discovery-endpoints={}", registry.address());
    let flags = [
        &endpoints,
        token,
        "--discovery-user=root",
        "--discovery-password=secret",
    ];
    Newcomer::start(&url(), &flags).wait_until_healthy();
}
