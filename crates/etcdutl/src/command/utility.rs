//! version, help, completion.

use super::{Call, Command};
use crate::exit::Outcome;

pub(super) const VERSION: Command = Command {
    name: "version",
    short: "Prints the version of etcdutl",
    run: Some(version),
    ..Command::EMPTY
};

pub(super) const HELP: Command = Command {
    name: "help",
    usage: "[command]",
    short: "Explains a command",
    run: Some(help),
    ..Command::EMPTY
};

pub(super) const COMPLETION: Command = Command {
    name: "completion",
    usage: "[bash|zsh|fish|powershell]",
    short: "Prints a script that completes commands in a shell",
    long: "\
Prints a script that completes commands and flags in a shell.

To use it in the running shell:

  bash:        source <(etcdutl completion bash)
  zsh:         source <(etcdutl completion zsh)
  fish:        etcdutl completion fish | source
  PowerShell:  etcdutl completion powershell | Out-String | Invoke-Expression

To use it in every shell, write it where the shell looks for completions, for example:

  etcdutl completion bash > /etc/bash_completion.d/etcdutl
  etcdutl completion zsh > \"${fpath[1]}/_etcdutl\"
  etcdutl completion fish > ~/.config/fish/completions/etcdutl.fish
",
    run: Some(complete),
    ..Command::EMPTY
};

/// Packages are made with it.
pub(super) const MANUAL: Command = Command {
    name: "manual",
    usage: "<directory>",
    short: "Writes the pages of the manual",
    is_hidden: true,
    run: Some(manual),
    ..Command::EMPTY
};

fn version(_call: Call) -> Outcome {
    let release = api::version::SERVER;
    let level = release.rsplit_once('.').map_or(release, |(level, _)| level);
    cli::out::text(&format!(
        "etcdutl version: {release}\nAPI version: {level}\n"
    ));
    Ok(())
}

fn help(call: Call) -> Outcome {
    cli::explain(&call);
    Ok(())
}

fn complete(call: Call) -> Outcome {
    Ok(cli::complete(&call)?)
}

fn manual(call: Call) -> Outcome {
    Ok(cli::write_manual(&call, 1)?)
}
