//! Sessions, locks and elections as etcd's clients make them.
//!
//! A participant owns the key `<name>/<lease in hex>`, bound to the session's lease. The oldest
//! key, by create revision, owns the lock or leads; the others wait for the deletion of the key
//! just before theirs, so that a release wakes one of them.

use api::pb::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use api::pb::etcdserverpb::range_request::{SortOrder, SortTarget};
use api::pb::etcdserverpb::{
    Compare, DeleteRangeRequest, LeaseGrantRequest, LeaseRevokeRequest, PutRequest, RangeRequest,
    RangeResponse, RequestOp, ResponseHeader, TxnRequest, TxnResponse, WatchCreateRequest,
    request_op, response_op,
};
use api::pb::mvccpb::{KeyValue, event::EventType};
use bytes::Bytes;
use tokio::sync::watch;

use crate::client::{Client, prefix_end};
use crate::error::Error;
use crate::watch::Cancellation;

/// The time to live of a session's lease unless said otherwise, in seconds.
pub const SESSION_TTL_SECONDS: i64 = 60;

/// A lease that is kept alive in the background.
pub struct Session {
    client: Client,
    lease: i64,
    /// Becomes true when the lease is no longer kept alive.
    ended: watch::Receiver<bool>,
    keeper: tokio::task::JoinHandle<()>,
}

impl Session {
    /// Grants a lease and begins to keep it alive.
    ///
    /// # Errors
    /// The lease could not be granted.
    pub async fn new(client: &Client, ttl_seconds: i64) -> Result<Self, Error> {
        let request = LeaseGrantRequest {
            ttl: ttl_seconds,
            id: 0,
        };
        let lease = client.lease_grant(request).await?.id;
        let (end, ended) = watch::channel(false);
        let mut keep_alive = client.keep_alive(lease);
        let keeper = tokio::spawn(async move {
            while let Ok(Some(_)) = keep_alive.next().await {}
            let _sent = end.send(true);
        });
        Ok(Session {
            client: client.clone(),
            lease,
            ended,
            keeper,
        })
    }

    /// The session's lease.
    #[must_use]
    pub fn lease(&self) -> i64 {
        self.lease
    }

    /// Waits until the lease is lost.
    pub async fn ended(&self) {
        // An error means that the keeper has gone, and with it the lease's renewal.
        let mut ended = self.ended.clone();
        let _ended = ended.wait_for(|ended| *ended).await;
    }

    /// Stops keeping the lease alive and revokes it.
    ///
    /// # Errors
    /// The lease could not be revoked; it will expire.
    pub async fn close(self) -> Result<(), Error> {
        self.keeper.abort();
        self.client
            .lease_revoke(LeaseRevokeRequest { id: self.lease })
            .await
            .map(|_| ())
    }

    fn key(&self, prefix: &str) -> Bytes {
        Bytes::from(format!("{prefix}{:x}", self.lease))
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}

/// A named lock that one session holds.
#[derive(Debug)]
pub struct Lock {
    key: Bytes,
    header: ResponseHeader,
}

impl Lock {
    /// Waits until the session owns the lock. Dropping the future leaves the session in the
    /// queue; [`Lock::abandon`] takes it out.
    ///
    /// # Errors
    /// A request failed, or the session ended while it waited.
    pub async fn acquire(session: &Session, name: &str) -> Result<Self, Error> {
        let prefix = format!("{name}/");
        let key = session.key(&prefix);
        let put = put_op(&key, Bytes::new(), session.lease);
        let owner = range_op(first_created(&prefix));
        let answer = session
            .client
            .txn(TxnRequest {
                compare: vec![created_at(&key, 0)],
                success: vec![put, owner.clone()],
                failure: vec![range_op(one_key(&key)), owner],
            })
            .await?;
        let header = answer.header.unwrap_or_default();
        let own_revision = if answer.succeeded {
            header.revision
        } else {
            first_kv(&answer, 0).map_or(header.revision, |kv| kv.create_revision)
        };
        if first_kv(&answer, 1).is_none_or(|owner| owner.create_revision == own_revision) {
            return Ok(Lock { key, header });
        }
        if let Err(error) = wait_for_turn(&session.client, &prefix, own_revision - 1).await {
            // The queue must not keep a waiter that gave up; its lease would end it anyway.
            let _deleted = delete(&session.client, &key).await;
            return Err(error);
        }
        let answer = session.client.range(one_key(&key)).await?;
        if answer.kvs.is_empty() {
            return Err(Error::Recipe("mutex: session is expired".to_owned()));
        }
        Ok(Lock {
            key,
            header: answer.header.unwrap_or_default(),
        })
    }

    /// Takes a session that waits for the lock out of the queue.
    ///
    /// # Errors
    /// The request failed; the session's lease will end the wait.
    pub async fn abandon(session: &Session, name: &str) -> Result<(), Error> {
        delete(&session.client, &session.key(&format!("{name}/"))).await
    }

    /// The key that stands for the ownership.
    #[must_use]
    pub fn key(&self) -> &Bytes {
        &self.key
    }

    /// The header of the answer that made the session the owner.
    #[must_use]
    pub fn header(&self) -> ResponseHeader {
        self.header
    }

    /// Releases the lock.
    ///
    /// # Errors
    /// The request failed; the session's lease will release the lock.
    pub async fn release(self, session: &Session) -> Result<(), Error> {
        delete(&session.client, &self.key).await
    }
}

/// A won election.
#[derive(Debug)]
pub struct Leadership {
    key: Bytes,
    revision: i64,
}

impl Leadership {
    /// Waits until the session leads the election with `value` as its announcement.
    ///
    /// # Errors
    /// A request failed, or the session lost its candidacy.
    pub async fn campaign(session: &Session, name: &str, value: Bytes) -> Result<Self, Error> {
        let prefix = format!("{name}/");
        let key = session.key(&prefix);
        let answer = session
            .client
            .txn(TxnRequest {
                compare: vec![created_at(&key, 0)],
                success: vec![put_op(&key, value.clone(), session.lease)],
                failure: vec![range_op(one_key(&key))],
            })
            .await?;
        let mut revision = answer.header.unwrap_or_default().revision;
        if !answer.succeeded
            && let Some(own) = first_kv(&answer, 0)
        {
            revision = own.create_revision;
            if own.value != value {
                let candidate = Leadership {
                    key: key.clone(),
                    revision,
                };
                candidate.proclaim(session, value).await?;
            }
        }
        wait_for_turn(&session.client, &prefix, revision - 1).await?;
        Ok(Leadership { key, revision })
    }

    /// Ends a candidacy whose campaign was given up.
    ///
    /// # Errors
    /// The request failed; the session's lease will end the candidacy.
    pub async fn abandon(session: &Session, name: &str) -> Result<(), Error> {
        delete(&session.client, &session.key(&format!("{name}/"))).await
    }

    /// The key that stands for the leadership.
    #[must_use]
    pub fn key(&self) -> &Bytes {
        &self.key
    }

    /// Announces another value.
    ///
    /// # Errors
    /// The session does not lead any more, or the request failed.
    pub async fn proclaim(&self, session: &Session, value: Bytes) -> Result<(), Error> {
        let request = TxnRequest {
            compare: vec![created_at(&self.key, self.revision)],
            success: vec![put_op(&self.key, value, session.lease)],
            failure: Vec::new(),
        };
        match session.client.txn(request).await?.succeeded {
            true => Ok(()),
            false => Err(Error::Recipe("election: not leader".to_owned())),
        }
    }

    /// Lets others lead.
    ///
    /// # Errors
    /// The request failed; the session's lease will end the leadership.
    pub async fn resign(self, session: &Session) -> Result<(), Error> {
        let delete = DeleteRangeRequest {
            key: self.key.clone(),
            ..DeleteRangeRequest::default()
        };
        let request = TxnRequest {
            compare: vec![created_at(&self.key, self.revision)],
            success: vec![RequestOp {
                request: Some(request_op::Request::RequestDeleteRange(delete)),
            }],
            failure: Vec::new(),
        };
        session.client.txn(request).await.map(|_| ())
    }
}

/// Follows an election: calls `on_leader` for the leader of now and for each change of leader
/// or announcement, until a request or the watch fails.
///
/// # Errors
/// Whatever ends the observation; it does not end otherwise.
pub async fn observe(
    client: &Client,
    name: &str,
    mut on_leader: impl FnMut(RangeResponse),
) -> Result<(), Error> {
    let prefix = format!("{name}/");
    loop {
        let answer = client.range(first_created(&prefix)).await?;
        let header = answer.header.unwrap_or_default();
        let Some(leader) = answer.kvs.into_iter().next() else {
            wait_for_candidate(client, &prefix, header.revision).await?;
            continue;
        };
        let key = leader.key.clone();
        on_leader(leader_answer(header, leader));
        let watches = client.watches();
        let mut watcher = watches.create(WatchCreateRequest {
            key,
            start_revision: header.revision + 1,
            ..WatchCreateRequest::default()
        });
        'leader: while let Some(answer) = watcher.next().await {
            if let Some(reason) = answer.cancelled {
                return Err(cancelled(reason));
            }
            for event in answer.events {
                if event.r#type() == EventType::Delete {
                    break 'leader;
                }
                let kv = event.kv.unwrap_or_default();
                on_leader(leader_answer(answer.header.unwrap_or_default(), kv));
            }
        }
    }
}

fn leader_answer(header: ResponseHeader, leader: KeyValue) -> RangeResponse {
    RangeResponse {
        header: Some(header),
        kvs: vec![leader],
        more: false,
        count: 0,
    }
}

/// Waits until somebody stands for an election that nobody leads.
async fn wait_for_candidate(client: &Client, prefix: &str, revision: i64) -> Result<(), Error> {
    let keys = WatchCreateRequest {
        key: Bytes::from(prefix.to_owned()),
        range_end: prefix_end(prefix.as_bytes()),
        start_revision: revision,
        ..WatchCreateRequest::default()
    };
    wait_for_event(client, keys, EventType::Put).await
}

/// Waits until no key under `prefix` is older than or as old as `create_revision_max`.
async fn wait_for_turn(
    client: &Client,
    prefix: &str,
    create_revision_max: i64,
) -> Result<(), Error> {
    loop {
        let answer = client
            .range(RangeRequest {
                max_create_revision: create_revision_max,
                sort_order: SortOrder::Descend.into(),
                ..first_created(prefix)
            })
            .await?;
        let revision = answer.header.unwrap_or_default().revision;
        let Some(before) = answer.kvs.into_iter().next() else {
            return Ok(());
        };
        wait_for_delete(client, before.key, revision).await?;
    }
}

async fn wait_for_delete(client: &Client, key: Bytes, revision: i64) -> Result<(), Error> {
    let keys = WatchCreateRequest {
        key,
        start_revision: revision,
        ..WatchCreateRequest::default()
    };
    wait_for_event(client, keys, EventType::Delete).await
}

/// Watches until there is an event of a kind.
async fn wait_for_event(
    client: &Client,
    keys: WatchCreateRequest,
    kind: EventType,
) -> Result<(), Error> {
    let watches = client.watches();
    let mut watcher = watches.create(keys);
    while let Some(answer) = watcher.next().await {
        if let Some(reason) = answer.cancelled {
            return Err(cancelled(reason));
        }
        if answer.events.iter().any(|event| event.r#type() == kind) {
            return Ok(());
        }
    }
    Err(lost_watch())
}

fn cancelled(reason: Cancellation) -> Error {
    match reason {
        Cancellation::Compacted(_) => {
            let error = api::Error::Compacted;
            Error::Rpc {
                code: error.code(),
                message: error.message().to_owned(),
            }
        }
        Cancellation::Refused(text) => Error::Recipe(text),
    }
}

fn lost_watch() -> Error {
    Error::Recipe("lost watcher waiting for delete".to_owned())
}

async fn delete(client: &Client, key: &Bytes) -> Result<(), Error> {
    let request = DeleteRangeRequest {
        key: key.clone(),
        ..DeleteRangeRequest::default()
    };
    client.delete_range(request).await.map(|_| ())
}

fn one_key(key: &Bytes) -> RangeRequest {
    RangeRequest {
        key: key.clone(),
        ..RangeRequest::default()
    }
}

fn first_created(prefix: &str) -> RangeRequest {
    RangeRequest {
        key: Bytes::from(prefix.to_owned()),
        range_end: prefix_end(prefix.as_bytes()),
        limit: 1,
        sort_order: SortOrder::Ascend.into(),
        sort_target: SortTarget::Create.into(),
        ..RangeRequest::default()
    }
}

fn created_at(key: &Bytes, revision: i64) -> Compare {
    Compare {
        result: CompareResult::Equal.into(),
        target: CompareTarget::Create.into(),
        key: key.clone(),
        target_union: Some(TargetUnion::CreateRevision(revision)),
        ..Compare::default()
    }
}

fn put_op(key: &Bytes, value: Bytes, lease: i64) -> RequestOp {
    let put = PutRequest {
        key: key.clone(),
        value,
        lease,
        ..PutRequest::default()
    };
    RequestOp {
        request: Some(request_op::Request::RequestPut(put)),
    }
}

fn range_op(range: RangeRequest) -> RequestOp {
    RequestOp {
        request: Some(request_op::Request::RequestRange(range)),
    }
}

/// The first pair of the range that is the transaction's operation number `index`.
fn first_kv(answer: &TxnResponse, index: usize) -> Option<&KeyValue> {
    match answer.responses.get(index)?.response.as_ref()? {
        response_op::Response::ResponseRange(range) => range.kvs.first(),
        _ => None,
    }
}
