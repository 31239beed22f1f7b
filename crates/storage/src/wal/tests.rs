use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use super::*;
use crate::log::{ConfState, EntryKind};
use crate::simfs::{Faults, Rng, SimFs};

mod crash;
mod damage;
mod golden;
mod real;

fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text
        .chars()
        .filter_map(|c| c.to_digit(16))
        .map(|d| d as u8)
        .collect();
    digits
        .chunks(2)
        .map(|pair| pair[0] << 4 | pair[1])
        .collect()
}

const DIR: &str = "data/member/wal";
const METADATA: Metadata = Metadata {
    node_id: 7,
    cluster_id: 9,
};

fn entry(index: u64, term: u64, bytes: usize) -> Entry {
    Entry {
        kind: EntryKind::Normal,
        term: Term(term),
        index: LogIndex(index),
        data: Bytes::from(vec![index as u8 | 1; bytes]),
    }
}

fn state(term: u64, commit: u64) -> Option<HardState> {
    Some(HardState {
        term: Term(term),
        vote: 7,
        commit: LogIndex(commit),
    })
}

fn disk() -> SimFs {
    let fs = SimFs::new();
    fs.create_dir_all(Path::new("data/member")).unwrap();
    for dir in ["data", "/"] {
        fs.sync_dir(Path::new(dir)).unwrap();
    }
    fs
}

fn create(fs: &SimFs, options: Options) -> Wal {
    Wal::create(Arc::new(fs.clone()), Path::new(DIR), &METADATA, options).unwrap()
}

fn open(fs: &SimFs, options: Options) -> Result<(Wal, Recovered), Error> {
    let (from, applied) = (WalSnapshot::default(), Applied::default());
    Wal::open(Arc::new(fs.clone()), Path::new(DIR), from, applied, options)
}

fn small(segment_bytes: u64) -> Options {
    Options {
        segment_bytes,
        zero_ahead: false,
    }
}

#[test]
fn what_was_written_is_read_back() {
    let fs = disk();
    let mut wal = create(&fs, Options::inline());
    wal.append(state(1, 0), &[entry(1, 1, 10), entry(2, 1, 0)])
        .unwrap();
    wal.sync().unwrap();
    wal.append(state(1, 2), &[entry(3, 1, 700)]).unwrap();
    wal.sync().unwrap();
    wal.append(state(1, 3), &[]).unwrap();
    wal.close().unwrap();
    let (_, recovered) = open(&fs, Options::inline()).unwrap();
    assert_eq!(recovered.metadata, METADATA);
    assert_eq!(
        recovered.entries,
        [entry(1, 1, 10), entry(2, 1, 0), entry(3, 1, 700)]
    );
    assert_eq!(recovered.hard_state, state(1, 3).unwrap());
    assert!(recovered.snapshot_found);
    assert_eq!(recovered.torn, None);
}

fn open_at(fs: &SimFs, index: u64, term: u64) -> Recovered {
    let from = WalSnapshot {
        index: LogIndex(index),
        term: Term(term),
    };
    let (fs, options) = (Arc::new(fs.clone()), Options::inline());
    let opened = Wal::open(fs, Path::new(DIR), from, Applied::default(), options);
    opened.unwrap().1
}

/// The log had entries beyond the snapshot, which no leader knows.
#[test]
fn a_received_snapshot_takes_the_place_of_the_whole_log() {
    for (len, term) in [(2, 1), (6, 1), (6, 3)] {
        let fs = disk();
        let mut wal = create(&fs, Options::inline());
        let old: Vec<Entry> = (1..=len).map(|index| entry(index, term, 20)).collect();
        wal.append(state(4, 2), &old).unwrap();
        wal.sync().unwrap();
        let meta = SnapshotMeta {
            index: LogIndex(4),
            term: Term(2),
            conf: ConfState::default(),
        };
        wal.save_received(&meta, state(5, 9).unwrap()).unwrap();
        assert_eq!(wal.last_index(), LogIndex(4));
        let crashed = fs.crash(&mut Rng::new(len));
        let recovered = open_at(&crashed, 4, 2);
        assert!(recovered.snapshot_found);
        assert_eq!(recovered.entries, []);
        assert_eq!(recovered.hard_state, state(5, 4).unwrap());
        assert_eq!(
            valid_snapshots(&crashed, Path::new(DIR)).unwrap().last(),
            Some(&meta)
        );
        wal.append(state(5, 5), &[entry(5, 5, 3)]).unwrap();
        wal.close().unwrap();
        assert_eq!(open_at(&fs.restart(), 4, 2).entries, [entry(5, 5, 3)]);
    }
}

/// Entries behind a member's own snapshot stay, wherever its record stands.
#[test]
fn an_own_snapshot_leaves_the_log_as_it_is() {
    let fs = disk();
    let mut wal = create(&fs, Options::inline());
    let all: Vec<Entry> = (1..=6).map(|index| entry(index, 1, 20)).collect();
    wal.append(state(1, 6), &all).unwrap();
    wal.sync().unwrap();
    let meta = SnapshotMeta {
        index: LogIndex(4),
        term: Term(1),
        conf: ConfState::default(),
    };
    wal.save_snapshot(&meta).unwrap();
    wal.close().unwrap();
    assert_eq!(open_at(&fs.restart(), 4, 1).entries, all[4..]);
}

#[test]
fn a_later_entry_replaces_what_follows_it() {
    let fs = disk();
    let mut wal = create(&fs, Options::inline());
    wal.append(
        state(1, 1),
        &[entry(1, 1, 1), entry(2, 1, 1), entry(3, 1, 1)],
    )
    .unwrap();
    wal.append(state(2, 1), &[entry(2, 2, 2)]).unwrap();
    wal.close().unwrap();
    let (_, recovered) = open(&fs, Options::inline()).unwrap();
    assert_eq!(recovered.entries, [entry(1, 1, 1), entry(2, 2, 2)]);
}

#[test]
fn a_commit_index_waits_for_the_sync_of_its_entries() {
    let fs = disk();
    let mut wal = create(&fs, Options::inline());
    let committed = |fs: &SimFs| {
        read(
            fs,
            Path::new(DIR),
            WalSnapshot::default(),
            Applied::default(),
        )
        .unwrap()
        .hard_state
        .commit
        .0
    };
    wal.append(state(1, 2), &[entry(1, 1, 1), entry(2, 1, 1)])
        .unwrap();
    assert_eq!(committed(&fs), 0);
    wal.sync().unwrap();
    assert_eq!(committed(&fs), 2);
    assert!(wal.is_dirty());
    wal.append(state(1, 3), &[entry(3, 1, 1)]).unwrap();
    assert_eq!(committed(&fs), 2);
}

#[test]
fn segments_are_cut_and_chained() {
    let fs = disk();
    let mut wal = create(&fs, small(1000));
    for index in 1..=20 {
        wal.append(state(3, index - 1), &[entry(index, 3, 300)])
            .unwrap();
        wal.sync().unwrap();
    }
    drop(wal);
    let names = fs.list(Path::new(DIR)).unwrap();
    assert!(names.len() > 4, "{names:?}");
    assert_eq!(names[0], "0000000000000000-0000000000000000.wal");
    assert_eq!(names[1], "0000000000000001-0000000000000004.wal");
    let (mut wal, recovered) = open(&fs, small(1000)).unwrap();
    assert_eq!(recovered.entries.len(), 20);
    assert_eq!(recovered.hard_state, state(3, 19).unwrap());

    wal.append(state(3, 20), &[]).unwrap();
    let conf = ConfState {
        voters: vec![7],
        ..ConfState::default()
    };
    wal.save_snapshot(&SnapshotMeta {
        index: LogIndex(12),
        term: Term(3),
        conf,
    })
    .unwrap();
    assert!(matches!(open(&fs, small(1000)), Err(Error::Locked(_))));
    assert_eq!(purge(&fs, Path::new(DIR), 1).unwrap(), Vec::<String>::new());
    wal.release_to(LogIndex(12));
    let purged = purge(&fs, Path::new(DIR), 1).unwrap();
    assert_eq!(purged.len(), 3, "{purged:?}");
    drop(wal);
    assert!(matches!(
        open(&fs, small(1000)),
        Err(Error::NotFound { .. })
    ));
    let snapshots = valid_snapshots(&fs, Path::new(DIR)).unwrap();
    assert_eq!(snapshots.len(), 1);
    let from = WalSnapshot {
        index: snapshots[0].index,
        term: snapshots[0].term,
    };
    let dir = Path::new(DIR);
    let recovered = read(&fs, dir, from, Applied::default()).unwrap();
    assert_eq!(recovered.entries.first(), Some(&entry(13, 3, 300)));
    assert_eq!(recovered.entries.len(), 8);
    let wrong = WalSnapshot {
        term: Term(2),
        ..from
    };
    let mismatch = read(&fs, dir, wrong, Applied::default());
    assert!(matches!(mismatch, Err(Error::SnapshotMismatch { .. })));
    let absent = WalSnapshot {
        index: LogIndex(13),
        term: Term(3),
    };
    let absent = read(&fs, dir, absent, Applied::default());
    assert!(matches!(absent, Err(Error::SnapshotNotFound { .. })));
}

#[test]
fn a_failed_sync_or_write_ends_the_log() {
    let fs = disk();
    let mut wal = create(&fs, Options::inline());
    wal.append(state(1, 0), &[entry(1, 1, 1)]).unwrap();
    fs.set_faults(Faults {
        fail_sync_at: Some(fs.syncs()),
        ..Faults::default()
    });
    assert!(matches!(wal.sync(), Err(Error::Io { .. })));
    assert!(matches!(wal.sync(), Err(Error::Poisoned)));
    assert!(matches!(
        wal.append(None, &[entry(2, 1, 1)]),
        Err(Error::Poisoned)
    ));

    let fs = disk();
    let mut wal = create(&fs, Options::inline());
    fs.set_faults(Faults {
        capacity_bytes: Some(200),
        ..Faults::default()
    });
    wal.append(state(1, 0), &[entry(1, 1, 1)]).unwrap();
    assert!(matches!(
        wal.append(None, &[entry(2, 1, 200)]),
        Err(Error::Io { .. })
    ));
    assert!(matches!(
        wal.append(None, &[entry(2, 1, 1)]),
        Err(Error::Poisoned)
    ));
}

/// A new leader replaced entries from 3 on, and the snapshot is at 3: what stood behind it is gone.
#[test]
fn an_entry_that_is_replaced_at_a_snapshot_takes_those_behind_it_along() {
    let fs = disk();
    let mut wal = create(&fs, Options::inline());
    let old: Vec<Entry> = (1..=5).map(|index| entry(index, 1, 1)).collect();
    wal.append(state(1, 2), &old).unwrap();
    wal.sync().unwrap();
    wal.append(state(2, 3), &[entry(3, 2, 1)]).unwrap();
    wal.sync().unwrap();
    wal.sync().unwrap();
    let meta = SnapshotMeta {
        index: LogIndex(3),
        term: Term(2),
        ..SnapshotMeta::default()
    };
    wal.save_snapshot(&meta).unwrap();
    wal.close().unwrap();
    let from = WalSnapshot {
        index: LogIndex(3),
        term: Term(2),
    };
    let dir = Path::new(DIR);
    let found = read(&fs, dir, from, Applied::default()).unwrap();
    assert!(found.snapshot_found && found.entries.is_empty());
}

#[test]
fn the_log_must_reach_what_was_applied() {
    let fs = disk();
    let mut wal = create(&fs, Options::inline());
    wal.append(state(2, 0), &[entry(1, 2, 1), entry(2, 2, 1)])
        .unwrap();
    wal.close().unwrap();
    let read = |index, term, may_lead| {
        let applied = Applied {
            index: LogIndex(index),
            term: Term(term),
            may_lead,
        };
        read(&fs, Path::new(DIR), WalSnapshot::default(), applied)
    };
    assert!(read(2, 2, false).is_ok());
    assert!(read(2, 0, false).is_ok());
    assert!(read(3, 2, true).is_ok());
    assert!(matches!(read(3, 2, false), Err(Error::Behind { .. })));
    assert!(matches!(read(2, 1, false), Err(Error::AppliedTerm { .. })));
}

#[test]
fn creation_is_atomic() {
    for halt in 0.. {
        let fs = disk();
        let start = fs.operations();
        fs.set_faults(Faults {
            halt_at: Some(start + halt),
            ..Faults::default()
        });
        let (dir, options) = (Path::new(DIR), Options::inline());
        let created = Wal::create(Arc::new(fs.clone()), dir, &METADATA, options);
        for seed in 0..20 {
            let after = fs.crash(&mut Rng::new(seed));
            if exists(&after, dir) {
                open(&after, Options::inline()).unwrap();
            } else {
                assert!(created.is_err());
                create(&after, Options::inline());
            }
        }
        if created.is_ok() {
            return;
        }
    }
}
