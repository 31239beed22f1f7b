//! The command line of etcdctl: what `cli` knows of any, with commands that run as futures.

pub(crate) mod globals;

use std::future::Future;
use std::pin::Pin;

use bytes::Bytes;
pub(crate) use cli::flags;
use cli::{Program, Request};

use crate::exit::Outcome;

/// What a command does, as a future that the caller polls.
pub(crate) type Running = Pin<Box<dyn Future<Output = Outcome>>>;

/// One row of the table of commands.
pub(crate) type Command = cli::Command<Running>;

/// A command with what the command line gave it.
pub(crate) type Call = cli::Call<Running>;

/// The headings of the root's help.
pub(crate) mod group {
    pub(crate) const KEY_VALUE: &str = "Key-value commands";
    pub(crate) const MAINTENANCE: &str = "Cluster maintenance commands";
    pub(crate) const CONCURRENCY: &str = "Concurrency commands";
    pub(crate) const AUTHENTICATION: &str = "Authentication commands";
    pub(crate) const UTILITY: &str = "Utility commands";
    pub(crate) const ALL: &[&str] = &[KEY_VALUE, MAINTENANCE, CONCURRENCY, AUTHENTICATION, UTILITY];
}

/// Runs what the words after the program's name ask for.
///
/// # Errors
/// What the command says, or words that name no command.
pub(crate) async fn run(program: &'static Program<Running>, words: Vec<Bytes>) -> Outcome {
    match cli::read(program, words)? {
        Request::Help(text) => {
            cli::out::text(&text);
            Ok(())
        }
        Request::Run(call, run) => run(call).await,
    }
}
