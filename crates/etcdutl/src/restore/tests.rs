use std::os::unix::fs::PermissionsExt;

use storage::log::{LogIndex, Term};
use storage::wal::{Applied, WalSnapshot};

use super::*;
use crate::fixture;

/// A request for the defaults of the command line.
fn request(snapshot: &Path, root: &Path) -> Request {
    Request {
        snapshot: snapshot.to_owned(),
        dir: DataDir::new(root, None),
        name: "default".into(),
        peer_urls: "http://localhost:2380".into(),
        initial_cluster: "default=http://localhost:2380".into(),
        token: "etcd-cluster".into(),
        skip_hash_check: false,
        memory_map_bytes: 0,
        bump: 0,
    }
}

fn records(db: &Db, bucket: Bucket) -> Vec<(String, Vec<u8>)> {
    let mut cursor = db.begin_read().cursor(bucket.name()).unwrap();
    let mut records = Vec::new();
    while let Some((key, value)) = cursor.next().unwrap() {
        records.push((String::from_utf8_lossy(&key).into_owned(), value.to_vec()));
    }
    records
}

fn open(dir: &DataDir) -> Db {
    database::open_read_only(&dir.database(), std::time::Duration::ZERO).unwrap()
}

fn number(db: &Db, key: &[u8]) -> u64 {
    let value = db.begin_read().get(b"meta", key).unwrap().unwrap();
    u64::from_be_bytes(value[..].try_into().unwrap())
}

#[test]
fn one_member_with_the_defaults() {
    let temp = tempfile::tempdir().unwrap();
    let root = temp.path().join("not/there/default.etcd");
    let request = request(&fixture::snapshot(temp.path()), &root);
    restore(&request).unwrap();

    let db = open(&request.dir);
    assert!(db.check().unwrap().is_sound());
    let member = "{\"id\":10276657743932975437,\"peerURLs\":[\"http://localhost:2380\"],\
                  \"name\":\"default\"}";
    assert_eq!(
        records(&db, Bucket::Members),
        [("8e9e05c52164694d".to_owned(), member.as_bytes().to_vec())]
    );
    assert_eq!(records(&db, Bucket::MembersRemoved), []);
    assert_eq!(records(&db, Bucket::Key).len(), 5);
    assert_eq!(number(&db, meta::CONSISTENT_INDEX), 1);
    assert_eq!(number(&db, meta::TERM), 1);

    let from = WalSnapshot {
        index: LogIndex(1),
        term: Term(1),
    };
    let log = wal::read(&RealFs, request.dir.wal(), from, Applied::default()).unwrap();
    assert_eq!(log.metadata.node_id, 0x8e9e_05c5_2164_694d);
    assert_eq!(log.metadata.cluster_id, 0xcdf8_1819_4e3a_8c32);
    let state = log.hard_state;
    assert_eq!((state.term.0, state.commit.0), (1, 1));
    assert_eq!(state.vote, 0x8e9e_05c5_2164_694d);
    assert!(log.entries.is_empty() && log.torn.is_none());
    let snap = request
        .dir
        .snap()
        .join("0000000000000001-0000000000000001.snap");
    let snap = snap::read(&RealFs, &snap).unwrap();
    assert_eq!(snap.meta.conf.voters, [0x8e9e_05c5_2164_694d]);
    let json = String::from_utf8(snap.data.to_vec()).unwrap();
    assert!(
        json.contains("/0/members/8e9e05c52164694d/raftAttributes"),
        "{json}"
    );

    for (path, mode) in [
        (root.clone(), 0o700),
        (request.dir.member(), 0o700),
        (request.dir.database(), 0o600),
    ] {
        let found = path.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(found, mode, "{}", path.display());
    }
}

/// Each member is restored by itself and must come to the same cluster.
#[test]
fn three_members_with_a_log_elsewhere() {
    let temp = tempfile::tempdir().unwrap();
    let snapshot = fixture::snapshot(temp.path());
    let urls = [
        "http://10.0.0.1:2380",
        "http://10.0.0.2:2380",
        "http://10.0.0.3:2380",
    ];
    let cluster = format!("a={},b={},c={}", urls[0], urls[1], urls[2]);
    let mut found = Vec::new();
    for (name, url) in ["a", "b", "c"].into_iter().zip(urls) {
        let wal = temp.path().join(format!("logs/{name}/wal"));
        let request = Request {
            dir: DataDir::new(&temp.path().join(name), Some(&wal)),
            name: name.into(),
            peer_urls: url.into(),
            initial_cluster: cluster.clone(),
            ..request(&snapshot, temp.path())
        };
        restore(&request).unwrap();
        let log = wal::read(&RealFs, &wal, WalSnapshot::default(), Applied::default()).unwrap();
        assert_eq!((log.entries.len(), log.hard_state.commit), (3, LogIndex(3)));
        let db = open(&request.dir);
        assert_eq!(number(&db, meta::CONSISTENT_INDEX), 3);
        let ids: Vec<String> = records(&db, Bucket::Members)
            .into_iter()
            .map(|m| m.0)
            .collect();
        assert!(ids.contains(&format!("{:x}", log.metadata.node_id)));
        found.push((log.metadata.cluster_id, log.hard_state.vote, ids));
    }
    assert!(found.windows(2).all(|pair| pair[0] == pair[1]), "{found:?}");
    assert_eq!(found[0].2.len(), 3);
}

#[test]
fn a_raised_revision_is_compacted() {
    let temp = tempfile::tempdir().unwrap();
    let snapshot = fixture::snapshot(temp.path());
    let request = Request {
        bump: 1000,
        ..request(&snapshot, &temp.path().join("d"))
    };
    restore(&request).unwrap();
    let db = open(&request.dir);
    let raised = Revision { main: 1006, sub: 0 }.to_key();
    let read = db.begin_read();
    assert_eq!(
        read.get(b"key", &raised).unwrap().as_deref(),
        Some(&b""[..])
    );
    let scheduled = read.get(b"meta", SCHEDULED_COMPACT).unwrap();
    assert_eq!(scheduled.as_deref(), Some(&raised[..]));

    let request = Request {
        bump: u64::MAX,
        ..self::request(&snapshot, &temp.path().join("e"))
    };
    assert_eq!(
        restore(&request).unwrap_err(),
        format!("revision 6 cannot be raised by {}", u64::MAX)
    );
    assert!(!request.dir.root().exists());
}

/// What cannot be restored leaves nothing behind.
#[test]
fn refusals() {
    let temp = tempfile::tempdir().unwrap();
    let path = |name: &str| temp.path().join(name);
    let snapshot = fixture::snapshot(temp.path());
    let whole = std::fs::read(&snapshot).unwrap();
    let (image, digest) = whole.split_at(whole.len() - 32);
    std::fs::write(path("bare"), image).unwrap();
    std::fs::write(path("tiny"), b"x").unwrap();
    std::fs::write(path("garbage"), vec![9; 5 * 512 + 32]).unwrap();
    let mut flipped = whole.clone();
    flipped[5000] ^= 1;
    std::fs::write(path("flipped"), &flipped).unwrap();
    let sum = |bytes: &[u8]| {
        let text: Vec<String> = bytes.iter().map(u8::to_string).collect();
        format!("[{}]", text.join(" "))
    };
    let computed = <sha2::Sha256 as sha2::Digest>::digest(&flipped[..image.len()]);
    let shown = |name: &str| path(name).display().to_string();

    let check = |change: &dyn Fn(&mut Request), why: &str| {
        let mut request = request(&snapshot, &path("out"));
        change(&mut request);
        assert_eq!(restore(&request).unwrap_err(), why);
        assert!(!path("out").exists(), "{why}");
    };
    check(
        &|r| r.snapshot = path("none"),
        &format!("open {}: no such file or directory", shown("none")),
    );
    check(
        &|r| r.snapshot = path("tiny"),
        &format!("seek {}: invalid argument", shown("tiny")),
    );
    check(
        &|r| r.snapshot = path("bare"),
        "snapshot missing hash but --skip-hash-check=false",
    );
    check(
        &|r| r.snapshot = path("flipped"),
        &format!("expected sha256 {}, got {}", sum(digest), sum(&computed)),
    );
    check(
        &|r| {
            r.snapshot = path("garbage");
            r.skip_hash_check = true;
        },
        "invalid database",
    );
    check(
        &|r| r.name = "other".into(),
        "couldn't find local name \"other\" in the initial cluster configuration",
    );
    check(
        &|r| r.peer_urls = "localhost:2380".into(),
        "URL scheme must be http, https, unix, or unixs: localhost:2380",
    );
    check(
        &|r| r.dir = DataDir::new(&path("out"), Some(temp.path())),
        &format!("wal-dir \"{}\" exists", temp.path().display()),
    );
    let request = request(&snapshot, temp.path());
    assert_eq!(
        restore(&request).unwrap_err(),
        format!(
            "data-dir \"{}\" not empty or could not be read",
            temp.path().display()
        )
    );
    assert!(snapshot.exists());
}

#[test]
fn without_the_check_a_bare_or_changed_file_is_taken() {
    let temp = tempfile::tempdir().unwrap();
    let bare = temp.path().join("bare");
    let image = fixture::image(temp.path());
    std::fs::write(&bare, &image).unwrap();
    let wrong = temp.path().join("wrong");
    std::fs::write(&wrong, [&image[..], &[0; 32]].concat()).unwrap();
    // An empty directory may be there already.
    std::fs::create_dir(temp.path().join("bare.etcd")).unwrap();
    for (snapshot, root) in [(bare, "bare.etcd"), (wrong, "wrong.etcd")] {
        let request = Request {
            skip_hash_check: true,
            ..request(&snapshot, &temp.path().join(root))
        };
        restore(&request).unwrap();
        assert_eq!(records(&open(&request.dir), Bucket::Key).len(), 5);
    }
}

/// Damage that nobody checks for must not do more than fail.
#[test]
fn damaged_images_are_restored_or_refused() {
    let temp = tempfile::tempdir().unwrap();
    let image = fixture::image(temp.path());
    let path = temp.path().join("damaged");
    let root = temp.path().join("out");
    let mut refused = 0;
    for at in (2048..image.len()).filter(|at| image[*at] != 0).step_by(5) {
        let mut damaged = image.clone();
        damaged[at] ^= 0x41;
        std::fs::write(&path, &damaged).unwrap();
        let request = Request {
            skip_hash_check: true,
            bump: 10,
            ..request(&path, &root)
        };
        match restore(&request) {
            Ok(()) => std::fs::remove_dir_all(&root).unwrap(),
            Err(_) => refused += 1,
        }
        assert!(!root.exists(), "{at}");
    }
    assert!(refused > 10, "{refused}");
}
