//! Pages beside gRPC, and command lines that are refused.

use std::process::{Command, Output};

use api::pb::etcdserverpb::StatusRequest;
use client::{Client, TlsConfig};
use e2e::{Member, Options, binary, free_address, http};

use crate::process::Proxy;

const HEALTHY: &str = "{\"health\":\"true\",\"reason\":\"\"}";

#[tokio::test]
async fn metrics_and_health_of_both_sides() {
    let mut member = Member::start(Options::default()).expect("a member");
    let monitor = free_address().expect("a free port");
    let metrics = format!("--metrics-addr=http://{monitor}");
    let proxy = Proxy::start(member.address(), &[&metrics]).await;
    for address in [proxy.address(), monitor] {
        for path in ["/health", "/proxy/health"] {
            let answer = http::get(address, path).expect("an answer");
            assert_eq!((answer.status, &*answer.body), (200, HEALTHY), "{path}");
        }
        let page = http::get(address, "/metrics").expect("an answer");
        assert_eq!(page.status, 200);
        assert!(page.body.contains("\netcd_server_has_leader 1\n"));
        let page = http::get(address, "/proxy/metrics").expect("an answer");
        assert!(page.body.contains("\netcd_grpc_proxy_cache_keys_total "));
        let ranges = "grpc_server_handled_total{grpc_code=\"OK\",grpc_method=\"Range\",\
                      grpc_service=\"etcdserverpb.KV\",grpc_type=\"unary\"}";
        let mut lines = page.body.lines();
        let sample = lines.find_map(|line| line.strip_prefix(ranges));
        let count: f64 = sample.expect("a sample").trim().parse().expect("a number");
        assert!(count >= 1.0, "{count}");
        let answer = http::request(address, "POST", "/health").expect("an answer");
        assert_eq!(answer.status, 405);
        let nothing = http::get(address, "/nothing").expect("an answer");
        assert_eq!(nothing.status, 404);
        let profile = http::get(address, "/debug/pprof/cmdline").expect("an answer");
        assert_eq!(profile.status, 404);
    }
    member.kill().expect("it runs");
    let answer = http::get(proxy.address(), "/health").expect("an answer");
    assert_eq!(answer.status, 503, "{answer:?}");
    let begin = "{\"health\":\"false\",\"reason\":\"GET ERROR:";
    assert!(answer.body.starts_with(begin), "{answer:?}");
    let answer = http::get(proxy.address(), "/metrics").expect("an answer");
    assert_eq!(answer.status, 500);
}

#[tokio::test]
async fn profiles_are_there_when_they_are_wanted() {
    let member = Member::start(Options::default()).expect("a member");
    let proxy = Proxy::start(member.address(), &["--enable-pprof"]).await;
    let words = http::get(proxy.address(), "/debug/pprof/cmdline").expect("an answer");
    assert!(words.body.contains("--enable-pprof"), "{words:?}");
}

#[tokio::test]
async fn a_certificate_can_be_made() {
    let member = Member::start(Options::default()).expect("a member");
    let directory = tempfile::tempdir().expect("a directory");
    let data = format!("--data-dir={}", directory.path().display());
    let tls = TlsConfig {
        skip_verify: true,
        ..TlsConfig::default()
    };
    let flags = ["--auto-tls", &data];
    let (proxy, config) = Proxy::start_secure(member.address(), &flags, tls).await;
    for name in ["cert.pem", "key.pem"] {
        let path = directory.path().join("fixtures/proxy").join(name);
        assert!(path.exists(), "{}", path.display());
    }
    let page = client::fetch(&config, "/health").await.expect("a page");
    assert_eq!(page, HEALTHY.as_bytes());
    let client = Client::connect(config).await.expect("a client");
    let status = client.status(StatusRequest {}).await.expect("an answer");
    assert!(status.leader != 0);
    let clear = proxy.kv().revision(false).await;
    assert!(clear.is_err(), "{clear:?}");
}

fn run(words: &[&str]) -> Output {
    let mut command = Command::new(binary().expect("a binary"));
    command.args(["grpc-proxy", "start"]).args(words);
    command.output().expect("it runs")
}

#[test]
fn what_does_not_go_together_is_refused() {
    for (words, text) in [
        (&["--resolver-prefix=x"][..], "invalid resolver-ttl 0\n"),
        (&["--resolver-ttl=5"], "invalid resolver-prefix \"\"\n"),
        (
            &[
                "--resolver-prefix=x",
                "--resolver-ttl=1",
                "--advertise-client-url=",
            ],
            "invalid advertise-client-url \"\"\n",
        ),
        (
            &["--auto-tls", "--self-signed-cert-validity=0"],
            "selfSignedCertValidity is invalid,it should be greater than 0\n",
        ),
        (
            &["--tls-max-version=TLS1.1"],
            "tls-max-version is invalid: unexpected TLS version \"TLS1.1\" (must be one of: \
             TLS1.2, TLS1.3)\n",
        ),
        (
            &["--tls-min-version=TLS1.3", "--tls-max-version=TLS1.2"],
            "min version (TLS1.3) is greater than max version (TLS1.2)\n",
        ),
        (
            &["--tls-min-version=TLS1.3", "--listen-cipher-suites=x"],
            "cipher suites cannot be configured when only TLS1.3 is enabled\n",
        ),
        (
            &["--listen-addr=nonsense"],
            "listen tcp: address nonsense: missing port in address\n",
        ),
    ] {
        let output = run(words);
        assert_eq!(output.status.code(), Some(1), "{words:?}");
        assert_eq!(String::from_utf8_lossy(&output.stderr), text, "{words:?}");
    }
}

#[test]
fn an_address_in_use_is_refused() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address");
    let output = run(&[&format!("--listen-addr={address}")]);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let text = format!("listen tcp {address}: bind: address already in use");
    assert!(said.lines().any(|line| line == text), "{said}");
}
