//! What the kernel knows about this process, read from /proc at every scrape.

use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use super::encode::Text;

/// Ticks of /proc/self/stat; Linux has told user space 100 since 2.6.
const TICKS_PER_SECOND: f64 = 100.0;

struct Stat {
    cpu_seconds: f64,
    start_ticks: f64,
    virtual_bytes: f64,
    resident_pages: f64,
}

/// Open file descriptors of this process.
#[must_use]
pub fn open_fds() -> Option<usize> {
    // One of the entries is the directory that is being read.
    fs::read_dir("/proc/self/fd")
        .ok()
        .map(|entries| entries.count().saturating_sub(1))
}

/// The limit of open file descriptors; `None` when there is none.
#[must_use]
pub fn fd_limit() -> Option<u64> {
    rustix::process::getrlimit(rustix::process::Resource::Nofile).current
}

/// `os_fd_*` and `process_*`, by name.
pub(super) fn write(text: &mut Text) {
    let limit = fd_limit().map_or(f64::INFINITY, |limit| limit as f64);
    let open = open_fds().map(|open| open as f64);
    let stat = read_stat();
    let page_bytes = rustix::param::page_size() as f64;
    let space = rustix::process::getrlimit(rustix::process::Resource::As).current;
    let of_stat = |field: fn(&Stat) -> f64| stat.as_ref().map(field);
    let cpu = of_stat(|stat| stat.cpu_seconds);
    let resident = of_stat(|stat| stat.resident_pages).map(|pages| pages * page_bytes);
    let start = stat.as_ref().and_then(start_seconds);
    let (received, sent) = read_network().unzip();
    // Go's client prints the kernel's "unlimited" as the number that it is.
    let space_max = Some(space.unwrap_or(u64::MAX) as f64);
    let used = of_stat(|stat| stat.virtual_bytes);
    for (name, help, value) in [
        (
            "os_fd_limit",
            "File descriptors that may be open.",
            Some(limit),
        ),
        ("os_fd_used", "File descriptors that are open.", open),
        (
            "process_cpu_seconds_total",
            "Processor time, user and system.",
            cpu,
        ),
        (
            "process_max_fds",
            "File descriptors that may be open.",
            Some(limit),
        ),
        (
            "process_network_receive_bytes_total",
            "Bytes received over IP.",
            received,
        ),
        (
            "process_network_transmit_bytes_total",
            "Bytes sent over IP.",
            sent,
        ),
        ("process_open_fds", "File descriptors that are open.", open),
        ("process_resident_memory_bytes", "Memory in use.", resident),
        (
            "process_start_time_seconds",
            "When the process began, Unix time.",
            start,
        ),
        (
            "process_virtual_memory_bytes",
            "Address space in use.",
            used,
        ),
        (
            "process_virtual_memory_max_bytes",
            "Address space that may be used.",
            space_max,
        ),
    ] {
        let kind = if name.ends_with("_total") {
            "counter"
        } else {
            "gauge"
        };
        if let Some(value) = value {
            text.family(name, kind, help);
            text.sample(name, "", value);
        }
    }
}

fn read_stat() -> Option<Stat> {
    let text = fs::read_to_string("/proc/self/stat").ok()?;
    // The second field is the program's name in parentheses and may hold anything.
    let (_, rest) = text.rsplit_once(')')?;
    let fields: Vec<f64> = rest
        .split_whitespace()
        .skip(1)
        .map(|field| field.parse().unwrap_or(0.0))
        .collect();
    // `fields[0]` is field 4 of proc(5).
    Some(Stat {
        cpu_seconds: (fields.get(10)? + fields.get(11)?) / TICKS_PER_SECOND,
        start_ticks: *fields.get(18)?,
        virtual_bytes: *fields.get(19)?,
        resident_pages: *fields.get(20)?,
    })
}

fn start_seconds(stat: &Stat) -> Option<f64> {
    let text = fs::read_to_string("/proc/stat").ok()?;
    let boot: f64 = text
        .lines()
        .find_map(|line| line.strip_prefix("btime "))?
        .trim()
        .parse()
        .ok()?;
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .ok()?
        .as_secs_f64();
    Some((boot + stat.start_ticks / TICKS_PER_SECOND).min(now))
}

/// Bytes in and out over IP, of the process's network namespace.
fn read_network() -> Option<(f64, f64)> {
    let text = fs::read_to_string("/proc/self/net/netstat").ok()?;
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("IpExt: "));
    let (names, values) = (lines.next()?, lines.next()?);
    let of = |wanted: &str| {
        let at = names.split_whitespace().position(|name| name == wanted)?;
        values.split_whitespace().nth(at)?.parse().ok()
    };
    Some((of("InOctets")?, of("OutOctets")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_answers() {
        let mut text = Text::default();
        write(&mut text);
        let value = |name: &str| -> f64 {
            let line = text
                .0
                .lines()
                .find(|line| line.starts_with(&format!("{name} ")));
            line.unwrap().rsplit(' ').next().unwrap().parse().unwrap()
        };
        assert!(value("os_fd_used") >= 3.0);
        assert!(value("process_resident_memory_bytes") > 1e5);
        assert!(value("process_start_time_seconds") > 1.7e9);
        assert!(value("process_cpu_seconds_total") >= 0.0);
        assert_eq!(value("process_open_fds"), value("os_fd_used"));
    }
}
