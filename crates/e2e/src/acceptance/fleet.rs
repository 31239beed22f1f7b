//! A cluster whose members come and go, by etcdctl.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::kv::said;
use crate::{Cluster, Error, Member, Options};

/// Longest wait for a change of the membership.
const LIMIT: Duration = Duration::from_secs(40);
const PAUSE: Duration = Duration::from_millis(20);

/// What etcd says until members have been connected for five seconds.
pub(super) const UNHEALTHY: &str = "unhealthy cluster";
/// What it says while a learner has not read enough of the log.
pub(super) const NOT_IN_SYNC: &str = "in sync with leader";

/// What the stories about members need.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The server under test.
    pub binary: PathBuf,
    /// The etcdctl that changes the membership.
    pub etcdctl: PathBuf,
}

/// Members by number, in the order in which they came; those that went keep theirs.
pub(super) struct Fleet {
    pub(super) cluster: Cluster,
    plan: Plan,
    flags: Vec<String>,
}

impl Fleet {
    pub(super) fn found(plan: &Plan, members: usize, flags: &[&str]) -> Result<Fleet, Error> {
        let binaries = vec![Some(plan.binary.clone()); members];
        Ok(Fleet {
            cluster: Cluster::start(binaries, flags)?,
            plan: plan.clone(),
            flags: flags.iter().map(|flag| (*flag).to_owned()).collect(),
        })
    }

    /// Where clients reach a member.
    pub(super) fn address(&self, at: usize) -> SocketAddr {
        self.cluster.members()[at].address()
    }

    /// Where clients reach the members whose processes run.
    pub(super) fn addresses(&self) -> Vec<SocketAddr> {
        let members = self.cluster.members().iter();
        let running = members.filter(|member| member.process().is_some());
        running.map(Member::address).collect()
    }

    fn run(&self, endpoints: &[SocketAddr], words: &[&str]) -> Result<Output, Error> {
        let endpoints: Vec<String> = endpoints.iter().map(ToString::to_string).collect();
        let output = Command::new(&self.plan.etcdctl)
            .arg(format!("--endpoints={}", endpoints.join(",")))
            .args(["--command-timeout=10s", "--dial-timeout=2s"])
            .args(words)
            .stdin(Stdio::null())
            .output()?;
        Ok(output)
    }

    /// What etcdctl prints, asked through all members that run.
    ///
    /// # Errors
    /// It fails.
    pub(super) fn etcdctl(&self, words: &[&str]) -> Result<String, Error> {
        self.etcdctl_at(&self.addresses(), words)
    }

    /// The same through the given members.
    ///
    /// # Errors
    /// It fails.
    pub(super) fn etcdctl_at(&self, at: &[SocketAddr], words: &[&str]) -> Result<String, Error> {
        let output = self.run(at, words)?;
        match output.status.success() {
            true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
            false => {
                let text = String::from_utf8_lossy(&output.stderr);
                Err(Error(format!(
                    "etcdctl {}: {}",
                    words.join(" "),
                    text.trim()
                )))
            }
        }
    }

    /// The same, again and again while it is refused with the given words.
    ///
    /// # Errors
    /// It fails with others, or after 40 s.
    pub(super) async fn etcdctl_unless(
        &self,
        excuse: &str,
        words: &[&str],
    ) -> Result<String, Error> {
        let deadline = Instant::now() + LIMIT;
        loop {
            match self.etcdctl(words) {
                Err(error) if error.0.contains(excuse) && Instant::now() < deadline => {
                    tokio::time::sleep(PAUSE).await;
                }
                other => return other,
            }
        }
    }

    /// Asks etcdctl for something that must be refused with these words.
    ///
    /// # Errors
    /// It is not refused, or with others.
    pub(super) fn refused(
        &self,
        at: &[SocketAddr],
        words: &[&str],
        text: &str,
    ) -> Result<(), Error> {
        match self.etcdctl_at(at, words) {
            Ok(output) => Err(Error(format!("not refused: {words:?}: {output}"))),
            Err(error) if error.0.contains(text) => Ok(()),
            Err(error) => Err(Error(format!(
                "{words:?} is not refused with {text:?}: {error}"
            ))),
        }
    }

    /// The same, once `unhealthy cluster` is not what is said first.
    ///
    /// # Errors
    /// It is not refused, or with other words for 40 s.
    pub(super) async fn refused_then(
        &self,
        at: &[SocketAddr],
        words: &[&str],
        text: &str,
    ) -> Result<(), Error> {
        let deadline = Instant::now() + LIMIT;
        loop {
            match self.refused(at, words, text) {
                Err(error) if error.0.contains(UNHEALTHY) && Instant::now() < deadline => {
                    tokio::time::sleep(PAUSE).await;
                }
                other => return other,
            }
        }
    }

    /// Waits until a member was connected to all others for five seconds, as far as it knows: it
    /// then looks at what is wrong with a change beside that.
    ///
    /// # Errors
    /// Not within 40 s.
    pub(super) async fn settle(&self, at: usize) -> Result<(), Error> {
        let twice = format!("--peer-urls=http://{}", self.cluster.members()[at].peer());
        let words = ["member", "add", "twice", &twice];
        self.refused_then(&[self.address(at)], &words, "Peer URLs already exists")
            .await
    }

    /// A line of the list of members: ID, status, name, peer URLs, client URLs, whether it learns.
    ///
    /// # Errors
    /// etcdctl fails, or the member is not in the list.
    pub(super) fn listed(&self, at: usize) -> Result<Vec<String>, Error> {
        let peer = format!("http://{}", self.cluster.members()[at].peer());
        let list = self.etcdctl(&["member", "list", "-w", "simple"])?;
        let lines = list
            .lines()
            .map(|line| line.split(", ").map(str::to_owned).collect());
        let mut lines = lines.filter(|fields: &Vec<String>| fields.get(3) == Some(&peer));
        lines
            .next()
            .ok_or_else(|| Error(format!("m{at} is not in the list:\n{list}")))
    }

    /// A member's ID in hexadecimal digits.
    ///
    /// # Errors
    /// As [`Fleet::listed`].
    pub(super) fn id(&self, at: usize) -> Result<String, Error> {
        Ok(self.listed(at)?.swap_remove(0))
    }

    /// Chooses a place for one more member, which is in no list yet.
    ///
    /// # Errors
    /// No free port, or no directory can be made.
    pub(super) fn prepare(&mut self) -> Result<usize, Error> {
        let options = Options {
            binary: Some(self.plan.binary.clone()),
            flags: self.flags.clone(),
            ..Options::default()
        };
        Ok(self.cluster.push(Member::prepare(options)?))
    }

    /// Adds a member to the list, as learner or voter, without starting it.
    ///
    /// # Errors
    /// etcdctl fails, or does not say how to start it.
    pub(super) async fn add(&mut self, at: usize, learner: bool) -> Result<(), Error> {
        let name = format!("m{at}");
        let peer = format!("--peer-urls=http://{}", self.cluster.members()[at].peer());
        let mut words = vec!["member", "add", &name, &peer];
        if learner {
            words.push("--learner");
        }
        let printed = self.etcdctl_unless(UNHEALTHY, &words).await?;
        let mut lines = printed.lines();
        let list = lines.find_map(|line| line.strip_prefix("ETCD_INITIAL_CLUSTER="));
        let list = list.ok_or_else(|| Error(format!("no list in {printed}")))?;
        let list = list.trim_matches('"').to_owned();
        self.cluster.member(at).join(&name, &list);
        Ok(())
    }

    /// Starts it as a learner and waits until it can be promoted, which it then is.
    ///
    /// # Errors
    /// It does not start, or does not catch up.
    pub(super) async fn join(&mut self, at: usize) -> Result<(), Error> {
        self.add(at, true).await?;
        self.cluster.member(at).restart()?;
        let id = self.id(at)?;
        self.promote(&id).await?;
        match self.listed(at)?.last().map(String::as_str) {
            Some("false") => Ok(()),
            other => Err(Error(format!("m{at} learns still: {other:?}"))),
        }
    }

    async fn promote(&self, id: &str) -> Result<(), Error> {
        let deadline = Instant::now() + LIMIT;
        loop {
            let error = match self.etcdctl(&["member", "promote", id]) {
                Ok(_) => return Ok(()),
                Err(error) => error,
            };
            let excused = error.0.contains(NOT_IN_SYNC) || error.0.contains(UNHEALTHY);
            if !excused || Instant::now() > deadline {
                return Err(error);
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Makes another member lead.
    ///
    /// # Errors
    /// etcdctl fails, or the members do not follow it.
    pub(super) async fn move_leader(&self, to: usize) -> Result<(), Error> {
        self.etcdctl(&["move-leader", &self.id(to)?])?;
        match self.cluster.leader().await? {
            leader if leader == to => Ok(()),
            leader => Err(Error(format!("m{leader} leads, not m{to}"))),
        }
    }

    /// Removes a member, which then ends by itself, and cannot return.
    ///
    /// # Errors
    /// etcdctl fails, or it goes on, or returns.
    pub(super) async fn remove(&mut self, at: usize) -> Result<(), Error> {
        let id = self.id(at)?;
        self.etcdctl_unless(UNHEALTHY, &["member", "remove", &id])
            .await?;
        self.cluster.member(at).wait_for_exit()?;
        Ok(())
    }

    /// A member that was removed starts, and ends by itself without having served.
    ///
    /// # Errors
    /// It serves, or goes on.
    pub(super) fn cannot_return(&mut self, at: usize) -> Result<(), Error> {
        let member = self.cluster.member(at);
        if member.restart().is_ok() {
            return Err(Error(format!(
                "m{at} was removed and serves:\n{}",
                member.log()
            )));
        }
        member.wait_for_exit()?;
        Ok(())
    }

    /// Every member that runs is at the same revision with the same hash.
    ///
    /// # Errors
    /// They differ, or do not answer.
    pub(super) async fn agree(&self) -> Result<(), Error> {
        let leader = self.cluster.leader().await?;
        let revision = self
            .cluster
            .kv(leader)
            .revision(false)
            .await
            .map_err(said)?;
        self.cluster.agreed_hash(revision).await.map(|_| ())
    }
}
