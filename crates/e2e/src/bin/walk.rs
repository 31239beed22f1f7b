//! Walks etcd's interface on running programs and reports what they lack.

use std::process::ExitCode;

use cli::arguments::{self, Arguments};
use e2e::Error;
use e2e::walk::{self, Plan};

const USAGE: &str = "usage: walk --bin ETCD [--etcdctl ETCDCTL] [--etcdutl ETCDUTL]
            [--declared docs/compatibility.md]
  The tools are looked for beside the server. Without --declared, as for Go's etcd, nothing may
  be missing.";

#[tokio::main]
async fn main() -> ExitCode {
    let mut words = Arguments::of_process(USAGE);
    arguments::exit("walk", run(&mut words).await)
}

async fn run(words: &mut Arguments) -> Result<(), Error> {
    let etcd = words.need("--bin")?;
    let beside = |name: &str| etcd.with_file_name(name);
    let plan = Plan {
        etcdctl: words
            .path("--etcdctl")?
            .unwrap_or_else(|| beside("etcdctl")),
        etcdutl: words
            .path("--etcdutl")?
            .unwrap_or_else(|| beside("etcdutl")),
        declared: words.path("--declared")?,
        etcd,
    };
    words.finish()?;
    walk::run(&plan).await
}
