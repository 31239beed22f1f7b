//! Stories with real data against a binary; see `cargo xtask acceptance`.

use std::path::PathBuf;
use std::process::ExitCode;

use e2e::Error;
use e2e::acceptance::{self, Plan, WritersPlan};

const USAGE: &str = "usage: acceptance <story> --bin ETCD [options]
  dpkg    load the package database, kill, change, hand over to Go etcd
            [--reference GO_ETCD] [--etcdctl34 ETCDCTL] [--database DIR]
            [--kills N] [--clients N] [--seed N]
  writers load it by etcdctl, JSON and gRPC at once, watched by all three, under leases
            [--etcdctl ETCDCTL] [--database DIR] [--kills N] [--seed N]
  adopt   open directories that Go etcd wrote
            --reference GO_ETCD
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
            let binary = need("--bin")?;
            let plan = WritersPlan {
                etcdctl: path("--etcdctl").unwrap_or_else(|| binary.with_file_name("etcdctl")),
                binary,
                database: path("--database").unwrap_or_else(|| "/var/lib/dpkg".into()),
                kills: number("--kills", 2)? as usize,
                seed,
            };
            acceptance::writers(&plan).await
        }
        "adopt" => acceptance::adopt(&need("--bin")?, &need("--reference")?).await,
        "bad" => e2e::bad::run(&need("--bin")?, &value("--only").unwrap_or_default()),
        _ => Err(Error(USAGE.into())),
    }
}
