//! gRPC over HTTP/2 as text and bytes: content types, timeouts, status messages, compression.

use std::io::Read;
use std::time::Duration;

use bytes::Bytes;
use flate2::bufread::MultiGzDecoder;

#[cfg(test)]
mod tests;

/// Flag (1) and length (4) before every message.
pub(super) const PREFIX_BYTES: usize = 5;

/// `application/grpc`, alone or followed by `+subtype` or parameters.
pub(super) fn is_grpc_content_type(value: &[u8]) -> bool {
    const BASE: &[u8] = b"application/grpc";
    match value.split_at_checked(BASE.len()) {
        Some((base, rest)) => {
            base.eq_ignore_ascii_case(BASE) && matches!(rest.first(), None | Some(b'+' | b';'))
        }
        None => false,
    }
}

/// A `grpc-timeout` value: at most eight digits and a unit. `None` when malformed.
pub(super) fn timeout(value: &[u8]) -> Option<Duration> {
    let (&unit, digits) = value.split_last()?;
    if digits.is_empty() || digits.len() > 8 {
        return None;
    }
    let mut count = 0u64;
    for &digit in digits {
        if !digit.is_ascii_digit() {
            return None;
        }
        count = count * 10 + u64::from(digit - b'0');
    }
    Some(match unit {
        b'H' => Duration::from_secs(count * 3600),
        b'M' => Duration::from_secs(count * 60),
        b'S' => Duration::from_secs(count),
        b'm' => Duration::from_millis(count),
        b'u' => Duration::from_micros(count),
        b'n' => Duration::from_nanos(count),
        _ => return None,
    })
}

/// What is wrong with a value that [`timeout`] did not take, in grpc-go's words.
pub(super) fn timeout_fault(value: &[u8]) -> String {
    let text = String::from_utf8_lossy(value);
    let digits = text.get(..text.len().saturating_sub(1)).unwrap_or_default();
    if value.len() < 2 {
        format!("transport: timeout string is too short: {text:?}")
    } else if value.len() > 9 {
        format!("transport: timeout string is too long: {text:?}")
    } else if !text.ends_with(['H', 'M', 'S', 'm', 'u', 'n']) {
        format!("transport: timeout unit is not recognized: {text:?}")
    } else {
        format!("strconv.ParseUint: parsing {digits:?}: invalid syntax")
    }
}

/// Appends a `grpc-message` value: octets outside printable ASCII, and `%`, percent-encoded.
pub(super) fn percent_encode(text: &str, out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    for &octet in text.as_bytes() {
        if (0x20..=0x7e).contains(&octet) && octet != b'%' {
            out.push(octet);
        } else {
            out.push(b'%');
            out.push(HEX[usize::from(octet >> 4)]);
            out.push(HEX[usize::from(octet & 15)]);
        }
    }
}

/// Why a compressed message was not accepted.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum InflateError {
    Damaged,
    TooLarge,
}

/// Decompresses a gzip message of at most `bytes_max` bytes; memory stays within twice that.
pub(super) fn inflate(message: &[u8], bytes_max: usize) -> Result<Bytes, InflateError> {
    let mut plain = Vec::new();
    MultiGzDecoder::new(message)
        .take(bytes_max as u64 + 1)
        .read_to_end(&mut plain)
        .map_err(|_| InflateError::Damaged)?;
    if plain.len() > bytes_max {
        return Err(InflateError::TooLarge);
    }
    Ok(plain.into())
}
