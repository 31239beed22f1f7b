//! Round trips and clocks of other members.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{Method, StatusCode};

use super::Net;
use super::client::{Client, head, whole};
use super::link::Link;

/// Time between two probes, as in etcd.
const EVERY: Duration = Duration::from_secs(4);
/// Bound of one probe.
const LIMIT: Duration = Duration::from_secs(5);

/// Probes a member, for as long as the link exists.
pub(super) async fn run(net: Arc<Net>, link: Arc<Link>) {
    let mut client = Client::new(Arc::clone(&net.dialer));
    let id = link.id.to_string();
    let round_trips = net.metrics.peer_round_trip.with([&id]);
    loop {
        tokio::time::sleep(EVERY).await;
        // The first URL alone, as etcd does: a probe is about the member, not about its URLs.
        let Some(url) = link.urls().into_iter().next() else {
            continue;
        };
        let request = net
            .identity
            .sign(head(Method::GET, &url, "/raft/probing"))
            .body(whole(""));
        let Ok(request) = request else { continue };
        let begin = Instant::now();
        match client.ask(&url, request, LIMIT).await {
            Ok(answer) if answer.status == StatusCode::OK => {
                round_trips.observe_seconds(begin.elapsed());
            }
            Ok(answer) => {
                tracing::debug!("remote-peer-id" = %id, status = %answer.status, "probe refused");
            }
            Err(error) => {
                tracing::debug!("remote-peer-id" = %id, %error, "prober detected unhealthy status");
            }
        }
    }
}
