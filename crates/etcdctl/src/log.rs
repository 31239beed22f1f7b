//! Log lines on standard error, in the JSON shape of etcd's tools.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::print::json;

/// Prints one line; `fields` are names and texts.
pub(crate) fn line(level: &str, message: &str, fields: &[(&str, &str)]) {
    let mut object = json::Object::new();
    object
        .text("level", level)
        .text("ts", &timestamp())
        .text("msg", message);
    for (name, value) in fields {
        object.text(name, value);
    }
    eprintln!("{}", object.finish());
}

/// Says why no server could be reached, which the error itself does not.
pub(crate) fn cause(error: &client::Error) {
    if let client::Error::Deadline { cause: Some(cause) } = error {
        line("warn", "no endpoint could be reached", &[("error", cause)]);
    }
}

/// The time as `2006-01-02T15:04:05.000000Z`.
fn timestamp() -> String {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let micros = now.subsec_micros();
    let seconds = cli::time::date_and_time(now.as_secs());
    format!("{seconds}.{micros:06}Z")
}
