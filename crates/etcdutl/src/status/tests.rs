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
    assert!(read(&path, WAIT).is_ok());
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
