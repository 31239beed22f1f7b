//! Whether URLs mean the same although they are written differently.

use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::time::{Duration, Instant};

use api::cluster::same_texts;
use api::url::Url;

/// Pause between two attempts to look a name up, as in etcd.
const RETRY: Duration = Duration::from_secs(1);

/// Looks up a host and a port.
pub(super) type Lookup = fn(&str, u16) -> io::Result<SocketAddr>;

/// The system's resolver.
pub(super) fn system(host: &str, port: u16) -> io::Result<SocketAddr> {
    let mut found = (host, port).to_socket_addrs()?;
    found
        .next()
        .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "no such host"))
}

/// Compares URLs in any order: as texts, and if they differ by their addresses, for which names
/// are looked up again and again until the time is over.
///
/// # Errors
/// How they differ, in etcd's words, or which name cannot be looked up.
pub(super) fn same(
    a: &[String],
    b: &[String],
    until: Instant,
    lookup: Lookup,
) -> Result<(), String> {
    match same_texts(a, b) {
        Err(why) if a.len() != b.len() => Err(why),
        Err(_) => {
            let resolved = |urls: &[String]| {
                let each = urls.iter().map(|url| resolve(url, until, lookup));
                each.collect::<Result<Vec<_>, _>>()
            };
            same_texts(&resolved(a)?, &resolved(b)?)
        }
        Ok(()) => Ok(()),
    }
}

fn resolve(text: &str, until: Instant, lookup: Lookup) -> Result<String, String> {
    let url = Url::parse(text).map_err(|_| format!("failed to parse string to URL: {text:?}"))?;
    if url.scheme().is_unix() || url.host() == "localhost" {
        return Ok(url.to_string());
    }
    let failed = |why: &str| format!("failed to resolve {text:?} ({why})");
    let port = url.port().parse().map_err(|_| failed("invalid port"))?;
    let with = |address: IpAddr| url.with_host(&address.to_string()).to_string();
    if let Ok(address) = url.host().parse() {
        return Ok(with(address));
    }
    loop {
        match lookup(url.host(), port) {
            Ok(address) => return Ok(with(address.ip())),
            Err(error) => {
                tracing::warn!(
                    %url,
                    host = url.address(),
                    "retry-interval" = "1s",
                    %error,
                    "failed to resolve URL Host"
                );
                if Instant::now() + RETRY > until {
                    return Err(failed(&error.to_string()));
                }
            }
        }
        std::thread::sleep(RETRY);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(host: &str, port: u16) -> io::Result<SocketAddr> {
        let address: IpAddr = match host {
            "a" | "a.example" => IpAddr::from([10, 0, 0, 1]),
            "b" => IpAddr::from([10, 0, 0, 2]),
            _ => return Err(io::ErrorKind::NotFound.into()),
        };
        Ok((address, port).into())
    }

    #[test]
    fn names_are_compared_by_address() {
        let compare = |a: &str, b: &str| {
            let split = |urls: &str| urls.split(',').map(str::to_owned).collect::<Vec<_>>();
            same(&split(a), &split(b), Instant::now(), known)
        };
        for (a, b) in [
            ("http://a:1", "http://10.0.0.1:1"),
            ("http://b:1,http://a:2", "http://a.example:2,http://b:1"),
            ("http://nobody:1", "http://nobody:1"),
            ("unix://x:1", "unix://x:1"),
            ("http://[::1]:2", "http://[0:0:0:0:0:0:0:1]:2"),
        ] {
            assert_eq!(compare(a, b), Ok(()), "{a} {b}");
        }
        for (a, b, why) in [
            (
                "http://a:1",
                "http://b:1",
                "resolved urls: \"http://10.0.0.1:1\" != \"http://10.0.0.2:1\"",
            ),
            (
                "http://a:1",
                "https://a.example:1",
                "resolved urls: \"http://10.0.0.1:1\" != \"https://10.0.0.1:1\"",
            ),
            (
                "http://a:1",
                "http://a:1,http://a:2",
                "len([\"http://a:1\"]) != len([\"http://a:1\" \"http://a:2\"])",
            ),
            (
                "http://localhost:1",
                "http://127.0.0.1:1",
                "resolved urls: \"http://localhost:1\" != \"http://127.0.0.1:1\"",
            ),
            (
                "ftp://a",
                "http://a:1",
                "failed to parse string to URL: \"ftp://a\"",
            ),
        ] {
            assert_eq!(compare(a, b), Err(why.to_owned()));
        }
        let unknown = compare("http://nobody:1", "http://a:1").unwrap_err();
        assert!(
            unknown.starts_with("failed to resolve \"http://nobody:1\" ("),
            "{unknown}"
        );
    }
}
