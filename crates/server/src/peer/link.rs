//! What this member knows about one other, and what is on its way to it.
//!
//! Messages wait undecoded and unencoded in one of three queues: appends for the `msgapp` stream,
//! everything else for the `message` stream, and whatever finds no stream for the pipeline. Each
//! queue is bounded; what does not fit is lost, and raft is told so.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use api::ids::MemberId;
use node::peer::stream::{self, AppendWriter};
use node::raft::{Message, MessageKind};
use tokio::sync::Notify;

use super::contacts::Contacts;
use crate::config::Url;
use crate::metrics::{Counter, Gauge};

/// Messages that may wait for a stream, as in etcd.
const STREAM_QUEUE_MAX: usize = 4096;
/// Messages that may wait for the pipeline, as in etcd.
const PIPELINE_QUEUE_MAX: usize = 64;
/// Bytes after which a piece of a stream is long enough.
const PIECE_BYTES: usize = 128 << 10;

/// The two streams, each named for its path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lane {
    /// `msgapp`: appends.
    Append,
    /// `message`: everything else, so that heartbeats never wait behind entries.
    Other,
}

impl Lane {
    pub(super) const ALL: [Lane; 2] = [Lane::Append, Lane::Other];

    /// The path under which the stream is asked for, without the asker's id.
    pub(super) fn path(self) -> &'static str {
        match self {
            Lane::Append => "/raft/stream/msgapp",
            Lane::Other => "/raft/stream/message",
        }
    }

    /// etcd's name in its log.
    pub(super) fn name(self) -> &'static str {
        match self {
            Lane::Append => "stream MsgApp v2",
            Lane::Other => "stream Message",
        }
    }
}

#[derive(Default)]
struct Queue {
    messages: VecDeque<Message>,
    /// The connection that drains the queue and has nothing to do.
    waker: Option<Waker>,
    /// The number of the connection that drains the queue; 0 while there is none.
    attached: u64,
}

#[derive(Default)]
struct Queues {
    append: Queue,
    other: Queue,
    pipeline: VecDeque<Message>,
    /// Connections that ever were attached.
    attached_ever: u64,
    /// The member is none any more: streams end behind what waits for them.
    is_ending: bool,
}

impl Queues {
    fn lane(&mut self, lane: Lane) -> &mut Queue {
        match lane {
            Lane::Append => &mut self.append,
            Lane::Other => &mut self.other,
        }
    }
}

/// What the link counts.
pub(super) struct Meters {
    pub(super) sent_bytes: Arc<Counter>,
    pub(super) sent_failures: Arc<Counter>,
    pub(super) received_bytes: Arc<Counter>,
    pub(super) is_active: Arc<Gauge>,
    pub(super) disconnected: Arc<Counter>,
}

/// The URLs of a member and which one is tried next.
struct Urls {
    list: Vec<Url>,
    picked: usize,
}

/// One other member. Everything here is touched by the peer thread alone, so that no lock waits.
pub(super) struct Link {
    pub(super) id: MemberId,
    urls: Mutex<Urls>,
    queues: Mutex<Queues>,
    pub(super) pipeline: Notify,
    contacts: Arc<Contacts>,
    pub(super) meters: Meters,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Link {
    pub(super) fn new(
        id: MemberId,
        urls: Vec<Url>,
        contacts: Arc<Contacts>,
        meters: Meters,
    ) -> Link {
        Link {
            id,
            urls: Mutex::new(Urls {
                list: urls,
                picked: 0,
            }),
            queues: Mutex::default(),
            pipeline: Notify::new(),
            contacts,
            meters,
        }
    }

    /// The URL to try now.
    pub(super) fn url(&self) -> Option<Url> {
        let urls = lock(&self.urls);
        urls.list.get(urls.picked).cloned()
    }

    /// Every URL.
    pub(super) fn urls(&self) -> Vec<Url> {
        lock(&self.urls).list.clone()
    }

    /// A URL did not work: the next one's turn.
    pub(super) fn unreachable(&self, url: &Url) {
        let mut urls = lock(&self.urls);
        if urls.list.get(urls.picked) == Some(url) {
            urls.picked = (urls.picked + 1) % urls.list.len();
        }
    }

    pub(super) fn set_urls(&self, list: Vec<Url>) {
        let mut urls = lock(&self.urls);
        if urls.list != list {
            *urls = Urls { list, picked: 0 };
        }
    }

    /// Puts a message on its way; false when it is lost because its queue is full.
    pub(super) fn send(&self, message: Message) -> bool {
        let mut queues = lock(&self.queues);
        let fits_append = message.kind == MessageKind::Append && queues.append.attached != 0;
        let queue = match fits_append {
            true => &mut queues.append,
            false => &mut queues.other,
        };
        if queue.attached == 0 {
            if queues.pipeline.len() >= PIPELINE_QUEUE_MAX {
                return false;
            }
            queues.pipeline.push_back(message);
            drop(queues);
            self.pipeline.notify_one();
            return true;
        }
        if queue.messages.len() >= STREAM_QUEUE_MAX {
            return false;
        }
        queue.messages.push_back(message);
        let waker = queue.waker.take();
        drop(queues);
        if let Some(waker) = waker {
            waker.wake();
        }
        true
    }

    /// The next message for the pipeline.
    pub(super) fn next_piped(&self) -> Option<Message> {
        lock(&self.queues).pipeline.pop_front()
    }

    /// Whether anything waits for the pipeline.
    pub(super) fn has_piped(&self) -> bool {
        !lock(&self.queues).pipeline.is_empty()
    }

    /// A connection takes over a stream, from the one that had it; gives the connection's number.
    pub(super) fn attach(&self, lane: Lane) -> u64 {
        let mut queues = lock(&self.queues);
        queues.attached_ever += 1;
        let number = queues.attached_ever;
        let queue = queues.lane(lane);
        queue.attached = number;
        let replaced = queue.waker.take();
        drop(queues);
        if let Some(waker) = replaced {
            waker.wake();
        }
        number
    }

    /// A connection is gone; true when messages are lost by that.
    pub(super) fn detach(&self, lane: Lane, number: u64) -> bool {
        let mut queues = lock(&self.queues);
        let queue = queues.lane(lane);
        if queue.attached != number {
            return false;
        }
        let lost = !queue.messages.is_empty();
        *queue = Queue::default();
        lost
    }

    /// Encodes what waits for a stream, a piece at most. False when the connection was replaced, or
    /// when nothing waits and the member is none any more; otherwise, when nothing waits, `waker`
    /// is woken as soon as something does.
    pub(super) fn fill(
        &self,
        lane: Lane,
        number: u64,
        waker: &Waker,
        writer: &mut AppendWriter,
        out: &mut Vec<u8>,
    ) -> bool {
        let mut queues = lock(&self.queues);
        let is_ending = queues.is_ending;
        let queue = queues.lane(lane);
        if queue.attached != number {
            return false;
        }
        while out.len() < PIECE_BYTES
            && let Some(message) = queue.messages.pop_front()
        {
            match lane {
                Lane::Append => writer.put(&message, out),
                Lane::Other => stream::put_message(&message, out),
            }
        }
        if out.is_empty() {
            queue.waker = Some(waker.clone());
            return !is_ending;
        }
        true
    }

    /// The member was reached.
    pub(super) fn on_active(&self) {
        if self.contacts.begin(self.id) {
            self.meters.is_active.set(1);
            tracing::info!("peer-id" = %self.id, "peer became active");
        }
    }

    /// The member is none any more. It still gets what waits for it, and with that the word that its
    /// removal was agreed on, by which it answers whoever asked it for that; then its streams end,
    /// and it is refused new ones.
    pub(super) fn on_removed(&self) {
        let mut queues = lock(&self.queues);
        queues.is_ending = true;
        let wakers = Lane::ALL.map(|lane| queues.lane(lane).waker.take());
        drop(queues);
        wakers.into_iter().flatten().for_each(Waker::wake);
        self.contacts.end(self.id);
        self.meters.is_active.set(0);
    }

    /// The member was not reached.
    pub(super) fn on_inactive(&self, what: &str, error: &dyn std::fmt::Display) {
        if self.contacts.end(self.id) {
            self.meters.is_active.set(0);
            self.meters.disconnected.inc();
            tracing::warn!(
                "peer-id" = %self.id,
                %error,
                "peer became inactive ({what})"
            );
        } else {
            tracing::debug!("peer-id" = %self.id, %error, "peer is still inactive ({what})");
        }
    }
}

#[cfg(test)]
mod tests;
