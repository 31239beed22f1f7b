use storage::wire::{put_bytes, put_uint};

use super::*;
use crate::fixture;

const WAIT: Duration = Duration::from_millis(1);

fn hashkv(path: &Path, revision: i64) -> Result<state::KvHash, String> {
    crate::hash::read(path, revision, WAIT)
}

#[test]
fn a_snapshot_with_or_without_digest() {
    let dir = tempfile::tempdir().unwrap();
    let snapshot = fixture::snapshot(dir.path());
    let with = read(&snapshot, WAIT).unwrap();
    assert_eq!((with.revision, with.keys), (6, 2));
    assert_eq!(with.version, "3.7.0");
    assert_eq!(with.size_bytes % 1024, 0);
    let image = dir.path().join("image.db");
    let bytes = std::fs::read(&snapshot).unwrap();
    std::fs::write(&image, &bytes[..bytes.len() - 32]).unwrap();
    assert_eq!(read(&image, WAIT).unwrap(), with);
}

/// The hashes are those of a Go server with the same history.
#[test]
fn the_hash_of_a_history_is_that_of_a_server() {
    let dir = tempfile::tempdir().unwrap();
    let path = fixture::snapshot(dir.path());
    let before = std::fs::read(&path).unwrap();
    for (asked, revision, expected) in [
        (0, 6, 1_401_151_001),
        (2, 2, 3_305_255_506),
        (3, 3, 3_581_052_765),
        (4, 4, 846_839_875),
        (5, 5, 754_431_853),
    ] {
        let hash = hashkv(&path, asked).unwrap();
        assert_eq!((hash.revision, hash.hash), (revision, expected), "{asked}");
        assert_eq!(hash.compact_revision, -1);
    }
    assert_eq!(
        hashkv(&path, 7).unwrap_err(),
        "mvcc: required revision is a future revision"
    );
    assert_eq!(
        std::fs::read(&path).unwrap(),
        before,
        "the file has changed"
    );
}

#[test]
fn a_locked_database_is_waited_for_and_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let db = fixture::database(&path);
    assert_eq!(read(&path, WAIT).unwrap_err(), "timeout");
    assert_eq!(hashkv(&path, 0).unwrap_err(), "timeout");
    drop(db);
    // Others that only read are in nobody's way.
    let reader = database::open_read_only(&path, WAIT).unwrap();
    assert!(read(&path, WAIT).is_ok() && hashkv(&path, 0).is_ok());
    assert_eq!(
        database::open(&path, WAIT).err().as_deref(),
        Some("timeout")
    );
    drop(reader);
    assert!(database::open(&path, WAIT).is_ok());
}

#[test]
fn what_is_no_database_is_called_so() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    for bytes in [&b""[..], b"short", &[7; 100_000]] {
        std::fs::write(&path, bytes).unwrap();
        assert_eq!(read(&path, WAIT).unwrap_err(), "invalid database");
        assert_eq!(hashkv(&path, 0).unwrap_err(), "invalid database");
    }
}

/// Every length that the image can be cut to is refused.
#[test]
fn a_cut_image_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let image = fixture::image(dir.path());
    let path = dir.path().join("cut");
    for len in (0..image.len()).step_by(509) {
        std::fs::write(&path, &image[..len]).unwrap();
        assert!(read(&path, WAIT).is_err(), "{len}");
        assert!(hashkv(&path, 0).is_err(), "{len}");
    }
}

/// No byte, whatever it becomes, makes the tools do more than refuse or answer.
#[test]
fn a_damaged_image_is_refused_or_read() {
    let dir = tempfile::tempdir().unwrap();
    let image = fixture::image(dir.path());
    let sound = {
        let path = dir.path().join("sound");
        std::fs::write(&path, &image).unwrap();
        read(&path, WAIT).unwrap()
    };
    let path = dir.path().join("damaged");
    let (mut refused, mut changed) = (0, 0);
    for at in 2048..image.len() {
        // Pages hold little: zeros between their contents are skipped, but for a few.
        if image[at] == 0 && at % 61 != 0 {
            continue;
        }
        let mut damaged = image.clone();
        damaged[at] ^= if at % 2 == 0 { 0x80 } else { 0x01 };
        std::fs::write(&path, &damaged).unwrap();
        match read(&path, WAIT) {
            Err(_) => refused += 1,
            Ok(status) => changed += usize::from(status != sound),
        }
        // May be refused for reasons of its own, such as a record that is none.
        let _answered = hashkv(&path, 0);
    }
    assert!(refused > 100 && changed > 100, "{refused} {changed}");
}

/// Records of any shape, in a file whose pages are sound, are refused or read.
#[test]
fn records_of_any_shape() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = |below: usize| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        (seed % below as u64) as usize
    };
    let mains = [i64::MIN, -1, 0, 1, 2, 3, 4, i64::MAX - 1, i64::MAX];
    let subs = [0_u64, 0, 1, u64::from(u32::MAX), u64::MAX];
    let (mut refused, mut read_all) = (0, 0);
    for _ in 0..300 {
        let db = fixture::database(&path);
        let mut tx = db.begin_write().unwrap();
        for _ in 0..next(12) {
            let mut key = mains[next(mains.len())].to_be_bytes().to_vec();
            key.push(if next(9) == 0 { b'-' } else { b'_' });
            key.extend_from_slice(&subs[next(subs.len())].to_be_bytes());
            key.extend_from_slice([&b""[..], b"", b"t", b"tt"][next(4)]);
            let number = |n| [0, 1, 2, u64::MAX, 1 << 63][n];
            let mut record = Vec::new();
            if next(8) > 0 {
                put_bytes(&mut record, 1, ["foo", "a", "", "new"][next(4)].as_bytes());
                for field in [2, 3, 4, 6] {
                    put_uint(&mut record, field, number(next(5)));
                }
            }
            if next(20) == 0 {
                record.push(0x0a);
            }
            tx.put(b"key", &key, &record).unwrap();
        }
        let compactions = [
            &b"x"[..],
            &4_u64.to_be_bytes(),
            b"\0\0\0\0\0\0\0\x04_\0\0\0\0\0\0\0\0",
        ];
        for name in ["scheduledCompactRev", "finishedCompactRev"] {
            if next(3) == 0 {
                let value = compactions[[2, 2, 2, 2, 2, 2, 2, 2, 0, 1][next(10)]];
                tx.put(b"meta", name.as_bytes(), value).unwrap();
            }
        }
        tx.commit().unwrap();
        drop(db);
        for revision in [0, 3, 5, -1, i64::MAX] {
            match (read(&path, WAIT), hashkv(&path, revision)) {
                (Ok(_), Ok(_)) => read_all += 1,
                _ => refused += 1,
            }
        }
        std::fs::remove_file(&path).unwrap();
    }
    assert!(refused > 100 && read_all > 100, "{refused} {read_all}");
}
