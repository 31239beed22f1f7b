//! Puts that many watchers hear of: the next one starts when one was answered and all watchers
//! have its event.

use std::collections::VecDeque;
use std::error::Error;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::connection::{Connection, Outcomes};
use super::histogram::Histogram;
use super::loader::{Measured, PATIENCE, READ_BUFFER};
use super::poll::{Poll, TICK};
use super::request::Requests;
use super::watchers::{EAGER, Heard, Layout, Watchers};

/// What runs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plan {
    pub(super) watchers: usize,
    /// Over which the watchers are spread, one stream on each.
    pub(super) connections: usize,
    /// Puts that are not answered, or not heard of by all, at any time.
    pub(super) puts: usize,
    /// Number of the first key.
    pub(super) first: u64,
}

/// A put on its way.
struct Put {
    /// Nanoseconds of the loop's clock.
    started: u64,
    /// Watchers that have not heard of it.
    left: usize,
}

struct FanOut {
    poll: Poll,
    writer: Connection,
    requests: Requests,
    watchers: Vec<Watchers>,
    outcomes: Outcomes,
    puts: Puts,
    begin: Instant,
    /// No more puts are to start.
    stopping: bool,
}

/// In the order of their numbers; the first has number `first`.
struct Puts {
    under_way: VecDeque<Put>,
    first: u64,
    /// Answered ones of those that are under way.
    answered: usize,
    watchers: usize,
    /// From the start of a put to its event, for every watcher.
    latencies: Histogram,
    completed: u64,
}

impl Puts {
    fn hear(&mut self, heard: Heard, now: u64) -> Result<(), String> {
        let put = heard
            .number
            .checked_sub(self.first)
            .and_then(|place| self.under_way.get_mut(place as usize))
            .filter(|put| put.left > 0)
            .ok_or_else(|| format!("an event that nobody awaits: {heard:?}"))?;
        put.left -= 1;
        self.latencies.record(now - put.started);
        Ok(())
    }

    /// Forgets those that everybody has; returns how many others may start.
    fn finish(&mut self) -> usize {
        let mut finished = 0;
        while self.answered > 0 && self.under_way.front().is_some_and(|put| put.left == 0) {
            self.under_way.pop_front();
            self.first += 1;
            self.answered -= 1;
            finished += 1;
        }
        self.completed += finished as u64;
        finished
    }

    fn start(&mut self, count: usize, now: u64) {
        for _ in 0..count {
            self.under_way.push_back(Put {
                started: now,
                left: self.watchers,
            });
        }
    }
}

/// Runs the plan: the writer at the first of `addresses`, the watchers' connections in turn at each;
/// `mark` takes the readings.
///
/// # Errors
/// A connection that breaks, an event that is lost, repeated or out of order, or no progress for
/// a minute.
pub(super) fn run<M>(
    addresses: &[SocketAddr],
    plan: Plan,
    [warm_up, measured]: [Duration; 2],
    mut mark: impl FnMut() -> Result<M, Box<dyn Error>>,
) -> Result<Measured<M>, Box<dyn Error>> {
    let mut fan_out = FanOut::connect(addresses, plan)?;
    let all = |fan_out: &FanOut| -> usize { fan_out.watchers.iter().map(|one| one.created).sum() };
    fan_out
        .turn_until(|fan_out| fan_out.writer.transport.ready && all(fan_out) == plan.watchers)?;
    fan_out.start(plan.puts)?;
    let end = fan_out.now() + warm_up.as_nanos() as u64;
    fan_out.turn_until(|fan_out| fan_out.now() >= end)?;
    let before = mark()?;
    fan_out.puts.latencies.clear();
    let completed = fan_out.puts.completed;
    let begin = Instant::now();
    let end = fan_out.now() + measured.as_nanos() as u64;
    fan_out.turn_until(|fan_out| fan_out.now() >= end)?;
    let seconds = begin.elapsed().as_secs_f64();
    let after = mark()?;
    let completed = fan_out.puts.completed - completed;
    let latencies = std::mem::replace(&mut fan_out.puts.latencies, Histogram::new());
    // Whoever watches next must not hear of these.
    fan_out.stopping = true;
    fan_out.turn_until(|fan_out| fan_out.puts.under_way.is_empty())?;
    Ok(Measured {
        seconds,
        completed,
        failed: fan_out.outcomes.failed,
        latencies,
        marks: (before, after),
    })
}

impl FanOut {
    fn connect(addresses: &[SocketAddr], plan: Plan) -> Result<Self, Box<dyn Error>> {
        let poll = Poll::new()?;
        let first = addresses.first().ok_or("no server to write to")?;
        let writer = Connection::open(*first)?;
        poll.add(&writer.transport, 0)?;
        let layout = Layout {
            streams: 1,
            watchers: plan.watchers / plan.connections,
            start: 0,
            window: EAGER,
        };
        let mut watchers = Vec::new();
        for (index, &address) in (0..plan.connections).zip(addresses.iter().cycle()) {
            let mut connection = Watchers::open(address, layout)?;
            poll.add(&connection.transport, index + 1)?;
            poll.flush(&mut connection.transport, index + 1)?;
            watchers.push(connection);
        }
        Ok(Self {
            poll,
            writer,
            requests: Requests::puts_in_order(plan.first),
            watchers,
            outcomes: Outcomes::new(),
            puts: Puts {
                under_way: VecDeque::new(),
                first: plan.first,
                answered: 0,
                watchers: plan.watchers,
                latencies: Histogram::new(),
                completed: 0,
            },
            begin: Instant::now(),
            stopping: false,
        })
    }

    fn now(&self) -> u64 {
        self.begin.elapsed().as_nanos() as u64
    }

    fn start(&mut self, count: usize) -> std::io::Result<()> {
        let count = if self.stopping { 0 } else { count };
        let now = self.now();
        self.puts.start(count, now);
        self.writer.start(count, &mut self.requests, now);
        self.poll.flush(&mut self.writer.transport, 0)
    }

    fn turn_until(&mut self, done: impl Fn(&Self) -> bool) -> Result<(), Box<dyn Error>> {
        let mut buffer = vec![0; READ_BUFFER];
        let mut last_progress = Instant::now();
        while !done(self) {
            let ready = self.poll.wait(TICK)?;
            for index in ready {
                last_progress = Instant::now();
                self.serve(index, &mut buffer)?;
            }
            if last_progress.elapsed() > PATIENCE {
                return Err("the server stopped answering".into());
            }
        }
        Ok(())
    }

    fn serve(&mut self, index: usize, buffer: &mut [u8]) -> Result<(), Box<dyn Error>> {
        let now = self.now();
        let Some(place) = index.checked_sub(1) else {
            let outcomes = &mut self.outcomes;
            let answered = self.writer.read(buffer, &self.requests, now, outcomes)?;
            if self.outcomes.failed > 0 {
                return Err("a put failed".into());
            }
            self.puts.answered += answered;
            let free = self.puts.finish();
            return Ok(self.start(free)?);
        };
        let mut outcome = Ok(());
        let watchers = &mut self.watchers[place];
        watchers.read(buffer, |heard| {
            if outcome.is_ok() {
                outcome = self.puts.hear(heard, now);
            }
        })?;
        outcome?;
        watchers.read_on();
        self.poll.flush(&mut watchers.transport, index)?;
        let free = self.puts.finish();
        if free > 0 {
            self.start(free)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
