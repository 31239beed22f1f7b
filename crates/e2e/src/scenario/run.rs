//! Plays a scenario against a member.

use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use prost_reflect::DynamicMessage;
use tonic::{Code, Status};

use super::web::Talks;
use super::{Answer, Match, Scenario, Step, schema};
use crate::raw::Connection;
use crate::{Error, Member, Options, http};

/// How long `poll` tries.
const LIMIT: Duration = Duration::from_secs(15);
const PAUSE: Duration = Duration::from_millis(20);

/// Plays the file; with `E2E_RECORD` set, writes the answers that came into it instead.
///
/// # Errors
/// The first step that does not come out as written, with what came.
pub async fn run(path: &Path) -> Result<(), Error> {
    let text = std::fs::read_to_string(path)?;
    let mut scenario = Scenario::parse(&text)?;
    let record = std::env::var_os("E2E_RECORD").is_some();
    let mut stage = Stage {
        member: None,
        connection: None,
        talks: Talks::default(),
    };
    for (index, step) in scenario.steps.iter_mut().enumerate() {
        let played = stage.play(step, record).await;
        played.map_err(|error| Error(format!("step {}: {}", index + 1, error.0)))?;
    }
    if record {
        std::fs::write(path, scenario.text())?;
    }
    Ok(())
}

struct Stage {
    member: Option<Member>,
    connection: Option<Connection>,
    talks: Talks,
}

impl Stage {
    async fn play(&mut self, step: &mut Step, record: bool) -> Result<(), Error> {
        match step {
            Step::Prose(_) => Ok(()),
            Step::Server(flags) => {
                self.member = None;
                let options = Options {
                    flags: flags.clone(),
                    ..Options::default()
                };
                self.member = Some(Member::start(options)?);
                self.connect()
            }
            Step::Stop => self.member()?.stop().map(|_| ()),
            Step::Kill => self.member()?.kill(),
            Step::Start => {
                self.member()?.restart()?;
                self.connect()
            }
            Step::Talk(talk) => {
                let address = self.member()?.address();
                self.talks.play(address, talk, record)
            }
            Step::Call { .. } | Step::Get { .. } | Step::Exchange { .. } if record => {
                self.record(step).await
            }
            Step::Call { poll, .. } | Step::Get { poll, .. } | Step::Exchange { poll, .. } => {
                let deadline = Instant::now() + if *poll { LIMIT } else { Duration::ZERO };
                loop {
                    match self.check(step).await {
                        Err(_) if Instant::now() < deadline => tokio::time::sleep(PAUSE).await,
                        done => return done,
                    }
                }
            }
        }
    }

    fn member(&mut self) -> Result<&mut Member, Error> {
        self.member
            .as_mut()
            .ok_or_else(|| Error("no member: begin with `server`".into()))
    }

    fn connect(&mut self) -> Result<(), Error> {
        self.connection = Some(Connection::to(self.member()?.address()));
        Ok(())
    }

    async fn call(
        &mut self,
        path: &str,
        metadata: &[(String, String)],
        message: &str,
    ) -> Result<Result<DynamicMessage, Status>, Error> {
        let path = schema::full_path(path);
        let method = schema::method(&path);
        let body = match &method {
            Some(method) => schema::encode(method, message)?,
            None => Bytes::new(),
        };
        let connection = self
            .connection
            .as_ref()
            .ok_or_else(|| Error("no member".into()))?;
        match (connection.call(&path, metadata, body).await, method) {
            (Err(status), _) => Ok(Err(status)),
            (Ok(answer), Some(method)) => Ok(Ok(schema::decode(&method, answer)?)),
            (Ok(_), None) => Err(Error(format!("{path} is in no schema, but was answered"))),
        }
    }

    async fn check(&mut self, step: &Step) -> Result<(), Error> {
        match step {
            Step::Call {
                path,
                metadata,
                message,
                answer,
                ..
            } => {
                let came = self.call(path, metadata, message).await?;
                let place = format!("call {path}\n{message}");
                check_answer(&schema::full_path(path), answer, &came)
                    .map_err(|error| Error(format!("{place}{}", error.0)))
            }
            Step::Get {
                target,
                status,
                body,
                ..
            } => {
                let answer = http::get(self.member()?.address(), target)?;
                if answer.status == *status && fits(body.trim_end(), answer.body.trim_end()) {
                    return Ok(());
                }
                let Step::Get { .. } = step else {
                    return Ok(());
                };
                Err(Error(format!(
                    "get {target}\nwanted {status}\n{body}\ncame {}\n{}",
                    answer.status, answer.body
                )))
            }
            Step::Exchange { exchange, .. } => exchange.check(self.member()?.address()),
            _ => Ok(()),
        }
    }

    async fn record(&mut self, step: &mut Step) -> Result<(), Error> {
        // What is polled for, or written with open places, was chosen by the author.
        match step {
            Step::Call {
                poll: false,
                path,
                metadata,
                message,
                answer,
            } => {
                let came = self.call(path, metadata, message).await?;
                match (&mut *answer, came) {
                    (
                        Answer::Message {
                            which: Match::Some, ..
                        },
                        Ok(_),
                    ) => {}
                    (answer, Ok(came)) => {
                        let text = schema::text(&came);
                        *answer = Answer::Message {
                            which: Match::All,
                            text,
                        };
                    }
                    (answer, Err(status)) => {
                        let message = status.message().into();
                        *answer = Answer::Error {
                            code: code_name(status.code()),
                            message,
                        };
                    }
                }
                Ok(())
            }
            Step::Get {
                poll: false,
                target,
                status,
                body,
            } => {
                let answer = http::get(self.member()?.address(), target)?;
                *status = answer.status;
                if !body.contains('*') {
                    *body = format!("{}\n", answer.body.trim_end());
                }
                Ok(())
            }
            Step::Exchange {
                poll: false,
                exchange,
            } => exchange.record(self.member()?.address()),
            _ => Box::pin(self.play(step, false)).await,
        }
    }
}

fn check_answer(
    path: &str,
    wanted: &Answer,
    came: &Result<DynamicMessage, Status>,
) -> Result<(), Error> {
    let shown = match came {
        Ok(message) => format!("expect\n{}", schema::text(message)),
        Err(status) => format!("error {} {}", code_name(status.code()), status.message()),
    };
    let fits = match (wanted, came) {
        (Answer::Error { code, message }, Err(status)) => {
            code_name(status.code()) == *code && status.message() == message
        }
        (Answer::Message { which, text }, Ok(message)) => {
            let method = schema::method(path).ok_or_else(|| Error(format!("{path}?")))?;
            schema::fits(&schema::expected(&method, text)?, message, *which)
        }
        _ => false,
    };
    if fits {
        return Ok(());
    }
    Err(Error(format!("wanted {wanted:?}\ncame {shown}")))
}

/// `*` in the pattern stands for any text.
pub(super) fn fits(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(first) = parts.next() else {
        return text.is_empty();
    };
    let Some(mut rest) = text.strip_prefix(first) else {
        return false;
    };
    let mut open = false;
    for part in parts {
        let Some(at) = rest.find(part) else {
            return false;
        };
        rest = &rest[at + part.len()..];
        open = part.is_empty();
    }
    rest.is_empty() || open
}

/// A code as schemas write it: `NOT_FOUND`.
pub(crate) fn code_name(code: Code) -> String {
    let mut name = String::new();
    for character in format!("{code:?}").chars() {
        if character.is_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.extend(character.to_uppercase());
    }
    name
}

#[cfg(test)]
mod tests;
