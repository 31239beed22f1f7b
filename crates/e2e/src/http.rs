//! One GET by HTTP/1.1, for the endpoints beside gRPC.

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
    let mut socket = TcpStream::connect(address)?;
    socket.set_read_timeout(Some(LIMIT))?;
    let head = format!("{method} {target} HTTP/1.1\r\nHost: e2e\r\nConnection: close\r\n\r\n");
    socket.write_all(head.as_bytes())?;
    let mut bytes = Vec::new();
    socket.read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    parse(&text).ok_or_else(|| std::io::Error::other(format!("no HTTP answer: {text:?}")))
}

fn parse(text: &str) -> Option<Answer> {
    let (head, body) = text.split_once("\r\n\r\n")?;
    let mut lines = head.split("\r\n");
    let status = lines
        .next()?
        .strip_prefix("HTTP/1.1 ")?
        .get(..3)?
        .parse()
        .ok()?;
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_lowercase(), value.trim().to_string()))
        .collect();
    let mut answer = Answer {
        status,
        headers,
        body: body.into(),
    };
    if answer.header("transfer-encoding") == Some("chunked") {
        answer.body = join_chunks(body)?;
    }
    Some(answer)
}

fn join_chunks(mut body: &str) -> Option<String> {
    let mut joined = String::new();
    loop {
        let (size, rest) = body.split_once("\r\n")?;
        let size = usize::from_str_radix(size.trim(), 16).ok()?;
        if size == 0 {
            return Some(joined);
        }
        joined.push_str(rest.get(..size)?);
        body = rest.get(size + 2..)?;
    }
}

#[cfg(test)]
mod tests;
