//! A member as a process: start, wait until healthy, stop, kill, start again.

use std::fmt;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::http;

/// Longest wait for a member to become healthy or to end.
const LIMIT: Duration = Duration::from_secs(30);
/// Pause between looks at a condition.
const PAUSE: Duration = Duration::from_millis(10);

/// What went wrong, in words for the person who reads the test's output.
#[derive(Debug)]
pub struct Error(pub String);

impl fmt::Display for Error {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

impl std::error::Error for Error {}

impl From<String> for Error {
    fn from(error: String) -> Self {
        Self(error)
    }
}

impl From<std::io::Error> for Error {
    fn from(error: std::io::Error) -> Self {
        Self(error.to_string())
    }
}

/// How a member is started.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The binary; the one of [`binary`] when absent.
    pub binary: Option<PathBuf>,
    /// Kept when the member goes; a fresh directory that is removed with it when absent.
    pub data_dir: Option<PathBuf>,
    /// Additional flags; `{client}` in them stands for the address where clients connect.
    pub flags: Vec<String>,
    /// Words before the binary, such as those that take privileges away.
    pub wrapper: Vec<String>,
    /// The address that is its own in a network namespace, where it uses the usual ports; free
    /// ports of the loopback interface when absent.
    pub host: Option<IpAddr>,
    /// Whether members talk over TLS, which `flags` then describe.
    pub secure_peers: bool,
}

/// A running (or stopped) member; killed by its process id when dropped.
pub struct Member {
    child: Option<Child>,
    options: Options,
    binary: PathBuf,
    address: SocketAddr,
    peer: SocketAddr,
    /// Where other members are told to find it.
    advertised: SocketAddr,
    name: String,
    /// `--initial-cluster`; this member alone when absent.
    cluster: Option<String>,
    /// Whether that cluster was there before it.
    joins: bool,
    directory: PathBuf,
    temporary: bool,
}

impl Member {
    /// Starts a member and waits until `/health` says so.
    ///
    /// # Errors
    /// The binary cannot be started, ends, or is not healthy within 30 s.
    pub fn start(options: Options) -> Result<Self, Error> {
        let mut member = Self::prepare(options)?;
        member.restart()?;
        Ok(member)
    }

    /// Chooses ports and a directory without starting anything.
    ///
    /// # Errors
    /// No free port, or no directory can be made.
    pub fn prepare(options: Options) -> Result<Self, Error> {
        let binary = match &options.binary {
            Some(path) => path.clone(),
            None => binary()?,
        };
        let temporary = options.data_dir.is_none();
        let directory = options.data_dir.clone().unwrap_or_else(fresh_directory);
        std::fs::create_dir_all(&directory)?;
        let (address, peer) = match options.host {
            Some(host) => ((host, 2379).into(), (host, 2380).into()),
            None => (free_address()?, free_address()?),
        };
        Ok(Self {
            child: None,
            options,
            binary,
            address,
            peer,
            advertised: peer,
            name: "e2e".into(),
            cluster: None,
            joins: false,
            directory,
            temporary,
        })
    }

    /// Starts the process again on the same directory and ports.
    ///
    /// # Errors
    /// As [`Member::start`].
    pub fn restart(&mut self) -> Result<(), Error> {
        self.spawn()?;
        self.wait_until_healthy()
    }

    /// Starts the process without waiting for it.
    ///
    /// # Errors
    /// The binary cannot be started.
    pub fn spawn(&mut self) -> Result<(), Error> {
        self.spawn_with(&[])
    }

    /// Starts the process without waiting for it, with more flags than at other times.
    ///
    /// # Errors
    /// The binary cannot be started.
    pub fn spawn_with(&mut self, flags: &[&str]) -> Result<(), Error> {
        self.kill()?;
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.log_path())?;
        let child = self
            .command()
            .args(flags)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .map_err(|error| Error(format!("{}: {error}", self.binary.display())))?;
        self.child = Some(child);
        Ok(())
    }

    /// The command line of this member.
    #[must_use]
    pub fn command(&self) -> Command {
        let client = format!("http://{}", self.address);
        let scheme = self.peer_scheme();
        let peer = format!("{scheme}://{}", self.peer);
        let advertised = format!("{scheme}://{}", self.advertised);
        let alone = format!("{}={advertised}", self.name);
        let cluster = self.cluster.as_ref().unwrap_or(&alone);
        let mut command = match self.options.wrapper.split_first() {
            None => Command::new(&self.binary),
            Some((program, words)) => {
                let mut command = Command::new(program);
                command.args(words).arg(&self.binary);
                command
            }
        };
        command
            .arg(format!("--name={}", self.name))
            .arg(format!("--data-dir={}", self.data_dir().display()))
            .arg(format!("--listen-client-urls={client}"))
            .arg(format!("--advertise-client-urls={client}"))
            .arg(format!("--listen-peer-urls={peer}"))
            .arg(format!("--initial-advertise-peer-urls={advertised}"))
            .arg(format!("--initial-cluster={cluster}"))
            .args(self.joins.then_some("--initial-cluster-state=existing"))
            .arg("--log-level=warn")
            .env("STALL_SYNCS_FILE", self.stall_file())
            .args(self.options.flags.iter().map(|flag| {
                let client = self.address.to_string();
                flag.replace("{client}", &client)
            }));
        command
    }

    /// Makes it one of several members, before its first start: `cluster` lists all of them.
    pub(crate) fn set_cluster(&mut self, name: &str, cluster: &str) {
        name.clone_into(&mut self.name);
        self.cluster = Some(cluster.to_owned());
    }

    /// Makes it one that comes to a cluster, before its first start: `cluster` lists all members,
    /// itself included.
    pub(crate) fn join(&mut self, name: &str, cluster: &str) {
        self.set_cluster(name, cluster);
        self.joins = true;
    }

    /// Chooses another port for other members, from the next start on.
    pub(crate) fn move_peer(&mut self) -> Result<(), Error> {
        self.peer = free_address()?;
        self.advertised = self.peer;
        Ok(())
    }

    /// Removes its data, as if its disk had been replaced. It must not run.
    pub(crate) fn wipe(&mut self) -> Result<(), Error> {
        assert!(self.child.is_none(), "a member that runs needs its data");
        Ok(std::fs::remove_dir_all(self.data_dir())?)
    }

    /// Starts another binary from now on, on the same directory.
    pub fn set_binary(&mut self, binary: PathBuf) {
        self.binary = binary;
    }

    /// Tells the other members to find it there, before its first start.
    pub(crate) fn advertise(&mut self, address: SocketAddr) {
        self.advertised = address;
    }

    fn peer_scheme(&self) -> &'static str {
        match self.options.secure_peers {
            true => "https",
            false => "http",
        }
    }

    /// How the list of members has it: `<name>=<URL>`.
    pub(crate) fn listed(&self, name: &str) -> String {
        format!("{name}={}://{}", self.peer_scheme(), self.advertised)
    }

    /// Waits until `/health` says so.
    ///
    /// # Errors
    /// The process ends, or is not healthy within 30 s.
    pub fn wait_until_healthy(&mut self) -> Result<(), Error> {
        let deadline = Instant::now() + LIMIT;
        while Instant::now() < deadline {
            if let Some(status) = self.poll_exit()? {
                return Err(Error(format!(
                    "the member ended with {status}:\n{}",
                    self.log()
                )));
            }
            let answer = http::get(self.address, "/health");
            if answer.is_ok_and(|answer| answer.body.contains("\"true\"")) {
                return Ok(());
            }
            std::thread::sleep(PAUSE);
        }
        Err(Error(format!(
            "the member did not become healthy:\n{}",
            self.log()
        )))
    }

    /// The exit status if the process ended by itself.
    ///
    /// # Errors
    /// The operating system refuses to tell.
    pub fn poll_exit(&mut self) -> Result<Option<ExitStatus>, Error> {
        match &mut self.child {
            Some(child) => Ok(child.try_wait()?),
            None => Ok(None),
        }
    }

    /// Waits until the process ended by itself.
    ///
    /// # Errors
    /// It still runs after 30 s.
    pub fn wait_for_exit(&mut self) -> Result<ExitStatus, Error> {
        let deadline = Instant::now() + LIMIT;
        while Instant::now() < deadline {
            if let Some(status) = self.poll_exit()? {
                self.child = None;
                return Ok(status);
            }
            std::thread::sleep(PAUSE);
        }
        Err(Error(format!("the member still runs:\n{}", self.log())))
    }

    /// Ends the process as a power cut would: SIGKILL. Nothing happens when it does not run.
    ///
    /// # Errors
    /// The operating system refuses.
    pub fn kill(&mut self) -> Result<(), Error> {
        if let Some(mut child) = self.child.take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    /// Asks the process to stop (SIGTERM) and waits for its end.
    ///
    /// # Errors
    /// It still runs after 30 s.
    pub fn stop(&mut self) -> Result<ExitStatus, Error> {
        self.signal("TERM")?;
        self.wait_for_exit()
    }

    /// Sends the process a signal, by its name without `SIG`.
    ///
    /// # Errors
    /// It does not run, or the operating system refuses.
    pub fn signal(&self, name: &str) -> Result<(), Error> {
        let Some(child) = &self.child else {
            return Err(Error("it does not run".into()));
        };
        let id = child.id().to_string();
        let status = Command::new("kill")
            .arg(format!("-{name}"))
            .arg(&id)
            .status()?;
        if !status.success() {
            return Err(Error(format!("cannot signal process {id}")));
        }
        Ok(())
    }

    /// Where clients connect.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where other members connect.
    #[must_use]
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// Process id while it runs.
    #[must_use]
    pub fn process(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// The member's data directory.
    #[must_use]
    pub fn data_dir(&self) -> PathBuf {
        self.directory.join("data")
    }

    /// While this file is there, a server built with the feature `stall-syncs` syncs nothing.
    #[must_use]
    pub fn stall_file(&self) -> PathBuf {
        self.directory.join("stall")
    }

    fn log_path(&self) -> PathBuf {
        self.directory.join("member.log")
    }

    /// What the process printed so far, in all its lives.
    #[must_use]
    pub fn log(&self) -> String {
        let bytes = std::fs::read(self.log_path()).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        // Fails only when the process is already gone.
        let _ = self.kill();
        if self.temporary {
            remove(&self.directory);
        }
    }
}

/// Removes a directory of a test, unless `E2E_KEEP` asks to look at it.
pub(crate) fn remove(directory: &Path) {
    if std::env::var_os("E2E_KEEP").is_some() {
        eprintln!("kept {}", directory.display());
    } else {
        // Left behind at worst.
        let _ = std::fs::remove_dir_all(directory);
    }
}

pub(crate) fn fresh_directory() -> PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    std::env::temp_dir().join(format!("etcd-e2e-{}-{number}", std::process::id()))
}

/// An address on which nobody listens at the moment.
///
/// # Errors
/// No port is free.
pub fn free_address() -> std::io::Result<SocketAddr> {
    TcpListener::bind("127.0.0.1:0")?.local_addr()
}

/// The binary under test: `ETCD_BIN`, or ours, built if need be.
///
/// # Errors
/// Our binary does not build.
pub fn binary() -> Result<PathBuf, Error> {
    static BUILT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    if let Some(path) = std::env::var_os("ETCD_BIN") {
        return Ok(path.into());
    }
    BUILT.get_or_init(build).clone().map_err(Error)
}

/// Whether a server is ours, by what it says of its version.
///
/// # Errors
/// It cannot be run.
pub fn is_ours(binary: &Path) -> Result<bool, Error> {
    let output = Command::new(binary).arg("--version").output()?;
    Ok(String::from_utf8_lossy(&output.stdout).contains("Quorate"))
}

/// Builds the server in the profile that this program was built in.
fn build() -> Result<PathBuf, String> {
    let own = std::env::current_exe().map_err(|error| error.to_string())?;
    let profile = own
        .ancestors()
        .find(|path| path.ends_with("debug") || path.ends_with("release"))
        .ok_or("cannot tell where binaries are built; name one in ETCD_BIN")?;
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let mut command = Command::new(cargo);
    command.args([
        "build",
        "--quiet",
        "--package",
        "server",
        "--bin",
        "etcd",
        "--target-dir",
    ]);
    command.arg(profile.parent().unwrap_or(Path::new("target")));
    command.current_dir(env!("CARGO_MANIFEST_DIR"));
    if profile.ends_with("release") {
        command.arg("--release");
    }
    let status = command
        .status()
        .map_err(|error| format!("cannot run cargo: {error}"))?;
    if !status.success() {
        return Err(format!("building the server: {status}"));
    }
    Ok(profile.join("etcd"))
}
