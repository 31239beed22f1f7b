//! One seed: a member's lives, one after the other, on what the last one left of the disk.

use std::path::{Path, PathBuf};

use node::boot::{InitialMember, InitialState};
use node::member::Config;
use storage::datadir::DataDir;
use storage::simfs::{Faults, Rng, SimFs};
use storage::{backend, bolt, wal};

use crate::ledger::Ledger;
use crate::life::{End, Life, STEPS, Setup};
use crate::workload::Shape;
use crate::{Broken, Trace, broken, damage};

/// What a seed amounted to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Runs of a whole cluster, and what happened in them.
    pub clusters: u64,
    pub reads: u64,
    pub messages: u64,
    pub events: u64,
    /// Watchers that were told of a compaction.
    pub cancelled: u64,
    pub installs: u64,
    pub conf_changes: u64,
    pub joins: u64,
    /// The highest term of any.
    pub terms: u64,
    pub lives: u64,
    /// Lives that ended inside an operation on the disk.
    pub halts: u64,
    pub acknowledgements: u64,
    /// Of leases, and keepers' leases that ended.
    pub renewals: u64,
    pub expired: u64,
    pub disk_operations: u64,
    /// Damages that stopped the member, and those that changed nothing.
    pub damages_refused: u64,
    pub damages_harmless: u64,
}

impl Stats {
    pub fn add(&mut self, other: &Stats) {
        self.clusters += other.clusters;
        self.reads += other.reads;
        self.messages += other.messages;
        self.events += other.events;
        self.cancelled += other.cancelled;
        self.installs += other.installs;
        self.conf_changes += other.conf_changes;
        self.joins += other.joins;
        self.terms = self.terms.max(other.terms);
        self.lives += other.lives;
        self.halts += other.halts;
        self.acknowledgements += other.acknowledgements;
        self.renewals += other.renewals;
        self.expired += other.expired;
        self.disk_operations += other.disk_operations;
        self.damages_refused += other.damages_refused;
        self.damages_harmless += other.damages_harmless;
    }

    fn count_damage(&mut self, outcome: damage::Outcome) {
        match outcome {
            damage::Outcome::Refused => self.damages_refused += 1,
            damage::Outcome::Harmless => self.damages_harmless += 1,
            damage::Outcome::NothingHit => {}
        }
    }
}

/// Runs a seed.
///
/// # Errors
/// The first promise that was broken.
pub fn run(seed: u64, trace: &mut Trace) -> Result<Stats, Broken> {
    let mut rng = Rng::new(seed);
    let mut setup = draw_setup(seed, &mut rng);
    trace.say(|| format!("seed {seed}: {setup:?}"));
    let mut ledger = Ledger::default();
    let mut stats = Stats::default();
    let mut disk = SimFs::new();
    // A commit began and did not end: the state before the newest may be overwritten in part, and
    // what would tell is the newest meta page. That one damaged then is two faults.
    let mut broke_off = false;
    for _ in 0..2 + rng.below(6) {
        stats.lives += 1;
        // The clock of each life is later, so that its request ids are new.
        setup.config.unix_ms += 1000;
        let plan = Plan::draw(&disk, &mut rng);
        trace.say(|| format!("--- life {} with {plan:?}", stats.lives));
        disk.set_faults(plan.faults);
        let end = live(&setup, &disk, &plan, &mut ledger, &mut rng, trace);
        stats.disk_operations += disk.operations();
        match end {
            Ok(()) => broke_off = false,
            Err(End::Broken(broken)) => return Err(broken),
            Err(End::Stopped(why)) => {
                broke_off |= why.contains(storage::backend::COMMITTING);
                trace.say(|| format!("stopped: {why}"));
                stats.halts += 1;
                if !plan.explains_stop(&disk) {
                    return Err(broken!("the member stopped for no reason: {why}"));
                }
            }
        }
        disk = plan.next_disk(&disk, &mut rng, trace);
        // Damage beside a failed sync is two faults, and one meta page was not durable yet.
        let in_doubt = broke_off || plan.restart && plan.faults.fail_sync_at.is_some();
        if !in_doubt && rng.one_in(3) {
            let image = disk.crash(&mut rng);
            let outcome = damage::strike(&setup, (&image, false), ledger.clone(), &mut rng, trace)?;
            stats.count_damage(outcome);
        }
    }
    setup.config.unix_ms += 1000;
    trace.say(|| "--- last life".into());
    disk.set_faults(Faults::default());
    last_life(&setup, &disk, &mut ledger, &mut rng, trace)?;
    stats.acknowledgements = ledger.acknowledgements;
    for _ in 0..3 {
        let image = disk.crash(&mut rng);
        let outcome = damage::strike(&setup, (&image, true), ledger.clone(), &mut rng, trace)?;
        stats.count_damage(outcome);
    }
    Ok(stats)
}

/// How a life goes and ends.
#[derive(Debug)]
struct Plan {
    faults: Faults,
    steps: u64,
    clean_stop: bool,
    /// Only the process dies.
    restart: bool,
}

impl Plan {
    fn draw(disk: &SimFs, rng: &mut Rng) -> Plan {
        let mut faults = Faults::default();
        match rng.below(10) {
            0..6 => {
                let span = [10, 60, 300, 1000][rng.below(4) as usize];
                faults.halt_at = Some(disk.operations() + rng.below(span));
            }
            6 => faults.fail_sync_at = Some(disk.syncs() + rng.below(60)),
            7 => faults.capacity_bytes = Some(10_000 + rng.below(300_000)),
            _ => {}
        }
        // After a failed sync, what is in memory and what is on the disk differ, and no program
        // can see it: the next life begins in that memory, and another one after a power failure.
        let restart = rng.one_in(4) || faults.fail_sync_at.is_some() && rng.one_in(2);
        let steps = [20, 200, 800, 3000][rng.below(4) as usize];
        Plan {
            faults,
            steps: rng.below(steps),
            clean_stop: rng.one_in(6),
            restart,
        }
    }

    fn explains_stop(&self, disk: &SimFs) -> bool {
        let Faults {
            fail_sync_at,
            halt_at,
            capacity_bytes,
        } = self.faults;
        halt_at.is_some_and(|at| disk.operations() > at)
            || fail_sync_at.is_some_and(|at| disk.syncs() > at)
            || capacity_bytes.is_some()
    }

    fn next_disk(&self, disk: &SimFs, rng: &mut Rng, trace: &mut Trace) -> SimFs {
        if self.restart {
            trace.say(|| "the process dies".into());
            disk.restart()
        } else {
            trace.say(|| "the power fails".into());
            disk.crash(rng)
        }
    }
}

fn live(
    setup: &Setup,
    disk: &SimFs,
    plan: &Plan,
    ledger: &mut Ledger,
    rng: &mut Rng,
    trace: &mut Trace,
) -> Result<(), End> {
    let mut life = Life::boot(setup, (disk, plan.faults), ledger, rng, trace)?;
    for _ in 0..plan.steps {
        life.step(ledger, rng, trace)?;
    }
    if plan.clean_stop {
        life.stop(ledger, rng, trace)?;
    }
    Ok(())
}

/// Boots on what the others left, answers everything, and looks at the files.
fn last_life(
    setup: &Setup,
    disk: &SimFs,
    ledger: &mut Ledger,
    rng: &mut Rng,
    trace: &mut Trace,
) -> Result<(), Broken> {
    let mut life =
        Life::boot(setup, (disk, Faults::default()), ledger, rng, trace).map_err(unexpected)?;
    life.settle(ledger, rng, trace).map_err(unexpected)?;
    for _ in 0..rng.below(60) {
        life.step(ledger, rng, trace).map_err(unexpected)?;
    }
    life.settle(ledger, rng, trace).map_err(unexpected)?;
    drop(life);
    check_files(setup, disk)
}

fn unexpected(end: End) -> Broken {
    match end {
        End::Broken(broken) => broken,
        End::Stopped(why) => broken!("the member stopped on a healthy disk: {why}"),
    }
}

/// The bolt file is sound, and the newest snapshot record has its `.snap` file.
fn check_files(setup: &Setup, disk: &SimFs) -> Result<(), Broken> {
    let paths = &setup.config.dir;
    let options = bolt::Options {
        read_only: true,
        lock: false,
        ..setup.config.backend.bolt.clone()
    };
    let fs = std::sync::Arc::new(disk.clone());
    let db = bolt::Db::open(fs, &paths.database(), options)
        .map_err(|error| broken!("the database does not open: {error}"))?;
    let report = db
        .check()
        .map_err(|error| broken!("the database cannot be checked: {error}"))?;
    if !report.is_sound() {
        return Err(broken!("the database is not sound: {report:?}"));
    }
    let snapshots = wal::valid_snapshots(disk, paths.wal())
        .map_err(|error| broken!("the log's snapshots cannot be read: {error}"))?;
    if let Some(newest) = snapshots.last().filter(|meta| meta.index.0 > 0) {
        let name = format!("{:016x}-{:016x}.snap", newest.term.0, newest.index.0);
        if disk.contents(&paths.snap().join(&name)).is_err() {
            return Err(broken!(
                "the log has a record of {name}, which is not there"
            ));
        }
    }
    Ok(())
}

fn draw_setup(seed: u64, rng: &mut Rng) -> Setup {
    let pick = |rng: &mut Rng, from: &[u64]| from[rng.below(from.len() as u64) as usize];
    let bolt = bolt::Options {
        page_size: Some(pick(rng, &[1024, 1024, 4096]) as u32),
        grow_bytes: pick(rng, &[1024, 16 << 10, 64 << 10]),
        cache_bytes: pick(rng, &[0, 8 << 10, 1 << 20]) as usize,
        ..bolt::Options::default()
    };
    let wal = wal::Options {
        segment_bytes: pick(rng, &[1 << 10, 6 << 10, 40 << 10]),
        ..wal::Options::inline()
    };
    let state = state::Config {
        value_budget: pick(rng, &[0, 2 << 10, 1 << 20]) as usize,
        compaction_batch: pick(rng, &[1, 7, 100]) as usize,
        ..state::Config::default()
    };
    let member = InitialMember {
        name: "default".into(),
        peer_urls: vec!["http://localhost:2380".into()],
    };
    let config = Config {
        dir: DataDir::new(
            Path::new("/data"),
            rng.one_in(5).then_some(Path::new("/log/wal")),
        ),
        name: member.name.clone(),
        initial_cluster: vec![member],
        initial_token: "etcd-cluster".into(),
        initial_state: InitialState::New,
        joined: None,
        force_new_cluster: false,
        client_urls: vec!["http://localhost:2379".into()],
        tick_ms: 100,
        election_ticks: 10,
        pre_vote: true,
        seed,
        unix_ms: 1_700_000_000_000,
        snapshot_count: pick(rng, &[3, 20, 80, 10_000]),
        catch_up_entries: pick(rng, &[0, 5, 5000]),
        wal,
        backend: backend::Options {
            bolt,
            overlay_bytes_max: pick(rng, &[0, 3000, 1 << 20]) as usize,
        },
        state,
    };
    Setup {
        config,
        shape: Shape::draw(rng),
        keep_snaps: pick(rng, &[1, 2, 5]) as usize,
        keep_wals: pick(rng, &[1, 2, 5]) as usize,
        requests_max: pick(rng, &[1, 8, 40]) as usize,
        weights: STEPS.map(|(_, usual)| usual * pick(rng, &[1, 4, 4, 4, 16])),
    }
}

/// The files of a directory, none when it does not exist.
pub(crate) fn files_of(disk: &SimFs, dir: &Path) -> Vec<PathBuf> {
    use storage::fs::Fs;
    disk.list(dir)
        .unwrap_or_default()
        .into_iter()
        .map(|name| dir.join(name))
        .collect()
}
