//! watch: prints events as they happen, or runs a command for each.

use std::io::BufRead;
use std::process::Command as Process;

use api::pb::etcdserverpb::WatchCreateRequest;
use api::pb::mvccpb::Event;
use bytes::Bytes;
use client::{Cancellation, WatchEvent, Watcher, Watches, prefix_end};
use tokio::sync::mpsc;

use crate::cli::flags::{self, Flag, Flags};
use crate::cli::globals::Session;
use crate::cli::{Call, Command, group};
use crate::exit::{self, Failure, Outcome};
use crate::out;
use crate::print::{Answer, Printer, simple};
use crate::text::{self, quote};

pub(super) const WATCH: Command = Command {
    name: "watch",
    usage: "[options] [key or prefix] [range_end] [--] [exec-command arg1 arg2 ...]",
    short: "Prints the events of keys as they happen",
    group: group::KEY_VALUE,
    flags: FLAGS,
    run: Some(|call| Box::pin(watch(call))),
    ..Command::EMPTY
};

const FLAGS: &[Flag] = &[
    Flag {
        short: Some('i'),
        ..Flag::switch("interactive", "read watches from standard input")
    },
    Flag::switch("prefix", "watch all keys that begin with the given one"),
    Flag::int("rev", "begin with the events of this revision"),
    Flag::switch("prev-kv", "also print what the keys held before"),
    Flag::switch(
        "progress-notify",
        "let the server say at times how far the watch has come",
    ),
];

const BAD_NUMBER: &str = "bad number of arguments";
const CONFLICT: &str = "bad number of arguments (found conflicting environment key)";
const NO_COMMAND: &str = "bad number of arguments (found separator --, but no commands)";

/// A key, perhaps a range, from the environment instead of the arguments.
struct Environment {
    key: Option<Bytes>,
    range_end: Option<Bytes>,
}

impl Environment {
    fn read() -> Result<Self, Failure> {
        let read = |name| {
            let value = std::env::var_os(name)?;
            Some(Bytes::from(std::os::unix::ffi::OsStringExt::into_vec(
                value,
            )))
            .filter(|value| !value.is_empty())
        };
        let environment = Environment {
            key: read("ETCDCTL_WATCH_KEY"),
            range_end: read("ETCDCTL_WATCH_RANGE_END"),
        };
        match &environment {
            Environment {
                key: None,
                range_end: Some(end),
            } => {
                let end = quote(end);
                let text =
                    format!("ETCDCTL_WATCH_KEY is empty but got ETCDCTL_WATCH_RANGE_END={end}");
                Err(Failure::bad_args(text))
            }
            _ => Ok(environment),
        }
    }
}

/// What to watch and what to run for each event.
struct Order {
    request: WatchCreateRequest,
    command: Vec<Bytes>,
}

async fn watch(mut call: Call) -> Outcome {
    let environment = Environment::read()?;
    if call.flags.bool("interactive") {
        return interactive(call, environment).await;
    }
    let (words, command) =
        split(&call.args, call.separator, &environment).map_err(Failure::bad_args)?;
    let session = Session::new(&mut call)?;
    let client = session.connect().await?.requiring_leader();
    let request = create_request(&call.flags, &words).map_err(Failure::bad_args)?;
    let watches = client.watches();
    let watcher = watches.create(request);
    follow(watcher, session.printer, command).await?;
    Err(Failure::new(
        exit::INTERRUPTED,
        "watch is canceled by the server",
    ))
}

/// Tells keys from the command to run, and the environment's key from arguments.
fn split(
    args: &[Bytes],
    separator: Option<usize>,
    environment: &Environment,
) -> Result<(Vec<Bytes>, Vec<Bytes>), &'static str> {
    let (own, command) = args.split_at(separator.unwrap_or(args.len()));
    if separator.is_some() && command.is_empty() {
        return Err(NO_COMMAND);
    }
    let mut words = own.to_vec();
    if let Some(key) = &environment.key {
        if !own.is_empty() {
            return Err(CONFLICT);
        }
        words.push(key.clone());
        words.extend(environment.range_end.clone());
    }
    if words.is_empty() {
        return Err(BAD_NUMBER);
    }
    Ok((words, command.to_vec()))
}

fn create_request(flags: &Flags, words: &[Bytes]) -> Result<WatchCreateRequest, &'static str> {
    let prefix = flags.bool("prefix");
    let key = words[0].clone();
    let range_end = match words {
        [_, _] if prefix => return Err("`range_end` and `--prefix` are mutually exclusive"),
        [_, end] => end.clone(),
        _ if prefix && key.is_empty() => Bytes::from_static(b"\0"),
        _ if prefix => prefix_end(&key),
        _ => Bytes::new(),
    };
    Ok(WatchCreateRequest {
        // No key and the whole range means all keys.
        key: if prefix && key.is_empty() {
            Bytes::from_static(b"\0")
        } else {
            key
        },
        range_end,
        start_revision: flags.int("rev"),
        progress_notify: flags.bool("progress-notify"),
        prev_kv: flags.bool("prev-kv"),
        ..WatchCreateRequest::default()
    })
}

/// Reads watches from standard input; they share one stream.
async fn interactive(mut call: Call, environment: Environment) -> Outcome {
    let session = Session::new(&mut call)?;
    let client = session.connect().await?.requiring_leader();
    let watches = client.watches();
    let (failed, mut failures) = mpsc::unbounded_channel();
    let mut lines = input_lines();
    loop {
        let line = tokio::select! {
            Some(failure) = failures.recv() => return Err(failure),
            line = lines.recv() => line,
        };
        let Some(line) = line else {
            let text = "error reading watch request line: EOF";
            return Err(Failure::new(exit::INVALID_INPUT, text));
        };
        let Some(order) = read_line(&line, &watches, &environment)? else {
            continue;
        };
        let watcher = watches.create(order.request);
        let (printer, failed) = (session.printer, failed.clone());
        tokio::spawn(async move {
            if let Err(failure) = follow(watcher, printer, order.command).await {
                // The receiver lives as long as the command.
                let _sent = failed.send(failure);
            }
        });
    }
}

/// Lines of standard input, read by a thread of their own.
fn input_lines() -> mpsc::UnboundedReceiver<String> {
    let (sender, lines) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        let mut line = String::new();
        // A last line without an end is dropped, as nobody may have meant to send it.
        while std::io::stdin().lock().read_line(&mut line).is_ok() && line.ends_with('\n') {
            line.pop();
            if sender.send(std::mem::take(&mut line)).is_err() {
                return;
            }
        }
    });
    lines
}

/// Does what a line says; a line that asks for a watch becomes an order.
fn read_line(
    line: &str,
    watches: &Watches,
    environment: &Environment,
) -> Result<Option<Order>, Failure> {
    let words = text::words(line).map_err(|text| Failure::new(exit::INVALID_INPUT, text))?;
    let mut words = words.into_iter().map(Bytes::from);
    let Some(name) = words.next() else {
        eprintln!("Invalid command: {line} (watch and progress supported)");
        return Ok(None);
    };
    match name.as_ref() {
        b"watch" => {}
        b"progress" => {
            watches.request_progress();
            return Ok(None);
        }
        _ => {
            eprintln!("Invalid command {line} (only support watch)");
            return Ok(None);
        }
    }
    let words: Vec<_> = words.collect();
    if words.is_empty() && environment.key.is_none() {
        eprintln!("Invalid command {line} (command type or key is not provided)");
        return Ok(None);
    }
    let known: Vec<_> = FLAGS.iter().collect();
    let parsed = flags::parse(&known, words).map_err(Failure::bad_args)?;
    let (words, command) =
        split(&parsed.args, parsed.separator, environment).map_err(Failure::bad_args)?;
    match create_request(&parsed.flags, &words) {
        Ok(request) => Ok(Some(Order { request, command })),
        Err(text) => {
            eprintln!("Invalid command {line} ({text})");
            Ok(None)
        }
    }
}

/// Prints what a watch delivers until it ends.
async fn follow(mut watcher: Watcher, printer: Printer, command: Vec<Bytes>) -> Outcome {
    while let Some(answer) = watcher.next().await {
        match &answer.cancelled {
            Some(Cancellation::Refused(reason)) => eprintln!("watch was canceled ({reason})"),
            Some(Cancellation::Compacted(_)) => {
                eprintln!("watch was canceled ({})", api::Error::Compacted);
            }
            None if answer.is_progress() => {
                let revision = answer.header.unwrap_or_default().revision;
                out::line(&format!("progress notify: {revision}"));
            }
            None => {}
        }
        printer.print(&Answer::Watch(&answer))?;
        if !command.is_empty() {
            run_for_each(answer, &command).await?;
        }
    }
    Ok(())
}

async fn run_for_each(answer: WatchEvent, command: &[Bytes]) -> Outcome {
    let revision = answer.header.unwrap_or_default().revision;
    for event in answer.events {
        let mut process = process(command, revision, &event);
        let status = tokio::task::spawn_blocking(move || process.status()).await;
        let failure = match status {
            Ok(Ok(status)) if status.success() => continue,
            Ok(Ok(status)) => super::concurrency::exit_text(status),
            Ok(Err(error)) => super::concurrency::start_error(&command[0], &error),
            Err(error) => error.to_string(),
        };
        let words: Vec<_> = command.iter().map(|word| quote(word)).collect();
        eprintln!("command [{}] error ({failure})", words.join(" "));
        return Err(Failure::silent(exit::ERROR));
    }
    Ok(())
}

fn process(command: &[Bytes], revision: i64, event: &Event) -> Process {
    let kv = event.kv.clone().unwrap_or_default();
    let kind = simple::event_type(event.r#type());
    let mut process = super::concurrency::process(command);
    process
        .env("ETCD_WATCH_REVISION", revision.to_string())
        .env("ETCD_WATCH_EVENT_TYPE", quote(kind.as_bytes()))
        .env("ETCD_WATCH_KEY", quote(&kv.key))
        .env("ETCD_WATCH_VALUE", quote(&kv.value));
    process
}
