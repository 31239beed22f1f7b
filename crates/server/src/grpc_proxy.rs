//! `etcd grpc-proxy start`: sockets, TLS, log and signals around a [`proxy::Proxy`].

use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use cli::flags::Flags;
use proxy::{Proxy, Settings};
use tokio::net::{TcpListener, TcpStream};

use crate::config::{self, Log, LogLevel, Security, Url};
use crate::log;
use crate::shutdown;
use crate::tls::{self, Credentials};

/// Pause when the system has no descriptors left for what was accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Time for a TLS handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Runs until a signal ends the process.
#[must_use]
pub(crate) fn main(flags: &Flags) -> ExitCode {
    let outcome = Settings::read(flags).and_then(|settings| {
        let level = match settings.debug {
            true => LogLevel::Debug,
            false => LogLevel::Info,
        };
        let settings_of_log = Log {
            level,
            ..Log::default()
        };
        let (lines, guard) = log::open(&settings_of_log).map_err(|error| error.to_string())?;
        log::install(lines, &guard).expect("nothing else in this process installs a log");
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .thread_name("proxy")
            .enable_all()
            .build()
            .map_err(|error| error.to_string())?;
        let outcome = runtime.block_on(start(settings));
        guard.flush();
        outcome
    });
    if let Err(text) = outcome {
        // A reader that has gone is no reason to say more.
        let _ = writeln!(io::stderr(), "{text}");
    }
    ExitCode::FAILURE
}

async fn start(settings: Settings) -> Result<(), String> {
    let address = settings.listen_address.clone();
    let tls = listen_tls(&settings)?;
    let listener = TcpListener::bind(&address)
        .await
        .map_err(|error| format!("listen tcp {address}: {}", reason(&error)))?;
    tracing::info!(address, "listening for gRPC proxy client requests");
    let proxy = Proxy::start(&settings)
        .await
        .map_err(|error| error.to_string())?;
    let proxy = Arc::new(proxy);
    tracing::info!(address, "started gRPC proxy");
    shutdown::notify_ready();
    loop {
        match listener.accept().await {
            Ok((client, _)) => {
                tokio::spawn(serve(Arc::clone(&proxy), client, tls.clone()));
            }
            Err(error) => {
                tracing::warn!(error = %error, "failed to accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
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
            let urls = Url::parse(&url).map_err(|error| error.to_string())?;
            tls::open(&tls, &security, &settings.data_dir, "proxy", &[urls])
        }
    };
    opened.map_err(|error| error.to_string())
}

async fn serve(proxy: Arc<Proxy>, client: TcpStream, tls: Option<Arc<Credentials>>) {
    let address = client.peer_addr().ok();
    // Lowers latency only; a connection without it still works.
    let _ = client.set_nodelay(true);
    let served = match tls {
        None => proxy.serve(client).await,
        Some(tls) => match secure(client, &tls).await {
            Ok(stream) => proxy.serve(stream).await,
            Err(error) => {
                tracing::warn!(
                    "remote-addr" = address.map(|it| it.to_string()),
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

async fn secure(client: TcpStream, tls: &Credentials) -> Result<tls::Stream<TcpStream>, String> {
    let session = tls.accept().map_err(|error| error.to_string())?;
    let mut stream = tls::Stream::new(client, session);
    let shaken = stream.handshake(HANDSHAKE_TIMEOUT).await;
    shaken.map_err(|error| error.reason())?;
    Ok(stream)
}
