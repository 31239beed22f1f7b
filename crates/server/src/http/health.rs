//! `/health`, `/livez` and `/readyz`.

use http::StatusCode;

use super::{Alarm, Answer, Read, Request, Routes, TEXT, error, only_get, plain, query, respond};

/// What a request for a read that came too late is told, by the name that Go gave it.
const TIMED_OUT: &str = "context deadline exceeded";

/// One question about the member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Question {
    DataCorruption,
    SerializableRead,
    LinearizableRead,
    NonLearner,
}

impl Question {
    fn name(self) -> &'static str {
        match self {
            Question::DataCorruption => "data_corruption",
            Question::SerializableRead => "serializable_read",
            Question::LinearizableRead => "linearizable_read",
            Question::NonLearner => "non_learner",
        }
    }
}

/// A set of questions under one path.
struct Probe {
    name: &'static str,
    questions: &'static [Question],
}

const PROBES: &[Probe] = &[
    Probe {
        name: "livez",
        questions: &[Question::SerializableRead],
    },
    Probe {
        name: "readyz",
        questions: &[
            Question::DataCorruption,
            Question::SerializableRead,
            Question::LinearizableRead,
            Question::NonLearner,
        ],
    },
];

impl Routes {
    /// `/health`: alarms, then a leader, then a read.
    pub(super) async fn health(&self, request: &Request) -> Answer {
        if let Some(refusal) = only_get(request) {
            tracing::warn!("status-code" = 405, "/health error");
            return refusal;
        }
        let excluded: Vec<String> = query(request, "exclude").collect();
        let serializable = query(request, "serializable").next().as_deref() == Some("true");
        let Err(reason) = self.health_reason(&excluded, serializable).await else {
            self.metrics.health_success.inc();
            return respond(
                StatusCode::OK,
                Some(TEXT),
                "{\"health\":\"true\",\"reason\":\"\"}",
            );
        };
        self.metrics.health_failures.inc();
        let body = format!("{{\"health\":\"false\",\"reason\":{}}}", go_json(&reason));
        tracing::warn!(output = body.as_str(), "status-code" = 503, "/health error");
        error(StatusCode::SERVICE_UNAVAILABLE, &body)
    }

    async fn health_reason(&self, excluded: &[String], serializable: bool) -> Result<(), String> {
        let alarms = self.view.alarms();
        if let Some(alarm) = alarms
            .iter()
            .find(|alarm| !excluded.contains(&alarm.name()))
        {
            let reason = match alarm {
                Alarm::NoSpace => "ALARM NOSPACE",
                Alarm::Corrupt => "ALARM CORRUPT",
                Alarm::Unknown(_) => "ALARM UNKNOWN",
            };
            return Err(reason.into());
        }
        if !serializable && self.view.leader().is_none() {
            return Err("RAFT NO LEADER".into());
        }
        let read = if serializable {
            Read::Serializable
        } else {
            Read::Linearizable
        };
        self.read(read)
            .await
            .map_err(|why| format!("RANGE ERROR:{why}"))
    }

    async fn read(&self, read: Read) -> Result<(), String> {
        let outcome = tokio::time::timeout(self.read_timeout, self.view.read(read)).await;
        outcome.unwrap_or_else(|_| Err(TIMED_OUT.into()))
    }

    /// `/livez`, `/readyz` and their single checks; `None` for other paths.
    pub(super) async fn checks(&self, request: &Request, path: &str) -> Option<Answer> {
        let mut segments = path.strip_prefix('/')?.splitn(2, '/');
        let root = segments.next()?;
        let probe = PROBES.iter().find(|probe| probe.name == root)?;
        let questions = match segments.next() {
            None => probe.questions.to_vec(),
            Some(name) => {
                let one = probe
                    .questions
                    .iter()
                    .find(|question| question.name() == name)?;
                vec![*one]
            }
        };
        if let Some(refusal) = only_get(request) {
            tracing::warn!(path, "status-code" = 405, "Health request error");
            return Some(refusal);
        }
        let questions = match path[1..].contains('/') {
            true => questions,
            false => without_excluded(questions, request),
        };
        let (lines, healthy) = self.ask(probe.name, &questions).await;
        if !healthy {
            let code = StatusCode::SERVICE_UNAVAILABLE;
            tracing::error!(
                path,
                reason = lines.as_str(),
                "status-code" = 503,
                "Health check error"
            );
            return Some(error(code, &lines));
        }
        let verbose = query(request, "verbose").next().is_some();
        let body = if verbose {
            format!("{lines}ok\n")
        } else {
            "ok\n".into()
        };
        Some(plain(StatusCode::OK, body))
    }

    async fn ask(&self, probe: &str, questions: &[Question]) -> (String, bool) {
        let (mut lines, mut healthy) = (String::new(), true);
        for question in questions {
            let name = question.name();
            let outcome = self.ask_one(*question).await;
            let status = match outcome {
                Ok(()) => {
                    lines.push_str(&format!("[+]{name} ok\n"));
                    "success"
                }
                Err(why) => {
                    lines.push_str(&format!("[-]{name} failed: {why}\n"));
                    healthy = false;
                    "error"
                }
            };
            let passed = i64::from(status == "success");
            self.metrics.healthcheck.with([name, probe]).set(passed);
            self.metrics.healthchecks.with([name, status, probe]).inc();
        }
        (lines, healthy)
    }

    async fn ask_one(&self, question: Question) -> Result<(), String> {
        match question {
            Question::DataCorruption if self.view.alarms().contains(&Alarm::Corrupt) => {
                Err("alarm activated: CORRUPT".into())
            }
            Question::NonLearner if self.view.is_learner() => {
                Err("not supported for learner".into())
            }
            Question::DataCorruption | Question::NonLearner => Ok(()),
            Question::SerializableRead => self.read(Read::Serializable).await,
            Question::LinearizableRead => self.read(Read::Linearizable).await,
        }
    }
}

/// The questions that `exclude=` leaves.
fn without_excluded(mut questions: Vec<Question>, request: &Request) -> Vec<Question> {
    let mut unknown = Vec::new();
    for name in query(request, "exclude").filter(|name| !name.is_empty()) {
        let before = questions.len();
        questions.retain(|question| question.name() != name);
        if questions.len() == before {
            unknown.push(format!("{name:?}"));
        }
    }
    if !unknown.is_empty() {
        let unknown = unknown.join(",");
        tracing::warn!(
            "missing-health-checks" = unknown,
            "some health checks cannot be excluded"
        );
    }
    questions
}

/// A JSON string with the escapes of Go's encoder.
fn go_json(text: &str) -> String {
    let json = serde_json::Value::from(text).to_string();
    json.replace('<', "\\u003c")
        .replace('>', "\\u003e")
        .replace('&', "\\u0026")
}
