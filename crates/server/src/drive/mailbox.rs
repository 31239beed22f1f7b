//! A queue into one thread: senders append batches, and wake the thread only when it sleeps.

use std::sync::{Mutex, OnceLock, PoisonError};
use std::thread::{self, Thread};
use std::time::Instant;

struct Queue<T> {
    items: Vec<T>,
    /// Set by the receiver before it parks, cleared by whoever unparks it.
    sleeping: bool,
}

/// Many senders, one receiving thread.
pub(crate) struct Mailbox<T> {
    queue: Mutex<Queue<T>>,
    /// Set once, by the receiver, before its first wait.
    receiver: OnceLock<Thread>,
}

impl<T> Mailbox<T> {
    pub(crate) fn new() -> Self {
        let queue = Queue {
            items: Vec::new(),
            sleeping: false,
        };
        Mailbox {
            queue: Mutex::new(queue),
            receiver: OnceLock::new(),
        }
    }

    /// Appends one item.
    pub(crate) fn push(&self, item: T) {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        queue.items.push(item);
        let wake = std::mem::take(&mut queue.sleeping);
        drop(queue);
        if wake {
            self.unpark();
        }
    }

    /// Wakes the receiver as if something had arrived.
    pub(crate) fn unpark(&self) {
        if let Some(thread) = self.receiver.get() {
            thread.unpark();
        }
    }

    fn drain(queue: &mut Queue<T>, into: &mut Vec<T>) -> bool {
        if queue.items.is_empty() {
            return false;
        }
        if into.is_empty() {
            std::mem::swap(&mut queue.items, into);
        } else {
            into.append(&mut queue.items);
        }
        true
    }

    /// Moves everything that arrived into `into`, after sleeping until there is something; false
    /// if there is nothing at `deadline`. Only the receiving thread may call this, and always the
    /// same one.
    pub(crate) fn wait(&self, into: &mut Vec<T>, deadline: Option<Instant>) -> bool {
        self.receiver.get_or_init(thread::current);
        loop {
            let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
            if Self::drain(&mut queue, into) {
                return true;
            }
            let patience = deadline.map(|at| at.saturating_duration_since(Instant::now()));
            if patience.is_some_and(|left| left.is_zero()) {
                return false;
            }
            queue.sleeping = true;
            drop(queue);
            match patience {
                Some(left) => thread::park_timeout(left),
                None => thread::park(),
            }
            let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
            queue.sleeping = false;
            if Self::drain(&mut queue, into) {
                return true;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::time::Duration;

    #[test]
    fn nothing_is_lost_between_many_senders_and_a_receiver_that_sleeps() {
        let mailbox = Arc::new(Mailbox::new());
        let senders: Vec<_> = (0..4u64)
            .map(|sender| {
                let mailbox = Arc::clone(&mailbox);
                thread::spawn(move || (0..20_000).for_each(|n| mailbox.push(sender << 32 | n)))
            })
            .collect();
        let give_up = Instant::now() + Duration::from_secs(60);
        let mut next = [0u64; 4];
        let mut batch = Vec::new();
        while next.iter().sum::<u64>() < 80_000 {
            assert!(
                mailbox.wait(&mut batch, Some(give_up)),
                "a wake-up was lost: {next:?}"
            );
            for item in batch.drain(..) {
                let sender = usize::try_from(item >> 32).unwrap();
                assert_eq!(item & 0xffff_ffff, next[sender]);
                next[sender] += 1;
            }
        }
        senders
            .into_iter()
            .for_each(|sender| sender.join().unwrap());
    }

    #[test]
    fn waiting_ends_at_the_deadline() {
        let mailbox = Mailbox::<u8>::new();
        let deadline = Instant::now() + Duration::from_millis(5);
        assert!(!mailbox.wait(&mut Vec::new(), Some(deadline)));
        assert!(Instant::now() >= deadline);
    }
}
