//! Truncated and damaged logs: what is accepted is an exact prefix, and never one that may lack
//! something acknowledged.

use proptest::prelude::*;

use super::*;

const SEGMENT: &str = "data/member/wal/0000000000000000-0000000000000000.wal";

/// A log, record by record.
struct Sample {
    bytes: Vec<u8>,
    /// Offset after each record, and the entries and commit index up to there.
    ends: Vec<(usize, usize, u64)>,
    entries: Vec<Entry>,
}

impl Sample {
    /// One batch per size, each with the commit index of the one before it.
    fn new(sizes: &[usize]) -> Sample {
        let fs = disk();
        let mut wal = create(&fs, Options::inline());
        let mut entries = Vec::new();
        let mut ends = vec![(wal.offset as usize, 0, 0)];
        for (i, &size) in sizes.iter().enumerate() {
            let index = i as u64 + 1;
            entries.push(entry(index, 1, size));
            wal.append(None, &entries[i..]).unwrap();
            ends.push((wal.offset as usize, i + 1, index.saturating_sub(2)));
            wal.append(state(1, index - 1), &[]).unwrap();
            ends.push((wal.offset as usize, i + 1, index - 1));
            wal.sync().unwrap();
        }
        drop(wal);
        Sample {
            bytes: fs.contents(Path::new(SEGMENT)).unwrap(),
            ends,
            entries,
        }
    }

    /// How many entries and which commit index the records before `offset` hold.
    fn before(&self, offset: usize) -> (usize, u64) {
        let end = self.ends.iter().rfind(|end| end.0 <= offset);
        end.map_or((0, 0), |end| (end.1, end.2))
    }

    fn read(&self, bytes: &[u8], applied: u64) -> Result<Recovered, Error> {
        let fs = disk();
        fs.create_dir_all(Path::new(DIR)).unwrap();
        fs.plant(Path::new(SEGMENT), bytes).unwrap();
        let applied = Applied {
            index: LogIndex(applied),
            term: Term(applied.min(1)),
            may_lead: false,
        };
        let dir = Path::new(DIR);
        let result = read(&fs, dir, WalSnapshot::default(), applied);
        // Opening comes to the same verdict, and its repair holds.
        let shared: Arc<dyn Fs> = Arc::new(fs.clone());
        let open = || {
            let from = WalSnapshot::default();
            Wal::open(Arc::clone(&shared), dir, from, applied, Options::inline())
        };
        match (&result, open()) {
            (Ok(read), Ok((mut wal, opened))) => {
                assert_eq!(read.entries, opened.entries);
                assert_eq!(read.hard_state, opened.hard_state);
                if let Some(torn) = opened.torn {
                    let kept = fs.contents(&torn.copy.unwrap()).unwrap();
                    assert_eq!(kept[..], bytes[..kept.len()]);
                    assert!(bytes[kept.len()..].iter().all(|&b| b == 0));
                }
                let next = entry(opened.entries.len() as u64 + 1, 1, 300);
                wal.append(None, std::slice::from_ref(&next)).unwrap();
                wal.close().unwrap();
                let again = open().unwrap().1;
                assert_eq!(again.torn, None);
                assert_eq!(again.entries.last(), Some(&next));
                assert_eq!(again.entries.len(), opened.entries.len() + 1);
            }
            // Opening leaves it to its caller what a log without the snapshot is good for.
            (Err(Error::SnapshotNotFound { .. }), Ok((_, opened))) => {
                assert!(!opened.snapshot_found);
            }
            (Err(_), Err(_)) => {}
            (read, opened) => panic!("read says {read:?}, open says {opened:?}"),
        }
        result
    }
}

#[test]
fn a_truncated_log_is_accepted_below_what_was_applied_only() {
    let sample = Sample::new(&[40, 3, 900, 0, 600]);
    let head = sample.ends[0].0;
    for cut in head..=sample.bytes.len() {
        let (count, commit) = sample.before(cut);
        let recovered = sample.read(&sample.bytes[..cut], 0).unwrap();
        assert_eq!(recovered.entries, sample.entries[..count], "cut at {cut}");
        assert_eq!(recovered.hard_state.commit, LogIndex(commit));
        let at_boundary = sample.ends.iter().any(|end| end.0 == cut);
        assert_eq!(recovered.torn.is_none(), at_boundary, "cut at {cut}");
        assert!(
            sample.read(&sample.bytes[..cut], count as u64).is_ok(),
            "cut at {cut}"
        );
        assert!(
            sample.read(&sample.bytes[..cut], count as u64 + 1).is_err(),
            "cut at {cut}"
        );
    }
    // Without its head a segment is no segment.
    let snapshot_bytes = 24;
    for cut in 0..head - snapshot_bytes {
        assert!(
            sample.read(&sample.bytes[..cut], 0).is_err(),
            "cut at {cut}"
        );
    }
}

#[test]
fn no_flipped_byte_loses_an_entry() {
    let sample = Sample::new(&[40, 3, 700, 0, 17]);
    let mut padded = sample.bytes.clone();
    padded.resize(padded.len() + 1500, 0);
    for at in 0..padded.len() {
        for flip in [0x01, 0x10, 0x80, 0xff, padded[at]] {
            if flip == 0 {
                continue;
            }
            for applied in [0, 5] {
                let mut damaged = padded.clone();
                damaged[at] ^= flip;
                match sample.read(&damaged, applied) {
                    Err(_) => {}
                    Ok(recovered) => {
                        assert!(at >= sample.bytes.len(), "byte {at} flipped by {flip:#x}");
                        assert_eq!(recovered.entries, sample.entries);
                    }
                }
            }
        }
    }
}

#[test]
fn a_missing_sector_is_torn_unless_a_commit_index_follows() {
    // Both the third and the fourth entry lie over several sectors.
    let sample = Sample::new(&[40, 40, 1500, 1500]);
    let (third, fourth) = (sample.ends[4].0, sample.ends[6].0);
    let without_sector = |offset: usize| {
        let mut damaged = sample.bytes.clone();
        let sector = offset.next_multiple_of(512);
        damaged[sector..sector + 512].fill(0);
        damaged
    };
    // The hard state that follows says that the third entry was committed.
    let lost = sample.read(&without_sector(third), 0).unwrap_err();
    let Error::Damaged {
        path,
        offset,
        source: Damage::Acknowledged { lost, proof },
    } = lost
    else {
        panic!("{lost:?}");
    };
    assert_eq!((path.as_path(), offset), (Path::new(SEGMENT), third as u64));
    assert_eq!((lost, proof), (LogIndex(3), LogIndex(3)));
    let torn = sample.read(&without_sector(fourth), 3).unwrap();
    assert_eq!(torn.entries, sample.entries[..3]);
    assert!(sample.read(&without_sector(fourth), 4).is_err());
}

#[test]
fn damage_before_the_last_segment_is_never_torn() {
    let fs = disk();
    let mut wal = create(&fs, small(600));
    for index in 1..=6 {
        wal.append(state(1, index - 1), &[entry(index, 1, 400)])
            .unwrap();
        wal.sync().unwrap();
    }
    drop(wal);
    let names = fs.list(Path::new(DIR)).unwrap();
    assert!(names.len() > 2);
    let path = Path::new(DIR).join(&names[0]);
    let whole = fs.contents(&path).unwrap();
    for cut in 0..whole.len() {
        fs.plant(&path, &whole[..cut]).unwrap();
        assert!(open(&fs, small(600)).is_err(), "cut at {cut}");
        assert!(
            valid_snapshots(&fs, Path::new(DIR)).is_err(),
            "cut at {cut}"
        );
    }
    fs.plant(&path, &whole).unwrap();
    assert!(open(&fs, small(600)).is_ok());
    fs.remove_file(&Path::new(DIR).join(&names[1])).unwrap();
    assert!(matches!(open(&fs, small(600)), Err(Error::Sequence { .. })));
}

proptest! {
    /// Whatever happens to the bytes, what is accepted is a prefix that reaches everything that
    /// was applied.
    #[test]
    fn damage_is_refused_or_costs_only_a_tail(
        sizes in prop::collection::vec(0usize..1600, 1..8),
        zeroed in prop::collection::vec(any::<prop::sample::Index>(), 0..4),
        flipped in prop::collection::vec((any::<prop::sample::Index>(), 1u8..), 0..3),
        cut in prop::option::of(any::<prop::sample::Index>()),
        applied in any::<prop::sample::Index>(),
    ) {
        let sample = Sample::new(&sizes);
        let mut bytes = sample.bytes.clone();
        for sector in zeroed {
            let sector = sector.index(bytes.len()) / 512 * 512;
            let end = (sector + 512).min(bytes.len());
            bytes[sector..end].fill(0);
        }
        for (at, flip) in flipped {
            let at = at.index(bytes.len());
            bytes[at] ^= flip;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        let applied = applied.index(sizes.len() + 1);
        if let Ok(recovered) = sample.read(&bytes, applied as u64) {
            let count = recovered.entries.len();
            prop_assert!(count >= applied);
            prop_assert_eq!(&recovered.entries[..], &sample.entries[..count]);
            // Nor is a commit index passed over that is still there.
            for pair in sample.ends.windows(2) {
                let whole = bytes.get(pair[0].0..pair[1].0) == sample.bytes.get(pair[0].0..pair[1].0);
                prop_assert!(!whole || pair[1].2 <= count as u64);
            }
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
        let sample = Sample::new(&[]);
        let mut damaged = sample.bytes.clone();
        damaged.extend(bytes);
        let _ = sample.read(&damaged, 0);
    }
}
