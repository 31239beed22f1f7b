//! defrag.

use std::path::Path;

use storage::datadir::DataDir;

use super::{Call, Command, data_dir, lock_timeout};
use crate::exit::{Failure, Outcome};
use crate::{database, defrag};

pub(super) const DEFRAG: Command = Command {
    name: "defrag",
    short: "Gives unused space of a data directory's database back",
    flags: &[data_dir(
        "data directory, which no running etcd may have open (required)",
    )],
    run: Some(run),
    ..Command::EMPTY
};

fn run(call: Call) -> Outcome {
    let root = call.flags.text("data-dir");
    let path = DataDir::new(Path::new(root), None).database();
    database::stat(&path)
        .and_then(|()| defrag::defragment(&path, lock_timeout(&call)))
        .map_err(|why| Failure::from(format!("Failed to defragment etcd data[{root}] ({why})")))
}
