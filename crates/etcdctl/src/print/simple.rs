//! `-w simple`: what a person reads and most scripts parse.

use api::pb::authpb::{Permission, permission::Type};
use api::pb::etcdserverpb::*;
use api::pb::mvccpb::{KeyValue, event::EventType};
use client::{WatchEvent, prefix_end};

use super::{Answer, Health, Printer, hash_rows, hex_id, member_rows, status_rows};

/// Lines in the making; keys and values go in as they are.
#[derive(Default)]
struct Lines(Vec<u8>);

impl Lines {
    fn line(&mut self, text: impl AsRef<[u8]>) {
        self.0.extend_from_slice(text.as_ref());
        self.0.push(b'\n');
    }

    fn rows(&mut self, rows: &[Vec<String>]) {
        rows.iter().for_each(|row| self.line(row.join(", ")));
    }
}

pub(super) fn print(answer: &Answer<'_>, printer: &Printer) -> Vec<u8> {
    let mut out = Lines::default();
    match answer {
        Answer::Get(answer) => get(&mut out, answer, printer),
        Answer::Put(answer) => put(&mut out, answer, printer),
        Answer::Delete(answer) => delete(&mut out, answer, printer),
        Answer::Txn(answer) => txn(&mut out, answer, printer),
        Answer::Watch(event) => watch(&mut out, event, printer),
        Answer::Alarm(answer) => alarms(&mut out, answer),
        Answer::MemberList(answer) => out.rows(&member_rows(answer)),
        Answer::Status(answers) => out.rows(&status_rows(answers)),
        Answer::HashKv(answers) => out.rows(&hash_rows(answers)),
        Answer::Health(answers) => answers.iter().for_each(|answer| health(&mut out, answer)),
        Answer::Leases(answer) => {
            out.line(format!("found {} leases", answer.leases.len()));
            answer
                .leases
                .iter()
                .for_each(|lease| out.line(format!("{:016x}", lease.id)));
        }
        Answer::RoleGet(role, answer) => role_get(&mut out, role, answer),
        Answer::RoleList(answer) => answer.roles.iter().for_each(|role| out.line(role)),
        Answer::UserList(answer) => answer.users.iter().for_each(|user| out.line(user)),
        Answer::UserGet(user, answer) => {
            out.line(format!("User: {user}"));
            let roles: String = answer.roles.iter().map(|role| format!(" {role}")).collect();
            out.line(format!("Roles:{roles}"));
        }
        Answer::AuthStatus(answer) => {
            out.line(format!("Authentication Status: {}", answer.enabled));
            out.line(format!("AuthRevision: {}", answer.auth_revision));
        }
        Answer::TimeToLive(answer, keys) => time_to_live(&mut out, answer, *keys),
        Answer::RoleRevoke(role, key, end, _) => role_revoke(&mut out, role, key, end),
        other => out.line(sentence(other)),
    }
    out.0
}

/// Answers that are one sentence.
fn sentence(answer: &Answer<'_>) -> String {
    match answer {
        Answer::Grant(a) => format!("lease {:016x} granted with TTL({}s)", a.id, a.ttl),
        Answer::Revoke(id, _) => format!("lease {id:016x} revoked"),
        Answer::KeepAlive(a) => format!("lease {:016x} keepalived with TTL({})", a.id, a.ttl),
        Answer::MemberAdd(a) => {
            let member = a.member.clone().unwrap_or_default();
            let role = if member.is_learner { "as learner " } else { "" };
            let cluster = a.header.unwrap_or_default().cluster_id;
            format!(
                "Member {:16x} added {role}to cluster {cluster:16x}",
                member.id
            )
        }
        Answer::MemberRemove(id, a) => member_change(*id, "removed from", a.header),
        Answer::MemberUpdate(id, a) => member_change(*id, "updated in", a.header),
        Answer::MemberPromote(id, a) => member_change(*id, "promoted in", a.header),
        Answer::MoveLeader(from, to, _) => {
            format!(
                "Leadership transferred from {} to {}",
                hex_id(*from),
                hex_id(*to)
            )
        }
        Answer::Downgrade(action, a) => {
            format!("Downgrade {action} success, cluster version {}", a.version)
        }
        Answer::RoleAdd(role, _) => format!("Role {role} created"),
        Answer::RoleDelete(role, _) => format!("Role {role} deleted"),
        Answer::RoleGrant(role, _) => format!("Role {role} updated"),
        Answer::UserAdd(user, _) => format!("User {user} created"),
        Answer::UserDelete(user, _) => format!("User {user} deleted"),
        Answer::UserPassword(_) => "Password updated".to_owned(),
        Answer::UserGrant(user, role, _) => format!("Role {role} is granted to user {user}"),
        Answer::UserRevoke(user, role, _) => format!("Role {role} is revoked from user {user}"),
        _ => unreachable!("the caller prints the rest"),
    }
}

fn member_change(id: u64, change: &str, header: Option<ResponseHeader>) -> String {
    format!(
        "Member {id:16x} {change} cluster {:16x}",
        header.unwrap_or_default().cluster_id
    )
}

fn pair(out: &mut Lines, kv: &KeyValue, printer: &Printer) {
    let show = |bytes: &[u8]| match printer.hex {
        true => bytes
            .iter()
            .map(|byte| format!("\\x{byte:02x}"))
            .collect::<String>()
            .into_bytes(),
        false => bytes.to_vec(),
    };
    if !printer.value_only {
        out.line(show(&kv.key));
    }
    out.line(show(&kv.value));
}

fn get(out: &mut Lines, answer: &RangeResponse, printer: &Printer) {
    answer.kvs.iter().for_each(|kv| pair(out, kv, printer));
}

fn put(out: &mut Lines, answer: &PutResponse, printer: &Printer) {
    out.line("OK");
    answer.prev_kv.iter().for_each(|kv| pair(out, kv, printer));
}

fn delete(out: &mut Lines, answer: &DeleteRangeResponse, printer: &Printer) {
    out.line(answer.deleted.to_string());
    answer.prev_kvs.iter().for_each(|kv| pair(out, kv, printer));
}

fn txn(out: &mut Lines, answer: &TxnResponse, printer: &Printer) {
    out.line(if answer.succeeded {
        "SUCCESS"
    } else {
        "FAILURE"
    });
    for response in &answer.responses {
        out.line("");
        match &response.response {
            Some(response_op::Response::ResponseRange(answer)) => get(out, answer, printer),
            Some(response_op::Response::ResponsePut(answer)) => put(out, answer, printer),
            Some(response_op::Response::ResponseDeleteRange(answer)) => {
                delete(out, answer, printer);
            }
            Some(response_op::Response::ResponseTxn(answer)) => txn(out, answer, printer),
            None => {}
        }
    }
}

fn watch(out: &mut Lines, answer: &WatchEvent, printer: &Printer) {
    for event in &answer.events {
        out.line(event_type(event.r#type()));
        event.prev_kv.iter().for_each(|kv| pair(out, kv, printer));
        pair(out, &event.kv.clone().unwrap_or_default(), printer);
    }
}

pub(crate) fn event_type(kind: EventType) -> &'static str {
    kind.as_str_name()
}

fn time_to_live(out: &mut Lines, answer: &LeaseTimeToLiveResponse, keys: bool) {
    if answer.granted_ttl == 0 && answer.ttl == -1 {
        return out.line(format!("lease {:016x} already expired", answer.id));
    }
    let mut line = format!(
        "lease {:016x} granted with TTL({}s), remaining({}s)",
        answer.id, answer.granted_ttl, answer.ttl
    )
    .into_bytes();
    if keys {
        line.extend_from_slice(b", attached keys([");
        line.extend_from_slice(&answer.keys.join(&b" "[..]));
        line.extend_from_slice(b"])");
    }
    out.line(line);
}

fn alarms(out: &mut Lines, answer: &AlarmResponse) {
    for alarm in &answer.alarms {
        let mut parts = Vec::new();
        if alarm.member_id != 0 {
            parts.push(format!("memberID:{}", alarm.member_id));
        }
        if alarm.alarm() != AlarmType::None {
            parts.push(format!("alarm:{}", alarm.alarm().as_str_name()));
        }
        out.line(parts.join("  "));
    }
}

fn health(out: &mut Lines, answer: &Health) {
    let Health {
        endpoint,
        took,
        error,
        ..
    } = answer;
    if error.is_empty() {
        let healthy = "is healthy: successfully committed proposal: took =";
        out.line(format!("{endpoint} {healthy} {took}"));
    } else {
        eprintln!("{endpoint} is unhealthy: failed to commit proposal: {error}");
    }
}

fn role_get(out: &mut Lines, role: &str, answer: &AuthRoleGetResponse) {
    out.line(format!("Role {role}"));
    let is_all = role == "root" && answer.perm.is_empty();
    for (title, kind) in [("KV Read:", Type::Read), ("KV Write:", Type::Write)] {
        out.line(title);
        if is_all {
            out.line("\t[, <open ended>");
        }
        for permission in &answer.perm {
            if [kind, Type::Readwrite].contains(&permission.perm_type()) {
                out.line(permission_line(permission));
            }
        }
    }
}

fn permission_line(permission: &Permission) -> Vec<u8> {
    let (key, end) = (&permission.key[..], &permission.range_end[..]);
    let mut line = match end {
        b"" => [b"\t", key].concat(),
        b"\0" => [b"\t[", key, b", <open ended>"].concat(),
        end => [b"\t[", key, b", ", end, b")"].concat(),
    };
    if !end.is_empty() && !key.is_empty() && prefix_end(key) == end {
        line.extend_from_slice(&[b" (prefix ", key, b")"].concat());
    }
    line
}

fn role_revoke(out: &mut Lines, role: &str, key: &[u8], end: &[u8]) {
    let what = match end {
        b"" => [b"key ", key].concat(),
        b"\0" => [b"range [", key, b", <open ended>"].concat(),
        end => [b"range [", key, b", ", end, b")"].concat(),
    };
    let rest = format!(" is revoked from role {role}");
    out.line([b"Permission of ", &what[..], rest.as_bytes()].concat());
}
