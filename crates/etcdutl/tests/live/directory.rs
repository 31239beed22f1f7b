//! Data directories that both tools make or change: their contents must be equal.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use storage::bolt::{Db, Options};
use storage::datadir::DataDir;
use storage::fs::RealFs;
use storage::log::{LogIndex, Term};
use storage::snap;
use storage::wal::{self, Applied, WalSnapshot};

use crate::server::{Member, Place, binary, run};
use crate::{make, one_place, ours, reference, seen, source};

/// All records of a database: bucket, key, value.
fn records(path: &Path) -> Vec<(Vec<u8>, Vec<u8>, Vec<u8>)> {
    let options = Options {
        read_only: true,
        ..Options::default()
    };
    let db = Db::open(Arc::new(RealFs), path, options).unwrap();
    assert!(db.check().unwrap().is_sound());
    let tx = db.begin_read();
    let mut records = Vec::new();
    for bucket in tx.buckets().unwrap() {
        let mut cursor = tx.cursor(&bucket).unwrap();
        while let Some((key, value)) = cursor.next().unwrap() {
            records.push((bucket.to_vec(), key.to_vec(), value.to_vec()));
        }
    }
    records
}

/// Restores a snapshot as the member at `place`.
pub(crate) fn restore(etcdutl: &Path, snapshot: &Path, data_dir: &Path, place: &Place) {
    restore_with(etcdutl, snapshot, data_dir, place, &[]);
}

fn restore_with(etcdutl: &Path, snapshot: &Path, data_dir: &Path, place: &Place, flags: &[&str]) {
    let cluster = format!("{}={}", place.name, place.peer);
    let args = [
        "snapshot",
        "restore",
        snapshot.to_str().unwrap(),
        "--data-dir",
        data_dir.to_str().unwrap(),
        "--name",
        &place.name,
        "--initial-cluster",
        &cluster,
        "--initial-advertise-peer-urls",
        &place.peer,
        "--initial-cluster-token",
        "again",
    ];
    let said = make(etcdutl, &[&args[..], flags].concat(), Path::new("/"));
    assert!(said.stdout.is_empty(), "{}", said.stdout);
    for message in [
        "\tinfo\t",
        "\trestoring snapshot\t",
        "\trestored snapshot\t",
    ] {
        assert!(said.stderr.contains(message), "{}", said.stderr);
    }
}

/// Compares what a server would read of two restored directories.
fn assert_equal(theirs: &Path, ours: &Path, index: u64) {
    let [theirs, ours] = [theirs, ours].map(|root| DataDir::new(root, None));
    assert_eq!(records(&theirs.database()), records(&ours.database()));
    for from in [0, index].map(|index| WalSnapshot {
        index: LogIndex(index),
        term: Term(index.min(1)),
    }) {
        let [left, right] = [&theirs, &ours]
            .map(|dir| wal::read(&RealFs, dir.wal(), from, Applied::default()).unwrap());
        assert_eq!(left.metadata, right.metadata);
        assert_eq!(left.hard_state, right.hard_state);
        assert_eq!(left.torn, right.torn);
        assert_eq!(left.entries.len(), right.entries.len());
    }
    let name = format!("0000000000000001-{index:016x}.snap");
    let [left, right] =
        [&theirs, &ours].map(|dir| snap::read(&RealFs, &dir.snap().join(&name)).unwrap());
    assert_eq!(left.meta, right.meta);
    let [left, right] = [&theirs, &ours].map(|dir| wal::valid_snapshots(&RealFs, dir.wal()));
    assert_eq!(left.unwrap(), right.unwrap());
}

/// Servers that must start from what was restored.
pub(crate) fn servers() -> Vec<PathBuf> {
    let mut servers = vec![binary("ETCD_REFERENCE")];
    servers.extend(std::env::var_os("ETCD_BIN").map(PathBuf::from));
    servers
}

#[test]
fn restored_directories_are_equal_and_served() {
    for server in servers() {
        let temp = tempfile::tempdir().unwrap();
        served_by_all(&server, temp.path());
    }
}

/// A snapshot saved from one server, restored by both tools, served by all servers.
fn served_by_all(server: &Path, temp: &Path) {
    let place = one_place();
    let snapshot = source(server, temp, &place);
    let mut answers = Vec::new();
    for (number, server) in servers().iter().enumerate() {
        let dirs = ["go", "ours"].map(|who| temp.join(format!("{who}{number}")));
        restore(&reference(), &snapshot, &dirs[0], &place);
        restore(&ours(), &snapshot, &dirs[1], &place);
        assert_equal(&dirs[0], &dirs[1], 1);
        for dir in &dirs {
            let member = Member::start(server, dir, &place);
            answers.push(seen(&member));
            member.tell(&["put", "afterwards", "it goes on"]);
            member.stop();
        }
    }
    let hash = make(&ours(), &["hashkv", snapshot.to_str().unwrap()], temp).stdout;
    assert_eq!(answers[0][3].split(", ").next(), hash.split(", ").next());
    assert!(
        answers.windows(2).all(|pair| pair[0] == pair[1]),
        "{answers:#?}"
    );
}

/// A snapshot of 3.6 becomes a member of 3.6, which reads more than 3.7 does: the `.snap` file.
#[test]
fn a_member_of_3_6() {
    let temp = tempfile::tempdir().unwrap();
    let (server, place) = (binary("ETCD_OLDER_REFERENCE"), one_place());
    let snapshot = source(&server, temp.path(), &place);
    let dir = temp.path().join("ours");
    restore(&ours(), &snapshot, &dir, &place);
    let member = Member::start(&server, &dir, &place);
    let before = seen(&member);
    member.tell(&["put", "afterwards", "it goes on"]);
    member.stop();
    let theirs = temp.path().join("go");
    restore(&reference(), &snapshot, &theirs, &place);
    assert_eq!(seen(&Member::start(&server, &theirs, &place)), before);
}

#[test]
fn a_raised_revision_hides_what_was_before() {
    let temp = tempfile::tempdir().unwrap();
    let place = one_place();
    let snapshot = source(&binary("ETCD_REFERENCE"), temp.path(), &place);
    let flags = ["--bump-revision", "1000000", "--mark-compacted"];
    let dirs = ["go", "ours"].map(|who| temp.path().join(who));
    restore_with(&reference(), &snapshot, &dirs[0], &place, &flags);
    restore_with(&ours(), &snapshot, &dirs[1], &place, &flags);
    assert_equal(&dirs[0], &dirs[1], 1);
    for (number, server) in servers().iter().enumerate() {
        let dir = temp.path().join(format!("served{number}"));
        restore_with(&ours(), &snapshot, &dir, &place, &flags);
        let member = Member::start(server, &dir, &place);
        let header = member.tell(&["get", "large", "-w", "fields"]);
        let revision = header
            .lines()
            .find_map(|line| line.strip_prefix("\"Revision\" : "));
        assert!(
            revision.unwrap().parse::<u64>().unwrap() > 1_000_000,
            "{header}"
        );
        let said = member.ask(&["get", "large", "--rev", "36"]);
        assert!(
            said.stderr.contains("required revision has been compacted"),
            "{said:?}"
        );
    }
}

#[test]
fn a_defragmented_directory_is_served() {
    let temp = tempfile::tempdir().unwrap();
    let (server, place) = (binary("ETCD_REFERENCE"), one_place());
    source(&server, temp.path(), &place);
    let dir = temp.path().join("source");
    let database = DataDir::new(&dir, None).database();
    let before = records(&database);
    let size = || database.metadata().unwrap().len();
    let file_bytes = size();

    let member = Member::start(&server, &dir, &place);
    let data_dir = dir.to_str().unwrap();
    let args = ["defrag", "--data-dir", data_dir, "--timeout", "100ms"];
    let said = run(&ours(), &args, temp.path());
    let text = format!("Error: Failed to defragment etcd data[{data_dir}] (timeout)\n");
    assert_eq!(
        (said.code, said.stderr),
        (Some(1), text),
        "a running member has it"
    );
    let answers = seen(&member);
    member.stop();

    let said = make(&ours(), &args[..3], temp.path());
    assert!(said.stdout.is_empty() && size() < file_bytes);
    let after = records(&database);
    assert_eq!(before.len(), after.len());
    let ours_bytes = size();
    assert_eq!(seen(&Member::start(&server, &dir, &place)), answers);
    make(&reference(), &args[..3], temp.path());
    assert!(ours_bytes <= size() * 2, "{ours_bytes} against {}", size());
}

/// Both tools lead a directory through the versions by the same steps and words.
#[test]
fn migrations_are_equal() {
    let temp = tempfile::tempdir().unwrap();
    let place = one_place();
    source(&binary("ETCD_REFERENCE"), temp.path(), &place);
    let steps: [&[&str]; 9] = [
        &["3.7"],
        &["3.6"],
        &["3.5"],
        &["3.5"],
        &["3.7"],
        &["3.8"],
        &["3.8", "--force"],
        &["3.7"],
        &["3.5", "--force"],
    ];
    let run_all = |etcdutl: &Path, who: &str| {
        let dir = temp.path().join(who);
        let copy = [
            "-a",
            temp.path().join("source").to_str().unwrap(),
            dir.to_str().unwrap(),
        ]
        .map(str::to_owned);
        let copied = run(
            Path::new("/bin/cp"),
            &copy.each_ref().map(String::as_str),
            temp.path(),
        );
        assert_eq!(copied.code, Some(0), "{}", copied.stderr);
        let data_dir = dir.to_str().unwrap();
        let mut lines = Vec::new();
        for step in steps {
            let args = ["migrate", "--data-dir", data_dir, "--target-version"];
            let said = run(etcdutl, &[&args[..], step].concat(), temp.path());
            lines.push(format!("{step:?}: {:?}", said.code));
            lines.extend(said.stderr.lines().filter_map(message));
            let database = DataDir::new(&dir, None).database();
            let version = records(&database)
                .into_iter()
                .find(|(bucket, key, _)| bucket == b"meta" && key == b"storageVersion");
            lines.push(format!("{:?}", version.map(|(_, _, value)| value)));
        }
        lines
    };
    assert_eq!(run_all(&reference(), "go"), run_all(&ours(), "ours"));
}

/// A log line about versions without time and place, or an error.
fn message(line: &str) -> Option<String> {
    if line.starts_with("Error:") {
        return Some(line.to_owned());
    }
    let parts: Vec<&str> = line.split('\t').collect();
    let level = parts.get(1)?;
    let is_ours = line.contains("version") && !line.contains("bbolt");
    let text = parts.iter().skip(2).find(|part| !part.contains(".go:"))?;
    is_ours.then(|| format!("{level} {text} {}", parts.last().unwrap_or(&"")))
}
