//! The gRPC services of one net thread.
//!
//! A request is decoded and checked here, then takes one of three ways: it is answered at once
//! from the read view; it waits in this turn's batch of linearizable reads; or its bytes become a
//! log entry in this turn's batch of proposals. Batches leave at the end of the turn, and their
//! results come back as mail, for a slot that remembers the call.

mod auth;
mod concurrency;
mod identity;
mod keep_alive;
mod kv;
mod lease;
mod maintenance;
mod membership;
mod meters;
pub(crate) mod method;
mod pending;
mod range_stream;
mod snapshot;
mod stream;
mod watch;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use api::pb::etcdserverpb::RangeRequest;
use api::{Code, Error, Status};
use bytes::Bytes;
use node::machine::{Proposal, Token};
use prost::Message;
use state::{Header, ReadError, Reply};
use storage::log::EntryKind;

use crate::auth::{Credentials, Who};
use crate::config::GoDuration;
use crate::drive::Shared;
use crate::drive::core::ToCore;
use crate::drive::entry;
use crate::drive::post::{Mail, slot_of, token};
use crate::drive::stop::fatal;
use crate::front::{CallId, Handler, Mailbox, Net, RequestHead};
use crate::log::Timestamp;
use crate::metrics::Method as Meter;
use concurrency::Waits;
use identity::Strangers;
use keep_alive::KeepAlives;
use meters::Meters;
use method::{METHODS, Rpc};
use pending::{Pending, Read, Slots, Waiting};
use snapshot::Snapshots;
use watch::Hub;

/// The services of one net thread: everything here belongs to it alone.
pub(crate) struct Services {
    shared: Arc<Shared>,
    thread: u8,
    slots: Slots,
    keep_alives: KeepAlives,
    proposals: Vec<Proposal>,
    reads: Vec<Token>,
    /// Answers are put together here before they are copied to their connection.
    scratch: Vec<u8>,
    /// The counters of each method, by [`Rpc`].
    meters: Vec<Option<Meter>>,
    times: Meters,
    watch: Hub,
    snapshots: Snapshots,
    waits: Waits,
    strangers: Strangers,
    /// Who wants to be told when the service changes.
    lookouts: HashMap<CallId, Waiting>,
}

impl Services {
    /// The services of a thread whose mailbox is `own`.
    pub(crate) fn new(shared: Arc<Shared>, thread: usize, own: Mailbox<Mail>) -> Services {
        let thread = u8::try_from(thread).expect("net threads are counted by a byte");
        let meters: Vec<_> = METHODS
            .iter()
            .map(|method| Meter::from_path(method.path))
            .collect();
        let meter = meters[Rpc::Watch as usize];
        Services {
            waits: Waits::new(Arc::clone(&shared), thread),
            watch: Hub::new(Arc::clone(&shared), thread, meter, own),
            times: Meters::new(Arc::clone(&shared.metrics)),
            shared,
            thread,
            slots: Slots::default(),
            keep_alives: KeepAlives::default(),
            proposals: Vec::new(),
            reads: Vec::new(),
            scratch: Vec::new(),
            meters,
            snapshots: Snapshots::default(),
            strangers: Strangers::default(),
            lookouts: HashMap::new(),
        }
    }

    fn header(&self) -> Header {
        self.shared.header()
    }

    /// A call that begins, counted.
    fn waiting(&mut self, net: &Net, call: CallId, head: &RequestHead) -> Waiting {
        let rpc = Rpc::of(head.method());
        let version = head.client_api_version.as_ref();
        self.times.client(version, !rpc.is_unary());
        let meter = self.meters[rpc as usize];
        if let Some(meter) = meter {
            self.shared.metrics.grpc.started(meter, 1);
        }
        Waiting {
            call,
            rpc,
            meter,
            begun: net.now(),
            request_bytes: 0,
            span: self.shared.tracer.as_ref().and_then(|tracer| {
                let parent = head.traceparent.as_deref();
                tracer.begin(parent).map(Box::new)
            }),
            who: Who::Nobody,
        }
    }

    /// What every call must pass before its request is looked at, in etcd's order.
    fn admit(&self, head: &RequestHead, rpc: Rpc, message: &[u8]) -> Result<(), Error> {
        let status = &self.shared.status;
        if !status.is_capable() {
            return Err(Error::NotCapable);
        }
        if status.is_learner() && !is_for_learners(rpc, message) {
            return Err(Error::NotSupportedForLearner);
        }
        if let Some(version) = &head.client_api_version
            && std::str::from_utf8(version).is_err()
        {
            return Err(Error::InvalidClientAPIVersion);
        }
        if head.needs_leader && status.leader().is_none() {
            return Err(Error::NoLeader);
        }
        let shows_data = rpc.shows_data();
        if shows_data && self.shared.quarantined.load(Ordering::Acquire) {
            return Err(Error::Corrupt);
        }
        Ok(())
    }

    fn serve(&mut self, net: &mut Net, waiting: Waiting, message: Bytes) -> Result<(), Status> {
        match waiting.rpc {
            Rpc::Range => self.range(net, waiting, message),
            Rpc::RangeStream => self.range_stream(net, waiting, message),
            Rpc::Put => self.put(waiting, message),
            Rpc::DeleteRange => self.delete_range(waiting, message),
            Rpc::Txn => self.txn(net, waiting, message),
            Rpc::LeaseGrant => self.lease_grant(waiting, &message),
            Rpc::LeaseRevoke => self.lease_revoke(waiting, message),
            Rpc::LeaseLeases => self.lease_leases(net, waiting),
            Rpc::LeaseTimeToLive => self.lease_time_to_live(net, waiting, &message),
            Rpc::MemberList => self.member_list(net, waiting, &message),
            Rpc::MemberAdd => self.member_add(waiting, &message),
            Rpc::MemberRemove => self.member_remove(waiting, &message),
            Rpc::MemberUpdate => self.member_update(waiting, &message),
            Rpc::MemberPromote => self.member_promote(waiting, &message),
            Rpc::Alarm => self.alarm(net, waiting, message),
            Rpc::Status => self.status(net, &waiting),
            Rpc::Lock => self.lock(waiting, &message),
            Rpc::Unlock => self.unlock(waiting, &message),
            Rpc::Campaign => self.campaign(waiting, &message),
            Rpc::Proclaim => self.proclaim(waiting, &message),
            Rpc::Leader => self.leader(net, waiting, &message),
            Rpc::Observe => self.observe(net, waiting, &message),
            Rpc::Resign => self.resign(waiting, &message),
            Rpc::HealthCheck => self.health_check(net, waiting, &message),
            Rpc::HealthList => self.health_list(net, waiting),
            Rpc::HealthWatch => self.health_watch(net, waiting, &message),
            Rpc::Authenticate
            | Rpc::AuthEnable
            | Rpc::AuthDisable
            | Rpc::AuthStatus
            | Rpc::UserAdd
            | Rpc::UserGet
            | Rpc::UserList
            | Rpc::UserDelete
            | Rpc::UserChangePassword
            | Rpc::UserGrantRole
            | Rpc::UserRevokeRole
            | Rpc::RoleAdd
            | Rpc::RoleGet
            | Rpc::RoleList
            | Rpc::RoleDelete
            | Rpc::RoleGrantPermission
            | Rpc::RoleRevokePermission => self.auth(net, waiting, &message),
            Rpc::Compact
            | Rpc::MoveLeader
            | Rpc::Defragment
            | Rpc::Downgrade
            | Rpc::Snapshot
            | Rpc::Hash
            | Rpc::HashKv => self.serve_root(net, waiting, message),
            // Streams of requests: they never come here.
            Rpc::LeaseKeepAlive | Rpc::Watch => {
                Err(Status::new(Code::Internal, "a stream is no unary call"))
            }
        }
    }

    /// What nobody but root may do, whatever it asks for.
    fn serve_root(
        &mut self,
        net: &mut Net,
        waiting: Waiting,
        message: Bytes,
    ) -> Result<(), Status> {
        let root = &self.root(&waiting)?;
        match waiting.rpc {
            Rpc::Compact => self.compact(root, waiting, message),
            Rpc::MoveLeader => self.move_leader(root, waiting, &message),
            Rpc::Defragment => self.defragment(root, waiting, &message),
            Rpc::Downgrade => self.downgrade(root, net, waiting, &message),
            Rpc::Snapshot => self.snapshot(root, waiting, &message),
            Rpc::HashKv => self.hash_kv(root, waiting, &message),
            _ => {
                self.hash(root, waiting);
                Ok(())
            }
        }
    }

    /// Makes a log entry of a request's bytes; the call is answered when it is applied.
    fn propose(
        &mut self,
        waiting: Waiting,
        field: u32,
        request: &[u8],
        pending: impl FnOnce(Waiting) -> Pending,
    ) -> Result<(), Status> {
        let by = self.shared.signature(waiting.who.caller()?);
        let id = self.shared.request_ids.next();
        let data = entry::encode(field, request, id, by);
        if data.len() > self.shared.limits.request_bytes_max {
            return Err(Error::RequestTooLarge.into());
        }
        let slot = self.slots.insert(pending(waiting));
        let token = token(self.thread, slot);
        self.proposals.push(Proposal {
            id,
            kind: EntryKind::Normal,
            data,
            token,
        });
        Ok(())
    }

    /// Serves a read now when this member may answer alone, or the client asked for that;
    /// otherwise after a round that begins after now.
    fn read(&mut self, net: &mut Net, waiting: Waiting, read: Read, local: bool) {
        if local || self.shared.status.is_sole_leader() {
            self.serve_read(net, waiting, read);
            return;
        }
        let slot = self.slots.insert(Pending::Read(waiting, read));
        self.reads.push(token(self.thread, slot));
    }

    fn serve_read(&mut self, net: &mut Net, waiting: Waiting, read: Read) {
        let outcome = match read {
            Read::Range(request) => self.serve_range(net, &waiting, request),
            Read::RangeStream(request) => self.serve_range_stream(net, &waiting, request),
            Read::Txn(request) => self.serve_txn(net, &waiting, request),
            Read::Authenticate(request) => self.serve_authenticate(waiting.clone(), request),
            Read::MemberList => self.serve_member_list(net, &waiting),
            Read::Alarms(kind) => self.serve_alarms(net, &waiting, kind),
            Read::Confirm(contender) => self.confirm(net, *contender),
            Read::Leader(prefix) => self.serve_leader(net, &waiting, &prefix),
            Read::Observe(prefix) => self.serve_observe(net, &waiting, &prefix),
            Read::Downgrade(wish) => self.serve_downgrade(net, &waiting, wish),
            Read::TimeToLive(request) => self.serve_time_to_live(net, &waiting, &request),
        };
        if let Err(status) = outcome {
            self.refuse(net, &waiting, status);
        }
    }

    /// Sends a message that was put together in the scratch buffer.
    fn send_scratch(&mut self, net: &mut Net, waiting: &Waiting) {
        let scratch = &self.scratch;
        net.reply_encoded(waiting.call, scratch.len(), |out| {
            out.extend_from_slice(scratch)
        });
        self.count_sent(waiting);
        self.note_slow(net, waiting, scratch.len() as u64);
    }

    /// Logs a call that took long to answer.
    fn note_slow(&self, net: &Net, waiting: &Waiting, response_bytes: u64) {
        let took = net.now().saturating_duration_since(waiting.begun);
        if took > self.shared.limits.slow_request && waiting.rpc.is_unary() {
            let remote = net.peer(waiting.call).and_then(|peer| peer.address);
            let start = SystemTime::now().checked_sub(took).unwrap_or(UNIX_EPOCH);
            let cause = self.shared.stalls.cause(waiting.begun, took);
            tracing::warn!(
                "start time" = %Timestamp(start),
                "time spent" = %GoDuration::from(took),
                remote = remote.map_or_else(String::new, |address| address.to_string()),
                "response type" = waiting.rpc.path(),
                "request size" = waiting.request_bytes,
                "response size" = response_bytes,
                cause = cause.unwrap_or("unknown"),
                "request stats"
            );
        }
    }

    /// The call is over.
    fn end_span(&self, waiting: &Waiting, code: Code) {
        if let (Some(span), Some(tracer)) = (&waiting.span, &self.shared.tracer) {
            tracer.end(**span, waiting.rpc.path(), waiting.begun, code);
        }
    }

    fn count_sent(&self, waiting: &Waiting) {
        self.end_span(waiting, Code::Ok);
        if let Some(meter) = waiting.meter {
            let grpc = &self.shared.metrics.grpc;
            grpc.sent(meter, 1);
            grpc.handled(meter, Code::Ok, 1);
            grpc.took(meter, waiting.begun);
        }
    }

    fn send_message(&mut self, net: &mut Net, waiting: &Waiting, message: &impl Message) {
        self.scratch.clear();
        message.encode(&mut self.scratch).expect("a vector grows");
        self.send_scratch(net, waiting);
    }

    fn send_reply(&mut self, net: &mut Net, waiting: &Waiting, reply: &Reply) {
        self.scratch.clear();
        reply.encode(&self.header(), &mut self.scratch);
        self.send_scratch(net, waiting);
    }

    fn refuse(&mut self, net: &mut Net, waiting: &Waiting, status: impl Into<Status>) {
        let status = status.into();
        self.count_refused(waiting, &status);
        self.note_slow(net, waiting, 0);
        net.finish(waiting.call, status);
    }

    fn count_refused(&self, waiting: &Waiting, status: &Status) {
        self.end_span(waiting, status.code);
        if let Some(meter) = waiting.meter {
            let grpc = &self.shared.metrics.grpc;
            grpc.handled(meter, status.code, 1);
            grpc.took(meter, waiting.begun);
        }
    }

    /// What goes through the log counts as a success once it was applied, whatever the outcome.
    fn time_request(&mut self, net: &Net, waiting: &Waiting, success: bool) {
        let took = net.now().saturating_duration_since(waiting.begun);
        self.times.request(waiting.rpc, success, took);
    }

    fn on_applied(&mut self, net: &mut Net, token: Token, outcome: Result<Reply, Error>) {
        let Some(pending) = self.slots.remove(slot_of(token)) else {
            return;
        };
        self.time_request(net, pending.waiting(), true);
        if let Pending::Promote(..) = &pending {
            self.shared.on_promotion(outcome.as_ref().err());
        }
        match (pending, outcome) {
            (Pending::Compact(waiting, revision), Ok(reply)) => {
                self.await_compaction(waiting, revision, &reply);
            }
            (Pending::Contender(contender), outcome) => {
                self.contender_applied(net, *contender, outcome);
            }
            (Pending::Reconfigure(waiting, Some(added)), Ok(_)) => {
                self.answer_add(net, &waiting, *added);
            }
            (Pending::Downgrade(waiting, version), Ok(_)) => {
                self.answer_downgrade(net, &waiting, version);
            }
            (Pending::LoggedIn(waiting, login), Ok(reply)) => {
                let call = waiting.clone();
                if let Err(status) = self.logged_in(net, waiting, login, &reply) {
                    self.refuse(net, &call, status);
                }
            }
            (Pending::KeepAlive(waiting), Ok(_)) => self.keep_alive_again(net, waiting.call),
            (pending, Ok(reply)) => self.send_reply(net, pending.waiting(), &reply),
            (pending, Err(error)) => self.fail(net, &pending, error),
        }
    }

    /// Ends the call of a request that got no result.
    fn fail(&mut self, net: &mut Net, pending: &Pending, error: Error) {
        match pending {
            Pending::KeepAlive(waiting) => self.keep_alive_end(net, waiting, error.into()),
            Pending::Read(_, Read::Confirm(contender)) => {
                self.confirm_failed(net, contender, error);
            }
            Pending::Read(waiting, Read::Leader(_) | Read::Observe(_)) => {
                self.refuse(net, waiting, Status::new(Code::Unknown, error.message()));
            }
            Pending::Promote(waiting, id) if error == Error::NotLeader => {
                self.forward_promotion(waiting.clone(), *id);
            }
            pending => self.refuse(net, pending.waiting(), error),
        }
    }

    /// What a read was asked for, unless it was to know who calls.
    fn taken(&mut self, net: &mut Net, token: Token) -> Option<Pending> {
        let pending = self.slots.remove(slot_of(token))?;
        self.go_on(net, pending)
    }

    fn on_answer(&mut self, net: &mut Net, token: Token, answer: Result<Vec<u8>, Status>) {
        let Some(pending) = self.slots.remove(slot_of(token)) else {
            return;
        };
        if let Pending::Renewal(waiting) = &pending {
            return self.keep_alive_answered(net, waiting, answer);
        }
        let answer = match &pending {
            Pending::LeaseKeys(waiting) => answer.and_then(|message| {
                self.check_lease_keys(waiting, &message)?;
                Ok(message)
            }),
            _ => answer,
        };
        match answer {
            Ok(message) => {
                self.scratch.clear();
                self.scratch.extend_from_slice(&message);
                self.send_scratch(net, pending.waiting());
            }
            Err(status) => self.refuse(net, pending.waiting(), status),
        }
    }
}

/// What a learner does for clients: it tells how it is, gives its database, and reads what it has.
fn is_for_learners(rpc: Rpc, message: &[u8]) -> bool {
    match rpc {
        Rpc::Status | Rpc::Snapshot => true,
        // What is no request is refused as such.
        Rpc::Range => RangeRequest::decode(message).is_ok_and(|range| range.serializable),
        _ => false,
    }
}

/// A request's message, or the status that its sender gets.
fn decode<M: Message + Default>(message: impl bytes::Buf) -> Result<M, Status> {
    M::decode(message).map_err(|error| {
        Status::new(
            Code::Internal,
            format!("grpc: error unmarshalling request: {error}"),
        )
    })
}

/// What a client is told of a failed read; a broken state ends the process.
fn refused(error: ReadError) -> Status {
    match error {
        ReadError::Refused(error) => error.into(),
        ReadError::Broken(error) => fatal("read the state", &error),
    }
}

impl Handler for Services {
    type Mail = Mail;

    fn on_unary(&mut self, net: &mut Net, call: CallId, head: &RequestHead, message: Bytes) {
        let mut waiting = self.waiting(net, call, head);
        waiting.request_bytes = u32::try_from(message.len()).unwrap_or(u32::MAX);
        if let Some(meter) = waiting.meter {
            self.shared.metrics.grpc.received(meter, 1);
        }
        let asks_who = self.shared.view.auth_stamp() != 0 && waiting.rpc.has_caller();
        let refused = match self.admit(head, waiting.rpc, &message) {
            Ok(()) if asks_who => {
                let credentials = Credentials::new(head, net.peer(call));
                self.serve_as(net, waiting.clone(), credentials, message)
                    .err()
            }
            Ok(()) => self.serve(net, waiting.clone(), message).err(),
            Err(error) => Some(error.into()),
        };
        if let Some(status) = refused {
            self.refuse(net, &waiting, status);
        }
    }

    fn on_open(&mut self, net: &mut Net, call: CallId, head: &RequestHead) -> Result<(), Status> {
        let waiting = self.waiting(net, call, head);
        self.admit(head, waiting.rpc, &[])
            .map_err(Status::from)
            .and_then(|()| match waiting.rpc {
                Rpc::LeaseKeepAlive => {
                    let credentials = Credentials::new(head, net.peer(call));
                    self.keep_alives.open(waiting.clone(), credentials);
                    Ok(())
                }
                Rpc::Watch => {
                    let credentials = Credentials::new(head, net.peer(call));
                    self.watch
                        .open(net, &waiting, head.needs_leader, credentials);
                    Ok(())
                }
                _ => Err(Status::new(Code::Unimplemented, "not a streaming method")),
            })
            .inspect_err(|status| self.count_refused(&waiting, status))
    }

    fn on_message(&mut self, net: &mut Net, call: CallId, message: Bytes) {
        let Some(message) = self.hold_back(net, call, message) else {
            return;
        };
        if self.watch.has(call) {
            self.watch.on_message(net, call, message);
        } else {
            self.keep_alive_message(net, call, &message);
        }
    }

    /// A watch stream goes on until its client cancels it.
    fn on_half_close(&mut self, net: &mut Net, call: CallId) {
        if !self.watch.has(call) && !self.hold_half_close(call) {
            self.keep_alive_half_close(net, call);
        }
    }

    /// A result that is due still arrives, finds no call, and frees the slot.
    fn on_cancel(&mut self, _net: &mut Net, call: CallId) {
        self.drop_held(call);
        if self.watch.has(call) {
            self.watch.on_cancel(call);
        } else if self.waits.has(call) {
            self.wait_cancelled(call);
        } else if let Some(waiting) = self.lookouts.remove(&call) {
            self.count_refused(&waiting, &Error::Canceled.into());
        } else {
            self.keep_alive_cancel(call);
        }
    }

    fn on_writable(&mut self, net: &mut Net, call: CallId) {
        if self.watch.has(call) {
            self.watch.on_writable(net, call);
        } else if self.waits.has(call) {
            self.wait_writable(net, call);
        } else {
            self.keep_alive_writable(net, call);
        }
    }

    fn on_drain(&mut self, net: &mut Net) {
        self.watch.on_drain(net);
        self.keep_alive_drain(net);
        self.drain_waits(net);
        for waiting in std::mem::take(&mut self.lookouts).into_values() {
            self.refuse(net, &waiting, Error::Stopped);
        }
    }

    fn on_tick(&mut self, net: &mut Net, now: Instant) {
        self.watch.on_tick(net, now);
        self.snapshots.drop_stalled(now);
    }

    fn on_turn_end(&mut self, net: &mut Net) {
        self.watch.on_turn_end(net);
        self.wake_waits(net);
        if !self.proposals.is_empty() {
            let batch = std::mem::take(&mut self.proposals);
            self.shared.core.push(ToCore::Propose(batch));
        }
        if !self.reads.is_empty() {
            self.shared
                .core
                .push(ToCore::Read(std::mem::take(&mut self.reads)));
        }
    }

    fn on_mail(&mut self, net: &mut Net, mail: &mut Vec<Mail>) {
        for mail in mail.drain(..) {
            match mail {
                Mail::Applied(token, outcome) => self.on_applied(net, token, outcome),
                Mail::ReadReady(token) => match self.taken(net, token) {
                    Some(Pending::Read(waiting, read)) => self.serve_read(net, waiting, read),
                    Some(Pending::KeepAlive(waiting)) => {
                        self.keep_alive_confirmed(net, &waiting);
                    }
                    _ => {}
                },
                Mail::Failed(token, error) => match self.taken(net, token) {
                    Some(Pending::Contender(contender)) => {
                        self.contender_applied(net, *contender, Err(error));
                    }
                    Some(pending) => {
                        self.time_request(net, pending.waiting(), false);
                        if let Pending::Promote(..) = &pending {
                            self.shared.on_promotion(Some(&error));
                        }
                        self.fail(net, &pending, error);
                    }
                    None => {}
                },
                Mail::LeaseSettled(call) => self.keep_alive_again(net, call),
                Mail::Secret(token, secret) => {
                    if let Some(pending) = self.slots.remove(slot_of(token)) {
                        self.on_secret(net, pending, secret);
                    }
                }
                Mail::Pinned(token, tx) => self.send_snapshot(net, token, &tx),
                Mail::Answer(token, answer) => self.on_answer(net, token, answer),
                // The end of the turn sees to it.
                Mail::Events => {}
            }
        }
    }
}
