//! Two proxies that own keys, and everything that their clients were told.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use api::pb::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use api::pb::etcdserverpb::request_op::Request as Op;
use api::pb::etcdserverpb::response_op::Response;
use api::pb::etcdserverpb::{
    Compare, DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest,
};
use api::pb::mvccpb::KeyValue;
use client::stub::KvClient;
use e2e::faults::history::Version;
use e2e::faults::linear::{Request, Step, Verdict, check};
use e2e::kv::Kv;
use e2e::random::Random;
use e2e::{binary, is_ours};
use tonic::Status;
use tonic::transport::Channel;

use crate::process::{Below, LIMIT, PAUSE, Proxy, member};

const FLAG: &str = "--experimental-leasing-prefix=_leases/";
/// Few enough to be written by several, many enough to be owned for a while.
const KEYS: u64 = 8;
const CLIENTS: u64 = 6;
/// How long the clients work, and how many requests there are at least, and before the member is
/// killed.
const WORK: Duration = Duration::from_secs(10);
const REQUESTS: usize = 3000;
const BEFORE: usize = 1000;
/// Of how many writes one is given up soon, so that nobody knows what becomes of it.
const GIVEN_UP: u64 = 4;
/// Steps after which the search for an order is given up.
const STEPS_MAX: u64 = 20_000_000;

/// What was asked and answered, by key.
#[derive(Default)]
struct Told {
    requests: HashMap<u64, Vec<Request>>,
    /// Mod revisions of values.
    revisions: HashMap<u64, i64>,
    failures: usize,
}

fn count(told: &Mutex<Told>) -> usize {
    let told = told.lock().expect("no panic");
    told.requests.values().map(Vec::len).sum()
}

struct Client {
    kv: KvClient<Channel>,
    number: u64,
    random: Random,
    told: Arc<Mutex<Told>>,
    begin: Instant,
    /// Values that were written; with the number of the client each is the only one.
    written: u64,
}

fn name(key: u64) -> bytes::Bytes {
    format!("k{key}").into()
}

fn version(kv: Option<&KeyValue>) -> Option<Version> {
    let kv = kv?;
    let value = std::str::from_utf8(&kv.value).expect("text").parse();
    Some(Version {
        value: value.expect("a number"),
        mod_revision: kv.mod_revision,
    })
}

impl Client {
    async fn run(mut self) {
        while self.begin.elapsed() < WORK || count(&self.told) < REQUESTS {
            // Each proxy writes its own keys as a rule.
            let half = KEYS / 2;
            let is_own = self.random.below(8) > 0;
            let home = (self.number + u64::from(!is_own)) % 2;
            let key = home * half + self.random.below(half);
            match self.random.below(200) {
                0 => self.put(key).await,
                1 => self.delete(key).await,
                2 => self.swap(key).await,
                _ => self.get(key).await,
            }
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.begin.elapsed().as_nanos()).expect("a short run")
    }

    fn value(&mut self) -> u64 {
        self.written += 1;
        self.written * CLIENTS + self.number
    }

    /// Notes what came of a request; `unknown` when nobody knows.
    fn note(&self, key: u64, call: u64, known: Result<Step, Status>, unknown: Option<Step>) {
        let end = self.now();
        let mut told = self.told.lock().expect("no panic");
        let (step, end) = match known {
            Ok(step) => (Some(step), Some(end)),
            Err(_) => {
                told.failures += 1;
                (unknown, None)
            }
        };
        if let Some(step) = step {
            let requests = told.requests.entry(key).or_default();
            requests.push(Request { call, end, step });
        }
    }

    fn saw(&self, version: Option<Version>) {
        if let Some(version) = version {
            let mut told = self.told.lock().expect("no panic");
            let known = told.revisions.insert(version.value, version.mod_revision);
            assert!(known.is_none_or(|known| known == version.mod_revision));
        }
    }

    async fn get(&mut self, key: u64) {
        let call = self.now();
        let request = RangeRequest {
            key: name(key),
            ..RangeRequest::default()
        };
        let answer = self.kv.range(request).await;
        let seen = answer.map(|answer| version(answer.into_inner().kvs.first()));
        if let Ok(seen) = seen {
            self.saw(seen);
        }
        self.note(key, call, seen.map(Step::Saw), None);
    }

    async fn put(&mut self, key: u64) {
        let (value, call) = (self.value(), self.now());
        let request = PutRequest {
            key: name(key),
            value: value.to_string().into(),
            ..PutRequest::default()
        };
        let limit = match self.random.below(GIVEN_UP) {
            0 => Duration::from_micros(self.random.below(3000)),
            _ => LIMIT,
        };
        let answer = tokio::time::timeout(limit, self.kv.put(request)).await;
        let answer = answer.unwrap_or_else(|_| Err(Status::cancelled("given up")));
        let done = answer.map(|answer| {
            let mod_revision = answer.into_inner().header.expect("a header").revision;
            self.saw(Some(Version {
                value,
                mod_revision,
            }));
            Step::Put(value)
        });
        self.note(key, call, done, Some(Step::Put(value)));
    }

    async fn delete(&mut self, key: u64) {
        let call = self.now();
        let request = DeleteRangeRequest {
            key: name(key),
            prev_kv: true,
            ..DeleteRangeRequest::default()
        };
        let answer = self.kv.delete_range(request).await;
        let done = answer.map(|answer| {
            let gone = version(answer.into_inner().prev_kvs.first());
            self.saw(gone);
            Step::Deleted(gone)
        });
        self.note(key, call, done, Some(Step::MayDelete));
    }

    /// Writes if the key is as it was a moment ago.
    async fn swap(&mut self, key: u64) {
        let read = RangeRequest {
            key: name(key),
            ..RangeRequest::default()
        };
        let Ok(before) = self.kv.range(read.clone()).await else {
            return;
        };
        let before = version(before.into_inner().kvs.first());
        let expected = before.map_or(0, |version| version.mod_revision);
        let (value, call) = (self.value(), self.now());
        let op = |request| RequestOp {
            request: Some(request),
        };
        let put = PutRequest {
            key: name(key),
            value: value.to_string().into(),
            ..PutRequest::default()
        };
        let request = TxnRequest {
            compare: vec![Compare {
                result: CompareResult::Equal.into(),
                target: CompareTarget::Mod.into(),
                key: name(key),
                target_union: Some(TargetUnion::ModRevision(expected)),
                ..Compare::default()
            }],
            success: vec![op(Op::RequestPut(put))],
            failure: vec![op(Op::RequestRange(read))],
        };
        let answer = self.kv.txn(request).await.map(tonic::Response::into_inner);
        let done = answer.map(|answer| {
            if answer.succeeded {
                let mod_revision = answer.header.expect("a header").revision;
                self.saw(Some(Version {
                    value,
                    mod_revision,
                }));
                return Step::Swapped { expected, value };
            }
            let response = answer.responses.into_iter().next();
            let seen = match response.and_then(|response| response.response) {
                Some(Response::ResponseRange(range)) => version(range.kvs.first()),
                other => panic!("{other:?}"),
            };
            self.saw(seen);
            Step::Refused { expected, seen }
        });
        self.note(key, call, done, Some(Step::MaySwap { expected, value }));
    }
}

/// Not on Go's proxy, which writes twice what nobody owns.
#[tokio::test]
async fn what_owners_answer_is_linearizable() {
    if !is_ours(&binary().expect("a binary")).expect("a version") {
        return;
    }
    let mut member = member(Below::Same);
    let proxies = [
        Proxy::start(member.address(), &[FLAG]).await,
        Proxy::start(member.address(), &[FLAG]).await,
    ];
    let told = Arc::<Mutex<Told>>::default();
    let begin = Instant::now();
    let clients = (0..CLIENTS).map(|number| {
        let kv: Kv = proxies[usize::from(number % 2 > 0)].kv();
        let client = Client {
            kv: KvClient::new(kv.channel()),
            number,
            random: Random::new(number + 1),
            told: Arc::clone(&told),
            begin,
            written: 0,
        };
        tokio::spawn(client.run())
    });
    let clients: Vec<_> = clients.collect();
    while count(&told) < BEFORE {
        assert!(begin.elapsed() < LIMIT, "{} requests", count(&told));
        tokio::time::sleep(PAUSE).await;
    }
    member.kill().expect("it runs");
    member.restart().expect("it starts again");
    for client in clients {
        client.await.expect("no panic");
    }
    println!("{} requests", count(&told));
    let told = told.lock().expect("no panic");
    println!("{} without an answer", told.failures);
    assert_eq!(told.requests.len() as u64, KEYS);
    for (key, requests) in &told.requests {
        let mut requests = requests.clone();
        requests.sort_unstable_by_key(|request| request.call);
        let verdict = check(&requests, &told.revisions, STEPS_MAX);
        assert_eq!(verdict, Verdict::Right, "k{key}");
    }
}
