//! Endpoints about the cluster: members, versions, hashes.

use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use hyper::body::Incoming;
use serde::Deserialize;
use state::ReadError;

use super::routes::only;
use super::{Net, head, leases, promote, upload};
use crate::drive::stop::fatal;
use crate::http::{self as plain, Answer};

/// The endpoint of a path, but for those of raft itself.
pub(super) async fn answer(net: &Arc<Net>, request: Request<Incoming>, path: &str) -> Answer {
    match path {
        "/members" => members(net, request.method()),
        "/version" => version(net, request.method()),
        "/leases" | "/leases/internal" => leases::serve(net, request, path).await,
        "/members/hashkv" => hash_kv(net, request).await,
        "/downgrade/enabled" => downgrade_enabled(net, request.method()).await,
        path => match path.strip_prefix("/members/promote/") {
            Some(id) => promote::serve(net, &request, id).await,
            None => plain::not_found(),
        },
    }
}

fn members(net: &Net, method: &Method) -> Answer {
    if let Some(refusal) = only(method, &Method::GET) {
        return refusal;
    }
    plain::respond(StatusCode::OK, Some("application/json"), members_json(net))
}

/// All members, as an array on a line of its own.
pub(super) fn members_json(net: &Net) -> String {
    let members = net.shared.view.members();
    let each: Vec<String> = members.iter().map(state::Member::to_json).collect();
    format!("[{}]\n", each.join(","))
}

fn version(net: &Net, method: &Method) -> Answer {
    if let Some(refusal) = only(method, &Method::GET) {
        return refusal;
    }
    let members = net.shared.view.members();
    let storage = net.shared.storage_version();
    let body = plain::version_json(
        members.cluster_version(),
        Some(storage.as_str()).filter(|version| !version.is_empty()),
    );
    plain::respond(StatusCode::OK, Some("application/json"), body)
}

/// Longest question for a hash, in bytes; it has one number.
const HASH_REQUEST_BYTES_MAX: usize = 64 << 10;

#[derive(Deserialize)]
struct HashRequest {
    #[serde(default)]
    revision: i64,
}

async fn hash_kv(net: &Arc<Net>, request: Request<Incoming>) -> Answer {
    if let Some(refusal) = only(request.method(), &Method::GET) {
        return refusal;
    }
    let own = net.identity.cluster.to_string();
    if head::text(request.headers(), head::CLUSTER_ID).is_some_and(|id| id != own) {
        return plain::error(StatusCode::PRECONDITION_FAILED, "cluster ID mismatch");
    }
    let bad = |text: &str| plain::error(StatusCode::BAD_REQUEST, text);
    let Ok(body) = upload::read(net, request.into_body(), HASH_REQUEST_BYTES_MAX).await else {
        return bad("error reading body");
    };
    let Ok(HashRequest { revision }) = serde_json::from_slice(&body) else {
        return bad("error unmarshalling request");
    };
    let view = net.shared.view.clone();
    let hashed = tokio::task::spawn_blocking(move || view.hash_kv(revision)).await;
    let (hash, current) = match hashed {
        Ok(Ok(hashed)) => hashed,
        Ok(Err(ReadError::Refused(error))) => {
            let text = error.message();
            return bad(text.strip_prefix("etcdserver: ").unwrap_or(text));
        }
        Ok(Err(ReadError::Broken(error))) => fatal("hash the keys", &error),
        Err(error) => return plain::error(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    };
    let number = |name: &str, value: i64| (value != 0).then(|| format!("\"{name}\":{value}"));
    let fields = [
        Some(format!("\"header\":{{\"revision\":{current}}}")),
        number("hash", i64::from(hash.hash)),
        number("compact_revision", hash.compact_revision),
        number("hash_revision", hash.revision),
    ];
    let fields: Vec<String> = fields.into_iter().flatten().collect();
    let body = Bytes::from(format!("{{{}}}", fields.join(",")));
    plain::respond(StatusCode::OK, Some("application/json"), body)
}

async fn downgrade_enabled(net: &Net, method: &Method) -> Answer {
    if let Some(refusal) = only(method, &Method::GET) {
        return refusal;
    }
    if let Err(error) = net.shared.confirm().await {
        let text = format!("failed linearized read: {error}");
        return plain::error(StatusCode::INTERNAL_SERVER_ERROR, &text);
    }
    let enabled = net.shared.view.members().downgrade().enabled;
    plain::respond(StatusCode::OK, Some("text/plain"), enabled.to_string())
}
