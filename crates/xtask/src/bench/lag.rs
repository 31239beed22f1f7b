//! Watchers that are far behind, on a thread of their own.

use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::loader::{PATIENCE, READ_BUFFER};
use super::poll::{Poll, TICK};
use super::watchers::{EAGER, Layout, Watchers};

/// Connections of the watchers, each with as many streams of one watcher.
const CONNECTIONS: usize = 10;
const STREAMS: usize = 10;
pub(super) const WATCHERS: usize = CONNECTIONS * STREAMS;
/// What a stream gets unasked, as with most clients.
const WINDOW: u32 = 65_535;

/// What the watchers take of what is due to them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pace {
    /// A window full of events, and then nothing.
    None,
    /// Bytes a second on each stream.
    PerSecond(u32),
}

/// Lagging watchers; they end with [`Laggards::finish`].
pub(super) struct Laggards {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<u64, String>>,
}

impl Laggards {
    /// Creates the watchers, from revision `start` on, and waits until there are all of them.
    ///
    /// # Errors
    /// The server refuses them, or takes more than a minute.
    pub(super) fn start(
        address: SocketAddr,
        start: u64,
        pace: Pace,
    ) -> Result<Self, Box<dyn Error>> {
        let layout = Layout {
            streams: STREAMS,
            watchers: 1,
            start,
            window: WINDOW,
        };
        let mut lag = Lag::connect(address, layout, CONNECTIONS)?;
        lag.wait_until_created(WATCHERS)?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            lag.read_until(&stopped, pace)
                .map_err(|error| error.to_string())
        });
        Ok(Self { stop, thread })
    }

    /// Ends the watchers; returns the newest revision that any of them heard of.
    ///
    /// # Errors
    /// A watch broke, or an event was lost, repeated or out of order.
    pub(super) fn finish(self) -> Result<u64, Box<dyn Error>> {
        self.stop.store(true, Ordering::Relaxed);
        let outcome = self
            .thread
            .join()
            .map_err(|_| "the watchers' thread died")?;
        Ok(outcome?)
    }
}

/// The newest revision, as a watcher that is created now is told.
///
/// # Errors
/// The server refuses it, or takes more than a minute.
pub(super) fn newest_revision(address: SocketAddr) -> Result<u64, Box<dyn Error>> {
    let layout = Layout {
        streams: 1,
        watchers: 1,
        start: 0,
        window: EAGER,
    };
    let mut lag = Lag::connect(address, layout, 1)?;
    lag.wait_until_created(1)?;
    Ok(lag.connections[0].newest())
}

struct Lag {
    poll: Poll,
    connections: Vec<Watchers>,
    buffer: Vec<u8>,
    newest: u64,
}

impl Lag {
    fn connect(address: SocketAddr, layout: Layout, count: usize) -> std::io::Result<Self> {
        let poll = Poll::new()?;
        let mut connections = Vec::new();
        for index in 0..count {
            let mut connection = Watchers::open(address, layout)?;
            poll.add(&connection.transport, index)?;
            poll.flush(&mut connection.transport, index)?;
            connections.push(connection);
        }
        Ok(Self {
            poll,
            connections,
            buffer: vec![0; READ_BUFFER],
            newest: 0,
        })
    }

    fn turn(&mut self, limit: Duration) -> std::io::Result<()> {
        let newest = &mut self.newest;
        for index in self.poll.wait(limit)? {
            let connection = &mut self.connections[index];
            connection.read(&mut self.buffer, |heard| {
                *newest = (*newest).max(heard.revision);
            })?;
            self.poll.flush(&mut connection.transport, index)?;
        }
        Ok(())
    }

    fn wait_until_created(&mut self, wanted: usize) -> Result<(), Box<dyn Error>> {
        let begin = Instant::now();
        while self
            .connections
            .iter()
            .map(|one| one.created)
            .sum::<usize>()
            < wanted
        {
            if begin.elapsed() > PATIENCE {
                return Err("the server did not create the watchers".into());
            }
            self.turn(TICK)?;
        }
        Ok(())
    }

    fn read_until(&mut self, stopped: &AtomicBool, pace: Pace) -> std::io::Result<u64> {
        let mut turns = match pace {
            Pace::None => Turns::default(),
            Pace::PerSecond(bytes) => Turns::new(bytes, self.connections.len(), Instant::now()),
        };
        while !stopped.load(Ordering::Relaxed) {
            self.turn(turns.wait(Instant::now()))?;
            while let Some((index, bytes)) = turns.next(Instant::now()) {
                let connection = &mut self.connections[index];
                connection.allow(bytes);
                self.poll.flush(&mut connection.transport, index)?;
            }
        }
        Ok(self.newest)
    }
}

/// Whose turn it is to read on. Each connection is a client of its own, so their turns are spread
/// over the time between two of one.
#[derive(Default)]
struct Turns {
    /// What a stream gets at each turn of its connection.
    bytes: u32,
    /// When each connection is next due.
    due: Vec<Instant>,
}

impl Turns {
    /// Time between two turns of a connection.
    const PAUSE: Duration = Duration::from_millis(20);

    fn new(bytes_per_second: u32, connections: usize, now: Instant) -> Self {
        let offset = |index: usize| Self::PAUSE.mul_f64(index as f64 / connections as f64);
        Self {
            bytes: (f64::from(bytes_per_second) * Self::PAUSE.as_secs_f64()) as u32,
            due: (0..connections).map(|index| now + offset(index)).collect(),
        }
    }

    /// How long until a connection is due, or somewhat less.
    fn wait(&self, now: Instant) -> Duration {
        let due = self.due.iter().min();
        due.map_or(TICK, |due| due.saturating_duration_since(now).min(TICK))
    }

    /// A connection that is due, and what its streams get.
    fn next(&mut self, now: Instant) -> Option<(usize, u32)> {
        let index = self.due.iter().position(|&due| due <= now)?;
        self.due[index] += Self::PAUSE;
        Some((index, self.bytes))
    }
}

#[cfg(test)]
mod tests;
