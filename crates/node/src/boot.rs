//! What a member does with the data directory that it finds: a decision table.
//!
//! Facts go in, a decision or the text of a refusal comes out; nothing here opens a file. The
//! cases are lettered, exclude each other, and cover everything (a test walks all of them).

mod force;
mod join;

#[cfg(test)]
mod tests;

use std::fmt;

use storage::log::LogIndex;

pub(crate) use force::force;
pub use join::{JoinError, Joined, Running, join};
pub use state::{Bootstrap, BootstrapError, InitialMember};

/// `--initial-cluster-state`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InitialState {
    New,
    Existing,
}

/// What the WAL says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogFacts {
    /// Index of the newest snapshot record that is committed; 0 for none.
    pub snapshot: LogIndex,
    /// Last known commit index.
    pub commit: LogIndex,
    /// Last entry, or the snapshot's index when none follows it.
    pub last: LogIndex,
    /// Whether its member and cluster ids are those that the initial cluster would get.
    pub ours: bool,
}

/// What the bolt file says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DatabaseFacts {
    /// The consistent index: everything up to here is in it.
    pub applied: LogIndex,
    /// Members that vote.
    pub voters: usize,
    /// Whether this member is listed as removed.
    pub removed: bool,
    /// Major and minor of the cluster version, when one was set.
    pub cluster_version: Option<(u64, u64)>,
}

/// Everything that the decision depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    pub initial: InitialState,
    /// Absent when there is no WAL segment.
    pub log: Option<LogFacts>,
    /// Absent when there is no bolt file.
    pub database: Option<DatabaseFacts>,
    /// Whether a database that was received for the log's snapshot lies beside the bolt file.
    pub received: bool,
    /// Major and minor of the release that this build emulates.
    pub server_version: (u64, u64),
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Create the log with the initial members as its first entries.
    NewCluster,
    /// Write those entries to the log that is there.
    BeginLog,
    /// Ask the members of a running cluster who this member is.
    Join,
    /// Read the log; raft goes on from `applied`.
    Restart { applied: LogIndex },
    /// Put the received database in place of the bolt file, then look again.
    AdoptReceived { snapshot: LogIndex },
}

/// Why the member does not start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    LogMissing {
        applied: LogIndex,
    },
    DatabaseBehindSnapshot {
        applied: LogIndex,
        snapshot: LogIndex,
    },
    LogBehindDatabase {
        last: LogIndex,
        applied: LogIndex,
    },
    LogBehindCommit {
        last: LogIndex,
        commit: LogIndex,
    },
    Removed,
    ClusterVersionNewer {
        cluster: (u64, u64),
        server: (u64, u64),
    },
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::LogMissing { applied } => write!(
                f,
                "the database has applied raft index {applied}, but there is no write-ahead log; \
                 starting would give up acknowledged writes"
            ),
            Refusal::DatabaseBehindSnapshot { applied, snapshot } => write!(
                f,
                "database file (consistent index {applied}) does not match with snapshot \
                 (index {snapshot})"
            ),
            Refusal::LogBehindDatabase { last, applied } => write!(
                f,
                "the write-ahead log ends at raft index {last}, but the database has applied \
                 index {applied}; the end of the log is missing"
            ),
            Refusal::LogBehindCommit { last, commit } => write!(
                f,
                "the write-ahead log ends at raft index {last}, but says that index {commit} is \
                 committed; the end of the log is missing"
            ),
            Refusal::Removed => {
                f.write_str("the member has been permanently removed from the cluster")
            }
            Refusal::ClusterVersionNewer { cluster, server } => write!(
                f,
                "invalid downgrade; server version is lower than determined cluster version \
                 (current-server-version {}.{}, determined-cluster-version {}.{})",
                server.0, server.1, cluster.0, cluster.1
            ),
        }
    }
}

impl std::error::Error for Refusal {}

/// One row of the table.
struct Case {
    letter: char,
    when: fn(&Facts) -> bool,
    then: fn(&Facts) -> Result<Decision, Refusal>,
}

/// Decides.
///
/// # Errors
/// When starting would lose something or break a promise to the cluster.
pub fn decide(facts: &Facts) -> Result<Decision, Refusal> {
    let case = CASES
        .iter()
        .find(|case| (case.when)(facts))
        .expect("the cases cover everything");
    (case.then)(facts)
}

/// Letter of the case that `facts` are, for the log.
#[must_use]
pub fn case_letter(facts: &Facts) -> char {
    CASES
        .iter()
        .find(|case| (case.when)(facts))
        .map_or('?', |case| case.letter)
}

const CASES: &[Case] = &[
    // Nothing there, or a first start that died before its log was in place.
    Case {
        letter: 'A',
        when: |f| f.log.is_none() && f.applied() == LogIndex(0) && f.initial == InitialState::New,
        then: |_| Ok(Decision::NewCluster),
    },
    // The same, but the operator says that the cluster runs already.
    Case {
        letter: 'B',
        when: |f| {
            f.log.is_none() && f.applied() == LogIndex(0) && f.initial == InitialState::Existing
        },
        then: |_| Ok(Decision::Join),
    },
    // A database with content and no log: a new log would reuse indexes that the database
    // believes to have applied, and skip those writes.
    Case {
        letter: 'C',
        when: |f| f.log.is_none() && f.applied() > LogIndex(0),
        then: |f| {
            Err(Refusal::LogMissing {
                applied: f.applied(),
            })
        },
    },
    // Whatever else holds, a removed member must not vote again.
    Case {
        letter: 'D',
        when: |f| f.log.is_some() && f.is_removed(),
        then: |_| Err(Refusal::Removed),
    },
    // A cluster that decided for a newer version may hold entries that we cannot apply.
    Case {
        letter: 'E',
        when: |f| f.log.is_some() && !f.is_removed() && f.newer_cluster().is_some(),
        then: |f| {
            let (cluster, server) = (f.newer_cluster().unwrap_or_default(), f.server_version);
            Err(Refusal::ClusterVersionNewer { cluster, server })
        },
    },
    // The first start died between creating the log and making the initial members durable: a
    // member without them has no voters. Nothing can have been acknowledged.
    Case {
        letter: 'L',
        when: |f| f.may_run(|log, _| log.is_whole()) && f.is_unbegun(),
        then: |_| Ok(Decision::BeginLog),
    },
    // The log itself says that committed entries are gone.
    Case {
        letter: 'F',
        when: |f| f.may_run(|log, _| log.commit > log.last),
        then: |f| {
            let log = f.log_facts();
            Err(Refusal::LogBehindCommit {
                last: log.last,
                commit: log.commit,
            })
        },
    },
    // A crash between receiving a snapshot's database and putting it in place.
    Case {
        letter: 'G',
        when: |f| f.may_run(|log, applied| log.is_whole() && applied < log.snapshot && f.received),
        then: |f| {
            Ok(Decision::AdoptReceived {
                snapshot: f.log_facts().snapshot,
            })
        },
    },
    // The log before the snapshot may be gone, so the gap cannot be closed.
    Case {
        letter: 'H',
        when: |f| f.may_run(|log, applied| log.is_whole() && applied < log.snapshot && !f.received),
        then: |f| {
            let (applied, snapshot) = (f.applied(), f.log_facts().snapshot);
            Err(Refusal::DatabaseBehindSnapshot { applied, snapshot })
        },
    },
    // The ordinary restart. A lone commit index is not synced, so the database may be ahead of
    // it; the entries between are offered again and the state machine skips them. This includes
    // a database that is missing, or empty, while the log is complete: it is built anew.
    Case {
        letter: 'I',
        when: |f| {
            f.may_run(|log, applied| {
                log.is_whole() && applied >= log.snapshot && applied <= log.last
            }) && !f.is_unbegun()
        },
        then: |f| {
            Ok(Decision::Restart {
                applied: f.applied().min(f.log_facts().commit),
            })
        },
    },
    // Nobody else has the entries that the database saw and the log lacks: new entries would get
    // their indexes and be skipped.
    Case {
        letter: 'J',
        when: |f| {
            f.may_run(|log, applied| log.is_whole() && applied > log.last.max(log.snapshot))
                && f.voters() <= 1
        },
        then: |f| {
            let (last, applied) = (f.log_facts().last, f.applied());
            Err(Refusal::LogBehindDatabase { last, applied })
        },
    },
    // A follower of another implementation may apply before its own sync; the leader sends the
    // entries again.
    Case {
        letter: 'K',
        when: |f| {
            f.may_run(|log, applied| log.is_whole() && applied > log.last.max(log.snapshot))
                && f.voters() > 1
        },
        then: |f| {
            Ok(Decision::Restart {
                applied: f.applied().min(f.log_facts().commit),
            })
        },
    },
];

impl LogFacts {
    fn is_whole(&self) -> bool {
        self.commit <= self.last
    }
}

impl Facts {
    fn applied(&self) -> LogIndex {
        self.database
            .map_or(LogIndex(0), |database| database.applied)
    }

    fn is_unbegun(&self) -> bool {
        let nothing = |log: &LogFacts| log.snapshot == LogIndex(0) && log.commit == LogIndex(0);
        let empty = self.log.is_some_and(|log| log.ours && nothing(&log));
        empty && self.initial == InitialState::New && self.applied() == LogIndex(0)
    }

    fn log_facts(&self) -> LogFacts {
        self.log.expect("only called by cases with a log")
    }

    fn voters(&self) -> usize {
        self.database.map_or(0, |database| database.voters)
    }

    fn is_removed(&self) -> bool {
        self.database.is_some_and(|database| database.removed)
    }

    fn newer_cluster(&self) -> Option<(u64, u64)> {
        let cluster = self.database.and_then(|database| database.cluster_version);
        cluster.filter(|version| *version > self.server_version)
    }

    /// Whether there is a log that this member may use and that satisfies `also`.
    fn may_run(&self, also: impl Fn(&LogFacts, LogIndex) -> bool) -> bool {
        let barred = self.is_removed() || self.newer_cluster().is_some();
        !barred && self.log.is_some_and(|log| also(&log, self.applied()))
    }
}
