//! Leasing: keys that this proxy reads become its own for a while, and it answers for them.
//!
//! For a key `k` that it reads it makes a *leasing key*, the prefix and `k`, under a lease of its
//! session. Whoever writes `k` through a proxy or client with the same prefix does so only while
//! nobody else has the leasing key: otherwise it writes `REVOKE` there, and waits until the owner
//! has forgotten its value and deleted the leasing key. An owner that dies loses its lease. This
//! is the protocol of etcd's own leasing client, so that both may share a prefix.
//!
//! Here one watch on the whole prefix brings what others want; it begins with the session, and
//! when either is lost, both begin anew and nothing is owned meanwhile. A session is nobody's in
//! particular, so that with authentication on there is none: then everything goes to the cluster,
//! and so does what callers with a token ask for.

mod cache;
mod txn;

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use api::pb::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use api::pb::etcdserverpb::request_op::Request;
use api::pb::etcdserverpb::response_op::Response;
use api::pb::etcdserverpb::{
    CompactionRequest, CompactionResponse, Compare, DeleteRangeRequest, DeleteRangeResponse,
    LeaseGrantRequest, LeaseRevokeRequest, PutRequest, PutResponse, RangeRequest, RangeResponse,
    RequestOp, ResponseHeader, TxnRequest, TxnResponse, WatchCreateRequest,
};
use api::pb::mvccpb::event::EventType;
use api::pb::mvccpb::{Event, KeyValue};
use bytes::{Bytes, BytesMut};
use client::{Client, prefix_end};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tonic::codegen::tokio_stream::StreamExt;
use tonic::{Code, Status, async_trait};

use self::cache::{Cache, Look, Owned, Stamp, Target};
use self::txn::op;
use crate::below::{Below, Caller, Kv, Watches, Watching};

/// Time to live of the session's lease; etcd's leasing client has the same.
const TTL_SECONDS: i64 = 60;

/// Pause between renewals of the session's lease. When authentication is switched on, the next one
/// fails: for so long callers without a name may still be answered.
const RENEW_PAUSE: Duration = Duration::from_secs(5);

/// Pause before a session is begun again, and before a leasing key is tried again to be deleted.
const RETRY_WAIT: Duration = Duration::from_secs(1);

/// How long a writer waits for news of a leasing key before it looks itself.
const LOOK_WAIT: Duration = Duration::from_secs(1);

/// A key space that answers for keys that it owns.
pub(crate) struct Leasing {
    shared: Arc<Shared>,
    session: JoinHandle<()>,
}

impl Drop for Leasing {
    fn drop(&mut self) {
        self.session.abort();
    }
}

struct Shared {
    below: Arc<dyn Kv>,
    watches: Arc<dyn Watches>,
    client: Client,
    prefix: Bytes,
    /// Short locks; nobody waits for anything while it is held.
    cache: Mutex<Cache>,
}

impl Leasing {
    /// Begins to own what is read from `below`; not before its session is there.
    pub(crate) fn start(below: &Below, prefix: Bytes) -> Self {
        let shared = Arc::new(Shared {
            below: Arc::clone(&below.kv),
            watches: Arc::clone(&below.watches),
            client: below.client.clone(),
            prefix,
            cache: Mutex::default(),
        });
        let session = tokio::spawn(Arc::clone(&shared).hold_sessions());
        Leasing { shared, session }
    }

    /// Gives everything up, so that nobody must wait for the lease's end.
    pub(crate) async fn close(&self) {
        self.session.abort();
        let lease = self.shared.cache().lease(Instant::now());
        self.shared.cache().drop_all();
        if let Some(id) = lease {
            // What is not revoked expires.
            let _done = self
                .shared
                .client
                .lease_revoke(LeaseRevokeRequest { id })
                .await;
        }
    }
}

impl Shared {
    fn cache(&self) -> MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The leasing key of a key, or the begin or end of a range of them.
    fn leasing_key(&self, key: &[u8]) -> Bytes {
        let mut whole = BytesMut::with_capacity(self.prefix.len() + key.len());
        whole.extend_from_slice(&self.prefix);
        whole.extend_from_slice(key);
        whole.freeze()
    }

    fn leasing_end(&self, end: &[u8]) -> Bytes {
        match end {
            b"\0" => prefix_end(&self.prefix),
            end => self.leasing_key(end),
        }
    }

    /// A caller with a name has one because others need one.
    fn meet(&self, caller: &Caller) {
        if caller.token.is_some() {
            self.cache().suspend();
        }
    }

    /// Looks whether an answer of the cluster says that callers need a name.
    fn noted<T>(&self, answer: Result<T, Status>) -> Result<T, Status> {
        if let Err(status) = &answer
            && status.message() == api::Error::UserEmpty.message()
        {
            self.cache().suspend();
        }
        answer
    }

    /// Leasing keys themselves are not leased.
    fn is_leasing_key(&self, key: &[u8]) -> bool {
        key.starts_with(&self.prefix)
    }

    /// Begins session after session, for good.
    async fn hold_sessions(self: Arc<Self>) {
        loop {
            let lease = self.hold_session().await;
            self.cache().drop_all();
            if let Some(id) = lease {
                // Whoever waits for one of its keys waits less.
                let limit = Instant::now() + RETRY_WAIT;
                let client = self.client.clone().with_deadline(limit);
                let _done = client.lease_revoke(LeaseRevokeRequest { id }).await;
            }
            tokio::time::sleep(RETRY_WAIT).await;
        }
    }

    /// Holds one session until it is lost. Returns its lease, if it had one.
    async fn hold_session(self: &Arc<Self>) -> Option<i64> {
        let request = WatchCreateRequest {
            key: self.prefix.clone(),
            range_end: prefix_end(&self.prefix),
            // Keeps what it needs after a reconnection within the history.
            progress_notify: true,
            ..WatchCreateRequest::default()
        };
        let mut watching = self.watches.watch(&Caller::default(), request);
        while !watching.answers.next().await?.created {}
        let mut until = lifetime(TTL_SECONDS);
        let granted = self.client.lease_grant(LeaseGrantRequest {
            ttl: TTL_SECONDS,
            id: 0,
        });
        let lease = tokio::time::timeout_at(until, granted).await.ok()?.ok()?.id;
        self.cache().hold(lease, until);
        loop {
            tokio::select! {
                () = self.listen(&mut watching, lease) => return Some(lease),
                () = tokio::time::sleep(RENEW_PAUSE) => {}
            }
            until = tokio::select! {
                () = self.listen(&mut watching, lease) => return Some(lease),
                renewed = self.renew(lease, until) => match renewed {
                    Some(until) => until,
                    None => return Some(lease),
                },
            };
            self.cache().hold(lease, until);
        }
    }

    /// Renews the session's lease before its end. Returns the new one, which counts from when
    /// the renewal was asked for.
    async fn renew(&self, lease: i64, until: Instant) -> Option<Instant> {
        let begin = Instant::now();
        let client = self.client.clone().with_deadline(until);
        let answer = client.keep_alive_once(lease).await.ok()?;
        begin.checked_add(Duration::from_secs(answer.ttl.unsigned_abs()))
    }

    /// Does what others want, until the watch is lost.
    async fn listen(self: &Arc<Self>, watching: &mut Watching, lease: i64) {
        while let Some(answer) = watching.answers.next().await {
            if answer.cancelled.is_some() {
                return;
            }
            for event in &answer.events {
                self.on_event(event, lease);
            }
        }
    }

    fn on_event(self: &Arc<Self>, event: &Event, lease: i64) {
        let Some(kv) = &event.kv else { return };
        let Some(key) = kv.key.strip_prefix(&self.prefix[..]) else {
            return;
        };
        let key = kv.key.slice_ref(key);
        let now = Instant::now();
        match event.r#type() {
            EventType::Delete => {
                let mut cache = self.cache();
                cache.lose(&key, kv.mod_revision, now);
                cache.wake(&key);
            }
            EventType::Put if kv.value == txn::REVOKE && kv.lease == lease => {
                self.cache().lose(&key, kv.mod_revision, now);
                self.give_up(key, kv.mod_revision);
            }
            EventType::Put => {}
        }
    }

    /// Deletes the leasing key of a key that is not answered for any more, if it is older than
    /// `revision`.
    fn give_up(self: &Arc<Self>, key: Bytes, revision: i64) {
        let shared = Arc::clone(self);
        let lease = self.cache().lease(Instant::now());
        tokio::spawn(async move {
            let own = shared.leasing_key(&key);
            let compare = txn::created(own.clone(), Bytes::new(), CompareResult::Less, revision);
            let request = TxnRequest {
                compare: vec![compare],
                success: vec![txn::delete(own)],
                failure: Vec::new(),
            };
            // With the session it goes by itself.
            while lease.is_some() && shared.cache().lease(Instant::now()) == lease {
                match shared.below.txn(&Caller::default(), request.clone()).await {
                    Ok(answer) => return shared.cache().see(answer.header.as_ref()),
                    Err(_) => tokio::time::sleep(RETRY_WAIT).await,
                }
            }
        });
    }

    /// Reads a key and takes it.
    async fn acquire(
        self: &Arc<Self>,
        caller: &Caller,
        request: &RangeRequest,
        lease: i64,
    ) -> Result<RangeResponse, Status> {
        let mut acquisition = Acquisition {
            shared: self,
            key: &request.key,
            lease,
            owned: None,
        };
        let own = self.leasing_key(&request.key);
        let read = || {
            op(Request::RequestRange(txn::read(
                request.key.clone(),
                Bytes::new(),
            )))
        };
        let put = PutRequest {
            key: own.clone(),
            lease,
            ..PutRequest::default()
        };
        let asked = TxnRequest {
            compare: vec![
                txn::created(own.clone(), Bytes::new(), CompareResult::Equal, 0),
                has_no_lease(&request.key),
            ],
            success: vec![read(), op(Request::RequestPut(put))],
            failure: vec![
                read(),
                op(Request::RequestRange(txn::read(own, Bytes::new()))),
            ],
        };
        let Ok(answer) = self.below.txn(caller, asked).await else {
            // It may own the key now, or not: the lease or the next write decides.
            return self.below.range(caller, request.clone()).await;
        };
        let header = answer.header.unwrap_or_default();
        let mut cache = self.cache();
        cache.see(answer.header.as_ref());
        let mut kvs = answer.responses.iter().map(first_kv);
        let (kv, leasing) = (kvs.next().flatten(), kvs.next().flatten());
        if answer.succeeded {
            acquisition.owned = Some((header.revision, kv.cloned()));
        } else if let Some(leasing) = leasing.filter(|it| it.lease == lease)
            && leasing.value.is_empty()
            && cache.known(&request.key).is_none()
        {
            // Left from an acquisition whose answer was lost, or from a write of which nobody
            // knows whether it is still to come: that one must not find it.
            self.give_up_later(&request.key, header.revision + 1);
        }
        drop(cache);
        let answer = cache::answer(kv, header, request);
        drop(acquisition);
        Ok(answer)
    }

    fn give_up_later(self: &Arc<Self>, key: &Bytes, revision: i64) {
        let (shared, key) = (Arc::clone(self), key.clone());
        tokio::spawn(async move { shared.give_up(key, revision) });
    }

    /// Reads the value of an owned key that nobody knows.
    async fn refresh(
        &self,
        caller: &Caller,
        request: &RangeRequest,
        stamp: Stamp,
    ) -> Result<RangeResponse, Status> {
        let read = txn::read(request.key.clone(), Bytes::new());
        let answer = self.below.range(caller, read).await?;
        let header = answer.header.unwrap_or_default();
        let kv = answer.kvs.into_iter().next();
        let mut cache = self.cache();
        cache.see(Some(&header));
        cache.refresh(&request.key, stamp, kv.clone());
        Ok(cache::answer(kv.as_ref(), header, request))
    }

    /// Runs one writing operation as a transaction; gives the header and the operation's answer.
    async fn write_one(
        self: &Arc<Self>,
        caller: &Caller,
        operation: RequestOp,
    ) -> Result<(Option<ResponseHeader>, Option<Response>), Status> {
        let user = TxnRequest {
            success: vec![operation],
            ..TxnRequest::default()
        };
        let answer = self.write(caller, user).await?;
        let first = answer.responses.into_iter().next();
        Ok((answer.header, first.and_then(|it| it.response)))
    }

    /// Runs a transaction that writes, when nobody else owns what it writes.
    async fn write(
        self: &Arc<Self>,
        caller: &Caller,
        user: TxnRequest,
    ) -> Result<TxnResponse, Status> {
        self.meet(caller);
        let mut targets = txn::targets(&user);
        targets.retain(|target| !matches!(target, Target::Key(key) if self.is_leasing_key(key)));
        // Without a comparison of its own its operations may stand beside the guards.
        let is_bare = user.compare.is_empty();
        let success = match is_bare {
            true => user.success.clone(),
            false => vec![op(Request::RequestTxn(user.clone()))],
        };
        loop {
            let mut compare = self.free_ranges(caller, &targets).await?;
            let writing = Writing::begin(self, &targets, &mut compare);
            let sole = match &targets[..] {
                [Target::Key(key)] => Some(Waiting::new(self, key)),
                _ => None,
            };
            let request = TxnRequest {
                compare,
                success: success.clone(),
                failure: self.fallback(&targets),
            };
            let answer = match self.noted(self.below.txn(caller, request).await) {
                Ok(answer) => answer,
                Err(status) => {
                    if was_refused(&status) {
                        writing.release();
                    }
                    return Err(status);
                }
            };
            self.cache().see(answer.header.as_ref());
            if answer.succeeded {
                let answer = match is_bare {
                    true => answer,
                    false => unwrapped(answer),
                };
                writing.commit(&user, &answer);
                return Ok(answer);
            }
            writing.release();
            match sole {
                Some(waiting) => waiting.until_gone(caller).await?,
                None => self.free(caller, leasing_kvs(answer)).await?,
            }
        }
    }

    /// What a write does instead, when it must not: it asks the owner of its only key to give it
    /// up, or reads who owns its keys.
    fn fallback(&self, targets: &[Target]) -> Vec<api::pb::etcdserverpb::RequestOp> {
        if let [Target::Key(key)] = targets {
            return vec![txn::revoke(self.leasing_key(key))];
        }
        let read = |target: &Target| match target {
            Target::Key(key) => txn::read(self.leasing_key(key), Bytes::new()),
            Target::Range(begin, end) => RangeRequest {
                keys_only: true,
                ..txn::read(self.leasing_key(begin), self.leasing_end(end))
            },
        };
        let reads = targets.iter().map(read);
        reads.map(|read| op(Request::RequestRange(read))).collect()
    }

    /// Has the others give up what they own within the ranges that a write changes. Returns what
    /// must still hold for them when it does.
    async fn free_ranges(
        self: &Arc<Self>,
        caller: &Caller,
        targets: &[Target],
    ) -> Result<Vec<Compare>, Status> {
        let mut guards = Vec::new();
        for target in targets {
            let Target::Range(begin, end) = target else {
                continue;
            };
            let (begin, end) = (self.leasing_key(begin), self.leasing_end(end));
            let read = RangeRequest {
                keys_only: true,
                ..txn::read(begin.clone(), end.clone())
            };
            let kvs = self.below.range(caller, read).await?.kvs;
            let newest = kvs.iter().map(|kv| kv.create_revision).max().unwrap_or(0);
            self.free(caller, kvs).await?;
            guards.push(txn::created(begin, end, CompareResult::Less, newest + 1));
        }
        Ok(guards)
    }

    /// Has the others give up leasing keys, one after the other.
    async fn free(self: &Arc<Self>, caller: &Caller, kvs: Vec<KeyValue>) -> Result<(), Status> {
        for kv in kvs {
            let Some(key) = kv.key.strip_prefix(&self.prefix[..]) else {
                continue;
            };
            let key = kv.key.slice_ref(key);
            if self.cache().is_owned(&key) {
                continue;
            }
            let waiting = Waiting::new(self, &key);
            let free = txn::created(kv.key.clone(), Bytes::new(), CompareResult::Equal, 0);
            let request = TxnRequest {
                compare: vec![free],
                success: Vec::new(),
                failure: vec![txn::revoke(kv.key)],
            };
            if !self.below.txn(caller, request).await?.succeeded {
                waiting.until_gone(caller).await?;
            }
        }
        Ok(())
    }
}

/// When a lease that is asked for now ends at the earliest.
fn lifetime(seconds: i64) -> Instant {
    Instant::now() + Duration::from_secs(seconds.unsigned_abs())
}

/// A key that goes by itself cannot be owned.
fn has_no_lease(key: &Bytes) -> Compare {
    Compare {
        result: CompareResult::Equal.into(),
        target: CompareTarget::Lease.into(),
        key: key.clone(),
        range_end: Bytes::new(),
        target_union: Some(TargetUnion::Lease(0)),
    }
}

fn first_kv(answer: &api::pb::etcdserverpb::ResponseOp) -> Option<&KeyValue> {
    match answer.response.as_ref()? {
        Response::ResponseRange(range) => range.kvs.first(),
        _ => None,
    }
}

fn leasing_kvs(answer: TxnResponse) -> Vec<KeyValue> {
    let kvs = |answer: api::pb::etcdserverpb::ResponseOp| match answer.response {
        Some(Response::ResponseRange(range)) => range.kvs,
        _ => Vec::new(),
    };
    answer.responses.into_iter().flat_map(kvs).collect()
}

/// The answer to a client's transaction, which was the only operation of another one.
fn unwrapped(answer: TxnResponse) -> TxnResponse {
    let inner = answer.responses.into_iter().next();
    let inner = match inner.and_then(|inner| inner.response) {
        Some(Response::ResponseTxn(inner)) => inner,
        _ => TxnResponse::default(),
    };
    TxnResponse {
        header: answer.header,
        ..inner
    }
}

/// Whether a write with this status was certainly not carried out, and will not be. Only a server
/// says so: an answer that is too large to be received has such a code as well.
fn was_refused(status: &Status) -> bool {
    let is_final = matches!(
        status.code(),
        Code::InvalidArgument
            | Code::NotFound
            | Code::AlreadyExists
            | Code::PermissionDenied
            | Code::ResourceExhausted
            | Code::FailedPrecondition
            | Code::OutOfRange
            | Code::Unimplemented
            | Code::Unauthenticated
    );
    let error = client::Error::from(status.clone());
    is_final && api::Error::ALL.iter().any(|known| error.is(*known))
}

/// An acquisition under way: whatever becomes of it, the cache is told.
struct Acquisition<'a> {
    shared: &'a Arc<Shared>,
    key: &'a Bytes,
    lease: i64,
    owned: Option<(i64, Option<KeyValue>)>,
}

impl Drop for Acquisition<'_> {
    fn drop(&mut self) {
        let mut cache = self.shared.cache();
        cache.acquired(self.key, self.lease, self.owned.take());
    }
}

/// A write under way. When nobody learns what became of it, the keys that are owned of those that
/// it changes are given up, and with them the revisions that it asks for: should it come later
/// than the next acquisition, it does nothing.
struct Writing<'a> {
    shared: &'a Arc<Shared>,
    owned: Vec<Owned>,
}

impl<'a> Writing<'a> {
    /// Marks what is owned, and adds what must hold for the single keys.
    fn begin(shared: &'a Arc<Shared>, targets: &[Target], guards: &mut Vec<Compare>) -> Self {
        let mut cache = shared.cache();
        let owned = cache.begin(targets);
        for target in targets {
            let Target::Key(key) = target else { continue };
            let at = cache.owned_at(key).unwrap_or(0);
            let key = shared.leasing_key(key);
            guards.push(txn::created(key, Bytes::new(), CompareResult::Less, at + 1));
        }
        drop(cache);
        Writing { shared, owned }
    }

    /// It was not carried out.
    fn release(mut self) {
        let owned = std::mem::take(&mut self.owned);
        self.shared.cache().end(&owned);
    }

    /// It was carried out.
    fn commit(mut self, user: &TxnRequest, answer: &TxnResponse) {
        let revision = answer.header.unwrap_or_default().revision;
        let owned = std::mem::take(&mut self.owned);
        let mut leased = HashSet::new();
        let mut all = false;
        let mut cache = self.shared.cache();
        let ops = txn::branch(user, answer.succeeded);
        txn::each_done(ops, &answer.responses, &mut |request| match request {
            Request::RequestPut(put) => {
                if cache.put(put, revision) {
                    leased.insert(put.key.clone());
                }
            }
            Request::RequestDeleteRange(request) => {
                let target = txn::deleted(request);
                all |= self.shared.holds_leasing_keys(&target);
                cache.delete(&target, revision);
            }
            Request::RequestRange(_) | Request::RequestTxn(_) => {}
        });
        cache.end(&owned);
        drop(cache);
        // Leasing keys may be among what was deleted: then it is not known what is owned.
        let lost = owned.iter().filter(|it| all || leased.contains(&it.key));
        self.shared.abandon(lost);
        if all {
            self.shared.cache().lose_all(revision, Instant::now());
        }
    }
}

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        let owned = std::mem::take(&mut self.owned);
        self.shared.abandon(owned.iter());
        self.shared.cache().end(&owned);
    }
}

impl Shared {
    fn abandon<'a>(self: &Arc<Self>, keys: impl Iterator<Item = &'a Owned>) {
        for owned in keys {
            self.cache().evict(owned, Instant::now());
            self.give_up(owned.key.clone(), owned.at + 1);
        }
    }

    fn holds_leasing_keys(&self, target: &Target) -> bool {
        match target {
            Target::Key(key) => self.is_leasing_key(key),
            Target::Range(begin, end) => {
                let all_end = prefix_end(&self.prefix);
                let is_after = &all_end[..] != b"\0" && *begin >= all_end;
                let is_before = &end[..] != b"\0" && *end <= self.prefix;
                !is_after && !is_before
            }
        }
    }
}

/// Somebody who waits until a leasing key is gone.
struct Waiting<'a> {
    shared: &'a Arc<Shared>,
    key: Bytes,
    told: tokio::sync::oneshot::Receiver<()>,
}

impl<'a> Waiting<'a> {
    /// From now on; what happens before the wait begins counts.
    fn new(shared: &'a Arc<Shared>, key: &Bytes) -> Self {
        Waiting {
            shared,
            key: key.clone(),
            told: shared.cache().wait(key),
        }
    }

    /// Waits as long as the caller does; an owner that has died keeps the key until its lease
    /// ends.
    ///
    /// # Errors
    /// The cluster could not be asked.
    async fn until_gone(mut self, caller: &Caller) -> Result<(), Status> {
        loop {
            if tokio::time::timeout(LOOK_WAIT, &mut self.told)
                .await
                .is_ok()
            {
                return Ok(());
            }
            let read = txn::read(self.shared.leasing_key(&self.key), Bytes::new());
            let answer = self.shared.below.range(caller, read).await?;
            if answer.kvs.is_empty() {
                return Ok(());
            }
        }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.told.close();
        self.shared.cache().forget(&self.key);
    }
}

#[async_trait]
impl Kv for Leasing {
    async fn range(&self, caller: &Caller, request: RangeRequest) -> Result<RangeResponse, Status> {
        let shared = &self.shared;
        shared.meet(caller);
        let is_plain = txn::is_plain(&request) && !shared.is_leasing_key(&request.key);
        let look = match is_plain {
            true => shared.cache().look(&request, Instant::now()),
            false => Look::Below,
        };
        match look {
            Look::Local(answer) => Ok(answer),
            Look::Acquire(lease) => shared.acquire(caller, &request, lease).await,
            Look::Refresh(stamp) => shared.refresh(caller, &request, stamp).await,
            Look::Below => {
                let answer = shared.noted(shared.below.range(caller, request).await)?;
                shared.cache().see(answer.header.as_ref());
                Ok(answer)
            }
        }
    }

    async fn put(&self, caller: &Caller, request: PutRequest) -> Result<PutResponse, Status> {
        let operation = op(Request::RequestPut(request));
        let (header, response) = self.shared.write_one(caller, operation).await?;
        let done = match response {
            Some(Response::ResponsePut(done)) => done,
            _ => PutResponse::default(),
        };
        Ok(PutResponse { header, ..done })
    }

    async fn delete_range(
        &self,
        caller: &Caller,
        request: DeleteRangeRequest,
    ) -> Result<DeleteRangeResponse, Status> {
        let operation = op(Request::RequestDeleteRange(request));
        let (header, response) = self.shared.write_one(caller, operation).await?;
        let done = match response {
            Some(Response::ResponseDeleteRange(done)) => done,
            _ => DeleteRangeResponse::default(),
        };
        Ok(DeleteRangeResponse { header, ..done })
    }

    async fn txn(&self, caller: &Caller, request: TxnRequest) -> Result<TxnResponse, Status> {
        if !txn::targets(&request).is_empty() {
            return self.shared.write(caller, request).await;
        }
        self.shared.meet(caller);
        let local = {
            let cache = self.shared.cache();
            let serves = cache.serves(Instant::now());
            serves.then(|| txn::evaluate(&cache, &request)).flatten()
        };
        match local {
            Some(answer) => Ok(answer),
            None => {
                let answer = self.shared.below.txn(caller, request).await;
                let answer = self.shared.noted(answer)?;
                self.shared.cache().see(answer.header.as_ref());
                Ok(answer)
            }
        }
    }

    async fn compact(
        &self,
        caller: &Caller,
        request: CompactionRequest,
    ) -> Result<CompactionResponse, Status> {
        self.shared.below.compact(caller, request).await
    }

    fn forget(&self) {
        self.shared.cache().suspend();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_server_says_that_nothing_was_written() {
        let refused = crate::below::refused;
        for (status, want) in [
            (refused(api::Error::PermissionDenied), true),
            (refused(api::Error::FutureRev), true),
            (refused(api::Error::Timeout), false),
            (refused(api::Error::NoLeader), false),
            (Status::unavailable("connection error"), false),
            // The write was carried out, and its answer was too large.
            (
                Status::out_of_range("decoded message length too large"),
                false,
            ),
            (
                Status::resource_exhausted("larger than max (9 vs. 8)"),
                false,
            ),
        ] {
            assert_eq!(was_refused(&status), want, "{status:?}");
        }
    }
}
