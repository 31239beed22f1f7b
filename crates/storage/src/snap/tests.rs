use super::*;
use crate::log::ConfState;
use crate::simfs::{Faults, Rng, SimFs};

fn snapshot(term: u64, index: u64) -> Snapshot {
    let conf = ConfState {
        voters: vec![0x07e7_44ce_af96_c366],
        ..ConfState::default()
    };
    let meta = SnapshotMeta {
        index: LogIndex(index),
        term: Term(term),
        conf,
    };
    Snapshot {
        meta,
        data: Bytes::from_static(b"{\"Root\":null}"),
    }
}

fn disk() -> SimFs {
    let fs = SimFs::new();
    fs.create_dir_all(Path::new("snap")).unwrap();
    fs.sync_dir(Path::new("/")).unwrap();
    fs
}

const DIR: &str = "snap";

#[test]
fn a_file_has_the_bytes_of_the_format() {
    let fs = disk();
    let path = save(&fs, Path::new(DIR), &snapshot(2, 0x21)).unwrap().path;
    assert_eq!(
        path,
        Path::new("snap/0000000000000002-0000000000000021.snap")
    );
    let contents = fs.contents(&path).unwrap();
    let inner = b"\x0a\x0d{\"Root\":null}\x12\x12\x0a\x0c\x08\xe6\x86\xdb\xfc\xea\x99\xd1\xf3\x07\x28\x00\x10\x21\x18\x02";
    let mut wanted = Vec::new();
    put_uint(&mut wanted, 1, crc32c::crc32c(inner).into());
    put_bytes(&mut wanted, 2, inner);
    assert_eq!(contents, wanted);
    assert_eq!(read(&fs, &path).unwrap(), snapshot(2, 0x21));
    assert_eq!(fs.list(Path::new(DIR)).unwrap().len(), 1);
}

#[test]
fn the_newest_sound_and_wanted_file_is_loaded() {
    let fs = disk();
    let dir = Path::new(DIR);
    for (term, index) in [(1, 9), (2, 3), (2, 5), (3, 4)] {
        save(&fs, dir, &snapshot(term, index)).unwrap();
    }
    fs.plant(&dir.join("0000000000000003-0000000000000004.snap"), b"")
        .unwrap();
    fs.plant(&dir.join("db"), b"x").unwrap();
    let loaded = load_newest(&fs, dir, |meta| meta.index.0 != 5).unwrap();
    assert_eq!(loaded.newest.unwrap().1, snapshot(2, 3));
    assert_eq!(loaded.broken.len(), 1);
    assert!(fs.exists(&dir.join("0000000000000003-0000000000000004.snap.broken")));
    let none = load_newest(&fs, dir, |_| false).unwrap();
    assert!(none.newest.is_none() && none.broken.is_empty());
    assert_eq!(purge(&fs, dir, 1).unwrap().len(), 2);
    assert_eq!(
        load_newest(&fs, dir, |_| true).unwrap().newest.unwrap().1,
        snapshot(2, 5)
    );
}

#[test]
fn no_damaged_byte_passes() {
    let fs = disk();
    let path = save(&fs, Path::new(DIR), &snapshot(2, 7)).unwrap().path;
    let contents = fs.contents(&path).unwrap();
    for at in 0..contents.len() {
        for flip in [1, 0x80, 0xff] {
            let mut damaged = contents.clone();
            damaged[at] ^= flip;
            assert!(
                decode(&damaged.into()).is_err(),
                "byte {at} flipped by {flip:#x}"
            );
        }
        assert!(
            decode(&contents[..at].to_vec().into()).is_err(),
            "cut at {at}"
        );
    }
}

#[test]
fn a_crash_leaves_a_whole_file_or_none() {
    for halt in 0.. {
        let fs = disk();
        let dir = Path::new(DIR);
        fs.set_faults(Faults {
            halt_at: Some(fs.operations() + halt),
            ..Faults::default()
        });
        let saved = save(&fs, dir, &snapshot(2, 7));
        for seed in 0..30 {
            let after = fs.crash(&mut Rng::new(seed));
            let loaded = load_newest(&after, dir, |_| true).unwrap();
            assert!(loaded.broken.is_empty());
            assert!(loaded.newest.is_some() || saved.is_err());
        }
        if saved.is_ok() {
            return;
        }
    }
}
