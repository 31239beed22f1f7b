//! alarm list, disarm.

use api::pb::etcdserverpb::alarm_request::AlarmAction;
use api::pb::etcdserverpb::{AlarmRequest, AlarmResponse};

use crate::cli::globals::Session;
use crate::cli::{Call, Command, group};
use crate::exit::{Failure, Outcome};
use crate::print::Answer;

pub(super) const ALARM: Command = Command {
    name: "alarm",
    short: "Alarms. `etcdctl alarm --help` lists the sub-commands",
    long: "Alarms that members have raised",
    group: group::MAINTENANCE,
    commands: &[
        Command {
            name: "disarm",
            short: "Clears all alarms",
            run: Some(|call| Box::pin(disarm(call))),
            ..Command::EMPTY
        },
        Command {
            name: "list",
            short: "Lists all alarms",
            run: Some(|call| Box::pin(list(call))),
            ..Command::EMPTY
        },
    ],
    ..Command::EMPTY
};

async fn list(mut call: Call) -> Outcome {
    if !call.args.is_empty() {
        return Err(Failure::bad_args("alarm list command accepts no arguments"));
    }
    let session = Session::new(&mut call)?;
    let answer = session
        .connect_limited()
        .await?
        .alarm(AlarmRequest::default())
        .await?;
    session.printer.print(&Answer::Alarm(&answer))
}

async fn disarm(mut call: Call) -> Outcome {
    if !call.args.is_empty() {
        return Err(Failure::bad_args(
            "alarm disarm command accepts no arguments",
        ));
    }
    let session = Session::new(&mut call)?;
    let client = session.connect_limited().await?;
    let mut cleared = AlarmResponse::default();
    for alarm in client.alarm(AlarmRequest::default()).await?.alarms {
        let request = AlarmRequest {
            action: AlarmAction::Deactivate.into(),
            member_id: alarm.member_id,
            alarm: alarm.alarm,
        };
        cleared.alarms.extend(client.alarm(request).await?.alarms);
    }
    session.printer.print(&Answer::Alarm(&cleared))
}
