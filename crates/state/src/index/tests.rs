//! The index against a sorted map, with enough keys for splits at every level.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::*;

struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }
}

/// Changes of a key: main revision, and the record's length unless it is a deletion.
type Model = BTreeMap<Vec<u8>, Vec<(i64, Option<usize>)>>;

fn key(random: &mut Random, shape: u64) -> Vec<u8> {
    match shape {
        0 => random.below(1 << 40).to_be_bytes().to_vec(),
        1 => format!(
            "/registry/pods/space-{}/{:07}",
            random.below(9),
            random.below(40_000)
        )
        .into_bytes(),
        _ => vec![b'a'; random.below(300) as usize + 1],
    }
}

fn change(index: &mut Index, model: &mut Model, key: &[u8], main: i64, len: Option<usize>) {
    let revision = Revision { main, sub: 3 };
    let change = match len {
        None => Change::tombstone(revision),
        Some(len) => {
            let mut record = Vec::new();
            crate::wire::put_bytes(&mut record, 1, key);
            record.resize(len + key.len() + 3, 7);
            let latest = Latest::Cached(Arc::from(record));
            Change {
                revision,
                latest,
                create: main,
                version: 1,
                lease: 0,
            }
        }
    };
    let len = len.map(|len| len + key.len() + 3);
    match index.find(key) {
        Some(id) => index.update(id, change),
        None => index.insert(key, change),
    }
    model.entry(key.to_vec()).or_default().push((main, len));
}

fn seen(model: &Model, key: &[u8], rev: i64) -> Option<usize> {
    let changes = model.get(key)?;
    changes.iter().rev().find(|change| change.0 <= rev)?.1
}

fn check(index: &Index, model: &Model, random: &mut Random, shape: u64, revs: (i64, i64)) {
    let rev = revs.0 + random.below((revs.1 - revs.0 + 1) as u64) as i64;
    let (begin, end) = (key(random, shape), key(random, shape));
    let (span, wanted): (_, Vec<_>) = match random.below(3) {
        0 => (
            Span {
                begin: &begin,
                end: End::Open,
            },
            model.range(begin.clone()..).collect(),
        ),
        1 if begin < end => (
            Span {
                begin: &begin,
                end: End::Before(&end),
            },
            model.range(begin.clone()..end.clone()).collect(),
        ),
        _ => (
            Span {
                begin: &begin,
                end: End::Single,
            },
            model.get_key_value(&begin).into_iter().collect(),
        ),
    };
    let wanted: Vec<(&[u8], usize)> = wanted
        .into_iter()
        .filter_map(|(key, _)| Some((&key[..], seen(model, key, rev)?)))
        .collect();
    let found: Vec<(&[u8], usize)> = index
        .span(span)
        .filter_map(|slot| Some((&slot.key[..], slot.at(rev)?.len())))
        .collect();
    assert_eq!(found, wanted);
    let limit = random.below(wanted.len() as u64 + 2);
    let mut tally = Tally::default();
    let mut from: Box<[u8]> = begin.clone().into();
    while let Some(next) = index.tally(span, &from, (rev, limit), 3, &mut tally) {
        assert!(next > from);
        from = next;
    }
    let taken = wanted.iter().take(limit as usize);
    let bytes = taken
        .map(|(_, len)| crate::wire::field_len(*len) as u64)
        .sum();
    let count = wanted.len() as u64;
    assert_eq!(
        tally,
        Tally {
            count,
            taken: limit.min(count),
            bytes
        }
    );
    let single = index
        .get(&begin)
        .and_then(|slot| slot.at(rev))
        .map(|seen| seen.len());
    assert_eq!(single, seen(model, &begin, rev));
}

fn compact(index: &mut Index, model: &mut Model, rev: i64) {
    let mut kept = 0;
    let mut from: Box<[u8]> = Box::default();
    while let Some(next) = index.compact(&from, rev, 3, &mut kept) {
        from = next;
    }
    let mut wanted = 0;
    model.retain(|_, changes| {
        let known = changes.partition_point(|change| change.0 <= rev);
        if let Some(last) = known.checked_sub(1) {
            let stays = changes[last].1.is_some() || changes[last].0 == rev;
            wanted += u64::from(stays);
            changes.drain(..last + usize::from(!stays));
        }
        !changes.is_empty()
    });
    assert_eq!(kept, wanted);
    assert_eq!(index.len(), model.len());
}

fn run(shape: u64, count: i64) {
    let mut random = Random(0x9e37_79b9_7f4a_7c15 + shape);
    let (mut index, mut model) = (Index::new(shape), Model::new());
    let mut compacted = 1;
    for main in 2..count {
        let key = key(&mut random, shape);
        let exists = seen(&model, &key, main).is_some();
        let len = (!exists || random.below(3) > 0).then(|| random.below(50) as usize);
        change(&mut index, &mut model, &key, main, len);
        if main % (count / 40) == 0 {
            for _ in 0..20 {
                check(&index, &model, &mut random, shape, (compacted, main));
            }
        }
        if main % (count / 7) == 0 {
            compacted = compacted.max(random.below(main as u64) as i64);
            compact(&mut index, &mut model, compacted);
        }
        index.evict(10_000, 8);
    }
    index.evict(10_000, 4 * index.len());
    assert!(index.cached() <= 10_000);
    let keys: Vec<Vec<u8>> = model.keys().cloned().collect();
    for (main, key) in (count..).zip(&keys) {
        if seen(&model, key, main).is_some() {
            change(&mut index, &mut model, key, main, None);
        }
    }
    compact(&mut index, &mut model, count + keys.len() as i64);
    assert_eq!((index.len(), index.live(), index.cached()), (0, 0, 0));
    assert_eq!(index.iter().count(), 0);
    change(
        &mut index,
        &mut model,
        b"again",
        count + keys.len() as i64 + 1,
        Some(1),
    );
    assert_eq!(index.live(), 1);
}

#[test]
fn it_is_a_sorted_map_of_histories() {
    run(0, 40_000);
    run(1, 40_000);
    run(2, 3_000);
}

#[test]
fn keys_in_order_fill_their_leaves() {
    let (mut index, mut model) = (Index::new(0), Model::new());
    for n in 0..20_000 {
        change(
            &mut index,
            &mut model,
            format!("{n:06}").as_bytes(),
            n + 2,
            Some(3),
        );
    }
    let all = Span {
        begin: &[],
        end: End::Open,
    };
    let runs: Vec<usize> = index.runs(all).map(<[u32]>::len).collect();
    assert!(runs.len() <= 20_000 / 60, "{} leaves", runs.len());
    assert_eq!(runs.into_iter().sum::<usize>(), 20_000);
}

/// What the design asks: less than 200 bytes beside the key, in memory of our own.
#[test]
fn a_key_costs_little() {
    assert!(size_of::<Slot>() <= 80, "{}", size_of::<Slot>());
    assert_eq!(size_of::<Latest>(), 16);
    assert_eq!(size_of::<Past>(), 16);
}
