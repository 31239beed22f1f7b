//! A member that joins a running cluster: who it is there.

use std::fmt;

use api::cluster::Same;
use api::ids::{ClusterId, MemberId};
use state::Member;

use super::InitialMember;

/// What the members of a running cluster say about it, as `GET /members` tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Running {
    pub cluster: ClusterId,
    pub members: Vec<Member>,
}

/// etcd's text, in which a value of Go shows through; members by ascending id.
impl fmt::Display for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{{ClusterID:{} Members:[", self.cluster)?;
        for (at, member) in self.by_id().into_iter().enumerate() {
            let space = if at == 0 { "" } else { " " };
            write!(
                f,
                "{space}&{{ID:{} RaftAttributes:{{PeerURLs:[{}] IsLearner:{}}} \
                 Attributes:{{Name:{} ClientURLs:[{}]}}}}",
                MemberId(member.id),
                member.peer_urls.join(" "),
                member.is_learner,
                member.name,
                member.client_urls.join(" ")
            )?;
        }
        f.write_str("] RemovedMemberIDs:[]}")
    }
}

impl Running {
    fn by_id(&self) -> Vec<&Member> {
        let mut members: Vec<&Member> = self.members.iter().collect();
        members.sort_by_key(|member| member.id);
        members
    }
}

/// The place of a joining member in a running cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Joined {
    pub member: MemberId,
    pub running: Running,
}

/// Why this member has no place in the running cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JoinError {
    /// The running cluster was not asked, or nobody answered.
    NotFetched,
    /// `--initial-cluster` has another number of members.
    CountUnequal { running: Running },
    /// A member of the running cluster is not in `--initial-cluster`.
    NoMatch {
        running: Running,
        id: MemberId,
        peer_urls: Vec<String>,
        /// How its URLs differ from those of the last one that was compared.
        last: String,
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
            JoinError::CountUnequal { running } => {
                write!(
                    f,
                    "error validating peerURLs {running}: member count is unequal"
                )
            }
            JoinError::NoMatch {
                running,
                id,
                peer_urls,
                last,
            } => write!(
                f,
                "error validating peerURLs {running}: PeerURLs: no match found for existing \
                 member ({id}, [{}]), last resolver error ({last})",
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
/// name all of its members; `same` compares URLs.
///
/// # Errors
/// The two do not fit.
pub fn join(
    name: &str,
    initial: &[InitialMember],
    running: Running,
    same: Same,
) -> Result<Joined, JoinError> {
    if initial.len() != running.members.len() {
        return Err(JoinError::CountUnequal { running });
    }
    let mut own = None;
    for member in running.by_id() {
        let mut last = String::new();
        let mut listed = initial.iter();
        let found = listed.find(|listed| {
            let compared = same(&member.peer_urls, &listed.peer_urls);
            compared.map_err(|why| last = why).is_ok()
        });
        match found {
            Some(found) if found.name == name => own = Some(MemberId(member.id)),
            Some(_) => {}
            None => {
                let (id, peer_urls) = (MemberId(member.id), member.peer_urls.clone());
                return Err(JoinError::NoMatch {
                    running,
                    id,
                    peer_urls,
                    last,
                });
            }
        }
    }
    match own {
        Some(member) => Ok(Joined { member, running }),
        None => Err(JoinError::NotListed {
            name: name.to_owned(),
        }),
    }
}
