//! Members as hosts of their own: network namespaces on a bridge, where a blackhole route is a
//! hard cut of one direction. Needs to be root, and the `ip` command.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::Error;

/// Begins the names of all devices and namespaces; the number of the process follows.
const MARK: &str = "qf";

/// Namespaces, links and the bridge of one cluster; gone when dropped.
pub(super) struct Namespaces {
    /// Begins all their names.
    prefix: String,
    /// Third byte of all addresses.
    subnet: u8,
    count: usize,
}

impl Namespaces {
    /// Makes one for each member, and removes what runs left behind that were killed.
    ///
    /// # Errors
    /// `ip` refuses.
    pub(super) fn start(count: usize) -> Result<Namespaces, Error> {
        remove_leftovers()?;
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let process = std::process::id();
        let made = Namespaces {
            // Names of devices have 15 characters at most, and processes 7 digits.
            prefix: format!("{MARK}{process}x{}", number % 100),
            subnet: ((process + number) % 250) as u8,
            count,
        };
        let (bridge, subnet) = (made.bridge(), made.subnet);
        ip(&format!("link add {bridge} type bridge"))?;
        ip(&format!("addr add 10.213.{subnet}.1/24 dev {bridge}"))?;
        ip(&format!("link set {bridge} up"))?;
        for at in 0..count {
            let (name, outside) = (made.name(at), made.outside(at));
            let address = made.address(at);
            ip(&format!("netns add {name}"))?;
            ip(&format!(
                "link add {outside} type veth peer name eth0 netns {name}"
            ))?;
            ip(&format!("link set {outside} master {bridge} up"))?;
            ip(&format!("-n {name} addr add {address}/24 dev eth0"))?;
            ip(&format!("-n {name} link set eth0 up"))?;
            ip(&format!("-n {name} link set lo up"))?;
        }
        Ok(made)
    }

    fn bridge(&self) -> String {
        format!("{}b", self.prefix)
    }

    /// The end outside of the namespace.
    fn outside(&self, at: usize) -> String {
        format!("{}v{at}", self.prefix)
    }

    fn name(&self, at: usize) -> String {
        format!("{}n{at}", self.prefix)
    }

    /// The address of a member, which the others and the test see.
    pub(super) fn address(&self, at: usize) -> IpAddr {
        Ipv4Addr::new(10, 213, self.subnet, 10 + at as u8).into()
    }

    /// Words before a command that runs it in the namespace.
    pub(super) fn wrapper(&self, at: usize) -> Vec<String> {
        let words = ["ip", "netns", "exec", &self.name(at)];
        words.map(str::to_owned).to_vec()
    }

    /// Nothing that `from` sends reaches `to` any more.
    ///
    /// # Errors
    /// `ip` refuses.
    pub(super) fn cut(&self, from: usize, to: usize) -> Result<(), Error> {
        let (name, address) = (self.name(from), self.address(to));
        ip(&format!("-n {name} route replace blackhole {address}/32")).map(drop)
    }

    /// Undoes [`Namespaces::cut`], which may not have been done.
    pub(super) fn open(&self, from: usize, to: usize) -> Result<(), Error> {
        let (name, address) = (self.name(from), self.address(to));
        let routes = ip(&format!("-n {name} route"))?;
        let is_cut = |line: &str| line.trim() == format!("blackhole {address}");
        match routes.lines().any(is_cut) {
            true => ip(&format!("-n {name} route del blackhole {address}/32")).map(drop),
            false => Ok(()),
        }
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        // What was not made cannot be removed.
        for at in 0..self.count {
            let _ = ip(&format!("link del {}", self.outside(at)));
            let _ = ip(&format!("netns del {}", self.name(at)));
        }
        let _ = ip(&format!("link del {}", self.bridge()));
    }
}

/// Removes devices and namespaces whose process is gone.
fn remove_leftovers() -> Result<(), Error> {
    for (list, delete) in [("-br link", "link del"), ("netns list", "netns del")] {
        for line in ip(list)?.lines() {
            // A device with an end elsewhere is `name@end`; a namespace may have an ID behind it.
            let end = line.find(['@', ' ']).unwrap_or(line.len());
            let name = &line[..end];
            if process_of(name).is_some_and(|process| !runs(process)) {
                // Another run may remove it at the same time.
                let _ = ip(&format!("{delete} {name}"));
            }
        }
    }
    Ok(())
}

/// The process that gave something its name.
fn process_of(name: &str) -> Option<u32> {
    let (process, _) = name.strip_prefix(MARK)?.split_once('x')?;
    process.parse().ok()
}

fn runs(process: u32) -> bool {
    Path::new(&format!("/proc/{process}")).exists()
}

/// Runs `ip` and gives what it prints.
fn ip(words: &str) -> Result<String, Error> {
    let mut command = Command::new("ip");
    let output = command.args(words.split(' ')).output();
    let output = output.map_err(|error| Error(format!("ip: {error}")))?;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        false => Err(Error(format!(
            "ip {words}: {}",
            String::from_utf8_lossy(&output.stderr)
        ))),
    }
}
