//! A whole member over a file system: everything opened, checked, and ready to run.
//!
//! The server and the simulator boot by the same code. Nothing here waits, and no thread is
//! started but the one that the WAL's options ask for.

mod error;
mod exchange;
mod snapshot;

#[cfg(test)]
mod tests;

use api::version::major_minor;
use std::sync::Arc;

use api::ids::{ClusterId, MemberId};
use state::Opened;
use storage::backend::{self, Backend, Committer};
use storage::bolt::PageId;
use storage::datadir::{DataDir, Prepared};
use storage::fs::Fs;
use storage::log::{HardState, LogIndex};
use storage::wal::{self, Metadata, Recovered, TornTail, Wal, WalSnapshot};

use crate::boot::{
    self, Bootstrap, DatabaseFacts, Decision, Facts, InitialMember, InitialState, JoinError,
    Joined, LogFacts,
};
use crate::ids::RequestIds;
use crate::machine::{self, Node};
use crate::raft::{self, Restored};

pub use error::Error;
pub use exchange::{Installed, Installer, Outgoing, persist, verify};
pub use snapshot::{Snapshot, purge};

/// How a member is set up.
#[derive(Clone, Debug)]
pub struct Config {
    pub dir: DataDir,
    pub name: String,
    /// `--initial-cluster`; only a first start reads it.
    pub initial_cluster: Vec<InitialMember>,
    pub initial_token: String,
    pub initial_state: InitialState,
    /// Who this member is in the running cluster, for a first start with
    /// `--initial-cluster-state=existing`.
    pub joined: Option<Joined>,
    /// `--force-new-cluster`: go on alone, with what this member has.
    pub force_new_cluster: bool,
    /// `--advertise-client-urls`.
    pub client_urls: Vec<String>,
    pub tick_ms: u64,
    pub election_ticks: usize,
    pub pre_vote: bool,
    /// Source of the election timeouts.
    pub seed: u64,
    /// The wall clock at start.
    pub unix_ms: u64,
    pub snapshot_count: u64,
    pub catch_up_entries: u64,
    pub wal: wal::Options,
    pub backend: backend::Options,
    pub state: state::Config,
}

/// What boot found and did, for the log.
#[derive(Clone, Debug)]
pub struct Report {
    /// Letter of the row of the decision table.
    pub case: char,
    /// What was done to the directory.
    pub prepared: Prepared,
    /// Applied index of the database before anything was replayed.
    pub database: LogIndex,
    /// The snapshot after which the log was read.
    pub snapshot: WalSnapshot,
    pub hard_state: HardState,
    pub last: LogIndex,
    /// The incomplete end of the log that was cut off.
    pub torn: Option<TornTail>,
    /// The meta page of the database that was not valid; the other one counted.
    pub lost_meta: Option<PageId>,
}

/// A member that can run; its owner decides which thread gets which part.
pub struct Member {
    pub id: MemberId,
    pub cluster: ClusterId,
    pub dir: DataDir,
    pub node: Node,
    pub wal: Wal,
    pub machine: state::Machine,
    pub view: state::View,
    pub sweep: state::Sweep,
    pub committer: Committer,
    pub installer: Installer,
    /// Where to find the others while the state does not know them yet.
    pub founders: Vec<state::Member>,
    pub report: Report,
}

/// A log that is open for writing, with what it held.
struct Log {
    wal: Wal,
    snapshot: WalSnapshot,
    recovered: Recovered,
}

impl Member {
    /// Opens the data directory, or makes it, by the decision table of [`boot`].
    ///
    /// # Errors
    /// When the directory cannot be used, is in use, is damaged, or the table refuses.
    pub fn boot(fs: &Arc<dyn Fs>, config: &Config) -> Result<Member, Error> {
        let prepared = config.dir.prepare(&**fs)?;
        let bootstrap =
            Bootstrap::new(&config.name, &config.initial_cluster, &config.initial_token);
        loop {
            let state = open_state(fs, config)?;
            let found = open_log(fs, config, &state)?;
            let facts = gather(
                &**fs,
                config,
                &state,
                found.as_ref(),
                bootstrap.as_ref().ok(),
            );
            let case = boot::case_letter(&facts);
            let (log, applied) = match (boot::decide(&facts)?, found) {
                (Decision::NewCluster, _) => {
                    let bootstrap = bootstrap.clone()?;
                    let log = create_log(fs, config, bootstrap.member, bootstrap.cluster)?;
                    (log.begin(&bootstrap)?, LogIndex(0))
                }
                (Decision::BeginLog, Some(log)) => (log.begin(&bootstrap.clone()?)?, LogIndex(0)),
                (Decision::Restart { applied }, Some(log)) if config.force_new_cluster => {
                    (log.force(&state)?, applied)
                }
                (Decision::Restart { applied }, Some(log)) => (log, applied),
                (Decision::Join, _) => {
                    let joined = config.joined.as_ref().ok_or(JoinError::NotFetched)?;
                    let cluster = joined.running.cluster;
                    (create_log(fs, config, joined.member, cluster)?, LogIndex(0))
                }
                (Decision::AdoptReceived { snapshot }, found) => {
                    drop((state, found));
                    exchange::adopt(&**fs, &config.dir, snapshot)?;
                    continue;
                }
                (Decision::BeginLog | Decision::Restart { .. }, None) => {
                    unreachable!("case {case} is about a log")
                }
            };
            return assemble(fs, config, prepared, state, log, (applied, case));
        }
    }
}

/// The database, and the state that was rebuilt from it.
struct State {
    opened: Opened,
    committer: Committer,
}

fn open_state(fs: &Arc<dyn Fs>, config: &Config) -> Result<State, Error> {
    let path = config.dir.database();
    let backend = Backend::open(fs.clone(), &path, config.backend.clone())?;
    let Backend {
        writer,
        reader,
        committer,
        maintenance,
    } = backend;
    let opened = state::Machine::open(writer, reader, maintenance, config.state.clone())?;
    Ok(State { opened, committer })
}

/// Opens the log when there is one, at its newest committed snapshot.
fn open_log(fs: &Arc<dyn Fs>, config: &Config, state: &State) -> Result<Option<Log>, Error> {
    let dir = config.dir.wal();
    if !wal::exists(&**fs, dir) {
        return Ok(None);
    }
    let snapshots = wal::valid_snapshots(&**fs, dir)?;
    let snapshot = snapshots
        .last()
        .map_or_else(WalSnapshot::default, |meta| WalSnapshot {
            index: meta.index,
            term: meta.term,
        });
    let database = state.opened.view.applied();
    let voters = state.opened.view.members().conf_state().voters.len();
    let applied = wal::Applied {
        index: database.index,
        term: database.term,
        may_lead: voters > 1,
    };
    let (wal, recovered) = Wal::open(fs.clone(), dir, snapshot, applied, config.wal)?;
    Ok(Some(Log {
        wal,
        snapshot,
        recovered,
    }))
}

fn create_log(
    fs: &Arc<dyn Fs>,
    config: &Config,
    member: MemberId,
    cluster: ClusterId,
) -> Result<Log, Error> {
    let metadata = Metadata {
        node_id: member.0,
        cluster_id: cluster.0,
    };
    let wal = Wal::create(fs.clone(), config.dir.wal(), &metadata, config.wal)?;
    let recovered = Recovered {
        metadata,
        hard_state: HardState::default(),
        entries: Vec::new(),
        snapshot_found: true,
        torn: None,
    };
    Ok(Log {
        wal,
        snapshot: WalSnapshot::default(),
        recovered,
    })
}

impl Log {
    /// Makes this member the only one, by entries behind the last committed one; what was not
    /// committed is given up.
    fn force(mut self, state: &State) -> Result<Log, Error> {
        let commit = self.recovered.hard_state.commit;
        let entries = &mut self.recovered.entries;
        entries.retain(|entry| entry.index <= commit);
        let view = &state.opened.view;
        let applied = view.applied().index;
        let ahead = entries.iter().filter(|entry| entry.index > applied);
        let ahead: Vec<_> = ahead.cloned().collect();
        let own = MemberId(self.recovered.metadata.node_id);
        let hard_state = self.recovered.hard_state;
        let changes = boot::force(own, &view.members(), &ahead, hard_state)?;
        let commit = changes.last().map_or(commit, |entry| entry.index);
        let hard_state = HardState {
            commit,
            ..hard_state
        };
        self.wal.append(Some(hard_state), &changes)?;
        self.wal.sync()?;
        self.wal.sync()?;
        self.recovered.hard_state = hard_state;
        self.recovered.entries.extend(changes);
        Ok(self)
    }

    /// Writes the initial members as the first entries and makes them durable, with their commit
    /// index: without it a crash would leave a member that knows no voters.
    fn begin(mut self, bootstrap: &Bootstrap) -> Result<Log, Error> {
        self.wal
            .append(Some(bootstrap.hard_state), &bootstrap.entries)?;
        // The first sync lets the commit index be written, the second covers it.
        self.wal.sync()?;
        self.wal.sync()?;
        self.recovered.hard_state = bootstrap.hard_state;
        self.recovered.entries.clone_from(&bootstrap.entries);
        Ok(self)
    }

    fn last(&self) -> LogIndex {
        self.recovered
            .entries
            .last()
            .map_or(self.snapshot.index, |entry| entry.index)
    }
}

fn gather(
    fs: &dyn Fs,
    config: &Config,
    state: &State,
    log: Option<&Log>,
    bootstrap: Option<&Bootstrap>,
) -> Facts {
    let own = log.map(|log| log.recovered.metadata);
    let ours = bootstrap.is_some_and(|bootstrap| {
        own == Some(Metadata {
            node_id: bootstrap.member.0,
            cluster_id: bootstrap.cluster.0,
        })
    });
    let members = state.opened.view.members();
    let minor = |version: &str| major_minor(version);
    Facts {
        initial: config.initial_state,
        log: log.map(|log| LogFacts {
            snapshot: log.snapshot.index,
            commit: log.recovered.hard_state.commit,
            last: log.last(),
            ours,
        }),
        database: Some(DatabaseFacts {
            applied: state.opened.view.applied().index,
            voters: members.conf_state().voters.len(),
            removed: own.is_some_and(|own| members.is_removed(MemberId(own.node_id))),
            cluster_version: members.cluster_version().and_then(minor),
        }),
        received: log
            .is_some_and(|log| fs.exists(&config.dir.received_database(log.snapshot.index))),
        server_version: minor(api::version::SERVER).expect("a constant"),
    }
}

fn assemble(
    fs: &Arc<dyn Fs>,
    config: &Config,
    prepared: Prepared,
    state: State,
    log: Log,
    (applied, case): (LogIndex, char),
) -> Result<Member, Error> {
    let Log {
        wal,
        snapshot,
        recovered,
    } = log;
    let id = MemberId(recovered.metadata.node_id);
    let members = state.opened.view.members();
    let report = Report {
        case,
        database: state.opened.view.applied().index,
        prepared,
        snapshot,
        hard_state: recovered.hard_state,
        last: recovered
            .entries
            .last()
            .map_or(snapshot.index, |entry| entry.index),
        torn: recovered.torn,
        lost_meta: state.committer.lost_meta(),
    };
    let node_config = node_config(config, id, &report, members.cluster_version());
    let restored = Restored {
        hard_state: recovered.hard_state,
        // The configuration that the database has; entries that it has applied and that come
        // again do not change it a second time.
        conf: members.conf_state(),
        before: (snapshot.index, snapshot.term),
        entries: recovered.entries,
        applied,
    };
    let node = Node::new(node_config, &restored)?;
    let Opened {
        mut machine,
        view,
        sweep,
    } = state.opened;
    machine.identify(id);
    let installer = Installer {
        fs: Arc::clone(fs),
        dir: config.dir.clone(),
        options: config.backend.clone(),
        view: view.clone(),
        member: id,
    };
    Ok(Member {
        founders: founders(config),
        installer,
        id,
        cluster: ClusterId(recovered.metadata.cluster_id),
        dir: config.dir.clone(),
        node,
        wal,
        machine,
        view,
        sweep,
        committer: state.committer,
        report,
    })
}

/// The members that the operator or the running cluster named.
fn founders(config: &Config) -> Vec<state::Member> {
    if let Some(joined) = &config.joined {
        return joined.running.members.clone();
    }
    let member = |member: &InitialMember| state::Member {
        id: crate::ids::member_id(&member.peer_urls, &config.initial_token, None).0,
        peer_urls: member.peer_urls.clone(),
        name: member.name.clone(),
        ..Default::default()
    };
    config.initial_cluster.iter().map(member).collect()
}

fn node_config(
    config: &Config,
    id: MemberId,
    report: &Report,
    cluster_version: Option<&str>,
) -> machine::Config {
    machine::Config {
        raft: raft::Config {
            id,
            election_ticks: config.election_ticks,
            pre_vote: config.pre_vote,
            seed: config.seed,
        },
        tick_ms: config.tick_ms,
        snapshot_count: config.snapshot_count,
        catch_up_entries: config.catch_up_entries,
        name: config.name.clone(),
        client_urls: config.client_urls.clone(),
        version: machine::cluster_version_of(api::version::SERVER),
        cluster_version: cluster_version.map(str::to_owned),
        snapshot_index: report.snapshot.index,
        state_index: report.database,
        request_ids: Arc::new(RequestIds::new(id, config.unix_ms)),
    }
}
