//! Changed files are taken up while the member serves.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::Credentials;

/// Time between two looks at the files.
const PERIOD: Duration = Duration::from_secs(1);
/// A file that changed so short a time ago may change again without its times telling.
const SETTLE_S: i64 = 2;

/// What tells that a file is another than before; `None` when it cannot be seen.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Stamp(Option<[i64; 6]>);

impl Stamp {
    /// Follows links, so that a link that is pointed elsewhere counts as a change.
    fn of(path: &Path) -> Stamp {
        Stamp(fs::metadata(path).ok().map(|data| {
            [
                data.ino() as i64,
                data.size() as i64,
                data.mtime(),
                data.mtime_nsec(),
                data.ctime(),
                data.ctime_nsec(),
            ]
        }))
    }

    fn is_settled(&self, now_s: i64) -> bool {
        self.0
            .is_none_or(|[_, _, mtime, _, ctime, _]| mtime.max(ctime) + SETTLE_S < now_s)
    }
}

/// What is made from files, and made anew when they change.
pub(crate) trait Source: Send + Sync {
    /// Every file whose change matters.
    fn paths(&self) -> Vec<PathBuf>;

    /// Reads the files and takes up what they hold, or leaves all as it was.
    ///
    /// # Errors
    /// Why what they hold is of no use.
    fn reload(&self) -> Result<(), String>;

    /// Tells that changed files were taken up.
    fn tell(&self);

    /// Tells that changed files cannot be used.
    fn complain(&self, error: &str);
}

impl Source for Credentials {
    fn paths(&self) -> Vec<PathBuf> {
        self.settings.paths().map(Path::to_owned).collect()
    }

    fn reload(&self) -> Result<(), String> {
        let current = self.settings.load().map_err(|error| error.to_string())?;
        self.replace(current);
        Ok(())
    }

    fn tell(&self) {
        let cert = self.settings.cert.display();
        tracing::info!("cert-file" = %cert, "took up changed TLS files");
    }

    fn complain(&self, error: &str) {
        tracing::warn!(
            error,
            "cannot use changed TLS files; going on with the old ones"
        );
    }
}

/// The files of one source, as last seen.
struct Watched {
    source: Arc<dyn Source>,
    stamps: Vec<Stamp>,
    /// The stamps were too fresh to be relied upon, or what they belong to could not be used.
    again: bool,
    /// The last error, to be told once.
    error: Option<String>,
}

impl Watched {
    fn new(source: Arc<dyn Source>) -> Self {
        let stamps = stamps(&*source);
        Watched {
            source,
            stamps,
            // The files may have changed between the first reading and now.
            again: true,
            error: None,
        }
    }

    /// One look; whether something was taken up.
    fn look(&mut self, now_s: i64) -> bool {
        let stamps = stamps(&*self.source);
        let changed = stamps != self.stamps;
        if !changed && !self.again {
            return false;
        }
        self.again = !stamps.iter().all(|stamp| stamp.is_settled(now_s));
        self.stamps = stamps;
        match self.source.reload() {
            Ok(()) => {
                if changed || self.error.take().is_some() {
                    self.source.tell();
                }
                true
            }
            Err(error) => {
                self.again = true;
                if self.error.as_ref() != Some(&error) {
                    self.source.complain(&error);
                    self.error = Some(error);
                }
                false
            }
        }
    }
}

fn stamps(source: &dyn Source) -> Vec<Stamp> {
    source.paths().iter().map(|path| Stamp::of(path)).collect()
}

/// The thread that looks at the files once a second; ends when dropped.
#[derive(Debug)]
pub struct Watch {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    /// # Errors
    /// The system refuses a thread.
    pub(crate) fn start(sources: Vec<Arc<dyn Source>>) -> std::io::Result<Watch> {
        if sources.is_empty() {
            return Ok(Watch {
                stop: None,
                thread: None,
            });
        }
        let (stop, stopped) = channel::<()>();
        let mut watched: Vec<Watched> = sources.into_iter().map(Watched::new).collect();
        let thread = thread::Builder::new()
            .name("key-files".into())
            .spawn(move || {
                while stopped.recv_timeout(PERIOD) == Err(RecvTimeoutError::Timeout) {
                    for one in &mut watched {
                        one.look(now_s());
                    }
                }
            })?;
        Ok(Watch {
            stop: Some(stop),
            thread: Some(thread),
        })
    }
}

fn now_s() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs() as i64)
}

impl Drop for Watch {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic of that thread was reported where it happened.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests;
