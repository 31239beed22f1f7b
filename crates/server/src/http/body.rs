//! What follows the head of a request, and what an answer carries.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body as _, Incoming};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::sync::mpsc;

/// The body of an answer; an error breaks the connection off.
pub type Body = UnsyncBoxBody<Bytes, io::Error>;

/// A body of one piece.
pub(crate) fn whole(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into())
        .map_err(|never| match never {})
        .boxed_unsync()
}

/// The body of a request, from wherever it comes.
#[derive(Debug)]
pub enum RequestBody {
    /// Complete, or the rest of it.
    Whole(Bytes),
    /// From an HTTP/1.1 connection, as it arrives.
    Connection(Incoming),
    /// The messages of a web socket.
    Messages(mpsc::Receiver<Bytes>),
}

impl RequestBody {
    /// Waits for the next bytes; none at the end.
    ///
    /// # Errors
    /// The client breaks a rule, or is gone.
    pub(crate) fn poll_bytes(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        match self {
            RequestBody::Whole(bytes) if bytes.is_empty() => Poll::Ready(None),
            RequestBody::Whole(bytes) => Poll::Ready(Some(Ok(std::mem::take(bytes)))),
            RequestBody::Messages(messages) => messages.poll_recv(cx).map(|it| it.map(Ok)),
            RequestBody::Connection(body) => loop {
                let frame = ready!(Pin::new(&mut *body).poll_frame(cx));
                match frame {
                    None => return Poll::Ready(None),
                    Some(Err(error)) => return Poll::Ready(Some(Err(io::Error::other(error)))),
                    Some(Ok(frame)) => {
                        if let Ok(bytes) = frame.into_data() {
                            return Poll::Ready(Some(Ok(bytes)));
                        }
                    }
                }
            },
        }
    }

    /// As [`Self::poll_bytes`].
    pub(crate) async fn bytes(&mut self) -> Option<io::Result<Bytes>> {
        std::future::poll_fn(|cx| self.poll_bytes(cx)).await
    }

    /// Whether the body belongs to a web socket, whose end is the end of the conversation.
    pub(crate) fn is_messages(&self) -> bool {
        matches!(self, RequestBody::Messages(_))
    }
}

/// What comes behind the head of a request.
pub struct Tail {
    pub body: RequestBody,
    /// Where the connection can become something else than HTTP.
    pub upgrade: Option<Upgrade>,
}

impl Tail {
    /// A body on a connection that stays HTTP.
    #[must_use]
    pub fn of(body: RequestBody) -> Tail {
        Tail {
            body,
            upgrade: None,
        }
    }
}

type Next = Pin<Box<dyn Future<Output = ()> + Send>>;

/// What a connection does when HTTP is done with it.
#[derive(Clone, Default)]
pub(super) struct Afterwards(Arc<Mutex<Option<Next>>>);

impl Afterwards {
    pub(super) fn take(&self) -> Option<Next> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// The way to give a connection another protocol.
pub struct Upgrade {
    on: OnUpgrade,
    afterwards: Afterwards,
}

impl Upgrade {
    pub(super) fn new(on: OnUpgrade, afterwards: Afterwards) -> Upgrade {
        Upgrade { on, afterwards }
    }

    /// Goes on with `next` when the answer, whose status must be 101, has been sent.
    pub(crate) fn to<F>(self, next: impl FnOnce(TokioIo<Upgraded>) -> F + Send + 'static)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let on = self.on;
        let next = Box::pin(async move {
            // Without it the client went before it had the answer.
            if let Ok(socket) = on.await {
                next(TokioIo::new(socket)).await;
            }
        });
        let mut slot = self
            .afterwards
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *slot = Some(next);
    }
}
