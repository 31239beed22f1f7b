//! Tokens, clusters and directories shared with Go's etcd (`ETCD_REFERENCE`).

use std::path::PathBuf;

use e2e::auth::{Kind, Root};
use e2e::kv::Kv;
use e2e::{Cluster, Member, Options};
use tonic::Code;

use crate::access::Secret;
use crate::keys::{flag, make_keys};
use crate::stories::{enabled, get, person, put, refused, status, tokens_go_everywhere};

const METHODS: [&str; 13] = [
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "HS256",
    "HS384", "HS512", "EdDSA",
];

fn reference() -> Option<PathBuf> {
    let path = std::env::var_os("ETCD_REFERENCE").expect("ETCD_REFERENCE names a Go etcd");
    Some(path.into())
}

fn start(binary: Option<PathBuf>, flag: &str, data_dir: Option<PathBuf>) -> Member {
    Member::start(Options {
        binary,
        data_dir,
        flags: vec![flag.into(), "--bcrypt-cost=4".into()],
        ..Options::default()
    })
    .unwrap()
}

/// Authentication on where no token can be had.
async fn enabled_without_token(kv: &Kv) {
    let mut root = Root::at(kv);
    for name in ["root", "ann"] {
        root.add(&person(name, Kind::ReadWrite)).await.unwrap();
    }
    let text = "auth: token signing attempted with verify-only key";
    refused(root.switch_on().await, Code::Unknown, text);
}

#[tokio::test(flavor = "multi_thread")]
async fn signed_tokens_are_the_same() {
    for method in METHODS {
        let directory = tempfile::tempdir().unwrap();
        make_keys(directory.path(), method);
        let is_secret = method.starts_with('H');
        let flags = flag(directory.path(), method, true, !is_secret);
        let members = [start(reference(), &flags, None), start(None, &flags, None)];
        let kvs = members.each_ref().map(|member| Kv::to(member.address()));
        let mut tokens = Vec::new();
        for kv in &kvs {
            let root = enabled(kv, &["ann"]).await;
            tokens.push(root.authenticate("ann").await.unwrap());
        }
        assert_eq!(status(&kvs[0]).await, status(&kvs[1]).await);
        for kv in &kvs {
            for token in &tokens {
                put(kv, Some(token), "a/1")
                    .await
                    .unwrap_or_else(|error| panic!("{method} {error}"));
                let denied = "etcdserver: permission denied";
                refused(
                    get(kv, Some(token), "x").await,
                    Code::PermissionDenied,
                    denied,
                );
                let cut = &token[..token.len() - 6];
                let invalid = "etcdserver: invalid auth token";
                refused(
                    get(kv, Some(cut), "a/1").await,
                    Code::Unauthenticated,
                    invalid,
                );
            }
        }
        if is_secret {
            continue;
        }
        let flags = flag(directory.path(), method, false, true);
        for binary in [reference(), None] {
            let member = start(binary, &flags, None);
            let kv = Kv::to(member.address());
            enabled_without_token(&kv).await;
            for token in &tokens {
                put(&kv, Some(token), "a/1").await.unwrap();
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn clusters_of_both_know_their_users() {
    let secret = Secret::new();
    let signed = secret.flag();
    for flags in [vec!["--bcrypt-cost=4"], vec!["--bcrypt-cost=4", &signed]] {
        let cluster = Cluster::start(vec![reference(), None, reference()], &flags).unwrap();
        enabled(&cluster.kv(1), &["ann"]).await;
        tokens_go_everywhere(&cluster, &[0, 1, 2], false).await;
        let first = status(&cluster.kv(0)).await;
        for at in 1..3 {
            assert_eq!(status(&cluster.kv(at)).await, first);
        }
    }
}

/// Go's directory, ours, and Go's again: users, roles, revision and passwords stay.
#[tokio::test(flavor = "multi_thread")]
async fn directories_go_from_hand_to_hand() {
    let directory = tempfile::tempdir().unwrap();
    let path = || Some(directory.path().to_owned());
    let mut before = None;
    for (turn, binary) in [reference(), None, reference(), None]
        .into_iter()
        .enumerate()
    {
        let mut member = start(binary, "--auth-token=simple", path());
        let kv = Kv::to(member.address());
        let root = match turn {
            0 => enabled(&kv, &["ann"]).await,
            _ => {
                let mut root = Root::at(&kv);
                root.renew().await.unwrap();
                assert_eq!(Some(status(&kv).await), before);
                root
            }
        };
        let token = root.authenticate("ann").await.unwrap();
        put(&kv, Some(&token), "a/1").await.unwrap();
        let denied = "etcdserver: permission denied";
        refused(
            get(&kv, Some(&token), "x").await,
            Code::PermissionDenied,
            denied,
        );
        let name = format!("of turn {turn}");
        root.add(&person(&name, Kind::Read)).await.unwrap();
        for earlier in 0..=turn {
            let token = root
                .authenticate(&format!("of turn {earlier}"))
                .await
                .unwrap();
            get(&kv, Some(&token), "a/1").await.unwrap();
            refused(
                put(&kv, Some(&token), "a/1").await,
                Code::PermissionDenied,
                denied,
            );
        }
        before = Some(status(&kv).await);
        member.stop().unwrap();
    }
}
