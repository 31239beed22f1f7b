//! Rules about crates: who may depend on whom, and why a dependency is there.

use serde_json::Value;

use super::Finding;

/// The arrows between the rooms. A crate that is absent here may not exist.
const EDGES: [(&str, &[&str]); 13] = [
    ("api", &[]),
    ("cli", &[]),
    ("storage", &[]),
    ("state", &["api", "storage"]),
    ("node", &["api", "storage", "state"]),
    (
        "server",
        &["api", "cli", "storage", "state", "node", "client", "proxy"],
    ),
    ("client", &["api"]),
    ("proxy", &["api", "cli", "client"]),
    ("etcdctl", &["api", "cli", "client"]),
    ("etcdutl", &["api", "cli", "storage", "state"]),
    ("sim", &["api", "storage", "state", "node"]),
    ("e2e", &["api", "cli", "client", "storage"]),
    ("xtask", &["cli"]),
];

/// The rooms that may run futures; everywhere else work is a value that someone polls.
const ASYNC_ROOMS: [&str; 5] = ["server", "client", "proxy", "etcdctl", "e2e"];

const ASYNC_RUNTIMES: [&str; 8] = [
    "tokio",
    "async-std",
    "smol",
    "tonic",
    "hyper",
    "hyper-util",
    "axum",
    "tower",
];

/// Checks the edges of `cargo metadata --no-deps`.
pub(super) fn check_graph(metadata: &Value) -> Vec<Finding> {
    let packages = metadata["packages"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    packages.iter().flat_map(check_package).collect()
}

fn check_package(package: &Value) -> Vec<Finding> {
    let name = package["name"].as_str().unwrap_or_default();
    let finding = |rule, item: &str, why: String| Finding {
        rule,
        path: format!("crates/{name}/Cargo.toml"),
        item: item.into(),
        line: 0,
        size: 1,
        why,
    };
    let Some((_, allowed)) = EDGES.iter().find(|(room, _)| *room == name) else {
        return vec![finding(
            "unknown-room",
            name,
            format!("{name} is no room of the design"),
        )];
    };
    let mut findings = Vec::new();
    for dependency in package["dependencies"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default()
    {
        let target = dependency["name"].as_str().unwrap_or_default();
        let ours = dependency["path"].is_string();
        if ours && target != name && !allowed.contains(&target) {
            let why = format!("{name} may not depend on {target}");
            findings.push(finding("crate-edge", target, why));
        }
        if ASYNC_RUNTIMES.contains(&target) && !ASYNC_ROOMS.contains(&name) {
            let why = format!("{target} in {name}: futures run only in {ASYNC_ROOMS:?}");
            findings.push(finding("async-runtime", target, why));
        }
    }
    findings
}

/// Each dependency on a crate of others says why, at the end of its line.
pub(super) fn check_manifest(path: &str, content: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut section = String::new();
    let mut entry: Option<Entry> = None;
    for (index, line) in content.lines().enumerate() {
        let code = line.split('#').next().unwrap_or_default().trim();
        let header = code.starts_with('[') && code.ends_with(']') && !code.contains('=');
        let key = line.split(['=', '.']).next().unwrap_or_default().trim();
        if header {
            findings.extend(entry.take().and_then(|one| one.finding(path)));
            section = code.trim_matches(['[', ']']).to_string();
            if let Some((_, name)) = section.split_once("dependencies.") {
                entry = Some(Entry::new(name, index + 1, line));
            }
        } else if section.ends_with("dependencies") && code.contains('=') && is_name(key) {
            findings.extend(entry.take().and_then(|one| one.finding(path)));
            entry = Some(Entry::new(key, index + 1, line));
        } else if let Some(entry) = &mut entry {
            entry.add(line);
        }
    }
    findings.extend(entry.and_then(|one| one.finding(path)));
    findings
}

/// One dependency of a manifest, with all its lines.
struct Entry {
    name: String,
    line: usize,
    reason: usize,
    ours: bool,
}

impl Entry {
    fn new(name: &str, line: usize, text: &str) -> Self {
        let mut entry = Self {
            name: name.into(),
            line,
            reason: 0,
            ours: false,
        };
        entry.add(text);
        entry
    }

    fn add(&mut self, text: &str) {
        let (code, reason) = text.split_once('#').unwrap_or((text, ""));
        self.reason += reason.split_whitespace().count();
        self.ours |= code.contains("path =") || code.contains("workspace = true");
    }

    fn finding(self, path: &str) -> Option<Finding> {
        if self.ours || self.reason >= 3 {
            return None;
        }
        let why = format!("{} needs `# reason` at the end of its line", self.name);
        let Self { name, line, .. } = self;
        Some(Finding {
            rule: "no-reason",
            path: path.into(),
            item: name,
            line,
            size: 1,
            why,
        })
    }
}

fn is_name(key: &str) -> bool {
    let part = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    !key.is_empty() && key.bytes().all(part)
}

/// Everything that is locked comes from the public registry.
pub(super) fn check_lock(path: &str, content: &str) -> Vec<Finding> {
    const REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";
    let mut findings = Vec::new();
    for (index, line) in content.lines().enumerate() {
        let Some(source) = line.strip_prefix("source = ") else {
            continue;
        };
        if source.trim_matches('"') != REGISTRY {
            findings.push(Finding {
                rule: "lock-source",
                path: path.into(),
                item: source.replace(' ', ""),
                line: index + 1,
                size: 1,
                why: format!("{source} is not the public registry"),
            });
        }
    }
    findings
}

#[cfg(test)]
mod tests;
