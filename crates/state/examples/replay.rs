//! Applies the log of a stopped member's directory to an empty state, and prints the hashes of it
//! and of the member's own database, which must be equal.
//!
//! `cargo run -p state --example replay <data-dir>`: the log must begin at its first entry.

use std::path::Path;
use std::sync::Arc;

use state::{Config, Effect, Machine, Opened, Step};
use storage::backend::{Backend, Bucket, Committer, Options, Reader};
use storage::fs::RealFs;
use storage::wal;

fn open(path: &Path) -> (Opened, Committer, Reader) {
    let Backend {
        writer,
        reader,
        committer,
        maintenance,
    } = Backend::open(Arc::new(RealFs), path, Options::default()).expect("the database opens");
    let config = Config::default();
    let opened =
        Machine::open(writer, reader.clone(), maintenance, config).expect("the state opens");
    (opened, committer, reader)
}

fn sweep(opened: &mut Opened) {
    while opened.sweep.step().expect("the sweep works") != Step::Idle {}
}

fn dump(reader: &Reader, bucket: Bucket) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut records = Vec::new();
    let mut from = Some(Vec::new());
    while let Some(begin) = from {
        let each = |key: &[u8], value: &[u8]| records.push((key.to_vec(), value.to_vec()));
        from = reader
            .scan(bucket, &begin, None, 1000, each)
            .expect("the database is sound");
    }
    records
}

fn report(name: &str, opened: &Opened) {
    let view = &opened.view;
    let (hash, revision) = view.hash_kv(0).expect("a hash at the current revision");
    println!(
        "{name}: applied {}, revision {revision}, compacted {}, keys {}, hashkv {}, hash {}",
        view.applied().index,
        view.compact_revision(),
        view.keys(),
        hash.hash,
        view.hash().expect("the database is sound"),
    );
}

fn main() {
    let dir = std::env::args()
        .nth(1)
        .expect("the data directory as argument");
    let member = Path::new(&dir).join("member");
    let temporary = tempfile::tempdir().expect("a directory");
    let copy = temporary.path().join("copy");
    std::fs::copy(member.join("snap/db"), &copy).expect("the database is copied");
    let (mut theirs, _theirs_committer, their_reader) = open(&copy);
    sweep(&mut theirs);
    report("database", &theirs);

    let from = wal::WalSnapshot::default();
    let recovered = wal::read(&RealFs, &member.join("wal"), from, wal::Applied::default())
        .expect("the log is sound");
    let (mut ours, mut committer, our_reader) = open(&temporary.path().join("db"));
    for entry in &recovered.entries {
        if entry.index > theirs.view.applied().index {
            break;
        }
        let applied = ours.machine.apply(entry).expect("the entry applies");
        for effect in &applied.effects {
            if matches!(effect, Effect::CompactionScheduled { .. }) {
                sweep(&mut ours);
            }
        }
        if ours.machine.pending().ops > 10_000 {
            committer.commit().expect("the disk works");
        }
    }
    committer.commit().expect("the disk works");
    report("replayed", &ours);
    for bucket in Bucket::ALL {
        let (a, b) = (dump(&their_reader, bucket), dump(&our_reader, bucket));
        let name = String::from_utf8_lossy(bucket.name());
        println!(
            "bucket {name}: {} and {} records, equal {}",
            a.len(),
            b.len(),
            a == b
        );
        let differing = a.iter().filter(|r| !b.contains(r)).map(|r| ("-", r));
        let differing = differing.chain(b.iter().filter(|r| !a.contains(r)).map(|r| ("+", r)));
        for (sign, (key, value)) in differing.take(8) {
            println!("  {sign} {} {}", key.escape_ascii(), value.escape_ascii());
        }
    }
}
