//! The checked-in schemas, for messages that are written as text.

use std::path::Path;
use std::sync::OnceLock;

use base64::Engine;
use base64::prelude::BASE64_STANDARD as BASE64;
use bytes::Bytes;
use prost_reflect::prost::Message;
use prost_reflect::text_format::FormatOptions;
use prost_reflect::{
    DescriptorPool, DynamicMessage, FieldDescriptor, MethodDescriptor, ReflectMessage, Value,
};

use super::Match;
use crate::Error;

/// Header fields that differ from run to run.
pub(super) const VOLATILE: [&str; 3] = ["cluster_id", "member_id", "raft_term"];

fn pool() -> &'static DescriptorPool {
    static POOL: OnceLock<DescriptorPool> = OnceLock::new();
    POOL.get_or_init(|| {
        let schemas = Path::new(env!("CARGO_MANIFEST_DIR"))
            .with_file_name("api")
            .join("proto");
        let files = ["rpc.proto", "health.proto", "lock.proto", "election.proto"];
        let set = protox::compile(files, [schemas]).expect("the checked-in schemas compile");
        DescriptorPool::from_file_descriptor_set(set).expect("protox resolves what it compiles")
    })
}

/// `KV/Put` is `etcdserverpb.KV/Put`.
pub(crate) fn full_path(path: &str) -> String {
    let service = path.split('/').next().unwrap_or_default();
    if service.contains('.') {
        path.into()
    } else {
        format!("etcdserverpb.{path}")
    }
}

/// The method of a full path, if the schemas have it.
pub(crate) fn method(path: &str) -> Option<MethodDescriptor> {
    let (service, name) = path.split_once('/')?;
    pool()
        .get_service_by_name(service)?
        .methods()
        .find(|one| one.name() == name)
}

/// Encodes a request that is written as text.
pub(crate) fn encode(method: &MethodDescriptor, text: &str) -> Result<Bytes, Error> {
    let message = DynamicMessage::parse_text_format(method.input(), &expand(text)?)
        .map_err(|error| Error(format!("request: {error}")))?;
    Ok(message.encode_to_vec().into())
}

/// The same request as JSON, by the names of the schemas.
pub(crate) fn json(method: &MethodDescriptor, text: &str) -> Result<String, Error> {
    let message = DynamicMessage::parse_text_format(method.input(), &expand(text)?)
        .map_err(|error| Error(format!("request: {error}")))?;
    Ok(json_of(&Value::Message(message)).to_string())
}

fn json_of(value: &Value) -> serde_json::Value {
    match value {
        Value::Bool(value) => (*value).into(),
        Value::I32(value) | Value::EnumNumber(value) => (*value).into(),
        Value::I64(value) => value.to_string().into(),
        Value::U32(value) => (*value).into(),
        Value::U64(value) => value.to_string().into(),
        Value::F32(value) => (*value).into(),
        Value::F64(value) => (*value).into(),
        Value::String(value) => value.as_str().into(),
        Value::Bytes(value) => BASE64.encode(value).into(),
        Value::Message(message) => message
            .fields()
            .map(|(field, value)| (field.name().to_owned(), json_of(value)))
            .collect::<serde_json::Map<_, _>>()
            .into(),
        Value::List(items) => items.iter().map(json_of).collect(),
        // The schemas have no maps.
        Value::Map(_) => serde_json::Value::Null,
    }
}

/// An answer without what differs from run to run.
pub(super) fn decode(method: &MethodDescriptor, bytes: Bytes) -> Result<DynamicMessage, Error> {
    let mut message = DynamicMessage::decode(method.output(), bytes)
        .map_err(|error| Error(format!("answer: {error}")))?;
    let header = message.descriptor().get_field_by_name("header");
    if let Some(field) = header.filter(|field| message.has_field(field))
        && let Some(header) = message.get_field_mut(&field).as_message_mut()
    {
        for name in VOLATILE {
            header.clear_field_by_name(name);
        }
    }
    Ok(message)
}

/// An expectation that is written as text.
pub(super) fn expected(method: &MethodDescriptor, text: &str) -> Result<DynamicMessage, Error> {
    DynamicMessage::parse_text_format(method.output(), &expand(text)?)
        .map_err(|error| Error(format!("expectation: {error}")))
}

/// True when `actual` is what `expected` asks for.
pub(super) fn fits(expected: &DynamicMessage, actual: &DynamicMessage, which: Match) -> bool {
    match which {
        Match::All => expected == actual,
        Match::Some => expected
            .fields()
            .all(|(field, value)| some(&field, value, actual)),
    }
}

fn some(field: &FieldDescriptor, expected: &Value, actual: &DynamicMessage) -> bool {
    some_value(expected, &actual.get_field(field))
}

fn some_value(expected: &Value, actual: &Value) -> bool {
    match (expected, actual) {
        (Value::Message(expected), Value::Message(actual)) => fits(expected, actual, Match::Some),
        (Value::List(expected), Value::List(actual)) => {
            let mut pairs = expected.iter().zip(actual);
            expected.len() == actual.len() && pairs.all(|(one, other)| some_value(one, other))
        }
        (expected, actual) => expected == actual,
    }
}

/// One field a line, as files are written.
pub(super) fn text(message: &DynamicMessage) -> String {
    let mut out = String::new();
    for (field, value) in message.fields() {
        let single = match value {
            Value::List(items) => items.clone(),
            value => vec![value.clone()],
        };
        for item in single {
            let mut one = DynamicMessage::new(message.descriptor());
            let item = if field.is_list() {
                Value::List(vec![item])
            } else {
                item
            };
            one.set_field(&field, item);
            let options = FormatOptions::new().pretty(false);
            let line = one.to_text_format_with_options(&options);
            // A list of one message reads better as the field itself.
            let inside = line.strip_prefix(&format!("{}:[{{", field.name()));
            match inside.and_then(|rest| rest.strip_suffix("}]")) {
                Some(inside) => out.push_str(&format!("{} {{{inside}}}", field.name())),
                None => out.push_str(&line),
            }
            out.push('\n');
        }
    }
    out
}

/// `%{x*3}` is `xxx`.
pub(super) fn expand(text: &str) -> Result<String, Error> {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("%{") {
        let bad = || Error(format!("want %{{text*count}}: {after}"));
        let (inside, left) = after.split_once('}').ok_or_else(bad)?;
        let (unit, count) = inside.rsplit_once('*').ok_or_else(bad)?;
        let count: usize = count.parse().map_err(|_| bad())?;
        out.push_str(before);
        out.push_str(&unit.repeat(count));
        rest = left;
    }
    out.push_str(rest);
    Ok(out)
}
