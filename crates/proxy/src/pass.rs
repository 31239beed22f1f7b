//! Calls that go through as bytes: the proxy reads their heads and the lengths of their messages.

use std::pin::Pin;
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
    request: Request<Incoming>,
) -> Response<Body> {
    let (head, body) = request.into_parts();
    let body = Relay::new(body, Way::ToCluster, limits.request);
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
        Ok(answer) => answered(answer, limits.answer),
        Err(status) => status.into_http(),
    }
}

fn answered(answer: Response<Incoming>, limit: usize) -> Response<Body> {
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
    ToCluster,
    ToClient,
}

/// A body that is passed on, piece by piece, as the other side takes it.
struct Relay {
    inner: Incoming,
    way: Way,
    messages: Messages,
    /// The status was passed on.
    ended: bool,
}

impl Relay {
    fn new(inner: Incoming, way: Way, limit: usize) -> Self {
        Relay {
            inner,
            way,
            messages: Messages::new(limit),
            ended: false,
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

impl http_body::Body for Relay {
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
                    Some(data) => self.messages.see(data, way),
                    None => Ok(()),
                };
                match seen {
                    Ok(()) => return Poll::Ready(Some(Ok(frame))),
                    Err(status) => status,
                }
            }
            Some(Err(error)) => Status::unavailable(format!("error reading from server: {error}")),
            None if way == Way::ToCluster => return Poll::Ready(None),
            None => Status::unavailable("error reading from server: EOF"),
        };
        Poll::Ready(Some(match way {
            // Breaks the call off; its answer says why.
            Way::ToCluster => Err(failure),
            Way::ToClient => Ok(self.end(&failure)),
        }))
    }

    fn is_end_stream(&self) -> bool {
        match self.way {
            Way::ToCluster => http_body::Body::is_end_stream(&self.inner),
            Way::ToClient => self.ended,
        }
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

/// Where in the sequence of messages a body is.
struct Messages {
    limit: usize,
    /// The begun prefix.
    prefix: [u8; PREFIX_BYTES],
    prefix_filled: usize,
    /// What is missing of the message under way.
    left: usize,
}

impl Messages {
    fn new(limit: usize) -> Self {
        Messages {
            limit,
            prefix: [0; PREFIX_BYTES],
            prefix_filled: 0,
            left: 0,
        }
    }

    /// # Errors
    /// A message that is larger than it may be begins here.
    fn see(&mut self, mut data: &[u8], way: Way) -> Result<(), Status> {
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
            if self.left > self.limit {
                return Err(too_large(way, self.left, self.limit));
            }
        }
        Ok(())
    }
}

fn too_large(way: Way, size: usize, limit: usize) -> Status {
    Status::resource_exhausted(match way {
        Way::ToCluster => format!("trying to send message larger than max ({size} vs. {limit})"),
        Way::ToClient => format!("grpc: received message larger than max ({size} vs. {limit})"),
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
            let see_all = |limit| {
                let mut messages = Messages::new(limit);
                body.chunks(piece)
                    .try_for_each(|data| messages.see(data, Way::ToClient))
            };
            assert!(see_all(10).is_ok());
            let refusal = see_all(9).unwrap_err();
            let want = "grpc: received message larger than max (10 vs. 9)";
            assert_eq!(refusal.message(), want, "{piece}");
        }
    }
}
