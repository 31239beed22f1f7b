//! The calls that acceptance tests make, on tonic's own transport.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use api::pb::etcdserverpb::{
    CompactionRequest, DeleteRangeRequest, DeleteRangeResponse, HashKvRequest, HashKvResponse,
    Member, MemberListRequest, PutRequest, RangeRequest, RangeResponse, ResponseHeader,
    StatusRequest, StatusResponse, TxnRequest, TxnResponse,
};
use api::pb::mvccpb::KeyValue;
use bytes::Bytes;
use client::stub::{ClusterClient, KvClient, MaintenanceClient};
use tonic::Status;
use tonic::transport::{Channel, Endpoint};

use crate::Error;

const LIMIT: Duration = Duration::from_secs(30);
/// Keys that one Range asks for when everything is read.
const PAGE: i64 = 10_000;

/// All keys at one revision.
pub type Keys = BTreeMap<Bytes, KeyValue>;

/// A connection; clones share it. It is made anew when it breaks.
#[derive(Clone)]
pub struct Kv {
    channel: Channel,
}

impl Kv {
    /// Connects with the first call.
    ///
    /// # Panics
    /// Never: a socket address makes a URL.
    #[must_use]
    pub fn to(address: SocketAddr) -> Self {
        Self::within(address, LIMIT)
    }

    /// As [`Kv::to`], with another limit than 30 s for each call.
    ///
    /// # Panics
    /// Never: a socket address makes a URL.
    #[must_use]
    pub fn within(address: SocketAddr, limit: Duration) -> Self {
        let endpoint = Endpoint::from_shared(format!("http://{address}"))
            .expect("a socket address makes a URL")
            .timeout(limit);
        Self {
            channel: endpoint.connect_lazy(),
        }
    }

    /// The transport, for services that have no method here.
    #[must_use]
    pub fn channel(&self) -> Channel {
        self.channel.clone()
    }

    fn kv(&self) -> KvClient<Channel> {
        KvClient::new(self.channel.clone()).max_decoding_message_size(usize::MAX)
    }

    fn maintenance(&self) -> MaintenanceClient<Channel> {
        MaintenanceClient::new(self.channel.clone())
    }

    /// Puts and returns the revision of the write.
    ///
    /// # Errors
    /// What the server or the connection says.
    pub async fn put(&self, key: Bytes, value: Bytes) -> Result<i64, Status> {
        let request = PutRequest {
            key,
            value,
            ..PutRequest::default()
        };
        self.put_request(request).await
    }

    /// Any Put; returns the revision of the write.
    ///
    /// # Errors
    /// What the server or the connection says.
    pub async fn put_request(&self, request: PutRequest) -> Result<i64, Status> {
        Ok(revision(self.kv().put(request).await?.into_inner().header))
    }

    /// Any Range.
    ///
    /// # Errors
    /// What the server or the connection says.
    pub async fn range(&self, request: RangeRequest) -> Result<RangeResponse, Status> {
        Ok(self.kv().range(request).await?.into_inner())
    }

    /// Deletes `[key, end)`, or one key when `end` is empty.
    ///
    /// # Errors
    /// What the server or the connection says.
    pub async fn delete(&self, key: Bytes, end: Bytes) -> Result<DeleteRangeResponse, Status> {
        let request = DeleteRangeRequest {
            key,
            range_end: end,
            ..Default::default()
        };
        Ok(self.kv().delete_range(request).await?.into_inner())
    }

    /// Any transaction.
    ///
    /// # Errors
    /// What the server or the connection says.
    pub async fn txn(&self, request: TxnRequest) -> Result<TxnResponse, Status> {
        Ok(self.kv().txn(request).await?.into_inner())
    }

    /// Compacts and waits for the physical deletion.
    ///
    /// # Errors
    /// What the server or the connection says.
    pub async fn compact(&self, revision: i64) -> Result<(), Status> {
        let request = CompactionRequest {
            revision,
            physical: true,
        };
        self.kv().compact(request).await.map(|_| ())
    }

    /// HashKV up to `revision`; 0 for the current one.
    ///
    /// # Errors
    /// What the server or the connection says.
    pub async fn hash_kv(&self, revision: i64) -> Result<HashKvResponse, Status> {
        let request = HashKvRequest { revision };
        Ok(self.maintenance().hash_kv(request).await?.into_inner())
    }

    /// Status of the member.
    ///
    /// # Errors
    /// What the server or the connection says.
    pub async fn status(&self) -> Result<StatusResponse, Status> {
        Ok(self
            .maintenance()
            .status(StatusRequest {})
            .await?
            .into_inner())
    }

    /// The members, by a linearizable read.
    ///
    /// # Errors
    /// What the server or the connection says.
    pub async fn members(&self) -> Result<Vec<Member>, Status> {
        let request = MemberListRequest { linearizable: true };
        let mut cluster = ClusterClient::new(self.channel.clone());
        Ok(cluster.member_list(request).await?.into_inner().members)
    }

    /// The current revision.
    ///
    /// # Errors
    /// What the server or the connection says.
    pub async fn revision(&self, serializable: bool) -> Result<i64, Status> {
        let key = Bytes::from_static(b"\0");
        let request = RangeRequest {
            key,
            serializable,
            ..RangeRequest::default()
        };
        Ok(revision(self.range(request).await?.header))
    }

    /// Every key at `at` (0 for now), and the revision that was read.
    ///
    /// # Errors
    /// What the server or the connection says, or pages that contradict each other.
    pub async fn all(&self, at: i64) -> Result<(i64, Keys), Error> {
        let mut pinned = at;
        let mut keys = Keys::new();
        let mut next = Bytes::from_static(b"\0");
        loop {
            let request = RangeRequest {
                key: next,
                range_end: Bytes::from_static(b"\0"),
                limit: PAGE,
                revision: pinned,
                ..RangeRequest::default()
            };
            let page = self
                .range(request)
                .await
                .map_err(|status| Error(status.to_string()))?;
            if pinned == 0 {
                pinned = revision(page.header);
            }
            let Some(last) = page.kvs.last() else {
                return Ok((pinned, keys));
            };
            next = [last.key.as_ref(), b"\0"].concat().into();
            let count = keys.len() as i64 + page.count;
            keys.extend(page.kvs.into_iter().map(|kv| (kv.key.clone(), kv)));
            if !page.more {
                if keys.len() as i64 != count {
                    return Err(Error(format!(
                        "{} keys, the count says {count}",
                        keys.len()
                    )));
                }
                return Ok((pinned, keys));
            }
        }
    }
}

/// Revision of a header; 0 without one.
#[must_use]
pub fn revision(header: Option<ResponseHeader>) -> i64 {
    header.map_or(0, |header| header.revision)
}

/// A status as an error of this crate.
#[must_use]
pub fn said(status: Status) -> Error {
    Error(format!("{:?}: {}", status.code(), status.message()))
}
