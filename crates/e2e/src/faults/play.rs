//! The scenarios: what is broken, and what must go on meanwhile.

use std::path::Path;
use std::time::Duration;

use super::stage::{ELECTION, LIMIT, Network, Report, Stage};
use super::{Plan, failover};
use crate::Error;

mod disk;
mod partition;
mod process;

/// A fault under load, on a cluster of its own.
pub struct Scenario {
    pub name: &'static str,
    members: usize,
    network: Network,
    fault: Fault,
    /// Whether it belongs to the short form.
    pub(super) short: bool,
}

/// Whose part a member plays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Leader,
    Follower,
}

#[derive(Debug, Clone, Copy)]
enum Fault {
    /// So many, the leader among them; a majority is left.
    Kill(usize),
    KillFollower,
    /// So many, the leader among them, until no majority is left.
    KillMajority(usize),
    /// SIGSTOP for longer than an election.
    Pause(Role),
    PauseMajority,
    /// The leader and so many less one on one side, the others on the other.
    Part(usize),
    /// A follower from all others.
    PartFollower,
    /// Nothing reaches it.
    Deaf(Role),
    /// Nothing that it says arrives.
    Mute(Role),
    /// The leader's links come and go.
    Flap,
    /// Two halves that see each other through one member only, which plays that part.
    Bridge(Role),
    Delay(Duration),
    /// All connections between members break again and again.
    Reset,
    /// Its disk syncs nothing for so long.
    Stall(Role, Duration),
    StallAll(Duration),
    /// The leader dies again and again, and nobody may be without one for long.
    Failover,
}

const fn of(name: &'static str, members: usize, network: Network, fault: Fault) -> Scenario {
    Scenario {
        name,
        members,
        network,
        fault,
        short: false,
    }
}

impl Scenario {
    const fn short(mut self) -> Scenario {
        self.short = true;
        self
    }

    pub(super) fn needs_stalls(&self) -> bool {
        matches!(self.fault, Fault::Stall(..) | Fault::StallAll(_))
    }
}

const SECOND: Duration = Duration::from_secs(1);
const LONG: Duration = Duration::from_secs(4);

use Fault::{
    Bridge, Deaf, Delay, Failover, Flap, Kill, KillFollower, KillMajority, Mute, Part,
    PartFollower, Pause, PauseMajority, Reset, Stall, StallAll,
};
use Network::{Direct, Links, Namespaces, SecureLinks};
use Role::{Follower, Leader};

/// All of them, in the order in which they run.
pub const SCENARIOS: &[Scenario] = &[
    of("kill-leader-3", 3, Direct, Kill(1)).short(),
    of("kill-leader-5", 5, Direct, Kill(1)),
    of("kill-follower-3", 3, Direct, KillFollower),
    of("kill-follower-5", 5, Direct, KillFollower),
    of("kill-two-of-3", 3, Direct, KillMajority(2)).short(),
    of("kill-two-of-5", 5, Direct, Kill(2)),
    of("kill-three-of-5", 5, Direct, KillMajority(3)),
    of("pause-leader-3", 3, Direct, Pause(Leader)).short(),
    of("pause-leader-5", 5, Direct, Pause(Leader)),
    of("pause-follower-3", 3, Direct, Pause(Follower)),
    of("pause-two-of-3", 3, Direct, PauseMajority),
    of("part-leader-3", 3, Links, Part(1)).short(),
    of("part-leader-5", 5, Links, Part(1)),
    of("part-two-of-5", 5, Links, Part(2)).short(),
    of("part-follower-3", 3, Links, PartFollower).short(),
    of("part-follower-5", 5, Links, PartFollower),
    of("deaf-leader-3", 3, Links, Deaf(Leader)),
    of("deaf-leader-5", 5, Links, Deaf(Leader)),
    of("deaf-follower-3", 3, Links, Deaf(Follower)),
    of("mute-leader-3", 3, Links, Mute(Leader)).short(),
    of("mute-leader-5", 5, Links, Mute(Leader)),
    of("mute-follower-3", 3, Links, Mute(Follower)),
    of("flap-leader-3", 3, Links, Flap),
    of("flap-leader-5", 5, Links, Flap),
    of("bridge-follower-3", 3, Links, Bridge(Follower)),
    of("bridge-leader-3", 3, Links, Bridge(Leader)),
    of("bridge-follower-5", 5, Links, Bridge(Follower)),
    of("bridge-leader-5", 5, Links, Bridge(Leader)),
    of("delay-3", 3, Links, Delay(Duration::from_millis(200))),
    of("delay-5", 5, Links, Delay(Duration::from_millis(200))),
    of("reset-3", 3, Links, Reset).short(),
    of("reset-5", 5, Links, Reset),
    of("tls-part-leader-3", 3, SecureLinks, Part(1)),
    of("tls-mute-leader-3", 3, SecureLinks, Mute(Leader)),
    of("tls-reset-3", 3, SecureLinks, Reset),
    of("route-part-leader-3", 3, Namespaces, Part(1)),
    of("route-part-two-of-5", 5, Namespaces, Part(2)),
    of("route-part-follower-3", 3, Namespaces, PartFollower),
    of("route-mute-leader-3", 3, Namespaces, Mute(Leader)),
    of("route-flap-leader-3", 3, Namespaces, Flap),
    of("route-bridge-follower-5", 5, Namespaces, Bridge(Follower)),
    of("stall-leader-1s", 3, Direct, Stall(Leader, SECOND)),
    of("stall-leader-4s", 3, Direct, Stall(Leader, LONG)),
    of("stall-follower-1s", 3, Direct, Stall(Follower, SECOND)),
    of("stall-follower-4s", 3, Direct, Stall(Follower, LONG)),
    of("stall-all-1s", 3, Direct, StallAll(SECOND)),
    of("stall-all-4s", 3, Direct, StallAll(LONG)),
    of("failover-3", 3, Direct, Failover),
    of("failover-5", 5, Direct, Failover),
];

/// Runs one scenario.
///
/// # Errors
/// What was not as it must be.
pub(super) async fn run(plan: &Plan, binary: &Path, scenario: &Scenario) -> Result<Report, Error> {
    let mut stage = Stage::start(plan, binary, scenario.members, scenario.network).await?;
    let notes = act(&mut stage, scenario.fault, plan.kills).await?;
    let mut report = stage.end().await?;
    report.notes = notes;
    Ok(report)
}

async fn act(stage: &mut Stage, fault: Fault, kills: usize) -> Result<Vec<String>, Error> {
    let note = match fault {
        Kill(count) => {
            let victims = leader_and_others(stage, count).await?;
            process::kill(stage, &victims).await
        }
        KillFollower => process::kill_follower(stage).await,
        KillMajority(count) => process::kill_majority(stage, count).await,
        Pause(Leader) => process::pause_leader(stage).await,
        Pause(Follower) => process::pause_follower(stage).await,
        PauseMajority => process::pause_majority(stage).await,
        Part(count) => partition::part(stage, count).await,
        PartFollower => partition::part_follower(stage).await,
        Deaf(role) => partition::deaf(stage, role).await,
        Mute(role) => partition::mute(stage, role).await,
        Flap => partition::flap(stage).await,
        Bridge(role) => partition::bridge(stage, role).await,
        Delay(delay) => partition::delay(stage, delay).await,
        Reset => partition::reset(stage).await,
        Stall(role, during) => {
            let victim = one(stage, role).await?;
            disk::stall(stage, &[victim], during).await
        }
        StallAll(during) => disk::stall(stage, &stage.all(), during).await,
        Failover => failover::run(stage, kills).await,
    };
    Ok(vec![note?])
}

/// A member that plays the part.
async fn one(stage: &Stage, role: Role) -> Result<usize, Error> {
    let leader = stage.leader().await?;
    match role {
        Leader => Ok(leader),
        Follower => Ok(stage.others(&[leader])[0]),
    }
}

/// The leader and as many others as make that many together.
async fn leader_and_others(stage: &Stage, count: usize) -> Result<Vec<usize>, Error> {
    let leader = stage.leader().await?;
    let mut victims = vec![leader];
    victims.extend(stage.others(&[leader]).into_iter().take(count - 1));
    Ok(victims)
}

/// The time and the term in which a fault begins that may disturb nobody but its victim.
struct Calm {
    others: Vec<usize>,
    leader: usize,
    from: u64,
    term: u64,
}

impl Calm {
    async fn before(stage: &Stage, others: Vec<usize>) -> Result<Calm, Error> {
        let leader = stage.leader().await?;
        Ok(Calm {
            from: stage.now(),
            term: stage.term(leader).await?,
            others,
            leader,
        })
    }

    /// Nobody else was disturbed: the term did not rise, and through the others writes went on
    /// without a gap of an election timeout.
    async fn after(&self, stage: &Stage) -> Result<String, Error> {
        let term = stage.term(self.leader).await?;
        let gap = stage.longest_gap(self.from, &self.others);
        let text = format!("longest gap of the others {} ms", gap.as_millis());
        if term != self.term {
            return Err(Error(format!("the term rose from {} to {term}", self.term)));
        }
        match gap < ELECTION {
            true => Ok(text),
            false => Err(Error(text)),
        }
    }
}
