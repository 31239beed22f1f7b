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

/// `os_fd_*` and `process_*`.
pub(super) fn write(text: &mut Text) {
    let mut gauge = |name: &str, help: &str, value: f64| {
        text.family(name, "gauge", help);
        text.sample(name, "", value);
    };
    let limit = fd_limit().map_or(f64::INFINITY, |limit| limit as f64);
    gauge(
        "os_fd_limit",
        "File descriptors that the process may have open.",
        limit,
    );
    let open = open_fds();
    if let Some(open) = open {
        gauge(
            "os_fd_used",
            "File descriptors that the process has open.",
            open as f64,
        );
    }
    let stat = read_stat();
    if let Some(stat) = &stat {
        let name = "process_cpu_seconds_total";
        text.family(name, "counter", "Processor time used, user and system.");
        text.sample(name, "", stat.cpu_seconds);
    }
    let mut gauge = |name: &str, help: &str, value: f64| {
        text.family(name, "gauge", help);
        text.sample(name, "", value);
    };
    gauge(
        "process_max_fds",
        "File descriptors that the process may have open.",
        limit,
    );
    if let Some((received, sent)) = read_network() {
        for (name, help, value) in [
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
        ] {
            text.family(name, "counter", help);
            text.sample(name, "", value);
        }
    }
    let mut gauge = |name: &str, help: &str, value: f64| {
        text.family(name, "gauge", help);
        text.sample(name, "", value);
    };
    if let Some(open) = open {
        gauge(
            "process_open_fds",
            "File descriptors that the process has open.",
            open as f64,
        );
    }
    let Some(stat) = stat else { return };
    let resident = stat.resident_pages * rustix::param::page_size() as f64;
    gauge(
        "process_resident_memory_bytes",
        "Memory in use, in bytes.",
        resident,
    );
    if let Some(start) = start_seconds(&stat) {
        gauge(
            "process_start_time_seconds",
            "When the process began, Unix time.",
            start,
        );
    }
    gauge(
        "process_virtual_memory_bytes",
        "Address space in use, in bytes.",
        stat.virtual_bytes,
    );
    let limit = rustix::process::getrlimit(rustix::process::Resource::As).current;
    // Go's client prints the kernel's "unlimited" as the number that it is.
    let limit = limit.unwrap_or(u64::MAX) as f64;
    gauge(
        "process_virtual_memory_max_bytes",
        "Address space that may be used, in bytes.",
        limit,
    );
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
