//! Rebuilding the state from the database: one sequential pass.

use api::version::major_minor;
use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use api::ids::MemberId;
use parking_lot::{Mutex, RwLock};
use storage::backend::{Bucket, MaintenanceWriter, Reader, Writer, meta};

use super::{Config, Machine};
use crate::alarm::Alarms;
use crate::auth::Auth;
use crate::fatal::{Fatal, ReadError};
use crate::hash::{self, KvHash, parse_key};
use crate::index::{Change, Index, Latest};
use crate::kv::parse;
use crate::lease::Leases;
use crate::members::Members;
use crate::record::Revision;
use crate::schema;
use crate::shared::{Lasting, Shared, State};
use crate::sweep::{Job, Sweep};
use crate::view::View;
use crate::watch::Log;

/// Records per chunk of the pass.
const CHUNK: usize = 10_000;

/// Why the state could not be rebuilt.
#[derive(Debug)]
pub enum OpenError {
    /// The database cannot be read or is damaged.
    Broken(Fatal),
    /// The database was written by a release that this one cannot follow.
    Version { what: &'static str, version: String },
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OpenError::Broken(fatal) => write!(f, "the state cannot be rebuilt: {fatal}"),
            OpenError::Version { what, version } => {
                write!(f, "the {what} {version} of the database is not supported")
            }
        }
    }
}

impl std::error::Error for OpenError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            OpenError::Broken(fatal) => std::error::Error::source(fatal),
            OpenError::Version { .. } => None,
        }
    }
}

impl From<Fatal> for OpenError {
    fn from(error: Fatal) -> OpenError {
        OpenError::Broken(error)
    }
}

impl From<storage::backend::Error> for OpenError {
    fn from(error: storage::backend::Error) -> OpenError {
        OpenError::Broken(Fatal::Backend(error))
    }
}

/// The parts of an open state.
pub struct Opened {
    pub machine: Machine,
    pub view: View,
    pub sweep: Sweep,
}

impl Machine {
    /// Rebuilds the state behind the backend's handles.
    ///
    /// # Errors
    /// The database is damaged or too new.
    pub fn open(
        writer: Writer,
        reader: Reader,
        maintenance: MaintenanceWriter,
        config: Config,
    ) -> Result<Opened, OpenError> {
        let built = Built::new(&reader, &config)?;
        let state = &built.state;
        let log = Log::new(state.revision, state.compacted, Some(reader.clone()));
        let stamp = state.auth.stamp();
        let lasting = Lasting::new(log, &config);
        lasting.auth_stamp.store(stamp, Ordering::Relaxed);
        let shared = built.share(reader, lasting, config);
        Ok(Opened {
            view: View::new(shared.clone()),
            sweep: Sweep::new(shared.clone(), maintenance),
            machine: Machine::new(shared, writer, MemberId(0)),
        })
    }
}

/// The state that a database holds, in memory.
pub(crate) struct Built {
    pub(crate) state: State,
    jobs: VecDeque<Job>,
}

impl Built {
    pub(crate) fn new(reader: &Reader, config: &Config) -> Result<Built, OpenError> {
        let mut state = empty(config);
        restore_records(reader, &mut state, config)?;
        restore_versions(reader, &mut state)?;
        restore_keys(reader, &mut state)?;
        let jobs = restore_compaction(reader, &mut state)?;
        attach_leases(&mut state);
        Ok(Built { state, jobs })
    }

    /// Begins to be read.
    pub(crate) fn share(self, reader: Reader, lasting: Lasting, config: Config) -> Arc<Shared> {
        let Lasting {
            log,
            counts,
            quota,
            auth_stamp,
        } = lasting;
        let Built { state, jobs } = self;
        let revision = AtomicI64::new(state.revision);
        Arc::new(Shared {
            state: RwLock::new(state),
            reader,
            revision,
            pins: Mutex::default(),
            hashes: Mutex::new(Vec::new()),
            jobs: Mutex::new(jobs),
            log,
            counts,
            quota,
            auth_stamp,
            config,
        })
    }
}

/// HashKV of a database at rest at a revision (0 for the newest). Only keys and compactions are
/// read, so that neither leases nor users nor a newer release's records stand in the way.
///
/// # Errors
/// As [`View::hash_kv`]; also when the keys are damaged.
pub fn hash_kv(reader: Reader, revision: i64) -> Result<KvHash, ReadError> {
    let config = Config {
        value_budget: 0,
        ..Config::default()
    };
    let mut state = empty(&config);
    restore_keys(&reader, &mut state)?;
    let jobs = restore_compaction(&reader, &mut state)?;
    let log = Log::new(state.revision, state.compacted, None);
    let lasting = Lasting::new(log, &config);
    let shared = Built { state, jobs }.share(reader, lasting, config);
    hash::hash_kv(&shared, revision).map(|(hash, _)| hash)
}

fn empty(config: &Config) -> State {
    State {
        index: Index::new(config.hash_seed),
        revision: 1,
        compacted: -1,
        finished: -1,
        value_budget: config.value_budget,
        leases: Leases::default(),
        alarms: Alarms::default(),
        members: Members::default(),
        auth: Auth::default(),
    }
}

/// Calls `each` for every record of a bucket, in order.
fn scan(
    reader: &Reader,
    bucket: Bucket,
    mut each: impl FnMut(&[u8], &[u8]) -> Result<(), Fatal>,
) -> Result<(), Fatal> {
    let mut from = Some(Vec::new());
    while let Some(begin) = from {
        let mut outcome = Ok(());
        from = reader.scan(bucket, &begin, None, CHUNK, |key, value| {
            if outcome.is_ok() {
                outcome = each(key, value);
            }
        })?;
        outcome?;
    }
    Ok(())
}

fn restore_records(reader: &Reader, state: &mut State, config: &Config) -> Result<(), Fatal> {
    scan(reader, Bucket::Lease, |_, value| {
        state.leases.restore(value, config.lease_ttl_min)
    })?;
    scan(reader, Bucket::Alarm, |key, _| state.alarms.restore(key))?;
    scan(reader, Bucket::Members, |key, value| {
        state.members.restore(key, value)
    })?;
    scan(reader, Bucket::MembersRemoved, |key, _| {
        state.members.restore_removed(key)
    })?;
    state.auth = Auth::restore(reader)?;
    scan(reader, Bucket::AuthUsers, |_, value| {
        state.auth.restore_user(value)
    })?;
    scan(reader, Bucket::AuthRoles, |_, value| {
        state.auth.restore_role(value)
    })?;
    Ok(())
}

fn text(reader: &Reader, bucket: Bucket, key: &[u8]) -> Result<Option<String>, Fatal> {
    let Some(value) = reader.get(bucket, key)? else {
        return Ok(None);
    };
    let text = std::str::from_utf8(&value).map_err(|_| Fatal::Damaged {
        bucket: "cluster or meta",
        what: format!("{} is no text", String::from_utf8_lossy(key)),
    })?;
    Ok(Some(text.to_string()))
}

fn restore_versions(reader: &Reader, state: &mut State) -> Result<(), OpenError> {
    let ours = major_minor(api::version::SERVER);
    let cluster = text(reader, Bucket::Cluster, schema::CLUSTER_VERSION)?;
    let storage = text(reader, Bucket::Meta, meta::STORAGE_VERSION)?;
    let found = [("cluster version", &cluster), ("storage version", &storage)];
    for (what, version) in found {
        if let Some(version) = version
            && major_minor(version).is_none_or(|minor| Some(minor) > ours)
        {
            return Err(OpenError::Version {
                what,
                version: version.clone(),
            });
        }
    }
    state.members.cluster_version = cluster;
    if let Some(json) = reader.get(Bucket::Cluster, schema::DOWNGRADE)? {
        let info = serde_json::from_slice(&json);
        state.members.downgrade = info.map_err(|e| Fatal::Damaged {
            bucket: "cluster",
            what: format!("downgrade: {e}"),
        })?;
    }
    Ok(())
}

fn restore_keys(reader: &Reader, state: &mut State) -> Result<(), Fatal> {
    let State {
        index,
        revision,
        value_budget,
        ..
    } = state;
    scan(reader, Bucket::Key, |key, record| {
        let (at, tombstone) = parse_key(key)?;
        if at.main < 1 {
            return Ok(());
        }
        if at.main < *revision {
            let what = format!("revision {} after {revision}", at.main);
            return Err(Fatal::Damaged {
                bucket: "key",
                what,
            });
        }
        *revision = at.main;
        let kv = parse(record)?;
        let change = if tombstone {
            Change::tombstone(at)
        } else {
            let latest = Latest::Cached(Arc::from(record));
            let (create, version, lease) = (kv.create, kv.version, kv.lease);
            Change {
                revision: at,
                latest,
                create,
                version,
                lease,
            }
        };
        match index.find(kv.key) {
            Some(id) => index.update(id, change),
            None => index.insert(kv.key, change),
        }
        index.evict(*value_budget, 16);
        Ok(())
    })
}

fn compact_revision(reader: &Reader, key: &[u8]) -> Result<i64, Fatal> {
    match reader.get(Bucket::Meta, key)? {
        None => Ok(-1),
        Some(value) => match Revision::parse(&value) {
            Some((revision, false)) => Ok(revision.main),
            _ => Err(Fatal::Damaged {
                bucket: "meta",
                what: format!("{} is no revision", String::from_utf8_lossy(key)),
            }),
        },
    }
}

/// The current revision never lies below a compaction, even when it removed everything.
fn restore_compaction(reader: &Reader, state: &mut State) -> Result<VecDeque<Job>, Fatal> {
    let finished = compact_revision(reader, meta::FINISHED_COMPACT)?;
    let scheduled = compact_revision(reader, schema::SCHEDULED_COMPACT)?;
    state.revision = state.revision.max(finished).max(scheduled);
    if state.revision == i64::MAX {
        let what = format!("revision {} has none after it", state.revision);
        return Err(Fatal::Damaged {
            bucket: "key",
            what,
        });
    }
    state.finished = finished;
    state.compacted = finished.max(scheduled);
    let mut jobs = VecDeque::new();
    if scheduled > finished {
        jobs.push_back(Job {
            revision: scheduled,
            before: finished,
            is_hashed: false,
        });
    }
    Ok(jobs)
}

fn attach_leases(state: &mut State) {
    let State { index, leases, .. } = state;
    for slot in index.iter() {
        if slot.is_live() {
            leases.attach(slot.lease, &slot.key);
        }
    }
}
