//! One call, from its opening to its end, as a source of JSON.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use api::{Code, Status};
use bytes::Bytes;
use h2::client::ResponseFuture;
use http::HeaderValue;
use http::header::CONTENT_TYPE;
use hyper::body::{Body, Frame};
use tokio::time::{Instant, Sleep};

use super::channel;
use super::download::{Download, Piece};
use super::refusal::error_line;
use super::schema::Method;

/// Sends what the client says; gives back why the call must end, if so.
pub(super) type Upload = Pin<Box<dyn Future<Output = Option<Status>> + Send>>;

/// A call under way. Dropped before its end, it is cancelled.
pub(super) struct Conversation {
    method: &'static Method,
    upload: Option<Upload>,
    response: Option<ResponseFuture>,
    download: Option<Download>,
    deadline: Option<Pin<Box<Sleep>>>,
    /// Content type of the gRPC answer, once it has begun with headers.
    pub(super) grpc_type: Option<HeaderValue>,
}

impl Conversation {
    pub(super) fn new(
        method: &'static Method,
        response: ResponseFuture,
        upload: Option<Upload>,
        deadline: Option<Instant>,
    ) -> Conversation {
        Conversation {
            method,
            upload,
            response: Some(response),
            download: None,
            deadline: deadline.map(|deadline| Box::pin(tokio::time::sleep_until(deadline))),
            grpc_type: None,
        }
    }

    /// Whether the answer is a stream of messages.
    pub(super) fn is_streaming(&self) -> bool {
        self.method.server_streaming
    }

    /// Waits for the next piece; nothing may be asked for behind the end.
    pub(super) fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Piece> {
        if let Some(deadline) = &mut self.deadline
            && deadline.as_mut().poll(cx).is_ready()
        {
            return Poll::Ready(Piece::End(expired()));
        }
        if let Some(upload) = &mut self.upload
            && let Poll::Ready(fault) = upload.as_mut().poll(cx)
        {
            self.upload = None;
            if let Some(status) = fault {
                return Poll::Ready(Piece::End(status));
            }
        }
        if let Some(response) = &mut self.response {
            let response = match ready!(Pin::new(response).poll(cx)) {
                Ok(response) => response,
                Err(error) => return Poll::Ready(Piece::End(channel::fault(&error))),
            };
            self.response = None;
            let (head, recv) = response.into_parts();
            if let Some(status) = channel::status(&head.headers) {
                return Poll::Ready(Piece::End(status));
            }
            self.grpc_type = head.headers.get(CONTENT_TYPE).cloned();
            self.download = Some(Download::new(self.method, recv));
        }
        match &mut self.download {
            Some(download) => download.poll_piece(cx),
            None => Poll::Ready(Piece::End(Status::new(Code::Internal, "no answer"))),
        }
    }
}

/// The status of a call whose time is over.
pub(super) fn expired() -> Status {
    Status::new(Code::DeadlineExceeded, "context deadline exceeded")
}

/// The rest of an answer that is not sent in one piece.
pub(super) struct Rest {
    /// What was received already.
    pub(super) first: Option<Bytes>,
    /// None once the call is over.
    pub(super) conversation: Option<Conversation>,
}

impl Body for Rest {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(Ok(Frame::data(first))));
        }
        let Some(conversation) = &mut self.conversation else {
            return Poll::Ready(None);
        };
        let piece = ready!(conversation.poll_piece(cx));
        let streaming = conversation.method.server_streaming;
        let status = match piece {
            Piece::Json(json) => return Poll::Ready(Some(Ok(Frame::data(json.into())))),
            Piece::End(status) => status,
        };
        self.conversation = None;
        Poll::Ready(match status.code {
            Code::Ok => None,
            _ if streaming => Some(Ok(Frame::data(error_line(&status).into()))),
            // Half a message was sent, and nothing that follows could say that it is void.
            _ => Some(Err(io::Error::other(status.message))),
        })
    }
}
