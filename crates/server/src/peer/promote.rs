//! Promotion of learners: only the leader knows how far they are, so others ask it.

use std::sync::Arc;
use std::time::Duration;

use api::ids::MemberId;
use api::pb::etcdserverpb as pb;
use api::{Code, Error, Status};
use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::{Method, Request, StatusCode};
use hyper::body::Incoming;
use node::machine::{MemberChange, Token};
use prost::Message;
use state::{Authorised, Root};
use tokio::time::{Instant, sleep};

use super::Net;
use super::client::{Answer as Answered, Client, head, whole};
use super::cluster::members_json;
use super::routes::only;
use crate::auth::Credentials;
use crate::drive::core::ToCore;
use crate::drive::post::Outcome;
use crate::http::{self as plain, Answer};

/// Pause between two attempts.
const RETRY: Duration = Duration::from_millis(50);
/// etcd's texts of what cannot be promoted, by which the asker tells them apart.
const NOT_FOUND: &str = "membership: ID not found";
const NOT_LEARNER: &str = "membership: can only promote a learner member";

/// Asks the leader, until it has answered or the time is over.
pub(super) async fn forward(net: Arc<Net>, id: MemberId, token: Token, bearer: Option<Bytes>) {
    let deadline = Instant::now() + net.request_limit;
    let mut client = Client::new(Arc::clone(&net.dialer));
    loop {
        match attempt(&net, &mut client, id, bearer.as_ref()).await {
            Some(outcome) => {
                let answer = outcome.map(|members| {
                    let header = Some(net.shared.header().message(0));
                    pb::MemberPromoteResponse { header, members }.encode_to_vec()
                });
                return net.answer(token, answer);
            }
            None if Instant::now() > deadline => {
                return net.answer(token, Err(Error::Timeout.into()));
            }
            None => sleep(RETRY).await,
        }
    }
}

/// One attempt; `None` when it says nothing about the promotion.
async fn attempt(
    net: &Net,
    client: &mut Client,
    id: MemberId,
    bearer: Option<&Bytes>,
) -> Option<Result<Vec<pb::Member>, Status>> {
    let leader = net.peer(net.shared.status.leader()?)?;
    let url = leader.url()?;
    let path = format!("/members/promote/{}", id.0);
    let mut request = head(Method::POST, &url, &path);
    if let Some(bearer) = bearer {
        request = request.header(AUTHORIZATION, &bearer[..]);
    }
    let request = request.body(whole("")).ok()?;
    match client.ask(&url, request, net.request_limit).await {
        Ok(answer) => judge(&answer),
        Err(_) => {
            leader.unreachable(&url);
            None
        }
    }
}

fn judge(answer: &Answered) -> Option<Result<Vec<pb::Member>, Status>> {
    let text = answer.text();
    match answer.status {
        StatusCode::OK => {
            let members: Vec<state::Member> = serde_json::from_slice(&answer.body).ok()?;
            Some(Ok(members.iter().map(state::Member::to_message).collect()))
        }
        StatusCode::NOT_FOUND => Some(Err(Error::MemberNotFound.into())),
        StatusCode::PRECONDITION_FAILED if text.contains(Error::LearnerNotReady.message()) => {
            Some(Err(Error::LearnerNotReady.into()))
        }
        StatusCode::PRECONDITION_FAILED if text.contains(NOT_LEARNER) => {
            Some(Err(Error::MemberNotLearner.into()))
        }
        StatusCode::PRECONDITION_FAILED => {
            let text = format!("member promote: unknown error({text})");
            Some(Err(Status::new(Code::Unknown, text)))
        }
        _ => None,
    }
}

/// `POST /members/promote/<id>`
pub(super) async fn serve(net: &Arc<Net>, request: &Request<Incoming>, id: &str) -> Answer {
    if let Some(refusal) = only(request.method(), &Method::POST) {
        return refusal;
    }
    let Ok(member) = id.parse().map(MemberId) else {
        let text = format!("member {id} not found in cluster");
        return plain::error(StatusCode::NOT_FOUND, &text);
    };
    let bearer = request.headers().get(AUTHORIZATION);
    let bearer = bearer.map(|token| Bytes::copy_from_slice(token.as_bytes()));
    if let Err(error) = admit(net, bearer).await {
        return failed(member, error);
    }
    let (token, outcome) = net.shared.desk.open();
    let change = MemberChange::Promote(member);
    let asked = net.shared.reconfigure(change, token);
    net.shared.core.push(ToCore::Reconfigure(Box::new(asked)));
    let error = match outcome.await {
        Ok(Outcome::Applied(Ok(()))) => {
            net.shared.on_promotion(None);
            let json = members_json(net);
            return plain::respond(StatusCode::OK, Some("application/json"), json);
        }
        Ok(Outcome::Applied(Err(error)) | Outcome::Failed(error)) => {
            net.shared.on_promotion(Some(&error));
            error
        }
        Ok(Outcome::ReadReady) | Err(_) => Error::Stopped,
    };
    failed(member, error)
}

/// Whether the client of the member that asks may promote; it may have been let in there by an
/// entry that this member has yet to apply.
async fn admit(net: &Net, bearer: Option<Bytes>) -> Result<Authorised<Root>, Error> {
    let mut credentials = Credentials::of_token(bearer);
    let who = match net.shared.auth.identify(&credentials) {
        Some(who) => who,
        None => {
            net.shared.confirm().await?;
            credentials.set_waited();
            let who = net.shared.auth.identify(&credentials);
            who.ok_or(Error::InvalidAuthToken)?
        }
    };
    net.shared.view.authorise(who.caller()?, Root)
}

fn failed(member: MemberId, error: Error) -> Answer {
    match error {
        Error::MemberNotFound => plain::error(StatusCode::NOT_FOUND, NOT_FOUND),
        Error::MemberNotLearner => plain::error(StatusCode::PRECONDITION_FAILED, NOT_LEARNER),
        Error::LearnerNotReady => plain::error(StatusCode::PRECONDITION_FAILED, error.message()),
        error => {
            tracing::warn!("member-id" = %member, %error, "failed to promote a member");
            let body = "{\"message\":\"Internal Server Error\"}";
            plain::respond(
                StatusCode::INTERNAL_SERVER_ERROR,
                Some("application/json"),
                body,
            )
        }
    }
}
