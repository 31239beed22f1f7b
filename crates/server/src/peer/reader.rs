//! Streams from other members: this member dials, the other one writes.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use http::{Method, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use node::peer::stream::{self, AppendReader};
use node::peer::{PeerError, Received};
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep_until, timeout};

use super::client::{self, Client, head, read_whole, whole};
use super::link::{Lane, Link};
use super::{Batch, Net, head as heads};

/// Time between two attempts at least.
const RETRY: Duration = Duration::from_millis(100);
/// Weight of what one stream has handed to the core and the core has not taken, see [`weight`].
const UNTAKEN_MAX: usize = 1 << 16;

/// Why there is no stream, or no longer.
enum Lost {
    NoUrl,
    Dial(client::Error),
    /// The other member refused.
    Refused(String),
    /// This member was removed from the cluster.
    Removed,
    /// The other member ended the stream.
    Closed,
    Silent,
    Broken(PeerError),
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Lost::NoUrl => f.write_str("no URL is known"),
            Lost::Dial(error) => error.fmt(f),
            Lost::Refused(why) => f.write_str(why),
            Lost::Removed => {
                f.write_str("the member has been permanently removed from the cluster")
            }
            Lost::Closed => f.write_str("EOF"),
            Lost::Silent => f.write_str("i/o timeout"),
            Lost::Broken(error) => error.fmt(f),
        }
    }
}

/// Dials and reads, for as long as the link exists.
pub(super) async fn run(net: Arc<Net>, link: Arc<Link>, lane: Lane) {
    let untaken = Arc::new(Semaphore::new(UNTAKEN_MAX));
    loop {
        let begun = Instant::now();
        match dial(&net, &link, lane).await {
            Ok((_client, body)) => {
                announce(&net, &link, lane, "established");
                link.on_active();
                let lost = read(&net, &link, lane, body, &untaken).await;
                announce(&net, &link, lane, "lost");
                link.on_inactive("stream to peer lost", &lost);
            }
            Err(lost) => {
                if matches!(lost, Lost::Removed) {
                    net.on_removed();
                }
                link.on_inactive("failed to dial stream", &lost);
            }
        }
        sleep_until(begun + RETRY).await;
    }
}

fn announce(net: &Net, link: &Link, lane: Lane, what: &str) {
    tracing::info!(
        "stream-reader-type" = lane.name(),
        "local-member-id" = %net.identity.member,
        "remote-peer-id" = %link.id,
        "{what} TCP streaming connection with remote peer"
    );
}

/// Opens a stream; the connection lives as long as the client.
async fn dial(net: &Net, link: &Link, lane: Lane) -> Result<(Client, Incoming), Lost> {
    let url = link.url().ok_or(Lost::NoUrl)?;
    let path = format!("{}/{}", lane.path(), net.identity.member);
    let request = net
        .identity
        .sign(head(Method::GET, &url, &path))
        .header(heads::RAFT_TO, link.id.to_string())
        .body(whole(""))
        .map_err(|error| Lost::Refused(error.to_string()))?;
    let mut client = Client::new(Arc::clone(&net.dialer));
    let answered = timeout(net.read_limit, client.send(&url, request)).await;
    let answer = answered
        .unwrap_or(Err(client::Error::TimedOut))
        .map_err(|error| {
            link.unreachable(&url);
            Lost::Dial(error)
        })?;
    let (parts, body) = answer.into_parts();
    if !heads::streams_with_us(&parts.headers) {
        link.unreachable(&url);
        return Err(Lost::Refused("unsupported stream type".into()));
    }
    match parts.status {
        StatusCode::OK => return Ok((client, body)),
        StatusCode::GONE => return Err(Lost::Removed),
        _ => {}
    }
    link.unreachable(&url);
    let text = timeout(net.read_limit, read_whole(body)).await;
    let text = text.unwrap_or(Err(client::Error::TimedOut));
    let text = text.map(|text| String::from_utf8_lossy(&text).trim_end().to_owned());
    Err(Lost::Refused(refusal(
        net,
        link,
        parts.status,
        &text.unwrap_or_default(),
    )))
}

/// A refusal in etcd's words.
fn refusal(net: &Net, link: &Link, status: StatusCode, text: &str) -> String {
    match status {
        StatusCode::NOT_FOUND => format!(
            "peer {} failed to find local node {}",
            link.id, net.identity.member
        ),
        StatusCode::PRECONDITION_FAILED => match text {
            "incompatible version" => "incompatible version".into(),
            "cluster ID mismatch" => "cluster ID mismatch".into(),
            text => format!("unhandled error {text:?} when precondition failed"),
        },
        status => format!("unhandled http status {}", status.as_u16()),
    }
}

/// Takes messages off a stream of either kind.
enum Decoder {
    Append(AppendReader),
    Other,
}

impl Decoder {
    fn take(&mut self, buffer: &mut BytesMut) -> Result<Option<Received>, PeerError> {
        match self {
            Decoder::Append(reader) => reader.take(buffer),
            Decoder::Other => stream::take_message(buffer),
        }
    }
}

/// Hands everything that arrives to the core, each time all that is there.
async fn read(
    net: &Net,
    link: &Link,
    lane: Lane,
    mut body: Incoming,
    untaken: &Arc<Semaphore>,
) -> Lost {
    let mut decoder = match lane {
        Lane::Append => Decoder::Append(AppendReader::new(link.id, net.identity.member)),
        Lane::Other => Decoder::Other,
    };
    let mut buffer = BytesMut::new();
    let mut undelivered_bytes = 0;
    loop {
        let data = match timeout(net.read_limit, body.frame()).await {
            Ok(Some(Ok(frame))) => frame.into_data().unwrap_or_default(),
            Ok(Some(Err(error))) => return Lost::Dial(error.into()),
            Ok(None) => return Lost::Closed,
            Err(_) => return Lost::Silent,
        };
        link.meters.received_bytes.add(data.len() as u64);
        buffer.extend_from_slice(&data);
        undelivered_bytes += data.len();
        let mut messages = Vec::new();
        loop {
            match decoder.take(&mut buffer) {
                Ok(Some(Received::Message(message))) => messages.push(message),
                Ok(Some(Received::LinkHeartbeat)) => {}
                Ok(None) => break,
                Err(error) => return Lost::Broken(error),
            }
        }
        if messages.is_empty() {
            continue;
        }
        let weight = weight(messages.len(), std::mem::take(&mut undelivered_bytes));
        let permit = Arc::clone(untaken).acquire_many_owned(weight).await;
        net.deliver(Batch {
            messages,
            _room: permit.ok(),
        });
    }
}

/// What a batch counts against the bound: about a KiB each, and no message for nothing.
fn weight(messages: usize, bytes: usize) -> u32 {
    (messages * 16 + bytes / 1024).min(UNTAKEN_MAX) as u32
}
