//! The text of a scenario into steps, and back.

use std::fmt::Write;

use super::web::{Exchange, Talk};
use crate::Error;

/// A whole file.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Scenario {
    /// In their order.
    pub steps: Vec<Step>,
}

/// One thing that happens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Lines that explain; kept when the file is recorded anew.
    Prose(String),
    /// A fresh member with these flags.
    Server(Vec<String>),
    /// SIGTERM, and the process ends.
    Stop,
    /// SIGKILL.
    Kill,
    /// The process again, on the same directory.
    Start,
    /// A unary call.
    Call {
        /// Repeat until the answer fits.
        poll: bool,
        /// `Service/Method`, with package unless it is `etcdserverpb`.
        path: String,
        /// Names and values.
        metadata: Vec<(String, String)>,
        /// The request as protobuf text.
        message: String,
        /// What must come back.
        answer: Answer,
    },
    /// A GET by HTTP/1.1.
    Get {
        /// Repeat until the answer fits.
        poll: bool,
        /// Path and query.
        target: String,
        /// Status code.
        status: u16,
        /// Lines of the body; `*` stands for anything.
        body: String,
    },
    /// Any request by HTTP/1.1.
    Exchange {
        /// Repeat until the answer fits.
        poll: bool,
        /// What is asked and answered.
        exchange: Exchange,
    },
    /// Part of a conversation over HTTP.
    Talk(Talk),
}

/// What a call must come to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// A message.
    Message {
        /// Which of its fields count.
        which: Match,
        /// As protobuf text.
        text: String,
    },
    /// A status.
    Error {
        /// In capitals, as in the gRPC documents.
        code: String,
        /// To the letter.
        message: String,
    },
}

/// Which fields of an answer are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Match {
    /// All but the header's ids and term.
    All,
    /// Those that the expectation sets.
    Some,
}

/// The lines that are still to be read.
pub(super) struct Lines<'a> {
    left: Vec<(usize, &'a str)>,
}

impl<'a> Lines<'a> {
    pub(super) fn next(&mut self) -> Option<(usize, &'a str)> {
        self.left.pop()
    }

    pub(super) fn peek(&self) -> Option<&'a str> {
        self.left.last().map(|(_, line)| *line)
    }

    /// The indented lines that follow.
    pub(super) fn block(&mut self) -> String {
        let mut text = String::new();
        while let Some(line) = self.peek().filter(|line| line.starts_with("  ")) {
            text.push_str(&line[2..]);
            text.push('\n');
            self.next();
        }
        text
    }
}

impl Scenario {
    /// Reads the text of a file.
    ///
    /// # Errors
    /// A line that is no step, with its number.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let mut lines = Lines {
            left: text.lines().enumerate().collect(),
        };
        lines.left.reverse();
        let mut scenario = Self::default();
        let mut poll = false;
        let mut metadata = Vec::new();
        while let Some((index, line)) = lines.next() {
            let bad = |what: &str| Error(format!("line {}: {what}: {line}", index + 1));
            let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
            let step = match word {
                _ if line.is_empty() || line.starts_with('#') => Step::Prose(line.into()),
                "server" => Step::Server(rest.split_whitespace().map(String::from).collect()),
                "stop" => Step::Stop,
                "kill" => Step::Kill,
                "start" => Step::Start,
                "poll" => {
                    poll = true;
                    continue;
                }
                "with" => {
                    let pair = rest
                        .split_once(": ")
                        .ok_or_else(|| bad("want NAME: VALUE"))?;
                    metadata.push((pair.0.into(), pair.1.into()));
                    continue;
                }
                "call" => Step::Call {
                    poll: std::mem::take(&mut poll),
                    path: rest.into(),
                    metadata: std::mem::take(&mut metadata),
                    message: lines.block(),
                    answer: parse_answer(&mut lines).ok_or_else(|| bad("no answer"))?,
                },
                "get" => parse_get(rest, std::mem::take(&mut poll), &mut lines)
                    .ok_or_else(|| bad("no status"))?,
                "post" | "request" => Step::Exchange {
                    poll: std::mem::take(&mut poll),
                    exchange: Exchange::parse(
                        word,
                        rest,
                        std::mem::take(&mut metadata),
                        &mut lines,
                    )
                    .ok_or_else(|| bad("no request or answer"))?,
                },
                _ => Talk::parse(word, rest, std::mem::take(&mut metadata), &mut lines)
                    .map(Step::Talk)
                    .ok_or_else(|| bad("not a step"))?,
            };
            scenario.steps.push(step);
        }
        Ok(scenario)
    }

    /// The text that [`Scenario::parse`] reads.
    ///
    /// # Panics
    /// Never: writing to a string cannot fail.
    #[must_use]
    pub fn text(&self) -> String {
        let mut out = String::new();
        for step in &self.steps {
            step.write(&mut out)
                .expect("writing to a string cannot fail");
        }
        out
    }
}

/// A call without answer is allowed: it is there to be recorded.
fn parse_answer(lines: &mut Lines<'_>) -> Option<Answer> {
    let line = lines.peek().unwrap_or_default();
    let which = match line {
        "expect" => Match::All,
        "expect some" => Match::Some,
        _ => {
            let Some(rest) = line.strip_prefix("error ") else {
                return Some(Answer::Message {
                    which: Match::All,
                    text: String::new(),
                });
            };
            lines.next();
            let (code, message) = rest.split_once(' ').unwrap_or((rest, ""));
            return Some(Answer::Error {
                code: code.into(),
                message: message.into(),
            });
        }
    };
    lines.next();
    Some(Answer::Message {
        which,
        text: lines.block(),
    })
}

fn parse_get(target: &str, poll: bool, lines: &mut Lines<'_>) -> Option<Step> {
    let mut step = Step::Get {
        poll,
        target: target.into(),
        status: 200,
        body: String::new(),
    };
    if let Some(code) = lines.peek().and_then(|line| line.strip_prefix("status ")) {
        lines.next();
        let Step::Get { status, body, .. } = &mut step else {
            return None;
        };
        *status = code.parse().ok()?;
        *body = lines.block();
    }
    Some(step)
}

impl Step {
    fn write(&self, out: &mut String) -> std::fmt::Result {
        match self {
            Self::Prose(line) => writeln!(out, "{line}"),
            Self::Server(flags) => {
                writeln!(out, "{}", format!("server {}", flags.join(" ")).trim())
            }
            Self::Stop => writeln!(out, "stop"),
            Self::Kill => writeln!(out, "kill"),
            Self::Start => writeln!(out, "start"),
            Self::Call {
                poll,
                path,
                metadata,
                message,
                answer,
            } => {
                write_poll(out, *poll)?;
                write_metadata(out, metadata)?;
                writeln!(out, "call {path}")?;
                write_block(out, message)?;
                answer.write(out)
            }
            Self::Get {
                poll,
                target,
                status,
                body,
            } => {
                write_poll(out, *poll)?;
                writeln!(out, "get {target}\nstatus {status}")?;
                write_block(out, body)
            }
            Self::Exchange { poll, exchange } => {
                write_poll(out, *poll)?;
                exchange.write(out)
            }
            Self::Talk(talk) => talk.write(out),
        }
    }
}

impl Answer {
    fn write(&self, out: &mut String) -> std::fmt::Result {
        match self {
            Self::Message { which, text } => {
                let which = if *which == Match::All {
                    "expect"
                } else {
                    "expect some"
                };
                writeln!(out, "{which}")?;
                write_block(out, text)
            }
            Self::Error { code, message } => {
                writeln!(out, "{}", format!("error {code} {message}").trim())
            }
        }
    }
}

fn write_poll(out: &mut String, poll: bool) -> std::fmt::Result {
    if poll { writeln!(out, "poll") } else { Ok(()) }
}

pub(super) fn write_metadata(out: &mut String, metadata: &[(String, String)]) -> std::fmt::Result {
    metadata
        .iter()
        .try_for_each(|(name, value)| writeln!(out, "with {name}: {value}"))
}

pub(super) fn write_block(out: &mut String, text: &str) -> std::fmt::Result {
    for line in text.lines() {
        writeln!(out, "  {line}")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
