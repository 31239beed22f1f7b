//! Serializable reads that never go back in time, whichever member answers them.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use api::pb::etcdserverpb::{
    CompactionRequest, CompactionResponse, DeleteRangeRequest, DeleteRangeResponse, PutRequest,
    PutResponse, RangeRequest, RangeResponse, ResponseHeader, TxnRequest, TxnResponse, request_op,
};
use client::Channel;
use tonic::{Status, async_trait};

use crate::below::{Caller, Kv};

/// How many answers of each member may be too old before a read fails.
const TURNS: usize = 5;

/// Pause after all members have had their turn.
const TURN_WAIT: Duration = Duration::from_millis(20);

/// The words of etcd's client for a read that fails so.
const NO_GREATER_REVISION: &str = "etcdclient: no cluster members have a revision higher than \
                                   the previously received revision";

/// A key space whose reads are never older than what was answered before they began.
pub(crate) struct Ordered {
    below: Arc<dyn Kv>,
    /// Requests go to its endpoints in turn.
    channel: Channel,
    /// The newest revision that was seen; 0 before the first answer.
    seen: AtomicI64,
}

impl Ordered {
    pub(crate) fn new(below: Arc<dyn Kv>, channel: Channel) -> Self {
        Ordered {
            below,
            channel,
            seen: AtomicI64::new(0),
        }
    }

    fn see(&self, header: Option<ResponseHeader>) {
        let revision = header.map_or(0, |header| header.revision);
        self.seen.fetch_max(revision, Ordering::AcqRel);
    }

    /// Reads until the answer is new enough.
    async fn read<A, F>(
        &self,
        header: fn(&A) -> Option<ResponseHeader>,
        ask: impl Fn() -> F,
    ) -> Result<A, Status>
    where
        F: Future<Output = Result<A, Status>>,
    {
        let before = self.seen.load(Ordering::Acquire);
        let members = self.channel.endpoint_count();
        for attempt in 1..=TURNS * members {
            let answer = ask().await?;
            let header = header(&answer);
            if header.map_or(0, |header| header.revision) >= before {
                self.see(header);
                return Ok(answer);
            }
            if attempt % members == 0 {
                tokio::time::sleep(TURN_WAIT).await;
            }
        }
        Err(Status::unknown(NO_GREATER_REVISION))
    }

    /// Whether nothing was seen yet: then only the cluster knows what clients saw elsewhere.
    fn is_new(&self) -> bool {
        self.seen.load(Ordering::Acquire) == 0
    }
}

/// Whether a transaction reads without writing, so that one member may answer it alone.
fn only_reads(txn: &TxnRequest) -> bool {
    let mut ops = txn.success.iter().chain(&txn.failure);
    ops.all(|op| match &op.request {
        Some(request_op::Request::RequestRange(_)) => true,
        Some(request_op::Request::RequestTxn(nested)) => only_reads(nested),
        _ => false,
    })
}

#[async_trait]
impl Kv for Ordered {
    async fn range(
        &self,
        caller: &Caller,
        mut request: RangeRequest,
    ) -> Result<RangeResponse, Status> {
        request.serializable &= !self.is_new();
        let ask = || self.below.range(caller, request.clone());
        self.read(|answer: &RangeResponse| answer.header, ask).await
    }

    async fn put(&self, caller: &Caller, request: PutRequest) -> Result<PutResponse, Status> {
        let answer = self.below.put(caller, request).await?;
        self.see(answer.header);
        Ok(answer)
    }

    async fn delete_range(
        &self,
        caller: &Caller,
        request: DeleteRangeRequest,
    ) -> Result<DeleteRangeResponse, Status> {
        let answer = self.below.delete_range(caller, request).await?;
        self.see(answer.header);
        Ok(answer)
    }

    async fn txn(&self, caller: &Caller, request: TxnRequest) -> Result<TxnResponse, Status> {
        if !only_reads(&request) {
            // What is written is newer than all that was seen, and is not written twice.
            let answer = self.below.txn(caller, request).await?;
            self.see(answer.header);
            return Ok(answer);
        }
        let ask = || self.below.txn(caller, request.clone());
        self.read(|answer: &TxnResponse| answer.header, ask).await
    }

    async fn compact(
        &self,
        caller: &Caller,
        request: CompactionRequest,
    ) -> Result<CompactionResponse, Status> {
        self.below.compact(caller, request).await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use client::Config;

    use super::*;

    /// Members whose answers are of these revisions, in turn.
    struct Members {
        revisions: Mutex<Vec<i64>>,
        linearized: AtomicI64,
    }

    impl Members {
        fn header(&self) -> Option<ResponseHeader> {
            let revision = self.revisions.lock().unwrap().remove(0);
            Some(ResponseHeader {
                revision,
                ..ResponseHeader::default()
            })
        }
    }

    #[async_trait]
    impl Kv for Members {
        async fn range(&self, _: &Caller, request: RangeRequest) -> Result<RangeResponse, Status> {
            self.linearized
                .fetch_add(i64::from(!request.serializable), Ordering::Relaxed);
            Ok(RangeResponse {
                header: self.header(),
                ..RangeResponse::default()
            })
        }

        async fn put(&self, _: &Caller, _: PutRequest) -> Result<PutResponse, Status> {
            Ok(PutResponse {
                header: self.header(),
                prev_kv: None,
            })
        }

        async fn delete_range(
            &self,
            _: &Caller,
            _: DeleteRangeRequest,
        ) -> Result<DeleteRangeResponse, Status> {
            Err(Status::unimplemented("delete_range"))
        }

        async fn txn(&self, _: &Caller, _: TxnRequest) -> Result<TxnResponse, Status> {
            Ok(TxnResponse {
                header: self.header(),
                ..TxnResponse::default()
            })
        }

        async fn compact(
            &self,
            _: &Caller,
            _: CompactionRequest,
        ) -> Result<CompactionResponse, Status> {
            Err(Status::unimplemented("compact"))
        }
    }

    fn over(revisions: &[i64]) -> (Ordered, Arc<Members>) {
        let members = Arc::new(Members {
            revisions: Mutex::new(revisions.to_vec()),
            linearized: AtomicI64::new(0),
        });
        let endpoints = ["127.0.0.1:1", "127.0.0.1:2"].map(str::to_owned);
        let channel = Channel::new(&Config::new(endpoints.to_vec())).unwrap();
        (Ordered::new(Arc::clone(&members) as _, channel), members)
    }

    async fn read(kv: &Ordered) -> Result<i64, Status> {
        let request = RangeRequest {
            serializable: true,
            ..RangeRequest::default()
        };
        let answer = kv.range(&Caller::default(), request).await?;
        Ok(answer.header.unwrap().revision)
    }

    #[tokio::test]
    async fn what_is_too_old_is_asked_of_the_next_member() {
        let (kv, members) = over(&[5, 4, 3, 7, 6, 7, 8, 9]);
        assert_eq!(read(&kv).await.unwrap(), 5);
        assert_eq!(read(&kv).await.unwrap(), 7);
        assert_eq!(read(&kv).await.unwrap(), 7);
        let put = kv.put(&Caller::default(), PutRequest::default()).await;
        assert_eq!(put.unwrap().header.unwrap().revision, 8);
        assert_eq!(read(&kv).await.unwrap(), 9);
        // Only the first one had nothing to compare with.
        assert_eq!(members.linearized.load(Ordering::Relaxed), 1);
    }

    #[tokio::test]
    async fn members_that_stay_old_fail_the_read() {
        let (kv, members) = over(&[9, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 9]);
        assert_eq!(read(&kv).await.unwrap(), 9);
        let refusal = read(&kv).await.unwrap_err();
        assert_eq!(refusal.message(), NO_GREATER_REVISION);
        assert_eq!(members.revisions.lock().unwrap().len(), 1);
    }
}
