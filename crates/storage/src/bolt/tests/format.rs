//! Bytes on disk, as bbolt writes and reads them.

use std::path::Path;
use std::sync::Arc;

use super::{Place, assert_sound};
use crate::bolt::meta::Meta;
use crate::bolt::node::Item;
use crate::bolt::page::{BUCKET_FLAG, FREELIST_FLAG, HEADER_BYTES, Header, encode_leaf};
use crate::bolt::{Damage, Db, Error, Options, PageId, TxId};
use crate::simfs::SimFs;

const PAGE: usize = 4096;
const PATH: &str = "/db";

fn from_hex(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex
        .bytes()
        .filter(|byte| !byte.is_ascii_whitespace())
        .collect();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(byte).collect()
}

/// Meta page 0 of a database of etcd 3.5.1.
const META: &str = "0000000000000000 0400 0000 00000000 edda0ced 02000000 00100000 00000000
    0400000000000000 0000000000000000 ffffffffffffffff 0700000000000000 1200000000000000
    920f3926f6fa11f7";

#[test]
fn a_meta_page_of_etcd_is_read_and_written_alike() {
    let bytes = from_hex(META);
    let meta = Meta::decode(&bytes[HEADER_BYTES..]).unwrap();
    let expected = Meta {
        page_size: 4096,
        flags: 0,
        root: PageId(4),
        sequence: 0,
        freelist: None,
        high_water: PageId(7),
        tx: TxId(18),
    };
    assert_eq!(meta, expected);
    let page = meta.encode(0);
    assert_eq!(page[..80], bytes[..]);
    assert!(page.len() == PAGE && page[80..].iter().all(|byte| *byte == 0));
}

fn item(key: &[u8], value: &[u8], flags: u32) -> Item {
    Item {
        key: key.to_vec().into(),
        value: value.to_vec().into(),
        flags,
    }
}

/// A file as bbolt may leave it: a stored freelist, an inline bucket, a nested bucket.
fn foreign(listed_free: &[u64]) -> Vec<u8> {
    let mut inline = vec![0; 16];
    inline.extend_from_slice(&encode_leaf(
        PageId(0),
        &[item(b"a", b"1", 0), item(b"b", b"2", 0)],
        1,
        64,
    ));
    let mut outer = 5u64.to_le_bytes().to_vec();
    outer.extend_from_slice(&77u64.to_le_bytes());
    let mut nested = 6u64.to_le_bytes().to_vec();
    nested.extend_from_slice(&0u64.to_le_bytes());
    let meta = Meta {
        page_size: PAGE as u32,
        flags: 0,
        root: PageId(3),
        sequence: 0,
        freelist: Some(PageId(2)),
        high_water: PageId(9),
        tx: TxId(5),
    };
    let mut file = meta.encode(0);
    file.extend_from_slice(
        &Meta {
            tx: TxId(4),
            ..meta
        }
        .encode(1),
    );
    let count = listed_free.len() as u16;
    Header {
        id: PageId(2),
        flags: FREELIST_FLAG,
        count,
        overflow: 0,
    }
    .encode(&mut file);
    listed_free
        .iter()
        .for_each(|id| file.extend_from_slice(&id.to_le_bytes()));
    file.resize(3 * PAGE, 0);
    let buckets = [
        item(b"outer", &outer, BUCKET_FLAG),
        item(b"small", &inline, BUCKET_FLAG),
    ];
    file.extend_from_slice(&encode_leaf(PageId(3), &buckets, 1, PAGE));
    file.resize(5 * PAGE, 0);
    let elements = [
        item(b"nested", &nested, BUCKET_FLAG),
        item(b"x", b"plain", 0),
    ];
    file.extend_from_slice(&encode_leaf(PageId(5), &elements, 1, PAGE));
    file.extend_from_slice(&encode_leaf(PageId(6), &[item(b"deep", b"3", 0)], 1, PAGE));
    file.resize(9 * PAGE, 0);
    file
}

fn open(file: &[u8]) -> Result<Db, Error> {
    let fs = SimFs::new();
    fs.plant(Path::new(PATH), file).unwrap();
    Db::open(Arc::new(fs), Path::new(PATH), Options::default())
}

#[test]
fn stored_freelists_inline_and_nested_buckets_are_read() {
    let db = open(&foreign(&[4, 7, 8])).unwrap();
    assert!(db.check().unwrap().is_sound());
    assert_eq!((db.size(), db.size_in_use()), (9 * 4096, 5 * 4096));
    let tx = db.begin_read();
    assert_eq!(tx.buckets().unwrap(), ["outer", "small"]);
    assert_eq!(tx.get(b"small", b"b").unwrap().unwrap(), "2");
    assert_eq!(tx.buckets_in(&[b"outer"]).unwrap(), ["nested"]);
    assert_eq!(tx.sequence(b"outer").unwrap(), 77);
    // The nested bucket is passed over.
    let mut cursor = tx.cursor(b"outer").unwrap();
    assert_eq!(cursor.next().unwrap().unwrap().0, "x");
    assert_eq!(cursor.next().unwrap(), None);
    let mut cursor = tx.cursor_at(&[b"outer", b"nested"]).unwrap();
    assert_eq!(cursor.last().unwrap().unwrap().1, "3");
    assert_eq!(cursor.seek(b"e").unwrap(), None);
}

#[test]
fn a_change_turns_foreign_forms_into_ours() {
    let db = open(&foreign(&[4, 7, 8])).unwrap();
    let mut tx = db.begin_write().unwrap();
    assert_eq!(tx.get(b"small", b"a").unwrap().unwrap(), "1");
    tx.put(b"small", b"c", b"4").unwrap();
    tx.put(b"outer", b"y", b"5").unwrap();
    assert_eq!(tx.get(b"outer", b"nested").unwrap(), None);
    tx.commit().unwrap();
    assert_sound(&db);
    let tx = db.begin_read();
    for (key, value) in [(b"a", "1"), (b"b", "2"), (b"c", "4")] {
        assert_eq!(tx.get(b"small", key).unwrap().unwrap(), value);
    }
    assert_eq!(tx.sequence(b"outer").unwrap(), 77);
    let mut cursor = tx.cursor_at(&[b"outer", b"nested"]).unwrap();
    assert_eq!(cursor.next().unwrap().unwrap().0, "deep");
    let mut tx = db.begin_write().unwrap();
    assert!(matches!(
        tx.put(b"outer", b"nested", b"1"),
        Err(Error::IsBucket { .. })
    ));
    assert!(matches!(tx.commit(), Err(Error::Aborted)));
}

#[test]
fn a_removed_bucket_leaves_no_pages_behind() {
    let db = open(&foreign(&[4, 7, 8])).unwrap();
    let mut tx = db.begin_write().unwrap();
    tx.create_bucket(b"new").unwrap();
    tx.put(b"new", b"a", &[1; 10_000]).unwrap();
    tx.put(b"outer", b"z", b"6").unwrap();
    for name in [&b"outer"[..], b"small", b"new"] {
        assert!(tx.delete_bucket(name).unwrap());
        assert!(!tx.delete_bucket(name).unwrap());
    }
    assert!(matches!(
        tx.put(b"outer", b"a", b"1"),
        Err(Error::BucketMissing { .. })
    ));
    assert!(tx.create_bucket(b"small").unwrap());
    assert_eq!(tx.get(b"small", b"a").unwrap(), None);
    tx.commit().unwrap();
    assert_eq!(db.begin_read().buckets().unwrap(), ["small"]);
    // Two meta pages, the root, and the root of the one bucket.
    assert_eq!(db.size_in_use(), 4 * 4096);
    assert_sound(&db);
}

#[test]
fn a_freelist_that_names_used_pages_is_damage() {
    // Pages that are not listed are found by the scan.
    assert!(open(&foreign(&[4])).unwrap().check().unwrap().is_sound());
    let damage = |listed: &[u64]| match open(&foreign(listed)) {
        Err(Error::Damaged { page, damage }) => (page.0, damage),
        other => panic!("{:?}", other.err()),
    };
    assert_eq!(damage(&[4, 5]), (5, Damage::ReachableFree));
    assert_eq!(damage(&[4, 4]), (2, Damage::Freelist { index: 1 }));
    assert_eq!(damage(&[9]), (2, Damage::Freelist { index: 0 }));
    assert_eq!(damage(&[2]), (2, Damage::ReachableFree));
}

#[test]
fn an_image_opens_as_a_database_of_its_own() {
    let place = Place::new();
    let db = place.open(&Options::default()).unwrap();
    let mut tx = db.begin_write().unwrap();
    tx.create_bucket(b"key").unwrap();
    for i in 0..5_000u32 {
        tx.put(b"key", &i.to_be_bytes(), &[1; 200]).unwrap();
    }
    tx.commit().unwrap();
    let tx = db.begin_read();
    let image = tx.image();
    let (size, id) = (image.size(), tx.id());
    drop(tx);
    let mut bytes = Vec::new();
    for chunk in image {
        if bytes.is_empty() {
            // A commit in between does not show.
            let mut tx = db.begin_write().unwrap();
            tx.put(b"key", &77u32.to_be_bytes(), b"new").unwrap();
            tx.commit().unwrap();
        }
        bytes.extend_from_slice(&chunk.unwrap());
    }
    assert_eq!(bytes.len() as u64, size);
    let metas: Vec<Meta> = (0..2)
        .map(|slot| Meta::decode(&bytes[slot * PAGE + HEADER_BYTES..]).unwrap())
        .collect();
    assert_eq!((metas[0].tx, metas[1].tx), (id, TxId(id.0 - 1)));
    let copy = open(&bytes).unwrap();
    assert_sound(&copy);
    let mut cursor = copy.begin_read().cursor(b"key").unwrap();
    let mut keys = 0;
    while let Some((_, value)) = cursor.next().unwrap() {
        assert_eq!(value, [1; 200][..]);
        keys += 1;
    }
    assert_eq!(keys, 5_000);
}

#[test]
fn the_second_meta_page_is_found_at_any_page_size() {
    for page_size in [1024, 4096, 65536] {
        let place = Place::new();
        let options = Options {
            page_size: Some(page_size),
            ..Options::default()
        };
        drop(place.open(&options).unwrap());
        let mut bytes = std::fs::read(&place.path).unwrap();
        bytes[..80].fill(0);
        std::fs::write(&place.path, &bytes).unwrap();
        assert_eq!(
            place.open(&Options::default()).unwrap().page_size(),
            page_size
        );
    }
}
