//! What can go wrong with a bolt file.

use std::io;
use std::path::PathBuf;

use super::PageId;

/// Why an operation on a bolt file failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file could not be opened, created or renamed into place.
    #[error("cannot open database file {}", path.display())]
    Open { path: PathBuf, source: io::Error },
    /// Another process (or another `Db` of this one) holds the lock.
    #[error("database file {} is locked", path.display())]
    Locked { path: PathBuf },
    /// Neither meta page is valid: not a bolt file, or both copies are lost.
    #[error("database file {} has no valid meta page", path.display())]
    NoValidMeta { path: PathBuf },
    /// The page size is no power of two from 1 KiB to 64 KiB.
    #[error("a page size of {page_size} bytes is not supported")]
    BadPageSize { page_size: u32 },
    /// A read or write of file bytes failed.
    #[error("cannot {what} at offset {offset}")]
    Io {
        what: &'static str,
        offset: u64,
        source: io::Error,
    },
    /// The bytes of a page contradict the format or its neighbours.
    #[error("database page {page} is damaged: {damage}")]
    Damaged { page: PageId, damage: Damage },
    /// A sync or a meta write failed earlier: nothing more may be written through this `Db`.
    #[error("the database stopped after a failed sync")]
    Poisoned,
    /// The file was opened for reading only.
    #[error("the database is open for reading only")]
    ReadOnly,
    /// An earlier call in this transaction failed, so that its content is undefined.
    #[error("the transaction has failed before")]
    Aborted,
    /// There is no bucket of that name.
    #[error("bucket {:?} does not exist", String::from_utf8_lossy(name))]
    BucketMissing { name: Vec<u8> },
    /// The key holds a bucket where a value was expected.
    #[error("key {:?} holds a bucket", String::from_utf8_lossy(key))]
    IsBucket { key: Vec<u8> },
    /// Keys are 1 to 32768 bytes long.
    #[error("a key of {len} bytes is not allowed")]
    KeyLen { len: usize },
    /// Values are at most 2^31 - 2 bytes long.
    #[error("a value of {len} bytes is too large")]
    ValueLen { len: usize },
    /// The changes of a batch are not in strictly ascending key order.
    #[error("change {index} of the batch is out of key order")]
    Unsorted { index: usize },
}

/// What is wrong with a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// The id lies outside the file's used pages.
    #[error("it is not below the high-water mark {high_water}")]
    OutOfRange { high_water: PageId },
    /// The header names another page.
    #[error("its header names page {found}")]
    Id { found: u64 },
    /// The header's flags are not those of the page kind that belongs here.
    #[error("unexpected page flags {found:#x}")]
    Flags { found: u16 },
    /// The page and its overflow reach beyond the used pages.
    #[error("its run of {pages} pages is too long")]
    Overflow { pages: u64 },
    /// A branch page without children.
    #[error("it is a branch without children")]
    EmptyBranch,
    /// A leaf page without elements that is not the root of its bucket.
    #[error("it is an empty leaf below the root")]
    EmptyLeaf,
    /// An element lies outside its page.
    #[error("element {index} lies outside the page")]
    ElementBounds { index: usize },
    /// An element's key does not follow its predecessor's.
    #[error("the key of element {index} is out of order")]
    KeyOrder { index: usize },
    /// A key lies outside the range that the parent pages give to this page.
    #[error("the key of element {index} is outside its parent's range")]
    KeyRange { index: usize },
    /// A key without bytes, or longer than the format allows.
    #[error("the key of element {index} has an illegal size")]
    KeyLen { index: usize },
    /// An element's flags are neither a value's nor a bucket's.
    #[error("element {index} has unknown flags")]
    ElementFlags { index: usize },
    /// A bucket's header is cut short or its inline page is unreadable.
    #[error("element {index} is not a valid bucket")]
    BucketValue { index: usize },
    /// The tree is deeper than any that could fit into a file: it must loop.
    #[error("the tree is too deep")]
    TooDeep,
    /// Two parents refer to this page.
    #[error("it has more than one parent")]
    SharedPage,
    /// The page belongs to the tree and is listed free.
    #[error("it is in use and listed free")]
    ReachableFree,
    /// The page neither belongs to the tree nor is listed free.
    #[error("it is neither in use nor free")]
    Leaked,
    /// Siblings are of different kinds.
    #[error("its sibling is of another kind")]
    MixedKinds,
    /// The list of free pages is not ascending, or names pages that do not exist.
    #[error("entry {index} of the freelist is not valid")]
    Freelist { index: u64 },
    /// The meta page contradicts itself, or is not the one that was written.
    #[error("the meta page is not plausible")]
    Meta,
    /// The file ends before the last used page.
    #[error("the file of {file_bytes} bytes ends before it")]
    FileTooShort { file_bytes: u64 },
}

impl Error {
    pub(super) fn damaged(page: PageId, damage: Damage) -> Error {
        Error::Damaged { page, damage }
    }
}
