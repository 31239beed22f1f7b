//! Readers, the committer and the sweep beside apply, each on a thread of its own.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use super::*;

const ROUNDS: i64 = 60;
const KEYS: i64 = 400;

/// In round `n` every key gets the value `n`, in one revision: a reader that sees two values saw
/// a revision in pieces. The records are long enough for answers in several chunks.
fn round(rig: &mut Rig, n: i64) -> Vec<Entry> {
    let op = |key: i64| {
        let put = put_request(&format!("{key:04}"), &format!("{n:0300}"));
        pb::RequestOp {
            request: Some(Request::RequestPut(put)),
        }
    };
    let success = (0..KEYS).map(op).collect();
    let txn = Some(pb::TxnRequest {
        success,
        ..Default::default()
    });
    let mut entries = vec![rig.entry(pb::InternalRaftRequest {
        txn,
        ..Default::default()
    })];
    if n % 2 == 1 {
        let compaction = Some(pb::CompactionRequest {
            revision: n,
            physical: false,
        });
        entries.push(rig.entry(pb::InternalRaftRequest {
            compaction,
            ..Default::default()
        }));
    }
    entries
}

fn read(view: &View, back: i64) {
    let revision = if back == 0 {
        0
    } else {
        (view.revision() - back).max(1)
    };
    let request = pb::RangeRequest {
        key: "0".into(),
        range_end: vec![0].into(),
        revision,
        ..Default::default()
    };
    let mut answer = match view.range(&super::unasked(request)) {
        Ok(answer) => answer,
        Err(ReadError::Refused(Error::Compacted)) => return,
        Err(error) => panic!("{error}"),
    };
    let (mut out, len) = (Vec::new(), answer.encoded_len());
    while answer.write_chunk(&mut out, 8 << 10).unwrap() {}
    assert_eq!(out.len() as u64, len);
    let response = pb::RangeResponse::decode(&out[..]).unwrap();
    assert_eq!(response.count, response.kvs.len() as i64);
    assert!(
        response
            .kvs
            .windows(2)
            .all(|pair| pair[0].value == pair[1].value)
    );
    assert!(response.kvs.is_empty() || response.count == KEYS);
}

#[test]
fn nobody_sees_a_revision_in_pieces() {
    for budget in [0, 1 << 30] {
        let config = Config {
            value_budget: budget,
            ..Config::default()
        };
        let mut rig = Rig::open(tempfile::tempdir().unwrap(), config);
        let rounds: Vec<Entry> = (1..=ROUNDS).flat_map(|n| round(&mut rig, n)).collect();
        let Rig {
            mut machine,
            view,
            mut sweep,
            mut committer,
            dir: _dir,
            ..
        } = rig;
        let done = AtomicBool::new(false);
        let is_done = || done.load(Ordering::Acquire);
        thread::scope(|scope| {
            for back in [0, 0, 1, 3] {
                let view = view.clone();
                scope.spawn(move || {
                    while !is_done() {
                        read(&view, back);
                    }
                    read(&view, back);
                });
            }
            let hashed = view.clone();
            scope.spawn(move || {
                while !is_done() {
                    match hashed.hash_kv(0) {
                        Ok(_) | Err(ReadError::Refused(Error::Compacted)) => {}
                        Err(error) => panic!("{error}"),
                    }
                }
            });
            scope.spawn(move || {
                while !is_done() {
                    committer.commit().unwrap();
                }
            });
            scope.spawn(move || {
                while !is_done() {
                    sweep.step().unwrap();
                }
            });
            for entry in &rounds {
                machine.apply(entry).unwrap().outcome.unwrap();
                thread::yield_now();
            }
            done.store(true, Ordering::Release);
        });
        assert_eq!(view.revision(), ROUNDS + 1);
    }
}
