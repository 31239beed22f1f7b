//! The table of commands.

mod alarm;
mod auth;
mod check;
mod compaction;
mod concurrency;
mod defrag;
mod downgrade;
mod elect;
mod endpoint;
mod kv;
mod lease;
mod lock;
mod member;
mod mirror;
mod move_leader;
mod role;
mod service;
mod snapshot;
mod txn;
mod user;
mod utility;
mod watch;

use bytes::Bytes;
use cli::Program;

use crate::cli::{Command, Running, globals, group};
use crate::exit::Failure;
use crate::text;

/// etcdctl.
pub(crate) static PROGRAM: Program<Running> = Program {
    root: ROOT,
    globals: globals::FLAGS,
    shows_globals: false,
    groups: group::ALL,
};

/// The command that has all others.
const ROOT: Command = Command {
    name: "etcdctl",
    short: "Talks to an etcd cluster from the command line.",
    commands: &[
        kv::GET,
        kv::PUT,
        kv::DEL,
        txn::TXN,
        compaction::COMPACTION,
        alarm::ALARM,
        defrag::DEFRAG,
        endpoint::ENDPOINT,
        move_leader::MOVE_LEADER,
        watch::WATCH,
        utility::VERSION,
        lease::LEASE,
        member::MEMBER,
        snapshot::SNAPSHOT,
        mirror::MAKE_MIRROR,
        lock::LOCK,
        elect::ELECT,
        auth::AUTH,
        user::USER,
        role::ROLE,
        check::CHECK,
        service::SERVICE,
        utility::COMPLETION,
        downgrade::DOWNGRADE,
        utility::OPTIONS,
        utility::MANUAL,
        utility::HELP,
    ],
    ..Command::EMPTY
};

/// What a mistyped ID is called in messages.
fn hex_lease(arg: &Bytes, name: &str) -> Result<i64, Failure> {
    text::parse_int(&String::from_utf8_lossy(arg), 16)
        .map_err(|why| Failure::bad_args(format!("bad {name} ({why}), expecting ID in Hex")))
}
