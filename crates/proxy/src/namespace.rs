//! A key space within the cluster's: every key that a client names gets a prefix on its way down,
//! and loses it on its way up.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use api::pb::etcdserverpb::{
    CompactionRequest, CompactionResponse, Compare, DeleteRangeRequest, DeleteRangeResponse,
    LeaseTimeToLiveResponse, PutRequest, PutResponse, RangeRequest, RangeResponse, RequestOp,
    TxnRequest, TxnResponse, WatchCreateRequest, request_op, response_op,
};
use api::pb::mvccpb::KeyValue;
use bytes::{Bytes, BytesMut};
use client::{WatchEvent, prefix_end};
use tonic::codegen::tokio_stream::Stream;
use tonic::{Status, async_trait};

use crate::below::{Caller, Kv, Watches, Watching};

/// What keys begin with in the cluster.
#[derive(Clone)]
struct Prefix(Bytes);

impl Prefix {
    /// The key's name in the cluster.
    fn add(&self, key: &[u8]) -> Bytes {
        let mut whole = BytesMut::with_capacity(self.0.len() + key.len());
        whole.extend_from_slice(&self.0);
        whole.extend_from_slice(key);
        whole.freeze()
    }

    /// The end of a range; "\0", which means without end, becomes the namespace's end.
    fn add_to_end(&self, end: &[u8]) -> Bytes {
        match end {
            [] => Bytes::new(),
            [0] => prefix_end(&self.0),
            end => self.add(end),
        }
    }

    /// The client's name of a key, if the key is in the namespace.
    fn strip(&self, key: &Bytes) -> Option<Bytes> {
        key.starts_with(&self.0).then(|| key.slice(self.0.len()..))
    }

    fn strip_kv(&self, kv: &mut KeyValue) {
        // The cluster answers with keys that were asked for, which have the prefix.
        kv.key = self.strip(&kv.key).unwrap_or_default();
    }

    fn range(&self, request: &mut RangeRequest) {
        request.key = self.add(&request.key);
        request.range_end = self.add_to_end(&request.range_end);
    }

    fn put(&self, request: &mut PutRequest) {
        request.key = self.add(&request.key);
    }

    fn delete_range(&self, request: &mut DeleteRangeRequest) {
        request.key = self.add(&request.key);
        request.range_end = self.add_to_end(&request.range_end);
    }

    fn compare(&self, compare: &mut Compare) {
        compare.key = self.add(&compare.key);
        compare.range_end = self.add_to_end(&compare.range_end);
    }

    fn txn(&self, request: &mut TxnRequest) {
        for compare in &mut request.compare {
            self.compare(compare);
        }
        for op in request.success.iter_mut().chain(&mut request.failure) {
            self.op(op);
        }
    }

    fn op(&self, op: &mut RequestOp) {
        match &mut op.request {
            Some(request_op::Request::RequestRange(request)) => self.range(request),
            Some(request_op::Request::RequestPut(request)) => self.put(request),
            Some(request_op::Request::RequestDeleteRange(request)) => self.delete_range(request),
            Some(request_op::Request::RequestTxn(request)) => self.txn(request),
            None => {}
        }
    }

    fn ranged(&self, answer: &mut RangeResponse) {
        for kv in &mut answer.kvs {
            self.strip_kv(kv);
        }
    }

    fn put_done(&self, answer: &mut PutResponse) {
        if let Some(kv) = &mut answer.prev_kv {
            self.strip_kv(kv);
        }
    }

    fn deleted(&self, answer: &mut DeleteRangeResponse) {
        for kv in &mut answer.prev_kvs {
            self.strip_kv(kv);
        }
    }

    fn txn_done(&self, answer: &mut TxnResponse) {
        for op in &mut answer.responses {
            match &mut op.response {
                Some(response_op::Response::ResponseRange(answer)) => self.ranged(answer),
                Some(response_op::Response::ResponsePut(answer)) => self.put_done(answer),
                Some(response_op::Response::ResponseDeleteRange(answer)) => self.deleted(answer),
                Some(response_op::Response::ResponseTxn(answer)) => self.txn_done(answer),
                None => {}
            }
        }
    }

    fn happened(&self, answer: &mut WatchEvent) {
        for event in &mut answer.events {
            for kv in event.kv.iter_mut().chain(&mut event.prev_kv) {
                self.strip_kv(kv);
            }
        }
    }
}

/// Leaves of a lease's keys those of the namespace, under the names that clients have for them.
pub fn keep_own_keys(namespace: &Bytes, answer: &mut LeaseTimeToLiveResponse) {
    let prefix = Prefix(namespace.clone());
    let keys = answer.keys.iter();
    answer.keys = keys.filter_map(|key| prefix.strip(key)).collect();
}

/// A key space within another one.
pub struct Namespaced<T: ?Sized> {
    below: Arc<T>,
    prefix: Prefix,
}

impl<T: ?Sized> Namespaced<T> {
    /// The keys of `below` that begin with `prefix`.
    #[must_use]
    pub fn new(below: Arc<T>, prefix: Bytes) -> Self {
        Namespaced {
            below,
            prefix: Prefix(prefix),
        }
    }
}

/// Here an empty key would name the key that is the prefix; the cluster would refuse it.
fn check_key(key: &[u8]) -> Result<(), Status> {
    match key.is_empty() {
        true => Err(crate::below::refused(api::Error::EmptyKey)),
        false => Ok(()),
    }
}

/// As [`check_key`], for every key that a transaction names.
fn check_txn(txn: &TxnRequest) -> Result<(), Status> {
    txn.compare.iter().try_for_each(|it| check_key(&it.key))?;
    let mut ops = txn.success.iter().chain(&txn.failure);
    ops.try_for_each(|op| match &op.request {
        Some(request_op::Request::RequestRange(request)) => check_key(&request.key),
        Some(request_op::Request::RequestPut(request)) => check_key(&request.key),
        Some(request_op::Request::RequestDeleteRange(request)) => check_key(&request.key),
        Some(request_op::Request::RequestTxn(nested)) => check_txn(nested),
        None => Ok(()),
    })
}

#[async_trait]
impl<K: Kv + ?Sized> Kv for Namespaced<K> {
    async fn range(
        &self,
        caller: &Caller,
        mut request: RangeRequest,
    ) -> Result<RangeResponse, Status> {
        check_key(&request.key)?;
        self.prefix.range(&mut request);
        let mut answer = self.below.range(caller, request).await?;
        self.prefix.ranged(&mut answer);
        Ok(answer)
    }

    async fn put(&self, caller: &Caller, mut request: PutRequest) -> Result<PutResponse, Status> {
        check_key(&request.key)?;
        self.prefix.put(&mut request);
        let mut answer = self.below.put(caller, request).await?;
        self.prefix.put_done(&mut answer);
        Ok(answer)
    }

    async fn delete_range(
        &self,
        caller: &Caller,
        mut request: DeleteRangeRequest,
    ) -> Result<DeleteRangeResponse, Status> {
        check_key(&request.key)?;
        self.prefix.delete_range(&mut request);
        let mut answer = self.below.delete_range(caller, request).await?;
        self.prefix.deleted(&mut answer);
        Ok(answer)
    }

    async fn txn(&self, caller: &Caller, mut request: TxnRequest) -> Result<TxnResponse, Status> {
        check_txn(&request)?;
        self.prefix.txn(&mut request);
        let mut answer = self.below.txn(caller, request).await?;
        self.prefix.txn_done(&mut answer);
        Ok(answer)
    }

    async fn compact(
        &self,
        caller: &Caller,
        request: CompactionRequest,
    ) -> Result<CompactionResponse, Status> {
        self.below.compact(caller, request).await
    }
}

impl<W: Watches + ?Sized> Watches for Namespaced<W> {
    fn watch(&self, caller: &Caller, mut request: WatchCreateRequest) -> Watching {
        request.key = self.prefix.add(&request.key);
        request.range_end = self.prefix.add_to_end(&request.range_end);
        let mut watching = self.below.watch(caller, request);
        watching.answers = Box::pin(Stripped {
            below: watching.answers,
            prefix: self.prefix.clone(),
        });
        watching
    }
}

/// Events under the names that clients have for their keys.
struct Stripped {
    below: Pin<Box<dyn Stream<Item = WatchEvent> + Send>>,
    prefix: Prefix,
}

impl Stream for Stripped {
    type Item = WatchEvent;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<WatchEvent>> {
        let polled = self.below.as_mut().poll_next(context);
        polled.map(|answer| {
            let mut answer = answer?;
            self.prefix.happened(&mut answer);
            Some(answer)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_stay_in_the_namespace() {
        let prefix = Prefix(Bytes::from_static(b"ns/"));
        for (end, want) in [
            (&b""[..], &b""[..]),
            (b"\0", b"ns0"),
            (b"b", b"ns/b"),
            (b"\0\0", b"ns/\0\0"),
        ] {
            assert_eq!(prefix.add_to_end(end), want, "{end:?}");
        }
        let all = Prefix(Bytes::from_static(b"\xff"));
        assert_eq!(all.add_to_end(b"\0"), &b"\0"[..]);
    }

    #[test]
    fn nested_transactions_are_renamed_both_ways() {
        let prefix = Prefix(Bytes::from_static(b"ns/"));
        let put = |key: &'static [u8]| RequestOp {
            request: Some(request_op::Request::RequestPut(PutRequest {
                key: Bytes::from_static(key),
                ..PutRequest::default()
            })),
        };
        let mut txn = TxnRequest {
            compare: vec![Compare {
                key: Bytes::from_static(b"c"),
                range_end: Bytes::from_static(b"\0"),
                ..Compare::default()
            }],
            success: vec![RequestOp {
                request: Some(request_op::Request::RequestTxn(TxnRequest {
                    failure: vec![put(b"n")],
                    ..TxnRequest::default()
                })),
            }],
            failure: vec![put(b"f")],
        };
        prefix.txn(&mut txn);
        assert_eq!(
            (&txn.compare[0].key[..], &txn.compare[0].range_end[..]),
            (&b"ns/c"[..], &b"ns0"[..])
        );
        assert_eq!(txn.failure, [put(b"ns/f")]);
        let Some(request_op::Request::RequestTxn(nested)) = &txn.success[0].request else {
            panic!("no transaction")
        };
        assert_eq!(nested.failure, [put(b"ns/n")]);
    }

    #[test]
    fn a_transaction_names_no_empty_key_either() {
        let delete = |key: &'static str| RequestOp {
            request: Some(request_op::Request::RequestDeleteRange(
                DeleteRangeRequest {
                    key: key.into(),
                    range_end: "\0".into(),
                    ..DeleteRangeRequest::default()
                },
            )),
        };
        let nested = |key: &'static str| TxnRequest {
            failure: vec![RequestOp {
                request: Some(request_op::Request::RequestTxn(TxnRequest {
                    success: vec![delete("a"), delete(key)],
                    ..TxnRequest::default()
                })),
            }],
            ..TxnRequest::default()
        };
        assert!(check_txn(&nested("b")).is_ok());
        let refusal = check_txn(&nested("")).unwrap_err();
        assert_eq!(refusal.message(), api::Error::EmptyKey.message());
        let compares = TxnRequest {
            compare: vec![Compare::default()],
            ..TxnRequest::default()
        };
        assert!(check_txn(&compares).is_err());
    }

    #[test]
    fn a_lease_shows_keys_of_the_namespace() {
        let keys = ["ns/a", "ns", "other", "ns/"];
        let mut answer = LeaseTimeToLiveResponse {
            keys: keys
                .iter()
                .map(|key| Bytes::from_static(key.as_bytes()))
                .collect(),
            ..LeaseTimeToLiveResponse::default()
        };
        keep_own_keys(&Bytes::from_static(b"ns/"), &mut answer);
        assert_eq!(answer.keys, [Bytes::from_static(b"a"), Bytes::new()]);
    }
}
