//! Files of Go's etcd in the hands of its etcdutl and of ours: what both say and what both make
//! must be equal, and servers must start from it.
//!
//! `ETCD_REFERENCE`, `ETCDCTL_REFERENCE` and `ETCDUTL_REFERENCE` name Go's binaries (3.7);
//! `ETCD_OLDER_REFERENCE` a server of 3.6 and `ETCDUTL_TABLE_REFERENCE` an etcdutl of 3.6, which
//! draws tables in ASCII. `ETCD_BIN`, if set, is our server, which must start from the same files.
//!
//! `cargo test -p etcdutl --features live --test live -- --nocapture`

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod cluster;
mod directory;
mod files;
mod server;

use std::path::{Path, PathBuf};

use server::{Member, Place, Said, binary, places, run};

/// Our etcdutl.
fn ours() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_etcdutl"))
}

/// Go's.
fn reference() -> PathBuf {
    binary("ETCDUTL_REFERENCE")
}

/// Runs an etcdutl that must succeed.
fn make(etcdutl: &Path, args: &[&str], directory: &Path) -> Said {
    let said = run(etcdutl, args, directory);
    assert_eq!(said.code, Some(0), "{args:?}: {}", said.stderr);
    said
}

/// Writes a history with everything in it that a restore must keep: keys that changed, that were
/// deleted before and after a compaction, a large value, a lease with keys.
fn fill(member: &Member) {
    for n in 0..30 {
        member.tell(&["put", &format!("key{}", n % 11), &format!("value {n}")]);
    }
    member.tell(&["del", "key3"]);
    member.tell(&["compaction", "20"]);
    member.tell(&["del", "key4"]);
    member.tell(&["put", "large", &"x".repeat(50_000)]);
    let granted = member.tell(&["lease", "grant", "7200"]);
    let lease = granted.split(' ').nth(1).unwrap().to_owned();
    member.tell(&["put", "--lease", &lease, "leased", "while it lasts"]);
}

/// A member of `server` with such a history that has ended, and a snapshot of it.
fn source(server: &Path, directory: &Path, place: &Place) -> PathBuf {
    let data_dir = directory.join("source");
    let member = Member::start(server, &data_dir, place);
    fill(&member);
    let snapshot = directory.join("snapshot.db");
    member.tell(&["snapshot", "save", snapshot.to_str().unwrap()]);
    member.stop();
    snapshot
}

/// What clients see of a member, without what differs from run to run.
fn seen(member: &Member) -> Vec<String> {
    let keys = member.tell(&["get", "", "--from-key", "-w", "json"]);
    let leases = member.tell(&["lease", "list"]);
    let lease = leases.lines().last().unwrap().to_owned();
    let attached = member.tell(&["lease", "timetolive", "--keys", &lease]);
    let attached = attached.split("attached keys").nth(1).map(str::to_owned);
    let hash = member.tell(&["endpoint", "hashkv", "-w", "simple"]);
    vec![
        keys[keys.find("\"kvs\"").unwrap()..].to_owned(),
        leases,
        attached.unwrap(),
        hash.split(", ").skip(1).collect::<Vec<_>>().join(", "),
        member.tell(&["member", "list"]),
    ]
}

fn one_place() -> Place {
    places(1).remove(0)
}
