//! `sim --seeds N [--from S]` runs seeds; `sim --seed S [--trace]` repeats one; `sim --planted`
//! builds itself with each bug that can be planted and shows that some seed finds it.

use std::cell::Cell;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use sim::run::Stats;
use sim::{Broken, Trace, cluster};

struct Args {
    seeds: u64,
    from: u64,
    seed: Option<u64>,
    trace: bool,
    threads: u64,
    /// Succeed when a seed fails: for bugs that were planted.
    expect_failure: bool,
    planted: bool,
}

/// Features of this crate, each a bug that was once somebody's, and whether this build has it.
const PLANTED: [(&str, bool); 5] = [
    ("plant-early-ack", cfg!(feature = "plant-early-ack")),
    (
        "plant-unconfirmed-read",
        cfg!(feature = "plant-unconfirmed-read"),
    ),
    (
        "plant-split-applied-index",
        cfg!(feature = "plant-split-applied-index"),
    ),
    (
        "plant-snapshot-before-database",
        cfg!(feature = "plant-snapshot-before-database"),
    ),
    ("plant-trusted-cache", cfg!(feature = "plant-trusted-cache")),
];

thread_local! {
    /// The seed that a thread is at, for panics.
    static SEED: Cell<u64> = const { Cell::new(0) };
}

fn main() -> ExitCode {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        println!("seed {} PANICS", SEED.get());
        report(info);
    }));
    let args = match parse(std::env::args().skip(1)) {
        Ok(args) => args,
        Err(text) => {
            eprintln!("sim: {text}");
            eprintln!("usage: sim --seeds N [--from S] [--threads T] [--expect-failure]");
            eprintln!("       sim --seed S [--trace]");
            eprintln!("       sim --planted");
            return ExitCode::from(2);
        }
    };
    // `--planted` leaves such a build behind, and its failures are nobody's.
    for (feature, _) in PLANTED.iter().filter(|(_, is_in)| *is_in) {
        println!("built with a planted bug: {feature}");
    }
    match args.seed {
        _ if args.planted => planted(),
        Some(seed) => one(seed, args.trace),
        None => many(&args),
    }
}

fn parse(mut words: impl Iterator<Item = String>) -> Result<Args, String> {
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get() as u64);
    let mut args = Args {
        seeds: 500,
        from: 0,
        seed: None,
        trace: false,
        threads,
        expect_failure: false,
        planted: false,
    };
    while let Some(word) = words.next() {
        let mut number = || {
            let word = words.next().ok_or("a number is missing")?;
            word.parse::<u64>()
                .map_err(|_| format!("{word:?} is no number"))
        };
        match word.as_str() {
            "--seeds" => args.seeds = number()?,
            "--from" => args.from = number()?,
            "--threads" => args.threads = number()?.max(1),
            "--seed" => args.seed = Some(number()?),
            "--trace" => args.trace = true,
            "--planted" => args.planted = true,
            "--expect-failure" => args.expect_failure = true,
            _ => return Err(format!("unknown argument {word:?}")),
        }
    }
    Ok(args)
}

/// Three seeds of four are a cluster, the others the lives of one member.
fn play(seed: u64, trace: &mut Trace) -> Result<Stats, Broken> {
    match seed % 4 {
        0 => sim::run::run(seed, trace),
        _ => cluster::run(seed, trace),
    }
}

fn one(seed: u64, trace: bool) -> ExitCode {
    let mut trace = if trace { Trace::on() } else { Trace::off() };
    SEED.set(seed);
    let outcome = play(seed, &mut trace);
    for line in trace.lines() {
        println!("{line}");
    }
    match outcome {
        Ok(stats) => {
            println!("seed {seed}: {stats:?}");
            ExitCode::SUCCESS
        }
        Err(Broken(text)) => {
            println!("seed {seed} FAILS: {text}");
            ExitCode::FAILURE
        }
    }
}

fn many(args: &Args) -> ExitCode {
    let begin = Instant::now();
    let next = AtomicU64::new(args.from);
    let end = args.from + args.seeds;
    let found = AtomicBool::new(false);
    let total = Mutex::new((Stats::default(), 0u64, Vec::new()));
    let work = || {
        while !(found.load(Ordering::Relaxed) && args.expect_failure) {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= end {
                return;
            }
            SEED.set(seed);
            let outcome = play(seed, &mut Trace::off());
            let mut total = total.lock().unwrap_or_else(PoisonError::into_inner);
            total.1 += 1;
            match outcome {
                Ok(stats) => total.0.add(&stats),
                Err(Broken(text)) => {
                    println!("seed {seed} FAILS: {text}");
                    total.2.push(seed);
                    found.store(true, Ordering::Relaxed);
                }
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..args.threads {
            scope.spawn(work);
        }
    });
    let total = total.into_inner().unwrap_or_else(PoisonError::into_inner);
    let (stats, seeds, failed) = total;
    println!(
        "{seeds} seeds in {:.1} s: {stats:?}",
        begin.elapsed().as_secs_f64()
    );
    if failed.is_empty() != args.expect_failure {
        return ExitCode::SUCCESS;
    }
    if args.expect_failure {
        println!("no seed found the planted bug");
    } else {
        println!(
            "{} seeds failed; repeat one with --seed N --trace",
            failed.len()
        );
    }
    ExitCode::FAILURE
}

/// Every planted bug must be found; each needs a build of its own.
fn planted() -> ExitCode {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    for (feature, _) in PLANTED {
        println!("planted: {feature}");
        let words = [
            "run",
            "--quiet",
            "--release",
            "-p",
            "sim",
            "--features",
            feature,
            "--",
        ];
        let run = ["--seeds", "2000", "--expect-failure"];
        let status = std::process::Command::new(&cargo)
            .args(words)
            .args(run)
            .status();
        match status {
            Ok(status) if status.success() => {}
            Ok(_) => return ExitCode::FAILURE,
            Err(error) => {
                eprintln!("sim: cannot run {cargo}: {error}");
                return ExitCode::FAILURE;
            }
        }
    }
    ExitCode::SUCCESS
}
