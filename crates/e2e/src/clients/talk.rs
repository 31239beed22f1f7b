//! One conversation: a member of its own, the client's program, its lines.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use super::{Client, Plan};
use crate::{Error, Member, Options, free_address, http, is_ours};

/// Longest conversation.
const LIMIT: Duration = Duration::from_secs(180);
/// Pause between looks at a condition.
const PAUSE: Duration = Duration::from_millis(20);

/// Ends the program by its process id when the conversation is over, however it ends.
pub(crate) struct Program(pub(crate) Child);

impl Drop for Program {
    fn drop(&mut self) {
        // Both fail only when it has already ended and been waited for.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What proxies do not have, by the Go client's steps: streams of ranges.
const NOT_PROXIED: &[&str] = &["range stream"];
/// What etcd's own does not have either: requests for progress are lost, and a lease that was
/// revoked is asked for again and again.
const NOT_PROXIED_BY_GO: &[&str] = &["progress on request", "lease: revoke removes its keys"];

/// Starts a member, runs the program with its URL, or that of a proxy before it, and counts the
/// steps in `steps`.
///
/// # Errors
/// The step that failed, a program that ended badly or said nothing for too long.
pub(super) fn run(
    plan: &Plan,
    client: &Client,
    program: &[PathBuf],
    steps: &mut usize,
) -> Result<(), Error> {
    let options = Options {
        binary: Some(plan.binary.clone()),
        // Progress is told every second, so that clients can wait for it.
        flags: vec!["--watch-progress-notify-interval=1s".into()],
        ..Options::default()
    };
    let member = Member::start(options)?;
    let outcome = match &plan.proxy {
        None => talk(program, member.address(), &[], steps),
        Some(binary) => {
            let address = free_address()?;
            let _proxy = proxy(binary, address, member.address())?;
            let mut left_out: Vec<&str> = Vec::new();
            if client.name == "go" {
                left_out.extend(NOT_PROXIED);
                if !is_ours(binary)? {
                    left_out.extend(NOT_PROXIED_BY_GO);
                }
            }
            talk(program, address, &left_out, steps)
        }
    };
    match outcome {
        Ok(()) => Ok(()),
        Err(error) => {
            eprint!("{}", member.log());
            Err(error)
        }
    }
}

/// A proxy before a member, once it is healthy.
fn proxy(binary: &Path, address: SocketAddr, member: SocketAddr) -> Result<Program, Error> {
    let child = Command::new(binary)
        .args(["grpc-proxy", "start"])
        .arg(format!("--listen-addr={address}"))
        .arg(format!("--advertise-client-url=http://{address}"))
        .arg(format!("--endpoints={member}"))
        // It is for the member to refuse what is too large.
        .arg("--max-send-bytes=4194304")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let mut program = Program(child);
    let end = Instant::now() + LIMIT;
    let is_healthy = || http::get(address, "/health").is_ok_and(|answer| answer.status == 200);
    while !is_healthy() {
        if let Some(status) = program.0.try_wait()? {
            return Err(Error(format!("the proxy ended with {status}")));
        }
        if Instant::now() > end {
            return Err(Error("the proxy did not become healthy".into()));
        }
        std::thread::sleep(PAUSE);
    }
    Ok(program)
}

fn talk(
    words: &[PathBuf],
    address: SocketAddr,
    left_out: &[&str],
    steps: &mut usize,
) -> Result<(), Error> {
    let (first, rest) = words.split_first().expect("a program has a name");
    let child = Command::new(first)
        .args(rest)
        .arg(format!("http://{address}"))
        .args(left_out)
        // The repository stays as it is.
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| Error(format!("{}: {error}", first.display())))?;
    let mut program = Program(child);
    let output = program.0.stdout.take().expect("standard output is a pipe");
    let (sender, lines) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(output).lines() {
            // Nobody listens after a failure.
            let Ok(line) = line else { return };
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    let end = Instant::now() + LIMIT;
    let mut last = String::from("its start");
    let mut failed = None;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let line = match lines.recv_timeout(left) {
            Ok(line) => line,
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {
                return Err(Error(format!("silent for too long after {last}")));
            }
        };
        println!("{line}");
        if let Some(step) = line.strip_prefix("ok ") {
            *steps += 1;
            last = step.to_owned();
        } else if line.starts_with("FAILED ") {
            failed = Some(line);
        }
    }
    let status = program.0.wait()?;
    match failed {
        Some(line) => Err(Error(line)),
        None if !status.success() => Err(Error(format!("{status} after {last}"))),
        None if *steps == 0 => Err(Error("it took no step".into())),
        None => Ok(()),
    }
}
