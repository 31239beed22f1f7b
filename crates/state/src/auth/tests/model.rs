//! Decisions about random requests of random users, against a model that looks at every piece of a
//! range by itself.
//!
//! `AUTH_CASES` sets how many decisions are made, `AUTH_SEED` where the random numbers begin.

use std::collections::{BTreeMap, BTreeSet};

use api::Error;
use api::pb::authpb::{Permission, Role, User};
use api::pb::etcdserverpb as pb;
use api::pb::etcdserverpb::request_op::Request;

use crate::auth::{Access, Account, Auth, Authorised, Caller};
use crate::command::Command;
use crate::lease::{Lease, Leases};

/// Decisions in CI; the nightly run makes ten million.
const CASES: u64 = 100_000;
/// Decisions about one set of users.
const CASES_PER_WORLD: u64 = 200;

struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// Few letters, so that ranges touch, meet and hide each other; zeros and the last byte, since
    /// the order of keys is about them.
    fn key(&mut self) -> Vec<u8> {
        let length = 1 + self.below(3) as usize;
        let letters = [0, b'a', b'b', b'c', 0xff];
        (0..length)
            .map(|_| letters[self.below(letters.len() as u64) as usize])
            .collect()
    }

    fn end(&mut self) -> Vec<u8> {
        match self.below(10) {
            0..4 => Vec::new(),
            4 => vec![0],
            _ => self.key(),
        }
    }

    fn name(&mut self, prefix: &str, n: u64) -> String {
        format!("{prefix}{}", self.below(n))
    }
}

/// A range of keys with plain ends; `None` is the end of all keys.
type Piece = (Vec<u8>, Option<Vec<u8>>);

fn piece(key: &[u8], end: &[u8]) -> Piece {
    let end = match end {
        [] => Some([key, &[0]].concat()),
        [0] => None,
        end => Some(end.to_vec()),
    };
    (key.to_vec(), end)
}

fn contains((begin, end): &Piece, key: &[u8]) -> bool {
    key >= &begin[..] && end.as_ref().is_none_or(|end| key < &end[..])
}

/// What the model knows: roles are lists of pieces, users lists of roles.
#[derive(Default)]
struct Model {
    revision: u64,
    reads: BTreeMap<String, Vec<Piece>>,
    writes: BTreeMap<String, Vec<Piece>>,
    users: BTreeMap<String, BTreeSet<String>>,
    leases: BTreeMap<i64, Vec<Vec<u8>>>,
}

impl Model {
    fn is_root(&self, user: &str) -> bool {
        self.users
            .get(user)
            .is_some_and(|roles| roles.contains("root"))
    }

    /// Between two neighbouring ends of ranges all keys fare alike, so the first speaks for all.
    fn covers(&self, user: &str, write: bool, wanted: &Piece) -> bool {
        let by_role = if write { &self.writes } else { &self.reads };
        let roles = self.users.get(user).into_iter().flatten();
        let granted: Vec<&Piece> = roles
            .filter_map(|role| by_role.get(role))
            .flatten()
            .collect();
        let begins = granted.iter().map(|(begin, _)| begin);
        let ends = granted.iter().filter_map(|(_, end)| end.as_ref());
        let probes = begins.chain(ends).filter(|probe| contains(wanted, probe));
        let mut probes = probes.chain([&wanted.0]);
        probes.all(|probe| granted.iter().any(|piece| contains(piece, probe)))
    }

    fn check(&self, caller: Caller<'_>, write: bool, wanted: &Piece) -> Result<(), Error> {
        match caller.revision {
            Some(0) => return Err(Error::UserEmpty),
            Some(revision) if revision < self.revision => return Err(Error::AuthOldRevision),
            _ => {}
        }
        match self.is_root(caller.user) || self.covers(caller.user, write, wanted) {
            true => Ok(()),
            false => Err(Error::PermissionDenied),
        }
    }

    fn lease(&self, caller: Caller<'_>, id: i64) -> Result<(), Error> {
        if self.is_root(caller.user) {
            return Ok(());
        }
        let mut keys = self.leases.get(&id).into_iter().flatten();
        keys.try_for_each(|key| self.check(caller, true, &piece(key, &[])))
    }

    /// The first refusal in etcd's order.
    fn op(&self, caller: Caller<'_>, request: &Request) -> Result<(), Error> {
        match request {
            Request::RequestRange(r) => self.check(caller, false, &piece(&r.key, &r.range_end)),
            Request::RequestPut(put) => {
                let key = piece(&put.key, &[]);
                self.check(caller, true, &key)?;
                self.lease(caller, put.lease)?;
                match put.prev_kv {
                    true => self.check(caller, false, &key),
                    false => Ok(()),
                }
            }
            Request::RequestDeleteRange(delete) => {
                let keys = piece(&delete.key, &delete.range_end);
                let write = self.check(caller, true, &keys);
                match delete.prev_kv {
                    true => write.and(self.check(caller, false, &keys)),
                    false => write,
                }
            }
            Request::RequestTxn(txn) => {
                for compare in &txn.compare {
                    let keys = piece(&compare.key, &compare.range_end);
                    self.check(caller, false, &keys)?;
                }
                let ops = txn.success.iter().chain(&txn.failure);
                let mut requests = ops.filter_map(|op| op.request.as_ref());
                requests.try_for_each(|request| self.op(caller, request))
            }
        }
    }
}

/// The same users for both, and leases with keys.
fn world(random: &mut Random) -> (Auth, Leases, Model) {
    let mut model = Model {
        revision: 2 + random.below(3),
        ..Model::default()
    };
    let mut auth = Auth {
        enabled: true,
        revision: model.revision,
        ..Auth::default()
    };
    for n in 0..3 {
        let name = format!("role{n}");
        let mut held: Vec<Permission> = Vec::new();
        for _ in 0..random.below(6) {
            let (key, end) = (random.key(), random.end());
            if !api::validate::is_permission_range(&key, &end) {
                continue;
            }
            // 7 is no type: it grants nothing.
            let kind = [0, 1, 2, 2, 7][random.below(5) as usize];
            let keys = piece(&key, &end);
            if kind == 0 || kind == 2 {
                model
                    .reads
                    .entry(name.clone())
                    .or_default()
                    .push(keys.clone());
            }
            if kind == 1 || kind == 2 {
                model.writes.entry(name.clone()).or_default().push(keys);
            }
            held.push(Permission {
                perm_type: kind,
                key: key.into(),
                range_end: end.into(),
            });
        }
        held.sort_by(|a, b| a.key.cmp(&b.key));
        let role = Role {
            name: name.clone().into(),
            key_permission: held,
        };
        auth.roles.insert(name, role);
    }
    add_users(random, &mut auth, &mut model);
    let mut leases = Leases::default();
    for id in 1..4 {
        let keys: Vec<Vec<u8>> = (0..random.below(4)).map(|_| random.key()).collect();
        let lease = Lease {
            keys: keys.iter().map(|key| key.clone().into()).collect(),
            ..Lease::default()
        };
        leases.by_id.insert(id, lease);
        model.leases.insert(id, lease_keys(keys));
    }
    (auth, leases, model)
}

fn add_users(random: &mut Random, auth: &mut Auth, model: &mut Model) {
    for n in 0..4 {
        let name = format!("user{n}");
        let mut roles: BTreeSet<String> = BTreeSet::new();
        for _ in 0..random.below(4) {
            roles.insert(random.name("role", 4));
        }
        if random.chance(10) {
            roles.insert("root".into());
        }
        let user = User {
            name: name.clone().into(),
            roles: roles.iter().cloned().collect(),
            ..User::default()
        };
        let permissions = Default::default();
        auth.users
            .insert(name.clone(), Account { user, permissions });
        model.users.insert(name, roles);
    }
}

/// In the order of the keys, in which they are looked at.
fn lease_keys(mut keys: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    keys.sort();
    keys
}

/// A range that is not upside down: those find no key anywhere.
fn range(random: &mut Random) -> (Vec<u8>, Vec<u8>) {
    loop {
        let (key, end) = (random.key(), random.end());
        if end.is_empty() || end == [0] || key < end {
            return (key, end);
        }
    }
}

fn request(random: &mut Random, depth: u64) -> Request {
    let (key, end) = range(random);
    match random.below(if depth < 3 { 5 } else { 3 }) {
        0 => Request::RequestRange(pb::RangeRequest {
            key: key.into(),
            range_end: end.into(),
            ..Default::default()
        }),
        1 => Request::RequestPut(pb::PutRequest {
            key: key.into(),
            lease: random.below(5) as i64,
            prev_kv: random.chance(50),
            ..Default::default()
        }),
        2 => Request::RequestDeleteRange(pb::DeleteRangeRequest {
            key: key.into(),
            range_end: end.into(),
            prev_kv: random.chance(50),
        }),
        _ => Request::RequestTxn(txn(random, depth)),
    }
}

fn txn(random: &mut Random, depth: u64) -> pb::TxnRequest {
    let ops = |random: &mut Random| {
        let count = random.below(3);
        let op = |request| pb::RequestOp {
            request: Some(request),
        };
        (0..count).map(|_| op(request(random, depth + 1))).collect()
    };
    let compares = random.below(3);
    let compare = (0..compares)
        .map(|_| {
            let (key, end) = range(random);
            pb::Compare {
                key: key.into(),
                range_end: end.into(),
                ..Default::default()
            }
        })
        .collect();
    pb::TxnRequest {
        compare,
        success: ops(random),
        failure: ops(random),
    }
}

fn command(request: Request) -> Command {
    match request {
        Request::RequestRange(range) => Command::Range(range),
        Request::RequestPut(put) => Command::Put(put),
        Request::RequestDeleteRange(delete) => Command::DeleteRange(delete),
        Request::RequestTxn(txn) => Command::Txn(txn),
    }
}

fn variable(name: &str, default: u64) -> u64 {
    let text = std::env::var(name);
    text.map_or(default, |text| text.parse().expect("a number"))
}

#[test]
fn decisions_are_those_of_the_model() {
    let (cases, seed) = (variable("AUTH_CASES", CASES), variable("AUTH_SEED", 1));
    let mut outcomes: BTreeMap<Option<&str>, u64> = BTreeMap::new();
    for number in 0..cases.div_ceil(CASES_PER_WORLD) {
        // An odd multiplier spreads the seeds.
        let mut random = Random((seed + number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let (auth, leases, model) = world(&mut random);
        for _ in 0..CASES_PER_WORLD {
            let user = random.name("user", 5);
            let caller = Caller {
                user: &user,
                revision: match random.below(20) {
                    0 => Some(0),
                    1 => Some(model.revision - 1),
                    2 => None,
                    _ => Some(model.revision),
                },
            };
            let request = request(&mut random, 0);
            let wanted = model.op(caller, &request);
            let access = Access {
                auth: &auth,
                leases: &leases,
                caller,
            };
            let came = Authorised::new(access, command(request.clone())).map(drop);
            assert_eq!(came, wanted, "world {number}: {user} asks {request:?}");
            *outcomes.entry(came.err().map(Error::name)).or_default() += 1;
        }
    }
    // Neither verdict is rare, or nothing would have been tried.
    let count = |name| outcomes.get(&name).copied().unwrap_or_default();
    for verdict in [None, Some("PermissionDenied")] {
        assert!(count(verdict) > cases / 10, "{outcomes:?}");
    }
    assert!(count(Some("UserEmpty")) > 0 && count(Some("AuthOldRevision")) > 0);
}
