//! Taking a snapshot, in the order that lets a crash come at any point.
//!
//! ```text
//!   core thread     prepare   membership of exactly this index
//!   commit thread   commit    the database holds at least this index, durably
//!   any thread      save      the .snap file
//!   wal thread      record    the WAL's record, after which a boot starts from here;
//!                             segments before it are released
//!   any thread      purge     old files, as far as nobody holds them
//! ```
//! Each step needs the one before it to be durable: a record without its file or database would
//! make a boot fail, while a file or a database that is ahead of the record is only passed over.

use bytes::Bytes;
use state::View;
use storage::backend::Committer;
use storage::datadir::DataDir;
use storage::fs::Fs;
use storage::log::{self, SnapshotMeta};
use storage::snap;
use storage::wal::{self, Wal};

use super::Error;

/// A snapshot on its way to the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    pub meta: SnapshotMeta,
    /// The membership as releases up to 3.6 read it.
    data: Bytes,
}

impl Snapshot {
    /// Takes what belongs to exactly `meta.index`: called by whoever applies, before it goes on.
    #[must_use]
    pub fn prepare(meta: SnapshotMeta, view: &View) -> Snapshot {
        assert_eq!(
            view.applied().index,
            meta.index,
            "the state is not at the snapshot's index"
        );
        let data = state::v2_store_json(&view.members(), meta.index).into();
        Snapshot { meta, data }
    }

    /// Makes the database durable up to the snapshot's index, or beyond.
    ///
    /// # Errors
    /// The member must stop.
    pub fn commit(&self, committer: &mut Committer) -> Result<(), Error> {
        if cfg!(feature = "plant-snapshot-before-database") {
            return Ok(());
        }
        if committer.durable().index < self.meta.index {
            committer.commit()?;
        }
        assert!(
            committer.durable().index >= self.meta.index,
            "a commit takes all that is applied"
        );
        Ok(())
    }

    /// Writes the `.snap` file durably.
    ///
    /// # Errors
    /// The member must stop.
    pub fn save(&self, fs: &dyn Fs, dir: &DataDir) -> Result<snap::Saved, Error> {
        let snapshot = log::Snapshot {
            data: self.data.clone(),
            meta: self.meta.clone(),
        };
        Ok(snap::save(fs, &dir.snap(), &snapshot)?)
    }

    /// Writes the WAL's record durably and releases the segments before it.
    ///
    /// # Errors
    /// The member must stop.
    pub fn record(&self, wal: &mut Wal) -> Result<(), Error> {
        wal.save_snapshot(&self.meta)?;
        wal.release_to(self.meta.index);
        Ok(())
    }
}

/// Removes all but the newest `snaps` snapshot files and `wals` segments; 0 keeps all. Segments
/// that the log still holds stay. Returns the names of the removed files.
///
/// # Errors
/// When a directory cannot be listed or a file not be removed.
pub fn purge(fs: &dyn Fs, dir: &DataDir, snaps: usize, wals: usize) -> Result<Vec<String>, Error> {
    let mut removed = Vec::new();
    if wals > 0 {
        removed.append(&mut wal::purge(fs, dir.wal(), wals)?);
    }
    if snaps > 0 {
        removed.append(&mut snap::purge(fs, &dir.snap(), snaps)?);
    }
    Ok(removed)
}
