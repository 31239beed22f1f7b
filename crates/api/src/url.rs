//! The URLs of flags: `http://host:port`, `https://host:port`, `unix://path`, `unixs://path`.

use std::fmt;
use std::net::IpAddr;

/// How a listener or member is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scheme {
    Http,
    Https,
    Unix,
    Unixs,
}

impl Scheme {
    /// The text before `://`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Scheme::Http => "http",
            Scheme::Https => "https",
            Scheme::Unix => "unix",
            Scheme::Unixs => "unixs",
        }
    }

    /// Whether traffic is encrypted.
    #[must_use]
    pub fn is_secure(self) -> bool {
        matches!(self, Scheme::Https | Scheme::Unixs)
    }

    /// Whether the address is a socket file.
    #[must_use]
    pub fn is_unix(self) -> bool {
        matches!(self, Scheme::Unix | Scheme::Unixs)
    }
}

/// A checked URL. For TCP schemes `address` is `host:port` with the host in brackets when it is
/// an IPv6 address; for socket files it is the path.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Url {
    scheme: Scheme,
    address: String,
}

impl Url {
    /// Parses one URL, surrounding spaces removed.
    ///
    /// # Errors
    /// The reason in the words of etcd, or of Go's URL parser.
    pub fn parse(text: &str) -> Result<Url, String> {
        let text = text.trim();
        let (scheme, rest) = split_scheme(text).map_err(|why| format!("parse {text:?}: {why}"))?;
        let scheme = match scheme.as_str() {
            "http" => Scheme::Http,
            "https" => Scheme::Https,
            "unix" => Scheme::Unix,
            "unixs" => Scheme::Unixs,
            _ => {
                return Err(format!(
                    "URL scheme must be http, https, unix, or unixs: {text}"
                ));
            }
        };
        let Some(rest) = rest.strip_prefix("//") else {
            if scheme.is_unix() {
                return Ok(Url {
                    scheme,
                    address: rest.to_owned(),
                });
            }
            return Err(format!(
                "URL address does not have the form \"host:port\": {text}"
            ));
        };
        if scheme.is_unix() {
            return Ok(Url {
                scheme,
                address: rest.to_owned(),
            });
        }
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (address, tail) = rest.split_at(end);
        // Go keeps user names apart from the host, and nobody reads them.
        let address = address.rsplit_once('@').map_or(address, |(_, host)| host);
        check_host(address).map_err(|why| format!("parse {text:?}: {why}"))?;
        if split_host_port(address).is_none() {
            return Err(format!(
                "URL address does not have the form \"host:port\": {text}"
            ));
        }
        if !tail.is_empty() {
            return Err(format!("URL must not contain a path: {text}"));
        }
        Ok(Url {
            scheme,
            address: address.to_owned(),
        })
    }

    /// How the address is meant.
    #[must_use]
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// `host:port`, or the path of a socket file.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The host without brackets; empty for socket files.
    #[must_use]
    pub fn host(&self) -> &str {
        if self.scheme.is_unix() {
            return "";
        }
        split_host_port(&self.address).map_or("", |(host, _)| host)
    }

    /// The port's text; empty for socket files.
    #[must_use]
    pub fn port(&self) -> &str {
        if self.scheme.is_unix() {
            return "";
        }
        split_host_port(&self.address).map_or("", |(_, port)| port)
    }

    /// The same URL at another host.
    #[must_use]
    pub fn with_host(&self, host: &str) -> Url {
        let host = if host.contains(':') {
            format!("[{host}]")
        } else {
            host.to_owned()
        };
        Url {
            scheme: self.scheme,
            address: format!("{host}:{}", self.port()),
        }
    }

    /// Whether a listener can bind here: an IP address or `localhost`.
    pub fn check_bind(&self) -> Result<(), String> {
        let host = self.host();
        if self.scheme.is_unix() || host == "localhost" || host.parse::<IpAddr>().is_ok() {
            return Ok(());
        }
        Err(format!("expected IP in URL for binding ({self})"))
    }

    /// Whether others can dial it: the host is not empty.
    pub fn check_host(&self) -> Result<(), String> {
        if self.scheme.is_unix() || !self.host().is_empty() {
            return Ok(());
        }
        Err(format!("unexpected empty host ({self})"))
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme.as_str(), self.address)
    }
}

/// A comma-separated list, sorted and without duplicates. The empty text is an empty list.
///
/// # Errors
/// The reason why the first bad URL is bad.
pub fn parse_list(text: &str) -> Result<Vec<Url>, String> {
    if text.is_empty() {
        return Ok(Vec::new());
    }
    parse_sequence(text.split(','))
}

/// The URLs of `texts`, sorted and without duplicates.
///
/// # Errors
/// The reason why the first bad URL is bad.
pub fn parse_sequence<'a>(texts: impl IntoIterator<Item = &'a str>) -> Result<Vec<Url>, String> {
    let mut urls = texts
        .into_iter()
        .map(Url::parse)
        .collect::<Result<Vec<_>, _>>()?;
    urls.sort_by_cached_key(Url::to_string);
    urls.dedup();
    Ok(urls)
}

/// The texts of URLs.
#[must_use]
pub fn texts(urls: &[Url]) -> Vec<String> {
    urls.iter().map(Url::to_string).collect()
}

/// `a,b` as etcd prints a list of URLs.
pub fn join(urls: &[Url]) -> String {
    urls.iter()
        .map(Url::to_string)
        .collect::<Vec<_>>()
        .join(",")
}

/// Go's `getScheme`: lower-cased scheme and what follows the colon; an empty scheme when there
/// is none.
fn split_scheme(text: &str) -> Result<(String, &str), &'static str> {
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' => {}
            b'0'..=b'9' | b'+' | b'-' | b'.' if at > 0 => {}
            b':' if at == 0 => return Err("missing protocol scheme"),
            b':' => return Ok((text[..at].to_ascii_lowercase(), &text[at + 1..])),
            _ => break,
        }
    }
    let segment = text.split('/').next().unwrap_or_default();
    if segment.contains(':') {
        return Err("first path segment in URL cannot contain colon");
    }
    Ok((String::new(), text))
}

/// The refusals of Go's URL parser that concern the authority part.
fn check_host(address: &str) -> Result<(), String> {
    if let Some(bad) = address
        .chars()
        .find(|c| " \"<>\\^`{|}".contains(*c) || c.is_control())
    {
        return Err(format!(
            "invalid character {:?} in host name",
            bad.to_string()
        ));
    }
    let after = match address.strip_prefix('[') {
        Some(rest) => match rest.rfind(']') {
            Some(end) => &rest[end + 1..],
            None => return Err("missing ']' in host".into()),
        },
        None => address.find(':').map_or("", |at| &address[at..]),
    };
    let port_ok = after.is_empty()
        || after
            .strip_prefix(':')
            .is_some_and(|port| port.bytes().all(|b| b.is_ascii_digit()));
    if port_ok {
        Ok(())
    } else {
        Err(format!("invalid port {after:?} after host"))
    }
}

/// Go's `net.SplitHostPort`, whose errors nobody sees.
fn split_host_port(address: &str) -> Option<(&str, &str)> {
    let (host, port) = address.rsplit_once(':')?;
    if let Some(inside) = host.strip_prefix('[') {
        let inside = inside.strip_suffix(']')?;
        return (!inside.contains(['[', ']'])).then_some((inside, port));
    }
    (!host.contains([':', '[', ']'])).then_some((host, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        let cases: &[(&str, Result<&str, &str>)] = &[
            ("http://127.0.0.1:2379", Ok("http://127.0.0.1:2379")),
            (" HTTP://localhost:1 ", Ok("http://localhost:1")),
            ("http://[::1]:2379", Ok("http://[::1]:2379")),
            ("http://:2379", Ok("http://:2379")),
            ("unix://127.0.0.1:2379", Ok("unix://127.0.0.1:2379")),
            ("unix:///tmp/x.sock", Ok("unix:///tmp/x.sock")),
            (
                "ftp://a:1",
                Err("URL scheme must be http, https, unix, or unixs: ftp://a:1"),
            ),
            (
                "localhost:1",
                Err("URL scheme must be http, https, unix, or unixs: localhost:1"),
            ),
            (
                "abc",
                Err("URL scheme must be http, https, unix, or unixs: abc"),
            ),
            (
                "http://a",
                Err("URL address does not have the form \"host:port\": http://a"),
            ),
            (
                "http://::1:5",
                Err("parse \"http://::1:5\": invalid port \"::1:5\" after host"),
            ),
            (
                "http://a:1/x",
                Err("URL must not contain a path: http://a:1/x"),
            ),
            (
                "http://a:1/",
                Err("URL must not contain a path: http://a:1/"),
            ),
            (
                "127.0.0.1:1",
                Err("parse \"127.0.0.1:1\": first path segment in URL cannot contain colon"),
            ),
            (":1", Err("parse \":1\": missing protocol scheme")),
            (
                "http://a:b",
                Err("parse \"http://a:b\": invalid port \":b\" after host"),
            ),
            (
                "http://a b:1",
                Err("parse \"http://a b:1\": invalid character \" \" in host name"),
            ),
        ];
        for (text, want) in cases {
            let got = Url::parse(text).map(|url| url.to_string());
            assert_eq!(got.as_deref().map_err(String::as_str), *want, "{text:?}");
        }
    }

    #[test]
    fn lists_are_sorted_and_unique() {
        let list = parse_list("http://b:1,http://a:1,http://b:1").unwrap();
        assert_eq!(join(&list), "http://a:1,http://b:1");
    }

    #[test]
    fn binding_needs_an_address() {
        let bind = |text: &str| Url::parse(text).unwrap().check_bind();
        assert_eq!(bind("http://localhost:1"), Ok(()));
        assert_eq!(bind("http://[::]:1"), Ok(()));
        assert_eq!(
            bind("http://x:1"),
            Err("expected IP in URL for binding (http://x:1)".into())
        );
    }
}
