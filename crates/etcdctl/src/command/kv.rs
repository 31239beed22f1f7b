//! get, put, del.

use std::io::Read;
use std::time::Duration;

use api::pb::etcdserverpb::range_request::{SortOrder, SortTarget};
use api::pb::etcdserverpb::{DeleteRangeRequest, PutRequest, RangeRequest};
use bytes::Bytes;
use client::prefix_end;

use crate::cli::flags::{Flag, Flags};
use crate::cli::globals::Session;
use crate::cli::{Call, Command, group};
use crate::exit::{self, Failure, Outcome};
use crate::print::{Answer, Format};
use crate::text::quote;

pub(super) const GET: Command = Command {
    name: "get",
    usage: "[options] <key> [range_end]",
    short: "Reads a key or a range of keys",
    group: group::KEY_VALUE,
    flags: &[
        Flag::text(
            "consistency",
            "l",
            "l to read what a quorum has (linearizable), s to read what one member has (serializable)",
        ),
        Flag::text("order", "", "ASCEND or DESCEND"),
        Flag::text("sort-by", "", "CREATE, KEY, MODIFY, VALUE or VERSION"),
        Flag::int("limit", "how many pairs to read at most"),
        Flag::switch("prefix", "read all keys that begin with the given one"),
        Flag::switch("from-key", "read all keys from the given one on"),
        Flag::int("rev", "read as of this revision"),
        Flag::switch("keys-only", "read keys without their values"),
        Flag::switch("count-only", "only count the keys"),
        Flag::switch(
            "print-value-only",
            "print values without their keys (simple format)",
        ),
        Flag::int(
            "min-create-rev",
            "leave out keys created before this revision",
        ),
        Flag::int(
            "max-create-rev",
            "leave out keys created after this revision",
        ),
        Flag::int("min-mod-rev", "leave out keys changed before this revision"),
        Flag::int("max-mod-rev", "leave out keys changed after this revision"),
        Flag::switch(
            "stream",
            "let the server send the answer in parts (RangeStream)",
        ),
    ],
    run: Some(|call| Box::pin(get(call))),
    ..Command::EMPTY
};

pub(super) const PUT: Command = Command {
    name: "put",
    usage: "[options] <key> <value> (<value> can also be given from stdin)",
    short: "Writes a key",
    long: "\
Writes a key.

Without <value> (and without --ignore-value) the value is everything that standard input has:

  $ cat file | etcdctl put <key>

A value that begins with '-' would be taken for a flag; '--' ends the flags:

  $ etcdctl put <key> -- <value>
  $ etcdctl put -- <key> <value>
",
    group: group::KEY_VALUE,
    flags: &[
        Flag::text(
            "lease",
            "0",
            "lease (hexadecimal ID) that the key ends with",
        ),
        Flag::switch("prev-kv", "also print what the key held before"),
        Flag::switch("ignore-value", "keep the value that the key has"),
        Flag::switch("ignore-lease", "keep the lease that the key has"),
    ],
    run: Some(|call| Box::pin(put(call))),
    ..Command::EMPTY
};

pub(super) const DEL: Command = Command {
    name: "del",
    usage: "[options] <key> [range_end]",
    short: "Deletes a key or the range of keys [key, range_end)",
    group: group::KEY_VALUE,
    flags: &[
        Flag::switch("prefix", "delete all keys that begin with the given one"),
        Flag::switch("prev-kv", "also print what the keys held"),
        Flag::switch("from-key", "delete all keys from the given one on"),
        Flag::switch(
            "range",
            "delete a range without waiting for second thoughts",
        ),
    ],
    run: Some(|call| Box::pin(del(call))),
    ..Command::EMPTY
};

const ONE_OF_PREFIX_AND_FROM: &str =
    "`--prefix` and `--from-key` cannot be set at the same time, choose one";

const ONE_ARGUMENT: &str =
    "too many arguments, only accept one argument when `--prefix` or `--from-key` is set";

async fn get(mut call: Call) -> Outcome {
    let request = range_request(&call.flags, &call.args)?;
    let mut session = Session::new(&mut call)?;
    let client = session.connect_limited().await?;
    let answer = match call.flags.bool("stream") {
        true => client.range_stream(request).await?,
        false => client.range(request).await?,
    };
    if call.flags.bool("count-only") && session.printer.format != Format::Fields {
        return Err(Failure::bad_args(
            "--count-only is only for `--write-out=fields`",
        ));
    }
    if call.flags.bool("print-value-only") {
        if session.printer.format != Format::Simple {
            return Err(Failure::bad_args(
                "print-value-only is only for `--write-out=simple`",
            ));
        }
        session.printer.value_only = true;
    }
    session.printer.print(&Answer::Get(&answer))
}

async fn put(mut call: Call) -> Outcome {
    let request = put_request(&call.flags, &call.args)?;
    let session = Session::new(&mut call)?;
    let answer = session.connect_limited().await?.put(request).await?;
    session.printer.print(&Answer::Put(&answer))
}

async fn del(mut call: Call) -> Outcome {
    let request = delete_request(&call.flags, &call.args)?;
    warn_of_range(&call.flags, &call.args).await;
    let session = Session::new(&mut call)?;
    let answer = session
        .connect_limited()
        .await?
        .delete_range(request)
        .await?;
    session.printer.print(&Answer::Delete(&answer))
}

/// `l` or `s`.
///
/// # Errors
/// Anything else.
pub(super) fn is_serializable(flag: &str) -> Result<bool, Failure> {
    match flag {
        "s" => Ok(true),
        "l" => Ok(false),
        other => {
            let quoted = quote(other.as_bytes());
            Err(Failure::new(
                exit::BAD_FEATURE,
                format!("unknown consistency flag {quoted}"),
            ))
        }
    }
}

/// What the flags and arguments of `get` ask for.
///
/// # Errors
/// Arguments that contradict the flags or each other.
pub(super) fn range_request(flags: &Flags, args: &[Bytes]) -> Result<RangeRequest, Failure> {
    let Some(key) = args.first() else {
        let text = "get command needs one argument as key and an optional argument as range_end";
        return Err(Failure::bad_args(text));
    };
    let (prefix, from_key) = (flags.bool("prefix"), flags.bool("from-key"));
    if prefix && from_key {
        return Err(Failure::bad_args(ONE_OF_PREFIX_AND_FROM));
    }
    if flags.bool("keys-only") && flags.bool("count-only") {
        let text = "`--keys-only` and `--count-only` cannot be set at the same time, choose one";
        return Err(Failure::bad_args(text));
    }
    let serializable = is_serializable(flags.text("consistency"))?;
    if args.len() > 1 && (prefix || from_key) {
        return Err(Failure::bad_args(ONE_ARGUMENT));
    }
    let (order, target) = sort(flags)?;
    check_bounds(flags)?;
    let (key, range_end) = range(key, args.get(1), prefix, from_key);
    let positive = |name| flags.int(name).max(0);
    Ok(RangeRequest {
        key,
        range_end,
        limit: flags.int("limit"),
        revision: positive("rev"),
        sort_order: order.into(),
        sort_target: target.into(),
        serializable,
        keys_only: flags.bool("keys-only"),
        count_only: flags.bool("count-only"),
        min_mod_revision: positive("min-mod-rev"),
        max_mod_revision: positive("max-mod-rev"),
        min_create_revision: positive("min-create-rev"),
        max_create_revision: positive("max-create-rev"),
    })
}

/// The key and end of a range; an empty key with `--prefix` or `--from-key` means all keys.
fn range(key: &Bytes, end: Option<&Bytes>, prefix: bool, from_key: bool) -> (Bytes, Bytes) {
    if !prefix && !from_key {
        return (key.clone(), end.cloned().unwrap_or_default());
    }
    let open = Bytes::from_static(b"\0");
    match (key.is_empty(), from_key) {
        (true, _) => (open.clone(), open),
        (false, true) => (key.clone(), open),
        (false, false) => (key.clone(), prefix_end(key)),
    }
}

fn sort(flags: &Flags) -> Result<(SortOrder, SortTarget), Failure> {
    let bad = |what: &str, name: &str| {
        Failure::new(
            exit::BAD_FEATURE,
            format!("bad sort {what} {}", flags.text(name)),
        )
    };
    let order = match flags.text("order").to_uppercase().as_str() {
        "ASCEND" => SortOrder::Ascend,
        "DESCEND" => SortOrder::Descend,
        "" => SortOrder::None,
        _ => return Err(bad("order", "order")),
    };
    let target = match flags.text("sort-by").to_uppercase().as_str() {
        "CREATE" => SortTarget::Create,
        "KEY" | "" => SortTarget::Key,
        "MODIFY" => SortTarget::Mod,
        "VALUE" => SortTarget::Value,
        "VERSION" => SortTarget::Version,
        _ => return Err(bad("target", "sort-by")),
    };
    // Keys come in ascending order anyway; asking for it would make the server sort.
    let order = match (order, target) {
        (SortOrder::Ascend, SortTarget::Key) => SortOrder::None,
        (order, _) => order,
    };
    Ok((order, target))
}

fn check_bounds(flags: &Flags) -> Result<(), Failure> {
    for (min, max, name) in [
        ("min-create-rev", "max-create-rev", "CreateRev"),
        ("min-mod-rev", "max-mod-rev", "ModRev"),
    ] {
        let (min, max) = (flags.int(min), flags.int(max));
        if max > 0 && min > max {
            let text = format!("getMin{name}(={min}) > getMax{name}(={max})");
            return Err(Failure::new(exit::BAD_FEATURE, text));
        }
    }
    Ok(())
}

/// What the flags and arguments of `put` ask for; reads standard input for a missing value.
///
/// # Errors
/// Arguments that are missing, too many, or no lease.
pub(super) fn put_request(flags: &Flags, args: &[Bytes]) -> Result<PutRequest, Failure> {
    let too_few =
        || Failure::bad_args("put command needs 1 argument and input from stdin or 2 arguments");
    let key = args.first().ok_or_else(too_few)?.clone();
    let ignore_value = flags.bool("ignore-value");
    if ignore_value && args.len() > 1 {
        let text = "put command needs only 1 argument when 'ignore-value' is set";
        return Err(Failure::bad_args(text));
    }
    let value = match args.get(1) {
        _ if ignore_value => Bytes::new(),
        Some(value) => value.clone(),
        None => {
            let mut value = Vec::new();
            let read = std::io::stdin().read_to_end(&mut value);
            read.ok().filter(|length| *length > 0).ok_or_else(too_few)?;
            value.into()
        }
    };
    let lease = Bytes::from(flags.text("lease").to_owned());
    Ok(PutRequest {
        key,
        value,
        lease: super::hex_lease(&lease, "lease ID")?,
        prev_kv: flags.bool("prev-kv"),
        ignore_value,
        ignore_lease: flags.bool("ignore-lease"),
    })
}

/// What the flags and arguments of `del` ask for.
///
/// # Errors
/// Arguments that contradict the flags or each other.
pub(super) fn delete_request(flags: &Flags, args: &[Bytes]) -> Result<DeleteRangeRequest, Failure> {
    let [key, end @ ..] = args else {
        return Err(del_arguments());
    };
    if end.len() > 1 {
        return Err(del_arguments());
    }
    let (prefix, from_key) = (flags.bool("prefix"), flags.bool("from-key"));
    if prefix && from_key {
        return Err(Failure::bad_args(ONE_OF_PREFIX_AND_FROM));
    }
    if !end.is_empty() && (prefix || from_key) {
        return Err(Failure::bad_args(ONE_ARGUMENT));
    }
    let (key, range_end) = range(key, end.first(), prefix, from_key);
    Ok(DeleteRangeRequest {
        key,
        range_end,
        prev_kv: flags.bool("prev-kv"),
    })
}

fn del_arguments() -> Failure {
    let text = "del command needs one argument as key and an optional argument as range_end";
    Failure::bad_args(text)
}

/// Leaves time for second thoughts before a range is deleted that nobody confirmed.
pub(super) async fn warn_of_range(flags: &Flags, args: &[Bytes]) {
    let [key, end] = args else { return };
    if flags.bool("range") {
        return;
    }
    eprintln!(
        "Warning: Keys between {} and {} will be deleted. Please interrupt the command within \
         next 2 seconds to cancel. You can provide `--range` flag to avoid the delay.",
        quote(key),
        quote(end)
    );
    tokio::time::sleep(Duration::from_secs(2)).await;
}
