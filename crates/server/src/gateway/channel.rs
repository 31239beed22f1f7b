//! Connections to the own gRPC services: socket pairs whose other ends net threads serve as they
//! serve any client, so that nothing of a service is known here.

use std::io;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use api::{Code, Status};
use bytes::Bytes;
use h2::client::{Builder, ResponseFuture, SendRequest};
use h2::{Reason, SendStream};
use http::header::{CONTENT_TYPE, TE};
use http::{HeaderMap, HeaderValue, Method, Request, Uri};

/// Opens a connection that one net thread serves.
pub type Dial = Arc<dyn Fn() -> io::Result<UnixStream> + Send + Sync>;

/// What a call may have in flight to us; a client that does not read holds no more.
const STREAM_WINDOW_BYTES: u32 = 64 * 1024;
/// Above the sum of all streams, so that clients that do not read keep nobody waiting.
const CONNECTION_WINDOW_BYTES: u32 = (1 << 31) - 1;

/// The connections, one to each net thread.
pub(super) struct Channel {
    lanes: Vec<Lane>,
    next: AtomicUsize,
}

struct Lane {
    dial: Dial,
    /// The connection, once one was needed; replaced when it broke.
    sender: Mutex<Option<SendRequest<Bytes>>>,
}

impl Channel {
    pub(super) fn new(dials: Vec<Dial>) -> Channel {
        let lane = |dial| Lane {
            dial,
            sender: Mutex::new(None),
        };
        Channel {
            lanes: dials.into_iter().map(lane).collect(),
            next: AtomicUsize::new(0),
        }
    }

    /// Opens a call of the method at `path`; its messages are still to be sent.
    ///
    /// # Errors
    /// The member takes no calls: it is about to stop, or out of descriptors.
    pub(super) async fn open(
        &self,
        path: &'static str,
        metadata: HeaderMap,
    ) -> Result<(ResponseFuture, SendStream<Bytes>), Status> {
        let turn = self.next.fetch_add(1, Relaxed);
        let lane = &self.lanes[turn % self.lanes.len()];
        let request = request(path, metadata);
        // A connection that broke since the last call is found out here, and made anew once.
        if let Some(sender) = lane.current()
            && let Ok(mut sender) = sender.ready().await
            && let Ok(opened) = sender.send_request(request.clone(), false)
        {
            return Ok(opened);
        }
        let lost = |error: h2::Error| fault(&error);
        let mut sender = lane.connect().await?.ready().await.map_err(lost)?;
        sender.send_request(request, false).map_err(lost)
    }
}

impl Lane {
    fn current(&self) -> Option<SendRequest<Bytes>> {
        let sender = self.sender.lock().unwrap_or_else(PoisonError::into_inner);
        sender.clone()
    }

    async fn connect(&self) -> Result<SendRequest<Bytes>, Status> {
        let dialed = (self.dial)().and_then(|socket| {
            socket.set_nonblocking(true)?;
            tokio::net::UnixStream::from_std(socket)
        });
        let socket = dialed.map_err(|error| unavailable(error.to_string()))?;
        let (sender, connection) = Builder::new()
            .initial_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .enable_push(false)
            .handshake(socket)
            .await
            .map_err(|error| fault(&error))?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "the gateway's connection ended");
            }
        });
        let mut kept = self.sender.lock().unwrap_or_else(PoisonError::into_inner);
        *kept = Some(sender.clone());
        Ok(sender)
    }
}

fn request(path: &'static str, metadata: HeaderMap) -> Request<()> {
    let mut request = Request::new(());
    *request.method_mut() = Method::POST;
    *request.uri_mut() = Uri::builder()
        .scheme("http")
        .authority("localhost")
        .path_and_query(path)
        .build()
        .expect("the paths of methods are plain");
    *request.headers_mut() = metadata;
    let headers = request.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(TE, HeaderValue::from_static("trailers"));
    request
}

fn unavailable(text: String) -> Status {
    Status::new(Code::Unavailable, text)
}

/// The status of a call that the transport broke off, in grpc-go's words.
pub(super) fn fault(error: &h2::Error) -> Status {
    match error.reason() {
        Some(reason @ (Reason::REFUSED_STREAM | Reason::NO_ERROR)) => {
            unavailable(format!("stream terminated with error code: {reason:?}"))
        }
        Some(reason) if error.is_reset() => {
            let text = format!("stream terminated by RST_STREAM with error code: {reason:?}");
            Status::new(Code::Internal, text)
        }
        _ => unavailable("transport is closing".into()),
    }
}

/// The status in trailers, or in headers that are trailers too.
pub(super) fn status(headers: &HeaderMap) -> Option<Status> {
    let number = headers.get("grpc-status")?;
    let number = number.to_str().ok().and_then(|text| text.parse().ok());
    let message = headers.get("grpc-message");
    let message = message.map(|value| percent_decode(value.as_bytes()));
    Some(Status::new(code(number), message.unwrap_or_default()))
}

fn code(number: Option<u32>) -> Code {
    const CODES: [Code; 17] = [
        Code::Ok,
        Code::Canceled,
        Code::Unknown,
        Code::InvalidArgument,
        Code::DeadlineExceeded,
        Code::NotFound,
        Code::AlreadyExists,
        Code::PermissionDenied,
        Code::ResourceExhausted,
        Code::FailedPrecondition,
        Code::Aborted,
        Code::OutOfRange,
        Code::Unimplemented,
        Code::Internal,
        Code::Unavailable,
        Code::DataLoss,
        Code::Unauthenticated,
    ];
    let index = number.and_then(|number| usize::try_from(number).ok());
    let code = index.and_then(|index| CODES.get(index));
    code.copied().unwrap_or(Code::Unknown)
}

/// Undoes gRPC's escaping of texts; a broken escape stands for itself.
fn percent_decode(text: &[u8]) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, after)) = rest.split_first() {
        let digit = |at: usize| after.get(at).and_then(|byte| (*byte as char).to_digit(16));
        match (first, digit(0), digit(1)) {
            (b'%', Some(high), Some(low)) => {
                bytes.push((high * 16 + low) as u8);
                rest = &after[2..];
            }
            _ => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses() {
        let mut headers = HeaderMap::new();
        assert!(status(&headers).is_none());
        headers.insert("grpc-status", HeaderValue::from_static("5"));
        headers.insert("grpc-message", HeaderValue::from_static("a%20b%C3%A4%zz%"));
        let found = status(&headers).unwrap();
        assert_eq!(
            (found.code, &*found.message),
            (Code::NotFound, "a b\u{e4}%zz%")
        );
        headers.insert("grpc-status", HeaderValue::from_static("99"));
        assert_eq!(status(&headers).unwrap().code, Code::Unknown);
    }
}
