//! move-leader.

use api::pb::etcdserverpb::{MoveLeaderRequest, StatusRequest};

use crate::cli::globals::{Session, endpoints};
use crate::cli::{Call, Command, group};
use crate::exit::{Failure, Outcome};
use crate::print::Answer;
use crate::text;

pub(super) const MOVE_LEADER: Command = Command {
    name: "move-leader",
    usage: "<transferee-member-id>",
    short: "Hands leadership to another member",
    group: group::MAINTENANCE,
    run: Some(|call| Box::pin(move_leader(call))),
    ..Command::EMPTY
};

async fn move_leader(mut call: Call) -> Outcome {
    if call.args.len() != 1 {
        return Err(Failure::bad_args("move-leader command needs 1 argument"));
    }
    let target = text::parse_uint(&call.text(0), 16).map_err(Failure::bad_args)?;
    let session = Session::new(&mut call)?;
    let endpoints = endpoints(&call.flags)?;
    for endpoint in &endpoints {
        let client = session.connect_to(endpoint).await?;
        let status = client.status(StatusRequest {}).await?;
        if status
            .header
            .is_some_and(|header| header.member_id == status.leader)
        {
            let answer = client
                .move_leader(MoveLeaderRequest { target_id: target })
                .await?;
            return session
                .printer
                .print(&Answer::MoveLeader(status.leader, target, &answer));
        }
    }
    let text = format!("no leader endpoint given at [{}]", endpoints.join(" "));
    Err(Failure::bad_args(text))
}
