//! Rules about any text file: its length, its name and words that don't belong into it.

use super::Finding;

/// Longest file that is allowed without an exception.
const FILE_LINES: usize = 1000;

/// Names that say nothing about what is inside.
const VAGUE_NAMES: [&str; 6] = [
    "utils.rs",
    "util.rs",
    "helpers.rs",
    "helper.rs",
    "common.rs",
    "misc.rs",
];

/// Marks of unfinished work.
const UNFINISHED: [&str; 3] = ["TODO", "FIXME", "XXX"];

/// Starts of paths that exist on one machine only.
const MACHINE_PATHS: [&str; 3] = ["/home/", "/root/", "/Users/"];

/// One entry a line; a leading `=` asks for exactly that spelling, otherwise case is ignored.
const BANNED_WORDS: &str = include_str!("words.txt");

/// Checks one file; `path` is relative to the root.
pub(super) fn check(path: &str, content: &str) -> Vec<Finding> {
    let mut findings: Vec<Finding> = check_name(path).into_iter().collect();
    if path.ends_with(".rs") {
        findings.extend(check_length(path, content));
    }
    // The rule's own lists and planted examples necessarily hold what it forbids.
    let exempt = path.starts_with("crates/xtask/src/tidy") || path.ends_with("Cargo.lock");
    if !exempt {
        for (index, line) in content.lines().enumerate() {
            findings.extend(check_line(path, index + 1, line));
        }
    }
    findings
}

fn check_name(path: &str) -> Option<Finding> {
    let name = path.rsplit('/').next().unwrap_or_default();
    let finding = |rule, why: &str| Finding {
        rule,
        path: path.into(),
        item: name.into(),
        line: 0,
        size: 1,
        why: why.into(),
    };
    if name == "mod.rs" {
        return Some(finding("mod-rs", "a module foo lives in foo.rs and foo/"));
    }
    if VAGUE_NAMES.contains(&name) {
        return Some(finding("vague-name", "name the file after what is inside"));
    }
    None
}

fn check_length(path: &str, content: &str) -> Option<Finding> {
    let size = content.lines().count();
    (size > FILE_LINES).then(|| Finding {
        rule: "long-file",
        path: path.into(),
        item: "-".into(),
        line: 0,
        size,
        why: format!("{size} lines, at most {FILE_LINES}"),
    })
}

fn check_line(path: &str, line: usize, text: &str) -> Vec<Finding> {
    let finding = |rule, item: &str, why: &str| Finding {
        rule,
        path: path.into(),
        item: item.trim().replace(' ', "-"),
        line,
        size: 1,
        why: why.into(),
    };
    let mut findings = Vec::new();
    for word in UNFINISHED.into_iter().filter(|word| has_word(text, word)) {
        findings.push(finding(
            "unfinished",
            word,
            "finish it, or file it as an issue",
        ));
    }
    for prefix in MACHINE_PATHS
        .into_iter()
        .filter(|prefix| has_path(text, prefix))
    {
        findings.push(finding(
            "machine-path",
            prefix,
            "this path exists on one machine only",
        ));
    }
    let lower = text.to_lowercase();
    for entry in BANNED_WORDS.lines().filter(|entry| !entry.is_empty()) {
        let found = match entry.strip_prefix('=') {
            Some(exact) => has_word(text, exact),
            None => has_word(&lower, entry),
        };
        if found {
            findings.push(finding(
                "banned-word",
                entry,
                "say what it is, not how it came about",
            ));
        }
    }
    findings
}

/// `word` stands in `text` with no letter or digit next to it.
fn has_word(text: &str, word: &str) -> bool {
    text.match_indices(word).any(|(at, _)| {
        let before = text[..at].chars().next_back();
        let after = text[at + word.len()..].chars().next();
        let inside = |neighbour: Option<char>| neighbour.is_some_and(char::is_alphanumeric);
        !inside(before) && !inside(after)
    })
}

/// An absolute path, not the tail of a longer one or of an address.
fn has_path(text: &str, prefix: &str) -> bool {
    text.match_indices(prefix).any(|(at, _)| {
        let before = text[..at].chars().next_back();
        !before.is_some_and(|c| c.is_alphanumeric() || "._-/}>*".contains(c))
    })
}

#[cfg(test)]
mod tests;
