//! Commands for the people who work on this repository: `cargo xtask <command>`.

mod bench;
mod codegen;
mod package;
mod reference;
mod tidy;

use std::process::ExitCode;

pub(crate) const USAGE: &str = "usage: cargo xtask <command>
  acceptance STORY --bin BINARY …
                                 stories with real data; no STORY lists them
  bench --ours BINARY --reference BINARY [--members N] [--rounds N] [--seconds N]
        [--rows NAME,…] [--quick] [--dir DIR] [--json FILE] [--markdown FILE]
                                 compare two servers under the same load
  codegen                        generate the message types from crates/api/proto
  package [--arch amd64|arm64] [--out DIR] [--bin-dir DIR]
                                 a release archive and a Debian package
  reference --out DIR            build Go etcd's binaries to compare with
  tidy                           check the house rules";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (command, rest) = match arguments.split_first() {
        Some((command, rest)) => (command.as_str(), rest),
        None => ("", &[][..]),
    };
    let outcome = match command {
        "acceptance" => acceptance(rest),
        "bench" => bench::run(rest),
        "codegen" => codegen::run(),
        "package" => package::run(rest),
        "reference" => reference::run(rest),
        "tidy" => tidy::run(rest),
        _ => Err(USAGE.into()),
    };
    cli::arguments::exit("xtask", outcome)
}

/// Runs the stories of `e2e`, which needs an async runtime that this crate does without.
fn acceptance(arguments: &[String]) -> Result<(), Box<dyn std::error::Error>> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let status = std::process::Command::new(cargo)
        .args([
            "run",
            "--quiet",
            "--release",
            "--package",
            "e2e",
            "--bin",
            "acceptance",
            "--",
        ])
        .args(arguments)
        .status()?;
    if status.success() {
        Ok(())
    } else {
        Err("the story went wrong".into())
    }
}
