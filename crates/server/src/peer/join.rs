//! What a running cluster says about itself, before this member is part of it.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use api::ids::{ClusterId, MemberId};
use http::{Method, StatusCode};
use node::boot::Running;
use serde::Deserialize;
use state::Member;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use super::client::{Answer, Client, head, whole};
use super::head::{CLUSTER_ID, id, text};
use super::socket::Dialer;
use crate::config::Url;

/// Why nothing is known about the running cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotFetched {
    /// No URL gave an answer that can be read.
    NoAnswer,
    /// Somebody answered that there are no members.
    Empty,
}

impl fmt::Display for NotFetched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            NotFetched::NoAnswer => "could not retrieve cluster information from the given URLs",
            NotFetched::Empty => "failed to get raft cluster member(s) from the given URLs",
        })
    }
}

/// Asks members of a cluster from outside; every method blocks.
pub(crate) struct Asker {
    /// Absent once dropped.
    runtime: Option<Runtime>,
    pub(super) dialer: Arc<Dialer>,
}

impl Drop for Asker {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // A blocking task may hang in the resolver.
            runtime.shutdown_background();
        }
    }
}

impl Asker {
    /// # Errors
    /// The system refuses an epoll instance.
    pub(super) fn new(dialer: Arc<Dialer>) -> io::Result<Asker> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        Ok(Asker {
            runtime: Some(runtime),
            dialer,
        })
    }

    pub(super) fn run<F: Future>(&self, future: F) -> F::Output {
        let runtime = self.runtime.as_ref().expect("it is there until the drop");
        runtime.block_on(future)
    }

    /// Asks one URL after the other for the members; the first answer counts. Who expects an
    /// answer is warned of each that does not come within `limit`.
    ///
    /// # Errors
    /// Nobody answers.
    pub(crate) fn members(
        &self,
        urls: &[Url],
        limit: Duration,
        is_expected: bool,
    ) -> Result<Running, NotFetched> {
        self.run(async {
            for url in urls {
                match ask_members(url, &self.dialer, limit).await {
                    Ok(running) if running.members.is_empty() => return Err(NotFetched::Empty),
                    Ok(running) => return Ok(running),
                    Err(error) if is_expected => {
                        tracing::warn!(
                            address = format!("{url}/members"),
                            error,
                            "failed to get cluster response"
                        );
                    }
                    Err(_) => {}
                }
            }
            Err(NotFetched::NoAnswer)
        })
    }

    /// Whether this release may join these members, by etcd's rule: nobody's cluster version is
    /// outside of what it can do, and at least one is known.
    pub(crate) fn is_compatible(&self, members: &[Member], limit: Duration) -> bool {
        let (versions, downgrades) = self.run(async {
            let versions = versions(members, &self.dialer, limit).await;
            (versions, is_downgrading(members, &self.dialer, limit).await)
        });
        let range = allowed(downgrades);
        let mut any = false;
        for (member, version) in versions {
            let Some(version) = version else { continue };
            let member = MemberId(member);
            let Some(number) = number(&version) else {
                tracing::warn!(
                    "remote-member-id" = %member,
                    "remote-member-cluster-version" = version,
                    "failed to parse cluster version of remote member"
                );
                continue;
            };
            if number < range.0 || number > range.1 {
                let too = if number < range.0 { "low" } else { "high" };
                tracing::warn!(
                    "remote-member-id" = %member,
                    "remote-member-cluster-version" = version,
                    "cluster version of remote member is not compatible; too {too}"
                );
                return false;
            }
            any = true;
        }
        any
    }
}

type Version = (u64, u64, u64);

/// The cluster versions that this release can join: while a downgrade is under way, only the one
/// above its own, which then is the one that is left.
fn allowed(downgrades: bool) -> (Version, Version) {
    let parse = |text: &str| number(text).expect("a constant");
    let (major, minor, _) = parse(api::version::SERVER);
    match downgrades {
        true => ((major, minor + 1, 0), (major, minor + 1, 0)),
        false => (parse(api::version::MIN_CLUSTER), (major, minor, 0)),
    }
}

/// `3.6.0`; what is behind a dash does not count.
fn number(text: &str) -> Option<Version> {
    let (release, _) = text.split_once('-').unwrap_or((text, ""));
    let mut parts = release.split('.').map(|part| part.parse::<u64>());
    let major = parts.next()?.ok()?;
    let mut next = || parts.next().unwrap_or(Ok(0)).ok();
    Some((major, next()?, next()?))
}

async fn ask(
    url: &Url,
    path: &str,
    dialer: &Arc<Dialer>,
    limit: Duration,
) -> Result<Answer, String> {
    let request = head(Method::GET, url, path).body(whole(""));
    let request = request.map_err(|error| error.to_string())?;
    let mut client = Client::new(Arc::clone(dialer));
    let answer = client.ask(url, request, limit).await;
    let answer = answer.map_err(|error| error.to_string())?;
    match answer.status {
        StatusCode::OK => Ok(answer),
        status => Err(format!("status {status}")),
    }
}

async fn ask_members(url: &Url, dialer: &Arc<Dialer>, limit: Duration) -> Result<Running, String> {
    let answer = ask(url, "/members", dialer, limit).await?;
    let cluster = text(&answer.headers, CLUSTER_ID).and_then(id);
    let cluster = cluster.ok_or("no cluster ID in the answer")?;
    let members = serde_json::from_slice(&answer.body).map_err(|error| error.to_string())?;
    Ok(Running {
        cluster: ClusterId(cluster.0),
        members,
    })
}

/// Asks the URLs of a member one after the other, until `read` understands an answer.
async fn ask_one<T>(
    member: &Member,
    path: &str,
    dialer: &Arc<Dialer>,
    limit: Duration,
    read: fn(&Answer) -> Option<T>,
) -> Option<T> {
    for url in member
        .peer_urls
        .iter()
        .filter_map(|url| Url::parse(url).ok())
    {
        let error = match ask(&url, path, dialer, limit).await {
            Ok(answer) => match read(&answer) {
                Some(read) => return Some(read),
                None => "the answer cannot be read".to_owned(),
            },
            Err(error) => error,
        };
        tracing::warn!(
            address = format!("{url}{path}"),
            "remote-member-id" = %MemberId(member.id),
            error,
            "failed to reach the peer URL"
        );
    }
    None
}

#[derive(Deserialize)]
struct Versions {
    etcdcluster: String,
}

/// The cluster version as each member knows it.
async fn versions(
    members: &[Member],
    dialer: &Arc<Dialer>,
    limit: Duration,
) -> Vec<(u64, Option<String>)> {
    let mut asked = JoinSet::new();
    for member in members.iter().cloned() {
        let dialer = Arc::clone(dialer);
        asked.spawn(async move {
            let read = |answer: &Answer| serde_json::from_slice::<Versions>(&answer.body).ok();
            let versions = ask_one(&member, "/version", &dialer, limit, read).await;
            (member.id, versions.map(|versions| versions.etcdcluster))
        });
    }
    asked.join_all().await
}

/// Whether the cluster is about to become older; false when nobody knows.
async fn is_downgrading(members: &[Member], dialer: &Arc<Dialer>, limit: Duration) -> bool {
    let read = |answer: &Answer| answer.text().parse().ok();
    for member in members {
        if let Some(is) = ask_one(member, "/downgrade/enabled", dialer, limit, read).await {
            return is;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_joined() {
        assert_eq!(allowed(false), ((3, 0, 0), (3, 7, 0)));
        assert_eq!(allowed(true), ((3, 8, 0), (3, 8, 0)));
        assert_eq!(number("3.6.0"), Some((3, 6, 0)));
        assert_eq!(number("3.8.0-alpha.0"), Some((3, 8, 0)));
        assert_eq!(number("3.7"), Some((3, 7, 0)));
        for bad in ["not_decided", "", "3.x.0"] {
            assert_eq!(number(bad), None, "{bad}");
        }
    }
}
