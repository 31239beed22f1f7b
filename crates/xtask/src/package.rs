//! `cargo xtask package`: the release archive, laid out as upstream's, and the Debian package, from
//! the release binaries, with pages of the manual and completions that these print themselves.

mod archive;
mod debian;

use std::error::Error;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use cli::arguments::Arguments;

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

/// The programs.
const PROGRAMS: [&str; 3] = ["etcd", "etcdctl", "etcdutl"];

/// Shells, and where a package of Debian puts what completes `NAME` in them.
const SHELLS: [(&str, &str); 3] = [
    ("bash", "usr/share/bash-completion/completions/NAME"),
    ("zsh", "usr/share/zsh/vendor-completions/_NAME"),
    ("fish", "usr/share/fish/vendor_completions.d/NAME.fish"),
];

/// (Debian's and upstream's name of an architecture, the compiler's, what the names of Debian's
/// cross tools begin with)
const ARCHITECTURES: [(&str, &str, &str); 2] = [
    ("amd64", "x86_64-unknown-linux-gnu", "x86_64-linux-gnu"),
    ("arm64", "aarch64-unknown-linux-gnu", "aarch64-linux-gnu"),
];

/// What packages are made of.
struct Parts {
    /// The repository.
    root: PathBuf,
    /// `amd64` or `arm64`.
    arch: &'static str,
    /// The programs without what only debuggers read.
    programs: PathBuf,
    /// Pages of the manual, `*.1` and `*.8`.
    manual: PathBuf,
    /// `<shell>/<program>`.
    completions: PathBuf,
    /// Where what is made goes, and what is made on the way (`work`).
    out: PathBuf,
    work: PathBuf,
    /// etcd's level and Quorate's own version.
    level: String,
    version: String,
    /// Seconds since 1970 that all files bear, so that the same commit gives the same archive.
    time: String,
}

/// Makes archive and package of `--arch` (this machine's by default) in `--out` (by default
/// `target/package`). `--bin-dir` names binaries that are built already.
///
/// # Errors
/// A build or a tool that fails.
pub(crate) fn run(arguments: &[String]) -> Outcome {
    let mut arguments = Arguments::new(arguments.iter().cloned(), crate::USAGE);
    let arch = arguments.value("--arch")?;
    let out = arguments
        .value("--out")?
        .unwrap_or_else(|| "target/package".into());
    let given = arguments.path("--bin-dir")?;
    arguments.finish()?;
    let host = architecture(std::env::consts::ARCH)?;
    let (arch, target, tools) = match &arch {
        Some(arch) => architecture(arch)?,
        None => host,
    };
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .nth(2)
        .ok_or("no repository")?
        .to_owned();
    fs::create_dir_all(&out)?;
    let out = fs::canonicalize(out)?;
    let work = out.join(format!("work-{arch}"));
    if work.exists() {
        fs::remove_dir_all(&work)?;
    }
    let own = match given {
        Some(directory) => directory,
        None => build(&root, None)?,
    };
    let built = match arch == host.0 {
        true => own.clone(),
        false => build(&root, Some((target, tools)))?,
    };
    let level = said(Command::new(own.join("etcd")).arg("--version"))?;
    let level = level
        .lines()
        .find_map(|line| line.strip_prefix("etcd Version: "))
        .ok_or("etcd does not tell its version")?
        .to_owned();
    let parts = Parts {
        arch,
        programs: work.join("programs"),
        manual: work.join("manual"),
        completions: work.join("completions"),
        level,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        time: said(
            Command::new("git")
                .args(["log", "-1", "--format=%ct"])
                .current_dir(&root),
        )?,
        root,
        out,
        work,
    };
    strip(&parts, &built, (arch != host.0).then_some(tools))?;
    write_pages(&parts, &own)?;
    let made = [archive::make(&parts)?, debian::make(&parts)?];
    fs::remove_dir_all(&parts.work)?;
    made.iter().for_each(|path| println!("{}", path.display()));
    Ok(())
}

/// The row of an architecture, by any of its names.
fn architecture(name: &str) -> Outcome<(&'static str, &'static str, &'static str)> {
    let row = ARCHITECTURES
        .into_iter()
        .find(|(arch, target, _)| *arch == name || target.starts_with(name));
    row.ok_or_else(|| format!("no packages are made for {name}").into())
}

/// Builds the programs; gives the directory in which they are.
fn build(root: &Path, target: Option<(&str, &str)>) -> Outcome<PathBuf> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["build", "--release", "--bins", "--package", "server"]);
    command
        .args(["--package", "etcdctl", "--package", "etcdutl"])
        .current_dir(root);
    let mut directory = match std::env::var_os("CARGO_TARGET_DIR") {
        Some(directory) => PathBuf::from(directory),
        None => root.join("target"),
    };
    if let Some((target, tools)) = target {
        let name = target.to_uppercase().replace('-', "_");
        command.args(["--target", target]);
        command.env(
            format!("CARGO_TARGET_{name}_LINKER"),
            format!("{tools}-gcc"),
        );
        directory.push(target);
    }
    finish(&mut command)?;
    Ok(directory.join("release"))
}

/// Copies the programs without what only debuggers read.
fn strip(parts: &Parts, built: &Path, tools: Option<&str>) -> Outcome {
    fs::create_dir_all(&parts.programs)?;
    let tool = tools.map_or("strip".to_owned(), |tools| format!("{tools}-strip"));
    for name in PROGRAMS {
        let copy = parts.programs.join(name);
        finish(
            Command::new(&tool)
                .arg("-o")
                .arg(&copy)
                .arg(built.join(name)),
        )?;
        set_mode(&copy, 0o755)?;
    }
    Ok(())
}

/// Has the programs of this machine print their pages and completions.
fn write_pages(parts: &Parts, own: &Path) -> Outcome {
    for name in PROGRAMS {
        finish(
            Command::new(own.join(name))
                .arg("manual")
                .arg(&parts.manual),
        )?;
        for (shell, _) in SHELLS {
            let script = said(Command::new(own.join(name)).args(["completion", shell]))?;
            let directory = parts.completions.join(shell);
            fs::create_dir_all(&directory)?;
            fs::write(directory.join(name), script + "\n")?;
        }
    }
    Ok(())
}

/// Runs a tool to its end.
///
/// # Errors
/// It cannot be run, or says that it failed.
fn finish(command: &mut Command) -> Outcome {
    let status = command
        .status()
        .map_err(|error| format!("{}: {error}", command.get_program().display()))?;
    match status.success() {
        true => Ok(()),
        false => Err(format!("{}: {status}", command.get_program().display()).into()),
    }
}

/// What a tool prints, without the line's end.
fn said(command: &mut Command) -> Outcome<String> {
    let output = command
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| format!("{}: {error}", command.get_program().display()))?;
    match output.status.success() {
        true => Ok(String::from_utf8(output.stdout)?.trim_end().to_owned()),
        false => Err(format!("{}: {}", command.get_program().display(), output.status).into()),
    }
}

fn set_mode(path: &Path, mode: u32) -> Outcome {
    Ok(fs::set_permissions(path, fs::Permissions::from_mode(mode))?)
}

/// Copies a file below a directory that need not exist yet.
fn place(source: &Path, target: &Path, mode: u32) -> Outcome {
    write(target, &fs::read(source)?, mode)
}

fn write(target: &Path, bytes: &[u8], mode: u32) -> Outcome {
    fs::create_dir_all(target.parent().ok_or("a file lies in a directory")?)?;
    fs::write(target, bytes)?;
    set_mode(target, mode)
}

/// The files of a directory, by name.
fn files(directory: &Path) -> Outcome<Vec<PathBuf>> {
    let entries = fs::read_dir(directory)?.collect::<Result<Vec<_>, _>>()?;
    let mut paths: Vec<PathBuf> = entries.iter().map(fs::DirEntry::path).collect();
    paths.retain(|path| path.is_file());
    paths.sort();
    Ok(paths)
}
