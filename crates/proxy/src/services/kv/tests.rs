use std::sync::atomic::{AtomicBool, AtomicUsize};

use api::pb::mvccpb::KeyValue;
use tonic::async_trait;

use super::*;

/// A cluster of one key, `k`, whose value counts the reads.
#[derive(Default)]
struct Below {
    reads: AtomicUsize,
    needs_names: AtomicBool,
}

#[async_trait]
impl Kv for Below {
    async fn range(&self, caller: &Caller, _: RangeRequest) -> Result<RangeResponse, Status> {
        if self.needs_names.load(Relaxed) && caller.token.is_none() {
            return Err(refused(api::Error::UserEmpty));
        }
        let read = self.reads.fetch_add(1, Relaxed) + 1;
        let kv = KeyValue {
            value: read.to_string().into(),
            ..KeyValue::default()
        };
        Ok(RangeResponse {
            kvs: vec![kv],
            ..RangeResponse::default()
        })
    }

    async fn put(&self, _: &Caller, _: PutRequest) -> Result<PutResponse, Status> {
        Err(Status::unavailable("it may have been done"))
    }

    async fn delete_range(
        &self,
        _: &Caller,
        _: DeleteRangeRequest,
    ) -> Result<DeleteRangeResponse, Status> {
        Ok(DeleteRangeResponse::default())
    }

    async fn txn(&self, _: &Caller, _: TxnRequest) -> Result<TxnResponse, Status> {
        Ok(TxnResponse::default())
    }

    async fn compact(
        &self,
        _: &Caller,
        _: CompactionRequest,
    ) -> Result<CompactionResponse, Status> {
        Ok(CompactionResponse::default())
    }
}

fn service() -> (Arc<Below>, Service) {
    let below = Arc::<Below>::default();
    let service = Service::new(Arc::clone(&below) as _, Arc::default());
    (below, service)
}

async fn read(service: &Service, caller: &Caller, serializable: bool) -> Result<Bytes, Status> {
    let request = RangeRequest {
        key: Bytes::from_static(b"k"),
        serializable,
        ..RangeRequest::default()
    };
    let answer = service.range(caller, request).await?;
    Ok(answer.kvs[0].value.clone())
}

#[tokio::test]
async fn writes_end_what_is_kept_however_they_end() {
    let (_below, service) = service();
    let nobody = Caller::default();
    let key = || Bytes::from_static(b"k");
    assert_eq!(read(&service, &nobody, false).await.unwrap(), "1");
    assert_eq!(read(&service, &nobody, true).await.unwrap(), "1");
    let put = PutRequest {
        key: key(),
        ..PutRequest::default()
    };
    assert!(service.put(&nobody, put.clone()).await.is_err());
    assert_eq!(read(&service, &nobody, true).await.unwrap(), "2");
    let op = |request| RequestOp {
        request: Some(request),
    };
    let nested = TxnRequest {
        failure: vec![op(request_op::Request::RequestPut(put))],
        ..TxnRequest::default()
    };
    let txn = TxnRequest {
        success: vec![op(request_op::Request::RequestTxn(nested))],
        ..TxnRequest::default()
    };
    service.txn(&nobody, txn).await.unwrap();
    assert_eq!(read(&service, &nobody, true).await.unwrap(), "3");
    let delete = DeleteRangeRequest {
        key: Bytes::from_static(b"a"),
        range_end: Bytes::from_static(b"\0"),
        ..DeleteRangeRequest::default()
    };
    service.delete_range(&nobody, delete).await.unwrap();
    assert_eq!(read(&service, &nobody, true).await.unwrap(), "4");
    assert_eq!(read(&service, &nobody, true).await.unwrap(), "4");
    assert_eq!(service.metrics.cache_hits.load(Relaxed), 2);
    assert_eq!(service.metrics.cache_misses.load(Relaxed), 3);
    assert_eq!(service.metrics.cache_keys.load(Relaxed), 1);
}

#[tokio::test]
async fn what_is_kept_is_nobodys_once_users_have_names() {
    let (below, service) = service();
    let nobody = Caller::default();
    let somebody = Caller {
        token: Some("t".parse().unwrap()),
        ..Caller::default()
    };
    assert_eq!(read(&service, &nobody, false).await.unwrap(), "1");
    below.needs_names.store(true, Relaxed);
    assert_eq!(read(&service, &somebody, true).await.unwrap(), "2");
    let refusal = read(&service, &nobody, true).await.unwrap_err();
    assert_eq!(refusal.message(), api::Error::UserEmpty.message());
    below.needs_names.store(false, Relaxed);
    assert_eq!(read(&service, &nobody, false).await.unwrap(), "3");
    below.needs_names.store(true, Relaxed);
    assert!(read(&service, &nobody, false).await.is_err());
    assert!(
        read(&service, &nobody, true).await.is_err(),
        "a refusal forgets it"
    );
}
