//! What can go wrong with a bolt file.

use std::fmt;
use std::io;
use std::path::PathBuf;

use super::PageId;

/// Why an operation on a bolt file failed.
#[derive(Debug)]
pub enum Error {
    /// The file could not be opened, created or renamed into place.
    Open {
        path: PathBuf,
        source: io::Error,
    },
    /// Another process (or another `Db` of this one) holds the lock.
    Locked {
        path: PathBuf,
    },
    /// Neither meta page is valid: not a bolt file, or both copies are lost.
    NoValidMeta {
        path: PathBuf,
    },
    /// `page_size` is no power of two from 1 KiB to 64 KiB.
    BadPageSize {
        page_size: u32,
    },
    /// A read or write of file bytes failed.
    Io {
        what: &'static str,
        offset: u64,
        source: io::Error,
    },
    /// The bytes of a page contradict the format or its neighbours.
    Damaged {
        page: PageId,
        damage: Damage,
    },
    /// A sync or a meta write failed earlier: nothing more may be written through this `Db`.
    Poisoned,
    /// The file was opened for reading only.
    ReadOnly,
    /// An earlier call in this transaction failed, so that its content is undefined.
    Aborted,
    BucketMissing {
        name: Vec<u8>,
    },
    /// The key holds a bucket where a value was expected.
    IsBucket {
        key: Vec<u8>,
    },
    /// Keys are 1 to 32768 bytes long.
    KeyLen {
        len: usize,
    },
    /// Values are at most 2^31 - 2 bytes long.
    ValueLen {
        len: usize,
    },
    /// The operations of a batch are not in strictly ascending key order.
    Unsorted {
        index: usize,
    },
}

/// What is wrong with a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damage {
    /// The id lies outside the file's used pages.
    OutOfRange { high_water: PageId },
    /// The header names another page.
    Id { found: u64 },
    /// The header's flags are not those of the page kind that belongs here.
    Flags { found: u16 },
    /// The page and its overflow reach beyond the used pages.
    Overflow { pages: u64 },
    /// A branch page without children.
    EmptyBranch,
    /// A leaf page without elements that is not the root of its bucket.
    EmptyLeaf,
    /// An element lies outside its page.
    ElementBounds { index: usize },
    /// An element's key does not follow its predecessor's.
    KeyOrder { index: usize },
    /// A key lies outside the range that the parent pages give to this page.
    KeyRange { index: usize },
    /// A key without bytes, or longer than the format allows.
    KeyLen { index: usize },
    /// An element's flags are neither a value's nor a bucket's.
    ElementFlags { index: usize },
    /// A bucket's header is cut short or its inline page is unreadable.
    BucketValue { index: usize },
    /// The tree is deeper than any that could fit into a file: it must loop.
    TooDeep,
    /// Two parents refer to this page.
    SharedPage,
    /// The page belongs to the tree and is listed free.
    ReachableFree,
    /// The page neither belongs to the tree nor is listed free.
    Leaked,
    /// Siblings are of different kinds.
    MixedKinds,
    /// The list of free pages is not ascending, or names pages that do not exist.
    Freelist { index: u64 },
    /// The meta page contradicts itself.
    Meta,
    /// The file ends before the last used page.
    FileTooShort { file_bytes: u64 },
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Damage::OutOfRange { high_water } => {
                write!(f, "beyond the high-water mark {high_water}")
            }
            Damage::Id { found } => write!(f, "its header names page {found}"),
            Damage::Flags { found } => write!(f, "unexpected page flags {found:#x}"),
            Damage::Overflow { pages } => write!(f, "a run of {pages} pages leaves the file"),
            Damage::EmptyBranch => f.write_str("a branch page without children"),
            Damage::EmptyLeaf => f.write_str("an empty leaf page below the root"),
            Damage::ElementBounds { index } => write!(f, "element {index} lies outside the page"),
            Damage::KeyOrder { index } => write!(f, "the key of element {index} is out of order"),
            Damage::KeyRange { index } => {
                write!(
                    f,
                    "the key of element {index} is outside its parent's range"
                )
            }
            Damage::KeyLen { index } => write!(f, "the key of element {index} has an illegal size"),
            Damage::ElementFlags { index } => write!(f, "element {index} has unknown flags"),
            Damage::BucketValue { index } => write!(f, "element {index} is not a valid bucket"),
            Damage::TooDeep => f.write_str("the tree is too deep"),
            Damage::SharedPage => f.write_str("it has more than one parent"),
            Damage::ReachableFree => f.write_str("it is in use and listed free"),
            Damage::Leaked => f.write_str("it is neither in use nor free"),
            Damage::MixedKinds => f.write_str("its sibling is of another kind"),
            Damage::Freelist { index } => write!(f, "entry {index} of the freelist is not valid"),
            Damage::Meta => f.write_str("the meta page contradicts itself"),
            Damage::FileTooShort { file_bytes } => {
                write!(f, "the file of {file_bytes} bytes ends before it")
            }
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Open { path, .. } => write!(f, "cannot open database file {}", path.display()),
            Error::Locked { path } => write!(f, "database file {} is locked", path.display()),
            Error::NoValidMeta { path } => {
                write!(f, "database file {} has no valid meta page", path.display())
            }
            Error::BadPageSize { page_size } => write!(f, "page size {page_size} is not supported"),
            Error::Io { what, offset, .. } => write!(f, "cannot {what} at offset {offset}"),
            Error::Damaged { page, damage } => {
                write!(f, "database page {page} is damaged: {damage}")
            }
            Error::Poisoned => f.write_str("the database stopped after a failed sync"),
            Error::ReadOnly => f.write_str("the database is open for reading only"),
            Error::Aborted => f.write_str("the transaction has failed before"),
            Error::BucketMissing { name } => {
                write!(
                    f,
                    "bucket {:?} does not exist",
                    String::from_utf8_lossy(name)
                )
            }
            Error::IsBucket { key } => {
                write!(f, "key {:?} holds a bucket", String::from_utf8_lossy(key))
            }
            Error::KeyLen { len } => write!(f, "a key of {len} bytes is not allowed"),
            Error::ValueLen { len } => write!(f, "a value of {len} bytes is too large"),
            Error::Unsorted { index } => write!(f, "operation {index} is out of key order"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::Open { source, .. } | Error::Io { source, .. } => Some(source),
            _ => None,
        }
    }
}

impl Error {
    pub(super) fn damaged(page: PageId, damage: Damage) -> Error {
        Error::Damaged { page, damage }
    }
}
