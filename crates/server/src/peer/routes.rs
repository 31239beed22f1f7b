//! The endpoints of the peer port.

use std::sync::Arc;
use std::time::SystemTime;

use api::ids::MemberId;
use http::header::{ALLOW, HeaderValue};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::Either;
use hyper::body::Incoming;
use node::peer::{self, Received};
use node::raft::Message;

use super::body::StreamBody;
use super::head::Incompatible;
use super::link::Lane;
use super::serve::Visitor;
use super::upload::{self, ReadError};
use super::{Batch, Net, cluster, head, snapshot};
use crate::http::{self as plain, Answer, Body};
use crate::log::Timestamp;

/// Longest message that is read from a post, in bytes. Its sender would take more room with it on
/// a stream.
const MESSAGE_BYTES_MAX: usize = 64 << 20;

/// The answers' bodies: one piece, or a stream without end.
pub(super) type Reply = Response<Either<Body, StreamBody>>;

/// Answers one request.
pub(super) async fn answer(net: &Arc<Net>, request: Request<Incoming>, visitor: &Visitor) -> Reply {
    let path = request.uri().path().to_owned();
    if let Some(rest) = path.strip_prefix("/raft/stream/") {
        return stream(net, &request, rest, visitor);
    }
    let mut answer = match path.as_str() {
        "/raft" => pipeline(net, request, visitor).await,
        "/raft/snapshot" => snapshot::receive(net, request, visitor).await,
        "/raft/probing" => probing(),
        _ => cluster::answer(net, request, &path).await,
    };
    let id = HeaderValue::from_str(&net.identity.cluster.to_string()).expect("hex digits");
    answer.headers_mut().insert(cluster_id(), id);
    answer.map(Either::Left)
}

fn cluster_id() -> http::HeaderName {
    http::HeaderName::from_static("x-etcd-cluster-id")
}

/// The refusal of every method but one.
pub(super) fn only(method: &Method, allowed: &Method) -> Option<Answer> {
    if method == allowed {
        return None;
    }
    let mut answer = plain::error(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed");
    let allowed = HeaderValue::from_str(allowed.as_str()).expect("a method is a token");
    answer.headers_mut().insert(ALLOW, allowed);
    Some(answer)
}

/// Refuses what does not come from a member of this cluster.
///
/// # Errors
/// Why; the answer is one of 412.
pub(super) fn check(net: &Net, headers: &HeaderMap, visitor: &Visitor) -> Result<(), Incompatible> {
    let checked = net.identity.check(headers);
    if checked.is_ok() {
        visitor.is_one_of_us();
    }
    checked.inspect_err(|why| {
        tracing::warn!(
            "local-member-id" = %net.identity.member,
            "remote-peer-id" = head::text(headers, head::SERVER_FROM),
            "remote-peer-server-version" = head::text(headers, head::SERVER_VERSION),
            "remote-peer-cluster-id" = head::text(headers, head::CLUSTER_ID),
            error = why.text(),
            "refused a request from a peer"
        );
    })
}

/// A stranger who says where it can be found is remembered, so that it can be answered.
pub(super) fn remember(net: &Arc<Net>, headers: &HeaderMap) {
    let from = head::text(headers, head::SERVER_FROM).and_then(head::id);
    if let (Some(from), Some(urls)) = (from, head::text(headers, head::PEER_URLS)) {
        net.add_remote(from, urls);
    }
}

/// Who says to have sent a request, as label of a metric: nobody but whom we know, since the
/// metrics of a label stay.
pub(super) fn sender(net: &Net, headers: &HeaderMap) -> String {
    let id = head::text(headers, head::SERVER_FROM).and_then(head::id);
    label(net, id.unwrap_or(MemberId(0)))
}

fn label(net: &Net, id: MemberId) -> String {
    let is_known = net.known().contains_key(&id);
    if is_known { id } else { MemberId(0) }.to_string()
}

fn probing() -> Answer {
    let now = Timestamp(SystemTime::now());
    let body = format!("{{\"OK\":true,\"Now\":\"{now}\"}}\n");
    plain::respond(StatusCode::OK, Some("text/plain; charset=utf-8"), body)
}

/// `POST /raft`: one message.
async fn pipeline(net: &Arc<Net>, request: Request<Incoming>, visitor: &Visitor) -> Answer {
    if let Some(refusal) = only(request.method(), &Method::POST) {
        return refusal;
    }
    if let Err(why) = check(net, request.headers(), visitor) {
        return plain::error(StatusCode::PRECONDITION_FAILED, why.text());
    }
    remember(net, request.headers());
    let from = sender(net, request.headers());
    let failed = |text: &str| {
        net.metrics.peer_received_failures.with([&from]).inc();
        plain::error(StatusCode::BAD_REQUEST, text)
    };
    let body = match upload::read(net, request.into_body(), MESSAGE_BYTES_MAX).await {
        Ok(body) => body,
        Err(ReadError::NoRoom) => {
            return plain::error(StatusCode::SERVICE_UNAVAILABLE, "too many messages at once");
        }
        Err(ReadError::Broken | ReadError::TooLong) => {
            return failed("error reading raft message");
        }
    };
    let Ok(received) = peer::decode(&body) else {
        return failed("error unmarshalling raft message");
    };
    let Received::Message(message) = received else {
        return plain::respond(StatusCode::NO_CONTENT, None, "");
    };
    let from = label(net, message.from);
    net.metrics
        .peer_received_bytes
        .with([&from])
        .add(body.len() as u64);
    if let Err(why) = admit(net, &message) {
        return forbidden(why);
    }
    net.deliver(Batch {
        messages: vec![message],
        _room: None,
    });
    plain::respond(StatusCode::NO_CONTENT, None, "")
}

/// Refuses what is not for this member, or from one that was removed. The answer is one of 403,
/// which makes the sender stop for good.
///
/// # Errors
/// Why.
pub(super) fn admit(net: &Net, message: &Message) -> Result<(), &'static str> {
    if net.is_removed(message.from) {
        tracing::warn!(
            "removed-member-id" = %message.from,
            "rejected Raft message from removed member"
        );
        return Err("cannot process message from removed member");
    }
    if message.to != net.identity.member {
        tracing::warn!(
            "mismatch-member-id" = %message.to,
            "rejected Raft message to mismatch member"
        );
        return Err("cannot process message to mismatch member");
    }
    Ok(())
}

/// The answer to a message that [`admit`] refuses.
pub(super) fn forbidden(why: &str) -> Answer {
    let body = format!("{{\"message\":\"{why}\"}}");
    plain::respond(StatusCode::FORBIDDEN, Some("application/json"), body)
}

/// `GET /raft/stream/…/<id>`: what this member has to say to the one that asks.
fn stream(net: &Arc<Net>, request: &Request<Incoming>, path: &str, visitor: &Visitor) -> Reply {
    let opened = match only(request.method(), &Method::GET) {
        Some(refusal) => Err(refusal),
        None => {
            let opened = open(net, request.headers(), path, visitor);
            opened.map_err(|(status, text)| plain::error(status, text))
        }
    };
    let mut reply = match opened {
        Ok(body) => Response::new(Either::Right(body)),
        Err(refusal) => refusal.map(Either::Left),
    };
    let headers = reply.headers_mut();
    let id = HeaderValue::from_str(&net.identity.cluster.to_string()).expect("hex digits");
    headers.insert(cluster_id(), id);
    let version = HeaderValue::from_static(api::version::SERVER);
    headers.insert(http::HeaderName::from_static("x-server-version"), version);
    reply
}

fn open(
    net: &Arc<Net>,
    headers: &HeaderMap,
    path: &str,
    visitor: &Visitor,
) -> Result<StreamBody, (StatusCode, &'static str)> {
    check(net, headers, visitor).map_err(|why| (StatusCode::PRECONDITION_FAILED, why.text()))?;
    let refused = |status, text| Err((status, text));
    let (kind, from) = path.rsplit_once('/').unwrap_or((path, ""));
    let lane = match kind {
        "msgapp" => Lane::Append,
        "message" => Lane::Other,
        _ => return refused(StatusCode::NOT_FOUND, "invalid path"),
    };
    let Some(from) = head::id(from) else {
        return refused(StatusCode::NOT_FOUND, "invalid from");
    };
    if net.is_removed(from) {
        tracing::warn!(
            "remote-peer-id-stream-handler" = %net.identity.member,
            "remote-peer-id-from" = %from,
            "rejected stream from remote peer because it was removed"
        );
        return refused(StatusCode::GONE, "removed member");
    }
    let Some(link) = net.peer(from) else {
        if let Some(urls) = head::text(headers, head::PEER_URLS) {
            net.add_remote(from, urls);
        }
        tracing::warn!("remote-peer-id" = %from, "failed to find remote peer in cluster");
        return refused(StatusCode::NOT_FOUND, "error sender not found");
    };
    if head::text(headers, head::RAFT_TO).unwrap_or_default() != net.identity.member.to_string() {
        return refused(StatusCode::PRECONDITION_FAILED, "to field mismatch");
    }
    Ok(StreamBody::attach(Arc::clone(net), link, lane))
}
