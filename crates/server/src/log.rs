//! Log lines in the shape of etcd's (zap's), JSON or console, on `tracing`.
//!
//! A line that is enabled is formatted on the thread that logs it and handed to one writer
//! thread over a bounded queue: a slow disk or a stuck terminal never stalls a request. When the
//! queue is full, lines below ERROR are dropped and counted, and the count is logged. A line
//! that is not enabled costs one comparison. [`Guard::flush`] waits until everything is written;
//! `fatal` paths call it before they leave.

mod line;

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, Sender, SyncSender, TrySendError, channel, sync_channel};
use std::sync::{Arc, OnceLock};
use std::thread;

use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Metadata, Subscriber, span};

use crate::config::{self, LogFormat, LogLevel, LogOutput};

pub(crate) use line::Timestamp;
pub use line::strings;

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
    Line(Vec<u8>),
    Flush(Sender<()>),
}

/// The open log; lines are lost once the writer has gone with it.
#[derive(Clone)]
pub struct Guard {
    queue: SyncSender<Message>,
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
}

/// Opens the outputs and makes a subscriber of them.
///
/// # Errors
/// A log file that cannot be opened.
pub fn open(settings: &config::Log) -> Result<(ZapLines, Guard), Error> {
    let mut sinks: Vec<Box<dyn Write + Send>> = Vec::new();
    for output in &settings.outputs {
        sinks.push(match output {
            // The journal takes what systemd reads from stderr, without the extra fields.
            LogOutput::Stderr | LogOutput::Journal => Box::new(io::stderr()),
            LogOutput::Stdout => Box::new(io::stdout()),
            LogOutput::File(path) => {
                let file = OpenOptions::new().append(true).create(true).open(path);
                Box::new(file.map_err(|source| Error {
                    path: path.clone(),
                    source,
                })?)
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
    let guard = Guard {
        queue: queue.clone(),
    };
    let lines = ZapLines {
        max: filter(settings.level),
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
    max: LevelFilter,
    format: LogFormat,
    queue: SyncSender<Message>,
    dropped: Arc<AtomicU64>,
}

impl Subscriber for ZapLines {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event() && *metadata.level() <= self.max
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(self.max)
    }

    // Spans are of no use in lines of zap's shape.
    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &Event<'_>) {
        let line = Message::Line(line::format(event, self.format));
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
    sinks: Vec<Box<dyn Write + Send>>,
    dropped: Arc<AtomicU64>,
    format: LogFormat,
}

impl Writer {
    fn run(mut self) {
        while let Ok(message) = self.lines.recv() {
            match message {
                Message::Line(line) => self.write(&line),
                Message::Flush(done) => {
                    // The caller may have given up waiting.
                    let _ = done.send(());
                }
            }
            let dropped = self.dropped.swap(0, Relaxed);
            if dropped > 0 {
                let line = line::dropped(dropped, self.format);
                self.write(&line);
            }
        }
    }

    fn write(&mut self, line: &[u8]) {
        for sink in &mut self.sinks {
            // A full disk or a closed pipe must not take the member down, and there is no other
            // place to report it to.
            let _ = sink.write_all(line).and_then(|()| sink.flush());
        }
    }
}

#[cfg(test)]
mod tests;
