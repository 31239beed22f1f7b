//! Clusters of real members under load, killed, stopped, cut apart and slowed down.

use std::path::PathBuf;
use std::process::ExitCode;

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
    let words: Vec<String> = std::env::args().skip(1).collect();
    match run(&words).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("faults: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(words: &[String]) -> Result<(), Error> {
    let mut plan = Plan {
        binary: PathBuf::new(),
        reference: None,
        stalling: None,
        only: Vec::new(),
        kills: 20,
        short: false,
        seconds: 4,
        seed: u64::from(std::process::id()),
    };
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let mut value = || {
            let value = words.next();
            value.ok_or_else(|| Error(format!("{word} needs a value\n{USAGE}")))
        };
        match word.as_str() {
            "--bin" => plan.binary = value()?.into(),
            "--reference" => plan.reference = Some(value()?.into()),
            "--stalling" => plan.stalling = Some(value()?.into()),
            "--only" => plan.only.push(value()?.clone()),
            "--kills" => plan.kills = number(value()?)?.max(1) as usize,
            "--short" => plan.short = true,
            "--seconds" => plan.seconds = number(value()?)?,
            "--seed" => plan.seed = number(value()?)?,
            "--list" => {
                for scenario in SCENARIOS {
                    println!("{}", scenario.name);
                }
                return Ok(());
            }
            _ => return Err(Error(USAGE.into())),
        }
    }
    if plan.binary.as_os_str().is_empty() {
        return Err(Error(USAGE.into()));
    }
    println!("seed {}", plan.seed);
    faults::run(&plan).await
}

fn number(text: &str) -> Result<u64, Error> {
    let number = text.parse();
    number.map_err(|_| Error(format!("{text} is no number")))
}
