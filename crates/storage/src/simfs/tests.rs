use std::collections::BTreeSet;

use super::*;

const FILE: &str = "d/f";

fn disk_with(contents: &[u8]) -> SimFs {
    let fs = SimFs::new();
    fs.create_dir_all(Path::new("d")).unwrap();
    fs.sync_dir(Path::new("/")).unwrap();
    fs.plant(Path::new(FILE), contents).unwrap();
    fs
}

/// Every outcome of many crashes.
fn outcomes(fs: &SimFs) -> BTreeSet<Vec<u8>> {
    (0..200)
        .map(|seed| {
            fs.crash(&mut Rng::new(seed))
                .contents(Path::new(FILE))
                .unwrap()
        })
        .collect()
}

fn open(fs: &SimFs) -> Box<dyn File> {
    fs.open(Path::new(FILE), Open::ReadWrite).unwrap()
}

#[test]
fn synced_writes_survive_every_crash() {
    let fs = disk_with(b"");
    let file = open(&fs);
    file.write_all_at(&[1; 2000], 0).unwrap();
    file.set_len(1500).unwrap();
    file.write_all_at(&[2; 100], 1500).unwrap();
    file.sync_data().unwrap();
    let mut wanted = vec![1; 1500];
    wanted.extend([2; 100]);
    assert_eq!(outcomes(&fs), BTreeSet::from([wanted]));
}

#[test]
fn unsynced_writes_are_lost_kept_torn_and_reordered_by_sector() {
    let fs = disk_with(&[0; 1024]);
    let file = open(&fs);
    file.write_all_at(&[1; 1024], 0).unwrap();
    file.write_all_at(&[2; 512], 0).unwrap();
    let found: BTreeSet<(u8, u8)> = outcomes(&fs)
        .into_iter()
        .map(|data| {
            assert!(data[..512].iter().all(|b| *b == data[0]));
            assert!(data[512..].iter().all(|b| *b == data[512]));
            (data[0], data[512])
        })
        .collect();
    let all = [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (2, 1)];
    assert_eq!(found, BTreeSet::from(all));
}

#[test]
fn lengths_go_back_to_one_that_was() {
    let fs = disk_with(&[7; 100]);
    let file = open(&fs);
    file.set_len(50).unwrap();
    file.write_all_at(&[8; 10], 90).unwrap();
    let found: BTreeSet<usize> = outcomes(&fs).iter().map(Vec::len).collect();
    assert_eq!(found, BTreeSet::from([50, 100]));
}

#[test]
fn names_are_durable_with_their_directory() {
    let fs = disk_with(b"old");
    fs.create_dir_all(Path::new("e")).unwrap();
    fs.sync_dir(Path::new("/")).unwrap();
    let new = Path::new("d/new");
    let file = fs.open(new, Open::CreateNew { mode: 0o600 }).unwrap();
    file.write_all_at(b"new", 0).unwrap();
    file.sync_data().unwrap();
    let survives = |fs: &SimFs, path: &str| -> BTreeSet<bool> {
        let path = Path::new(path);
        (0..100)
            .map(|seed| fs.crash(&mut Rng::new(seed)).exists(path))
            .collect()
    };
    assert_eq!(survives(&fs, "d/new"), BTreeSet::from([false, true]));
    fs.sync_dir(Path::new("d")).unwrap();
    assert_eq!(survives(&fs, "d/new"), BTreeSet::from([true]));

    fs.rename(new, Path::new(FILE)).unwrap();
    assert_eq!(
        outcomes(&fs),
        BTreeSet::from([b"new".to_vec(), b"old".to_vec()])
    );
    fs.sync_dir(Path::new("e")).unwrap();
    assert_eq!(outcomes(&fs).len(), 2);
    fs.sync_dir(Path::new("d")).unwrap();
    assert_eq!(outcomes(&fs), BTreeSet::from([b"new".to_vec()]));
    fs.remove_file(Path::new(FILE)).unwrap();
    assert!(!fs.exists(Path::new(FILE)));
    assert_eq!(survives(&fs, FILE), BTreeSet::from([false, true]));
}

#[test]
fn what_a_failed_sync_covered_stays_in_doubt() {
    let fs = disk_with(&[0; 1024]);
    let file = open(&fs);
    file.write_all_at(&[1; 512], 0).unwrap();
    fs.set_faults(Faults {
        fail_sync_at: Some(fs.syncs()),
        ..Faults::default()
    });
    assert!(file.sync_data().is_err());
    file.write_all_at(&[2; 512], 512).unwrap();
    file.sync_data().unwrap();
    let found: BTreeSet<(u8, u8)> = outcomes(&fs)
        .into_iter()
        .map(|data| (data[0], data[512]))
        .collect();
    assert_eq!(found, BTreeSet::from([(0, 2), (1, 2)]));
    file.write_all_at(&[1; 512], 0).unwrap();
    file.sync_data().unwrap();
    let again: BTreeSet<Vec<u8>> = outcomes(&fs).into_iter().collect();
    assert_eq!(again, BTreeSet::from([[[1; 512], [2; 512]].concat()]));
}

#[test]
fn only_what_is_written_again_is_no_longer_in_doubt() {
    let fs = disk_with(&[0; 1536]);
    let file = open(&fs);
    file.write_all_at(&[1; 1536], 0).unwrap();
    fs.set_faults(Faults {
        fail_sync_at: Some(fs.syncs()),
        ..Faults::default()
    });
    assert!(file.sync_data().is_err());
    drop(file);
    let fs = fs.restart();
    let file = open(&fs);
    file.write_all_at(&[2; 10], 600).unwrap();
    file.sync_data().unwrap();
    let found: BTreeSet<[u8; 4]> = outcomes(&fs)
        .into_iter()
        .map(|data| [data[0], data[512], data[600], data[1024]])
        .collect();
    let firsts = [[0, 0], [0, 1], [1, 0], [1, 1]];
    let all = firsts.map(|[first, last]| [first, 1, 2, last]);
    assert_eq!(found, BTreeSet::from(all));
}

#[test]
fn faults_come_when_asked_for() {
    let fs = disk_with(b"");
    let file = open(&fs);
    fs.set_faults(Faults {
        capacity_bytes: Some(10),
        ..Faults::default()
    });
    file.write_all_at(&[1; 10], 0).unwrap();
    let full = file.write_all_at(&[1; 1], 10).unwrap_err();
    assert_eq!(full.raw_os_error(), Some(libc::ENOSPC));
    file.write_all_at(&[1; 10], 0).unwrap();

    fs.set_faults(Faults {
        halt_at: Some(fs.operations() + 1),
        ..Faults::default()
    });
    file.write_all_at(&[3; 1], 0).unwrap();
    assert!(file.write_all_at(&[4; 1], 1).is_err());
    assert!(fs.list(Path::new("d")).is_err());
    assert_eq!(fs.contents(Path::new(FILE)).unwrap()[..2], [3, 1]);
}

#[test]
fn locks_belong_to_open_files_and_die_with_the_process() {
    let fs = disk_with(b"");
    let (first, second) = (open(&fs), open(&fs));
    assert!(first.try_lock(LockKind::Record).unwrap());
    assert!(first.try_lock(LockKind::Record).unwrap());
    assert!(!second.try_lock(LockKind::Record).unwrap());
    assert!(second.try_lock(LockKind::Flock).unwrap());
    drop(first);
    assert!(second.try_lock(LockKind::Record).unwrap());
    assert!(!open(&fs).try_lock(LockKind::FlockShared).unwrap());
    let other = disk_with(b"");
    let readers = [open(&other), open(&other)];
    assert!(
        readers
            .iter()
            .all(|reader| reader.try_lock(LockKind::FlockShared).unwrap())
    );
    assert!(!open(&other).try_lock(LockKind::Flock).unwrap());
    drop(readers);
    assert!(open(&other).try_lock(LockKind::Flock).unwrap());

    second.write_all_at(b"unsynced", 0).unwrap();
    let next = fs.restart();
    assert!(second.len().is_err());
    assert!(second.write_all_at(b"x", 0).is_err());
    let third = open(&next);
    assert!(third.try_lock(LockKind::Record).unwrap());
    drop(second);
    assert!(!open(&next).try_lock(LockKind::Record).unwrap());
    assert_eq!(next.contents(Path::new(FILE)).unwrap(), b"unsynced");
    let all = [&b""[..], &[0; 8], b"unsynced"].map(<[u8]>::to_vec);
    assert_eq!(outcomes(&next), BTreeSet::from(all));
}
