//! How the process ends: the exit codes of etcdutl and what it prints then.

use std::error::Error;
use std::process::ExitCode;

/// An operation failed, or a command or flag is unknown.
pub(crate) const ERROR: u8 = 1;
/// A flag has a value that is not supported.
pub(crate) const BAD_FEATURE: u8 = 4;
/// Wrong arguments.
pub(crate) const BAD_ARGS: u8 = 128;

/// A failed command: an exit code and what to say.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) code: u8,
    pub(crate) text: String,
}

/// What a command returns.
pub(crate) type Outcome = Result<(), Failure>;

impl Failure {
    pub(crate) fn new(code: u8, text: impl Into<String>) -> Self {
        let text = text.into();
        Failure { code, text }
    }

    pub(crate) fn bad_args(text: impl Into<String>) -> Self {
        Failure::new(BAD_ARGS, text)
    }

    pub(crate) fn report(&self) -> ExitCode {
        eprintln!("Error: {}", self.text);
        ExitCode::from(self.code)
    }
}

/// What an operation says about its failure.
impl From<String> for Failure {
    fn from(text: String) -> Self {
        Failure::new(ERROR, text)
    }
}

/// Words that were no command, or that a command does not take: etcdutl says what is wrong twice,
/// before the usage and after it.
impl From<cli::Misuse> for Failure {
    fn from(misuse: cli::Misuse) -> Self {
        misuse.report();
        Failure::new(ERROR, misuse.text)
    }
}

/// An error with all that it comes from, in one line.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
