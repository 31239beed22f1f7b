//! Certificates on both sides of the proxy. Needs the command `openssl`.

use std::path::Path;

use api::pb::etcdserverpb::{PutRequest, RangeRequest};
use bytes::Bytes;
use client::{Client, TlsConfig};
use e2e::pki::{Leaf, Pki};
use e2e::{Member, Options, free_address};

use crate::process::Proxy;

fn tls(authority: &Path, leaf: Option<&Leaf>) -> TlsConfig {
    TlsConfig {
        ca_file: Some(authority.to_owned()),
        identity: leaf.map(|leaf| (leaf.certificate.clone(), leaf.key.clone())),
        ..TlsConfig::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_side_has_its_own_authorities() {
    let inner = Pki::new().expect("authorities");
    let outer = Pki::new().expect("authorities");
    let secure = free_address().expect("a free port");
    let server = inner.leaf("server", "server").expect("a certificate");
    let member = Member::start(Options {
        flags: vec![
            format!("--listen-client-urls=http://{{client}},https://{secure}"),
            format!("--trusted-ca-file={}", inner.path("chain.pem").display()),
            format!("--cert-file={}", server.certificate.display()),
            format!("--key-file={}", server.key.display()),
        ],
        ..Options::default()
    });
    let _member = member.expect("a healthy member");
    let own = inner.nameless("own", "user").expect("a certificate");
    let front = outer.leaf("front", "server").expect("a certificate");
    let revoked = outer.leaf("revoked", "user").expect("a certificate");
    let list = outer.revoke(Some("revoked")).expect("a list");
    let user = outer.leaf("user", "user").expect("a certificate");
    let flags = [
        format!("--cacert={}", inner.path("chain.pem").display()),
        format!("--cert={}", own.certificate.display()),
        format!("--key={}", own.key.display()),
        format!("--trusted-ca-file={}", outer.path("chain.pem").display()),
        format!("--cert-file={}", front.certificate.display()),
        format!("--key-file={}", front.key.display()),
        format!("--client-crl-file={}", list.display()),
    ];
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let authority = outer.path("chain.pem");
    let endpoint = format!("https://{secure}");
    let (_proxy, config) =
        Proxy::start_secure(endpoint, &flags, tls(&authority, Some(&user))).await;
    let health = client::fetch(&config, "/health").await.expect("a page");
    assert!(health.starts_with(b"{\"health\":\"true\""));
    let metrics = client::fetch(&config, "/metrics").await.expect("a page");
    let text = String::from_utf8_lossy(&metrics);
    assert!(text.contains("\netcd_server_has_leader 1\n"));
    let client = Client::connect(config.clone()).await.expect("a client");
    let put = PutRequest {
        key: Bytes::from_static(b"k"),
        value: Bytes::from_static(b"v"),
        ..PutRequest::default()
    };
    client.put(put).await.expect("a put");
    let range = RangeRequest {
        key: Bytes::from_static(b"k"),
        ..RangeRequest::default()
    };
    assert_eq!(client.range(range).await.expect("an answer").count, 1);
    let foreign = inner.leaf("foreign", "user").expect("a certificate");
    for leaf in [None, Some(&revoked), Some(&foreign)] {
        let mut config = config.clone();
        config.tls = Some(tls(&authority, leaf));
        let page = client::fetch(&config, "/health").await;
        assert!(page.is_err(), "{leaf:?}");
    }
}

#[test]
fn the_name_of_a_user_would_be_everybodys() {
    let pki = Pki::new().expect("authorities");
    let user = pki.leaf("user", "user").expect("a certificate");
    let mut command = std::process::Command::new(e2e::binary().expect("a binary"));
    let address = free_address().expect("a free port");
    let output = command
        .args(["grpc-proxy", "start"])
        .arg(format!("--listen-addr={address}"))
        .arg(format!("--cert={}", user.certificate.display()))
        .arg(format!("--key={}", user.key.display()))
        .output();
    let output = output.expect("it runs");
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let text = format!(
        "cert has non empty Common Name (user): {}",
        user.certificate.display()
    );
    assert!(said.lines().any(|line| line == text), "{said}");
}
