//! A closed loop of unary calls on many connections, by one thread around epoll.

use std::error::Error;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::connection::{Connection, Outcomes};
use super::histogram::Histogram;
use super::poll::{Poll, TICK};
use super::request::Requests;

pub(super) const READ_BUFFER: usize = 1 << 20;
/// A server that leaves a call without answer for so long is broken.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// How many calls are outstanding at any time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(crate) connections: usize,
    /// Calls outstanding on each connection.
    pub(crate) streams: usize,
}

/// When the load ends.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Extent {
    /// Measure for so long after a warm-up.
    Time {
        warm_up: Duration,
        measured: Duration,
    },
    /// Make so many calls; everything is measured.
    Calls(u64),
}

/// What was measured between the marks.
pub(crate) struct Measured<M> {
    pub(crate) seconds: f64,
    pub(crate) completed: u64,
    pub(crate) failed: u64,
    pub(crate) latencies: Histogram,
    /// The caller's readings at the begin and at the end.
    pub(crate) marks: (M, M),
}

/// Keeps `shape` calls outstanding until `extent` is reached, its connections in turn to one of
/// `addresses` each; `mark` takes the readings.
///
/// # Errors
/// A connection that breaks, or no answer for a minute.
pub(crate) fn run<M>(
    addresses: &[SocketAddr],
    shape: Shape,
    extent: Extent,
    requests: &mut Requests,
    mut mark: impl FnMut() -> Result<M, Box<dyn Error>>,
) -> Result<Measured<M>, Box<dyn Error>> {
    let mut driver = Driver::connect(addresses, shape)?;
    driver.turn_until(requests, Some(PATIENCE), |driver| driver.all_ready())?;
    let calls = match extent {
        Extent::Calls(calls) => Some(calls),
        Extent::Time { .. } => None,
    };
    driver.budget = calls.unwrap_or(u64::MAX);
    driver.start_all(shape.streams, requests)?;
    if let Extent::Time { warm_up, .. } = extent {
        let end = driver.now() + warm_up.as_nanos() as u64;
        driver.turn_until(requests, None, |driver| driver.now() >= end)?;
    }
    let before = mark()?;
    driver.outcomes.clear();
    let begin = Instant::now();
    match extent {
        Extent::Time { measured, .. } => {
            let end = driver.now() + measured.as_nanos() as u64;
            driver.turn_until(requests, None, |driver| driver.now() >= end)?;
        }
        Extent::Calls(calls) => driver.turn_until(requests, None, |driver| {
            driver.outcomes.completed + driver.outcomes.failed >= calls
        })?,
    }
    let seconds = begin.elapsed().as_secs_f64();
    let after = mark()?;
    let Outcomes {
        latencies,
        completed,
        failed,
    } = std::mem::replace(&mut driver.outcomes, Outcomes::new());
    driver.budget = 0;
    driver.turn_until(requests, Some(PATIENCE), |driver| driver.outstanding() == 0)?;
    Ok(Measured {
        seconds,
        completed,
        failed,
        latencies,
        marks: (before, after),
    })
}

struct Driver {
    poll: Poll,
    connections: Vec<Connection>,
    outcomes: Outcomes,
    /// Calls that may still be started.
    budget: u64,
    begin: Instant,
    last_progress: Instant,
}

impl Driver {
    fn connect(addresses: &[SocketAddr], shape: Shape) -> Result<Self, Box<dyn Error>> {
        let poll = Poll::new()?;
        let mut connections = Vec::with_capacity(shape.connections);
        for (index, &address) in (0..shape.connections).zip(addresses.iter().cycle()) {
            let connection = Connection::open(address)?;
            poll.add(&connection.transport, index)?;
            connections.push(connection);
        }
        let begin = Instant::now();
        let outcomes = Outcomes::new();
        Ok(Self {
            poll,
            connections,
            outcomes,
            budget: 0,
            begin,
            last_progress: begin,
        })
    }

    fn now(&self) -> u64 {
        self.begin.elapsed().as_nanos() as u64
    }

    fn all_ready(&self) -> bool {
        self.connections.iter().all(|one| one.transport.ready)
    }

    fn outstanding(&self) -> usize {
        self.connections.iter().map(Connection::outstanding).sum()
    }

    fn start_all(&mut self, streams: usize, requests: &mut Requests) -> Result<(), Box<dyn Error>> {
        for index in 0..self.connections.len() {
            self.start(index, streams, requests);
            self.flush(index)?;
        }
        Ok(())
    }

    fn start(&mut self, index: usize, count: usize, requests: &mut Requests) {
        let count = (count as u64).min(self.budget);
        self.budget -= count;
        let now = self.now();
        self.connections[index].start(count as usize, requests, now);
    }

    fn flush(&mut self, index: usize) -> std::io::Result<()> {
        let transport = &mut self.connections[index].transport;
        self.poll.flush(transport, index)
    }

    fn turn_until(
        &mut self,
        requests: &mut Requests,
        limit: Option<Duration>,
        done: impl Fn(&Self) -> bool,
    ) -> Result<(), Box<dyn Error>> {
        let mut buffer = vec![0; READ_BUFFER];
        let begin = Instant::now();
        self.last_progress = begin;
        while !done(self) {
            let ready = self.poll.wait(TICK)?;
            let now = self.now();
            let mut served = false;
            for index in ready {
                self.serve(index, &mut buffer, requests, now)?;
                served = true;
            }
            if served {
                self.last_progress = Instant::now();
                continue;
            }
            let late = limit.is_some_and(|limit| begin.elapsed() > limit);
            if late || self.last_progress.elapsed() > PATIENCE {
                return Err("the server stopped answering".into());
            }
        }
        Ok(())
    }

    fn serve(
        &mut self,
        index: usize,
        buffer: &mut [u8],
        requests: &mut Requests,
        now: u64,
    ) -> Result<(), Box<dyn Error>> {
        let ended = self.connections[index].read(buffer, requests, now, &mut self.outcomes)?;
        self.start(index, ended, requests);
        Ok(self.flush(index)?)
    }
}
