//! Directories that cannot be used, and a disk that fills up.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::{block, no_panic, start};
use crate::kv::{Kv, said};
use crate::{Error, Member, Options};

/// Not root, and owner of nothing.
const NOBODY: &str = "65534";
const VALUE_BYTES: usize = 64 * 1024;
/// Room for two WAL segments of 64 MB and something to fill.
const TMPFS_MIB: usize = 200;
const LIMIT: Duration = Duration::from_secs(60);

/// A directory that its user may not write.
pub(super) fn unwritable(binary: &Path) -> Result<String, Error> {
    let directory = scratch("unwritable")?;
    // The binary may lie where only root can read.
    let copy = directory.0.join("etcd");
    std::fs::copy(binary, &copy)?;
    set_mode(&copy, 0o755)?;
    let home = directory.0.join("home");
    std::fs::create_dir_all(home.join("data"))?;
    set_mode(&home.join("data"), 0o555)?;
    std::fs::write(home.join("member.log"), "")?;
    let options = Options {
        binary: Some(copy),
        data_dir: Some(home),
        wrapper: as_nobody(),
        ..Options::default()
    };
    let mut member = Member::prepare(options)?;
    member.spawn()?;
    let status = member.wait_for_exit()?;
    no_panic(&member)?;
    let log = member.log();
    if status.success() || !log.to_lowercase().contains("permission denied") {
        return Err(Error(format!("{status}, said:\n{log}")));
    }
    Ok(format!("{status}"))
}

/// When tests run as root, the member must not.
fn as_nobody() -> Vec<String> {
    let words = [
        "setpriv",
        "--reuid",
        NOBODY,
        "--regid",
        NOBODY,
        "--clear-groups",
    ];
    if is_root() {
        words.map(String::from).to_vec()
    } else {
        Vec::new()
    }
}

fn is_root() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    status.lines().any(|line| line.starts_with("Uid:\t0\t"))
}

/// A second member on the same directory does not come up, the first goes on.
pub(super) fn locked(binary: &Path) -> Result<String, Error> {
    let first = start(binary)?;
    let data_dir = first.data_dir().parent().map(Path::to_path_buf);
    let second = Options {
        binary: Some(binary.into()),
        data_dir,
        ..Options::default()
    };
    let mut second = Member::prepare(second)?;
    second.spawn()?;
    let deadline = Instant::now() + Duration::from_secs(3);
    let mut told = "it waits";
    while Instant::now() < deadline {
        if second.poll_exit()?.is_some() {
            told = "it ends";
            break;
        }
        if crate::http::get(second.address(), "/health").is_ok_and(|one| one.status == 200) {
            return Err(Error("both run on one directory".into()));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    no_panic(&second)?;
    block(Kv::to(first.address()).put("a".into(), "1".into())).map_err(said)?;
    Ok(told.into())
}

/// A disk without room: what was acknowledged is there when there is room again.
pub(super) fn full(binary: &Path) -> Result<String, Error> {
    let directory = scratch("full")?;
    let small = directory.0.join("small");
    std::fs::create_dir_all(&small)?;
    let options = Options {
        binary: Some(binary.into()),
        data_dir: Some(directory.0.join("home")),
        flags: vec![format!("--data-dir={}", small.join("data").display())],
        wrapper: in_tmpfs(&small, &directory.0),
        ..Options::default()
    };
    let mut member = Member::start(options)?;
    let acknowledged = fill(&mut member)?;
    end_inside(&mut member, &directory.0)?;
    no_panic(&member)?;
    let log = member.log();
    if !log.to_lowercase().contains("no space left") {
        return Err(Error(format!("it never says why:\n{}", tail(&log))));
    }
    let roomy = Options {
        binary: Some(binary.into()),
        data_dir: Some(directory.0.join("saved")),
        ..Options::default()
    };
    let member = Member::start(roomy)?;
    let (revision, keys) = block(Kv::to(member.address()).all(0))?;
    for (number, at) in acknowledged.iter().enumerate() {
        let key = key_of(number);
        if keys.get(&key).is_none_or(|kv| kv.mod_revision != *at) {
            return Err(Error(format!("LOST: {key:?} of revision {at}")));
        }
    }
    Ok(format!(
        "{} acknowledged puts are there, revision {revision}",
        acknowledged.len()
    ))
}

fn key_of(number: usize) -> Bytes {
    format!("full/{number:06}").into()
}

/// Puts until the member ends or refuses ten in a row; the revisions of the acknowledged.
fn fill(member: &mut Member) -> Result<Vec<i64>, Error> {
    let kv = Kv::to(member.address());
    let mut acknowledged = Vec::new();
    let mut refused = 0;
    let begin = Instant::now();
    while refused < 10 && member.poll_exit()?.is_none() {
        if begin.elapsed() > LIMIT {
            return Err(Error(format!("{} puts and no end", acknowledged.len())));
        }
        let value = Bytes::from(vec![b'f'; VALUE_BYTES]);
        let put = kv.put(key_of(acknowledged.len()), value);
        match block(async { tokio::time::timeout(Duration::from_secs(3), put).await }) {
            // After a refusal the key may exist; nothing more is claimed about it.
            Ok(Ok(revision)) if refused == 0 => acknowledged.push(revision),
            _ => refused += 1,
        }
    }
    Ok(acknowledged)
}

/// In a mount namespace of its own: a small tmpfs, the member on it, and at the end a copy of
/// the directory to the outside.
fn in_tmpfs(small: &Path, outside: &Path) -> Vec<String> {
    let script = format!(
        "mount -t tmpfs -o size={TMPFS_MIB}m tmpfs {small} && {{ \"$@\" & }} && echo $! > {outside}/pid && wait $!; \
         mkdir -p {outside}/saved && cp -a {small}/data {outside}/saved/",
        small = small.display(),
        outside = outside.display(),
    );
    let unshare = if is_root() { "-m" } else { "-rm" };
    ["unshare", unshare, "sh", "-c", &script, "sh"]
        .map(String::from)
        .to_vec()
}

/// Kills the member inside the namespace; its shell then saves the directory.
fn end_inside(member: &mut Member, outside: &Path) -> Result<(), Error> {
    let pid = std::fs::read_to_string(outside.join("pid"))?;
    // Fails when the member has ended by itself, which is as good.
    let _ = Command::new("kill").args(["-KILL", pid.trim()]).status()?;
    member.wait_for_exit().map(|_| ())
}

fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().rev().take(5).collect();
    lines.into_iter().rev().collect::<Vec<_>>().join("\n")
}

fn set_mode(path: &Path, mode: u32) -> Result<(), Error> {
    Ok(std::fs::set_permissions(
        path,
        std::fs::Permissions::from_mode(mode),
    )?)
}

/// A directory that goes away at the end.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        crate::member::remove(&self.0);
    }
}

fn scratch(name: &str) -> Result<Scratch, Error> {
    let path = std::env::temp_dir().join(format!("etcd-bad-{name}-{}", std::process::id()));
    std::fs::create_dir_all(&path)?;
    set_mode(&path, 0o755)?;
    Ok(Scratch(path))
}
