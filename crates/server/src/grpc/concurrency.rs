//! `v3lockpb.Lock` and `v3electionpb.Election`: conversations with the key space that etcd's
//! server holds through a client of its own.
//!
//! ```text
//!   lock, campaign ─▶ [grant a lease] ─▶ put the own key ─┬─▶ oldest: answered
//!                                                         └─▶ wait for the one before to go ─▶ …
//! ```
//!
//! A call is a [`Contender`] that moves from one step to the next: its proposals and reads take
//! the way of every other call's, and while it waits for its turn it lies in [`Waits`]. Every
//! error is UNKNOWN with the text alone, as etcd's is.

mod requests;
mod waits;

use std::borrow::Cow;

use api::pb::etcdserverpb as pb;
use api::pb::mvccpb::KeyValue;
use api::pb::{v3electionpb, v3lockpb};
use api::{Code, Error, Status};
use bytes::Bytes;
use prost::Message;
use state::{Reply, quota};

pub(super) use self::waits::Waits;
use self::waits::{Observer, Wait, Wake};
use super::pending::{Pending, Read, Waiting};
use super::{Services, decode, refused};
use crate::drive::entry;
use crate::front::{CallId, Net};

/// Seconds of the lease of a caller that brings none.
const SESSION_TTL: i64 = 60;
/// An observer with more than this queued is told nothing until its client has read on. Above the
/// front end's low-water mark, whose crossing is reported.
const QUEUED_BYTES_MAX: u64 = 256 << 10;

const SESSION_EXPIRED: &str = "mutex: session is expired";
const NOT_LEADER: &str = "election: not leader";
const NO_LEADER: &str = "election: no leader";
const NO_LEADER_KEY: &str = "\"leader\" field must be provided";

/// How an observer that cannot read on ends: as in etcd, without a reason.
const SILENCE: Status = Status {
    code: Code::Ok,
    message: Cow::Borrowed(""),
};

/// What a call is for.
#[derive(Clone, Debug)]
pub(super) enum Goal {
    Lock,
    Unlock,
    Campaign { name: Bytes, value: Bytes },
    Proclaim { value: Bytes },
    Resign,
}

/// What its entry, or read, that is under way does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Grant,
    Enter,
    /// A campaigner that holds its key already gives it another value.
    Revalue,
    /// Sees whether the own key still is there.
    Confirm,
    /// The last step: its result is the answer.
    Last,
}

/// A call of one of the services on its way.
pub(super) struct Contender {
    pub(super) waiting: Waiting,
    goal: Goal,
    step: Step,
    /// What the keys of all contenders begin with.
    pub(super) prefix: Bytes,
    pub(super) key: Bytes,
    lease: i64,
    /// Revision at which the own key was created.
    created: i64,
    /// Of the answer's header.
    revision: i64,
}

fn unknown(text: impl Into<Cow<'static, str>>) -> Status {
    Status::new(Code::Unknown, text)
}

/// A status as these services give it.
fn plain(status: Status) -> Status {
    unknown(status.message)
}

impl Contender {
    fn new(waiting: Waiting, goal: Goal, prefix: Bytes, lease: i64) -> Contender {
        Contender {
            waiting,
            goal,
            step: Step::Grant,
            prefix,
            key: Bytes::new(),
            lease,
            created: 0,
            revision: 0,
        }
    }
}

impl Services {
    pub(super) fn lock(&mut self, waiting: Waiting, message: &Bytes) -> Result<(), Status> {
        let request: v3lockpb::LockRequest = decode(message.clone())?;
        let prefix = requests::prefix(&request.name);
        self.begin(Contender::new(waiting, Goal::Lock, prefix, request.lease))
    }

    pub(super) fn unlock(&mut self, waiting: Waiting, message: &Bytes) -> Result<(), Status> {
        let request: v3lockpb::UnlockRequest = decode(message.clone())?;
        if request.key.is_empty() {
            return Err(unknown(Error::EmptyKey.message()));
        }
        let mut contender = Contender::new(waiting, Goal::Unlock, Bytes::new(), 0);
        contender.step = Step::Last;
        let delete = requests::delete(&request.key).encode_to_vec();
        self.advance(contender, entry::DELETE_RANGE, &delete)
    }

    pub(super) fn campaign(&mut self, waiting: Waiting, message: &Bytes) -> Result<(), Status> {
        let request: v3electionpb::CampaignRequest = decode(message.clone())?;
        let prefix = requests::prefix(&request.name);
        let goal = Goal::Campaign {
            name: request.name,
            value: request.value,
        };
        self.begin(Contender::new(waiting, goal, prefix, request.lease))
    }

    pub(super) fn proclaim(&mut self, waiting: Waiting, message: &Bytes) -> Result<(), Status> {
        let request: v3electionpb::ProclaimRequest = decode(message.clone())?;
        let leader = request.leader.ok_or_else(|| unknown(NO_LEADER_KEY))?;
        let goal = Goal::Proclaim {
            value: request.value,
        };
        let mut contender = Contender::new(waiting, goal, leader.name, leader.lease);
        contender.key = leader.key;
        contender.created = leader.rev;
        self.begin(contender)
    }

    pub(super) fn resign(&mut self, waiting: Waiting, message: &Bytes) -> Result<(), Status> {
        let request: v3electionpb::ResignRequest = decode(message.clone())?;
        let leader = request.leader.ok_or_else(|| unknown(NO_LEADER_KEY))?;
        let mut contender = Contender::new(waiting, Goal::Resign, leader.name, leader.lease);
        contender.step = Step::Last;
        let txn = requests::resign(&leader.key, leader.rev);
        self.advance_txn(contender, &txn)
    }

    pub(super) fn leader(
        &mut self,
        net: &mut Net,
        waiting: Waiting,
        message: &Bytes,
    ) -> Result<(), Status> {
        let request: v3electionpb::LeaderRequest = decode(message.clone())?;
        let prefix = requests::prefix(&request.name);
        self.read(net, waiting, Read::Leader(prefix), false);
        Ok(())
    }

    pub(super) fn observe(
        &mut self,
        net: &mut Net,
        waiting: Waiting,
        message: &Bytes,
    ) -> Result<(), Status> {
        let request: v3electionpb::LeaderRequest = decode(message.clone())?;
        let prefix = requests::prefix(&request.name);
        self.read(net, waiting, Read::Observe(prefix), false);
        Ok(())
    }

    /// Grants a lease to a caller without one, else goes on at once.
    fn begin(&mut self, mut contender: Contender) -> Result<(), Status> {
        if contender.lease != 0 {
            return self.enter(contender);
        }
        self.check_space(quota::LEASE_COST).map_err(plain)?;
        self.user(&contender.waiting).map_err(plain)?;
        let mut request = pb::LeaseGrantRequest {
            ttl: SESSION_TTL,
            id: 0,
        };
        while request.id == 0 || self.shared.view.lease(request.id).is_some() {
            request.id = (self.shared.request_ids.next().0 & (u64::MAX >> 1)) as i64;
        }
        contender.lease = request.id;
        self.advance(contender, entry::LEASE_GRANT, &request.encode_to_vec())
    }

    /// The step after the lease: the own key, or its new value.
    fn enter(&mut self, mut contender: Contender) -> Result<(), Status> {
        let lease = contender.lease;
        let (step, txn) = match &contender.goal {
            Goal::Proclaim { value } => {
                let key = &contender.key;
                let txn = requests::proclaim(key, contender.created, value, lease);
                (Step::Last, txn)
            }
            goal => {
                contender.key = requests::key(&contender.prefix, lease);
                let keys = (&contender.prefix, &contender.key);
                let txn = match goal {
                    Goal::Campaign { value, .. } => requests::enter(keys, value, lease, false),
                    _ => requests::enter(keys, &Bytes::new(), lease, true),
                };
                (Step::Enter, txn)
            }
        };
        contender.step = step;
        self.advance_txn(contender, &txn)
    }

    fn advance_txn(&mut self, contender: Contender, txn: &pb::TxnRequest) -> Result<(), Status> {
        // A contender's key may be the client's own choice.
        api::validate::txn(txn, self.shared.limits.txn_ops_max)
            .map_err(|error| plain(error.into()))?;
        self.check_space(quota::txn_cost(txn)).map_err(plain)?;
        self.advance(contender, entry::TXN, &txn.encode_to_vec())
    }

    fn advance(&mut self, contender: Contender, field: u32, request: &[u8]) -> Result<(), Status> {
        let waiting = contender.waiting.clone();
        let pending = |_| Pending::Contender(Box::new(contender));
        self.propose(waiting, field, request, pending)
            .map_err(plain)
    }

    /// A contender's entry was applied, or failed.
    pub(super) fn contender_applied(
        &mut self,
        net: &mut Net,
        contender: Contender,
        outcome: Result<Reply, Error>,
    ) {
        let waiting = contender.waiting.clone();
        let is_live = net.is_live(waiting.call);
        let next = match outcome {
            Err(error) => {
                self.leave(&contender);
                Err(plain(error.into()))
            }
            Ok(reply) => match contender.step {
                Step::Grant if is_live => self.enter(contender),
                Step::Grant => Ok(()),
                Step::Enter => self.entered(net, contender, &reply, is_live),
                Step::Revalue => self.revalued(net, contender, &reply, is_live),
                Step::Confirm | Step::Last => self.finish(net, &contender, &reply),
            },
        };
        if let Err(status) = next {
            self.refuse(net, &waiting, status);
        }
    }

    fn entered(
        &mut self,
        net: &mut Net,
        mut contender: Contender,
        reply: &Reply,
        is_live: bool,
    ) -> Result<(), Status> {
        let response = self.txn_response(reply)?;
        contender.revision = reply.revision();
        contender.created = reply.revision();
        let mut held = None;
        if !response.succeeded {
            held = requests::found(&response, 0);
            contender.created = held.map_or(0, |own| own.create_revision);
        }
        if !is_live {
            // Who held the key before still does.
            if response.succeeded {
                self.leave(&contender);
            }
            return Ok(());
        }
        match (&contender.goal, held) {
            (Goal::Lock, _) => {
                let owner = requests::found(&response, 1);
                if owner.is_none_or(|owner| owner.create_revision == contender.created) {
                    self.admit_contender(net, &contender);
                    return Ok(());
                }
            }
            (Goal::Campaign { value, .. }, Some(own)) if own.value != *value => {
                let (key, lease) = (&contender.key, contender.lease);
                let txn = requests::proclaim(key, contender.created, value, lease);
                contender.step = Step::Revalue;
                return self.advance_txn(contender, &txn);
            }
            _ => {}
        }
        self.await_turn(net, contender)
    }

    fn revalued(
        &mut self,
        net: &mut Net,
        contender: Contender,
        reply: &Reply,
        is_live: bool,
    ) -> Result<(), Status> {
        let response = self.txn_response(reply)?;
        if !response.succeeded || !is_live {
            self.leave(&contender);
            return Err(unknown(NOT_LEADER));
        }
        self.await_turn(net, contender)
    }

    /// Looks who is before the contender, and waits for that key to go.
    fn await_turn(&mut self, net: &mut Net, mut contender: Contender) -> Result<(), Status> {
        let before = requests::last_created(&contender.prefix, contender.created - 1);
        let (revision, before) = self.find(&contender.waiting, before)?;
        let Some(before) = before else {
            if let Goal::Campaign { .. } = contender.goal {
                self.admit_contender(net, &contender);
                return Ok(());
            }
            contender.step = Step::Confirm;
            let waiting = contender.waiting.clone();
            self.read(net, waiting, Read::Confirm(Box::new(contender)), false);
            return Ok(());
        };
        let wait = Wait::Turn {
            contender,
            before: before.key,
        };
        let Err(refused) = self.waits.add(wait, revision) else {
            return Ok(());
        };
        if let Wait::Turn { contender, .. } = *refused {
            self.leave(&contender);
        }
        Err(unknown(Error::TooManyRequests.message()))
    }

    /// Nobody is before the contender any more: the last question is whether it is there itself.
    pub(super) fn confirm(
        &mut self,
        net: &mut Net,
        mut contender: Contender,
    ) -> Result<(), Status> {
        let (revision, own) = self.find(&contender.waiting, requests::get(&contender.key))?;
        if own.is_none() {
            return Err(unknown(SESSION_EXPIRED));
        }
        if !net.is_live(contender.waiting.call) {
            self.leave(&contender);
            return Ok(());
        }
        contender.revision = revision;
        self.admit_contender(net, &contender);
        Ok(())
    }

    /// A read that a contender waited for failed.
    pub(super) fn confirm_failed(&mut self, net: &mut Net, contender: &Contender, error: Error) {
        self.leave(contender);
        self.refuse(net, &contender.waiting, plain(error.into()));
    }

    fn admit_contender(&mut self, net: &mut Net, contender: &Contender) {
        let header = Some(self.header().message(contender.revision));
        let key = contender.key.clone();
        match &contender.goal {
            Goal::Campaign { name, .. } => {
                let leader = v3electionpb::LeaderKey {
                    name: name.clone(),
                    key,
                    rev: contender.created,
                    lease: contender.lease,
                };
                let response = v3electionpb::CampaignResponse {
                    header,
                    leader: Some(leader),
                };
                self.send_message(net, &contender.waiting, &response);
            }
            _ => {
                let response = v3lockpb::LockResponse { header, key };
                self.send_message(net, &contender.waiting, &response);
            }
        }
    }

    /// Answers those whose last entry was applied: all of their responses are a header.
    fn finish(
        &mut self,
        net: &mut Net,
        contender: &Contender,
        reply: &Reply,
    ) -> Result<(), Status> {
        if let Goal::Proclaim { .. } = contender.goal
            && !self.txn_response(reply)?.succeeded
        {
            return Err(unknown(NOT_LEADER));
        }
        let response = v3electionpb::ResignResponse {
            header: Some(self.header().message(reply.revision())),
        };
        self.send_message(net, &contender.waiting, &response);
        Ok(())
    }

    /// Takes the key of a contender away that will not be told of its turn.
    fn leave(&self, contender: &Contender) {
        let (key, who) = (&contender.key, &contender.waiting.who);
        match contender.goal {
            _ if contender.created == 0 => {}
            Goal::Lock => {
                let delete = requests::delete(key);
                self.shared.propose_for(who, entry::DELETE_RANGE, &delete);
            }
            Goal::Campaign { .. } => {
                let resign = requests::resign(key, contender.created);
                self.shared.propose_for(who, entry::TXN, &resign);
            }
            Goal::Unlock | Goal::Proclaim { .. } | Goal::Resign => {}
        }
    }

    fn txn_response(&self, reply: &Reply) -> Result<pb::TxnResponse, Status> {
        let mut encoded = Vec::new();
        reply.encode(&self.header(), &mut encoded);
        pb::TxnResponse::decode(&encoded[..])
            .map_err(|error| unknown(format!("a transaction's own answer: {error}")))
    }

    /// The first key that a range of the present state has, if the caller may read it, and the
    /// state's revision.
    fn find(
        &self,
        waiting: &Waiting,
        request: pb::RangeRequest,
    ) -> Result<(i64, Option<KeyValue>), Status> {
        let request = self.authorise(waiting, request).map_err(plain)?;
        let mut answer = self.shared.view.range(&request).map_err(refused)?;
        let mut encoded = Vec::new();
        while answer
            .write_chunk(&mut encoded, usize::MAX)
            .map_err(refused)?
        {}
        let response = pb::RangeResponse::decode(&encoded[..])
            .map_err(|error| unknown(format!("a range's own answer: {error}")))?;
        Ok((answer.revision(), response.kvs.into_iter().next()))
    }

    pub(super) fn serve_leader(
        &mut self,
        net: &mut Net,
        waiting: &Waiting,
        prefix: &Bytes,
    ) -> Result<(), Status> {
        let (revision, kv) = self.find(waiting, requests::first_created(prefix))?;
        if kv.is_none() {
            return Err(unknown(NO_LEADER));
        }
        let response = v3electionpb::LeaderResponse {
            header: Some(self.header().message(revision)),
            kv,
        };
        self.send_message(net, waiting, &response);
        Ok(())
    }

    /// Begins to tell an observer of leaders.
    pub(super) fn serve_observe(
        &mut self,
        net: &mut Net,
        waiting: &Waiting,
        prefix: &Bytes,
    ) -> Result<(), Status> {
        if !net.is_live(waiting.call) {
            return Ok(());
        }
        let leaders = requests::first_created(prefix);
        let Ok(leaders) = self.authorise(waiting, leaders) else {
            self.refuse(net, waiting, SILENCE);
            return Ok(());
        };
        let observer = Observer {
            waiting: waiting.clone(),
            leaders,
            leader: None,
            through: i64::MAX,
            is_choked: false,
        };
        let revision = self.shared.view.revision();
        if self.waits.add(Wait::Observer(observer), revision).is_err() {
            return Err(unknown(Error::TooManyRequests.message()));
        }
        if let Some(at) = self.waits.observer_of(waiting.call) {
            self.look(net, at);
        }
        Ok(())
    }

    /// Tells an observer who leads now.
    fn look(&mut self, net: &mut Net, at: usize) {
        let Some(observer) = self.waits.observer(at) else {
            return;
        };
        if observer.is_choked {
            return;
        }
        let waiting = observer.waiting.clone();
        let leaders = requests::first_created(&observer.leaders.key);
        match self.find(&waiting, leaders) {
            Ok((revision, kv)) => {
                let leader = kv.as_ref().map(|kv| kv.key.clone());
                self.waits.set_leader(at, leader, revision);
                if let Some(kv) = kv {
                    self.tell(net, at, revision, kv);
                }
            }
            Err(_) => {
                self.waits.remove(waiting.call);
                self.refuse(net, &waiting, SILENCE);
            }
        }
    }

    fn tell(&mut self, net: &mut Net, at: usize, revision: i64, kv: KeyValue) {
        let header = Some(self.header().message(revision));
        let Some(observer) = self.waits.observer(at) else {
            return;
        };
        let waiting = observer.waiting.clone();
        let response = v3electionpb::LeaderResponse {
            header,
            kv: Some(kv),
        };
        net.send(waiting.call, response.encode_to_vec());
        observer.is_choked = net.queued_bytes(waiting.call).unwrap_or(0) > QUEUED_BYTES_MAX;
        if let Some(meter) = waiting.meter {
            self.shared.metrics.grpc.sent(meter, 1);
        }
    }

    /// Tells the waiting calls what the events of this turn mean to them.
    pub(super) fn wake_waits(&mut self, net: &mut Net) {
        for wake in self.waits.follow() {
            match wake {
                Wake::Look(at) => self.look(net, at),
                Wake::Said {
                    observer,
                    event,
                    revision,
                } => match self.waits.observer(observer) {
                    Some(known) if !known.is_choked => match KeyValue::decode(event.record()) {
                        Ok(kv) => self.tell(net, observer, revision, kv),
                        Err(_) => self.look(net, observer),
                    },
                    _ => {}
                },
                Wake::Turn(contender) => {
                    let waiting = contender.waiting.clone();
                    if let Err(status) = self.await_turn(net, contender) {
                        self.refuse(net, &waiting, status);
                    }
                }
                Wake::Lost(contender) => {
                    let text = match contender.goal {
                        Goal::Lock => SESSION_EXPIRED,
                        _ => NOT_LEADER,
                    };
                    self.refuse(net, &contender.waiting, unknown(text));
                }
            }
        }
        if self.waits.is_idle() {
            self.watch.stop_watching_if_idle();
        }
    }

    /// A waiting call is over without our doing.
    pub(super) fn wait_cancelled(&mut self, call: CallId) {
        match self.waits.remove(call) {
            Some(Wait::Turn { contender, .. }) => {
                self.leave(&contender);
                self.count_refused(&contender.waiting, &Error::Canceled.into());
            }
            Some(Wait::Observer(observer)) => {
                self.count_refused(&observer.waiting, &Error::Canceled.into());
            }
            None => {}
        }
    }

    /// An observer's client has read on: it is told the newest state.
    pub(super) fn wait_writable(&mut self, net: &mut Net, call: CallId) {
        let Some(at) = self.waits.observer_of(call) else {
            return;
        };
        if let Some(observer) = self.waits.observer(at)
            && std::mem::take(&mut observer.is_choked)
        {
            self.look(net, at);
        }
    }

    /// The member stops.
    pub(super) fn drain_waits(&mut self, net: &mut Net) {
        for wait in self.waits.drain() {
            let waiting = match &wait {
                Wait::Turn { contender, .. } => &contender.waiting,
                Wait::Observer(observer) => &observer.waiting,
            };
            self.refuse(net, waiting, Error::Stopped);
        }
    }
}
