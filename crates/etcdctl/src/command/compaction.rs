//! compaction.

use api::pb::etcdserverpb::CompactionRequest;

use crate::cli::flags::Flag;
use crate::cli::globals::Session;
use crate::cli::{Call, Command, group};
use crate::exit::{self, Failure, Outcome};
use crate::{out, text};

pub(super) const COMPACTION: Command = Command {
    name: "compaction",
    usage: "[options] <revision>",
    short: "Drops the history before a revision",
    group: group::KEY_VALUE,
    flags: &[Flag::switch(
        "physical",
        "wait until the old revisions are gone from the database",
    )],
    run: Some(|call| Box::pin(compaction(call))),
    ..Command::EMPTY
};

async fn compaction(mut call: Call) -> Outcome {
    if call.args.len() != 1 {
        return Err(Failure::bad_args("compaction command needs 1 argument"));
    }
    let revision =
        text::parse_int(&call.text(0), 10).map_err(|text| Failure::new(exit::ERROR, text))?;
    let physical = call.flags.bool("physical");
    let session = Session::new(&mut call)?;
    session
        .connect_limited()
        .await?
        .compact(CompactionRequest { revision, physical })
        .await?;
    out::line(&format!("compacted revision {revision}"));
    Ok(())
}
