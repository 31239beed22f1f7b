//! The package database of a Debian machine as keys and values: real names, real sizes.

use std::collections::BTreeSet;
use std::path::Path;

use bytes::Bytes;

use crate::Error;

/// One key and its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// `/dpkg/<name>` or `/files/<package>/<n>`.
    pub key: Bytes,
    /// A stanza of the status file, or a line of a file list.
    pub value: Bytes,
}

/// Reads `status` and `info/*.list` below `directory` (usually `/var/lib/dpkg`), stanzas first.
///
/// # Errors
/// A file that cannot be read.
pub fn read(directory: &Path) -> Result<Vec<Record>, Error> {
    let status = std::fs::read_to_string(directory.join("status"))?;
    let mut records = stanzas(&status);
    let mut lists: Vec<_> = std::fs::read_dir(directory.join("info"))?
        .collect::<Result<Vec<_>, _>>()?
        .into_iter()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| name.ends_with(".list"))
        .collect();
    lists.sort();
    for name in lists {
        let text = std::fs::read_to_string(directory.join("info").join(&name))?;
        records.extend(lines(name.trim_end_matches(".list"), &text));
    }
    Ok(records)
}

/// Packages of several architectures share a name; the later ones get theirs added.
fn stanzas(status: &str) -> Vec<Record> {
    let mut seen = BTreeSet::new();
    let mut records = Vec::new();
    for stanza in status.split("\n\n").filter(|text| !text.trim().is_empty()) {
        let field = |name: &str| stanza.lines().find_map(|line| line.strip_prefix(name));
        let Some(name) = field("Package: ") else {
            continue;
        };
        let mut key = format!("/dpkg/{name}");
        if !seen.insert(key.clone()) {
            key = format!("{key}:{}", field("Architecture: ").unwrap_or("unknown"));
        }
        records.push(Record {
            key: key.into(),
            value: Bytes::copy_from_slice(stanza.as_bytes()),
        });
    }
    records
}

fn lines(package: &str, text: &str) -> Vec<Record> {
    let record = |(number, line): (usize, &str)| Record {
        key: format!("/files/{package}/{number}").into(),
        value: Bytes::copy_from_slice(line.as_bytes()),
    };
    text.lines().enumerate().map(record).collect()
}

#[cfg(test)]
mod tests;
