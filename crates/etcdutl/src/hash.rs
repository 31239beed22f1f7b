//! HashKV of a database at rest.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use state::{KvHash, ReadError};
use storage::backend::{self, Backend};
use storage::fs::RealFs;

use crate::database;
use crate::exit::chain;

/// The hash of the database at `path`, which stays as it is: Go's tool writes to the file, after
/// which the digest of a snapshot does not fit any more.
///
/// # Errors
/// The database cannot be read or is damaged, or the revision is not one of its history.
pub(crate) fn read(path: &Path, revision: i64, lock_timeout: Duration) -> Result<KvHash, String> {
    database::stat(path)?;
    let options = backend::Options {
        bolt: database::read_only(),
        ..backend::Options::default()
    };
    let is_locked = |error: &backend::Error| match error {
        backend::Error::Open { source, .. } => database::is_locked(source),
        _ => false,
    };
    let open = || Backend::open(Arc::new(RealFs), path, options.clone());
    let backend = database::wait_for_lock(lock_timeout, is_locked, open);
    let reader = backend.map_err(|error| text(&error))?.reader;
    state::hash_kv(reader, revision).map_err(|error| match error {
        // The words of the store itself, which a server passes on with its own in front.
        ReadError::Refused(error) => error
            .message()
            .trim_start_matches("etcdserver: ")
            .to_owned(),
        ReadError::Broken(error) => chain(&error),
    })
}

fn text(error: &backend::Error) -> String {
    match error {
        backend::Error::Open { source, .. } => database::text(source),
        error => chain(error),
    }
}
