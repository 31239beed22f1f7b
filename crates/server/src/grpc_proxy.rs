//! `etcd grpc-proxy start`: sockets, TLS, log, metrics and signals around a [`proxy::Proxy`].

mod process;

use std::convert::Infallible;
use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use cli::flags::Flags;
use proxy::{Pages, Proxy, Settings};
use rustix::net::sockopt;
use tokio::net::{TcpListener, TcpStream};

use crate::config::{self, Log, LogLevel, Security, Url};
use crate::log;
use crate::shutdown::{self, Cause, Stop, Wish};
use crate::tls::{self, Credentials, Setup};
use process::Process;

/// Pause when the system has no descriptors left for what was accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Silence after which the system probes a client's connection, and between its probes.
const KEEP_ALIVE_PERIOD: Duration = Duration::from_secs(30);
/// Time for giving up what others would wait for.
const CLOSE_LIMIT: Duration = Duration::from_secs(2);
/// Time for a TLS handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Runs until a signal ends the process.
#[must_use]
pub(crate) fn main(flags: &Flags) -> ExitCode {
    let Err(text) = Settings::read(flags).and_then(run);
    // A reader that has gone is no reason to say more.
    let _ = writeln!(io::stderr(), "{text}");
    ExitCode::FAILURE
}

fn run(settings: Settings) -> Result<Infallible, String> {
    let level = match settings.debug {
        true => LogLevel::Debug,
        false => LogLevel::Info,
    };
    let of_log = Log {
        level,
        ..Log::default()
    };
    let (lines, guard) = log::open(&of_log).map_err(|error| error.to_string())?;
    log::install(lines, &guard).expect("nothing else in this process installs a log");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .thread_name("proxy")
        .enable_all()
        .build()
        .map_err(|error| error.to_string())?;
    let outcome = runtime.block_on(start(settings));
    guard.flush();
    shutdown::leave(outcome?)
}

/// A socket, what its clients are shown, and what they get.
struct Listener {
    socket: TcpListener,
    tls: Option<Arc<Credentials>>,
    pages: Pages,
}

/// Serves until a signal comes, which is returned.
async fn start(mut settings: Settings) -> Result<Cause, String> {
    check_certificate(&settings)?;
    let tls = listen_tls(&settings)?;
    let address = settings.listen_address.clone();
    let clients = Listener {
        socket: bind(&address).await?,
        tls: tls.clone(),
        pages: Pages::All,
    };
    tracing::info!(address, "listening for gRPC proxy client requests");
    proxy::discover(&mut settings).await?;
    let monitors = match settings.metrics_url.as_str() {
        "" => None,
        text => Some(metrics_listener(text, tls.clone()).await?),
    };
    // Files that change are taken up while this lives.
    let setup = Setup {
        client: tls,
        peer: None,
    };
    let _watch = setup.watch().map_err(|error| error.to_string())?;
    let host = Arc::new(Process::new());
    let proxy = Proxy::start(&settings, host).await;
    let proxy = Arc::new(proxy.map_err(|error| error.to_string())?);
    if let Some(monitors) = monitors {
        tokio::spawn(monitors.accept(Arc::clone(&proxy)));
        tracing::info!("gRPC proxy server metrics URL serving");
    }
    tracing::info!(address, "started gRPC proxy");
    shutdown::notify_ready();
    let stop = Stop::on_signals().map_err(|error| error.to_string())?;
    let cause = tokio::select! {
        never = clients.accept(Arc::clone(&proxy)) => match never {},
        cause = tokio::task::spawn_blocking(move || end(&stop)) => cause,
    };
    // Whoever waits for what this proxy holds waits for its lease's end otherwise.
    let _ = tokio::time::timeout(CLOSE_LIMIT, proxy.close()).await;
    cause.map_err(|error| error.to_string())
}

fn end(stop: &Stop) -> Cause {
    loop {
        if let Wish::End(cause) = stop.next() {
            return cause;
        }
    }
}

/// The cluster takes the common name of a certificate for a user, which the proxy's callers are
/// not.
fn check_certificate(settings: &Settings) -> Result<(), String> {
    let tls = &settings.cluster.tls;
    let Some((cert, _)) = tls.as_ref().and_then(|tls| tls.identity.as_ref()) else {
        return Ok(());
    };
    let identity = tls::identity_in(cert).map_err(|error| error.to_string())?;
    match identity.common_name.as_str() {
        "" => Ok(()),
        name => Err(format!(
            "cert has non empty Common Name ({name}): {}",
            cert.display()
        )),
    }
}

async fn bind(address: &str) -> Result<TcpListener, String> {
    if !address.contains(':') {
        return Err(format!(
            "listen tcp: address {address}: missing port in address"
        ));
    }
    let bound = TcpListener::bind(bindable(address)).await;
    bound.map_err(|error| format!("listen tcp {address}: {}", reason(&error)))
}

/// Go takes an address without a host for any address of this machine.
fn bindable(address: &str) -> String {
    match address.strip_prefix(':') {
        Some(port) => format!("[::]:{port}"),
        None => address.to_owned(),
    }
}

/// The step that failed and the system's reason, in Go's words.
fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => "bind: address already in use".to_owned(),
        io::ErrorKind::AddrNotAvailable => "bind: cannot assign requested address".to_owned(),
        io::ErrorKind::PermissionDenied => "bind: permission denied".to_owned(),
        _ => error.to_string(),
    }
}

fn no_pair(address: &str) -> String {
    format!("cannot listen on TLS for {address}: KeyFile and CertFile are not presented")
}

async fn metrics_listener(text: &str, tls: Option<Arc<Credentials>>) -> Result<Listener, String> {
    let no_url = || format!("cannot parse {}", cli::text::quote(text.as_bytes()));
    let (scheme, rest) = text.split_once("://").ok_or_else(no_url)?;
    let address = rest.split('/').next().unwrap_or_default();
    let tls = match (scheme, tls) {
        ("http", _) => None,
        ("https", Some(tls)) => Some(tls),
        ("https", None) => {
            return Err(no_pair(address));
        }
        _ => return Err(no_url()),
    };
    let socket = bind(address).await?;
    tracing::info!(address = text, "gRPC proxy listening for metrics");
    Ok(Listener {
        socket,
        tls,
        pages: Pages::Monitoring,
    })
}

/// What clients are shown; `None` without TLS.
fn listen_tls(settings: &Settings) -> Result<Option<Arc<Credentials>>, String> {
    let given = &settings.listen_tls;
    let version = |version: proxy::TlsVersion| match version {
        proxy::TlsVersion::Tls12 => config::TlsVersion::Tls12,
        proxy::TlsVersion::Tls13 => config::TlsVersion::Tls13,
    };
    let mut tls = config::Tls {
        cert_file: given.cert.clone(),
        key_file: given.key.clone(),
        trusted_ca_file: given.trusted_ca.clone(),
        crl_file: given.crl.clone(),
        ..config::Tls::default()
    };
    let is_given = tls.has_pair() || tls.trusted_ca_file.is_some();
    if is_given && !tls.has_pair() {
        return Err(no_pair(&settings.listen_address));
    }
    tls.auto = given.auto && !is_given;
    let security = Security {
        min_version: given.min_version.map_or(config::TlsVersion::Tls12, version),
        max_version: given.max_version.map(version),
        cipher_suites: given.cipher_suites.clone(),
        self_signed_years: given.self_signed_years,
        ..Security::default()
    };
    let opened = match is_given {
        true => Credentials::load(&tls, &security).map(Some),
        false => {
            let url = format!("https://{}", settings.listen_address);
            let urls: Vec<Url> = Url::parse(&url).into_iter().collect();
            tls::open(&tls, &security, &settings.data_dir, "proxy", &urls)
        }
    };
    opened.map_err(|error| error.to_string())
}

impl Listener {
    async fn accept(self, proxy: Arc<Proxy>) -> Infallible {
        loop {
            match self.socket.accept().await {
                Ok((client, _)) => {
                    let (tls, pages) = (self.tls.clone(), self.pages);
                    tokio::spawn(serve(Arc::clone(&proxy), client, tls, pages));
                }
                Err(error) => {
                    tracing::warn!(error = %error, "failed to accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

/// A client that has gone without a word is noticed, whatever it was doing.
fn keep_alive(client: &TcpStream) -> io::Result<()> {
    sockopt::set_socket_keepalive(client, true)?;
    sockopt::set_tcp_keepidle(client, KEEP_ALIVE_PERIOD)?;
    sockopt::set_tcp_keepintvl(client, KEEP_ALIVE_PERIOD)?;
    Ok(())
}

async fn serve(proxy: Arc<Proxy>, client: TcpStream, tls: Option<Arc<Credentials>>, pages: Pages) {
    let address = client.peer_addr().map(|address| address.to_string());
    // Lowers latency only; a connection without it still works.
    let _ = client.set_nodelay(true);
    if let Err(error) = keep_alive(&client) {
        tracing::debug!(%error, "connection ended");
        return;
    }
    let served = match tls {
        None => proxy.serve(client, pages).await,
        Some(tls) => match secure(client, &tls, pages).await {
            Ok(stream) => proxy.serve(stream, pages).await,
            Err(error) => {
                tracing::warn!(
                    "remote-addr" = address.as_deref().unwrap_or_default(),
                    error,
                    "rejected connection on client endpoint"
                );
                return;
            }
        },
    };
    if let Err(error) = served {
        tracing::debug!(%error, "connection ended");
    }
}

async fn secure(
    client: TcpStream,
    tls: &Credentials,
    pages: Pages,
) -> Result<tls::Stream<TcpStream>, String> {
    let address = client.peer_addr().map_err(|error| error.to_string())?.ip();
    let session = match pages {
        Pages::All => tls.accept(),
        Pages::Monitoring => tls.accept_http1(),
    };
    let session = session.map_err(|error| error.to_string())?;
    let mut stream = tls::Stream::new(client, session);
    let shaken = stream.handshake(HANDSHAKE_TIMEOUT).await;
    shaken.map_err(|error| error.reason())?;
    if let Some(identity) = stream.identity()
        && pages == Pages::Monitoring
    {
        tokio::task::spawn_blocking(move || tls::check_address(&identity, address))
            .await
            .map_err(|error| error.to_string())?
            .map_err(|error| error.to_string())?;
    }
    Ok(stream)
}
