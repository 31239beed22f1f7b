//! `etcd gateway start`: passes TCP connections on to the members of a cluster.

mod remotes;

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use cli::flags::Flags;
use client::srv;
use remotes::{Remote, Remotes};
use tokio::net::{TcpListener, TcpStream};

use crate::config::Log;
use crate::log::{self, strings};
use crate::shutdown;

/// Longest wait for an endpoint to take a connection.
const DIAL_LIMIT: Duration = Duration::from_secs(5);
/// Pause when the system has no descriptors left for what was accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Pause between two looks at failed endpoints when `--retry-delay` is 0.
const RETRY_DELAY: Duration = Duration::from_secs(300);

/// Runs until a signal ends the process.
#[must_use]
pub(crate) fn main(flags: &Flags) -> ExitCode {
    let opened = log::open(&Log::default()).map_err(|error| error.to_string());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| error.to_string());
    let outcome = opened.and_then(|(lines, guard)| {
        log::install(lines, &guard).expect("nothing else in this process installs a log");
        let outcome = runtime.and_then(|runtime| runtime.block_on(start(flags)));
        guard.flush();
        outcome
    });
    if let Err(text) = outcome {
        // Where etcd says it.
        cli::out::line(&text);
    }
    ExitCode::FAILURE
}

async fn start(flags: &Flags) -> Result<(), String> {
    let remotes = match flags.text("discovery-srv") {
        "" => Vec::new(),
        domain => discover(flags, domain).await?,
    };
    let remotes = match remotes.is_empty() {
        true => flags
            .list("endpoints")
            .iter()
            .map(|endpoint| Remote::parse(endpoint))
            .collect::<Result<_, _>>()?,
        false => remotes,
    };
    if remotes.is_empty() {
        return Err("no endpoints found".to_owned());
    }
    let address = flags.text("listen-addr");
    check_loop(address, &remotes)?;
    let listener = TcpListener::bind(address)
        .await
        .map_err(|error| format!("listen tcp {address}: {error}"))?;
    let retry_delay = match flags.duration("retry-delay") {
        Duration::ZERO => RETRY_DELAY,
        delay => delay,
    };
    let endpoints: Vec<String> = remotes.iter().map(Remote::address).collect();
    tracing::info!(endpoints = %strings(&endpoints), "ready to proxy client requests");
    shutdown::notify_ready();
    let remotes = Arc::new(Remotes::new(remotes));
    tokio::spawn(monitor(Arc::clone(&remotes), retry_delay));
    loop {
        match listener.accept().await {
            Ok((client, _)) => {
                tokio::spawn(serve(client, Arc::clone(&remotes), retry_delay));
            }
            Err(error) => {
                tracing::warn!(error = %error, "failed to accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// The endpoints of SRV records; without `--insecure-discovery` those whose certificates are
/// trusted.
async fn discover(flags: &Flags, domain: &str) -> Result<Vec<Remote>, String> {
    let found = srv::clients(domain, flags.text("discovery-srv-name"))?;
    tracing::info!(
        "srv-server" = domain,
        endpoints = found.len(),
        "discovered cluster from SRV"
    );
    let mut remotes = Vec::new();
    for (scheme, record) in found {
        let remote = Remote::new(&record.host, record.port, record.priority, record.weight);
        let is_trusted = flags.bool("insecure-discovery") || {
            let greeted = greet(flags, domain, scheme, &remote).await;
            if let Err(error) = &greeted {
                tracing::warn!(
                    "srv-server" = domain,
                    endpoint = remote.address(),
                    error = error.as_str(),
                    "failed to validate discovered endpoints"
                );
            }
            greeted.is_ok()
        };
        if is_trusted {
            remotes.push(remote);
        }
    }
    Ok(remotes)
}

async fn greet(flags: &Flags, domain: &str, scheme: &str, remote: &Remote) -> Result<(), String> {
    if scheme != "https" {
        return Err("the record names a server without TLS".to_owned());
    }
    let ca_file = Some(flags.text("trusted-ca-file")).filter(|file| !file.is_empty());
    let tls = client::TlsConfig {
        ca_file: ca_file.map(Into::into),
        server_name: Some(domain.to_owned()),
        ..client::TlsConfig::default()
    };
    let mut config = client::Config::new(vec![format!("https://{}", remote.address())]);
    config.tls = Some(tls);
    client::greet(&config)
        .await
        .map_err(|error| error.to_string())
}

/// A gateway that is an endpoint of its own would pass every connection round in a circle.
fn check_loop(address: &str, remotes: &[Remote]) -> Result<(), String> {
    let no_address = || format!("failed to validate listen address: {address}");
    let (host, port) = address.rsplit_once(':').ok_or_else(no_address)?;
    let port: u16 = port.parse().map_err(|_| no_address())?;
    let own: HashSet<IpAddr> = resolve(host, port)
        .map_err(|()| format!("failed to resolve listen host: {host}"))?
        .collect();
    for remote in remotes {
        let found = resolve(remote.host(), remote.port())
            .map_err(|()| format!("failed to resolve endpoint host: {}", remote.host()))?;
        let mut same = found.filter(|ip| own.contains(ip) && remote.port() == port);
        if let Some(ip) = same.next() {
            return Err(format!(
                "SRV or endpoint ({}->{ip}:{port}) should not resolve to the gateway listen addr \
                 ({address})",
                remote.address()
            ));
        }
    }
    Ok(())
}

fn resolve(host: &str, port: u16) -> Result<impl Iterator<Item = IpAddr>, ()> {
    let host = host.trim_matches(['[', ']']);
    let found = (host, port).to_socket_addrs().map_err(|_| ())?;
    Ok(found.map(|address: SocketAddr| address.ip()))
}

/// Finds an endpoint for a connection and passes bytes both ways until both sides have ended.
async fn serve(mut client: TcpStream, remotes: Arc<Remotes>, retry_delay: Duration) {
    while let Some((at, address)) = remotes.pick() {
        match dial(&address).await {
            Ok(mut server) => {
                // Both lower latency only; a connection without them still works.
                let _ = client.set_nodelay(true);
                let _ = server.set_nodelay(true);
                // How a connection ends is the business of its two ends.
                let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
                return;
            }
            Err(error) => {
                remotes.set_active(at, false);
                tracing::warn!(
                    address,
                    interval = cli::text::duration(retry_delay),
                    error,
                    "deactivated endpoint"
                );
            }
        }
    }
}

async fn dial(address: &str) -> Result<TcpStream, String> {
    match tokio::time::timeout(DIAL_LIMIT, TcpStream::connect(address)).await {
        Ok(connected) => connected.map_err(|error| error.to_string()),
        Err(_) => Err("no answer to the attempt to connect".to_owned()),
    }
}

/// Looks again and again whether endpoints that failed take connections.
async fn monitor(remotes: Arc<Remotes>, interval: Duration) {
    loop {
        tokio::time::sleep(interval).await;
        for (at, address) in remotes.inactive() {
            match dial(&address).await {
                Ok(_) => {
                    remotes.set_active(at, true);
                    tracing::info!(address, "activated");
                }
                Err(error) => tracing::warn!(
                    address,
                    interval = cli::text::duration(interval),
                    error,
                    "failed to activate endpoint (stay inactive for another interval)"
                ),
            }
        }
    }
}
