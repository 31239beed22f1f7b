//! Readers on other threads while a writer commits.

use std::sync::atomic::{AtomicBool, Ordering};

use super::{Place, assert_sound};
use crate::bolt::{Db, Options};

const KEYS: u32 = 400;

/// Sets every key to the round's number, with lengths that make pages split and merge.
fn write_round(db: &Db, round: u32) {
    let mut tx = db.begin_write().unwrap();
    tx.create_bucket(b"key").unwrap();
    for key in 0..KEYS {
        let mut value = round.to_be_bytes().to_vec();
        value.resize(4 + (round * 37 + key) as usize % 300, 0);
        tx.put(b"key", &key.to_be_bytes(), &value).unwrap();
    }
    tx.commit().unwrap();
}

/// All keys show one round; returns it.
fn read_round(db: &Db) -> u32 {
    let tx = db.begin_read();
    let mut cursor = tx.cursor(b"key").unwrap();
    let mut rounds = Vec::new();
    while let Some((_, value)) = cursor.next().unwrap() {
        rounds.push(u32::from_be_bytes(value[..4].try_into().unwrap()));
    }
    assert_eq!(rounds.len(), KEYS as usize);
    assert!(rounds.iter().all(|round| *round == rounds[0]));
    let one = tx.get(b"key", &7u32.to_be_bytes()).unwrap().unwrap();
    assert_eq!(one[..4], rounds[0].to_be_bytes());
    rounds[0]
}

#[test]
fn readers_see_one_state_while_a_writer_commits() {
    let place = Place::new();
    let options = Options {
        page_size: Some(1024),
        cache_bytes: 256 << 10,
        grow_bytes: 64 << 10,
        ..Options::default()
    };
    let db = place.open(&options).unwrap();
    write_round(&db, 0);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let mut last = 0;
                while !done.load(Ordering::Relaxed) {
                    let round = read_round(&db);
                    assert!(round >= last);
                    last = round;
                }
            });
        }
        for round in 1..150 {
            write_round(&db, round);
        }
        done.store(true, Ordering::Relaxed);
    });
    assert_eq!(db.open_readers(), 0);
    assert_sound(&db);
}

#[test]
fn pages_are_reused_once_no_older_reader_is_left() {
    let place = Place::new();
    let options = Options {
        grow_bytes: 4096,
        ..Options::default()
    };
    let db = place.open(&options).unwrap();
    // Values have the same lengths every 300 rounds.
    for round in 0..300 {
        write_round(&db, round);
    }
    let settled = db.size();
    for round in 300..320 {
        write_round(&db, round);
    }
    assert!(
        db.size() <= settled,
        "without readers the file does not grow"
    );
    let reader = db.begin_read();
    assert_eq!(db.open_readers(), 1);
    for round in 320..340 {
        write_round(&db, round);
    }
    let held = db.size();
    assert!(held > settled, "a reader's pages are not reused");
    assert_eq!(
        reader.get(b"key", &7u32.to_be_bytes()).unwrap().unwrap()[..4],
        319u32.to_be_bytes()
    );
    drop(reader);
    for round in 340..360 {
        write_round(&db, round);
    }
    assert!(db.size() <= held);
    assert_sound(&db);
}
