//! Answers that are streams, RangeStream and Snapshot, and clients that stop reading them.

use std::time::Duration;

use api::pb::etcdserverpb::range_request::{SortOrder, SortTarget};
use api::pb::etcdserverpb::{
    CompactionRequest, PutRequest, RangeRequest, RangeResponse, RequestOp, SnapshotRequest,
    TxnRequest, request_op,
};
use bytes::Bytes;
use client::stub::{KvClient, MaintenanceClient};
use e2e::kv::Kv;
use e2e::{Member, Options};
use prost::Message;
use sha2::{Digest, Sha256};
use storage::bolt;
use tonic::transport::Channel;
use tonic::{Code, Status};

const LIMIT: Duration = Duration::from_secs(30);

fn member() -> Member {
    Member::start(Options::default()).expect("a member")
}

fn client(kv: &Kv) -> KvClient<Channel> {
    KvClient::new(kv.channel()).max_decoding_message_size(usize::MAX)
}

fn all() -> RangeRequest {
    RangeRequest {
        key: Bytes::from_static(&[0]),
        range_end: Bytes::from_static(&[0]),
        ..RangeRequest::default()
    }
}

/// Puts `count` keys with values of this length.
async fn fill(kv: &Kv, count: usize, length: usize) {
    let value = Bytes::from(vec![b'v'; length]);
    let keys: Vec<usize> = (0..count).collect();
    for keys in keys.chunks(100) {
        let put = |key: &usize| RequestOp {
            request: Some(request_op::Request::RequestPut(PutRequest {
                key: format!("{key:06}").into(),
                value: value.clone(),
                ..PutRequest::default()
            })),
        };
        let txn = TxnRequest {
            success: keys.iter().map(put).collect(),
            ..TxnRequest::default()
        };
        kv.txn(txn).await.expect("a transaction");
    }
}

/// The messages of a stream, and how it ended.
async fn stream(
    kv: &Kv,
    request: RangeRequest,
) -> Result<Vec<RangeResponse>, (Vec<RangeResponse>, Status)> {
    let mut parts = Vec::new();
    let answer = client(kv).range_stream(request).await;
    let mut stream = match answer {
        Ok(answer) => answer.into_inner(),
        Err(status) => return Err((parts, status)),
    };
    loop {
        let next = tokio::time::timeout(LIMIT, stream.message()).await;
        match next.expect("a message in time") {
            Ok(Some(message)) => parts.push(message.range_response.expect("a part")),
            Ok(None) => return Ok(parts),
            Err(status) => return Err((parts, status)),
        }
    }
}

fn merged(parts: &[RangeResponse]) -> RangeResponse {
    let mut bytes = Vec::new();
    for part in parts {
        bytes.extend(part.encode_to_vec());
    }
    RangeResponse::decode(&bytes[..]).expect("a range")
}

fn sizes(parts: &[RangeResponse]) -> Vec<usize> {
    parts.iter().map(|part| part.kvs.len()).collect()
}

#[tokio::test]
async fn the_messages_of_a_range_stream_make_the_range() {
    let member = member();
    let kv = Kv::to(member.address());
    fill(&kv, 2000, 2000).await;
    let requests = [
        all(),
        RangeRequest {
            limit: 1500,
            ..all()
        },
        RangeRequest { limit: 4, ..all() },
        RangeRequest {
            limit: 2000,
            ..all()
        },
        RangeRequest {
            revision: 10,
            serializable: true,
            ..all()
        },
        RangeRequest {
            keys_only: true,
            ..all()
        },
        RangeRequest {
            count_only: true,
            limit: 5,
            ..all()
        },
        RangeRequest {
            key: "000007".into(),
            ..RangeRequest::default()
        },
        RangeRequest {
            key: "missing".into(),
            ..RangeRequest::default()
        },
        RangeRequest {
            sort_order: SortOrder::Ascend as i32,
            ..all()
        },
    ];
    for request in requests {
        let whole = kv.range(request.clone()).await.expect("a range");
        let parts = stream(&kv, request.clone()).await.expect("a stream");
        assert!(merged(&parts) == whole, "{request:?}");
        let (last, before) = parts.split_last().expect("a last message");
        assert!(last.header.is_some());
        let is_bare = |part: &RangeResponse| part.header.is_none() && part.count == 0;
        assert!(before.iter().all(is_bare), "{request:?}");
    }
}

#[tokio::test]
async fn messages_grow_to_about_the_longest_request() {
    let member = member();
    let kv = Kv::to(member.address());
    fill(&kv, 2000, 2000).await;
    let parts = stream(&kv, all()).await.expect("a stream");
    // 640 keys make 1.3 MB, more than half of 1.5 MiB.
    assert_eq!(sizes(&parts), [10, 20, 40, 80, 160, 320, 640, 640, 90]);
    let few = RangeRequest { limit: 30, ..all() };
    let parts = stream(&kv, few).await.expect("a stream");
    assert_eq!(sizes(&parts), [10, 20]);
}

#[tokio::test]
async fn what_a_range_stream_refuses() {
    let member = member();
    let kv = Kv::to(member.address());
    fill(&kv, 10, 10).await;
    let cases = [
        (
            RangeRequest::default(),
            Code::InvalidArgument,
            "etcdserver: key is not provided",
        ),
        (
            RangeRequest {
                sort_order: 7,
                ..all()
            },
            Code::InvalidArgument,
            "etcdserver: invalid sort option",
        ),
        (
            RangeRequest {
                sort_order: SortOrder::Descend as i32,
                ..all()
            },
            Code::Unimplemented,
            "RangeStream does not support custom sort orders",
        ),
        (
            RangeRequest {
                sort_order: SortOrder::Ascend as i32,
                sort_target: SortTarget::Mod as i32,
                ..all()
            },
            Code::Unimplemented,
            "RangeStream does not support custom sort orders",
        ),
        (
            RangeRequest {
                min_mod_revision: 1,
                ..all()
            },
            Code::Unimplemented,
            "RangeStream does not support revision filters",
        ),
        (
            RangeRequest {
                revision: 1000,
                ..all()
            },
            Code::OutOfRange,
            "etcdserver: mvcc: required revision is a future revision",
        ),
    ];
    for (request, code, text) in cases {
        let (parts, status) = stream(&kv, request).await.expect_err("a refusal");
        assert!(parts.is_empty());
        assert_eq!((status.code(), status.message()), (code, text));
    }
}

#[tokio::test]
async fn a_stream_that_nobody_reads_hinders_nobody() {
    let member = member();
    let kv = Kv::to(member.address());
    fill(&kv, 4000, 4000).await;
    let stalled = Kv::to(member.address());
    let answer = client(&stalled).range_stream(all()).await;
    let mut slow = answer.expect("a stream").into_inner();
    let first = slow.message().await.expect("a message").expect("a message");
    assert_eq!(first.range_response.expect("a part").kvs.len(), 10);
    // Meanwhile others write, compact and read.
    kv.put("after".into(), "x".into()).await.expect("a put");
    let now = kv.put("after".into(), "y".into()).await.expect("a put");
    let compaction = CompactionRequest {
        revision: now,
        physical: false,
    };
    let compacted = client(&kv).compact(compaction).await;
    compacted.expect("a compaction");
    let parts = stream(&kv, all()).await.expect("a stream");
    assert_eq!(merged(&parts).kvs.len(), 4001);
    // The stream's revision is gone; what it had not begun to send ends it.
    let status = loop {
        match slow.message().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("the stream came to an end"),
            Err(status) => break status,
        }
    };
    assert_eq!(
        (status.code(), status.message()),
        (
            Code::OutOfRange,
            "etcdserver: mvcc: required revision has been compacted"
        )
    );
}

#[tokio::test]
async fn a_snapshot_is_a_database_with_its_digest() {
    let member = member();
    let kv = Kv::to(member.address());
    fill(&kv, 3000, 1000).await;
    let mut maintenance = MaintenanceClient::new(kv.channel());
    let answer = maintenance.snapshot(SnapshotRequest {}).await;
    let mut answer = answer.expect("a stream").into_inner();
    let mut messages = Vec::new();
    while let Some(message) = answer.message().await.expect("a message") {
        assert_eq!(message.header, None);
        assert_eq!(message.version, "3.7.0");
        messages.push(message);
        // What is written meanwhile is not in it.
        kv.put("meanwhile".into(), "x".into()).await.expect("a put");
    }
    let (last, blobs) = messages.split_last().expect("messages");
    let total: u64 = blobs.iter().map(|message| message.blob.len() as u64).sum();
    let mut left = total;
    for (at, message) in blobs.iter().enumerate() {
        if at + 1 < blobs.len() {
            assert_eq!(message.blob.len(), 32 << 10);
        }
        left -= message.blob.len() as u64;
        assert_eq!(message.remaining_bytes, left);
    }
    assert_eq!(last.remaining_bytes, 0);
    let image: Vec<u8> = blobs.iter().flat_map(|m| m.blob.to_vec()).collect();
    assert_eq!(last.blob[..], Sha256::digest(&image)[..]);

    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("db");
    std::fs::write(&path, &image).expect("written");
    let fs = std::sync::Arc::new(storage::fs::RealFs);
    let db = bolt::Db::open(fs, &path, bolt::Options::default()).expect("a database");
    let tx = db.begin_read();
    let mut keys = 0;
    let mut cursor = tx.cursor(b"key").expect("the bucket");
    while let Some((_, record)) = cursor.next().expect("a record") {
        assert!(!record.windows(9).any(|part| part == b"meanwhile"));
        keys += 1;
    }
    assert_eq!(keys, 3000);
    drop(cursor);
    let report = db.check().expect("a check");
    assert!(report.is_sound(), "{:?}", report.violations);
}
