//! The load of a Kubernetes control plane on three members, by Go's client: `clients/go/kubernetes`
//! plays the API servers and judges what they were told, and the members must agree in the end.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::clients::{Program, go_program};
use crate::kv::said;
use crate::{Cluster, Error};

/// As kubeadm starts etcd.
const FLAGS: [&str; 3] = [
    "--watch-progress-notify-interval=5s",
    "--snapshot-count=10000",
    "--feature-gates=InitialCorruptCheck=true",
];
/// The program's own start, and what it does when the load is over.
const MORE: Duration = Duration::from_secs(120);
/// How long a killed leader stays away.
const AWAY: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(50);

/// What the story needs.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The server under test.
    pub binary: PathBuf,
    /// Where the load's program is built.
    pub work: PathBuf,
    /// How long the load goes on.
    pub seconds: u64,
    /// Steps of the controllers that are offered in a second.
    pub rate: u64,
    /// Between compactions.
    pub compact_seconds: u64,
    /// Whether the leader is killed at half-time.
    pub kill: bool,
    /// What is chosen at random follows from it.
    pub seed: u64,
}

impl Plan {
    /// How long events are kept, and a lease is given to new ones: less in a short run, so that
    /// they end within it.
    fn event_seconds(&self) -> (u64, u64) {
        let kept = (self.seconds / 6).clamp(2, 120);
        (kept, (kept / 2).clamp(1, 60))
    }
}

/// Builds the program, starts three members, and lets it load them.
///
/// # Errors
/// The first thing that is wrong.
pub async fn run(plan: &Plan) -> Result<(), Error> {
    let program = go_program(&plan.work.join("kubernetes"), "kubernetes", "./kubernetes")?;
    let mut cluster = Cluster::start(vec![Some(plan.binary.clone()); 3], &FLAGS)?;
    let outcome = load(plan, &program, &mut cluster).await;
    if outcome.is_err() {
        for member in cluster.members() {
            eprint!("{}", member.log());
        }
    }
    outcome?;
    let leader = cluster.leader().await?;
    let revision = cluster.kv(leader).revision(false).await.map_err(said)?;
    let hash = cluster.agreed_hash(revision).await?;
    if hash.compact_revision <= 0 {
        return Err(Error("nothing was compacted".into()));
    }
    println!(
        "all members have hash {} at revision {revision}, compacted at {}",
        hash.hash, hash.compact_revision
    );
    Ok(())
}

async fn load(plan: &Plan, program: &PathBuf, cluster: &mut Cluster) -> Result<(), Error> {
    let members = cluster.members().iter();
    let endpoints: Vec<String> = members
        .map(|member| format!("http://{}", member.address()))
        .collect();
    let (kept, reused) = plan.event_seconds();
    let child = Command::new(program)
        .arg(format!("-endpoints={}", endpoints.join(",")))
        .arg(format!("-duration={}s", plan.seconds))
        .arg(format!("-rate={}", plan.rate))
        .arg(format!("-compaction={}s", plan.compact_seconds))
        .arg(format!("-event-ttl={kept}s"))
        .arg(format!("-lease-reuse={reused}s"))
        .arg(format!("-faults={}", plan.kill))
        .arg(format!("-seed={}", plan.seed))
        .stdin(Stdio::null())
        .spawn()
        .map_err(|error| Error(format!("{}: {error}", program.display())))?;
    let mut running = Program(child);
    let began = Instant::now();
    let seconds = Duration::from_secs(plan.seconds);
    let mut kills = plan.kill;
    loop {
        if let Some(status) = running.0.try_wait()? {
            return match status.success() {
                // A run that ends before its kill has shown nothing.
                true if !kills => Ok(()),
                _ => Err(Error(format!("the load ended with {status}"))),
            };
        }
        if kills && began.elapsed() > seconds / 2 {
            kills = false;
            let leader = cluster.leader().await?;
            cluster.member(leader).kill()?;
            println!("m{leader}, the leader, is killed");
            tokio::time::sleep(AWAY).await;
            cluster.member(leader).restart()?;
            println!("m{leader} is back");
        }
        if began.elapsed() > seconds + MORE {
            return Err(Error("the load does not end".into()));
        }
        tokio::time::sleep(PAUSE).await;
    }
}
