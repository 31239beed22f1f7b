//! Every row of the table, and that the rows neither overlap nor leave anything out.

mod cluster;

use super::*;

fn log(snapshot: u64, commit: u64, last: u64) -> Option<LogFacts> {
    let (snapshot, commit, last) = (LogIndex(snapshot), LogIndex(commit), LogIndex(last));
    Some(LogFacts {
        snapshot,
        commit,
        last,
        ours: true,
    })
}

fn database(applied: u64) -> Option<DatabaseFacts> {
    let applied = LogIndex(applied);
    Some(DatabaseFacts {
        applied,
        voters: 1,
        removed: false,
        cluster_version: Some((3, 7)),
    })
}

fn facts(log: Option<LogFacts>, database: Option<DatabaseFacts>) -> Facts {
    let initial = InitialState::New;
    Facts {
        initial,
        log,
        database,
        received: false,
        server_version: (3, 7),
    }
}

#[test]
fn every_row_decides_as_written() {
    let existing = |facts: Facts| Facts {
        initial: InitialState::Existing,
        ..facts
    };
    let received = |facts: Facts| Facts {
        received: true,
        ..facts
    };
    let with = |change: fn(&mut DatabaseFacts)| {
        let mut content = database(5);
        content.as_mut().map(change);
        content
    };
    let restart = |applied| {
        Ok(Decision::Restart {
            applied: LogIndex(applied),
        })
    };
    let index = LogIndex;
    let rows = [
        ('A', facts(None, None), Ok(Decision::NewCluster)),
        ('A', facts(None, database(0)), Ok(Decision::NewCluster)),
        ('B', existing(facts(None, None)), Ok(Decision::Join)),
        (
            'C',
            facts(None, database(5)),
            Err(Refusal::LogMissing { applied: index(5) }),
        ),
        (
            'D',
            facts(log(0, 5, 5), with(|d| d.removed = true)),
            Err(Refusal::Removed),
        ),
        (
            'E',
            facts(log(0, 5, 5), with(|d| d.cluster_version = Some((3, 8)))),
            Err(Refusal::ClusterVersionNewer {
                cluster: (3, 8),
                server: (3, 7),
            }),
        ),
        (
            'F',
            facts(log(0, 9, 8), database(5)),
            Err(Refusal::LogBehindCommit {
                last: index(8),
                commit: index(9),
            }),
        ),
        (
            'G',
            received(facts(log(7, 8, 8), database(5))),
            Ok(Decision::AdoptReceived { snapshot: index(7) }),
        ),
        (
            'H',
            facts(log(7, 8, 8), database(5)),
            Err(Refusal::DatabaseBehindSnapshot {
                applied: index(5),
                snapshot: index(7),
            }),
        ),
        (
            'H',
            facts(log(7, 8, 8), None),
            Err(Refusal::DatabaseBehindSnapshot {
                applied: index(0),
                snapshot: index(7),
            }),
        ),
        ('L', facts(log(0, 0, 0), None), Ok(Decision::BeginLog)),
        (
            'L',
            facts(log(0, 0, 1), database(0)),
            Ok(Decision::BeginLog),
        ),
        ('I', existing(facts(log(0, 0, 0), None)), restart(0)),
        ('I', facts(log(0, 1, 1), None), restart(0)),
        ('I', facts(log(3, 8, 9), database(5)), restart(5)),
        ('I', facts(log(3, 4, 9), database(5)), restart(4)),
        ('I', facts(log(5, 5, 5), database(5)), restart(5)),
        (
            'J',
            facts(log(0, 4, 4), database(5)),
            Err(Refusal::LogBehindDatabase {
                last: index(4),
                applied: index(5),
            }),
        ),
        ('K', facts(log(0, 4, 4), with(|d| d.voters = 3)), restart(4)),
    ];
    for (letter, facts, want) in rows {
        assert_eq!(
            (case_letter(&facts), decide(&facts)),
            (letter, want),
            "{facts:?}"
        );
        if let Err(refusal) = want {
            assert!(!refusal.to_string().is_empty());
        }
    }
    let walked = rows.map(|(letter, ..)| letter);
    assert!(CASES.iter().all(|case| walked.contains(&case.letter)));
}

#[test]
fn exactly_one_case_holds_for_any_facts() {
    let small = [0, 1, 2, 3];
    let mut logs = vec![None];
    for snapshot in small {
        for commit in small {
            logs.extend(small.map(|last| log(snapshot, commit, last)));
        }
    }
    let mut databases = vec![None];
    for applied in small {
        for (voters, removed) in [(1, false), (3, false), (1, true)] {
            for cluster_version in [None, Some((3, 6)), Some((3, 8))] {
                let applied = LogIndex(applied);
                databases.push(Some(DatabaseFacts {
                    applied,
                    voters,
                    removed,
                    cluster_version,
                }));
            }
        }
    }
    for log in &logs {
        for database in &databases {
            for initial in [InitialState::New, InitialState::Existing] {
                for received in [false, true] {
                    let (log, database) = (*log, *database);
                    // A log does not end before its own snapshot.
                    if log.is_some_and(|log| log.last < log.snapshot) {
                        continue;
                    }
                    let facts = Facts {
                        initial,
                        log,
                        database,
                        received,
                        server_version: (3, 7),
                    };
                    let holding = CASES.iter().filter(|case| (case.when)(&facts)).count();
                    assert_eq!(holding, 1, "{facts:?}");
                    if let Ok(Decision::Restart { applied }) = decide(&facts) {
                        assert!(applied <= facts.log_facts().commit);
                    }
                }
            }
        }
    }
}

#[test]
fn a_new_cluster_begins_as_etcds_does() {
    let members = [InitialMember {
        name: "default".into(),
        peer_urls: vec!["http://localhost:2380".into()],
    }];
    let boot = Bootstrap::new("default", &members, "etcd-cluster").unwrap();
    assert_eq!(boot.member.to_string(), "8e9e05c52164694d");
    assert_eq!(boot.cluster.to_string(), "cdf818194e3a8c32");
    let data = &boot.entries[0].data;
    assert_eq!(data[..4], [0x08, 0, 0x10, 0]);
    let json =
        br#"{"id":10276657743932975437,"peerURLs":["http://localhost:2380"],"name":"default"}"#;
    assert!(data.ends_with(json));
    assert_eq!(
        (boot.hard_state.commit, boot.hard_state.term.0),
        (LogIndex(1), 1)
    );
    let error = Bootstrap::new("other", &members, "etcd-cluster").unwrap_err();
    assert_eq!(
        error.to_string(),
        "couldn't find local name \"other\" in the initial cluster configuration"
    );
    let twice = [members[0].clone(), members[0].clone()];
    assert!(Bootstrap::new("default", &twice, "t").is_err());
}
