//! The table of commands.

mod defrag;
mod hashkv;
mod migrate;
mod snapshot;
mod utility;

use std::time::Duration;

use cli::Program;
use cli::flags::{Flag, Kind};

use crate::exit::{Failure, Outcome};
use crate::print::Format;

/// One row of the table of commands.
type Command = cli::Command<Outcome>;

/// A command with what the command line gave it.
type Call = cli::Call<Outcome>;

/// etcdutl.
pub(crate) static PROGRAM: Program<Outcome> = Program {
    root: Command {
        name: "etcdutl",
        short: "Works on files of etcd that no server has open.",
        commands: &[
            defrag::DEFRAG,
            snapshot::SNAPSHOT,
            hashkv::HASHKV,
            utility::VERSION,
            utility::COMPLETION,
            migrate::MIGRATE,
            utility::HELP,
            utility::MANUAL,
        ],
        ..Command::EMPTY
    },
    globals: &[
        Flag {
            kind: Kind::Duration,
            ..Flag::text(
                "timeout",
                "10s",
                "how long to wait for the lock of a database (0 means for ever)",
            )
        },
        Flag {
            short: Some('w'),
            ..Flag::text(
                "write-out",
                "simple",
                "output format: fields, json, protobuf, simple or table",
            )
        },
    ],
    shows_globals: true,
    groups: &[],
};

/// `--data-dir` of commands that cannot do without.
const fn data_dir(help: &'static str) -> Flag {
    Flag {
        is_required: true,
        ..Flag::text("data-dir", "", help)
    }
}

fn format(call: &Call) -> Result<Format, Failure> {
    Format::parse(call.flags.text("write-out"))
}

fn lock_timeout(call: &Call) -> Duration {
    call.flags.duration("timeout")
}
