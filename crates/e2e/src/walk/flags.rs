//! Flags of etcd: that each is taken with the values that fit it and no others, its default, its
//! variable and its key in the configuration file. Nothing of this starts a member.

use std::collections::HashMap;
use std::path::Path;

use super::{Found, Plan, lines, program};
use crate::Error;
use crate::member::fresh_directory;

const TABLE: &str = include_str!("../../spec/flags.txt");
const GATES: &str = include_str!("../../spec/gates.txt");

/// What help says of a flag that has no effect yet.
const NOT_YET: &str = "(not supported yet)";
/// What stops a file that has nothing else wrong with it, and in whose words.
const LAST_FAULT: (&str, &str) = ("listen-peer-urls", "expected IP in URL");

/// One line of the table.
struct Row {
    name: &'static str,
    kind: &'static str,
    /// The default, and what else help may show as such.
    defaults: [&'static str; 2],
    sample: &'static str,
    wrong: Option<&'static str>,
    key: Option<&'static str>,
}

fn table() -> impl Iterator<Item = Row> {
    lines(TABLE).map(|line| {
        let cells: Vec<&str> = line.split('\t').collect();
        let cell = |at: usize| cells.get(at).copied().unwrap_or_default();
        let some = |at: usize| Some(cell(at)).filter(|text| *text != "-");
        Row {
            name: cell(0),
            kind: cell(1),
            defaults: [some(2).unwrap_or_default(), some(3).unwrap_or(cell(2))],
            sample: cell(4),
            wrong: some(5),
            key: some(6),
        }
    })
}

/// Tries every flag, variable, key and gate.
///
/// # Errors
/// The program cannot be started.
pub(super) fn walk(plan: &Plan) -> Result<Found, Error> {
    let mut found = Found::default();
    let help = program::run(&plan.etcd, &["--help"], &[])?;
    let shown = read_help(&format!("{}\n{}", help.out, help.err));
    let directory = fresh_directory();
    std::fs::create_dir_all(&directory)?;
    for row in table() {
        found.line("flag", row.name, taken(&plan.etcd, &row, &shown)?);
        if row.kind == "ignored" || ["config-file", "version"].contains(&row.name) {
            continue;
        }
        let variable = format!("ETCD_{}", row.name.to_uppercase().replace('-', "_"));
        found.line(
            "variable",
            &variable,
            shadowed(&plan.etcd, &row, &variable)?,
        );
        if let Some(key) = row.key {
            let file = directory.join("etcd.yaml");
            found.line("file-key", key, key_is_known(&plan.etcd, key, &file)?);
        }
    }
    crate::member::remove(&directory);
    for line in lines(GATES) {
        let name = line.split(' ').next().unwrap_or_default();
        let word = format!("--feature-gates={name}=true");
        let said = program::run(&plan.etcd, &[&word, "--version"], &[])?;
        let outcome = match said.code {
            Some(0) => Ok(()),
            _ => Err(said.last_line()),
        };
        found.line("gate", name, outcome);
    }
    Ok(found)
}

/// The flag takes its sample, refuses what does not fit, and help knows its default.
fn taken(
    etcd: &Path,
    row: &Row,
    shown: &HashMap<String, (String, bool)>,
) -> Result<Result<(), String>, Error> {
    let word = format!("--{}={}", row.name, row.sample);
    let said = program::run(etcd, &[&word, "--version"], &[])?;
    if said.code != Some(0) && row.name != "version" {
        return Ok(Err(said.last_line()));
    }
    if let Some(wrong) = row.wrong {
        let word = format!("--{}={wrong}", row.name);
        let said = program::run(etcd, &[&word, "--version"], &[])?;
        if said.code != Some(2) {
            return Ok(Err(format!("takes {wrong:?}: {}", said.last_line())));
        }
    }
    let Some((default, is_supported)) = shown.get(row.name) else {
        return Ok(Ok(()));
    };
    let default = normal(row.kind, default);
    let fits = row
        .defaults
        .iter()
        .any(|one| normal(row.kind, one) == default);
    Ok(match (is_supported, fits) {
        (false, _) => Err("its own help says that it has no effect yet".to_owned()),
        (_, false) => Err(format!("default {default:?}, want {:?}", row.defaults)),
        _ => Ok(()),
    })
}

/// The same flag as a word and as a variable is refused by the variable's name.
fn shadowed(etcd: &Path, row: &Row, variable: &str) -> Result<Result<(), String>, Error> {
    let word = format!("--{}={}", row.name, row.sample);
    let said = program::run(etcd, &[&word], &[(variable, row.sample)])?;
    let is_known =
        said.code == Some(1) && said.err.contains("is shadowed by") && said.err.contains(variable);
    Ok(match is_known {
        true => Ok(()),
        false => Err(said.last_line()),
    })
}

/// A value that fits no key stops the program before it comes to the file's last fault.
fn key_is_known(etcd: &Path, key: &str, file: &Path) -> Result<Result<(), String>, Error> {
    let mut text = String::new();
    let mut indent = String::new();
    for part in key.split('.') {
        text.push_str(&format!("\n{indent}{part}:"));
        indent.push_str("  ");
    }
    text.push_str(" [{a: 1}]\n");
    if key != LAST_FAULT.0 {
        text.push_str(&format!("{}: http://no.example:1\n", LAST_FAULT.0));
    }
    std::fs::write(file, text)?;
    let word = format!("--config-file={}", file.display());
    let said = program::run(etcd, &[&word], &[])?;
    let is_known = said.code == Some(1) && !said.err.contains(LAST_FAULT.1);
    Ok(match is_known {
        true => Ok(()),
        false => Err(format!("is no key: {}", said.last_line())),
    })
}

/// For each flag that help lists with a default: the default, and whether the flag does anything.
fn read_help(text: &str) -> HashMap<String, (String, bool)> {
    let mut shown = HashMap::new();
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        let Some(flag) = line.strip_prefix("  --") else {
            continue;
        };
        let Some((name, default)) = flag.split_once(' ') else {
            continue;
        };
        let default = default.trim().trim_matches('\'');
        let mut is_supported = true;
        while let Some(about) = lines.next_if(|line| line.starts_with("    ")) {
            is_supported &= !about.contains(NOT_YET);
        }
        shown.insert(name.to_owned(), (default.to_owned(), is_supported));
    }
    shown
}

/// A default in one of the ways in which it can be written.
fn normal(kind: &str, default: &str) -> String {
    let is_number = matches!(kind, "int" | "uint" | "uint32" | "duration");
    if is_number && ["", "0", "0s"].contains(&default) {
        return "0".to_owned();
    }
    let mut text = default.to_owned();
    for zero in ["m0s", "h0m"] {
        if let Some(short) = text.strip_suffix(zero).filter(|_| kind == "duration") {
            text = format!("{short}{}", &zero[..1]);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn help_is_read() {
        let shown = read_help(
            "Member:\n  --name 'default'\n    Words.\n  --later '5s'\n    \
                               Words (not supported yet)\n",
        );
        assert_eq!(shown["name"], ("default".to_owned(), true));
        assert_eq!(shown["later"], ("5s".to_owned(), false));
    }

    #[test]
    fn defaults_have_one_form() {
        for (kind, one, other) in [
            ("duration", "2h0m0s", "2h"),
            ("duration", "1m0s", "1m"),
            ("duration", "0s", ""),
            ("uint", "0", ""),
        ] {
            assert_eq!(normal(kind, one), normal(kind, other), "{one}");
        }
        assert_ne!(normal("text", "0"), normal("text", ""));
    }

    #[test]
    fn the_table_is_whole() {
        let rows: Vec<Row> = table().collect();
        assert_eq!(rows.len(), 113 + 15);
        assert!(
            rows.iter()
                .all(|row| !row.kind.is_empty() && !row.sample.is_empty())
        );
        assert_eq!(lines(GATES).count(), 11);
    }
}
