//! Help and usage, in the layout of etcd's tools.

use super::flags::{Flag, Kind};
use super::{Command, Program};

/// The width of the column of command names at least.
const NAME_WIDTH_MIN: usize = 11;

/// What `--help` prints.
#[must_use]
pub fn help<T>(program: &Program<T>, path: &[&'static Command<T>]) -> String {
    let command = path[path.len() - 1];
    let about = if command.long.is_empty() {
        command.short
    } else {
        command.long
    };
    let mut out = about.trim_end().to_owned();
    out.push_str("\n\n");
    out.push_str(&usage(program, path));
    if !program.shows_globals {
        out.push_str(&format!(
            "Use \"{} options\" for a list of global command-line options \
             (applies to all commands).\n",
            path[0].name
        ));
    }
    out
}

/// What is printed after a mistake: usage line, sub-commands and flags.
#[must_use]
pub fn usage<T>(program: &Program<T>, path: &[&'static Command<T>]) -> String {
    let command = path[path.len() - 1];
    let names: Vec<_> = path.iter().map(|command| command.name).collect();
    let name = names.join(" ");
    let mut out = "Usage:\n".to_owned();
    if command.run.is_some() {
        let usage = [&name, command.usage, "[flags]"];
        let words: Vec<_> = usage.into_iter().filter(|part| !part.is_empty()).collect();
        out.push_str(&format!("  {}\n", words.join(" ")));
    }
    if command.shown().next().is_some() {
        out.push_str(&format!("  {name} [command]\n"));
    }
    if !command.example.is_empty() {
        out.push_str(&format!("\nExamples:\n{}\n", command.example.trim_end()));
    }
    out.push_str(&command_lists(program, path));
    out.push_str(&flag_lists(program, path));
    if command.shown().next().is_some() {
        out.push_str(&format!(
            "\nUse \"{name} [command] --help\" for more information about a command.\n"
        ));
    }
    out
}

/// The command's own flags, then those that it shares with others.
fn flag_lists<T>(program: &Program<T>, path: &[&'static Command<T>]) -> String {
    let is_root = path.len() == 1;
    if is_root && !program.shows_globals {
        return String::new();
    }
    let globals = program.globals.iter().filter(|_| program.shows_globals);
    let command = path[path.len() - 1];
    let help = format!("help for {}", command.name);
    let mut own: Vec<(&Flag, &str)> = command.flags.iter().map(|f| (f, f.help)).collect();
    own.push((&super::HELP_FLAG, &help));
    let mut shared: Vec<(&Flag, &str)> = globals.map(|f| (f, f.help)).collect();
    if is_root {
        own.append(&mut shared);
    } else {
        let parents = path[1..path.len() - 1].iter();
        let inherited = parents
            .filter(|parent| parent.inherit_flags)
            .flat_map(|parent| parent.flags);
        shared.extend(inherited.map(|flag| (flag, flag.help)));
    }
    let mut out = format!("\nFlags:\n{}", flag_list(&own));
    if !shared.is_empty() {
        out.push_str(&format!("\nGlobal Flags:\n{}", flag_list(&shared)));
    }
    out
}

fn command_lists<T>(program: &Program<T>, path: &[&'static Command<T>]) -> String {
    let parent = path[path.len() - 1];
    if parent.shown().next().is_none() {
        return String::new();
    }
    if path.len() > 1 || program.groups.is_empty() {
        return format!(
            "\nAvailable Commands:\n{}",
            command_list(parent.shown(), parent)
        );
    }
    let mut out = String::new();
    for &group in program.groups {
        let members = parent.shown().filter(|command| command.group == group);
        out.push_str(&format!("\n{group}\n{}", command_list(members, parent)));
    }
    out
}

fn command_list<'a, T: 'static>(
    commands: impl Iterator<Item = &'a Command<T>>,
    parent: &Command<T>,
) -> String {
    let longest = parent
        .shown()
        .map(|command| command.name.len())
        .max()
        .unwrap_or_default();
    let width = longest.max(NAME_WIDTH_MIN);
    let mut commands: Vec<_> = commands.collect();
    commands.sort_by_key(|command| command.name);
    commands
        .iter()
        .map(|command| format!("  {:width$} {}\n", command.name, command.short))
        .collect()
}

/// The list of all global flags, for `options`.
#[must_use]
pub fn global_flag_list<T>(program: &Program<T>) -> String {
    let flags: Vec<_> = program
        .globals
        .iter()
        .map(|flag| (flag, flag.help))
        .collect();
    flag_list(&flags)
}

fn flag_list(flags: &[(&Flag, &str)]) -> String {
    let mut flags: Vec<_> = flags.to_vec();
    flags.sort_by_key(|(flag, _)| flag.name);
    let heads: Vec<_> = flags.iter().map(|(flag, _)| flag_head(flag)).collect();
    let width = heads.iter().map(String::len).max().unwrap_or_default();
    let lines = heads.iter().zip(&flags).map(|(head, (flag, help))| {
        let default = default_note(flag);
        format!("{head:width$}   {help}{default}")
            .trim_end()
            .to_owned()
            + "\n"
    });
    lines.collect()
}

fn flag_head(flag: &Flag) -> String {
    let short = match flag.short {
        Some(short) => format!("  -{short}, --"),
        None => "      --".to_owned(),
    };
    format!("{short}{}{}", flag.name, value_name(flag))
}

/// What stands for a flag's value, with a blank before it; nothing for a switch.
pub(crate) fn value_name(flag: &Flag) -> &'static str {
    match flag.kind {
        Kind::Bool => "",
        Kind::Text => " string",
        Kind::Int => " int",
        Kind::Uint => " uint",
        Kind::Uint32 => " uint32",
        Kind::Duration => " duration",
        Kind::List => " strings",
    }
}

pub(crate) fn default_note(flag: &Flag) -> String {
    match flag.kind {
        _ if matches!(flag.default, "" | "0" | "false") && flag.kind != Kind::Text => String::new(),
        Kind::Text if flag.default.is_empty() => String::new(),
        Kind::Text => format!(" (default {:?})", flag.default),
        Kind::List => format!(" (default [{}])", flag.default),
        _ => format!(" (default {})", flag.default),
    }
}
