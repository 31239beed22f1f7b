//! hashkv.

use std::path::Path;

use cli::flags::Flag;

use super::{Call, Command, format, lock_timeout};
use crate::exit::Outcome;
use crate::{hash, print};

pub(super) const HASHKV: Command = Command {
    name: "hashkv",
    usage: "<filename>",
    short: "Prints the hash of a database's keys and their history",
    flags: &[Flag::int(
        "rev",
        "last revision that the hash covers (0 means the newest)",
    )],
    run: Some(hashkv),
    ..Command::EMPTY
};

fn hashkv(call: Call) -> Outcome {
    call.expect_args(1)?;
    let format = format(&call)?;
    let path = call.text(0);
    let hash = hash::read(
        Path::new(&*path),
        call.flags.int("rev"),
        lock_timeout(&call),
    )?;
    print::hash_kv(format, &hash)
}
