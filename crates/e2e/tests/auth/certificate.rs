//! Being somebody by a certificate.

use std::path::Path;
use std::process::Command;

use api::pb::etcdserverpb::{PutRequest, RangeRequest};
use client::stub::KvClient;
use client::{Channel, Config, TlsConfig};
use e2e::auth::{Door, Kind, Root, Who, users};
use e2e::kv::Kv;
use e2e::pki::{Leaf, Pki};
use e2e::raw::Connection;
use e2e::{Member, free_address};
use tonic::Code;

use crate::access::{Headers, Way, check, start, token};
use crate::stories::{person, refused};

/// A member that asks for certificates on a port of its own.
struct Secured {
    pki: Pki,
    member: Member,
    port: u16,
}

impl Secured {
    fn start() -> Secured {
        let pki = Pki::new().unwrap();
        let server = pki.leaf("server", "server").unwrap();
        let secure = free_address().unwrap();
        let member = start(vec![
            format!("--listen-client-urls=http://{{client}},https://{secure}"),
            "--client-cert-auth".into(),
            format!("--trusted-ca-file={}", pki.path("chain.pem").display()),
            format!("--cert-file={}", server.certificate.display()),
            format!("--key-file={}", server.key.display()),
        ]);
        Secured {
            pki,
            member,
            port: secure.port(),
        }
    }

    fn config(&self, leaf: &Leaf) -> Config {
        let mut config = Config::new(vec![format!("https://localhost:{}", self.port)]);
        config.tls = Some(TlsConfig {
            ca_file: Some(self.pki.path("chain.pem")),
            identity: Some((leaf.certificate.clone(), leaf.key.clone())),
            ..TlsConfig::default()
        });
        config
    }

    fn kv(&self) -> Kv {
        Kv::to(self.member.address())
    }

    fn curl(&self, leaf: &Leaf, headers: &[&str], path: &str, body: &str) -> String {
        let authority: &Path = &self.pki.path("chain.pem");
        let mut command = Command::new("curl");
        command.args([
            "--silent",
            "--max-time",
            "10",
            "--write-out",
            " %{http_code}",
        ]);
        command.arg("--cacert").arg(authority);
        command.arg("--cert").arg(&leaf.certificate);
        command.arg("--key").arg(&leaf.key);
        for header in headers {
            command.args(["--header", header]);
        }
        let url = format!("https://localhost:{}{path}", self.port);
        let output = command.args(["--data", body, &url]).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates() {
    let secured = Secured::start();
    let everybody = users();
    let mut root = Root::at(&secured.kv());
    root.enable(&everybody).await.unwrap();
    let door = |name: &str| Door {
        connection: Connection::secure(secured.config(&secured.pki.leaf(name, "user").unwrap())),
        address: secured.member.address(),
    };
    let mut callers = vec![(Who::Stranger, door("stranger"), Headers::new())];
    for user in everybody {
        let own = door(&user.name);
        if user.root {
            // Whoever shows a token is who the token says.
            let wrong = token("abcdefghijklmnop.1");
            callers.push((Who::WrongToken, own.clone(), wrong));
        }
        callers.push((Who::User(user), own, Headers::new()));
    }
    let plain = Door {
        connection: Connection::to(secured.member.address()),
        address: secured.member.address(),
    };
    let way = Way {
        name: "certificate",
        callers,
        root: (plain, token(root.token.as_deref().unwrap())),
        json: false,
        peer: format!("http://{}", secured.member.peer()),
    };
    check(&way.run().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_and_tokens_and_the_gateway() {
    let secured = Secured::start();
    let mut root = Root::at(&secured.kv());
    let ann = secured.pki.leaf("ann", "user").unwrap();
    let range = r#"{"key":"YS8x"}"#;
    // While authentication is off, names mean nothing.
    let body = secured.curl(&ann, &[], "/v3/kv/range", range);
    assert!(body.ends_with(" 200"), "{body}");
    let people = ["root", "ann", "bob"].map(|name| person(name, Kind::ReadWrite));
    root.enable(&people).await.unwrap();

    let channel = Channel::new(&secured.config(&ann)).unwrap();
    let mut stub = KvClient::new(channel);
    let put = |key: &'static str| PutRequest {
        key: key.into(),
        ..PutRequest::default()
    };
    stub.put(put("a/1")).await.unwrap();
    let denied = "etcdserver: permission denied";
    refused(stub.put(put("x")).await, Code::PermissionDenied, denied);
    // A token goes before the certificate.
    let mut request = tonic::Request::new(put("x"));
    let value = root.token.as_deref().unwrap().parse().unwrap();
    request.metadata_mut().insert("token", value);
    stub.put(request).await.unwrap();
    // What comes from a gateway has the gateway's certificate, which says nothing.
    let mut request = tonic::Request::new(RangeRequest {
        key: "a/1".into(),
        ..RangeRequest::default()
    });
    request
        .metadata_mut()
        .insert("grpcgateway-accept", "*/*".parse().unwrap());
    let empty = "etcdserver: user name is empty";
    refused(stub.range(request).await, Code::InvalidArgument, empty);
    // And a gateway refuses who might believe otherwise.
    let text = "CommonName of client sending a request against gateway will be ignored and not \
                used as expected";
    let token = format!("Authorization: {}", root.authenticate("ann").await.unwrap());
    for headers in [vec![], vec![token.as_str()]] {
        let body = secured.curl(&ann, &headers, "/v3/kv/range", range);
        assert_eq!(body.replace('\n', ""), format!("{text} 400"));
    }
    let health = secured.curl(&ann, &[], "/health", "");
    assert!(
        health.contains(" 405") || health.contains(" 200"),
        "{health}"
    );
}
