//! `cargo xtask reference`: Go etcd's binaries, built from the Go module proxy.
//!
//! Upstream's modules carry `replace` lines, which `go install module@version` refuses; as
//! dependencies of a throw-away module those lines don't count and their commands build.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::Command;

use cli::arguments::Arguments;

/// The release that tests and benches compare with, unless `--version` names another.
const DEFAULT_VERSION: &str = "v3.7.3";

/// (module of the command, name of the binary that is written)
const COMMANDS: [(&str, &str); 3] = [
    ("server", "etcd"),
    ("etcdctl", "etcdctl"),
    ("etcdutl", "etcdutl"),
];

/// Writes `etcd-X.Y`, `etcdctl-X.Y` and `etcdutl-X.Y` into the directory that `--out` names.
///
/// # Errors
/// No Go tool chain, a version that the module proxy doesn't know, or a failed build.
pub(crate) fn run(arguments: &[String]) -> Result<(), Box<dyn Error>> {
    let mut arguments = Arguments::new(arguments.iter().cloned(), crate::USAGE);
    let out = arguments.need("--out")?;
    let version = arguments
        .value("--version")?
        .unwrap_or_else(|| DEFAULT_VERSION.into());
    arguments.finish()?;
    std::fs::create_dir_all(&out)?;
    let out = std::fs::canonicalize(out)?;
    let module = std::env::temp_dir().join(format!("reference-etcd-{}", std::process::id()));
    std::fs::create_dir_all(&module)?;
    let outcome = build_all(&module, &out, &version);
    std::fs::remove_dir_all(&module)?;
    outcome
}

fn build_all(module: &Path, out: &Path, version: &str) -> Result<(), Box<dyn Error>> {
    std::fs::write(module.join("go.mod"), go_mod(version))?;
    let minor = minor_of(version)?;
    for (command, name) in COMMANDS {
        let binary: PathBuf = out.join(format!("{name}-{minor}"));
        let status = Command::new("go")
            .args(["build", "-mod=mod", "-trimpath", "-buildvcs=false", "-o"])
            .arg(&binary)
            .arg(format!("go.etcd.io/etcd/{command}/v3"))
            .current_dir(module)
            .status()
            .map_err(|error| format!("cannot run go: {error}"))?;
        if !status.success() {
            return Err(format!("go build of {command} {version}: {status}").into());
        }
        println!("{}", binary.display());
    }
    Ok(())
}

fn go_mod(version: &str) -> String {
    let requires: String = COMMANDS
        .iter()
        .map(|(command, _)| format!("require go.etcd.io/etcd/{command}/v3 {version}\n"))
        .collect();
    format!("module reference\n\n{requires}")
}

/// `v3.7.3` → `3.7`
fn minor_of(version: &str) -> Result<String, Box<dyn Error>> {
    let numbers = version
        .strip_prefix('v')
        .ok_or("a version looks like v3.7.3")?;
    let mut parts = numbers.splitn(3, '.');
    match (parts.next(), parts.next()) {
        (Some(major), Some(minor)) => Ok(format!("{major}.{minor}")),
        _ => Err("a version looks like v3.7.3".into()),
    }
}

#[cfg(test)]
mod tests;
