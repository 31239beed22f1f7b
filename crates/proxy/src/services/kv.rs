//! The KV service.

use std::sync::Arc;

use api::pb::etcdserverpb::{
    CompactionRequest, CompactionResponse, DeleteRangeRequest, DeleteRangeResponse, PutRequest,
    PutResponse, RangeRequest, RangeResponse, TxnRequest, TxnResponse,
};
use tonic::Status;

use crate::below::{Caller, Kv};

/// Reads and writes through the layers below.
pub(super) struct Service {
    below: Arc<dyn Kv>,
}

impl Service {
    pub(super) fn new(below: Arc<dyn Kv>) -> Self {
        Service { below }
    }

    pub(super) async fn range(
        &self,
        caller: &Caller,
        request: RangeRequest,
    ) -> Result<RangeResponse, Status> {
        self.below.range(caller, request).await
    }

    pub(super) async fn put(
        &self,
        caller: &Caller,
        request: PutRequest,
    ) -> Result<PutResponse, Status> {
        self.below.put(caller, request).await
    }

    pub(super) async fn delete_range(
        &self,
        caller: &Caller,
        request: DeleteRangeRequest,
    ) -> Result<DeleteRangeResponse, Status> {
        self.below.delete_range(caller, request).await
    }

    pub(super) async fn txn(
        &self,
        caller: &Caller,
        request: TxnRequest,
    ) -> Result<TxnResponse, Status> {
        self.below.txn(caller, request).await
    }

    pub(super) async fn compact(
        &self,
        caller: &Caller,
        request: CompactionRequest,
    ) -> Result<CompactionResponse, Status> {
        self.below.compact(caller, request).await
    }
}
