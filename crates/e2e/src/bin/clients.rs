//! Clients that were written by others talk to a binary; see `e2e::clients`.

use std::path::PathBuf;
use std::process::ExitCode;

use e2e::Error;
use e2e::clients::{self, CLIENTS, Plan};

const USAGE: &str = "usage: clients --bin ETCD [--work DIR] [--install-only]
               [--only PART_OF_A_NAME]... [--skip PART_OF_A_NAME]...
  installs the clients below DIR (by default target/clients) and lets each hold its conversation
  with the server; clients --list names them";

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if words == ["--list"] {
        for client in &CLIENTS {
            println!("{:<14} {}", client.name, client.what);
        }
        return ExitCode::SUCCESS;
    }
    match plan(&words).and_then(|plan| clients::run(&plan)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("clients: {error}");
            ExitCode::FAILURE
        }
    }
}

fn plan(words: &[String]) -> Result<Plan, Error> {
    let mut plan = Plan {
        binary: PathBuf::new(),
        only: Vec::new(),
        skip: Vec::new(),
        work: "target/clients".into(),
        install_only: false,
    };
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let mut value = || {
            let value = words.next().cloned();
            value.ok_or_else(|| Error(format!("{word} needs a value\n{USAGE}")))
        };
        match word.as_str() {
            "--bin" => plan.binary = value()?.into(),
            "--only" => plan.only.push(value()?),
            "--skip" => plan.skip.push(value()?),
            "--work" => plan.work = value()?.into(),
            "--install-only" => plan.install_only = true,
            _ => return Err(Error(format!("{word} is not known\n{USAGE}"))),
        }
    }
    if plan.binary.as_os_str().is_empty() && !plan.install_only {
        return Err(Error(format!("--bin is required\n{USAGE}")));
    }
    Ok(plan)
}
