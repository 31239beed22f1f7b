//! Commands of etcdctl and etcdutl and sub-commands of etcd, with their flags, types and defaults,
//! as their own help shows them; variables of etcdctl.

use std::collections::BTreeMap;
use std::path::Path;

use super::{Found, Plan, lines, program};
use crate::Error;

const TABLE: &str = include_str!("../../spec/commands.txt");

/// A flag as help shows it: letter, type (empty for a switch) and default.
#[derive(Debug, PartialEq, Eq)]
struct Shown {
    letter: Option<char>,
    kind: String,
    default: String,
}

type Flags = BTreeMap<String, Shown>;

/// Every command with its flags, in the order of the table.
fn table() -> Vec<(&'static str, Vec<&'static str>)> {
    let mut commands: Vec<(&str, Vec<&str>)> = Vec::new();
    for line in lines(TABLE) {
        match (line.strip_prefix("  "), commands.last_mut()) {
            (Some(flag), Some((_, flags))) => flags.push(flag),
            _ => commands.push((line, Vec::new())),
        }
    }
    commands
}

/// Asks every command for its help.
///
/// # Errors
/// A program cannot be started.
pub(super) fn walk(plan: &Plan) -> Result<Found, Error> {
    let mut found = Found::default();
    for (path, flags) in table() {
        let mut words: Vec<&str> = path.split(' ').collect();
        let program = match words.remove(0) {
            "etcdctl" => &plan.etcdctl,
            "etcdutl" => &plan.etcdutl,
            _ => &plan.etcd,
        };
        words.push("--help");
        let said = program::run(program, &words, &[])?;
        let usage = [format!("  {path} "), format!("  {path}\n")];
        let is_known =
            said.code == Some(0) && usage.iter().any(|usage| said.out.contains(usage.as_str()));
        found.line(
            "command",
            path,
            match is_known {
                true => Ok(()),
                false => Err(said.last_line()),
            },
        );
        if !is_known {
            continue;
        }
        let text = match path {
            "etcdctl" => program::run(program, &["options"], &[])?.out,
            _ => own_flags(&said.out).to_owned(),
        };
        let shown = read_flags(&text);
        for flag in flags {
            let (name, wanted) = read_row(flag);
            let outcome = match shown.get(&name) {
                None => Err("not in its help".to_owned()),
                Some(shown) if *shown == wanted => Ok(()),
                Some(shown) => Err(format!("want {wanted:?}, has {shown:?}")),
            };
            found.line("command-flag", &format!("{path} --{name}"), outcome);
        }
    }
    variables(&plan.etcdctl, &mut found)?;
    Ok(found)
}

/// A global flag that is given twice, as a word and as its variable, is refused by the variable's
/// name: so it is known.
fn variables(etcdctl: &Path, found: &mut Found) -> Result<(), Error> {
    let globals = table().into_iter().find(|(path, _)| *path == "etcdctl");
    for flag in globals.map(|(_, flags)| flags).unwrap_or_default() {
        let (name, wanted) = read_row(flag);
        let variable = format!("ETCDCTL_{}", name.to_uppercase().replace('-', "_"));
        let value = match (wanted.kind.as_str(), wanted.default.as_str()) {
            ("", _) => "true",
            (_, "") if wanted.kind == "int" => "1",
            (_, "") => "x",
            (_, default) => default.trim_matches(['"', '[', ']']),
        };
        let word = format!("--{name}={value}");
        let said = program::run(etcdctl, &[&word, "get", "a"], &[(&variable, value)])?;
        let outcome = if said.code == Some(1) && said.err.contains("is shadowed by") {
            Ok(())
        } else {
            Err(said.last_line())
        };
        found.line("variable", &variable, outcome);
    }
    Ok(())
}

/// The part of a help text about the command's own flags.
fn own_flags(help: &str) -> &str {
    let from = help.split_once("\nFlags:\n").map_or("", |(_, rest)| rest);
    from.split("\nGlobal Flags:\n").next().unwrap_or_default()
}

/// `-w --write-out string "simple"`.
fn read_row(row: &str) -> (String, Shown) {
    let mut rest = row;
    let mut letter = None;
    if let Some(after) = rest.strip_prefix('-').filter(|rest| !rest.starts_with('-')) {
        letter = after.chars().next();
        rest = after.get(2..).unwrap_or_default();
    }
    let mut words = rest.splitn(2, ' ');
    let name = words.next().unwrap_or_default().trim_start_matches('-');
    let rest = words.next().unwrap_or_default();
    const KINDS: [&str; 6] = ["string", "strings", "int", "uint", "uint32", "duration"];
    let (first, after) = rest.split_once(' ').unwrap_or((rest, ""));
    let (kind, default) = match KINDS.contains(&first) {
        true => (first, after),
        false => ("", rest),
    };
    let shown = Shown {
        letter,
        kind: kind.to_owned(),
        default: default.to_owned(),
    };
    (name.to_owned(), shown)
}

/// The lines of a list of flags.
fn read_flags(text: &str) -> Flags {
    let mut flags = Flags::new();
    for line in text.lines() {
        let line = line.trim_start();
        let (letter, rest) = match line.strip_prefix("--") {
            Some(rest) => (None, rest),
            None => match line.split_once(", --") {
                Some((short, rest)) if short.len() == 2 => (short.chars().nth(1), rest),
                _ => continue,
            },
        };
        let (head, help) = rest.split_once("   ").unwrap_or((rest, ""));
        let (name, kind) = head.split_once(' ').unwrap_or((head, ""));
        let default = help
            .trim_end()
            .strip_suffix(')')
            .and_then(|help| help.rsplit_once("(default "))
            .map_or("", |(_, default)| default);
        let shown = Shown {
            letter,
            kind: kind.trim().to_owned(),
            default: default.to_owned(),
        };
        flags.insert(name.to_owned(), shown);
    }
    flags
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_and_help_read_alike() {
        let help = "      --limit int            Most results\n  -w, --write-out string     \
                    the format (default \"simple\")\n      --on                   x (default true)\n";
        let shown = read_flags(help);
        for row in [
            "--limit int",
            "-w --write-out string \"simple\"",
            "--on true",
        ] {
            let (name, wanted) = read_row(row);
            assert_eq!(shown.get(&name), Some(&wanted), "{row}");
        }
    }

    #[test]
    fn the_table_has_every_program() {
        let table = table();
        for program in ["etcdctl", "etcdutl", "etcd gateway start"] {
            assert!(
                table
                    .iter()
                    .any(|(path, flags)| *path == program && !flags.is_empty())
            );
        }
    }
}
