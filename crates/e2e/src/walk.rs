//! The whole interface, line by line: what etcd 3.7 has, by name, against running programs.
//!
//! The tables in `spec/` are facts of etcd 3.7: methods, routes, flags, variables, keys of the
//! configuration file, commands, metrics and errors. Each line is tried on the programs that
//! [`Plan`] names; what they lack is [`Missing`], unless `docs/compatibility.md` declares it with
//! a reason. What is declared and there after all is reported too, so that the page stays true.
//! Go's programs lack nothing.

mod calls;
mod commands;
mod declared;
mod errors;
mod flags;
mod metrics;
mod program;

use std::fmt;
use std::path::PathBuf;

use crate::Error;
use declared::Declared;

/// The programs to try, and the page that says what they lack.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The server.
    pub etcd: PathBuf,
    /// The command line of a running cluster.
    pub etcdctl: PathBuf,
    /// The command line of files.
    pub etcdutl: PathBuf,
    /// `docs/compatibility.md`; without it nothing may be missing.
    pub declared: Option<PathBuf>,
}

/// Something of the interface that a program does not have, or has otherwise.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Missing {
    /// What kind of thing: `method`, `route`, `flag` and so on.
    pub kind: &'static str,
    /// Its name, as the page would declare it.
    pub name: String,
    /// What was seen instead.
    pub why: String,
}

impl fmt::Display for Missing {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} {}: {}", self.kind, self.name, self.why)
    }
}

/// What one walk over a table found.
#[derive(Debug, Default)]
struct Found {
    tried: usize,
    missing: Vec<Missing>,
}

impl Found {
    /// Counts one line of a table and keeps what was wrong with it.
    fn line(&mut self, kind: &'static str, name: &str, outcome: Result<(), String>) {
        self.tried += 1;
        if let Err(why) = outcome {
            self.missing.push(Missing {
                kind,
                name: name.to_owned(),
                why,
            });
        }
    }
}

/// Lines of a table, without remarks.
fn lines(table: &'static str) -> impl Iterator<Item = &'static str> {
    table
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
}

/// Walks every table and prints what it finds.
///
/// # Errors
/// Something is missing that is not declared, something is declared that is not missing, or a
/// program does not start.
pub async fn run(plan: &Plan) -> Result<(), Error> {
    let declared = match &plan.declared {
        Some(path) => Declared::read(path)?,
        None => Declared::default(),
    };
    let mut missing = Vec::new();
    let mut note = |area: &str, found: Found| {
        println!(
            "{area}: {} lines, {} missing",
            found.tried,
            found.missing.len()
        );
        missing.extend(found.missing);
    };
    note("commands", commands::walk(plan)?);
    note("flags", flags::walk(plan)?);
    note("calls", calls::walk(plan).await?);
    note("errors", errors::walk(plan).await?);
    note("metrics", metrics::walk(plan).await?);
    missing.sort();
    missing.dedup();
    judge(&missing, &declared)
}

fn judge(missing: &[Missing], declared: &Declared) -> Result<(), Error> {
    let mut wrong = 0;
    for one in missing {
        match declared.reason(one) {
            Some(reason) => println!("declared {one} ({reason})"),
            None => {
                wrong += 1;
                println!("MISSING {one}");
            }
        }
    }
    for row in declared.idle(missing) {
        wrong += 1;
        println!("STALE {row}: declared as absent, but nothing of it is missing");
    }
    match wrong {
        0 => Ok(()),
        wrong => Err(Error(format!(
            "{wrong} differences from docs/compatibility.md"
        ))),
    }
}
