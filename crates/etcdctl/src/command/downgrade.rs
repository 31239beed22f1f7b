//! downgrade validate, enable, cancel.

use api::pb::etcdserverpb::{DowngradeRequest, downgrade_request::DowngradeAction};

use crate::cli::globals::Session;
use crate::cli::{Call, Command, group};
use crate::exit::{Failure, Outcome};
use crate::print::Answer;

pub(super) const DOWNGRADE: Command = Command {
    name: "downgrade",
    short: "Ways back to an older version. `etcdctl downgrade --help` lists the sub-commands",
    long: "Ways back to an older version",
    group: group::MAINTENANCE,
    commands: &[
        Command {
            name: "validate",
            usage: "<TARGET_VERSION>",
            short: "Tells whether the cluster could go back to a version",
            run: Some(|call| Box::pin(downgrade(call, DowngradeAction::Validate, "validate"))),
            ..Command::EMPTY
        },
        Command {
            name: "enable",
            usage: "<TARGET_VERSION>",
            short: "Starts the way back to a version",
            run: Some(|call| Box::pin(downgrade(call, DowngradeAction::Enable, "enable"))),
            ..Command::EMPTY
        },
        Command {
            name: "cancel",
            short: "Gives a way back up",
            run: Some(|call| Box::pin(downgrade(call, DowngradeAction::Cancel, "cancel"))),
            ..Command::EMPTY
        },
    ],
    ..Command::EMPTY
};

async fn downgrade(mut call: Call, action: DowngradeAction, name: &'static str) -> Outcome {
    let version = match (action, call.args.len()) {
        (DowngradeAction::Cancel, _) => String::new(),
        (_, 0) => return Err(Failure::bad_args("TARGET_VERSION not provided")),
        (_, 1) => call.text(0).into_owned(),
        _ => return Err(Failure::bad_args("too many arguments")),
    };
    if action != DowngradeAction::Cancel && version.is_empty() {
        return Err(Failure::bad_args("target version not provided"));
    }
    let session = Session::new(&mut call)?;
    let client = session.connect_limited().await?;
    let answer = client
        .downgrade(DowngradeRequest {
            action: action.into(),
            version,
        })
        .await?;
    session.printer.print(&Answer::Downgrade(name, &answer))
}
