use super::*;
use crate::fs::RealFs;
use crate::simfs::SimFs;

#[test]
fn names_are_etcds() {
    let dir = DataDir::new(Path::new("d"), None);
    assert_eq!(dir.wal(), Path::new("d/member/wal"));
    assert_eq!(dir.database(), Path::new("d/member/snap/db"));
    let received = dir.received_database(LogIndex(0x1f));
    assert_eq!(
        received,
        Path::new("d/member/snap/000000000000001f.snap.db")
    );
    assert_eq!(
        DataDir::new(Path::new("d"), Some(Path::new("w"))).wal(),
        Path::new("w")
    );
}

#[test]
fn left_overs_are_removed_and_the_rest_is_kept() {
    let fs = SimFs::new();
    let dir = DataDir::new(Path::new("d"), None);
    assert_eq!(dir.prepare(&fs).unwrap(), Prepared::default());
    let snap = dir.snap();
    for name in [
        "db",
        "db.tmp.123",
        "tmp42",
        "1-2.snap.broken",
        "000000000000001f.snap.db",
    ] {
        fs.plant(&snap.join(name), b"x").unwrap();
    }
    fs.create_dir_all(Path::new("d/member/wal.tmp")).unwrap();
    let prepared = dir.prepare(&fs).unwrap();
    assert_eq!(prepared.removed.len(), 3, "{prepared:?}");
    assert_eq!(
        fs.list(&snap).unwrap(),
        ["000000000000001f.snap.db", "1-2.snap.broken", "db"]
    );
    assert_eq!(fs.list(Path::new("d/member")).unwrap(), ["snap"]);
}

#[test]
fn real_directories_are_private_and_open_ones_are_reported() {
    use std::os::unix::fs::PermissionsExt;
    let parent = tempfile::tempdir().unwrap();
    let root = parent.path().join("a/b");
    let dir = DataDir::new(&root, None);
    assert_eq!(dir.prepare(&RealFs).unwrap(), Prepared::default());
    assert_eq!(RealFs.mode(&dir.snap()).unwrap(), DIR_MODE);
    std::fs::set_permissions(&root, std::fs::Permissions::from_mode(0o755)).unwrap();
    assert_eq!(dir.prepare(&RealFs).unwrap().loose, [(root.clone(), 0o755)]);
}
