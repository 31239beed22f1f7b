//! A member that joins a running cluster: who it is there.

use std::fmt;

use api::ids::{ClusterId, MemberId};
use state::Member;

use super::InitialMember;

/// What the members of a running cluster say about it, as `GET /members` tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Running {
    pub cluster: ClusterId,
    pub members: Vec<Member>,
}

/// Why this member has no place in the running cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JoinError {
    /// The running cluster was not asked, or nobody answered.
    NotFetched,
    /// `--initial-cluster` has another number of members.
    CountUnequal,
    /// A member of the running cluster is not in `--initial-cluster`.
    NoMatch {
        id: MemberId,
        peer_urls: Vec<String>,
    },
    /// This member's name is not in `--initial-cluster`.
    NotListed { name: String },
}

impl fmt::Display for JoinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            JoinError::NotFetched => f.write_str(
                "cannot fetch cluster info from peer urls: could not retrieve cluster \
                 information from the given URLs",
            ),
            JoinError::CountUnequal => {
                f.write_str("error validating peerURLs: member count is unequal")
            }
            JoinError::NoMatch { id, peer_urls } => write!(
                f,
                "error validating peerURLs: PeerURLs: no match found for existing member ({id}, \
                 [{}])",
                peer_urls.join(" ")
            ),
            JoinError::NotListed { name } => write!(
                f,
                "couldn't find local name {name:?} in the initial cluster configuration"
            ),
        }
    }
}

impl std::error::Error for JoinError {}

/// Finds this member in the running cluster, by the peer URLs of `--initial-cluster`, which must
/// name all of its members.
///
/// # Errors
/// The two do not fit.
pub fn join(
    name: &str,
    initial: &[InitialMember],
    running: &Running,
) -> Result<MemberId, JoinError> {
    if initial.len() != running.members.len() {
        return Err(JoinError::CountUnequal);
    }
    let mut own = None;
    for member in &running.members {
        let urls = sorted(&member.peer_urls);
        let found = initial
            .iter()
            .find(|listed| sorted(&listed.peer_urls) == urls)
            .ok_or_else(|| JoinError::NoMatch {
                id: MemberId(member.id),
                peer_urls: member.peer_urls.clone(),
            })?;
        if found.name == name {
            own = Some(MemberId(member.id));
        }
    }
    own.ok_or_else(|| JoinError::NotListed {
        name: name.to_owned(),
    })
}

fn sorted(urls: &[String]) -> Vec<&str> {
    let mut urls: Vec<&str> = urls.iter().map(String::as_str).collect();
    urls.sort_unstable();
    urls
}
