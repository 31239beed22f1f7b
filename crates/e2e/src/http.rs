//! Requests by HTTP/1.1, for everything beside gRPC.

mod stream;
mod websocket;

pub use stream::Stream;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(10);

/// What came back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Three digits of the status line.
    pub status: u16,
    /// Names in lower case, in the order of arrival.
    pub headers: Vec<(String, String)>,
    /// With any chunking removed.
    pub body: String,
}

impl Answer {
    /// First header of that (lower-case) name.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(one, _)| one == name)
            .map(|(_, value)| value.as_str())
    }
}

/// Sends `GET target`; the connection is closed afterwards.
///
/// # Errors
/// No connection, silence for 10 s, or an answer that is no HTTP.
pub fn get(address: SocketAddr, target: &str) -> std::io::Result<Answer> {
    request(address, "GET", target)
}

/// Sends a request without body.
///
/// # Errors
/// As [`get`].
pub fn request(address: SocketAddr, method: &str, target: &str) -> std::io::Result<Answer> {
    send(address, method, target, &[], b"")
}

/// Sends a request; the connection is closed afterwards.
///
/// # Errors
/// As [`get`].
pub fn send(
    address: SocketAddr,
    method: &str,
    target: &str,
    headers: &[(String, String)],
    body: &[u8],
) -> std::io::Result<Answer> {
    let mut socket = TcpStream::connect(address)?;
    socket.set_read_timeout(Some(LIMIT))?;
    let mut head = head(method, target, headers);
    head.push_str("Connection: close\r\n");
    if !body.is_empty() {
        head.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    head.push_str("\r\n");
    socket.write_all(&[head.as_bytes(), body].concat())?;
    let mut bytes = Vec::new();
    socket.read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    parse(&text).ok_or_else(|| std::io::Error::other(format!("no HTTP answer: {text:?}")))
}

/// Request line and headers; a `Host` of the caller's takes the place of ours.
fn head(method: &str, target: &str, headers: &[(String, String)]) -> String {
    let mut head = format!("{method} {target} HTTP/1.1\r\n");
    if !headers
        .iter()
        .any(|(name, _)| name.eq_ignore_ascii_case("host"))
    {
        head.push_str("Host: e2e\r\n");
    }
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head
}

fn parse(text: &str) -> Option<Answer> {
    let (head, body) = text.split_once("\r\n\r\n")?;
    let (status, headers) = parse_head(head)?;
    let mut answer = Answer {
        status,
        headers,
        body: body.into(),
    };
    if answer.header("transfer-encoding") == Some("chunked") {
        let trailers;
        (answer.body, trailers) = join_chunks(body)?;
        answer.headers.extend(trailers);
    }
    Some(answer)
}

type Headers = Vec<(String, String)>;

fn parse_head(head: &str) -> Option<(u16, Headers)> {
    let (line, headers) = head.split_once("\r\n").unwrap_or((head, ""));
    let status = line.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()?;
    Some((status, parse_headers(headers)))
}

fn parse_headers(text: &str) -> Headers {
    let lines = text.split("\r\n").filter_map(|line| line.split_once(':'));
    let lower = |(name, value): (&str, &str)| (name.to_lowercase(), value.trim().to_string());
    lines.map(lower).collect()
}

/// The body, and what trails it.
fn join_chunks(mut body: &str) -> Option<(String, Headers)> {
    let mut joined = String::new();
    loop {
        let (size, rest) = body.split_once("\r\n")?;
        let size = usize::from_str_radix(size.trim(), 16).ok()?;
        if size == 0 {
            return Some((joined, parse_headers(rest)));
        }
        joined.push_str(rest.get(..size)?);
        body = rest.get(size + 2..)?;
    }
}

#[cfg(test)]
mod tests;
