//! Faults on clusters of real members under a steady load, and what must hold in spite of them.
//!
//! A [`Scenario`] starts three or five members, lets sessions, watchers and holders of leases work
//! at every endpoint, does what its name says, heals everything, and then judges what was recorded:
//! see [`check`]. It passes on Go's etcd first.

pub mod check;
pub mod failover;
pub mod history;
mod leases;
pub mod linear;
mod links;
mod load;
mod namespaces;
mod play;
mod stage;
pub mod watchers;

use std::path::{Path, PathBuf};
use std::time::Instant;

pub use play::{SCENARIOS, Scenario};

use crate::Error;

/// What to run, and on what.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The server.
    pub binary: PathBuf,
    /// A Go etcd on which every scenario must pass first.
    pub reference: Option<PathBuf>,
    /// The server built with the feature `stall-syncs`, for the scenarios that need it.
    pub stalling: Option<PathBuf>,
    /// Parts of the names of the scenarios to run; all when empty.
    pub only: Vec<String>,
    /// Those alone that are fit for every change.
    pub short: bool,
    /// How long a fault lasts, in seconds.
    pub seconds: u64,
    /// Kills of the leader for the figures of failover.
    pub kills: usize,
    pub seed: u64,
}

/// Runs scenarios one after the other and prints a line for each.
///
/// # Errors
/// Tells which scenarios failed; the reasons were printed. Or none ran.
pub async fn run(plan: &Plan) -> Result<(), Error> {
    let is_named = |scenario: &Scenario| {
        plan.only.is_empty() || plan.only.iter().any(|part| scenario.name.contains(part))
    };
    let (mut failed, mut count) = (Vec::new(), 0);
    for scenario in SCENARIOS {
        if !is_named(scenario) || (plan.short && !scenario.short) {
            continue;
        }
        let binaries = match (scenario.needs_stalls(), &plan.stalling) {
            (true, None) => {
                println!("none {:<22} needs a server that stalls", scenario.name);
                continue;
            }
            (true, Some(stalling)) => vec![("ours", stalling)],
            (false, _) => {
                let reference = plan.reference.iter().map(|binary| ("Go's", binary));
                reference.chain([("ours", &plan.binary)]).collect()
            }
        };
        count += 1;
        for (whose, binary) in binaries {
            if !play_one(plan, scenario, whose, binary).await {
                failed.push(format!("{} ({whose})", scenario.name));
                break;
            }
        }
    }
    match (count, failed.is_empty()) {
        (0, _) => Err(Error(
            "nothing ran: no scenario has such a name, or all that do need --stalling".into(),
        )),
        (_, true) => Ok(()),
        _ => Err(Error(format!("failed: {}", failed.join(", ")))),
    }
}

/// Plays a scenario on a binary and prints how it went.
async fn play_one(plan: &Plan, scenario: &Scenario, whose: &str, binary: &Path) -> bool {
    let begin = Instant::now();
    let outcome = play::run(plan, binary, scenario).await;
    let seconds = begin.elapsed().as_secs_f64();
    let name = scenario.name;
    match &outcome {
        Ok(report) => println!("ok   {name:<22} {whose} {seconds:5.1} s  {report}"),
        Err(error) => println!("FAIL {name:<22} {whose} {seconds:5.1} s\n{error}"),
    }
    outcome.is_ok()
}
