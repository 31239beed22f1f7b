//! Stories with real data against a binary; see `cargo xtask acceptance`.

use std::path::PathBuf;
use std::process::ExitCode;

use e2e::Error;
use e2e::acceptance::{self, FleetPlan, Plan, SeedPlan, WritersPlan};

const USAGE: &str = "usage: acceptance <story> --bin ETCD [options]
  dpkg    load the package database, kill, change, hand over to Go etcd
            [--reference GO_ETCD] [--etcdctl34 ETCDCTL] [--database DIR]
            [--kills N] [--clients N] [--seed N]
  writers load it by etcdctl, JSON and gRPC at once, watched by all three, under leases
            [--etcdctl ETCDCTL] [--database DIR] [--kills N] [--seed N]
  adopt   open directories that Go etcd wrote
            --reference GO_ETCD
  seed    the first deployment: three machines made of namespaces, mutual TLS; needs root
            [--etcdctl ETCDCTL]
  membership  members come and go under load, by etcdctl
            [--etcdctl ETCDCTL] [--only grow|wipe|refuse|two]
  restarts    members restart under load, one by one and all at once
            [--etcdctl ETCDCTL]
  bad     hostile bytes, bad directories, damaged files
            [--only PART_OF_A_NAME]";

#[tokio::main]
async fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match run(&words).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("acceptance: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(words: &[String]) -> Result<(), Error> {
    let Some((story, options)) = words.split_first() else {
        return Err(Error(USAGE.into()));
    };
    let value = |name: &str| {
        let at = options.iter().position(|word| word == name)?;
        options.get(at + 1).cloned()
    };
    let path = |name: &str| value(name).map(PathBuf::from);
    let number = |name: &str, default: u64| match value(name) {
        Some(text) => text
            .parse()
            .map_err(|_| Error(format!("{name} {text} is no number"))),
        None => Ok(default),
    };
    let need = |name: &str| path(name).ok_or_else(|| Error(format!("{name} is required\n{USAGE}")));
    let both = || {
        let binary = need("--bin")?;
        let beside = || binary.with_file_name("etcdctl");
        let etcdctl = path("--etcdctl").unwrap_or_else(beside);
        Ok::<_, Error>((binary, etcdctl))
    };
    match story.as_str() {
        "dpkg" => {
            let seed = number("--seed", u64::from(std::process::id()))?;
            println!("seed {seed}");
            let plan = Plan {
                binary: need("--bin")?,
                reference: path("--reference"),
                old_ctl: path("--etcdctl34"),
                database: path("--database").unwrap_or_else(|| "/var/lib/dpkg".into()),
                kills: number("--kills", 5)? as usize,
                clients: number("--clients", 64)? as usize,
                seed,
            };
            acceptance::dpkg(&plan).await
        }
        "writers" => {
            let seed = number("--seed", u64::from(std::process::id()))?;
            println!("seed {seed}");
            let (binary, etcdctl) = both()?;
            let plan = WritersPlan {
                etcdctl,
                binary,
                database: path("--database").unwrap_or_else(|| "/var/lib/dpkg".into()),
                kills: number("--kills", 2)? as usize,
                seed,
            };
            acceptance::writers(&plan).await
        }
        "seed" => {
            let (binary, etcdctl) = both()?;
            acceptance::seed(&SeedPlan { binary, etcdctl })
        }
        "membership" => {
            let (binary, etcdctl) = both()?;
            let only = value("--only").unwrap_or_default();
            acceptance::membership(&FleetPlan { binary, etcdctl }, &only).await
        }
        "restarts" => {
            let (binary, etcdctl) = both()?;
            acceptance::restarts(&FleetPlan { binary, etcdctl }).await
        }
        "adopt" => acceptance::adopt(&need("--bin")?, &need("--reference")?).await,
        "bad" => e2e::bad::run(&need("--bin")?, &value("--only").unwrap_or_default()),
        _ => Err(Error(USAGE.into())),
    }
}
