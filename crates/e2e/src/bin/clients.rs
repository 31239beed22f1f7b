//! Clients that were written by others talk to a binary; see `e2e::clients`.

use std::process::ExitCode;

use cli::arguments::{self, Arguments};
use e2e::Error;
use e2e::clients::{self, CLIENTS, Plan};

const USAGE: &str = "usage: clients --bin ETCD [--proxy ETCD] [--work DIR] [--install-only]
               [--only PART_OF_A_NAME]... [--skip PART_OF_A_NAME]...
  installs the clients below DIR (by default target/clients) and lets each hold its conversation
  with the server, or through the gRPC proxy of the other binary; clients --list names them";

fn main() -> ExitCode {
    let mut words = Arguments::of_process(USAGE);
    arguments::exit("clients", run(&mut words))
}

fn run(words: &mut Arguments) -> Result<(), Error> {
    if words.switch("--list") {
        words.finish()?;
        for client in &CLIENTS {
            println!("{:<14} {}", client.name, client.what);
        }
        return Ok(());
    }
    let install_only = words.switch("--install-only");
    let plan = Plan {
        binary: match install_only {
            true => words.path("--bin")?.unwrap_or_default(),
            false => words.need("--bin")?,
        },
        proxy: words.path("--proxy")?,
        only: words.values("--only")?,
        skip: words.values("--skip")?,
        work: words
            .path("--work")?
            .unwrap_or_else(|| "target/clients".into()),
        install_only,
    };
    words.finish()?;
    clients::run(&plan)
}
