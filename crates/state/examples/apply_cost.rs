//! What applying and reading cost, in CPU time of the thread that does it.
//!
//! `cargo run --release -p state --example apply_cost [keys]`

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use api::pb::etcdserverpb as pb;
use prost::Message;
use rustix::time::{ClockId, clock_gettime};
use state::{Caller, Config, Machine, View};
use storage::backend::{Backend, Committer, Options};
use storage::fs::RealFs;
use storage::log::{Entry, EntryKind, LogIndex, Term};

const VALUE_BYTES: usize = 256;
const SLICE: usize = 256;

fn cpu() -> Duration {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}

/// Time per operation of `count` operations, in nanoseconds.
fn measure(name: &str, count: usize, work: impl FnOnce()) {
    let begin = cpu();
    work();
    let each = (cpu() - begin).as_nanos() as f64 / count as f64;
    println!("{name:44} {each:10.0} ns");
}

struct Random(u64);

impl Random {
    fn next(&mut self, below: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % below as u64) as usize
    }
}

fn key(n: usize) -> Vec<u8> {
    format!("/registry/pods/namespace-{:03}/workload-{n:010}", n % 100).into_bytes()
}

fn entry(index: usize, key: &[u8]) -> Entry {
    let put = pb::PutRequest {
        key: key.to_vec().into(),
        value: vec![b'v'; VALUE_BYTES].into(),
        ..Default::default()
    };
    let header = pb::RequestHeader {
        id: index as u64,
        ..Default::default()
    };
    let request = pb::InternalRaftRequest {
        header: Some(header),
        put: Some(put),
        ..Default::default()
    };
    Entry {
        kind: EntryKind::Normal,
        term: Term(1),
        index: LogIndex(index as u64),
        data: request.encode_to_vec().into(),
    }
}

/// CPU time of applying and of committing.
fn apply(
    machine: &mut Machine,
    committer: &mut Committer,
    entries: Vec<Entry>,
) -> (Duration, Duration) {
    let (mut spent, mut committed) = (Duration::ZERO, Duration::ZERO);
    let mut applied = Vec::new();
    for slice in entries.chunks(SLICE) {
        let begin = cpu();
        machine.apply_all(slice, &mut applied).expect("puts apply");
        applied.clear();
        spent += cpu() - begin;
        if committer.pending().ops >= 20_000 {
            let begin = cpu();
            committer.commit().expect("the disk works");
            committed += cpu() - begin;
        }
    }
    (spent, committed)
}

fn puts(
    name: &str,
    machine: &mut Machine,
    committer: &mut Committer,
    keys: impl Iterator<Item = usize>,
) {
    let first = machine.applied().0.0 as usize + 1;
    let keys: Vec<usize> = keys.collect();
    let (mut spent, mut committed) = (Duration::ZERO, Duration::ZERO);
    for (n, chunk) in keys.chunks(100_000).enumerate() {
        let at = first + n * 100_000;
        let entries = chunk
            .iter()
            .enumerate()
            .map(|(i, &n)| entry(at + i, &key(n)))
            .collect();
        let cost = apply(machine, committer, entries);
        spent += cost.0;
        committed += cost.1;
    }
    let each = |cost: Duration| cost.as_nanos() as f64 / keys.len() as f64;
    println!("{name:44} {:10.0} ns", each(spent));
    println!(
        "{:44} {:10.0} ns",
        "  its part of the commits",
        each(committed)
    );
}

fn authorised(view: &View, request: pb::RangeRequest) -> state::Authorised<pb::RangeRequest> {
    view.authorise(Caller::NOBODY, request)
        .expect("authentication is off")
}

fn gets(name: &str, view: &View, random: &mut Random, keys: usize) {
    let requests: Vec<_> = (0..200_000)
        .map(|_| pb::RangeRequest {
            key: key(random.next(keys)).into(),
            ..Default::default()
        })
        .map(|request| authorised(view, request))
        .collect();
    let mut out = Vec::with_capacity(1 << 20);
    measure(name, requests.len(), || {
        for request in &requests {
            out.clear();
            let mut answer = view.range(request).expect("the key exists");
            while answer
                .write_chunk(&mut out, 64 << 10)
                .expect("records are there")
            {}
        }
    });
}

fn ranges(name: &str, view: &View, random: &mut Random, keys: usize) {
    let mut out = Vec::with_capacity(1 << 20);
    let count = 2_000;
    measure(name, count, || {
        for _ in 0..count {
            out.clear();
            let request = pb::RangeRequest {
                key: key(random.next(keys)).into(),
                range_end: vec![0].into(),
                limit: 1000,
                ..Default::default()
            };
            let mut answer = view
                .range(&authorised(view, request))
                .expect("a range is answered");
            while answer
                .write_chunk(&mut out, 64 << 10)
                .expect("records are there")
            {}
        }
    });
}

fn open(path: &Path, config: Config) -> (state::Opened, Committer) {
    let Backend {
        writer,
        reader,
        committer,
        maintenance,
    } = Backend::open(Arc::new(RealFs), path, Options::default()).expect("the file opens");
    let opened = Machine::open(writer, reader, maintenance, config).expect("the state opens");
    (opened, committer)
}

fn resident_mib() -> f64 {
    let status = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: f64 = status
        .split(' ')
        .nth(1)
        .and_then(|n| n.parse().ok())
        .unwrap_or(0.0);
    pages * 4096.0 / f64::from(1 << 20)
}

fn main() {
    let keys: usize = std::env::args()
        .nth(1)
        .and_then(|n| n.parse().ok())
        .unwrap_or(100_000);
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("db");
    let config = Config {
        value_budget: 1 << 40,
        quota_bytes: None,
        ..Config::default()
    };
    let (
        state::Opened {
            mut machine,
            view,
            sweep,
        },
        mut committer,
    ) = open(&path, config.clone());
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let before = resident_mib();
    println!(
        "{keys} keys of {} bytes, values of {VALUE_BYTES} bytes",
        key(0).len()
    );
    puts(
        "put, new key, in order",
        &mut machine,
        &mut committer,
        0..keys,
    );
    committer.commit().expect("the disk works");
    println!("{:44} {:10.0} MiB", "resident", resident_mib() - before);
    let overwrites: Vec<usize> = (0..keys).map(|_| random.next(keys)).collect();
    puts(
        "put, overwrite, random",
        &mut machine,
        &mut committer,
        overwrites.into_iter(),
    );
    let news: Vec<usize> = (0..keys / 4).map(|_| keys + random.next(keys)).collect();
    puts(
        "put, new key, random",
        &mut machine,
        &mut committer,
        news.into_iter(),
    );
    committer.commit().expect("the disk works");
    gets("get, random, in memory", &view, &mut random, keys);
    ranges("range of 1,000 keys, in memory", &view, &mut random, keys);
    ranges("range of 1,000 keys, the same ones", &view, &mut random, 1);
    drop((machine, view, sweep, committer));
    reopen(&path, config, &mut random, keys);
}

/// Opens what was written, with records in memory and without.
fn reopen(path: &Path, config: Config, random: &mut Random, keys: usize) {
    let begin = cpu();
    let (opened, committer) = open(path, config.clone());
    println!("{:44} {:10.0} ms", "open", (cpu() - begin).as_millis());
    drop((opened, committer));
    let without_memory = Config {
        value_budget: 0,
        ..config
    };
    let (opened, _committer) = open(path, without_memory);
    gets("get, random, from the file", &opened.view, random, keys);
    ranges(
        "range of 1,000 keys, from the file",
        &opened.view,
        random,
        keys,
    );
}
