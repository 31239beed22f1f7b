//! Writing zeros ahead of the log.
//!
//! Syncing a write into a file that already has written blocks there costs about two thirds of a
//! sync that must allocate them. A thread of its own writes the zeros, in small steps, and is
//! never waited for: when the log catches up it simply writes into the file's end.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::fs::{File, Fs, Open};

const PAGE_BYTES: u64 = 4096;
/// One write; the log's writes into the same file wait at most for one.
const WRITE_BYTES: usize = 256 << 10;
/// Writes between two syncs: each sync makes the log's next one slower, as both go through the
/// file system's journal, so they are few.
const WRITES_PER_SYNC: usize = 4;
/// Pause after each sync, so that zeros take only a part of the disk's time.
const PAUSE: Duration = Duration::from_millis(16);
/// The frontier of a file that must not be touched any more.
const CLOSED: u64 = u64::MAX;

/// The line in a file below which only the log writes and beyond which only zeros are written.
/// It only moves up.
#[derive(Debug)]
pub(super) struct Frontier {
    /// Held while zeros are being written.
    line: Mutex<u64>,
    /// A recent value of `line`, so that the log rarely takes the lock.
    known: AtomicU64,
}

impl Frontier {
    /// Everything before `offset` belongs to the log.
    pub(super) fn new(offset: u64) -> Frontier {
        let line = offset.next_multiple_of(PAGE_BYTES);
        Frontier {
            line: Mutex::new(line),
            known: AtomicU64::new(line),
        }
    }

    fn lock(&self) -> MutexGuard<'_, u64> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Claims everything below `end` for the log.
    pub(super) fn claim(&self, end: u64) {
        if end > self.known.load(Ordering::Acquire) {
            let mut line = self.lock();
            *line = (*line).max(end.next_multiple_of(PAGE_BYTES));
            self.known.store(*line, Ordering::Release);
        }
    }

    /// No zeros are written after this returns.
    pub(super) fn close(&self) {
        *self.lock() = CLOSED;
    }

    /// Writes some zeros; `false` when there is nothing left to do.
    fn fill(&self, file: &dyn File, zeros: &[u8], end: u64) -> std::io::Result<bool> {
        let mut line = self.lock();
        if *line >= end {
            return Ok(false);
        }
        let len = (zeros.len() as u64).min(end - *line);
        file.write_all_at(&zeros[..len as usize], *line)?;
        *line += len;
        self.known.store(*line, Ordering::Release);
        Ok(true)
    }
}

struct Job {
    /// A handle of its own: were it the log's, a failed sync here would hide from the log's next
    /// sync that written bytes were lost.
    file: Box<dyn File>,
    frontier: Arc<Frontier>,
    end: u64,
}

/// The thread that writes zeros; it ends when this is dropped.
#[derive(Debug)]
pub(super) struct ZeroAhead {
    jobs: Option<Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl ZeroAhead {
    /// Starts the thread. Without one the log works as well, only slower: failure is no error.
    pub(super) fn start() -> ZeroAhead {
        let (jobs, queue) = channel();
        let thread = std::thread::Builder::new().name("wal-zero".into());
        match thread.spawn(move || run(&queue)) {
            Ok(thread) => ZeroAhead {
                jobs: Some(jobs),
                thread: Some(thread),
            },
            Err(_) => ZeroAhead {
                jobs: None,
                thread: None,
            },
        }
    }

    /// Zeroes `path` from the frontier up to `end`, after the files that were given earlier.
    pub(super) fn fill(&self, fs: &dyn Fs, path: &Path, frontier: &Arc<Frontier>, end: u64) {
        if let (Some(jobs), Ok(file)) = (&self.jobs, fs.open(path, Open::ReadWrite)) {
            // The thread never ends before the sender does; and it would only cost speed.
            let _ = jobs.send(Job {
                file,
                frontier: Arc::clone(frontier),
                end,
            });
        }
    }
}

impl Drop for ZeroAhead {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            // A panic there has harmed nothing but speed.
            let _ = thread.join();
        }
    }
}

fn run(queue: &Receiver<Job>) {
    let zeros = vec![0; WRITE_BYTES];
    let mut waiting = std::collections::VecDeque::new();
    loop {
        if waiting.is_empty() {
            match queue.recv() {
                Ok(job) => waiting.push_back(job),
                Err(_) => return,
            }
        }
        match queue.recv_timeout(PAUSE) {
            Ok(job) => waiting.push_back(job),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        if let Some(job) = waiting.front() {
            // Zeros that cannot be written are not missed: the log meets the same error itself.
            let fill = || {
                job.frontier
                    .fill(&*job.file, &zeros, job.end)
                    .unwrap_or(false)
            };
            let more = (0..WRITES_PER_SYNC).all(|_| fill());
            let go_on = job.file.sync_data().is_ok() && more;
            if !go_on {
                waiting.pop_front();
            }
        }
    }
}
