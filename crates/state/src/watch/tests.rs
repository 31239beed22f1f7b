//! The log and the history, case by case.

mod model;

use api::pb::etcdserverpb as pb;
use api::pb::etcdserverpb::request_op::Request;
use api::pb::mvccpb;
use prost::Message;

use super::*;
use crate::auth::WatchKeys;
use crate::fatal::Fatal;
use crate::machine::tests::{Rig, unasked};

fn decode(event: &Event, before: Option<&[u8]>) -> mvccpb::Event {
    let mut out = Vec::new();
    event.write(before, &mut out);
    assert_eq!(out.len(), event.encoded_len(before));
    let response = pb::WatchResponse::decode(&out[..]).unwrap();
    assert_eq!(response.events.len(), 1);
    response.events[0].clone()
}

fn before(rig: &Rig, revision: i64) -> Result<Option<Value>, Fatal> {
    let watched = unasked(WatchKeys::One("a".into()));
    rig.view.before(&watched, b"a", revision)
}

fn txn(operations: Vec<Request>) -> pb::InternalRaftRequest {
    let success = operations
        .into_iter()
        .map(|request| pb::RequestOp {
            request: Some(request),
        })
        .collect();
    pb::InternalRaftRequest {
        txn: Some(pb::TxnRequest {
            success,
            ..Default::default()
        }),
        ..Default::default()
    }
}

#[test]
fn an_event_is_the_message_of_its_change() {
    let mut rig = Rig::new();
    rig.view.set_watching(0, true);
    rig.put("a", "1");
    rig.put("a", "2");
    rig.delete("a");
    let tail = rig.view.tail(2);
    assert_eq!((tail.first, tail.revision, tail.compacted), (2, 4, -1));
    let events: Vec<&Event> = tail.batches.iter().flat_map(|b| b.events()).collect();
    assert!(events[0].is_create() && !events[1].is_create() && !events[2].is_create());
    let first = decode(events[0], None);
    let kv = first.kv.clone().unwrap();
    assert_eq!(
        (
            kv.create_revision,
            kv.mod_revision,
            kv.version,
            &kv.value[..]
        ),
        (2, 2, 1, &b"1"[..])
    );
    let known = before(&rig, 4).unwrap().unwrap();
    let last = decode(events[2], Some(&known));
    assert_eq!(last.r#type, mvccpb::event::EventType::Delete as i32);
    let kv = last.kv.unwrap();
    assert_eq!(
        (&kv.key[..], kv.mod_revision, kv.version),
        (&b"a"[..], 4, 0)
    );
    assert_eq!(&last.prev_kv.unwrap().value[..], b"2");
    assert_eq!(before(&rig, 2).unwrap(), None);
}

#[test]
fn the_log_exists_only_for_watchers() {
    let mut rig = Rig::new();
    rig.put("a", "1");
    let tail = rig.view.tail(0);
    assert!(tail.batches.is_empty());
    assert_eq!((tail.first, tail.revision), (3, 2));
    rig.view.set_watching(3, true);
    rig.put("a", "2");
    assert_eq!(rig.view.tail(0).batches.len(), 1);
    rig.view.set_watching(3, false);
    rig.put("a", "3");
    let tail = rig.view.tail(0);
    assert!(tail.batches.is_empty());
    assert_eq!((tail.first, tail.revision), (5, 4));
    // The database has what the log has not.
    let chunk = rig.view.events(2, 100, 1 << 20).unwrap();
    assert_eq!(chunk.events.len(), 3);
    assert_eq!(chunk.through, 4);
}

#[test]
fn the_log_is_bounded() {
    let log = Log::new(1, -1, None);
    log.set_watching(0, true);
    let record: Value = Arc::from(vec![0; 1 << 20]);
    for main in 2..100 {
        let event = Event::new(main, false, record.clone());
        log.publish(main, -1, Some(vec![event]));
    }
    let tail = log.tail(0);
    assert!(tail.batches.len() * (1 << 20) <= LOG_BYTES_MAX);
    assert_eq!(tail.first, tail.batches[0].events()[0].revision());
    assert_eq!(log.tail(98).batches.len(), 2);
}

#[test]
fn a_revision_stays_whole() {
    let mut rig = Rig::new();
    for watching in [false, true] {
        rig.view.set_watching(0, watching);
        let from = rig.view.revision() + 1;
        let puts = |n: usize| {
            let put = |i| Request::RequestPut(crate::machine::tests::put_request(i, "v"));
            txn(["a", "b", "c", "d", "e"][..n]
                .iter()
                .map(|i| put(i))
                .collect())
        };
        rig.apply(puts(5)).unwrap();
        rig.apply(puts(2)).unwrap();
        let chunk = rig.view.events(from, 1, 1 << 20).unwrap();
        assert_eq!((chunk.events.len(), chunk.through), (5, from));
        let chunk = rig.view.events(from, 6, 1 << 20).unwrap();
        assert_eq!((chunk.events.len(), chunk.through), (7, from + 1));
        let chunk = rig.view.events(from + 1, 6, 1).unwrap();
        assert_eq!((chunk.events.len(), chunk.through), (2, from + 1));
        let chunk = rig.view.events(from + 2, 6, 1).unwrap();
        assert_eq!((chunk.events.len(), chunk.through), (0, from + 1));
    }
}

#[test]
fn a_deletion_at_the_compacted_revision_is_seen() {
    let mut rig = Rig::new();
    rig.put("a", "1");
    let deleted = rig.delete("a");
    rig.put("b", "1");
    rig.compact(deleted).unwrap();
    rig.sweep();
    let chunk = rig.view.events(deleted, 100, 1 << 20).unwrap();
    assert_eq!(chunk.compacted, deleted);
    assert!(chunk.events[0].is_delete() && chunk.events[0].revision() == deleted);
    assert_eq!(chunk.events.len(), 2);
    assert_eq!(before(&rig, deleted).unwrap(), None);
}
