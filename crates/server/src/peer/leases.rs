//! Leases in time: only the leader knows how long they have left, so others ask it.

use std::sync::Arc;
use std::time::Duration;

use api::pb::{etcdserverpb as pb, leasepb};
use api::{Error, Status};
use bytes::Bytes;
use http::{Method, Request, StatusCode};
use hyper::body::Incoming;
use node::machine::Token;
use prost::Message;
use state::{Authorised, LeaseKeys, Renewal};
use tokio::time::{Instant, sleep};

use super::Net;
use super::client::{Client, head, whole};
use super::routes::only;
use super::upload::{self, ReadError};
use crate::drive::core::ToCore;
use crate::drive::entry;
use crate::drive::lessor::Left;
use crate::http::{self as plain, Answer};

/// Pause between two attempts, as in etcd.
const RETRY: Duration = Duration::from_millis(50);
/// Bound of one attempt.
const LIMIT: Duration = Duration::from_secs(5);
/// Connections that are kept for the next question.
const IDLE_MAX: usize = 16;
/// Longest question of another member, in bytes, as in etcd.
const REQUEST_BYTES_MAX: usize = 64 << 10;
const PROTOBUF: &str = "application/protobuf";
const NOT_FOUND: &str = "lease not found";

/// Why this member cannot answer.
enum Refused {
    NotFound,
    Other(String),
}

/// Renews a lease through the leader, for a client of this member.
pub(super) async fn renew(net: Arc<Net>, id: i64, token: Token) {
    let header = net.shared.header().message(net.shared.view.revision());
    let request = pb::LeaseKeepAliveRequest { id }.encode_to_vec();
    let asked = ask(&net, "/leases", request.into()).await;
    let answer = asked.map(|found| {
        let ttl = found.map_or(0, |body| {
            pb::LeaseKeepAliveResponse::decode(body).map_or(0, |response| response.ttl)
        });
        let header = Some(header);
        pb::LeaseKeepAliveResponse { header, id, ttl }.encode_to_vec()
    });
    net.answer(token, answer.map_err(Status::from));
}

/// Asks the leader how long a lease has left, for a client of this member.
pub(super) async fn time_to_live(net: Arc<Net>, request: pb::LeaseTimeToLiveRequest, token: Token) {
    let header = Some(net.shared.header().message(net.shared.view.revision()));
    let id = request.id;
    let question = leasepb::LeaseInternalRequest {
        lease_time_to_live_request: Some(request),
    };
    let asked = ask(&net, "/leases/internal", question.encode_to_vec().into()).await;
    let answer = asked.map(|found| {
        let found = found.and_then(|body| leasepb::LeaseInternalResponse::decode(body).ok());
        let found = found.and_then(|found| found.lease_time_to_live_response);
        let mut response = found.unwrap_or(pb::LeaseTimeToLiveResponse {
            id,
            ttl: -1,
            ..Default::default()
        });
        response.header = header;
        response.encode_to_vec()
    });
    net.answer(token, answer.map_err(Status::from));
}

/// Puts a question to the leader until it is answered; `None` when there is no such lease.
async fn ask(net: &Arc<Net>, path: &str, question: Bytes) -> Result<Option<Bytes>, Error> {
    let deadline = Instant::now() + net.request_limit;
    while Instant::now() < deadline {
        if let Some(answer) = attempt(net, path, &question).await {
            return Ok(answer);
        }
        sleep(RETRY).await;
    }
    Err(Error::Timeout)
}

/// One attempt; `None` when it says nothing about the lease.
async fn attempt(net: &Arc<Net>, path: &str, question: &Bytes) -> Option<Option<Bytes>> {
    let leader = net.shared.status.leader()?;
    if leader == net.identity.member {
        return match own_answer(net, path, question).await {
            Ok(body) => Some(Some(body.into())),
            Err(Refused::NotFound) => Some(None),
            Err(Refused::Other(_)) => None,
        };
    }
    let link = net.peer(leader)?;
    let url = link.url()?;
    let request = head(Method::POST, &url, path)
        .header(http::header::CONTENT_TYPE, PROTOBUF)
        .body(whole(question.clone()))
        .ok()?;
    let idle = net.idle().pop();
    let mut client = idle.unwrap_or_else(|| Client::new(Arc::clone(&net.dialer)));
    let Ok(answer) = client.ask(&url, request, LIMIT).await else {
        link.unreachable(&url);
        return None;
    };
    let mut idle = net.idle();
    if idle.len() < IDLE_MAX {
        idle.push(client);
    }
    match answer.status {
        StatusCode::OK => Some(Some(answer.body)),
        StatusCode::NOT_FOUND if answer.text() == NOT_FOUND => Some(None),
        _ => None,
    }
}

/// `POST /leases` and `POST /leases/internal`
pub(super) async fn serve(net: &Arc<Net>, request: Request<Incoming>, path: &str) -> Answer {
    if let Some(refusal) = only(request.method(), &Method::POST) {
        return refusal;
    }
    let body = match upload::read(net, request.into_body(), REQUEST_BYTES_MAX).await {
        Ok(body) => body,
        Err(ReadError::TooLong) => {
            return plain::error(StatusCode::PAYLOAD_TOO_LARGE, "request body too large");
        }
        Err(_) => return plain::error(StatusCode::BAD_REQUEST, "error reading body"),
    };
    match own_answer(net, path, &body).await {
        Ok(body) => plain::respond(StatusCode::OK, Some(PROTOBUF), body),
        Err(Refused::NotFound) => plain::error(StatusCode::NOT_FOUND, NOT_FOUND),
        Err(Refused::Other(why)) => plain::error(StatusCode::BAD_REQUEST, &why),
    }
}

async fn own_answer(net: &Arc<Net>, path: &str, body: &Bytes) -> Result<Vec<u8>, Refused> {
    let unreadable = |_| Refused::Other("error unmarshalling request".into());
    if path == "/leases" {
        let request = pb::LeaseKeepAliveRequest::decode(body.clone()).map_err(unreadable)?;
        let ttl = renew_here(net, request.id).await?;
        let response = pb::LeaseKeepAliveResponse {
            header: None,
            id: request.id,
            ttl,
        };
        return Ok(response.encode_to_vec());
    }
    let request = leasepb::LeaseInternalRequest::decode(body.clone()).map_err(unreadable)?;
    let request = request.lease_time_to_live_request.unwrap_or_default();
    confirm(net).await?;
    let view = &net.shared.view;
    let lease = view.lease(request.id).ok_or(Refused::NotFound)?;
    let mut keys = Vec::new();
    if request.keys {
        let asked = Authorised::by_member(LeaseKeys(request.id));
        keys = view
            .lease_keys(&asked)
            .map_err(|error| Refused::Other(error.message().to_owned()))?;
    }
    let Left::Seconds(ttl) = net.shared.lessor.left(&lease) else {
        return Err(not_primary());
    };
    let response = pb::LeaseTimeToLiveResponse {
        header: Some(pb::ResponseHeader::default()),
        id: request.id,
        ttl,
        granted_ttl: lease.ttl,
        keys,
    };
    let response = leasepb::LeaseInternalResponse {
        lease_time_to_live_response: Some(response),
    };
    Ok(response.encode_to_vec())
}

fn not_primary() -> Refused {
    Refused::Other("not a primary lessor".into())
}

/// Makes sure that this member led after the question had arrived.
async fn confirm(net: &Net) -> Result<(), Refused> {
    let confirmed = net.shared.confirm().await;
    confirmed.map_err(|error| Refused::Other(error.message().to_owned()))
}

/// Renews a lease on this member, if it leads. One that has expired is waited for until it is
/// revoked, and a checkpoint is taken back first, as for this member's own clients.
async fn renew_here(net: &Net, id: i64) -> Result<i64, Refused> {
    let deadline = Instant::now() + net.request_limit;
    confirm(net).await?;
    let mut taken_back = false;
    while Instant::now() < deadline {
        // The state before the clock, as where clients of this member renew.
        let granted = net.shared.view.lease_ttl(id).ok_or(Refused::NotFound)?;
        match net.shared.lessor.renew_once(id) {
            Renewal::Renewed(ttl) => {
                net.metrics.leases_renewed.inc();
                return Ok(ttl);
            }
            // The clock has not been told of it yet, and will start it later than now.
            Renewal::Unknown => return Ok(granted),
            Renewal::NotLeader => return Err(not_primary()),
            Renewal::Expired => {}
            Renewal::Checkpointed if !taken_back => {
                taken_back = true;
                let remaining_ttl = 0;
                let checkpoints = vec![pb::LeaseCheckpoint { id, remaining_ttl }];
                let request = pb::LeaseCheckpointRequest { checkpoints };
                let proposal = net.shared.unattended(entry::LEASE_CHECKPOINT, &request);
                net.shared.core.push(ToCore::Propose(vec![proposal]));
            }
            Renewal::Checkpointed => {}
        }
        sleep(RETRY).await;
    }
    Err(Refused::Other(Error::Timeout.message().to_owned()))
}
