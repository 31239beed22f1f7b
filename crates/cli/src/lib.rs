//! What `etcdctl` and `etcdutl` have in common: a table of commands, how words on the command
//! line become a call of one of them, and texts, tables and help as etcd's tools print them.
//!
//! A program is a static [`Program`]: a tree of [`Command`]s with their [`flags`]. [`read`] finds
//! the command, reads its flags, and hands back a [`Call`]; what a command returns (`T`) is the
//! program's own choice, since one of them runs futures and the other does not. Nothing here
//! knows a server, a file or an exit code but the one of a reader that has gone away.

pub mod arguments;
pub mod completion;
pub mod flags;
pub mod help;
pub mod manual;
pub mod out;
mod suggest;
pub mod table;
pub mod text;
pub mod time;

use std::borrow::Cow;

use bytes::Bytes;

use flags::{Flag, Flags, Kind, Parsed};

/// A program with commands.
pub struct Program<T: 'static> {
    /// The command that has all others; its name is the program's.
    pub root: Command<T>,
    /// Flags that every command takes.
    pub globals: &'static [Flag],
    /// Whether usage lists the global flags; otherwise a command `options` does.
    pub shows_globals: bool,
    /// Headings of the root's help in their order; without any there is one list.
    pub groups: &'static [&'static str],
}

/// One row of the table of commands.
pub struct Command<T: 'static> {
    pub name: &'static str,
    /// What follows the name in the usage line.
    pub usage: &'static str,
    /// One line for lists of commands.
    pub short: &'static str,
    /// What the command's own help says instead of `short`, if not empty.
    pub long: &'static str,
    pub example: &'static str,
    /// The heading under which the root's help lists it.
    pub group: &'static str,
    pub flags: &'static [Flag],
    /// Whether the flags belong to the sub-commands as well.
    pub inherit_flags: bool,
    pub commands: &'static [Command<T>],
    /// Whether help, completion and the manual leave it out, and only its whole name finds it.
    pub is_hidden: bool,
    pub run: Option<fn(Call<T>) -> T>,
}

impl<T> Command<T> {
    /// A row with nothing in it, to be filled with what a command has.
    pub const EMPTY: Command<T> = Command {
        name: "",
        usage: "",
        short: "",
        long: "",
        example: "",
        group: "",
        flags: &[],
        inherit_flags: false,
        commands: &[],
        is_hidden: false,
        run: None,
    };

    /// The sub-commands that help shows.
    pub(crate) fn shown(&self) -> impl Iterator<Item = &'static Command<T>> {
        self.commands.iter().filter(|command| !command.is_hidden)
    }

    /// The sub-command with this name, or the only one whose name begins so.
    pub fn find(&self, name: &str) -> Option<&'static Command<T>> {
        if let Some(exact) = self.commands.iter().find(|command| command.name == name) {
            return Some(exact);
        }
        let mut found = self
            .commands
            .iter()
            .filter(|command| !command.is_hidden && command.name.starts_with(name));
        match (found.next(), found.next()) {
            (Some(command), None) if !name.is_empty() => Some(command),
            _ => None,
        }
    }
}

/// A command with what the command line gave it.
pub struct Call<T: 'static> {
    pub program: &'static Program<T>,
    /// From the root to the command.
    pub path: Vec<&'static Command<T>>,
    pub flags: Flags,
    /// The words that are no flags. Bytes, because keys and values need not be texts.
    pub args: Vec<Bytes>,
    /// How many of `args` stood before a `--`, if there was one.
    pub separator: Option<usize>,
}

impl<T> Call<T> {
    /// The argument as text; what is no UTF-8 is replaced.
    pub fn text(&self, index: usize) -> Cow<'_, str> {
        self.args
            .get(index)
            .map_or(Cow::Borrowed(""), |arg| String::from_utf8_lossy(arg))
    }

    /// That flags or arguments are not such as the command takes.
    #[must_use]
    pub fn misuse(&self, text: &str) -> Misuse {
        Misuse::new(self.program, &self.path, text)
    }

    /// Checks the number of arguments.
    ///
    /// # Errors
    /// It is another one.
    pub fn expect_args(&self, count: usize) -> Result<(), Misuse> {
        if self.args.len() == count {
            return Ok(());
        }
        let received = self.args.len();
        Err(self.misuse(&format!("accepts {count} arg(s), received {received}")))
    }
}

/// Words that name no command, or that a command does not take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Misuse {
    /// What is wrong.
    pub text: String,
    /// What would be right.
    pub usage: String,
}

impl Misuse {
    fn new<T>(program: &Program<T>, path: &[&'static Command<T>], text: &str) -> Misuse {
        Misuse {
            text: text.to_owned(),
            usage: help::usage(program, path) + "\n",
        }
    }

    /// Says it on standard error.
    pub fn report(&self) {
        eprint!("Error: {}\n{}", self.text, self.usage);
    }
}

const HELP_FLAG: Flag = Flag {
    name: "help",
    short: Some('h'),
    kind: Kind::Bool,
    ..Flag::EMPTY
};

/// Every flag that a command takes, its own first.
fn flags_of<T>(program: &'static Program<T>, path: &[&'static Command<T>]) -> Vec<&'static Flag> {
    let mut all: Vec<&'static Flag> = vec![&HELP_FLAG];
    all.extend(program.globals);
    for (index, command) in path.iter().enumerate() {
        if command.inherit_flags || index + 1 == path.len() {
            all.extend(command.flags);
        }
    }
    all
}

/// What the command line asks for.
pub enum Request<T: 'static> {
    /// A text for standard output.
    Help(String),
    /// A command that can run.
    Run(Call<T>, fn(Call<T>) -> T),
}

/// Reads the words after the program's name.
///
/// # Errors
/// They name no command, or have flags that it does not take.
pub fn read<T>(program: &'static Program<T>, words: Vec<Bytes>) -> Result<Request<T>, Misuse> {
    let (path, words) = find(program, words);
    let parsed = flags::parse(&flags_of(program, &path), words)
        .map_err(|text| Misuse::new(program, &path, &text))?;
    let Parsed {
        flags,
        args,
        separator,
    } = parsed;
    if flags.bool("help") {
        return Ok(Request::Help(help::help(program, &path)));
    }
    if path.len() == 1
        && let Some(word) = args.first()
    {
        return Err(unknown(program, &String::from_utf8_lossy(word)));
    }
    let Some(run) = path[path.len() - 1].run else {
        return Ok(Request::Help(help::help(program, &path)));
    };
    if let Some(text) = missing(&path, &flags) {
        return Err(Misuse::new(program, &path, &text));
    }
    let call = Call {
        program,
        path,
        flags,
        args,
        separator,
    };
    Ok(Request::Run(call, run))
}

/// Names the flags that the command needs and was not given.
fn missing<T>(path: &[&'static Command<T>], flags: &Flags) -> Option<String> {
    let own = path[path.len() - 1].flags.iter();
    let mut names: Vec<String> = own
        .filter(|flag| flag.is_required && !flags.is_given(flag.name))
        .map(|flag| format!("{:?}", flag.name))
        .collect();
    names.sort();
    (!names.is_empty()).then(|| format!("required flag(s) {} not set", names.join(", ")))
}

/// Follows the words that name commands; returns the path and the other words.
fn find<T>(
    program: &'static Program<T>,
    mut words: Vec<Bytes>,
) -> (Vec<&'static Command<T>>, Vec<Bytes>) {
    let mut path = vec![&program.root];
    while let Some(index) = flags::first_argument(&flags_of(program, &path), &words) {
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

fn unknown<T>(program: &Program<T>, word: &str) -> Misuse {
    let root = &program.root;
    let mut usage = String::new();
    let near = suggest::near(word, root.commands.iter().map(|command| command.name));
    if !near.is_empty() {
        usage.push_str("\nDid you mean this?\n");
        near.iter()
            .for_each(|name| usage.push_str(&format!("\t{name}\n")));
        usage.push('\n');
    }
    usage.push_str(&format!("Run '{} --help' for usage.\n", root.name));
    let quoted = text::quote(word.as_bytes());
    Misuse {
        text: format!("unknown command {quoted} for {:?}", root.name),
        usage,
    }
}

/// What a command `help` does: explains the command that its arguments name.
pub fn explain<T>(call: &Call<T>) {
    let mut path = vec![&call.program.root];
    for index in 0..call.args.len() {
        let Some(command) = path[path.len() - 1].find(&call.text(index)) else {
            let words: Vec<_> = (0..call.args.len())
                .map(|index| format!("`{}`", call.text(index)))
                .collect();
            eprintln!("Unknown help topic [{}]", words.join(" "));
            eprint!("{}", help::usage(call.program, &path[..1]));
            return;
        };
        path.push(command);
    }
    out::text(&help::help(call.program, &path));
}

/// What a command `manual` does: writes the pages into the directory that its argument names.
///
/// # Errors
/// It is not one argument, or the files cannot be written.
pub fn write_manual<T>(call: &Call<T>, section: u8) -> Result<(), Misuse> {
    call.expect_args(1)?;
    let directory = call.text(0);
    let directory = std::path::Path::new(&*directory);
    let pages = manual::pages(call.program, section);
    let write = || {
        std::fs::create_dir_all(directory)?;
        pages
            .iter()
            .try_for_each(|page| std::fs::write(directory.join(&page.file), &page.text))
    };
    write().map_err(|error: std::io::Error| {
        call.misuse(&format!(
            "{}: {}",
            directory.display(),
            text::io_error(&error)
        ))
    })
}

/// What a command `completion` does: prints the script for the shell that its argument names.
///
/// # Errors
/// It is not one argument, or no known shell.
pub fn complete<T>(call: &Call<T>) -> Result<(), Misuse> {
    call.expect_args(1)?;
    let shell = call.text(0);
    match completion::script(call.program, &shell) {
        Some(script) => {
            out::text(&script);
            Ok(())
        }
        None => {
            let name = call.program.root.name;
            Err(call.misuse(&format!(
                "invalid argument {shell:?} for \"{name} completion\""
            )))
        }
    }
}
