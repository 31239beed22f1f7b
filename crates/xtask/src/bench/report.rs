//! Medians of both sides and their ratios, as a table and as JSON.

use std::error::Error;
use std::fmt::Write;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use super::rows::{self, BESIDE_NONE, KEY_SPACE};
use super::{Figures, Plan, Shape, Turn, request};

/// Name, unit-bearing key of the JSON, and how it is read from the figures.
type Column = (&'static str, fn(&Figures) -> f64);

const COLUMNS: [Column; 9] = [
    ("throughput_per_s", |figures| figures.throughput),
    ("p50_us", |figures| figures.p50_us),
    ("p99_us", |figures| figures.p99_us),
    ("server_cpu_us", |figures| figures.server_cpu_us),
    ("client_cpu_us", |figures| figures.client_cpu_us),
    ("resident_mib", |figures| figures.resident_mib),
    ("written_bytes_per_call", |figures| figures.written),
    ("other_processes_cpus", |figures| figures.others),
    ("failed_calls", |figures| figures.failed),
];

/// The medians of all rounds.
pub(super) struct Report {
    machine: Vec<(&'static str, String)>,
    members: usize,
    rounds: u64,
    seconds: f64,
    lines: Vec<Line>,
    sides: [Side; 2],
}

struct Line {
    row: &'static str,
    shape: Shape,
    ours: Figures,
    reference: Figures,
}

struct Side {
    version: String,
    loaded_mib: f64,
    written_p50: f64,
    written_p99: f64,
    growing_p50: f64,
    growing_p99: f64,
    /// Median of (p50 of one client's put − p50 of the probe of the same turn), if it ran.
    put_over_sync: Option<f64>,
}

impl Report {
    pub(super) fn new(
        plan: &Plan,
        ours: &[Turn],
        reference: &[Turn],
    ) -> Result<Self, Box<dyn Error>> {
        let first = ours.first().ok_or("no round was run")?;
        let lines = first.cells.iter().enumerate().map(|(index, cell)| Line {
            row: cell.row,
            shape: cell.shape,
            ours: medians(ours, index),
            reference: medians(reference, index),
        });
        Ok(Self {
            machine: machine(),
            members: plan.members,
            rounds: plan.rounds,
            seconds: plan.measured.as_secs_f64(),
            lines: lines.collect(),
            sides: [
                Side::new(&plan.ours, ours)?,
                Side::new(&plan.reference, reference)?,
            ],
        })
    }

    pub(super) fn json(&self) -> Value {
        let side = |side: &Side| {
            json!({
                "version": side.version,
                "resident_after_load_mib": round(side.loaded_mib),
                "fdatasync_written_file_us": { "p50": round(side.written_p50), "p99": round(side.written_p99) },
                "fdatasync_growing_file_us": { "p50": round(side.growing_p50), "p99": round(side.growing_p99) },
                "serial_put_minus_fdatasync_us": side.put_over_sync.map(round),
            })
        };
        let figures = |figures: &Figures| -> Value {
            COLUMNS
                .iter()
                .map(|(name, read)| (name.to_string(), json!(round(read(figures)))))
                .collect()
        };
        let ratios = |line: &Line| -> Value {
            let pairs = COLUMNS.iter().filter_map(|(name, read)| {
                let ratio = ratio(read(&line.ours), read(&line.reference))?;
                Some((name.to_string(), json!(round(ratio))))
            });
            pairs.collect()
        };
        let lines = self.lines.iter().map(|line| {
            json!({
                "row": line.row,
                "connections": line.shape.connections,
                "streams": line.shape.streams,
                "ours": figures(&line.ours),
                "reference": figures(&line.reference),
                "ours_by_reference": ratios(line),
            })
        });
        json!({
            "machine": self.machine.iter().map(|(name, value)| (name.to_string(), json!(value)))
                .collect::<Value>(),
            "members": self.members,
            "rounds": self.rounds,
            "seconds_per_cell": self.seconds,
            "key_space": KEY_SPACE,
            "value_bytes": request::VALUE_BYTES,
            "ours": side(&self.sides[0]),
            "reference": side(&self.sides[1]),
            "lines": lines.collect::<Vec<_>>(),
        })
    }

    pub(super) fn markdown(&self) -> String {
        let mut out = String::new();
        self.write_markdown(&mut out)
            .expect("writing to a string cannot fail");
        out
    }

    fn write_markdown(&self, out: &mut String) -> std::fmt::Result {
        let [ours, reference] = &self.sides;
        for (name, value) in &self.machine {
            writeln!(out, "- {name}: {value}")?;
        }
        writeln!(
            out,
            "- ours: {}; reference: {}",
            ours.version, reference.version
        )?;
        writeln!(
            out,
            "- clusters of {} on this machine; processor time and memory are their sums",
            self.members,
        )?;
        writeln!(
            out,
            "- medians of {} rounds, {:.0} s a cell, {KEY_SPACE} keys, values of {} bytes",
            self.rounds,
            self.seconds,
            request::VALUE_BYTES,
        )?;
        writeln!(
            out,
            "\nCells are ours / reference = ratio. `N×1` is N clients with one call"
        )?;
        writeln!(
            out,
            "each; in `N×S` each of N connections has S calls outstanding.\n"
        )?;
        writeln!(
            out,
            "| row | load | calls/s | p50 µs | p99 µs | server CPU µs | RSS MiB | disk B/call | client CPU µs | other CPUs |"
        )?;
        writeln!(out, "|---|---|---|---|---|---|---|---|---|---|")?;
        for line in &self.lines {
            line.write_markdown(out)?;
        }
        self.write_beside(out)?;
        writeln!(out, "\n| | ours | reference |\n|---|---|---|")?;
        let mut pair = |name: &str, read: fn(&Side) -> f64| {
            writeln!(
                out,
                "| {name} | {} | {} |",
                short(read(ours)),
                short(read(reference))
            )
        };
        pair("RSS after loading, MiB", |side| side.loaded_mib)?;
        pair("append + fdatasync, written file, p50 µs", |side| {
            side.written_p50
        })?;
        pair("the same, p99 µs", |side| side.written_p99)?;
        pair("append + fdatasync, growing file, p50 µs", |side| {
            side.growing_p50
        })?;
        pair("the same, p99 µs", |side| side.growing_p99)?;
        pair(
            "one client's put less fdatasync (written), p50 µs",
            |side| side.put_over_sync.unwrap_or(f64::NAN),
        )
    }
}

/// What lagging watchers do to a writer: its calls a second and its p99, by those without them.
#[derive(Debug, PartialEq)]
struct Beside {
    row: &'static str,
    shape: Shape,
    /// Ours, then the reference; `None` where nothing was measured.
    throughput: [Option<f64>; 2],
    p99: [Option<f64>; 2],
}

impl Report {
    fn beside(&self) -> Vec<Beside> {
        let alone = |shape| {
            let mut lines = self.lines.iter();
            lines.find(|line| line.row == BESIDE_NONE && line.shape == shape)
        };
        let is_beside = |line: &&Line| rows::lags(line.row);
        let lines = self.lines.iter().filter(is_beside).filter_map(|line| {
            let alone = alone(line.shape)?;
            let sides = [
                (&line.ours, &alone.ours),
                (&line.reference, &alone.reference),
            ];
            Some(Beside {
                row: line.row,
                shape: line.shape,
                throughput: sides.map(|(with, without)| ratio(with.throughput, without.throughput)),
                // Without any call there is no 99th percentile either.
                p99: sides.map(|(with, without)| {
                    ratio(with.p99_us, without.p99_us).filter(|_| with.throughput > 0.0)
                }),
            })
        });
        lines.collect()
    }

    fn write_beside(&self, out: &mut String) -> std::fmt::Result {
        let beside = self.beside();
        if beside.is_empty() {
            return Ok(());
        }
        writeln!(
            out,
            "\n| by `{BESIDE_NONE}` | load | calls/s, ours | p99, ours | calls/s, reference | p99, reference |"
        )?;
        writeln!(out, "|---|---|---|---|---|---|")?;
        let show = |value: Option<f64>| value.map_or("–".into(), |value| format!("{value:.2}"));
        for one in beside {
            writeln!(
                out,
                "| {} | {}×{} | {} | {} | {} | {} |",
                one.row,
                one.shape.connections,
                one.shape.streams,
                show(one.throughput[0]),
                show(one.p99[0]),
                show(one.throughput[1]),
                show(one.p99[1]),
            )?;
        }
        Ok(())
    }
}

impl Line {
    fn write_markdown(&self, out: &mut String) -> std::fmt::Result {
        let Shape {
            connections,
            streams,
        } = self.shape;
        write!(out, "| {} | {connections}×{streams} ", self.row)?;
        let shown: [fn(&Figures) -> f64; 6] = [
            |one| one.throughput,
            |one| one.p50_us,
            |one| one.p99_us,
            |one| one.server_cpu_us,
            |one| one.resident_mib,
            |one| one.written,
        ];
        for read in shown {
            let (ours, reference) = (read(&self.ours), read(&self.reference));
            write!(out, "| {} / {}", short(ours), short(reference))?;
            if let Some(ratio) = ratio(ours, reference) {
                write!(out, " = **{ratio:.2}** ")?;
            }
        }
        for read in [
            |one: &Figures| one.client_cpu_us,
            |one: &Figures| one.others,
        ] {
            write!(
                out,
                "| {} / {} ",
                short(read(&self.ours)),
                short(read(&self.reference))
            )?;
        }
        writeln!(out, "|")
    }
}

impl Side {
    fn new(binary: &Path, turns: &[Turn]) -> Result<Self, Box<dyn Error>> {
        let over = |read: fn(&Turn) -> f64| median(turns.iter().map(read).collect());
        let over_sync: Vec<f64> = turns.iter().filter_map(put_over_sync).collect();
        Ok(Self {
            version: version(binary)?,
            loaded_mib: over(|turn| turn.loaded_mib),
            written_p50: over(|turn| turn.probe.written_p50),
            written_p99: over(|turn| turn.probe.written_p99),
            growing_p50: over(|turn| turn.probe.growing_p50),
            growing_p99: over(|turn| turn.probe.growing_p99),
            put_over_sync: (!over_sync.is_empty()).then(|| median(over_sync)),
        })
    }
}

fn put_over_sync(turn: &Turn) -> Option<f64> {
    let serial = Shape {
        connections: 1,
        streams: 1,
    };
    let cell = turn
        .cells
        .iter()
        .find(|cell| cell.row == "put" && cell.shape == serial)?;
    Some(cell.figures.p50_us - turn.probe.written_p50)
}

fn medians(turns: &[Turn], index: usize) -> Figures {
    let over = |read: fn(&Figures) -> f64| {
        median(
            turns
                .iter()
                .map(|turn| read(&turn.cells[index].figures))
                .collect(),
        )
    };
    Figures {
        throughput: over(|one| one.throughput),
        p50_us: over(|one| one.p50_us),
        p99_us: over(|one| one.p99_us),
        server_cpu_us: over(|one| one.server_cpu_us),
        client_cpu_us: over(|one| one.client_cpu_us),
        resident_mib: over(|one| one.resident_mib),
        written: over(|one| one.written),
        others: over(|one| one.others),
        failed: over(|one| one.failed),
    }
}

/// The middle value, or the mean of the two in the middle; 0 of nothing.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => 0.0,
        odd if odd % 2 == 1 => values[middle],
        _ => f64::midpoint(values[middle - 1], values[middle]),
    }
}

fn ratio(ours: f64, reference: f64) -> Option<f64> {
    (reference > 0.0).then(|| ours / reference)
}

fn round(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

/// Three significant digits, thousands as `k`.
fn short(value: f64) -> String {
    match value {
        _ if value.is_nan() => "–".into(),
        _ if value >= 100_000.0 => format!("{:.0}k", value / 1000.0),
        _ if value >= 10_000.0 => format!("{:.1}k", value / 1000.0),
        _ if value >= 100.0 => format!("{value:.0}"),
        _ if value >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

fn version(binary: &Path) -> Result<String, Box<dyn Error>> {
    let output = Command::new(binary).arg("--version").output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text
        .lines()
        .next()
        .unwrap_or("unknown version")
        .trim()
        .into())
}

fn machine() -> Vec<(&'static str, String)> {
    let field = |path: &str, name: &str| {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let value = text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.split_once(':'));
        value.map_or("unknown".into(), |(_, value)| value.trim().to_string())
    };
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let processors = std::thread::available_parallelism().map_or(0, usize::from);
    vec![
        (
            "processor",
            format!("{processors} × {}", field("/proc/cpuinfo", "model name")),
        ),
        ("memory", field("/proc/meminfo", "MemTotal")),
        ("kernel", kernel.trim().into()),
    ]
}

#[cfg(test)]
mod tests;
