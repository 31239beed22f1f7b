//! Who is to be accused, from what the members said.

use std::collections::BTreeMap;
use std::fmt;

use api::ids::MemberId;
use state::KvHash;

/// A member's answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Said {
    /// Its revision when it answered.
    pub(super) current: i64,
    pub(super) hash: KvHash,
}

/// Why there is no hash of a member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// It is not there yet.
    FutureRevision,
    /// It has compacted further.
    Compacted,
    OtherCluster,
    Other(String),
}

impl Failure {
    /// What a refusal says.
    pub(super) fn of_text(text: &str) -> Failure {
        let known = [
            ("required revision has been compacted", Failure::Compacted),
            (
                "required revision is a future revision",
                Failure::FutureRevision,
            ),
            ("cluster ID mismatch", Failure::OtherCluster),
        ];
        let found = known.into_iter().find(|(part, _)| text.contains(part));
        found.map_or_else(|| Failure::Other(text.to_owned()), |(_, failure)| failure)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Failure::FutureRevision => api::Error::FutureRev.message(),
            Failure::Compacted => api::Error::Compacted.message(),
            Failure::OtherCluster => "cluster ID mismatch",
            Failure::Other(text) => text,
        })
    }
}

/// What one other member was found to have.
#[derive(Clone, Debug)]
pub(super) struct PeerHash {
    pub(super) id: MemberId,
    pub(super) answer: Result<Said, Failure>,
}

impl PeerHash {
    /// Whether both hashed the same records and came to different results.
    pub(super) fn differs_from(&self, own: &KvHash) -> bool {
        let said = self.answer.as_ref().ok();
        said.is_some_and(|said| {
            said.hash.compact_revision == own.compact_revision && said.hash.hash != own.hash
        })
    }

    /// Logs a difference.
    pub(super) fn report(&self, own: MemberId, hash: &KvHash) {
        let Ok(said) = &self.answer else {
            return;
        };
        tracing::warn!(
            "local-member-id" = %own,
            "local-member-revision" = hash.revision,
            "local-member-compact-revision" = hash.compact_revision,
            "local-member-hash" = hash.hash,
            "remote-peer-id" = %self.id,
            "remote-peer-revision" = said.current,
            "remote-peer-compact-revision" = said.hash.compact_revision,
            "remote-peer-hash" = said.hash.hash,
            "found different hash values from remote peer"
        );
    }
}

/// The members by their hash of the same records, this member among them.
fn by_hash(own: MemberId, hash: &KvHash, peers: &[PeerHash]) -> BTreeMap<u32, Vec<MemberId>> {
    let mut groups = BTreeMap::from([(hash.hash, vec![own])]);
    for peer in peers {
        if let Ok(said) = &peer.answer
            && said.hash.compact_revision == hash.compact_revision
        {
            groups.entry(said.hash.hash).or_default().push(peer.id);
        }
    }
    groups
}

/// Who has another hash than a majority of all members; `None` when there is no such majority.
fn minority(groups: &BTreeMap<u32, Vec<MemberId>>, members: usize) -> Option<Vec<MemberId>> {
    let majority = groups.values().find(|ids| ids.len() > members / 2)?;
    let others = groups.values().filter(|ids| *ids != majority);
    Some(others.flatten().copied().collect())
}

/// The leader's data at two moments, the second after its leadership was confirmed and with its
/// revision then, beside the others' at the first one's revision.
///
/// A majority of equal hashes decides who differs, the leader included; etcd always takes the
/// leader's part. Without a majority the leader's word counts here too.
pub(super) fn of_hashes(
    own: MemberId,
    (first, second, current): (&KvHash, &KvHash, i64),
    peers: &[PeerHash],
) -> Vec<MemberId> {
    let mut accused = Vec::new();
    let unmoved =
        first.revision == second.revision && first.compact_revision == second.compact_revision;
    if unmoved && first.hash != second.hash {
        tracing::warn!(
            revision = first.revision,
            "compact-revision" = first.compact_revision,
            "hash-1" = first.hash,
            "hash-2" = second.hash,
            "found hash mismatch"
        );
        accused.push(own);
    }
    let groups = by_hash(own, first, peers);
    if groups.len() > 1 {
        let differing = peers.iter().filter(|peer| peer.differs_from(first));
        let differing = differing.inspect(|peer| peer.report(own, first));
        let differing: Vec<MemberId> = differing.map(|peer| peer.id).collect();
        accused.extend(minority(&groups, peers.len() + 1).unwrap_or(differing));
    }
    // A follower cannot be ahead of a leader that was confirmed later.
    for peer in peers {
        let Ok(said) = &peer.answer else { continue };
        if said.current > current || said.hash.compact_revision > second.compact_revision {
            tracing::warn!(
                "leader-revision" = current,
                "follower-revision" = said.current,
                "leader-compact-revision" = second.compact_revision,
                "follower-compact-revision" = said.hash.compact_revision,
                "follower-peer-id" = %peer.id,
                "a follower's revisions must be less than or equal to the leader's"
            );
            accused.push(peer.id);
        }
    }
    accused.sort_unstable();
    accused.dedup();
    accused
}

/// What a comparison of compactions found.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// All members have the same.
    Alike,
    /// Those who could be compared have the same.
    Unknown,
    /// These differ; member 0 when there is no majority to differ from.
    Accused(Vec<MemberId>),
}

/// Compares the hash that a compaction left on the leader with the others'.
pub(super) fn of_compaction(own: MemberId, hash: &KvHash, peers: &[PeerHash]) -> Verdict {
    let groups = by_hash(own, hash, peers);
    if groups.len() > 1 {
        let accused = minority(&groups, peers.len() + 1);
        return Verdict::Accused(accused.unwrap_or_else(|| vec![MemberId(0)]));
    }
    match groups.values().map(Vec::len).sum::<usize>() == peers.len() + 1 {
        true => Verdict::Alike,
        false => Verdict::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: MemberId = MemberId(1);

    fn hash(hash: u32) -> KvHash {
        KvHash {
            hash,
            compact_revision: 5,
            revision: 9,
        }
    }

    fn peer(id: u64, of: KvHash) -> PeerHash {
        let said = Said {
            current: 9,
            hash: of,
        };
        PeerHash {
            id: MemberId(id),
            answer: Ok(said),
        }
    }

    fn silent(id: u64) -> PeerHash {
        PeerHash {
            id: MemberId(id),
            answer: Err(Failure::FutureRevision),
        }
    }

    fn accused(peers: &[PeerHash]) -> Vec<u64> {
        let own = hash(7);
        let found = of_hashes(OWN, (&own, &own, 9), peers);
        found.into_iter().map(|id| id.0).collect()
    }

    #[test]
    fn a_majority_tells_who_differs() {
        let nobody: [u64; 0] = [];
        assert_eq!(accused(&[peer(2, hash(7)), peer(3, hash(7))]), nobody);
        assert_eq!(accused(&[peer(2, hash(7)), peer(3, hash(8))]), [3]);
        assert_eq!(accused(&[peer(2, hash(8)), peer(3, hash(8))]), [1]);
        assert_eq!(accused(&[peer(2, hash(8)), silent(3)]), [2]);
        assert_eq!(accused(&[peer(2, hash(8)), peer(3, hash(6))]), [2, 3]);
        assert_eq!(accused(&[silent(2), silent(3)]), nobody);
        let elsewhere = KvHash {
            compact_revision: 4,
            ..hash(8)
        };
        assert_eq!(accused(&[peer(2, elsewhere), peer(3, hash(7))]), nobody);
    }

    #[test]
    fn nobody_is_ahead_of_a_leader() {
        let mut ahead = peer(2, hash(7));
        if let Ok(said) = &mut ahead.answer {
            said.current = 10;
        }
        assert_eq!(accused(&[ahead]), [2]);
        let compacted = KvHash {
            compact_revision: 6,
            ..hash(8)
        };
        assert_eq!(accused(&[peer(3, compacted)]), [3]);
    }

    #[test]
    fn a_hash_that_changes_by_itself() {
        let found = of_hashes(OWN, (&hash(7), &hash(8), 9), &[peer(2, hash(7))]);
        assert_eq!(found, [OWN]);
        let later = KvHash {
            revision: 10,
            ..hash(8)
        };
        let found = of_hashes(OWN, (&hash(7), &later, 10), &[peer(2, hash(7))]);
        assert!(found.is_empty());
    }

    #[test]
    fn compactions() {
        let judge = |peers: &[PeerHash]| of_compaction(OWN, &hash(7), peers);
        assert_eq!(judge(&[peer(2, hash(7)), peer(3, hash(7))]), Verdict::Alike);
        assert_eq!(judge(&[peer(2, hash(7)), silent(3)]), Verdict::Unknown);
        let of = |ids: &[u64]| Verdict::Accused(ids.iter().copied().map(MemberId).collect());
        assert_eq!(judge(&[peer(2, hash(8)), peer(3, hash(7))]), of(&[2]));
        assert_eq!(judge(&[peer(2, hash(8)), peer(3, hash(8))]), of(&[1]));
        assert_eq!(judge(&[peer(2, hash(8)), silent(3)]), of(&[0]));
        assert_eq!(judge(&[peer(2, hash(8)), peer(3, hash(6))]), of(&[0]));
    }

    #[test]
    fn refusals() {
        let text = "mvcc: required revision is a future revision";
        assert_eq!(Failure::of_text(text), Failure::FutureRevision);
        let text = "mvcc: required revision has been compacted";
        assert_eq!(Failure::of_text(text), Failure::Compacted);
        assert_eq!(Failure::of_text("x"), Failure::Other("x".into()));
    }
}
