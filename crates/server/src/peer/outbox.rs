//! The way to the peer thread: batches under a lock, and a wake-up only for a sleeper.

use std::sync::{Mutex, PoisonError};
use std::task::{Poll, Waker};

use api::ids::MemberId;
use api::pb::etcdserverpb::LeaseTimeToLiveRequest;
use bytes::Bytes;
use node::machine::Token;
use node::member::Outgoing;
use node::raft::Message;

/// What the peer thread is told.
pub(crate) enum ToPeers {
    Send(Vec<Message>),
    /// Send a database.
    Database(Box<Outgoing>),
    /// The members of the cluster are now these, with their peer URLs.
    Members(Vec<(MemberId, Vec<String>)>),
    /// Ask the other members what they run.
    AskVersions,
    /// Renew a lease through the leader, for a client of this member.
    Renew {
        id: i64,
        token: Token,
    },
    /// Ask the leader how long a lease has left, for a client of this member.
    TimeToLive(LeaseTimeToLiveRequest, Token),
    /// Ask the leader to promote a learner, for a client of this member.
    Promote {
        id: MemberId,
        token: Token,
        /// What the client showed.
        bearer: Option<Bytes>,
    },
}

#[derive(Default)]
struct Queue {
    items: Vec<ToPeers>,
    /// The router, when it sleeps.
    sleeper: Option<Waker>,
    is_closed: bool,
}

/// Written by the core, read by the router.
#[derive(Default)]
pub(crate) struct Outbox(Mutex<Queue>);

impl Outbox {
    /// Adds an item; nothing happens once the thread is gone.
    pub(crate) fn push(&self, item: ToPeers) {
        let mut queue = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if queue.is_closed {
            return;
        }
        queue.items.push(item);
        let sleeper = queue.sleeper.take();
        drop(queue);
        if let Some(sleeper) = sleeper {
            sleeper.wake();
        }
    }

    /// Nothing is taken any more.
    pub(super) fn close(&self) {
        let mut queue = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *queue = Queue {
            is_closed: true,
            ..Queue::default()
        };
    }

    /// Everything that is there, once there is something.
    pub(super) async fn take(&self) -> Vec<ToPeers> {
        std::future::poll_fn(|context| {
            let mut queue = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if queue.items.is_empty() {
                queue.sleeper = Some(context.waker().clone());
                return Poll::Pending;
            }
            Poll::Ready(std::mem::take(&mut queue.items))
        })
        .await
    }
}
