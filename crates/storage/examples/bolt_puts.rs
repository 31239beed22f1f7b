//! Measures the bolt engine: sorted batches of revisions into bucket `key`, then reads.
//!
//! Usage: `bolt_puts PATH [REVISIONS [BATCH [VALUE_BYTES]]]`; PATH is created and removed.

use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use storage::bolt::{Db, Options};
use storage::fs::RealFs;

const BUCKET: &[u8] = b"key";

fn revision(main: u64) -> Bytes {
    let mut key = main.to_be_bytes().to_vec();
    key.push(b'_');
    key.extend_from_slice(&0u64.to_be_bytes());
    key.into()
}

fn cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Runs `work` and prints what one of its `count` steps costs.
fn measure<T>(what: &str, count: u64, work: impl FnOnce() -> T) -> T {
    let (wall, used) = (Instant::now(), cpu());
    let result = work();
    let (wall, used) = (wall.elapsed(), cpu() - used);
    let each = |time: Duration| time.as_nanos() as f64 / count as f64 / 1000.0;
    println!(
        "{what:32} {:8.3} us cpu {:8.3} us wall, {count} steps",
        each(used),
        each(wall)
    );
    result
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let path = args
        .next()
        .ok_or("usage: bolt_puts PATH [REVISIONS [BATCH [VALUE_BYTES]]]")?;
    let path = Path::new(&path);
    let mut number = |default: u64| args.next().map_or(Ok(default), |arg| arg.parse());
    let (revisions, batch, value_bytes) = (number(1_000_000)?, number(10_000)?, number(256)?);
    if path.exists() {
        return Err("the file exists".into());
    }
    let open = || Db::open(Arc::new(RealFs), path, Options::default());
    let db = open()?;
    let value = Bytes::from(vec![b'v'; value_bytes as usize]);
    measure("put, sorted batches", revisions, || {
        fill(&db, revisions, batch, &value)
    })?;
    println!("size {} in use {}", db.size(), db.size_in_use());
    drop(db);
    let db = measure("open (scan), per revision", revisions, open)?;
    let mut read = 0;
    measure(
        "cursor over all",
        revisions,
        || -> Result<(), storage::bolt::Error> {
            let tx = db.begin_read();
            let mut cursor = tx.cursor(BUCKET)?;
            while let Some((_, value)) = cursor.next()? {
                read += value.len();
            }
            Ok(())
        },
    )?;
    let gets = revisions.min(200_000);
    measure("get, random", gets, || get_random(&db, gets, revisions))?;
    measure("get, the newest 100", gets, || {
        get_newest(&db, gets, revisions)
    })?;
    measure("delete every other, batches", revisions / 2, || {
        delete_half(&db, revisions, batch)
    })?;
    println!("size {} in use {}", db.size(), db.size_in_use());
    let report = measure("check, per revision", revisions, || db.check())?;
    println!(
        "{} keys read, {} bytes; {} violations",
        report.keys,
        read,
        report.violations.len()
    );
    std::fs::remove_file(path)?;
    Ok(())
}

type Outcome = Result<(), storage::bolt::Error>;

fn fill(db: &Db, revisions: u64, batch: u64, value: &Bytes) -> Outcome {
    for first in (0..revisions).step_by(batch as usize) {
        let last = revisions.min(first + batch);
        let changes: Vec<_> = (first..last)
            .map(|main| (revision(main), Some(value.clone())))
            .collect();
        let mut tx = db.begin_write()?;
        tx.create_bucket(BUCKET)?;
        tx.apply_sorted(BUCKET, &changes)?;
        tx.commit()?;
    }
    Ok(())
}

fn get_random(db: &Db, gets: u64, revisions: u64) -> Outcome {
    let mut at = 1u64;
    for _ in 0..gets {
        at = at
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let tx = db.begin_read();
        tx.get(BUCKET, &revision((at >> 33) % revisions))?;
    }
    Ok(())
}

fn get_newest(db: &Db, gets: u64, revisions: u64) -> Outcome {
    for at in 0..gets {
        let tx = db.begin_read();
        tx.get(BUCKET, &revision(revisions - 1 - at % revisions.min(100)))?;
    }
    Ok(())
}

fn delete_half(db: &Db, revisions: u64, batch: u64) -> Outcome {
    for first in (0..revisions).step_by(batch as usize * 2) {
        let last = revisions.min(first + batch * 2);
        let changes: Vec<_> = (first..last)
            .step_by(2)
            .map(|main| (revision(main), None))
            .collect();
        let mut tx = db.begin_write()?;
        tx.apply_sorted(BUCKET, &changes)?;
        tx.commit()?;
    }
    Ok(())
}
