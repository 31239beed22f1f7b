//! Watchers of clients and watches on the cluster.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use api::pb::authpb::{Permission, permission};
use api::pb::etcdserverpb::watch_request::RequestUnion;
use api::pb::etcdserverpb::{
    AuthEnableRequest, AuthRoleAddRequest, AuthRoleGrantPermissionRequest, AuthUserAddRequest,
    AuthUserGrantRoleRequest, AuthenticateRequest, WatchCancelRequest, WatchCreateRequest,
    WatchProgressRequest,
};
use client::stub::AuthClient;
use e2e::kv::Kv;
use e2e::{Cluster, binary, is_ours};
use tokio::task::JoinHandle;
use tonic::Code;

use crate::process::{Below, LIMIT, PAUSE, Proxy, member, sample, wait_for};
use crate::stream::{Stream, keys_from, revisions};

const WATCHERS: &str = "etcd_debugging_mvcc_watcher_total";

fn is_own() -> bool {
    is_ours(&binary().expect("a binary")).expect("a version")
}

async fn put(kv: &Kv, key: &str, value: &str) -> i64 {
    let (key, value) = (key.to_owned().into(), value.to_owned().into());
    kv.put(key, value).await.expect("a put")
}

#[tokio::test]
async fn many_watchers_cost_one_watch() {
    watch_with_many(Below::Same).await;
}

async fn watch_with_many(below: Below) {
    let member = member(below);
    let direct = Kv::to(member.address());
    let proxy = Proxy::start(member.address(), &[]).await;
    let first = put(&direct, "k", "1").await;
    // Go's proxy has watches of its own.
    let before = sample(member.address(), WATCHERS);
    let mut streams = Vec::new();
    for at in 0..40 {
        let mut stream = Stream::open(&proxy.kv());
        // Half of them begin with what was written already.
        let start = if at % 2 == 0 { 0 } else { first };
        stream.created(keys_from(start)).await;
        streams.push((stream, start));
    }
    for n in 0..3 {
        put(&direct, &format!("k{n}"), "2").await;
    }
    let last = put(&direct, "k", "3").await;
    for (stream, start) in &mut streams {
        let begin = if *start == 0 { first + 1 } else { *start };
        let want: Vec<_> = (begin..=last).collect();
        assert_eq!(stream.revisions_until(last).await, want);
    }
    // Go's leaves some that have watchers enough alone.
    let most = if is_own() { 1.0 } else { 10.0 };
    wait_for(member.address(), WATCHERS, |now| now <= before + most).await;
    let joined = put(&direct, "k", "4").await;
    for (stream, _) in &mut streams {
        assert_eq!(stream.revisions_until(joined).await, [joined]);
    }
    if is_own() {
        let spared = proxy.sample("etcd_grpc_proxy_watchers_coalescing_total");
        assert_eq!(spared as usize, streams.len() - 1);
        let events = proxy.sample("etcd_grpc_proxy_events_coalescing_total");
        assert!(events as usize >= streams.len() - 1, "{events}");
    }
    drop(streams);
    wait_for(member.address(), WATCHERS, |now| now <= before).await;
}

#[tokio::test]
async fn cancelled_watchers_and_ids() {
    let member = member(Below::Same);
    let proxy = Proxy::start(member.address(), &[]).await;
    let kv = proxy.kv();
    let mut stream = Stream::open(&kv);
    let ids = [0, 1];
    for id in ids {
        assert_eq!(stream.created(keys_from(0)).await.watch_id, id);
    }
    let cancel = |watch_id| RequestUnion::CancelRequest(WatchCancelRequest { watch_id });
    stream.ask(cancel(77));
    stream.ask(cancel(0));
    let answer = stream.next().await;
    assert!(answer.canceled && answer.watch_id == 0, "{answer:?}");
    let at = put(&kv, "k", "1").await;
    let answer = stream.next().await;
    assert_eq!(answer.watch_id, 1);
    assert_eq!(revisions(&answer).collect::<Vec<_>>(), [at]);
    for start_revision in [-1, -7] {
        let answer = stream.created(keys_from(start_revision)).await;
        assert!(answer.canceled && answer.watch_id == -1, "{answer:?}");
    }
    let compacted = put(&kv, "k", "2").await;
    kv.compact(compacted).await.expect("a compaction");
    assert_eq!(stream.revisions_until(compacted).await, [compacted]);
    assert_eq!(stream.created(keys_from(1)).await.watch_id, 2);
    let answer = stream.next().await;
    assert_eq!((answer.watch_id, answer.canceled), (2, true), "{answer:?}");
    assert_eq!(answer.compact_revision, compacted);
}

/// Not on Go's proxy, which does not know the request.
#[tokio::test]
async fn progress_is_told_when_it_is_asked_for() {
    if !is_own() {
        return;
    }
    let member = member(Below::Same);
    let proxy = Proxy::start(member.address(), &[]).await;
    let kv = proxy.kv();
    let mut stream = Stream::open(&kv);
    stream.created(keys_from(0)).await;
    let now = put(&kv, "other", "1").await;
    stream.ask(RequestUnion::ProgressRequest(WatchProgressRequest {}));
    let answer = stream.next().await;
    assert_eq!(
        (answer.watch_id, answer.events.len()),
        (-1, 0),
        "{answer:?}"
    );
    assert_eq!(answer.header.map(|header| header.revision), Some(now));
}

/// Not on Go's proxy, which ends the stream of a client that reads slowly.
#[tokio::test]
async fn a_client_that_does_not_read_stops_nobody_and_misses_nothing() {
    if !is_own() {
        return;
    }
    let member = member(Below::Same);
    let proxy = Proxy::start(member.address(), &[]).await;
    let direct = Kv::to(member.address());
    // Each on its own connection, whose window it may use up.
    let (mut slow, mut quick) = (Stream::open(&proxy.kv()), Stream::open(&proxy.kv()));
    slow.created(keys_from(0)).await;
    quick.created(keys_from(0)).await;
    let first = direct.revision(true).await.expect("a revision") + 1;
    let value = "x".repeat(100_000);
    let mut last = 0;
    for _ in 0..300 {
        last = put(&direct, "k", &value).await;
        assert_eq!(quick.revisions_until(last).await, [last]);
    }
    let want: Vec<_> = (first..=last).collect();
    assert_eq!(slow.revisions_until(last).await, want);
    // It has come back to the shared watch, or still goes there.
    wait_for(member.address(), WATCHERS, |now| now <= 1.0).await;
    let joined = put(&direct, "k", "y").await;
    assert_eq!(slow.revisions_until(joined).await, [joined]);
}

#[tokio::test]
async fn nothing_is_lost_when_the_member_is_killed() {
    watch_one_that_is_killed(Below::Same).await;
}

async fn watch_one_that_is_killed(below: Below) {
    let mut member = member(below);
    let proxy = Proxy::start(member.address(), &[]).await;
    let address = member.address();
    let first = put(&proxy.kv(), "k", "begin").await;
    let mut streams = Vec::new();
    for at in 0..12 {
        let mut stream = Stream::open(&proxy.kv());
        stream
            .created(keys_from(if at % 3 == 0 { first } else { 0 }))
            .await;
        streams.push(stream);
    }
    let writer = Writer::start(Kv::to(address));
    for _ in 0..3 {
        writer.wait_for_more(20).await;
        member.kill().expect("it runs");
        member.restart().expect("it starts again");
    }
    assert!(writer.stop().await > 0);
    let last = put(&Kv::to(address), "k", "end").await;
    let mut direct = Stream::open(&Kv::to(address));
    direct.created(keys_from(first)).await;
    let all = direct.revisions_until(last).await;
    for (at, stream) in streams.iter_mut().enumerate() {
        let skipped = if at % 3 == 0 { 0 } else { 1 };
        let seen = stream.revisions_until(last).await;
        assert_eq!(seen, all[skipped..], "watcher {at}");
    }
}

/// Writes one key after the other, whatever becomes of each.
struct Writer {
    /// Writes that were acknowledged.
    done: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

impl Writer {
    fn start(kv: Kv) -> Self {
        let done = Arc::<AtomicU64>::default();
        let count = Arc::clone(&done);
        let task = tokio::spawn(async move {
            for n in 0.. {
                // One that fails may have been done.
                let put = kv.put(format!("k{}", n % 50).into(), "v".into()).await;
                count.fetch_add(u64::from(put.is_ok()), Ordering::Relaxed);
                tokio::time::sleep(PAUSE / 10).await;
            }
        });
        Writer { done, task }
    }

    async fn wait_for_more(&self, more: u64) {
        let begin = self.done.load(Ordering::Relaxed);
        let deadline = Instant::now() + LIMIT;
        while self.done.load(Ordering::Relaxed) < begin + more {
            assert!(Instant::now() < deadline, "nothing is written");
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn stop(self) -> u64 {
        self.task.abort();
        // It ends by that alone.
        let _ = self.task.await;
        self.done.load(Ordering::Relaxed)
    }
}

#[tokio::test]
async fn nothing_is_lost_when_members_go_in_turn() {
    let mut cluster = Cluster::start(vec![None; 3], &[]).expect("members start");
    let members = cluster.members().iter();
    let endpoints: Vec<_> = members.map(|member| member.address().to_string()).collect();
    let proxy = Proxy::start(endpoints.join(","), &[]).await;
    let first = put(&proxy.kv(), "k", "begin").await;
    let mut streams = Vec::new();
    for at in 0..12 {
        let mut stream = Stream::open(&proxy.kv());
        let start = if at % 2 == 0 { first } else { 0 };
        let now = stream.created(keys_from(start)).await.header;
        // A member that is behind begins with what it does not have yet.
        let begin = match start {
            0 => now.expect("a header").revision + 1,
            start => start,
        };
        streams.push((stream, begin));
    }
    let writer = Writer::start(proxy.kv());
    for at in 0..3 {
        writer.wait_for_more(20).await;
        cluster.member(at).kill().expect("it runs");
        writer.wait_for_more(20).await;
        cluster.member(at).restart().expect("it starts again");
    }
    writer.stop().await;
    let last = cluster.put_until_done(0, "k", "end").await.expect("a put");
    let mut direct = Stream::open(&cluster.kv(0));
    direct.created(keys_from(first)).await;
    let all = direct.revisions_until(last).await;
    for (stream, begin) in &mut streams {
        let seen = stream.revisions_until(last).await;
        let from = all.partition_point(|revision| revision < begin);
        assert_eq!(seen, all[from..], "from {begin}");
    }
}

/// Not on Go's proxy, which looks for the wish in the wrong place.
#[tokio::test]
async fn streams_that_require_a_leader_end_without_one() {
    if !is_own() {
        return;
    }
    let mut cluster = Cluster::start(vec![None; 3], &[]).expect("members start");
    let proxy = Proxy::start(cluster.members()[0].address(), &[]).await;
    let kv = proxy.kv();
    let mut demanding = Stream::open_as(&kv, &[("hasleader", "true")]);
    let mut patient = Stream::open(&kv);
    demanding.created(keys_from(0)).await;
    patient.created(keys_from(0)).await;
    for at in [1, 2] {
        cluster.member(at).kill().expect("it runs");
    }
    let lost = demanding.outcome().await.expect_err("an end");
    assert_eq!(lost.code(), Code::Unavailable);
    assert_eq!(lost.message(), "etcdserver: no leader");
    let mut another = Stream::open_as(&kv, &[("hasleader", "true")]);
    another.create(keys_from(0));
    let refused = another.outcome().await.expect_err("no stream");
    assert_eq!(refused.message(), "etcdserver: no leader");
    cluster.member(1).restart().expect("it starts again");
    let put = cluster.put_until_done(0, "k", "v").await.expect("a put");
    assert_eq!(patient.revisions_until(put).await, [put]);
}

/// Root, and a user who may read the keys that begin with `k`.
pub(crate) async fn enable_auth(kv: &Kv) {
    let mut auth = AuthClient::new(kv.channel());
    for (name, role) in [("root", "root"), ("reader", "reads-k")] {
        let request = AuthUserAddRequest {
            name: name.into(),
            password: "pw".into(),
            ..AuthUserAddRequest::default()
        };
        auth.user_add(request).await.expect("a user");
        let request = AuthRoleAddRequest { name: role.into() };
        auth.role_add(request).await.expect("a role");
        let request = AuthUserGrantRoleRequest {
            user: name.into(),
            role: role.into(),
        };
        auth.user_grant_role(request).await.expect("its role");
    }
    let request = AuthRoleGrantPermissionRequest {
        name: "reads-k".into(),
        perm: Some(Permission {
            perm_type: permission::Type::Read.into(),
            key: "k".into(),
            range_end: "l".into(),
        }),
    };
    auth.role_grant_permission(request).await.expect("a right");
    auth.auth_enable(AuthEnableRequest {}).await.expect("on");
}

#[tokio::test]
async fn watchers_see_what_their_user_may_read() {
    watch_as_users(Below::Same).await;
}

async fn watch_as_users(below: Below) {
    let member = member(below);
    let proxy = Proxy::start(member.address(), &[]).await;
    let kv = proxy.kv();
    enable_auth(&kv).await;
    let token = |name: &'static str| {
        let mut auth = AuthClient::new(kv.channel());
        let request = AuthenticateRequest {
            name: name.into(),
            password: "pw".into(),
        };
        async move {
            auth.authenticate(request)
                .await
                .expect("a token")
                .into_inner()
                .token
        }
    };
    let (root, reader) = (token("root").await, token("reader").await);
    let mut by_root = Stream::open_as(&kv, &[("token", &root)]);
    let mut by_reader = Stream::open_as(&kv, &[("token", &reader)]);
    by_root.created(keys_from(0)).await;
    by_reader.created(keys_from(0)).await;
    let other = WatchCreateRequest {
        key: "other".into(),
        ..WatchCreateRequest::default()
    };
    assert!(!by_root.created(other.clone()).await.canceled);
    let refused = by_reader.created(other.clone()).await;
    assert!(refused.canceled && refused.watch_id == -1, "{refused:?}");
    assert!(
        refused
            .cancel_reason
            .ends_with("etcdserver: permission denied"),
        "{refused:?}"
    );
    let mut by_nobody = Stream::open(&kv);
    let refused = by_nobody.created(keys_from(0)).await;
    assert!(
        refused
            .cancel_reason
            .ends_with("etcdserver: user name is empty"),
        "{refused:?}"
    );
    let config = client::Config {
        token: Some(root),
        ..client::Config::new(vec![member.address().to_string()])
    };
    let writer = client::Client::connect(config).await.expect("a client");
    let request = api::pb::etcdserverpb::PutRequest {
        key: "k".into(),
        ..Default::default()
    };
    let put = writer.put(request).await.expect("a put").header;
    let at = put.expect("a header").revision;
    assert_eq!(by_reader.revisions_until(at).await, [at]);
    assert_eq!(by_root.revisions_until(at).await, [at]);
}

/// The proxy under test before a member of Go's.
#[cfg(feature = "mixed")]
mod before_the_reference {
    use super::*;

    #[tokio::test]
    async fn many_watchers_cost_one_watch() {
        watch_with_many(Below::Reference).await;
    }

    #[tokio::test]
    async fn nothing_is_lost_when_the_member_is_killed() {
        watch_one_that_is_killed(Below::Reference).await;
    }

    #[tokio::test]
    async fn watchers_see_what_their_user_may_read() {
        watch_as_users(Below::Reference).await;
    }
}
