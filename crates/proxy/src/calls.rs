//! Counting calls and their messages, and a line in the log for each call that wants one.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use api::Code;
use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use tonic::Status;
use tonic::body::Body;

use crate::host::{CallEvent, Host};
use crate::pass::Messages;

/// One call under way.
pub(crate) struct Call {
    host: Arc<dyn Host>,
    path: String,
    begun: Instant,
    is_logged: bool,
}

impl Call {
    pub(crate) fn begin(host: &Arc<dyn Host>, path: &str, is_logged: bool) -> Arc<Self> {
        host.on_call(path, CallEvent::Started);
        Arc::new(Call {
            host: Arc::clone(host),
            path: path.to_owned(),
            begun: Instant::now(),
            is_logged,
        })
    }

    fn end(&self, code: Code) {
        self.host.on_call(&self.path, CallEvent::Handled(code));
        if self.is_logged {
            tracing::info!(
                method = self.path.as_str(),
                code = ?code,
                took = ?self.begun.elapsed(),
                "finished call"
            );
        }
    }

    /// The request whose messages are counted.
    pub(crate) fn request(self: &Arc<Self>, request: Request<Incoming>) -> Request<Body> {
        let call = Arc::clone(self);
        request.map(|inner| {
            Body::new(Counted {
                inner,
                messages: Messages::new(usize::MAX),
                call,
                event: CallEvent::Received,
            })
        })
    }

    /// The answer whose messages are counted, and with whose status the call ends.
    pub(crate) fn answer(self: &Arc<Self>, answer: Response<Body>) -> Response<Body> {
        let mut end = End {
            call: Arc::clone(self),
            is_over: false,
        };
        end.see(answer.headers());
        answer.map(|inner| {
            let inner = Counted {
                inner,
                messages: Messages::new(usize::MAX),
                call: Arc::clone(self),
                event: CallEvent::Sent,
            };
            Body::new(Ended { inner, end })
        })
    }
}

/// A body whose messages are counted.
struct Counted<B> {
    inner: B,
    messages: Messages,
    call: Arc<Call>,
    event: fn(u64) -> CallEvent,
}

impl<B> http_body::Body for Counted<B>
where
    B: http_body::Body<Data = Bytes> + Unpin,
{
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let polled = ready!(Pin::new(&mut self.inner).poll_frame(context));
        if let Some(Ok(frame)) = &polled
            && let Some(data) = frame.data_ref()
        {
            // Without a limit there is nothing to refuse.
            let count = self.messages.see(data).unwrap_or_default();
            if count > 0 {
                self.call.host.on_call(&self.call.path, (self.event)(count));
            }
        }
        Poll::Ready(polled)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// How a call ends: with a status, or with its client.
struct End {
    call: Arc<Call>,
    is_over: bool,
}

impl End {
    fn see(&mut self, headers: &HeaderMap) {
        let Some(status) = headers.get("grpc-status").filter(|_| !self.is_over) else {
            return;
        };
        self.is_over = true;
        self.call
            .end(client::code_of(tonic::Code::from_bytes(status.as_bytes())));
    }
}

impl Drop for End {
    fn drop(&mut self) {
        if !self.is_over {
            self.call.end(Code::Canceled);
        }
    }
}

/// The body of an answer until its call's end.
struct Ended<B> {
    inner: B,
    end: End,
}

impl<B> http_body::Body for Ended<B>
where
    B: http_body::Body<Data = Bytes, Error = Status> + Unpin,
{
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let polled = ready!(Pin::new(&mut self.inner).poll_frame(context));
        if let Some(Ok(frame)) = &polled
            && let Some(trailers) = frame.trailers_ref()
        {
            self.end.see(trailers);
        }
        Poll::Ready(polled)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
