//! The machine over a real backend on the real file system.

use api::pb::etcdserverpb as pb;
use api::pb::etcdserverpb::request_op::Request;
use prost::Message;
use storage::backend::{Backend, Committer, Options};
use storage::fs::RealFs;
use storage::log::{Entry, EntryKind, LogIndex, Term};

use super::*;
mod install;
mod model;
mod threads;
use crate::sweep::{Step, Sweep};
use crate::view::View;

pub(crate) struct Rig {
    pub(crate) machine: Machine,
    pub(crate) view: View,
    pub(crate) sweep: Sweep,
    pub(crate) committer: Committer,
    pub(crate) index: u64,
    dir: tempfile::TempDir,
}

impl Rig {
    pub(crate) fn new() -> Rig {
        Rig::open(tempfile::tempdir().unwrap(), Config::default())
    }

    pub(crate) fn open(dir: tempfile::TempDir, config: Config) -> Rig {
        let path = dir.path().join("db");
        let Backend {
            writer,
            reader,
            committer,
            maintenance,
        } = Backend::open(Arc::new(RealFs), &path, Options::default()).unwrap();
        let opened = Machine::open(writer, reader, maintenance, config).unwrap();
        let index = opened.machine.applied().0.0;
        Rig {
            machine: opened.machine,
            view: opened.view,
            sweep: opened.sweep,
            committer,
            index,
            dir,
        }
    }

    /// Closes and opens again; what was not committed is lost when `commit` is false.
    pub(crate) fn reopen(mut self, commit: bool) -> Rig {
        if commit {
            self.committer.commit().unwrap();
        }
        let config = self.machine.shared.config.clone();
        let Rig {
            machine,
            view,
            sweep,
            committer,
            dir,
            ..
        } = self;
        drop((machine, view, sweep, committer));
        Rig::open(dir, config)
    }

    pub(crate) fn entry(&mut self, request: pb::InternalRaftRequest) -> Entry {
        self.index += 1;
        Entry {
            kind: EntryKind::Normal,
            term: Term(1),
            index: LogIndex(self.index),
            data: request.encode_to_vec().into(),
        }
    }

    pub(crate) fn apply(&mut self, request: pb::InternalRaftRequest) -> Result<Reply, Error> {
        let entry = self.entry(request);
        self.machine.apply(&entry).unwrap().outcome
    }

    pub(crate) fn put(&mut self, key: &str, value: &str) -> i64 {
        let put = put_request(key, value);
        let request = pb::InternalRaftRequest {
            put: Some(put),
            ..Default::default()
        };
        self.apply(request).unwrap().revision()
    }

    pub(crate) fn delete(&mut self, key: &str) -> i64 {
        let delete = pb::DeleteRangeRequest {
            key: key.to_string().into(),
            ..Default::default()
        };
        let request = pb::InternalRaftRequest {
            delete_range: Some(delete),
            ..Default::default()
        };
        self.apply(request).unwrap().revision()
    }

    pub(crate) fn compact(&mut self, revision: i64) -> Result<Reply, Error> {
        let compaction = pb::CompactionRequest {
            revision,
            physical: false,
        };
        let compaction = Some(compaction);
        self.apply(pb::InternalRaftRequest {
            compaction,
            ..Default::default()
        })
    }

    /// Runs the sweep until it has nothing to do.
    pub(crate) fn sweep(&mut self) {
        while self.sweep.step().unwrap() != Step::Idle {}
    }

    pub(crate) fn range(&self, request: &pb::RangeRequest) -> Result<pb::RangeResponse, Error> {
        match self.view.range(&unasked(request.clone())) {
            Ok(mut answer) => {
                let len = answer.encoded_len();
                let revision = answer.revision();
                let mut out = Vec::new();
                while answer.write_chunk(&mut out, 100).unwrap() {}
                assert_eq!(out.len() as u64, len);
                let mut response = pb::RangeResponse::decode(&out[..]).unwrap();
                response.header = Some(pb::ResponseHeader {
                    revision,
                    ..Default::default()
                });
                Ok(response)
            }
            Err(ReadError::Refused(error)) => Err(error),
            Err(ReadError::Broken(fatal)) => panic!("{fatal}"),
        }
    }
}

/// What anybody may do while authentication is off.
pub(crate) fn unasked<T: crate::Operation>(operation: T) -> Authorised<T> {
    Authorised::unasked(operation)
}

pub(crate) fn put_request(key: &str, value: &str) -> pb::PutRequest {
    let (key, value) = (key.to_string().into(), value.to_string().into());
    pb::PutRequest {
        key,
        value,
        ..Default::default()
    }
}

fn hash(rig: &Rig, revision: i64) -> Result<(u32, i64), Error> {
    match rig.view.hash_kv(revision) {
        Ok((hash, _)) => Ok((hash.hash, hash.compact_revision)),
        Err(ReadError::Refused(error)) => Err(error),
        Err(ReadError::Broken(fatal)) => panic!("{fatal}"),
    }
}

/// The table of hashes that every etcd release gives for the same five changes.
#[test]
fn hashes_equal_etcds() {
    let mut rig = Rig::new();
    assert_eq!(rig.put("foo", "bar"), 2);
    assert_eq!(rig.put("foo", "bar2"), 3);
    assert_eq!(rig.delete("foo"), 4);
    assert_eq!(rig.put("a", "b"), 5);
    assert_eq!(rig.put("foo", "new"), 6);
    let plain = [3305255506, 3581052765, 846839875, 754431853, 1401151001];
    for (revision, wanted) in (2..).zip(plain) {
        assert_eq!(hash(&rig, revision), Ok((wanted, -1)));
    }
    rig.compact(3).unwrap();
    rig.sweep();
    assert_eq!(hash(&rig, 2), Err(Error::Compacted));
    assert_eq!(hash(&rig, 3), Ok((3581052765, -1)));
    assert_eq!(hash(&rig, 4), Ok((3537877773, 3)));
    assert_eq!(hash(&rig, 6), Ok((993389179, 3)));
    rig.compact(4).unwrap();
    rig.sweep();
    assert_eq!(hash(&rig, 3), Ok((3581052765, -1)));
    assert_eq!(hash(&rig, 4), Ok((2490713407, 3)));
    assert_eq!(hash(&rig, 5), Ok((903430820, 4)));
    assert_eq!(hash(&rig, 6), Ok((3383095406, 4)));
    assert_eq!(hash(&rig, 0), Ok((3383095406, 4)));
    assert_eq!(hash(&rig, 7), Err(Error::FutureRev));
    // The stored hashes are not kept over a restart, everything else is.
    let rig = rig.reopen(true);
    assert_eq!(rig.view.revision(), 6);
    assert_eq!(hash(&rig, 3), Err(Error::Compacted));
    assert_eq!(hash(&rig, 5), Ok((903430820, 4)));
    assert_eq!(hash(&rig, 6), Ok((3383095406, 4)));
}

#[test]
fn a_put_is_read_back() {
    let mut rig = Rig::new();
    rig.put("foo", "bar");
    rig.put("foo", "baz");
    rig.put("fop", "x");
    let request = pb::RangeRequest {
        key: "foo".into(),
        ..Default::default()
    };
    let response = rig.range(&request).unwrap();
    assert_eq!(response.count, 1);
    assert_eq!(response.header.unwrap().revision, 4);
    let kv = &response.kvs[0];
    assert_eq!((kv.create_revision, kv.mod_revision, kv.version), (2, 3, 2));
    assert_eq!(kv.value, "baz");
    let request = pb::RangeRequest {
        revision: 2,
        ..request
    };
    assert_eq!(rig.range(&request).unwrap().kvs[0].value, "bar");
    let request = pb::RangeRequest {
        key: "f".into(),
        range_end: "g".into(),
        limit: 1,
        ..Default::default()
    };
    let response = rig.range(&request).unwrap();
    assert_eq!(
        (response.count, response.more, response.kvs.len()),
        (2, true, 1)
    );
}

#[test]
fn a_transaction_sees_its_own_writes() {
    let mut rig = Rig::new();
    let op = |request| pb::RequestOp {
        request: Some(request),
    };
    let range = pb::RangeRequest {
        key: "a".into(),
        ..Default::default()
    };
    let txn = pb::TxnRequest {
        compare: vec![pb::Compare {
            key: "a".into(),
            ..Default::default()
        }],
        success: vec![
            op(Request::RequestRange(range.clone())),
            op(Request::RequestPut(put_request("a", "1"))),
            op(Request::RequestRange(range)),
        ],
        failure: vec![],
    };
    let reply = rig.apply(pb::InternalRaftRequest {
        txn: Some(txn),
        ..Default::default()
    });
    let mut out = Vec::new();
    reply
        .unwrap()
        .encode(&crate::reply::Header::default(), &mut out);
    let response = pb::TxnResponse::decode(&out[..]).unwrap();
    assert!(response.succeeded);
    assert_eq!(response.header.unwrap().revision, 2);
    let counts: Vec<(i64, i64)> = response
        .responses
        .iter()
        .filter_map(|response| match &response.response {
            Some(pb::response_op::Response::ResponseRange(range)) => {
                Some((range.count, range.header.unwrap().revision))
            }
            _ => None,
        })
        .collect();
    assert_eq!(counts, [(0, 1), (1, 2)]);
}

fn request(put: pb::PutRequest) -> pb::InternalRaftRequest {
    pb::InternalRaftRequest {
        put: Some(put),
        ..Default::default()
    }
}

#[test]
fn an_entry_at_or_below_the_applied_index_has_no_effect() {
    let mut rig = Rig::new();
    let entry = rig.entry(request(put_request("a", "1")));
    rig.machine.apply(&entry).unwrap();
    let again = rig.machine.apply(&entry).unwrap();
    assert_eq!(
        (again.outcome, again.effects.len()),
        (Ok(Reply::Nothing), 0)
    );
    assert_eq!(rig.view.revision(), 2);
    assert_eq!(rig.view.applied().index, LogIndex(1));
}

#[test]
fn an_unknown_request_stops_the_member() {
    let mut rig = Rig::new();
    let mut entry = rig.entry(pb::InternalRaftRequest::default());
    entry.data = vec![0xa2, 0x06, 0x02, 0x08, 0x01, 0x9a, 0x83, 0x01, 0x00].into();
    match rig.machine.apply(&entry) {
        Err(Fatal::UnknownRequest {
            index: LogIndex(1),
            fields,
        }) => assert_eq!(fields, [2099]),
        other => panic!("{other:?}"),
    }
    entry.data = vec![0x22, 0x7f].into();
    assert!(matches!(
        rig.machine.apply(&entry),
        Err(Fatal::Undecodable { .. })
    ));
}

#[test]
fn releases_before_3_6_publish_with_v2_requests() {
    let mut rig = Rig::new();
    let mut entry = rig.entry(pb::InternalRaftRequest::default());
    // The version that a 3.5.1 leader set, with every zero field that it writes.
    let hex = "088494fc9be4c0a8b3c3011203505554\
               1a0a2f302f76657273696f6e2205332e352e302800320038004800500058006000680070007800800100";
    let bytes = (0..hex.len()).step_by(2);
    let data: Vec<u8> = bytes
        .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap())
        .collect();
    entry.data = data.into();
    let applied = rig.machine.apply(&entry).unwrap();
    assert!(applied.request.is_some());
    assert_eq!(rig.view.members().cluster_version(), Some("3.5.0"));
}

#[test]
fn a_full_store_refuses_after_writing_once_more() {
    let config = Config {
        quota_bytes: Some(64 << 10),
        ..Config::default()
    };
    let mut rig = Rig::open(tempfile::tempdir().unwrap(), config);
    let mut refused = None;
    for n in 0..1000 {
        let entry = rig.entry(request(put_request(&format!("{n}"), &"v".repeat(1000))));
        let applied = rig.machine.apply(&entry).unwrap();
        if applied.outcome == Err(Error::NoSpace) {
            assert_eq!(applied.effects[..], [Effect::QuotaExceeded]);
            refused = Some(n);
            break;
        }
    }
    // The write is done, as on members with more room.
    assert_eq!(rig.view.keys(), refused.unwrap() + 1);
    let alarm = pb::AlarmRequest {
        action: 1,
        member_id: 7,
        alarm: 1,
    };
    let alarm = pb::InternalRaftRequest {
        alarm: Some(alarm),
        ..Default::default()
    };
    rig.apply(alarm).unwrap();
    assert_eq!(
        rig.apply(request(put_request("x", ""))),
        Err(Error::NoSpace)
    );
    assert_eq!(rig.view.keys(), refused.unwrap() + 1);
    rig.delete("0");
    assert_eq!(rig.view.keys(), refused.unwrap());
    let rig = rig.reopen(true);
    assert!(rig.view.is_alarmed(pb::AlarmType::Nospace));
}

#[test]
fn a_corrupt_alarm_stops_writes_but_not_reads() {
    let mut rig = Rig::new();
    rig.put("a", "1");
    let corrupt = pb::AlarmRequest {
        action: 1,
        member_id: 7,
        alarm: 2,
    };
    let corrupt = pb::InternalRaftRequest {
        alarm: Some(corrupt),
        ..Default::default()
    };
    rig.apply(corrupt).unwrap();
    assert_eq!(
        rig.apply(request(put_request("a", "2"))),
        Err(Error::Corrupt)
    );
    assert_eq!(rig.compact(2), Err(Error::Corrupt));
    let range = pb::RangeRequest {
        key: "a".into(),
        ..Default::default()
    };
    assert_eq!(rig.range(&range).unwrap().kvs[0].value, "1");
    // An action that does not exist changes nothing.
    let odd = pb::AlarmRequest {
        action: 99,
        member_id: 7,
        alarm: 2,
    };
    let odd = pb::InternalRaftRequest {
        alarm: Some(odd),
        ..Default::default()
    };
    rig.apply(odd).unwrap();
    let disarm = pb::AlarmRequest {
        action: 2,
        member_id: 7,
        alarm: 2,
    };
    let disarm = pb::InternalRaftRequest {
        alarm: Some(disarm),
        ..Default::default()
    };
    rig.apply(disarm).unwrap();
    rig.put("a", "2");
}

/// Draws a Range in parts of up to `keys` keys and `bytes` bytes; `between` runs after each.
fn in_parts(
    rig: &mut Rig,
    request: &pb::RangeRequest,
    (keys, bytes): (u64, u64),
    mut between: impl FnMut(&mut Rig),
) -> Result<(pb::RangeResponse, Vec<usize>), ReadError> {
    let mut parts = rig.view.range_parts(&unasked(request.clone()))?;
    let mut merged = Vec::new();
    let mut sizes = Vec::new();
    let mut ended = false;
    while let Some(mut part) = parts.next_part(keys, bytes)? {
        assert!(!ended);
        ended = part.is_last;
        let mut out = Vec::new();
        let len = part.answer.encoded_len();
        while part.answer.write_chunk(&mut out, 1000)? {}
        assert_eq!(out.len() as u64, len);
        sizes.push(pb::RangeResponse::decode(&out[..]).unwrap().kvs.len());
        merged.extend(out);
        between(rig);
    }
    assert!(ended);
    let mut merged = pb::RangeResponse::decode(&merged[..]).unwrap();
    merged.header = Some(pb::ResponseHeader {
        revision: parts.revision(),
        ..Default::default()
    });
    Ok((merged, sizes))
}

#[test]
fn a_compaction_does_not_wait_for_a_reader_that_does_not_read() {
    for (budget, keys_only) in [(0, false), (1 << 30, false), (0, true)] {
        let config = Config {
            value_budget: budget,
            ..Config::default()
        };
        let mut rig = Rig::open(tempfile::tempdir().unwrap(), config);
        for n in 0..3000 {
            rig.put(&format!("{n:05}"), &"v".repeat(100));
        }
        let request = pb::RangeRequest {
            key: "0".into(),
            range_end: vec![0].into(),
            sort_order: if keys_only { 2 } else { 0 },
            ..Default::default()
        };
        let mut reading = rig.view.range(&unasked(request.clone())).unwrap();
        let mut stalled = rig.view.range(&unasked(request.clone())).unwrap();
        let mut out = Vec::new();
        assert!(stalled.write_chunk(&mut out, 1000).unwrap());
        rig.put("00001", "other");
        let now = rig.put("00002", "other");
        rig.compact(now).unwrap();
        assert_eq!(rig.sweep.step().unwrap(), Step::Blocked);
        assert_eq!(rig.sweep.drop_idle_readers(), 0);
        assert!(reading.write_chunk(&mut out, 1000).unwrap());
        assert_eq!(rig.sweep.drop_idle_readers(), 1);
        assert_eq!(rig.sweep.step().unwrap(), Step::Blocked);
        out.clear();
        let refused = stalled.write_chunk(&mut out, 1000);
        assert!(matches!(refused, Err(ReadError::Refused(Error::Compacted))));
        assert!(out.is_empty());
        while reading.write_chunk(&mut out, 10_000).unwrap() {}
        drop(reading);
        rig.sweep();
        assert_eq!(rig.view.compact_revision(), now);
    }
}

#[test]
fn parts_make_the_whole_answer() {
    for budget in [0, 1 << 30] {
        let config = Config {
            value_budget: budget,
            ..Config::default()
        };
        let mut rig = Rig::open(tempfile::tempdir().unwrap(), config);
        for n in 0..3000 {
            rig.put(&format!("{n:05}"), &"v".repeat(n % 100));
        }
        for n in (0..3000).step_by(3) {
            rig.delete(&format!("{n:05}"));
        }
        let request = |key: &str, end: &str| pb::RangeRequest {
            key: key.to_owned().into(),
            range_end: end.to_owned().into(),
            ..Default::default()
        };
        let all = request("0", "\0");
        let old = pb::RangeRequest {
            revision: 2500,
            ..all.clone()
        };
        let limited = pb::RangeRequest {
            limit: 1234,
            ..all.clone()
        };
        let exact = pb::RangeRequest {
            limit: 2000,
            ..all.clone()
        };
        let keys = pb::RangeRequest {
            keys_only: true,
            ..limited.clone()
        };
        let count = pb::RangeRequest {
            count_only: true,
            ..all.clone()
        };
        let one = request("00001", "");
        let none = request("none", "");
        for request in [all, old, limited, exact, keys, count, one, none] {
            let whole = rig.range(&request).unwrap();
            for size in [
                (7, u64::MAX),
                (1 << 40, 5000),
                (1 << 40, 1),
                (1 << 40, 1 << 40),
            ] {
                let (merged, sizes) = in_parts(&mut rig, &request, size, |_| {}).unwrap();
                assert!(merged == whole, "{request:?} {size:?}");
                assert!(sizes.iter().all(|&keys| keys as u64 <= size.0));
                if size.1 == 1 {
                    assert!(sizes.iter().all(|&keys| keys <= 1));
                }
            }
        }
    }
}

#[test]
fn parts_stay_at_the_revision_of_the_first_one() {
    let mut rig = Rig::new();
    for n in 0..100 {
        rig.put(&format!("{n:05}"), "v");
    }
    let revision = rig.view.revision();
    let request = pb::RangeRequest {
        key: "0".into(),
        range_end: vec![0].into(),
        ..Default::default()
    };
    let whole = rig.range(&request).unwrap();
    let (merged, sizes) = in_parts(&mut rig, &request, (10, 1 << 20), |rig| {
        rig.put("00000x", "new");
        rig.put("00095", "other");
        rig.delete("00096");
        assert_eq!(
            rig.view
                .range_parts(&unasked(pb::RangeRequest::default()))
                .unwrap()
                .revision(),
            rig.view.revision()
        );
    })
    .unwrap();
    assert!(merged == whole);
    assert_eq!(sizes, [10; 10]);
    assert!(rig.view.revision() > revision);
    // Nothing is pinned between two parts: a compaction ends the answer.
    let compacted = in_parts(&mut rig, &request, (10, 1 << 20), |rig| {
        rig.put("z", "");
        rig.compact(rig.view.revision()).unwrap();
        rig.sweep();
    });
    assert!(matches!(
        compacted,
        Err(ReadError::Refused(Error::Compacted))
    ));
    let future = pb::RangeRequest {
        revision: 1 << 40,
        ..request
    };
    let refused = rig.view.range_parts(&unasked(future)).err();
    assert!(matches!(
        refused,
        Some(ReadError::Refused(Error::FutureRev))
    ));
}

#[test]
fn a_long_answer_stays_at_its_revision() {
    for budget in [0, 1 << 30] {
        let config = Config {
            value_budget: budget,
            ..Config::default()
        };
        let mut rig = Rig::open(tempfile::tempdir().unwrap(), config);
        for n in 0..3000 {
            rig.put(&format!("{n:05}"), &"v".repeat(100));
        }
        let revision = rig.view.revision();
        let request = pb::RangeRequest {
            key: "0".into(),
            range_end: vec![0].into(),
            ..Default::default()
        };
        let mut answer = rig.view.range(&unasked(request)).unwrap();
        let mut out = Vec::new();
        let len = answer.encoded_len();
        let mut steps = 0;
        while answer.write_chunk(&mut out, 10_000).unwrap() {
            // Keys come, change and go meanwhile, and everything is compacted away.
            rig.put(&format!("{:05}", steps * 13), "other");
            rig.put(&format!("{:05}x", steps * 40), "new");
            rig.delete(&format!("{:05}", steps * 17 + 1500));
            let now = rig.view.revision();
            rig.compact(now).unwrap();
            assert_eq!(rig.sweep.step().unwrap(), Step::Blocked);
            rig.committer.commit().unwrap();
            steps += 1;
        }
        assert!(steps > 20);
        assert_eq!(out.len() as u64, len);
        let response = pb::RangeResponse::decode(&out[..]).unwrap();
        assert_eq!((response.count, response.kvs.len()), (3000, 3000));
        assert!(
            response
                .kvs
                .iter()
                .all(|kv| kv.mod_revision <= revision && kv.value.len() == 100)
        );
        rig.sweep();
        assert_eq!(rig.view.compact_revision(), rig.view.revision());
    }
}

#[test]
fn an_interrupted_compaction_goes_on_after_a_restart() {
    let mut rig = Rig::new();
    for n in 0..50 {
        rig.put("a", &n.to_string());
    }
    rig.delete("a");
    rig.compact(52).unwrap();
    let mut rig = rig.reopen(true);
    assert_eq!((rig.view.revision(), rig.view.compact_revision()), (52, 52));
    rig.sweep();
    assert!(rig.view.compaction_hashes().is_empty());
    rig.put("b", "1");
    rig.compact(53).unwrap();
    rig.sweep();
    assert_eq!(rig.view.compaction_hashes().len(), 1);
    // Nothing is left of "a", and the revision stands.
    let rig = rig.reopen(true);
    assert_eq!((rig.view.revision(), rig.view.index_size().0), (53, 1));
}

#[test]
fn a_cluster_version_above_ours_stops_the_member() {
    let set = |ver: &str| pb::InternalRaftRequest {
        cluster_version_set: Some(api::pb::membershippb::ClusterVersionSetRequest {
            ver: ver.into(),
        }),
        ..Default::default()
    };
    for bad in ["3.8.0", "4.0.0", "none"] {
        let mut rig = Rig::new();
        rig.apply(set("3.7.0")).unwrap();
        let entry = rig.entry(set(bad));
        let stopped = rig.machine.apply(&entry);
        assert!(matches!(stopped, Err(Fatal::ClusterVersion { .. })));
        // Nothing of the entry was written.
        let rig = rig.reopen(true);
        assert_eq!(rig.view.members().cluster_version(), Some("3.7.0"));
        assert_eq!(rig.view.applied().index, LogIndex(1));
    }
}
