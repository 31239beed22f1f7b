//! What can go wrong with a write-ahead log.

use std::io;
use std::path::{Path, PathBuf};

use crate::log::{LogIndex, Term};
use crate::wire::WireError;

/// A failed operation on the log. Every variant means: the member must not go on with this log.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot {operation} {}", path.display())]
    Io {
        operation: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error("a WAL exists already in {}", .0.display())]
    Exists(PathBuf),
    #[error("no WAL segment in {} can hold what follows index {index}", dir.display())]
    NotFound { dir: PathBuf, index: LogIndex },
    #[error("WAL segments in {} do not follow each other at {name}", dir.display())]
    Sequence { dir: PathBuf, name: String },
    #[error("WAL segment {} is locked by another process", .0.display())]
    Locked(PathBuf),
    /// Bytes that a torn write does not explain, or whose loss could break a promise.
    #[error("WAL segment {} is damaged at offset {offset}", path.display())]
    Damaged {
        path: PathBuf,
        offset: u64,
        source: Damage,
    },
    /// The log ends cleanly, but before what the database has already applied.
    #[error(
        "WAL ends at index {last} ({} offset {offset}), below the applied index {applied}",
        path.display()
    )]
    Behind {
        path: PathBuf,
        offset: u64,
        last: LogIndex,
        applied: LogIndex,
    },
    #[error("entry {index} was applied with term {applied}, but the WAL holds term {found}")]
    AppliedTerm {
        index: LogIndex,
        applied: Term,
        found: Term,
    },
    #[error("the WAL's snapshot {index} has term {found}, wanted term {wanted}")]
    SnapshotMismatch {
        index: LogIndex,
        wanted: Term,
        found: Term,
    },
    #[error("the WAL has no snapshot record for index {index} and term {term}")]
    SnapshotNotFound { index: LogIndex, term: Term },
    /// An earlier write or sync failed; what the disk holds is unknown.
    #[error("the WAL is closed after an earlier failure")]
    Poisoned,
}

/// What is wrong with the bytes at an offset.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    #[error("length word {0:#018x} is not one that a writer makes")]
    Length(u64),
    #[error("record of {record_bytes} bytes reaches beyond the end of the file")]
    Overrun { record_bytes: u64 },
    #[error("the file ends inside a length word")]
    ShortWord,
    #[error("zero length word before further data")]
    ZeroWord,
    #[error("record header is malformed")]
    Header,
    #[error("padding is not zero")]
    Padding,
    #[error("checksum is {computed:08x}, the record says {stored:08x}")]
    Crc { stored: u32, computed: u32 },
    #[error("record of type {kind} does not decode")]
    Message { kind: u8, source: WireError },
    #[error("{0}")]
    Structure(&'static str),
    #[error("entry {found} does not follow {last}")]
    Gap { last: LogIndex, found: LogIndex },
    #[error(
        "the end looks torn, but entry {lost} may have been acknowledged: index {proof} is known"
    )]
    Acknowledged { lost: LogIndex, proof: LogIndex },
}

impl Error {
    pub(super) fn io(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
        move |source| Error::Io {
            operation,
            path: path.to_owned(),
            source,
        }
    }

    pub(super) fn damaged(path: &Path, offset: u64, source: Damage) -> Error {
        Error::Damaged {
            path: path.to_owned(),
            offset,
            source,
        }
    }
}
