//! The command line: a table of commands, and how words on it become a call of one of them.

pub(crate) mod completion;
pub(crate) mod flags;
pub(crate) mod globals;
pub(crate) mod help;
mod suggest;

use std::borrow::Cow;
use std::future::Future;
use std::pin::Pin;

use bytes::Bytes;

use crate::exit::{self, Failure, Outcome};
use flags::{Flag, Flags, Kind, Parsed};

/// A heading of the root's help.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Group {
    KeyValue,
    Maintenance,
    Concurrency,
    Authentication,
    Utility,
}

impl Group {
    pub(crate) const ALL: [Group; 5] = [
        Group::KeyValue,
        Group::Maintenance,
        Group::Concurrency,
        Group::Authentication,
        Group::Utility,
    ];

    pub(crate) fn title(self) -> &'static str {
        match self {
            Group::KeyValue => "Key-value commands",
            Group::Maintenance => "Cluster maintenance commands",
            Group::Concurrency => "Concurrency commands",
            Group::Authentication => "Authentication commands",
            Group::Utility => "Utility commands",
        }
    }
}

/// What a command does, as a future that the caller polls.
pub(crate) type Running = Pin<Box<dyn Future<Output = Outcome>>>;

/// One row of the table.
pub(crate) struct Command {
    pub(crate) name: &'static str,
    /// What follows the name in the usage line.
    pub(crate) usage: &'static str,
    /// One line for lists of commands.
    pub(crate) short: &'static str,
    /// What the command's own help says instead of `short`, if not empty.
    pub(crate) long: &'static str,
    pub(crate) example: &'static str,
    pub(crate) group: Group,
    pub(crate) flags: &'static [Flag],
    /// Whether the flags belong to the sub-commands as well.
    pub(crate) inherit_flags: bool,
    pub(crate) commands: &'static [Command],
    pub(crate) run: Option<fn(Call) -> Running>,
}

impl Command {
    /// A row with nothing in it, to be filled with what a command has.
    pub(crate) const EMPTY: Command = Command {
        name: "",
        usage: "",
        short: "",
        long: "",
        example: "",
        group: Group::Utility,
        flags: &[],
        inherit_flags: false,
        commands: &[],
        run: None,
    };

    /// The sub-command with this name, or the only one whose name begins so.
    pub(crate) fn find(&self, name: &str) -> Option<&'static Command> {
        if let Some(exact) = self.commands.iter().find(|command| command.name == name) {
            return Some(exact);
        }
        let mut found = self
            .commands
            .iter()
            .filter(|command| command.name.starts_with(name));
        match (found.next(), found.next()) {
            (Some(command), None) if !name.is_empty() => Some(command),
            _ => None,
        }
    }
}

/// A command with what the command line gave it.
pub(crate) struct Call {
    /// From the root to the command.
    pub(crate) path: Vec<&'static Command>,
    pub(crate) flags: Flags,
    /// The words that are no flags. Bytes, because keys and values need not be texts.
    pub(crate) args: Vec<Bytes>,
    /// How many of `args` stood before a `--`, if there was one.
    pub(crate) separator: Option<usize>,
}

impl Call {
    /// The argument as text; what is no UTF-8 is replaced.
    pub(crate) fn text(&self, index: usize) -> Cow<'_, str> {
        self.args
            .get(index)
            .map_or(Cow::Borrowed(""), |arg| String::from_utf8_lossy(arg))
    }
}

const HELP_FLAG: Flag = Flag {
    name: "help",
    short: Some('h'),
    kind: Kind::Bool,
    ..Flag::EMPTY
};

/// Every flag that a command takes, its own first.
fn flags_of(path: &[&'static Command]) -> Vec<&'static Flag> {
    let mut all: Vec<&'static Flag> = vec![&HELP_FLAG];
    all.extend(globals::FLAGS);
    for (index, command) in path.iter().enumerate() {
        if command.inherit_flags || index + 1 == path.len() {
            all.extend(command.flags);
        }
    }
    all
}

/// What the command line asks for.
enum Request {
    Help(Vec<&'static Command>),
    Run(Call),
}

/// Runs what the words after the program's name ask for.
///
/// # Errors
/// What the command says, or words that name no command.
pub(crate) async fn run(root: &'static Command, words: Vec<Bytes>) -> Outcome {
    match read(root, words)? {
        Request::Help(path) => {
            crate::out::text(&help::help(&path));
            Ok(())
        }
        Request::Run(call) => match call.path.last().and_then(|command| command.run) {
            Some(run) => run(call).await,
            None => {
                crate::out::text(&help::help(&call.path));
                Ok(())
            }
        },
    }
}

fn read(root: &'static Command, words: Vec<Bytes>) -> Result<Request, Failure> {
    let (path, words) = find(root, words);
    let parsed = match flags::parse(&flags_of(&path), words) {
        Ok(parsed) => parsed,
        Err(text) => return Err(misuse(&path, &text)),
    };
    if parsed.flags.bool("help") {
        return Ok(Request::Help(path));
    }
    let Parsed {
        flags,
        args,
        separator,
    } = parsed;
    if path.len() == 1
        && let Some(word) = args.first()
    {
        return Err(unknown(root, &String::from_utf8_lossy(word)));
    }
    Ok(Request::Run(Call {
        path,
        flags,
        args,
        separator,
    }))
}

/// Follows the words that name commands; returns the path and the other words.
fn find(root: &'static Command, mut words: Vec<Bytes>) -> (Vec<&'static Command>, Vec<Bytes>) {
    let mut path = vec![root];
    while let Some(index) = flags::first_argument(&flags_of(&path), &words) {
        let current = path[path.len() - 1];
        let Some(next) = std::str::from_utf8(&words[index])
            .ok()
            .and_then(|w| current.find(w))
        else {
            break;
        };
        words.remove(index);
        path.push(next);
    }
    (path, words)
}

/// Reports flags or arguments that a command does not take, with its usage.
pub(crate) fn misuse(path: &[&'static Command], text: &str) -> Failure {
    eprintln!("Error: {text}");
    eprintln!("{}", help::usage(path));
    Failure::silent(exit::ERROR)
}

fn unknown(root: &'static Command, word: &str) -> Failure {
    eprintln!(
        "Error: unknown command {} for {:?}",
        crate::text::quote(word.as_bytes()),
        root.name
    );
    let near = suggest::near(word, root.commands.iter().map(|command| command.name));
    if !near.is_empty() {
        eprintln!("\nDid you mean this?");
        near.iter().for_each(|name| eprintln!("\t{name}"));
        eprintln!();
    }
    eprintln!("Run '{} --help' for usage.", root.name);
    Failure::silent(exit::ERROR)
}
