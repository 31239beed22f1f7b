//! The whole API as JSON over HTTP: `POST /v3/…`, as grpc-gateway serves it before Go's etcd.
//!
//! ```text
//! http::Routes ──head, body──▶ Gateway ──route──▶ Conversation ──HTTP/2──▶ net thread
//!                                split, encode ──▶      │      ◀── decode
//! ```
//!
//! The gateway is a gRPC client of its own member and knows of a service only the messages
//! (`schema`), so a service that comes to exist is served here too. One task does everything for
//! a request: while its client does not read, nothing more is read for it from anywhere, and when
//! its client goes, its call is cancelled.
//!
//! Reading order: [`Gateway::answer`], `upload` and `download`, `conversation`, and how JSON and
//! messages become each other: `split`, `encode`, `decode`. A `websocket` is one more way to bring
//! a request's body and to take the answer.

mod channel;
mod conversation;
mod decode;
mod download;
mod encode;
mod json;
mod metadata;
mod refusal;
mod route;
mod schema;
mod split;
mod upload;
pub(crate) mod websocket;

pub use channel::Dial;
pub(crate) use route::PREFIX;

use std::future::poll_fn;

use api::{Code, Status};
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderName};
use http::{HeaderValue, Method, Response};
use http_body_util::BodyExt;
use tokio::time::Instant;

use crate::http::{Answer, Request, RequestBody, whole};
use channel::Channel;
use conversation::{Conversation, Rest};
use download::Piece;
use refusal::Refusal;
use route::Routes;
use split::{Budget, Splitter};

/// Bytes of JSON that a request may have for each byte of message: base64 takes a third more
/// than what it stands for, and escapes take more than that.
const JSON_FACTOR: usize = 4;
/// All request bodies that are incomplete.
const INCOMPLETE_BYTES_MAX: usize = 256 << 20;
/// An answer that is complete below this is sent in one piece.
const WHOLE_BYTES_MAX: usize = 64 * 1024;

/// The content type of the gRPC answer, as the client is told it.
const METADATA_CONTENT_TYPE: HeaderName = HeaderName::from_static("grpc-metadata-content-type");
const METHOD_OVERRIDE: HeaderName = HeaderName::from_static("x-http-method-override");

/// The JSON API of one member.
pub struct Gateway {
    routes: Routes,
    channel: Channel,
    budget: Budget,
    json_bytes_max: usize,
}

impl Gateway {
    /// A gateway to the services behind `dials`, whose requests have up to `message_bytes_max`.
    ///
    /// # Panics
    /// Without any dial.
    #[must_use]
    pub fn new(dials: Vec<Dial>, message_bytes_max: usize) -> Gateway {
        assert!(!dials.is_empty(), "a gateway to nowhere");
        Gateway {
            routes: Routes::new(),
            channel: Channel::new(dials),
            budget: Budget::new(INCOMPLETE_BYTES_MAX),
            json_bytes_max: message_bytes_max.saturating_mul(JSON_FACTOR),
        }
    }

    /// Answers a request for `path`, which begins with [`PREFIX`].
    pub(crate) async fn answer(&self, path: &str, request: &Request, body: RequestBody) -> Answer {
        let (method, body) = overridden(request, body);
        let outcome = match self.routes.find(path) {
            None => Err(Status::new(Code::NotFound, "Not Found").into()),
            Some(_) if method != Method::POST => {
                Err(Status::new(Code::Unimplemented, "Method Not Allowed").into())
            }
            Some(method) => self.call(method, request, body).await,
        };
        outcome.unwrap_or_else(|refusal| refusal.answer(request))
    }

    async fn call(
        &self,
        method: &'static schema::Method,
        request: &Request,
        mut body: RequestBody,
    ) -> Result<Answer, Refusal> {
        let timeout = metadata::timeout(&request.headers)?;
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let metadata = metadata::metadata(&request.headers)?;
        let splitter = Splitter::new(self.json_bytes_max, self.budget.clone());
        let mut conversation = if method.client_streaming {
            in_time(deadline)?;
            let (response, send) = self.channel.open(method.path, metadata).await?;
            let upload = upload::stream(body, splitter, method.input, send);
            Conversation::new(method, response, Some(Box::pin(upload)), deadline)
        } else {
            let message = upload::single(&mut body, splitter, method.input).await?;
            in_time(deadline)?;
            let (response, mut send) = self.channel.open(method.path, metadata).await?;
            // A call that is over already has an answer that says why.
            let _ = send.send_data(message, true);
            Conversation::new(method, response, None, deadline)
        };
        let begin = begin(method, &mut conversation).await?;
        Ok(answer(begin, conversation))
    }
}

/// A call is not begun when its time is over.
fn in_time(deadline: Option<Instant>) -> Result<(), Status> {
    match deadline.is_some_and(|deadline| deadline <= Instant::now()) {
        true => Err(conversation::expired()),
        false => Ok(()),
    }
}

/// What an answer begins with.
struct Begin {
    json: Vec<u8>,
    /// Nothing follows.
    complete: bool,
}

/// Waits until the call has answered, so that an error can still decide the HTTP status: for the
/// first piece of a stream, for a single message as far as it is sent in one piece.
async fn begin(
    method: &'static schema::Method,
    conversation: &mut Conversation,
) -> Result<Begin, Refusal> {
    let mut json = Vec::new();
    loop {
        match poll_fn(|cx| conversation.poll_piece(cx)).await {
            Piece::Json(piece) => json.extend_from_slice(&piece),
            Piece::End(status) if status.code == Code::Ok => {
                let complete = true;
                return Ok(Begin { json, complete });
            }
            Piece::End(status) => {
                return Err(Refusal {
                    status,
                    streaming: method.server_streaming,
                    by_service: true,
                    grpc_type: conversation.grpc_type.take(),
                });
            }
        }
        if method.server_streaming || json.len() > WHOLE_BYTES_MAX {
            let complete = false;
            return Ok(Begin { json, complete });
        }
    }
}

fn answer(begin: Begin, mut conversation: Conversation) -> Answer {
    let grpc_type = conversation.grpc_type.take();
    let empty = begin.json.is_empty();
    let body = match begin.complete && !conversation.is_streaming() {
        true => whole(begin.json),
        false => Rest {
            first: (!empty).then(|| Bytes::from(begin.json)),
            conversation: (!begin.complete).then_some(conversation),
        }
        .boxed_unsync(),
    };
    let mut answer = Response::new(body);
    let headers = answer.headers_mut();
    // Go's gateway sets it with the first message, which a stream may lack.
    if !empty {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    }
    if let Some(grpc_type) = grpc_type {
        headers.insert(METADATA_CONTENT_TYPE, grpc_type);
    }
    answer
}

/// The method that counts. Only forms may name another than their own, and where they do, their
/// body is the form.
fn overridden(request: &Request, body: RequestBody) -> (Method, RequestBody) {
    let form = request.headers.get(CONTENT_TYPE);
    let form = form.is_some_and(|kind| kind == "application/x-www-form-urlencoded");
    let named = request.headers.get(METHOD_OVERRIDE);
    let named = named.filter(|name| !name.is_empty() && form && request.method == Method::POST);
    match named {
        None => (request.method.clone(), body),
        Some(name) => {
            let name = name.as_bytes().to_ascii_uppercase();
            let method = Method::from_bytes(&name).unwrap_or(Method::GET);
            (method, RequestBody::Whole(Bytes::new()))
        }
    }
}
