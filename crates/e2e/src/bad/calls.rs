//! Well-formed frames with bad requests in them, and clients that stop reading what they asked for.

use std::path::Path;
use std::time::{Duration, Instant};

use api::pb::etcdserverpb::{
    Compare, DefragmentRequest, PutRequest, RangeRequest, RequestOp, SnapshotRequest, TxnRequest,
    request_op::Request,
};
use api::pb::v3electionpb::{CampaignRequest, LeaderRequest};
use bytes::{BufMut, Bytes, BytesMut};
use client::stub::{ElectionClient, KvClient, MaintenanceClient};
use tonic::{Code, Status};

use super::wire::{alive, resident};
use super::{block, start};
use crate::kv::Kv;
use crate::raw::Connection;
use crate::{Error, Member};

/// Readers of each kind that stop reading.
const STOPPED: usize = 100;
/// Keys that they are due, and the length of each value.
const KEYS: usize = 3_000;
const VALUE_BYTES: usize = 10_000;
/// Images of the database that a member sends at a time.
const SNAPSHOTS_MAX: usize = 8;
/// Memory in KiB that all of them may cost.
const GROWTH: u64 = 256 * 1024;
/// How long a put may take meanwhile.
const PUT_LIMIT: Duration = Duration::from_secs(2);
/// How long a compaction may wait for them.
const COMPACTION_LIMIT: Duration = Duration::from_secs(25);

struct Case {
    name: &'static str,
    path: &'static str,
    body: Bytes,
    /// The code, and a part of the text; none where the request is good.
    wanted: Option<(Code, &'static str)>,
}

fn case(
    name: &'static str,
    path: &'static str,
    body: &[u8],
    wanted: Option<(Code, &'static str)>,
) -> Case {
    Case {
        name,
        path,
        body: Bytes::copy_from_slice(body),
        wanted,
    }
}

/// A field with a length.
fn field(number: u8, content: &[u8]) -> Vec<u8> {
    let mut out = BytesMut::new();
    out.put_u8(number << 3 | 2);
    let mut length = content.len();
    while length >= 0x80 {
        out.put_u8(length as u8 | 0x80);
        length >>= 7;
    }
    out.put_u8(length as u8);
    out.put_slice(content);
    out.to_vec()
}

/// A transaction in a transaction, and so on.
fn nested(depth: usize) -> Vec<u8> {
    (0..depth).fold(Vec::new(), |body, _| field(2, &field(4, &body)))
}

fn puts(count: usize) -> Vec<u8> {
    let put = |number: usize| RequestOp {
        request: Some(Request::RequestPut(PutRequest {
            key: number.to_string().into(),
            ..PutRequest::default()
        })),
    };
    let txn = TxnRequest {
        success: (0..count).map(put).collect(),
        ..TxnRequest::default()
    };
    prost_reflect::prost::Message::encode_to_vec(&txn)
}

const PUT: &str = "etcdserverpb.KV/Put";
const TXN: &str = "etcdserverpb.KV/Txn";

/// Requests that say something odd.
fn odd_cases() -> Vec<Case> {
    const RANGE: &str = "etcdserverpb.KV/Range";
    const HEALTH: &str = "grpc.health.v1.Health/Check";
    let key = field(1, b"a");
    let invalid = Code::InvalidArgument;
    let sort = Some((invalid, "etcdserver: invalid sort option"));
    let unparsed = Some((Code::Internal, "unmarshal"));
    let with = |rest: &[u8]| [&key[..], rest].concat();
    let comparing = |result, target| {
        let compare = Compare {
            key: "a".into(),
            result,
            target,
            ..Compare::default()
        };
        let txn = TxnRequest {
            compare: vec![compare],
            ..TxnRequest::default()
        };
        prost_reflect::prost::Message::encode_to_vec(&txn)
    };
    vec![
        case(
            "a string of bytes",
            HEALTH,
            &field(1, &[0xc3, 0x28]),
            unparsed,
        ),
        case(
            "a key of any bytes",
            PUT,
            &field(1, &[0xff, 0xc3, 0x28]),
            None,
        ),
        case(
            "unknown fields",
            PUT,
            &with(&[field(14, b"?"), vec![0x78, 1]].concat()),
            None,
        ),
        case("the sort order 99", RANGE, &with(&[0x28, 99]), sort),
        case("the sort target 99", RANGE, &with(&[0x30, 99]), sort),
        case("a comparison 99", TXN, &comparing(99, 0), None),
        case("compared to 99", TXN, &comparing(0, 99), None),
    ]
}

/// Requests of which there is too much.
fn large_cases() -> Vec<Case> {
    let key = field(1, b"a");
    let invalid = Code::InvalidArgument;
    let too_large = Some((invalid, "etcdserver: request is too large"));
    let with = |rest: &[u8]| [&key[..], rest].concat();
    vec![
        case(
            "too many operations",
            TXN,
            &puts(129),
            Some((invalid, "etcdserver: too many operations in txn request")),
        ),
        case(
            "a hundred thousand operations",
            TXN,
            &puts(100_000),
            Some((invalid, "etcdserver: too many operations in txn request")),
        ),
        case(
            "an operation that is none",
            TXN,
            &field(2, b""),
            Some((invalid, "key not found")),
        ),
        case(
            "a request above the limit",
            PUT,
            &with(&field(2, &vec![0; 1_600_000])),
            too_large,
        ),
        case(
            "a message above the limit",
            PUT,
            &with(&field(2, &vec![0; 3_000_000])),
            Some((Code::ResourceExhausted, "received message larger than max")),
        ),
        case(
            "a lock with a name above the limit",
            "v3lockpb.Lock/Lock",
            &field(1, &vec![b'x'; 1_600_000]),
            Some((Code::Unknown, "etcdserver: request is too large")),
        ),
    ]
}

fn fits(came: &Result<Bytes, Status>, wanted: Option<(Code, &str)>) -> bool {
    match (came, wanted) {
        (Ok(_), None) => true,
        (Err(status), Some((code, text))) => {
            status.code() == code && status.message().contains(text)
        }
        _ => false,
    }
}

/// Requests that can be read, or nearly, but not be carried out.
pub(super) fn requests(binary: &Path) -> Result<String, Error> {
    let mut member = start(binary)?;
    let connection = Connection::to(member.address());
    let cases: Vec<Case> = odd_cases().into_iter().chain(large_cases()).collect();
    for case in &cases {
        let came = block(connection.call(case.path, &[], case.body.clone()));
        if !fits(&came, case.wanted) {
            return Err(Error(format!("{}: {came:?}", case.name)));
        }
        alive(&mut member, case.name)?;
    }
    // A nesting that is too deep is refused by whoever reads it, and otherwise harmless.
    for depth in [10, 60, 99, 500, 5_000, 100_000] {
        let came = block(connection.call("etcdserverpb.KV/Txn", &[], nested(depth).into()));
        if let Err(status) = &came
            && !matches!(status.code(), Code::Internal | Code::InvalidArgument)
        {
            return Err(Error(format!("{depth} transactions: {status}")));
        }
        alive(&mut member, "nested transactions")?;
    }
    Ok(format!("{} bad requests", cases.len() + 6))
}

fn all() -> RangeRequest {
    RangeRequest {
        key: Bytes::from_static(&[0]),
        range_end: Bytes::from_static(&[0]),
        ..RangeRequest::default()
    }
}

fn fill(kv: &Kv) -> Result<(), Error> {
    for number in 0..KEYS {
        put(kv, &format!("{number:05}"), number)?;
    }
    Ok(())
}

fn put(kv: &Kv, key: &str, number: usize) -> Result<(), Error> {
    let value = vec![number as u8; VALUE_BYTES].into();
    let put = block(kv.put(key.to_owned().into(), value));
    put.map(drop).map_err(|status| Error(status.to_string()))
}

/// What is kept open, and not read.
type Kept = Vec<Box<dyn Send>>;

/// Clients that ask for everything and take next to nothing, each on a connection of its own.
fn stop_reading(member: &Member) -> Result<Kept, Status> {
    let mut kept: Kept = Vec::new();
    for number in 0..STOPPED {
        let channel = Kv::to(member.address()).channel();
        let mut kv = KvClient::new(channel.clone()).max_decoding_message_size(usize::MAX);
        kept.push(Box::new(block(kv.range_stream(all()))?.into_inner()));
        let mut election = ElectionClient::new(channel.clone());
        let request = LeaderRequest { name: "e".into() };
        kept.push(Box::new(block(election.observe(request))?.into_inner()));
        if number < SNAPSHOTS_MAX {
            let mut maintenance = MaintenanceClient::new(channel.clone());
            let snapshot = block(maintenance.snapshot(SnapshotRequest {}))?;
            kept.push(Box::new(snapshot.into_inner()));
        }
    }
    Ok(kept)
}

/// Readers that stop: nobody else waits for them, and they cost no more than what is on its way.
pub(super) fn stopped_readers(binary: &Path) -> Result<String, Error> {
    let mut member = start(binary)?;
    let kv = Kv::to(member.address());
    fill(&kv)?;
    let mut election = ElectionClient::new(kv.channel());
    let request = CampaignRequest {
        name: "e".into(),
        value: vec![b'v'; VALUE_BYTES].into(),
        ..CampaignRequest::default()
    };
    let failed = |status: Status| Error(status.to_string());
    let elected = block(election.campaign(request))
        .map_err(failed)?
        .into_inner();
    let leader = elected.leader.unwrap_or_default();
    let before = resident(&member)?;
    let kept = stop_reading(&member).map_err(failed)?;

    let mut maintenance = MaintenanceClient::new(kv.channel());
    let one_more = block(maintenance.snapshot(SnapshotRequest {}));
    let refusal = one_more
        .map(drop)
        .map_err(|status| status.message().to_owned());
    if refusal != Err("etcdserver: too many requests".into()) {
        return Err(Error(format!("a snapshot beyond the last: {refusal:?}")));
    }
    let mut slowest = Duration::ZERO;
    for number in 0..500 {
        let begin = Instant::now();
        // The leader's word goes to every observer.
        let key = String::from_utf8_lossy(&leader.key).into_owned();
        put(&kv, &key, number)?;
        slowest = slowest.max(begin.elapsed());
    }
    let begin = Instant::now();
    let revision = block(kv.revision(false)).map_err(failed)?;
    block(kv.compact(revision)).map_err(failed)?;
    let compaction = begin.elapsed();
    block(maintenance.defragment(DefragmentRequest {})).map_err(failed)?;
    alive(&mut member, "beside readers that stopped")?;
    let growth = resident(&member)?.saturating_sub(before);
    drop(kept);
    if slowest > PUT_LIMIT || compaction > COMPACTION_LIMIT || growth > GROWTH {
        return Err(Error(format!(
            "a put took {slowest:?}, a compaction {compaction:?}, {growth} KiB more memory"
        )));
    }
    Ok(format!(
        "{} readers, slowest put {slowest:?}, compaction {compaction:?}, {growth} KiB more memory",
        2 * STOPPED + SNAPSHOTS_MAX
    ))
}
