//! What a command said, without what may differ between two runs.

use std::fmt::Write as _;

use crate::scenario::Said;

/// The shortest number, decimal or hexadecimal, that is taken for an ID.
const ID_DIGITS_MIN: usize = 13;

/// The words behind which a duration stands.
const DURATIONS: [&str; 3] = ["took = ", "took ", "\"Took\" : "];

pub(crate) fn normal(said: &Said) -> String {
    let mut out = String::new();
    let code = said
        .code
        .map_or("interrupted".to_owned(), |code| code.to_string());
    // Writing to a String cannot fail.
    let _written = writeln!(out, "[rc={code}]");
    out.push_str(&stderr(said));
    match std::str::from_utf8(&said.stdout) {
        Ok(text) if is_text(text) => out.push_str(&lines(said, text)),
        // Encoded messages are compared byte by byte.
        _ => said.stdout.iter().for_each(|byte| {
            let _written = write!(out, "{byte:02x} ");
        }),
    }
    out
}

fn is_text(text: &str) -> bool {
    text.chars()
        .all(|c| !c.is_control() || c == '\n' || c == '\t')
}

/// Errors without log lines and usages, whose wording is everybody's own.
fn stderr(said: &Said) -> String {
    let mut out = String::new();
    let mut in_usage = false;
    for line in said.stderr.lines() {
        in_usage |= line.starts_with("Usage:");
        // What stty says to an input that is no terminal is not etcdctl's word.
        let is_noise = line.starts_with('{') || line.starts_with("stty:");
        if !is_noise && (!in_usage || line.starts_with("Error:")) {
            out.push_str(&format!("2> {}\n", line_of(said, line)));
        }
    }
    out
}

fn lines(said: &Said, text: &str) -> String {
    let mut lines: Vec<_> = text
        .split_inclusive('\n')
        .map(|line| line_of(said, line))
        .collect();
    if said.command.contains("member ") {
        // Members come in the order of their IDs, and a new member's is random.
        lines.iter_mut().for_each(|line| *line = sorted(line));
        lines.sort();
    }
    lines.concat()
}

/// The parts of a line in order: what it says without the order in which it says it.
fn sorted(line: &str) -> String {
    let marks = ['{', '}', '[', ']', ',', '"', ' ', '\n'];
    let mut parts: Vec<_> = line.split(marks).filter(|part| !part.is_empty()).collect();
    parts.sort_unstable();
    parts.join(" ") + "\n"
}

fn line_of(said: &Said, line: &str) -> String {
    let line = line
        .replace(&said.endpoint, "$EP")
        .replace(&said.directory, "$DIR");
    let line = line.replace(said.endpoint.trim_start_matches("http://"), "$EP");
    let line = without_durations(&line);
    let has_widths = said.command.contains("endpoint health") && said.command.contains("table");
    if has_widths || said.command.contains("endpoint status") {
        return shape(&line);
    }
    if said.command.contains("timetolive") {
        // Two seconds may pass until the question.
        return without_ids(&line).replace("58", "59").replace("57", "59");
    }
    without_ids(&line)
}

fn without_durations(line: &str) -> String {
    for mark in DURATIONS {
        if let Some((before, after)) = line.split_once(mark) {
            let end = after.find(['\n', ' ']).unwrap_or(after.len());
            return format!("{before}{mark}T{}", &after[end..]);
        }
    }
    match line.split_once("\"took\":\"") {
        None => line.to_owned(),
        Some((before, after)) => {
            let end = after.find('"').unwrap_or(after.len());
            format!("{before}\"took\":\"T{}", &after[end..])
        }
    }
}

/// Long numbers become `#`.
fn without_ids(line: &str) -> String {
    let mut out = String::new();
    let mut run = String::new();
    for c in line.chars().chain(['\0']) {
        if c.is_ascii_digit() || ('a'..='f').contains(&c) {
            run.push(c);
            continue;
        }
        let is_id = run.len() >= ID_DIGITS_MIN && run.contains(|c: char| c.is_ascii_digit());
        out.push_str(if is_id { "#" } else { &run });
        run.clear();
        if c != '\0' {
            out.push(c);
        }
    }
    out
}

/// Only the shape of sizes, times, indexes and the like counts: every number becomes `9`, every unit
/// `B` or `ms`, every rule one character.
fn shape(line: &str) -> String {
    let mut out = String::new();
    for c in without_ids(line).chars() {
        let c = match c {
            '0'..='9' => '9',
            c => c,
        };
        if !(matches!(c, '9' | '-' | ' ') && out.ends_with(c)) {
            out.push(c);
        }
    }
    out.replace("9.9", "9")
        .replace("9µs", "9ms")
        .replace(" kB", " B")
        .replace(" MB", " B")
        .replace(" GB", " B")
}
