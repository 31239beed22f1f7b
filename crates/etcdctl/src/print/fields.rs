//! `-w fields`: one `"Name" : value` line for each field.

use std::fmt::{Display, Write as _};

use api::pb::etcdserverpb::*;
use api::pb::mvccpb::KeyValue;
use client::WatchEvent;

use super::{Answer, hex_id};
use crate::print::simple::event_type;
use crate::text::quote;

struct Fields {
    out: String,
    hex: bool,
}

impl Fields {
    fn value(&mut self, name: &str, value: impl Display) {
        // Writing to a String cannot fail.
        let _written = writeln!(self.out, "\"{name}\" : {value}");
    }

    fn quoted(&mut self, name: &str, value: &[u8]) {
        self.value(name, quote(value));
    }

    /// The ID of a member or a cluster.
    fn id(&mut self, name: &str, id: u64) {
        match self.hex {
            true => self.value(name, hex_id(id)),
            false => self.value(name, id),
        }
    }

    fn lease(&mut self, name: &str, id: i64) {
        match self.hex {
            true => self.value(name, format!("{id:016x}")),
            false => self.value(name, id),
        }
    }

    fn blank(&mut self) {
        self.out.push('\n');
    }

    /// The revision is left out where it has no meaning.
    fn header(&mut self, header: Option<ResponseHeader>) {
        let header = header.unwrap_or_default();
        self.id("ClusterID", header.cluster_id);
        self.id("MemberID", header.member_id);
        if header.revision > 0 {
            self.value("Revision", header.revision);
        }
        self.value("RaftTerm", header.raft_term);
    }

    fn pair(&mut self, prefix: &str, kv: &KeyValue) {
        let name = |field: &str| format!("{prefix}{field}");
        self.quoted(&name("Key"), &kv.key);
        self.value(&name("CreateRevision"), kv.create_revision);
        self.value(&name("ModRevision"), kv.mod_revision);
        self.value(&name("Version"), kv.version);
        self.quoted(&name("Value"), &kv.value);
        self.lease(&name("Lease"), kv.lease);
    }

    fn get(&mut self, answer: &RangeResponse) {
        self.header(answer.header);
        answer.kvs.iter().for_each(|kv| self.pair("", kv));
        self.value("More", answer.more);
        self.value("Count", answer.count);
    }

    fn put(&mut self, answer: &PutResponse) {
        self.header(answer.header);
        answer.prev_kv.iter().for_each(|kv| self.pair("Prev", kv));
    }

    fn delete(&mut self, answer: &DeleteRangeResponse) {
        self.header(answer.header);
        self.value("Deleted", answer.deleted);
        answer.prev_kvs.iter().for_each(|kv| self.pair("Prev", kv));
    }

    fn txn(&mut self, answer: &TxnResponse) {
        self.header(answer.header);
        self.value("Succeeded", answer.succeeded);
        for response in &answer.responses {
            match &response.response {
                Some(response_op::Response::ResponseRange(answer)) => self.get(answer),
                Some(response_op::Response::ResponsePut(answer)) => self.put(answer),
                Some(response_op::Response::ResponseDeleteRange(answer)) => self.delete(answer),
                Some(response_op::Response::ResponseTxn(answer)) => self.txn(answer),
                None => {}
            }
        }
    }

    fn watch(&mut self, answer: &WatchEvent) {
        self.header(answer.header);
        for event in &answer.events {
            self.value("Type", event_type(event.r#type()));
            event.prev_kv.iter().for_each(|kv| self.pair("Prev", kv));
            self.pair("", &event.kv.clone().unwrap_or_default());
        }
    }

    fn time_to_live(&mut self, answer: &LeaseTimeToLiveResponse) {
        self.header(answer.header);
        self.lease("ID", answer.id);
        self.value("TTL", answer.ttl);
        self.value("GrantedTTL", answer.granted_ttl);
        answer.keys.iter().for_each(|key| self.quoted("Key", key));
    }

    fn members(&mut self, answer: &MemberListResponse) {
        self.header(answer.header);
        for member in &answer.members {
            self.id("ID", member.id);
            self.quoted("Name", member.name.as_bytes());
            member
                .peer_ur_ls
                .iter()
                .for_each(|url| self.quoted("PeerURL", url.as_bytes()));
            member
                .client_ur_ls
                .iter()
                .for_each(|url| self.quoted("ClientURL", url.as_bytes()));
            self.value("IsLearner", member.is_learner);
            self.blank();
        }
    }

    fn status(&mut self, endpoint: &str, status: &StatusResponse) {
        let downgrade = status.downgrade_info.clone().unwrap_or_default();
        self.header(status.header);
        self.quoted("Version", status.version.as_bytes());
        self.quoted("StorageVersion", status.storage_version.as_bytes());
        self.value("DBSize", status.db_size);
        self.value("DBSizeInUse", status.db_size_in_use);
        self.value("DBSizeQuota", status.db_size_quota);
        self.value("Leader", status.leader);
        self.value("IsLearner", status.is_learner);
        self.value("RaftIndex", status.raft_index);
        self.value("RaftTerm", status.raft_term);
        self.value("RaftAppliedIndex", status.raft_applied_index);
        self.value("Errors", format!("[{}]", status.errors.join(" ")));
        self.quoted("Endpoint", endpoint.as_bytes());
        self.quoted(
            "DowngradeTargetVersion",
            downgrade.target_version.as_bytes(),
        );
        self.value("DowngradeEnabled", downgrade.enabled);
        self.blank();
    }

    fn alarms(&mut self, answer: &AlarmResponse) {
        self.header(answer.header);
        for alarm in &answer.alarms {
            self.id("MemberID", alarm.member_id);
            self.value("AlarmType", alarm.alarm().as_str_name());
            self.blank();
        }
    }

    fn role(&mut self, answer: &AuthRoleGetResponse) {
        self.header(answer.header);
        for permission in &answer.perm {
            // Two blanks, as ever.
            self.value(
                "PermType",
                format!(" {}", permission.perm_type().as_str_name()),
            );
            self.quoted("Key", &permission.key);
            self.quoted("RangeEnd", &permission.range_end);
        }
    }
}

/// The fields of an answer, or `None` for answers that have no such form.
pub(super) fn print(answer: &Answer<'_>, hex: bool) -> Option<Vec<u8>> {
    let mut fields = Fields {
        out: String::new(),
        hex,
    };
    match answer {
        Answer::Get(answer) => fields.get(answer),
        Answer::Put(answer) => fields.put(answer),
        Answer::Delete(answer) => fields.delete(answer),
        Answer::Txn(answer) => fields.txn(answer),
        Answer::Watch(event) => fields.watch(event),
        Answer::Grant(LeaseGrantResponse {
            header, id, ttl, ..
        })
        | Answer::KeepAlive(LeaseKeepAliveResponse { header, id, ttl }) => {
            fields.header(*header);
            fields.lease("ID", *id);
            fields.value("TTL", ttl);
        }
        Answer::TimeToLive(answer, _) => fields.time_to_live(answer),
        Answer::Leases(answer) => {
            fields.header(answer.header);
            answer
                .leases
                .iter()
                .for_each(|lease| fields.lease("ID", lease.id));
        }
        Answer::MemberList(answer) => fields.members(answer),
        Answer::Health(answers) => {
            for health in *answers {
                fields.quoted("Endpoint", health.endpoint.as_bytes());
                fields.value("Health", health.is_healthy);
                fields.value("Took", &health.took);
                fields.value("Error", &health.error);
                fields.blank();
            }
        }
        Answer::Status(answers) => {
            answers
                .iter()
                .for_each(|(endpoint, status)| fields.status(endpoint, status));
        }
        Answer::HashKv(answers) => {
            for (endpoint, answer) in *answers {
                fields.header(answer.header);
                fields.quoted("Endpoint", endpoint.as_bytes());
                fields.value("Hash", answer.hash);
                fields.value("HashRevision", answer.hash_revision);
                fields.blank();
            }
        }
        Answer::Alarm(answer) => fields.alarms(answer),
        Answer::RoleGet(_, answer) => fields.role(answer),
        Answer::RoleList(answer) => {
            fields.header(answer.header);
            let roles: String = answer
                .roles
                .iter()
                .map(|role| format!(" {}", quote(role.as_bytes())))
                .collect();
            fields.out.push_str(&format!("\"Roles\" :{roles}\n"));
        }
        other => fields.header(header_only(other)?),
    }
    Some(fields.out.into_bytes())
}

/// The header of answers of which only that is printed.
fn header_only(answer: &Answer<'_>) -> Option<Option<ResponseHeader>> {
    Some(match answer {
        Answer::Revoke(_, answer) => answer.header,
        Answer::RoleAdd(_, answer) => answer.header,
        Answer::RoleDelete(_, answer) => answer.header,
        Answer::RoleGrant(_, answer) => answer.header,
        Answer::RoleRevoke(_, _, _, answer) => answer.header,
        Answer::UserAdd(_, answer) => answer.header,
        Answer::UserPassword(answer) => answer.header,
        Answer::UserGrant(_, _, answer) => answer.header,
        Answer::UserRevoke(_, _, answer) => answer.header,
        Answer::UserDelete(_, answer) => answer.header,
        _ => return None,
    })
}
