//! `cargo xtask bench`: two servers under the same load, in turn, over several rounds.
//!
//! With `--members N` each server is a cluster of N on this machine. Each round starts both
//! binaries, one after the other on a fresh directory of the same disk, loads the key space and
//! drives every row at every shape of load. Both keep etcd's default durability: an answer to a
//! write means that it was synced. Client and server share the machine, so throughput is a floor
//! and processor time per call is the figure to trust; the client's own time is reported beside
//! it, and what other processes took.

mod connection;
mod fan_out;
mod histogram;
mod lag;
mod loader;
mod poll;
mod probe;
mod process;
mod report;
mod request;
mod rows;
mod transport;
mod watchers;

use std::error::Error;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use cli::arguments::Arguments;
use lag::Laggards;
use loader::{Extent, Measured, Shape};
use probe::Probe;
use process::{Cluster, Usage, device_written, machine_busy};
use request::Requests;
use rows::{KEY_SPACE, LAG, Preparation, Row, Scene, Through};

struct Plan {
    ours: PathBuf,
    reference: PathBuf,
    directory: PathBuf,
    /// Members of either cluster.
    members: usize,
    rounds: u64,
    measured: Duration,
    /// Substrings of the names of the rows that run; empty for all.
    only: Vec<String>,
    json: Option<PathBuf>,
    markdown: Option<PathBuf>,
}

impl Plan {
    fn parse(arguments: &[String]) -> Result<Self, Box<dyn Error>> {
        let mut arguments = Arguments::new(arguments.iter().cloned(), crate::USAGE);
        let quick = arguments.switch("--quick");
        let (rounds, seconds) = if quick { (1, 1) } else { (3, 4) };
        let directory = arguments
            .value("--dir")?
            .unwrap_or_else(|| "target/bench".into());
        let only = arguments.value("--rows")?.unwrap_or_default();
        let plan = Self {
            ours: arguments.need("--ours")?,
            reference: arguments.need("--reference")?,
            directory: directory.into(),
            members: arguments.number("--members", 1)?.try_into()?,
            rounds: arguments.number("--rounds", rounds)?,
            measured: Duration::from_secs(arguments.number("--seconds", seconds)?),
            only: only
                .split(',')
                .filter(|name| !name.is_empty())
                .map(String::from)
                .collect(),
            json: arguments.path("--json")?,
            markdown: arguments.path("--markdown")?,
        };
        arguments.finish()?;
        if plan.members == 0 {
            return Err("a cluster has at least one member".into());
        }
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
    let cluster = Cluster::start(binary, &directory, plan.members)?;
    load_key_space(&cluster)?;
    let loaded_mib = cluster.usage()?.resident / MIB;
    let mut stage = Stage {
        plan,
        cluster,
        fresh: KEY_SPACE,
        lag_from: None,
    };
    let mut cells = Vec::new();
    for row in rows::of(plan.members).iter().filter(|row| plan.wants(row)) {
        if let Scene::Prepared(_, preparation) = row.scene {
            stage.prepare(preparation)?;
        }
        for &shape in row.shapes {
            let figures = stage.measure(row, shape)?;
            print(side, row.name, shape, &figures);
            cells.push(Cell {
                row: row.name,
                shape,
                figures,
            });
        }
    }
    drop(stage);
    std::fs::remove_dir_all(&directory)?;
    Ok(Turn {
        cells,
        probe,
        loaded_mib,
    })
}

fn print(side: &str, row: &str, shape: Shape, figures: &Figures) {
    eprintln!(
        "  {side:9} {row:34} {:>4}x{:<3} {:>9.0}/s p50 {:>7.0} p99 {:>7.0} µs, cpu {:>7.2} µs, client {:>6.2} µs, RSS {:.0}, others {:.2}",
        shape.connections,
        shape.streams,
        figures.throughput,
        figures.p50_us,
        figures.p99_us,
        figures.server_cpu_us,
        figures.client_cpu_us,
        figures.resident_mib,
        figures.others,
    );
}

const MIB: f64 = 1024.0 * 1024.0;

/// A follower that has not caught up for so long is broken.
const SETTLE_LIMIT: Duration = Duration::from_secs(60);

fn load_key_space(cluster: &Cluster) -> Result<(), Box<dyn Error>> {
    let shape = Shape {
        connections: 1,
        streams: 2,
    };
    let extent = Extent::Calls(KEY_SPACE / request::LOAD_BATCH);
    let leader = [cluster.leader()?];
    let loaded = loader::run(&leader, shape, extent, &mut Requests::load(), || Ok(()))?;
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

/// A cluster and what the rows so far have left on it.
struct Stage<'a> {
    plan: &'a Plan,
    cluster: Cluster,
    /// Keys from this number on exist only if a row in order has just made them.
    fresh: u64,
    /// Where watchers that lag begin, once there is enough history.
    lag_from: Option<u64>,
}

impl Stage<'_> {
    fn mark(&self) -> Result<Mark, Box<dyn Error>> {
        Ok(Mark {
            server: self.cluster.usage()?,
            client: Usage::of("self")?,
            busy: machine_busy()?,
            written: device_written(&self.plan.directory)?,
        })
    }

    fn prepare(&self, preparation: Preparation) -> Result<(), Box<dyn Error>> {
        let Preparation { requests, count } = preparation;
        let shape = Shape {
            connections: 1,
            streams: 100,
        };
        let extent = Extent::Calls(count);
        let mut requests = requests();
        let leader = [self.cluster.leader()?];
        let made = loader::run(&leader, shape, extent, &mut requests, || Ok(()))?;
        match made.failed {
            0 => Ok(()),
            failed => Err(format!("{failed} operations before the row failed").into()),
        }
    }

    /// Makes history for watchers to lag behind, and returns where they begin.
    fn history(&mut self) -> Result<u64, Box<dyn Error>> {
        if let Some(from) = self.lag_from {
            return Ok(from);
        }
        let from = lag::newest_revision(self.cluster.leader()?)? + 1;
        self.prepare(Preparation {
            requests: || Requests::puts_in_order(0),
            count: LAG,
        })?;
        self.lag_from = Some(from);
        Ok(from)
    }

    /// Where the clients connect, once every member has what was written so far: a watcher must
    /// not hear of what was before it, nor a reader miss it.
    fn addresses(&self, through: Through) -> Result<Vec<SocketAddr>, Box<dyn Error>> {
        let leader = self.cluster.leader()?;
        let mut addresses = self.cluster.addresses();
        addresses.sort_by_key(|address| *address == leader);
        let newest = lag::newest_revision(leader)?;
        let deadline = Instant::now() + SETTLE_LIMIT;
        for &address in &addresses {
            while lag::newest_revision(address)? < newest {
                if Instant::now() > deadline {
                    return Err("a follower does not catch up".into());
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        Ok(match through {
            Through::Leader => vec![leader],
            Through::All => addresses,
        })
    }

    fn calls(
        &self,
        requests: &mut Requests,
        through: Through,
        shape: Shape,
    ) -> Result<Measured<Mark>, Box<dyn Error>> {
        let measured = self.plan.measured;
        let extent = Extent::Time {
            warm_up: measured / 2,
            measured,
        };
        let addresses = self.addresses(through)?;
        loader::run(&addresses, shape, extent, requests, || self.mark())
    }

    fn beside(
        &mut self,
        pace: Option<lag::Pace>,
        shape: Shape,
    ) -> Result<Measured<Mark>, Box<dyn Error>> {
        let from = self.history()?;
        let mut requests = Requests::put(KEY_SPACE);
        let Some(pace) = pace else {
            return self.calls(&mut requests, Through::Leader, shape);
        };
        let newest = lag::newest_revision(self.cluster.leader()?)?;
        let laggards = Laggards::start(self.cluster.leader()?, from, pace)?;
        let measured = self.calls(&mut requests, Through::Leader, shape);
        let heard = laggards.finish()?;
        if heard >= newest {
            return Err("the watchers caught up, so that nothing was measured".into());
        }
        measured
    }

    fn fan_out(
        &mut self,
        [watchers, connections]: [usize; 2],
        through: Through,
        shape: Shape,
    ) -> Result<Measured<Mark>, Box<dyn Error>> {
        let plan = fan_out::Plan {
            watchers,
            connections,
            puts: shape.streams,
            first: 0,
        };
        let measured = self.plan.measured;
        let times = [measured / 2, measured];
        let addresses = self.addresses(through)?;
        fan_out::run(&addresses, plan, times, || self.mark())
    }

    fn measure(&mut self, row: &Row, shape: Shape) -> Result<Figures, Box<dyn Error>> {
        let measured = match row.scene {
            Scene::Calls(requests) | Scene::Prepared(requests, _) => {
                let mut requests = requests(self.fresh);
                let measured = self.calls(&mut requests, row.through, shape)?;
                self.fresh = self.fresh.max(requests.reached());
                measured
            }
            Scene::FanOut {
                watchers,
                connections,
            } => self.fan_out([watchers, connections], row.through, shape)?,
            Scene::Beside(pace) => self.beside(pace, shape)?,
        };
        Ok(Figures::new(&measured, row.writes))
    }
}

impl Figures {
    fn new(measured: &Measured<Mark>, writes: bool) -> Self {
        let (before, after) = &measured.marks;
        // What is per call, or of calls, is unknown when there was none.
        let calls = match measured.completed + measured.failed {
            0 => f64::NAN,
            calls => calls as f64,
        };
        let latency = |share| match measured.completed {
            0 => f64::NAN,
            _ => measured.latencies.quantile_us(share),
        };
        let server_cpu = after.server.cpu - before.server.cpu;
        let client_cpu = after.client.cpu - before.client.cpu;
        let busy = after.busy - before.busy;
        let written = after.written - before.written;
        Self {
            throughput: measured.completed as f64 / measured.seconds,
            p50_us: latency(0.5),
            p99_us: latency(0.99),
            server_cpu_us: server_cpu * 1e6 / calls,
            client_cpu_us: client_cpu * 1e6 / calls,
            resident_mib: after.server.resident / MIB,
            written: if writes { written / calls } else { 0.0 },
            others: ((busy - server_cpu - client_cpu) / measured.seconds).max(0.0),
            failed: measured.failed as f64,
        }
    }
}
