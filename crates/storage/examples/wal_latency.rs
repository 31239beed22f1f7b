//! Latency of one append and its sync on a real disk, for 1 and for 64 entries a batch, and how
//! long it takes to read the log again.
//!
//! ```text
//! wal_latency DIRECTORY [batches] [entry-bytes] [wait-ms-before]
//! ```

use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use storage::fs::RealFs;
use storage::log::{Entry, EntryKind, HardState, LogIndex, Term};
use storage::wal::{Applied, Metadata, Options, Wal, WalSnapshot, valid_snapshots};

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().collect();
    let dir = Path::new(args.get(1).ok_or("a directory to write in is needed")?);
    let number = |i: usize, default: u64| args.get(i).map_or(Ok(default), |a| a.parse());
    let (batches, bytes, wait_ms) = (number(2, 2000)?, number(3, 256)?, number(4, 0)?);
    for zero_ahead in [false, true] {
        for entries in [1, 64] {
            run(dir, zero_ahead, entries, batches, bytes as usize, wait_ms)?;
        }
    }
    Ok(())
}

fn run(
    parent: &Path,
    zero_ahead: bool,
    entries: u64,
    batches: u64,
    bytes: usize,
    wait_ms: u64,
) -> Result<(), Box<dyn Error>> {
    let dir = parent.join(format!("wal-{zero_ahead}-{entries}"));
    let metadata = Metadata {
        node_id: 1,
        cluster_id: 2,
    };
    let options = Options {
        zero_ahead,
        ..Options::default()
    };
    let mut wal = Wal::create(Arc::new(RealFs), &dir, &metadata, options)?;
    std::thread::sleep(Duration::from_millis(wait_ms));
    let data = Bytes::from(vec![0x5a; bytes]);
    let mut index = 0;
    let (mut append_ns, mut total_ns) = (Vec::new(), Vec::new());
    for _ in 0..batches {
        let batch: Vec<Entry> = (1..=entries)
            .map(|i| Entry {
                kind: EntryKind::Normal,
                term: Term(1),
                index: LogIndex(index + i),
                data: data.clone(),
            })
            .collect();
        let state = HardState {
            term: Term(1),
            vote: 1,
            commit: LogIndex(index),
        };
        index += entries;
        let start = Instant::now();
        wal.append(Some(state), &batch)?;
        append_ns.push(start.elapsed().as_nanos() as u64);
        wal.sync()?;
        total_ns.push(start.elapsed().as_nanos() as u64);
    }
    wal.close()?;
    let total: u64 = total_ns.iter().sum();
    println!(
        "zeros ahead {zero_ahead:5}, {entries:2} entries of {bytes} B: append p50 {:6.1} p99 {:6.1} \
         us, append and sync p50 {:6.1} p99 {:6.1} max {:8.1} us, {:.0} entries/s",
        percentile(&mut append_ns, 50),
        percentile(&mut append_ns, 99),
        percentile(&mut total_ns, 50),
        percentile(&mut total_ns, 99),
        percentile(&mut total_ns, 100),
        (batches * entries) as f64 * 1e9 / total as f64,
    );
    let start = Instant::now();
    valid_snapshots(&RealFs, &dir)?;
    let scanned = start.elapsed();
    let start = Instant::now();
    let (from, applied) = (WalSnapshot::default(), Applied::default());
    let (_, recovered) = Wal::open(Arc::new(RealFs), &dir, from, applied, Options::inline())?;
    println!(
        "    snapshots found in {scanned:.1?}, opened with {} entries in {:.1?}",
        recovered.entries.len(),
        start.elapsed(),
    );
    std::fs::remove_dir_all(&dir)?;
    Ok(())
}

/// In microseconds.
fn percentile(samples: &mut [u64], percent: usize) -> f64 {
    samples.sort_unstable();
    samples[(samples.len() * percent / 100).min(samples.len() - 1)] as f64 / 1000.0
}
