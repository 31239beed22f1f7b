//! Sockets for the URLs of the configuration.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::sync::Arc;

use rustix::net::sockopt::{set_socket_reuseaddr, set_socket_reuseport};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, listen, socket_with};

use crate::config::{Listen, Url};
use crate::front::{self, Traffic};
use crate::metrics;
use crate::tls::{self, Credentials};

/// Descriptors that the process needs besides connections, by etcd's rule.
const RESERVED_FDS: u64 = 150;

/// Connections that the kernel may hold for us until they are accepted.
const BACKLOG: i32 = 4096;

/// Why there is nothing to listen on.
#[derive(Debug)]
pub enum Error {
    /// The system refused a socket, an option or the address.
    Bind {
        address: String,
        step: &'static str,
        source: io::Error,
    },
    /// The name has no address.
    Resolve { address: String, source: io::Error },
    /// Fewer descriptors than the process needs for itself.
    FdLimit { limit: u64 },
    /// Nothing to encrypt with.
    Tls(tls::Error),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // Go's wording, which scripts look for.
            Error::Bind {
                address,
                step,
                source,
            } => {
                let why = match source.kind() {
                    io::ErrorKind::AddrInUse => "address already in use".to_owned(),
                    io::ErrorKind::AddrNotAvailable => "cannot assign requested address".to_owned(),
                    io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
                    _ => source.to_string(),
                };
                write!(f, "listen {address}: {step}: {why}")
            }
            Error::Resolve { address, source } => write!(f, "listen tcp {address}: {source}"),
            Error::FdLimit { limit } => write!(
                f,
                "file descriptor limit[{limit}] of etcd process is too low, and should be set \
                 higher than {RESERVED_FDS} to ensure internal usage"
            ),
            Error::Tls(error) => error.fmt(f),
        }
    }
}

// The texts name the cause already, in Go's words.
impl std::error::Error for Error {}

/// Everything that the process listens on.
#[derive(Debug)]
pub struct Sockets {
    /// For other members.
    pub peers: Vec<front::Listener>,
    pub clients: Vec<front::Listener>,
    /// What each of `clients` is for.
    pub traffic: Vec<Traffic>,
    /// With the credentials of those behind TLS.
    pub metrics: Vec<(TcpListener, Option<Arc<Credentials>>)>,
    /// Client connections that may be open at a time.
    pub connections_max: usize,
}

impl Sockets {
    /// Binds the peer, client and metrics URLs, in this order. Client URLs of one address share a
    /// socket, whatever their schemes; with URLs for HTTP alone, the others are for gRPC alone.
    ///
    /// # Errors
    /// The first address that cannot be had, or too low a limit of descriptors.
    pub fn bind(urls: &Listen, tls: &tls::Setup) -> Result<Sockets, Error> {
        let limit = metrics::fd_limit().unwrap_or(u64::MAX);
        if limit <= RESERVED_FDS {
            return Err(Error::FdLimit { limit });
        }
        let peers = bind_peers(urls, tls.peer.as_ref())?;
        let tls = tls.client.as_ref();
        let mut clients = bind_clients(&urls.client, urls, tls)?;
        let split = !urls.client_http.is_empty();
        let first = if split { Traffic::Grpc } else { Traffic::All };
        let mut traffic = vec![first; clients.len()];
        clients.extend(bind_clients(&urls.client_http, urls, tls)?);
        traffic.resize(clients.len(), Traffic::Http);
        let metrics = urls
            .metrics
            .iter()
            .map(|url| match (url.scheme().is_secure(), tls) {
                (true, None) => Err(Error::Tls(tls::Error::MissingForMetrics)),
                (true, Some(tls)) => Ok((bind_tcp(url, urls)?, Some(Arc::clone(tls)))),
                (false, _) => Ok((bind_tcp(url, urls)?, None)),
            })
            .collect::<Result<_, _>>()?;
        let connections_max = usize::try_from(limit - RESERVED_FDS).unwrap_or(usize::MAX);
        Ok(Sockets {
            peers,
            clients,
            traffic,
            metrics,
            connections_max,
        })
    }
}

/// Those of one address share a socket.
fn bind_clients(
    urls: &[Url],
    options: &Listen,
    tls: Option<&Arc<Credentials>>,
) -> Result<Vec<front::Listener>, Error> {
    if let Some(url) = urls.iter().find(|url| url.scheme().is_secure())
        && tls.is_none()
    {
        let url = url.to_string();
        return Err(Error::Tls(tls::Error::MissingForClient { url }));
    }
    let mut clients = Vec::with_capacity(urls.len());
    for (at, url) in urls.iter().enumerate() {
        let shares = |other: &&Url| {
            other.address() == url.address() && other.scheme().is_unix() == url.scheme().is_unix()
        };
        if urls.iter().take(at).any(|other| shares(&other)) {
            continue;
        }
        let listener = match url.scheme().is_unix() {
            true => front::Listener::Unix(bind_unix(url.address())?),
            false => front::Listener::Tcp(bind_tcp(url, options)?),
        };
        let sharing = urls.iter().filter(shares);
        let secure: Vec<bool> = sharing.map(|url| url.scheme().is_secure()).collect();
        clients.push(match tls {
            Some(tls) if !secure.contains(&false) => {
                front::Listener::Secure(Box::new(listener), Arc::clone(tls))
            }
            Some(tls) if secure.contains(&true) => {
                front::Listener::Either(Box::new(listener), Arc::clone(tls))
            }
            _ => listener,
        });
    }
    Ok(clients)
}

fn bind_peers(
    urls: &Listen,
    tls: Option<&Arc<Credentials>>,
) -> Result<Vec<front::Listener>, Error> {
    let bind = |url: &Url| {
        let listener = match url.scheme().is_unix() {
            true => front::Listener::Unix(bind_unix(url.address())?),
            false => front::Listener::Tcp(bind_tcp(url, urls)?),
        };
        match (url.scheme().is_secure(), tls) {
            (false, _) => Ok(listener),
            (true, Some(tls)) => Ok(front::Listener::Secure(Box::new(listener), Arc::clone(tls))),
            (true, None) => {
                let address = url.address().to_owned();
                Err(Error::Tls(tls::Error::MissingForPeer { address }))
            }
        }
    };
    urls.peer.iter().map(bind).collect()
}

fn bind_unix(path: &str) -> Result<UnixListener, Error> {
    // A socket file that a killed process left behind would refuse us; etcd removes it too.
    let _ = std::fs::remove_file(path);
    UnixListener::bind(path).map_err(|source| Error::Bind {
        address: format!("unix {path}"),
        step: "bind",
        source,
    })
}

fn bind_tcp(url: &Url, options: &Listen) -> Result<TcpListener, Error> {
    let address = resolve(url)?;
    let refused = |step: &'static str| {
        move |errno: rustix::io::Errno| Error::Bind {
            address: format!("tcp {address}"),
            step,
            source: errno.into(),
        }
    };
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let socket: OwnedFd = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)
        .map_err(refused("socket"))?;
    // Go sets it on every listener; without it a restart waits for old connections' ends.
    set_socket_reuseaddr(&socket, true).map_err(refused("setsockopt"))?;
    if options.reuse_port {
        set_socket_reuseport(&socket, true).map_err(refused("setsockopt"))?;
    }
    bind(&socket, &address).map_err(refused("bind"))?;
    listen(&socket, BACKLOG).map_err(refused("listen"))?;
    Ok(TcpListener::from(socket))
}

/// The address of a URL; for names IPv4 goes first, as in Go.
fn resolve(url: &Url) -> Result<SocketAddr, Error> {
    let address = url.address().to_owned();
    let host = if url.host().is_empty() {
        "0.0.0.0"
    } else {
        url.host()
    };
    let port = match url.port() {
        "" => 0,
        port => port.parse().map_err(|_| Error::Resolve {
            address: address.clone(),
            source: io::Error::new(io::ErrorKind::InvalidInput, "invalid port"),
        })?,
    };
    let found: Vec<SocketAddr> = (host, port)
        .to_socket_addrs()
        .map_err(|source| Error::Resolve {
            address: address.clone(),
            source,
        })?
        .collect();
    let first = found.iter().find(|found| found.is_ipv4()).or(found.first());
    first.copied().ok_or(Error::Resolve {
        address,
        source: io::ErrorKind::NotFound.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn urls(client: &[&str]) -> Listen {
        Listen {
            client: client.iter().map(|url| Url::parse(url).unwrap()).collect(),
            client_http: Vec::new(),
            peer: Vec::new(),
            metrics: vec![Url::parse("http://127.0.0.1:0").unwrap()],
            reuse_port: false,
            reuse_address: false,
        }
    }

    #[test]
    fn binds_and_refuses() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket").display().to_string();
        let no_tls = tls::Setup::default();
        let sockets = Sockets::bind(
            &urls(&["http://localhost:0", &format!("unix://{path}")]),
            &no_tls,
        );
        let sockets = sockets.unwrap();
        assert_eq!((sockets.clients.len(), sockets.metrics.len()), (2, 1));
        let front::Listener::Tcp(listener) = &sockets.clients[0] else {
            panic!("no TCP")
        };
        let address = listener.local_addr().unwrap();
        assert!(address.ip().is_loopback());
        let taken = Sockets::bind(&urls(&[&format!("http://{address}")]), &no_tls).unwrap_err();
        let want = format!("listen tcp {address}: bind: address already in use");
        assert_eq!(taken.to_string(), want);
    }
}
