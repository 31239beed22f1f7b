//! The archive: `etcd-vX-linux-ARCH/` with the programs on top, README and documentation.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use super::{Outcome, PROGRAMS, Parts, SHELLS, files, finish, place};

/// Packs it and gives its path.
///
/// # Errors
/// A file that cannot be copied, or a `tar` that fails.
pub(super) fn make(parts: &Parts) -> Outcome<PathBuf> {
    let name = format!("etcd-v{}-linux-{}", parts.level, parts.arch);
    let top = parts.work.join(&name);
    for program in PROGRAMS {
        place(&parts.programs.join(program), &top.join(program), 0o755)?;
    }
    place(&parts.root.join("README.md"), &top.join("README.md"), 0o644)?;
    let unit = "contrib/systemd/etcd.service";
    place(&parts.root.join(unit), &top.join(unit), 0o644)?;
    for directory in ["docs", "docs/decisions"] {
        for file in files(&parts.root.join(directory))? {
            let name = file.file_name().ok_or("a file has a name")?;
            place(&file, &top.join(directory).join(name), 0o644)?;
        }
    }
    for page in files(&parts.manual)? {
        let name = page.file_name().ok_or("a file has a name")?;
        place(&page, &top.join("man").join(name), 0o644)?;
    }
    for (shell, _) in SHELLS {
        for program in PROGRAMS {
            let script = parts.completions.join(shell).join(program);
            place(
                &script,
                &top.join("completions").join(shell).join(program),
                0o644,
            )?;
        }
    }
    let file = parts.out.join(format!("{name}.tar.gz"));
    if file.exists() {
        fs::remove_file(&file)?;
    }
    finish(
        Command::new("tar")
            .args(["--sort=name", "--owner=0", "--group=0", "--numeric-owner"])
            .arg(format!("--mtime=@{}", parts.time))
            .args(["--use-compress-program=gzip -n -9", "-cf"])
            .arg(&file)
            .arg("-C")
            .arg(&parts.work)
            .arg(&name),
    )?;
    Ok(file)
}
