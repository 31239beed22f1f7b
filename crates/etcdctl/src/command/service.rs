//! service advertise, list, watch: addresses of services in the layout that gRPC's etcd resolver
//! reads (Go's `client/v3/naming`): the key is `<service>/<address>`, the value a JSON object with
//! `Op` (always 0), `Addr` and `Metadata`.

use std::time::Duration;

use api::pb::etcdserverpb::{PutRequest, RangeRequest, WatchCreateRequest};
use api::pb::mvccpb::{Event, KeyValue, event::EventType};
use bytes::Bytes;
use client::{Cancellation, Client, concurrency, prefix_end};
use serde_json::{Value, json};

use super::concurrency::Interrupts;
use crate::cli::flags::{Flag, Kind};
use crate::cli::globals::Session;
use crate::cli::{Call, Command, group};
use crate::exit::{self, Failure, Outcome};
use crate::print::Format;
use crate::{log, out};

/// How long to wait before a record that was lost is put again, after a failure to do so.
const AGAIN_WAIT: Duration = Duration::from_secs(1);

pub(super) const SERVICE: Command = Command {
    name: "service",
    short: "Addresses of services, as gRPC's etcd resolver finds them",
    long: "\
Addresses of services, as gRPC's etcd resolver finds them: a client that dials etcd:///NAME with it
talks to the addresses that are advertised for NAME.
",
    group: group::UTILITY,
    commands: &[
        Command {
            name: "advertise",
            usage: "[options] <name> <address>",
            short: "Keeps an address of a service known while the command runs",
            long: "\
Puts the key <name>/<address> under a lease and renews it until the command is interrupted, which
takes the key away. If the command vanishes, the key goes when the lease ends; if the lease is lost
because no server could be reached in time, it is put anew.
",
            flags: &[
                Flag {
                    kind: Kind::Int,
                    ..Flag::text(
                        "ttl",
                        "10",
                        "seconds after which a vanished service is forgotten",
                    )
                },
                Flag::text("metadata", "", "JSON that clients get with the address"),
            ],
            run: Some(|call| Box::pin(advertise(call))),
            ..Command::EMPTY
        },
        Command {
            name: "list",
            usage: "<name>",
            short: "Lists the addresses of a service",
            run: Some(|call| Box::pin(list(call))),
            ..Command::EMPTY
        },
        Command {
            name: "watch",
            usage: "<name>",
            short: "Prints the addresses of a service and how they change",
            run: Some(|call| Box::pin(watch(call))),
            ..Command::EMPTY
        },
    ],
    ..Command::EMPTY
};

/// An address that is advertised.
#[derive(Debug, PartialEq)]
struct Record {
    key: String,
    address: String,
    metadata: Value,
}

impl Record {
    /// The record of a key, or `None` with a warning if its value is none.
    fn read(kv: &KeyValue) -> Option<Self> {
        let key = String::from_utf8_lossy(&kv.key).into_owned();
        match serde_json::from_slice::<Value>(&kv.value) {
            Ok(mut value) if value.is_object() => Some(Record {
                key,
                address: value["Addr"].as_str().unwrap_or_default().to_owned(),
                metadata: value["Metadata"].take(),
            }),
            _ => {
                let fields = [("key", key.as_str())];
                log::line("warn", "the value is no record of a service", &fields);
                None
            }
        }
    }

    /// The value that stands for it.
    fn value(&self) -> Bytes {
        let (address, metadata) = (json!(self.address), &self.metadata);
        format!("{{\"Op\":0,\"Addr\":{address},\"Metadata\":{metadata}}}").into()
    }

    fn json(&self) -> String {
        let (key, address, metadata) = (json!(self.key), json!(self.address), &self.metadata);
        format!("\"Key\":{key},\"Addr\":{address},\"Metadata\":{metadata}")
    }

    fn simple(&self) -> String {
        match &self.metadata {
            Value::Null => self.address.clone(),
            metadata => format!("{}, {metadata}", self.address),
        }
    }
}

/// The range of all addresses of a service.
fn range(name: &str) -> (Bytes, Bytes) {
    let key = Bytes::from(format!("{name}/"));
    let end = prefix_end(&key);
    (key, end)
}

/// The one argument of list and watch.
fn name(call: &Call) -> Result<String, Failure> {
    match call.args.len() {
        1 if !call.args[0].is_empty() => Ok(call.text(0).into_owned()),
        _ => Err(Failure::bad_args("one service name is needed")),
    }
}

/// Only some formats have a form for records.
fn check_format(format: Format) -> Outcome {
    match format {
        Format::Simple | Format::Json | Format::Fields => Ok(()),
        Format::Table => Err(unsupported("table")),
        Format::Protobuf => Err(unsupported("protobuf")),
    }
}

fn unsupported(format: &str) -> Failure {
    let text = format!("{format} not supported as output format");
    Failure::new(exit::BAD_FEATURE, text)
}

async fn advertise(mut call: Call) -> Outcome {
    let (2, ttl @ 1..) = (call.args.len(), call.flags.int("ttl")) else {
        let text = "service advertise takes a service name and an address, and a TTL above zero";
        return Err(Failure::bad_args(text));
    };
    let (name, address) = (call.text(0).into_owned(), call.text(1).into_owned());
    if name.is_empty() || address.is_empty() {
        return Err(Failure::bad_args(
            "the name and the address may not be empty",
        ));
    }
    let metadata = match call.flags.text("metadata") {
        "" => Value::Null,
        text => serde_json::from_str(text)
            .map_err(|error| Failure::bad_args(format!("--metadata is no JSON: {error}")))?,
    };
    let record = Record {
        key: format!("{name}/{address}"),
        address,
        metadata,
    };
    let settings = Session::new(&mut call)?;
    let client = settings.connect().await?;
    let mut interrupts = Interrupts::catch()?;
    let first = tokio::time::timeout_at(settings.deadline(), put(&client, &record, ttl));
    let mut held = tokio::select! {
        first = first => first.unwrap_or(Err(client::Error::Deadline { cause: None }))?,
        () = interrupts.wait() => return Ok(()),
    };
    loop {
        let lease = held.lease();
        out::line(&format!(
            "{} advertised with lease {lease:016x}",
            record.key
        ));
        tokio::select! {
            () = held.ended() => {}
            () = interrupts.wait() => return Ok(held.close().await?),
        }
        let fields = [("key", record.key.as_str())];
        log::line("warn", "the lease was lost; advertising anew", &fields);
        held = tokio::select! {
            held = put_until_done(&client, &record, ttl) => held,
            () = interrupts.wait() => return Ok(()),
        };
    }
}

/// Puts the record under a lease of its own, which is renewed from then on.
async fn put(
    client: &Client,
    record: &Record,
    ttl: i64,
) -> Result<concurrency::Session, client::Error> {
    let session = concurrency::Session::new(client, ttl).await?;
    let request = PutRequest {
        key: record.key.clone().into(),
        value: record.value(),
        lease: session.lease(),
        ..PutRequest::default()
    };
    client.put(request).await?;
    Ok(session)
}

async fn put_until_done(client: &Client, record: &Record, ttl: i64) -> concurrency::Session {
    loop {
        match put(client, record, ttl).await {
            Ok(session) => return session,
            Err(error) => log::cause(&error),
        }
        tokio::time::sleep(AGAIN_WAIT).await;
    }
}

/// The records of a service, and the revision at which they were read.
async fn read(client: &Client, name: &str) -> Result<(Vec<Record>, i64), Failure> {
    let (key, range_end) = range(name);
    let request = RangeRequest {
        key,
        range_end,
        ..RangeRequest::default()
    };
    let answer = client.range(request).await?;
    let records = answer.kvs.iter().filter_map(Record::read).collect();
    Ok((records, answer.header.unwrap_or_default().revision))
}

async fn list(mut call: Call) -> Outcome {
    let name = name(&call)?;
    let session = Session::new(&mut call)?;
    check_format(session.printer.format)?;
    let client = session.connect_limited().await?;
    let (records, _) = read(&client, &name).await?;
    match session.printer.format {
        Format::Json => {
            let records: Vec<_> = records
                .iter()
                .map(|one| format!("{{{}}}", one.json()))
                .collect();
            out::line(&format!("[{}]", records.join(",")));
        }
        Format::Fields => records.iter().for_each(|record| {
            let (key, address) = (json!(record.key), json!(record.address));
            let metadata = &record.metadata;
            out::line(&format!(
                "\"Key\" : {key}\n\"Addr\" : {address}\n\"Metadata\" : {metadata}\n"
            ));
        }),
        _ => records
            .iter()
            .for_each(|record| out::line(&record.simple())),
    }
    Ok(())
}

async fn watch(mut call: Call) -> Outcome {
    let name = name(&call)?;
    let session = Session::new(&mut call)?;
    let format = session.printer.format;
    check_format(format)?;
    if format == Format::Fields {
        return Err(unsupported("fields"));
    }
    let client = session.connect().await?;
    let (records, revision) = read(&client, &name).await?;
    records
        .iter()
        .for_each(|record| change(format, "ADD", record));
    let (key, range_end) = range(&name);
    let mut watcher = client.watches().create(WatchCreateRequest {
        key,
        range_end,
        start_revision: revision + 1,
        ..WatchCreateRequest::default()
    });
    while let Some(answer) = watcher.next().await {
        match answer.cancelled {
            Some(Cancellation::Compacted(_)) => {
                return Err(Failure::new(
                    exit::INTERRUPTED,
                    api::Error::Compacted.to_string(),
                ));
            }
            Some(Cancellation::Refused(text)) => {
                return Err(Failure::new(exit::INTERRUPTED, text));
            }
            None => answer
                .events
                .iter()
                .for_each(|event| tell(format, &name, event)),
        }
    }
    Ok(())
}

/// Prints one event. A key that goes has no value any more; its name ends with the address.
fn tell(format: Format, name: &str, event: &Event) {
    let kv = event.kv.clone().unwrap_or_default();
    if event.r#type() == EventType::Put {
        if let Some(record) = Record::read(&kv) {
            change(format, "ADD", &record);
        }
        return;
    }
    let key = String::from_utf8_lossy(&kv.key).into_owned();
    let address = key
        .strip_prefix(&format!("{name}/"))
        .unwrap_or(&key)
        .to_owned();
    let record = Record {
        key,
        address,
        metadata: Value::Null,
    };
    change(format, "DELETE", &record);
}

fn change(format: Format, what: &str, record: &Record) {
    match format {
        Format::Json => out::line(&format!("{{\"Op\":\"{what}\",{}}}", record.json())),
        _ => out::line(&format!("{what} {}", record.simple())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kv(value: &str) -> KeyValue {
        KeyValue {
            key: "web/10.0.0.1:80".into(),
            value: value.to_owned().into(),
            ..KeyValue::default()
        }
    }

    #[test]
    fn records_are_those_of_the_resolver() {
        let record = Record {
            key: "web/10.0.0.1:80".to_owned(),
            address: "10.0.0.1:80".to_owned(),
            metadata: json!({"zone": "a"}),
        };
        let value = r#"{"Op":0,"Addr":"10.0.0.1:80","Metadata":{"zone":"a"}}"#;
        assert_eq!(record.value(), value);
        assert_eq!(Record::read(&kv(value)), Some(record));
        // As Go's grpc before 1.30 wrote it.
        let old = Record::read(&kv(r#"{"Op":0,"Addr":"10.0.0.1:80"}"#));
        assert_eq!(
            old.map(|record| record.simple()),
            Some("10.0.0.1:80".to_owned())
        );
    }

    #[test]
    fn what_is_no_record_is_none() {
        for value in ["", "x", "[]", "7", "{"] {
            assert_eq!(Record::read(&kv(value)), None, "{value}");
        }
    }
}
