//! How the process hears that it shall end, how it ends, and how it says that it is ready.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::process;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Once};
use std::thread;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use signal_hook::low_level::emulate_default_handler;

/// Why the process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The number of the signal.
    Signal(i32),
    /// The member itself, because it is no longer part of the cluster.
    Member,
}

/// What the process is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// SIGHUP: take up what can be taken up anew without a restart.
    Reload,
    End(Cause),
}

/// Asks for the end; any thread may hold one.
#[derive(Clone, Debug)]
pub struct Stopper {
    wishes: Sender<Wish>,
    /// Somebody wants the end already.
    is_due: Arc<AtomicBool>,
}

impl Stopper {
    /// The member has nothing more to do.
    pub fn stop(&self) {
        self.end(Cause::Member);
    }

    /// Whether somebody wants the end; for those who wait before the process itself does.
    #[must_use]
    pub fn is_due(&self) -> bool {
        self.is_due.load(Ordering::Acquire)
    }

    fn end(&self, cause: Cause) {
        self.is_due.store(true, Ordering::Release);
        // Whoever waited may be stopping already.
        let _ = self.wishes.send(Wish::End(cause));
    }
}

/// The wait for the end.
#[derive(Debug)]
pub struct Stop {
    wishes: Receiver<Wish>,
    stopper: Stopper,
}

impl Stop {
    /// A stop that only its stoppers bring about.
    #[must_use]
    pub fn new() -> Stop {
        let (sender, wishes) = channel();
        Stop {
            wishes,
            stopper: Stopper {
                wishes: sender,
                is_due: Arc::default(),
            },
        }
    }

    /// A stop that SIGTERM and SIGINT bring about too; SIGHUP asks to reload.
    ///
    /// # Errors
    /// The handlers or their thread could not be set up.
    pub fn on_signals() -> std::io::Result<Stop> {
        let stop = Stop::new();
        let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP])?;
        let stopper = stop.stopper();
        thread::Builder::new()
            .name("signals".into())
            .spawn(move || {
                let mut ends = false;
                for signal in signals.forever() {
                    let name = match signal {
                        SIGHUP => {
                            // Whoever waited may be stopping already.
                            let _ = stopper.wishes.send(Wish::Reload);
                            continue;
                        }
                        SIGTERM => "terminated",
                        _ => "interrupt",
                    };
                    // Only the first one counts: a second one must not cut the orderly end short.
                    if !std::mem::replace(&mut ends, true) {
                        tracing::info!(signal = name, "received signal; shutting down");
                        stopper.end(Cause::Signal(signal));
                    }
                }
            })?;
        Ok(stop)
    }

    /// A handle that ends the wait.
    #[must_use]
    pub fn stopper(&self) -> Stopper {
        self.stopper.clone()
    }

    /// Waits until somebody wants something.
    #[must_use]
    pub fn next(&self) -> Wish {
        self.wishes
            .recv()
            .expect("the stop holds a sender of its own")
    }
}

impl Default for Stop {
    fn default() -> Stop {
        Stop::new()
    }
}

/// Ends the process the way its cause demands: killed by the very signal that it received, so
/// that its parent sees why, or with success.
pub fn leave(cause: Cause) -> ! {
    // The kernel does not kill process 1 by a signal that it left at its default.
    if let Cause::Signal(signal) = cause
        && process::id() != 1
    {
        // Returns only if it failed.
        let _ = emulate_default_handler(signal);
    }
    process::exit(0);
}

/// Tells systemd, once, that the member serves, if systemd waits for it.
pub fn notify_ready() {
    static NOTIFIED: Once = Once::new();
    NOTIFIED.call_once(say_ready);
}

fn say_ready() {
    tracing::info!("notifying init daemon");
    let sent = match std::env::var_os("NOTIFY_SOCKET") {
        Some(name) if !name.is_empty() => notify(&name, b"READY=1"),
        _ => Ok(()),
    };
    match sent {
        Ok(()) => tracing::info!("successfully notified init daemon"),
        Err(error) => tracing::error!(%error, "failed to notify systemd for readiness"),
    }
}

/// One message of systemd's protocol (sd_notify(3)): a datagram to a socket file, or with a
/// leading `@` to a name of the abstract name space.
fn notify(name: &OsStr, message: &[u8]) -> io::Result<()> {
    let socket = UnixDatagram::unbound()?;
    let address = match name.as_bytes() {
        [b'@', rest @ ..] => SocketAddr::from_abstract_name(rest)?,
        path => SocketAddr::from_pathname(OsStr::from_bytes(path))?,
    };
    let sent = socket.send_to_addr(message, &address)?;
    if sent == message.len() {
        Ok(())
    } else {
        Err(io::ErrorKind::WriteZero.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_can_stop_itself() {
        let stop = Stop::new();
        let stopper = stop.stopper();
        thread::spawn(move || stopper.stop());
        assert_eq!(stop.next(), Wish::End(Cause::Member));
    }

    #[test]
    fn readiness_reaches_files_and_abstract_names() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let file = UnixDatagram::bind(&path).unwrap();
        let name = format!("quorate-test-{}", process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let hidden = UnixDatagram::bind_addr(&address).unwrap();
        for (socket, name) in [
            (file, path.into_os_string()),
            (hidden, format!("@{name}").into()),
        ] {
            socket.set_nonblocking(true).unwrap();
            notify(&name, b"READY=1").unwrap();
            let mut message = [0; 16];
            let length = socket.recv(&mut message).unwrap();
            assert_eq!(&message[..length], b"READY=1");
        }
        assert!(notify(OsStr::new("/nonexistent/notify"), b"READY=1").is_err());
    }
}
