//! Requests drawn at random: few keys, so that they meet.

use api::ids::RequestId;
use api::pb::etcdserverpb as pb;
use pb::compare::{CompareResult, CompareTarget, TargetUnion};
use pb::request_op::Request;
use prost::Message;
use storage::simfs::Rng;

/// What a run's requests look like.
#[derive(Clone, Debug)]
pub struct Shape {
    keys: u64,
    value_bytes_max: u64,
    /// One value in so many is larger than a page.
    large_one_in: u64,
    compact_one_in: u64,
}

impl Shape {
    pub fn draw(rng: &mut Rng) -> Shape {
        Shape {
            keys: [3, 12, 60, 300][rng.below(4) as usize],
            value_bytes_max: [8, 40, 400][rng.below(3) as usize],
            large_one_in: [5, 40, 1000][rng.below(3) as usize],
            compact_one_in: [6, 25, 200][rng.below(3) as usize],
        }
    }

    /// An encoded request; `revision` is where the state is about now.
    pub fn request(&self, id: RequestId, revision: i64, rng: &mut Rng) -> Vec<u8> {
        let header = Some(pb::RequestHeader {
            id: id.0,
            ..Default::default()
        });
        let mut request = pb::InternalRaftRequest {
            header,
            ..Default::default()
        };
        if rng.one_in(self.compact_one_in) {
            let revision = (revision + 1 - rng.below(12) as i64).max(0);
            request.compaction = Some(pb::CompactionRequest {
                revision,
                physical: false,
            });
        } else {
            match rng.below(12) {
                10 => request.lease_grant = Some(self.grant(rng)),
                11 => request.lease_revoke = Some(pb::LeaseRevokeRequest { id: lease(rng) }),
                0 => request.delete_range = Some(self.delete(rng)),
                1 | 2 => request.txn = Some(self.txn(revision, rng)),
                _ => request.put = Some(self.put(rng)),
            }
        }
        request.encode_to_vec()
    }

    pub(crate) fn key(&self, rng: &mut Rng) -> Vec<u8> {
        format!("k{:03}", rng.below(self.keys)).into_bytes()
    }

    fn value(&self, rng: &mut Rng) -> Vec<u8> {
        let len = if rng.one_in(self.large_one_in) {
            1000 + rng.below(6000)
        } else {
            rng.below(self.value_bytes_max + 1)
        };
        // Zeros are what torn writes look like, so some values are full of them.
        let fill = if rng.one_in(3) {
            0
        } else {
            rng.next_u64() as u8
        };
        let mut value = vec![fill; len as usize];
        value.extend_from_slice(&rng.next_u64().to_be_bytes()[..2]);
        value
    }

    fn put(&self, rng: &mut Rng) -> pb::PutRequest {
        let (key, value) = (self.key(rng).into(), self.value(rng).into());
        let lease = if rng.one_in(5) { lease(rng) } else { 0 };
        pb::PutRequest {
            key,
            value,
            lease,
            ..Default::default()
        }
    }

    fn grant(&self, rng: &mut Rng) -> pb::LeaseGrantRequest {
        pb::LeaseGrantRequest {
            id: lease(rng),
            ttl: 1 + rng.below(100) as i64,
        }
    }

    fn delete(&self, rng: &mut Rng) -> pb::DeleteRangeRequest {
        let key = self.key(rng);
        let mut range_end = Vec::new();
        if rng.one_in(3) {
            range_end = format!("k{:03}", rng.below(self.keys + 1)).into_bytes();
        }
        pb::DeleteRangeRequest {
            key: key.into(),
            range_end: range_end.into(),
            ..Default::default()
        }
    }

    fn txn(&self, revision: i64, rng: &mut Rng) -> pb::TxnRequest {
        let compare = (0..rng.below(3))
            .map(|_| self.compare(revision, rng))
            .collect();
        pb::TxnRequest {
            compare,
            success: self.ops(rng),
            failure: self.ops(rng),
        }
    }

    fn compare(&self, revision: i64, rng: &mut Rng) -> pb::Compare {
        let (target, union) = match rng.below(3) {
            0 => (
                CompareTarget::Version,
                TargetUnion::Version(rng.below(3) as i64),
            ),
            1 => {
                let near = (revision - rng.below(6) as i64).max(0);
                (CompareTarget::Mod, TargetUnion::ModRevision(near))
            }
            _ => (
                CompareTarget::Value,
                TargetUnion::Value(self.value(rng).into()),
            ),
        };
        let result = [
            CompareResult::Equal,
            CompareResult::Greater,
            CompareResult::Less,
            CompareResult::NotEqual,
        ][rng.below(4) as usize];
        pb::Compare {
            result: result.into(),
            target: target.into(),
            key: self.key(rng).into(),
            target_union: Some(union),
            ..Default::default()
        }
    }

    /// Puts of distinct keys, or a deletion, or a read: what validation lets through.
    fn ops(&self, rng: &mut Rng) -> Vec<pb::RequestOp> {
        let request = match rng.below(4) {
            0 => Request::RequestDeleteRange(self.delete(rng)),
            1 => {
                let key = self.key(rng).into();
                Request::RequestRange(pb::RangeRequest {
                    key,
                    ..Default::default()
                })
            }
            _ => {
                let mut puts: Vec<pb::PutRequest> = Vec::new();
                for _ in 0..rng.below(4) {
                    let put = self.put(rng);
                    if puts.iter().all(|other| other.key != put.key) {
                        puts.push(put);
                    }
                }
                let op = |put| pb::RequestOp {
                    request: Some(Request::RequestPut(put)),
                };
                return puts.into_iter().map(op).collect();
            }
        };
        vec![pb::RequestOp {
            request: Some(request),
        }]
    }
}

fn lease(rng: &mut Rng) -> i64 {
    1 + rng.below(6) as i64
}
