use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;

use super::*;

#[test]
fn content_types() {
    let yes = [
        "application/grpc",
        "application/grpc+proto",
        "Application/GRPC;x=y",
    ];
    let no = [
        "",
        "application/grp",
        "application/grpcx",
        "application/json",
        "grpc",
    ];
    assert!(
        yes.iter()
            .all(|value| is_grpc_content_type(value.as_bytes()))
    );
    assert!(
        !no.iter()
            .any(|value| is_grpc_content_type(value.as_bytes()))
    );
}

#[test]
fn timeouts() {
    let cases: [(&[u8], Option<Duration>); 12] = [
        (b"1H", Some(Duration::from_secs(3600))),
        (b"2M", Some(Duration::from_secs(120))),
        (b"0S", Some(Duration::ZERO)),
        (b"99999999m", Some(Duration::from_millis(99_999_999))),
        (b"7u", Some(Duration::from_micros(7))),
        (b"8n", Some(Duration::from_nanos(8))),
        (b"", None),
        (b"S", None),
        (b"123456789S", None),
        (b"-1S", None),
        (b"1s", None),
        (b"1.5S", None),
    ];
    for (value, expected) in cases {
        assert_eq!(timeout(value), expected, "{value:?}");
    }
    assert_eq!(
        timeout_fault(b"S"),
        "transport: timeout string is too short: \"S\""
    );
    assert_eq!(
        timeout_fault(b"1x"),
        "transport: timeout unit is not recognized: \"1x\""
    );
    assert_eq!(
        timeout_fault(b"1234567890S"),
        "transport: timeout string is too long: \"1234567890S\""
    );
    assert_eq!(
        timeout_fault("1ü".as_bytes()),
        "transport: timeout unit is not recognized: \"1ü\""
    );
}

#[test]
fn messages_are_percent_encoded() {
    let mut out = Vec::new();
    percent_encode("a b%\n~ü", &mut out);
    assert_eq!(out, b"a b%25%0A~%C3%BC");
}

fn gzip(plain: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(plain).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn inflation_is_bounded() {
    let plain = vec![7u8; 100_000];
    let packed = gzip(&plain);
    assert!(packed.len() < 1000);
    assert_eq!(inflate(&packed, 100_000).unwrap(), plain);
    assert_eq!(inflate(&packed, 99_999), Err(InflateError::TooLarge));
    assert_eq!(inflate(b"no gzip", 100), Err(InflateError::Damaged));
    assert_eq!(
        inflate(&packed[..packed.len() - 5], 100_000),
        Err(InflateError::Damaged)
    );
}
