//! Calls that wait for something, each in a slot whose number travels as the token.

use api::ids::MemberId;
use std::time::Instant;

use api::pb::etcdserverpb::{
    AuthenticateRequest, LeaseTimeToLiveRequest, Member, RangeRequest, TxnRequest,
};
use bytes::Bytes;
use slab::Slab;

use super::auth::{Login, NewPassword};
use super::concurrency::Contender;
use super::identity::Stranger;
use super::method::Rpc;
use super::snapshot::Place;
use crate::auth::Who;
use crate::front::CallId;
use crate::metrics::Method as Meter;
use crate::trace::Begun;

/// A call that was not answered yet.
#[derive(Clone)]
pub(super) struct Waiting {
    pub(super) call: CallId,
    pub(super) rpc: Rpc,
    pub(super) meter: Option<Meter>,
    /// When it was handed over.
    pub(super) begun: Instant,
    /// Bytes of its request; 0 for a stream of them.
    pub(super) request_bytes: u32,
    /// Its span, when it is traced; elsewhere, so that calls that are not traced stay small.
    pub(super) span: Option<Box<Begun>>,
    /// Who calls; nobody while authentication is off.
    pub(super) who: Who,
}

/// A read, to be served when it may be.
pub(super) enum Read {
    Range(RangeRequest),
    RangeStream(RangeRequest),
    Txn(TxnRequest),
    MemberList,
    /// Alarms of a kind, 0 for all.
    Alarms(i32),
    TimeToLive(LeaseTimeToLiveRequest),
    Downgrade(DowngradeWish),
    /// Whether a contender's own key is there.
    Confirm(Box<Contender>),
    /// Who leads under a prefix.
    Leader(Bytes),
    Observe(Bytes),
    /// Who the users are, for one who wants a token.
    Authenticate(AuthenticateRequest),
}

/// What is asked about a downgrade, with the target's `(major, minor)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DowngradeWish {
    Validate(u64, u64),
    Enable(u64, u64),
    Cancel,
}

/// What a slot remembers.
pub(super) enum Pending {
    /// Answered with the reply of its entry.
    Write(Waiting),
    /// A compaction whose sender waits for the deletions too; its revision.
    Compact(Waiting, i64),
    Read(Waiting, Read),
    /// A request of a keep-alive stream, which goes on with whatever comes.
    KeepAlive(Waiting),
    /// The same, which the leader was asked for.
    Renewal(Waiting),
    /// A change of the membership; with the member that it adds.
    Reconfigure(Waiting, Option<Box<Member>>),
    /// A promotion, which the leader is asked for if this member is not it.
    Promote(Waiting, MemberId),
    /// A downgrade that begins or ends; the cluster version before, which is the answer.
    Downgrade(Waiting, String),
    /// Answered by another thread, in encoded form.
    Answer(Waiting),
    /// A call of Lock or Election on its way.
    Contender(Box<Contender>),
    /// Asked of the leader: the time that a lease has left, and its keys.
    LeaseKeys(Waiting),
    /// Its caller is not known yet.
    Stranger(Waiting, Box<Stranger>),
    StrangerStream(Waiting),
    /// Waits for a password to be hashed.
    Hash(Waiting, Box<NewPassword>),
    /// Waits for a password to be compared.
    Login(Waiting, Box<Login>),
    /// Waits for the entry of a login.
    LoggedIn(Waiting, Box<Login>),
    /// Waits for a token; the revision of the answer's header.
    Sign(Waiting, i64),
    /// Waits for an image of the database.
    Snapshot(Waiting, Place),
}

impl Pending {
    pub(super) fn waiting(&self) -> &Waiting {
        match self {
            Pending::Write(waiting)
            | Pending::Compact(waiting, _)
            | Pending::Read(waiting, _)
            | Pending::KeepAlive(waiting)
            | Pending::Renewal(waiting)
            | Pending::Snapshot(waiting, _)
            | Pending::Reconfigure(waiting, _)
            | Pending::Promote(waiting, _)
            | Pending::Downgrade(waiting, _)
            | Pending::LeaseKeys(waiting)
            | Pending::Stranger(waiting, _)
            | Pending::StrangerStream(waiting)
            | Pending::Hash(waiting, _)
            | Pending::Login(waiting, _)
            | Pending::LoggedIn(waiting, _)
            | Pending::Sign(waiting, _)
            | Pending::Answer(waiting) => waiting,
            Pending::Contender(contender) => &contender.waiting,
        }
    }
}

/// All slots of a net thread. A slot is free again when its result came, which happens exactly
/// once, also for a call that is gone.
#[derive(Default)]
pub(super) struct Slots(Slab<Pending>);

impl Slots {
    pub(super) fn insert(&mut self, pending: Pending) -> usize {
        self.0.insert(pending)
    }

    pub(super) fn remove(&mut self, slot: usize) -> Option<Pending> {
        self.0.try_remove(slot)
    }
}
