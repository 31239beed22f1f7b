//! txn: a transaction read from standard input.

use std::io::BufRead;

use api::pb::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use api::pb::etcdserverpb::{Compare, RequestOp, TxnRequest, request_op};
use bytes::Bytes;

use super::kv;
use crate::cli::flags::{self, Flag};
use crate::cli::globals::Session;
use crate::cli::{Call, Command, group};
use crate::exit::{self, Failure, Outcome};
use crate::print::Answer;
use crate::{out, text};

pub(super) const TXN: Command = Command {
    name: "txn",
    usage: "[options]",
    short: "Runs several requests as one transaction",
    long: "\
Reads a transaction from standard input and runs it: all of it happens, or none.

It has three parts, each ended by an empty line: conditions, the requests to run when all of
them hold, and the requests to run when one does not.

  mod(\"key1\") > \"0\"

  put key1 \"it was there\"

  put key1 \"it is new\"
  put key2 \"so is this\"

A condition is target(\"key\") op \"value\", with the target ver, create, mod, val or lease, and
the op =, !=, < or >. A request is a get, put or del as on the command line.
",
    group: group::KEY_VALUE,
    flags: &[Flag {
        short: Some('i'),
        ..Flag::switch("interactive", "say what is expected next")
    }],
    run: Some(|call| Box::pin(txn(call))),
    ..Command::EMPTY
};

/// The commands that a transaction can hold.
const OPERATIONS: Command = Command {
    commands: &[kv::PUT, kv::GET, kv::DEL],
    ..Command::EMPTY
};

async fn txn(mut call: Call) -> Outcome {
    if !call.args.is_empty() {
        return Err(Failure::bad_args("txn command does not accept argument"));
    }
    let interactive = call.flags.bool("interactive");
    let prompt = |text: &str| {
        if interactive {
            out::line(text);
        }
    };
    let session = Session::new(&mut call)?;
    let client = session.connect().await?;
    prompt("compares:");
    let compare = comparisons()?;
    prompt("success requests (get, put, del):");
    let success = operations().await?;
    prompt("failure requests (get, put, del):");
    let failure = operations().await?;
    let answer = client
        .txn(TxnRequest {
            compare,
            success,
            failure,
        })
        .await?;
    session.printer.print(&Answer::Txn(&answer))
}

/// The next line, or `None` at the end of a part.
fn next_line() -> Result<Option<String>, Failure> {
    let mut line = String::new();
    let failure = match std::io::stdin().lock().read_line(&mut line) {
        Ok(_) if line.ends_with('\n') => None,
        Ok(_) => Some("EOF".to_owned()),
        Err(error) => Some(error.to_string()),
    };
    match (failure, line.trim()) {
        (Some(text), _) => Err(Failure::new(exit::INVALID_INPUT, text)),
        (None, "") => Ok(None),
        (None, line) => Ok(Some(line.to_owned())),
    }
}

fn comparisons() -> Result<Vec<Compare>, Failure> {
    let mut found = Vec::new();
    while let Some(line) = next_line()? {
        let compare = parse_compare(&line);
        found.push(compare.map_err(|text| Failure::new(exit::INVALID_INPUT, text))?);
    }
    Ok(found)
}

async fn operations() -> Result<Vec<RequestOp>, Failure> {
    let mut found = Vec::new();
    while let Some(line) = next_line()? {
        found.push(operation(&line).await?);
    }
    Ok(found)
}

async fn operation(line: &str) -> Result<RequestOp, Failure> {
    let invalid = |text: String| Failure::new(exit::INVALID_INPUT, text);
    let words = text::words(line).map_err(invalid)?;
    if words.len() < 2 {
        return Err(invalid(format!("invalid txn compare request: {line}")));
    }
    let mut words = words.into_iter().map(Bytes::from);
    let name = words.next().unwrap_or_default();
    let unknown = || invalid(format!("invalid txn request: {line}"));
    let command = OPERATIONS
        .find(&String::from_utf8_lossy(&name))
        .ok_or_else(unknown)?;
    let known: Vec<_> = command.flags.iter().collect();
    let parsed = flags::parse(&known, words.collect()).map_err(|_| unknown())?;
    let (flags, args) = (&parsed.flags, &parsed.args);
    let request = match command.name {
        "put" => request_op::Request::RequestPut(kv::put_request(flags, args)?),
        "get" => request_op::Request::RequestRange(kv::range_request(flags, args)?),
        _ => {
            let request = kv::delete_request(flags, args)?;
            kv::warn_of_range(flags, args).await;
            request_op::Request::RequestDeleteRange(request)
        }
    };
    Ok(RequestOp {
        request: Some(request),
    })
}

/// Reads `target("key") op "value"`.
fn parse_compare(line: &str) -> Result<Compare, String> {
    let Some((target, rest)) = line.split_once('(') else {
        return Err(format!("malformed comparison: {line}"));
    };
    let parts = ComparisonParts::read(rest);
    let (Some(key), Some(op), Some(value)) = (&parts.key, &parts.op, &parts.value) else {
        let quoted = |part: &Option<Vec<u8>>| text::quote(part.as_deref().unwrap_or_default());
        let (key, value) = (quoted(&parts.key), quoted(&parts.value));
        let op = parts.op.as_deref().unwrap_or_default();
        return Err(format!(
            "malformed comparison: {line}; got {target}({key}) {op} {value}"
        ));
    };
    let invalid = || format!("invalid txn compare request: {line}");
    let value_text = String::from_utf8_lossy(value);
    let number = |base| text::parse_int(&value_text, base).map_err(|_| invalid());
    let (target, operand) = match target {
        "ver" | "version" => (CompareTarget::Version, TargetUnion::Version(number(10)?)),
        "c" | "create" => (
            CompareTarget::Create,
            TargetUnion::CreateRevision(number(10)?),
        ),
        "m" | "mod" => (CompareTarget::Mod, TargetUnion::ModRevision(number(10)?)),
        "val" | "value" => (
            CompareTarget::Value,
            TargetUnion::Value(value.clone().into()),
        ),
        // Leases are hexadecimal everywhere else on the command line.
        "lease" => (CompareTarget::Lease, TargetUnion::Lease(number(16)?)),
        other => {
            return Err(format!(
                "malformed comparison: {line} (unknown target {other})"
            ));
        }
    };
    let result = match op.as_str() {
        "=" => CompareResult::Equal,
        "!=" => CompareResult::NotEqual,
        ">" => CompareResult::Greater,
        "<" => CompareResult::Less,
        _ => return Err(invalid()),
    };
    Ok(Compare {
        result: result.into(),
        target: target.into(),
        key: key.clone().into(),
        target_union: Some(operand),
        range_end: Bytes::new(),
    })
}

/// What could be read of `"key") op "value"`, up to the first part that is wrong.
#[derive(Default)]
struct ComparisonParts {
    key: Option<Vec<u8>>,
    op: Option<String>,
    value: Option<Vec<u8>>,
}

impl ComparisonParts {
    fn read(rest: &str) -> Self {
        let mut parts = ComparisonParts::default();
        let Some((key, rest)) = text::unquote_prefix(rest.trim_start()) else {
            return parts;
        };
        parts.key = Some(key);
        let Some(rest) = rest.strip_prefix(") ") else {
            return parts;
        };
        let rest = rest.trim_start();
        let (op, rest) = rest.split_at(rest.find(char::is_whitespace).unwrap_or(rest.len()));
        if op.is_empty() {
            return parts;
        }
        parts.op = Some(op.to_owned());
        parts.value = text::unquote_prefix(rest.trim_start()).map(|(value, _)| value);
        parts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comparisons() {
        let compare = parse_compare(r#"mod("a b") > "5""#).unwrap();
        assert_eq!(compare.target(), CompareTarget::Mod);
        assert_eq!(compare.result(), CompareResult::Greater);
        assert_eq!(compare.key, "a b");
        assert_eq!(compare.target_union, Some(TargetUnion::ModRevision(5)));
        let compare = parse_compare(r#"lease("a") = "1b""#).unwrap();
        assert_eq!(compare.target_union, Some(TargetUnion::Lease(0x1b)));
    }

    #[test]
    fn comparisons_that_make_no_sense() {
        for (line, text) in [
            ("bad", "malformed comparison: bad"),
            (
                r#"x("a") = "1""#,
                r#"malformed comparison: x("a") = "1" (unknown target x)"#,
            ),
            (
                r#"mod("a") = "x""#,
                r#"invalid txn compare request: mod("a") = "x""#,
            ),
            (
                r#"mod("a") ~ "1""#,
                r#"invalid txn compare request: mod("a") ~ "1""#,
            ),
            (
                r#"mod("a")"#,
                r#"malformed comparison: mod("a"); got mod("a")  """#,
            ),
        ] {
            assert_eq!(parse_compare(line).unwrap_err(), text);
        }
    }
}
