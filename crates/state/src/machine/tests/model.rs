//! Random requests against a naive model that keeps a map per revision. Two members apply the
//! same log: one with every record in memory, one with none and with a slow sweep.

use std::collections::BTreeMap;

use api::pb::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use api::pb::etcdserverpb::response_op::Response;
use api::pb::mvccpb::KeyValue;

use super::*;

type Keys = BTreeMap<Vec<u8>, KeyValue>;

struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }

    fn flip(&mut self, one_in: u64) -> bool {
        self.below(one_in) == 0
    }

    fn key(&mut self) -> Vec<u8> {
        let n = self.below(40);
        if n < 30 {
            format!("key/{n:02}")
        } else {
            format!("{n}")
        }
        .into_bytes()
    }

    fn end(&mut self) -> Vec<u8> {
        match self.below(4) {
            0 | 1 => Vec::new(),
            2 => self.key(),
            _ => vec![0],
        }
    }
}

/// What the store is at each revision, and what the last compaction was.
struct Model {
    history: Vec<Keys>,
    compacted: i64,
    leases: BTreeMap<i64, i64>,
}

/// A run of one request.
struct Run {
    keys: Keys,
    main: i64,
    changed: bool,
}

impl Run {
    fn revision(&self) -> i64 {
        self.main - i64::from(!self.changed)
    }
}

fn inside(keys: &Keys, key: &[u8], end: &[u8]) -> Vec<KeyValue> {
    let is_in = |k: &Vec<u8>| match end {
        [] => k == key,
        [0] => k.as_slice() >= key,
        end => k.as_slice() >= key && k.as_slice() < end,
    };
    keys.iter()
        .filter(|(k, _)| is_in(k))
        .map(|(_, kv)| kv.clone())
        .collect()
}

fn header(revision: i64) -> Option<pb::ResponseHeader> {
    Some(pb::ResponseHeader {
        revision,
        ..Default::default()
    })
}

impl Model {
    fn revision(&self) -> i64 {
        self.history.len() as i64 - 1
    }

    fn newest(&self) -> &Keys {
        self.history.last().unwrap()
    }

    fn range(
        &self,
        request: &pb::RangeRequest,
        now: (&Keys, i64),
    ) -> Result<pb::RangeResponse, Error> {
        let (keys, current) = now;
        let keys = match request.revision {
            asked if asked > current => return Err(Error::FutureRev),
            asked if asked <= 0 || asked == current => keys,
            asked if asked < self.compacted => return Err(Error::Compacted),
            asked => &self.history[asked as usize],
        };
        let mut kvs = inside(keys, &request.key, &request.range_end);
        let mut response = pb::RangeResponse {
            header: header(current),
            count: kvs.len() as i64,
            ..Default::default()
        };
        if request.count_only {
            return Ok(response);
        }
        let filtered = request.min_mod_revision != 0
            || request.max_mod_revision != 0
            || request.min_create_revision != 0
            || request.max_create_revision != 0;
        let limit = usize::try_from(request.limit).unwrap_or(0);
        let in_order =
            request.sort_order == 0 || (request.sort_order == 1 && request.sort_target == 0);
        if limit > 0 && !filtered && in_order {
            kvs.truncate(limit + 1);
        }
        kvs.retain(|kv| {
            let ok = |n: i64, min: i64, max: i64| (min == 0 || n >= min) && (max == 0 || n <= max);
            ok(
                kv.mod_revision,
                request.min_mod_revision,
                request.max_mod_revision,
            ) && ok(
                kv.create_revision,
                request.min_create_revision,
                request.max_create_revision,
            )
        });
        kvs.sort_by(|a, b| {
            let by_target = match request.sort_target {
                1 => a.version.cmp(&b.version),
                2 => a.create_revision.cmp(&b.create_revision),
                3 => a.mod_revision.cmp(&b.mod_revision),
                4 => a.value.cmp(&b.value),
                _ => a.key.cmp(&b.key),
            };
            if request.sort_order == 2 {
                by_target.reverse()
            } else {
                by_target
            }
        });
        if limit > 0 && kvs.len() > limit {
            kvs.truncate(limit);
            response.more = true;
        }
        if request.keys_only {
            for kv in &mut kvs {
                kv.value.clear();
                if request.sort_target != 4 {
                    kv.lease = 0;
                }
            }
        }
        response.kvs = kvs;
        Ok(response)
    }

    fn put(&self, run: &mut Run, put: &pb::PutRequest) -> Result<pb::PutResponse, Error> {
        self.check_put(&run.keys, put)?;
        let before = run.keys.get(&put.key[..]).cloned();
        let kv = before.clone().unwrap_or_default();
        let value = if put.ignore_value {
            kv.value
        } else {
            put.value.clone()
        };
        let lease = if put.ignore_lease {
            kv.lease
        } else {
            put.lease
        };
        let create_revision = if before.is_some() {
            kv.create_revision
        } else {
            run.main
        };
        let new = KeyValue {
            key: put.key.clone(),
            create_revision,
            mod_revision: run.main,
            version: kv.version + 1,
            value,
            lease,
        };
        run.keys.insert(put.key.to_vec(), new);
        run.changed = true;
        let prev_kv = before.filter(|_| put.prev_kv);
        Ok(pb::PutResponse {
            header: header(run.main),
            prev_kv,
        })
    }

    fn check_put(&self, keys: &Keys, put: &pb::PutRequest) -> Result<(), Error> {
        if put.lease != 0 && !self.leases.contains_key(&put.lease) {
            return Err(Error::LeaseNotFound);
        }
        if (put.ignore_value || put.ignore_lease) && !keys.contains_key(&put.key[..]) {
            return Err(Error::KeyNotFound);
        }
        Ok(())
    }

    fn delete(&self, run: &mut Run, request: &pb::DeleteRangeRequest) -> pb::DeleteRangeResponse {
        let before = inside(&run.keys, &request.key, &request.range_end);
        before
            .iter()
            .for_each(|kv| drop(run.keys.remove(&kv.key[..])));
        run.changed |= !before.is_empty();
        let deleted = before.len() as i64;
        let prev_kvs = if request.prev_kv { before } else { Vec::new() };
        pb::DeleteRangeResponse {
            header: header(run.revision()),
            deleted,
            prev_kvs,
        }
    }

    fn compare(&self, compare: &pb::Compare) -> bool {
        let found = inside(self.newest(), &compare.key, &compare.range_end);
        let value = compare.target == CompareTarget::Value as i32;
        if found.is_empty() {
            return !value && holds(compare, &KeyValue::default());
        }
        found.iter().all(|kv| holds(compare, kv))
    }

    fn chosen<'a>(&self, txn: &'a pb::TxnRequest) -> (bool, &'a [pb::RequestOp]) {
        let taken = txn.compare.iter().all(|compare| self.compare(compare));
        (taken, if taken { &txn.success } else { &txn.failure })
    }

    fn check_txn(&self, txn: &pb::TxnRequest) -> Result<(), Error> {
        for op in self.chosen(txn).1 {
            match op.request.as_ref().unwrap() {
                Request::RequestRange(range) if range.revision == 0 => {}
                Request::RequestRange(range) if range.revision > self.revision() => {
                    return Err(Error::FutureRev);
                }
                Request::RequestRange(range) if range.revision < self.compacted => {
                    return Err(Error::Compacted);
                }
                Request::RequestPut(put) => self.check_put(self.newest(), put)?,
                Request::RequestTxn(nested) => self.check_txn(nested)?,
                _ => {}
            }
        }
        Ok(())
    }

    fn txn(&self, run: &mut Run, txn: &pb::TxnRequest, nested: bool) -> pb::TxnResponse {
        let (succeeded, ops) = self.chosen(txn);
        let mut responses = Vec::new();
        for op in ops {
            responses.push(match op.request.as_ref().unwrap() {
                Request::RequestRange(range) => {
                    let now = (&run.keys, run.revision());
                    Response::ResponseRange(self.range(range, now).unwrap())
                }
                Request::RequestPut(put) => Response::ResponsePut(self.put(run, put).unwrap()),
                Request::RequestDeleteRange(delete) => {
                    Response::ResponseDeleteRange(self.delete(run, delete))
                }
                Request::RequestTxn(txn) => Response::ResponseTxn(self.txn(run, txn, true)),
            });
        }
        let wrap = |response| pb::ResponseOp {
            response: Some(response),
        };
        let responses = responses.into_iter().map(wrap).collect();
        let header = if nested {
            header(0)
        } else {
            header(run.revision())
        };
        pb::TxnResponse {
            header,
            succeeded,
            responses,
        }
    }

    fn begin(&self) -> Run {
        Run {
            keys: self.newest().clone(),
            main: self.revision() + 1,
            changed: false,
        }
    }

    fn end(&mut self, run: Run) {
        if run.changed {
            self.history.push(run.keys);
        }
    }

    fn revoke(&mut self, id: i64) -> Result<(), Error> {
        self.leases.remove(&id).ok_or(Error::LeaseNotFound)?;
        let mut run = self.begin();
        let before = run.keys.len();
        run.keys.retain(|_, kv| kv.lease != id);
        run.changed = run.keys.len() < before;
        self.end(run);
        Ok(())
    }
}

fn holds(compare: &pb::Compare, kv: &KeyValue) -> bool {
    let number = |is: i64, wanted: Option<i64>| is.cmp(&wanted.unwrap_or(0));
    let union = compare.target_union.clone();
    let ordering = match (compare.target, union) {
        (0, Some(TargetUnion::Version(n))) => number(kv.version, Some(n)),
        (0, _) => number(kv.version, None),
        (1, Some(TargetUnion::CreateRevision(n))) => number(kv.create_revision, Some(n)),
        (1, _) => number(kv.create_revision, None),
        (2, Some(TargetUnion::ModRevision(n))) => number(kv.mod_revision, Some(n)),
        (2, _) => number(kv.mod_revision, None),
        (3, Some(TargetUnion::Value(value))) => kv.value.cmp(&value),
        (3, _) => kv.value.cmp(&bytes::Bytes::new()),
        (4, Some(TargetUnion::Lease(n))) => number(kv.lease, Some(n)),
        (4, _) => number(kv.lease, None),
        _ => std::cmp::Ordering::Equal,
    };
    match CompareResult::try_from(compare.result) {
        Ok(CompareResult::Equal) => ordering.is_eq(),
        Ok(CompareResult::NotEqual) => ordering.is_ne(),
        Ok(CompareResult::Greater) => ordering.is_gt(),
        Ok(CompareResult::Less) => ordering.is_lt(),
        Err(_) => true,
    }
}

fn any_range(random: &mut Random, revision: i64) -> pb::RangeRequest {
    let any = |random: &mut Random| match random.below(4) {
        0 => random.below(revision as u64 + 2) as i64,
        _ => 0,
    };
    pb::RangeRequest {
        key: random.key().into(),
        range_end: random.end().into(),
        limit: if random.flip(2) {
            random.below(8) as i64
        } else {
            0
        },
        revision: match random.below(3) {
            0 => random.below(revision as u64 + 3) as i64 - 1,
            _ => 0,
        },
        sort_order: random.below(3) as i32,
        sort_target: if random.flip(2) {
            random.below(5) as i32
        } else {
            0
        },
        keys_only: random.flip(4),
        count_only: random.flip(6),
        min_mod_revision: any(random) * i64::from(random.flip(3)),
        max_mod_revision: any(random) * i64::from(random.flip(3)),
        min_create_revision: any(random) * i64::from(random.flip(3)),
        max_create_revision: any(random) * i64::from(random.flip(3)),
        ..Default::default()
    }
}

fn any_put(random: &mut Random) -> pb::PutRequest {
    let ignore_value = random.flip(8);
    let ignore_lease = random.flip(8);
    let value = if ignore_value {
        0
    } else {
        random.below(40) as usize
    };
    pb::PutRequest {
        key: random.key().into(),
        value: vec![b'a' + value as u8 % 26; value].into(),
        lease: if ignore_lease || random.flip(2) {
            0
        } else {
            random.below(4) as i64
        },
        prev_kv: random.flip(3),
        ignore_value,
        ignore_lease,
    }
}

fn any_delete(random: &mut Random) -> pb::DeleteRangeRequest {
    let (key, range_end) = (random.key().into(), random.end().into());
    pb::DeleteRangeRequest {
        key,
        range_end,
        prev_kv: random.flip(2),
    }
}

fn any_compare(random: &mut Random, revision: i64) -> pb::Compare {
    let number = random.below(revision as u64 + 2) as i64;
    pb::Compare {
        result: random.below(5) as i32,
        target: random.below(6) as i32,
        key: random.key().into(),
        range_end: if random.flip(3) {
            random.end().into()
        } else {
            Vec::new().into()
        },
        target_union: match random.below(6) {
            0 => Some(TargetUnion::Version(number % 4)),
            1 => Some(TargetUnion::CreateRevision(number)),
            2 => Some(TargetUnion::ModRevision(number)),
            3 => Some(TargetUnion::Value(vec![b'a'; 3].into())),
            4 => Some(TargetUnion::Lease(number % 4)),
            _ => None,
        },
    }
}

fn any_txn(random: &mut Random, revision: i64, depth: u64) -> pb::TxnRequest {
    let ops = |random: &mut Random| -> Vec<pb::RequestOp> {
        let op = |random: &mut Random| match random.below(if depth > 0 { 8 } else { 6 }) {
            0 | 1 => Request::RequestRange(any_range(random, revision)),
            2 | 3 => Request::RequestPut(any_put(random)),
            4 | 5 => Request::RequestDeleteRange(any_delete(random)),
            _ => Request::RequestTxn(any_txn(random, revision, depth - 1)),
        };
        let count = random.below(4);
        (0..count)
            .map(|_| pb::RequestOp {
                request: Some(op(random)),
            })
            .collect()
    };
    let (success, failure) = (ops(random), ops(random));
    let compare = (0..random.below(3))
        .map(|_| any_compare(random, revision))
        .collect();
    pb::TxnRequest {
        compare,
        success,
        failure,
    }
}

/// Two members with one log.
struct Pair {
    rigs: [Rig; 2],
}

fn message<M: Message + Default>(reply: &Reply) -> M {
    let mut out = Vec::new();
    reply.encode(&crate::reply::Header::default(), &mut out);
    M::decode(&out[..]).unwrap()
}

impl Pair {
    fn apply(&mut self, request: &pb::InternalRaftRequest) -> Result<Reply, Error> {
        let [a, b] = &mut self.rigs;
        let (first, second) = (a.apply(request.clone()), b.apply(request.clone()));
        assert_eq!(first, second);
        first
    }

    fn range(&self, request: &pb::RangeRequest) -> Result<pb::RangeResponse, Error> {
        let (first, second) = (self.rigs[0].range(request), self.rigs[1].range(request));
        assert_eq!(first, second, "{request:?}");
        first
    }

    fn reopen(self, which: usize, commit: bool, log: &[Entry]) -> Pair {
        let [a, b] = self.rigs;
        let mut rigs = [a, b];
        rigs = rigs.map(|rig| rig);
        let [a, b] = rigs;
        let again = |rig: Rig| {
            let mut rig = rig.reopen(commit);
            let applied = rig.machine.applied().0.0 as usize;
            for entry in &log[applied..] {
                rig.machine.apply(entry).unwrap();
            }
            rig.index = log.len() as u64;
            rig
        };
        match which {
            0 => Pair {
                rigs: [again(a), b],
            },
            _ => Pair {
                rigs: [a, again(b)],
            },
        }
    }
}

/// Equal on both members, except in an empty store: there what is compacted but not yet deleted
/// counts, by etcd's rule.
fn check_hashes(pair: &Pair) {
    if pair.rigs[0].view.keys() == 0 {
        return;
    }
    let hash = |rig: &Rig| rig.view.hash_kv(0).unwrap();
    let (a, b) = (hash(&pair.rigs[0]), hash(&pair.rigs[1]));
    // A stored hash of the last compaction may be on one member only.
    if a.0.compact_revision == b.0.compact_revision {
        assert_eq!(a, b);
    }
}

fn step(pair: &mut Pair, model: &mut Model, random: &mut Random) -> pb::InternalRaftRequest {
    let mut request = pb::InternalRaftRequest::default();
    let revision = model.revision();
    match random.below(16) {
        0..=4 => {
            let put = any_put(random);
            request.put = Some(put.clone());
            let mut run = model.begin();
            let wanted = model.put(&mut run, &put);
            let reply = pair.apply(&request);
            assert_eq!(reply.map(|reply| message(&reply)), wanted, "{put:?}");
            model.end(run);
        }
        5 | 6 => {
            let delete = any_delete(random);
            request.delete_range = Some(delete.clone());
            let mut run = model.begin();
            let wanted = model.delete(&mut run, &delete);
            let reply = pair.apply(&request).unwrap();
            assert_eq!(message::<pb::DeleteRangeResponse>(&reply), wanted);
            model.end(run);
        }
        7..=11 => {
            let txn = any_txn(random, revision, 2);
            if api::validate::txn(&txn, 128).is_err() {
                request.alarm = Some(pb::AlarmRequest::default());
                pair.apply(&request).unwrap();
                return request;
            }
            request.txn = Some(txn.clone());
            let wanted = model.check_txn(&txn);
            let reply = pair.apply(&request);
            match wanted {
                Err(error) => assert_eq!(reply, Err(error)),
                Ok(()) => {
                    let mut run = model.begin();
                    let wanted = model.txn(&mut run, &txn, false);
                    assert_eq!(
                        message::<pb::TxnResponse>(&reply.unwrap()),
                        wanted,
                        "{txn:?}"
                    );
                    model.end(run);
                }
            }
        }
        12 => {
            let id = random.below(4) as i64;
            request.lease_grant = Some(pb::LeaseGrantRequest { id, ttl: 100 });
            let wanted = match id {
                0 => Err(Error::LeaseNotFound),
                id if model.leases.contains_key(&id) => Err(Error::LeaseExist),
                _ => Ok(()),
            };
            assert_eq!(pair.apply(&request).map(drop), wanted);
            if wanted.is_ok() {
                model.leases.insert(id, 100);
            }
        }
        13 => {
            let id = random.below(4) as i64;
            request.lease_revoke = Some(pb::LeaseRevokeRequest { id });
            let wanted = model.revoke(id);
            assert_eq!(pair.apply(&request).map(drop), wanted);
        }
        _ => {
            let asked = random.below(revision as u64 + 2) as i64;
            let compaction = pb::CompactionRequest {
                revision: asked,
                physical: false,
            };
            request.compaction = Some(compaction);
            let wanted = match asked {
                asked if asked <= model.compacted => Err(Error::Compacted),
                asked if asked > revision => Err(Error::FutureRev),
                _ => Ok(()),
            };
            assert_eq!(pair.apply(&request).map(drop), wanted);
            if wanted.is_ok() {
                model.compacted = asked;
            }
        }
    }
    request
}

fn run(seed: u64) {
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let small = Config {
        value_budget: 0,
        compaction_batch: 7,
        ..Config::default()
    };
    let open = |config| Rig::open(tempfile::tempdir().unwrap(), config);
    let mut pair = Pair {
        rigs: [open(Config::default()), open(small)],
    };
    let mut model = Model {
        history: vec![Keys::new(), Keys::new()],
        compacted: -1,
        leases: BTreeMap::new(),
    };
    let mut log = Vec::new();
    for _ in 0..300 {
        let request = step(&mut pair, &mut model, &mut random);
        let index = pair.rigs[0].index;
        log.push(Entry {
            kind: EntryKind::Normal,
            term: Term(1),
            index: LogIndex(index),
            data: request.encode_to_vec().into(),
        });
        assert_eq!(pair.rigs[0].view.revision(), model.revision());
        assert_eq!(pair.rigs[1].view.keys(), model.newest().len() as u64);
        for _ in 0..3 {
            let range = any_range(&mut random, model.revision());
            let wanted = model.range(&range, (model.newest(), model.revision()));
            assert_eq!(pair.range(&range), wanted, "{range:?}");
        }
        match random.below(10) {
            0 => pair.rigs[0].sweep(),
            1 | 2 => drop(pair.rigs[1].sweep.step().unwrap()),
            3 => drop(pair.rigs[0].committer.commit().unwrap()),
            4 if random.flip(3) => drop(pair.rigs[1].committer.commit().unwrap()),
            5 if random.flip(3) => check_hashes(&pair),
            6 if random.flip(3) => {
                let which = random.below(2) as usize;
                pair = pair.reopen(which, random.flip(2), &log);
            }
            _ => {}
        }
    }
    pair.rigs.iter_mut().for_each(Rig::sweep);
    check_hashes(&pair);
}

#[test]
fn random_requests_agree_with_a_naive_model() {
    (1..=25).for_each(run);
}
