//! The package for Debian: programs, unit, user, default settings, manual, completions.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Outcome, PROGRAMS, Parts, SHELLS, files, finish, place, write};

const NAME: &str = "quorate";
const CONFFILE: &str = "etc/etcd/etcd.env";

/// Builds it and gives its path.
///
/// # Errors
/// A file that cannot be copied, or a `dpkg-deb` that fails.
pub(super) fn make(parts: &Parts) -> Outcome<PathBuf> {
    let tree = parts.work.join("debian");
    let mut versions = Vec::new();
    for program in PROGRAMS {
        let source = parts.programs.join(program);
        place(&source, &tree.join("usr/bin").join(program), 0o755)?;
        versions.extend(glibc_version(&fs::read(source)?));
        for (shell, path) in SHELLS {
            let script = parts.completions.join(shell).join(program);
            place(&script, &tree.join(path.replace("NAME", program)), 0o644)?;
        }
    }
    place_unit(parts, &tree)?;
    let packaging = parts.root.join("packaging/debian");
    place(&packaging.join("etcd.env"), &tree.join(CONFFILE), 0o644)?;
    place_manual(parts, &tree)?;
    place_documents(parts, &tree)?;
    for script in ["postinst", "prerm", "postrm"] {
        place(
            &packaging.join(script),
            &tree.join("DEBIAN").join(script),
            0o755,
        )?;
    }
    let conffiles = format!("/{CONFFILE}\n");
    write(&tree.join("DEBIAN/conffiles"), conffiles.as_bytes(), 0o644)?;
    let size = tree_bytes(&tree)?.div_ceil(1024);
    let glibc = versions
        .into_iter()
        .max()
        .ok_or("the programs use no C library")?;
    let control = control(parts, glibc, size);
    write(&tree.join("DEBIAN/control"), control.as_bytes(), 0o644)?;
    let file = parts
        .out
        .join(format!("{NAME}_{}_{}.deb", parts.version, parts.arch));
    finish(
        Command::new("dpkg-deb")
            .args(["--root-owner-group", "-Zxz", "-z3", "--build"])
            .arg(&tree)
            .arg(&file)
            .env("SOURCE_DATE_EPOCH", &parts.time)
            .stdout(std::process::Stdio::null()),
    )?;
    Ok(file)
}

/// The unit, which names the program where the package puts it.
fn place_unit(parts: &Parts, tree: &Path) -> Outcome {
    let unit = fs::read_to_string(parts.root.join("contrib/systemd/etcd.service"))?;
    let own = "ExecStart=/usr/local/bin/etcd";
    if !unit.contains(own) {
        return Err(format!("the unit has no line {own}").into());
    }
    let unit = unit.replace(own, "ExecStart=/usr/bin/etcd");
    write(
        &tree.join("usr/lib/systemd/system/etcd.service"),
        unit.as_bytes(),
        0o644,
    )
}

fn place_manual(parts: &Parts, tree: &Path) -> Outcome {
    for page in files(&parts.manual)? {
        let name = page
            .file_name()
            .and_then(|name| name.to_str())
            .ok_or("no page")?;
        let section = name.rsplit('.').next().ok_or("a page has a section")?;
        let target = tree.join(format!("usr/share/man/man{section}")).join(name);
        place(&page, &target, 0o644)?;
        finish(Command::new("gzip").args(["-n", "-9"]).arg(&target))?;
    }
    Ok(())
}

fn place_documents(parts: &Parts, tree: &Path) -> Outcome {
    let documents = tree.join("usr/share/doc").join(NAME);
    place(
        &parts.root.join("README.md"),
        &documents.join("README.md"),
        0o644,
    )?;
    for file in files(&parts.root.join("docs"))? {
        let name = file.file_name().ok_or("a file has a name")?;
        place(&file, &documents.join("docs").join(name), 0o644)?;
    }
    let copyright = format!(
        "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n\
         Upstream-Name: {NAME}\n\nFiles: *\nCopyright: the authors of Quorate\n\
         License: Apache-2.0\n On Debian systems, its text is in \
         /usr/share/common-licenses/Apache-2.0.\n"
    );
    write(&documents.join("copyright"), copyright.as_bytes(), 0o644)
}

/// The control file; `kib` is what the package takes when it is installed.
fn control(parts: &Parts, glibc: (u32, u32), kib: u64) -> String {
    let (major, minor) = glibc;
    format!(
        "Package: {NAME}\nVersion: {}\nArchitecture: {}\nMaintainer: Quorate <quorate@localhost>\n\
         Section: net\nPriority: optional\nInstalled-Size: {kib}\n\
         Depends: adduser, libc6 (>= {major}.{minor}), libgcc-s1\n\
         Provides: etcd, etcd-server, etcd-client\n\
         Conflicts: etcd, etcd-server, etcd-client\n\
         Replaces: etcd, etcd-server, etcd-client\n\
         Description: distributed key-value store, compatible with etcd {}\n \
         A server (etcd) and its tools (etcdctl, etcdutl) with etcd's data directory, protocols,\n \
         flags and metrics. The service is not started when the package is installed: settings are\n \
         in /{CONFFILE}.\n",
        parts.version, parts.arch, parts.level
    )
}

/// The newest version of glibc of which a program uses a symbol.
fn glibc_version(program: &[u8]) -> Option<(u32, u32)> {
    const PREFIX: &[u8] = b"GLIBC_";
    let mut newest = None;
    for at in 0..program.len().saturating_sub(PREFIX.len()) {
        let Some(rest) = program[at..].strip_prefix(PREFIX) else {
            continue;
        };
        let end = rest
            .iter()
            .position(|byte| !matches!(byte, b'0'..=b'9' | b'.'));
        let text = std::str::from_utf8(&rest[..end.unwrap_or(rest.len())]).unwrap_or_default();
        let mut numbers = text.split('.').map(str::parse);
        if let (Some(Ok(major)), Some(Ok(minor))) = (numbers.next(), numbers.next()) {
            newest = newest.max(Some((major, minor)));
        }
    }
    newest
}

fn tree_bytes(directory: &Path) -> Outcome<u64> {
    let mut sum = 0;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        sum += match entry.file_type()?.is_dir() {
            true => tree_bytes(&entry.path())?,
            false => entry.metadata()?.len(),
        };
    }
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_symbol_counts() {
        let program = b"\0GLIBC_2.4\0xGLIBC_2.34\0GLIBC_2.9\0GLIBC_PRIVATE\0GLIBC_";
        assert_eq!(glibc_version(program), Some((2, 34)));
        assert_eq!(glibc_version(b"static"), None);
    }
}
