//! Events to files.

use std::fs;

use serde_json::Value;
use tracing::{debug, error, info, warn};

use super::*;
use crate::config::Log;

fn lines(level: LogLevel, format: LogFormat, log: impl FnOnce()) -> Vec<String> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let outputs = vec![LogOutput::File(path.clone())];
    let (lines, guard) = open(&Log {
        level,
        format,
        outputs,
        rotation: None,
    })
    .unwrap();
    tracing::subscriber::with_default(lines, log);
    guard.flush();
    fs::read_to_string(path)
        .unwrap()
        .lines()
        .map(str::to_owned)
        .collect()
}

#[test]
fn json_lines_have_zaps_shape() {
    let lines = lines(LogLevel::Info, LogFormat::Json, || {
        info!("data-dir" = "d", count = 3, ok = true, "starting");
        warn!(error = %"a \"quoted\"\nbreak", urls = %strings(&["u1", "u2"]), "odd");
        error!(fatal = true, "the end");
        info!(forged = %"\u{1f}\",\"level\":\"fatal\"", "x");
        debug!("hidden");
    });
    assert_eq!(lines.len(), 4);
    assert!(
        lines[0].starts_with("{\"level\":\"info\",\"ts\":\"20"),
        "{}",
        lines[0]
    );
    assert!(
        lines[0].contains("Z\",\"caller\":\"log/tests.rs:"),
        "{}",
        lines[0]
    );
    let tail = ",\"msg\":\"starting\",\"data-dir\":\"d\",\"count\":3,\"ok\":true}";
    assert!(lines[0].ends_with(tail), "{}", lines[0]);
    let line: Value = serde_json::from_str(&lines[1]).unwrap();
    assert_eq!(line["error"], "a \"quoted\"\nbreak");
    assert_eq!(line["urls"], serde_json::json!(["u1", "u2"]));
    let line: Value = serde_json::from_str(&lines[2]).unwrap();
    assert_eq!(
        (&line["level"], &line["fatal"]),
        (&Value::from("fatal"), &Value::Null)
    );
    let line: Value = serde_json::from_str(&lines[3]).unwrap();
    assert_eq!(line["level"], "info");
}

#[test]
fn console_lines_and_levels() {
    let lines = lines(LogLevel::Error, LogFormat::Console, || {
        warn!("hidden");
        error!(n = 1, "two\nlines");
        error!("plain");
    });
    assert_eq!(lines.len(), 2);
    let parts: Vec<&str> = lines[0].split('\t').collect();
    assert_eq!(parts[1], "error");
    assert!(parts[2].starts_with("log/tests.rs:"));
    assert_eq!(parts[3..], ["two\\nlines", "{\"n\":1}"]);
    assert_eq!(lines[1].split('\t').count(), 4);
}

#[test]
fn a_file_that_cannot_be_opened() {
    let outputs = vec![LogOutput::File("/nonexistent/log".into())];
    let error = open(&Log {
        outputs,
        ..Log::default()
    })
    .map(|_| ())
    .unwrap_err();
    assert_eq!(error.to_string(), "open log file /nonexistent/log");
}
