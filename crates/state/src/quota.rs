//! What a request costs against the space quota.

use api::pb::etcdserverpb::request_op::Request;
use api::pb::etcdserverpb::{PutRequest, RequestOp, TxnRequest};

/// Charged for every key beside its key and value, in bytes.
const KEY_OVERHEAD: u64 = 256;
/// Charged for a lease, in bytes.
pub const LEASE_COST: u64 = 64;

/// The cost of a put in bytes.
#[must_use]
pub fn put_cost(put: &PutRequest) -> u64 {
    KEY_OVERHEAD + put.key.len() as u64 + put.value.len() as u64
}

/// The cost of a transaction in bytes: that of its dearer branch.
#[must_use]
pub fn txn_cost(txn: &TxnRequest) -> u64 {
    let branch = |ops: &[RequestOp]| -> u64 {
        let cost = |op: &RequestOp| match &op.request {
            Some(Request::RequestPut(put)) => put_cost(put),
            Some(Request::RequestTxn(nested)) => txn_cost(nested),
            _ => 0,
        };
        ops.iter().map(cost).sum()
    };
    branch(&txn.success).max(branch(&txn.failure))
}
