//! Results on their way from the core to whoever asked: one batch of mail for each net thread.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use api::{Error, Status};
use node::machine::Token;
use state::Reply;
use storage::bolt::ReadTx;
use tokio::sync::oneshot;

use crate::front::{CallId, Mailbox};

/// What the core, or a background thread, tells the asker of a request.
pub(crate) enum Mail {
    /// The entry was applied.
    Applied(Token, Result<Reply, Error>),
    /// A linearizable read may be served from the state now.
    ReadReady(Token),
    /// The request failed before, or without, its entry.
    Failed(Token, Error),
    /// The lease that a keep-alive stream waits for was revoked, or the leader changed.
    LeaseSettled(CallId),
    /// A slow answer, computed elsewhere and already encoded.
    Answer(Token, Result<Vec<u8>, Status>),
    /// What a hashing thread was asked for: a hash, nothing, or a token.
    Secret(Token, Result<String, Status>),
    /// The database as it was asked for.
    Pinned(Token, ReadTx),
    /// There is something for watchers.
    Events,
}

/// Names the asker: the net thread in the upper 8 bits, its slot in the others.
pub(crate) fn token(thread: u8, slot: usize) -> Token {
    Token(u64::from(thread) << 56 | slot as u64)
}

/// The slot that [`token`] was made of.
pub(crate) fn slot_of(token: Token) -> usize {
    (token.0 & (u64::MAX >> 8)) as usize
}

fn thread_of(token: Token) -> u8 {
    (token.0 >> 56) as u8
}

/// The thread number of those who ask from outside the net threads.
pub(crate) const DESK: u8 = u8::MAX;

/// The token of a request that nobody waits for.
pub(crate) const UNATTENDED: Token = Token((DESK as u64) << 56 | u64::MAX >> 8);

/// The token of the hand-over of leadership that a stop begins with.
pub(crate) const HAND_OVER: Token = Token(UNATTENDED.0 - 1);

/// What an asker outside the net threads gets.
pub(crate) enum Outcome {
    ReadReady,
    /// The entry was applied.
    Applied(Result<(), Error>),
    Failed(Error),
}

/// Askers outside the net threads: health checks and other rare requests.
#[derive(Default)]
pub(crate) struct Desk {
    waiting: Mutex<DeskState>,
}

#[derive(Default)]
struct DeskState {
    next: usize,
    waiting: HashMap<usize, oneshot::Sender<Outcome>>,
}

impl Desk {
    /// A token, and where the outcome will arrive.
    pub(crate) fn open(&self) -> (Token, oneshot::Receiver<Outcome>) {
        let (sender, receiver) = oneshot::channel();
        let mut state = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let slot = state.next;
        state.next += 1;
        state.waiting.insert(slot, sender);
        (token(DESK, slot), receiver)
    }

    fn settle(&self, mail: Mail) {
        let (token, outcome) = match mail {
            Mail::ReadReady(token) => (token, Outcome::ReadReady),
            Mail::Failed(token, error) => (token, Outcome::Failed(error)),
            Mail::Applied(token, outcome) => (token, Outcome::Applied(outcome.map(drop))),
            // Nobody at the desk waits for slow answers.
            Mail::Answer(..)
            | Mail::Secret(..)
            | Mail::LeaseSettled(_)
            | Mail::Pinned(..)
            | Mail::Events => return,
        };
        let mut state = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sender) = state.waiting.remove(&slot_of(token)) {
            // An asker that stopped waiting needs no answer.
            let _ = sender.send(outcome);
        }
    }
}

/// Outgoing mail, sorted by receiver.
pub(crate) struct Post {
    boxes: Vec<Mailbox<Mail>>,
    outgoing: Vec<Vec<Mail>>,
    desk: Arc<Desk>,
}

impl Post {
    pub(crate) fn new(boxes: Vec<Mailbox<Mail>>, desk: Arc<Desk>) -> Post {
        let outgoing = boxes.iter().map(|_| Vec::new()).collect();
        Post {
            boxes,
            outgoing,
            desk,
        }
    }

    /// Puts one piece into the batch of its receiver.
    pub(crate) fn put(&mut self, mail: Mail) {
        let thread = match &mail {
            Mail::Applied(token, _)
            | Mail::ReadReady(token)
            | Mail::Failed(token, _)
            | Mail::Pinned(token, _)
            | Mail::Secret(token, _)
            | Mail::Answer(token, _) => usize::from(thread_of(*token)),
            Mail::LeaseSettled(call) => call.thread(),
            // See `put_events`.
            Mail::Events => return,
        };
        match self.outgoing.get_mut(thread) {
            Some(batch) => batch.push(mail),
            None => self.desk.settle(mail),
        }
    }

    /// Tells threads, a bit for each, that there is something for watchers.
    pub(crate) fn put_events(&mut self, threads: u64) {
        for (thread, batch) in self.outgoing.iter_mut().enumerate().take(64) {
            if threads >> thread & 1 == 1 {
                batch.push(Mail::Events);
            }
        }
    }

    /// Sends every batch.
    pub(crate) fn deliver(&mut self) {
        for (mailbox, batch) in self.boxes.iter().zip(&mut self.outgoing) {
            mailbox.push(batch);
        }
    }
}
