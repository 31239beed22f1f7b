//! One conversation: a member of its own, the client's program, its lines.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use crate::{Error, Member, Options};

/// Longest conversation.
const LIMIT: Duration = Duration::from_secs(180);

/// Ends the program by its process id when the conversation is over, however it ends.
pub(crate) struct Program(pub(crate) Child);

impl Drop for Program {
    fn drop(&mut self) {
        // Both fail only when it has already ended and been waited for.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts a member, runs the program with its URL, and counts the steps in `steps`.
///
/// # Errors
/// The step that failed, a program that ended badly or said nothing for too long.
pub(super) fn run(binary: &Path, program: &[PathBuf], steps: &mut usize) -> Result<(), Error> {
    let options = Options {
        binary: Some(binary.into()),
        // Progress is told every second, so that clients can wait for it.
        flags: vec!["--watch-progress-notify-interval=1s".into()],
        ..Options::default()
    };
    let member = Member::start(options)?;
    let url = format!("http://{}", member.address());
    let outcome = talk(program, &url, steps);
    match outcome {
        Ok(()) => Ok(()),
        Err(error) => {
            eprint!("{}", member.log());
            Err(error)
        }
    }
}

fn talk(words: &[PathBuf], url: &str, steps: &mut usize) -> Result<(), Error> {
    let (first, rest) = words.split_first().expect("a program has a name");
    let child = Command::new(first)
        .args(rest)
        .arg(url)
        // The repository stays as it is.
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| Error(format!("{}: {error}", first.display())))?;
    let mut program = Program(child);
    let output = program.0.stdout.take().expect("standard output is a pipe");
    let (sender, lines) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(output).lines() {
            // Nobody listens after a failure.
            let Ok(line) = line else { return };
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    let end = Instant::now() + LIMIT;
    let mut last = String::from("its start");
    let mut failed = None;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let line = match lines.recv_timeout(left) {
            Ok(line) => line,
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {
                return Err(Error(format!("silent for too long after {last}")));
            }
        };
        println!("{line}");
        if let Some(step) = line.strip_prefix("ok ") {
            *steps += 1;
            last = step.to_owned();
        } else if line.starts_with("FAILED ") {
            failed = Some(line);
        }
    }
    let status = program.0.wait()?;
    match failed {
        Some(line) => Err(Error(line)),
        None if !status.success() => Err(Error(format!("{status} after {last}"))),
        None if *steps == 0 => Err(Error("it took no step".into())),
        None => Ok(()),
    }
}
