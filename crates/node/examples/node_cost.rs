//! What the node itself costs per entry: `cargo run --release -p node --example node_cost`.
//!
//! One voter, batches of a given size, a disk and a state machine that take no time.

use std::sync::Arc;
use std::time::Instant;

use api::ids::MemberId;
use node::ids::RequestIds;
use node::machine::{Config, Input, Node, Output, Proposal, Token};
use node::raft::{self, Restored};
use storage::log::{ConfState, EntryKind, LogIndex};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    for batch in [1, 10, 100, 1000] {
        let entries = 1_000_000;
        let mut node = new_node()?;
        drive(&mut node, Input::Start);
        let begin = Instant::now();
        for _ in 0..entries / batch {
            let proposals = (0..batch).map(|_| proposal(&node)).collect();
            drive(&mut node, Input::Propose(proposals));
        }
        let nanos = begin.elapsed().as_nanos() / entries as u128;
        println!("batches of {batch}: {nanos} ns per entry");
    }
    Ok(())
}

fn new_node() -> Result<Node, raft::RestoreError> {
    let id = MemberId(7);
    let config = Config {
        raft: raft::Config {
            id,
            election_ticks: 10,
            pre_vote: true,
            seed: 1,
        },
        tick_ms: 100,
        snapshot_count: 10_000,
        catch_up_entries: 5000,
        name: "default".into(),
        client_urls: Vec::new(),
        version: "3.7.0".into(),
        cluster_version: Some("3.7.0".into()),
        snapshot_index: LogIndex(0),
        state_index: LogIndex(0),
        request_ids: Arc::new(RequestIds::new(id, 0)),
    };
    let conf = ConfState {
        voters: vec![id.0],
        ..Default::default()
    };
    Node::new(
        config,
        &Restored {
            conf,
            ..Default::default()
        },
    )
}

fn proposal(node: &Node) -> Proposal {
    let id = node.request_ids().next();
    let mut data = vec![0; 300];
    data[..8].copy_from_slice(&id.0.to_be_bytes());
    Proposal {
        id,
        kind: EntryKind::Normal,
        data: data.into(),
        token: Token(id.0),
    }
}

/// Carries everything out until nothing moves.
fn drive(node: &mut Node, input: Input) {
    let mut outputs = Vec::new();
    node.handle(input, &mut outputs);
    while !outputs.is_empty() {
        let mut answers = Vec::new();
        for output in outputs.drain(..) {
            match output {
                Output::Persist(batch) => answers.push(Input::Persisted {
                    number: batch.number,
                }),
                Output::Apply(entries) => {
                    for entry in &entries {
                        if let Some(bytes) = entry.data.first_chunk::<8>() {
                            node.complete(api::ids::RequestId(u64::from_be_bytes(*bytes)));
                        }
                    }
                    if let Some(last) = entries.last() {
                        answers.push(Input::Applied { index: last.index });
                    }
                }
                Output::TakeSnapshot(meta) => {
                    answers.push(Input::SnapshotTaken { index: meta.index });
                }
                _ => {}
            }
        }
        for answer in answers {
            node.handle(answer, &mut outputs);
        }
    }
}
