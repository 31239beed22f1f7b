//! What becomes of tokens, users and watches while things change.

use std::time::{Duration, Instant};

use api::pb::etcdserverpb::watch_request::RequestUnion;
use api::pb::etcdserverpb::{
    AuthRoleRevokePermissionRequest, AuthStatusRequest, AuthUserChangePasswordRequest,
    AuthUserDeleteRequest, AuthUserRevokeRoleRequest, LeaseGrantRequest, PutRequest, RangeRequest,
    WatchCreateRequest, WatchRequest,
};
use client::stub::{AuthClient, KvClient, LeaseClient, WatchClient};
use e2e::auth::setup::with_token;
use e2e::auth::users::Permission;
use e2e::auth::{Kind, Root, User};
use e2e::kv::Kv;
use e2e::{Cluster, Member, http};
use tonic::codegen::tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::access::{Secret, start};

const LIMIT: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(100);

/// A user whose role may do this to `a/`.
pub(crate) fn person(name: &str, kind: Kind) -> User {
    User {
        name: name.into(),
        root: name == "root",
        has_role: true,
        permissions: vec![Permission {
            kind,
            key: "a/",
            end: "a0",
        }],
    }
}

/// Authentication on, with root and these people, who may read and write `a/`.
pub(crate) async fn enabled(kv: &Kv, names: &[&str]) -> Root {
    let mut root = Root::at(kv);
    let all = ["root"].iter().chain(names);
    let people: Vec<User> = all.map(|name| person(name, Kind::ReadWrite)).collect();
    root.enable(&people).await.unwrap();
    root
}

pub(crate) async fn get(kv: &Kv, token: Option<&str>, key: &str) -> Result<usize, Status> {
    let request = RangeRequest {
        key: key.to_owned().into(),
        ..RangeRequest::default()
    };
    let mut stub = KvClient::new(kv.channel());
    let answer = stub.range(with_token(request, token)).await?;
    Ok(answer.into_inner().kvs.len())
}

pub(crate) async fn put(kv: &Kv, token: Option<&str>, key: &str) -> Result<(), Status> {
    let request = PutRequest {
        key: key.to_owned().into(),
        ..PutRequest::default()
    };
    let mut stub = KvClient::new(kv.channel());
    stub.put(with_token(request, token)).await.map(|_| ())
}

#[track_caller]
pub(crate) fn refused<T: std::fmt::Debug>(result: Result<T, Status>, code: Code, text: &str) {
    let status = result.expect_err("it must be refused");
    assert_eq!((status.code(), status.message()), (code, text));
}

#[track_caller]
fn bad_token<T: std::fmt::Debug>(result: Result<T, Status>) {
    refused(
        result,
        Code::Unauthenticated,
        "etcdserver: invalid auth token",
    );
}

#[track_caller]
fn denied<T: std::fmt::Debug>(result: Result<T, Status>) {
    refused(
        result,
        Code::PermissionDenied,
        "etcdserver: permission denied",
    );
}

#[track_caller]
fn old<T: std::fmt::Debug>(result: Result<T, Status>) {
    let text = "etcdserver: revision of auth store is old";
    refused(result, Code::InvalidArgument, text);
}

fn kv(member: &Member) -> Kv {
    Kv::to(member.address())
}

/// What root changes.
struct Changes(AuthClient<Channel>, Root);

impl Changes {
    fn of(kv: &Kv, root: &Root) -> Changes {
        Changes(AuthClient::new(kv.channel()), root.clone())
    }

    async fn password(&mut self, name: &str, password: &str) -> Result<(), Status> {
        let request = self.1.request(AuthUserChangePasswordRequest {
            name: name.into(),
            password: password.into(),
            ..AuthUserChangePasswordRequest::default()
        });
        self.0.user_change_password(request).await.map(|_| ())
    }

    async fn delete(&mut self, name: &str) -> Result<(), Status> {
        let request = self.1.request(AuthUserDeleteRequest { name: name.into() });
        self.0.user_delete(request).await.map(|_| ())
    }

    async fn revoke(&mut self, name: &str, role: &str) -> Result<(), Status> {
        let request = self.1.request(AuthUserRevokeRoleRequest {
            name: name.into(),
            role: role.into(),
        });
        self.0.user_revoke_role(request).await.map(|_| ())
    }

    async fn forbid(&mut self, role: &str) -> Result<(), Status> {
        let request = self.1.request(AuthRoleRevokePermissionRequest {
            role: role.into(),
            key: "a/".into(),
            range_end: "a0".into(),
        });
        self.0.role_revoke_permission(request).await.map(|_| ())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn unused_tokens_expire() {
    let member = start(vec!["--auth-token-ttl=4".into()]);
    let kv = kv(&member);
    let root = enabled(&kv, &["ann"]).await;
    // Each is looked at once: a look prolongs its life.
    let mut unused = Vec::new();
    for _ in 0..LIMIT.as_secs() * 2 {
        unused.push(root.authenticate("ann").await.unwrap());
    }
    let begun = Instant::now();
    let used = root.authenticate("ann").await.unwrap();
    loop {
        get(&kv, Some(&used), "a/1").await.expect("it is in use");
        let one = unused.pop().expect("one expires in time");
        match get(&kv, Some(&one), "a/1").await {
            Ok(_) => tokio::time::sleep(Duration::from_millis(500)).await,
            error => {
                bad_token(error);
                break;
            }
        }
    }
    let life = begun.elapsed();
    assert!(life >= Duration::from_secs(3), "{life:?}");
    get(&kv, Some(&used), "a/1").await.expect("it is in use");
}

#[tokio::test(flavor = "multi_thread")]
async fn signed_tokens_expire_in_use() {
    let secret = Secret::new();
    let member = start(vec![secret.flag().replace("10m", "2s")]);
    let kv = kv(&member);
    let root = enabled(&kv, &["ann"]).await;
    let token = root.authenticate("ann").await.unwrap();
    let begun = Instant::now();
    let refusal = loop {
        assert!(begun.elapsed() < LIMIT, "it does not expire");
        match get(&kv, Some(&token), "a/1").await {
            Ok(_) => tokio::time::sleep(PAUSE).await,
            error => break error,
        }
    };
    bad_token(refusal);
    let token = root.authenticate("ann").await.unwrap();
    get(&kv, Some(&token), "a/1").await.expect("a new one");
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_of_users_end_simple_tokens() {
    let member = start(vec![]);
    let kv = kv(&member);
    let root = enabled(&kv, &["ann", "bob", "carol"]).await;
    let mut changes = Changes::of(&kv, &root);
    let mut tokens = Vec::new();
    for name in ["ann", "bob", "carol"] {
        let token = root.authenticate(name).await.unwrap();
        put(&kv, Some(&token), "a/1").await.unwrap();
        tokens.push(token);
    }
    let [ann, bob, carol] = [0, 1, 2].map(|at| Some(tokens[at].as_str()));

    changes.password("ann", "another").await.unwrap();
    bad_token(get(&kv, ann, "a/1").await);
    bad_token(put(&kv, ann, "a/1").await);
    let text = "etcdserver: authentication failed, invalid user ID or password";
    refused(root.authenticate("ann").await, Code::InvalidArgument, text);
    let again = root.authenticate_by("ann", "another").await.unwrap();
    get(&kv, Some(&again), "a/1").await.unwrap();

    changes.delete("bob").await.unwrap();
    bad_token(get(&kv, bob, "a/1").await);
    refused(root.authenticate("bob").await, Code::InvalidArgument, text);

    // Roles change what a token is good for, at once.
    changes.revoke("carol", "carol").await.unwrap();
    denied(get(&kv, carol, "a/1").await);
    denied(put(&kv, carol, "a/1").await);
    root.grant("carol", "carol").await.unwrap();
    get(&kv, carol, "a/1").await.unwrap();
    changes.forbid("carol").await.unwrap();
    denied(get(&kv, carol, "a/1").await);
    let person = person("carol", Kind::Read);
    root.permit("carol", &person.permissions[0]).await.unwrap();
    get(&kv, carol, "a/1").await.unwrap();
    denied(put(&kv, carol, "a/1").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn any_change_ends_signed_tokens() {
    let secret = Secret::new();
    let member = start(vec![secret.flag()]);
    let kv = kv(&member);
    let mut root = enabled(&kv, &["ann", "bob"]).await;
    for change in 0..5 {
        root.renew().await.unwrap();
        let token = root.authenticate("ann").await.unwrap();
        put(&kv, Some(&token), "a/1").await.unwrap();
        let mut changes = Changes::of(&kv, &root);
        match change {
            0 => changes.password("bob", "another").await,
            1 => root.add_user("carol").await,
            2 => changes.delete("carol").await,
            3 => changes.revoke("bob", "bob").await,
            _ => root.add_role("another").await,
        }
        .unwrap();
        old(get(&kv, Some(&token), "a/1").await);
        old(put(&kv, Some(&token), "a/1").await);
    }
    root.renew().await.unwrap();
    let token = root.authenticate("ann").await.unwrap();
    let mut changes = Changes::of(&kv, &root);
    changes.password("ann", "another").await.unwrap();
    old(get(&kv, Some(&token), "a/1").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn off_and_on_again() {
    let member = start(vec![]);
    let kv = kv(&member);
    let mut root = enabled(&kv, &["ann"]).await;
    let before = root.authenticate("ann").await.unwrap();
    let empty = "etcdserver: user name is empty";
    refused(get(&kv, None, "a/1").await, Code::InvalidArgument, empty);
    root.switch_off().await.unwrap();
    // Nobody is asked, and what is shown is not looked at.
    put(&kv, None, "x").await.unwrap();
    put(&kv, Some("no such"), "x").await.unwrap();
    put(&kv, Some(&before), "x").await.unwrap();
    let text = "etcdserver: authentication is not enabled";
    refused(
        root.authenticate("ann").await,
        Code::FailedPrecondition,
        text,
    );
    root.switch_on().await.unwrap();
    bad_token(get(&kv, Some(&before), "a/1").await);
    refused(get(&kv, None, "a/1").await, Code::InvalidArgument, empty);
    let after = root.authenticate("ann").await.unwrap();
    put(&kv, Some(&after), "a/1").await.unwrap();
    denied(get(&kv, Some(&after), "x").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_outlives_its_permission() {
    let member = start(vec![]);
    let kv = kv(&member);
    let mut root = enabled(&kv, &["ann"]).await;
    let token = root.authenticate("ann").await.unwrap();
    let create = |key: &str| WatchRequest {
        request_union: Some(RequestUnion::CreateRequest(WatchCreateRequest {
            key: key.to_owned().into(),
            range_end: "a0".into(),
            ..WatchCreateRequest::default()
        })),
    };
    let (send, receive) = tokio::sync::mpsc::unbounded_channel();
    let requests = UnboundedReceiverStream::new(receive);
    let mut stub = WatchClient::new(kv.channel());
    let stream = stub.watch(with_token(requests, Some(&token)));
    send.send(create("a/")).unwrap();
    let mut stream = stream.await.unwrap().into_inner();
    let created = stream.message().await.unwrap().unwrap();
    assert!(created.created && !created.canceled, "{created:?}");

    Changes::of(&kv, &root).forbid("ann").await.unwrap();
    Changes::of(&kv, &root).delete("ann").await.unwrap();
    root.renew().await.unwrap();
    put(&kv, root.token.as_deref(), "a/1").await.unwrap();
    let event = stream.message().await.unwrap().unwrap();
    assert_eq!(event.events.len(), 1, "{event:?}");
    // Nothing new begins on the same stream.
    send.send(create("a/1")).unwrap();
    let refused = stream.message().await.unwrap().unwrap();
    assert!(refused.created && refused.canceled, "{refused:?}");
    assert_eq!(
        refused.cancel_reason,
        "rpc error: code = Unauthenticated desc = etcdserver: invalid auth token"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn leases_expire_by_themselves() {
    let secret = Secret::new();
    for flags in [vec![], vec![secret.flag()]] {
        let member = start(flags);
        let kv = kv(&member);
        let root = enabled(&kv, &["ann"]).await;
        let token = root.token.as_deref();
        let mut leases = LeaseClient::new(kv.channel());
        let request = LeaseGrantRequest { ttl: 1, id: 7 };
        leases
            .lease_grant(with_token(request, token))
            .await
            .unwrap();
        let request = PutRequest {
            key: "x".into(),
            lease: 7,
            ..PutRequest::default()
        };
        let mut stub = KvClient::new(kv.channel());
        stub.put(with_token(request, token)).await.unwrap();
        let begun = Instant::now();
        while get(&kv, token, "x").await.unwrap() > 0 {
            assert!(begun.elapsed() < LIMIT, "the lease does not expire");
            tokio::time::sleep(PAUSE).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_keeps_all_but_simple_tokens() {
    let secret = Secret::new();
    for flags in [vec![], vec![secret.flag()]] {
        let signed = !flags.is_empty();
        let mut member = start(flags);
        let root = enabled(&kv(&member), &["ann"]).await;
        let token = root.authenticate("ann").await.unwrap();
        put(&kv(&member), Some(&token), "a/1").await.unwrap();
        let revision = status(&kv(&member)).await;
        member.stop().unwrap();
        member.restart().unwrap();
        let kv = kv(&member);
        assert_eq!(status(&kv).await, revision);
        match signed {
            true => assert_eq!(get(&kv, Some(&token), "a/1").await.unwrap(), 1),
            false => bad_token(get(&kv, Some(&token), "a/1").await),
        }
        let token = Root::at(&kv).authenticate("ann").await.unwrap();
        assert_eq!(get(&kv, Some(&token), "a/1").await.unwrap(), 1);
        denied(get(&kv, Some(&token), "x").await);
        let empty = "etcdserver: user name is empty";
        refused(get(&kv, None, "a/1").await, Code::InvalidArgument, empty);
    }
}

/// Whether it is on, and the auth revision.
pub(crate) async fn status(kv: &Kv) -> (bool, u64) {
    let mut stub = AuthClient::new(kv.channel());
    let status = stub.auth_status(AuthStatusRequest {}).await.unwrap();
    let status = status.into_inner();
    (status.enabled, status.auth_revision)
}

/// Tokens are good on every member at once, and are given out while the leader goes.
#[tokio::test(flavor = "multi_thread")]
async fn members_share_simple_tokens_while_leaders_change() {
    let mut cluster = Cluster::start(vec![None, None, None], &["--bcrypt-cost=4"]).unwrap();
    enabled(&cluster.kv(0), &["ann"]).await;
    tokens_go_everywhere(&cluster, &[0, 1, 2], is_ours()).await;
    for _ in 0..2 {
        // A member that was started again knows none of those before.
        let token = Root::at(&cluster.kv(0)).authenticate("root").await.unwrap();
        let token = Some(token.as_str());
        let leader = leader(&cluster, token).await;
        cluster.member(leader).kill().unwrap();
        let others: Vec<usize> = (0..3).filter(|at| *at != leader).collect();
        let begun = Instant::now();
        while let Err(status) = Root::at(&cluster.kv(others[0])).authenticate("ann").await {
            assert!(begun.elapsed() < LIMIT, "{status:?}");
            tokio::time::sleep(PAUSE).await;
        }
        // Those that were given out before are still good where they were known.
        for at in &others {
            put(&cluster.kv(*at), token, "x").await.unwrap();
        }
        tokens_go_everywhere(&cluster, &others, is_ours()).await;
        cluster.member(leader).restart().unwrap();
        let begun = Instant::now();
        while let Err(status) = Root::at(&cluster.kv(leader)).authenticate("ann").await {
            assert!(begun.elapsed() < LIMIT, "{status:?}");
            tokio::time::sleep(PAUSE).await;
        }
        tokens_go_everywhere(&cluster, &[0, 1, 2], is_ours()).await;
    }
}

/// Whether the binary under test is ours.
pub(crate) fn is_ours() -> bool {
    e2e::is_ours(&e2e::binary().unwrap()).unwrap()
}

/// Each member gives out a token that is good on each: at once, or soon where Go's are among them.
/// Those wait for the entry before the one that makes the token, and may come a moment too early.
pub(crate) async fn tokens_go_everywhere(cluster: &Cluster, members: &[usize], at_once: bool) {
    for from in members {
        for to in members {
            let root = Root::at(&cluster.kv(*from));
            let token = root.authenticate("ann").await.unwrap();
            let kv = cluster.kv(*to);
            let begun = Instant::now();
            while let Err(status) = put(&kv, Some(&token), "a/1").await {
                assert!(!at_once && begun.elapsed() < LIMIT, "{status:?}");
                tokio::time::sleep(PAUSE).await;
            }
            get(&kv, Some(&token), "a/1").await.unwrap();
            denied(get(&kv, Some(&token), "x").await);
        }
    }
}

/// Who leads, by what the members say to somebody who may ask.
async fn leader(cluster: &Cluster, token: Option<&str>) -> usize {
    use api::pb::etcdserverpb::StatusRequest;
    use client::stub::MaintenanceClient;
    let begun = Instant::now();
    loop {
        for at in 0..3 {
            let mut stub = MaintenanceClient::new(cluster.kv(at).channel());
            let Ok(status) = stub.status(with_token(StatusRequest {}, token)).await else {
                continue;
            };
            let status = status.into_inner();
            if status.leader != 0 && status.leader == status.header.unwrap().member_id {
                return at;
            }
        }
        assert!(begun.elapsed() < LIMIT, "nobody leads");
        tokio::time::sleep(PAUSE).await;
    }
}

/// Every way to send a token, and the ways that are none.
#[tokio::test(flavor = "multi_thread")]
async fn tokens_come_in_several_headers() {
    let member = start(vec![]);
    let kv = kv(&member);
    let root = enabled(&kv, &["ann"]).await;
    let good = root.authenticate("ann").await.unwrap();
    let bearer = format!("Bearer {good}");
    let range = |headers: &[(&str, &str)]| {
        let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let headers: Vec<_> = headers.iter().map(own).collect();
        let body = br#"{"key":"YS8x"}"#;
        let answer = http::send(member.address(), "POST", "/v3/kv/range", &headers, body);
        answer.unwrap().status
    };
    let json = [
        (vec![], 400),
        (vec![("Authorization", &*good)], 200),
        (vec![("authorization", &*bearer)], 200),
        (vec![("Authorization", "bad")], 401),
        (vec![("Grpc-Metadata-Token", &*good)], 200),
        (vec![("Grpc-Metadata-Authorization", &*good)], 200),
        (
            vec![("Grpc-Metadata-Token", "bad"), ("Authorization", &*good)],
            401,
        ),
        (
            vec![("Grpc-Metadata-Token", &*good), ("Authorization", "bad")],
            200,
        ),
        (vec![("Token", &*good)], 400),
        (vec![("Grpcgateway-Authorization", &*good)], 400),
    ];
    for (headers, want) in json {
        assert_eq!(range(&headers), want, "{headers:?}");
    }
    let grpc = [
        (vec![("authorization", &*good)], true),
        (vec![("authorization", &*bearer)], true),
        (vec![("token", &*bearer)], true),
        (vec![("token", "bad"), ("authorization", &*good)], false),
        (vec![("token", &*good), ("authorization", "bad")], true),
        (vec![("grpcgateway-authorization", &*good)], false),
    ];
    for (headers, want) in grpc {
        let mut request = tonic::Request::new(RangeRequest {
            key: "a/1".into(),
            ..RangeRequest::default()
        });
        for (name, value) in &headers {
            let value = value.parse().unwrap();
            let name = tonic::metadata::AsciiMetadataKey::from_bytes(name.as_bytes()).unwrap();
            request.metadata_mut().insert(name, value);
        }
        let answer = KvClient::new(kv.channel()).range(request).await;
        assert_eq!(answer.is_ok(), want, "{headers:?}: {answer:?}");
    }
}
