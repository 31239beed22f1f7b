//! From what a call shows to who calls.
//!
//! While authentication is off nobody is looked up, which a relaxed load tells. While it is on, a
//! call whose token was made by an entry that this member has not applied waits, with what it has
//! sent, until everything that is committed now was applied.

use std::collections::{HashMap, VecDeque};

use api::{Error, Status};
use bytes::Bytes;
use state::{Authorised, LoggedIn, Operation, Root};

use super::Services;
use super::method::Rpc;
use super::pending::{Pending, Waiting};
use crate::auth::{Credentials, Who};
use crate::drive::post::token;
use crate::front::{CallId, Handler, Net};

/// What may wait on one net thread, in bytes; beyond it nothing waits, and the tokens count as
/// unknown.
const BYTES_MAX: usize = 32 << 20;
/// What a call takes besides its messages.
const CALL_BYTES: usize = 512;

/// The calls whose tokens are not known yet.
#[derive(Default)]
pub(super) struct Strangers {
    /// What streams have sent meanwhile.
    streams: HashMap<CallId, Held>,
    bytes: usize,
}

#[derive(Default)]
struct Held {
    messages: VecDeque<Bytes>,
    is_half_closed: bool,
}

impl Held {
    fn bytes(&self) -> usize {
        CALL_BYTES + self.messages.iter().map(Bytes::len).sum::<usize>()
    }
}

/// A unary call whose token is not known yet.
pub(super) struct Stranger {
    credentials: Credentials,
    message: Bytes,
}

impl Stranger {
    fn bytes(&self) -> usize {
        CALL_BYTES + self.message.len() + self.credentials.len()
    }
}

impl Services {
    /// The operation, if the caller may do it now.
    pub(super) fn authorise<T: Operation>(
        &self,
        waiting: &Waiting,
        operation: T,
    ) -> Result<Authorised<T>, Status> {
        let caller = waiting.who.caller()?;
        Ok(self.shared.view.authorise(caller, operation)?)
    }

    /// For what only a user with the root role may do.
    pub(super) fn root(&self, waiting: &Waiting) -> Result<Authorised<Root>, Status> {
        self.authorise(waiting, Root)
    }

    /// For what every user may do.
    pub(super) fn user(&self, waiting: &Waiting) -> Result<Authorised<LoggedIn>, Status> {
        self.authorise(waiting, LoggedIn)
    }

    /// Serves a unary call once its caller is known.
    pub(super) fn serve_as(
        &mut self,
        net: &mut Net,
        mut waiting: Waiting,
        credentials: Credentials,
        message: Bytes,
    ) -> Result<(), Status> {
        if let Some(who) = self.shared.auth.identify(&credentials) {
            waiting.who = who;
            return self.serve(net, waiting, message);
        }
        let stranger = Stranger {
            credentials,
            message,
        };
        if self.strangers.bytes + stranger.bytes() > BYTES_MAX {
            return Err(Error::InvalidAuthToken.into());
        }
        self.strangers.bytes += stranger.bytes();
        let slot = self
            .slots
            .insert(Pending::Stranger(waiting, Box::new(stranger)));
        self.reads.push(token(self.thread, slot));
        Ok(())
    }

    /// A unary call's token is known now, or never will be.
    fn serve_stranger(&mut self, net: &mut Net, waiting: Waiting, stranger: Stranger) {
        self.strangers.bytes -= stranger.bytes();
        let Stranger {
            mut credentials,
            message,
        } = stranger;
        credentials.set_waited();
        let call = waiting.clone();
        if let Err(status) = self.serve_as(net, waiting, credentials, message) {
            self.refuse(net, &call, status);
        }
    }

    /// What was waited for, to know who calls, has come to pass or failed.
    pub(super) fn go_on(&mut self, net: &mut Net, pending: Pending) -> Option<Pending> {
        match pending {
            Pending::Stranger(waiting, stranger) => self.serve_stranger(net, waiting, *stranger),
            Pending::StrangerStream(waiting) => self.let_stream_go_on(net, waiting.call),
            pending => return Some(pending),
        }
        None
    }

    fn credentials_of(&mut self, call: CallId) -> Option<&mut Credentials> {
        match self.watch.credentials(call) {
            Some(credentials) => Some(credentials),
            None => self.keep_alives.credentials(call),
        }
    }

    /// Keeps a stream's message back while its token is not known; gives it back otherwise.
    pub(super) fn hold_back(
        &mut self,
        net: &mut Net,
        call: CallId,
        message: Bytes,
    ) -> Option<Bytes> {
        if let Some(held) = self.strangers.streams.get_mut(&call) {
            self.strangers.bytes += message.len();
            held.messages.push_back(message);
            return None;
        }
        if self.shared.view.auth_stamp() == 0 {
            return Some(message);
        }
        let room = self.strangers.bytes + CALL_BYTES + message.len() <= BYTES_MAX;
        let credentials = match self.watch.credentials(call) {
            Some(credentials) => credentials,
            None => self.keep_alives.credentials(call)?,
        };
        if !room || self.shared.auth.identify(credentials).is_some() {
            return Some(message);
        }
        // The client's window bounds what else may come.
        net.hold(call);
        let held = Held {
            messages: [message].into(),
            is_half_closed: false,
        };
        self.strangers.bytes += held.bytes();
        self.strangers.streams.insert(call, held);
        let waiting = Waiting {
            call,
            rpc: Rpc::Watch,
            meter: None,
            begun: net.now(),
            request_bytes: 0,
            span: None,
            who: Who::Nobody,
        };
        let slot = self.slots.insert(Pending::StrangerStream(waiting));
        self.reads.push(token(self.thread, slot));
        None
    }

    /// True when the end of a stream's requests comes after messages that are kept back.
    pub(super) fn hold_half_close(&mut self, call: CallId) -> bool {
        let held = self.strangers.streams.get_mut(&call);
        held.map(|held| held.is_half_closed = true).is_some()
    }

    /// The call is gone.
    pub(super) fn drop_held(&mut self, call: CallId) {
        if let Some(held) = self.strangers.streams.remove(&call) {
            self.strangers.bytes -= held.bytes();
        }
    }

    /// A stream's token is known now, or never will be.
    fn let_stream_go_on(&mut self, net: &mut Net, call: CallId) {
        let Some(held) = self.strangers.streams.remove(&call) else {
            return;
        };
        self.strangers.bytes -= held.bytes();
        if let Some(credentials) = self.credentials_of(call) {
            credentials.set_waited();
        }
        net.resume(call);
        for message in held.messages {
            self.on_message(net, call, message);
        }
        if held.is_half_closed {
            self.on_half_close(net, call);
        }
    }
}

impl Rpc {
    /// Whether a call tells who its caller is: not while it asks for a token, or for health.
    pub(super) fn has_caller(self) -> bool {
        !matches!(
            self,
            Rpc::Authenticate | Rpc::HealthCheck | Rpc::HealthList | Rpc::HealthWatch
        )
    }
}
