//! lease grant, revoke, timetolive, list, keep-alive.

use api::pb::etcdserverpb::{
    LeaseGrantRequest, LeaseLeasesRequest, LeaseRevokeRequest, LeaseTimeToLiveRequest,
};

use crate::cli::flags::Flag;
use crate::cli::globals::Session;
use crate::cli::{Call, Command, group};
use crate::exit::{self, Failure, Outcome};
use crate::print::{Answer, Format};
use crate::{log, out, text};

pub(super) const LEASE: Command = Command {
    name: "lease",
    short: "Leases. `etcdctl lease --help` lists the sub-commands",
    long: "Leases: keys that end unless somebody renews them",
    group: group::KEY_VALUE,
    commands: &[
        Command {
            name: "grant",
            usage: "<ttl>",
            short: "Creates a lease",
            run: Some(|call| Box::pin(grant(call))),
            ..Command::EMPTY
        },
        Command {
            name: "revoke",
            usage: "<leaseID>",
            short: "Ends a lease and deletes its keys",
            run: Some(|call| Box::pin(revoke(call))),
            ..Command::EMPTY
        },
        Command {
            name: "timetolive",
            usage: "<leaseID> [options]",
            short: "Tells how long a lease will live",
            flags: &[Flag::switch(
                "keys",
                "also print the keys that end with the lease",
            )],
            run: Some(|call| Box::pin(time_to_live(call))),
            ..Command::EMPTY
        },
        Command {
            name: "list",
            short: "Lists the leases that live",
            run: Some(|call| Box::pin(list(call))),
            ..Command::EMPTY
        },
        Command {
            name: "keep-alive",
            usage: "[options] <leaseID>",
            short: "Renews a lease for as long as the command runs",
            flags: &[Flag::switch("once", "renew the lease once")],
            run: Some(|call| Box::pin(keep_alive(call))),
            ..Command::EMPTY
        },
    ],
    ..Command::EMPTY
};

async fn grant(mut call: Call) -> Outcome {
    if call.args.len() != 1 {
        return Err(Failure::bad_args("lease grant command needs TTL argument"));
    }
    let ttl = text::parse_int(&call.text(0), 10)
        .map_err(|why| Failure::bad_args(format!("bad TTL ({why})")))?;
    let session = Session::new(&mut call)?;
    let client = session.connect_limited().await?;
    let answer = client
        .lease_grant(LeaseGrantRequest { ttl, id: 0 })
        .await
        .map_err(|error| failed("grant", &error))?;
    session.printer.print(&Answer::Grant(&answer))
}

async fn revoke(mut call: Call) -> Outcome {
    if call.args.len() != 1 {
        return Err(Failure::bad_args("lease revoke command needs 1 argument"));
    }
    let id = lease_id(&call)?;
    let session = Session::new(&mut call)?;
    let client = session.connect_limited().await?;
    let answer = client
        .lease_revoke(LeaseRevokeRequest { id })
        .await
        .map_err(|error| failed("revoke", &error))?;
    session.printer.print(&Answer::Revoke(id, &answer))
}

async fn time_to_live(mut call: Call) -> Outcome {
    if call.args.len() != 1 {
        return Err(Failure::bad_args(
            "lease timetolive command needs lease ID as argument",
        ));
    }
    let keys = call.flags.bool("keys");
    // As in etcdctl, an ID is looked at after the connection was made.
    let session = Session::new(&mut call)?;
    let client = session.connect().await?;
    let id = lease_id(&call)?;
    let answer = client
        .lease_time_to_live(LeaseTimeToLiveRequest { id, keys })
        .await
        .map_err(bad_connection)?;
    session.printer.print(&Answer::TimeToLive(&answer, keys))
}

async fn list(mut call: Call) -> Outcome {
    let session = Session::new(&mut call)?;
    let client = session.connect().await?;
    let answer = client
        .lease_leases(LeaseLeasesRequest {})
        .await
        .map_err(bad_connection)?;
    session.printer.print(&Answer::Leases(&answer))
}

async fn keep_alive(mut call: Call) -> Outcome {
    if call.args.len() != 1 {
        return Err(Failure::bad_args(
            "lease keep-alive command needs lease ID as argument",
        ));
    }
    let id = lease_id(&call)?;
    let once = call.flags.bool("once");
    let session = Session::new(&mut call)?;
    let client = session.connect().await?;
    if once {
        let answer = client.keep_alive_once(id).await.map_err(bad_connection)?;
        return session.printer.print(&Answer::KeepAlive(&answer));
    }
    let mut renewals = client.keep_alive(id);
    // A server that refuses ends the renewals as a lease that is gone does.
    while let Ok(Some(answer)) = renewals.next().await {
        session.printer.print(&Answer::KeepAlive(&answer))?;
    }
    if session.printer.format == Format::Simple {
        out::line(&format!("lease {id:016x} expired or revoked."));
    }
    Ok(())
}

fn lease_id(call: &Call) -> Result<i64, Failure> {
    super::hex_lease(&call.args[0], "lease ID arg")
}

fn failed(action: &str, error: &client::Error) -> Failure {
    log::cause(error);
    Failure::new(exit::ERROR, format!("failed to {action} lease ({error})"))
}

fn bad_connection(error: client::Error) -> Failure {
    Failure {
        code: exit::BAD_CONNECTION,
        ..error.into()
    }
}
