//! A member's data directory from a snapshot: the database with other members, and a log that
//! begins as that of a new cluster does.
//!
//! ```text
//!   db     the snapshot, its digest checked and cut off; members of the new cluster; applied
//!          index N and term 1, N being the number of members
//!   wal    the initial members as entries 1 to N, committed; the record of a snapshot at N
//!   snap   the members as releases up to 3.6 read them
//! ```
//! Whatever fails, the directory is gone again afterwards, so that the next attempt may use it.

mod copy;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use api::cluster::{InitialCluster, same_texts};
use api::url;
use state::record::Revision;
use state::{Bootstrap, InitialMember, SCHEDULED_COMPACT, v2_store_json};
use storage::backend::{Bucket, meta};
use storage::bolt::{self, Db, WriteTx};
use storage::datadir::DataDir;
use storage::fs::{Fs, RealFs};
use storage::log::{HardState, Snapshot, SnapshotMeta};
use storage::snap;
use storage::wal::{self, Metadata, Wal};

use crate::database;
use crate::exit::chain;
use crate::log::{self, Field};

/// What shall be restored, and as whom.
pub(crate) struct Request {
    pub(crate) snapshot: PathBuf,
    pub(crate) dir: DataDir,
    pub(crate) name: String,
    /// `--initial-advertise-peer-urls`.
    pub(crate) peer_urls: String,
    pub(crate) initial_cluster: String,
    pub(crate) token: String,
    pub(crate) skip_hash_check: bool,
    /// Only for the log.
    pub(crate) memory_map_bytes: u64,
    /// How much the newest revision is raised; what lies below is then compacted.
    pub(crate) bump: u64,
}

/// Makes the directory.
///
/// # Errors
/// Why it cannot be made; there is nothing left of it then.
pub(crate) fn restore(request: &Request) -> Result<(), String> {
    let bootstrap = bootstrap(request)?;
    let unfinished = Unfinished::begin(&request.dir)?;
    log_progress("restoring snapshot", request);
    copy::copy(&request.snapshot, &request.dir, request.skip_hash_check)?;
    change_database(request, &bootstrap)?;
    write_log(&request.dir, &bootstrap)?;
    sync(&request.dir, &unfinished.missing)?;
    unfinished.keep();
    log_progress("restored snapshot", request);
    Ok(())
}

fn log_progress(message: &str, request: &Request) {
    let shown = |path: &Path| path.display().to_string();
    let dir = &request.dir;
    let (path, wal) = (shown(&request.snapshot), shown(dir.wal()));
    let (root, snap) = (shown(dir.root()), shown(&dir.snap()));
    log::info(
        message,
        &[
            ("path", Field::Text(&path)),
            ("wal-dir", Field::Text(&wal)),
            ("data-dir", Field::Text(&root)),
            ("snap-dir", Field::Text(&snap)),
            (
                "initial-memory-map-size",
                Field::Number(request.memory_map_bytes),
            ),
        ],
    );
}

/// The new cluster, as a server would begin it.
fn bootstrap(request: &Request) -> Result<Bootstrap, String> {
    let advertised = url::parse_sequence(request.peer_urls.split(','))?;
    let cluster = InitialCluster::parse(&request.initial_cluster)?;
    cluster.check_founder(&request.name, &advertised, &same_texts)?;
    let members: Vec<InitialMember> = cluster
        .members
        .iter()
        .map(|(name, urls)| InitialMember {
            name: name.clone(),
            peer_urls: urls.iter().map(ToString::to_string).collect(),
        })
        .collect();
    Bootstrap::new(&request.name, &members, &request.token).map_err(|error| error.to_string())
}

/// Puts the new cluster in the place of the old one, all at once.
fn change_database(request: &Request, bootstrap: &Bootstrap) -> Result<(), String> {
    let path = request.dir.database();
    // Nobody else can have it: it was made a moment ago.
    let db = database::open(&path, std::time::Duration::from_secs(1))?;
    let mut tx = db.begin_write().map_err(|error| database::text(&error))?;
    replace_members(&mut tx, bootstrap).map_err(|error| database::text(&error))?;
    if request.bump > 0 {
        raise_revision(&db, &mut tx, request.bump)?;
    }
    tx.commit().map_err(|error| database::text(&error))?;
    Ok(())
}

fn replace_members(tx: &mut WriteTx, bootstrap: &Bootstrap) -> Result<(), bolt::Error> {
    for bucket in [Bucket::Members, Bucket::MembersRemoved] {
        tx.delete_bucket(bucket.name())?;
        tx.create_bucket(bucket.name())?;
    }
    for member in bootstrap.members.iter() {
        let key = format!("{:x}", member.id);
        let record = member.to_json();
        tx.put(Bucket::Members.name(), key.as_bytes(), record.as_bytes())?;
    }
    tx.create_bucket(Bucket::Meta.name())?;
    let HardState { term, commit, .. } = bootstrap.hard_state;
    for (key, value) in [(meta::CONSISTENT_INDEX, commit.0), (meta::TERM, term.0)] {
        tx.put(Bucket::Meta.name(), key, &value.to_be_bytes())?;
    }
    Ok(())
}

/// Adds a change without content `bump` above the newest one, and schedules a compaction up to
/// it: whoever watches from what it saw of the old cluster is told that this was compacted.
fn raise_revision(db: &Db, tx: &mut WriteTx, bump: u64) -> Result<(), String> {
    let failed = |error| database::text(&error);
    tx.create_bucket(Bucket::Key.name()).map_err(failed)?;
    let read = db.begin_read();
    let last = match read.has_bucket(Bucket::Key.name()).map_err(failed)? {
        true => read.cursor(Bucket::Key.name()).and_then(|mut c| c.last()),
        false => Ok(None),
    };
    let latest = match last.map_err(failed)? {
        None => 0,
        Some((key, _)) => {
            let parsed = Revision::parse(&key).filter(|(at, _)| at.main >= 0);
            let (at, _) = parsed
                .ok_or_else(|| format!("cannot parse revision key: {}", cli::text::quote(&key)))?;
            at.main
        }
    };
    let raised = i64::try_from(bump)
        .ok()
        .and_then(|bump| latest.checked_add(bump))
        .ok_or_else(|| format!("revision {latest} cannot be raised by {bump}"))?;
    let number = |revision: i64| Field::Number(revision.unsigned_abs());
    log::info(
        "bumping latest revision",
        &[
            ("latest-revision", number(latest)),
            ("bump-amount", Field::Number(bump)),
            ("new-latest-revision", number(raised)),
        ],
    );
    let key = Revision {
        main: raised,
        sub: 0,
    }
    .to_key();
    tx.put(Bucket::Key.name(), &key, &[]).map_err(failed)?;
    log::info(
        "marking revision compacted",
        &[("revision", number(raised))],
    );
    tx.put(Bucket::Meta.name(), SCHEDULED_COMPACT, &key)
        .map_err(failed)
}

/// Writes the log, and the `.snap` file before the record that names it.
fn write_log(dir: &DataDir, bootstrap: &Bootstrap) -> Result<(), String> {
    let conf = bootstrap.members.conf_state();
    let HardState { term, commit, .. } = bootstrap.hard_state;
    let state = HardState {
        // Somebody must have been voted for in term 1: all restored members say the same.
        vote: conf.voters.first().copied().unwrap_or_default(),
        ..bootstrap.hard_state
    };
    let meta = SnapshotMeta {
        index: commit,
        term,
        conf,
    };
    let metadata = Metadata {
        node_id: bootstrap.member.0,
        cluster_id: bootstrap.cluster.0,
    };
    let write = || {
        let mut log = Wal::create(
            Arc::new(RealFs),
            dir.wal(),
            &metadata,
            wal::Options::inline(),
        )?;
        log.append(Some(state), &bootstrap.entries)?;
        // The first sync lets the commit index be written.
        log.sync()?;
        Ok(log)
    };
    let mut log = write().map_err(|error: wal::Error| chain(&error))?;
    let snapshot = Snapshot {
        data: v2_store_json(&bootstrap.members, commit).into(),
        meta: meta.clone(),
    };
    snap::save(&RealFs, &dir.snap(), &snapshot).map_err(|error| chain(&error))?;
    log.save_snapshot(&meta)
        .and_then(|()| log.close())
        .map_err(|error| chain(&error))
}

/// Makes the names of the directories durable; `missing` are those above that were made as well.
fn sync(dir: &DataDir, missing: &[PathBuf]) -> Result<(), String> {
    let mut dirs = vec![dir.snap(), dir.member(), dir.root().to_owned()];
    dirs.extend(missing.iter().cloned());
    let topmost = missing.last().map_or(dir.root(), PathBuf::as_path);
    let above = topmost
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    dirs.push(above.unwrap_or(Path::new(".")).to_owned());
    for dir in dirs {
        let failed = |error| format!("sync {}: {}", dir.display(), cli::text::io_error(&error));
        RealFs.sync_dir(&dir).map_err(failed)?;
    }
    Ok(())
}

/// What is removed again unless it is finished: nothing of it was there before.
struct Unfinished {
    paths: Vec<PathBuf>,
    /// Directories above that were not there either, lowest first; they stay.
    missing: Vec<PathBuf>,
}

impl Unfinished {
    /// # Errors
    /// Something is in the way.
    fn begin(dir: &DataDir) -> Result<Unfinished, String> {
        let root = dir.root();
        let is_there = root.symlink_metadata().is_ok();
        let is_empty = || std::fs::read_dir(root).is_ok_and(|mut files| files.next().is_none());
        if is_there && !is_empty() {
            let root = cli::text::quote(root.as_os_str().as_encoded_bytes());
            return Err(format!("data-dir {root} not empty or could not be read"));
        }
        if dir.wal().symlink_metadata().is_ok() {
            let wal = cli::text::quote(dir.wal().as_os_str().as_encoded_bytes());
            return Err(format!("wal-dir {wal} exists"));
        }
        let made = if is_there {
            dir.member()
        } else {
            root.to_owned()
        };
        let mut paths = vec![made, dir.wal().to_owned()];
        let mut growing = dir.wal().as_os_str().to_owned();
        growing.push(".tmp");
        let growing = PathBuf::from(growing);
        if growing.symlink_metadata().is_err() {
            paths.push(growing);
        }
        let above = root
            .ancestors()
            .skip(1)
            .filter(|dir| !dir.as_os_str().is_empty());
        let missing = above
            .take_while(|dir| dir.symlink_metadata().is_err())
            .map(Path::to_owned)
            .collect();
        Ok(Unfinished { paths, missing })
    }

    fn keep(mut self) {
        self.paths.clear();
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        for path in self
            .paths
            .iter()
            .filter(|path| path.symlink_metadata().is_ok())
        {
            if let Err(error) = RealFs.remove_dir_all(path) {
                let (path, why) = (path.display().to_string(), cli::text::io_error(&error));
                let fields = [("path", Field::Text(&path)), ("error", Field::Text(&why))];
                log::warn("cannot remove what was restored so far", &fields);
            }
        }
    }
}
