//! Conversations with a server, held by etcd's etcdctl and by ours: the answers must be equal.
//!
//! `ETCD_REFERENCE` and `ETCDCTL_REFERENCE` name Go's server and etcdctl (3.7), and
//! `ETCDCTL_TABLE_REFERENCE` an etcdctl of 3.6, which draws tables in ASCII. Our etcdctl
//! talks to the server `ETCD_BIN` if set, else to the reference. `ETCDCTL_SCENARIO` chooses
//! scenarios whose name contains it. With these variables set:
//!
//! `cargo test -p etcdctl --features live --test conversation -- --nocapture`
//!
//! A scenario is a text file in `scenarios/`. Its lines:
//!
//! ```text
//! # a remark
//! $ put a "1 2"          a command; NAME=value before it is its environment
//! $ all: get a           the command in every format
//! < text                 a line of the command's standard input
//! = LEASE 1              keeps word 1 of the command's output as $LEASE (from 0)
//! ? "a":1                the command again and again until it prints this
//! ~ 3                    the command goes on: interrupt it when it has printed 3 lines
//! ```
//!
//! `$DIR` is a directory of the run, `$EP` the endpoint.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod backup;
mod cluster;
mod normal;
mod scenario;

use std::path::{Path, PathBuf};

use scenario::{Said, Scenario, Tools};

fn variable(name: &str) -> PathBuf {
    let value = std::env::var_os(name);
    value
        .unwrap_or_else(|| panic!("{name} names no binary"))
        .into()
}

/// Our etcdctl, and the server that it talks to.
fn ours() -> Tools {
    let server = std::env::var_os("ETCD_BIN").map(PathBuf::from);
    Tools {
        server: server.unwrap_or_else(|| variable("ETCD_REFERENCE")),
        etcdctl: PathBuf::from(env!("CARGO_BIN_EXE_etcdctl")),
        table: None,
    }
}

/// The differences between two runs of a scenario.
fn differences(scenario: &Scenario, reference: &[Said], ours: &[Said]) -> Vec<String> {
    let mut found = Vec::new();
    for (theirs, ours) in reference.iter().zip(ours) {
        let (left, right) = (normal::normal(theirs), normal::normal(ours));
        if left != right {
            found.push(format!(
                "{}: $ {}\n--- reference\n{left}\n+++ ours\n{right}",
                scenario.name, theirs.command
            ));
        }
    }
    found
}

fn scenarios() -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios");
    let chosen = std::env::var("ETCDCTL_SCENARIO").unwrap_or_default();
    let mut files: Vec<_> = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.to_string_lossy().contains(&chosen))
        .collect();
    files.sort();
    files
}

#[test]
fn both_tools_hear_and_say_the_same() {
    let etcdctl = variable("ETCDCTL_REFERENCE");
    let table = variable("ETCDCTL_TABLE_REFERENCE");
    let reference = Tools {
        server: variable("ETCD_REFERENCE"),
        etcdctl,
        table: Some(table),
    };
    let ours = ours();
    let mut found = Vec::new();
    let mut commands = 0;
    for path in scenarios() {
        let scenario = Scenario::read(&path);
        // The same ports for both, so that the IDs that follow from URLs are equal.
        let ports = cluster::free_ports();
        let theirs = scenario.run(&reference, ports);
        let answers = scenario.run(&ours, ports);
        let differences = differences(&scenario, &theirs, &answers);
        println!(
            "{}: {} commands, {} differences",
            scenario.name,
            answers.len(),
            differences.len()
        );
        commands += answers.len();
        found.extend(differences);
    }
    println!("{commands} commands compared");
    assert!(
        found.is_empty(),
        "{}\n{} differences",
        found.join("\n\n"),
        found.len()
    );
}
