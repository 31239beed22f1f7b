//! What a running cluster says about itself, before this member is part of it.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use api::ids::ClusterId;
use http::{Method, StatusCode};
use node::boot::Running;

use super::client::{Client, head, whole};
use super::head::{CLUSTER_ID, id, text};
use super::socket::Dialer;
use crate::config::Url;

/// Bound of one question, as in etcd.
const LIMIT: Duration = Duration::from_secs(1);

/// Asks one URL after the other for the members; the first answer counts. Blocks, for a second
/// per URL at most.
///
/// # Errors
/// The system refuses an epoll instance.
pub(super) fn ask(urls: &[Url], dialer: &Arc<Dialer>) -> io::Result<Option<Running>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let found = runtime.block_on(async {
        for url in urls {
            match ask_one(url, dialer).await {
                Ok(running) => return Some(running),
                Err(error) => {
                    tracing::warn!(address = %url, error, "failed to get cluster response");
                }
            }
        }
        None
    });
    runtime.shutdown_background();
    Ok(found)
}

async fn ask_one(url: &Url, dialer: &Arc<Dialer>) -> Result<Running, String> {
    let request = head(Method::GET, url, "/members").body(whole(""));
    let request = request.map_err(|error| error.to_string())?;
    let mut client = Client::new(Arc::clone(dialer));
    let answer = client.ask(url, request, LIMIT).await;
    let answer = answer.map_err(|error| error.to_string())?;
    if answer.status != StatusCode::OK {
        return Err(format!("status {}", answer.status));
    }
    let cluster = text(&answer.headers, CLUSTER_ID).and_then(id);
    let cluster = cluster.ok_or("no cluster ID in the answer")?;
    let members = serde_json::from_slice(&answer.body).map_err(|error| error.to_string())?;
    Ok(Running {
        cluster: ClusterId(cluster.0),
        members,
    })
}
