//! The data of a log entry: an `InternalRaftRequest` around a request's own bytes.
//!
//! A checked request is not encoded again: its bytes become the field of its kind, and the header
//! with the id follows. Field numbers are those of `raft_internal.proto`.

use api::ids::RequestId;
use api::pb::etcdserverpb as pb;
use bytes::Bytes;
use prost::Message;

pub(crate) const PUT: u32 = 4;
pub(crate) const DELETE_RANGE: u32 = 5;
pub(crate) const TXN: u32 = 6;
pub(crate) const COMPACTION: u32 = 7;
pub(crate) const LEASE_GRANT: u32 = 8;
pub(crate) const LEASE_REVOKE: u32 = 9;
pub(crate) const ALARM: u32 = 10;
pub(crate) const LEASE_CHECKPOINT: u32 = 11;
pub(crate) const DOWNGRADE_INFO_SET: u32 = 1302;
pub(crate) const AUTH_ENABLE: u32 = 1000;
pub(crate) const AUTH_DISABLE: u32 = 1011;
pub(crate) const AUTHENTICATE: u32 = 1012;
pub(crate) const AUTH_STATUS: u32 = 1013;
pub(crate) const AUTH_USER_ADD: u32 = 1100;
pub(crate) const AUTH_USER_DELETE: u32 = 1101;
pub(crate) const AUTH_USER_GET: u32 = 1102;
pub(crate) const AUTH_USER_CHANGE_PASSWORD: u32 = 1103;
pub(crate) const AUTH_USER_GRANT_ROLE: u32 = 1104;
pub(crate) const AUTH_USER_REVOKE_ROLE: u32 = 1105;
pub(crate) const AUTH_USER_LIST: u32 = 1106;
pub(crate) const AUTH_ROLE_LIST: u32 = 1107;
pub(crate) const AUTH_ROLE_ADD: u32 = 1200;
pub(crate) const AUTH_ROLE_DELETE: u32 = 1201;
pub(crate) const AUTH_ROLE_GET: u32 = 1202;
pub(crate) const AUTH_ROLE_GRANT_PERMISSION: u32 = 1203;
pub(crate) const AUTH_ROLE_REVOKE_PERMISSION: u32 = 1204;
const HEADER: u32 = 100;

/// Longest description of an entry; keys may be long.
const DESCRIPTION_BYTES_MAX: usize = 512;
/// Bytes that an entry has beside the request, at most.
const OVERHEAD: usize = 32;

/// Whose request it is, and the auth revision at which that was found out.
pub(crate) type Signature<'a> = Option<(&'a str, u64)>;

/// The data of an entry with one request.
pub(crate) fn encode(field: u32, request: &[u8], id: RequestId, by: Signature<'_>) -> Bytes {
    let user = by.map_or("", |(user, _)| user);
    let mut data = Vec::with_capacity(request.len() + OVERHEAD + 2 * user.len());
    put_bytes(&mut data, field, request);
    let mut header = Vec::with_capacity(OVERHEAD + user.len());
    header.push(1 << 3);
    put_varint(&mut header, id.0);
    if let Some((user, revision)) = by {
        if !user.is_empty() {
            put_bytes(&mut header, 2, user.as_bytes());
        }
        header.push(3 << 3);
        put_varint(&mut header, revision);
    }
    put_bytes(&mut data, HEADER, &header);
    data.into()
}

/// An entry's request in few words: what it asks for, the keys, and sizes instead of values.
pub(crate) fn describe(data: &[u8]) -> String {
    let Ok(request) = pb::InternalRaftRequest::decode(data) else {
        return format!("{} bytes", data.len());
    };
    let span = |key: &[u8], end: &[u8]| {
        let (key, end) = (key.escape_ascii(), end.escape_ascii());
        match end.clone().next() {
            None => format!("key:\"{key}\""),
            Some(_) => format!("key:\"{key}\" range_end:\"{end}\""),
        }
    };
    let id = request
        .header
        .as_ref()
        .map_or(request.id, |header| header.id);
    let what = if let Some(put) = &request.put {
        let key = span(&put.key, &[]);
        format!("put:<{key} value_size:{}>", put.value.len())
    } else if let Some(delete) = &request.delete_range {
        format!("delete_range:<{}>", span(&delete.key, &delete.range_end))
    } else if let Some(txn) = &request.txn {
        let (compares, success) = (txn.compare.len(), txn.success.len());
        let failure = txn.failure.len();
        format!("txn:<compares:{compares} success:{success} failure:{failure}>")
    } else if let Some(compaction) = &request.compaction {
        format!("compaction:<revision:{}>", compaction.revision)
    } else if let Some(grant) = &request.lease_grant {
        format!("lease_grant:<ttl:{}>", grant.ttl)
    } else if let Some(revoke) = &request.lease_revoke {
        format!("lease_revoke:<id:{:x}>", revoke.id)
    } else {
        // Others may hold what belongs in no log.
        format!("{} bytes", data.len())
    };
    let mut text = format!("header:<ID:{id}> {what}");
    if text.len() > DESCRIPTION_BYTES_MAX {
        text.truncate(text.floor_char_boundary(DESCRIPTION_BYTES_MAX));
        text.push_str("...");
    }
    text
}

fn put_bytes(out: &mut Vec<u8>, field: u32, bytes: &[u8]) {
    put_varint(out, u64::from(field << 3 | 2));
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The entries that a Go member of etcd 3.7.1 wrote, from the interface description.
    #[test]
    fn entries_equal_those_of_the_original() {
        let put = pb::PutRequest {
            key: "foo".into(),
            value: "bar".into(),
            ..Default::default()
        };
        let data = encode(
            PUT,
            &put.encode_to_vec(),
            RequestId(0xc366_a206_4759_8005),
            None,
        );
        let expected = "220a0a03666f6f1203626172a2060b088580e6bae4c0a8b3c301";
        let hex: String = data.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, expected);

        let want = "header:<ID:14080119432870985733> put:<key:\"foo\" value_size:3>";
        assert_eq!(describe(&data), want);
        let long = pb::PutRequest {
            key: vec![b'k'; 4000].into(),
            ..Default::default()
        };
        let data = encode(PUT, &long.encode_to_vec(), RequestId(1), None);
        let described = describe(&data);
        assert_eq!(described.len(), DESCRIPTION_BYTES_MAX + 3);
        assert_eq!(describe(b"\xff\xff"), "2 bytes");

        let compaction = pb::CompactionRequest {
            revision: 5,
            physical: false,
        };
        let id = RequestId(0xc366_a206_4759_801d);
        let by = Some(("root", 7));
        let data = encode(COMPACTION, &compaction.encode_to_vec(), id, by);
        let decoded = pb::InternalRaftRequest::decode(data).unwrap();
        assert_eq!(decoded.compaction, Some(compaction));
        let header = decoded.header.unwrap();
        assert_eq!(
            (header.id, &*header.username, header.auth_revision),
            (id.0, "root", 7)
        );
    }
}
