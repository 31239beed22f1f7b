//! Machines of a small network, each of them namespaces of its own: network, mounts, host name.
//!
//! A machine has its own `/etc`, `/run`, `/usr/local/bin` and `/var/lib`, and an address on a
//! bridge that lies in yet another namespace, so that nothing of the host is changed. A process
//! that waits for the end of its input holds the namespaces open; they go when it goes. Needs
//! root, `ip` of iproute2, and `unshare` and `nsenter` of util-linux.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::Ipv4Addr;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use crate::Error;
use crate::member::{fresh_directory, remove};

/// The user that services run as, and its number.
const USER: (&str, u32) = ("etcd", 2379);
/// Domain of all machines.
const DOMAIN: &str = "kube.demo";

/// Ends when its input ends, which it does with this process.
const HOLD: &str = "echo ready; exec cat >/dev/null";
/// Becomes a machine: name, directory, and what to put into `/usr/local/bin`.
const BECOME: &str = "
hostname \"$1\"
directory=$2
shift 2
for file in \"$@\"; do
    mount --bind \"$file\" \"$directory/usr/local/bin/${file##*/}\"
done
for path in etc run usr/local/bin var/lib; do
    mount --rbind \"$directory/$path\" \"/$path\"
done
ip link set lo up";

/// Fails, in words for whoever started the program, unless it can make machines.
///
/// # Errors
/// It does not run as root, or commands are missing.
pub fn check_abilities() -> Result<(), Error> {
    if fs::metadata("/proc/self")?.uid() != 0 {
        return Err(Error("network namespaces need root".into()));
    }
    check_tools(&["ip", "unshare", "nsenter", "setpriv"])
}

/// Fails if one of the commands is missing.
///
/// # Errors
/// Their names.
pub fn check_tools(tools: &[&str]) -> Result<(), Error> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let is_there = |tool: &str| std::env::split_paths(&path).any(|dir| dir.join(tool).exists());
    let missing: Vec<&str> = tools
        .iter()
        .copied()
        .filter(|tool| !is_there(tool))
        .collect();
    match missing.is_empty() {
        true => Ok(()),
        false => Err(Error(format!(
            "commands that are not there: {}",
            missing.join(", ")
        ))),
    }
}

/// Machines whose names lead to each other.
pub struct Network {
    machines: Vec<Machine>,
    /// Where the bridge is.
    _switch: Holder,
}

/// One of them; gone when dropped.
pub struct Machine {
    name: String,
    address: Ipv4Addr,
    directory: PathBuf,
    holder: Holder,
}

impl Network {
    /// Makes machines of these names, with the given programs in their `/usr/local/bin`, each
    /// under the name that stands before it.
    ///
    /// # Errors
    /// What [`check_abilities`] says, or the kernel refuses.
    pub fn new(names: &[&str], programs: &[(&str, &Path)]) -> Result<Network, Error> {
        check_abilities()?;
        let switch = Holder::start(
            &["--net"],
            "ip link add switch type bridge\nip link set switch up",
            &[],
        )?;
        let mut machines = Vec::with_capacity(names.len());
        for (name, number) in names.iter().zip(1..) {
            let address = Ipv4Addr::new(10, 88, 0, number);
            let machine = Machine::start(name, address, names, programs)?;
            machine.plug_into(&switch, number)?;
            machines.push(machine);
        }
        Ok(Network {
            machines,
            _switch: switch,
        })
    }

    /// In the order of their names.
    #[must_use]
    pub fn machines(&self) -> &[Machine] {
        &self.machines
    }
}

impl Machine {
    fn start(
        name: &str,
        address: Ipv4Addr,
        names: &[&str],
        programs: &[(&str, &Path)],
    ) -> Result<Machine, Error> {
        let directory = fresh_directory();
        // From here on it is removed with the machine.
        let mut machine = Machine {
            name: name.to_owned(),
            address,
            directory,
            holder: Holder { child: None },
        };
        let path = |below: &str| machine.path(below);
        for below in [
            "etc/etcd",
            "run",
            "usr/local/bin",
            "var/lib/etcd",
            "programs",
        ] {
            fs::create_dir_all(path(below))?;
        }
        fs::write(path("etc/hosts"), hosts(name, names))?;
        fs::write(path("etc/hostname"), format!("{name}\n"))?;
        fs::write(
            path("etc/nsswitch.conf"),
            "passwd: files\ngroup: files\nhosts: files\n",
        )?;
        let (user, id) = USER;
        let passwd = format!("root:x:0:0::/root:/bin/sh\n{user}:x:{id}:{id}::/:/bin/false\n");
        fs::write(path("etc/passwd"), passwd)?;
        fs::write(path("etc/group"), format!("root:x:0:\n{user}:x:{id}:\n"))?;
        let mut words = vec![name.to_owned(), path("").display().to_string()];
        for (program, source) in programs {
            fs::write(path("usr/local/bin").join(program), "")?;
            let link = path("programs").join(program);
            std::os::unix::fs::symlink(fs::canonicalize(source)?, &link)?;
            words.push(link.display().to_string());
        }
        machine.own("var/lib/etcd")?;
        machine.own("etc/etcd")?;
        machine.holder = Holder::start(&["--net", "--mount", "--uts"], BECOME, &words)?;
        Ok(machine)
    }

    fn plug_into(&self, switch: &Holder, number: u8) -> Result<(), Error> {
        let socket = format!("port{number}");
        let own = self.holder.process().to_string();
        let within = |holder: &Holder, words: &str| {
            let mut command = holder.enter(&["--net"]);
            finish(command.arg("ip").args(words.split_whitespace()))
        };
        within(
            switch,
            &format!("link add {socket} type veth peer name eth0 netns {own}"),
        )?;
        within(switch, &format!("link set {socket} master switch up"))?;
        within(
            &self.holder,
            &format!("addr add {}/24 dev eth0", self.address),
        )?;
        within(&self.holder, "link set eth0 up")
    }

    /// Its short name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its name with the domain.
    #[must_use]
    pub fn full_name(&self) -> String {
        format!("{}.{DOMAIN}", self.name)
    }

    /// A path of the machine as the host sees it: `path("etc/hosts")`.
    #[must_use]
    pub fn path(&self, below: &str) -> PathBuf {
        self.directory.join(below)
    }

    /// Gives a path of the machine to the user of its services.
    ///
    /// # Errors
    /// The system refuses.
    pub fn own(&self, below: &str) -> Result<(), Error> {
        Ok(chown(self.path(below), Some(USER.1), Some(USER.1))?)
    }

    /// Puts a copy of a file there, for the user of the services.
    ///
    /// # Errors
    /// The file cannot be read or written.
    pub fn install(&self, source: &Path, below: &str) -> Result<(), Error> {
        let target = self.path(below);
        let beside = self.path(&format!("{below}.new"));
        fs::copy(source, &beside)?;
        chown(&beside, Some(USER.1), Some(USER.1))?;
        fs::rename(beside, target)?;
        Ok(())
    }

    /// A command there, as root, with few variables in its environment. Its process is the
    /// program's own.
    #[must_use]
    pub fn command(&self, program: &str) -> Command {
        let mut command = self.holder.enter(&["--net", "--mount", "--uts"]);
        let search = "/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
        command.env_clear().env("PATH", search).arg(program);
        command
    }

    /// Runs a command there to its end.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn run(&self, program: &str, words: &[&str]) -> Result<Output, Error> {
        let mut command = self.command(program);
        Ok(command.args(words).stdin(Stdio::null()).output()?)
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.holder.end();
        remove(&self.directory);
    }
}

/// What `/etc/hosts` says on a machine, in the way of Debian.
fn hosts(own: &str, names: &[&str]) -> String {
    let mut text = format!("127.0.0.1 localhost\n127.0.1.1 {own}.{DOMAIN} {own}\n");
    for (name, number) in names.iter().zip(1..) {
        text.push_str(&format!("10.88.0.{number} {name}.{DOMAIN} {name}\n"));
    }
    text
}

/// The process that keeps namespaces open.
struct Holder {
    child: Option<Child>,
}

impl Holder {
    fn start(kinds: &[&str], script: &str, words: &[String]) -> Result<Holder, Error> {
        let mut command = Command::new("unshare");
        command.args(kinds);
        if kinds.contains(&"--mount") {
            command.args(["--propagation", "private"]);
        }
        command.args(["sh", "-e", "-c", &format!("{script}\n{HOLD}"), "sh"]);
        command
            .args(words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut child = command
            .spawn()
            .map_err(|error| Error(format!("unshare: {error}")))?;
        let output = child.stdout.take().expect("it was asked for");
        let holder = Holder { child: Some(child) };
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line)?;
        match line.trim() {
            "ready" => Ok(holder),
            other => Err(Error(format!(
                "cannot make a namespace ({other:?}): {command:?}"
            ))),
        }
    }

    fn process(&self) -> u32 {
        self.child.as_ref().map_or(0, Child::id)
    }

    /// The beginning of a command in its namespaces.
    fn enter(&self, kinds: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command
            .arg("--target")
            .arg(self.process().to_string())
            .args(kinds)
            .arg("--");
        command
    }

    fn end(&mut self) {
        if let Some(mut child) = self.child.take() {
            // Fails only when it has ended already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        self.end();
    }
}

fn finish(command: &mut Command) -> Result<(), Error> {
    let output = command.stdin(Stdio::null()).output()?;
    match output.status.success() {
        true => Ok(()),
        false => {
            let text = String::from_utf8_lossy(&output.stderr);
            Err(Error(format!("{command:?}: {text}")))
        }
    }
}
