//! `cargo xtask tidy`: the house rules, as checks.
//!
//! Every rule yields findings; `tidy/ratchet.txt` lists the exceptions that exist, each with
//! its size and a reason. An exception may shrink and go away, never grow: one that is larger
//! than what it excuses is itself a finding.

mod crates;
mod source;
mod text;

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// One breach of one rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Finding {
    rule: &'static str,
    /// Relative to the root of the repository.
    path: String,
    /// What breaks the rule there (a function, a dependency, a word), without blanks.
    item: String,
    /// First line of the item, from 1; 0 when the whole file is meant.
    line: usize,
    /// How large the breach is: lines for a size, otherwise 1.
    size: usize,
    why: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            rule,
            path,
            item,
            line,
            size,
            why,
        } = self;
        write!(
            out,
            "{path}:{line}: {rule}: {why} [{rule} {path} {item} {size}]"
        )
    }
}

/// Checks the repository that holds this crate.
///
/// # Errors
/// At least one finding (all are printed), or a file that cannot be read.
pub(crate) fn run(arguments: &[String]) -> Result<(), Box<dyn Error>> {
    if let Some(word) = arguments.first() {
        return Err(format!("tidy takes no argument, not {word}").into());
    }
    let root = root();
    let findings = apply_ratchet(check(&root)?, include_str!("tidy/ratchet.txt"))?;
    for finding in &findings {
        println!("{finding}");
    }
    match findings.len() {
        0 => Ok(()),
        count => Err(format!("{count} findings; an exception goes into ratchet.txt").into()),
    }
}

/// The root of the repository.
pub(crate) fn root() -> PathBuf {
    let mut path = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    path.pop();
    path.pop();
    path
}

fn check(root: &Path) -> Result<Vec<Finding>, Box<dyn Error>> {
    let mut findings = crates::check_graph(&metadata(root)?);
    for path in tracked_files(root)? {
        // A file that was deleted but not yet committed is still listed.
        let Ok(bytes) = std::fs::read(root.join(&path)) else {
            continue;
        };
        let Ok(content) = String::from_utf8(bytes) else {
            continue;
        };
        findings.extend(check_file(&path, &content));
    }
    Ok(findings)
}

fn check_file(path: &str, content: &str) -> Vec<Finding> {
    let generated = content
        .lines()
        .take(3)
        .any(|line| line.contains("@generated"));
    if generated {
        return Vec::new();
    }
    let mut findings = text::check(path, content);
    if path.ends_with(".rs") {
        findings.extend(source::check(path, content));
    }
    if path.ends_with("Cargo.toml") {
        findings.extend(crates::check_manifest(path, content));
    }
    if path.ends_with("Cargo.lock") {
        findings.extend(crates::check_lock(path, content));
    }
    findings
}

fn metadata(root: &Path) -> Result<serde_json::Value, Box<dyn Error>> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--format-version=1", "--no-deps"])
        .current_dir(root)
        .output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned().into());
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// What git tracks or would track, so that build products are left out.
fn tracked_files(root: &Path) -> Result<Vec<String>, Box<dyn Error>> {
    let output = Command::new("git")
        .args([
            "ls-files",
            "-z",
            "--cached",
            "--others",
            "--exclude-standard",
        ])
        .current_dir(root)
        .output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned().into());
    }
    let names = String::from_utf8(output.stdout)?;
    Ok(names.split_terminator('\0').map(String::from).collect())
}

type Key = (String, String, String);

/// `rule path item size # reason`, one exception a line.
fn parse_ratchet(text: &str) -> Result<BTreeMap<Key, usize>, Box<dyn Error>> {
    let mut exceptions = BTreeMap::new();
    for line in text
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
    {
        let (entry, reason) = line.split_once(" # ").ok_or(format!("no reason: {line}"))?;
        let words: Vec<&str> = entry.split_whitespace().collect();
        let &[rule, path, item, size] = words.as_slice() else {
            return Err(format!("want `rule path item size # reason`: {line}").into());
        };
        if reason.split_whitespace().count() < 3 {
            return Err(format!("say why in a few words: {line}").into());
        }
        exceptions.insert((rule.into(), path.into(), item.into()), size.parse()?);
    }
    Ok(exceptions)
}

/// Drops what the ratchet excuses; adds exceptions that excuse more than there is.
fn apply_ratchet(findings: Vec<Finding>, ratchet: &str) -> Result<Vec<Finding>, Box<dyn Error>> {
    let exceptions = parse_ratchet(ratchet)?;
    let mut sizes: BTreeMap<Key, usize> = BTreeMap::new();
    for finding in &findings {
        *sizes.entry(key_of(finding)).or_default() += finding.size;
    }
    let excused = |finding: &Finding| {
        let key = key_of(finding);
        exceptions
            .get(&key)
            .is_some_and(|limit| sizes[&key] <= *limit)
    };
    let mut left: Vec<Finding> = findings.into_iter().filter(|one| !excused(one)).collect();
    for ((rule, path, item), limit) in exceptions {
        let size = sizes
            .get(&(rule.clone(), path.clone(), item.clone()))
            .copied()
            .unwrap_or(0);
        if size < limit {
            left.push(Finding {
                rule: "slack-ratchet",
                path: path.clone(),
                item: item.clone(),
                line: 0,
                size: 1,
                why: format!("ratchet.txt excuses {limit} for {rule} {item}, there is {size}"),
            });
        }
    }
    Ok(left)
}

fn key_of(finding: &Finding) -> Key {
    (
        finding.rule.into(),
        finding.path.clone(),
        finding.item.clone(),
    )
}

#[cfg(test)]
mod tests;
