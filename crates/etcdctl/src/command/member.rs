//! member add, remove, update, list, promote.

use api::pb::etcdserverpb::{
    MemberAddRequest, MemberAddResponse, MemberListRequest, MemberPromoteRequest,
    MemberRemoveRequest, MemberUpdateRequest,
};

use super::kv::is_serializable;
use crate::cli::flags::Flag;
use crate::cli::globals::Session;
use crate::cli::{Call, Command, group};
use crate::exit::{Failure, Outcome};
use crate::out;
use crate::print::{Answer, Format};
use crate::text::{self, quote};

pub(super) const MEMBER: Command = Command {
    name: "member",
    short: "The cluster's members. `etcdctl member --help` lists the sub-commands",
    long: "The cluster's members",
    group: group::MAINTENANCE,
    commands: &[
        Command {
            name: "add",
            usage: "<memberName> [options]",
            short: "Adds a member to the cluster",
            flags: &[
                Flag::text(
                    "peer-urls",
                    "",
                    "peer URLs of the new member, separated by commas",
                ),
                Flag::switch("learner", "add it as a learner, which does not vote"),
            ],
            run: Some(|call| Box::pin(add(call))),
            ..Command::EMPTY
        },
        Command {
            name: "remove",
            usage: "<memberID>",
            short: "Removes a member from the cluster",
            run: Some(|call| Box::pin(remove(call))),
            ..Command::EMPTY
        },
        Command {
            name: "update",
            usage: "<memberID> [options]",
            short: "Changes the peer URLs of a member",
            flags: &[Flag::text(
                "peer-urls",
                "",
                "the member's new peer URLs, separated by commas",
            )],
            run: Some(|call| Box::pin(update(call))),
            ..Command::EMPTY
        },
        Command {
            name: "list",
            short: "Lists the members of the cluster",
            long: "\
Lists the members of the cluster. In the simple format a line has: ID, status, name, peer
addresses, client addresses, and whether the member is a learner.
",
            flags: &[Flag::text(
                "consistency",
                "l",
                "l to ask the quorum (linearizable), s to ask one member (serializable)",
            )],
            run: Some(|call| Box::pin(list(call))),
            ..Command::EMPTY
        },
        Command {
            name: "promote",
            usage: "<memberID>",
            short: "Makes a learner a voting member",
            run: Some(|call| Box::pin(promote(call))),
            ..Command::EMPTY
        },
    ],
    ..Command::EMPTY
};

async fn add(mut call: Call) -> Outcome {
    if call.args.is_empty() {
        return Err(Failure::bad_args("member name not provided"));
    }
    if call.args.len() > 1 {
        let texts = (0..call.args.len()).map(|index| call.text(index).into_owned());
        let hints: String = texts
            .filter(|text| text.to_lowercase().starts_with("http"))
            .map(|text| format!(", did you mean --peer-urls={text}"))
            .collect();
        return Err(Failure::bad_args(format!("too many arguments{hints}")));
    }
    let urls = peer_urls(&call)?;
    let is_learner = call.flags.bool("learner");
    let session = Session::new(&mut call)?;
    let client = session.connect_limited().await?;
    let request = MemberAddRequest {
        peer_ur_ls: urls,
        is_learner,
    };
    let answer = client.member_add(request).await?;
    session.printer.print(&Answer::MemberAdd(&answer))?;
    if session.printer.format == Format::Simple {
        out::text(&settings(&call, &answer));
    }
    Ok(())
}

/// What the new member needs in its environment.
fn settings(call: &Call, answer: &MemberAddResponse) -> String {
    let name = call.text(0);
    let added = answer.member.as_ref().map_or(0, |member| member.id);
    let mut cluster = Vec::new();
    for member in &answer.members {
        let name = if member.id == added {
            &name
        } else {
            member.name.as_str()
        };
        cluster.extend(member.peer_ur_ls.iter().map(|url| format!("{name}={url}")));
    }
    format!(
        "\nETCD_NAME={}\nETCD_INITIAL_CLUSTER={}\nETCD_INITIAL_ADVERTISE_PEER_URLS={}\n\
         ETCD_INITIAL_CLUSTER_STATE=\"existing\"\n",
        quote(name.as_bytes()),
        quote(cluster.join(",").as_bytes()),
        quote(call.flags.text("peer-urls").as_bytes()),
    )
}

async fn remove(mut call: Call) -> Outcome {
    let id = member_id(&call)?;
    let session = Session::new(&mut call)?;
    let client = session.connect_limited().await?;
    let answer = client.member_remove(MemberRemoveRequest { id }).await?;
    session.printer.print(&Answer::MemberRemove(id, &answer))
}

async fn update(mut call: Call) -> Outcome {
    let id = member_id(&call)?;
    let urls = peer_urls(&call)?;
    let session = Session::new(&mut call)?;
    let client = session.connect_limited().await?;
    let answer = client
        .member_update(MemberUpdateRequest {
            id,
            peer_ur_ls: urls,
        })
        .await?;
    session.printer.print(&Answer::MemberUpdate(id, &answer))
}

async fn list(mut call: Call) -> Outcome {
    let linearizable = !is_serializable(call.flags.text("consistency"))?;
    let session = Session::new(&mut call)?;
    let client = session.connect_limited().await?;
    let answer = client
        .member_list(MemberListRequest { linearizable })
        .await?;
    session.printer.print(&Answer::MemberList(&answer))
}

async fn promote(mut call: Call) -> Outcome {
    let id = member_id(&call)?;
    let session = Session::new(&mut call)?;
    let client = session.connect_limited().await?;
    let answer = client.member_promote(MemberPromoteRequest { id }).await?;
    session.printer.print(&Answer::MemberPromote(id, &answer))
}

fn member_id(call: &Call) -> Result<u64, Failure> {
    if call.args.len() != 1 {
        return Err(Failure::bad_args("member ID is not provided"));
    }
    text::parse_uint(&call.text(0), 16)
        .map_err(|why| Failure::bad_args(format!("bad member ID arg ({why}), expecting ID in Hex")))
}

fn peer_urls(call: &Call) -> Result<Vec<String>, Failure> {
    match call.flags.text("peer-urls") {
        "" => Err(Failure::bad_args("member peer urls not provided")),
        urls => Ok(urls.split(',').map(str::to_owned).collect()),
    }
}
