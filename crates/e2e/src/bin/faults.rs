//! Clusters of real members under load, killed, stopped, cut apart and slowed down.

use std::process::ExitCode;

use cli::arguments::{self, Arguments};
use e2e::Error;
use e2e::faults::{self, Plan, SCENARIOS};

const USAGE: &str = "usage: faults --bin ETCD [options]
  --reference GO  each scenario on this one first
  --stalling ETCD a build with the feature stall-syncs, for the scenarios of stalling disks
  --only PART     scenarios with that in their name; may be given again
  --short         those that are fit for every change
  --list          their names
  --seconds N     how long a fault lasts (4)
  --kills N       kills of the leader in the scenarios of failover (20)
  --seed N        of the load";

#[tokio::main]
async fn main() -> ExitCode {
    let mut words = Arguments::of_process(USAGE);
    arguments::exit("faults", run(&mut words).await)
}

async fn run(words: &mut Arguments) -> Result<(), Error> {
    if words.switch("--list") {
        words.finish()?;
        for scenario in SCENARIOS {
            println!("{}", scenario.name);
        }
        return Ok(());
    }
    let plan = Plan {
        binary: words.need("--bin")?,
        reference: words.path("--reference")?,
        stalling: words.path("--stalling")?,
        only: words.values("--only")?,
        kills: words.number("--kills", 20)?.max(1) as usize,
        short: words.switch("--short"),
        seconds: words.number("--seconds", 4)?,
        seed: words.number("--seed", u64::from(std::process::id()))?,
    };
    words.finish()?;
    println!("seed {}", plan.seed);
    faults::run(&plan).await
}
