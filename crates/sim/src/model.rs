//! What the state must be: the log replayed by the simplest code that could be right.
//!
//! Shares nothing with `state` but the request messages.

use std::collections::BTreeMap;

use api::pb::etcdserverpb as pb;
use pb::compare::{CompareResult, CompareTarget, TargetUnion};
use pb::request_op::Request;
use prost::Message;

/// One revision of one key; `value` is `None` for a deletion.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Version {
    main: i64,
    value: Option<Vec<u8>>,
    create: i64,
    version: i64,
}

/// A key as a range shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    pub create: i64,
    pub modified: i64,
    pub version: i64,
    pub value: Vec<u8>,
}

/// Every revision of every key; nothing is ever dropped.
#[derive(Clone, Debug)]
pub struct Model {
    keys: BTreeMap<Vec<u8>, Vec<Version>>,
    revision: i64,
    compacted: i64,
}

impl Default for Model {
    fn default() -> Model {
        Model {
            keys: BTreeMap::new(),
            revision: 1,
            compacted: -1,
        }
    }
}

impl Model {
    pub fn revision(&self) -> i64 {
        self.revision
    }

    /// -1 before the first compaction.
    pub fn compacted(&self) -> i64 {
        self.compacted
    }

    /// Applies the data of a normal entry. `Err` when the request must be refused.
    pub fn apply(&mut self, data: &[u8]) -> Result<(), &'static str> {
        let Ok(request) = pb::InternalRaftRequest::decode(data) else {
            return Ok(());
        };
        let mut changed = false;
        if let Some(put) = request.put {
            self.put(&put, &mut changed);
        } else if let Some(delete) = request.delete_range {
            self.delete(&delete, &mut changed);
        } else if let Some(txn) = request.txn {
            self.txn(&txn, &mut changed);
        } else if let Some(compaction) = request.compaction {
            return self.compact(compaction.revision);
        }
        self.revision += i64::from(changed);
        Ok(())
    }

    fn compact(&mut self, revision: i64) -> Result<(), &'static str> {
        if revision <= self.compacted {
            return Err("compacted");
        }
        if revision > self.revision {
            return Err("future");
        }
        self.compacted = revision;
        Ok(())
    }

    fn put(&mut self, put: &pb::PutRequest, changed: &mut bool) {
        let main = self.revision + 1;
        let versions = self.keys.entry(put.key.to_vec()).or_default();
        let live = versions.last().filter(|last| last.value.is_some());
        let (create, version) = live.map_or((main, 1), |last| (last.create, last.version + 1));
        let value = Some(put.value.to_vec());
        versions.push(Version {
            main,
            value,
            create,
            version,
        });
        *changed = true;
    }

    fn delete(&mut self, delete: &pb::DeleteRangeRequest, changed: &mut bool) {
        let main = self.revision + 1;
        for (key, versions) in &mut self.keys {
            let hit = if delete.range_end.is_empty() {
                key[..] == delete.key[..]
            } else {
                key[..] >= delete.key[..] && key[..] < delete.range_end[..]
            };
            if hit && versions.last().is_some_and(|last| last.value.is_some()) {
                versions.push(Version {
                    main,
                    value: None,
                    create: 0,
                    version: 0,
                });
                *changed = true;
            }
        }
    }

    fn txn(&mut self, txn: &pb::TxnRequest, changed: &mut bool) {
        let holds = txn.compare.iter().all(|compare| self.compare(compare));
        let ops = if holds { &txn.success } else { &txn.failure };
        for op in ops {
            match &op.request {
                Some(Request::RequestPut(put)) => self.put(put, changed),
                Some(Request::RequestDeleteRange(delete)) => self.delete(delete, changed),
                _ => {}
            }
        }
    }

    fn compare(&self, compare: &pb::Compare) -> bool {
        let last = self
            .keys
            .get(&compare.key[..])
            .and_then(|versions| versions.last());
        let live = last.filter(|last| last.value.is_some());
        let ordering = match (&compare.target_union, compare.target()) {
            (Some(TargetUnion::Version(want)), CompareTarget::Version) => {
                live.map_or(0, |live| live.version).cmp(want)
            }
            (Some(TargetUnion::ModRevision(want)), CompareTarget::Mod) => {
                live.map_or(0, |live| live.main).cmp(want)
            }
            (Some(TargetUnion::Value(want)), CompareTarget::Value) => {
                let Some(value) = live.and_then(|live| live.value.as_ref()) else {
                    return false;
                };
                value[..].cmp(&want[..])
            }
            _ => return false,
        };
        match compare.result() {
            CompareResult::Equal => ordering.is_eq(),
            CompareResult::Greater => ordering.is_gt(),
            CompareResult::Less => ordering.is_lt(),
            CompareResult::NotEqual => ordering.is_ne(),
        }
    }

    /// Every key that exists at a revision.
    pub fn at(&self, revision: i64) -> BTreeMap<Vec<u8>, Item> {
        let newest = |versions: &[Version]| {
            let seen = versions
                .iter()
                .rev()
                .find(|version| version.main <= revision)?;
            Some(Item {
                create: seen.create,
                modified: seen.main,
                version: seen.version,
                value: seen.value.clone()?,
            })
        };
        self.keys
            .iter()
            .filter_map(|(key, versions)| Some((key.clone(), newest(versions)?)))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn apply(model: &mut Model, request: pb::InternalRaftRequest) -> Result<(), &'static str> {
        model.apply(&request.encode_to_vec())
    }

    #[test]
    fn revisions_versions_and_deletions_count_as_etcds_do() {
        let put = |key: &str, value: &str| pb::PutRequest {
            key: key.to_owned().into(),
            value: value.to_owned().into(),
            ..Default::default()
        };
        let mut model = Model::default();
        for (key, value) in [("a", "1"), ("a", "2"), ("b", "3")] {
            let request = pb::InternalRaftRequest {
                put: Some(put(key, value)),
                ..Default::default()
            };
            apply(&mut model, request).unwrap();
        }
        let delete = pb::DeleteRangeRequest {
            key: "a".into(),
            range_end: "z".into(),
            ..Default::default()
        };
        for _ in 0..2 {
            let request = pb::InternalRaftRequest {
                delete_range: Some(delete.clone()),
                ..Default::default()
            };
            apply(&mut model, request).unwrap();
        }
        assert_eq!(model.revision(), 5);
        assert!(model.at(5).is_empty());
        let item = &model.at(4)[&b"a"[..]];
        assert_eq!((item.create, item.modified, item.version), (2, 3, 2));
        let compact = |revision| pb::InternalRaftRequest {
            compaction: Some(pb::CompactionRequest {
                revision,
                physical: false,
            }),
            ..Default::default()
        };
        assert_eq!(apply(&mut model, compact(6)), Err("future"));
        assert_eq!(apply(&mut model, compact(4)), Ok(()));
        assert_eq!(apply(&mut model, compact(4)), Err("compacted"));
    }
}
