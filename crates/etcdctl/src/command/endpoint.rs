//! endpoint health, status, hashkv.

use std::time::Duration;

use api::pb::etcdserverpb::{
    AlarmRequest, AlarmType, HashKvRequest, MemberListRequest, RangeRequest, StatusRequest,
};
use bytes::Bytes;
use client::Client;
use tokio::time::Instant;

use crate::cli::flags::Flag;
use crate::cli::globals::Session;
use crate::cli::{Call, Command, group};
use crate::exit::{self, Failure, Outcome};
use crate::print::{Answer, Health};
use crate::{log, text};

/// The flag of commands that can ask every member.
pub(super) const CLUSTER: Flag =
    Flag::switch("cluster", "use the client URLs of all members as endpoints");

pub(super) const ENDPOINT: Command = Command {
    name: "endpoint",
    short: "Single servers. `etcdctl endpoint --help` lists the sub-commands",
    long: "What single servers say about themselves",
    group: group::MAINTENANCE,
    flags: &[CLUSTER],
    inherit_flags: true,
    commands: &[
        Command {
            name: "health",
            short: "Tells whether each endpoint can serve requests",
            run: Some(|call| Box::pin(health(call))),
            ..Command::EMPTY
        },
        Command {
            name: "status",
            short: "Prints what each endpoint says about itself",
            long: "\
Prints what each endpoint says about itself. In the simple format a line has: endpoint, ID,
version, storage version, size of the database, the part of it in use, the percentage not in
use, quota, whether it leads, whether it is a learner, raft term, raft index, raft applied
index, errors, and the target version of a downgrade and whether one is under way.
",
            run: Some(|call| Box::pin(status(call))),
            ..Command::EMPTY
        },
        Command {
            name: "hashkv",
            short: "Prints a hash of the history of keys of each endpoint",
            flags: &[Flag::int(
                "rev",
                "hash up to this revision (0 means the newest)",
            )],
            run: Some(|call| Box::pin(hash_kv(call))),
            ..Command::EMPTY
        },
    ],
    ..Command::EMPTY
};

/// The endpoints to ask one by one: those of the flag, or those that the cluster names.
///
/// # Errors
/// The cluster could not be asked.
pub(super) async fn endpoints(call: &Call, session: &Session) -> Result<Vec<String>, Failure> {
    if !call.flags.bool("cluster") {
        return Ok(call.flags.list("endpoints"));
    }
    let client = session.connect_limited().await?;
    let answer = client
        .member_list(MemberListRequest { linearizable: true })
        .await;
    let answer = answer.map_err(|error| {
        log::cause(&error);
        let text = format!("failed to fetch endpoints from etcd cluster member list: {error}");
        Failure::new(exit::ERROR, text)
    })?;
    Ok(answer
        .members
        .into_iter()
        .flat_map(|member| member.client_ur_ls)
        .collect())
}

async fn health(mut call: Call) -> Outcome {
    let session = Session::new(&mut call)?;
    let mut checks = Vec::new();
    for endpoint in endpoints(&call, &session).await? {
        let config = client::Config {
            endpoints: vec![endpoint.clone()],
            ..session.config.clone()
        };
        let deadline = session.deadline();
        checks.push(tokio::spawn(async move {
            match Client::connect(config).await {
                Ok(client) => check(endpoint, client.with_deadline(deadline)).await,
                Err(error) => {
                    log::cause(&error);
                    let error = error.to_string();
                    Health {
                        endpoint,
                        is_healthy: false,
                        took: String::new(),
                        error,
                    }
                }
            }
        }));
    }
    let mut answers = Vec::new();
    for check in checks {
        let text = |error: tokio::task::JoinError| Failure::new(exit::ERROR, error.to_string());
        answers.push(check.await.map_err(text)?);
    }
    session.printer.print(&Answer::Health(&answers))?;
    match answers.iter().any(|answer| !answer.error.is_empty()) {
        true => Err(Failure::new(exit::ERROR, "unhealthy cluster")),
        false => Ok(()),
    }
}

/// Reads a key through consensus. Being denied it is an answer of a healthy cluster as well.
async fn check(endpoint: String, client: Client) -> Health {
    let begin = Instant::now();
    let key = Bytes::from_static(b"health");
    let read = client
        .range(RangeRequest {
            key,
            ..RangeRequest::default()
        })
        .await;
    let took = text::duration(begin.elapsed());
    let error = match read {
        Err(error) if !error.is(api::Error::PermissionDenied) => {
            log::cause(&error);
            error.to_string()
        }
        _ => alarm_text(&client).await,
    };
    Health {
        endpoint,
        is_healthy: error.is_empty(),
        took,
        error,
    }
}

/// What the cluster's alarms say against its health; empty without alarms.
async fn alarm_text(client: &Client) -> String {
    let Ok(answer) = client.alarm(AlarmRequest::default()).await else {
        return "Unable to fetch the alarm list".to_owned();
    };
    if answer.alarms.is_empty() {
        return String::new();
    }
    let name = |kind| match kind {
        AlarmType::Nospace => "NOSPACE ",
        AlarmType::Corrupt => "CORRUPT ",
        AlarmType::None => "UNKNOWN ",
    };
    let names: String = answer
        .alarms
        .iter()
        .map(|alarm| name(alarm.alarm()))
        .collect();
    format!("Active Alarm(s): {names}")
}

async fn status(mut call: Call) -> Outcome {
    let session = Session::new(&mut call)?;
    let mut answers = Vec::new();
    let mut failed = false;
    for endpoint in endpoints(&call, &session).await? {
        let client = session.connect_to(&endpoint).await?;
        match client.status(StatusRequest {}).await {
            Ok(answer) => answers.push((endpoint, answer)),
            Err(error) => {
                log::cause(&error);
                eprintln!("Failed to get the status of endpoint {endpoint} ({error})");
                failed = true;
            }
        }
    }
    session.printer.print(&Answer::Status(&answers))?;
    if failed {
        Err(Failure::silent(exit::ERROR))
    } else {
        Ok(())
    }
}

async fn hash_kv(mut call: Call) -> Outcome {
    let revision = call.flags.int("rev");
    let session = Session::new(&mut call)?;
    let mut answers = Vec::new();
    let mut last = None;
    for endpoint in endpoints(&call, &session).await? {
        let client = session.connect_to(&endpoint).await?;
        match client.hash_kv(HashKvRequest { revision }).await {
            Ok(answer) => answers.push((endpoint, answer)),
            Err(error) => {
                eprintln!("Failed to get the hash of endpoint {endpoint} ({error})");
                last = Some(error);
            }
        }
    }
    session.printer.print(&Answer::HashKv(&answers))?;
    last.map_or(Ok(()), |error| Err(error.into()))
}

/// How long something took, as commands print it.
pub(super) fn took(begin: Instant) -> String {
    let elapsed: Duration = begin.elapsed();
    text::duration(elapsed)
}
