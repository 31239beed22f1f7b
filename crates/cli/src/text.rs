//! Texts as Go prints and reads them: scripts compare them byte by byte.

use std::fmt::Write as _;
use std::time::Duration;

/// Quotes bytes as Go's `%q` does: printable characters stay, the rest becomes escapes.
pub fn quote(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len() + 2);
    out.push('"');
    for chunk in bytes.utf8_chunks() {
        chunk.valid().chars().for_each(|c| quote_char(&mut out, c));
        for byte in chunk.invalid() {
            push_escape(&mut out, 'x', u32::from(*byte), 2);
        }
    }
    out.push('"');
    out
}

fn quote_char(out: &mut String, c: char) {
    match c {
        '"' | '\\' => out.extend(['\\', c]),
        '\x07' => out.push_str("\\a"),
        '\x08' => out.push_str("\\b"),
        '\x0c' => out.push_str("\\f"),
        '\n' => out.push_str("\\n"),
        '\r' => out.push_str("\\r"),
        '\t' => out.push_str("\\t"),
        '\x0b' => out.push_str("\\v"),
        c if is_printable(c) => out.push(c),
        c if (c as u32) < 0x80 => push_escape(out, 'x', c as u32, 2),
        c if (c as u32) < 0x1_0000 => push_escape(out, 'u', c as u32, 4),
        c => push_escape(out, 'U', c as u32, 8),
    }
}

fn push_escape(out: &mut String, kind: char, value: u32, width: usize) {
    // Writing to a String cannot fail.
    let _written = write!(out, "\\{kind}{value:0width$x}");
}

/// Letters, marks, numbers, punctuation, symbols and the ASCII space.
fn is_printable(c: char) -> bool {
    // A combining mark is escaped alone but not after a letter, as in a text.
    let mut escaped = String::from("a");
    escaped.push(c);
    escaped.escape_debug().eq(escaped.chars())
}

/// Appends a text as a JSON string; `<`, `>` and `&` become escapes, as Go makes them.
pub fn push_json(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\x08' => out.push_str("\\b"),
            '\x0c' => out.push_str("\\f"),
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' | '\0'..='\x1f' => {
                // Writing to a String cannot fail.
                let _written = write!(out, "\\u{:04x}", c as u32);
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

/// Why a Go string literal could not be read.
pub const BAD_QUOTE: &str = "invalid syntax";

/// Reads a Go string literal, double-quoted or between back quotes, at the start of `text`.
/// Returns its bytes and what follows it.
pub fn unquote_prefix(text: &str) -> Option<(Vec<u8>, &str)> {
    if let Some(rest) = text.strip_prefix('`') {
        let (inner, after) = rest.split_once('`')?;
        return Some((inner.as_bytes().to_vec(), after));
    }
    let mut rest = text.strip_prefix('"')?;
    let mut out = Vec::new();
    loop {
        let c = rest.chars().next()?;
        rest = &rest[c.len_utf8()..];
        match c {
            '"' => return Some((out, rest)),
            '\n' => return None,
            '\\' => rest = unescape(rest, &mut out)?,
            c => push_char(&mut out, c),
        }
    }
}

fn push_char(out: &mut Vec<u8>, c: char) {
    out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
}

/// Reads what follows a backslash; returns the rest.
fn unescape<'a>(text: &'a str, out: &mut Vec<u8>) -> Option<&'a str> {
    let c = text.chars().next()?;
    let rest = &text[c.len_utf8()..];
    let simple = match c {
        'a' => 7,
        'b' => 8,
        'f' => 12,
        'n' => b'\n',
        'r' => b'\r',
        't' => b'\t',
        'v' => 11,
        '\\' | '"' => c as u8,
        'x' => {
            out.push(u8::try_from(number(rest, 2, 16)?).ok()?);
            return rest.get(2..);
        }
        'u' | 'U' => {
            let width = if c == 'u' { 4 } else { 8 };
            push_char(out, char::from_u32(number(rest, width, 16)?)?);
            return rest.get(width..);
        }
        '0'..='7' => {
            out.push(u8::try_from(number(text, 3, 8)?).ok()?);
            return text.get(3..);
        }
        _ => return None,
    };
    out.push(simple);
    Some(rest)
}

fn number(text: &str, width: usize, radix: u32) -> Option<u32> {
    let digits = text.get(..width)?;
    digits
        .bytes()
        .all(|b| b.is_ascii_alphanumeric())
        .then_some(())?;
    u32::from_str_radix(digits, radix).ok()
}

/// Splits a line into words: `"…"` is read as a Go string, `'…'` is taken literally, anything
/// else ends at a blank.
///
/// # Errors
/// A double-quoted word that is no Go string.
pub fn words(line: &str) -> Result<Vec<Vec<u8>>, String> {
    let mut found = Vec::new();
    let mut rest = line.trim_start();
    while let Some(first) = rest.chars().next() {
        let end = word_end(rest, first);
        let (word, after) = rest.split_at(end);
        if word.starts_with('"') && word.len() > 1 {
            let (bytes, _) = unquote_prefix(word).ok_or_else(|| BAD_QUOTE.to_owned())?;
            found.push(bytes);
        } else if word.starts_with('\'') && word.len() > 1 {
            found.push(word.as_bytes()[1..word.len() - 1].to_vec());
        } else if !word.starts_with(['"', '\'']) {
            found.push(word.as_bytes().to_vec());
        }
        rest = after.trim_start();
    }
    Ok(found)
}

/// Where the word that starts `text` ends, as a byte index. An unclosed quote is a word of its
/// own, which nobody keeps.
fn word_end(text: &str, first: char) -> usize {
    match first {
        '\'' => text[1..].find('\'').map_or(1, |index| index + 2),
        '"' => {
            let mut escaped = false;
            for (index, c) in text.char_indices().skip(1) {
                match c {
                    _ if escaped => escaped = false,
                    '\\' => escaped = true,
                    '"' => return index + 1,
                    _ => {}
                }
            }
            1
        }
        _ => text.find(char::is_whitespace).unwrap_or(text.len()),
    }
}

/// Why a text is no number, in Go's words.
fn number_error(function: &str, text: &str, kind: &std::num::IntErrorKind) -> String {
    use std::num::IntErrorKind::{NegOverflow, PosOverflow};
    let why = match kind {
        PosOverflow | NegOverflow => "value out of range",
        _ => "invalid syntax",
    };
    format!(
        "strconv.{function}: parsing {}: {why}",
        quote(text.as_bytes())
    )
}

/// Reads a signed number in the given base, or in the base that its prefix names for base 0.
///
/// # Errors
/// Go's words for what is wrong.
pub fn parse_int(text: &str, base: u32) -> Result<i64, String> {
    let (digits, radix) = digits_of(text, base);
    i64::from_str_radix(&digits, radix)
        .map_err(|error| number_error("ParseInt", text, error.kind()))
}

/// Reads an unsigned number; see [`parse_int`].
///
/// # Errors
/// Go's words for what is wrong.
pub fn parse_uint(text: &str, base: u32) -> Result<u64, String> {
    let (digits, radix) = digits_of(text, base);
    if digits.starts_with(['+', '-']) {
        return Err(number_error(
            "ParseUint",
            text,
            &std::num::IntErrorKind::InvalidDigit,
        ));
    }
    u64::from_str_radix(&digits, radix)
        .map_err(|error| number_error("ParseUint", text, error.kind()))
}

/// As [`parse_uint`], for numbers of 32 bits.
///
/// # Errors
/// As [`parse_uint`].
pub fn parse_uint32(text: &str, base: u32) -> Result<u32, String> {
    let number = parse_uint(text, base)?;
    u32::try_from(number)
        .map_err(|_| number_error("ParseUint", text, &std::num::IntErrorKind::PosOverflow))
}

/// Takes a prefix like `0x` off a number whose base is open.
fn digits_of(text: &str, base: u32) -> (String, u32) {
    if base != 0 {
        return (text.to_owned(), base);
    }
    let unsigned = text.trim_start_matches(['+', '-']);
    let sign = &text[..text.len() - unsigned.len()];
    let lower = unsigned.to_ascii_lowercase();
    for (prefix, radix) in [("0x", 16), ("0b", 2), ("0o", 8)] {
        if let Some(digits) = lower.strip_prefix(prefix) {
            return (format!("{sign}{digits}"), radix);
        }
    }
    match lower.strip_prefix('0') {
        Some(octal) if !octal.is_empty() => (format!("{sign}{octal}"), 8),
        _ => (text.to_owned(), 10),
    }
}

/// Reads `1`, `t`, `true` and the like.
///
/// # Errors
/// Go's words for what is wrong.
pub fn parse_bool(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => {
            let quoted = quote(text.as_bytes());
            Err(format!(
                "strconv.ParseBool: parsing {quoted}: invalid syntax"
            ))
        }
    }
}

/// Reads `1h2m3.5s` and the like; a negative duration counts as none.
///
/// # Errors
/// Go's words for what is wrong.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let invalid = || format!("time: invalid duration {}", quote(text.as_bytes()));
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    if unsigned == "0" {
        return Ok(Duration::ZERO);
    }
    if unsigned.is_empty() {
        return Err(invalid());
    }
    let mut seconds = 0.0;
    let mut rest = unsigned;
    while !rest.is_empty() {
        let end = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(rest.len());
        let (value, after) = rest.split_at(end);
        let value: f64 = value.parse().map_err(|_| invalid())?;
        let end = after
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(after.len());
        let (unit, after) = after.split_at(end);
        let Some(scale) = unit_seconds(unit) else {
            let quoted = quote(text.as_bytes());
            return Err(match unit {
                "" => format!("time: missing unit in duration {quoted}"),
                unit => {
                    format!(
                        "time: unknown unit {} in duration {quoted}",
                        quote(unit.as_bytes())
                    )
                }
            });
        };
        seconds += value * scale;
        rest = after;
    }
    if text.starts_with('-') {
        return Ok(Duration::ZERO);
    }
    Duration::try_from_secs_f64(seconds).map_err(|_| invalid())
}

fn unit_seconds(unit: &str) -> Option<f64> {
    Some(match unit {
        "ns" => 1e-9,
        "us" | "µs" | "μs" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return None,
    })
}

/// Prints a duration as Go does: `1.5ms`, `977.319µs`, `2m3.25s`.
pub fn duration(duration: Duration) -> String {
    let nanos = duration.as_nanos();
    if nanos == 0 {
        return "0s".to_owned();
    }
    if nanos < 1_000 {
        return format!("{nanos}ns");
    }
    if nanos < 1_000_000 {
        return format!("{}µs", decimal(nanos, 1_000));
    }
    if nanos < 1_000_000_000 {
        return format!("{}ms", decimal(nanos, 1_000_000));
    }
    let minutes = duration.as_secs() / 60;
    let seconds = decimal(nanos - u128::from(minutes) * 60_000_000_000, 1_000_000_000);
    match (minutes / 60, minutes % 60) {
        (0, 0) => format!("{seconds}s"),
        (0, minutes) => format!("{minutes}m{seconds}s"),
        (hours, minutes) => format!("{hours}h{minutes}m{seconds}s"),
    }
}

/// `value / unit` without trailing zeros; `unit` is a power of ten.
fn decimal(value: u128, unit: u128) -> String {
    let width = unit.ilog10() as usize;
    let fraction = format!("{:0width$}", value % unit);
    let fraction = fraction.trim_end_matches('0');
    match fraction {
        "" => (value / unit).to_string(),
        fraction => format!("{}.{fraction}", value / unit),
    }
}

/// What the system says about a failed call, without the number that Rust appends and in lower
/// case as Go has it.
pub fn io_error(error: &std::io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut chars = text.chars();
    chars.next().map_or(String::new(), |first| {
        format!("{}{}", first.to_ascii_lowercase(), chars.as_str())
    })
}

/// Prints a number of bytes in units of 1000: `20 kB`, `2.1 GB`.
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 7] = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
    if count < 10 {
        return format!("{count} B");
    }
    let exponent = count.ilog10() / 3;
    let scaled = count as f64 / 1000_f64.powi(exponent as i32);
    let rounded = (scaled * 10.0 + 0.5).floor() / 10.0;
    let unit = UNITS[exponent as usize];
    if rounded < 10.0 {
        format!("{rounded:.1} {unit}")
    } else {
        format!("{rounded:.0} {unit}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_quote(bytes: &[u8], quoted: &str) {
        assert_eq!(quote(bytes), quoted);
        assert_eq!(
            unquote_prefix(quoted),
            Some((bytes.to_vec(), "")),
            "{quoted}"
        );
    }

    #[test]
    fn quoted_texts_read_back() {
        check_quote(b"a\"b\\", r#""a\"b\\""#);
        check_quote(b"\0\x01\n\t\x7f\xff", r#""\x00\x01\n\t\x7f\xff""#);
        check_quote("grüße 世界".as_bytes(), "\"grüße 世界\"");
        check_quote("\u{a0}\u{200b}".as_bytes(), r#""\u00a0\u200b""#);
    }

    #[test]
    fn lines_become_words() {
        let check = |line: &str, expected: &[&str]| {
            let expected: Vec<_> = expected
                .iter()
                .map(|word| word.as_bytes().to_vec())
                .collect();
            assert_eq!(words(line).unwrap(), expected, "{line}");
        };
        check("put  key1 \"a b\" ", &["put", "key1", "a b"]);
        check("put k 'a \"b\"'", &["put", "k", "a \"b\""]);
        check(r#"put k "a\x20\"b""#, &["put", "k", "a \"b"]);
        check("", &[]);
    }

    #[test]
    fn durations_are_printed_and_read_as_in_go() {
        let check = |nanos: u64, text: &str| {
            assert_eq!(duration(Duration::from_nanos(nanos)), text);
            assert_eq!(
                parse_duration(text),
                Ok(Duration::from_nanos(nanos)),
                "{text}"
            );
        };
        check(5_000_000_000, "5s");
        check(2_146_945, "2.146945ms");
        check(977_319, "977.319µs");
        check(62_500_000_000, "1m2.5s");
        check(3_600_000_000_000, "1h0m0s");
        assert!(parse_duration("5").is_err());
        assert!(parse_duration("x").is_err());
    }

    #[test]
    fn sizes_are_printed_in_si_units() {
        for (count, text) in [
            (0, "0 B"),
            (999, "999 B"),
            (20_480, "20 kB"),
            (2_147_483_648, "2.1 GB"),
        ] {
            assert_eq!(bytes(count), text);
        }
    }

    #[test]
    fn numbers_fail_in_the_words_of_go() {
        assert_eq!(parse_int("1b4", 16), Ok(0x1b4));
        assert_eq!(parse_int("0x10", 0), Ok(16));
        assert_eq!(
            parse_int("abc", 10).unwrap_err(),
            "strconv.ParseInt: parsing \"abc\": invalid syntax"
        );
        assert_eq!(
            parse_uint("ffffffffffffffffff", 16).unwrap_err(),
            "strconv.ParseUint: parsing \"ffffffffffffffffff\": value out of range"
        );
    }

    #[test]
    fn texts_are_escaped_as_in_go() {
        let mut out = String::new();
        push_json(&mut out, "a\"<\n\x01é");
        assert_eq!(out, "\"a\\\"\\u003c\\n\\u0001é\"");
    }
}
