use std::sync::Arc;

use storage::log::{HardState, LogIndex, Term};
use storage::wal::{Metadata, Options, Wal};
use storage::wire::put_bytes;

use super::*;
use crate::fixture;

const WAIT: Duration = Duration::from_millis(1);

/// A data directory at 3.7 whose log has `requests` as its entries.
fn data_dir(root: &Path, requests: &[Vec<u8>]) -> DataDir {
    let dir = DataDir::new(root, None);
    std::fs::create_dir_all(dir.snap()).unwrap();
    drop(fixture::database(&dir.database()));
    let metadata = Metadata {
        node_id: 1,
        cluster_id: 2,
    };
    let mut log = Wal::create(Arc::new(RealFs), dir.wal(), &metadata, Options::inline()).unwrap();
    let entries: Vec<Entry> = requests
        .iter()
        .zip(1..)
        .map(|(data, index)| Entry {
            kind: EntryKind::Normal,
            term: Term(1),
            index: LogIndex(index),
            data: data.clone().into(),
        })
        .collect();
    let state = HardState {
        term: Term(1),
        vote: 1,
        commit: LogIndex(entries.len() as u64),
    };
    log.append(Some(state), &entries).unwrap();
    log.close().unwrap();
    dir
}

fn stored(dir: &DataDir) -> Option<String> {
    let db = database::open_read_only(&dir.database(), WAIT).unwrap();
    let value = db.begin_read().get(b"meta", meta::STORAGE_VERSION).unwrap();
    value.map(|value| String::from_utf8(value.to_vec()).unwrap())
}

fn run(dir: &DataDir, target: Version, force: bool) -> Result<(), String> {
    migrate(&Request {
        dir: dir.clone(),
        target,
        force,
        lock_timeout: WAIT,
    })
}

fn test_request(version: &str) -> Vec<u8> {
    let mut inner = Vec::new();
    put_bytes(&mut inner, 1, version.as_bytes());
    let mut request = Vec::new();
    put_bytes(&mut request, VERSION_TEST, &inner);
    request
}

#[test]
fn down_to_3_5_and_up_again() {
    let temp = tempfile::tempdir().unwrap();
    let mut put = Vec::new();
    put_bytes(&mut put, 4, b"\x0a\x01k");
    let mut version_set = Vec::new();
    put_bytes(&mut version_set, 1300, b"\x0a\x053.7.0");
    let dir = data_dir(temp.path(), &[Vec::new(), put, version_set]);
    for (target, expected) in [
        (Version::of(3, 7), Some("3.7.0")),
        (Version::of(3, 6), Some("3.6.0")),
        (Version::of(3, 5), None),
        (Version::of(3, 5), None),
        (Version::of(3, 7), Some("3.7.0")),
        (Version::of(3, 5), None),
    ] {
        run(&dir, target, false).unwrap();
        assert_eq!(stored(&dir).as_deref(), expected, "{target}");
    }
}

#[test]
fn versions_that_nobody_knows() {
    let temp = tempfile::tempdir().unwrap();
    let dir = data_dir(temp.path(), &[]);
    assert_eq!(
        run(&dir, Version::of(3, 8), false).unwrap_err(),
        "cannot create migration plan: version \"3.8.0\" is not supported"
    );
    assert_eq!(
        run(&dir, Version::of(4, 0), false).unwrap_err(),
        "cannot create migration plan: changing major storage version is not supported"
    );
    assert_eq!(stored(&dir).as_deref(), Some("3.7.0"));
    run(&dir, Version::of(3, 8), true).unwrap();
    assert_eq!(stored(&dir).as_deref(), Some("3.8.0"));
    assert_eq!(
        run(&dir, Version::of(3, 7), false).unwrap_err(),
        "cannot create migration plan: version \"3.8.0\" is not supported"
    );
}

#[test]
fn a_log_that_the_target_does_not_know() {
    let temp = tempfile::tempdir().unwrap();
    let dir = data_dir(temp.path(), &[test_request("3.7.0")]);
    for target in [Version::of(3, 6), Version::of(3, 5)] {
        assert_eq!(
            run(&dir, target, false).unwrap_err(),
            format!(
                "cannot downgrade storage, WAL contains newer entries, as the target version \
                 ({target}) is lower than the version (3.7.0) detected from WAL logs"
            )
        );
    }
    assert_eq!(stored(&dir).as_deref(), Some("3.7.0"));
    run(&dir, Version::of(3, 5), true).unwrap();
    assert_eq!(stored(&dir), None);
    run(&dir, Version::of(3, 6), false).unwrap();
    assert_eq!(stored(&dir).as_deref(), Some("3.6.0"));
}

#[test]
fn directories_that_cannot_be_migrated() {
    let temp = tempfile::tempdir().unwrap();
    let broken = data_dir(temp.path(), &[b"\xff".to_vec()]);
    let why = run(&broken, Version::of(3, 6), true).unwrap_err();
    assert!(why.starts_with("failed to read wal: entry 1: "), "{why}");

    std::fs::remove_dir_all(broken.wal()).unwrap();
    let why = run(&broken, Version::of(3, 6), true).unwrap_err();
    assert!(
        why.starts_with("failed to get the lastest snapshot: "),
        "{why}"
    );

    let db = database::open(&broken.database(), WAIT).unwrap();
    let mut tx = db.begin_write().unwrap();
    tx.delete(b"meta", meta::STORAGE_VERSION).unwrap();
    tx.delete(b"meta", meta::TERM).unwrap();
    tx.commit().unwrap();
    drop(db);
    let why = run(&broken, Version::of(3, 6), false).unwrap_err();
    assert_eq!(why, "missing term information");
    let none = DataDir::new(&temp.path().join("none"), None);
    let why = run(&none, Version::of(3, 6), false).unwrap_err();
    let path = none.database().display().to_string();
    assert_eq!(why, format!("stat {path}: no such file or directory"));
}
