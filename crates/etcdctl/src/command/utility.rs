//! version, options, help, completion.

use crate::cli::flags::Flag;
use crate::cli::{self, Call, Command, completion, help};
use crate::exit::Outcome;
use crate::out;

pub(super) const VERSION: Command = Command {
    name: "version",
    short: "Prints the version of etcdctl",
    run: Some(|call| Box::pin(version(call))),
    ..Command::EMPTY
};

pub(super) const OPTIONS: Command = Command {
    name: "options",
    short: "Lists the flags that every command takes",
    run: Some(|call| Box::pin(options(call))),
    ..Command::EMPTY
};

pub(super) const HELP: Command = Command {
    name: "help",
    usage: "[command]",
    short: "Explains a command",
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
    run: Some(|call| Box::pin(complete(call))),
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

async fn options(_call: Call) -> Outcome {
    out::text("The following options can be passed to any command:\n\n");
    out::text(&help::global_flag_list());
    Ok(())
}

async fn explain(call: Call) -> Outcome {
    let mut path = vec![call.path[0]];
    for index in 0..call.args.len() {
        let Some(command) = path[path.len() - 1].find(&call.text(index)) else {
            let words: Vec<_> = (0..call.args.len())
                .map(|index| format!("`{}`", call.text(index)))
                .collect();
            eprintln!("Unknown help topic [{}]", words.join(" "));
            eprint!("{}", help::usage(&path[..1]));
            return Ok(());
        };
        path.push(command);
    }
    out::text(&help::help(&path));
    Ok(())
}

async fn complete(call: Call) -> Outcome {
    if call.args.len() != 1 {
        let text = format!("accepts 1 arg(s), received {}", call.args.len());
        return Err(cli::misuse(&call.path, &text));
    }
    let shell = call.text(0);
    match completion::script(call.path[0], &shell) {
        Some(script) => {
            out::text(&script);
            Ok(())
        }
        None => {
            let text = format!("invalid argument {shell:?} for \"etcdctl completion\"");
            Err(cli::misuse(&call.path, &text))
        }
    }
}
