//! Who is in the cluster, found out before a first start opens its data.
//!
//! A member with a log knows its cluster from there, so that the flags for the first start may
//! stay on the command line.

mod discovery;
mod srv;
mod urls;

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use api::cluster::InitialCluster;
use api::ids::MemberId;
use node::boot::{self, InitialMember, JoinError, Joined};
use storage::datadir::DataDir;

use crate::config::{Config, Url};
use crate::peer::{self, Asker};
use crate::tls;

/// Bound of one question to a member of the cluster that is to be joined, as in etcd.
const JOIN_LIMIT: Duration = Duration::from_secs(10);
/// Bound of one question to somebody who may not run yet, as in etcd.
const FOUND_LIMIT: Duration = Duration::from_secs(1);
/// How long names of URLs that must mean the same are looked up at most, as in etcd.
const RESOLVE_LIMIT: Duration = Duration::from_secs(30);

/// Why a first start has no cluster.
#[derive(Debug)]
pub(crate) enum Error {
    /// What etcd would say.
    Refused(String),
    /// No cluster came out of discovery.
    Discovery {
        token: String,
        endpoints: Vec<String>,
        source: discovery::Error,
    },
    Join(JoinError),
    /// The system refuses what it takes to ask others.
    Ask(io::Error),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Refused(why) => f.write_str(why),
            Error::Discovery { source, .. } => {
                write!(f, "failed to join discovery cluster ({source})")
            }
            Error::Join(error) => error.fmt(f),
            Error::Ask(_) => f.write_str("cannot ask the members of the cluster"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::Ask(error) => Some(error),
            // Those of discovery are part of the text.
            Error::Refused(_) | Error::Discovery { .. } | Error::Join(_) => None,
        }
    }
}

impl From<String> for Error {
    fn from(why: String) -> Error {
        Error::Refused(why)
    }
}

/// What a first start knows of its cluster; empty when there is a log.
#[derive(Default)]
pub(super) struct Found {
    pub(super) founders: Vec<InitialMember>,
    pub(super) token: String,
    pub(super) joined: Option<Joined>,
}

/// Finds the cluster of this member; blocks while it asks others.
///
/// # Errors
/// The flags do not fit each other, or the cluster.
pub(super) fn find(config: &Config, tls: Option<&Arc<tls::Credentials>>) -> Result<Found, Error> {
    let dir = DataDir::new(&config.data_dir, config.wal_dir.as_deref());
    let settings = discovery::Settings::read(&config.raw);
    if has_log(dir.wal()) {
        if settings.is_some() {
            tracing::warn!(
                "wal-dir" = %dir.wal().display(),
                "discovery token is ignored since cluster already initialized; valid logs are found"
            );
        }
        return Ok(Found::default());
    }
    let (initial, token) = match settings {
        // This member alone, until the others are found.
        Some(settings) => (alone(config), settings.token().to_owned()),
        None => {
            let initial = listed(config);
            let initial =
                initial.map_err(|why| format!("error setting up initial cluster: {why}"))?;
            (initial, config.cluster.token.clone())
        }
    };
    let asker = peer::asker(config, tls).map_err(Error::Ask)?;
    if !config.cluster.new {
        let joined = join(config, &initial, &asker)?;
        return Ok(Found {
            founders: members(&initial),
            token,
            joined: Some(joined),
        });
    }
    check_founder(config, &initial)?;
    let id = own_id(config, &initial, &token);
    check_not_founded(config, &initial, id, &asker)?;
    let initial = match settings {
        Some(settings) => {
            tracing::info!("Bootstrapping cluster using v3 discovery.");
            let discovered = discover(settings, id, &initial)?;
            // A member that was wiped still has its place at the other cluster.
            check_not_founded(config, &discovered, id, &asker)?;
            discovered
        }
        None => initial,
    };
    Ok(Found {
        founders: members(&initial),
        token,
        joined: None,
    })
}

/// The cluster that the flags list, or the domain that they name.
fn listed(config: &Config) -> Result<InitialCluster, String> {
    let domain = config.raw.text("discovery-srv");
    if domain.is_empty() {
        return InitialCluster::parse(&config.cluster.initial);
    }
    let wanted = srv::Wanted {
        domain,
        suffix: config.raw.text("discovery-srv-name"),
        name: &config.name,
        advertised: &config.cluster.advertise_peer,
    };
    let ask =
        |service: &str, domain: &str| client::srv::lookup(&format!("_{service}._tcp.{domain}"));
    let found = srv::initial_cluster(&wanted, &ask, urls::system)?;
    let initial = InitialCluster::parse(&found)?;
    match initial.members.iter().any(|(name, _)| *name == config.name) {
        true => Ok(initial),
        false => Err(format!(
            "cannot find local etcd member {:?} in SRV records",
            config.name
        )),
    }
}

/// The cluster of this member alone.
fn alone(config: &Config) -> InitialCluster {
    let mut urls = config.cluster.advertise_peer.clone();
    urls.sort_by_cached_key(ToString::to_string);
    InitialCluster {
        members: vec![(config.name.clone(), urls)],
    }
}

/// Meets the other founders.
fn discover(
    settings: discovery::Settings<'_>,
    id: MemberId,
    own: &InitialCluster,
) -> Result<InitialCluster, Error> {
    let found = discovery::join(settings, id, &own.text());
    let found = found.map_err(|source| Error::Discovery {
        token: settings.token().to_owned(),
        endpoints: settings.endpoints().to_vec(),
        source,
    })?;
    let cluster = InitialCluster::parse(&found)?;
    match cluster.has_duplicates() {
        true => Err(format!("discovery cluster {} has duplicate url", cluster.text()).into()),
        false => Ok(cluster),
    }
}

fn has_log(dir: &Path) -> bool {
    // Whatever else is wrong with the directory, the boot says better than this look could.
    let Ok(entries) = std::fs::read_dir(dir) else {
        return false;
    };
    let mut names = entries.filter_map(|entry| Some(entry.ok()?.file_name()));
    names.any(|name| name.as_encoded_bytes().ends_with(b".wal"))
}

fn members(initial: &InitialCluster) -> Vec<InitialMember> {
    let member = |(name, urls): &(String, Vec<Url>)| InitialMember {
        name: name.clone(),
        peer_urls: api::url::texts(urls),
    };
    initial.members.iter().map(member).collect()
}

/// Where the others are found, in the order in which they are asked.
fn others(config: &Config, initial: &InitialCluster) -> Vec<Url> {
    let others = initial
        .members
        .iter()
        .filter(|(name, _)| *name != config.name);
    let mut urls: Vec<Url> = others.flat_map(|(_, urls)| urls.clone()).collect();
    urls.sort_by_cached_key(ToString::to_string);
    urls
}

/// Compares URLs, names of hosts by their addresses.
fn same(a: &[String], b: &[String], until: Instant) -> Result<(), String> {
    urls::same(a, b, until, urls::system)
}

/// Checks that this member may found its cluster.
fn check_founder(config: &Config, initial: &InitialCluster) -> Result<(), Error> {
    let until = Instant::now() + RESOLVE_LIMIT;
    let advertised = &config.cluster.advertise_peer;
    initial.check_founder(&config.name, advertised, &|a, b| same(a, b, until))?;
    Ok(())
}

fn own_id(config: &Config, initial: &InitialCluster, token: &str) -> MemberId {
    let mut listed = initial.members.iter();
    let own = listed.find(|(name, _)| *name == config.name);
    let urls = own.map_or_else(Vec::new, |(_, urls)| api::url::texts(urls));
    api::ids::member_id(&urls, token, None)
}

/// Checks that the others do not know this member from a life before.
fn check_not_founded(
    config: &Config,
    initial: &InitialCluster,
    id: MemberId,
    asker: &Asker,
) -> Result<(), Error> {
    let Ok(running) = asker.members(&others(config, initial), FOUND_LIMIT, false) else {
        return Ok(());
    };
    let published = |member: &state::Member| member.id == id.0 && !member.client_urls.is_empty();
    match running.members.iter().any(published) {
        true => Err(format!("member {id} has already been bootstrapped").into()),
        false => Ok(()),
    }
}

/// Finds the place of this member in the cluster that runs.
fn join(config: &Config, initial: &InitialCluster, asker: &Asker) -> Result<Joined, Error> {
    initial.check_joiner(&config.name)?;
    if discovery::Settings::read(&config.raw).is_some() {
        let why = "discovery URL should not be set when joining existing initial cluster";
        return Err(String::from(why).into());
    }
    let running = asker
        .members(&others(config, initial), JOIN_LIMIT, true)
        .map_err(|why| format!("cannot fetch cluster info from peer urls: {why}"))?;
    let until = Instant::now() + RESOLVE_LIMIT;
    let founders = members(initial);
    let joined = boot::join(&config.name, &founders, running, &|a, b| same(a, b, until))
        .map_err(Error::Join)?;
    let members = &joined.running.members;
    let others: Vec<state::Member> = members
        .iter()
        .filter(|member| member.id != joined.member.0)
        .cloned()
        .collect();
    if !asker.is_compatible(&others, config.raft.request_timeout()) {
        return Err(String::from("incompatible with current running cluster").into());
    }
    let learners = members.iter().filter(|member| member.is_learner).count();
    if learners > config.limits.learners_max {
        return Err(String::from("membership: too many learner members in cluster").into());
    }
    Ok(joined)
}
