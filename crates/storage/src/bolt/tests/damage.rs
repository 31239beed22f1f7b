//! Damaged files: an error or the same data, never a panic, a hang or a huge allocation.

use std::path::Path;
use std::sync::Arc;

use super::{Model, contents};
use crate::bolt::{Damage, Db, Error, Options, PageId};
use crate::simfs::{Rng, SimFs};

const PATH: &str = "/db";
const PAGE: usize = 1024;

fn open(fs: &SimFs) -> Result<Db, Error> {
    let options = Options {
        grow_bytes: 1,
        page_size: Some(PAGE as u32),
        ..Options::default()
    };
    Db::open(Arc::new(fs.clone()), Path::new(PATH), options)
}

/// A file with every kind of page: meta, branch, leaf, overflow, free.
fn sample() -> (Vec<u8>, Model, Model) {
    let fs = SimFs::new();
    let db = open(&fs).unwrap();
    let mut before = Model::new();
    for round in 0..3u8 {
        before = contents(&db.begin_read()).unwrap();
        let mut tx = db.begin_write().unwrap();
        for name in [&b"key"[..], b"meta"] {
            tx.create_bucket(name).unwrap();
            for i in 0..60u8 {
                if i % 7 == round {
                    tx.delete(name, &[name[0], i]).unwrap();
                } else {
                    tx.put(name, &[name[0], i], &[round; 40]).unwrap();
                }
            }
        }
        tx.put(b"key", b"large", &[round; 3_000]).unwrap();
        tx.commit().unwrap();
    }
    let now = contents(&db.begin_read()).unwrap();
    (fs.contents(Path::new(PATH)).unwrap(), now, before)
}

/// Uses everything that reads the file, then changes it.
fn exercise(fs: &SimFs) -> Result<Model, Error> {
    let db = open(fs)?;
    let report = db.check()?;
    let tx = db.begin_read();
    let found = contents(&tx);
    for chunk in tx.image() {
        chunk?;
    }
    if let Ok(found) = &found {
        for (name, bucket) in found {
            for (key, value) in bucket {
                assert_eq!(tx.get(name, key)?.as_deref(), Some(&value[..]));
            }
        }
    } else {
        assert!(
            !report.is_sound(),
            "the check must see what reading stumbles over"
        );
    }
    let mut write = db.begin_write()?;
    write.create_bucket(b"key")?;
    for i in (0..=255u8).step_by(16) {
        write.put(b"key", &[b'k', i], &[9; 30])?;
        write.delete(b"meta", &[b'm', i])?;
    }
    write.commit()?;
    found
}

fn differing_entries(a: &Model, b: &Model) -> usize {
    let entries = |model: &Model| -> std::collections::BTreeSet<_> {
        let pairs = model.iter().flat_map(|(name, bucket)| {
            bucket
                .iter()
                .map(|(key, value)| (name.clone(), key.clone(), value.clone()))
        });
        pairs.collect()
    };
    entries(a).symmetric_difference(&entries(b)).count()
}

#[test]
fn a_flipped_byte_is_an_error_or_harms_one_page() {
    let (bytes, now, before) = sample();
    let mut random = Rng::new(1);
    let (mut errors, mut harmless) = (0, 0);
    for at in 0..bytes.len() {
        // Bytes of values and unused space outnumber the interesting ones.
        let interesting = at % PAGE < 48 || at < 2 * PAGE && at % PAGE < 128;
        if !interesting && !random.one_in(16) {
            continue;
        }
        let mut damaged = bytes.clone();
        damaged[at] ^= match random.below(3) {
            0 => 0xFF,
            1 => 1 << random.below(8),
            _ => 1 + random.below(255) as u8,
        };
        let fs = SimFs::new();
        fs.plant(Path::new(PATH), &damaged).unwrap();
        match exercise(&fs) {
            Err(_) => errors += 1,
            Ok(found) if found == now || found == before => harmless += 1,
            // Names, keys, values and lengths within a leaf, which no checksum covers.
            Ok(found) => {
                assert!(at >= 2 * PAGE);
                if found.keys().eq(now.keys()) {
                    let differing = differing_entries(&found, &now);
                    assert!(
                        differing <= 2 * PAGE / 40,
                        "{differing} entries at byte {at}"
                    );
                }
            }
        }
    }
    assert!(
        errors > 200 && harmless > 200,
        "{errors} errors, {harmless} without effect"
    );
}

#[test]
fn a_file_cut_short_or_of_noise_is_an_error() {
    let (bytes, now, _) = sample();
    let mut random = Rng::new(2);
    for len in (1..bytes.len()).step_by(97) {
        let fs = SimFs::new();
        fs.plant(Path::new(PATH), &bytes[..len]).unwrap();
        assert!(exercise(&fs).is_err(), "{len} bytes");
    }
    for _ in 0..200 {
        let mut damaged = bytes.clone();
        let from = random.below(bytes.len() as u64) as usize;
        let to = (from + random.below(3_000) as usize).min(bytes.len());
        damaged[from..to].fill_with(|| random.next_u64() as u8);
        let fs = SimFs::new();
        fs.plant(Path::new(PATH), &damaged).unwrap();
        if let Ok(found) = exercise(&fs) {
            assert!(differing_entries(&found, &now) <= now.values().map(|b| b.len()).sum());
        }
    }
}

#[test]
fn pages_in_the_place_of_others_are_found_or_read_as_they_are() {
    let (bytes, ..) = sample();
    let mut random = Rng::new(3);
    let pages = (bytes.len() / PAGE) as u64;
    let mut errors = 0;
    for _ in 0..400 {
        let (from, to) = (
            random.below(pages) as usize,
            2 + random.below(pages - 2) as usize,
        );
        let mut damaged = bytes.clone();
        damaged[to * PAGE..(to + 1) * PAGE].copy_from_slice(&bytes[from * PAGE..(from + 1) * PAGE]);
        // Also with the right page id, as if a write had gone astray after it was labelled.
        if random.one_in(2) {
            damaged[to * PAGE..to * PAGE + 8].copy_from_slice(&(to as u64).to_le_bytes());
        }
        let fs = SimFs::new();
        fs.plant(Path::new(PATH), &damaged).unwrap();
        // A stale page that fits its place is beyond what the format can tell.
        errors += u32::from(exercise(&fs).is_err());
    }
    assert!(errors > 100, "{errors} errors");
}

#[test]
fn a_tree_that_loops_is_an_error() {
    let (bytes, ..) = sample();
    let branch = (2..bytes.len() / PAGE)
        .find(|page| bytes[page * PAGE + 8] == 1 && bytes[page * PAGE + 10] > 1)
        .unwrap();
    let id = bytes[branch * PAGE..branch * PAGE + 8].to_vec();
    let mut damaged = bytes.clone();
    damaged[branch * PAGE + 16 + 8..branch * PAGE + 16 + 16].copy_from_slice(&id);
    let fs = SimFs::new();
    fs.plant(Path::new(PATH), &damaged).unwrap();
    let shared = Damage::SharedPage;
    let page = PageId(branch as u64);
    match open(&fs) {
        Err(Error::Damaged {
            page: found,
            damage,
        }) => assert_eq!((found, damage), (page, shared)),
        Err(e) => panic!("{e}"),
        // The branch may belong to the state before.
        Ok(db) => assert!(db.check().unwrap().is_sound()),
    }
}

#[test]
fn one_damaged_meta_page_is_survived() {
    let (bytes, now, before) = sample();
    for slot in 0..2 {
        let mut damaged = bytes.clone();
        damaged[slot * PAGE + 40] ^= 1;
        let fs = SimFs::new();
        fs.plant(Path::new(PATH), &damaged).unwrap();
        let db = open(&fs).unwrap();
        let found = contents(&db.begin_read()).unwrap();
        assert!(found == now || found == before);
        assert_eq!(db.lost_meta(), Some(PageId(slot as u64)));
        // The next commit writes where the damage is.
        let mut tx = db.begin_write().unwrap();
        tx.put(b"key", b"one more", b"").unwrap();
        tx.commit().unwrap();
        drop(db);
        assert_eq!(open(&fs).unwrap().lost_meta(), None);
    }
    let mut damaged = bytes;
    damaged[40] ^= 1;
    damaged[PAGE + 40] ^= 1;
    let fs = SimFs::new();
    fs.plant(Path::new(PATH), &damaged).unwrap();
    assert!(matches!(open(&fs), Err(Error::NoValidMeta { .. })));
}
