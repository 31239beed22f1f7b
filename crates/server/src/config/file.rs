//! The config file: YAML, of which JSON is a part. Keys are the flags' names in any case, with the
//! exceptions that the table lists; unknown keys are skipped as etcd does, but with a warning.

use serde_json::{Map, Value as Json};

use super::gates::Gates;
use super::legacy::{self, LEGACY};
use super::notice::{Level, Notice};
use super::raw::{Raw, Source};
use super::table::{FLAGS, FileKey};
use super::url;
use super::value::{Kind, Value, parse_bool};

/// Why a file stops the start.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The file as a whole, or a value's type.
    Invalid(String),
    /// A list of URLs, for which etcd has a line of its own.
    Url { key: String, why: String },
}

/// Reads `text` into `raw`.
///
/// # Errors
/// The first thing that makes the file unusable.
pub(super) fn parse(text: &str, raw: &mut Raw, notices: &mut Vec<Notice>) -> Result<(), Refusal> {
    let invalid = |why: String| Refusal::Invalid(format!("error converting YAML to JSON: {why}"));
    let root: Json = match text.trim() {
        "" => Json::Null,
        _ => serde_saphyr::from_str(text).map_err(|error| invalid(first_line(&error)))?,
    };
    let mut root = match root {
        Json::Null => Map::new(),
        Json::Object(map) => map,
        _ => return Err(invalid("the file does not hold a map of settings".into())),
    };
    for (position, flag) in FLAGS.iter().enumerate() {
        let found = match flag.file {
            FileKey::None => continue,
            FileKey::Same => take(&mut root, &[flag.name])?,
            FileKey::Nested(path) => take(&mut root, path)?,
        };
        match found {
            None | Some(Json::Null) => {}
            Some(json) => {
                if let Some(value) = convert(flag.name, flag.kind, &json)? {
                    raw.set(position, value, Source::File);
                }
            }
        }
    }
    for legacy in LEGACY {
        let found = take(&mut root, &[legacy.name])?;
        let Some(json) = found.filter(|json| !json.is_null()) else {
            continue;
        };
        if let Some(value) = convert(legacy.name, legacy.kind(), &json)? {
            raw.legacy.push(legacy::Set {
                legacy,
                value,
                source: Source::File,
            });
        }
    }
    for path in leaves(&root, "") {
        // A restriction on certificates that is not applied must not pass for applied.
        if path.starts_with("client-transport-security.") {
            return Err(Refusal::Invalid(format!("{path} is not supported yet")));
        }
        notices.push(Notice::new(Level::Warn, "unknown key in config file").text("key", &path));
    }
    Ok(())
}

/// The reason without the picture of the place that the parser draws below it.
fn first_line(error: &serde_saphyr::Error) -> String {
    let text = error.to_string();
    let line = text.lines().next().unwrap_or_default();
    format!("yaml: {}", line.strip_prefix("error: ").unwrap_or(line))
}

/// Removes the value at `path` from nested maps; keys match in any case.
fn take(map: &mut Map<String, Json>, path: &[&str]) -> Result<Option<Json>, Refusal> {
    let (first, rest) = path
        .split_first()
        .expect("paths of the table have at least one key");
    let Some(key) = map
        .keys()
        .find(|key| key.eq_ignore_ascii_case(first))
        .cloned()
    else {
        return Ok(None);
    };
    if rest.is_empty() {
        return Ok(map.remove(&key));
    }
    match map.get_mut(&key) {
        Some(Json::Object(inner)) => take(inner, rest),
        Some(Json::Null) | None => Ok(None),
        Some(_) => Err(Refusal::Invalid(format!("invalid {first}"))),
    }
}

/// The dotted paths of everything that is left in `map`, in lower case.
fn leaves(map: &Map<String, Json>, prefix: &str) -> Vec<String> {
    let mut paths = Vec::new();
    for (key, value) in map {
        let path = format!("{prefix}{}", key.to_ascii_lowercase());
        match value {
            Json::Object(inner) => paths.extend(leaves(inner, &format!("{path}."))),
            Json::Null => {}
            Json::Array(items) if items.is_empty() => {}
            _ => paths.push(path),
        }
    }
    paths
}

/// The typed value of a JSON value; `None` when it stands for "not set".
fn convert(name: &str, kind: Kind, json: &Json) -> Result<Option<Value>, Refusal> {
    let wrong = |want: &str| {
        let why = format!(
            "error unmarshaling JSON: {} must be {want}, not {json}",
            name
        );
        Refusal::Invalid(why)
    };
    let text = || scalar(json).ok_or_else(|| wrong("a string"));
    let bad_url = |why| Refusal::Url {
        key: name.to_owned(),
        why,
    };
    let value = match kind {
        Kind::Ignored => return Ok(None),
        Kind::Bool => Value::Bool(boolean(json).ok_or_else(|| wrong("a boolean"))?),
        Kind::Uint => Value::Uint(whole(json).ok_or_else(|| wrong("a whole number"))?),
        Kind::Uint32 => {
            let number: Option<u32> = whole(json);
            let number = number.ok_or_else(|| wrong("a whole number below 2^32"))?;
            Value::Uint(number.into())
        }
        Kind::Int => Value::Int(whole(json).ok_or_else(|| wrong("a whole number"))?),
        Kind::Duration => {
            Value::Duration(whole(json).ok_or_else(|| wrong("a whole number of nanoseconds"))?)
        }
        Kind::List | Kind::Set => {
            Value::List(list(json).ok_or_else(|| wrong("a list of strings"))?)
        }
        Kind::Text => Value::Text(text()?),
        Kind::ManyOf(_) => Value::List(vec![text()?]),
        Kind::Gates => Value::Gates(Gates::parse(&text()?).map_err(Refusal::Invalid)?),
        // The empty text leaves the default in place.
        Kind::OneOf(_) | Kind::Urls | Kind::Origins | Kind::Hosts if text()?.is_empty() => {
            return Ok(None);
        }
        // A wrong word is refused later, in other words than on the command line.
        Kind::OneOf(_) => Value::Text(text()?),
        Kind::Urls => Value::Urls(url::parse_sequence(text()?.split(',')).map_err(bad_url)?),
        Kind::Origins | Kind::Hosts => kind.parse(&text()?).map_err(bad_url)?,
    };
    Ok(Some(value))
}

fn boolean(json: &Json) -> Option<bool> {
    match json {
        Json::Bool(value) => Some(*value),
        Json::String(text) => yaml_bool(text),
        _ => None,
    }
}

fn list(json: &Json) -> Option<Vec<String>> {
    match json {
        Json::Array(items) => items.iter().map(scalar).collect(),
        _ => None,
    }
}

/// YAML 1.1 words for booleans, which Go's YAML still knows.
fn yaml_bool(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "y" | "yes" | "on" => Some(true),
        "n" | "no" | "off" => Some(false),
        "true" | "false" => parse_bool(&text.to_ascii_lowercase()),
        _ => None,
    }
}

/// A text that YAML may have taken for a number or boolean (`name: 1`).
fn scalar(json: &Json) -> Option<String> {
    match json {
        Json::String(text) => Some(text.clone()),
        Json::Number(number) => Some(number.to_string()),
        Json::Bool(value) => Some(value.to_string()),
        _ => None,
    }
}

fn whole<T: TryFrom<i128>>(json: &Json) -> Option<T> {
    let Json::Number(number) = json else {
        return None;
    };
    let wide = match (number.as_u64(), number.as_i64(), number.as_f64()) {
        (Some(n), ..) => i128::from(n),
        (None, Some(n), _) => i128::from(n),
        // 1e9 is a float to YAML and a number to its user.
        (None, None, Some(n)) if n.fract() == 0.0 && n.abs() < 1e15 => n as i128,
        _ => return None,
    };
    T::try_from(wide).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(text: &str) -> Result<(Raw, Vec<String>), Refusal> {
        let (mut raw, mut notices) = (Raw::default(), Vec::new());
        parse(text, &mut raw, &mut notices)?;
        Ok((
            raw,
            notices
                .iter()
                .flat_map(|n| n.fields.clone())
                .map(|(_, v)| v)
                .collect(),
        ))
    }

    #[test]
    fn forms() {
        let text = "\
name: 17
Data-Dir: /tmp/x
heartbeat-interval: 50
listen-client-urls: http://127.0.0.1:1,http://127.0.0.1:2
cors: \"*\"
host-whitelist: a,b
log-outputs: [stderr]
corrupt-check-time: 600000000000
quota-backend-bytes: 1e9
pre-vote: no
client-transport-security:
  cert-file: c.pem
  auto-tls: true
socket-options: {reuse-port: true}
discovery-config:
  token: t
  client: {endpoints: [\"a:1\"], secure: {cert: x}}
feature-gates: CompactHashCheck=true
auto-compaction-retention: 1
unknown: {a: [1], b: {}}
";
        let (raw, unknown) = run(text).unwrap();
        assert_eq!(raw.text("name"), "17");
        assert_eq!(raw.text("data-dir"), "/tmp/x");
        assert_eq!(raw.uint("heartbeat-interval"), 50);
        assert_eq!(raw.urls("listen-client-urls").len(), 2);
        assert_eq!(raw.list("host-whitelist"), ["a", "b"]);
        assert_eq!(raw.duration_ns("corrupt-check-time"), 600_000_000_000);
        assert_eq!(raw.int("quota-backend-bytes"), 1_000_000_000);
        assert!(!raw.bool("pre-vote"));
        assert_eq!(raw.text("cert-file"), "c.pem");
        assert!(raw.bool("auto-tls") && raw.bool("socket-reuse-port"));
        assert_eq!(raw.text("discovery-token"), "t");
        assert_eq!(raw.list("discovery-endpoints"), ["a:1"]);
        assert_eq!(raw.text("discovery-cert"), "x");
        assert!(raw.gates().enabled("CompactHashCheck"));
        assert_eq!(raw.text("auto-compaction-retention"), "1");
        assert_eq!(unknown, ["unknown.a"]);
        let (raw, _) = run(r#"{"name": "json", "max-wals": 3}"#).unwrap();
        assert_eq!((raw.text("name"), raw.uint("max-wals")), ("json", 3));
        assert!(run("").is_ok() && run("# nothing\n").is_ok());
    }

    #[test]
    fn refusals() {
        let cases = [
            "max-wals: x",
            "max-wals: -1",
            "corrupt-check-time: 10m",
            "log-outputs: stderr",
            "name: [a]",
            "pre-vote: 1",
            "max-concurrent-streams: 4294967296",
            "peer-transport-security: x",
            "client-transport-security: {allowed-cn: [a]}",
            "feature-gates: X=true",
            "- a",
            "a: b: c",
        ];
        for text in cases {
            assert!(matches!(run(text), Err(Refusal::Invalid(_))), "{text}");
        }
        let why = "URL scheme must be http, https, unix, or unixs: a".into();
        let key = "listen-peer-urls".into();
        assert_eq!(
            run("listen-peer-urls: a").map(|_| ()),
            Err(Refusal::Url { key, why })
        );
    }

    #[test]
    fn every_flag_that_a_file_can_set() {
        for (flag, text) in crate::config::tests::samples() {
            let path: &[&str] = match flag.file {
                FileKey::None => continue,
                FileKey::Same => &[flag.name],
                FileKey::Nested(path) => path,
            };
            let value = match flag.kind.parse(&text).unwrap() {
                Value::Bool(value) => Json::Bool(value),
                Value::Uint(value) => Json::from(value),
                Value::Int(value) | Value::Duration(value) => Json::from(value),
                Value::List(words) if matches!(flag.kind, Kind::List | Kind::Set) => {
                    Json::from(words)
                }
                _ => Json::from(text.as_str()),
            };
            let file = path
                .iter()
                .rev()
                .fold(value, |inner, key| serde_json::json!({ *key: inner }));
            let (raw, unknown) = run(&file.to_string()).unwrap();
            assert_eq!(raw.source(flag.name), Some(Source::File), "{}", flag.name);
            assert!(unknown.is_empty(), "{}", flag.name);
        }
    }
}
