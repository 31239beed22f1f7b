//! A proxy as a process.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use client::{Config, TlsConfig};
use e2e::kv::Kv;
use e2e::{Member, Options, binary, free_address, http};

pub(crate) const LIMIT: Duration = Duration::from_secs(60);
pub(crate) const PAUSE: Duration = Duration::from_millis(20);

/// A proxy that is killed by its id when dropped.
pub(crate) struct Proxy {
    child: Child,
    address: SocketAddr,
}

impl Proxy {
    /// Starts the proxy of the binary under test and waits until it answers.
    pub(crate) async fn start(endpoints: impl ToString, flags: &[&str]) -> Proxy {
        Self::start_of(binary().expect("a binary"), endpoints, flags).await
    }

    /// The same of another binary.
    pub(crate) async fn start_of(
        binary: PathBuf,
        endpoints: impl ToString,
        flags: &[&str],
    ) -> Proxy {
        let proxy = Self::spawn(binary, endpoints, flags);
        let deadline = Instant::now() + LIMIT;
        // A fresh connection each time: one that was refused waits longer and longer.
        while let Err(status) = proxy.kv().revision(false).await {
            assert!(Instant::now() < deadline, "{status}");
            tokio::time::sleep(PAUSE).await;
        }
        proxy
    }

    /// One that speaks TLS, with the client's side of it.
    pub(crate) async fn start_secure(
        endpoints: impl ToString,
        flags: &[&str],
        tls: TlsConfig,
    ) -> (Proxy, Config) {
        let proxy = Self::spawn(binary().expect("a binary"), endpoints, flags);
        let mut config = Config::new(vec![format!("https://{}", proxy.address)]);
        config.tls = Some(tls);
        let deadline = Instant::now() + LIMIT;
        while let Err(error) = client::fetch(&config, "/proxy/metrics").await {
            assert!(Instant::now() < deadline, "{error}");
            tokio::time::sleep(PAUSE).await;
        }
        (proxy, config)
    }

    fn spawn(binary: PathBuf, endpoints: impl ToString, flags: &[&str]) -> Proxy {
        let address = free_address().expect("a free port");
        let child = Command::new(binary)
            .args(["grpc-proxy", "start"])
            .arg(format!("--listen-addr={address}"))
            .arg(format!("--advertise-client-url={address}"))
            .arg(format!("--endpoints={}", endpoints.to_string()))
            .args(flags)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the proxy starts");
        Proxy { child, address }
    }

    /// Where clients connect.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// A connection of its own.
    pub(crate) fn kv(&self) -> Kv {
        Kv::to(self.address)
    }

    /// The sample of one of the proxy's own metrics.
    pub(crate) fn sample(&self, metric: &str) -> f64 {
        sample_of(self.address, "/proxy/metrics", metric)
    }

    /// Asks the process to stop (SIGTERM) and waits for its end.
    pub(crate) fn stop(&mut self) {
        let id = self.child.id().to_string();
        let sent = Command::new("kill").arg("-TERM").arg(id).status();
        assert!(sent.expect("a kill").success());
        self.child.wait().expect("it ends");
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // Both fail only when it has already gone.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A member of the binary under test, or of `ETCD_REFERENCE` in clusters of both.
pub(crate) fn member(below: Below) -> Member {
    let binary = match below {
        Below::Same => None,
        #[cfg(feature = "mixed")]
        Below::Reference => Some(reference()),
    };
    let options = Options {
        binary,
        ..Options::default()
    };
    Member::start(options).expect("a member")
}

/// What stands below the proxy.
#[derive(Clone, Copy)]
pub(crate) enum Below {
    Same,
    #[cfg(feature = "mixed")]
    Reference,
}

#[cfg(feature = "mixed")]
pub(crate) fn reference() -> PathBuf {
    let path = std::env::var_os("ETCD_REFERENCE");
    path.expect("ETCD_REFERENCE names a Go etcd").into()
}

/// The sample of a member's metric without labels.
pub(crate) fn sample(member: SocketAddr, metric: &str) -> f64 {
    sample_of(member, "/metrics", metric)
}

fn sample_of(address: SocketAddr, page: &str, metric: &str) -> f64 {
    let page = http::get(address, page).expect("an answer").body;
    let mut lines = page.lines().filter_map(|line| line.split_once(' '));
    let sample = lines.find(|(name, _)| *name == metric);
    sample.expect("a sample").1.parse().expect("a number")
}

/// Waits until a metric is what it should be.
pub(crate) async fn wait_for(member: SocketAddr, metric: &str, is_right: impl Fn(f64) -> bool) {
    let deadline = Instant::now() + LIMIT;
    loop {
        let now = sample(member, metric);
        if is_right(now) {
            return;
        }
        assert!(Instant::now() < deadline, "{metric} is {now}");
        tokio::time::sleep(PAUSE).await;
    }
}
