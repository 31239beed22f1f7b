//! One address of a server, as operators write it.

use std::path::PathBuf;

/// Where the socket is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Address {
    /// A host name or address and a port.
    Tcp { host: String, port: u16 },
    /// The path of a Unix socket.
    Unix(PathBuf),
}

/// Whether a scheme asks for TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Security {
    /// TLS, with the system's roots when nothing is configured.
    Required,
    /// Clear text, whatever is configured.
    Never,
    /// TLS when it is configured.
    IfConfigured,
}

/// One address of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    pub(crate) text: String,
    pub(crate) address: Address,
    pub(crate) security: Security,
    /// The name that the server's certificate must bear.
    pub(crate) server_name: String,
    /// What the `:authority` of requests says.
    pub(crate) authority: String,
}

/// The port of an `http://` or `https://` endpoint that names none.
const fn default_port(security: Security) -> Option<u16> {
    match security {
        Security::Required => Some(443),
        Security::Never => Some(80),
        Security::IfConfigured => None,
    }
}

impl Endpoint {
    /// Reads `host:port`, `http://host:port`, `https://host:port`, `unix://path`,
    /// `unixs://path` or `unix:path`.
    ///
    /// # Errors
    /// A text that names no address, as a sentence.
    pub fn parse(text: &str) -> Result<Self, String> {
        for (scheme, security) in [
            ("unixs:", Security::Required),
            ("unix:", Security::IfConfigured),
        ] {
            if let Some(rest) = text.strip_prefix(scheme) {
                return Ok(Self::unix(
                    text,
                    rest.strip_prefix("//").unwrap_or(rest),
                    security,
                ));
            }
        }
        if let Some(rest) = text.strip_prefix("https://") {
            return Self::tcp(text, rest, Security::Required);
        }
        if let Some(rest) = text.strip_prefix("http://") {
            return Self::tcp(text, rest, Security::Never);
        }
        match text.split_once("://") {
            Some((scheme, _)) => Err(format!("endpoint {text:?} has unknown scheme {scheme:?}")),
            None => Self::tcp(text, text, Security::IfConfigured),
        }
    }

    fn unix(text: &str, path: &str, security: Security) -> Self {
        let path = PathBuf::from(path);
        let server_name = path
            .file_name()
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default();
        // The socket's name may be no host name at all, so requests name the local host.
        let authority = "localhost".to_owned();
        Endpoint {
            text: text.to_owned(),
            address: Address::Unix(path),
            security,
            server_name,
            authority,
        }
    }

    fn tcp(text: &str, rest: &str, security: Security) -> Result<Self, String> {
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let (host, port) = split_host_port(authority)
            .ok_or_else(|| format!("endpoint {text:?} is not an address"))?;
        let port = match port {
            Some(port) => port
                .parse()
                .map_err(|_| format!("endpoint {text:?} has a bad port"))?,
            None => default_port(security)
                .ok_or_else(|| format!("endpoint {text:?} is missing its port"))?,
        };
        if host.is_empty() {
            return Err(format!("endpoint {text:?} is missing its host"));
        }
        Ok(Endpoint {
            text: text.to_owned(),
            address: Address::Tcp {
                host: host.to_owned(),
                port,
            },
            security,
            server_name: host.to_owned(),
            authority: authority.to_owned(),
        })
    }

    /// The text that the endpoint was read from.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

/// Splits `host:port`, `[v6]:port` or a bare host; the brackets are dropped.
fn split_host_port(authority: &str) -> Option<(&str, Option<&str>)> {
    if let Some(rest) = authority.strip_prefix('[') {
        let (host, after) = rest.split_once(']')?;
        return match after.strip_prefix(':') {
            Some(port) => Some((host, Some(port))),
            None if after.is_empty() => Some((host, None)),
            None => None,
        };
    }
    match authority.split_once(':') {
        Some((_, port)) if port.contains(':') => None,
        Some((host, port)) => Some((host, Some(port))),
        None => Some((authority, None)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, host: &str, port: u16, security: Security) {
        let endpoint = Endpoint::parse(text).unwrap();
        assert_eq!(
            endpoint.address,
            Address::Tcp {
                host: host.to_owned(),
                port
            },
            "{text}"
        );
        assert_eq!(endpoint.security, security, "{text}");
    }

    #[test]
    fn forms_of_tcp_endpoints() {
        check("127.0.0.1:2379", "127.0.0.1", 2379, Security::IfConfigured);
        check("http://a.example:80/", "a.example", 80, Security::Never);
        check("https://a.example", "a.example", 443, Security::Required);
        check("https://[::1]:2379", "::1", 2379, Security::Required);
    }

    #[test]
    fn forms_of_unix_endpoints() {
        for text in ["unix:///run/etcd.sock", "unix:/run/etcd.sock"] {
            let endpoint = Endpoint::parse(text).unwrap();
            assert_eq!(
                endpoint.address,
                Address::Unix("/run/etcd.sock".into()),
                "{text}"
            );
        }
        assert_eq!(
            Endpoint::parse("unix://local.sock").unwrap().address,
            Address::Unix("local.sock".into())
        );
    }

    #[test]
    fn texts_that_are_no_endpoint() {
        for text in [
            "",
            "host",
            ":2379",
            "ftp://a:1",
            "a:b:c",
            "http://a:99999",
            "[::1",
        ] {
            assert!(Endpoint::parse(text).is_err(), "{text}");
        }
    }
}
