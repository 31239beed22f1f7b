//! One event to one line.

use std::fmt::{self, Write as _};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::de::IgnoredAny;
use tracing::field::{Field, Visit};
use tracing::{Event, Level};

use crate::config::LogFormat;

/// Marks a `Display` text that is JSON already; see [`strings`].
const JSON_MARK: char = '\u{1f}';

/// A field that prints as a JSON array of strings: `urls = %strings(&urls)`.
pub fn strings<T: fmt::Display>(items: &[T]) -> impl fmt::Display + '_ {
    struct Strings<'a, T>(&'a [T]);
    impl<T: fmt::Display> fmt::Display for Strings<'_, T> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            let mut text = String::from(JSON_MARK);
            text.push('[');
            for (at, item) in self.0.iter().enumerate() {
                text.push_str(if at == 0 { "" } else { "," });
                push_string(&mut text, &item.to_string());
            }
            text.push(']');
            f.write_str(&text)
        }
    }
    Strings(items)
}

/// The line of `event`, with its end.
pub(super) fn format(event: &Event<'_>, format: LogFormat) -> Vec<u8> {
    let metadata = event.metadata();
    let mut fields = Fields::default();
    event.record(&mut fields);
    let level = match *metadata.level() {
        Level::ERROR => fields.level.unwrap_or("error"),
        Level::WARN => "warn",
        Level::INFO => "info",
        Level::DEBUG | Level::TRACE => "debug",
    };
    let caller = caller(metadata.file(), metadata.line());
    compose(format, level, &caller, &fields)
}

/// The line that tells of lines that were not written.
pub(super) fn dropped(count: u64, format: LogFormat) -> Vec<u8> {
    let message = "log lines were dropped because they could not be written fast enough".into();
    let rest = format!(",\"count\":{count}");
    compose(
        format,
        "warn",
        "server/log.rs",
        &Fields {
            message,
            rest,
            level: None,
        },
    )
}

fn compose(format: LogFormat, level: &str, caller: &str, fields: &Fields) -> Vec<u8> {
    let mut line = String::with_capacity(128 + fields.message.len() + fields.rest.len());
    let now = Timestamp(SystemTime::now());
    match format {
        LogFormat::Json => {
            line.push_str("{\"level\":\"");
            line.push_str(level);
            write!(line, "\",\"ts\":\"{now}\",\"caller\":").expect("strings take everything");
            push_string(&mut line, caller);
            line.push_str(",\"msg\":");
            push_string(&mut line, &fields.message);
            line.push_str(&fields.rest);
            line.push_str("}\n");
        }
        LogFormat::Console => {
            // A message with line breaks could pass for lines of its own.
            let message = fields.message.replace('\n', "\\n");
            write!(line, "{now}\t{level}\t{caller}\t{message}").expect("strings take everything");
            if let Some(rest) = fields.rest.strip_prefix(',') {
                line.push_str("\t{");
                line.push_str(rest);
                line.push('}');
            }
            line.push('\n');
        }
    }
    line.into_bytes()
}

/// The last directory and file with the line, `server/http.rs:7`; `src` says nothing.
fn caller(file: Option<&str>, line: Option<u32>) -> String {
    let Some(file) = file else {
        return "undefined".into();
    };
    let mut parts: Vec<&str> = file.split('/').filter(|part| *part != "src").collect();
    parts.drain(..parts.len().saturating_sub(2));
    format!("{}:{}", parts.join("/"), line.unwrap_or(0))
}

/// Message and fields of an event, the latter as `,"key":value` JSON.
#[derive(Default)]
struct Fields {
    message: String,
    rest: String,
    /// `fatal`, when an ERROR event says with the field `fatal` that the process ends.
    level: Option<&'static str>,
}

impl Fields {
    fn key(&mut self, field: &Field) {
        self.rest.push(',');
        push_string(&mut self.rest, field.name());
        self.rest.push(':');
    }

    fn raw(&mut self, field: &Field, value: impl fmt::Display) {
        self.key(field);
        write!(self.rest, "{value}").expect("strings take everything");
    }
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            self.message.push_str(value);
            return;
        }
        self.key(field);
        push_string(&mut self.rest, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let text = format!("{value:?}");
        // Only JSON that parses and stays on its line is passed through, whoever wrote the mark.
        if let Some(json) = text.strip_prefix(JSON_MARK)
            && !json.contains('\n')
            && serde_json::from_str::<IgnoredAny>(json).is_ok()
        {
            self.raw(field, json);
            return;
        }
        self.record_str(field, &text);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        if field.name() == "fatal" {
            self.level = value.then_some("fatal");
            return;
        }
        self.raw(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.raw(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.raw(field, value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        if value.is_finite() {
            self.raw(field, value);
        } else {
            self.record_str(field, &value.to_string());
        }
    }
}

fn push_string(line: &mut String, text: &str) {
    line.push('"');
    for c in text.chars() {
        match c {
            '"' => line.push_str("\\\""),
            '\\' => line.push_str("\\\\"),
            '\n' => line.push_str("\\n"),
            '\r' => line.push_str("\\r"),
            '\t' => line.push_str("\\t"),
            c if c < ' ' || c == '\u{7f}' => {
                write!(line, "\\u{:04x}", c as u32).expect("strings take everything");
            }
            c => line.push(c),
        }
    }
    line.push('"');
}

/// `2006-01-02T15:04:05.000000Z`, always in UTC.
pub(crate) struct Timestamp(pub(crate) SystemTime);

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let since = self.0.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        let (days, second) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
        let (year, month, day) = civil(days);
        let (hour, minute) = (second / 3_600, second / 60 % 60);
        let (second, micros) = (second % 60, since.subsec_micros());
        write!(
            f,
            "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micros:06}Z"
        )
    }
}

/// The Gregorian date `days` after 1970-01-01. Years are counted from March, so that a leap day
/// is the last of its year, and in eras of 400 years, which are all alike.
fn civil(days: u64) -> (u64, u64, u64) {
    const ERA_DAYS: u64 = 146_097;
    let days = days + 719_468; // from 0000-03-01
    let (era, day) = (days / ERA_DAYS, days % ERA_DAYS);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let from_march = (5 * day + 2) / 153;
    let day = day - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 {
        from_march + 3
    } else {
        from_march - 9
    };
    (era * 400 + year + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps() {
        let cases = [
            (0, "1970-01-01T00:00:00.000000Z"),
            (951_782_400_000_001, "2000-02-29T00:00:00.000001Z"),
            (1_795_620_978_411_401, "2026-11-25T15:36:18.411401Z"),
            (4_107_542_399_999_999, "2100-02-28T23:59:59.999999Z"),
            (4_107_542_400_000_000, "2100-03-01T00:00:00.000000Z"),
        ];
        for (micros, want) in cases {
            let time = UNIX_EPOCH + Duration::from_micros(micros);
            assert_eq!(Timestamp(time).to_string(), want);
        }
    }

    #[test]
    fn callers() {
        assert_eq!(
            caller(Some("crates/server/src/http.rs"), Some(7)),
            "server/http.rs:7"
        );
        assert_eq!(
            caller(Some("crates/server/src/log/line.rs"), Some(7)),
            "log/line.rs:7"
        );
        assert_eq!(caller(None, None), "undefined");
    }
}
