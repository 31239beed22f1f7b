//! What the front end does not serve itself: connections in another protocol than HTTP/2, and
//! HTTP/2 requests that are not gRPC.

use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri};
use http_body_util::BodyExt;

use super::connection::has_name;
use super::{Answer, Channel, Listener, Request, RequestBody, Server, Stream, Tail};
use crate::front::{Bridge, BridgeReply, BridgeRequest, Foreign, Socket};

/// What one answer may have on its way to its client.
const QUEUED_BYTES_MAX: usize = 64 * 1024;

impl Server {
    /// The front end's way for connections that do not speak HTTP/2.
    #[must_use]
    pub fn foreign(self: &Arc<Self>) -> Foreign {
        let server = self.clone();
        Arc::new(move |socket, read, place| {
            if let Some(stream) = Stream::of(socket) {
                server.serve(stream, read, Some(place));
            }
        })
    }
}

impl Stream {
    /// The front end's connection; `None` while it is unknown what it speaks, which the front end
    /// does not hand over.
    fn of(socket: Socket) -> Option<Stream> {
        match socket {
            Socket::Tcp(stream) => Some(Stream::Tcp(stream)),
            Socket::Unix(stream) => Some(Stream::Unix(stream)),
            Socket::Secure(secure) => {
                let (plain, session) = secure.into_parts();
                let inner = Stream::of(plain.into())?;
                Some(Stream::Secure(Box::new(inner), session))
            }
            Socket::Undecided(_) => None,
        }
    }
}

impl Bridge for Server {
    fn on_request(&self, request: BridgeRequest, mut reply: BridgeReply) {
        let tail = Tail::of(RequestBody::Whole(request.body.clone()));
        let Some(request) = convert(&request) else {
            reply.head(StatusCode::BAD_REQUEST.as_u16(), Vec::new());
            reply.finish();
            return;
        };
        let routes = self.routes().clone();
        self.handle().spawn(async move {
            let answer = tokio::select! {
                answer = routes.answer(&request, tail, Listener::Client) => answer,
                () = reply.gone() => return,
            };
            relay(answer, request.method == Method::HEAD, reply).await;
        });
    }
}

/// Passes an answer on as its client takes it. Dropping the reply resets the stream, and dropping
/// the answer cancels whatever makes it.
async fn relay(answer: Answer, bare: bool, mut reply: BridgeReply) {
    let (head, mut body) = answer.into_parts();
    let fields = head.headers.iter().map(|(name, value)| {
        (
            Bytes::copy_from_slice(name.as_str().as_bytes()),
            Bytes::copy_from_slice(value.as_bytes()),
        )
    });
    let date = httpdate::fmt_http_date(SystemTime::now());
    let date = (Bytes::from_static(b"date"), Bytes::from(date));
    let fields = fields.chain([date]).collect();
    reply.head(head.status.as_u16(), fields);
    if bare {
        return reply.finish();
    }
    loop {
        let frame = tokio::select! {
            frame = body.frame() => frame,
            () = reply.gone() => return,
        };
        let bytes = match frame {
            None => break,
            Some(Ok(frame)) => frame.into_data().unwrap_or_default(),
            Some(Err(_)) => return,
        };
        if !bytes.is_empty() {
            reply.chunk(bytes);
        }
        if !reply.room(QUEUED_BYTES_MAX).await {
            return;
        }
    }
    reply.finish();
}

/// The request in terms of HTTP/1; `None` when a part of it is malformed.
fn convert(request: &BridgeRequest) -> Option<Request> {
    let pseudo = |name: &str| request.field(name);
    let method = Method::from_bytes(pseudo(":method")?).ok()?;
    let uri = Uri::from_maybe_shared(pseudo(":path")?.clone()).ok()?;
    let channel = Channel {
        secure: pseudo(":scheme").is_some_and(|scheme| scheme == "https"),
        named: has_name(request.identity.as_deref()),
    };
    let mut headers = HeaderMap::new();
    if let Some(authority) = pseudo(":authority") {
        headers.insert(http::header::HOST, HeaderValue::from_bytes(authority).ok()?);
    }
    for (name, value) in request
        .fields
        .iter()
        .filter(|(name, _)| !name.starts_with(b":"))
    {
        let name = HeaderName::from_bytes(name).ok()?;
        headers.append(name, HeaderValue::from_bytes(value).ok()?);
    }
    Some(Request {
        method,
        uri,
        headers,
        channel,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests() {
        let field = |name: &'static str, value: &'static str| {
            (
                Bytes::from_static(name.as_bytes()),
                Bytes::from_static(value.as_bytes()),
            )
        };
        let fields = vec![
            field(":method", "GET"),
            field(":scheme", "https"),
            field(":path", "/readyz?verbose"),
            field(":authority", "a:1"),
            field("origin", "http://b"),
        ];
        let request = convert(&BridgeRequest {
            identity: None,
            fields,
            body: Bytes::new(),
        })
        .unwrap();
        assert_eq!(
            (request.method, request.channel.secure),
            (Method::GET, true)
        );
        assert_eq!(
            (request.uri.path(), request.uri.query()),
            ("/readyz", Some("verbose"))
        );
        assert_eq!(request.headers["host"], "a:1");
        assert_eq!(request.headers["origin"], "http://b");
        let fields = vec![field(":method", "GET"), field(":path", " ")];
        assert!(
            convert(&BridgeRequest {
                identity: None,
                fields,
                body: Bytes::new()
            })
            .is_none()
        );
    }
}
