use api::pb::{etcdserverpb as pb, mvccpb};
use prost::Message as _;

use super::*;
use crate::gateway::schema::METHODS;

fn output(method: &str) -> &'static Message {
    let mut methods = METHODS.iter();
    methods
        .find(|one| one.path.ends_with(method))
        .unwrap()
        .output
}

/// Converts an encoding that comes in pieces of `size` bytes.
fn convert(method: &str, style: Style, bytes: &[u8], size: usize) -> Result<String, Malformed> {
    let mut out = Vec::new();
    let mut converter = Converter::new(output(method), style, &mut out);
    for piece in bytes.chunks(size) {
        converter.feed(piece, &mut out)?;
    }
    converter.end(&mut out)?;
    Ok(String::from_utf8(out).unwrap())
}

fn range() -> pb::RangeResponse {
    let kv = |key: &'static str, revision| mvccpb::KeyValue {
        key: key.into(),
        mod_revision: revision,
        lease: i64::MIN,
        ..mvccpb::KeyValue::default()
    };
    pb::RangeResponse {
        header: Some(pb::ResponseHeader {
            cluster_id: u64::MAX,
            ..pb::ResponseHeader::default()
        }),
        kvs: vec![kv("a", 7), mvccpb::KeyValue::default(), kv("\u{e4}", 0)],
        more: true,
        count: 3,
    }
}

const RANGE: &str = "{\"header\":{\"cluster_id\":\"18446744073709551615\"},\
    \"kvs\":[{\"key\":\"YQ==\",\"mod_revision\":\"7\",\"lease\":\"-9223372036854775808\"},{},\
    {\"key\":\"w6Q=\",\"lease\":\"-9223372036854775808\"}],\"more\":true,\"count\":\"3\"}";

#[test]
fn pieces_of_any_size() {
    let bytes = range().encode_to_vec();
    for size in 1..=bytes.len() {
        assert_eq!(
            convert("/Range", Style::Plain, &bytes, size).as_deref(),
            Ok(RANGE),
            "{size}"
        );
    }
    assert_eq!(convert("/Range", Style::Plain, &[], 1).as_deref(), Ok("{}"));
}

#[test]
fn kinds() {
    let status = pb::StatusResponse {
        version: "<\"3\\\u{1}\n\u{2028}>".into(),
        errors: vec!["".into(), "b&".into()],
        downgrade_info: Some(pb::DowngradeInfo::default()),
        ..pb::StatusResponse::default()
    };
    let bytes = status.encode_to_vec();
    let plain = convert("/Status", Style::Plain, &bytes, 3);
    let want = "{\"version\":\"<\\\"3\\\\\\u0001\\n\u{2028}>\",\"errors\":[\"\",\"b&\"],\
                \"downgradeInfo\":{}}";
    assert_eq!(plain.as_deref(), Ok(want));
    let html = convert("/Status", Style::Html, &bytes, 3);
    let want = "{\"version\":\"\\u003c\\\"3\\\\\\u0001\\n\\u2028\\u003e\",\
                \"errors\":[\"\",\"b\\u0026\"],\"downgradeInfo\":{}}";
    assert_eq!(html.as_deref(), Ok(want));
    let alarm = |alarm| pb::AlarmMember {
        member_id: 0,
        alarm,
    };
    let alarms = pb::AlarmResponse {
        header: None,
        alarms: vec![alarm(1), alarm(9), alarm(0)],
    };
    let json = convert("/Alarm", Style::Plain, &alarms.encode_to_vec(), 99);
    let want = "{\"alarms\":[{\"alarm\":\"NOSPACE\"},{\"alarm\":9},{}]}";
    assert_eq!(json.as_deref(), Ok(want));
    let hash = pb::HashKvResponse {
        hash: u32::MAX,
        compact_revision: -1,
        ..pb::HashKvResponse::default()
    };
    let json = convert("/HashKV", Style::Plain, &hash.encode_to_vec(), 99);
    assert_eq!(
        json.as_deref(),
        Ok("{\"hash\":4294967295,\"compact_revision\":\"-1\"}")
    );
}

#[test]
fn unions() {
    let response = pb::TxnResponse {
        succeeded: true,
        responses: vec![
            pb::ResponseOp {
                response: Some(pb::response_op::Response::ResponsePut(
                    pb::PutResponse::default(),
                )),
            },
            pb::ResponseOp::default(),
        ],
        ..pb::TxnResponse::default()
    };
    let json = convert("/Txn", Style::Plain, &response.encode_to_vec(), 2);
    let want = "{\"succeeded\":true,\"responses\":[{\"response_put\":{}},{}]}";
    assert_eq!(json.as_deref(), Ok(want));
}

#[test]
fn malformed() {
    let cases: [&[u8]; 6] = [
        // Ends inside a field.
        &[0x0a, 0x05, 0x08],
        // A group.
        &[0x0b],
        // A varint of eleven bytes.
        &[0x80; 11],
        // An inner message that ends inside a field.
        &[0x0a, 0x02, 0x0a, 0x05],
        // The header twice.
        &[0x0a, 0x00, 0x0a, 0x00],
        // A repeated field with another in between.
        &[0x12, 0x00, 0x20, 0x01, 0x12, 0x00],
    ];
    for bytes in cases {
        assert_eq!(
            convert("/Range", Style::Plain, bytes, 99),
            Err(Malformed),
            "{bytes:?}"
        );
    }
    // Unknown fields of every width are passed over.
    let unknown = [
        &[0xf8, 0x01, 0x05, 0xf9, 0x01][..],
        &[0; 8],
        &[0xfd, 0x01],
        &[0; 4],
    ]
    .concat();
    assert_eq!(
        convert("/Range", Style::Plain, &unknown, 1).as_deref(),
        Ok("{}")
    );
}

proptest::proptest! {
    #[test]
    fn any_bytes_end_well(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..60)) {
        for method in METHODS.iter() {
            let _ = convert(method.path, Style::Html, &bytes, 7);
        }
    }
}
