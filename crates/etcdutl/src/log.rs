//! Log lines on standard error: time, level, message and fields, parted by tabs, as etcdutl's.

use std::time::{SystemTime, UNIX_EPOCH};

/// What a field holds.
#[derive(Clone, Copy)]
pub(crate) enum Field<'a> {
    Text(&'a str),
    Number(u64),
}

/// Something happened as it should.
pub(crate) fn info(message: &str, fields: &[(&str, Field<'_>)]) {
    line("info", message, fields);
}

/// Something odd happened, but the operation goes on.
pub(crate) fn warn(message: &str, fields: &[(&str, Field<'_>)]) {
    line("warn", message, fields);
}

/// Someone must look.
pub(crate) fn error(message: &str, fields: &[(&str, Field<'_>)]) {
    line("error", message, fields);
}

fn line(level: &str, message: &str, fields: &[(&str, Field<'_>)]) {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let time = cli::time::date_and_time(now.as_secs());
    eprintln!("{time}Z\t{level}\t{message}{}", object(fields));
}

/// The fields as a JSON object, with blanks; nothing when there are none.
fn object(fields: &[(&str, Field<'_>)]) -> String {
    if fields.is_empty() {
        return String::new();
    }
    let pairs = fields.iter().map(|(name, field)| {
        let mut pair = String::new();
        cli::text::push_json(&mut pair, name);
        pair.push_str(": ");
        match field {
            Field::Text(text) => cli::text::push_json(&mut pair, text),
            Field::Number(number) => pair.push_str(&number.to_string()),
        }
        pair
    });
    format!("\t{{{}}}", pairs.collect::<Vec<_>>().join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_spaced_json() {
        assert_eq!(object(&[]), "");
        let fields = [
            ("path", Field::Text("a \"b\"")),
            ("size", Field::Number(20_480)),
        ];
        assert_eq!(
            object(&fields),
            "\t{\"path\": \"a \\\"b\\\"\", \"size\": 20480}"
        );
    }
}
