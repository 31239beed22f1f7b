use super::*;
use crate::fixture;

const WAIT: Duration = Duration::from_millis(1);

fn contents(db: &Db) -> Vec<(Vec<u8>, Vec<u8>, Vec<u8>)> {
    let tx = db.begin_read();
    let mut all = Vec::new();
    for name in tx.buckets().unwrap() {
        all.push((name.to_vec(), Vec::new(), Vec::new()));
        let mut cursor = tx.cursor(&name).unwrap();
        while let Some((key, value)) = cursor.next().unwrap() {
            all.push((name.to_vec(), key.to_vec(), value.to_vec()));
        }
    }
    all
}

#[test]
fn holes_go_and_records_stay() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let db = fixture::database(&path);
    let mut tx = db.begin_write().unwrap();
    for i in 0..4000_u32 {
        let key = i.to_be_bytes();
        tx.put(b"lease", &key, &[i as u8; 100]).unwrap();
    }
    tx.commit().unwrap();
    let mut tx = db.begin_write().unwrap();
    for i in (0..4000_u32).filter(|i| i % 40 != 0) {
        tx.delete(b"lease", &i.to_be_bytes()).unwrap();
    }
    tx.commit().unwrap();
    let (before, size, page_size) = (contents(&db), db.size(), db.page_size());
    assert_eq!(defragment(&path, WAIT).unwrap_err(), "timeout");
    drop(db);

    defragment(&path, WAIT).unwrap();
    let db = database::open_read_only(&path, WAIT).unwrap();
    assert_eq!(contents(&db), before);
    assert!(db.check().unwrap().is_sound());
    assert!(db.size() * 4 < size, "{} of {size}", db.size());
    assert_eq!(db.page_size(), page_size);
    assert_eq!(path.metadata().unwrap().len(), db.size());
    let left: Vec<_> = std::fs::read_dir(dir.path()).unwrap().collect();
    assert_eq!(left.len(), 1, "{left:?}");
}

#[test]
fn a_damaged_database_stays_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let mut bytes = fixture::image(dir.path());
    let len = bytes.len();
    // The flags of the last page: it is no leaf any more.
    bytes[len - 1024 + 8] = 0x77;
    std::fs::write(&path, &bytes).unwrap();
    assert!(defragment(&path, WAIT).is_err());
    assert_eq!(std::fs::read(&path).unwrap(), bytes);
}
