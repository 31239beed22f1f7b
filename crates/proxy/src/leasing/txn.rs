//! Transactions under leasing: what they write, what must hold for that, and those that can be
//! answered from owned keys.

use std::collections::HashSet;

use api::pb::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use api::pb::etcdserverpb::{
    Compare, DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, ResponseOp, TxnRequest,
    TxnResponse, request_op::Request, response_op::Response,
};
use api::pb::mvccpb::KeyValue;
use bytes::Bytes;

use super::cache::{self, Cache, Target};

/// The value of a leasing key whose owner is asked to give it up.
pub(super) const REVOKE: &[u8] = b"REVOKE";

pub(super) fn op(request: Request) -> RequestOp {
    RequestOp {
        request: Some(request),
    }
}

/// A comparison with the create revision of one key or of all keys of a range.
pub(super) fn created(key: Bytes, end: Bytes, result: CompareResult, revision: i64) -> Compare {
    Compare {
        result: result.into(),
        target: CompareTarget::Create.into(),
        key,
        range_end: end,
        target_union: Some(TargetUnion::CreateRevision(revision)),
    }
}

/// Asks the owner of a leasing key to give it up.
pub(super) fn revoke(key: Bytes) -> RequestOp {
    op(Request::RequestPut(PutRequest {
        key,
        value: Bytes::from_static(REVOKE),
        ignore_lease: true,
        ..PutRequest::default()
    }))
}

pub(super) fn read(key: Bytes, end: Bytes) -> RangeRequest {
    RangeRequest {
        key,
        range_end: end,
        ..RangeRequest::default()
    }
}

pub(super) fn delete(key: Bytes) -> RequestOp {
    op(Request::RequestDeleteRange(DeleteRangeRequest {
        key,
        ..DeleteRangeRequest::default()
    }))
}

/// What a request deletes.
pub(super) fn deleted(request: &DeleteRangeRequest) -> Target {
    match request.range_end.is_empty() {
        true => Target::Key(request.key.clone()),
        false => Target::Range(request.key.clone(), request.range_end.clone()),
    }
}

/// Everything that a transaction may write, each key once.
pub(super) fn targets(txn: &TxnRequest) -> Vec<Target> {
    let (mut found, mut keys) = (Vec::new(), HashSet::new());
    collect(txn, &mut |target| match &target {
        Target::Key(key) if !keys.insert(key.clone()) => {}
        _ => found.push(target),
    });
    found
}

fn collect(txn: &TxnRequest, found: &mut impl FnMut(Target)) {
    for op in txn.success.iter().chain(&txn.failure) {
        match &op.request {
            Some(Request::RequestPut(put)) => found(Target::Key(put.key.clone())),
            Some(Request::RequestDeleteRange(request)) => found(deleted(request)),
            Some(Request::RequestTxn(nested)) => collect(nested, found),
            Some(Request::RequestRange(_)) | None => {}
        }
    }
}

/// Calls `done` for each request that was carried out, by the answers.
pub(super) fn each_done<'a>(
    ops: &'a [RequestOp],
    answers: &[ResponseOp],
    done: &mut impl FnMut(&'a Request),
) {
    for (op, answer) in ops.iter().zip(answers) {
        match (&op.request, &answer.response) {
            (Some(Request::RequestTxn(txn)), Some(Response::ResponseTxn(answer))) => {
                each_done(branch(txn, answer.succeeded), &answer.responses, done);
            }
            (Some(request), _) => done(request),
            (None, _) => {}
        }
    }
}

pub(super) fn branch(txn: &TxnRequest, succeeded: bool) -> &[RequestOp] {
    match succeeded {
        true => &txn.success,
        false => &txn.failure,
    }
}

/// Whether a read is one of a single key's value of now.
pub(super) fn is_plain(request: &RangeRequest) -> bool {
    request.range_end.is_empty() && request.revision == 0 && !request.key.is_empty()
}

/// The answer to a transaction that compares and reads only keys that are owned.
pub(super) fn evaluate(cache: &Cache, txn: &TxnRequest) -> Option<TxnResponse> {
    if txn.compare.is_empty() && txn.success.is_empty() {
        return None;
    }
    let mut succeeded = true;
    for compare in &txn.compare {
        if !compare.range_end.is_empty() {
            return None;
        }
        // All of them must be owned: an answer is of one revision.
        succeeded &= holds(cache.known(&compare.key)?, compare);
    }
    let header = cache.header();
    let mut responses = Vec::new();
    for op in branch(txn, succeeded) {
        let Some(Request::RequestRange(request)) = &op.request else {
            return None;
        };
        if !is_plain(request) {
            return None;
        }
        let answer = cache::answer(cache.known(&request.key)?, header, request);
        responses.push(ResponseOp {
            response: Some(Response::ResponseRange(answer)),
        });
    }
    Some(TxnResponse {
        header: Some(header),
        succeeded,
        responses,
    })
}

/// Compares as a server does: a key that is not there has no value and zeros.
fn holds(kv: Option<&KeyValue>, compare: &Compare) -> bool {
    let nothing = KeyValue::default();
    let target = CompareTarget::try_from(compare.target);
    if kv.is_none() && target == Ok(CompareTarget::Value) {
        return false;
    }
    let kv = kv.unwrap_or(&nothing);
    let asked = compare.target_union.as_ref();
    let number = |own: i64, asked: Option<i64>| own.cmp(&asked.unwrap_or(0));
    let ordering = match target {
        Ok(CompareTarget::Version) => number(
            kv.version,
            match asked {
                Some(TargetUnion::Version(asked)) => Some(*asked),
                _ => None,
            },
        ),
        Ok(CompareTarget::Create) => number(
            kv.create_revision,
            match asked {
                Some(TargetUnion::CreateRevision(asked)) => Some(*asked),
                _ => None,
            },
        ),
        Ok(CompareTarget::Mod) => number(
            kv.mod_revision,
            match asked {
                Some(TargetUnion::ModRevision(asked)) => Some(*asked),
                _ => None,
            },
        ),
        Ok(CompareTarget::Lease) => number(
            kv.lease,
            match asked {
                Some(TargetUnion::Lease(asked)) => Some(*asked),
                _ => None,
            },
        ),
        Ok(CompareTarget::Value) => match asked {
            Some(TargetUnion::Value(asked)) => kv.value.cmp(asked),
            _ => kv.value[..].cmp(&[]),
        },
        // A server compares nothing then, which is equal.
        Err(_) => std::cmp::Ordering::Equal,
    };
    match CompareResult::try_from(compare.result) {
        Ok(CompareResult::Equal) => ordering.is_eq(),
        Ok(CompareResult::NotEqual) => ordering.is_ne(),
        Ok(CompareResult::Greater) => ordering.is_gt(),
        Ok(CompareResult::Less) => ordering.is_lt(),
        Err(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::{Duration, Instant};

    use super::*;

    fn owning(kvs: &[(&'static str, Option<KeyValue>)]) -> Cache {
        let mut cache = Cache::default();
        cache.hold(1, Instant::now() + Duration::from_secs(60));
        for (key, kv) in kvs {
            let request = read(Bytes::from_static(key.as_bytes()), Bytes::new());
            cache.look(&request, Instant::now());
            cache.acquired(&request.key, 1, Some((9, kv.clone())));
        }
        cache
    }

    fn stored(value: &'static str) -> Option<KeyValue> {
        Some(KeyValue {
            value: value.into(),
            create_revision: 3,
            mod_revision: 5,
            version: 2,
            ..KeyValue::default()
        })
    }

    fn compare(key: &'static str, target: CompareTarget, asked: TargetUnion) -> Compare {
        Compare {
            result: CompareResult::Equal.into(),
            target: target.into(),
            key: key.into(),
            target_union: Some(asked),
            ..Compare::default()
        }
    }

    fn get(key: &'static str) -> RequestOp {
        op(Request::RequestRange(read(key.into(), Bytes::new())))
    }

    #[test]
    fn comparisons_are_a_servers() {
        let cache = owning(&[("a", stored("x")), ("gone", None)]);
        let holds = |compare: Compare| {
            let success = vec![get("a")];
            let txn = TxnRequest {
                compare: vec![compare],
                success,
                failure: vec![get("gone")],
            };
            evaluate(&cache, &txn).map(|answer| answer.succeeded)
        };
        use {CompareTarget as Of, TargetUnion as Is};
        for (compare, want) in [
            (compare("a", Of::Value, Is::Value("x".into())), Some(true)),
            (compare("a", Of::Value, Is::Value("y".into())), Some(false)),
            (compare("a", Of::Create, Is::CreateRevision(3)), Some(true)),
            (compare("a", Of::Mod, Is::ModRevision(3)), Some(false)),
            (compare("a", Of::Version, Is::Version(2)), Some(true)),
            (compare("a", Of::Lease, Is::Lease(0)), Some(true)),
            // What is not there has no value, not even an empty one.
            (
                compare("gone", Of::Value, Is::Value("".into())),
                Some(false),
            ),
            (
                compare("gone", Of::Create, Is::CreateRevision(0)),
                Some(true),
            ),
            (compare("other", Of::Create, Is::CreateRevision(0)), None),
        ] {
            assert_eq!(holds(compare.clone()), want, "{compare:?}");
        }
        let range = Compare {
            range_end: "b".into(),
            ..compare("a", Of::Create, Is::CreateRevision(3))
        };
        assert_eq!(holds(range), None);
    }

    #[test]
    fn only_reads_of_owned_keys_are_answered() {
        let cache = owning(&[("a", stored("x"))]);
        let answers = |success: Vec<RequestOp>| {
            let txn = TxnRequest {
                success,
                ..TxnRequest::default()
            };
            evaluate(&cache, &txn).is_some()
        };
        assert!(answers(vec![get("a"), get("a")]));
        assert!(!answers(vec![get("a"), get("b")]));
        assert!(!answers(vec![delete("a".into())]));
        assert!(!answers(vec![]));
        let old = RangeRequest {
            revision: 2,
            ..read("a".into(), Bytes::new())
        };
        assert!(!answers(vec![op(Request::RequestRange(old))]));
    }

    #[test]
    fn what_is_written_is_found_at_any_depth() {
        let put = |key: &'static str| {
            let request = PutRequest {
                key: key.into(),
                ..PutRequest::default()
            };
            op(Request::RequestPut(request))
        };
        let range = DeleteRangeRequest {
            key: "r".into(),
            range_end: "s".into(),
            ..DeleteRangeRequest::default()
        };
        let nested = TxnRequest {
            success: vec![op(Request::RequestDeleteRange(range)), put("a")],
            failure: vec![put("b")],
            ..TxnRequest::default()
        };
        let txn = TxnRequest {
            success: vec![get("x"), op(Request::RequestTxn(nested.clone()))],
            failure: vec![put("a"), delete("c".into())],
            ..TxnRequest::default()
        };
        let key = |key: &'static str| Target::Key(key.into());
        let found = [
            Target::Range("r".into(), "s".into()),
            key("a"),
            key("b"),
            key("c"),
        ];
        assert_eq!(targets(&txn), found);

        let inner = TxnResponse {
            succeeded: false,
            responses: vec![ResponseOp::default()],
            ..TxnResponse::default()
        };
        let answers = [
            ResponseOp::default(),
            ResponseOp {
                response: Some(Response::ResponseTxn(inner)),
            },
        ];
        let mut done = Vec::new();
        each_done(&txn.success, &answers, &mut |request| {
            done.push(request.clone())
        });
        let Some(Request::RequestPut(b)) = put("b").request else {
            panic!("a put")
        };
        assert_eq!(done.last(), Some(&Request::RequestPut(b)));
        assert_eq!(done.len(), 2);
    }
}
