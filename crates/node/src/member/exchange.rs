//! Databases between members: one that goes out, one that came in.
//!
//! The order of a received one, which lets a crash come at any point:
//!
//! ```text
//!   receiver        the database, durable without a name
//!   receiver        verify    it is what the message says, and
//!                             gets its name                      `DataDir::received_database`
//!   WAL thread      persist   the .snap file, the WAL's record,
//!                             its commit index, then entries
//!   commit thread   install   the database renamed to `db`, its
//!                             state built, readers gone over
//! ```
//! The record counts from the moment in which the commit index behind it is durable. Before, a boot
//! finds the old log and database; from then on it finds the record, and puts the database in
//! place itself when that did not happen.

use std::path::Path;
use std::sync::Arc;

use api::ids::MemberId;
use state::{Machine, Members, Sweep, View};
use storage::backend::{self, Backend, Committer, meta};
use storage::bolt;
use storage::datadir::DataDir;
use storage::fs::Fs;
use storage::log::{LogIndex, Snapshot, SnapshotMeta};
use storage::snap;
use storage::wal::Wal;

use super::Error;
use crate::machine::Persist;
use crate::raft::Message;

/// Does what a [`Persist`] asks, in the order that it needs, and releases segments that a received
/// snapshot made useless.
///
/// # Errors
/// The member must stop.
pub fn persist(fs: &dyn Fs, dir: &DataDir, wal: &mut Wal, batch: &Persist) -> Result<(), Error> {
    if let Some(snapshot) = &batch.snapshot {
        snap::save(fs, &dir.snap(), snapshot)?;
        wal.save_received(&snapshot.meta, batch.hard_state.unwrap_or_default())?;
    }
    wal.append(batch.hard_state, &batch.entries)?;
    if batch.must_sync {
        wal.sync()?;
    }
    if let Some(snapshot) = &batch.snapshot {
        wal.release_to(snapshot.meta.index);
    }
    Ok(())
}

/// Whether the file at `path`, which was received for a snapshot, is a sound database that stands
/// where the message says.
///
/// # Errors
/// It is not, and must not be used; the sender may try again.
pub fn verify(fs: &Arc<dyn Fs>, path: &Path, meta: &SnapshotMeta) -> Result<(), Error> {
    let found = applied_of(fs, path)?;
    if found != meta.index {
        let path = path.to_owned();
        return Err(Error::Received {
            path,
            found,
            wanted: meta.index,
        });
    }
    Ok(())
}

fn applied_of(fs: &Arc<dyn Fs>, path: &Path) -> Result<LogIndex, Error> {
    let options = bolt::Options {
        lock: false,
        read_only: true,
        ..bolt::Options::default()
    };
    let opened = bolt::Db::open(Arc::clone(fs), path, options).map_err(|source| {
        let path = path.to_owned();
        backend::Error::Open { path, source }
    })?;
    let bucket = backend::Bucket::Meta;
    let value = opened
        .begin_read()
        .get(bucket.name(), meta::CONSISTENT_INDEX)
        .map_err(|source| backend::Error::Read { bucket, source })?;
    let index = value.and_then(|value| value.first_chunk::<8>().copied());
    Ok(LogIndex(index.map_or(0, u64::from_be_bytes)))
}

/// A database on its way to a peer: pinned until dropped.
pub struct Outgoing {
    /// Complete: its place in the log is exactly the database's.
    pub message: Message,
    /// The file's bytes, which follow [`crate::peer::envelope`].
    pub image: bolt::Image,
}

impl Outgoing {
    /// Commits, pins the database, and puts its place, configuration and membership into the
    /// message of [`crate::machine::Output::SendSnapshot`].
    ///
    /// # Errors
    /// The member must stop.
    pub fn pin(committer: &mut Committer, mut message: Message) -> Result<Outgoing, Error> {
        let pinned = committer.pin()?;
        let members = Members::pinned(&pinned).map_err(state::OpenError::Broken)?;
        let index = pinned.applied.index;
        let meta = SnapshotMeta {
            index,
            term: pinned.applied.term,
            conf: members.conf_state(),
        };
        let data = state::v2_store_json(&members, index).into();
        message.snapshot = Some(Snapshot { data, meta });
        Ok(Outgoing {
            message,
            image: pinned.tx.image(),
        })
    }
}

/// Puts received databases in place.
#[derive(Clone)]
pub struct Installer {
    pub(super) fs: Arc<dyn Fs>,
    pub(super) dir: DataDir,
    pub(super) options: backend::Options,
    pub(super) view: View,
    pub(super) member: MemberId,
}

/// What takes the place of the parts of the state that was.
pub struct Installed {
    pub machine: Machine,
    pub sweep: Sweep,
    pub committer: Committer,
}

impl Installer {
    /// Puts the database of a durable snapshot in place and goes over to its state. Called by
    /// whoever owns the committer, whose old one is then to be dropped, while nothing is applied.
    /// `None` when the state has all of the snapshot already.
    ///
    /// # Errors
    /// The member must stop.
    pub fn install(&self, meta: &SnapshotMeta) -> Result<Option<Installed>, Error> {
        if self.view.applied().index >= meta.index {
            return Ok(None);
        }
        adopt(&*self.fs, &self.dir, meta.index)?;
        let path = self.dir.database();
        let Backend {
            writer,
            reader,
            committer,
            maintenance,
        } = Backend::open(Arc::clone(&self.fs), &path, self.options.clone())?;
        let found = reader.applied().index;
        if found != meta.index {
            let wanted = meta.index;
            return Err(Error::Received {
                path,
                found,
                wanted,
            });
        }
        let prepared = self.view.prepare(writer, reader, maintenance)?;
        let (machine, sweep) = self.view.replace(prepared, self.member);
        Ok(Some(Installed {
            machine,
            sweep,
            committer,
        }))
    }
}

/// Puts a received database in place of the bolt file.
pub(super) fn adopt(fs: &dyn Fs, dir: &DataDir, snapshot: LogIndex) -> Result<(), Error> {
    let (from, snap) = (dir.received_database(snapshot), dir.snap());
    let renamed = fs
        .rename(&from, &dir.database())
        .and_then(|()| fs.sync_dir(&snap));
    renamed.map_err(|source| Error::Adopt { path: from, source })
}
