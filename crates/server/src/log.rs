//! Log lines in the shape of etcd's (zap's), JSON or console, on `tracing`.
//!
//! A line that is enabled is formatted on the thread that logs it and handed to one writer
//! thread over a bounded queue: a slow disk or a stuck terminal never stalls a request. When the
//! queue is full, lines below ERROR are dropped and counted, and the count is logged. A line
//! that is not enabled costs one comparison. [`Guard::flush`] waits until everything is written;
//! `fatal` paths call it before they leave.

mod line;
mod sink;

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, Sender, SyncSender, TrySendError, channel, sync_channel};
use std::sync::{Arc, OnceLock};
use std::thread;

use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Metadata, Subscriber, span};

use crate::config::{self, LogFormat, LogLevel, LogOutput};

pub(crate) use line::Timestamp;
pub use line::strings;
use sink::Sink;

/// syslog's number for warnings.
const WARNING: u8 = 4;
/// Lines that may wait for the writer.
const QUEUE_LINES: usize = 8192;

/// Why the log cannot be opened.
#[derive(Debug)]
pub struct Error {
    path: PathBuf,
    source: io::Error,
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "open log file {}", self.path.display())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

enum Message {
    /// With its priority in syslog's numbers.
    Line(Vec<u8>, u8),
    Flush(Sender<()>),
    /// Files may have been moved away.
    Reopen,
}

/// The open log; lines are lost once the writer has gone with it.
#[derive(Clone)]
pub struct Guard {
    queue: SyncSender<Message>,
    /// The lowest level that is logged, as [`rank`] numbers it.
    level: Arc<AtomicU8>,
}

impl Guard {
    /// Waits until every line logged so far is written.
    pub fn flush(&self) {
        let (done, wait) = channel();
        if self.queue.send(Message::Flush(done)).is_ok() {
            // An error means that the writer is gone, and with it whatever could be waited for.
            let _ = wait.recv();
        }
    }

    /// Opens the files of the log anew: they may have been moved away.
    pub fn reopen(&self) {
        // An error means that the writer is gone.
        let _ = self.queue.send(Message::Reopen);
    }

    /// Logs lines of this level and above from now on.
    pub fn set_level(&self, level: LogLevel) {
        self.level.store(rank(filter(level)), Relaxed);
        // What each place in the code was told about the level before is void.
        tracing::callsite::rebuild_interest_cache();
    }
}

/// More is more detailed; 0 for nothing at all.
fn rank(filter: LevelFilter) -> u8 {
    match filter.into_level() {
        None => 0,
        Some(Level::ERROR) => 1,
        Some(Level::WARN) => 2,
        Some(Level::INFO) => 3,
        Some(Level::DEBUG) => 4,
        Some(Level::TRACE) => 5,
    }
}

/// Opens the outputs and makes a subscriber of them.
///
/// # Errors
/// A log file that cannot be opened.
pub fn open(settings: &config::Log) -> Result<(ZapLines, Guard), Error> {
    let mut sinks: Vec<Sink> = Vec::new();
    for output in &settings.outputs {
        sinks.push(match output {
            LogOutput::Stderr => Sink::Stream(Box::new(io::stderr())),
            LogOutput::Stdout => Sink::Stream(Box::new(io::stdout())),
            LogOutput::Journal => Sink::journal().map_err(|source| Error {
                path: "systemd/journal".into(),
                source,
            })?,
            LogOutput::File(path) => {
                let sink = Sink::file(path, settings.rotation.clone());
                sink.map_err(|source| Error {
                    path: path.clone(),
                    source,
                })?
            }
        });
    }
    let (queue, lines) = sync_channel(QUEUE_LINES);
    let dropped = Arc::new(AtomicU64::new(0));
    let writer = Writer {
        lines,
        sinks,
        dropped: dropped.clone(),
        format: settings.format,
    };
    thread::Builder::new()
        .name("log".into())
        .spawn(move || writer.run())
        .map_err(|source| Error {
            path: "log writer thread".into(),
            source,
        })?;
    let level = Arc::new(AtomicU8::new(rank(filter(settings.level))));
    let guard = Guard {
        queue: queue.clone(),
        level: Arc::clone(&level),
    };
    let lines = ZapLines {
        level,
        format: settings.format,
        queue,
        dropped,
    };
    Ok((lines, guard))
}

fn filter(level: LogLevel) -> LevelFilter {
    match level {
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Fatal => LevelFilter::OFF,
    }
}

/// Makes `lines` the log of the process and its panics.
///
/// # Errors
/// The process has a log already.
pub fn install(
    lines: ZapLines,
    guard: &Guard,
) -> Result<(), tracing::subscriber::SetGlobalDefaultError> {
    tracing::subscriber::set_global_default(lines)?;
    let guard = INSTALLED.get_or_init(|| guard.clone());
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        print(panic);
        // The process may abort right behind this.
        guard.flush();
    }));
    Ok(())
}

/// The log of the process, for [`flush`].
static INSTALLED: OnceLock<Guard> = OnceLock::new();

/// Waits until every line of the process's log is written; for whoever ends the process from the
/// depth of a thread.
pub fn flush() {
    if let Some(guard) = INSTALLED.get() {
        guard.flush();
    }
}

/// The subscriber.
pub struct ZapLines {
    level: Arc<AtomicU8>,
    format: LogFormat,
    queue: SyncSender<Message>,
    dropped: Arc<AtomicU64>,
}

impl Subscriber for ZapLines {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let rank = rank(LevelFilter::from_level(*metadata.level()));
        metadata.is_event() && rank <= self.level.load(Relaxed)
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(match self.level.load(Relaxed) {
            0 => LevelFilter::OFF,
            1 => LevelFilter::ERROR,
            2 => LevelFilter::WARN,
            3 => LevelFilter::INFO,
            4 => LevelFilter::DEBUG,
            _ => LevelFilter::TRACE,
        })
    }

    // Spans are of no use in lines of zap's shape.
    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &Event<'_>) {
        let priority = match *event.metadata().level() {
            Level::ERROR => 3,
            Level::WARN => 4,
            Level::INFO => 6,
            Level::DEBUG | Level::TRACE => 7,
        };
        let line = Message::Line(line::format(event, self.format), priority);
        if *event.metadata().level() == Level::ERROR {
            // Nobody shall look in vain for the reason of a failure.
            let _ = self.queue.send(line);
        } else if let Err(TrySendError::Full(_)) = self.queue.try_send(line) {
            self.dropped.fetch_add(1, Relaxed);
        }
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

struct Writer {
    lines: Receiver<Message>,
    sinks: Vec<Sink>,
    dropped: Arc<AtomicU64>,
    format: LogFormat,
}

impl Writer {
    fn run(mut self) {
        while let Ok(message) = self.lines.recv() {
            match message {
                Message::Line(line, priority) => self.write(&line, priority),
                Message::Reopen => self.sinks.iter_mut().for_each(Sink::reopen),
                Message::Flush(done) => {
                    // The caller may have given up waiting.
                    let _ = done.send(());
                }
            }
            let dropped = self.dropped.swap(0, Relaxed);
            if dropped > 0 {
                let line = line::dropped(dropped, self.format);
                self.write(&line, WARNING);
            }
        }
    }

    fn write(&mut self, line: &[u8], priority: u8) {
        for sink in &mut self.sinks {
            // A full disk or a closed pipe must not take the member down, and there is no other
            // place to report it to.
            let _ = sink.write(line, priority);
        }
    }
}

#[cfg(test)]
mod tests;
