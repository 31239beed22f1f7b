//! A cluster under test as processes: started on a fresh directory, read through /proc.

use std::error::Error;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Ticks a second in /proc/PID/stat: fixed by the kernel's interface to user space.
const TICKS: f64 = 100.0;
const START_LIMIT: Duration = Duration::from_secs(30);

/// Members of one cluster; killed when dropped.
pub(crate) struct Cluster {
    members: Vec<Server>,
}

impl Cluster {
    /// Starts so many members of a new cluster and waits until all are healthy.
    ///
    /// # Errors
    /// The binary does not start, or a member is not healthy within 30 s.
    pub(crate) fn start(
        binary: &Path,
        directory: &Path,
        count: usize,
    ) -> Result<Self, Box<dyn Error>> {
        let peers = free_ports(count)?;
        let peers: Vec<String> = peers
            .into_iter()
            .map(|port| format!("http://127.0.0.1:{port}"))
            .collect();
        let members = (0..count)
            .map(|index| Server::start(binary, directory, &peers, index))
            .collect::<Result<_, _>>()?;
        let mut cluster = Self { members };
        cluster
            .members
            .iter_mut()
            .try_for_each(Server::wait_until_healthy)?;
        Ok(cluster)
    }

    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        self.members.iter().map(|one| one.address).collect()
    }

    /// Where the clients of the leader connect.
    ///
    /// # Errors
    /// Nobody leads for 30 s.
    pub(crate) fn leader(&self) -> Result<SocketAddr, Box<dyn Error>> {
        if let [only] = &self.members[..] {
            return Ok(only.address);
        }
        let deadline = Instant::now() + START_LIMIT;
        while Instant::now() < deadline {
            let leads = |address| ask(address, "/metrics").is_ok_and(|text| says_it_leads(&text));
            if let Some(leader) = self.members.iter().find(|one| leads(one.address)) {
                return Ok(leader.address);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Err("nobody leads".into())
    }

    /// What the members' processes used so far, in sum.
    ///
    /// # Errors
    /// A process is gone.
    pub(crate) fn usage(&self) -> Result<Usage, Box<dyn Error>> {
        let mut sum = Usage {
            cpu: 0.0,
            resident: 0.0,
        };
        for member in &self.members {
            let usage = Usage::of(&member.child.id().to_string())?;
            sum.cpu += usage.cpu;
            sum.resident += usage.resident;
        }
        Ok(sum)
    }
}

/// A running member; killed when dropped.
struct Server {
    child: Child,
    address: SocketAddr,
    log: PathBuf,
}

impl Server {
    /// Starts one of the members whose peer URLs are given.
    fn start(
        binary: &Path,
        directory: &Path,
        peers: &[String],
        index: usize,
    ) -> Result<Self, Box<dyn Error>> {
        let log = directory.join(format!("server-{index}.log"));
        let output = std::fs::File::create(&log)?;
        let [port] = free_ports(1)?[..] else {
            return Err("no port".into());
        };
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let client = format!("http://{address}");
        let peer = &peers[index];
        let data = directory.join(format!("data-{index}"));
        let all: Vec<String> = peers
            .iter()
            .enumerate()
            .map(|(index, peer)| format!("bench-{index}={peer}"))
            .collect();
        let child = Command::new(binary)
            .arg(format!("--name=bench-{index}"))
            .arg(format!("--data-dir={}", data.display()))
            .arg(format!("--listen-client-urls={client}"))
            .arg(format!("--advertise-client-urls={client}"))
            .arg(format!("--listen-peer-urls={peer}"))
            .arg(format!("--initial-advertise-peer-urls={peer}"))
            .arg(format!("--initial-cluster={}", all.join(",")))
            .arg("--quota-backend-bytes=17179869184")
            .arg("--log-level=error")
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .map_err(|error| format!("{}: {error}", binary.display()))?;
        Ok(Self {
            child,
            address,
            log,
        })
    }

    fn wait_until_healthy(&mut self) -> Result<(), Box<dyn Error>> {
        let deadline = Instant::now() + START_LIMIT;
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait()? {
                let log = std::fs::read_to_string(&self.log)?;
                return Err(format!("the server ended with {status}:\n{log}").into());
            }
            if ask(self.address, "/health").is_ok_and(|answer| answer.contains("\"true\"")) {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Err("the server did not become healthy".into())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Both fail only when the process is already gone.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One request without a body; the whole answer.
fn ask(address: SocketAddr, path: &str) -> std::io::Result<String> {
    let mut socket = TcpStream::connect(address)?;
    socket.set_read_timeout(Some(Duration::from_secs(2)))?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n");
    socket.write_all(request.as_bytes())?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer)?;
    Ok(answer)
}

fn says_it_leads(metrics: &str) -> bool {
    metrics
        .lines()
        .any(|line| line.trim_end() == "etcd_server_is_leader 1")
}

/// Ports that were free at the same moment, so that no two are the same.
fn free_ports(count: usize) -> std::io::Result<Vec<u16>> {
    let held: Vec<TcpListener> = (0..count)
        .map(|_| TcpListener::bind("127.0.0.1:0"))
        .collect::<Result<_, _>>()?;
    held.iter()
        .map(|listener| Ok(listener.local_addr()?.port()))
        .collect()
}

/// Totals of one process since its start.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Usage {
    /// User and system time of all threads, in seconds.
    pub(crate) cpu: f64,
    /// Resident memory now, in bytes.
    pub(crate) resident: f64,
}

impl Usage {
    /// Reads /proc of a process id, or of `self`.
    ///
    /// # Errors
    /// No such process, or a kernel whose /proc differs from proc(5).
    pub(crate) fn of(process: &str) -> Result<Self, Box<dyn Error>> {
        let read = |name: &str| std::fs::read_to_string(format!("/proc/{process}/{name}"));
        let cpu = parse_cpu(&read("stat")?).ok_or("unknown form of /proc/PID/stat")?;
        let resident = parse_field(&read("status")?, "VmRSS:").ok_or("no VmRSS")? * 1024.0;
        Ok(Self { cpu, resident })
    }
}

/// Busy seconds of all processors since the boot.
///
/// # Errors
/// A kernel whose /proc differs from proc(5).
pub(crate) fn machine_busy() -> Result<f64, Box<dyn Error>> {
    let text = std::fs::read_to_string("/proc/stat")?;
    parse_busy(&text).ok_or_else(|| "unknown form of /proc/stat".into())
}

/// Bytes that the block device below `directory` has written since the boot, by whomever; 0 when
/// it has none. The count in /proc/PID/io won't do: it counts a whole folio of the page cache,
/// up to megabytes, for each block in it that becomes dirty.
///
/// # Errors
/// The directory is gone, or a kernel whose /proc differs from proc(5).
pub(crate) fn device_written(directory: &Path) -> Result<f64, Box<dyn Error>> {
    let device = std::fs::metadata(directory)?.dev();
    let text = std::fs::read_to_string("/proc/diskstats")?;
    Ok(parse_device(&text, rustix::fs::major(device), rustix::fs::minor(device)).unwrap_or(0.0))
}

/// `major minor name`, four fields of reads, then writes, merged ones, and sectors written.
fn parse_device(diskstats: &str, major: u32, minor: u32) -> Option<f64> {
    let line = diskstats.lines().find_map(|line| {
        let mut fields = line.split_whitespace();
        let mine = fields.next()?.parse() == Ok(major) && fields.next()?.parse() == Ok(minor);
        mine.then(|| fields.nth(7)).flatten()
    })?;
    const SECTOR: f64 = 512.0;
    Some(line.parse::<f64>().ok()? * SECTOR)
}

/// utime and stime are the 14th and 15th field; the 2nd may hold blanks but ends in `)`.
fn parse_cpu(stat: &str) -> Option<f64> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace().skip(11);
    let user: f64 = fields.next()?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    Some((user + system) / TICKS)
}

fn parse_field(text: &str, name: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

/// `cpu user nice system idle iowait irq softirq …`
fn parse_busy(stat: &str) -> Option<f64> {
    let line = stat.lines().next()?.strip_prefix("cpu ")?;
    let fields: Vec<f64> = line
        .split_whitespace()
        .map(str::parse)
        .collect::<Result<_, _>>()
        .ok()?;
    let &[user, nice, system, _idle, _wait, irq, soft, ..] = fields.as_slice() else {
        return None;
    };
    Some((user + nice + system + irq + soft) / TICKS)
}

#[cfg(test)]
mod tests;
