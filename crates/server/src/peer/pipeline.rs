//! `POST /raft`: messages one by one, for members to which no stream leads.

use std::sync::Arc;
use std::time::Duration;

use http::{Method, StatusCode};
use node::peer;
use node::raft::Message;

use super::Net;
use super::client::{Client, head, whole};
use super::link::Link;

/// Posts that may be under way to one member, as in etcd.
pub(super) const WORKERS: usize = 4;
/// Bound of one post.
const LIMIT: Duration = Duration::from_secs(5);

/// Posts what waits for the pipeline, for as long as the link exists.
pub(super) async fn run(net: Arc<Net>, link: Arc<Link>) {
    let mut client = Client::new(Arc::clone(&net.dialer));
    loop {
        while let Some(message) = link.next_piped() {
            match post(&net, &link, &mut client, &message).await {
                Ok(()) => link.on_active(),
                Err(why) => {
                    link.meters.sent_failures.inc();
                    link.on_inactive("message send to peer failed", &why);
                    net.report_unreachable(link.id);
                }
            }
        }
        link.pipeline.notified().await;
        if link.has_piped() {
            // One notice is kept at most, so that the others hear of the rest.
            link.pipeline.notify_one();
        }
    }
}

async fn post(
    net: &Arc<Net>,
    link: &Link,
    client: &mut Client,
    message: &Message,
) -> Result<(), String> {
    let url = link.url().ok_or("no URL is known")?;
    let mut body = Vec::new();
    peer::encode(message, &mut body);
    let sent = body.len() as u64;
    let request = net
        .identity
        .sign(head(Method::POST, &url, "/raft"))
        .header(http::header::CONTENT_TYPE, "application/protobuf")
        .body(whole(body))
        .map_err(|error| error.to_string())?;
    let answer = client.ask(&url, request, LIMIT).await.map_err(|error| {
        link.unreachable(&url);
        error.to_string()
    })?;
    check(net, answer.status, &answer.text()).inspect_err(|_| link.unreachable(&url))?;
    link.meters.sent_bytes.add(sent);
    Ok(())
}

/// Judges the answer to a post. One of 403 means that this member was removed.
///
/// # Errors
/// Why the message counts as lost.
pub(super) fn check(net: &Net, status: StatusCode, text: &str) -> Result<(), String> {
    match status {
        StatusCode::NO_CONTENT => Ok(()),
        StatusCode::FORBIDDEN => {
            net.on_removed();
            Err("the member has been permanently removed from the cluster".into())
        }
        status => Err(format!("unexpected http status {status}: {text}")),
    }
}
