//! A conversation with an etcd server through the crate etcd-client.
//!
//! Usage: conversation <URL>. Prints one line for each step and ends with the first failure.

mod concurrency;
mod kv;
mod lease;
mod maintenance;
mod watch;

use std::fmt::Debug;
use std::process::ExitCode;
use std::time::Duration;

use etcd_client::{Client, ConnectOptions, Error};

/// The longest that any one answer may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// What was found wrong.
type Outcome = Result<(), Box<dyn std::error::Error>>;

/// Checks that `came` is what must come.
fn same<T: PartialEq + Debug>(what: &str, came: T, wanted: T) -> Outcome {
    match came == wanted {
        true => Ok(()),
        false => Err(format!("{what} is {came:?}, not {wanted:?}").into()),
    }
}

/// Checks that a call was refused with exactly this message.
fn refused<T: Debug>(answer: Result<T, Error>, message: &str) -> Outcome {
    match answer {
        Err(Error::GRpcStatus(status)) => same("the message", status.message(), message),
        other => Err(format!("{message:?} was expected, not {other:?}").into()),
    }
}

/// Prints the line of a step, or why it failed. Returns whether it passed.
async fn step(name: &str, run: impl Future<Output = Outcome>) -> bool {
    let outcome = match tokio::time::timeout(PATIENCE, run).await {
        Ok(outcome) => outcome,
        Err(_) => Err("no answer came".into()),
    };
    match &outcome {
        Ok(()) => println!("ok {name}"),
        Err(error) => println!("FAILED {name}: {error}"),
    }
    outcome.is_ok()
}

async fn all(client: &Client, url: &str) -> bool {
    step("put, get, delete", kv::basics(client.clone())).await
        && step("what is refused", kv::refusals(client.clone())).await
        && step("ranges", kv::ranges(client.clone())).await
        && step("a range as a stream", kv::range_stream(client.clone())).await
        && step("transactions", kv::transactions(client.clone())).await
        && step("compaction", kv::compaction(client.clone())).await
        && step("watch a prefix", watch::prefix(client.clone())).await
        && step("watch with filters", watch::filters(client.clone())).await
        && step(
            "several watches on a stream",
            watch::several(client.clone()),
        )
        .await
        && step("watch progress", watch::progress(client.clone())).await
        && step("watch what was compacted", watch::compacted(client.clone())).await
        && step("leases", lease::basics(client.clone())).await
        && step("lease expiry and keep-alive", lease::expiry(client.clone())).await
        && step("lock with two holders", concurrency::lock(client.clone())).await
        && step(
            "election with two candidates",
            concurrency::elect(client.clone()),
        )
        .await
        && step("namespace", concurrency::namespace(client.clone())).await
        && step(
            "status and members",
            maintenance::status(client.clone(), url),
        )
        .await
        && step("hashes", maintenance::hashes(client.clone())).await
        && step("alarms", maintenance::alarms(client.clone())).await
        && step("defragment", maintenance::defragment(client.clone())).await
        && step("snapshot", maintenance::snapshot(client.clone())).await
        && step(
            "unknown members",
            maintenance::unknown_members(client.clone()),
        )
        .await
}

#[tokio::main]
async fn main() -> ExitCode {
    let Some(url) = std::env::args().nth(1) else {
        eprintln!("usage: conversation <URL>");
        return ExitCode::from(2);
    };
    let options = ConnectOptions::new().with_connect_timeout(PATIENCE);
    let passed = match Client::connect([&url], Some(options)).await {
        Ok(client) => all(&client, &url).await,
        Err(error) => {
            println!("FAILED connect: {error}");
            false
        }
    };
    match passed {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}
