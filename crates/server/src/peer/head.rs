//! The heads of requests between members: who asks, what it runs, which cluster it means.

use api::ids::{ClusterId, MemberId};
use http::HeaderMap;
use http::request::Builder;

pub(super) const SERVER_FROM: &str = "X-Server-From";
pub(super) const SERVER_VERSION: &str = "X-Server-Version";
pub(super) const MIN_CLUSTER_VERSION: &str = "X-Min-Cluster-Version";
pub(super) const CLUSTER_ID: &str = "X-Etcd-Cluster-Id";
pub(super) const PEER_URLS: &str = "X-Peerurls";
pub(super) const RAFT_TO: &str = "X-Raft-To";

/// What etcd takes a request for that does not say what its sender runs.
const SILENT: (u64, u64) = (2, 0);
/// The oldest release whose answers to a stream are understood when it is older than ours.
const OLDEST_STREAM: (u64, u64) = (2, 1);

/// Why a request from a member is refused with 412.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Incompatible {
    Version,
    Cluster,
}

impl Incompatible {
    /// etcd's text, by which a dialing member tells the two apart.
    pub(super) fn text(self) -> &'static str {
        match self {
            Incompatible::Version => "incompatible version",
            Incompatible::Cluster => "cluster ID mismatch",
        }
    }
}

/// Who this member is to the others.
#[derive(Clone, Debug)]
pub(super) struct Identity {
    pub(super) member: MemberId,
    pub(super) cluster: ClusterId,
    /// Where others find it, joined by commas.
    pub(super) urls: String,
}

impl Identity {
    /// The headers that every request to a member has.
    pub(super) fn sign(&self, request: Builder) -> Builder {
        let request = request
            .header(SERVER_FROM, self.member.to_string())
            .header(SERVER_VERSION, api::version::SERVER)
            .header(MIN_CLUSTER_VERSION, api::version::MIN_CLUSTER)
            .header(CLUSTER_ID, self.cluster.to_string());
        match self.urls.is_empty() {
            true => request,
            false => request.header(PEER_URLS, &self.urls),
        }
    }

    /// Whether a request comes from a member of this cluster that we can talk to.
    pub(super) fn check(&self, headers: &HeaderMap) -> Result<(), Incompatible> {
        check_versions(headers)?;
        match text(headers, CLUSTER_ID) {
            Some(id) if id == self.cluster.to_string() => Ok(()),
            _ => Err(Incompatible::Cluster),
        }
    }
}

fn check_versions(headers: &HeaderMap) -> Result<(), Incompatible> {
    let named = |name| match text(headers, name) {
        Some(version) => minor(version).ok_or(Incompatible::Version),
        None => Ok(SILENT),
    };
    let (server, min_cluster) = (named(SERVER_VERSION)?, named(MIN_CLUSTER_VERSION)?);
    if server < own_min_cluster() || min_cluster > own() {
        return Err(Incompatible::Version);
    }
    Ok(())
}

/// Whether whoever answered speaks our streams.
pub(super) fn streams_with_us(headers: &HeaderMap) -> bool {
    let theirs = match text(headers, SERVER_VERSION) {
        Some(version) => minor(version),
        None => Some(SILENT),
    };
    theirs.is_some_and(|theirs| theirs >= OLDEST_STREAM)
}

/// A header's text, when it is there and is text.
pub(super) fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// An id as it stands in headers and paths.
pub(super) fn id(text: &str) -> Option<MemberId> {
    let hex = |byte: u8| byte.is_ascii_hexdigit();
    (!text.is_empty() && text.bytes().all(hex))
        .then(|| u64::from_str_radix(text, 16).ok())
        .flatten()
        .map(MemberId)
}

/// Major and minor of a version: `3.7.1`, `3.6.0-rc.1`.
fn minor(version: &str) -> Option<(u64, u64)> {
    let mut parts = version.splitn(3, '.');
    let major = parts.next()?.parse().ok()?;
    let minor = parts.next()?.parse().ok()?;
    parts.next()?;
    Some((major, minor))
}

fn own() -> (u64, u64) {
    minor(api::version::SERVER).expect("a constant")
}

fn own_min_cluster() -> (u64, u64) {
    minor(api::version::MIN_CLUSTER).expect("a constant")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity() -> Identity {
        Identity {
            member: MemberId(0xa),
            cluster: ClusterId(0xc),
            urls: "http://a:1,http://a:2".into(),
        }
    }

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        let mut request = http::Request::builder();
        for (name, value) in pairs {
            request = request.header(*name, *value);
        }
        request.headers_ref().unwrap().clone()
    }

    #[test]
    fn a_signed_request_passes_the_check() {
        let request = identity().sign(http::Request::builder());
        let signed = request.headers_ref().unwrap();
        assert_eq!(text(signed, SERVER_FROM), Some("a"));
        assert_eq!(text(signed, PEER_URLS), Some("http://a:1,http://a:2"));
        assert_eq!(identity().check(signed), Ok(()));
    }

    /// The answers of etcd 3.7.1 to these pairs.
    #[test]
    fn versions_and_clusters_are_checked_as_etcd_does() {
        let cases = [
            ("3.7.1", "3.7.0", "c", Ok(())),
            ("3.0.0", "3.0.0", "c", Ok(())),
            ("4.1.0", "3.0.0", "c", Ok(())),
            ("3.6.0-rc.1", "3.0.0", "c", Ok(())),
            ("2.3.0", "2.1.0", "c", Err(Incompatible::Version)),
            ("3.8.0", "3.8.0", "c", Err(Incompatible::Version)),
            ("many", "3.0.0", "c", Err(Incompatible::Version)),
            ("3.7.1", "3.0.0", "d", Err(Incompatible::Cluster)),
        ];
        for (server, min_cluster, cluster, want) in cases {
            let sent = headers(&[
                (SERVER_VERSION, server),
                (MIN_CLUSTER_VERSION, min_cluster),
                (CLUSTER_ID, cluster),
            ]);
            assert_eq!(identity().check(&sent), want, "{server} {min_cluster}");
        }
        let silent = headers(&[(CLUSTER_ID, "c")]);
        assert_eq!(identity().check(&silent), Err(Incompatible::Version));
        assert!(!streams_with_us(&silent));
        assert!(streams_with_us(&headers(&[(SERVER_VERSION, "3.4.44")])));
    }

    #[test]
    fn ids() {
        assert_eq!(
            id("8e9e05c52164694d"),
            Some(MemberId(0x8e9e_05c5_2164_694d))
        );
        for bad in ["", "+1", "g", "11111111111111111"] {
            assert_eq!(id(bad), None, "{bad}");
        }
    }
}
