//! `sim --seeds N [--from S]` runs seeds; `sim --seed S [--trace]` repeats one.

use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use sim::run::{Stats, run};
use sim::{Broken, Trace};

struct Args {
    seeds: u64,
    from: u64,
    seed: Option<u64>,
    trace: bool,
    threads: u64,
    /// Succeed when a seed fails: for bugs that were planted.
    expect_failure: bool,
}

fn main() -> ExitCode {
    let args = match parse(std::env::args().skip(1)) {
        Ok(args) => args,
        Err(text) => {
            eprintln!("sim: {text}");
            eprintln!("usage: sim --seeds N [--from S] [--threads T] [--expect-failure]");
            eprintln!("       sim --seed S [--trace]");
            return ExitCode::from(2);
        }
    };
    match args.seed {
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
            "--expect-failure" => args.expect_failure = true,
            _ => return Err(format!("unknown argument {word:?}")),
        }
    }
    Ok(args)
}

fn one(seed: u64, trace: bool) -> ExitCode {
    let mut trace = if trace { Trace::on() } else { Trace::off() };
    let outcome = run(seed, &mut trace);
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
            let outcome = run(seed, &mut Trace::off());
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
