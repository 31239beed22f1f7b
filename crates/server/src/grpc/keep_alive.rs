//! `LeaseKeepAlive`: streams of renewals, each answered on the thread that read it.
//!
//! Requests of a stream are served one after the other. Most are answered at once; one that must
//! wait (a lease that expired is being revoked, leadership is being confirmed, a checkpoint is
//! being taken back) holds up those behind it, which stay in the stream's queue, and the client
//! gets no more window for new ones.

use std::collections::{HashMap, VecDeque};

use api::pb::etcdserverpb as pb;
use api::{Code, Error, Status};
use bytes::Bytes;
use prost::Message;
use state::{LeaseRenewal, Renewal};

use super::pending::{Pending, Waiting};
use super::{Services, decode};
use crate::auth::Credentials;
use crate::drive::entry;
use crate::drive::post::token;
use crate::front::{CallId, Net};
use crate::peer::ToPeers;

/// Answers that a client has not taken, in bytes, from which on its requests wait.
const UNTAKEN_BYTES_MAX: u64 = 256 << 10;

/// All streams of a net thread.
#[derive(Default)]
pub(super) struct KeepAlives(HashMap<CallId, Stream>);

struct Stream {
    waiting: Waiting,
    /// Looked at for each request.
    credentials: Credentials,
    /// Leases whose requests came and were not looked at yet.
    queue: VecDeque<i64>,
    /// The lease of the request that waits for something.
    under_way: Option<i64>,
    /// A request after those in the queue was no message.
    broken: Option<Status>,
    is_half_closed: bool,
    /// The client does not take its answers.
    is_blocked: bool,
    /// The client gets no window.
    is_held: bool,
}

/// What a request came to.
enum Served {
    Answered,
    Waits,
    Failed(Status),
}

impl KeepAlives {
    pub(super) fn open(&mut self, waiting: Waiting, credentials: Credentials) {
        let call = waiting.call;
        let stream = Stream {
            waiting,
            credentials,
            queue: VecDeque::new(),
            under_way: None,
            broken: None,
            is_half_closed: false,
            is_blocked: false,
            is_held: false,
        };
        self.0.insert(call, stream);
    }

    /// What the stream showed.
    pub(super) fn credentials(&mut self, call: CallId) -> Option<&mut Credentials> {
        self.0.get_mut(&call).map(|stream| &mut stream.credentials)
    }
}

impl Services {
    /// The next request of a stream; false when the call is none of ours.
    pub(super) fn keep_alive_message(
        &mut self,
        net: &mut Net,
        call: CallId,
        message: &Bytes,
    ) -> bool {
        let Some(stream) = self.keep_alives.0.get_mut(&call) else {
            return false;
        };
        if let Some(meter) = stream.waiting.meter {
            self.shared.metrics.grpc.received(meter, 1);
        }
        match decode::<pb::LeaseKeepAliveRequest>(message.clone()) {
            Ok(request) if stream.broken.is_none() => stream.queue.push_back(request.id),
            Ok(_) => {}
            Err(status) => {
                let failures = &self.shared.metrics.stream_failures;
                failures.with(["lease-keepalive", "receive"]).inc();
                stream.broken = Some(status);
            }
        }
        self.keep_alive_run(net, call);
        true
    }

    pub(super) fn keep_alive_half_close(&mut self, net: &mut Net, call: CallId) {
        if let Some(stream) = self.keep_alives.0.get_mut(&call) {
            stream.is_half_closed = true;
            self.keep_alive_run(net, call);
        }
    }

    pub(super) fn keep_alive_cancel(&mut self, call: CallId) {
        if let Some(stream) = self.keep_alives.0.remove(&call) {
            self.forget(&stream);
            self.count_refused(&stream.waiting, &Error::Canceled.into());
        }
    }

    pub(super) fn keep_alive_writable(&mut self, net: &mut Net, call: CallId) {
        if let Some(stream) = self.keep_alives.0.get_mut(&call) {
            stream.is_blocked = false;
            self.keep_alive_run(net, call);
        }
    }

    /// What the stream's request waited for has come to pass: it is served anew.
    pub(super) fn keep_alive_again(&mut self, net: &mut Net, call: CallId) {
        if let Some(stream) = self.keep_alives.0.get_mut(&call)
            && let Some(id) = stream.under_way.take()
        {
            stream.queue.push_front(id);
            self.keep_alive_run(net, call);
        }
    }

    /// This member led after the stream's request had arrived.
    pub(super) fn keep_alive_confirmed(&mut self, net: &mut Net, waiting: &Waiting) {
        let stream = self.keep_alives.0.get_mut(&waiting.call);
        let Some(id) = stream.and_then(|stream| stream.under_way.take()) else {
            return;
        };
        let served = self.renew(net, waiting, id);
        self.keep_alive_served(net, waiting, id, served);
        self.keep_alive_run(net, waiting.call);
    }

    /// The leader answered for a request of the stream.
    pub(super) fn keep_alive_answered(
        &mut self,
        net: &mut Net,
        waiting: &Waiting,
        answer: Result<Vec<u8>, Status>,
    ) {
        let stream = self.keep_alives.0.get_mut(&waiting.call);
        let Some(id) = stream.and_then(|stream| stream.under_way.take()) else {
            return;
        };
        let served = match answer {
            Ok(message) => {
                net.send_encoded(waiting.call, message.len(), |out| {
                    out.extend_from_slice(&message);
                });
                if let Some(meter) = waiting.meter {
                    self.shared.metrics.grpc.sent(meter, 1);
                }
                Served::Answered
            }
            Err(status) => Served::Failed(status),
        };
        self.keep_alive_served(net, waiting, id, served);
        self.keep_alive_run(net, waiting.call);
    }

    /// Ends a stream, with an error or at the end of its requests.
    pub(super) fn keep_alive_end(&mut self, net: &mut Net, waiting: &Waiting, status: Status) {
        if let Some(stream) = self.keep_alives.0.remove(&waiting.call) {
            self.forget(&stream);
            self.refuse(net, waiting, status);
        }
    }

    /// The member stops: these streams have no end of their own.
    pub(super) fn keep_alive_drain(&mut self, net: &mut Net) {
        let all: Vec<Waiting> = self
            .keep_alives
            .0
            .values()
            .map(|one| one.waiting.clone())
            .collect();
        for waiting in all {
            self.keep_alive_end(net, &waiting, Error::Stopped.into());
        }
    }

    fn forget(&self, stream: &Stream) {
        if let Some(id) = stream.under_way {
            self.shared.lessor.forget(id, stream.waiting.call);
        }
    }

    /// Serves requests of the queue until one must wait.
    fn keep_alive_run(&mut self, net: &mut Net, call: CallId) {
        loop {
            let Some(stream) = self.keep_alives.0.get_mut(&call) else {
                return;
            };
            let mut waiting = stream.waiting.clone();
            if stream.under_way.is_some() || stream.is_blocked {
                if !std::mem::replace(&mut stream.is_held, true) {
                    net.hold(call);
                }
                return;
            }
            let Some(id) = stream.queue.pop_front() else {
                if let Some(status) = stream.broken.take() {
                    self.keep_alive_end(net, &waiting, status);
                } else if stream.is_half_closed {
                    self.keep_alive_end(net, &waiting, Status::new(Code::Ok, ""));
                } else if std::mem::take(&mut stream.is_held) {
                    net.resume(call);
                }
                return;
            };
            waiting.who = self.shared.sender(&stream.credentials);
            let leader = self.shared.status.leader();
            // Who asks is checked where the roles are up to date.
            let is_open = self.shared.view.auth_stamp() == 0;
            let served = if self.shared.status.is_sole_leader() {
                self.renew(net, &waiting, id)
            } else if is_open && leader.is_some_and(|leader| leader != self.shared.member) {
                // It makes sure of its leadership itself.
                self.ask_leader(waiting.clone(), id)
            } else {
                let slot = self.slots.insert(Pending::KeepAlive(waiting.clone()));
                self.reads.push(token(self.thread, slot));
                Served::Waits
            };
            self.keep_alive_served(net, &waiting, id, served);
        }
    }

    /// Notes what a request came to.
    fn keep_alive_served(&mut self, net: &mut Net, waiting: &Waiting, id: i64, served: Served) {
        let stream = self.keep_alives.0.get_mut(&waiting.call);
        match (served, stream) {
            (Served::Failed(status), _) => self.keep_alive_end(net, waiting, status),
            (Served::Answered, Some(stream)) => {
                let queued = net.queued_bytes(waiting.call).unwrap_or(0);
                stream.is_blocked = queued > UNTAKEN_BYTES_MAX;
            }
            (Served::Waits, Some(stream)) => stream.under_way = Some(id),
            (_, None) => {}
        }
    }

    /// Renews a lease on a member that led when the request was there.
    ///
    /// The state is asked before the clock: a renewal that succeeds means that the lease existed
    /// after the request had arrived, even when its revocation was just applied and the clock has
    /// not been told yet.
    fn renew(&mut self, net: &mut Net, waiting: &Waiting, id: i64) -> Served {
        if let Err(status) = self.authorise(waiting, LeaseRenewal(id)) {
            return Served::Failed(status);
        }
        let revision = self.shared.view.revision();
        let ttl = match self.shared.view.lease_ttl(id) {
            None => 0,
            Some(granted) => match self.shared.lessor.renew(id, waiting.call) {
                Renewal::Renewed(ttl) => ttl,
                // The clock has not been told of it yet, and will start it later than now.
                Renewal::Unknown => granted,
                Renewal::Expired => return Served::Waits,
                Renewal::Checkpointed => return self.take_back_checkpoint(waiting.clone(), id),
                Renewal::NotLeader => return self.ask_leader(waiting.clone(), id),
            },
        };
        if ttl > 0 {
            self.shared.metrics.leases_renewed.inc();
        }
        let response = pb::LeaseKeepAliveResponse {
            header: Some(self.header().message(revision)),
            id,
            ttl,
        };
        self.scratch.clear();
        response.encode(&mut self.scratch).expect("a vector grows");
        let scratch = &self.scratch;
        net.send_encoded(waiting.call, scratch.len(), |out| {
            out.extend_from_slice(scratch);
        });
        if let Some(meter) = waiting.meter {
            self.shared.metrics.grpc.sent(meter, 1);
        }
        Served::Answered
    }

    /// Only the leader knows the time of a lease.
    fn ask_leader(&mut self, waiting: Waiting, id: i64) -> Served {
        let slot = self.slots.insert(Pending::Renewal(waiting));
        let token = token(self.thread, slot);
        self.shared.peers.push(ToPeers::Renew { id, token });
        Served::Waits
    }

    /// The renewal waits until no later leader can start from the lease's old checkpoint.
    fn take_back_checkpoint(&mut self, waiting: Waiting, id: i64) -> Served {
        let request = pb::LeaseCheckpointRequest {
            checkpoints: vec![pb::LeaseCheckpoint {
                id,
                remaining_ttl: 0,
            }],
        };
        let request = request.encode_to_vec();
        match self.propose(
            waiting,
            entry::LEASE_CHECKPOINT,
            &request,
            Pending::KeepAlive,
        ) {
            Ok(()) => Served::Waits,
            Err(status) => Served::Failed(status),
        }
    }
}
