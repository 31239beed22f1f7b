//! Errors: each text stands in the program, and most are met on the wire with their codes.

use api::pb::etcdserverpb::{
    AuthenticateRequest, MemberAddRequest, MemberListRequest, MemberPromoteRequest,
};
use client::stub::{AuthClient, ClusterClient};
use tonic::Status;

use super::{Found, Plan, lines};
use crate::kv::{Kv, said};
use crate::raw::Connection;
use crate::scenario::schema;
use crate::{Error, Member, Options};

const TABLE: &str = include_str!("../../spec/errors.txt");
const PROVOKE: &str = include_str!("../../spec/provoke.txt");

/// Name, code and text of every error.
fn table() -> Vec<[&'static str; 3]> {
    lines(TABLE)
        .map(|line| {
            let mut cells = line.split('\t');
            [(); 3].map(|()| cells.next().unwrap_or_default())
        })
        .collect()
}

/// Looks for the texts in the program, then meets them.
///
/// # Errors
/// The program cannot be read or started.
pub(super) async fn walk(plan: &Plan) -> Result<Found, Error> {
    let mut found = Found::default();
    let program = std::fs::read(&plan.etcd)?;
    for [name, _, text] in table() {
        let is_there = memmem(&program, text.as_bytes());
        found.line(
            "error",
            name,
            match is_there {
                true => Ok(()),
                false => Err("its text is not in the program".to_owned()),
            },
        );
    }
    let member = Member::start(Options {
        binary: Some(plan.etcd.clone()),
        flags: vec!["--max-txn-ops=4".into(), "--max-request-bytes=1000".into()],
        ..Options::default()
    })?;
    provoke(&member, &mut found).await?;
    drop(member);
    let member = Member::start(Options {
        binary: Some(plan.etcd.clone()),
        ..Options::default()
    })?;
    membership(&member, &mut found).await?;
    Ok(found)
}

fn memmem(bytes: &[u8], text: &[u8]) -> bool {
    let Some(first) = text.first() else {
        return true;
    };
    let mut rest = bytes;
    while let Some(at) = rest.iter().position(|byte| byte == first) {
        if rest[at..].starts_with(text) {
            return true;
        }
        rest = &rest[at + 1..];
    }
    false
}

/// Whether a status is the error of this name.
pub(super) fn is(name: &str, came: Result<(), Status>) -> Result<(), String> {
    let wanted = table().into_iter().find(|[one, ..]| *one == name);
    let [_, code, text] = wanted.ok_or_else(|| format!("{name} is in no table"))?;
    match came {
        Err(status) if status.message() == text && code_name(status.code()) == code => Ok(()),
        Err(status) => Err(format!("came {:?} {}", status.code(), status.message())),
        Ok(()) => Err("no error came".to_owned()),
    }
}

fn code_name(code: tonic::Code) -> String {
    let mut name = String::new();
    for character in format!("{code:?}").chars() {
        if character.is_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.extend(character.to_uppercase());
    }
    if code == tonic::Code::Cancelled {
        return "CANCELED".to_owned();
    }
    name
}

async fn provoke(member: &Member, found: &mut Found) -> Result<(), Error> {
    let connection = Connection::to(member.address());
    let mut metadata: Vec<(String, String)> = Vec::new();
    let mut met: Vec<(String, Result<(), String>)> = Vec::new();
    for line in lines(PROVOKE) {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        match (word, met.last_mut()) {
            ("with", _) => metadata = vec![("token".to_owned(), rest.to_owned())],
            ("as", _) => metadata = token(member, rest).await.into_iter().collect(),
            ("ok", _) => {
                if let Err(status) = call(&connection, &metadata, rest).await? {
                    met.push((
                        format!("before others: {rest}"),
                        Err(status.message().to_owned()),
                    ));
                }
            }
            ("or", Some((name, outcome))) => {
                let came = call(&connection, &metadata, rest).await?;
                if outcome.is_err() {
                    *outcome = is(name, came);
                }
            }
            _ => {
                let came = call(&connection, &metadata, rest).await?;
                met.push((word.to_owned(), is(word, came)));
            }
        }
    }
    met.into_iter()
        .for_each(|(name, outcome)| found.line("error", &name, outcome));
    Ok(())
}

/// Calls a method with a request that is written as text behind it.
async fn call(
    connection: &Connection,
    metadata: &[(String, String)],
    text: &str,
) -> Result<Result<(), Status>, Error> {
    let (path, text) = text.split_once(' ').unwrap_or((text, ""));
    let path = schema::full_path(path);
    let method = schema::method(&path).ok_or_else(|| Error(format!("{path} is in no schema")))?;
    let body = schema::encode(&method, text)?;
    Ok(connection.call(&path, metadata, body).await.map(|_| ()))
}

/// The token of a user, as metadata; nothing when there is none to be had.
async fn token(member: &Member, user: &str) -> Option<(String, String)> {
    let (name, password) = user.split_once(' ')?;
    let request = AuthenticateRequest {
        name: name.to_owned(),
        password: password.to_owned(),
    };
    let mut auth = AuthClient::new(Kv::to(member.address()).channel());
    let answer = auth.authenticate(request).await.ok()?.into_inner();
    Some(("token".to_owned(), answer.token))
}

/// Errors about members, whose ids are known only when they are there.
async fn membership(member: &Member, found: &mut Found) -> Result<(), Error> {
    let mut cluster = ClusterClient::new(Kv::to(member.address()).channel());
    let list = cluster.member_list(MemberListRequest { linearizable: true });
    let own = list.await.map_err(said)?.into_inner().members.remove(0);
    let add = |url: &str, is_learner: bool| MemberAddRequest {
        peer_ur_ls: vec![url.to_owned()],
        is_learner,
    };
    let came = cluster.member_add(add(&own.peer_ur_ls[0], false)).await;
    found.line(
        "error",
        "PeerURLExist",
        is("PeerURLExist", came.map(|_| ())),
    );
    let promote = MemberPromoteRequest { id: own.id };
    let came = cluster.member_promote(promote).await.map(|_| ());
    found.line("error", "MemberNotLearner", is("MemberNotLearner", came));
    let learner = cluster.member_add(add("http://127.0.0.1:1", true)).await;
    let id = learner
        .map_err(said)?
        .into_inner()
        .member
        .map_or(0, |member| member.id);
    let came = cluster.member_add(add("http://127.0.0.1:2", true)).await;
    found.line(
        "error",
        "TooManyLearners",
        is("TooManyLearners", came.map(|_| ())),
    );
    let promote = MemberPromoteRequest { id };
    let came = cluster.member_promote(promote).await.map(|_| ());
    found.line("error", "LearnerNotReady", is("LearnerNotReady", came));
    cluster
        .member_add(add("http://127.0.0.1:3", false))
        .await
        .map_err(said)?;
    // One of two is started: another one more would cost the quorum.
    let came = cluster
        .member_add(add("http://127.0.0.1:4", false))
        .await
        .map(|_| ());
    let name = match &came {
        Err(status) if status.message().ends_with("unhealthy cluster") => "Unhealthy",
        _ => "MemberNotEnoughStarted",
    };
    found.line("error", name, is(name, came));
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_api_knows_the_table() {
        let ours: BTreeSet<String> = api::Error::ALL
            .iter()
            .map(|error| format!("{} {}", error.name(), error.message()))
            .collect();
        let table: BTreeSet<String> = table()
            .iter()
            .map(|[name, _, text]| format!("{name} {text}"))
            .collect();
        let absent: Vec<_> = table.difference(&ours).collect();
        assert!(absent.is_empty(), "{absent:?}");
        assert!(table.len() > 60);
    }

    #[test]
    fn what_is_provoked_is_in_the_table_and_the_schemas() {
        for line in lines(PROVOKE) {
            let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
            if ["as", "with"].contains(&word) {
                continue;
            }
            assert!(
                word == "ok" || word == "or" || table().iter().any(|[name, ..]| *name == word),
                "{word}"
            );
            let (path, text) = rest.split_once(' ').unwrap_or((rest, ""));
            let method = schema::method(&schema::full_path(path)).expect(path);
            schema::encode(&method, text).expect(line);
        }
    }
}
