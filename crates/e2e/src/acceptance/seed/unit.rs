//! What systemd does with a unit, as far as the first deployment's goes: it reads the service's
//! settings, puts variables in, limits descriptors, changes to the user, and listens for readiness.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::process::{Child, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crate::Error;
use crate::machine::Machine;

/// Longest wait for readiness, of the last of three too.
const READY_LIMIT: Duration = Duration::from_secs(60);
/// Longest wait for the end after SIGTERM.
const STOP_LIMIT: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(10);
const SOCKET: &str = "run/notify";
const LOG: &str = "etcd.log";
/// Not everybody who may make namespaces may raise a limit.
const LIMIT_DESCRIPTORS: &str = "
number=$1
shift
(ulimit -n \"$number\") 2>/dev/null || number=$(ulimit -Hn)
ulimit -n \"$number\"
exec \"$@\"";

/// Settings of a service.
#[derive(Debug)]
pub(super) struct Unit {
    user: String,
    descriptors: String,
    command: Vec<String>,
}

impl Unit {
    /// Reads a unit of the type `notify`.
    ///
    /// # Errors
    /// It has another type, or lacks a setting.
    pub(super) fn parse(text: &str) -> Result<Unit, Error> {
        let joined = text.replace("\\\n", " ");
        let setting = |name: &str| {
            let mut lines = joined.lines().filter_map(|line| line.split_once('='));
            let found = lines
                .find(|(key, _)| *key == name)
                .map(|(_, value)| value.to_owned());
            found.ok_or_else(|| Error(format!("the unit has no {name}")))
        };
        if setting("Type")? != "notify" {
            return Err(Error("the unit is not of the type notify".into()));
        }
        let command = setting("ExecStart")?;
        Ok(Unit {
            user: setting("User")?,
            descriptors: setting("LimitNOFILE")?,
            command: command.split_whitespace().map(str::to_owned).collect(),
        })
    }
}

/// A unit that was started on a machine; killed when dropped.
pub(super) struct Service<'a> {
    machine: &'a Machine,
    child: Child,
    socket: UnixDatagram,
}

impl<'a> Service<'a> {
    /// Starts it, with more flags than the unit has.
    ///
    /// # Errors
    /// The machine refuses.
    pub(super) fn start(
        unit: &Unit,
        machine: &'a Machine,
        more: &[&str],
    ) -> Result<Service<'a>, Error> {
        let path = machine.path(SOCKET);
        if path.exists() {
            fs::remove_file(&path)?;
        }
        let socket = UnixDatagram::bind(&path)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o777))?;
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(machine.path(LOG))?;
        let words = unit.command.iter();
        let words = words.map(|word| word.replace("${ETCD_NAME}", machine.name()));
        let child = machine
            .command("sh")
            .args(["-c", LIMIT_DESCRIPTORS, "sh", &unit.descriptors])
            .args([
                "setpriv",
                "--reuid",
                &unit.user,
                "--regid",
                &unit.user,
                "--init-groups",
            ])
            .arg("--")
            .args(words)
            .args(more)
            .env("NOTIFY_SOCKET", format!("/{SOCKET}"))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        Ok(Service {
            machine,
            child,
            socket,
        })
    }

    /// Waits for `READY=1`.
    ///
    /// # Errors
    /// It ends, or says nothing in time.
    pub(super) fn wait_until_ready(&mut self) -> Result<(), Error> {
        let deadline = Instant::now() + READY_LIMIT;
        self.socket.set_read_timeout(Some(PAUSE))?;
        let mut message = [0; 1024];
        while Instant::now() < deadline {
            if let Ok(length) = self.socket.recv(&mut message) {
                let text = String::from_utf8_lossy(&message[..length]);
                if text.lines().any(|line| line == "READY=1") {
                    return Ok(());
                }
            }
            if let Some(status) = self.child.try_wait()? {
                return Err(self.error(&format!("ended with {status}")));
            }
        }
        Err(self.error("is not ready"))
    }

    /// Stops it as systemd does.
    ///
    /// # Errors
    /// It does not end, or not as if it had obeyed.
    pub(super) fn stop(&mut self) -> Result<(), Error> {
        use std::os::unix::process::ExitStatusExt;
        let id = self.child.id().to_string();
        self.machine.run("kill", &["-TERM", &id])?;
        let deadline = Instant::now() + STOP_LIMIT;
        let status: ExitStatus = loop {
            if let Some(status) = self.child.try_wait()? {
                break status;
            }
            if Instant::now() > deadline {
                return Err(self.error("does not stop"));
            }
            std::thread::sleep(PAUSE);
        };
        /// What systemd takes for obedience, beside success.
        const SIGTERM: i32 = 15;
        match status.success() || status.signal() == Some(SIGTERM) {
            true => Ok(()),
            false => Err(self.error(&format!("stopped with {status}"))),
        }
    }

    /// What it has printed, in all its lives.
    pub(super) fn log(&self) -> String {
        let bytes = fs::read(self.machine.path(LOG)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    fn error(&self, what: &str) -> Error {
        Error(format!(
            "etcd on {} {what}:\n{}",
            self.machine.name(),
            self.log()
        ))
    }
}

impl Drop for Service<'_> {
    fn drop(&mut self) {
        // Fails only when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
