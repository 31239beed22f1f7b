//! Defragmentation of a member that goes on serving.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use api::pb::etcdserverpb::{
    DefragmentRequest, PutRequest, RequestOp, SnapshotRequest, TxnRequest, request_op,
};
use bytes::Bytes;
use client::stub::MaintenanceClient;
use e2e::kv::Kv;
use e2e::{Member, Options};

const KEYS: usize = 8_000;
const VALUE_BYTES: usize = 2_000;

fn key(number: usize) -> Bytes {
    format!("{number:06}").into()
}

async fn fill(kv: &Kv, round: u8) {
    let numbers: Vec<usize> = (0..KEYS).collect();
    for numbers in numbers.chunks(100) {
        let put = |&number: &usize| RequestOp {
            request: Some(request_op::Request::RequestPut(PutRequest {
                key: key(number),
                value: vec![round; VALUE_BYTES].into(),
                ..PutRequest::default()
            })),
        };
        let txn = TxnRequest {
            success: numbers.iter().map(put).collect(),
            ..TxnRequest::default()
        };
        kv.txn(txn).await.expect("a transaction");
    }
}

/// The longest that a put took until told to stop, and how many there were.
async fn put_until(kv: Kv, done: Arc<AtomicBool>) -> (Duration, usize) {
    let (mut longest, mut count) = (Duration::ZERO, 0);
    while !done.load(Ordering::Relaxed) {
        let begin = Instant::now();
        let value = Bytes::from(count.to_string());
        kv.put("counter".into(), value).await.expect("a put");
        longest = longest.max(begin.elapsed());
        count += 1;
    }
    (longest, count)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_file_shrinks_while_puts_go_on() {
    let mut member = Member::start(Options::default()).expect("a member");
    let kv = Kv::to(member.address());
    for round in 0..3 {
        fill(&kv, round).await;
    }
    kv.delete(key(KEYS / 10), key(KEYS)).await.expect("deleted");
    kv.compact(kv.revision(false).await.expect("a revision"))
        .await
        .expect("compacted");
    let before = kv.status().await.expect("a status").db_size;
    assert!(before > 3 * (KEYS * VALUE_BYTES) as i64);

    let done = Arc::new(AtomicBool::new(false));
    let puts = tokio::spawn(put_until(kv.clone(), Arc::clone(&done)));
    let mut maintenance = MaintenanceClient::new(kv.channel());
    let answer = maintenance.defragment(DefragmentRequest {}).await;
    assert_eq!(answer.expect("an answer").into_inner().header, None);
    done.store(true, Ordering::Relaxed);
    let (longest, count) = puts.await.expect("no panic");
    println!("{count} puts, the longest took {longest:?}");

    let status = kv.status().await.expect("a status");
    let live = (KEYS / 10 * VALUE_BYTES) as i64;
    assert!(
        status.db_size < live * 3 && status.db_size < before / 5,
        "{} of {before}",
        status.db_size
    );
    assert!(status.db_size_in_use <= status.db_size);
    let hash = kv.hash_kv(0).await.expect("a hash");
    let (revision, keys) = kv.all(0).await.expect("all keys");
    assert_eq!(keys.len(), KEYS / 10 + usize::from(count > 0));

    // Another one finds nothing to do, and an image of it is as short.
    let answer = maintenance.defragment(DefragmentRequest {}).await;
    answer.expect("an answer");
    let answer = maintenance.snapshot(SnapshotRequest {}).await;
    let first = answer.expect("a stream").into_inner().message().await;
    let first = first.expect("a message").expect("a message");
    let size = first.remaining_bytes as i64 + first.blob.len() as i64;
    assert!(size <= status.db_size + (1 << 20), "{size}");

    member.kill().expect("killed");
    member.restart().expect("restarted");
    let kv = Kv::to(member.address());
    assert_eq!(
        kv.hash_kv(hash.hash_revision).await.expect("a hash").hash,
        hash.hash
    );
    let (again, found) = kv.all(revision).await.expect("all keys");
    assert_eq!((again, found), (revision, keys));
}
