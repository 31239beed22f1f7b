//! Request headers to gRPC metadata, by grpc-gateway's rules.

use std::time::Duration;

use api::{Code, Status};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use http::{HeaderMap, HeaderName, HeaderValue, header};

/// Headers with a meaning of their own (IANA's permanent ones) reach a service under this prefix.
const GATEWAY_PREFIX: &str = "grpcgateway-";
/// Headers that are metadata once this is taken off.
const METADATA_PREFIX: &str = "grpc-metadata-";

const PERMANENT: [HeaderName; 22] = [
    header::ACCEPT,
    header::ACCEPT_CHARSET,
    header::ACCEPT_LANGUAGE,
    header::ACCEPT_RANGES,
    header::AUTHORIZATION,
    header::CACHE_CONTROL,
    header::CONTENT_TYPE,
    header::COOKIE,
    header::DATE,
    header::EXPECT,
    header::FROM,
    header::HOST,
    header::IF_MATCH,
    header::IF_MODIFIED_SINCE,
    header::IF_NONE_MATCH,
    header::IF_UNMODIFIED_SINCE,
    header::MAX_FORWARDS,
    header::ORIGIN,
    header::PRAGMA,
    header::REFERER,
    header::USER_AGENT,
    header::VIA,
];
/// The permanent ones for which the `http` crate has no constant.
const PERMANENT_TOO: [&str; 2] = ["if-schedule-tag-match", "warning"];

/// What a gRPC client sets itself or HTTP/2 forbids; metadata of such a name is dropped.
const RESERVED: [&str; 14] = [
    "content-type",
    "user-agent",
    "grpc-message-type",
    "grpc-encoding",
    "grpc-message",
    "grpc-status",
    "grpc-timeout",
    "te",
    "connection",
    "host",
    "keep-alive",
    "proxy-connection",
    "transfer-encoding",
    "upgrade",
];

/// The metadata of a call.
///
/// # Errors
/// A header whose value cannot be metadata.
pub(super) fn metadata(headers: &HeaderMap) -> Result<HeaderMap, Status> {
    let mut metadata = HeaderMap::new();
    for (name, value) in headers {
        if name == header::AUTHORIZATION {
            metadata.append(header::AUTHORIZATION, value.clone());
        }
        let Some(key) = key(name) else {
            continue;
        };
        let value = match name.as_str().ends_with("-bin") {
            true => binary(name, value)?,
            false if is_text(value) => value.clone(),
            false => continue,
        };
        metadata.append(key, value);
    }
    forwarded(headers, &mut metadata);
    Ok(metadata)
}

fn key(name: &HeaderName) -> Option<HeaderName> {
    let text = name.as_str();
    if PERMANENT.contains(name) || PERMANENT_TOO.contains(&text) {
        let prefixed = format!("{GATEWAY_PREFIX}{text}");
        return HeaderName::from_bytes(prefixed.as_bytes()).ok();
    }
    let key = text.strip_prefix(METADATA_PREFIX)?;
    if RESERVED.contains(&key) || !key.bytes().all(is_key_byte) {
        return None;
    }
    HeaderName::from_bytes(key.as_bytes()).ok()
}

fn is_key_byte(byte: u8) -> bool {
    matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' | b'_')
}

fn is_text(value: &HeaderValue) -> bool {
    let mut bytes = value.as_bytes().iter();
    bytes.all(|byte| matches!(byte, 0x20..=0x7e))
}

/// Binary metadata comes as base64 and goes on as such.
fn binary(name: &HeaderName, value: &HeaderValue) -> Result<HeaderValue, Status> {
    let bytes = value.as_bytes();
    let decoded = match bytes.len().is_multiple_of(4) {
        true => STANDARD.decode(bytes),
        false => STANDARD_NO_PAD.decode(bytes),
    };
    let decoded = decoded.map_err(|error| {
        let at = match error {
            base64::DecodeError::InvalidByte(at, _) => at,
            _ => bytes.len(),
        };
        let name = canonical(name.as_str());
        let text = format!("invalid binary header {name}: illegal base64 data at input byte {at}");
        Status::new(Code::InvalidArgument, text)
    })?;
    let text = STANDARD_NO_PAD.encode(decoded);
    Ok(HeaderValue::from_str(&text).expect("base64 is plain text"))
}

/// The name under which the client spoke to us; who it is, only proxies before us know.
fn forwarded(headers: &HeaderMap, metadata: &mut HeaderMap) {
    let host = HeaderName::from_static("x-forwarded-host");
    let given = headers.get(&host).or_else(|| headers.get(header::HOST));
    if let Some(value) = given.filter(|value| is_text(value)) {
        metadata.insert(host, value.clone());
    }
    let from = HeaderName::from_static("x-forwarded-for");
    for value in headers.get_all(&from).iter().filter(|value| is_text(value)) {
        metadata.append(from.clone(), value.clone());
    }
}

/// `grpc-metadata-content-type` as `Grpc-Metadata-Content-Type`.
pub(super) fn canonical(name: &str) -> String {
    let mut upper = true;
    let mut canonical = String::with_capacity(name.len());
    for character in name.chars() {
        canonical.push(match upper {
            true => character.to_ascii_uppercase(),
            false => character,
        });
        upper = character == '-';
    }
    canonical
}

/// The time that `Grpc-Timeout` allows; none without the header and for zero.
///
/// # Errors
/// No number, or no unit.
pub(super) fn timeout(headers: &HeaderMap) -> Result<Option<Duration>, Status> {
    let Some(value) = headers
        .get("grpc-timeout")
        .filter(|value| !value.is_empty())
    else {
        return Ok(None);
    };
    let text = String::from_utf8_lossy(value.as_bytes());
    let parsed = parse_timeout(&text).ok_or_else(|| {
        let text = format!("invalid grpc-timeout: {text}");
        Status::new(Code::InvalidArgument, text)
    })?;
    Ok(Some(parsed).filter(|time| !time.is_zero()))
}

fn parse_timeout(text: &str) -> Option<Duration> {
    let unit = text.chars().next_back()?;
    let digits = &text[..text.len() - unit.len_utf8()];
    let nanoseconds: i128 = match unit {
        'H' => 3_600_000_000_000,
        'M' => 60_000_000_000,
        'S' => 1_000_000_000,
        'm' => 1_000_000,
        'u' => 1_000,
        'n' => 1,
        _ => return None,
    };
    let count: i64 = digits.parse().ok()?;
    let total = i128::from(count) * nanoseconds;
    // What is over already ends the call at once, as in Go.
    let total = u64::try_from(total.clamp(i128::from(count != 0), i128::from(u64::MAX)));
    Some(Duration::from_nanos(total.unwrap_or(u64::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers() {
        let given = [
            ("authorization", "Bearer t"),
            ("accept", "*/*"),
            ("warning", "w"),
            ("content-length", "5"),
            ("grpc-metadata-hasleader", "true"),
            ("grpc-metadata-te", "x"),
            ("grpc-metadata-a!", "x"),
            ("grpc-metadata-key-bin", "AQI="),
            ("host", "h:1"),
            ("x-forwarded-for", "1.2.3.4"),
        ];
        let headers = given.map(|(name, value)| {
            (
                HeaderName::from_static(name),
                HeaderValue::from_static(value),
            )
        });
        let metadata = metadata(&headers.into_iter().collect()).unwrap();
        let mut found: Vec<_> = metadata
            .iter()
            .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
            .collect();
        found.sort_unstable();
        let want = [
            "authorization: Bearer t",
            "grpcgateway-accept: */*",
            "grpcgateway-authorization: Bearer t",
            "grpcgateway-host: h:1",
            "grpcgateway-warning: w",
            "hasleader: true",
            "key-bin: AQI",
            "x-forwarded-for: 1.2.3.4",
            "x-forwarded-host: h:1",
        ];
        assert_eq!(found, want);
    }

    #[test]
    fn timeouts() {
        let one = |text: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert("grpc-timeout", HeaderValue::from_static(text));
            timeout(&headers).map_err(|status| status.message.to_string())
        };
        assert_eq!(one("2S"), Ok(Some(Duration::from_secs(2))));
        assert_eq!(one("1n"), Ok(Some(Duration::from_nanos(1))));
        assert_eq!(one("-5H"), Ok(Some(Duration::from_nanos(1))));
        assert_eq!(one("0S"), Ok(None));
        assert_eq!(
            one("9223372036854775807H"),
            Ok(Some(Duration::from_nanos(u64::MAX)))
        );
        for bad in ["S", "5", "5x", "x", "5.0S"] {
            assert_eq!(one(bad), Err(format!("invalid grpc-timeout: {bad}")));
        }
    }

    #[test]
    fn names() {
        assert_eq!(canonical("grpc-metadata-x-bin"), "Grpc-Metadata-X-Bin");
    }
}
