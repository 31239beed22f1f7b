//! What a watch is told, case by case.

use std::collections::HashMap;

use api::pb::etcdserverpb::watch_request::RequestUnion;
use api::pb::etcdserverpb::{WatchCreateRequest, WatchProgressRequest};
use bytes::Bytes;
use e2e::kv::Kv;
use e2e::{Member, Options};

use super::stream::{Stream, on, put, revision, start};

#[tokio::test]
async fn ids_and_refusals() {
    let (_member, kv) = start();
    let mut stream = Stream::open(&kv);
    assert_eq!(stream.created(on("a", "")).await.watch_id, 0);
    let explicit = |id| WatchCreateRequest {
        watch_id: id,
        ..on("a", "b")
    };
    assert_eq!(stream.created(explicit(2)).await.watch_id, 2);
    assert_eq!(stream.created(on("a", "")).await.watch_id, 1);
    assert_eq!(stream.created(on("a", "")).await.watch_id, 3);
    let negative = WatchCreateRequest {
        start_revision: -1,
        ..on("b", "a")
    };
    let refused = [
        (
            explicit(2),
            "mvcc: duplicate watch ID provided on the WatchStream",
        ),
        (on("b", "b"), "mvcc: watcher range is empty"),
        (on("b", "a"), "mvcc: watcher range is empty"),
        (
            negative,
            "etcdserver: mvcc: required revision has been compacted",
        ),
    ];
    for (request, reason) in refused {
        let answer = stream.created(request).await;
        assert_eq!((answer.watch_id, answer.canceled), (-1, true));
        assert_eq!(answer.cancel_reason, reason);
        assert_eq!(revision(&answer), 1);
    }
    stream.cancel(55);
    stream.cancel(2);
    let answer = stream.next().await;
    assert!(answer.canceled && answer.watch_id == 2 && answer.cancel_reason.is_empty());
    stream.cancel(2);
    assert_eq!(stream.progress().await, 1);
}

#[tokio::test]
async fn events_filters_and_previous_values() {
    let (_member, kv) = start();
    let mut stream = Stream::open(&kv);
    let with_previous = WatchCreateRequest {
        prev_kv: true,
        filters: vec![0],
        ..on("a", "c")
    };
    stream.created(with_previous).await;
    put(&kv, "a", "1").await;
    put(&kv, "b", "2").await;
    let (key, end) = (Bytes::from("a"), Bytes::from("z"));
    kv.delete(key, end).await.expect("a deletion");
    // Puts are filtered; both deletions of the revision come together.
    let answer = stream.next().await;
    assert_eq!((revision(&answer), answer.events.len()), (4, 2));
    for (event, value) in answer.events.iter().zip(["1", "2"]) {
        let kv = event.kv.as_ref().expect("a key");
        assert_eq!(
            (event.r#type, kv.mod_revision, kv.create_revision),
            (1, 4, 0)
        );
        let before = event.prev_kv.as_ref().expect("a previous value");
        assert_eq!(before.value, value);
    }
    // A watch on the future is quiet until then, and keeps progress from being reported.
    let future = WatchCreateRequest {
        start_revision: 7,
        ..on("a", "")
    };
    assert_eq!(revision(&stream.created(future).await), 4);
    stream.ask(RequestUnion::ProgressRequest(WatchProgressRequest {}));
    for value in ["5", "6", "7"] {
        put(&kv, "a", value).await;
    }
    let answer = stream.next().await;
    assert_eq!((answer.watch_id, answer.events.len()), (1, 1), "{answer:?}");
    assert_eq!(answer.events[0].kv.as_ref().expect("a key").value, "7");
    assert_eq!(stream.progress().await, 7);
}

#[tokio::test]
async fn compacted_revisions() {
    let (_member, kv) = start();
    put(&kv, "a", "1").await;
    let (key, end) = (Bytes::from("a"), Bytes::new());
    kv.delete(key, end).await.expect("a deletion");
    put(&kv, "b", "1").await;
    kv.compact(3).await.expect("a compaction");
    let mut stream = Stream::open(&kv);
    let from = |start_revision| WatchCreateRequest {
        start_revision,
        prev_kv: true,
        ..on("a", "")
    };
    let created = stream.created(from(2)).await;
    assert_eq!((revision(&created), created.canceled), (4, false));
    let answer = stream.next().await;
    assert!(answer.canceled && !answer.created && answer.cancel_reason.is_empty());
    assert_eq!((answer.compact_revision, revision(&answer)), (3, 0));
    // The deletion at the compacted revision is still there, what it deleted is not. (Go's server
    // reports no more progress on a stream that had a watch cancelled so, hence another one.)
    let mut stream = Stream::open(&kv);
    let created = stream.created(from(3)).await;
    let answer = stream.next().await;
    assert_eq!(created.watch_id, answer.watch_id);
    assert_eq!((answer.events.len(), answer.events[0].r#type), (1, 1));
    assert_eq!(answer.events[0].prev_kv, None);
    assert_eq!(stream.progress().await, 4);
}

#[tokio::test]
async fn fragments() {
    let (_member, kv) = start();
    for key in ["a", "b", "c"] {
        put(&kv, key, &"x".repeat(1 << 20)).await;
    }
    let mut stream = Stream::open(&kv);
    let whole = |fragment| WatchCreateRequest {
        fragment,
        prev_kv: true,
        ..on("a", "z")
    };
    stream.created(whole(false)).await;
    stream.created(whole(true)).await;
    let (key, end) = (Bytes::from("a"), Bytes::from("z"));
    kv.delete(key, end).await.expect("a deletion");
    let mut parts: HashMap<i64, Vec<(usize, bool)>> = HashMap::new();
    for _ in 0..4 {
        let answer = stream.next().await;
        assert_eq!(revision(&answer), 5);
        let part = (answer.events.len(), answer.fragment);
        parts.entry(answer.watch_id).or_default().push(part);
    }
    assert_eq!(parts[&0], [(3, false)]);
    assert_eq!(parts[&1], [(1, true), (1, true), (1, false)]);
}

#[tokio::test]
async fn notifications_of_progress() {
    let flags = vec!["--watch-progress-notify-interval=200ms".to_owned()];
    let options = Options {
        flags,
        ..Default::default()
    };
    let member = Member::start(options).expect("a member");
    let kv = Kv::to(member.address());
    let mut stream = Stream::open(&kv);
    let notified = WatchCreateRequest {
        progress_notify: true,
        ..on("a", "")
    };
    stream.created(notified).await;
    put(&kv, "other", "1").await;
    loop {
        let answer = stream.next().await;
        assert_eq!((answer.watch_id, answer.events.len()), (0, 0));
        if revision(&answer) == 2 {
            break;
        }
    }
}
