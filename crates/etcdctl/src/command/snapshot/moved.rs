//! snapshot status and restore, which are etcdutl's since 3.6. Scripts of older days call them here;
//! etcdutl does the work.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command as Process;

use crate::cli::flags::{Flag, Kind};
use crate::cli::{Call, Command, globals};
use crate::exit::{self, Failure, Outcome};
use crate::text;

pub(super) const STATUS: Command = Command {
    name: "status",
    usage: "<filename>",
    short: "Checks a snapshot (moved to etcdutl)",
    is_hidden: true,
    run: Some(|call| Box::pin(hand_over(call))),
    ..Command::EMPTY
};

pub(super) const RESTORE: Command = Command {
    name: "restore",
    usage: "<filename> [options]",
    short: "Makes a data directory from a snapshot (moved to etcdutl)",
    flags: &[
        given("data-dir"),
        given("wal-dir"),
        given("name"),
        given("initial-cluster"),
        given("initial-cluster-token"),
        given("initial-advertise-peer-urls"),
        given("bump-revision"),
        Flag::switch("mark-compacted", ""),
        Flag::switch("skip-hash-check", ""),
    ],
    is_hidden: true,
    run: Some(|call| Box::pin(hand_over(call))),
    ..Command::EMPTY
};

/// A flag that etcdutl looks at.
const fn given(name: &'static str) -> Flag {
    Flag::text(name, "", "")
}

/// Becomes etcdutl, the one beside this program if there is one.
async fn hand_over(mut call: Call) -> Outcome {
    globals::read_environment(&mut call)?;
    let command = call.path[call.path.len() - 1];
    eprintln!(
        "Deprecated: Use `etcdutl snapshot {}` instead.\n",
        command.name
    );
    let beside = std::env::current_exe()
        .map(|own| own.with_file_name("etcdutl"))
        .ok()
        .filter(|path| path.is_file());
    let mut process = Process::new(beside.unwrap_or_else(|| PathBuf::from("etcdutl")));
    process.args(["snapshot", command.name]);
    process.arg(format!("--write-out={}", call.flags.text("write-out")));
    for flag in command
        .flags
        .iter()
        .filter(|flag| call.flags.is_given(flag.name))
    {
        match flag.kind {
            Kind::Bool => process.arg(format!("--{}={}", flag.name, call.flags.bool(flag.name))),
            _ => process.arg(format!("--{}={}", flag.name, call.flags.text(flag.name))),
        };
    }
    process.arg("--");
    process.args(call.args.iter().map(|arg| OsStr::from_bytes(arg)));
    let why = text::io_error(&process.exec());
    Err(Failure::new(
        exit::ERROR,
        format!("cannot run etcdutl: {why}"),
    ))
}
