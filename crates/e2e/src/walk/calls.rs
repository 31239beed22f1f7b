//! Methods over gRPC, routes of the JSON gateway, and what else is served over HTTP.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use bytes::Bytes;

use super::{Found, Plan, lines};
use crate::raw::Connection;
use crate::scenario::schema;
use crate::{Error, Member, Options, free_address};

const METHODS: &str = include_str!("../../spec/methods.txt");
const ROUTES: &str = include_str!("../../spec/routes.txt");
const HTTP: &str = include_str!("../../spec/http.txt");

/// How long an answer may take; a method that waits for longer is there.
const WAIT: Duration = Duration::from_secs(2);

/// Tries every method, route and target on fresh members.
///
/// # Errors
/// A member does not start.
pub(super) async fn walk(plan: &Plan) -> Result<Found, Error> {
    let mut found = Found::default();
    methods(plan, &mut found).await?;
    routes(plan, &mut found)?;
    targets(plan, &mut found)?;
    Ok(found)
}

fn member(plan: &Plan, flags: &[String]) -> Result<Member, Error> {
    Member::start(Options {
        binary: Some(plan.etcd.clone()),
        flags: flags.to_vec(),
        ..Options::default()
    })
}

async fn methods(plan: &Plan, found: &mut Found) -> Result<(), Error> {
    let member = member(plan, &[])?;
    for line in lines(METHODS) {
        let (path, text) = line.split_once(' ').unwrap_or((line, ""));
        let body = match schema::method(path) {
            Some(method) => schema::encode(&method, text)?,
            None => Bytes::new(),
        };
        let connection = Connection::to(member.address());
        let call = connection.call(path, &[], body);
        let outcome = match tokio::time::timeout(WAIT, call).await {
            Ok(Err(status)) if status.code() == tonic::Code::Unimplemented => {
                Err(status.message().to_owned())
            }
            _ => Ok(()),
        };
        found.line("method", path, outcome);
    }
    Ok(())
}

fn routes(plan: &Plan, found: &mut Found) -> Result<(), Error> {
    let member = member(plan, &[])?;
    for line in lines(ROUTES) {
        let (target, body) = line.split_once(' ').unwrap_or((line, "{}"));
        let outcome = match ask(member.address(), "POST", target, body)? {
            Some((404, text)) if text.contains("Not Found") || text.contains("404 page") => {
                Err(format!("404 {text}"))
            }
            Some((501, text)) => Err(format!("501 {text}")),
            _ => Ok(()),
        };
        found.line("route", target, outcome);
    }
    Ok(())
}

fn targets(plan: &Plan, found: &mut Found) -> Result<(), Error> {
    let metrics = free_address()?;
    let flags = [
        "--enable-pprof".to_owned(),
        "--log-level=debug".to_owned(),
        format!("--listen-metrics-urls=http://{metrics}"),
    ];
    let member = member(plan, &flags)?;
    for line in lines(HTTP) {
        let cells: Vec<&str> = line.split(' ').collect();
        let [listener, method, target, status] = cells[..] else {
            return Err(Error(format!("want four words: {line}")));
        };
        let address = match listener {
            "client" => member.address(),
            "peer" => member.peer(),
            _ => metrics,
        };
        let outcome = match ask(address, method, target, "")? {
            Some((came, _)) if came.to_string() == status => Ok(()),
            Some((came, text)) => Err(format!("{came}, not {status}: {}", text.trim())),
            None => Err("no answer".to_owned()),
        };
        found.line("http", &format!("{listener} {target}"), outcome);
    }
    Ok(())
}

/// Status and the begin of the body; `None` when nothing came in time.
fn ask(
    address: SocketAddr,
    method: &str,
    target: &str,
    body: &str,
) -> Result<Option<(u16, String)>, Error> {
    let mut socket = TcpStream::connect(address)?;
    socket.set_read_timeout(Some(WAIT))?;
    let request = format!(
        "{method} {target} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    socket.write_all(request.as_bytes())?;
    let mut bytes = Vec::new();
    let mut piece = [0; 4096];
    // Until the end, or as much as a report needs: some answers have no end.
    while bytes.len() < 64 * 1024 {
        match socket.read(&mut piece) {
            Ok(0) | Err(_) => break,
            Ok(count) => bytes.extend_from_slice(&piece[..count]),
        }
        if bytes.windows(8).any(|part| part == b"{\"result") {
            break;
        }
    }
    let text = String::from_utf8_lossy(&bytes);
    let Some((head, body)) = text.split_once("\r\n\r\n") else {
        return Ok(None);
    };
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok())
        .ok_or_else(|| Error(format!("{target}: no HTTP answer: {head:?}")))?;
    let body: String = body.chars().take(200).collect();
    Ok(Some((status, body)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_method_is_in_the_schemas() {
        let mut count = 0;
        for line in lines(METHODS) {
            let (path, text) = line.split_once(' ').unwrap_or((line, ""));
            let method = schema::method(path).expect(path);
            schema::encode(&method, text).expect(path);
            count += 1;
        }
        assert_eq!(count, 52);
        assert_eq!(lines(ROUTES).count(), 48 + 3);
    }
}
