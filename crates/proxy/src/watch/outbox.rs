//! Answers on their way to one client: a queue that the client's connection empties.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use api::pb::etcdserverpb::WatchResponse;
use tokio::sync::{Notify, mpsc};
use tonic::Status;
use tonic::codegen::tokio_stream::Stream;

use super::sharing::{Outlet, StreamId};

/// How much waits for a client that does not read before its watchers are left alone, in answers
/// and in bytes. One answer more may follow, however large.
const ANSWERS_MAX: usize = 1024;
const BYTES_MAX: usize = 4 << 20;

/// Both ends of one queue.
pub(super) fn outbox(stream: StreamId, room: mpsc::UnboundedSender<StreamId>) -> (Inlet, Exit) {
    let shared = Arc::new(Shared::default());
    let inlet = Inlet(Arc::clone(&shared));
    let exit = Exit {
        shared,
        stream,
        room,
    };
    (inlet, exit)
}

#[derive(Default)]
struct Shared {
    /// Written by both ends; held for a push or a pop.
    state: Mutex<State>,
    /// Told when there is room again, and when the client has gone.
    changed: Notify,
}

#[derive(Default)]
struct State {
    queue: VecDeque<(WatchResponse, usize)>,
    bytes: usize,
    /// The watchers wait for room.
    starved: bool,
    /// Nothing follows what is queued; with a status, that is not said either.
    end: Option<Option<Status>>,
    /// The client reads no more.
    gone: bool,
    reader: Option<Waker>,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn is_full(&self) -> bool {
        self.queue.len() >= ANSWERS_MAX || self.bytes >= BYTES_MAX
    }

    /// Less than half of what there may be: then it is worth to begin again.
    fn is_low(&self) -> bool {
        self.queue.len() <= ANSWERS_MAX / 2 && self.bytes <= BYTES_MAX / 2
    }

    fn wake(&mut self) {
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }
}

/// Where answers are put.
#[derive(Clone)]
pub(super) struct Inlet(Arc<Shared>);

impl Inlet {
    /// Ends the answers after those that are queued, or at once with a status.
    pub(super) fn end(&self, status: Option<Status>) {
        let mut state = self.0.state();
        if state.end.is_none() {
            state.end = Some(status);
        }
        state.wake();
    }

    /// Waits until the client has read so much that more may be said.
    pub(super) async fn room(&self) {
        self.until(|state| state.gone || !state.is_full()).await;
    }

    /// Waits until the client reads no more.
    pub(super) async fn is_gone(&self) {
        self.until(|state| state.gone).await;
    }

    async fn until(&self, condition: impl Fn(&State) -> bool) {
        loop {
            let changed = self.0.changed.notified();
            if condition(&self.0.state()) {
                return;
            }
            changed.await;
        }
    }
}

impl Outlet for Inlet {
    fn has_room(&mut self) -> bool {
        let mut state = self.0.state();
        let is_full = state.is_full();
        // Who has gone is told of nothing more, and is no reason to wait.
        state.starved |= is_full;
        !is_full || state.gone
    }

    fn push(&mut self, answer: WatchResponse, bytes: usize) {
        let mut state = self.0.state();
        if state.gone || state.end.is_some() {
            return;
        }
        state.bytes += bytes;
        state.queue.push_back((answer, bytes));
        state.wake();
    }
}

/// Where answers come out, as the client takes them.
pub(super) struct Exit {
    shared: Arc<Shared>,
    stream: StreamId,
    room: mpsc::UnboundedSender<StreamId>,
}

impl Stream for Exit {
    type Item = Result<WatchResponse, Status>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut state = self.shared.state();
        if let Some(Some(status)) = &mut state.end {
            let status = status.clone();
            state.end = Some(None);
            state.queue.clear();
            return Poll::Ready(Some(Err(status)));
        }
        let Some((answer, bytes)) = state.queue.pop_front() else {
            if state.end.is_some() {
                return Poll::Ready(None);
            }
            state.reader = Some(context.waker().clone());
            return Poll::Pending;
        };
        let was_full = state.is_full();
        state.bytes -= bytes;
        let again = state.is_low() && std::mem::take(&mut state.starved);
        drop(state);
        if again {
            // Without a receiver the proxy ends.
            let _sent = self.room.send(self.stream);
        }
        if was_full || again {
            self.shared.changed.notify_waiters();
        }
        Poll::Ready(Some(Ok(answer)))
    }
}

impl Drop for Exit {
    fn drop(&mut self) {
        let mut state = self.shared.state();
        state.gone = true;
        state.queue.clear();
        state.bytes = 0;
        drop(state);
        self.shared.changed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use tonic::codegen::tokio_stream::StreamExt;

    use super::*;

    fn answer(watch_id: i64) -> WatchResponse {
        WatchResponse {
            watch_id,
            ..WatchResponse::default()
        }
    }

    #[tokio::test]
    async fn a_full_queue_tells_when_it_is_half_empty() {
        let (room, mut told) = mpsc::unbounded_channel();
        let (mut inlet, mut exit) = outbox(StreamId(7), room);
        for id in 0..4 {
            assert!(inlet.has_room());
            inlet.push(answer(id), BYTES_MAX / 4);
        }
        assert!(!inlet.has_room());
        for id in 0..4 {
            assert_eq!(told.try_recv().ok(), (id == 2).then_some(StreamId(7)));
            let taken = exit.next().await.unwrap().unwrap();
            assert_eq!(taken.watch_id, id);
        }
        assert!(inlet.has_room());
    }

    #[tokio::test]
    async fn a_status_ends_the_answers_at_once() {
        let (room, _told) = mpsc::unbounded_channel();
        let (mut inlet, mut exit) = outbox(StreamId(7), room);
        inlet.push(answer(1), 1);
        inlet.end(Some(Status::unavailable("gone")));
        inlet.push(answer(2), 1);
        assert_eq!(exit.next().await.unwrap().unwrap_err().message(), "gone");
        assert!(exit.next().await.is_none());
    }

    #[tokio::test]
    async fn whoever_goes_is_noticed() {
        let (room, _told) = mpsc::unbounded_channel();
        let (mut inlet, exit) = outbox(StreamId(7), room);
        inlet.push(answer(1), BYTES_MAX);
        drop(exit);
        inlet.is_gone().await;
        inlet.room().await;
        assert!(inlet.has_room());
    }
}
