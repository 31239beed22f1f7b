//! What the state must be: the log replayed by the simplest code that could be right.
//!
//! Shares nothing with `state` but the request messages.

use std::collections::{BTreeMap, BTreeSet};

use api::pb::etcdserverpb as pb;
use pb::compare::{CompareResult, CompareTarget, TargetUnion};
use pb::request_op::Request;
use prost::Message;

/// One revision of one key; `value` is `None` for a deletion.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Version {
    main: i64,
    sub: i64,
    lease: i64,
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
    pub lease: i64,
    pub value: Vec<u8>,
}

/// Every revision of every key; nothing is ever dropped.
#[derive(Clone, Debug)]
pub struct Model {
    keys: BTreeMap<Vec<u8>, Vec<Version>>,
    /// Granted leases with their time to live.
    leases: BTreeMap<i64, i64>,
    revision: i64,
    compacted: i64,
}

/// Changes so far in one entry.
type Changes = i64;

impl Default for Model {
    fn default() -> Model {
        Model {
            keys: BTreeMap::new(),
            leases: BTreeMap::new(),
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
        let mut changes = 0;
        if let Some(put) = request.put {
            self.check_lease(&put)?;
            self.put(&put, &mut changes);
        } else if let Some(delete) = request.delete_range {
            self.delete(&delete, &mut changes);
        } else if let Some(txn) = request.txn {
            self.txn(&txn, &mut changes)?;
        } else if let Some(compaction) = request.compaction {
            return self.compact(compaction.revision);
        } else if let Some(grant) = request.lease_grant {
            if self.leases.contains_key(&grant.id) {
                return Err("lease exists");
            }
            self.leases.insert(grant.id, grant.ttl.max(2));
        } else if let Some(revoke) = request.lease_revoke {
            self.revoke(revoke.id, &mut changes)?;
        }
        self.revision += i64::from(changes > 0);
        Ok(())
    }

    /// Leases with their time to live.
    pub fn leases(&self) -> &BTreeMap<i64, i64> {
        &self.leases
    }

    fn check_lease(&self, put: &pb::PutRequest) -> Result<(), &'static str> {
        let known = put.lease == 0 || self.leases.contains_key(&put.lease);
        known.then_some(()).ok_or("lease not found")
    }

    /// Deletes the lease and the keys attached to it.
    fn revoke(&mut self, id: i64, changes: &mut Changes) -> Result<(), &'static str> {
        self.leases.remove(&id).ok_or("lease not found")?;
        let main = self.revision + 1;
        for versions in self.keys.values_mut() {
            if versions
                .last()
                .is_some_and(|last| last.value.is_some() && last.lease == id)
            {
                versions.push(Version::deletion(main, changes));
            }
        }
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

    fn put(&mut self, put: &pb::PutRequest, changes: &mut Changes) {
        let main = self.revision + 1;
        let versions = self.keys.entry(put.key.to_vec()).or_default();
        let live = versions.last().filter(|last| last.value.is_some());
        let (create, version) = live.map_or((main, 1), |last| (last.create, last.version + 1));
        let (value, lease, sub) = (Some(put.value.to_vec()), put.lease, *changes);
        versions.push(Version {
            main,
            sub,
            lease,
            value,
            create,
            version,
        });
        *changes += 1;
    }

    fn delete(&mut self, delete: &pb::DeleteRangeRequest, changes: &mut Changes) {
        let main = self.revision + 1;
        for (key, versions) in &mut self.keys {
            let hit = if delete.range_end.is_empty() {
                key[..] == delete.key[..]
            } else {
                key[..] >= delete.key[..] && key[..] < delete.range_end[..]
            };
            if hit && versions.last().is_some_and(|last| last.value.is_some()) {
                versions.push(Version::deletion(main, changes));
            }
        }
    }

    fn txn(&mut self, txn: &pb::TxnRequest, changes: &mut Changes) -> Result<(), &'static str> {
        let holds = txn.compare.iter().all(|compare| self.compare(compare));
        let ops = if holds { &txn.success } else { &txn.failure };
        for op in ops {
            if let Some(Request::RequestPut(put)) = &op.request {
                self.check_lease(put)?;
            }
        }
        for op in ops {
            match &op.request {
                Some(Request::RequestPut(put)) => self.put(put, changes),
                Some(Request::RequestDeleteRange(delete)) => self.delete(delete, changes),
                _ => {}
            }
        }
        Ok(())
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

    /// The keys as they were when `revision` was the newest; leases and compaction as they are now.
    pub fn prefix(&self, revision: i64) -> Model {
        let mut model = self.clone();
        model.revision = revision;
        for versions in model.keys.values_mut() {
            versions.retain(|version| version.main <= revision);
        }
        model.keys.retain(|_, versions| !versions.is_empty());
        model
    }

    /// Changes in revisions `from..=to`, in order: main revision, key, whether it was deleted.
    pub fn changes(&self, from: i64, to: i64) -> Vec<(i64, Vec<u8>, bool)> {
        let mut found = BTreeMap::new();
        for (key, versions) in &self.keys {
            for version in versions {
                if (from..=to).contains(&version.main) {
                    let change = (version.main, key.clone(), version.value.is_none());
                    found.insert((version.main, version.sub), change);
                }
            }
        }
        found.into_values().collect()
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
                lease: seen.lease,
                value: seen.value.clone()?,
            })
        };
        self.keys
            .iter()
            .filter_map(|(key, versions)| Some((key.clone(), newest(versions)?)))
            .collect()
    }

    /// HashKV by its definition: CRC-32C over the records up to `revision`, less those that a
    /// compaction at `compacted` may have dropped. When no key exists at `revision`, the
    /// definition takes what compaction has not swept yet, so that there is no one answer.
    pub fn hash_kv(&self, revision: i64, compacted: i64) -> Option<u32> {
        let kept: BTreeSet<(i64, i64)> = self
            .keys
            .values()
            .filter_map(|versions| kept_at(versions, revision))
            .collect();
        if kept.is_empty() && compacted > 0 {
            return None;
        }
        let mut records = BTreeMap::new();
        for (key, versions) in &self.keys {
            for version in versions {
                let at = (version.main, version.sub);
                let dropped = at.0 <= compacted && !kept.contains(&at);
                let deletion = version.value.is_none();
                if at.0 <= revision && !dropped && !(deletion && at.0 == compacted) {
                    records.insert(at, version.record(key));
                }
            }
        }
        let hash = records
            .values()
            .fold(crc32c::crc32c(b"key"), |crc, (key, value)| {
                crc32c::crc32c_append(crc32c::crc32c_append(crc, key), value)
            });
        Some(hash)
    }
}

/// The revision of a key that a compaction at `revision` keeps.
fn kept_at(versions: &[Version], revision: i64) -> Option<(i64, i64)> {
    // A deletion ends a generation; behind the last one lies an empty generation.
    let mut generations: Vec<&[Version]> = versions
        .split_inclusive(|version| version.value.is_none())
        .collect();
    if versions.last().is_some_and(|last| last.value.is_none()) {
        generations.push(&[]);
    }
    let last = generations.len().checked_sub(1)?;
    let ends_later = |generation: &&[Version]| {
        generation
            .last()
            .is_some_and(|version| version.main >= revision)
    };
    let at = generations[..last]
        .iter()
        .position(ends_later)
        .unwrap_or(last);
    let seen = generations[at]
        .iter()
        .rposition(|version| version.main <= revision)?;
    let is_deletion = at != last && seen + 1 == generations[at].len();
    let version = &generations[at][seen];
    (!is_deletion).then_some((version.main, version.sub))
}

impl Version {
    fn deletion(main: i64, changes: &mut Changes) -> Version {
        let sub = *changes;
        *changes += 1;
        Version {
            main,
            sub,
            lease: 0,
            value: None,
            create: 0,
            version: 0,
        }
    }

    /// The record of bucket `key`.
    fn record(&self, key: &[u8]) -> (Vec<u8>, Vec<u8>) {
        let mut at = self.main.to_be_bytes().to_vec();
        at.push(b'_');
        at.extend_from_slice(&self.sub.to_be_bytes());
        let mut kv = api::pb::mvccpb::KeyValue {
            key: key.to_vec().into(),
            ..Default::default()
        };
        match &self.value {
            Some(value) => {
                kv.create_revision = self.create;
                kv.mod_revision = self.main;
                kv.version = self.version;
                kv.lease = self.lease;
                kv.value = value.clone().into();
            }
            None => at.push(b't'),
        }
        (at, kv.encode_to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(key: &str, value: &str) -> pb::InternalRaftRequest {
        let (key, value) = (key.to_owned().into(), value.to_owned().into());
        let put = Some(pb::PutRequest {
            key,
            value,
            ..Default::default()
        });
        pb::InternalRaftRequest {
            put,
            ..Default::default()
        }
    }

    fn delete(key: &str, range_end: &str) -> pb::InternalRaftRequest {
        let (key, range_end) = (key.to_owned().into(), range_end.to_owned().into());
        let delete = pb::DeleteRangeRequest {
            key,
            range_end,
            ..Default::default()
        };
        pb::InternalRaftRequest {
            delete_range: Some(delete),
            ..Default::default()
        }
    }

    fn compact(revision: i64) -> pb::InternalRaftRequest {
        let compaction = Some(pb::CompactionRequest {
            revision,
            physical: false,
        });
        pb::InternalRaftRequest {
            compaction,
            ..Default::default()
        }
    }

    fn apply(model: &mut Model, request: pb::InternalRaftRequest) -> Result<(), &'static str> {
        model.apply(&request.encode_to_vec())
    }

    #[test]
    fn revisions_versions_and_deletions_count_as_etcds_do() {
        let mut model = Model::default();
        for request in [put("a", "1"), put("a", "2"), put("b", "3")] {
            apply(&mut model, request).unwrap();
        }
        for _ in 0..2 {
            apply(&mut model, delete("a", "z")).unwrap();
        }
        assert_eq!(model.revision(), 5);
        assert!(model.at(5).is_empty());
        let item = &model.at(4)[&b"a"[..]];
        assert_eq!((item.create, item.modified, item.version), (2, 3, 2));
        assert_eq!(apply(&mut model, compact(6)), Err("future"));
        assert_eq!(apply(&mut model, compact(4)), Ok(()));
        assert_eq!(apply(&mut model, compact(4)), Err("compacted"));
    }

    /// Numbers that real etcd servers gave for this history.
    #[test]
    fn hashes_are_etcds() {
        let mut model = Model::default();
        let history = [
            put("foo", "bar"),
            put("foo", "bar2"),
            delete("foo", ""),
            put("a", "b"),
            put("foo", "new"),
        ];
        for request in history {
            apply(&mut model, request).unwrap();
        }
        let hash = |revision, compacted| model.hash_kv(revision, compacted);
        let before = [
            3_305_255_506,
            3_581_052_765,
            846_839_875,
            754_431_853,
            1_401_151_001,
        ];
        assert_eq!(
            [2, 3, 4, 5, 6].map(|revision| hash(revision, -1)),
            before.map(Some)
        );
        let after = [hash(6, 3), hash(5, 4), hash(6, 4)];
        assert_eq!(after, [993_389_179, 903_430_820, 3_383_095_406].map(Some));
        assert_eq!(hash(4, 3), None);
    }
}
