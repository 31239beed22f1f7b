//! The overlay shows one thing, however writes, commits and reads interleave.

use std::collections::BTreeMap;

use super::*;
use crate::fs::RealFs;

type Model = BTreeMap<(Bucket, Vec<u8>), Vec<u8>>;

struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }
}

const BUCKETS: [Bucket; 3] = [Bucket::Key, Bucket::Lease, Bucket::Meta];

fn record(reader: &Reader, bucket: Bucket, key: &[u8]) -> Option<Vec<u8>> {
    reader.get(bucket, key).unwrap().map(|value| value.to_vec())
}

fn scan(
    reader: &Reader,
    bucket: Bucket,
    (begin, end): (&[u8], Option<&[u8]>),
    limit: usize,
) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut found = Vec::new();
    let mut from = Some(begin.to_vec());
    while let Some(begin) = from {
        let before = found.len();
        from = reader
            .scan(bucket, &begin, end, limit, |key, value| {
                found.push((key.to_vec(), value.to_vec()));
            })
            .unwrap();
        assert!(found.len() - before <= limit);
        assert!(from.as_ref().is_none_or(|next| *next > begin));
    }
    found
}

fn check(reader: &Reader, model: &Model, random: &mut Random) {
    for bucket in BUCKETS {
        let begin = key(random);
        let end = (random.below(2) == 0).then(|| key(random));
        let wanted: Vec<(Vec<u8>, Vec<u8>)> = model
            .iter()
            .filter(|((b, k), _)| *b == bucket && *k >= begin)
            .filter(|((_, k), _)| end.as_ref().is_none_or(|end| k < end))
            .map(|((_, k), v)| (k.clone(), v.clone()))
            .collect();
        for limit in [1, 3, 1000] {
            let found = scan(reader, bucket, (&begin, end.as_deref()), limit);
            assert_eq!(found, wanted, "{bucket:?} {begin:?} {end:?} {limit}");
        }
        let key = key(random);
        let wanted = model.get(&(bucket, key.clone())).cloned();
        assert_eq!(record(reader, bucket, &key), wanted);
    }
}

fn key(random: &mut Random) -> Vec<u8> {
    format!("{:03}", random.below(60)).into_bytes()
}

fn apply(backend: &mut Backend, model: &mut Model, random: &mut Random) {
    let index = LogIndex(backend.writer.applied().index.0 + 1 + random.below(2));
    let term = Term(index.0 / 10);
    let mut txn = backend.writer.begin(index, term);
    for _ in 0..random.below(6) {
        let bucket = BUCKETS[random.below(3) as usize];
        let key = key(random);
        if random.below(3) == 0 {
            txn.delete(bucket, &key);
            model.remove(&(bucket, key));
        } else {
            let value = random.below(1000).to_string().into_bytes();
            txn.put(bucket, &key, Value::from(&value[..]));
            model.insert((bucket, key), value);
        }
    }
    txn.commit();
    let meta = |key: &[u8]| (Bucket::Meta, key.to_vec());
    model.insert(meta(meta::CONSISTENT_INDEX), index.0.to_be_bytes().to_vec());
    model.insert(meta(meta::TERM), term.0.to_be_bytes().to_vec());
}

fn maintain(backend: &mut Backend, model: &mut Model, random: &mut Random) {
    let mut txn = backend.maintenance.begin();
    for _ in 0..random.below(4) {
        let key = key(random);
        txn.delete_revision(&key);
        model.remove(&(Bucket::Key, key));
    }
    if random.below(2) == 0 {
        txn.set_storage_version(Some("3.7.0"));
        let key = (Bucket::Meta, meta::STORAGE_VERSION.to_vec());
        model.insert(key, b"3.7.0".to_vec());
    }
    txn.commit();
}

fn open(dir: &tempfile::TempDir) -> Backend {
    Backend::open(Arc::new(RealFs), &dir.path().join("db"), Options::default()).unwrap()
}

fn run(seed: u64) {
    let dir = tempfile::tempdir().unwrap();
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let mut backend = open(&dir);
    let mut model = Model::new();
    let mut durable = (model.clone(), Applied::default());
    for _ in 0..300 {
        match random.below(12) {
            0 => {
                // What happens while a commit is under way.
                let applied = backend.writer.applied();
                let at_seal = model.clone();
                if let Some((layer, pending)) = backend.committer.seal() {
                    apply(&mut backend, &mut model, &mut random);
                    check(&backend.reader, &model, &mut random);
                    backend.committer.write(&layer).unwrap();
                    check(&backend.reader, &model, &mut random);
                    maintain(&mut backend, &mut model, &mut random);
                    backend.committer.drop_committed(pending);
                    durable = (at_seal, applied);
                }
            }
            1 => {
                let committed = backend.committer.commit().unwrap();
                durable = (model.clone(), backend.writer.applied());
                assert!(committed.ops == 0 || committed.durable == durable.1);
                assert_eq!(backend.committer.pending(), Pending::default());
            }
            2 if random.below(4) == 0 => {
                drop(backend);
                backend = open(&dir);
                model = durable.0.clone();
                assert_eq!(backend.writer.applied(), durable.1);
                assert_eq!(backend.committer.durable(), durable.1);
            }
            3 => maintain(&mut backend, &mut model, &mut random),
            _ => apply(&mut backend, &mut model, &mut random),
        }
        check(&backend.reader, &model, &mut random);
    }
    drop(backend);
    let reopened = open(&dir);
    check(&reopened.reader, &durable.0, &mut random);
}

#[test]
fn every_interleaving_shows_one_state() {
    (1..=10).for_each(run);
}

#[test]
fn an_entry_without_commit_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut backend = open(&dir);
    {
        let mut txn = backend.writer.begin(LogIndex(3), Term(1));
        txn.put(Bucket::Key, b"k", Value::from(&b"v"[..]));
    }
    assert_eq!(record(&backend.reader, Bucket::Key, b"k"), None);
    assert_eq!(backend.reader.applied(), Applied::default());
    backend.writer.begin(LogIndex(3), Term(1)).commit();
    assert_eq!(record(&backend.reader, Bucket::Key, b"k"), None);
    assert_eq!(backend.reader.applied().index, LogIndex(3));
}

#[test]
fn a_pin_is_exactly_the_applied_index() {
    let dir = tempfile::tempdir().unwrap();
    let mut backend = open(&dir);
    backend.writer.begin(LogIndex(7), Term(2)).commit();
    let pinned = backend.committer.pin().unwrap();
    let mut txn = backend.writer.begin(LogIndex(8), Term(2));
    txn.put(Bucket::Key, b"k", Value::from(&b"v"[..]));
    txn.commit();
    backend.committer.commit().unwrap();
    assert_eq!(pinned.applied.index, LogIndex(7));
    let name = Bucket::Meta.name();
    let stored = pinned
        .tx
        .get(name, meta::CONSISTENT_INDEX)
        .unwrap()
        .unwrap();
    assert_eq!(stored[..], 7u64.to_be_bytes());
    assert!(pinned.tx.get(Bucket::Key.name(), b"k").unwrap().is_none());
}

#[test]
fn the_configuration_is_stored_as_json() {
    let conf = ConfState {
        voters: vec![1, 2],
        auto_leave: false,
        ..ConfState::default()
    };
    assert_eq!(
        conf_state_json(&conf),
        r#"{"voters":[1,2],"auto_leave":false}"#
    );
    let conf = ConfState {
        learners: vec![3],
        ..conf
    };
    assert_eq!(
        conf_state_json(&conf),
        r#"{"voters":[1,2],"learners":[3],"auto_leave":false}"#
    );
}

#[test]
fn pressure_is_felt_until_the_commit() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options {
        overlay_bytes_max: 1000,
        ..Options::default()
    };
    let path = dir.path().join("db");
    let mut backend = Backend::open(Arc::new(RealFs), &path, options).unwrap();
    let mut txn = backend.writer.begin(LogIndex(1), Term(1));
    txn.put(Bucket::Key, b"k", Value::from(&[0; 1000][..]));
    txn.commit();
    assert!(backend.writer.pressure());
    backend.committer.commit().unwrap();
    assert!(!backend.writer.pressure());
}

#[test]
fn the_quota_is_charged_on_more_than_the_file_has() {
    let dir = tempfile::tempdir().unwrap();
    let mut backend = open(&dir);
    backend.committer.commit().unwrap();
    let (bytes, in_use) = backend.reader.file_sizes();
    assert!(in_use <= bytes, "{in_use} of {bytes}");
    let mut txn = backend.writer.begin(LogIndex(1), Term(1));
    txn.put(Bucket::Key, b"k", Value::from(vec![0; 1 << 20]));
    txn.commit();
    assert_eq!(backend.reader.file_sizes(), (bytes, in_use));
    assert!(backend.reader.size_in_use() >= in_use + (1 << 20));
    backend.committer.commit().unwrap();
    let (bytes, in_use) = backend.reader.file_sizes();
    assert!(1 << 20 <= in_use && in_use <= bytes, "{in_use} of {bytes}");
}
