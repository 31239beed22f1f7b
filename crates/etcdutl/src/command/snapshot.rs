//! snapshot status, snapshot restore.

use std::path::{Path, PathBuf};

use cli::flags::{Flag, Kind};
use storage::datadir::DataDir;

use super::{Call, Command, format, lock_timeout};
use crate::exit::{Failure, Outcome};
use crate::restore::{self, Request};
use crate::{database, print, status};

pub(super) const SNAPSHOT: Command = Command {
    name: "snapshot",
    short: "Looks at snapshots and makes members from them",
    commands: &[RESTORE, STATUS],
    ..Command::EMPTY
};

const STATUS: Command = Command {
    name: "status",
    usage: "<filename>",
    short: "Checks a snapshot and tells what is in it",
    long: "\
Checks every page of a snapshot and tells its hash, revision, number of keys, size and the
version of its schema.
",
    run: Some(tell),
    ..Command::EMPTY
};

const RESTORE: Command = Command {
    name: "restore",
    usage: "<filename> --data-dir {output dir} [options]",
    short: "Makes a member's data directory from a snapshot",
    long: "\
Makes a data directory for one member of a new cluster from a snapshot. It is run once for each
member, with the same snapshot, cluster and token; then the members are started.
",
    flags: &[
        Flag::text(
            "data-dir",
            "",
            "data directory to make (name.etcd if not given)",
        ),
        Flag::text(
            "wal-dir",
            "",
            "directory for the log, if not below the data directory",
        ),
        Flag::text(
            "initial-cluster",
            "default=http://localhost:2380",
            "members of the new cluster",
        ),
        Flag::text(
            "initial-cluster-token",
            "etcd-cluster",
            "what sets the new cluster apart from others with the same addresses",
        ),
        Flag::text(
            "initial-advertise-peer-urls",
            "http://localhost:2380",
            "peer URLs of this member, as in the initial cluster",
        ),
        Flag::text("name", "default", "name of this member"),
        Flag::switch(
            "skip-hash-check",
            "take a file without digest, such as a database from a data directory",
        ),
        uint(
            "initial-memory-map-size",
            "10737418240",
            "accepted for scripts; the database is not mapped into memory",
        ),
        uint(
            "bump-revision",
            "0",
            "how much to raise the newest revision, beyond what clients may have seen",
        ),
        Flag::switch(
            "mark-compacted",
            "compact up to the raised revision, so that watches notice (with --bump-revision)",
        ),
    ],
    run: Some(make),
    ..Command::EMPTY
};

const fn uint(name: &'static str, default: &'static str, help: &'static str) -> Flag {
    Flag {
        kind: Kind::Uint,
        ..Flag::text(name, default, help)
    }
}

fn tell(call: Call) -> Outcome {
    if call.args.len() != 1 {
        let text = "snapshot status requires exactly one argument";
        return Err(Failure::bad_args(text));
    }
    let path = call.text(0);
    let path = Path::new(&*path);
    database::stat(path)?;
    let format = format(&call)?;
    print::status(format, &status::read(path, lock_timeout(&call))?)
}

fn make(call: Call) -> Outcome {
    if call.args.len() != 1 {
        let text = "snapshot restore requires exactly one argument";
        return Err(Failure::bad_args(text));
    }
    let flags = &call.flags;
    let (bump, compacted) = (flags.uint("bump-revision"), flags.bool("mark-compacted"));
    if (bump > 0) != compacted {
        let text = "--mark-compacted required if --revision-bump > 0";
        return Err(Failure::bad_args(text));
    }
    let name = flags.text("name");
    let root = match flags.text("data-dir") {
        "" => PathBuf::from(format!("{name}.etcd")),
        root => PathBuf::from(root),
    };
    let wal = Some(flags.text("wal-dir")).filter(|wal| !wal.is_empty());
    restore::restore(&Request {
        snapshot: PathBuf::from(&*call.text(0)),
        dir: DataDir::new(&root, wal.map(Path::new)),
        name: name.to_owned(),
        peer_urls: flags.text("initial-advertise-peer-urls").to_owned(),
        initial_cluster: flags.text("initial-cluster").to_owned(),
        token: flags.text("initial-cluster-token").to_owned(),
        skip_hash_check: flags.bool("skip-hash-check"),
        memory_map_bytes: flags.uint("initial-memory-map-size"),
        bump,
    })?;
    Ok(())
}
