//! What network threads read without asking apply.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use api::Error;
use api::pb::etcdserverpb::{AlarmMember, AlarmType, RangeRequest, TxnRequest};
use arc_swap::{ArcSwap, Guard};
use bytes::Bytes;
use storage::backend::{Applied, Bucket, Value, meta};

use crate::auth::{
    Access, Authorised, BY_MEMBER, Caller, LeaseKeys, Operation, SomeLeases, WatchKeys,
};
use crate::counts::Operations;
use crate::fatal::{Fatal, ReadError};
use crate::hash::{self, KvHash};
use crate::index::Seen;
use crate::kv::load;
use crate::members::Members;
use crate::range::{self, RangeAnswer, RangeParts};
use crate::record::Revision;
use crate::reply::Reply;
use crate::shared::{Pin, Shared};
use crate::txn;
use crate::watch::{Chunk, Tail};

/// Leases whose keys are looked at under one lock.
const LEASES_AT_ONCE: usize = 256;

/// A read view of the newest state; cheap to clone. A call reads one state throughout, also while
/// a received one takes its place.
#[derive(Clone)]
pub struct View {
    current: Arc<ArcSwap<Shared>>,
    /// The same for every state that it reads.
    auth_stamp: Arc<AtomicU64>,
}

/// A lease as it is replicated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseView {
    pub id: i64,
    /// Granted, in seconds.
    pub ttl: i64,
    /// Left at the last checkpoint, in seconds; 0 when there was none.
    pub remaining: i64,
}

impl View {
    pub(crate) fn new(shared: Arc<Shared>) -> View {
        View {
            auth_stamp: Arc::clone(&shared.auth_stamp),
            current: Arc::new(ArcSwap::new(shared)),
        }
    }

    pub(crate) fn shared(&self) -> Guard<Arc<Shared>> {
        self.current.load()
    }

    /// Everybody who begins to read from here on reads `shared`.
    pub(crate) fn go_over(&self, shared: Arc<Shared>) {
        self.current.store(shared);
    }

    /// Main revision of the last change; 1 in an empty store.
    #[must_use]
    pub fn revision(&self) -> i64 {
        self.shared().revision.load(Ordering::Acquire)
    }

    /// Revision of the last compaction; -1 before the first.
    #[must_use]
    pub fn compact_revision(&self) -> i64 {
        self.shared().state.read().compacted
    }

    /// What requests did since the start; of reads, only what transactions read.
    #[must_use]
    pub fn operations(&self) -> Operations {
        self.shared().counts.read()
    }

    /// A thread, by its number, begins or stops to watch: events are only kept for watchers. One
    /// that begins reads [`Self::tail`] afterwards.
    pub fn set_watching(&self, thread: u8, on: bool) {
        self.shared().log.set_watching(thread, on);
    }

    /// The threads that watch, a bit for each.
    #[must_use]
    pub fn watching(&self) -> u64 {
        self.shared().log.watching()
    }

    /// The newest events, from revision `from` on as far as they are in memory.
    #[must_use]
    pub fn tail(&self, from: i64) -> Tail {
        self.shared().log.tail(from)
    }

    /// Events from revision `from` on: whole revisions, until there are `records_max` records or
    /// `bytes_max` bytes of them, but at least one revision. May read the database.
    ///
    /// # Errors
    /// The database failed.
    pub fn events(&self, from: i64, records_max: usize, bytes_max: usize) -> Result<Chunk, Fatal> {
        self.shared().log.chunk(from, records_max, bytes_max)
    }

    /// The record that a watched key had before its change at `revision`; `None` when it did not
    /// exist, or compaction took it. What a watcher may see was decided when it was created.
    ///
    /// # Errors
    /// The database failed.
    pub fn before(
        &self,
        watched: &Authorised<WatchKeys>,
        key: &[u8],
        revision: i64,
    ) -> Result<Option<Value>, Fatal> {
        debug_assert!(watched.contains(key), "{watched:?} lacks {key:?}");
        let shared = self.current.load_full();
        let at = {
            let state = shared.state.read();
            if revision - 1 < state.compacted {
                return Ok(None);
            }
            let seen = state.index.get(key).and_then(|slot| slot.at(revision - 1));
            match seen {
                None => return Ok(None),
                Some(seen) => match seen.cached() {
                    Some(value) => return Ok(Some(value.clone())),
                    None => seen.revision(),
                },
            }
        };
        // Nothing pins it: a compaction in between makes it as gone as one before.
        Ok(shared.reader.get(Bucket::Key, &at.to_key())?)
    }

    /// How far the log was applied.
    #[must_use]
    pub fn applied(&self) -> Applied {
        self.shared().reader.applied()
    }

    /// Answers a Range; its checks were made by `api::validate`.
    ///
    /// # Errors
    /// Refused for its revision, or because authentication changed since it was authorised; or the
    /// database failed.
    pub fn range(&self, request: &Authorised<RangeRequest>) -> Result<RangeAnswer, ReadError> {
        range::answer(&self.shared(), request)
    }

    /// The same in parts, in key order; the request's order and filters are not looked at.
    ///
    /// # Errors
    /// As [`View::range`].
    pub fn range_parts(&self, request: &Authorised<RangeRequest>) -> Result<RangeParts, ReadError> {
        RangeParts::new(&self.shared(), request)
    }

    /// Answers a transaction that [`txn::is_read_only`].
    ///
    /// # Errors
    /// Refused for a revision, or the database failed.
    pub fn txn(&self, request: &Authorised<TxnRequest>) -> Result<Reply, ReadError> {
        let stamp = request.stamp();
        let shared = &self.current.load_full();
        let mut fetched: HashMap<Revision, Value> = HashMap::new();
        let pin = {
            let state = shared.state.read();
            state.auth.confirm(stamp)?;
            Pin::new(shared, state.revision)
        };
        let revision = pin.revision();
        let taken = loop {
            // Values that are not in memory are fetched without the lock, then all is evaluated
            // again.
            let mut missing = Vec::new();
            let mut path = Vec::new();
            {
                let state = shared.state.read();
                pin.check()?;
                let mut load = |seen: &Seen<'_>| -> Result<Value, Fatal> {
                    if let Some(value) = seen.cached().or_else(|| fetched.get(&seen.revision())) {
                        return Ok(value.clone());
                    }
                    if missing.len() < 256 {
                        missing.push(seen.revision());
                    }
                    Ok(Arc::from([]))
                };
                txn::choose(&state, revision, request, &mut load, &mut path)?;
                if missing.is_empty() {
                    txn::check(&state, revision, request, &mut path.iter().copied())?;
                    break path[0];
                }
            }
            for at in missing {
                let value = load(&shared.reader, at).map_err(|error| pin.explain(error))?;
                fetched.insert(at, value);
            }
        };
        let mut done = Operations::default();
        let mut answer = |range: &RangeRequest| -> Result<Vec<u8>, ReadError> {
            done.ranges += 1;
            let mut answer = range::answer_at(shared, range, stamp, Some(revision))?;
            let mut out = Vec::new();
            while answer.write_chunk(&mut out, 64 << 10)? {}
            Ok(out)
        };
        let rest = txn::run_ranges(request, taken, revision, &mut answer)?;
        shared.counts.add(&done);
        Ok(Reply::Txn { revision, rest })
    }

    /// HashKV at a revision, 0 for the current one; also gives the current revision. Reads every
    /// record: not for a network thread.
    ///
    /// # Errors
    /// Refused for its revision, or the database failed.
    pub fn hash_kv(&self, revision: i64) -> Result<(KvHash, i64), ReadError> {
        hash::hash_kv(&self.shared(), revision)
    }

    /// The hashes that the last compactions left, oldest first.
    #[must_use]
    pub fn compaction_hashes(&self) -> Vec<KvHash> {
        self.shared().hashes.lock().clone()
    }

    /// The hash over all buckets; reads every record.
    ///
    /// # Errors
    /// The database failed.
    pub fn hash(&self) -> Result<u32, Fatal> {
        hash::hash_all(&self.shared().reader)
    }

    /// Alarms of one kind, or all for kind 0.
    #[must_use]
    pub fn alarms(&self, kind: i32) -> Vec<AlarmMember> {
        self.shared().state.read().alarms.list(kind)
    }

    /// True when any member reported the alarm.
    #[must_use]
    pub fn is_alarmed(&self, kind: AlarmType) -> bool {
        self.shared().state.read().alarms.is_active(kind)
    }

    /// Whether a write of this cost in bytes fits under the quota and no NOSPACE alarm forbids it.
    ///
    /// # Errors
    /// `NoSpace`.
    pub fn check_space(&self, cost: u64) -> Result<(), Error> {
        let shared = self.shared();
        let full = |quota| shared.reader.size_in_use() + cost >= quota;
        if cost > 0 && shared.quota().is_some_and(full) {
            return Err(Error::NoSpace);
        }
        Ok(())
    }

    /// Bytes in use at which writes are refused; `None` for no limit.
    #[must_use]
    pub fn quota(&self) -> Option<u64> {
        self.shared().quota()
    }

    /// Changes the quota from the next request on.
    pub fn set_quota(&self, bytes: Option<u64>) {
        let quota = &self.shared().quota;
        quota.store(bytes.unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// The membership and what the cluster agreed on.
    #[must_use]
    pub fn members(&self) -> Members {
        self.shared().state.read().members.clone()
    }

    /// What is replicated of a lease; `None` when it does not exist.
    #[must_use]
    pub fn lease(&self, id: i64) -> Option<LeaseView> {
        let shared = self.shared();
        let state = shared.state.read();
        let lease = state.leases.by_id.get(&id)?;
        Some(LeaseView {
            id,
            ttl: lease.ttl,
            remaining: lease.remaining,
        })
    }

    /// The keys that are attached to a lease, in order; none when it does not exist.
    ///
    /// # Errors
    /// Authentication changed since it was authorised.
    pub fn lease_keys(&self, of: &Authorised<LeaseKeys>) -> Result<Vec<Bytes>, Error> {
        let shared = self.shared();
        let state = shared.state.read();
        if of.stamp() != BY_MEMBER {
            state.auth.confirm(of.stamp())?;
        }
        let lease = state.leases.by_id.get(&of.0);
        let keys = lease.into_iter().flat_map(|lease| &lease.keys);
        Ok(keys.map(|key| Bytes::copy_from_slice(key)).collect())
    }

    /// The granted time of a lease in seconds; `None` when it does not exist.
    #[must_use]
    pub fn lease_ttl(&self, id: i64) -> Option<i64> {
        let shared = self.shared();
        let state = shared.state.read();
        state.leases.by_id.get(&id).map(|lease| lease.ttl)
    }

    /// All leases by id, without keys.
    #[must_use]
    pub fn leases(&self) -> Vec<LeaseView> {
        let shared = self.shared();
        let state = shared.state.read();
        let lease = |(&id, lease): (&i64, &crate::lease::Lease)| LeaseView {
            id,
            ttl: lease.ttl,
            remaining: lease.remaining,
        };
        state.leases.by_id.iter().map(lease).collect()
    }

    /// Keys that exist now.
    #[must_use]
    pub fn keys(&self) -> u64 {
        self.shared().state.read().index.live()
    }

    /// Whether authentication is on, and the auth revision.
    #[must_use]
    pub fn auth_status(&self) -> (bool, u64) {
        let shared = self.shared();
        let state = shared.state.read();
        (state.auth.enabled, state.auth.revision)
    }

    /// 0 while authentication is off: one relaxed load. While it is on, the auth revision.
    #[must_use]
    pub fn auth_stamp(&self) -> u64 {
        self.auth_stamp.load(Ordering::Relaxed)
    }

    /// Whether the caller may do this now. While authentication is off everybody may do
    /// everything.
    ///
    /// # Errors
    /// `UserEmpty`, `UserNotFound`, `AuthOldRevision`, `PermissionDenied`.
    pub fn authorise<T: Operation>(
        &self,
        caller: Caller<'_>,
        operation: T,
    ) -> Result<Authorised<T>, Error> {
        if self.auth_stamp() == 0 {
            return Ok(Authorised::unasked(operation));
        }
        let shared = self.shared();
        let state = shared.state.read();
        let access = Access {
            auth: &state.auth,
            leases: &state.leases,
            caller,
        };
        Authorised::new(access, operation)
    }

    /// Whether the caller may learn of all leases: whoever may read every key that is attached to
    /// one.
    ///
    /// # Errors
    /// As [`View::authorise`].
    pub fn authorise_all_leases(&self, caller: Caller<'_>) -> Result<(), Error> {
        let mut from = Some(i64::MIN);
        let mut stamp = None;
        while let Some(begin) = from {
            let asked = self.authorise(caller, SomeLeases(begin, LEASES_AT_ONCE))?;
            if stamp
                .replace(asked.stamp())
                .is_some_and(|before| before != asked.stamp())
            {
                return Err(Error::AuthOldRevision);
            }
            if asked.stamp() == 0 {
                return Ok(());
            }
            let shared = self.shared();
            let state = shared.state.read();
            let next = state.leases.by_id.range(begin..).nth(LEASES_AT_ONCE);
            from = next.map(|(id, _)| *id);
        }
        Ok(())
    }

    /// What a user's password is compared with, and the auth revision.
    ///
    /// # Errors
    /// `AuthNotEnabled`, `AuthFailed` for an unknown user, `NoPasswordUser`.
    pub fn login(&self, name: &str) -> Result<(Bytes, u64), Error> {
        self.shared().state.read().auth.login(name)
    }

    /// Reads a key for a health check, which gives nothing of it away.
    ///
    /// # Errors
    /// The database failed.
    pub fn probe(&self) -> Result<(), ReadError> {
        let shared = self.shared();
        let stamp = shared.state.read().auth.stamp();
        let request = RangeRequest {
            key: Bytes::from_static(b"health"),
            limit: 1,
            keys_only: true,
            ..Default::default()
        };
        match range::answer_at(&shared, &request, stamp, None) {
            Err(ReadError::Broken(error)) => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// Keys that the index holds, deleted ones with history included, and the bytes of records
    /// that are kept in memory.
    #[must_use]
    pub fn index_size(&self) -> (usize, usize) {
        let shared = self.shared();
        let state = shared.state.read();
        (state.index.len(), state.index.cached())
    }

    /// Bytes of the database file, and bytes of it in use, as of the last commit: `dbSize` and
    /// `dbSizeInUse`.
    #[must_use]
    pub fn db_sizes(&self) -> (u64, u64) {
        self.shared().reader.file_sizes()
    }

    /// What the quota is charged on, in bytes: what is in use, and what is not yet committed.
    #[must_use]
    pub fn space_used(&self) -> u64 {
        self.shared().reader.size_in_use()
    }

    /// Read transactions that are open on the database.
    #[must_use]
    pub fn open_readers(&self) -> usize {
        self.shared().reader.open_readers()
    }

    /// The version of the database's schema; `None` up to 3.5.
    ///
    /// # Errors
    /// The database failed.
    pub fn storage_version(&self) -> Result<Option<String>, Fatal> {
        let value = self
            .shared()
            .reader
            .get(Bucket::Meta, meta::STORAGE_VERSION)?;
        Ok(value.map(|value| String::from_utf8_lossy(&value).into_owned()))
    }
}
