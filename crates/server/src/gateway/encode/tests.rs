use api::pb::etcdserverpb as pb;
use prost::Message as _;

use super::*;
use crate::gateway::schema::METHODS;

fn input(method: &str) -> &'static Message {
    let mut methods = METHODS.iter();
    methods
        .find(|one| one.path.ends_with(method))
        .unwrap()
        .input
}

fn put(json: &str) -> Result<pb::PutRequest, String> {
    let mut out = Vec::new();
    encode(json.as_bytes(), input("/Put"), &mut out)?;
    Ok(pb::PutRequest::decode(&out[..]).unwrap())
}

fn txn(json: &str) -> Result<pb::TxnRequest, String> {
    let mut out = Vec::new();
    encode(json.as_bytes(), input("/Txn"), &mut out)?;
    Ok(pb::TxnRequest::decode(&out[..]).unwrap())
}

#[test]
fn fields() {
    let request = put(
        " { \"key\" : \"YQ==\", \"value\":\"_-8\", \"lease\":\"-7\", \"prevKv\":true, \
         \"ignore_value\":false, \"nobody\":[{\"key\":\"\\ud83d\\ude00\"}, null, 1e5], \
         \"ignoreLease\": null } ",
    );
    let want = pb::PutRequest {
        key: "a".into(),
        value: vec![0xff, 0xef].into(),
        lease: -7,
        prev_kv: true,
        ..pb::PutRequest::default()
    };
    assert_eq!(request.unwrap(), want);
    assert_eq!(put("{}").unwrap(), pb::PutRequest::default());
}

#[test]
fn base64() {
    let cases: [(&str, Option<&[u8]>); 12] = [
        ("", Some(b"")),
        ("YQ==", Some(b"a")),
        ("YQ", Some(b"a")),
        ("YQ=", None),
        ("YR==", Some(b"a")),
        ("YWI\\n=", None),
        ("Y\\nWJj", Some(b"abc")),
        ("+/+/", Some(&[0xfb, 0xff, 0xbf])),
        ("-_-_", Some(&[0xfb, 0xff, 0xbf])),
        ("+_", None),
        ("Y", None),
        ("Y!==", None),
    ];
    for (text, want) in cases {
        let came = put(&format!("{{\"key\":\"{text}\"}}"));
        assert_eq!(
            came.ok().map(|request| request.key.to_vec()).as_deref(),
            want,
            "{text}"
        );
    }
}

#[test]
fn numbers() {
    let cases: [(&str, Option<i64>); 21] = [
        ("0", Some(0)),
        ("-0", Some(0)),
        ("7", Some(7)),
        ("\"7\"", Some(7)),
        ("1e3", Some(1000)),
        ("\"12.50e1\"", Some(125)),
        ("1200e-2", Some(12)),
        ("0.0", Some(0)),
        ("1.5", None),
        ("1e-1", None),
        ("9223372036854775807", Some(i64::MAX)),
        ("9223372036854775808", None),
        ("\"-9223372036854775808\"", Some(i64::MIN)),
        ("1e400", None),
        ("1e99999999999", None),
        ("1e-99999999999", None),
        ("\" 7\"", None),
        ("\"\"", None),
        ("\"7x\"", None),
        ("\"7 8\"", Some(7)),
        ("true", None),
    ];
    for (text, want) in cases {
        let came = put(&format!("{{\"lease\":{text}}}"));
        assert_eq!(came.ok().map(|request| request.lease), want, "{text}");
    }
}

#[test]
fn unions_and_enums() {
    let request = txn(
        "{\"compare\":[{\"key\":\"YQ==\",\"target\":\"VALUE\",\"result\":3,\"value\":\"\"},\
         {\"target\":\"NOPE\",\"version\":0}],\
         \"success\":[{\"requestPut\":{\"key\":\"Yg==\"},\"request_range\":null},\
         {\"request_txn\":{\"failure\":[{}]}}]}",
    );
    let request = request.unwrap();
    let first = &request.compare[0];
    assert_eq!(
        (first.target(), first.result()),
        (
            pb::compare::CompareTarget::Value,
            pb::compare::CompareResult::NotEqual
        )
    );
    let empty = pb::compare::TargetUnion::Value(bytes::Bytes::new());
    assert_eq!(first.target_union, Some(empty));
    assert_eq!(request.compare[1].target, 0);
    assert_eq!(
        request.compare[1].target_union,
        Some(pb::compare::TargetUnion::Version(0))
    );
    assert_eq!(request.success.len(), 2);
    let Some(pb::request_op::Request::RequestTxn(inner)) = &request.success[1].request else {
        panic!("{:?}", request.success[1])
    };
    assert_eq!(inner.failure, [pb::RequestOp::default()]);
}

#[test]
fn lists_of_enums() {
    let mut out = Vec::new();
    let json = b"{\"create_request\":{\"filters\":[\"NODELETE\",\"NOPE\",0]}}";
    encode(json, input("/Watch"), &mut out).unwrap();
    let request = pb::WatchRequest::decode(&out[..]).unwrap();
    let Some(pb::watch_request::RequestUnion::CreateRequest(create)) = request.request_union else {
        panic!("{request:?}")
    };
    assert_eq!(create.filters, [1, 0]);
}

/// The texts are Go's, apart from its habit of now and then writing a wider blank behind `proto:`.
#[test]
fn refusals() {
    let cases: [(&[u8], &str); 15] = [
        (
            b"{\"key\":5}",
            "proto: (line 1:8): invalid value for bytes field key: 5",
        ),
        (
            b"{\n \"key\": \"!\"}",
            "proto: (line 2:9): invalid value for bytes field key: \"!\"",
        ),
        (
            b"{\"lease\":true}",
            "proto: (line 1:10): invalid value for int64 field lease: true",
        ),
        (
            b"{\"lease\":{}}",
            "proto: (line 1:10): invalid value for int64 field lease: {",
        ),
        (
            b"{\"prev_kv\":1}",
            "proto: (line 1:12): invalid value for bool field prevKv: 1",
        ),
        (
            b"{\"key\":\"\",\"key\":\"\"}",
            "proto: (line 1:11): duplicate field \"key\"",
        ),
        (
            b"{\"prevKv\":null,\"prev_kv\":true}",
            "proto: (line 1:16): duplicate field \"prev_kv\"",
        ),
        (
            b"null",
            "proto: syntax error (line 1:1): unexpected token null",
        ),
        (b"[]", "proto: syntax error (line 1:1): unexpected token ["),
        (
            b"\"x\"",
            "proto: syntax error (line 1:1): unexpected token \"x\"",
        ),
        (
            b"{\"key\":\"\xff\"}",
            "proto: syntax error (line 1:8): invalid UTF-8 in string",
        ),
        (
            b"{\"\xc3\":1}",
            "proto: syntax error (line 1:2): invalid UTF-8 in string",
        ),
        (
            b"{\"x\":\"\\ud800\\u0041\"}",
            "proto: syntax error (line 1:6): invalid escape code \"\\\\u0041\" in string",
        ),
        (
            b"{\"x\":\"\\udc00\",\"y\":12}",
            "proto: syntax error (line 1:6): invalid escape code \"\\\",\\\"y\\\":\" in string",
        ),
        (b"{\"x\":\"\\udc00\"}", "proto: unexpected EOF"),
    ];
    for (json, want) in cases {
        let came = encode(json, input("/Put"), &mut Vec::new()).unwrap_err();
        assert_eq!(came, want, "{}", String::from_utf8_lossy(json));
    }
    let two = txn("{\"success\":[{\"request_put\":{},\"request_range\":{}}]}").unwrap_err();
    let want = "proto: (line 1:31): error parsing \"request_range\", oneof \
                etcdserverpb.RequestOp.request is already set";
    assert_eq!(two, want);
    let list = txn("{\"success\":{}}").unwrap_err();
    assert_eq!(list, "proto: syntax error (line 1:12): unexpected token {");
}

#[test]
fn depth_is_bounded() {
    let nested = |levels: usize| {
        let open = "{\"success\":[{\"request_txn\":".repeat(levels);
        format!("{open}{{}}{}", "}]}".repeat(levels))
    };
    assert!(txn(&nested(49)).is_ok());
    assert_eq!(
        txn(&nested(50)).unwrap_err(),
        "proto: exceeded max recursion depth"
    );
    // What is unknown may nest as deep as the scanner lets it.
    let unknown = format!("{{\"x\":{}{}}}", "[".repeat(9000), "]".repeat(9000));
    assert_eq!(put(&unknown).unwrap(), pb::PutRequest::default());
}

proptest::proptest! {
    /// Whatever comes, well-formed or not, nothing panics.
    #[test]
    fn any_text_ends_well(json in "[ \\[\\]{}:,\"a-z0-9\\\\ue.+-]{0,60}") {
        for method in METHODS.iter() {
            let _ = encode(json.as_bytes(), method.input, &mut Vec::new());
        }
    }

    #[test]
    fn any_bytes_end_well(json in proptest::collection::vec(proptest::num::u8::ANY, 0..60)) {
        let _ = encode(&json, input("/Txn"), &mut Vec::new());
    }
}
