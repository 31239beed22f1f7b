//! What the other members run, from which a leader decides what the cluster can do.

use std::sync::Arc;
use std::time::Duration;

use api::ids::MemberId;
use http::{Method, StatusCode};
use serde::Deserialize;

use super::Net;
use super::client::{Client, head, whole};
use super::link::Link;
use crate::drive::core::ToCore;

/// Bound of one question.
const LIMIT: Duration = Duration::from_secs(1);

#[derive(Deserialize)]
struct Versions {
    etcdserver: String,
}

/// Asks all of them at once and tells the core.
pub(super) async fn ask(net: Arc<Net>) {
    let links: Vec<Arc<Link>> = {
        let known = net.known();
        let members = known.values().filter(|known| known.is_member);
        members.map(|known| Arc::clone(&known.link)).collect()
    };
    let questions: Vec<_> = links
        .into_iter()
        .map(|link| (link.id, tokio::spawn(ask_one(Arc::clone(&net), link))))
        .collect();
    let mut answers: Vec<(MemberId, Option<String>)> = Vec::with_capacity(questions.len());
    for (id, question) in questions {
        answers.push((id, question.await.unwrap_or_default()));
    }
    net.shared.core.push(ToCore::Versions(answers));
}

async fn ask_one(net: Arc<Net>, link: Arc<Link>) -> Option<String> {
    let mut client = Client::new(Arc::clone(&net.dialer));
    for url in link.urls() {
        let request = net
            .identity
            .sign(head(Method::GET, &url, "/version"))
            .body(whole(""));
        let Ok(request) = request else { continue };
        let answer = match client.ask(&url, request, LIMIT).await {
            Ok(answer) if answer.status == StatusCode::OK => answer,
            Ok(answer) => {
                let status = answer.status;
                tracing::warn!("remote-member-id" = %link.id, %status, "failed to get version");
                continue;
            }
            Err(error) => {
                tracing::warn!(
                    "remote-member-id" = %link.id,
                    %error,
                    "failed to reach the peer URL to get its version"
                );
                continue;
            }
        };
        if let Ok(versions) = serde_json::from_slice::<Versions>(&answer.body) {
            return Some(versions.etcdserver);
        }
    }
    None
}
