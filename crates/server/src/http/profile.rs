//! `/debug/pprof/…` with `--enable-pprof`: where the process spends its time and memory, by its
//! threads, whose names say what they do. Stacks are for `perf`, which needs nothing from here.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::time::Duration;

use http::StatusCode;

use super::{Answer, Request, Routes, only_get, plain, query};

/// The time that a profile takes unless the request says so, as in Go.
const SECONDS: u64 = 30;
/// Longest time that a profile may take.
const SECONDS_MAX: u64 = 300;
/// Ticks of /proc/…/stat; Linux has told user space 100 since 2.6.
const TICKS_PER_SECOND: f64 = 100.0;

/// What the index shows.
const INDEX: &str = "/debug/pprof/\n\n\
    cmdline\tthe words that the process was started with\n\
    profile\tprocessor time by thread over ?seconds=30\n\
    heap\tmemory by kind, as the kernel counts it\n\
    goroutine\tthe same as threadcreate\n\
    symbol\thow many symbols can be looked up: none\n\
    threadcreate\tthreads with their processor time so far\n";

/// Processor time of a thread in ticks.
#[derive(Clone, Copy, Default)]
struct Time {
    user: u64,
    system: u64,
}

impl Time {
    fn total(self) -> u64 {
        self.user + self.system
    }
}

/// Every thread by number, with its name.
type Threads = BTreeMap<u64, (String, Time)>;

impl Routes {
    /// The answer for a path below `/debug/pprof/`; `None` for one that is none.
    pub(super) async fn profile(&self, request: &Request, path: &str) -> Option<Answer> {
        let what = path.strip_prefix("/debug/pprof")?;
        if !self.profiles {
            return None;
        }
        if let Some(refusal) = only_get(request) {
            return Some(refusal);
        }
        let seconds = query(request, "seconds").next();
        let text = page(what, seconds.as_deref(), &self.command_line).await?;
        Some(plain(StatusCode::OK, text))
    }
}

/// What stands behind `/debug/pprof` in a path; `None` for what is not there. `words` are those
/// that the process was started with.
pub(crate) async fn page(what: &str, seconds: Option<&str>, words: &[String]) -> Option<String> {
    Some(match what {
        "" | "/" => INDEX.to_owned(),
        "/symbol" => "num_symbols: 0\n".to_owned(),
        "/cmdline" => words.join("\0"),
        "/heap" => fs::read_to_string("/proc/self/smaps_rollup").unwrap_or_default(),
        // What goroutines are to Go, threads are here.
        "/goroutine" | "/threadcreate" => table(&threads(), &Threads::new(), None),
        "/profile" => {
            let seconds = seconds.and_then(|text| text.parse().ok());
            let seconds = seconds.unwrap_or(SECONDS).clamp(1, SECONDS_MAX);
            let before = threads();
            tokio::time::sleep(Duration::from_secs(seconds)).await;
            table(&threads(), &before, Some(seconds))
        }
        _ => return None,
    })
}

fn threads() -> Threads {
    let Ok(tasks) = fs::read_dir("/proc/self/task") else {
        return Threads::new();
    };
    let each = tasks.filter_map(|task| {
        let task = task.ok()?;
        let id = task.file_name().to_str()?.parse().ok()?;
        Some((
            id,
            parse(&fs::read_to_string(task.path().join("stat")).ok()?)?,
        ))
    });
    each.collect()
}

/// Name and time from a line of proc(5); the name stands in parentheses and may hold anything.
fn parse(stat: &str) -> Option<(String, Time)> {
    let (head, rest) = stat.rsplit_once(')')?;
    let (_, name) = head.split_once('(')?;
    // The first of these is the third field.
    let mut fields = rest.split_whitespace().skip(11);
    let mut next = || fields.next()?.parse().ok();
    let time = Time {
        user: next()?,
        system: next()?,
    };
    Some((name.to_owned(), time))
}

/// The busiest threads first: seconds of the processor, and what part of the time that is.
fn table(now: &Threads, before: &Threads, seconds: Option<u64>) -> String {
    let mut rows: Vec<(&str, u64, Time)> = Vec::with_capacity(now.len());
    for (id, (name, time)) in now {
        let earlier = before.get(id).map_or_else(Time::default, |(_, time)| *time);
        let spent = Time {
            user: time.user.saturating_sub(earlier.user),
            system: time.system.saturating_sub(earlier.system),
        };
        rows.push((name, *id, spent));
    }
    rows.sort_by_key(|(_, id, spent)| (std::cmp::Reverse(spent.total()), *id));
    let mut text = String::from("thread\tid\tuser s\tsystem s\tshare\n");
    for (name, id, spent) in rows {
        let in_seconds = |ticks: u64| ticks as f64 / TICKS_PER_SECOND;
        let share = seconds.map_or_else(String::new, |seconds| {
            format!(
                "{:.1} %",
                in_seconds(spent.total()) * 100.0 / seconds as f64
            )
        });
        let (user, system) = (in_seconds(spent.user), in_seconds(spent.system));
        writeln!(text, "{name}\t{id}\t{user:.2}\t{system:.2}\t{share}")
            .expect("strings take everything");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_threads() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 1 2 3 4 150 25 0 0 20 0 9 0 1 2 3";
        let (name, time) = parse(stat).unwrap();
        assert_eq!((&*name, time.user, time.system), ("a) b", 150, 25));
        assert!(parse("7 a").is_none() && parse("").is_none());
        let now = Threads::from([
            (7, (name, time)),
            (
                8,
                (
                    "core".to_owned(),
                    Time {
                        user: 500,
                        system: 0,
                    },
                ),
            ),
        ]);
        let before = Threads::from([(
            8,
            (
                "core".to_owned(),
                Time {
                    user: 300,
                    system: 0,
                },
            ),
        )]);
        let want = "thread\tid\tuser s\tsystem s\tshare\n\
                    core\t8\t2.00\t0.00\t20.0 %\n\
                    a) b\t7\t1.50\t0.25\t17.5 %\n";
        assert_eq!(table(&now, &before, Some(10)), want);
        assert!(!threads().is_empty());
    }
}
