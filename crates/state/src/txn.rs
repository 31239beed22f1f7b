//! Transactions: compares, the checks before anything is written, and the operations.

use api::Error;
use api::pb::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use api::pb::etcdserverpb::request_op::Request;
use api::pb::etcdserverpb::{Compare, PutRequest, RangeRequest, RequestOp, TxnRequest};
use storage::backend::{Reader, Value};

use crate::fatal::{Fatal, ReadError};
use crate::index::{Seen, Span};
use crate::kv::{Writing, parse};
use crate::range;
use crate::shared::State;
use crate::wire;

/// Which branch every transaction of a tree takes, in the order in which they are met.
pub(crate) type Path = Vec<bool>;

/// True when no operation of either branch writes; a nested transaction counts as a write.
#[must_use]
pub fn is_read_only(txn: &TxnRequest) -> bool {
    let mut ops = txn.success.iter().chain(&txn.failure);
    ops.all(|op| matches!(op.request, Some(Request::RequestRange(_))))
}

/// True when every operation of both branches is a serializable range; also without operations.
#[must_use]
pub fn is_serializable(txn: &TxnRequest) -> bool {
    let mut ops = txn.success.iter().chain(&txn.failure);
    ops.all(|op| matches!(&op.request, Some(Request::RequestRange(range)) if range.serializable))
}

fn branch(txn: &TxnRequest, taken: bool) -> &[RequestOp] {
    if taken { &txn.success } else { &txn.failure }
}

/// Gives the record behind what is seen; the state is locked.
pub(crate) type Load<'a> = &'a mut dyn FnMut(&Seen<'_>) -> Result<Value, Fatal>;

/// Evaluates all compares of the tree on the state before it, for a reader at `rev`.
pub(crate) fn choose(
    state: &State,
    rev: i64,
    txn: &TxnRequest,
    load: Load<'_>,
    path: &mut Path,
) -> Result<(), Fatal> {
    let mut holds = true;
    for compare in &txn.compare {
        if !compare_holds(state, rev, compare, load)? {
            holds = false;
            break;
        }
    }
    path.push(holds);
    for op in branch(txn, holds) {
        if let Some(Request::RequestTxn(nested)) = &op.request {
            choose(state, rev, nested, load, path)?;
        }
    }
    Ok(())
}

fn compare_holds(
    state: &State,
    rev: i64,
    compare: &Compare,
    load: Load<'_>,
) -> Result<bool, Fatal> {
    let mut found = false;
    let span = Span::new(&compare.key, &compare.range_end);
    for seen in state.index.span(span).filter_map(|slot| slot.at(rev)) {
        found = true;
        if !one_holds(compare, Some(&seen), load)? {
            return Ok(false);
        }
    }
    if found {
        return Ok(true);
    }
    // A missing key has no value to compare; all its numbers are 0.
    Ok(compare.target != CompareTarget::Value as i32 && one_holds(compare, None, load)?)
}

fn one_holds(compare: &Compare, seen: Option<&Seen<'_>>, load: Load<'_>) -> Result<bool, Fatal> {
    let ordering = if compare.target == CompareTarget::Value as i32 {
        let wanted: &[u8] = match &compare.target_union {
            Some(TargetUnion::Value(value)) => value,
            _ => &[],
        };
        match seen {
            Some(seen) => parse(&load(seen)?)?.value.cmp(wanted),
            None => [].as_slice().cmp(wanted),
        }
    } else {
        let (is, wanted) = numbers(compare, seen, load)?;
        is.cmp(&wanted)
    };
    Ok(match CompareResult::try_from(compare.result) {
        Ok(CompareResult::Equal) => ordering.is_eq(),
        Ok(CompareResult::NotEqual) => ordering.is_ne(),
        Ok(CompareResult::Greater) => ordering.is_gt(),
        Ok(CompareResult::Less) => ordering.is_lt(),
        Err(_) => true,
    })
}

/// The key's number and the one to compare it with. The latter counts only when it is of the kind
/// that `target` names; otherwise it is 0.
fn numbers(
    compare: &Compare,
    seen: Option<&Seen<'_>>,
    load: Load<'_>,
) -> Result<(i64, i64), Fatal> {
    let (mut create, mut modified, mut version, mut lease) = (0, 0, 0, 0);
    if let Some(seen) = seen {
        modified = seen.revision().main;
        if seen.is_newest() {
            (create, version, lease) = (seen.slot.create, seen.slot.version, seen.slot.lease);
        } else {
            let record = load(seen)?;
            let kv = parse(&record)?;
            (create, version, lease) = (kv.create, kv.version, kv.lease);
        }
    }
    let union = &compare.target_union;
    Ok(match CompareTarget::try_from(compare.target) {
        Ok(CompareTarget::Version) => (
            version,
            if let Some(TargetUnion::Version(n)) = union {
                *n
            } else {
                0
            },
        ),
        Ok(CompareTarget::Create) => (
            create,
            if let Some(TargetUnion::CreateRevision(n)) = union {
                *n
            } else {
                0
            },
        ),
        Ok(CompareTarget::Mod) => (
            modified,
            if let Some(TargetUnion::ModRevision(n)) = union {
                *n
            } else {
                0
            },
        ),
        Ok(CompareTarget::Lease) => (
            lease,
            if let Some(TargetUnion::Lease(n)) = union {
                *n
            } else {
                0
            },
        ),
        Ok(CompareTarget::Value) | Err(_) => (0, 0),
    })
}

/// Checks the operations that the path chooses: nothing may fail once writing has begun.
pub(crate) fn check(
    state: &State,
    revision: i64,
    txn: &TxnRequest,
    path: &mut impl Iterator<Item = bool>,
) -> Result<(), Error> {
    for op in branch(txn, path.next().unwrap_or(false)) {
        match &op.request {
            Some(Request::RequestRange(range)) => check_range(state, revision, range)?,
            Some(Request::RequestPut(put)) => check_put(state, put)?,
            Some(Request::RequestTxn(nested)) => check(state, revision, nested, path)?,
            Some(Request::RequestDeleteRange(_)) | None => {}
        }
    }
    Ok(())
}

fn check_range(state: &State, revision: i64, range: &RangeRequest) -> Result<(), Error> {
    match range.revision {
        0 => Ok(()),
        asked if asked > revision => Err(Error::FutureRev),
        asked if asked < state.compacted => Err(Error::Compacted),
        _ => Ok(()),
    }
}

/// Checks what a put needs to exist: its lease, and the key when a part of it is to be kept.
pub(crate) fn check_put(state: &State, put: &PutRequest) -> Result<(), Error> {
    if put.lease != 0 && !state.leases.contains(put.lease) {
        return Err(Error::LeaseNotFound);
    }
    if put.ignore_value || put.ignore_lease {
        let exists = state.index.get(&put.key).is_some_and(|slot| slot.is_live());
        if !exists {
            return Err(Error::KeyNotFound);
        }
    }
    Ok(())
}

/// Runs a checked put; returns the record before, when it was asked for.
pub(crate) fn put(writing: &mut Writing<'_>, put: &PutRequest) -> Result<Option<Value>, Fatal> {
    let before = if put.ignore_value || put.ignore_lease || put.prev_kv {
        writing.newest(&put.key)?
    } else {
        None
    };
    let kv = match &before {
        Some(record) => parse(record)?,
        None => Default::default(),
    };
    let value = if put.ignore_value {
        kv.value
    } else {
        &put.value
    };
    let lease = if put.ignore_lease {
        kv.lease
    } else {
        put.lease
    };
    writing.put(&put.key, value, lease);
    Ok(before.filter(|_| put.prev_kv))
}

/// Runs the chosen operations and returns the response without its header. Ranges are skipped
/// unless `with_ranges`.
pub(crate) fn run(
    writing: &mut Writing<'_>,
    txn: &TxnRequest,
    path: &mut impl Iterator<Item = bool>,
    with_ranges: bool,
) -> Result<Vec<u8>, Fatal> {
    let taken = path.next().unwrap_or(false);
    let mut out = Vec::new();
    wire::put_int(&mut out, 2, u64::from(taken));
    for op in branch(txn, taken) {
        let (number, body) = match &op.request {
            Some(Request::RequestRange(range)) => {
                let revision = writing.revision();
                let mut body = revision_header(revision);
                if with_ranges {
                    writing.done.ranges += 1;
                    let answer = range::inside(writing.state, writing.reader, range, revision);
                    body.extend(answer.map_err(broken)?);
                }
                (1, body)
            }
            Some(Request::RequestPut(request)) => {
                let before = put(writing, request)?;
                let mut body = revision_header(writing.revision());
                if let Some(record) = before {
                    wire::put_bytes(&mut body, 2, &record);
                }
                (2, body)
            }
            Some(Request::RequestDeleteRange(request)) => {
                let span = Span::new(&request.key, &request.range_end);
                let before = if request.prev_kv {
                    writing.newest_of(span)?
                } else {
                    Vec::new()
                };
                let deleted = writing.delete(span);
                let mut body = revision_header(writing.revision());
                wire::put_int(&mut body, 2, deleted as u64);
                before
                    .iter()
                    .for_each(|record| wire::put_bytes(&mut body, 3, record));
                (3, body)
            }
            Some(Request::RequestTxn(nested)) => {
                let mut body = Vec::new();
                wire::put_bytes(&mut body, 1, &[]);
                body.extend(run(writing, nested, path, with_ranges)?);
                (4, body)
            }
            None => (0, Vec::new()),
        };
        put_response(&mut out, number, &body);
    }
    Ok(out)
}

/// Runs the chosen ranges of a read-only transaction; `answer` gives their bodies.
pub(crate) fn run_ranges(
    txn: &TxnRequest,
    taken: bool,
    revision: i64,
    answer: &mut dyn FnMut(&RangeRequest) -> Result<Vec<u8>, ReadError>,
) -> Result<Vec<u8>, ReadError> {
    let mut out = Vec::new();
    wire::put_int(&mut out, 2, u64::from(taken));
    for op in branch(txn, taken) {
        if let Some(Request::RequestRange(range)) = &op.request {
            let mut body = revision_header(revision);
            body.extend(answer(range)?);
            put_response(&mut out, 1, &body);
        }
    }
    Ok(out)
}

/// Field `responses` with one `ResponseOp`, whose field `number` is `body`.
fn put_response(out: &mut Vec<u8>, number: u8, body: &[u8]) {
    if number == 0 {
        wire::put_bytes(out, 3, &[]);
        return;
    }
    wire::put_head(out, 3, wire::field_len(body.len()));
    wire::put_bytes(out, number, body);
}

/// Field `header` with nothing but a revision.
fn revision_header(revision: i64) -> Vec<u8> {
    let mut header = Vec::with_capacity(16);
    wire::put_int(&mut header, 3, revision as u64);
    let mut out = Vec::with_capacity(16);
    wire::put_bytes(&mut out, 1, &header);
    out
}

fn broken(error: ReadError) -> Fatal {
    match error {
        ReadError::Refused(error) => Fatal::Txn { error },
        ReadError::Broken(fatal) => fatal,
    }
}

/// The record behind what is seen, read at once.
pub(crate) fn load_now(reader: &Reader) -> impl FnMut(&Seen<'_>) -> Result<Value, Fatal> {
    move |seen| crate::kv::record_of(reader, seen)
}
