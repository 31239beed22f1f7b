//! A member from its configuration to its end.

use std::error::Error;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::config::{Config, GoDuration};
use crate::listen::Sockets;
use crate::log::strings;
use crate::shutdown::Stopper;
use crate::tls;

/// What the data directory holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DataDir {
    /// Nothing, or the directory does not exist.
    Empty,
    /// A member's data.
    Member,
}

/// Why a data directory cannot be used.
#[derive(Debug)]
pub enum DataDirError {
    /// The directory cannot be listed.
    List { dir: PathBuf, source: io::Error },
    /// The data of the proxy that etcd 2 had.
    Proxy,
    /// Member and proxy data in one directory.
    Both,
}

impl std::fmt::Display for DataDirError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            DataDirError::List { dir, .. } => {
                write!(f, "failed to list data directory {}", dir.display())
            }
            DataDirError::Proxy => f.write_str("v2 http proxy has already been deprecated in 3.6"),
            DataDirError::Both => {
                f.write_str("invalid datadir; both member and proxy directories exist")
            }
        }
    }
}

impl Error for DataDirError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            DataDirError::List { source, .. } => Some(source),
            DataDirError::Proxy | DataDirError::Both => None,
        }
    }
}

/// Looks at a data directory without changing anything; warns of foreign files in it.
///
/// # Errors
/// The directory cannot be listed or belongs to something else.
pub fn identify(dir: &Path) -> Result<DataDir, DataDirError> {
    let unlisted = |source| DataDirError::List {
        dir: dir.to_owned(),
        source,
    };
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(DataDir::Empty),
        Err(error) => return Err(unlisted(error)),
    };
    let (mut member, mut proxy) = (false, false);
    for entry in entries {
        let name = entry.map_err(unlisted)?.file_name();
        match name.to_str() {
            Some("member") => member = true,
            Some("proxy") => proxy = true,
            // Certificates of --auto-tls.
            Some("fixtures") => {}
            _ => tracing::warn!(
                filename = %name.display(),
                "data-dir" = %dir.display(),
                "found invalid file under data directory"
            ),
        }
    }
    match (member, proxy) {
        (true, true) => Err(DataDirError::Both),
        (false, true) => Err(DataDirError::Proxy),
        (true, false) => Ok(DataDir::Member),
        (false, false) => Ok(DataDir::Empty),
    }
}

/// A member that serves. Dropping it without [`Running::stop`] loses nothing that was
/// acknowledged, but does not wait for requests under way.
pub trait Running {
    /// Takes up what may change while it serves: the quota. Certificates are looked after
    /// elsewhere.
    fn reconfigure(&self, config: &Config);

    /// Refuses new requests, lets those under way finish, and closes everything in order.
    fn stop(self: Box<Self>);
}

/// Builds the member behind bound sockets; `Stopper` is for its own end.
pub type Start = fn(
    &Config,
    Sockets,
    tls::Setup,
    Stopper,
) -> Result<Box<dyn Running>, Box<dyn Error + Send + Sync>>;

/// Starts a member: looks at the directory, binds, and hands the rest to `start`.
///
/// # Errors
/// Whatever keeps the member from serving; nothing is left running.
pub fn run(
    config: &Config,
    start: Start,
    stopper: Stopper,
) -> Result<Box<dyn Running>, Box<dyn Error + Send + Sync>> {
    let dir = identify(&config.data_dir)?;
    announce(config, dir);
    let tls = tls::Setup::open(config)?;
    let sockets = Sockets::bind(&config.listen, &tls)?;
    let running = start(config, sockets, tls, stopper)?;
    tracing::info!(
        "initial-advertise-peer-urls" = %strings(&config.cluster.advertise_peer),
        "advertise-client-urls" = %strings(&config.cluster.advertise_client),
        "listen-client-urls" = %strings(&config.listen.client),
        "listen-metrics-urls" = %strings(&config.listen.metrics),
        "now serving peer/client/metrics"
    );
    Ok(running)
}

fn announce(config: &Config, dir: DataDir) {
    tracing::info!(
        "etcd-version" = api::version::SERVER,
        "quorate-version" = api::version::QUORATE,
        "go-os" = std::env::consts::OS,
        "go-arch" = std::env::consts::ARCH,
        "max-cpu-available" = std::thread::available_parallelism().map_or(1, usize::from),
        "member-initialized" = dir == DataDir::Member,
        name = config.name.as_str(),
        "data-dir" = %config.data_dir.display(),
        "wal-dir" = %config.wal_dir.as_deref().unwrap_or(Path::new("")).display(),
        "heartbeat-interval" = %GoDuration::from(config.raft.heartbeat),
        "election-timeout" =
            %GoDuration::from(config.raft.heartbeat * config.raft.election_ticks),
        "snapshot-count" = config.raft.snapshot_entries,
        "snapshot-catchup-entries" = config.raft.catchup_entries,
        "initial-cluster" = config.cluster.initial.as_str(),
        "initial-cluster-token" = config.cluster.token.as_str(),
        "quota-backend-bytes" = config.limits.quota_bytes.unwrap_or(0),
        "max-request-bytes" = config.limits.request_bytes_max,
        "max-concurrent-streams" = config.limits.concurrent_streams_max,
        "pre-vote" = config.cluster.pre_vote,
        "starting an etcd server"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_directories() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("d");
        assert_eq!(identify(&dir).unwrap(), DataDir::Empty);
        fs::create_dir_all(dir.join("lost+found")).unwrap();
        assert_eq!(identify(&dir).unwrap(), DataDir::Empty);
        fs::create_dir(dir.join("proxy")).unwrap();
        assert!(matches!(identify(&dir), Err(DataDirError::Proxy)));
        fs::create_dir(dir.join("member")).unwrap();
        assert!(matches!(identify(&dir), Err(DataDirError::Both)));
        fs::remove_dir(dir.join("proxy")).unwrap();
        assert_eq!(identify(&dir).unwrap(), DataDir::Member);
        fs::write(root.path().join("f"), "").unwrap();
        let why = identify(&root.path().join("f")).unwrap_err();
        assert!(why.to_string().starts_with("failed to list data directory"));
    }
}
