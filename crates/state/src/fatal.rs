//! Why a member must stop: apply cannot go on without diverging from the others.

use std::fmt;

use storage::backend;
use storage::log::LogIndex;

/// A broken invariant, damage or a request that this build does not know.
#[derive(Debug)]
pub enum Fatal {
    /// The backend failed.
    Backend(backend::Error),
    /// The index names a revision that the database does not have.
    MissingRevision { main: i64, sub: u32 },
    /// A record of the database cannot be parsed.
    Damaged { bucket: &'static str, what: String },
    /// The entry's data is no request.
    Undecodable { index: LogIndex, what: &'static str },
    /// The entry asks for something that this build does not know; the fields that it sets.
    UnknownRequest { index: LogIndex, fields: Vec<u64> },
    /// The cluster raised its version above this member's, or set one that is none.
    ClusterVersion { version: String },
    /// A checked transaction failed while it was being applied.
    Txn { error: api::Error },
}

impl fmt::Display for Fatal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fatal::Backend(_) => f.write_str("the database failed"),
            Fatal::MissingRevision { main, sub } => {
                write!(
                    f,
                    "revision {main}.{sub} is in the index but not in the database"
                )
            }
            Fatal::Damaged { bucket, what } => {
                write!(f, "a record of bucket {bucket} is damaged: {what}")
            }
            Fatal::Undecodable { index, what } => {
                write!(f, "the log entry at {index} cannot be decoded: {what}")
            }
            Fatal::UnknownRequest { index, fields } => {
                write!(
                    f,
                    "the log entry at {index} has a request of unknown kind, fields {fields:?}"
                )
            }
            Fatal::ClusterVersion { version } => {
                write!(
                    f,
                    "the cluster version {version} is not one that this member supports"
                )
            }
            Fatal::Txn { error } => write!(f, "a checked transaction failed: {error}"),
        }
    }
}

impl std::error::Error for Fatal {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Fatal::Backend(source) => Some(source),
            _ => None,
        }
    }
}

impl From<backend::Error> for Fatal {
    fn from(source: backend::Error) -> Fatal {
        Fatal::Backend(source)
    }
}

/// Why a read was not answered: the client asked for what cannot be, or the member is broken.
#[derive(Debug)]
pub enum ReadError {
    Refused(api::Error),
    Broken(Fatal),
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReadError::Refused(error) => error.fmt(f),
            ReadError::Broken(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for ReadError {}

impl From<api::Error> for ReadError {
    fn from(error: api::Error) -> ReadError {
        ReadError::Refused(error)
    }
}

impl From<Fatal> for ReadError {
    fn from(error: Fatal) -> ReadError {
        ReadError::Broken(error)
    }
}

impl From<backend::Error> for ReadError {
    fn from(error: backend::Error) -> ReadError {
        ReadError::Broken(Fatal::Backend(error))
    }
}
