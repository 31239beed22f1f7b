//! elect: stands for an election or watches one.

use client::concurrency::{self, Leadership, SESSION_TTL_SECONDS};

use super::concurrency::Interrupts;
use crate::cli::flags::Flag;
use crate::cli::globals::Session;
use crate::cli::{Call, Command, group};
use crate::exit::{self, Failure, Outcome};
use crate::print::Answer;

pub(super) const ELECT: Command = Command {
    name: "elect",
    usage: "<election-name> [proposal]",
    short: "Stands for an election, or follows one",
    group: group::CONCURRENCY,
    flags: &[Flag {
        short: Some('l'),
        ..Flag::switch("listen", "only print who leads")
    }],
    run: Some(|call| Box::pin(elect(call))),
    ..Command::EMPTY
};

async fn elect(mut call: Call) -> Outcome {
    if !(1..=2).contains(&call.args.len()) {
        let text = "elect takes one election name argument and an optional proposal argument";
        return Err(Failure::bad_args(text));
    }
    let settings = Session::new(&mut call)?;
    let client = settings.connect().await?;
    match (call.args.len(), call.flags.bool("listen")) {
        (1, true) => observe(&settings, &client, &call.text(0)).await,
        (1, false) => Err(Failure::bad_args("no proposal argument but -l not set")),
        (_, true) => Err(Failure::bad_args("proposal given but -l is set")),
        (_, false) => campaign(&settings, &client, &call).await,
    }
}

async fn observe(settings: &Session, client: &client::Client, name: &str) -> Outcome {
    let mut interrupts = Interrupts::catch()?;
    let mut unprinted = Ok(());
    let observation = concurrency::observe(client, name, |answer| {
        if unprinted.is_ok() {
            unprinted = settings.printer.print(&Answer::Get(&answer));
        }
    });
    tokio::select! {
        _ended = observation => {
            unprinted?;
            Err(Failure::new(exit::ERROR, "elect: observer lost"))
        }
        () = interrupts.wait() => Ok(()),
    }
}

async fn campaign(settings: &Session, client: &client::Client, call: &Call) -> Outcome {
    let session = concurrency::Session::new(client, SESSION_TTL_SECONDS).await?;
    let mut interrupts = Interrupts::catch()?;
    let name = call.text(0);
    let won = tokio::select! {
        won = Leadership::campaign(&session, &name, call.args[1].clone()) => Some(won?),
        () = interrupts.wait() => None,
    };
    let Some(leadership) = won else {
        Leadership::abandon(&session, &name).await?;
        return Err(Failure::new(exit::ERROR, "context canceled"));
    };
    let request = api::pb::etcdserverpb::RangeRequest {
        key: leadership.key().clone(),
        ..Default::default()
    };
    let answer = client.range(request).await?;
    settings.printer.print(&Answer::Get(&answer))?;
    tokio::select! {
        () = interrupts.wait() => Ok(leadership.resign(&session).await?),
        () = session.ended() => Err(Failure::new(exit::ERROR, "elect: session expired")),
    }
}
