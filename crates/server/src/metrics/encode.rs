//! Prometheus text format 0.0.4, in the number format of Go's client library.

use std::fmt::{self, Write};

use super::cells::{Counter, Gauge, Histogram};

/// The content type of what [`Text`] holds.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8; escaping=underscores";

/// A page under construction.
#[derive(Default)]
pub struct Text(pub(super) String);

impl Text {
    /// Begins a family.
    pub(super) fn family(&mut self, name: &str, kind: &str, help: &str) {
        let help = help.replace('\\', "\\\\").replace('\n', "\\n");
        self.push(format_args!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
    }

    /// One line; `labels` is empty or `a="b",c="d"`.
    pub(super) fn sample(&mut self, name: &str, labels: &str, value: f64) {
        let value = Number(value);
        match labels {
            "" => self.push(format_args!("{name} {value}\n")),
            _ => self.push(format_args!("{name}{{{labels}}} {value}\n")),
        }
    }

    fn push(&mut self, line: fmt::Arguments<'_>) {
        self.0
            .write_fmt(line)
            .expect("writing to a string cannot fail");
    }
}

/// `name="value"` with the escapes of the format.
pub(super) fn label(name: &str, value: &str) -> String {
    let value = value
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n");
    format!("{name}=\"{value}\"")
}

/// What a family consists of.
pub trait Metric {
    /// The word behind `# TYPE`.
    const KIND: &'static str;

    /// Writes the samples of one combination of labels.
    fn write(&self, name: &str, labels: &str, text: &mut Text);
}

impl Metric for Counter {
    const KIND: &'static str = "counter";

    fn write(&self, name: &str, labels: &str, text: &mut Text) {
        text.sample(name, labels, self.value() as f64);
    }
}

impl Metric for Gauge {
    const KIND: &'static str = "gauge";

    fn write(&self, name: &str, labels: &str, text: &mut Text) {
        text.sample(name, labels, self.value() as f64);
    }
}

impl Metric for Histogram {
    const KIND: &'static str = "histogram";

    fn write(&self, name: &str, labels: &str, text: &mut Text) {
        let (buckets, count, sum) = self.read();
        let bucket = format!("{name}_bucket");
        let comma = if labels.is_empty() { "" } else { "," };
        for (bound, up_to) in buckets {
            let labels = format!("{labels}{comma}le=\"{}\"", Number(bound));
            text.sample(&bucket, &labels, up_to as f64);
        }
        text.sample(
            &bucket,
            &format!("{labels}{comma}le=\"+Inf\""),
            count as f64,
        );
        text.sample(&format!("{name}_sum"), labels, sum);
        text.sample(&format!("{name}_count"), labels, count as f64);
    }
}

/// A number as Go's `strconv` prints it in format `g` with the fewest digits that tell it apart:
/// with an exponent below 1e-4 and from 1e6 on.
struct Number(f64);

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.0;
        if value.is_nan() {
            return f.write_str("NaN");
        }
        if value.is_infinite() {
            return f.write_str(if value > 0.0 { "+Inf" } else { "-Inf" });
        }
        let scientific = format!("{value:e}");
        let (digits, exponent) = scientific.split_once('e').expect("{:e} prints an exponent");
        let exponent: i32 = exponent.parse().expect("{:e} prints a decimal exponent");
        if value == 0.0 || (-4..EXPONENT_MAX).contains(&exponent) {
            return write!(f, "{value}");
        }
        let sign = if exponent < 0 { '-' } else { '+' };
        write!(f, "{digits}e{sign}{:02}", exponent.abs())
    }
}

/// Exponents from here on are written as such.
const EXPONENT_MAX: i32 = 6;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_as_go_prints_them() {
        let cases = [
            (0.0, "0"),
            (1.0, "1"),
            (-1.0, "-1"),
            (0.1, "0.1"),
            (0.0001, "0.0001"),
            (0.00001, "1e-05"),
            (52.4288, "52.4288"),
            (123_456.0, "123456"),
            (1_000_000.0, "1e+06"),
            (1_234_567.0, "1.234567e+06"),
            (2_147_483_648.0, "2.147483648e+09"),
            (1.5e300, "1.5e+300"),
            (0.0016384, "0.0016384"),
            (f64::INFINITY, "+Inf"),
        ];
        for (value, want) in cases {
            assert_eq!(Number(value).to_string(), want);
        }
    }

    #[test]
    fn escapes() {
        assert_eq!(label("a", "x\"\\\n"), r#"a="x\"\\\n""#);
    }
}
