//! What the engine promises.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use super::{Db, Error, Options, ReadTx};
use crate::fs::RealFs;

mod crash;
mod damage;
mod defrag;
mod format;
mod model;
mod readers;

/// Buckets by name, and what they hold.
type Model = BTreeMap<Vec<u8>, BTreeMap<Vec<u8>, Vec<u8>>>;

/// A directory on the real file system with room for one database.
struct Place {
    _dir: tempfile::TempDir,
    path: PathBuf,
}

impl Place {
    fn new() -> Place {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("db");
        Place { _dir: dir, path }
    }

    fn open(&self, options: &Options) -> Result<Db, Error> {
        Db::open(Arc::new(RealFs), &self.path, options.clone())
    }
}

/// Everything that a state holds outside of nested buckets.
fn contents(tx: &ReadTx) -> Result<Model, Error> {
    let mut model = Model::new();
    for name in tx.buckets()? {
        let bucket = model.entry(name.to_vec()).or_default();
        let mut cursor = tx.cursor(&name)?;
        while let Some((key, value)) = cursor.next()? {
            bucket.insert(key.to_vec(), value.to_vec());
        }
        let last = cursor.last()?.map(|(key, _)| key.to_vec());
        assert_eq!(last.as_ref(), bucket.keys().next_back());
    }
    Ok(model)
}

fn assert_holds(tx: &ReadTx, model: &Model) {
    assert!(
        contents(tx).unwrap() == *model,
        "the state differs from the model"
    );
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
fn a_committed_value_survives_reopening() {
    let place = Place::new();
    let db = place.open(&Options::default()).unwrap();
    let mut tx = db.begin_write().unwrap();
    assert!(tx.create_bucket(b"key").unwrap());
    assert!(!tx.create_bucket(b"key").unwrap());
    tx.put(b"key", b"a", b"1").unwrap();
    tx.put(b"key", b"b", b"2").unwrap();
    assert!(tx.delete(b"key", b"a").unwrap());
    assert!(!tx.delete(b"key", b"a").unwrap());
    tx.commit().unwrap();
    drop(db);
    let db = place.open(&Options::default()).unwrap();
    let tx = db.begin_read();
    assert_eq!(tx.get(b"key", b"a").unwrap(), None);
    assert_eq!(tx.get(b"key", b"b").unwrap().unwrap(), "2");
    assert_sound(&db);
}

#[test]
fn a_dropped_transaction_leaves_no_trace() {
    let place = Place::new();
    let db = place.open(&Options::default()).unwrap();
    let before = std::fs::read(&place.path).unwrap();
    let mut tx = db.begin_write().unwrap();
    tx.create_bucket(b"key").unwrap();
    tx.put(b"key", b"a", &[7; 100_000]).unwrap();
    drop(tx);
    assert_eq!(db.begin_write().unwrap().commit().unwrap().pages, 0);
    assert_eq!(std::fs::read(&place.path).unwrap(), before);
}

#[test]
fn a_second_opening_finds_the_lock_taken() {
    let place = Place::new();
    let db = place.open(&Options::default()).unwrap();
    let again = place.open(&Options::default());
    assert!(matches!(again, Err(Error::Locked { .. })));
    let reader = db.begin_read();
    drop(db);
    assert!(matches!(
        place.open(&Options::default()),
        Err(Error::Locked { .. })
    ));
    drop(reader);
    place.open(&Options::default()).unwrap();
}

#[test]
fn what_the_format_cannot_hold_is_refused() {
    let place = Place::new();
    let db = place.open(&Options::default()).unwrap();
    let mut tx = db.begin_write().unwrap();
    assert!(matches!(
        tx.put(b"key", b"a", b"1"),
        Err(Error::BucketMissing { .. })
    ));
    assert!(matches!(
        tx.create_bucket(b""),
        Err(Error::KeyLen { len: 0 })
    ));
    tx.create_bucket(b"key").unwrap();
    assert!(matches!(
        tx.put(b"key", b"", b"1"),
        Err(Error::KeyLen { len: 0 })
    ));
    assert!(matches!(
        tx.put(b"key", &[1; 32_769], b"1"),
        Err(Error::KeyLen { len: 32_769 })
    ));
    tx.put(b"key", &[1; 32_768], b"1").unwrap();
    let change = |key: &'static [u8]| (key.into(), Some("v".into()));
    for changes in [[change(b"b"), change(b"a")], [change(b"a"), change(b"a")]] {
        let refused = tx.apply_sorted(b"key", &changes);
        assert!(matches!(refused, Err(Error::Unsorted { index: 1 })));
    }
    // None of these refusals spoils the transaction.
    tx.put(b"key", b"c", b"").unwrap();
    tx.commit().unwrap();
    assert_eq!(db.begin_read().get(b"key", b"c").unwrap().unwrap(), "");
    assert!(db.begin_read().get(b"none", b"c").is_err());
    assert!(!db.begin_read().has_bucket(b"none").unwrap());
    assert_sound(&db);
}

#[test]
fn a_read_only_database_refuses_writers_and_is_not_created() {
    let place = Place::new();
    let options = Options {
        read_only: true,
        ..Options::default()
    };
    assert!(matches!(place.open(&options), Err(Error::Open { .. })));
    drop(place.open(&Options::default()).unwrap());
    let db = place.open(&options).unwrap();
    assert!(matches!(db.begin_write(), Err(Error::ReadOnly)));
    assert!(db.begin_read().buckets().unwrap().is_empty());
    assert!(db.check().unwrap().is_sound());
}
