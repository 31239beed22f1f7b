//! Web sockets: each message of the client is one more line of a request's body, each line of the
//! answer is one message to the client.
//!
//! Messages are passed on while they arrive, in either direction, so that their length costs no
//! memory here.

mod frame;

use std::io;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{
    AUTHORIZATION, CONNECTION, COOKIE, ORIGIN, REFERER, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode};
use http_body_util::BodyExt;
use sha1::{Digest, Sha1};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, WriteHalf};
use tokio::sync::{Mutex, mpsc};

use self::frame::{Close, Event, Parser};
use super::Gateway;
use crate::http::{Answer, Request, RequestBody, error, whole};

/// RFC 6455 §1.3.
const ACCEPT_SALT: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
const READ_BYTES: usize = 16 * 1024;

/// A connection of which HTTP is done.
pub(crate) trait Socket: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Socket for S {}

/// Whether a request asks for a web socket.
pub(crate) fn is_asked_for(headers: &HeaderMap) -> bool {
    has_token(headers, &CONNECTION, "upgrade") && has_token(headers, &UPGRADE, "websocket")
}

fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    let values = headers.get_all(name).into_iter();
    let mut words = values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|text| text.split(','));
    words.any(|word| word.trim().eq_ignore_ascii_case(token))
}

/// The answer that begins a web socket (status 101), or says why there is none.
pub(crate) fn handshake(request: &Request) -> Answer {
    let header = |name| request.headers.get(name);
    if request.method != Method::GET {
        return refusal(StatusCode::METHOD_NOT_ALLOWED);
    }
    let key = header(SEC_WEBSOCKET_KEY).filter(|key| !key.is_empty());
    let Some(key) = key.filter(|_| has_token(&request.headers, &SEC_WEBSOCKET_VERSION, "13"))
    else {
        return refusal(StatusCode::BAD_REQUEST);
    };
    let mut hash = Sha1::new();
    hash.update(key.as_bytes());
    hash.update(ACCEPT_SALT);
    let accept = STANDARD.encode(hash.finalize());
    let mut answer = Response::new(whole(Bytes::new()));
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = answer.headers_mut();
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    let accept = HeaderValue::from_str(&accept).expect("base64 is plain text");
    headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    if header(SEC_WEBSOCKET_PROTOCOL).is_some_and(|value| value.as_bytes().starts_with(b"Bearer")) {
        headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static("Bearer"));
    }
    answer
}

fn refusal(status: StatusCode) -> Answer {
    let mut answer = error(status, status.canonical_reason().unwrap_or_default());
    let version = HeaderValue::from_static("13");
    answer.headers_mut().insert(SEC_WEBSOCKET_VERSION, version);
    answer
}

/// The request that a web socket stands for. Scripts in a browser cannot set headers, so the
/// token comes as a protocol or as a cookie; of the other headers only two are passed on.
fn meant(request: &Request) -> Request {
    let mut headers = HeaderMap::new();
    for name in [ORIGIN, REFERER] {
        if let Some(value) = request.headers.get(&name) {
            headers.insert(name, value.clone());
        }
    }
    let text = |name| {
        request
            .headers
            .get(name)
            .and_then(|value: &HeaderValue| value.to_str().ok())
    };
    let protocol = text(SEC_WEBSOCKET_PROTOCOL).and_then(|text| text.split_once("Bearer,"));
    let protocol = protocol.map(|(_, token)| token.trim_matches(' '));
    let cookies = text(COOKIE).into_iter().flat_map(|text| text.split(';'));
    let mut pairs = cookies.filter_map(|pair| pair.trim().split_once('='));
    let cookie = pairs
        .find(|(name, _)| *name == "token")
        .map(|(_, value)| value);
    if let Some(token) = cookie.or(protocol)
        && let Ok(value) = HeaderValue::from_str(&format!("Bearer {token}"))
    {
        headers.insert(AUTHORIZATION, value);
    }
    Request {
        method: Method::POST,
        uri: request.uri.clone(),
        headers,
        channel: request.channel,
    }
}

/// Carries one call over the socket, to the end of either.
pub(crate) async fn converse(
    gateway: &Gateway,
    path: &str,
    request: &Request,
    socket: impl Socket,
) {
    let (mut read, write) = tokio::io::split(socket);
    let write = Arc::new(Mutex::new(write));
    let (messages, body) = mpsc::channel(1);
    let request = meant(request);
    let outcome = tokio::select! {
        outcome = receive(&mut read, &write, messages) => outcome,
        outcome = answer(gateway, path, &request, body, &write) => outcome,
    };
    let mut write = write.lock().await;
    let code = match outcome {
        Ok(close) => close.code,
        // The client is gone.
        Err(_) => return,
    };
    // It may be gone by now, which is what a farewell is for.
    let _ = write.write_all(&frame::close(code)).await;
    let _ = write.shutdown().await;
}

/// Passes messages on until the client closes.
async fn receive<S: Socket>(
    read: &mut (impl AsyncRead + Unpin),
    write: &Mutex<WriteHalf<S>>,
    messages: mpsc::Sender<Bytes>,
) -> io::Result<Close> {
    let mut parser = Parser::default();
    let mut buffer = vec![0; READ_BYTES];
    loop {
        let count = read.read(&mut buffer).await?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut rest = &mut buffer[..count];
        while let Some(event) = parser.next(&mut rest) {
            let line = match event {
                Event::Data(bytes) => Bytes::copy_from_slice(bytes),
                Event::MessageEnd => Bytes::from_static(b"\n"),
                Event::Ping(data) => {
                    write.lock().await.write_all(&frame::pong(&data)).await?;
                    continue;
                }
                Event::Close(close) => return Ok(close),
            };
            // A call that is over takes nothing more; its end is on its way to the client.
            let _ = messages.send(line).await;
        }
    }
}

/// Sends the answer, line by line.
async fn answer<S: Socket>(
    gateway: &Gateway,
    path: &str,
    request: &Request,
    body: mpsc::Receiver<Bytes>,
    write: &Mutex<WriteHalf<S>>,
) -> io::Result<Close> {
    let answer = gateway
        .answer(path, request, RequestBody::Messages(body))
        .await;
    let mut body = answer.into_body();
    // A message was begun on the wire.
    let mut open = false;
    let mut out = Vec::new();
    while let Some(piece) = body.frame().await {
        let Ok(piece) = piece?.into_data() else {
            continue;
        };
        out.clear();
        for part in piece.split_inclusive(|byte| *byte == b'\n') {
            let (line, end) = match part.split_last() {
                Some((b'\n', line)) => (line, true),
                _ => (part, false),
            };
            frame::text(line, !open, end, &mut out);
            open = !end;
        }
        write.lock().await.write_all(&out).await?;
    }
    if open {
        out.clear();
        frame::text(&[], false, true, &mut out);
        write.lock().await.write_all(&out).await?;
    }
    Ok(Close::NORMAL)
}

#[cfg(test)]
mod tests;
