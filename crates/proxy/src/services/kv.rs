//! The KV service: the layers below, and a cache before them.
//!
//! Only callers without a token are answered from the cache: who has one is asked for by the
//! cluster each time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use api::pb::etcdserverpb::{
    CompactionRequest, CompactionResponse, DeleteRangeRequest, DeleteRangeResponse, PutRequest,
    PutResponse, RangeRequest, RangeResponse, RequestOp, ResponseHeader, TxnRequest, TxnResponse,
    request_op, response_op,
};
use bytes::Bytes;
use tonic::Status;

use crate::below::{Caller, Kv, refused};
use crate::cache::{Cache, Found, Ticket};
use crate::metrics::Metrics;

/// For how long after the cluster let somebody without a name read others may be answered here. When
/// authentication is switched on elsewhere, they are for so long still.
const OPEN_MS: u64 = 10_000;

/// Reads and writes through the layers below.
pub(crate) struct Service {
    below: Arc<dyn Kv>,
    cache: Cache,
    metrics: Arc<Metrics>,
    /// When the cluster last let somebody without a name read, in milliseconds after `begun`.
    confirmed: AtomicU64,
    begun: Instant,
}

/// A write under way: when it is over, however it is over, what it may have changed is no longer
/// in the cache.
struct Write<'a> {
    service: &'a Service,
    spans: Vec<(Bytes, Bytes)>,
}

impl Drop for Write<'_> {
    fn drop(&mut self) {
        for (key, range_end) in &self.spans {
            self.service.cache.end(key, range_end);
        }
        self.service.count_entries();
    }
}

impl Service {
    pub(crate) fn new(below: Arc<dyn Kv>, metrics: Arc<Metrics>) -> Self {
        Service {
            below,
            cache: Cache::new(),
            metrics,
            confirmed: AtomicU64::new(0),
            begun: Instant::now(),
        }
    }

    /// Forgets every answer: others may see them from now on.
    pub(crate) fn forget(&self) {
        self.cache.clear();
        self.below.forget();
        self.count_entries();
    }

    fn elapsed_ms(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Whether the cluster has lately let somebody without a name read.
    fn is_open(&self) -> bool {
        let confirmed = self.confirmed.load(Relaxed);
        self.elapsed_ms().saturating_sub(confirmed) <= OPEN_MS
    }

    /// Forgets every answer: keys were changed in another way than by writes.
    pub(crate) fn clear(&self) {
        self.cache.clear();
        self.count_entries();
    }

    fn count_entries(&self) {
        let entries = i64::try_from(self.cache.len()).unwrap_or(i64::MAX);
        self.metrics.cache_keys.store(entries, Relaxed);
    }

    fn write(&self, spans: Vec<(Bytes, Bytes)>) -> Write<'_> {
        Write {
            service: self,
            spans,
        }
    }

    pub(crate) async fn range(
        &self,
        caller: &Caller,
        request: RangeRequest,
    ) -> Result<RangeResponse, Status> {
        if caller.token.is_some() {
            // Who has a name has it because others need one.
            if self.metrics.cache_keys.load(Relaxed) > 0 {
                self.cache.clear();
                self.count_entries();
            }
            return self.below.range(caller, request).await;
        }
        if request.serializable {
            let found = match self.is_open() {
                true => self.cache.get(&request),
                false => Found::Nothing,
            };
            match found {
                Found::Answer(answer) => {
                    self.metrics.cache_hits.fetch_add(1, Relaxed);
                    return Ok(answer);
                }
                Found::Compacted => {
                    self.metrics.cache_hits.fetch_add(1, Relaxed);
                    return Err(refused(api::Error::Compacted));
                }
                Found::Nothing => self.metrics.cache_misses.fetch_add(1, Relaxed),
            };
        }
        let begun = self.cache.begin();
        let answer = self.below.range(caller, request.clone()).await;
        match &answer {
            Ok(answer) => {
                self.confirmed.store(self.elapsed_ms(), Relaxed);
                self.cache.add(begun, &request, answer);
            }
            // Authentication was switched on, so what nobody in particular read is not for all.
            Err(status) if status.message() == api::Error::UserEmpty.message() => {
                self.cache.clear();
            }
            Err(_) => {}
        }
        self.count_entries();
        answer
    }

    pub(crate) async fn put(
        &self,
        caller: &Caller,
        request: PutRequest,
    ) -> Result<PutResponse, Status> {
        let _write = self.write(vec![(request.key.clone(), Bytes::new())]);
        let answer = self.below.put(caller, request).await?;
        self.cache.wrote(answer.header.as_ref());
        Ok(answer)
    }

    pub(crate) async fn delete_range(
        &self,
        caller: &Caller,
        request: DeleteRangeRequest,
    ) -> Result<DeleteRangeResponse, Status> {
        let _write = self.write(vec![(request.key.clone(), request.range_end.clone())]);
        let answer = self.below.delete_range(caller, request).await?;
        self.cache.wrote(answer.header.as_ref());
        Ok(answer)
    }

    pub(crate) async fn txn(
        &self,
        caller: &Caller,
        request: TxnRequest,
    ) -> Result<TxnResponse, Status> {
        let mut spans = Vec::new();
        concerned(&request, &mut spans);
        let begun = self.cache.begin();
        let answer = {
            let writes = !spans.is_empty();
            let _write = self.write(spans);
            let answer = self.below.txn(caller, request.clone()).await?;
            if writes {
                self.cache.wrote(answer.header.as_ref());
            }
            answer
        };
        if caller.token.is_none() {
            let header = answer.header;
            self.keep(begun, header.as_ref(), &request, &answer);
            self.count_entries();
        }
        Ok(answer)
    }

    /// Keeps what a transaction read.
    fn keep(
        &self,
        begun: Ticket,
        header: Option<&ResponseHeader>,
        request: &TxnRequest,
        answer: &TxnResponse,
    ) {
        let ops = match answer.succeeded {
            true => &request.success,
            false => &request.failure,
        };
        for (op, answer) in ops.iter().zip(&answer.responses) {
            match (&op.request, &answer.response) {
                (
                    Some(request_op::Request::RequestRange(request)),
                    Some(response_op::Response::ResponseRange(answer)),
                ) => {
                    // The transaction's own header says more than the range's.
                    let answer = RangeResponse {
                        header: header.copied(),
                        ..answer.clone()
                    };
                    self.cache.add(begun, request, &answer);
                }
                (
                    Some(request_op::Request::RequestTxn(request)),
                    Some(response_op::Response::ResponseTxn(answer)),
                ) => self.keep(begun, header, request, answer),
                _ => {}
            }
        }
    }

    pub(crate) async fn compact(
        &self,
        caller: &Caller,
        request: CompactionRequest,
    ) -> Result<CompactionResponse, Status> {
        let revision = request.revision;
        let answer = self.below.compact(caller, request).await?;
        self.cache.compact(revision);
        self.count_entries();
        Ok(answer)
    }
}

/// The keys that a transaction may write, and those that it compares: what it says about them may
/// be news.
fn concerned(txn: &TxnRequest, spans: &mut Vec<(Bytes, Bytes)>) {
    for compare in &txn.compare {
        spans.push((compare.key.clone(), compare.range_end.clone()));
    }
    for RequestOp { request } in txn.success.iter().chain(&txn.failure) {
        match request {
            Some(request_op::Request::RequestPut(put)) => {
                spans.push((put.key.clone(), Bytes::new()));
            }
            Some(request_op::Request::RequestDeleteRange(delete)) => {
                spans.push((delete.key.clone(), delete.range_end.clone()));
            }
            Some(request_op::Request::RequestTxn(nested)) => concerned(nested, spans),
            Some(request_op::Request::RequestRange(_)) | None => {}
        }
    }
}

#[cfg(test)]
mod tests;
