//! Why a member does not start.

use std::fmt;
use std::io;
use std::path::PathBuf;

use storage::log::LogIndex;

use crate::boot::{BootstrapError, JoinError, Refusal};
use crate::raft::RestoreError;

/// Why a member does not start, or must stop.
#[derive(Debug)]
pub enum Error {
    /// The data directory cannot be made, written or listed.
    Directory(storage::datadir::Error),
    /// A received database cannot be put in place.
    Adopt {
        path: PathBuf,
        source: io::Error,
    },
    /// A received database stands elsewhere than its snapshot.
    Received {
        path: PathBuf,
        found: LogIndex,
        wanted: LogIndex,
    },
    Backend(storage::backend::Error),
    State(state::OpenError),
    Wal(storage::wal::Error),
    Snap(storage::snap::Error),
    /// Log, hard state and configuration do not fit together.
    Restore(RestoreError),
    Refused(Refusal),
    Bootstrap(BootstrapError),
    Join(JoinError),
    /// A committed configuration change cannot be read.
    Change(prost::DecodeError),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Directory(error) => write!(f, "cannot access data directory: {error}"),
            Error::Adopt { path, .. } => {
                write!(f, "cannot put {} in place of the database", path.display())
            }
            Error::Received {
                path,
                found,
                wanted,
            } => write!(
                f,
                "the received database {} is at raft index {found}, its snapshot at {wanted}",
                path.display()
            ),
            Error::Backend(error) => error.fmt(f),
            Error::State(error) => error.fmt(f),
            Error::Wal(error) => error.fmt(f),
            Error::Snap(error) => error.fmt(f),
            Error::Restore(error) => error.fmt(f),
            Error::Refused(refusal) => refusal.fmt(f),
            Error::Bootstrap(error) => error.fmt(f),
            Error::Join(error) => error.fmt(f),
            Error::Change(_) => f.write_str("cannot read a committed configuration change"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::Directory(error) => error.source(),
            Error::Adopt { source, .. } => Some(source),
            Error::Backend(error) => error.source(),
            Error::State(error) => error.source(),
            Error::Wal(error) => error.source(),
            Error::Snap(error) => error.source(),
            Error::Received { .. }
            | Error::Restore(_)
            | Error::Refused(_)
            | Error::Bootstrap(_)
            | Error::Join(_) => None,
            Error::Change(error) => Some(error),
        }
    }
}

macro_rules! from {
    ($($variant:ident($source:ty)),* $(,)?) => {
        $(impl From<$source> for Error {
            fn from(error: $source) -> Error {
                Error::$variant(error)
            }
        })*
    };
}

from! {
    Directory(storage::datadir::Error),
    Backend(storage::backend::Error),
    State(state::OpenError),
    Wal(storage::wal::Error),
    Snap(storage::snap::Error),
    Restore(RestoreError),
    Refused(Refusal),
    Bootstrap(BootstrapError),
    Join(JoinError),
    Change(prost::DecodeError),
}
