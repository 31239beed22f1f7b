//! The replicated state on disk: one bolt file under an overlay of what is not committed yet.
//!
//! Apply moves each entry's writes, its index and its term into the *open batch* in one critical
//! section. The committer seals the open batch, writes it as one bolt transaction and drops it.
//! Every reader sees the bolt file, the batch being committed and the open batch as one thing:
//!
//! ```text
//!   open batch        newest; apply and maintenance write here, under the overlay lock
//!   committing batch  sealed, immutable, being written by the committer
//!   bolt file         everything older
//! ```
//!
//! A layer hides the ones below it key by key, so a reader that opens its bolt transaction while
//! it holds the overlay lock sees the same keys whether the running commit has finished or not.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use parking_lot::RwLock;

use crate::bolt;
use crate::fs::Fs;
use crate::log::{ConfState, LogIndex, Term};

mod commit;
mod layer;
mod read;
#[cfg(test)]
mod tests;
mod write;

pub use commit::{Committed, Committer, Pinned};
pub use read::Reader;
pub use write::{ApplyTxn, MaintenanceTxn, MaintenanceWriter, Writer};

use layer::Layer;

/// A value as it lies in a bucket, shared between the batches, the key index and readers.
pub type Value = Arc<[u8]>;

/// The top-level buckets that every member creates; there are no others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Bucket {
    Alarm,
    Auth,
    AuthRoles,
    AuthUsers,
    Cluster,
    Key,
    Lease,
    Members,
    MembersRemoved,
    Meta,
}

impl Bucket {
    /// Every bucket in the order of their names.
    pub const ALL: [Bucket; 10] = [
        Bucket::Alarm,
        Bucket::Auth,
        Bucket::AuthRoles,
        Bucket::AuthUsers,
        Bucket::Cluster,
        Bucket::Key,
        Bucket::Lease,
        Bucket::Members,
        Bucket::MembersRemoved,
        Bucket::Meta,
    ];

    /// The name in the file.
    #[must_use]
    pub fn name(self) -> &'static [u8] {
        match self {
            Bucket::Alarm => b"alarm",
            Bucket::Auth => b"auth",
            Bucket::AuthRoles => b"authRoles",
            Bucket::AuthUsers => b"authUsers",
            Bucket::Cluster => b"cluster",
            Bucket::Key => b"key",
            Bucket::Lease => b"lease",
            Bucket::Members => b"members",
            Bucket::MembersRemoved => b"members_removed",
            Bucket::Meta => b"meta",
        }
    }
}

/// Keys of bucket `meta` that belong to this module; the others belong to the state machine.
pub mod meta {
    /// u64 big-endian: the last applied entry.
    pub const CONSISTENT_INDEX: &[u8] = b"consistent_index";
    /// u64 big-endian: the term of that entry.
    pub const TERM: &[u8] = b"term";
    /// JSON of the raft configuration after that entry.
    pub const CONF_STATE: &[u8] = b"confState";
    /// 17-byte revision of the last compaction whose deletions are complete.
    pub const FINISHED_COMPACT: &[u8] = b"finishedCompactRev";
    /// ASCII version of the schema; absent up to 3.5.
    pub const STORAGE_VERSION: &[u8] = b"storageVersion";
}

/// How far the state was applied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    pub index: LogIndex,
    pub term: Term,
}

/// What the operation was that failed.
#[derive(Debug)]
pub enum Error {
    Open {
        path: PathBuf,
        source: bolt::Error,
    },
    Read {
        bucket: Bucket,
        source: bolt::Error,
    },
    Commit {
        source: bolt::Error,
    },
    /// A record that this module owns has an impossible shape.
    Damaged {
        key: &'static str,
        len: usize,
    },
    /// An earlier commit failed; nothing may be committed over it.
    Failed,
}

/// What [`Error::Commit`] says was tried.
pub const COMMITTING: &str = "commit a batch to the database";

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Open { path, .. } => write!(f, "open the database {}", path.display()),
            Error::Read { bucket, .. } => {
                write!(f, "read bucket {}", String::from_utf8_lossy(bucket.name()))
            }
            Error::Commit { .. } => f.write_str(COMMITTING),
            Error::Damaged { key, len } => {
                write!(f, "the record {key} of bucket meta has {len} bytes")
            }
            Error::Failed => f.write_str("an earlier commit to the database failed"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::Open { source, .. } | Error::Read { source, .. } | Error::Commit { source } => {
                Some(source)
            }
            Error::Damaged { .. } | Error::Failed => None,
        }
    }
}

/// How the backend is opened.
#[derive(Clone, Debug)]
pub struct Options {
    pub bolt: bolt::Options,
    /// Bytes that the two batches may hold before [`Writer::pressure`] tells the driver to let
    /// the committer catch up.
    pub overlay_bytes_max: usize,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            bolt: bolt::Options::default(),
            overlay_bytes_max: 64 << 20,
        }
    }
}

/// Work that waits for the committer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pending {
    pub ops: usize,
    pub bytes: usize,
}

/// The handles of an open backend. Writer, committer and maintenance exist once each.
pub struct Backend {
    pub writer: Writer,
    pub reader: Reader,
    pub committer: Committer,
    pub maintenance: MaintenanceWriter,
}

/// What all handles share.
struct Shared {
    db: bolt::Db,
    /// Apply and maintenance write it once per entry or batch, readers hold it for the bounded
    /// copy of a chunk, the committer to seal and to drop. Never held over a file access other
    /// than opening a read transaction.
    overlay: RwLock<Overlay>,
    /// Sums over both batches; written under the overlay lock, read without it.
    ops: AtomicUsize,
    bytes: AtomicUsize,
    /// Set by the committer once a commit failed; never cleared.
    failed: AtomicBool,
    overlay_bytes_max: usize,
}

#[derive(Default)]
struct Overlay {
    open: Layer,
    committing: Option<Arc<Layer>>,
    applied: Applied,
}

impl Backend {
    /// Opens or creates the file and its buckets.
    ///
    /// # Errors
    /// The file cannot be opened or is damaged.
    pub fn open(fs: Arc<dyn Fs>, path: &Path, options: Options) -> Result<Backend, Error> {
        let at = |source| Error::Open {
            path: path.to_path_buf(),
            source,
        };
        let read_only = options.bolt.read_only;
        let db = bolt::Db::open(fs, path, options.bolt).map_err(at)?;
        if !read_only {
            create_buckets(&db).map_err(at)?;
        }
        let shared = Arc::new(Shared {
            db,
            overlay: RwLock::default(),
            ops: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            failed: AtomicBool::new(false),
            overlay_bytes_max: options.overlay_bytes_max,
        });
        let reader = Reader::new(shared.clone());
        let applied = Applied {
            index: LogIndex(meta_u64(
                &reader,
                meta::CONSISTENT_INDEX,
                "consistent_index",
            )?),
            term: Term(meta_u64(&reader, meta::TERM, "term")?),
        };
        shared.overlay.write().applied = applied;
        Ok(Backend {
            writer: Writer::new(shared.clone()),
            committer: Committer::new(shared.clone(), applied),
            maintenance: MaintenanceWriter::new(shared),
            reader,
        })
    }
}

fn create_buckets(db: &bolt::Db) -> Result<(), bolt::Error> {
    let mut missing = false;
    let read = db.begin_read();
    let present = read.buckets()?;
    for bucket in Bucket::ALL {
        missing |= !present.iter().any(|name| name.as_ref() == bucket.name());
    }
    drop(read);
    if missing {
        let mut tx = db.begin_write()?;
        for bucket in Bucket::ALL {
            tx.create_bucket(bucket.name())?;
        }
        tx.commit()?;
    }
    Ok(())
}

fn meta_u64(reader: &Reader, key: &[u8], name: &'static str) -> Result<u64, Error> {
    match reader.get(Bucket::Meta, key)? {
        None => Ok(0),
        Some(value) => {
            let bytes: [u8; 8] = value[..].try_into().map_err(|_| Error::Damaged {
                key: name,
                len: value.len(),
            })?;
            Ok(u64::from_be_bytes(bytes))
        }
    }
}

impl Shared {
    fn pending(&self) -> Pending {
        Pending {
            ops: self.ops.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
        }
    }

    fn size_in_use(&self) -> u64 {
        self.db.size_in_use() + self.bytes.load(Ordering::Relaxed) as u64
    }
}

/// The JSON that etcd keeps under `meta/confState`; empty lists are left out.
fn conf_state_json(conf: &ConfState) -> String {
    let mut json = String::from("{");
    let lists = [
        ("voters", &conf.voters),
        ("learners", &conf.learners),
        ("voters_outgoing", &conf.voters_outgoing),
        ("learners_next", &conf.learners_next),
    ];
    for (name, ids) in lists {
        if !ids.is_empty() {
            let ids: Vec<String> = ids.iter().map(u64::to_string).collect();
            json.push_str(&format!("\"{name}\":[{}],", ids.join(",")));
        }
    }
    json.push_str(&format!("\"auto_leave\":{}}}", conf.auto_leave));
    json
}
