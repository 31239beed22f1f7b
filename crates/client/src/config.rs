//! Where the servers are, how to reach them and as whom.

use std::path::PathBuf;
use std::time::Duration;

/// The largest request that is sent when the configuration does not say otherwise, in bytes.
pub(crate) const REQUEST_BYTES_MAX: usize = 2 * 1024 * 1024;

/// The largest answer that is accepted when the configuration does not say otherwise, in bytes.
pub(crate) const RESPONSE_BYTES_MAX: usize = i32::MAX as usize;

/// A user name and its password.
#[derive(Clone)]
pub struct Credentials {
    pub name: String,
    pub password: String,
}

/// How to secure connections. The default verifies against the system's roots and presents no
/// certificate.
#[derive(Clone, Debug, Default)]
pub struct TlsConfig {
    /// PEM file with the certificates to trust; without it, the system's roots.
    pub ca_file: Option<PathBuf>,
    /// PEM files with the certificate chain and the key to present.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// The name that the server's certificate must bear instead of the endpoint's host.
    pub server_name: Option<String>,
    /// Accept any server certificate.
    pub skip_verify: bool,
}

/// What a [`Client`](crate::Client) is made from.
#[derive(Clone)]
pub struct Config {
    /// `host:port`, `http://host:port`, `https://host:port` or `unix://path`.
    pub endpoints: Vec<String>,
    /// Used for `https://` always, for `http://` never, and for the rest when present.
    pub tls: Option<TlsConfig>,
    /// The user to authenticate as when the client is made.
    pub credentials: Option<Credentials>,
    /// A ready-made token, sent with each request instead of one from `credentials`.
    pub token: Option<String>,
    /// The longest that one connection attempt and the first authentication may take.
    pub dial_timeout: Duration,
    /// How long a connection with open requests may be silent before it is probed. Values under
    /// ten seconds count as ten, because servers close connections that probe more often.
    pub keepalive_interval: Option<Duration>,
    /// Whether a connection without open requests is probed too.
    pub keepalive_while_idle: bool,
    /// How long a probe may stay unanswered.
    pub keepalive_timeout: Duration,
    /// How long a request waits while no endpoint takes a connection; without it, until its
    /// deadline.
    pub connect_limit: Option<Duration>,
    /// The largest request to send, in bytes.
    pub request_bytes_max: usize,
    /// The largest answer to accept, in bytes.
    pub response_bytes_max: usize,
}

impl Config {
    /// A configuration for the given endpoints with everything else as by default.
    #[must_use]
    pub fn new(endpoints: Vec<String>) -> Self {
        Config {
            endpoints,
            tls: None,
            credentials: None,
            token: None,
            dial_timeout: Duration::from_secs(2),
            keepalive_interval: None,
            keepalive_while_idle: false,
            keepalive_timeout: Duration::from_secs(6),
            connect_limit: None,
            request_bytes_max: REQUEST_BYTES_MAX,
            response_bytes_max: RESPONSE_BYTES_MAX,
        }
    }
}
