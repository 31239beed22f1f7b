//! `-w json`: one line, in the shape that Go's encoder gives etcd's generated types: names of
//! the schema, empty fields left out, 64-bit numbers as numbers, bytes in base64.

use api::pb::authpb::Permission;
use api::pb::etcdserverpb::*;
use api::pb::mvccpb::{Event, KeyValue};
use cli::text::push_json;
use client::{Cancellation, WatchEvent};

use super::{Answer, Health, hex_id};

/// An object in the making. Fields appear in the order of the calls.
pub(crate) struct Object {
    out: String,
}

impl Object {
    pub(crate) fn new() -> Self {
        Object {
            out: "{".to_owned(),
        }
    }

    pub(crate) fn finish(mut self) -> String {
        self.out.push('}');
        self.out
    }

    /// A value that is JSON already.
    fn raw(&mut self, name: &str, json: &str) -> &mut Self {
        if self.out.len() > 1 {
            self.out.push(',');
        }
        push_json(&mut self.out, name);
        self.out.push(':');
        self.out.push_str(json);
        self
    }

    fn optional(&mut self, name: &str, json: Option<String>) -> &mut Self {
        match json {
            Some(json) => self.raw(name, &json),
            None => self,
        }
    }

    pub(crate) fn text(&mut self, name: &str, value: &str) -> &mut Self {
        let mut json = String::new();
        push_json(&mut json, value);
        self.raw(name, &json)
    }

    fn text_unless_empty(&mut self, name: &str, value: &str) -> &mut Self {
        if value.is_empty() {
            self
        } else {
            self.text(name, value)
        }
    }

    /// A number unless it is 0.
    fn number(&mut self, name: &str, value: impl Into<i128>) -> &mut Self {
        match value.into() {
            0 => self,
            value => self.raw(name, &value.to_string()),
        }
    }

    fn truth(&mut self, name: &str, value: bool) -> &mut Self {
        if value { self.raw(name, "true") } else { self }
    }

    fn bytes(&mut self, name: &str, value: &[u8]) -> &mut Self {
        if value.is_empty() {
            self
        } else {
            self.raw(name, &base64(value))
        }
    }

    /// A list unless it is empty.
    fn list<T>(&mut self, name: &str, values: &[T], json: impl FnMut(&T) -> String) -> &mut Self {
        if values.is_empty() {
            self
        } else {
            self.raw(name, &list(values, json))
        }
    }

    fn texts(&mut self, name: &str, values: &[String]) -> &mut Self {
        self.list(name, values, |value| {
            let mut json = String::new();
            push_json(&mut json, value);
            json
        })
    }

    fn header(&mut self, header: Option<ResponseHeader>) -> &mut Self {
        self.optional("header", header.map(|header| header_json(&header)))
    }
}

fn list<T>(values: &[T], json: impl FnMut(&T) -> String) -> String {
    format!(
        "[{}]",
        values.iter().map(json).collect::<Vec<_>>().join(",")
    )
}

fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4 + 2);
    out.push('"');
    for chunk in bytes.chunks(3) {
        let value = chunk
            .iter()
            .fold(0_u32, |value, byte| value << 8 | u32::from(*byte))
            << (8 * (3 - chunk.len()));
        for place in 0..4 {
            let digit = (value >> (18 - 6 * place)) & 0x3f;
            out.push(match place <= chunk.len() {
                true => char::from(ALPHABET[digit as usize]),
                false => '=',
            });
        }
    }
    out.push('"');
    out
}

fn header_json(header: &ResponseHeader) -> String {
    let mut object = Object::new();
    header_fields(&mut object, Some(*header));
    object.finish()
}

fn header_fields(object: &mut Object, header: Option<ResponseHeader>) {
    let Some(header) = header else { return };
    object
        .number("cluster_id", header.cluster_id)
        .number("member_id", header.member_id)
        .number("revision", header.revision)
        .number("raft_term", header.raft_term);
}

fn pair(kv: &KeyValue) -> String {
    let mut object = Object::new();
    object
        .bytes("key", &kv.key)
        .number("create_revision", kv.create_revision)
        .number("mod_revision", kv.mod_revision)
        .number("version", kv.version)
        .bytes("value", &kv.value)
        .number("lease", kv.lease);
    object.finish()
}

fn event(event: &Event) -> String {
    let mut object = Object::new();
    object
        .number("type", event.r#type)
        .optional("kv", event.kv.as_ref().map(pair))
        .optional("prev_kv", event.prev_kv.as_ref().map(pair));
    object.finish()
}

fn get(answer: &RangeResponse) -> String {
    let mut object = Object::new();
    object
        .header(answer.header)
        .list("kvs", &answer.kvs, pair)
        .truth("more", answer.more)
        .number("count", answer.count);
    object.finish()
}

fn put(answer: &PutResponse) -> String {
    let mut object = Object::new();
    object
        .header(answer.header)
        .optional("prev_kv", answer.prev_kv.as_ref().map(pair));
    object.finish()
}

fn delete(answer: &DeleteRangeResponse) -> String {
    let mut object = Object::new();
    object
        .header(answer.header)
        .number("deleted", answer.deleted)
        .list("prev_kvs", &answer.prev_kvs, pair);
    object.finish()
}

fn txn(answer: &TxnResponse) -> String {
    let mut object = Object::new();
    object
        .header(answer.header)
        .truth("succeeded", answer.succeeded)
        .list("responses", &answer.responses, operation);
    object.finish()
}

fn operation(operation: &ResponseOp) -> String {
    let mut inner = Object::new();
    match &operation.response {
        Some(response_op::Response::ResponseRange(a)) => inner.raw("response_range", &get(a)),
        Some(response_op::Response::ResponsePut(a)) => inner.raw("response_put", &put(a)),
        Some(response_op::Response::ResponseDeleteRange(a)) => {
            inner.raw("response_delete_range", &delete(a))
        }
        Some(response_op::Response::ResponseTxn(a)) => inner.raw("response_txn", &txn(a)),
        None => &mut inner,
    };
    let mut object = Object::new();
    object.raw("Response", &inner.finish());
    object.finish()
}

/// The client's own type, which leaves nothing out.
fn watch(answer: &WatchEvent) -> String {
    let events = match answer.events.is_empty() {
        true => "null".to_owned(),
        false => list(&answer.events, event),
    };
    let compacted = match answer.cancelled {
        Some(Cancellation::Compacted(revision)) => revision,
        _ => 0,
    };
    let mut object = Object::new();
    object
        .raw("Header", &header_json(&answer.header.unwrap_or_default()))
        .raw("Events", &events)
        .raw("CompactRevision", &compacted.to_string())
        .raw("Canceled", &answer.cancelled.is_some().to_string())
        .raw("Created", "false")
        .text("CancelReason", "");
    object.finish()
}

fn keep_alive(header: Option<ResponseHeader>, id: i64, ttl: i64) -> Object {
    let mut object = Object::new();
    header_fields(&mut object, header);
    object
        .raw("ID", &id.to_string())
        .raw("TTL", &ttl.to_string());
    object
}

fn time_to_live(answer: &LeaseTimeToLiveResponse) -> String {
    let keys = match answer.keys.is_empty() {
        true => "null".to_owned(),
        false => list(&answer.keys, |key| base64(key)),
    };
    let mut object = Object::new();
    header_fields(&mut object, answer.header);
    object
        .raw("id", &answer.id.to_string())
        .raw("ttl", &answer.ttl.to_string())
        .raw("granted-ttl", &answer.granted_ttl.to_string())
        .raw("keys", &keys);
    object.finish()
}

fn leases(answer: &LeaseLeasesResponse) -> String {
    let mut object = Object::new();
    header_fields(&mut object, answer.header);
    object.raw(
        "leases",
        &list(&answer.leases, |lease| format!("{{\"id\":{}}}", lease.id)),
    );
    object.finish()
}

fn member(member: &Member) -> String {
    let mut object = Object::new();
    object.number("ID", member.id);
    member_fields(&mut object, member);
    object.finish()
}

fn member_fields(object: &mut Object, member: &Member) {
    object
        .text_unless_empty("name", &member.name)
        .texts("peerURLs", &member.peer_ur_ls)
        .texts("clientURLs", &member.client_ur_ls)
        .truth("isLearner", member.is_learner);
}

/// An answer about members; `--hex` turns the IDs into texts.
fn members(
    header: Option<ResponseHeader>,
    added: Option<&Member>,
    all: &[Member],
    hex: bool,
) -> String {
    let mut object = Object::new();
    if hex {
        let hex_member = |member: &Member| {
            let mut object = Object::new();
            object.text("ID", &hex_id(member.id));
            member_fields(&mut object, member);
            object.finish()
        };
        let header = header.unwrap_or_default();
        let mut inner = Object::new();
        inner
            .text("cluster_id", &hex_id(header.cluster_id))
            .text("member_id", &hex_id(header.member_id))
            .number("revision", header.revision)
            .number("raft_term", header.raft_term);
        object
            .raw("header", &inner.finish())
            .optional("member", added.map(hex_member))
            .raw("members", &list(all, hex_member));
    } else {
        object
            .header(header)
            .optional("member", added.map(member))
            .list("members", all, member);
    }
    object.finish()
}

fn health(health: &Health) -> String {
    let mut object = Object::new();
    object
        .text("endpoint", &health.endpoint)
        .raw("health", &health.is_healthy.to_string())
        .text("took", &health.took)
        .text_unless_empty("error", &health.error);
    object.finish()
}

fn status(status: &StatusResponse) -> String {
    let downgrade = status.downgrade_info.as_ref().map(|info| {
        let mut object = Object::new();
        object
            .truth("enabled", info.enabled)
            .text_unless_empty("targetVersion", &info.target_version);
        object.finish()
    });
    let mut object = Object::new();
    object
        .header(status.header)
        .text_unless_empty("version", &status.version)
        .number("dbSize", status.db_size)
        .number("leader", status.leader)
        .number("raftIndex", status.raft_index)
        .number("raftTerm", status.raft_term)
        .number("raftAppliedIndex", status.raft_applied_index)
        .texts("errors", &status.errors)
        .number("dbSizeInUse", status.db_size_in_use)
        .truth("isLearner", status.is_learner)
        .text_unless_empty("storageVersion", &status.storage_version)
        .number("dbSizeQuota", status.db_size_quota)
        .optional("downgradeInfo", downgrade);
    object.finish()
}

fn hash_kv(answer: &HashKvResponse) -> String {
    let mut object = Object::new();
    object
        .header(answer.header)
        .number("hash", answer.hash)
        .number("compact_revision", answer.compact_revision)
        .number("hash_revision", answer.hash_revision);
    object.finish()
}

/// A list of what the endpoints said.
fn endpoints<T>(answers: &[(String, T)], name: &str, json: impl Fn(&T) -> String) -> String {
    if answers.is_empty() {
        return "null".to_owned();
    }
    list(answers, |(endpoint, answer)| {
        let mut object = Object::new();
        object.text("Endpoint", endpoint).raw(name, &json(answer));
        object.finish()
    })
}

fn alarm(answer: &AlarmResponse) -> String {
    let mut object = Object::new();
    object
        .header(answer.header)
        .list("alarms", &answer.alarms, |alarm| {
            let mut object = Object::new();
            object
                .number("memberID", alarm.member_id)
                .number("alarm", alarm.alarm);
            object.finish()
        });
    object.finish()
}

fn permission(permission: &Permission) -> String {
    let mut object = Object::new();
    object
        .number("permType", permission.perm_type)
        .bytes("key", &permission.key)
        .bytes("range_end", &permission.range_end);
    object.finish()
}

fn header_only(header: Option<ResponseHeader>) -> String {
    let mut object = Object::new();
    object.header(header);
    object.finish()
}

/// A header and one list of names.
fn names(header: Option<ResponseHeader>, name: &str, values: &[String]) -> String {
    let mut object = Object::new();
    object.header(header).texts(name, values);
    object.finish()
}

/// One line of JSON.
pub(super) fn print(answer: &Answer<'_>, hex: bool) -> Vec<u8> {
    let mut line = match answer {
        Answer::Get(answer) => get(answer),
        Answer::Put(answer) => put(answer),
        Answer::Delete(answer) => delete(answer),
        Answer::Txn(answer) => txn(answer),
        Answer::Watch(event) => watch(event),
        Answer::Grant(a) => {
            let mut object = keep_alive(a.header, a.id, a.ttl);
            object.text("Error", &a.error);
            object.finish()
        }
        Answer::KeepAlive(a) => keep_alive(a.header, a.id, a.ttl).finish(),
        Answer::TimeToLive(answer, _) => time_to_live(answer),
        Answer::Leases(answer) => leases(answer),
        Answer::MemberAdd(a) => members(a.header, a.member.as_ref(), &a.members, hex),
        Answer::MemberRemove(_, a) => members(a.header, None, &a.members, hex),
        Answer::MemberUpdate(_, a) => members(a.header, None, &a.members, hex),
        Answer::MemberPromote(_, a) => members(a.header, None, &a.members, hex),
        Answer::MemberList(a) => members(a.header, None, &a.members, hex),
        Answer::Health(answers) => list(answers, health),
        Answer::Status(answers) => endpoints(answers, "Status", status),
        Answer::HashKv(answers) => endpoints(answers, "HashKV", hash_kv),
        Answer::Alarm(answer) => alarm(answer),
        other => about_auth(other),
    };
    line.push('\n');
    line.into_bytes()
}

/// Answers about users and roles, and those that are only a header.
fn about_auth(answer: &Answer<'_>) -> String {
    match answer {
        Answer::MoveLeader(_, _, answer) => header_only(answer.header),
        Answer::Downgrade(_, answer) => {
            let mut object = Object::new();
            object
                .header(answer.header)
                .text_unless_empty("version", &answer.version);
            object.finish()
        }
        Answer::Revoke(_, answer) => header_only(answer.header),
        Answer::RoleAdd(_, answer) => header_only(answer.header),
        Answer::RoleDelete(_, answer) => header_only(answer.header),
        Answer::RoleGrant(_, answer) => header_only(answer.header),
        Answer::RoleRevoke(_, _, _, answer) => header_only(answer.header),
        Answer::RoleGet(_, answer) => {
            let mut object = Object::new();
            object
                .header(answer.header)
                .list("perm", &answer.perm, permission);
            object.finish()
        }
        Answer::RoleList(answer) => names(answer.header, "roles", &answer.roles),
        Answer::UserAdd(_, answer) => header_only(answer.header),
        Answer::UserGet(_, answer) => names(answer.header, "roles", &answer.roles),
        Answer::UserList(answer) => names(answer.header, "users", &answer.users),
        Answer::UserPassword(answer) => header_only(answer.header),
        Answer::UserGrant(_, _, answer) => header_only(answer.header),
        Answer::UserRevoke(_, _, answer) => header_only(answer.header),
        Answer::UserDelete(_, answer) => header_only(answer.header),
        Answer::AuthStatus(answer) => {
            let mut object = Object::new();
            object
                .header(answer.header)
                .truth("enabled", answer.enabled)
                .number("authRevision", answer.auth_revision);
            object.finish()
        }
        _ => unreachable!("the caller prints the rest"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_of_every_length() {
        for (bytes, expected) in [
            ("", "\"\""),
            ("a", "\"YQ==\""),
            ("ab", "\"YWI=\""),
            ("abc", "\"YWJj\""),
        ] {
            assert_eq!(base64(bytes.as_bytes()), expected);
        }
    }
}
