//! Calls that go through as bytes: the proxy reads their heads and the lengths of their messages.

use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use client::Channel;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode};
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::Service;

/// What of a request's head goes on to the cluster: gRPC's own, and who calls.
const REQUEST_HEADERS: &[&str] = &[
    "content-type",
    "te",
    "grpc-timeout",
    "grpc-encoding",
    "grpc-accept-encoding",
    "token",
    "authorization",
    "hasleader",
];

/// Bytes before each message: whether it is compressed, and its length.
const PREFIX_BYTES: usize = 5;

/// The largest messages that go through, in bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Of one to the cluster.
    pub(crate) request: usize,
    /// Of one from the cluster.
    pub(crate) answer: usize,
}

/// Passes a call on to a member, and its answer back.
pub(crate) async fn pass(
    mut channel: Channel,
    limits: Limits,
    request: Request<Body>,
) -> Response<Body> {
    let (head, body) = request.into_parts();
    let body = Relay::new(body, Way::ToCluster, limits.request);
    let failure = Arc::clone(&body.failure);
    let mut onward = Request::new(Body::new(body));
    *onward.method_mut() = head.method;
    *onward.uri_mut() = head.uri;
    *onward.version_mut() = http::Version::HTTP_2;
    copy(REQUEST_HEADERS, &head.headers, onward.headers_mut());
    onward.headers_mut().insert(
        HeaderName::from_static("client-api-version"),
        HeaderValue::from_static(client::API_VERSION),
    );
    match channel.call(onward).await {
        Ok(answer) => answered(answer, limits.answer, channel),
        // What broke the call off on this side says more than how it broke there.
        Err(status) => failure.get().cloned().unwrap_or(status).into_http(),
    }
}

/// A request's body of whose messages none may be larger than `limit` bytes.
pub(crate) fn limited(request: Request<Body>, limit: usize) -> Request<Body> {
    request.map(|body| Body::new(Relay::new(body, Way::FromClient, limit)))
}

fn answered(answer: Response<Incoming>, limit: usize, channel: Channel) -> Response<Body> {
    let (head, body) = answer.into_parts();
    if head.status != StatusCode::OK {
        let text = format!(
            "unexpected HTTP status code received from server: {} ({})",
            head.status.as_u16(),
            head.status.canonical_reason().unwrap_or_default()
        );
        return Status::unavailable(text).into_http();
    }
    let mut relay = Relay::new(body, Way::ToClient, limit);
    relay.channel = Some(channel);
    // An answer without messages may have its status in its head.
    relay.ended = head.headers.contains_key("grpc-status");
    let mut back = Response::new(Body::new(relay));
    *back.headers_mut() = head.headers;
    back
}

fn copy(names: &[&'static str], from: &HeaderMap, to: &mut HeaderMap) {
    for name in names {
        for value in from.get_all(*name) {
            to.append(HeaderName::from_static(name), value.clone());
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// To be read here.
    FromClient,
    ToCluster,
    ToClient,
}

/// A body that is passed on, piece by piece, as the other side takes it.
struct Relay<B> {
    inner: B,
    way: Way,
    messages: Messages,
    /// The status was passed on.
    ended: bool,
    /// Why a request was broken off here.
    failure: Arc<OnceLock<Status>>,
    /// Holds the connection over which an answer comes.
    channel: Option<Channel>,
}

impl<B> Relay<B> {
    fn new(inner: B, way: Way, limit: usize) -> Self {
        Relay {
            inner,
            way,
            messages: Messages::new(limit),
            ended: false,
            failure: Arc::default(),
            channel: None,
        }
    }

    /// Ends the answer with a status of the proxy's own.
    fn end(&mut self, status: &Status) -> Frame<Bytes> {
        self.ended = true;
        let mut trailers = HeaderMap::new();
        // A text that no header can carry is left out; the code is not.
        if status.add_header(&mut trailers).is_err() {
            trailers.insert("grpc-status", HeaderValue::from(status.code() as i32));
        }
        Frame::trailers(trailers)
    }
}

impl<B> http_body::Body for Relay<B>
where
    B: http_body::Body<Data = Bytes> + Unpin,
    B::Error: std::fmt::Display,
{
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let way = self.way;
        if way == Way::ToClient && self.ended {
            return Poll::Ready(None);
        }
        let polled = ready!(Pin::new(&mut self.inner).poll_frame(context));
        let failure = match polled {
            Some(Ok(frame)) => {
                if frame.is_trailers() {
                    self.ended = true;
                }
                let seen = match frame.data_ref() {
                    Some(data) => self.messages.see(data),
                    None => Ok(0),
                };
                match seen {
                    Ok(_) => return Poll::Ready(Some(Ok(frame))),
                    Err(size) => too_large(way, size, self.messages.limit),
                }
            }
            Some(Err(error)) => Status::unavailable(format!("error reading from server: {error}")),
            None if way != Way::ToClient => return Poll::Ready(None),
            None => Status::unavailable("error reading from server: EOF"),
        };
        Poll::Ready(Some(match way {
            Way::ToClient => Ok(self.end(&failure)),
            Way::FromClient | Way::ToCluster => {
                // Breaks the call off, at once and for one reason.
                Err(self.failure.get_or_init(|| failure).clone())
            }
        }))
    }

    fn is_end_stream(&self) -> bool {
        match self.way {
            Way::ToClient => self.ended,
            Way::FromClient | Way::ToCluster => self.inner.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

/// Where in the sequence of messages a body is.
pub(crate) struct Messages {
    limit: usize,
    /// The begun prefix.
    prefix: [u8; PREFIX_BYTES],
    prefix_filled: usize,
    /// What is missing of the message under way.
    left: usize,
}

impl Messages {
    pub(crate) fn new(limit: usize) -> Self {
        Messages {
            limit,
            prefix: [0; PREFIX_BYTES],
            prefix_filled: 0,
            left: 0,
        }
    }

    /// Goes on through `data`, and returns how many messages begin there.
    ///
    /// # Errors
    /// The size of one that is larger than it may be.
    pub(crate) fn see(&mut self, mut data: &[u8]) -> Result<u64, usize> {
        let mut count = 0;
        while !data.is_empty() {
            if self.left > 0 {
                let taken = self.left.min(data.len());
                self.left -= taken;
                data.advance(taken);
                continue;
            }
            let wanted = PREFIX_BYTES - self.prefix_filled;
            let taken = wanted.min(data.len());
            self.prefix[self.prefix_filled..][..taken].copy_from_slice(&data[..taken]);
            data.advance(taken);
            self.prefix_filled += taken;
            if self.prefix_filled < PREFIX_BYTES {
                continue;
            }
            self.prefix_filled = 0;
            let [_, length @ ..] = self.prefix;
            self.left = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
            count += 1;
            if self.left > self.limit {
                return Err(self.left);
            }
        }
        Ok(count)
    }
}

fn too_large(way: Way, size: usize, limit: usize) -> Status {
    Status::resource_exhausted(match way {
        Way::ToCluster => format!("trying to send message larger than max ({size} vs. {limit})"),
        Way::FromClient | Way::ToClient => {
            format!("grpc: received message larger than max ({size} vs. {limit})")
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_found_wherever_a_body_is_cut() {
        let mut body = Vec::new();
        for length in [0_u32, 3, 10] {
            body.push(0);
            body.extend(length.to_be_bytes());
            body.extend(std::iter::repeat_n(7, length as usize));
        }
        for piece in 1..body.len() {
            let see_all = |limit| -> Result<u64, usize> {
                let mut messages = Messages::new(limit);
                body.chunks(piece).map(|data| messages.see(data)).sum()
            };
            assert_eq!(see_all(10), Ok(3), "{piece}");
            assert_eq!(see_all(9), Err(10), "{piece}");
        }
    }
}
