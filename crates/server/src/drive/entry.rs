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
const HEADER: u32 = 100;

/// Longest description of an entry; keys may be long.
const DESCRIPTION_BYTES_MAX: usize = 512;
/// Bytes that an entry has beside the request, at most.
const OVERHEAD: usize = 32;

/// The data of an entry with one request.
pub(crate) fn encode(field: u32, request: &[u8], id: RequestId) -> Bytes {
    let mut data = Vec::with_capacity(request.len() + OVERHEAD);
    put_bytes(&mut data, field, request);
    let mut header = Vec::with_capacity(11);
    header.push(1 << 3);
    put_varint(&mut header, id.0);
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
        let data = encode(PUT, &put.encode_to_vec(), RequestId(0xc366_a206_4759_8005));
        let expected = "220a0a03666f6f1203626172a2060b088580e6bae4c0a8b3c301";
        let hex: String = data.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, expected);

        let want = "header:<ID:14080119432870985733> put:<key:\"foo\" value_size:3>";
        assert_eq!(describe(&data), want);
        let long = pb::PutRequest {
            key: vec![b'k'; 4000].into(),
            ..Default::default()
        };
        let data = encode(PUT, &long.encode_to_vec(), RequestId(1));
        let described = describe(&data);
        assert_eq!(described.len(), DESCRIPTION_BYTES_MAX + 3);
        assert_eq!(describe(b"\xff\xff"), "2 bytes");

        let compaction = pb::CompactionRequest {
            revision: 5,
            physical: false,
        };
        let id = RequestId(0xc366_a206_4759_801d);
        let data = encode(COMPACTION, &compaction.encode_to_vec(), id);
        let decoded = pb::InternalRaftRequest::decode(data).unwrap();
        assert_eq!(decoded.compaction, Some(compaction));
        assert_eq!(decoded.header.unwrap().id, id.0);
    }
}
