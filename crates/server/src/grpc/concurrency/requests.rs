//! The requests that locks and elections are made of, as etcd's own client makes them.

use api::pb::etcdserverpb as pb;
use api::pb::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use api::pb::etcdserverpb::range_request::{SortOrder, SortTarget};
use api::pb::etcdserverpb::request_op::Request;
use api::pb::etcdserverpb::response_op::Response;
use api::pb::mvccpb::KeyValue;
use bytes::Bytes;

/// What the keys of a lock or election begin with.
pub(super) fn prefix(name: &[u8]) -> Bytes {
    [name, b"/"].concat().into()
}

/// The key of one contender.
pub(super) fn key(prefix: &[u8], lease: i64) -> Bytes {
    [prefix, format!("{lease:x}").as_bytes()].concat().into()
}

/// The end of the range of keys that begin with a prefix, which ends in a slash.
fn prefix_end(prefix: &[u8]) -> Bytes {
    let mut end = prefix.to_vec();
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    end.into()
}

/// The oldest key under a prefix.
pub(super) fn first_created(prefix: &Bytes) -> pb::RangeRequest {
    pb::RangeRequest {
        key: prefix.clone(),
        range_end: prefix_end(prefix),
        limit: 1,
        sort_order: SortOrder::Ascend as i32,
        sort_target: SortTarget::Create as i32,
        ..Default::default()
    }
}

/// The youngest key under a prefix that is not younger than `revision`.
pub(super) fn last_created(prefix: &Bytes, revision: i64) -> pb::RangeRequest {
    pb::RangeRequest {
        sort_order: SortOrder::Descend as i32,
        max_create_revision: revision,
        keys_only: true,
        ..first_created(prefix)
    }
}

pub(super) fn get(key: &Bytes) -> pb::RangeRequest {
    pb::RangeRequest {
        key: key.clone(),
        ..Default::default()
    }
}

/// True of a key that was created at `revision`; 0 for one that does not exist.
fn created_at(key: &Bytes, revision: i64) -> pb::Compare {
    pb::Compare {
        result: CompareResult::Equal as i32,
        target: CompareTarget::Create as i32,
        key: key.clone(),
        range_end: Bytes::new(),
        target_union: Some(TargetUnion::CreateRevision(revision)),
    }
}

fn op(request: Request) -> pb::RequestOp {
    pb::RequestOp {
        request: Some(request),
    }
}

fn put(key: &Bytes, value: &Bytes, lease: i64) -> pb::RequestOp {
    op(Request::RequestPut(pb::PutRequest {
        key: key.clone(),
        value: value.clone(),
        lease,
        ..Default::default()
    }))
}

/// Puts the key unless it exists, and tells what it is and, with `owner`, which key is the oldest.
pub(super) fn enter(
    (prefix, key): (&Bytes, &Bytes),
    value: &Bytes,
    lease: i64,
    owner: bool,
) -> pb::TxnRequest {
    let mut txn = pb::TxnRequest {
        compare: vec![created_at(key, 0)],
        success: vec![put(key, value, lease)],
        failure: vec![op(Request::RequestRange(get(key)))],
    };
    if owner {
        let owner = op(Request::RequestRange(first_created(prefix)));
        txn.success.push(owner.clone());
        txn.failure.push(owner);
    }
    txn
}

/// Gives a contender's key another value.
pub(super) fn proclaim(key: &Bytes, created: i64, value: &Bytes, lease: i64) -> pb::TxnRequest {
    pb::TxnRequest {
        compare: vec![created_at(key, created)],
        success: vec![put(key, value, lease)],
        failure: Vec::new(),
    }
}

/// Deletes a contender's key if it still is the one that was created then.
pub(super) fn resign(key: &Bytes, created: i64) -> pb::TxnRequest {
    pb::TxnRequest {
        compare: vec![created_at(key, created)],
        success: vec![op(Request::RequestDeleteRange(delete(key)))],
        failure: Vec::new(),
    }
}

pub(super) fn delete(key: &Bytes) -> pb::DeleteRangeRequest {
    pb::DeleteRangeRequest {
        key: key.clone(),
        ..Default::default()
    }
}

/// The first key that the operation at `at` of a transaction found.
pub(super) fn found(response: &pb::TxnResponse, at: usize) -> Option<&KeyValue> {
    match &response.responses.get(at)?.response {
        Some(Response::ResponseRange(range)) => range.kvs.first(),
        _ => None,
    }
}
