//! What lock, elect and watch share: other programs and signals.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command as Process, ExitStatus};

use bytes::Bytes;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::exit::{self, Failure};

/// SIGINT and SIGTERM, which end a command that holds something.
pub(super) struct Interrupts {
    interrupt: Signal,
    terminate: Signal,
}

impl Interrupts {
    /// From now on the signals do not end the process by themselves.
    ///
    /// # Errors
    /// The system refuses.
    pub(super) fn catch() -> Result<Self, Failure> {
        let catch = |kind| {
            let text = |error: io::Error| format!("cannot catch signals: {error}");
            signal(kind).map_err(|error| Failure::new(exit::ERROR, text(error)))
        };
        Ok(Interrupts {
            interrupt: catch(SignalKind::interrupt())?,
            terminate: catch(SignalKind::terminate())?,
        })
    }

    /// Waits for one of the signals.
    pub(super) async fn wait(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// A program and its arguments; there is at least the program.
pub(super) fn process(words: &[Bytes]) -> Process {
    let mut process = Process::new(OsStr::from_bytes(&words[0]));
    process.args(words[1..].iter().map(|word| OsStr::from_bytes(word)));
    process
}

/// How a process ended, in Go's words.
pub(super) fn exit_text(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(signal)) => format!("signal: {}", signal_name(signal)),
        (None, None) => "unknown exit status".to_owned(),
    }
}

fn signal_name(signal: i32) -> String {
    match signal {
        1 => "hangup".to_owned(),
        2 => "interrupt".to_owned(),
        3 => "quit".to_owned(),
        6 => "aborted".to_owned(),
        9 => "killed".to_owned(),
        11 => "segmentation fault".to_owned(),
        15 => "terminated".to_owned(),
        other => format!("signal {other}"),
    }
}

/// Why a program could not be started, in Go's words.
pub(super) fn start_error(program: &[u8], error: &io::Error) -> String {
    let is_path = program.contains(&b'/');
    match error.kind() {
        io::ErrorKind::NotFound if !is_path => {
            let quoted = crate::text::quote(program);
            format!("exec: {quoted}: executable file not found in $PATH")
        }
        io::ErrorKind::NotFound => {
            format!(
                "fork/exec {}: no such file or directory",
                String::from_utf8_lossy(program)
            )
        }
        _ => error.to_string(),
    }
}
