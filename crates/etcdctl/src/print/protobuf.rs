//! `-w protobuf`: the encoded answer, without a line end.

use api::pb::etcdserverpb::*;
use prost::Message;

use super::Answer;

/// The encoded answer, or `None` for answers that are no messages.
pub(super) fn print(answer: &Answer<'_>) -> Option<Vec<u8>> {
    Some(match answer {
        Answer::Get(answer) => answer.encode_to_vec(),
        Answer::Put(answer) => answer.encode_to_vec(),
        Answer::Delete(answer) => answer.encode_to_vec(),
        Answer::Txn(answer) => answer.encode_to_vec(),
        Answer::Watch(event) => watch(event).encode_to_vec(),
        // Of most lease answers etcdctl prints the header only.
        Answer::Grant(answer) => header(answer.header),
        Answer::KeepAlive(answer) => header(answer.header),
        Answer::TimeToLive(answer, _) => header(answer.header),
        Answer::Leases(answer) => header(answer.header),
        Answer::Revoke(_, answer) => answer.encode_to_vec(),
        Answer::MemberAdd(answer) => answer.encode_to_vec(),
        Answer::MemberRemove(_, answer) => answer.encode_to_vec(),
        Answer::MemberUpdate(_, answer) => answer.encode_to_vec(),
        Answer::MemberPromote(_, answer) => answer.encode_to_vec(),
        Answer::MemberList(answer) => answer.encode_to_vec(),
        Answer::MoveLeader(_, _, answer) => answer.encode_to_vec(),
        Answer::Downgrade(_, answer) => answer.encode_to_vec(),
        Answer::Alarm(answer) => answer.encode_to_vec(),
        Answer::RoleAdd(_, answer) => answer.encode_to_vec(),
        Answer::RoleGet(_, answer) => answer.encode_to_vec(),
        Answer::RoleDelete(_, answer) => answer.encode_to_vec(),
        Answer::RoleList(answer) => answer.encode_to_vec(),
        Answer::RoleGrant(_, answer) => answer.encode_to_vec(),
        Answer::RoleRevoke(_, _, _, answer) => answer.encode_to_vec(),
        Answer::UserAdd(_, answer) => answer.encode_to_vec(),
        Answer::UserGet(_, answer) => answer.encode_to_vec(),
        Answer::UserList(answer) => answer.encode_to_vec(),
        Answer::UserPassword(answer) => answer.encode_to_vec(),
        Answer::UserGrant(_, _, answer) => answer.encode_to_vec(),
        Answer::UserRevoke(_, _, answer) => answer.encode_to_vec(),
        Answer::UserDelete(_, answer) => answer.encode_to_vec(),
        Answer::AuthStatus(answer) => answer.encode_to_vec(),
        Answer::Health(_) | Answer::Status(_) | Answer::HashKv(_) => return None,
    })
}

fn header(header: Option<ResponseHeader>) -> Vec<u8> {
    header.unwrap_or_default().encode_to_vec()
}

/// What etcdctl keeps of a watch's answer: neither its id nor the reason of its end.
fn watch(event: &client::WatchEvent) -> WatchResponse {
    let compact_revision = match event.cancelled {
        Some(client::Cancellation::Compacted(revision)) => revision,
        _ => 0,
    };
    WatchResponse {
        header: event.header.or(Some(ResponseHeader::default())),
        events: event.events.clone(),
        compact_revision,
        canceled: event.cancelled.is_some(),
        ..WatchResponse::default()
    }
}
