//! Defragmentation: nothing is lost, readers stay, and the file becomes as short as it can.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use super::model::random_tx;
use super::{Model, Place, assert_holds, assert_sound, contents};
use crate::bolt::{CUT_BYTES_MAX, Db, Defrag, Error, Options};
use crate::simfs::{Faults, Rng, SimFs};

fn options() -> Options {
    Options {
        page_size: Some(1024),
        grow_bytes: 16 << 10,
        cache_bytes: 1 << 20,
        ..Options::default()
    }
}

/// Runs to the end; returns the pages that were written.
fn defragment(db: &Db) -> u64 {
    let mut run = Defrag::default();
    let mut pages = 0;
    for _ in 0..10_000 {
        let step = db.defragment(&mut run).unwrap();
        pages += step.pages;
        if step.done {
            return pages;
        }
    }
    panic!("it never ends");
}

fn fill(db: &Db, model: &mut Model, keys: u32, length: impl Fn(u32) -> usize) {
    for range in (0..keys).collect::<Vec<_>>().chunks(500) {
        let mut tx = db.begin_write().unwrap();
        for name in [&b"key"[..], b"lease"] {
            tx.create_bucket(name).unwrap();
            let bucket = model.entry(name.to_vec()).or_default();
            for key in range {
                let (key, value) = (key.to_be_bytes(), vec![*key as u8; length(*key)]);
                tx.put(name, &key, &value).unwrap();
                bucket.insert(key.to_vec(), value);
            }
        }
        tx.commit().unwrap();
    }
}

fn remove(db: &Db, model: &mut Model, doomed: impl Fn(u32) -> bool) {
    let mut tx = db.begin_write().unwrap();
    for (name, bucket) in model.iter_mut() {
        let keys: Vec<Vec<u8>> = bucket
            .keys()
            .filter(|key| doomed(u32::from_be_bytes(key[..4].try_into().unwrap())))
            .cloned()
            .collect();
        let changes: Vec<(Bytes, Option<Bytes>)> =
            keys.iter().map(|key| (key.clone().into(), None)).collect();
        tx.apply_sorted(name, &changes).unwrap();
        keys.iter().for_each(|key| drop(bucket.remove(key)));
    }
    tx.commit().unwrap();
}

fn live_bytes(model: &Model) -> u64 {
    let items = model.values().flatten();
    items
        .map(|(key, value)| (key.len() + value.len() + 16) as u64)
        .sum()
}

#[test]
fn the_file_shrinks_to_what_is_live() {
    type Doomed = fn(u32) -> bool;
    let cases: [(Doomed, usize); 7] = [
        (|key| key % 2 == 0, 480),
        (|key| key % 5 != 0, 100),
        (|key| key < 3_500, 100),
        (|key| key >= 1_000, 100),
        (|key| key % 1000 > 100, 100),
        (|key| key % 3 != 1, 3_000),
        (|_| true, 100),
    ];
    for (doomed, length) in cases {
        let place = Place::new();
        let db = place.open(&options()).unwrap();
        let mut model = Model::new();
        fill(&db, &mut model, 4_000, |key| {
            length * (1 + key as usize % 3) / 2
        });
        remove(&db, &mut model, doomed);
        let (size, file) = (db.size(), db.file_bytes().unwrap());
        defragment(&db);
        assert_holds(&db.begin_read(), &model);
        assert_sound(&db);
        let shrunk = db.size();
        let (live, room) = (live_bytes(&model), 200 << 10);
        let allowed = if length < 400 {
            live * 5 / 4
        } else {
            live * 3 / 2
        } + room;
        assert!(db.size() <= allowed, "{} of {size}, {live} live", db.size());
        assert!(db.file_bytes().unwrap() <= db.size() + (16 << 10));
        assert!(db.file_bytes().unwrap() < file);
        // There is nothing left to do.
        assert!(defragment(&db) <= 20);
        assert!(db.size() <= shrunk);
        drop(db);
        let db = place.open(&options()).unwrap();
        assert_holds(&db.begin_read(), &model);
        assert_sound(&db);
        random_tx(&db, &mut model, &mut Rng::new(1));
        assert_holds(&db.begin_read(), &model);
    }
}

#[test]
fn a_long_file_is_cut_piece_by_piece() {
    let place = Place::new();
    let db = place.open(&options()).unwrap();
    let values = 3 * CUT_BYTES_MAX / (4 << 20);
    for key in 0..values as u32 {
        let mut tx = db.begin_write().unwrap();
        tx.create_bucket(b"key").unwrap();
        tx.put(b"key", &key.to_be_bytes(), &vec![0; 4 << 20])
            .unwrap();
        tx.commit().unwrap();
    }
    let mut tx = db.begin_write().unwrap();
    tx.delete_bucket(b"key").unwrap();
    tx.commit().unwrap();
    let mut run = Defrag::default();
    let mut bytes = db.file_bytes().unwrap();
    assert!(bytes > 3 * CUT_BYTES_MAX);
    loop {
        let step = db.defragment(&mut run).unwrap();
        let now = db.file_bytes().unwrap();
        assert!(bytes - now <= CUT_BYTES_MAX, "cut from {bytes} to {now}");
        bytes = now;
        if step.done {
            break;
        }
    }
    assert!(bytes <= 16 << 10, "{bytes} are left");
    assert_sound(&db);
}

#[test]
fn a_step_reads_few_long_values() {
    let place = Place::new();
    let db = place.open(&options()).unwrap();
    let values = 8;
    let mut tx = db.begin_write().unwrap();
    tx.create_bucket(b"key").unwrap();
    for key in 0..values {
        tx.put(b"key", &[key], &vec![key; 1 << 20]).unwrap();
    }
    tx.commit().unwrap();
    let mut run = Defrag::default();
    let mut steps = 1;
    while !db.defragment(&mut run).unwrap().done {
        steps += 1;
    }
    // Each is as long as what a step looks at.
    assert!(steps >= values, "{steps}");
    assert_sound(&db);
}

#[test]
fn an_empty_database_has_nothing_to_give() {
    let place = Place::new();
    let db = place.open(&Options::default()).unwrap();
    defragment(&db);
    assert_sound(&db);
    assert_eq!(db.size(), 4 * u64::from(db.page_size()));
}

#[test]
fn readers_keep_their_state_and_its_image() {
    let place = Place::new();
    let db = place.open(&options()).unwrap();
    let mut model = Model::new();
    fill(&db, &mut model, 5_000, |_| 100);
    let before = model.clone();
    let reader = db.begin_read();
    let mut image = reader.image();
    let mut bytes = image.next().unwrap().unwrap().to_vec();
    remove(&db, &mut model, |key| key % 4 != 0);
    defragment(&db);
    assert_holds(&reader, &before);
    assert!(db.file_bytes().unwrap() >= reader.size());
    for chunk in image {
        bytes.extend_from_slice(&chunk.unwrap());
    }
    let copy = Place::new();
    std::fs::write(&copy.path, bytes).unwrap();
    let copied = copy.open(&options()).unwrap();
    assert_holds(&copied.begin_read(), &before);
    assert!(copied.check().unwrap().is_sound());
    let held = db.size();
    drop(reader);
    defragment(&db);
    assert!(db.size() < held / 2, "{} of {held}", db.size());
    assert_holds(&db.begin_read(), &model);
    assert_sound(&db);
}

#[test]
fn steps_between_random_transactions() {
    for (seed, page_size) in [(1, 1024), (2, 4096), (3, 16384)] {
        let place = Place::new();
        let mut random = Rng::new(seed);
        let mut model = Model::new();
        let options = Options {
            page_size: Some(page_size),
            ..options()
        };
        let mut db = place.open(&options).unwrap();
        let mut run = Defrag::default();
        let mut held = Vec::new();
        for round in 0..40 {
            random_tx(&db, &mut model, &mut random);
            if random.one_in(3) {
                held.push((db.begin_read(), model.clone()));
            }
            for _ in 0..random.below(4) {
                if db.defragment(&mut run).unwrap().done {
                    run = Defrag::default();
                }
            }
            assert_sound(&db);
            assert_holds(&db.begin_read(), &model);
            for (tx, model) in &held {
                assert_holds(tx, model);
            }
            if round % 9 == 0 {
                held.clear();
                drop(db);
                db = place.open(&options).unwrap();
                assert_sound(&db);
            }
        }
    }
}

fn open(fs: &SimFs) -> Result<Db, Error> {
    Db::open(Arc::new(fs.clone()), Path::new("/db"), options())
}

/// Fills, deletes and defragments, until something fails; the model is of the last state that was
/// acknowledged. Steps change no content.
fn live(fs: &SimFs) -> Result<(), Error> {
    let db = open(fs)?;
    let mut run = Defrag::default();
    while !db.defragment(&mut run)?.done {}
    let mut tx = db.begin_write()?;
    tx.put(b"key", b"after", &[1; 3000])?;
    tx.commit()?;
    Ok(())
}

#[test]
fn a_crash_in_any_step_loses_nothing() {
    let whole = SimFs::new();
    let mut model = Model::new();
    {
        let db = open(&whole).unwrap();
        fill(&db, &mut model, 500, |key| 50 + key as usize % 40 * 30);
        remove(&db, &mut model, |key| key % 5 > 1);
    }
    let mut after = model.clone();
    let bucket = after.get_mut(&b"key"[..]).unwrap();
    bucket.insert(b"after".to_vec(), vec![1; 3000]);
    let mut steps = 0;
    for halt_at in 0.. {
        let fs = whole.crash(&mut Rng::new(1));
        let begin = fs.operations();
        fs.set_faults(Faults {
            halt_at: Some(begin + halt_at),
            ..Faults::default()
        });
        let done = live(&fs).is_ok();
        for outcome in 0..2 {
            let disk = fs.crash(&mut Rng::new(halt_at * 10 + outcome));
            let db = open(&disk).unwrap();
            assert_sound(&db);
            let found = contents(&db.begin_read()).unwrap();
            assert!(found == model || found == after, "at {halt_at}");
            defragment(&db);
            assert_sound(&db);
            assert_holds(&db.begin_read(), &found);
        }
        steps += 1;
        if done {
            break;
        }
    }
    assert!(steps > 20, "{steps}");
}
