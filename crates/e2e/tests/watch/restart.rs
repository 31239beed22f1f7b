//! Watches that go on after the server was killed, from the revision after their last event.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use api::pb::etcdserverpb::WatchCreateRequest;
use bytes::Bytes;
use e2e::kv::Kv;
use e2e::{Member, Options};

use super::stream::{LIMIT, Stream, on, revision};

const LIVES: i64 = 4;
/// Puts that are acknowledged in each life.
const PUTS: i64 = 300;
const PAUSE: Duration = Duration::from_millis(20);

/// Key and value of each revision.
type Seen = BTreeMap<i64, (Bytes, Bytes)>;

/// Watches all keys from a revision on, in as many streams as it takes, up to the revision that is
/// in `target` once it is not 0.
async fn watch(kv: Kv, from: i64, target: Arc<AtomicI64>) -> Seen {
    let mut seen = Seen::new();
    let mut next = from;
    loop {
        let mut stream = Stream::open(&kv);
        stream.create(WatchCreateRequest {
            start_revision: next,
            ..on("k", "l")
        });
        loop {
            let end = target.load(Ordering::SeqCst);
            if end != 0 && next > end {
                return seen;
            }
            let answer = match tokio::time::timeout(PAUSE, stream.answers.recv()).await {
                Err(_) => continue,
                Ok(Some(Ok(answer))) => answer,
                Ok(_) => break,
            };
            assert!(!answer.canceled, "{answer:?}");
            for event in &answer.events {
                let kv = event.kv.as_ref().expect("a key");
                assert!(kv.mod_revision >= next && kv.mod_revision <= revision(&answer));
                next = kv.mod_revision + 1;
                seen.insert(kv.mod_revision, (kv.key.clone(), kv.value.clone()));
            }
        }
    }
}

/// Puts until it is acknowledged; the server may have done more of them than one.
async fn insist(kv: &Kv, key: &Bytes, value: &Bytes) -> i64 {
    let deadline = Instant::now() + LIMIT;
    loop {
        match kv.put(key.clone(), value.clone()).await {
            Ok(at) => return at,
            Err(status) => assert!(Instant::now() < deadline, "{status}"),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn watches_go_on_after_a_kill() {
    let mut member = Member::start(Options::default()).expect("a member");
    let address = member.address();
    let target = Arc::new(AtomicI64::new(0));
    let watchers: Vec<_> = [1, 2, 150, 700]
        .map(|from| {
            let seen = watch(Kv::to(address), from, Arc::clone(&target));
            (from, tokio::spawn(seen))
        })
        .into();
    let done = Arc::new(AtomicI64::new(0));
    let progress = Arc::clone(&done);
    let writer = tokio::spawn(async move {
        let kv = Kv::to(address);
        let mut acknowledged = Seen::new();
        for number in 0..LIVES * PUTS {
            let key: Bytes = format!("k{:02}", number % 37).into();
            let value: Bytes = number.to_string().into();
            let at = insist(&kv, &key, &value).await;
            assert_eq!(acknowledged.insert(at, (key, value)), None);
            progress.store(number + 1, Ordering::SeqCst);
        }
        acknowledged
    });
    for life in 1..LIVES {
        let deadline = Instant::now() + LIMIT;
        // In the middle of one life's puts, so that some are on their way.
        while done.load(Ordering::SeqCst) < life * PUTS - PUTS / 2 {
            assert!(Instant::now() < deadline && !writer.is_finished());
            tokio::time::sleep(PAUSE).await;
        }
        member.kill().expect("it runs");
        tokio::task::block_in_place(|| member.restart()).expect("it starts again");
    }
    let acknowledged = writer.await.expect("a writer");
    let end = *acknowledged.last_key_value().expect("puts").0;
    target.store(end, Ordering::SeqCst);
    let truth = watch(Kv::to(address), 1, Arc::clone(&target)).await;
    for (at, put) in &acknowledged {
        assert_eq!(truth.get(at), Some(put), "revision {at}");
    }
    // Every revision is a put of this writer: none may be missing.
    assert_eq!(
        truth.keys().copied().collect::<Vec<_>>(),
        Vec::from_iter(2..=end)
    );
    for (from, watcher) in watchers {
        let seen = watcher.await.expect("a watcher");
        let expected: Seen = truth
            .range(from..)
            .map(|(at, put)| (*at, put.clone()))
            .collect();
        assert_eq!(seen, expected, "from {from}");
    }
}
