//! Steps over HTTP: requests with their answers, and conversations.

use std::collections::HashMap;
use std::fmt::Write;
use std::net::SocketAddr;
use std::time::Duration;

use super::parse::{Lines, write_block, write_metadata};
use super::run::fits;
use super::schema::{VOLATILE, expand};
use crate::Error;
use crate::http::{self, Stream};

/// How long nothing must come for silence.
const SILENCE: Duration = Duration::from_millis(300);

/// What is shown of lines that are not as wanted.
const SHOWN_CHARS_MAX: usize = 4000;

type Headers = Vec<(String, String)>;

/// A request and what must come back.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Exchange {
    /// Such as POST.
    pub method: String,
    /// Path and query.
    pub target: String,
    /// Of the request.
    pub headers: Headers,
    /// Of the request; its last line end does not count.
    pub body: String,
    /// Status code of the answer.
    pub status: u16,
    /// Headers that the answer has; without a value, that it does not have.
    pub shown: Headers,
    /// Lines of the answer's body; `*` stands for anything.
    pub answer: String,
}

impl Exchange {
    pub(super) fn parse(
        word: &str,
        rest: &str,
        headers: Headers,
        lines: &mut Lines<'_>,
    ) -> Option<Self> {
        let (method, target) = match word {
            "post" => ("POST", rest),
            _ => rest.split_once(' ')?,
        };
        let mut exchange = Exchange {
            method: method.into(),
            target: target.into(),
            headers,
            body: lines.block(),
            status: 200,
            ..Exchange::default()
        };
        if let Some(code) = lines.peek().and_then(|line| line.strip_prefix("status ")) {
            lines.next();
            exchange.status = code.parse().ok()?;
            while let Some(line) = lines.peek().and_then(|line| line.strip_prefix("header ")) {
                lines.next();
                let (name, value) = line.split_once(':')?;
                exchange.shown.push((name.into(), value.trim().into()));
            }
            exchange.answer = lines.block();
        }
        Some(exchange)
    }

    pub(super) fn write(&self, out: &mut String) -> std::fmt::Result {
        write_metadata(out, &self.headers)?;
        match self.method.as_str() {
            "POST" => writeln!(out, "post {}", self.target)?,
            method => writeln!(out, "request {method} {}", self.target)?,
        }
        write_block(out, &self.body)?;
        writeln!(out, "status {}", self.status)?;
        for (name, value) in &self.shown {
            writeln!(out, "{}", format!("header {name}: {value}").trim())?;
        }
        write_block(out, &self.answer)
    }

    fn ask(&self, address: SocketAddr) -> Result<http::Answer, Error> {
        let body = expand(self.body.trim_end())?;
        let answer = http::send(
            address,
            &self.method,
            &self.target,
            &self.headers,
            body.as_bytes(),
        );
        Ok(answer?)
    }

    pub(super) fn check(&self, address: SocketAddr) -> Result<(), Error> {
        let came = self.ask(address)?;
        let place = format!("{} {}\n{}", self.method, self.target, self.body);
        let body = normal(&came.body);
        let wanted = expand(&self.answer)?;
        if came.status != self.status || !fits(wanted.trim_end(), body.trim_end()) {
            return Err(Error(format!(
                "{place}wanted {}\n{}\ncame {}\n{body}",
                self.status, self.answer, came.status
            )));
        }
        for (name, value) in &self.shown {
            let had = came.header(&name.to_lowercase()).unwrap_or_default();
            if had != value {
                return Err(Error(format!(
                    "{place}wanted {name}: {value}\ncame {:?}",
                    came.headers
                )));
            }
        }
        Ok(())
    }

    /// Takes what comes for what is wanted, apart from what has open places.
    pub(super) fn record(&mut self, address: SocketAddr) -> Result<(), Error> {
        let came = self.ask(address)?;
        self.status = came.status;
        for (name, value) in &mut self.shown {
            *value = came.header(&name.to_lowercase()).unwrap_or_default().into();
        }
        if !self.answer.contains(['*', '%']) {
            self.answer = normal(&came.body).trim_end().into();
        }
        Ok(())
    }
}

/// A step of a conversation that has a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Talk {
    /// Of the conversation.
    pub name: String,
    /// What happens.
    pub act: Act,
}

/// What can happen in a conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Act {
    /// It begins: a web socket, perhaps with a first message, or a request and its endless answer.
    Open {
        socket: bool,
        target: String,
        headers: Headers,
        message: String,
    },
    /// One more message, or part of one.
    Send(String),
    /// No more messages.
    Finish,
    /// So many lines come.
    Read { count: usize, lines: String },
    /// Nothing comes.
    Silent,
    /// The other side ends it.
    Ended,
    /// The client goes away.
    Leave,
}

impl Talk {
    pub(super) fn parse(
        word: &str,
        rest: &str,
        headers: Headers,
        lines: &mut Lines<'_>,
    ) -> Option<Self> {
        let (name, rest) = rest.split_once(' ').unwrap_or((rest, ""));
        let act = match word {
            "open" | "socket" => Act::Open {
                socket: word == "socket",
                target: rest.into(),
                headers,
                message: lines.block(),
            },
            "send" => Act::Send(lines.block()),
            "finish" => Act::Finish,
            "read" => Act::Read {
                count: rest.parse().ok()?,
                lines: lines.block(),
            },
            "silent" => Act::Silent,
            "ended" => Act::Ended,
            "leave" => Act::Leave,
            _ => return None,
        };
        Some(Talk {
            name: name.into(),
            act,
        })
    }

    pub(super) fn write(&self, out: &mut String) -> std::fmt::Result {
        let name = &self.name;
        match &self.act {
            Act::Open {
                socket,
                target,
                headers,
                message,
            } => {
                write_metadata(out, headers)?;
                let word = if *socket { "socket" } else { "open" };
                writeln!(out, "{word} {name} {target}")?;
                write_block(out, message)
            }
            Act::Send(message) => {
                writeln!(out, "send {name}")?;
                write_block(out, message)
            }
            Act::Finish => writeln!(out, "finish {name}"),
            Act::Read { count, lines } => {
                writeln!(out, "read {name} {count}")?;
                write_block(out, lines)
            }
            Act::Silent => writeln!(out, "silent {name}"),
            Act::Ended => writeln!(out, "ended {name}"),
            Act::Leave => writeln!(out, "leave {name}"),
        }
    }
}

/// The conversations under way.
#[derive(Default)]
pub(super) struct Talks(HashMap<String, Stream>);

impl Talks {
    pub(super) fn play(
        &mut self,
        address: SocketAddr,
        talk: &mut Talk,
        record: bool,
    ) -> Result<(), Error> {
        let name = &talk.name;
        let failed = |error: std::io::Error| Error(format!("{name}: {error}"));
        if let Act::Open {
            socket,
            target,
            headers,
            message,
        } = &talk.act
        {
            let mut stream = match socket {
                true => Stream::socket(address, target, headers).map_err(failed)?.0,
                false => Stream::post(address, target, headers).map_err(failed)?,
            };
            if !message.is_empty() {
                stream.send(&expand(message)?).map_err(failed)?;
            }
            if !*socket {
                // Go's server answers over HTTP/1.1 only when it has the whole request.
                stream.finish().map_err(failed)?;
            }
            self.0.insert(name.clone(), stream);
            return Ok(());
        }
        if talk.act == Act::Leave {
            self.0.remove(name);
            return Ok(());
        }
        let unknown = || Error(format!("no conversation {name}"));
        let stream = self.0.get_mut(name).ok_or_else(unknown)?;
        match &mut talk.act {
            Act::Send(message) => stream.send(&expand(message)?).map_err(failed),
            Act::Finish => stream.finish().map_err(failed),
            Act::Silent if stream.is_silent(SILENCE).map_err(failed)? => Ok(()),
            Act::Silent => Err(Error(format!("{name} is not silent: {:?}", stream.line()))),
            Act::Ended => match stream.line().map_err(failed)? {
                None => Ok(()),
                Some(line) => Err(Error(format!("{name} goes on: {line}"))),
            },
            Act::Read { count, lines } => read(name, stream, *count, lines, record),
            Act::Open { .. } | Act::Leave => Ok(()),
        }
    }
}

fn read(
    name: &str,
    stream: &mut Stream,
    count: usize,
    lines: &mut String,
    record: bool,
) -> Result<(), Error> {
    let mut came = String::new();
    for number in 1..=count {
        let line = stream
            .line()
            .map_err(|error| Error(format!("{name}, line {number}: {error}; so far:\n{came}")))?;
        let line = line.ok_or_else(|| {
            Error(format!(
                "{name} ended before line {number}; so far:\n{came}"
            ))
        })?;
        writeln!(came, "{}", normal(&line)).expect("writing to a string cannot fail");
    }
    if record && !lines.contains(['*', '%']) {
        *lines = came;
        return Ok(());
    }
    match fits(expand(lines)?.trim_end(), came.trim_end()) {
        true => Ok(()),
        false => {
            let came: String = came.chars().take(SHOWN_CHARS_MAX).collect();
            Err(Error(format!("{name}: wanted\n{lines}came\n{came}")))
        }
    }
}

/// JSON without its white space and without what differs from run to run. Go's protobuf library
/// takes care that nobody relies on its blanks, in texts too.
fn normal(body: &str) -> String {
    let body = body.replace('\u{a0}', " ");
    if !body.starts_with('{') {
        return body;
    }
    let mut out = String::new();
    let (mut inside, mut escaped) = (false, false);
    for character in body.chars() {
        if !inside && character == ' ' {
            continue;
        }
        if !escaped && character == '"' {
            inside = !inside;
        }
        escaped = inside && !escaped && character == '\\';
        out.push(character);
    }
    for name in VOLATILE {
        let begin = format!("\"{name}\":\"");
        while let Some(at) = out.find(&begin) {
            let value = at + begin.len();
            let end = out[value..]
                .find('"')
                .map_or(out.len(), |length| value + length + 1);
            match out[end..].starts_with(',') {
                true => out.replace_range(at..end + 1, ""),
                false => out.replace_range(
                    at.saturating_sub(usize::from(out[..at].ends_with(',')))..end,
                    "",
                ),
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_normalised() {
        let came = "{\"header\": {\"cluster_id\":\"1\", \"revision\":\"2\",\"raft_term\":\"3\"}, \
                    \"a\":\"x, \\\" y\"}";
        let want = "{\"header\":{\"revision\":\"2\"},\"a\":\"x, \\\" y\"}";
        assert_eq!(normal(came), want);
        let only = "{\"header\":{\"cluster_id\":\"1\",\"raft_term\":\"3\"}}";
        assert_eq!(normal(only), "{\"header\":{}}");
        assert_eq!(normal("plain text"), "plain text");
    }
}
