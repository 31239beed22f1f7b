//! The way into a net thread: batches under a lock, and a wake-up only for a sleeper.
//!
//! Why no wake-up is lost: the consumer sets `sleeping`, then looks into the queue under the lock,
//! and sleeps only if it is empty. A producer appends under the lock, then reads `sleeping`. If
//! the producer's turn with the lock came first, the consumer sees the batch and stays awake; if
//! the consumer's came first, the lock orders its store before the producer's read, and the
//! producer writes to the eventfd, which makes the coming wait return.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::event::{EventfdFlags, eventfd};

use super::net::Control;

#[cfg(test)]
mod tests;

struct Queues<M, C> {
    mail: Vec<M>,
    control: Vec<C>,
}

struct Shared<M, C> {
    queues: Mutex<Queues<M, C>>,
    /// Set by the consumer before it waits, cleared by whoever wakes it.
    sleeping: AtomicBool,
    event: OwnedFd,
}

/// Sends batches to one net thread. Cloning is cheap.
pub struct Mailbox<M, C = Control> {
    shared: Arc<Shared<M, C>>,
}

impl<M, C> Clone for Mailbox<M, C> {
    fn clone(&self) -> Self {
        Mailbox {
            shared: Arc::clone(&self.shared),
        }
    }
}

impl<M, C> Mailbox<M, C> {
    /// One mailbox for each of `threads` net threads.
    ///
    /// # Errors
    /// The process has no file descriptor left.
    pub fn set(threads: usize) -> io::Result<Vec<Self>> {
        (0..threads).map(|_| Mailbox::new()).collect()
    }

    pub(super) fn new() -> io::Result<Self> {
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Mailbox {
            shared: Arc::new(Shared {
                queues: Mutex::new(Queues {
                    mail: Vec::new(),
                    control: Vec::new(),
                }),
                sleeping: AtomicBool::new(false),
                event,
            }),
        })
    }

    fn queues(&self) -> MutexGuard<'_, Queues<M, C>> {
        // The lock guards two vectors that no panic can leave half-changed.
        self.shared
            .queues
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Moves all of `batch` to the thread, in order. An empty batch does nothing.
    pub fn push(&self, batch: &mut Vec<M>) {
        if batch.is_empty() {
            return;
        }
        {
            let mut queues = self.queues();
            if queues.mail.is_empty() {
                std::mem::swap(&mut queues.mail, batch);
            } else {
                queues.mail.append(batch);
            }
        }
        self.wake_sleeper();
    }

    pub(super) fn push_control(&self, control: C) {
        self.queues().control.push(control);
        self.wake_sleeper();
    }

    fn wake_sleeper(&self) {
        if self.shared.sleeping.load(SeqCst) && self.shared.sleeping.swap(false, SeqCst) {
            // A full counter already means a pending wake-up.
            let _ = rustix::io::write(&self.shared.event, &1u64.to_ne_bytes());
        }
    }

    /// Consumer: announces that a wait follows. False if there is something to do first.
    pub(super) fn may_sleep(&self) -> bool {
        self.shared.sleeping.store(true, SeqCst);
        let empty = {
            let queues = self.queues();
            queues.mail.is_empty() && queues.control.is_empty()
        };
        if !empty {
            self.awake();
        }
        empty
    }

    /// Consumer: the wait is over.
    pub(super) fn awake(&self) {
        self.shared.sleeping.store(false, SeqCst);
    }

    /// Consumer: swaps the queues with the given (empty) vectors.
    pub(super) fn take(&self, mail: &mut Vec<M>, control: &mut Vec<C>) {
        debug_assert!(mail.is_empty() && control.is_empty());
        let mut queues = self.queues();
        std::mem::swap(&mut queues.mail, mail);
        std::mem::swap(&mut queues.control, control);
    }

    /// Consumer: what it waits on reports wake-ups under this token. Each is an edge, so that the
    /// eventfd is never read: its counter would take centuries of wake-ups to fill.
    ///
    /// # Errors
    /// The kernel has no memory for it.
    pub(super) fn register(&self, epoll: &OwnedFd, token: EventData) -> io::Result<()> {
        let flags = EventFlags::IN | EventFlags::ET;
        Ok(epoll::add(epoll, &self.shared.event, token, flags)?)
    }
}
