//! Stories with real data against a binary; see `cargo xtask acceptance`.

use std::path::PathBuf;
use std::process::ExitCode;

use e2e::Error;
use e2e::acceptance::{self, FleetPlan, Plan, SeedPlan, SpacePlan, WritersPlan};
use e2e::arguments::{self, Arguments};

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
    let mut words = Arguments::of_process(USAGE);
    arguments::exit("acceptance", run(&mut words).await)
}

/// The server and the etcdctl that belongs to it.
fn both(words: &mut Arguments) -> Result<(PathBuf, PathBuf), Error> {
    let binary = words.need("--bin")?;
    let beside = || binary.with_file_name("etcdctl");
    let etcdctl = words.path("--etcdctl")?.unwrap_or_else(beside);
    Ok((binary, etcdctl))
}

/// What a story chooses at random follows from it.
fn seed(words: &mut Arguments) -> Result<u64, Error> {
    let seed = words.number("--seed", u64::from(std::process::id()))?;
    println!("seed {seed}");
    Ok(seed)
}

/// The package database.
fn database(words: &mut Arguments) -> Result<PathBuf, Error> {
    let path = words.path("--database")?;
    Ok(path.unwrap_or_else(|| "/var/lib/dpkg".into()))
}

async fn run(words: &mut Arguments) -> Result<(), Error> {
    let story = words.first()?;
    match story.as_str() {
        "dpkg" => {
            let plan = Plan {
                seed: seed(words)?,
                binary: words.need("--bin")?,
                reference: words.path("--reference")?,
                old_ctl: words.path("--etcdctl34")?,
                database: database(words)?,
                kills: words.number("--kills", 5)? as usize,
                clients: words.number("--clients", 64)? as usize,
            };
            words.finish()?;
            acceptance::dpkg(&plan).await
        }
        "writers" => {
            let (binary, etcdctl) = both(words)?;
            let plan = WritersPlan {
                seed: seed(words)?,
                binary,
                etcdctl,
                database: database(words)?,
                kills: words.number("--kills", 2)? as usize,
            };
            words.finish()?;
            acceptance::writers(&plan).await
        }
        "seed" => {
            let (binary, etcdctl) = both(words)?;
            words.finish()?;
            acceptance::seed(&SeedPlan { binary, etcdctl })
        }
        "membership" | "restarts" | "certificates" => under_load(&story, words).await,
        "logins" => {
            let (binary, seconds) = (words.need("--bin")?, words.number("--seconds", 10)?);
            words.finish()?;
            acceptance::logins(&binary, seconds).await
        }
        "space" => {
            let plan = SpacePlan {
                binary: words.need("--bin")?,
                megabytes: words.number("--megabytes", 2_000)?,
                puts: words.number("--puts", 2_000)?,
                stall_ms: words.number("--stall-ms", 50)?,
            };
            words.finish()?;
            acceptance::space(&plan).await
        }
        "adopt" => {
            let (binary, reference) = (words.need("--bin")?, words.need("--reference")?);
            words.finish()?;
            acceptance::adopt(&binary, &reference).await
        }
        "bad" => {
            let (binary, only) = (words.need("--bin")?, words.value("--only")?);
            words.finish()?;
            e2e::bad::run(&binary, &only.unwrap_or_default())
        }
        _ => Err(words.error(&format!("not known: {story}"))),
    }
}

/// What clusters live through.
async fn under_load(story: &str, words: &mut Arguments) -> Result<(), Error> {
    let (binary, etcdctl) = both(words)?;
    let plan = FleetPlan { binary, etcdctl };
    let only = match story {
        "membership" => words.value("--only")?.unwrap_or_default(),
        _ => String::new(),
    };
    words.finish()?;
    match story {
        "membership" => acceptance::membership(&plan, &only).await,
        "restarts" => acceptance::restarts(&plan).await,
        _ => acceptance::certificates(&plan).await,
    }
}
