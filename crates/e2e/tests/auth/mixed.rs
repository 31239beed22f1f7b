//! Tokens, clusters and directories shared with Go's etcd (`ETCD_REFERENCE`).

use std::path::PathBuf;

use api::pb::authpb::Permission;
use api::pb::authpb::permission::Type;
use api::pb::etcdserverpb::request_op::Request;
use api::pb::etcdserverpb::{
    AuthRoleGrantPermissionRequest, DeleteRangeRequest, PutRequest, RangeRequest, RequestOp,
    TxnRequest,
};
use client::stub::{AuthClient, KvClient};
use e2e::auth::setup::with_token;
use e2e::auth::{Kind, Root};
use e2e::kv::Kv;
use e2e::random::Random;
use e2e::{Cluster, Member, Options};
use tonic::Code;

use crate::access::Secret;
use crate::keys::{flag, make_keys};
use crate::stories::{enabled, get, person, put, refused, status, tokens_go_everywhere};

const METHODS: [&str; 13] = [
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "HS256",
    "HS384", "HS512", "EdDSA",
];

/// Requests for ranges that hold no key.
const ROUNDS: usize = 300;

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

fn letter(random: &mut Random, from: u8, count: u64) -> u8 {
    from + u8::try_from(random.below(count)).unwrap()
}

/// Gives `ann` stretches of letters, some of which meet.
async fn permit_stretches(kv: &Kv, root: &Root, random: &mut Random) {
    let mut stub = AuthClient::new(kv.channel());
    for _ in 0..24 {
        let begin = letter(random, b'b', 16);
        let request = root.request(AuthRoleGrantPermissionRequest {
            name: "ann".into(),
            perm: Some(Permission {
                perm_type: Type::Readwrite as i32,
                key: vec![begin].into(),
                range_end: vec![letter(random, begin + 1, 2)].into(),
            }),
        });
        stub.role_grant_permission(request).await.unwrap();
    }
}

/// What a user may do with a range that ends before it begins depends on the tree in which etcd
/// keeps permissions. Members that decide otherwise come apart, for what is denied writes nothing.
#[tokio::test(flavor = "multi_thread")]
async fn ranges_that_hold_no_key_are_judged_alike() {
    let secret = Secret::new();
    let flags = ["--bcrypt-cost=4", &*secret.flag()];
    let cluster = Cluster::start(vec![reference(), None, reference()], &flags).unwrap();
    let kvs = [cluster.kv(0), cluster.kv(1)];
    let mut random = Random::new(1);
    let mut root = enabled(&kvs[0], &["ann"]).await;
    permit_stretches(&kvs[0], &root, &mut random).await;
    root.renew().await.unwrap();
    let token = root.authenticate("ann").await.unwrap();
    let mut allowed = 0;
    for number in 0..ROUNDS {
        let begin = letter(&mut random, b'b', 18);
        let delete = DeleteRangeRequest {
            key: vec![begin].into(),
            range_end: vec![letter(&mut random, b'a', u64::from(begin - b'a'))].into(),
            ..DeleteRangeRequest::default()
        };
        let put = PutRequest {
            key: "a/1".into(),
            ..PutRequest::default()
        };
        let operations = [
            Request::RequestDeleteRange(delete),
            Request::RequestPut(put),
        ];
        let operations = operations.map(|request| RequestOp {
            request: Some(request),
        });
        let txn = TxnRequest {
            success: operations.into(),
            ..TxnRequest::default()
        };
        let mut stub = KvClient::new(kvs[number % 2].channel());
        match stub.txn(with_token(txn, Some(&token))).await {
            Ok(_) => allowed += 1,
            Err(status) => assert_eq!(status.code(), Code::PermissionDenied, "{status}"),
        }
    }
    assert!(allowed > 0 && allowed < ROUNDS, "{allowed}");
    let mut told = Vec::new();
    for kv in &kvs {
        let request = RangeRequest {
            key: "a/1".into(),
            ..RangeRequest::default()
        };
        let mut stub = KvClient::new(kv.channel());
        let answer = stub.range(with_token(request, Some(&token))).await.unwrap();
        told.push(answer.into_inner().kvs);
    }
    assert_eq!(told[0], told[1]);
    assert_eq!(told[0][0].version, i64::try_from(allowed).unwrap());
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
