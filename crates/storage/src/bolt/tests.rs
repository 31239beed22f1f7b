//! What the engine promises.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;

use super::{Db, Options, ReadTx};
use crate::fs::RealFs;

struct Dir(PathBuf);

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn dir(name: &str) -> Dir {
    let path = std::env::temp_dir().join(format!("bolt-{name}-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&path);
    std::fs::create_dir_all(&path).unwrap();
    Dir(path)
}

#[test]
fn a_committed_value_survives_reopening() {
    let dir = dir("reopen");
    let path = dir.0.join("db");
    let open = || Db::open(Arc::new(RealFs), &path, Options::default()).unwrap();
    let db = open();
    let mut tx = db.begin_write().unwrap();
    assert!(tx.create_bucket(b"key").unwrap());
    for i in 0..10_000u32 {
        tx.put(b"key", &i.to_be_bytes(), format!("value {i}").as_bytes())
            .unwrap();
    }
    tx.commit().unwrap();
    drop(db);
    let db = open();
    let tx = db.begin_read();
    assert_eq!(
        tx.get(b"key", &77u32.to_be_bytes()).unwrap().unwrap(),
        "value 77"
    );
    let mut cursor = tx.cursor(b"key").unwrap();
    let mut n = 0u32;
    while let Some((key, _)) = cursor.next().unwrap() {
        assert_eq!(key, n.to_be_bytes()[..]);
        n += 1;
    }
    assert_eq!(n, 10_000);
}

/// A small generator (xorshift64*), so that a failing run can be repeated from its seed.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
}

type Model = BTreeMap<Vec<u8>, BTreeMap<Vec<u8>, Vec<u8>>>;

fn random_value(random: &mut Random) -> Vec<u8> {
    let len = match random.below(20) {
        0 => random.below(20_000),
        1..=4 => random.below(1_500),
        _ => random.below(120),
    };
    let byte = random.next() as u8;
    vec![byte; len as usize]
}

fn random_key(random: &mut Random, keys: u64) -> Vec<u8> {
    let mut key = random.below(keys).to_be_bytes()[4..].to_vec();
    if random.below(50) == 0 {
        key.resize(4 + random.below(600) as usize, b'k');
    }
    key
}

/// One transaction of random changes on the database and on the model.
fn random_tx(db: &Db, model: &mut Model, random: &mut Random) {
    const NAMES: [&[u8]; 4] = [b"key", b"meta", b"lease", b"a"];
    let mut tx = db.begin_write().unwrap();
    let mut next = model.clone();
    let deletes = [1, 3, 9][random.below(3) as usize];
    for _ in 0..=random.below(3) {
        let name = NAMES[random.below(4) as usize];
        assert_eq!(tx.create_bucket(name).unwrap(), !next.contains_key(name));
        let bucket = next.entry(name.to_vec()).or_default();
        let keys = [30, 3_000, 100_000][random.below(3) as usize];
        let mut batch: BTreeMap<Vec<u8>, Option<Vec<u8>>> = BTreeMap::new();
        for _ in 0..random.below(400) {
            let key = match bucket
                .keys()
                .nth(random.below(bucket.len() as u64 + 1) as usize)
            {
                Some(key) if random.below(3) > 0 => key.clone(),
                _ => random_key(random, keys),
            };
            let value = (random.below(10) >= deletes).then(|| random_value(random));
            batch.insert(key, value);
        }
        if random.below(3) == 0 {
            let from = random_key(random, keys);
            let doomed = bucket.range(from..).take(random.below(3_000) as usize);
            batch.extend(
                doomed
                    .map(|(key, _)| (key.clone(), None))
                    .collect::<Vec<_>>(),
            );
        }
        if random.below(2) == 0 {
            let changes: Vec<_> = batch
                .iter()
                .map(|(key, value)| (key.clone().into(), value.clone().map(Bytes::from)))
                .collect();
            tx.apply_sorted(name, &changes).unwrap();
        } else {
            for (key, value) in &batch {
                match value {
                    Some(value) => tx.put(name, key, value).unwrap(),
                    None => {
                        assert_eq!(tx.delete(name, key).unwrap(), bucket.contains_key(key));
                    }
                }
            }
        }
        for (key, value) in batch {
            assert_eq!(tx.get(name, &key).unwrap().as_deref(), value.as_deref());
            match value {
                Some(value) => bucket.insert(key, value),
                None => bucket.remove(&key),
            };
        }
    }
    if random.below(8) > 0 {
        tx.commit().unwrap();
        *model = next;
    }
}

fn assert_holds(tx: &ReadTx, model: &Model) {
    let names = tx.buckets().unwrap();
    assert!(
        names
            .iter()
            .map(|name| &name[..])
            .eq(model.keys().map(|name| &name[..]))
    );
    for (name, bucket) in model {
        let mut cursor = tx.cursor(name).unwrap();
        for (key, value) in bucket {
            let (found_key, found_value) = cursor.next().unwrap().expect("the model has more");
            assert!(found_key == key && found_value == value);
        }
        assert!(cursor.next().unwrap().is_none());
        let last = cursor.last().unwrap().map(|(key, _)| key.to_vec());
        assert_eq!(last.as_ref(), bucket.keys().next_back());
    }
}

fn assert_sound(db: &Db) {
    let report = db.check().unwrap();
    assert!(report.is_sound(), "{:?}", report.violations);
    assert_eq!(report.loose_entries, 0);
    assert_eq!(
        report.reachable_pages + 2,
        db.size_in_use() / u64::from(db.page_size())
    );
}

#[test]
fn random_transactions_match_a_map() {
    for (seed, page_size) in [
        (1, 1024),
        (2, 2048),
        (3, 4096),
        (4, 16384),
        (5, 1024),
        (6, 65536),
    ] {
        let dir = dir(&format!("model-{seed}"));
        let path = dir.0.join("db");
        let mut random = Random(0x9E37_79B9 * seed);
        let mut model = Model::new();
        let options = Options {
            page_size: Some(page_size),
            grow_bytes: 1 << 16,
            ..Options::default()
        };
        let open = || Db::open(Arc::new(RealFs), &path, options.clone()).unwrap();
        let mut db = open();
        let mut held: VecDeque<(ReadTx, Model)> = VecDeque::new();
        for round in 0..60 {
            random_tx(&db, &mut model, &mut random);
            assert_sound(&db);
            assert_holds(&db.begin_read(), &model);
            held.push_back((db.begin_read(), model.clone()));
            if held.len() > 4 {
                let (tx, model) = held.pop_front().unwrap();
                assert_holds(&tx, &model);
            }
            if round % 7 == 0 {
                held.clear();
                drop(db);
                db = open();
                assert_sound(&db);
                assert_holds(&db.begin_read(), &model);
            }
        }
    }
}
