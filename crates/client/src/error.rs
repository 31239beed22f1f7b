//! Why a request had no answer, printed as etcd's own client prints it.

use std::fmt;

use api::Code;

use crate::connection::chain;

/// Why a request had no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// The server, or the connection to it, ended the request with this status.
    Rpc { code: Code, message: String },
    /// The deadline passed. `cause` is the last failure to connect, if that is what took so long.
    Deadline { cause: Option<String> },
    /// The configuration cannot be used; a sentence that names the part.
    Config(String),
    /// A recipe failed in its own way, for example an election that was lost.
    Recipe(String),
}

/// Errors of the table that etcd's clients do not recognise by text and therefore print as a
/// plain status.
const UNRECOGNISED: &[api::Error] = &[
    api::Error::InvalidClientAPIVersion,
    api::Error::WatchCanceled,
    api::Error::NoPasswordUser,
    api::Error::PermissionNotGiven,
    api::Error::TimeoutWaitAppliedIndex,
    api::Error::Canceled,
    api::Error::DeadlineExceeded,
];

impl Error {
    /// Whether the server answered with this error of the table.
    #[must_use]
    pub fn is(&self, error: api::Error) -> bool {
        matches!(self, Error::Rpc { message, .. } if message == error.message())
    }

    /// The status code, for an answer that was a status.
    #[must_use]
    pub fn code(&self) -> Option<Code> {
        match self {
            Error::Rpc { code, .. } => Some(*code),
            _ => None,
        }
    }

    /// Whether asking again could succeed: the server or the way to it is not available for
    /// now, or a connection broke.
    pub(crate) fn is_transient(&self) -> bool {
        matches!(self.code(), Some(Code::Unavailable | Code::Internal))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Rpc { message, .. } if is_recognised(message) => f.write_str(message),
            Error::Rpc { code, message } => {
                write!(f, "rpc error: code = {code:?} desc = {message}")
            }
            Error::Deadline { .. } => f.write_str("context deadline exceeded"),
            Error::Config(text) | Error::Recipe(text) => f.write_str(text),
        }
    }
}

fn is_recognised(message: &str) -> bool {
    api::Error::ALL
        .iter()
        .any(|error| error.message() == message && !UNRECOGNISED.contains(error))
}

impl std::error::Error for Error {}

impl From<tonic::Status> for Error {
    fn from(status: tonic::Status) -> Self {
        if let Some(error) = connection_error(&status) {
            let message = format!("error reading from server: {}", chain(error));
            return Error::Rpc {
                code: Code::Unavailable,
                message,
            };
        }
        Error::Rpc {
            code: code_of(status.code()),
            message: status.message().to_owned(),
        }
    }
}

/// The connection's error behind a status that no server sent.
fn connection_error(status: &tonic::Status) -> Option<&hyper::Error> {
    let mut source = std::error::Error::source(status);
    while let Some(error) = source {
        if let Some(error) = error.downcast_ref() {
            return Some(error);
        }
        source = error.source();
    }
    None
}

/// A status code of the wire by its name in `api`.
#[must_use]
pub fn code_of(code: tonic::Code) -> Code {
    match code {
        tonic::Code::Ok => Code::Ok,
        tonic::Code::Cancelled => Code::Canceled,
        tonic::Code::Unknown => Code::Unknown,
        tonic::Code::InvalidArgument => Code::InvalidArgument,
        tonic::Code::DeadlineExceeded => Code::DeadlineExceeded,
        tonic::Code::NotFound => Code::NotFound,
        tonic::Code::AlreadyExists => Code::AlreadyExists,
        tonic::Code::PermissionDenied => Code::PermissionDenied,
        tonic::Code::ResourceExhausted => Code::ResourceExhausted,
        tonic::Code::FailedPrecondition => Code::FailedPrecondition,
        tonic::Code::Aborted => Code::Aborted,
        tonic::Code::OutOfRange => Code::OutOfRange,
        tonic::Code::Unimplemented => Code::Unimplemented,
        tonic::Code::Internal => Code::Internal,
        tonic::Code::Unavailable => Code::Unavailable,
        tonic::Code::DataLoss => Code::DataLoss,
        tonic::Code::Unauthenticated => Code::Unauthenticated,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(code: Code, message: &str, printed: &str) {
        assert_eq!(
            Error::Rpc {
                code,
                message: message.to_owned()
            }
            .to_string(),
            printed
        );
    }

    #[test]
    fn known_texts_are_printed_bare() {
        let denied = "etcdserver: permission denied";
        check(Code::PermissionDenied, denied, denied);
        check(
            Code::Unknown,
            "auth: something else",
            "rpc error: code = Unknown desc = auth: something else",
        );
        check(
            Code::Canceled,
            "etcdserver: watch canceled",
            "rpc error: code = Canceled desc = etcdserver: watch canceled",
        );
    }
}
