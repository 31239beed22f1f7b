//! Answers that are errors.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use api::{Code, Status};
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, TE, TRAILER, WWW_AUTHENTICATE};
use http::{HeaderValue, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Frame;

use super::METADATA_CONTENT_TYPE;
use super::decode::{Style, text};
use crate::http::{Answer, Body, Request, whole};

const TRAILER_CONTENT_TYPE: HeaderName = HeaderName::from_static("grpc-trailer-content-type");

/// A call that failed before it answered.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) status: Status,
    /// The call would have answered with a stream.
    pub(super) streaming: bool,
    /// The service said so, rather than the gateway.
    pub(super) by_service: bool,
    /// Content type of the gRPC answer, where that had headers.
    pub(super) grpc_type: Option<HeaderValue>,
}

impl From<Status> for Refusal {
    fn from(status: Status) -> Self {
        Refusal {
            status,
            streaming: false,
            by_service: false,
            grpc_type: None,
        }
    }
}

impl Refusal {
    pub(super) fn answer(self, request: &Request) -> Answer {
        let json = match self.streaming {
            true => error_line(&self.status),
            false => object(&self.status, Style::Plain),
        };
        let te = request
            .headers
            .get(TE)
            .and_then(|value| value.to_str().ok());
        let trailers = self.by_service
            && !self.streaming
            && te.is_some_and(|te| te.to_ascii_lowercase().contains("trailers"));
        let mut answer = Response::new(match trailers {
            true => with_trailers(json),
            false => whole(json),
        });
        *answer.status_mut() = http_status(self.status.code);
        let headers = answer.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(grpc_type) = self.grpc_type {
            headers.insert(METADATA_CONTENT_TYPE, grpc_type);
        }
        if trailers {
            let name = HeaderValue::from_static("Grpc-Trailer-Content-Type");
            headers.insert(TRAILER, name);
        }
        if self.status.code == Code::Unauthenticated
            && !self.streaming
            && let Ok(value) = HeaderValue::from_str(&self.status.message)
        {
            headers.insert(WWW_AUTHENTICATE, value);
        }
        answer
    }
}

/// The trailer that Go's gateway makes of an answer which is nothing but trailers. A body of no
/// announced length, since only such may have trailers.
fn with_trailers(json: Vec<u8>) -> Body {
    let mut trailers = HeaderMap::new();
    let grpc = HeaderValue::from_static("application/grpc");
    trailers.insert(TRAILER_CONTENT_TYPE, grpc);
    let frames = VecDeque::from([Frame::data(Bytes::from(json)), Frame::trailers(trailers)]);
    Frames(frames).boxed_unsync()
}

struct Frames(VecDeque<Frame<Bytes>>);

impl hyper::body::Body for Frames {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        Poll::Ready(self.0.pop_front().map(Ok))
    }
}

/// The error that ends a stream of answers.
pub(super) fn error_line(status: &Status) -> Vec<u8> {
    let mut json = b"{\"error\":".to_vec();
    json.extend_from_slice(&object(status, Style::Html));
    json.extend_from_slice(b"}\n");
    json
}

fn object(status: &Status, style: Style) -> Vec<u8> {
    let mut json = format!("{{\"code\":{}", status.code as i32).into_bytes();
    if !status.message.is_empty() {
        json.extend_from_slice(b",\"message\":");
        text(&status.message, style, &mut json);
    }
    json.push(b'}');
    json
}

/// grpc-gateway's table.
fn http_status(code: Code) -> StatusCode {
    match code {
        Code::Ok => StatusCode::OK,
        Code::Canceled => StatusCode::from_u16(499).expect("three digits"),
        Code::Unknown | Code::Internal | Code::DataLoss => StatusCode::INTERNAL_SERVER_ERROR,
        Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange => {
            StatusCode::BAD_REQUEST
        }
        Code::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::AlreadyExists | Code::Aborted => StatusCode::CONFLICT,
        Code::PermissionDenied => StatusCode::FORBIDDEN,
        Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
        Code::Unimplemented => StatusCode::NOT_IMPLEMENTED,
        Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Code::Unauthenticated => StatusCode::UNAUTHORIZED,
    }
}
