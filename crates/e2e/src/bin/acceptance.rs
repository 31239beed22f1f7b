//! Stories with real data against a binary; see `cargo xtask acceptance`.

use std::path::PathBuf;
use std::process::ExitCode;

use e2e::Error;
use e2e::acceptance::{self, FleetPlan, Plan, SeedPlan, SpacePlan, WritersPlan};

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
            [--etcdctl ETCDCTL] [--only grow|wipe|update|refuse|two]
  restarts    members restart under load, one by one and all at once
            [--etcdctl ETCDCTL]
  certificates  certificates, revocations and authorities change under load
  logins  puts beside a hundred logins a second
            [--seconds N]
  space   a large database is compacted and defragmented under load
            [--megabytes N] [--puts PER_SECOND] [--stall-ms N, 0 only reports]
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

/// The words behind the story's name.
struct Options<'a>(&'a [String]);

impl Options<'_> {
    fn value(&self, name: &str) -> Option<String> {
        let at = self.0.iter().position(|word| word == name)?;
        self.0.get(at + 1).cloned()
    }

    fn path(&self, name: &str) -> Option<PathBuf> {
        self.value(name).map(PathBuf::from)
    }

    fn number(&self, name: &str, default: u64) -> Result<u64, Error> {
        match self.value(name) {
            Some(text) => text
                .parse()
                .map_err(|_| Error(format!("{name} {text} is no number"))),
            None => Ok(default),
        }
    }

    fn need(&self, name: &str) -> Result<PathBuf, Error> {
        self.path(name)
            .ok_or_else(|| Error(format!("{name} is required\n{USAGE}")))
    }

    /// The server and the etcdctl that belongs to it.
    fn both(&self) -> Result<(PathBuf, PathBuf), Error> {
        let binary = self.need("--bin")?;
        let beside = || binary.with_file_name("etcdctl");
        let etcdctl = self.path("--etcdctl").unwrap_or_else(beside);
        Ok((binary, etcdctl))
    }
}

async fn run(words: &[String]) -> Result<(), Error> {
    let Some((story, options)) = words.split_first() else {
        return Err(Error(USAGE.into()));
    };
    let options = Options(options);
    match story.as_str() {
        "dpkg" => {
            let seed = options.number("--seed", u64::from(std::process::id()))?;
            println!("seed {seed}");
            let plan = Plan {
                binary: options.need("--bin")?,
                reference: options.path("--reference"),
                old_ctl: options.path("--etcdctl34"),
                database: options
                    .path("--database")
                    .unwrap_or_else(|| "/var/lib/dpkg".into()),
                kills: options.number("--kills", 5)? as usize,
                clients: options.number("--clients", 64)? as usize,
                seed,
            };
            acceptance::dpkg(&plan).await
        }
        "writers" => {
            let seed = options.number("--seed", u64::from(std::process::id()))?;
            println!("seed {seed}");
            let (binary, etcdctl) = options.both()?;
            let plan = WritersPlan {
                etcdctl,
                binary,
                database: options
                    .path("--database")
                    .unwrap_or_else(|| "/var/lib/dpkg".into()),
                kills: options.number("--kills", 2)? as usize,
                seed,
            };
            acceptance::writers(&plan).await
        }
        "seed" => {
            let (binary, etcdctl) = options.both()?;
            acceptance::seed(&SeedPlan { binary, etcdctl })
        }
        "membership" | "restarts" | "certificates" => under_load(story, &options).await,
        "logins" => {
            let seconds = options.number("--seconds", 10)?;
            acceptance::logins(&options.need("--bin")?, seconds).await
        }
        "space" => {
            let plan = SpacePlan {
                binary: options.need("--bin")?,
                megabytes: options.number("--megabytes", 2_000)?,
                puts: options.number("--puts", 2_000)?,
                stall_ms: options.number("--stall-ms", 50)?,
            };
            acceptance::space(&plan).await
        }
        "adopt" => acceptance::adopt(&options.need("--bin")?, &options.need("--reference")?).await,
        "bad" => e2e::bad::run(
            &options.need("--bin")?,
            &options.value("--only").unwrap_or_default(),
        ),
        _ => Err(Error(USAGE.into())),
    }
}

/// What clusters live through.
async fn under_load(story: &str, options: &Options<'_>) -> Result<(), Error> {
    let (binary, etcdctl) = options.both()?;
    let plan = FleetPlan { binary, etcdctl };
    match story {
        "membership" => {
            let only = options.value("--only").unwrap_or_default();
            acceptance::membership(&plan, &only).await
        }
        "restarts" => acceptance::restarts(&plan).await,
        _ => acceptance::certificates(&plan).await,
    }
}
