//! Discovery: founders that do not know each other meet in a cluster that runs already.
//!
//! Under `/_etcd/registry/<token>` the operator puts how many found the cluster
//! (`_config/size`), and each founder puts its name and URLs (`members/<id>`). The first ones,
//! by the order in which they were put, are the cluster. The keys and texts are etcd's.

use std::fmt;
use std::time::Duration;

use api::ids::MemberId;
use api::pb::etcdserverpb::{PutRequest, RangeRequest, WatchCreateRequest};
use api::pb::mvccpb::KeyValue;
use client::{Client, Credentials, TlsConfig, prefix_end};
use tokio::time::{Instant, sleep};

use crate::config::Raw;

const REGISTRY: &str = "/_etcd/registry";
/// Doublings of the pause between two attempts, which begins at two seconds.
const DOUBLINGS_MAX: u32 = 8;

/// Why there is no cluster.
#[derive(Debug)]
pub(crate) enum Error {
    /// Nobody put how many members the cluster has.
    NoSize,
    /// What somebody put is no such number.
    BadSize,
    /// Others were faster.
    Full,
    /// A founder put what are no URLs.
    BadUrl,
    /// The other cluster cannot be used at all.
    Client(client::Error),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::NoSize => f.write_str("discovery: size key not found"),
            Error::BadSize => f.write_str("discovery: size key is bad"),
            Error::Full => f.write_str("discovery: cluster is full"),
            Error::BadUrl => f.write_str("discovery: invalid peer URL"),
            Error::Client(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for Error {}

/// The flags of discovery, which is wanted.
#[derive(Clone, Copy)]
pub(super) struct Settings<'a>(&'a Raw);

impl<'a> Settings<'a> {
    pub(super) fn read(raw: &'a Raw) -> Option<Settings<'a>> {
        (!raw.list("discovery-endpoints").is_empty()).then_some(Settings(raw))
    }

    pub(super) fn endpoints(self) -> &'a [String] {
        self.0.list("discovery-endpoints")
    }

    pub(super) fn token(self) -> &'a str {
        self.0.text("discovery-token")
    }

    fn span(self, flag: &str) -> Duration {
        Duration::from_nanos(u64::try_from(self.0.duration_ns(flag)).unwrap_or(0))
    }

    fn client(self) -> Result<client::Config, Error> {
        let mut client = client::Config::new(self.endpoints().to_vec());
        client.dial_timeout = self.span("discovery-dial-timeout");
        let interval = self.span("discovery-keepalive-time");
        client.keepalive_interval = Some(interval).filter(|interval| !interval.is_zero());
        client.keepalive_timeout = self.span("discovery-keepalive-timeout");
        client.tls = tls(self.0)?;
        let text = |flag| self.0.text(flag).to_owned();
        let (name, password) = (text("discovery-user"), text("discovery-password"));
        // Without a password there is nothing to authenticate with.
        if !name.is_empty() && !password.is_empty() {
            client.credentials = Some(Credentials { name, password });
        }
        Ok(client)
    }
}

/// How to secure the connection; `None` is clear text where the endpoints leave the choice.
fn tls(raw: &Raw) -> Result<Option<TlsConfig>, Error> {
    let path = |flag| Some(raw.text(flag)).filter(|path| !path.is_empty());
    let identity = match (path("discovery-cert"), path("discovery-key")) {
        (None, None) => None,
        (Some(cert), Some(key)) => Some((cert.into(), key.into())),
        (cert, key) => {
            let (cert, key) = (cert.unwrap_or_default(), key.unwrap_or_default());
            let why =
                format!("KeyFile and CertFile must both be present[key: {key}, cert: {cert}]");
            return Err(Error::Client(client::Error::Config(why)));
        }
    };
    let ca_file = path("discovery-cacert").map(Into::into);
    let skip_verify = raw.bool("discovery-insecure-skip-tls-verify");
    let is_wanted = identity.is_some()
        || ca_file.is_some()
        || skip_verify
        || !raw.bool("discovery-insecure-transport");
    Ok(is_wanted.then_some(TlsConfig {
        ca_file,
        identity,
        server_name: None,
        skip_verify,
    }))
}

/// Registers this member, whose `name=url,…` is `own`, and waits for the others; gives
/// `--initial-cluster`. Blocks, for as long as it takes.
///
/// # Errors
/// There is no place for this member.
pub(super) fn join(settings: Settings<'_>, id: MemberId, own: &str) -> Result<String, Error> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Error::Client(client::Error::Config(error.to_string())))?;
    let joined = runtime.block_on(async {
        let client = Client::connect(settings.client()?).await;
        let mut registry = Registry {
            client: client.map_err(Error::Client)?,
            request_limit: settings.span("discovery-request-timeout"),
            keys: Keys::new(settings.token()),
            attempts: 0,
        };
        registry.join(id, own).await
    });
    runtime.shutdown_background();
    match &joined {
        Ok(cluster) => tracing::info!(cluster, "discovery joined cluster successfully"),
        Err(error) => tracing::error!(%error, "discovery failed to join cluster"),
    }
    joined
}

struct Keys {
    size: String,
    members: String,
}

impl Keys {
    fn new(token: &str) -> Keys {
        let prefix = clean(&format!("{REGISTRY}/{token}"));
        Keys {
            size: clean(&format!("{prefix}/_config/size")),
            members: clean(&format!("{prefix}/members")),
        }
    }

    fn member(&self, id: MemberId) -> String {
        format!("{}/{id}", self.members)
    }
}

/// A path without empty parts and dots, as Go joins them.
fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

/// A founder that has registered.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Founder {
    created: i64,
    key: String,
    /// `name=url,…`
    urls: String,
}

/// The founders so far, in the order in which they registered.
#[derive(Debug, Default)]
struct Founders(Vec<Founder>);

impl Founders {
    /// Takes one in, if it is new and says where it is.
    fn add(&mut self, keys: &Keys, kv: &KeyValue) {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        let (key, urls) = (text(&kv.key), text(&kv.value));
        let refusal = if !key.starts_with(&keys.members) {
            Some("invalid peer registry key")
        } else if !urls.contains('=') {
            Some("invalid peer info returned from discovery service")
        } else if self.0.iter().any(|known| known.key == key) {
            Some("found duplicate peer from discovery service")
        } else {
            None
        };
        if let Some(why) = refusal {
            tracing::warn!("memberKey" = key, "memberInfo" = urls, "{why}");
            return;
        }
        tracing::info!(
            "memberKey" = key,
            "memberInfo" = urls,
            "found peer from discovery service"
        );
        let created = kv.create_revision;
        self.0.push(Founder { created, key, urls });
        self.0.sort_by_key(|founder| founder.created);
    }

    /// Whether there is a place for the founder with this key, its own or a free one.
    fn has_place(&self, key: &str, size: usize) -> bool {
        self.0.len() < size || self.0.iter().take(size).any(|founder| founder.key == key)
    }

    /// `--initial-cluster` of the first `size` founders.
    fn initial_cluster(&self, size: usize) -> Result<String, Error> {
        let urls: Vec<&str> = self.0.iter().take(size).map(|f| f.urls.as_str()).collect();
        let text = urls.join(",");
        match api::cluster::InitialCluster::parse(&text) {
            Ok(_) => Ok(text),
            Err(_) => Err(Error::BadUrl),
        }
    }
}

/// What one look at the registry gave.
struct Seen {
    founders: Founders,
    size: usize,
    revision: i64,
}

struct Registry {
    client: Client,
    /// Bound of one request.
    request_limit: Duration,
    keys: Keys,
    /// Attempts that failed since the last that did not.
    attempts: u32,
}

impl Registry {
    async fn join(&mut self, id: MemberId, own: &str) -> Result<String, Error> {
        let key = self.keys.member(id);
        self.look(&key).await?;
        self.register(&key, own).await;
        let mut seen = self.look(&key).await?;
        while seen.founders.0.len() < seen.size {
            self.wait(&mut seen).await;
            if seen.founders.0.len() < seen.size {
                // The watch ended; what it may have missed is in the keys.
                seen = self.look(&key).await?;
            }
        }
        seen.founders.initial_cluster(seen.size)
    }

    fn limited(&self) -> Client {
        let deadline = Instant::now() + self.request_limit;
        self.client.clone().with_deadline(deadline)
    }

    async fn pause(&mut self, reason: &str) {
        self.attempts += 1;
        let pause = Duration::from_secs(1 << self.attempts.min(DOUBLINGS_MAX));
        tracing::warn!(
            reason,
            backoff = format!("{}s", pause.as_secs()),
            "retry connecting to discovery service"
        );
        sleep(pause).await;
    }

    /// Looks until the other cluster answers.
    async fn look(&mut self, key: &str) -> Result<Seen, Error> {
        loop {
            if let Some(seen) = self.look_once().await? {
                self.attempts = 0;
                return match seen.founders.has_place(key, seen.size) {
                    true => Ok(seen),
                    false => Err(Error::Full),
                };
            }
            self.pause("cluster status check").await;
        }
    }

    /// `None` when the other cluster does not answer.
    async fn look_once(&self) -> Result<Option<Seen>, Error> {
        let size = RangeRequest {
            key: self.keys.size.clone().into(),
            ..RangeRequest::default()
        };
        let size = match self.limited().range(size).await {
            Ok(answer) => answer.kvs.into_iter().next().ok_or(Error::NoSize)?,
            Err(error) => {
                tracing::warn!(
                    "clusterSizeKey" = self.keys.size,
                    %error,
                    "failed to get cluster size from discovery service"
                );
                return Ok(None);
            }
        };
        let size = parse_size(&size.value)?;
        let members = RangeRequest {
            key: self.keys.members.clone().into(),
            range_end: prefix_end(self.keys.members.as_bytes()),
            ..RangeRequest::default()
        };
        let answer = match self.limited().range(members).await {
            Ok(answer) => answer,
            Err(error) => {
                tracing::warn!(
                    "membersKeyPrefix" = self.keys.members,
                    %error,
                    "failed to get cluster members from discovery service"
                );
                return Ok(None);
            }
        };
        let mut founders = Founders::default();
        for kv in &answer.kvs {
            founders.add(&self.keys, kv);
        }
        Ok(Some(Seen {
            founders,
            size,
            revision: answer.header.map_or(0, |header| header.revision),
        }))
    }

    /// Registers, until the other cluster answers.
    async fn register(&mut self, key: &str, own: &str) {
        loop {
            let request = PutRequest {
                key: key.to_owned().into(),
                value: own.to_owned().into(),
                ..PutRequest::default()
            };
            match self.limited().put(request).await {
                Ok(_) => break,
                Err(error) => tracing::warn!(
                    "memberKey" = key,
                    %error,
                    "failed to register members itself to the discovery service"
                ),
            }
            self.pause("register member itself").await;
        }
        self.attempts = 0;
        tracing::info!(
            "memberKey" = key,
            "memberInfo" = own,
            "register member itself successfully"
        );
    }

    /// Waits for the others; less than all of them are there when the watch ended.
    async fn wait(&self, seen: &mut Seen) {
        tracing::info!(
            "clusterSize" = seen.size,
            "found-peers" = seen.founders.0.len(),
            "waiting for peers from discovery service"
        );
        let mut watcher = self.client.watches().create(WatchCreateRequest {
            key: self.keys.members.clone().into(),
            range_end: prefix_end(self.keys.members.as_bytes()),
            start_revision: seen.revision + 1,
            ..WatchCreateRequest::default()
        });
        while seen.founders.0.len() < seen.size
            && let Some(answer) = watcher.next().await
        {
            for kv in answer.events.iter().filter_map(|event| event.kv.as_ref()) {
                seen.founders.add(&self.keys, kv);
            }
            if let Some(why) = answer.cancelled {
                tracing::warn!(?why, "the watch of the discovery service ended");
                // Not again and again at once, whatever ends it.
                sleep(Duration::from_secs(1)).await;
                return;
            }
        }
        tracing::info!(
            "clusterSize" = seen.size,
            "found-peers" = seen.founders.0.len(),
            "found all needed peers from discovery service"
        );
    }
}

/// A size as Go reads it: a sign, digits, nothing else, and above zero.
fn parse_size(bytes: &[u8]) -> Result<usize, Error> {
    let text = std::str::from_utf8(bytes).map_err(|_| Error::BadSize)?;
    let number: i64 = text.parse().map_err(|_| Error::BadSize)?;
    usize::try_from(number)
        .ok()
        .filter(|size| *size > 0)
        .ok_or(Error::BadSize)
}

#[cfg(test)]
mod tests;
