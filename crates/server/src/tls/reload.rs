//! Changed files are taken up while the member serves.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::{Credentials, Error};

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

/// The files of one set of credentials, as last seen.
struct Watched {
    credentials: Arc<Credentials>,
    stamps: Vec<Stamp>,
    /// The stamps were too fresh to be relied upon, or what they belong to could not be used.
    again: bool,
    /// The last error, to be told once.
    error: Option<String>,
}

impl Watched {
    fn new(credentials: Arc<Credentials>) -> Self {
        let stamps = stamps(&credentials);
        Watched {
            credentials,
            stamps,
            // The files may have changed between the first reading and now.
            again: true,
            error: None,
        }
    }

    /// One look; whether something was taken up.
    fn look(&mut self, now_s: i64) -> bool {
        let stamps = stamps(&self.credentials);
        let changed = stamps != self.stamps;
        if !changed && !self.again {
            return false;
        }
        self.again = !stamps.iter().all(|stamp| stamp.is_settled(now_s));
        self.stamps = stamps;
        match self.credentials.settings.load() {
            Ok(current) => {
                self.credentials.replace(current);
                if changed || self.error.take().is_some() {
                    let cert = self.credentials.settings.cert.display();
                    tracing::info!("cert-file" = %cert, "took up changed TLS files");
                }
                true
            }
            Err(error) => {
                self.again = true;
                self.complain(&error);
                false
            }
        }
    }

    fn complain(&mut self, error: &Error) {
        let text = error.to_string();
        if self.error.as_ref() != Some(&text) {
            tracing::warn!(
                error = text.as_str(),
                "cannot use changed TLS files; going on with the old ones"
            );
            self.error = Some(text);
        }
    }
}

fn stamps(credentials: &Credentials) -> Vec<Stamp> {
    credentials.settings.paths().map(Stamp::of).collect()
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
    pub(super) fn start(credentials: Vec<Arc<Credentials>>) -> std::io::Result<Watch> {
        if credentials.is_empty() {
            return Ok(Watch {
                stop: None,
                thread: None,
            });
        }
        let (stop, stopped) = channel::<()>();
        let mut watched: Vec<Watched> = credentials.into_iter().map(Watched::new).collect();
        let thread = thread::Builder::new()
            .name("tls-files".into())
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
