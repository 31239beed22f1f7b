//! Whole stories with real data, told on the command line by `cargo xtask acceptance`.
//!
//! `dpkg` loads the package database of the machine while the member is killed again and
//! again, changes it, and hands its directory to Go etcd and back. `adopt` opens a directory
//! that Go etcd wrote. `writers` loads the database by three kinds of client at once, under
//! leases and three kinds of watcher. `seed` is the first deployment, on three machines made of
//! namespaces; `membership`, `restarts` and `certificates` are what clusters live through under load.
//! `space` compacts and defragments a large database under load; `logins` puts beside logins.
//! `snapshots` saves snapshots of a cluster under writes and restores them; `kubernetes` is the load of
//! API servers, by Go's client. Each prints what it found and ends with the first thing that is wrong.

mod adopt;
mod certificates;
mod change;
mod fleet;
mod kubernetes;
mod load;
mod logins;
mod membership;
mod restarts;
mod seed;
mod snapshots;
mod space;
mod traffic;
mod writers;

pub use adopt::run as adopt;
pub use certificates::run as certificates;
pub use fleet::Plan as FleetPlan;
pub use kubernetes::{Plan as KubernetesPlan, run as kubernetes};
pub use logins::run as logins;
pub use membership::run as membership;
pub use restarts::run as restarts;
pub use seed::{Plan as SeedPlan, run as seed};
pub use snapshots::{Plan as SnapshotsPlan, Programs, run as snapshots};
pub use space::{Plan as SpacePlan, run as space};
pub use writers::{Plan as WritersPlan, run as writers};

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::kv::{Keys, Kv, said};
use crate::random::Random;
use crate::{Error, Member, Options, dpkg};

/// What `dpkg` needs.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The server under test.
    pub binary: PathBuf,
    /// Go etcd 3.7.
    pub reference: Option<PathBuf>,
    /// Debian's etcdctl 3.4, which puts the first keys.
    pub old_ctl: Option<PathBuf>,
    /// The package database.
    pub database: PathBuf,
    /// How often the member is killed while it loads.
    pub kills: usize,
    /// Calls outstanding.
    pub clients: usize,
    /// Chooses the moments of the kills.
    pub seed: u64,
}

/// The fewest keys that make the story worth telling.
const FEWEST: usize = 100_000;

/// Loads, kills, changes, compacts, and hands over.
///
/// # Errors
/// The first thing that is wrong.
pub async fn dpkg(plan: &Plan) -> Result<(), Error> {
    let records = dpkg::read(&plan.database)?;
    let stanzas = records
        .iter()
        .filter(|one| one.key.starts_with(b"/dpkg/"))
        .count();
    println!(
        "{stanzas} stanzas and {} lines of file lists",
        records.len() - stanzas
    );
    if records.len() < FEWEST {
        return Err(Error(format!(
            "{} keys are too few, want {FEWEST}",
            records.len()
        )));
    }
    let options = Options {
        binary: Some(plan.binary.clone()),
        ..Options::default()
    };
    let mut member = Member::start(options)?;
    let mut random = Random::new(plan.seed);
    let loaded = load::run(plan, &records, &mut member, &mut random).await?;
    let state = change::run(plan, &mut member, loaded).await?;
    match &plan.reference {
        Some(reference) => hand_over(plan, reference, &mut member, &state).await,
        None => Ok(()),
    }
}

/// What two members must agree on.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct State {
    revision: i64,
    keys: Keys,
    /// (revision, hash, compact revision), for now and for the compacted revision.
    hashes: Vec<(i64, u32, i64)>,
}

impl State {
    /// Reads it, the hashes at the given revisions.
    async fn read(kv: &Kv, hashes_at: &[i64]) -> Result<Self, Error> {
        let (revision, keys) = kv.all(0).await?;
        let mut hashes = Vec::new();
        for at in hashes_at {
            let hash = kv.hash_kv(*at).await.map_err(said)?;
            hashes.push((hash.hash_revision, hash.hash, hash.compact_revision));
        }
        Ok(Self {
            revision,
            keys,
            hashes,
        })
    }

    /// # Errors
    /// The first difference.
    fn expect(&self, other: &Self, what: &str) -> Result<(), Error> {
        if self.revision != other.revision {
            return Err(Error(format!(
                "{what}: revision {}, not {}",
                other.revision, self.revision
            )));
        }
        expect_keys(&self.keys, &other.keys, what)?;
        if self.hashes != other.hashes {
            return Err(Error(format!(
                "{what}: {:?}, not {:?}",
                other.hashes, self.hashes
            )));
        }
        Ok(())
    }
}

fn expect_keys(wanted: &Keys, came: &Keys, what: &str) -> Result<(), Error> {
    for (key, kv) in wanted {
        if came.get(key) != Some(kv) {
            return Err(Error(format!(
                "{what}: {key:?} is {:?}, not {kv:?}",
                came.get(key)
            )));
        }
    }
    match came.keys().find(|key| !wanted.contains_key(*key)) {
        Some(key) => Err(Error(format!("{what}: {key:?} should not exist"))),
        None => Ok(()),
    }
}

/// The directory to Go etcd, which writes on, and back.
async fn hand_over(
    plan: &Plan,
    reference: &Path,
    member: &mut Member,
    state: &State,
) -> Result<(), Error> {
    member.kill()?;
    let copy = Directory::copy_of(&member.data_dir())?;
    let hashes_at: Vec<i64> = state
        .hashes
        .iter()
        .map(|(revision, ..)| *revision)
        .collect();
    let written = {
        let options = copy.options(reference);
        let go = Member::start(options)?;
        let kv = Kv::to(go.address());
        state.expect(
            &State::read(&kv, &hashes_at).await?,
            "Go etcd on our directory",
        )?;
        println!(
            "Go etcd opened a copy: revision {}, keys and hashes are equal",
            state.revision
        );
        write_on(&kv).await?;
        State::read(&kv, &[0]).await?
    };
    let ours = Member::start(copy.options(&plan.binary))?;
    let kv = Kv::to(ours.address());
    written.expect(&State::read(&kv, &[0]).await?, "ours after Go etcd")?;
    write_on(&kv).await?;
    println!(
        "Go etcd wrote on to {} and ours took it back",
        written.revision
    );
    Ok(())
}

/// A few hundred writes of every kind.
async fn write_on(kv: &Kv) -> Result<(), Error> {
    let before = kv.revision(false).await.map_err(said)?;
    for number in 0..300 {
        let key = format!("/more/{number}").into();
        kv.put(key, format!("value {number}").into())
            .await
            .map_err(said)?;
    }
    let deleted = kv
        .delete("/more/1".into(), "/more/2".into())
        .await
        .map_err(said)?;
    if deleted.deleted != 111 {
        return Err(Error(format!("deleted {} of 111 keys", deleted.deleted)));
    }
    kv.compact(before + 100).await.map_err(said)?;
    match kv.revision(false).await.map_err(said)? - before {
        301 => Ok(()),
        other => Err(Error(format!("{other} revisions for 301 writes"))),
    }
}

/// A copy of a data directory that is removed at the end.
struct Directory(PathBuf);

impl Directory {
    fn copy_of(data_dir: &Path) -> Result<Self, Error> {
        let parent = data_dir.parent().unwrap_or(Path::new("."));
        let copy = parent.with_file_name(format!("{}-copy", file_name(parent)));
        std::fs::create_dir_all(&copy)?;
        let status = Command::new("cp")
            .arg("-a")
            .arg(data_dir)
            .arg(&copy)
            .status()?;
        match status.success() {
            true => Ok(Self(copy)),
            false => Err(Error("cannot copy the data directory".into())),
        }
    }

    fn options(&self, binary: &Path) -> Options {
        let data_dir = Some(self.0.clone());
        Options {
            binary: Some(binary.into()),
            data_dir,
            ..Options::default()
        }
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        crate::member::remove(&self.0);
    }
}

fn file_name(path: &Path) -> String {
    path.file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}
