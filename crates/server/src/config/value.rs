//! One flag's value: its kind, and the text forms that Go's `flag` and `time` packages accept.

use std::fmt;

use super::gates::Gates;
use super::url::{self, Url};

/// What a flag's text means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Bool,
    /// Free text, also paths.
    Text,
    /// Non-negative, 64 bits (Go's `uint` and `uint64`).
    Uint,
    /// Non-negative, 32 bits.
    Uint32,
    /// Signed, 64 bits (Go's `int` and `int64`).
    Int,
    /// Go duration text on the command line, nanoseconds in a file.
    Duration,
    /// Comma-separated URLs; the empty text leaves the default in place.
    Urls,
    /// Comma-separated origins or `*`.
    Origins,
    /// Comma-separated words, order kept.
    List,
    /// Comma-separated words, sorted and without duplicates; a list in a file.
    Set,
    /// Like `Set`, but comma-separated in a file too.
    Hosts,
    /// One of the given words.
    OneOf(&'static [&'static str]),
    /// A comma-separated selection of the given words.
    ManyOf(&'static [&'static str]),
    /// `Gate=true,Other=false`.
    Gates,
    /// Accepted like a boolean flag, with any value, and forgotten.
    Ignored,
}

impl Kind {
    /// Whether `--flag` alone is complete, so that the next word is not its value.
    #[must_use]
    pub fn is_boolean(self) -> bool {
        matches!(self, Kind::Bool | Kind::Ignored)
    }

    /// Reads the text of the command line or of an environment variable.
    ///
    /// # Errors
    /// The reason in Go's words, to be put behind `invalid value "…" for …: `.
    pub fn parse(self, text: &str) -> Result<Value, String> {
        match self {
            Kind::Bool => parse_bool(text)
                .map(Value::Bool)
                .ok_or_else(|| "parse error".into()),
            Kind::Text => Ok(Value::Text(text.into())),
            Kind::Uint => parse_uint(text)
                .map(Value::Uint)
                .map_err(NumberError::short),
            Kind::Uint32 => parse_uint(text)
                .and_then(|n| u32::try_from(n).map_err(|_| NumberError::Range))
                .map(|n| Value::Uint(n.into()))
                .map_err(|e| format!("strconv.ParseUint: parsing {text:?}: {}", e.long())),
            Kind::Int => parse_int(text).map(Value::Int).map_err(NumberError::short),
            Kind::Duration => parse_duration(text)
                .map(Value::Duration)
                .map_err(|_| "parse error".into()),
            Kind::Urls => url::parse_list(text).map(Value::Urls),
            Kind::Origins => parse_origins(text).map(Value::List),
            Kind::List => Ok(Value::List(split(text))),
            Kind::Set | Kind::Hosts => Ok(Value::List(sorted(split(text)))),
            Kind::OneOf(words) if words.contains(&text) => Ok(Value::Text(text.into())),
            Kind::OneOf(_) => Err("invalid value".into()),
            Kind::ManyOf(words) => {
                let list = sorted(split(text));
                match list.iter().find(|word| !words.contains(&word.as_str())) {
                    Some(word) => Err(format!("invalid value {word:?}")),
                    None => Ok(Value::List(list)),
                }
            }
            Kind::Gates => Gates::parse(text).map(Value::Gates),
            Kind::Ignored => Ok(Value::Bool(true)),
        }
    }

    /// The value of a flag that nobody set, from the text in the table.
    #[must_use]
    pub fn default_value(self, text: &str) -> Value {
        match self {
            Kind::Urls | Kind::List | Kind::Set | Kind::ManyOf(_) if text.is_empty() => {
                if self == Kind::Urls {
                    Value::Urls(Vec::new())
                } else {
                    Value::List(Vec::new())
                }
            }
            Kind::Ignored => Value::Bool(false),
            _ => self
                .parse(text)
                .expect("the defaults of the flag table are valid"),
        }
    }
}

/// A typed value, before anything has been concluded from it.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Bool(bool),
    Text(String),
    Uint(u64),
    Int(i64),
    /// Nanoseconds; Go durations may be negative.
    Duration(i64),
    Urls(Vec<Url>),
    List(Vec<String>),
    Gates(Gates),
}

enum NumberError {
    Syntax,
    Range,
}

impl NumberError {
    fn short(self) -> String {
        match self {
            NumberError::Syntax => "parse error".into(),
            NumberError::Range => "value out of range".into(),
        }
    }

    fn long(&self) -> &'static str {
        match self {
            NumberError::Syntax => "invalid syntax",
            NumberError::Range => "value out of range",
        }
    }
}

/// Go's `strconv.ParseBool`.
pub(super) fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(false),
        _ => None,
    }
}

/// Go's `strconv.ParseUint(text, 0, 64)`: decimal, `0x`, `0o`, `0`, `0b`, `_` between digits.
fn parse_uint(text: &str) -> Result<u64, NumberError> {
    let lower = text.to_ascii_lowercase();
    let (radix, digits) = match lower.as_bytes() {
        [b'0', b'x', ..] => (16, &lower[2..]),
        [b'0', b'b', ..] => (2, &lower[2..]),
        [b'0', b'o', ..] => (8, &lower[2..]),
        [b'0', _, ..] => (8, &lower[1..]),
        _ => (10, lower.as_str()),
    };
    let prefixed = digits.len() < lower.len();
    let well_placed = !digits.ends_with('_')
        && !digits.contains("__")
        && (radix != 10 || !digits.contains('_'))
        && (prefixed || !digits.starts_with('_'));
    let digits = digits.replace('_', "");
    if digits.is_empty() || !well_placed || !digits.bytes().all(|b| (b as char).is_digit(radix)) {
        return Err(NumberError::Syntax);
    }
    u64::from_str_radix(&digits, radix).map_err(|_| NumberError::Range)
}

fn parse_int(text: &str) -> Result<i64, NumberError> {
    let (negative, digits) = match text.as_bytes() {
        [b'-', ..] => (true, &text[1..]),
        [b'+', ..] => (false, &text[1..]),
        _ => (false, text),
    };
    let magnitude = i128::from(parse_uint(digits)?);
    let number = if negative { -magnitude } else { magnitude };
    i64::try_from(number).map_err(|_| NumberError::Range)
}

/// Go's `time.ParseDuration`: `1h30m`, `-1.5s`, `100ms`, `0`; nanoseconds.
///
/// # Errors
/// Go's text.
pub(crate) fn parse_duration(text: &str) -> Result<i64, String> {
    let invalid = || format!("time: invalid duration {text:?}");
    let (negative, mut rest) = match text.as_bytes() {
        [b'-', ..] => (true, &text[1..]),
        [b'+', ..] => (false, &text[1..]),
        _ => (false, text),
    };
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut total: i128 = 0;
    while !rest.is_empty() {
        let is_number = |c: char| c.is_ascii_digit() || c == '.';
        let number_len = rest.find(|c| !is_number(c)).unwrap_or(rest.len());
        let (number, tail) = rest.split_at(number_len);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if whole.is_empty() && fraction.is_empty() {
            return Err(invalid());
        }
        let unit_len = match fraction.contains('.') {
            true => 0,
            false => tail.find(is_number).unwrap_or(tail.len()),
        };
        let (unit, tail) = tail.split_at(unit_len);
        if unit.is_empty() {
            return Err(format!("time: missing unit in duration {text:?}"));
        }
        let unit_ns = unit_ns(unit)
            .ok_or_else(|| format!("time: unknown unit {unit:?} in duration {text:?}"))?;
        total = add_number(total, whole, fraction, unit_ns).ok_or_else(invalid)?;
        rest = tail;
    }
    i64::try_from(if negative { -total } else { total }).map_err(|_| invalid())
}

fn unit_ns(unit: &str) -> Option<i128> {
    Some(match unit {
        "ns" => 1,
        "us" | "µs" | "μs" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        _ => return None,
    })
}

/// `total` and `whole.fraction` units; `None` when it is beyond all durations.
fn add_number(total: i128, whole: &str, fraction: &str, unit_ns: i128) -> Option<i128> {
    let whole: i128 = if whole.is_empty() {
        0
    } else {
        whole.parse().ok()?
    };
    let mut total = total.checked_add(whole.checked_mul(unit_ns)?)?;
    let mut scale = unit_ns;
    // Behind 18 decimals even an hour's are less than a nanosecond.
    for digit in fraction.bytes().take(18) {
        total += i128::from(digit - b'0') * scale / 10;
        scale /= 10;
    }
    Some(total)
}

fn split(text: &str) -> Vec<String> {
    text.split(',').map(str::to_owned).collect()
}

fn sorted(mut words: Vec<String>) -> Vec<String> {
    words.sort();
    words.dedup();
    words
}

fn parse_origins(text: &str) -> Result<Vec<String>, String> {
    if text == "*" {
        return Ok(vec!["*".into()]);
    }
    Ok(sorted(
        url::parse_list(text)?.iter().map(Url::to_string).collect(),
    ))
}

/// A duration in the text form of Go's `time.Duration`, as etcd logs and prints it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GoDuration(
    /// Nanoseconds.
    pub i64,
);

impl From<std::time::Duration> for GoDuration {
    fn from(duration: std::time::Duration) -> GoDuration {
        GoDuration(i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX))
    }
}

impl fmt::Display for GoDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ns = self.0.unsigned_abs();
        if ns == 0 {
            return f.write_str("0s");
        }
        if self.0 < 0 {
            f.write_str("-")?;
        }
        if ns < 1_000_000_000 {
            let (unit_ns, unit) = match ns {
                0..1_000 => (1, "ns"),
                1_000..1_000_000 => (1_000, "µs"),
                _ => (1_000_000, "ms"),
            };
            return write!(
                f,
                "{}{unit}",
                Decimal {
                    number: ns,
                    unit: unit_ns
                }
            );
        }
        let (hours, minutes) = (ns / 3_600_000_000_000, ns / 60_000_000_000 % 60);
        if hours > 0 {
            write!(f, "{hours}h")?;
        }
        if hours > 0 || minutes > 0 {
            write!(f, "{minutes}m")?;
        }
        write!(
            f,
            "{}s",
            Decimal {
                number: ns % 60_000_000_000,
                unit: 1_000_000_000
            }
        )
    }
}

/// `number / unit` with as many decimals as it needs; `unit` is a power of ten.
struct Decimal {
    number: u64,
    unit: u64,
}

impl fmt::Display for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.number / self.unit)?;
        let (mut fraction, mut unit) = (self.number % self.unit, self.unit);
        if fraction > 0 {
            f.write_str(".")?;
        }
        while fraction > 0 {
            unit /= 10;
            write!(f, "{}", fraction / unit)?;
            fraction %= unit;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn go_durations() {
        let cases: &[(&str, Option<i64>)] = &[
            ("0", Some(0)),
            ("100ms", Some(100_000_000)),
            ("1.5s", Some(1_500_000_000)),
            ("1h30m", Some(5_400_000_000_000)),
            ("-2us", Some(-2_000)),
            (".5s", Some(500_000_000)),
            ("5.s", Some(5_000_000_000)),
            ("0.000000001s", Some(1)),
            ("", None),
            ("5", None),
            (".s", None),
            ("1.2.3s", None),
            ("1d", None),
            ("99999999999h", None),
        ];
        for (text, want) in cases {
            assert_eq!(parse_duration(text).ok(), *want, "{text:?}");
        }
    }

    #[test]
    fn go_duration_errors() {
        let cases = [
            ("x", "time: invalid duration \"x\""),
            ("5", "time: missing unit in duration \"5\""),
            ("1d", "time: unknown unit \"d\" in duration \"1d\""),
        ];
        for (text, want) in cases {
            assert_eq!(parse_duration(text), Err(want.into()));
        }
    }

    #[test]
    fn go_durations_print() {
        let cases = [
            (0, "0s"),
            (1, "1ns"),
            (1_500, "1.5µs"),
            (100_000_000, "100ms"),
            (1_000_000_000, "1s"),
            (60_000_000_000, "1m0s"),
            (7_200_000_000_000, "2h0m0s"),
            (5_400_500_000_000, "1h30m0.5s"),
            (-5_000_000_000, "-5s"),
        ];
        for (ns, want) in cases {
            assert_eq!(GoDuration(ns).to_string(), want);
        }
    }

    #[test]
    fn numbers() {
        let uint = |text: &str| Kind::Uint.parse(text);
        assert_eq!(uint("10"), Ok(Value::Uint(10)));
        assert_eq!(uint("0x10"), Ok(Value::Uint(16)));
        assert_eq!(uint("010"), Ok(Value::Uint(8)));
        assert_eq!(uint("0b1_0"), Ok(Value::Uint(2)));
        assert_eq!(uint("0"), Ok(Value::Uint(0)));
        assert_eq!(uint("-1"), Err("parse error".into()));
        assert_eq!(uint(""), Err("parse error".into()));
        assert_eq!(
            uint("99999999999999999999"),
            Err("value out of range".into())
        );
        assert_eq!(
            Kind::Int.parse("-9223372036854775808"),
            Ok(Value::Int(i64::MIN))
        );
        assert_eq!(
            Kind::Uint32.parse("4294967296"),
            Err(r#"strconv.ParseUint: parsing "4294967296": value out of range"#.into())
        );
    }
}
