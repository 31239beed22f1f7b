//! Stories with real data against a binary; see `cargo xtask acceptance`.

use std::path::PathBuf;
use std::process::ExitCode;

use cli::arguments::{self, Arguments};
use e2e::Error;
use e2e::acceptance::{
    self, FleetPlan, KubernetesPlan, Plan, Programs, SeedPlan, SnapshotsPlan, SpacePlan,
    WritersPlan,
};

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
  snapshots  saved of three members under writes, restored by every etcdutl for every server
            [--etcdctl ETCDCTL] [--etcdutl ETCDUTL] [--writes N] [--seed N]
            [--reference GO_ETCD [--reference-etcdctl ETCDCTL] [--reference-etcdutl ETCDUTL]
            [--other-etcdutl ETCDUTL]...]
  kubernetes  three API servers store, list and watch as kube-apiserver does; needs Go
            [--seconds N] [--rate PER_SECOND] [--compact-seconds N] [--kill] [--work DIR]
            [--seed N]
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
            let plan = space(words)?;
            words.finish()?;
            acceptance::space(&plan).await
        }
        "snapshots" => {
            let plan = snapshots(words)?;
            words.finish()?;
            acceptance::snapshots(&plan).await
        }
        "kubernetes" => {
            let plan = kubernetes(words)?;
            words.finish()?;
            acceptance::kubernetes(&plan).await
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
        _ => Err(words.error(&format!("not known: {story}")).into()),
    }
}

fn space(words: &mut Arguments) -> Result<SpacePlan, Error> {
    Ok(SpacePlan {
        binary: words.need("--bin")?,
        megabytes: words.number("--megabytes", 2_000)?,
        puts: words.number("--puts", 2_000)?,
        stall_ms: words.number("--stall-ms", 50)?,
    })
}

/// The server, and the tools that lie beside it under the same version unless they are named.
fn programs(words: &mut Arguments, etcd: PathBuf, prefix: &str) -> Result<Programs, Error> {
    let name = etcd.file_name().unwrap_or_default().to_string_lossy();
    let version = name.strip_prefix("etcd").unwrap_or_default().to_owned();
    let mut tool = |tool: &str| -> Result<PathBuf, Error> {
        let named = words.path(&format!("{prefix}{tool}"))?;
        Ok(named.unwrap_or_else(|| etcd.with_file_name(format!("{tool}{version}"))))
    };
    Ok(Programs {
        etcdctl: tool("etcdctl")?,
        etcdutl: tool("etcdutl")?,
        etcd: etcd.clone(),
    })
}

/// Snapshots; without Go's programs in a short form.
fn snapshots(words: &mut Arguments) -> Result<SnapshotsPlan, Error> {
    let etcd = words.need("--bin")?;
    let reference = match words.path("--reference")? {
        Some(etcd) => Some(programs(words, etcd, "--reference-")?),
        None => None,
    };
    let writes = if reference.is_some() { 10_000 } else { 4_000 };
    Ok(SnapshotsPlan {
        ours: programs(words, etcd, "--")?,
        others: match reference {
            Some(_) => words.values("--other-etcdutl")?,
            None => Vec::new(),
        }
        .into_iter()
        .map(PathBuf::from)
        .collect(),
        reference,
        writes: words.number("--writes", writes)?,
        seed: seed(words)?,
    })
}

/// The load of API servers; by default for as long as two rounds of their compactors, and in less
/// time with as many rounds as fit.
fn kubernetes(words: &mut Arguments) -> Result<KubernetesPlan, Error> {
    let seconds = words.number("--seconds", 610)?;
    let compact_seconds = if seconds > 600 { 300 } else { seconds / 6 };
    let work = words.path("--work")?;
    Ok(KubernetesPlan {
        binary: words.need("--bin")?,
        work: work.unwrap_or_else(|| "target/clients".into()),
        seconds,
        rate: words.number("--rate", 300)?,
        compact_seconds: words.number("--compact-seconds", compact_seconds.max(1))?,
        kill: words.switch("--kill"),
        seed: seed(words)?,
    })
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
