//! `cargo xtask bench`: two servers under the same load, in turn, over several rounds.
//!
//! Each round starts both binaries, one after the other on a fresh directory of the same disk,
//! loads the key space and drives every row at every shape of load. Both keep etcd's default
//! durability: an answer to a write means that it was synced. Client and server share the
//! machine, so throughput is a floor and processor time per call is the figure to trust;
//! the client's own time is reported beside it, and what other processes took.

mod connection;
mod histogram;
mod loader;
mod probe;
mod process;
mod report;
mod request;

use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::arguments::Arguments;
use loader::{Extent, Shape};
use probe::Probe;
use process::{Server, Usage, device_written, machine_busy};
use request::Requests;

/// Keys that exist before the first row.
const KEY_SPACE: u64 = 100_000;

/// Reads come first, so that each row of them sees the key space as it was loaded.
const ROWS: [Row; 5] = [
    Row {
        name: "serializable get",
        requests: || Requests::get(KEY_SPACE, true),
        writes: false,
    },
    Row {
        name: "linearizable get",
        requests: || Requests::get(KEY_SPACE, false),
        writes: false,
    },
    Row {
        name: "range of 1,000",
        requests: || Requests::range(KEY_SPACE),
        writes: false,
    },
    Row {
        name: "txn",
        requests: || Requests::txn(KEY_SPACE),
        writes: true,
    },
    Row {
        name: "put",
        requests: || Requests::put(KEY_SPACE),
        writes: true,
    },
];

const SHAPES: [Shape; 5] = [
    Shape {
        connections: 1,
        streams: 1,
    },
    Shape {
        connections: 200,
        streams: 1,
    },
    Shape {
        connections: 1000,
        streams: 1,
    },
    Shape {
        connections: 1,
        streams: 100,
    },
    Shape {
        connections: 100,
        streams: 10,
    },
];

struct Row {
    name: &'static str,
    requests: fn() -> Requests,
    writes: bool,
}

struct Plan {
    ours: PathBuf,
    reference: PathBuf,
    directory: PathBuf,
    rounds: u64,
    measured: Duration,
    /// Substrings of the names of the rows that run; empty for all.
    only: Vec<String>,
    json: Option<PathBuf>,
    markdown: Option<PathBuf>,
}

impl Plan {
    fn parse(arguments: &[String]) -> Result<Self, Box<dyn Error>> {
        let mut arguments = Arguments::new(arguments);
        let quick = arguments.switch("--quick");
        let (rounds, seconds) = if quick { (1, 1) } else { (3, 4) };
        let directory = arguments
            .value("--dir")?
            .unwrap_or_else(|| "target/bench".into());
        let only = arguments.value("--rows")?.unwrap_or_default();
        let plan = Self {
            ours: arguments.required("--ours")?.into(),
            reference: arguments.required("--reference")?.into(),
            directory: directory.into(),
            rounds: arguments.number("--rounds", rounds)?,
            measured: Duration::from_secs(arguments.number("--seconds", seconds)?),
            only: only
                .split(',')
                .filter(|name| !name.is_empty())
                .map(String::from)
                .collect(),
            json: arguments.value("--json")?.map(PathBuf::from),
            markdown: arguments.value("--markdown")?.map(PathBuf::from),
        };
        arguments.finish()?;
        Ok(plan)
    }

    fn wants(&self, row: &Row) -> bool {
        self.only.is_empty()
            || self
                .only
                .iter()
                .any(|part| row.name.contains(part.as_str()))
    }
}

/// One row at one shape against one server.
#[derive(Debug, Clone)]
struct Cell {
    row: &'static str,
    shape: Shape,
    figures: Figures,
}

/// What is known of one cell.
#[derive(Debug, Clone, Copy, Default)]
struct Figures {
    /// Calls a second.
    throughput: f64,
    p50_us: f64,
    p99_us: f64,
    /// Processor time per call, in microseconds.
    server_cpu_us: f64,
    client_cpu_us: f64,
    /// Resident memory of the server at the end, in MiB.
    resident_mib: f64,
    /// Bytes per call that the disk wrote, whoever asked for it.
    written: f64,
    /// Processors that neither server nor client kept busy, but someone else.
    others: f64,
    failed: f64,
}

/// One server in one round.
struct Turn {
    cells: Vec<Cell>,
    probe: Probe,
    /// Resident memory after the key space was loaded, in MiB.
    loaded_mib: f64,
}

/// Runs the plan and prints, and writes if asked, its table and figures.
///
/// # Errors
/// A server that fails, or a file that cannot be written.
pub(crate) fn run(arguments: &[String]) -> Result<(), Box<dyn Error>> {
    let plan = Plan::parse(arguments)?;
    let mut ours = Vec::new();
    let mut reference = Vec::new();
    for round in 0..plan.rounds {
        eprintln!("round {} of {}", round + 1, plan.rounds);
        let mut turn_ours = || -> Result<(), Box<dyn Error>> {
            ours.push(turn(&plan, "ours", &plan.ours)?);
            Ok(())
        };
        let mut turn_reference = || -> Result<(), Box<dyn Error>> {
            reference.push(turn(&plan, "reference", &plan.reference)?);
            Ok(())
        };
        // Who goes first changes, so that a disk that slows down favours neither.
        if round % 2 == 0 {
            turn_ours()?;
            turn_reference()?;
        } else {
            turn_reference()?;
            turn_ours()?;
        }
    }
    let report = report::Report::new(&plan, &ours, &reference)?;
    let markdown = report.markdown();
    println!("{markdown}");
    if let Some(path) = &plan.markdown {
        std::fs::write(path, markdown)?;
    }
    if let Some(path) = &plan.json {
        std::fs::write(path, serde_json::to_string_pretty(&report.json())?)?;
    }
    Ok(())
}

fn turn(plan: &Plan, side: &str, binary: &Path) -> Result<Turn, Box<dyn Error>> {
    let directory = plan
        .directory
        .join(format!("{side}-{}", std::process::id()));
    if directory.exists() {
        std::fs::remove_dir_all(&directory)?;
    }
    std::fs::create_dir_all(&directory)?;
    let probe = probe::run(&directory)?;
    let server = Server::start(binary, &directory)?;
    load_key_space(&server)?;
    let loaded_mib = server.usage()?.resident / MIB;
    let mut cells = Vec::new();
    for row in ROWS.iter().filter(|row| plan.wants(row)) {
        for shape in SHAPES {
            let figures = measure(plan, &server, row, shape)?;
            eprintln!(
                "  {side:9} {:16} {:>4}x{:<3} {:>9.0}/s p50 {:>7.0} p99 {:>7.0} µs, cpu {:>7.2} µs, client {:>6.2} µs, others {:.2}",
                row.name,
                shape.connections,
                shape.streams,
                figures.throughput,
                figures.p50_us,
                figures.p99_us,
                figures.server_cpu_us,
                figures.client_cpu_us,
                figures.others,
            );
            cells.push(Cell {
                row: row.name,
                shape,
                figures,
            });
        }
    }
    drop(server);
    std::fs::remove_dir_all(&directory)?;
    Ok(Turn {
        cells,
        probe,
        loaded_mib,
    })
}

const MIB: f64 = 1024.0 * 1024.0;

fn load_key_space(server: &Server) -> Result<(), Box<dyn Error>> {
    let shape = Shape {
        connections: 1,
        streams: 2,
    };
    let extent = Extent::Calls(KEY_SPACE / request::LOAD_BATCH);
    let loaded = loader::run(server.address, shape, extent, &mut Requests::load(), || {
        Ok(())
    })?;
    match loaded.failed {
        0 => Ok(()),
        failed => Err(format!("{failed} transactions of the load failed").into()),
    }
}

/// Readings at one moment.
struct Mark {
    server: Usage,
    client: Usage,
    busy: f64,
    written: f64,
}

fn measure(
    plan: &Plan,
    server: &Server,
    row: &Row,
    shape: Shape,
) -> Result<Figures, Box<dyn Error>> {
    let extent = Extent::Time {
        warm_up: plan.measured / 2,
        measured: plan.measured,
    };
    let mark = || {
        Ok(Mark {
            server: server.usage()?,
            client: Usage::of("self")?,
            busy: machine_busy()?,
            written: device_written(&plan.directory)?,
        })
    };
    let measured = loader::run(server.address, shape, extent, &mut (row.requests)(), mark)?;
    let (before, after) = &measured.marks;
    let calls = (measured.completed + measured.failed).max(1) as f64;
    let server_cpu = after.server.cpu - before.server.cpu;
    let client_cpu = after.client.cpu - before.client.cpu;
    let busy = after.busy - before.busy;
    let written = after.written - before.written;
    Ok(Figures {
        throughput: measured.completed as f64 / measured.seconds,
        p50_us: measured.latencies.quantile_us(0.5),
        p99_us: measured.latencies.quantile_us(0.99),
        server_cpu_us: server_cpu * 1e6 / calls,
        client_cpu_us: client_cpu * 1e6 / calls,
        resident_mib: after.server.resident / MIB,
        written: if row.writes { written / calls } else { 0.0 },
        others: ((busy - server_cpu - client_cpu) / measured.seconds).max(0.0),
        failed: measured.failed as f64,
    })
}
