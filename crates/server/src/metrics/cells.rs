//! Numbers that any thread may count up without meeting another thread's cache line.

use std::cell::Cell;
use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering::Relaxed};

/// Threads are spread over this many copies of every counter.
const SHARDS: usize = 8;
const CELLS_PER_LINE: usize = 8;

static THREADS: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static SHARD: Cell<usize> = const { Cell::new(usize::MAX) };
}

fn shard() -> usize {
    SHARD.with(|cell| {
        let mut shard = cell.get();
        if shard == usize::MAX {
            shard = THREADS.fetch_add(1, Relaxed) % SHARDS;
            cell.set(shard);
        }
        shard
    })
}

#[repr(align(64))]
#[derive(Default)]
struct Line([AtomicU64; CELLS_PER_LINE]);

/// An array of counters, one copy per shard; a copy begins on its own cache line.
///
/// Written by all threads, each in its shard (relaxed, so practically never contended); read by
/// whoever scrapes, who sees every write at some later time and no order between cells.
pub(super) struct Block {
    lines: Box<[Line]>,
    lines_per_shard: usize,
}

impl Block {
    pub(super) fn new(cells: usize) -> Block {
        let lines_per_shard = cells.div_ceil(CELLS_PER_LINE);
        let lines = (0..lines_per_shard * SHARDS)
            .map(|_| Line::default())
            .collect();
        Block {
            lines,
            lines_per_shard,
        }
    }

    fn cell(&self, shard: usize, index: usize) -> &AtomicU64 {
        &self.lines[shard * self.lines_per_shard + index / CELLS_PER_LINE].0[index % CELLS_PER_LINE]
    }

    pub(super) fn add(&self, index: usize, count: u64) {
        self.cell(shard(), index).fetch_add(count, Relaxed);
    }

    pub(super) fn sum(&self, index: usize) -> u64 {
        (0..SHARDS)
            .map(|shard| self.cell(shard, index).load(Relaxed))
            .sum()
    }

    /// Adds to a cell that holds the bits of an `f64`.
    fn add_f64(&self, index: usize, value: f64) {
        let cell = self.cell(shard(), index);
        let mut bits = cell.load(Relaxed);
        // The loop repeats only if another thread of the same shard came between.
        while let Err(now) = cell.compare_exchange_weak(
            bits,
            (f64::from_bits(bits) + value).to_bits(),
            Relaxed,
            Relaxed,
        ) {
            bits = now;
        }
    }

    fn sum_f64(&self, index: usize) -> f64 {
        (0..SHARDS)
            .map(|shard| f64::from_bits(self.cell(shard, index).load(Relaxed)))
            .sum()
    }
}

/// A number that only grows.
pub struct Counter(Block);

impl Default for Counter {
    fn default() -> Counter {
        Counter(Block::new(1))
    }
}

impl Counter {
    /// Counts one.
    pub fn inc(&self) {
        self.0.add(0, 1);
    }

    /// Counts `count`.
    pub fn add(&self, count: u64) {
        self.0.add(0, count);
    }

    /// The sum over all threads.
    #[must_use]
    pub fn value(&self) -> u64 {
        self.0.sum(0)
    }
}

/// A number that rises and falls. Not sharded: gauges are set by one thread or seldom.
#[derive(Default)]
pub struct Gauge(AtomicI64);

impl Gauge {
    /// Replaces the value.
    pub fn set(&self, value: i64) {
        self.0.store(value, Relaxed);
    }

    /// Replaces the value; numbers beyond `i64` do not occur in what is measured.
    pub fn set_u64(&self, value: u64) {
        self.set(i64::try_from(value).unwrap_or(i64::MAX));
    }

    /// Raises (or lowers) the value.
    pub fn add(&self, difference: i64) {
        self.0.fetch_add(difference, Relaxed);
    }

    /// What was set last, with what was added since.
    #[must_use]
    pub fn value(&self) -> i64 {
        self.0.load(Relaxed)
    }
}

/// Observations sorted into buckets.
///
/// Cells of the block: one count per bound, the count above all bounds, the sum as `f64` bits.
pub struct Histogram {
    bounds: Box<[f64]>,
    block: Block,
}

impl Histogram {
    /// Buckets with upper bounds `first`, `first * factor`, … (`count` of them) and infinity.
    #[must_use]
    pub fn exponential(first: f64, factor: f64, count: usize) -> Histogram {
        let mut bounds = Vec::with_capacity(count);
        let mut bound = first;
        for _ in 0..count {
            bounds.push(bound);
            bound *= factor;
        }
        Histogram::with_bounds(bounds)
    }

    /// Buckets with these upper bounds, ascending, and infinity.
    pub(super) fn with_bounds(bounds: Vec<f64>) -> Histogram {
        Histogram {
            block: Block::new(bounds.len() + 2),
            bounds: bounds.into(),
        }
    }

    /// Records one observation.
    pub fn observe(&self, value: f64) {
        self.observe_many(value, 1);
    }

    /// Records so many equal observations.
    pub fn observe_many(&self, value: f64, count: u64) {
        let bucket = self.bounds.partition_point(|bound| *bound < value);
        self.block.add(bucket, count);
        self.block
            .add_f64(self.bounds.len() + 1, value * count as f64);
    }

    /// Records a time in seconds.
    pub fn observe_seconds(&self, time: std::time::Duration) {
        self.observe(time.as_secs_f64());
    }

    /// Bounds with cumulative counts, the total count, and the sum.
    pub(super) fn read(&self) -> (Vec<(f64, u64)>, u64, f64) {
        let mut total = 0;
        let mut buckets = Vec::with_capacity(self.bounds.len());
        for (index, bound) in self.bounds.iter().enumerate() {
            total += self.block.sum(index);
            buckets.push((*bound, total));
        }
        total += self.block.sum(self.bounds.len());
        (buckets, total, self.block.sum_f64(self.bounds.len() + 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_add_up() {
        let (counter, gauge) = (Counter::default(), Gauge::default());
        let histogram = Histogram::exponential(1.0, 2.0, 3);
        std::thread::scope(|scope| {
            for _ in 0..20 {
                scope.spawn(|| {
                    for i in 0..1000 {
                        counter.inc();
                        gauge.add(if i % 2 == 0 { 2 } else { -1 });
                        histogram.observe(f64::from(i % 5));
                    }
                });
            }
        });
        assert_eq!(counter.value(), 20_000);
        assert_eq!(gauge.value(), 10_000);
        let (buckets, count, sum) = histogram.read();
        assert_eq!(buckets, [(1.0, 8_000), (2.0, 12_000), (4.0, 20_000)]);
        assert_eq!((count, sum), (20_000, 40_000.0));
        histogram.observe(4.1);
        assert_eq!(histogram.read().1, 20_001);
    }
}
