//! Several members of one cluster, of one binary or of several.

pub mod story;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use api::pb::etcdserverpb::{HashKvResponse, StatusResponse};

use crate::kv::{Kv, said};
use crate::{Error, Member, Options};

/// Longest wait for members to agree.
const LIMIT: Duration = Duration::from_secs(30);
/// Longest wait for one answer of a member that may be gone.
const ANSWER: Duration = Duration::from_secs(1);
/// Pause between looks at a condition.
const PAUSE: Duration = Duration::from_millis(20);

/// Members that were founded together; killed when dropped.
pub struct Cluster {
    members: Vec<Member>,
}

impl Cluster {
    /// Founds a cluster of one member per binary and waits until all of them are healthy.
    ///
    /// # Errors
    /// A member cannot be started, ends, or is not healthy within 30 s.
    pub fn start(binaries: Vec<Option<PathBuf>>, flags: &[&str]) -> Result<Cluster, Error> {
        let mut members = Vec::with_capacity(binaries.len());
        for binary in binaries {
            let flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
            members.push(Member::prepare(Options {
                binary,
                flags,
                ..Options::default()
            })?);
        }
        let mut cluster = Cluster::found(members)?;
        cluster.wait_until_healthy()?;
        Ok(cluster)
    }

    /// Starts members that were never started as one cluster, without waiting for them.
    ///
    /// # Errors
    /// A member cannot be started.
    pub fn found(mut members: Vec<Member>) -> Result<Cluster, Error> {
        let name = |at: usize| format!("m{at}");
        let each = members.iter().enumerate();
        let listed: Vec<String> = each.map(|(at, member)| member.listed(&name(at))).collect();
        let listed = listed.join(",");
        for (at, member) in members.iter_mut().enumerate() {
            member.set_cluster(&name(at), &listed);
            member.spawn()?;
        }
        Ok(Cluster { members })
    }

    /// Waits until every member is healthy.
    ///
    /// # Errors
    /// A member ends, or is not healthy within 30 s.
    pub fn wait_until_healthy(&mut self) -> Result<(), Error> {
        for member in &mut self.members {
            member.wait_until_healthy()?;
        }
        Ok(())
    }

    /// Every member, running or not.
    #[must_use]
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// One member, to stop it or to start it again.
    pub fn member(&mut self, at: usize) -> &mut Member {
        &mut self.members[at]
    }

    /// One more member; returns its number.
    pub(crate) fn push(&mut self, member: Member) -> usize {
        self.members.push(member);
        self.members.len() - 1
    }

    /// A connection to one member.
    #[must_use]
    pub fn kv(&self, at: usize) -> Kv {
        Kv::to(self.members[at].address())
    }

    fn running(&self) -> impl Iterator<Item = usize> {
        (0..self.members.len()).filter(|at| self.members[*at].process().is_some())
    }

    /// What a member says of itself, if it answers within a second.
    pub(crate) async fn status(&self, at: usize) -> Option<StatusResponse> {
        let kv = self.kv(at);
        let status = tokio::time::timeout(ANSWER, kv.status()).await;
        status.ok()?.ok()
    }

    /// The member that all running ones follow.
    ///
    /// # Errors
    /// They do not agree within 30 s.
    pub async fn leader(&self) -> Result<usize, Error> {
        let running: Vec<usize> = self.running().collect();
        self.leader_of(&running).await
    }

    /// The member that says it leads and that these members all follow; it is one of them.
    ///
    /// # Errors
    /// They do not agree within 30 s.
    pub async fn leader_of(&self, members: &[usize]) -> Result<usize, Error> {
        let deadline = Instant::now() + LIMIT;
        while Instant::now() < deadline {
            let mut statuses = Vec::new();
            for at in members {
                statuses.extend(self.status(*at).await.map(|status| (*at, status)));
            }
            let own = |status: &StatusResponse| status.header.as_ref().map(|head| head.member_id);
            let leader = statuses.first().map(|(_, status)| status.leader);
            let agreed = statuses.len() == members.len()
                && statuses
                    .iter()
                    .all(|(_, status)| Some(status.leader) == leader);
            let found = statuses.iter().find(|(_, status)| own(status) == leader);
            if let (true, Some((at, _))) = (agreed, found) {
                return Ok(*at);
            }
            tokio::time::sleep(PAUSE).await;
        }
        Err(Error(format!("{members:?} follow none of them")))
    }

    /// Waits until every running member is at `revision`, then takes its hash there.
    ///
    /// # Errors
    /// A member does not get there within 30 s, or the hashes differ.
    pub async fn agreed_hash(&self, revision: i64) -> Result<HashKvResponse, Error> {
        let deadline = Instant::now() + LIMIT;
        let mut agreed: Option<(usize, HashKvResponse)> = None;
        for at in self.running() {
            let kv = self.kv(at);
            while kv.revision(true).await.unwrap_or(0) < revision {
                if Instant::now() > deadline {
                    let log = self.members[at].log();
                    return Err(Error(format!(
                        "m{at} is not at revision {revision}:\n{log}"
                    )));
                }
                tokio::time::sleep(PAUSE).await;
            }
            let hash = kv.hash_kv(revision).await.map_err(said)?;
            match &agreed {
                None => agreed = Some((at, hash)),
                Some((first, same)) => {
                    let parts = |hash: &HashKvResponse| (hash.hash, hash.compact_revision);
                    if parts(same) != parts(&hash) {
                        return Err(Error(format!("m{first} has {same:?}, m{at} has {hash:?}")));
                    }
                }
            }
        }
        let (_, hash) = agreed.ok_or_else(|| Error("no member runs".into()))?;
        Ok(hash)
    }

    /// Puts through a member, again and again until it is acknowledged; gives the revision.
    ///
    /// # Errors
    /// No success within 30 s.
    pub async fn put_until_done(&self, at: usize, key: &str, value: &str) -> Result<i64, Error> {
        let deadline = Instant::now() + LIMIT;
        let kv = self.kv(at);
        loop {
            let put = kv.put(key.to_owned().into(), value.to_owned().into());
            match tokio::time::timeout(Duration::from_secs(3), put).await {
                Ok(Ok(revision)) => return Ok(revision),
                Ok(Err(status)) if Instant::now() > deadline => return Err(said(status)),
                Err(_) if Instant::now() > deadline => {
                    return Err(Error(format!("no answer to a put through m{at}")));
                }
                _ => tokio::time::sleep(PAUSE).await,
            }
        }
    }
}
