//! Walks etcd's interface on running programs and reports what they lack.

use std::path::PathBuf;
use std::process::ExitCode;

use e2e::Error;
use e2e::walk::{self, Plan};

const USAGE: &str = "usage: walk --bin ETCD [--etcdctl ETCDCTL] [--etcdutl ETCDUTL]
            [--declared docs/compatibility.md]
  The tools are looked for beside the server. Without --declared, as for Go's etcd, nothing may
  be missing.";

#[tokio::main]
async fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match run(&words).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("walk: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(words: &[String]) -> Result<(), Error> {
    let path = |name: &str| {
        let at = words.iter().position(|word| word == name)?;
        words.get(at + 1).map(PathBuf::from)
    };
    let etcd = path("--bin").ok_or_else(|| Error(USAGE.into()))?;
    walk::run(&Plan {
        etcdctl: path("--etcdctl").unwrap_or_else(|| etcd.with_file_name("etcdctl")),
        etcdutl: path("--etcdutl").unwrap_or_else(|| etcd.with_file_name("etcdutl")),
        declared: path("--declared"),
        etcd,
    })
    .await
}
