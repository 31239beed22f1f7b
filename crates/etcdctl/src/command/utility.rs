//! version, options, help, completion.

use cli::help;

use crate::cli::flags::Flag;
use crate::cli::{Call, Command, group};
use crate::exit::Outcome;
use crate::out;

pub(super) const VERSION: Command = Command {
    name: "version",
    short: "Prints the version of etcdctl",
    group: group::UTILITY,
    run: Some(|call| Box::pin(version(call))),
    ..Command::EMPTY
};

pub(super) const OPTIONS: Command = Command {
    name: "options",
    short: "Lists the flags that every command takes",
    group: group::UTILITY,
    run: Some(|call| Box::pin(options(call))),
    ..Command::EMPTY
};

pub(super) const HELP: Command = Command {
    name: "help",
    usage: "[command]",
    short: "Explains a command",
    group: group::UTILITY,
    run: Some(|call| Box::pin(explain(call))),
    ..Command::EMPTY
};

pub(super) const COMPLETION: Command = Command {
    name: "completion",
    usage: "[bash|zsh|fish|powershell]",
    short: "Prints a script that completes commands in a shell",
    long: "\
Prints a script that completes commands and flags in a shell.

To use it in the running shell:

  bash:        source <(etcdctl completion bash)
  zsh:         source <(etcdctl completion zsh)
  fish:        etcdctl completion fish | source
  PowerShell:  etcdctl completion powershell | Out-String | Invoke-Expression

To use it in every shell, write it where the shell looks for completions, for example:

  etcdctl completion bash > /etc/bash_completion.d/etcdctl
  etcdctl completion zsh > \"${fpath[1]}/_etcdctl\"
  etcdctl completion fish > ~/.config/fish/completions/etcdctl.fish
",
    flags: NO_FLAGS,
    group: group::UTILITY,
    run: Some(|call| Box::pin(complete(call))),
    ..Command::EMPTY
};

/// Packages are made with it.
pub(super) const MANUAL: Command = Command {
    name: "manual",
    usage: "<directory>",
    short: "Writes the pages of the manual",
    group: group::UTILITY,
    is_hidden: true,
    run: Some(|call| Box::pin(manual(call))),
    ..Command::EMPTY
};

const NO_FLAGS: &[Flag] = &[];

async fn version(_call: Call) -> Outcome {
    let release = api::version::SERVER;
    let level = release.rsplit_once('.').map_or(release, |(level, _)| level);
    out::text(&format!(
        "etcdctl version: {release}\nAPI version: {level}\n"
    ));
    Ok(())
}

async fn options(call: Call) -> Outcome {
    out::text("The following options can be passed to any command:\n\n");
    out::text(&help::global_flag_list(call.program));
    Ok(())
}

async fn explain(call: Call) -> Outcome {
    cli::explain(&call);
    Ok(())
}

async fn complete(call: Call) -> Outcome {
    Ok(cli::complete(&call)?)
}

async fn manual(call: Call) -> Outcome {
    Ok(cli::write_manual(&call, 1)?)
}
