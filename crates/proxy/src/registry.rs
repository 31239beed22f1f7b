//! Who is registered under the resolver prefix: this proxy, and others like it.
//!
//! The layout is that of gRPC's etcd resolver, so that clients may find proxies by it: the key is
//! the prefix, a slash and the address, the value a JSON object. A record is bound to a lease that
//! lives as long as its proxy, and it lies within the namespace.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use api::pb::etcdserverpb::{
    Member, PutRequest, RangeRequest, RequestOp, TxnRequest, WatchCreateRequest, request_op,
};
use api::pb::mvccpb::event::EventType;
use api::pb::mvccpb::{Event, KeyValue};
use bytes::Bytes;
use client::concurrency::Session;
use client::prefix_end;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tonic::Status;
use tonic::codegen::tokio_stream::StreamExt;

use crate::below::{Below, Caller, status};
use crate::settings::Resolver;

/// Pause between two attempts to register, or to watch.
const RETRY_WAIT: Duration = Duration::from_secs(1);

/// The name under which this machine appears in member lists.
#[must_use]
pub(crate) fn host_name() -> String {
    let name = rustix::system::uname();
    name.nodename().to_string_lossy().into_owned()
}

/// One proxy's registration.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Record {
    address: String,
    /// Of its machine; empty if the record does not say.
    name: String,
}

impl Record {
    /// etcd's form: the metadata is a text that is JSON itself.
    fn value(&self) -> Bytes {
        let metadata = json!({ "name": self.name }).to_string();
        let (address, metadata) = (json!(self.address), json!(metadata));
        format!("{{\"Op\":0,\"Addr\":{address},\"Metadata\":{metadata}}}").into()
    }

    /// `None` for what is no record.
    fn read(value: &[u8]) -> Option<Self> {
        let value: Value = serde_json::from_slice(value).ok()?;
        let metadata = match value.get("Metadata") {
            Some(Value::String(text)) => serde_json::from_str(text).unwrap_or_default(),
            Some(other) => other.clone(),
            None => Value::Null,
        };
        let name = metadata.get("name").and_then(Value::as_str);
        Some(Record {
            address: value.get("Addr")?.as_str()?.to_owned(),
            name: name.unwrap_or_default().to_owned(),
        })
    }
}

/// What is registered, as far as it is known.
#[derive(Default)]
pub(crate) struct Registry(Mutex<BTreeMap<Bytes, Record>>);

impl Registry {
    /// Those that are registered, as members of a cluster.
    pub(crate) fn members(&self) -> Vec<Member> {
        let records = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let members = records.values().map(|record| Member {
            name: record.name.clone(),
            client_ur_ls: vec![record.address.clone()],
            ..Member::default()
        });
        members.collect()
    }

    fn replace(&self, kvs: &[KeyValue]) {
        let found = kvs.iter().filter_map(|kv| {
            let record = Record::read(&kv.value);
            if record.is_none() {
                tracing::warn!(key = %kv.key.escape_ascii(), "unmarshal endpoint update failed");
            }
            Some((kv.key.clone(), record?))
        });
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = found.collect();
    }

    fn change(&self, event: &Event) {
        let Some(kv) = &event.kv else { return };
        let mut records = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match (event.r#type(), Record::read(&kv.value)) {
            (EventType::Put, Some(record)) => {
                records.insert(kv.key.clone(), record);
            }
            (EventType::Put, None) => {
                tracing::warn!(key = %kv.key.escape_ascii(), "unmarshal endpoint update failed");
            }
            (EventType::Delete, _) => {
                records.remove(&kv.key);
            }
        }
    }

    /// Follows the registrations for good.
    pub(crate) async fn follow(self: Arc<Self>, below: Below, prefix: String) {
        loop {
            match self.follow_once(&below, &prefix).await {
                Ok(()) => tracing::info!("endpoints watch channel closed"),
                Err(status) => tracing::warn!(
                    prefix,
                    error = status.message(),
                    "failed to establish endpoint watch"
                ),
            }
            tokio::time::sleep(RETRY_WAIT).await;
        }
    }

    async fn follow_once(&self, below: &Below, prefix: &str) -> Result<(), Status> {
        let key = Bytes::from(format!("{prefix}/"));
        let range_end = prefix_end(&key);
        let nobody = Caller::default();
        let request = RangeRequest {
            key: key.clone(),
            range_end: range_end.clone(),
            serializable: true,
            ..RangeRequest::default()
        };
        let answer = below.kv.range(&nobody, request).await?;
        self.replace(&answer.kvs);
        let revision = answer.header.map_or(0, |header| header.revision);
        let request = WatchCreateRequest {
            key,
            range_end,
            start_revision: revision + 1,
            ..WatchCreateRequest::default()
        };
        let mut watching = below.watches.watch(&nobody, request);
        while let Some(answer) = watching.answers.next().await {
            answer.events.iter().for_each(|event| self.change(event));
            if answer.cancelled.is_some() {
                break;
            }
        }
        Ok(())
    }
}

/// Keeps this proxy registered.
pub(crate) struct Registration {
    closing: watch::Sender<bool>,
    /// Taken by whoever closes first.
    task: Mutex<Option<JoinHandle<()>>>,
}

impl Registration {
    pub(crate) fn start(below: Below, resolver: Resolver, address: String) -> Self {
        let (closing, closed) = watch::channel(false);
        let task = tokio::spawn(register(below, resolver, address, closed));
        Registration {
            closing,
            task: Mutex::new(Some(task)),
        }
    }

    /// Takes the registration back.
    pub(crate) async fn close(&self) {
        self.closing.send_replace(true);
        let task = self.task.lock();
        let task = task.unwrap_or_else(PoisonError::into_inner).take();
        if let Some(task) = task {
            // A panic was reported where it happened.
            let _ = task.await;
        }
    }
}

/// Waits until the registration is taken back, or nobody is left to do it.
async fn is_closed(closed: &mut watch::Receiver<bool>) {
    let _ = closed.wait_for(|closed| *closed).await;
}

/// Registers the proxy again and again, until it is closed.
async fn register(
    below: Below,
    resolver: Resolver,
    address: String,
    mut closed: watch::Receiver<bool>,
) {
    loop {
        match put(&below, &resolver, &address).await {
            Ok(session) => {
                tracing::info!(
                    addr = address,
                    "lease-ttl" = resolver.ttl_seconds,
                    "registered session with lease"
                );
                tokio::select! {
                    () = session.ended() => {}
                    () = is_closed(&mut closed) => {
                        // A lease that is not revoked ends by itself.
                        let _ = session.close().await;
                        return;
                    }
                }
                tracing::warn!("session expired; possible network partition or server restart");
                tracing::warn!("creating a new session to rejoin");
            }
            Err(status) => {
                tracing::warn!(error = status.message(), "failed to create a session");
            }
        }
        tokio::select! {
            () = tokio::time::sleep(RETRY_WAIT) => {}
            () = is_closed(&mut closed) => return,
        }
    }
}

async fn put(below: &Below, resolver: &Resolver, address: &str) -> Result<Session, Status> {
    let session = Session::new(&below.client, resolver.ttl_seconds)
        .await
        .map_err(status)?;
    let record = Record {
        address: address.to_owned(),
        name: host_name(),
    };
    let put = PutRequest {
        key: format!("{}/{address}", resolver.prefix).into(),
        value: record.value(),
        lease: session.lease(),
        ..PutRequest::default()
    };
    let request = TxnRequest {
        success: vec![RequestOp {
            request: Some(request_op::Request::RequestPut(put)),
        }],
        ..TxnRequest::default()
    };
    match below.kv.txn(&Caller::default(), request).await {
        Ok(_) => Ok(session),
        Err(status) => {
            // A lease that is not revoked ends by itself.
            let _ = session.close().await;
            Err(status)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_the_resolvers() {
        let record = Record {
            address: "127.0.0.1:23790".to_owned(),
            name: "host".to_owned(),
        };
        let value = record.value();
        let want = r#"{"Op":0,"Addr":"127.0.0.1:23790","Metadata":"{\"name\":\"host\"}"}"#;
        assert_eq!(value, want);
        assert_eq!(Record::read(&value), Some(record));
        let plain = Record::read(br#"{"Op":0,"Addr":"a:1","Metadata":{"name":"n"}}"#).unwrap();
        assert_eq!((&*plain.address, &*plain.name), ("a:1", "n"));
        let bare = Record::read(br#"{"Addr":"a:1","Metadata":"no JSON"}"#).unwrap();
        assert_eq!((&*bare.address, &*bare.name), ("a:1", ""));
        for text in ["", "[]", "{}", r#"{"Addr":1}"#] {
            assert_eq!(Record::read(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn events_change_what_is_known() {
        let registry = Registry::default();
        let kv = |key: &'static str, address: &str| KeyValue {
            key: Bytes::from_static(key.as_bytes()),
            value: format!("{{\"Addr\":\"{address}\"}}").into(),
            ..KeyValue::default()
        };
        let event = |kind: EventType, kv| Event {
            r#type: kind.into(),
            kv: Some(kv),
            ..Event::default()
        };
        registry.replace(&[kv("p/a", "a:1"), kv("p/b", "b:1")]);
        registry.change(&event(EventType::Put, kv("p/c", "c:1")));
        registry.change(&event(EventType::Delete, kv("p/a", "")));
        let urls = registry.members().into_iter().map(|it| it.client_ur_ls);
        assert_eq!(urls.collect::<Vec<_>>(), [["b:1"], ["c:1"]]);
    }
}
