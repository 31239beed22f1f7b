//! The steady load: sessions at every endpoint, each asking one request after the other.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use api::pb::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use api::pb::etcdserverpb::request_op::Request;
use api::pb::etcdserverpb::response_op::Response;
use api::pb::etcdserverpb::{
    Compare, DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, ResponseOp, TxnRequest,
};
use api::pb::mvccpb::KeyValue;
use bytes::Bytes;
use client::stub::KvClient;
use tonic::Status;

use super::history::{Answer, Ask, History, Key, Op, Said, Value, Version};
use crate::Error;
use crate::kv::{Kv, revision, said};
use crate::random::Random;

/// Below it stand the keys of the load.
pub(super) const PREFIX: &str = "load/";
const PREFIX_END: &str = "load0";
/// How long a session waits for an answer; then it does not know.
const LIMIT: Duration = Duration::from_secs(3);
/// Mean pause of a session between two requests.
const PAUSE: Duration = Duration::from_millis(16);
/// The same after an error.
const PAUSE_AFTER_ERROR: Duration = Duration::from_millis(100);
/// Keys that sessions fight for at a time.
const HOT_KEYS: u64 = 6;
/// How long they do, in microseconds; then come other keys.
const GENERATION: u64 = 3_000_000;
/// Sessions per endpoint.
pub(super) const SESSIONS: usize = 2;

/// The sessions at work.
pub(super) struct Load {
    pub(super) history: Arc<History>,
    stopping: Arc<AtomicBool>,
    sessions: Vec<tokio::task::JoinHandle<Result<(), Error>>>,
}

impl Load {
    pub(super) fn start(endpoints: &[SocketAddr], seed: u64) -> Load {
        let history = Arc::new(History::default());
        let stopping = Arc::new(AtomicBool::new(false));
        let mut sessions = Vec::new();
        for number in 0..endpoints.len() * SESSIONS {
            let endpoint = number % endpoints.len();
            let session = Session {
                number,
                endpoint,
                kv: Kv::to(endpoints[endpoint]),
                history: history.clone(),
                random: Random::new(seed ^ (number as u64 + 1) << 32),
                values: 0,
                seen: HashMap::new(),
            };
            sessions.push(tokio::spawn(session.run(stopping.clone())));
        }
        Load {
            history,
            stopping,
            sessions,
        }
    }

    /// Lets every session end its request.
    ///
    /// # Errors
    /// A session got an answer that makes no sense.
    pub(super) async fn stop(self) -> Result<Arc<History>, Error> {
        self.stopping.store(true, Ordering::Release);
        for session in self.sessions {
            session.await.map_err(|error| Error(error.to_string()))??;
        }
        Ok(self.history)
    }
}

struct Session {
    number: usize,
    endpoint: usize,
    kv: Kv,
    history: Arc<History>,
    random: Random,
    /// Values that it made so far.
    values: u64,
    /// Mod revisions that it last saw.
    seen: HashMap<Key, i64>,
}

impl Session {
    async fn run(mut self, stopping: Arc<AtomicBool>) -> Result<(), Error> {
        while !stopping.load(Ordering::Acquire) {
            let call = self.history.now();
            let ask = self.choose(call);
            let answered = tokio::time::timeout(LIMIT, perform(&self.kv, &ask)).await;
            let answer = match answered {
                Ok(Ok((revision, said))) => Some(Answer {
                    at: self.history.now(),
                    revision,
                    said,
                }),
                Ok(Err(Failure::Nonsense(error))) => return Err(error),
                Ok(Err(Failure::Refused(status))) => {
                    self.history.count_failure(reason(&status));
                    None
                }
                Err(_) => {
                    let kind = if ask.writes() { "write" } else { "read" };
                    self.history.count_failure(format!("no answer to a {kind}"));
                    None
                }
            };
            self.remember(&ask, answer.as_ref());
            let (session, endpoint) = (self.number, self.endpoint);
            let pause = if answer.is_some() {
                PAUSE
            } else {
                PAUSE_AFTER_ERROR
            };
            self.history.push(Op {
                session,
                endpoint,
                call,
                ask,
                answer,
            });
            let pause = pause.as_micros() as u64;
            let pause = pause / 2 + self.random.below(pause);
            tokio::time::sleep(Duration::from_micros(pause)).await;
        }
        Ok(())
    }

    fn choose(&mut self, now: u64) -> Ask {
        let generation = now / GENERATION * HOT_KEYS;
        let hot = |random: &mut Random| (generation + random.below(HOT_KEYS)) as Key;
        let key = hot(&mut self.random);
        match self.random.below(100) {
            0..30 => Ask::Put {
                key,
                value: self.value(),
            },
            30..58 => Ask::Get { key },
            58..68 => Ask::Local { key },
            68..84 => Ask::Swap {
                key,
                expected: self.seen.get(&key).copied().unwrap_or(0),
                value: self.value(),
            },
            84..91 => {
                let other = (u64::from(key) - generation + 1) % HOT_KEYS + generation;
                Ask::Both {
                    keys: [key, other as Key],
                    value: self.value(),
                }
            }
            91..95 => Ask::Delete { key },
            _ => Ask::All,
        }
    }

    /// A value that nobody else puts.
    fn value(&mut self) -> Value {
        self.values += 1;
        (self.number as u64) << 32 | self.values
    }

    fn remember(&mut self, ask: &Ask, answer: Option<&Answer>) {
        let Some(answer) = answer else { return };
        let now = match (&answer.said, ask) {
            (Said::Written, ask) => {
                let keys = ask.puts().map_or(Vec::new(), |(keys, _)| keys);
                self.seen
                    .extend(keys.into_iter().map(|key| (key, answer.revision)));
                return;
            }
            (Said::Seen(version), Ask::Get { .. } | Ask::Local { .. } | Ask::Swap { .. }) => {
                version.map_or(0, |version| version.mod_revision)
            }
            (Said::Deleted(_), _) => 0,
            _ => return,
        };
        if let Ask::Get { key } | Ask::Local { key } | Ask::Swap { key, .. } | Ask::Delete { key } =
            ask
        {
            self.seen.insert(*key, now);
        }
    }
}

/// Why there is no answer.
enum Failure {
    /// An error, after which the request may have been done nevertheless.
    Refused(Status),
    /// No server may say that.
    Nonsense(Error),
}

/// An error in few words.
fn reason(status: &Status) -> String {
    // What the transport says has addresses and numbers in it.
    let is_etcds = status.message().starts_with("etcdserver");
    match is_etcds {
        true => status.message().to_owned(),
        false => format!("{:?}", status.code()),
    }
}

async fn perform(kv: &Kv, ask: &Ask) -> Result<(i64, Said), Failure> {
    let refused = Failure::Refused;
    match ask {
        Ask::Put { key, value } => {
            let revision = kv.put_request(put(*key, *value)).await.map_err(refused)?;
            Ok((revision, Said::Written))
        }
        Ask::Get { key } | Ask::Local { key } => {
            let serializable = matches!(ask, Ask::Local { .. });
            let request = RangeRequest {
                serializable,
                ..get(*key)
            };
            let answer = kv.range(request).await.map_err(refused)?;
            let seen = version(&answer.kvs).map_err(Failure::Nonsense)?;
            Ok((revision(answer.header), Said::Seen(seen)))
        }
        Ask::All => {
            let request = RangeRequest {
                key: Bytes::from_static(PREFIX.as_bytes()),
                range_end: Bytes::from_static(PREFIX_END.as_bytes()),
                ..RangeRequest::default()
            };
            let answer = kv.range(request).await.map_err(refused)?;
            let all = answer.kvs.iter().map(parse).collect::<Result<_, _>>();
            let all = all.map_err(Failure::Nonsense)?;
            Ok((revision(answer.header), Said::All(all)))
        }
        Ask::Delete { key } => {
            let request = DeleteRangeRequest {
                key: name(*key),
                prev_kv: true,
                ..DeleteRangeRequest::default()
            };
            let mut client = KvClient::new(kv.channel());
            let answer = client.delete_range(request).await.map_err(refused)?;
            let answer = answer.into_inner();
            let before = version(&answer.prev_kvs).map_err(Failure::Nonsense)?;
            Ok((revision(answer.header), Said::Deleted(before)))
        }
        Ask::Swap { .. } | Ask::Both { .. } => transaction(kv, ask).await,
    }
}

async fn transaction(kv: &Kv, ask: &Ask) -> Result<(i64, Said), Failure> {
    let operation = |request| RequestOp {
        request: Some(request),
    };
    let (keys, value) = ask.puts().unwrap_or_default();
    let puts = keys
        .iter()
        .map(|key| operation(Request::RequestPut(put(*key, value))));
    let mut request = TxnRequest {
        success: puts.collect(),
        ..TxnRequest::default()
    };
    if let Ask::Swap { key, expected, .. } = ask {
        request.compare.push(Compare {
            result: CompareResult::Equal.into(),
            target: CompareTarget::Mod.into(),
            key: name(*key),
            target_union: Some(TargetUnion::ModRevision(*expected)),
            ..Compare::default()
        });
        let read = operation(Request::RequestRange(get(*key)));
        request.failure.push(read);
    }
    let answer = kv.txn(request).await.map_err(Failure::Refused)?;
    let at = revision(answer.header);
    if answer.succeeded {
        return Ok((at, Said::Written));
    }
    let Some(ResponseOp {
        response: Some(Response::ResponseRange(range)),
    }) = answer.responses.first()
    else {
        let text = format!("{ask:?} was answered with {:?}", answer.responses);
        return Err(Failure::Nonsense(Error(text)));
    };
    let seen = version(&range.kvs).map_err(Failure::Nonsense)?;
    Ok((at, Said::Seen(seen)))
}

/// The key with that number.
pub(super) fn name(key: Key) -> Bytes {
    format!("{PREFIX}{key:06}").into()
}

fn put(key: Key, value: Value) -> PutRequest {
    PutRequest {
        key: name(key),
        value: value.to_string().into(),
        ..PutRequest::default()
    }
}

fn get(key: Key) -> RangeRequest {
    RangeRequest {
        key: name(key),
        ..RangeRequest::default()
    }
}

fn version(found: &[KeyValue]) -> Result<Option<Version>, Error> {
    match found {
        [] => Ok(None),
        [one] => Ok(Some(parse(one)?.1)),
        _ => Err(Error(format!("{} answers for one key", found.len()))),
    }
}

fn parse(found: &KeyValue) -> Result<(Key, Version), Error> {
    let key = number_of(&found.key);
    let value = std::str::from_utf8(&found.value).ok();
    let value = value.and_then(|text| text.parse().ok());
    let mod_revision = found.mod_revision;
    match (key, value) {
        (Some(key), Some(value)) => Ok((
            key,
            Version {
                value,
                mod_revision,
            },
        )),
        _ => Err(Error(format!("nobody wrote {found:?}"))),
    }
}

/// The number of a key of the load.
pub(super) fn number_of(key: &[u8]) -> Option<Key> {
    let text = std::str::from_utf8(key).ok()?;
    text.strip_prefix(PREFIX)?.parse().ok()
}

/// Whether a member answers a linearizable read within the limit.
pub(super) async fn answers(kv: &Kv) -> Result<i64, Error> {
    match tokio::time::timeout(LIMIT, kv.revision(false)).await {
        Ok(answer) => answer.map_err(said),
        Err(_) => Err(Error("no answer".into())),
    }
}
