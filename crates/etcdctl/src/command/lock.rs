//! lock: holds a named lock until a signal comes or a command has run.

use bytes::Bytes;
use client::concurrency::{self, Lock};

use super::concurrency::{Interrupts, exit_text, process, start_error};
use crate::cli::flags::{Flag, Kind};
use crate::cli::globals::Session;
use crate::cli::{Call, Command, group};
use crate::exit::{self, Failure, Outcome};
use crate::print::Answer;

pub(super) const LOCK: Command = Command {
    name: "lock",
    usage: "<lockname> [exec-command arg1 arg2 ...]",
    short: "Holds a named lock",
    group: group::CONCURRENCY,
    flags: &[Flag {
        kind: Kind::Int,
        ..Flag::text(
            "ttl",
            "10",
            "seconds after which a holder that has vanished loses the lock",
        )
    }],
    run: Some(|call| Box::pin(lock(call))),
    ..Command::EMPTY
};

async fn lock(mut call: Call) -> Outcome {
    if call.args.is_empty() {
        let text = "lock takes a lock name argument and an optional command to execute";
        return Err(Failure::bad_args(text));
    }
    let settings = Session::new(&mut call)?;
    let client = settings.connect().await?;
    let ttl = match call.flags.int("ttl") {
        ttl if ttl > 0 => ttl,
        _ => concurrency::SESSION_TTL_SECONDS,
    };
    let session = concurrency::Session::new(&client, ttl).await?;
    let mut interrupts = Interrupts::catch()?;
    let name = call.text(0);
    let acquired = tokio::select! {
        acquired = Lock::acquire(&session, &name) => Some(acquired?),
        () = interrupts.wait() => None,
    };
    let Some(lock) = acquired else {
        Lock::abandon(&session, &name).await?;
        return Err(Failure::new(exit::ERROR, "context canceled"));
    };
    if call.args.len() > 1 {
        let outcome = run(&lock, &call.args[1..]).await;
        let released = lock.release(&session).await;
        outcome?;
        return Ok(released?);
    }
    let request = api::pb::etcdserverpb::RangeRequest {
        key: lock.key().clone(),
        ..Default::default()
    };
    let answer = client.range(request).await?;
    if answer.kvs.is_empty() {
        return Err(Failure::new(exit::ERROR, "lock lost on init"));
    }
    settings.printer.print(&Answer::Get(&answer))?;
    tokio::select! {
        () = interrupts.wait() => Ok(lock.release(&session).await?),
        () = session.ended() => Err(Failure::new(exit::ERROR, "session expired")),
    }
}

/// Runs a program that learns of the lock from its environment. What the environment has
/// already wins.
async fn run(lock: &Lock, words: &[Bytes]) -> Outcome {
    let mut process = process(words);
    let key = String::from_utf8_lossy(lock.key()).into_owned();
    let revision = lock.header().revision.to_string();
    for (name, value) in [("ETCD_LOCK_KEY", key), ("ETCD_LOCK_REV", revision)] {
        if std::env::var_os(name).is_none() {
            process.env(name, value);
        }
    }
    let ended = tokio::task::spawn_blocking(move || process.status()).await;
    match ended {
        Ok(Ok(status)) if status.success() => Ok(()),
        Ok(Ok(status)) => {
            let code = status.code().and_then(|code| u8::try_from(code).ok());
            Err(Failure::new(code.unwrap_or(u8::MAX), exit_text(status)))
        }
        Ok(Err(error)) => Err(Failure::new(exit::ERROR, start_error(&words[0], &error))),
        Err(error) => Err(Failure::new(exit::ERROR, error.to_string())),
    }
}
