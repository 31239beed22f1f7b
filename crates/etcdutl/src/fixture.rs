//! Small databases and snapshots for tests.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest, Sha256};
use state::record::Revision;
use storage::backend::{Bucket, meta};
use storage::bolt::{Db, Options};
use storage::fs::RealFs;
use storage::wire::{put_bytes, put_uint};

/// Pages as small as the format allows, so that all of them can be damaged in turn.
const PAGE_BYTES: u32 = 1024;

/// Changes of the history of which Go's etcd told the hashes: put foo, put foo, delete foo,
/// put a, put foo, at revisions 2 to 6.
const HISTORY: [(&str, Option<&str>, [u64; 2]); 5] = [
    ("foo", Some("bar"), [2, 1]),
    ("foo", Some("bar2"), [2, 2]),
    ("foo", None, [0, 0]),
    ("a", Some("b"), [5, 1]),
    ("foo", Some("new"), [6, 1]),
];

/// A database with that history, of a member of a cluster long gone.
pub(crate) fn database(path: &Path) -> Db {
    let options = Options {
        page_size: Some(PAGE_BYTES),
        grow_bytes: 1,
        ..Options::default()
    };
    let db = Db::open(Arc::new(RealFs), path, options).unwrap();
    let mut tx = db.begin_write().unwrap();
    for bucket in Bucket::ALL {
        tx.create_bucket(bucket.name()).unwrap();
    }
    for ((key, value, [create, version]), main) in HISTORY.into_iter().zip(2..) {
        let at = Revision { main, sub: 0 }.to_key();
        let mut record = Vec::new();
        put_bytes(&mut record, 1, key.as_bytes());
        match value {
            Some(value) => {
                put_uint(&mut record, 2, create);
                put_uint(&mut record, 3, main as u64);
                put_uint(&mut record, 4, version);
                put_bytes(&mut record, 5, value.as_bytes());
                tx.put(b"key", &at, &record).unwrap();
            }
            None => tx.put(b"key", &[&at[..], b"t"].concat(), &record).unwrap(),
        }
    }
    tx.put(b"meta", meta::CONSISTENT_INDEX, &77_u64.to_be_bytes())
        .unwrap();
    tx.put(b"meta", meta::TERM, &5_u64.to_be_bytes()).unwrap();
    tx.put(b"meta", meta::STORAGE_VERSION, b"3.7.0").unwrap();
    tx.put(b"members", b"abc", b"{\"id\":2748,\"peerURLs\":[]}")
        .unwrap();
    tx.put(b"members_removed", b"def", b"removed").unwrap();
    tx.commit().unwrap();
    db
}

/// The bytes of that database as a server streams them, without the digest.
pub(crate) fn image(dir: &Path) -> Vec<u8> {
    let db = database(&dir.join("source.db"));
    let image = db.begin_read().image();
    image.flat_map(|chunk| chunk.unwrap()).collect()
}

/// A file of an image with its digest behind it.
pub(crate) fn snapshot(dir: &Path) -> PathBuf {
    let mut bytes = image(dir);
    let digest = Sha256::digest(&bytes);
    bytes.extend_from_slice(&digest);
    let path = dir.join("snapshot.db");
    std::fs::write(&path, bytes).unwrap();
    path
}
