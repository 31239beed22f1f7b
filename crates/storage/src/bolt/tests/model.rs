//! Random transactions, compared with a map after each commit and each reopening.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use super::{Model, Place, assert_holds, assert_sound};
use crate::bolt::{Db, Options, ReadTx};
use crate::simfs::Rng;

fn random_value(random: &mut Rng) -> Vec<u8> {
    let len = match random.below(20) {
        0 => random.below(20_000),
        1..=4 => random.below(1_500),
        _ => random.below(120),
    };
    let byte = random.next_u64() as u8;
    vec![byte; len as usize]
}

fn random_key(random: &mut Rng, keys: u64) -> Vec<u8> {
    let mut key = random.below(keys).to_be_bytes()[4..].to_vec();
    if random.below(50) == 0 {
        key.resize(4 + random.below(600) as usize, b'k');
    }
    key
}

/// One transaction of random changes on the database and on the model.
pub(super) fn random_tx(db: &Db, model: &mut Model, random: &mut Rng) {
    const NAMES: [&[u8]; 4] = [b"key", b"meta", b"lease", b"a"];
    let mut tx = db.begin_write().unwrap();
    let mut next = model.clone();
    let deletes = [1, 3, 9][random.below(3) as usize];
    for _ in 0..=random.below(3) {
        let name = NAMES[random.below(4) as usize];
        if random.one_in(20) {
            let existed = next.remove(name).is_some();
            assert_eq!(tx.delete_bucket(name).unwrap(), existed);
        }
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
        let place = Place::new();
        let mut random = Rng::new(seed);
        let mut model = Model::new();
        let options = Options {
            page_size: Some(page_size),
            grow_bytes: 1 << 16,
            cache_bytes: 1 << 19,
            ..Options::default()
        };
        let mut db = place.open(&options).unwrap();
        assert_eq!(db.page_size(), page_size);
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
                db = place.open(&options).unwrap();
                assert_sound(&db);
                assert_holds(&db.begin_read(), &model);
            }
        }
    }
}
