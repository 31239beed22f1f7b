//! How the process ends: the exit codes of etcdctl and what it prints then.

use std::process::ExitCode;

/// An RPC failed, an endpoint is unhealthy, a command or flag is unknown.
pub(crate) const ERROR: u8 = 1;
/// The client could not be made, or a stream could not be kept.
pub(crate) const BAD_CONNECTION: u8 = 2;
/// A line on standard input makes no sense.
pub(crate) const INVALID_INPUT: u8 = 3;
/// A flag has a value that is not supported.
pub(crate) const BAD_FEATURE: u8 = 4;
/// The server ended a watch, or a snapshot was not saved.
pub(crate) const INTERRUPTED: u8 = 5;
/// Wrong arguments.
pub(crate) const BAD_ARGS: u8 = 128;

/// A failed command: an exit code, and what to say unless it has been said.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) code: u8,
    pub(crate) text: Option<String>,
}

/// What a command returns.
pub(crate) type Outcome = Result<(), Failure>;

impl Failure {
    pub(crate) fn new(code: u8, text: impl Into<String>) -> Self {
        Failure {
            code,
            text: Some(text.into()),
        }
    }

    /// A failure whose message has already been printed.
    pub(crate) fn silent(code: u8) -> Self {
        Failure { code, text: None }
    }

    pub(crate) fn bad_args(text: impl Into<String>) -> Self {
        Failure::new(BAD_ARGS, text)
    }

    pub(crate) fn report(&self) -> ExitCode {
        if let Some(text) = &self.text {
            eprintln!("Error: {text}");
        }
        ExitCode::from(self.code)
    }
}

/// An RPC that failed.
impl From<client::Error> for Failure {
    fn from(error: client::Error) -> Self {
        crate::log::cause(&error);
        Failure::new(ERROR, error.to_string())
    }
}

/// Words that were no command, or that a command does not take.
impl From<cli::Misuse> for Failure {
    fn from(misuse: cli::Misuse) -> Self {
        misuse.report();
        Failure::silent(ERROR)
    }
}
