//! Power failures and dying processes at every step: what was committed is there, and what was
//! being committed is there as a whole or not at all.

use std::path::Path;
use std::sync::Arc;

use super::model::random_tx;
use super::{Model, assert_holds, assert_sound, contents};
use crate::bolt::{Db, Error, Options};
use crate::simfs::{Faults, Rng, SimFs};

const PATH: &str = "/db";

fn options() -> Options {
    Options {
        page_size: Some(1024),
        grow_bytes: 64 << 10,
        ..Options::default()
    }
}

fn open(fs: &SimFs) -> Result<Db, Error> {
    Db::open(Arc::new(fs.clone()), Path::new(PATH), options())
}

/// States that a crash may leave: the last one that was acknowledged, and the one in doubt.
#[derive(Default)]
struct Expected {
    acknowledged: Model,
    in_doubt: Model,
}

fn run(fs: &SimFs, seed: u64, txs: usize, expected: &mut Expected) -> Result<(), Error> {
    commit_some(&open(fs)?, seed, txs, expected)
}

/// Commits `txs` small transactions, until something fails.
fn commit_some(db: &Db, seed: u64, txs: usize, expected: &mut Expected) -> Result<(), Error> {
    let mut random = Rng::new(seed);
    for _ in 0..txs {
        let mut next = expected.acknowledged.clone();
        let mut tx = db.begin_write()?;
        for _ in 0..2 {
            let name = [&b"key"[..], b"meta"][random.below(2) as usize];
            tx.create_bucket(name)?;
            let bucket = next.entry(name.to_vec()).or_default();
            for _ in 0..random.below(30) {
                let key = random.below(200).to_be_bytes();
                if random.one_in(3) {
                    tx.delete(name, &key)?;
                    bucket.remove(&key[..]);
                } else {
                    let len = if random.one_in(10) { 5_000 } else { 200 };
                    let value = vec![random.next_u64() as u8; random.below(len) as usize];
                    tx.put(name, &key, &value)?;
                    bucket.insert(key.to_vec(), value);
                }
            }
        }
        expected.in_doubt.clone_from(&next);
        tx.commit()?;
        expected.acknowledged = next;
    }
    Ok(())
}

/// The database is sound and in one of the expected states; it goes on from there.
fn assert_recovers(fs: &SimFs, expected: &Expected, seed: u64) {
    let db = open(fs).unwrap();
    assert_sound(&db);
    let mut model = contents(&db.begin_read()).unwrap();
    assert!(
        model == expected.acknowledged || model == expected.in_doubt,
        "neither the old nor the new state"
    );
    random_tx(&db, &mut model, &mut Rng::new(seed));
    drop(db);
    let db = open(fs).unwrap();
    assert_holds(&db.begin_read(), &model);
    assert_sound(&db);
}

#[test]
fn a_crash_at_any_step_leaves_the_old_or_the_new_state() {
    for seed in 0..3 {
        for halt_at in 0.. {
            let fs = SimFs::new();
            fs.set_faults(Faults {
                halt_at: Some(halt_at),
                ..Faults::default()
            });
            let mut expected = Expected::default();
            let done = run(&fs, seed, 6, &mut expected).is_ok();
            for outcome in 0..4 {
                let disk = fs.crash(&mut Rng::new(halt_at * 10 + outcome));
                assert_recovers(&disk, &expected, seed + outcome);
            }
            if done {
                break;
            }
        }
    }
}

#[test]
fn a_power_failure_after_a_dead_process_loses_nothing() {
    // The first process dies between writing and syncing its meta page; the second one builds on
    // what it finds; then the power fails.
    for seed in 0..3 {
        for halt_at in 0.. {
            let fs = SimFs::new();
            fs.set_faults(Faults {
                halt_at: Some(halt_at),
                ..Faults::default()
            });
            let mut expected = Expected::default();
            let done = run(&fs, seed, 3, &mut expected).is_ok();
            let fs = fs.restart();
            let more = 1 + halt_at % 9;
            let halt_at = Some(fs.operations() + more);
            fs.set_faults(Faults {
                halt_at,
                ..Faults::default()
            });
            let found = open(&fs).and_then(|db| contents(&db.begin_read()));
            let Ok(found) = found else {
                continue;
            };
            let mut expected = Expected {
                acknowledged: found.clone(),
                in_doubt: found,
            };
            let _ = run(&fs, seed + 1, 2, &mut expected);
            for outcome in 0..4 {
                let disk = fs.crash(&mut Rng::new(seed * 1000 + more * 10 + outcome));
                assert_recovers(&disk, &expected, seed + outcome);
            }
            if done {
                break;
            }
        }
    }
}

#[test]
fn a_failed_sync_stops_the_database() {
    for seed in 0..3 {
        for fail_sync_at in 0.. {
            let fs = SimFs::new();
            let faults = Faults {
                fail_sync_at: Some(fail_sync_at),
                ..Faults::default()
            };
            fs.set_faults(faults);
            let mut expected = Expected::default();
            let db = match open(&fs) {
                Ok(db) => db,
                Err(e) => {
                    assert!(matches!(e, Error::Open { .. }));
                    continue;
                }
            };
            let before = db.begin_read().id();
            let result = commit_some(&db, seed, 4, &mut expected);
            if result.is_ok() {
                break;
            }
            assert!(matches!(result, Err(Error::Io { .. })));
            assert!(matches!(db.begin_write(), Err(Error::Poisoned)));
            // What was durable before can still be read.
            assert_holds(&db.begin_read(), &expected.acknowledged);
            assert!(db.begin_read().id() >= before);
            drop(db);
            for outcome in 0..4 {
                let disk = fs.crash(&mut Rng::new(outcome));
                assert_recovers(&disk, &expected, seed + outcome);
            }
        }
    }
}

#[test]
fn a_full_disk_fails_one_commit_and_not_the_next() {
    let fs = SimFs::new();
    let db = open(&fs).unwrap();
    let capacity_bytes = Some(100 << 10);
    fs.set_faults(Faults {
        capacity_bytes,
        ..Faults::default()
    });
    let mut tx = db.begin_write().unwrap();
    tx.create_bucket(b"key").unwrap();
    tx.put(b"key", b"large", &[1; 150 << 10]).unwrap();
    assert!(matches!(tx.commit(), Err(Error::Io { .. })));
    assert!(db.begin_read().buckets().unwrap().is_empty());
    assert_sound(&db);
    let mut tx = db.begin_write().unwrap();
    tx.create_bucket(b"key").unwrap();
    tx.put(b"key", b"small", b"1").unwrap();
    tx.commit().unwrap();
    assert_sound(&db);
    drop(db);
    let db = open(&fs.crash(&mut Rng::new(1))).unwrap();
    assert_eq!(db.begin_read().get(b"key", b"small").unwrap().unwrap(), "1");
}
