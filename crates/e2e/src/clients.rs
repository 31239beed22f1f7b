//! Conversations with a server by clients that were written by others.
//!
//! Each client is installed by the package client of its language, in a pinned version, into a
//! work directory outside the repository, and stays there for the next run. Its program, below
//! `clients/` at the repository's root, talks to a member of its own that was started for it,
//! checks every answer itself, and prints `ok <step>` for each step.

mod install;
mod talk;

use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::Error;

pub(crate) use install::go_program;
pub use install::{CLIENTS, Client};
pub(crate) use talk::Program;

/// What a run needs.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The server under test, ours or Go's.
    pub binary: PathBuf,
    /// Whose gRPC proxy stands between, if one does.
    pub proxy: Option<PathBuf>,
    /// Parts of the names of the clients that take part; all of them when empty.
    pub only: Vec<String>,
    /// Parts of the names of those that do not.
    pub skip: Vec<String>,
    /// Where clients are installed.
    pub work: PathBuf,
    /// Whether clients are only installed.
    pub install_only: bool,
}

impl Plan {
    fn takes(&self, name: &str) -> bool {
        let named = |parts: &[String]| parts.iter().any(|part| name.contains(part));
        (self.only.is_empty() || named(&self.only)) && !named(&self.skip)
    }
}

/// How one client fared.
struct Row {
    name: &'static str,
    steps: usize,
    seconds: f64,
    result: Result<(), Error>,
}

/// Installs, lets each client talk, and prints a table.
///
/// # Errors
/// A client that could not be installed or found something wrong, or no client of that name.
pub fn run(plan: &Plan) -> Result<(), Error> {
    let chosen: Vec<&Client> = CLIENTS
        .iter()
        .filter(|client| plan.takes(client.name))
        .collect();
    if chosen.is_empty() {
        return Err(Error("nothing has such a name".into()));
    }
    std::fs::create_dir_all(&plan.work)?;
    let work = std::fs::canonicalize(&plan.work)?;
    let rows: Vec<Row> = chosen
        .into_iter()
        .map(|client| run_one(plan, &work, client))
        .collect();
    println!("\n{:<14} {:>5} {:>7}  result", "client", "steps", "seconds");
    for row in &rows {
        let result = match &row.result {
            Ok(()) if plan.install_only => "installed".to_owned(),
            Ok(()) => "passed".to_owned(),
            Err(error) => error.to_string(),
        };
        println!(
            "{:<14} {:>5} {:>7.1}  {result}",
            row.name, row.steps, row.seconds
        );
    }
    let failed = rows.iter().filter(|row| row.result.is_err()).count();
    println!("{} passed, {failed} failed", rows.len() - failed);
    match failed {
        0 => Ok(()),
        count => Err(Error(format!("{count} of {} clients failed", rows.len()))),
    }
}

fn run_one(plan: &Plan, work: &Path, client: &Client) -> Row {
    println!("== {}: {}", client.name, client.what);
    let mut steps = 0;
    let begin = Instant::now();
    let result = install::install(client, work).and_then(|program| {
        if plan.install_only {
            return Ok(());
        }
        talk::run(plan, client, &program, &mut steps)
    });
    Row {
        name: client.name,
        steps,
        seconds: begin.elapsed().as_secs_f64(),
        result,
    }
}

/// The directory with the programs.
fn programs() -> PathBuf {
    let mut path = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    path.pop();
    path.pop();
    path.join("clients")
}
