//! On the file system of the machine.

use std::time::{Duration, Instant};

use super::*;
use crate::fs::RealFs;

fn options() -> Options {
    Options {
        segment_bytes: 1 << 20,
        zero_ahead: true,
    }
}

#[test]
fn zeros_are_written_ahead_and_never_over_the_log() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("wal");
    let fs: Arc<dyn Fs> = Arc::new(RealFs);
    let mut wal = Wal::create(Arc::clone(&fs), &dir, &METADATA, options()).unwrap();
    let first = dir.join("0000000000000000-0000000000000000.wal");
    let deadline = Instant::now() + Duration::from_secs(30);
    let mut index = 0;
    // Write while the zeros are being written, over several segments.
    while index < 3000 || std::fs::metadata(&first).unwrap().len() < options().segment_bytes {
        assert!(Instant::now() < deadline);
        index += 1;
        wal.append(state(1, index - 1), &[entry(index, 1, 1000)])
            .unwrap();
        wal.sync().unwrap();
    }
    wal.append(state(1, index), &[]).unwrap();
    wal.close().unwrap();
    assert_eq!(std::fs::metadata(&first).unwrap().len() % 8, 0);
    let (from, applied) = (WalSnapshot::default(), Applied::default());
    let (wal, recovered) = Wal::open(Arc::clone(&fs), &dir, from, applied, options()).unwrap();
    assert_eq!(recovered.entries.len() as u64, index);
    assert_eq!(recovered.hard_state, state(1, index).unwrap());
    let locked = Wal::open(Arc::clone(&fs), &dir, from, applied, options());
    assert!(matches!(locked, Err(Error::Locked(_))));
    drop(wal);
    let names = fs.list(&dir).unwrap();
    assert!(names.iter().all(|name| name.ends_with(".wal")), "{names:?}");
    let purged = purge(&*fs, &dir, 2).unwrap();
    assert_eq!(purged.len(), names.len() - 2);
}
