//! What the disk itself takes for a durable write, measured beside the servers.

use std::error::Error;
use std::fs::OpenOptions;
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;
use std::time::Instant;

use super::histogram::Histogram;

const WRITES: usize = 1000;
const BLOCK: usize = 4096;

/// Medians and 99th percentiles in microseconds of one 4 KiB append and its fdatasync.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Probe {
    /// Into a file that was written with zeros before.
    pub(crate) written_p50: f64,
    pub(crate) written_p99: f64,
    /// Into a file that grows.
    pub(crate) growing_p50: f64,
    pub(crate) growing_p99: f64,
}

/// Times a thousand appends of each kind in `directory`.
///
/// # Errors
/// The file system refuses.
pub(crate) fn run(directory: &Path) -> Result<Probe, Box<dyn Error>> {
    let written = appends(&directory.join("probe-written"), true)?;
    let growing = appends(&directory.join("probe-growing"), false)?;
    Ok(Probe {
        written_p50: written.quantile_us(0.5),
        written_p99: written.quantile_us(0.99),
        growing_p50: growing.quantile_us(0.5),
        growing_p99: growing.quantile_us(0.99),
    })
}

fn appends(path: &Path, written: bool) -> Result<Histogram, Box<dyn Error>> {
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .open(path)?;
    if written {
        file.write_all(&vec![0; WRITES * BLOCK])?;
        file.sync_all()?;
        file.seek(SeekFrom::Start(0))?;
    }
    let block = [0x5a; BLOCK];
    let mut latencies = Histogram::new();
    for _ in 0..WRITES {
        let begin = Instant::now();
        file.write_all(&block)?;
        file.sync_data()?;
        latencies.record(begin.elapsed().as_nanos() as u64);
    }
    drop(file);
    std::fs::remove_file(path)?;
    Ok(latencies)
}
