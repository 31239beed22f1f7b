//! One HTTP/2 connection to one endpoint.

use std::io;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::ServerName;
use tonic::body::Body;

use crate::endpoint::{Address, Endpoint, Security};

/// Servers end connections that probe more often than this.
const KEEPALIVE_INTERVAL_MIN: Duration = Duration::from_secs(10);

/// Flow-control window of a stream and of a connection, in bytes: large answers need few turns.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 4 << 20;

/// What every connection of a channel shares.
pub(crate) struct Options {
    /// For endpoints that want TLS if configured.
    pub(crate) tls: Option<Arc<ClientConfig>>,
    /// For endpoints that require TLS; verifies against the system's roots when nothing is
    /// configured.
    pub(crate) tls_required: Option<Arc<ClientConfig>>,
    /// The name to expect in certificates instead of the endpoint's host.
    pub(crate) server_name: Option<String>,
    pub(crate) dial_timeout: Duration,
    pub(crate) keepalive_interval: Option<Duration>,
    pub(crate) keepalive_while_idle: bool,
    pub(crate) keepalive_timeout: Duration,
}

impl Options {
    pub(crate) fn tls_for(&self, endpoint: &Endpoint) -> Option<&Arc<ClientConfig>> {
        match endpoint.security {
            Security::Never => None,
            Security::IfConfigured => self.tls.as_ref(),
            Security::Required => self.tls_required.as_ref(),
        }
    }

    /// Whether requests to this endpoint travel over TLS.
    pub(crate) fn is_secure(&self, endpoint: &Endpoint) -> bool {
        self.tls_for(endpoint).is_some()
    }
}

/// A connection, and how it ended once it has. Clones share it.
#[derive(Clone)]
pub(crate) struct Connection {
    pub(crate) sender: SendRequest<Body>,
    ended: Arc<OnceLock<String>>,
}

impl Connection {
    /// Why the connection ended, if it ended with an error.
    pub(crate) fn end(&self) -> Option<&str> {
        self.ended.get().map(String::as_str)
    }
}

/// An error with what led to it.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    text
}

/// Connects, shakes hands and starts the task that serves the connection.
///
/// # Errors
/// The first step that failed, as a sentence for a log.
pub(crate) async fn connect(endpoint: &Endpoint, options: &Options) -> Result<Connection, String> {
    tokio::time::timeout(options.dial_timeout, dial(endpoint, options))
        .await
        .unwrap_or_else(|_| Err("connecting took longer than the dial timeout".to_owned()))
        .map_err(|error| format!("error while dialing {}: {error}", endpoint.text))
}

async fn dial(endpoint: &Endpoint, options: &Options) -> Result<Connection, String> {
    let tls = options.tls_for(endpoint).map(Arc::clone);
    handshake(open(endpoint, options, tls).await?, options).await
}

/// A socket, or TLS over one.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// Opens a byte stream to an endpoint, secured if `tls` is given.
///
/// # Errors
/// The step that failed.
pub(crate) async fn open(
    endpoint: &Endpoint,
    options: &Options,
    tls: Option<Arc<ClientConfig>>,
) -> Result<Box<dyn Stream>, String> {
    let socket: Box<dyn Stream> = match &endpoint.address {
        Address::Tcp { host, port } => {
            let socket = TcpStream::connect((host.as_str(), *port))
                .await
                .map_err(text_of)?;
            socket.set_nodelay(true).map_err(text_of)?;
            Box::new(socket)
        }
        Address::Unix(path) => Box::new(UnixStream::connect(path).await.map_err(text_of)?),
    };
    let Some(tls) = tls else { return Ok(socket) };
    let name = options
        .server_name
        .as_ref()
        .unwrap_or(&endpoint.server_name);
    let name = ServerName::try_from(name.clone())
        .map_err(|_| format!("{name:?} cannot be the name of a server"))?;
    let stream = TlsConnector::from(tls)
        .connect(name, socket)
        .await
        .map_err(|error| format!("authentication handshake failed: {error}"))?;
    Ok(Box::new(stream))
}

async fn handshake(stream: Box<dyn Stream>, options: &Options) -> Result<Connection, String> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES);
    if let Some(interval) = options.keepalive_interval {
        builder
            .keep_alive_interval(interval.max(KEEPALIVE_INTERVAL_MIN))
            .keep_alive_while_idle(options.keepalive_while_idle)
            .keep_alive_timeout(options.keepalive_timeout);
    }
    let (sender, connection) = builder
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|error| error.to_string())?;
    let ended = Arc::new(OnceLock::new());
    let end = Arc::clone(&ended);
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            // Only this task writes.
            let _first = end.set(chain(&error));
        }
    });
    Ok(Connection { sender, ended })
}

fn text_of(error: io::Error) -> String {
    error.to_string()
}
