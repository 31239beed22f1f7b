//! Bad input: whatever comes over the wire or lies on the disk, a member says what is wrong
//! or goes on; it does not panic, and it neither loses nor skips what it acknowledged.

mod calls;
mod damage;
mod disk;
mod json;
mod peer;
mod wire;

use std::path::Path;

use crate::{Error, Member, Options};

/// One thing that is tried on a fresh member.
struct Check {
    name: &'static str,
    run: fn(&Path) -> Result<String, Error>,
}

const CHECKS: [Check; 25] = [
    Check {
        name: "wire-garbage",
        run: wire::garbage,
    },
    Check {
        name: "wire-frames",
        run: wire::frames,
    },
    Check {
        name: "wire-requests",
        run: wire::requests,
    },
    Check {
        name: "wire-floods",
        run: wire::floods,
    },
    Check {
        name: "wire-half-open",
        run: wire::half_open,
    },
    Check {
        name: "wire-oversized",
        run: wire::oversized,
    },
    Check {
        name: "call-requests",
        run: calls::requests,
    },
    Check {
        name: "call-stopped-readers",
        run: calls::stopped_readers,
    },
    Check {
        name: "json-requests",
        run: json::requests,
    },
    Check {
        name: "json-half-sent",
        run: json::half_sent,
    },
    Check {
        name: "json-stopped-readers",
        run: json::stopped_readers,
    },
    Check {
        name: "json-many-watches",
        run: json::many_watches,
    },
    Check {
        name: "json-sockets",
        run: json::sockets,
    },
    Check {
        name: "peer-requests",
        run: peer::requests,
    },
    Check {
        name: "peer-floods",
        run: peer::floods,
    },
    Check {
        name: "peer-snapshots",
        run: peer::snapshots,
    },
    Check {
        name: "peer-streams",
        run: peer::streams,
    },
    Check {
        name: "disk-unwritable",
        run: disk::unwritable,
    },
    Check {
        name: "disk-locked",
        run: disk::locked,
    },
    Check {
        name: "disk-full",
        run: disk::full,
    },
    Check {
        name: "wal-torn-tail",
        run: damage::torn_tail,
    },
    Check {
        name: "wal-truncated",
        run: damage::truncated,
    },
    Check {
        name: "wal-lengths",
        run: damage::lengths,
    },
    Check {
        name: "wal-records",
        run: damage::records,
    },
    Check {
        name: "bolt-pages",
        run: damage::pages,
    },
];

/// Runs every check whose name contains `only`, all of them however many fail.
///
/// # Errors
/// The names of the checks that failed, or `only` is in no name.
pub fn run(binary: &Path, only: &str) -> Result<(), Error> {
    let mut failed = Vec::new();
    let named = |check: &&Check| check.name.contains(only);
    let chosen: Vec<&Check> = CHECKS.iter().filter(named).collect();
    if chosen.is_empty() {
        return Err(Error("nothing has such a name".into()));
    }
    for check in &chosen {
        match (check.run)(binary) {
            Ok(found) => println!("ok    {:16} {found}", check.name),
            Err(error) => {
                println!("WRONG {:16} {error}", check.name);
                failed.push(check.name);
            }
        }
    }
    match failed.as_slice() {
        [] => Ok(()),
        names => Err(Error(format!(
            "{} of {}: {names:?}",
            names.len(),
            chosen.len()
        ))),
    }
}

fn start(binary: &Path) -> Result<Member, Error> {
    Member::start(Options {
        binary: Some(binary.into()),
        ..Options::default()
    })
}

/// The process never panicked.
fn no_panic(member: &Member) -> Result<(), Error> {
    let log = member.log();
    let marks = ["panicked at", "goroutine ", "SIGSEGV", "stack overflow"];
    match log
        .lines()
        .find(|line| marks.iter().any(|mark| line.contains(mark)))
    {
        Some(line) => Err(Error(format!("PANIC: {line}"))),
        None => Ok(()),
    }
}

/// Blocking wrapper for the few calls that checks make.
fn block<T>(future: impl Future<Output = T>) -> T {
    tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(future))
}
