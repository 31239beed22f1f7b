//! The machine over a real backend on the real file system.

use api::pb::etcdserverpb as pb;
use api::pb::etcdserverpb::request_op::Request;
use prost::Message;
use storage::backend::{Backend, Committer, Options};
use storage::fs::RealFs;
use storage::log::{Entry, EntryKind, LogIndex, Term};

use super::*;
mod model;
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
        match self.view.range(request) {
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
