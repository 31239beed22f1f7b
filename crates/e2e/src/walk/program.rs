//! Programs that are run to their end, for what they say.

use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::Error;

/// Longest life of one run; a program that lives longer has taken what it was given.
const LIMIT: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(2);

/// How a run ended.
pub(super) struct Said {
    /// The exit code; `None` when a signal ended it.
    pub(super) code: Option<i32>,
    pub(super) out: String,
    pub(super) err: String,
}

impl Said {
    /// The last line that is not empty, for a report.
    pub(super) fn last_line(&self) -> String {
        let mut lines = self.err.lines().chain(self.out.lines());
        let last = lines.rfind(|line| !line.trim().is_empty());
        let line: String = last.unwrap_or("nothing").chars().take(200).collect();
        match self.code {
            Some(code) => format!("exit {code}: {line}"),
            None => format!("ended by a signal: {line}"),
        }
    }
}

/// Runs a program with nothing on its standard input and no variables of etcd's but these.
///
/// # Errors
/// It cannot be started.
pub(super) fn run(
    program: &Path,
    words: &[&str],
    variables: &[(&str, &str)],
) -> Result<Said, Error> {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("ETCD") {
            command.env_remove(name);
        }
    }
    let mut child = command
        .args(words)
        .envs(variables.iter().copied())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| Error(format!("{}: {error}", program.display())))?;
    let out = child.stdout.take().map(read_on_the_side);
    let err = child.stderr.take().map(read_on_the_side);
    let deadline = Instant::now() + LIMIT;
    let code = loop {
        if let Some(status) = child.try_wait()? {
            break status.code();
        }
        if Instant::now() > deadline {
            child.kill()?;
            child.wait()?;
            break None;
        }
        std::thread::sleep(PAUSE);
    };
    let text = |thread: Option<std::thread::JoinHandle<String>>| {
        thread.and_then(|one| one.join().ok()).unwrap_or_default()
    };
    Ok(Said {
        code,
        out: text(out),
        err: text(err),
    })
}

fn read_on_the_side(mut pipe: impl Read + Send + 'static) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        // What came before a failure is what there is to judge.
        let _ = pipe.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    })
}
