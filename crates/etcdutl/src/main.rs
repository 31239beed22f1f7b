//! `etcdutl`: the command line for files of etcd that no server has open.
//!
//! A word on the command line is looked up in the table of commands (`command`); what a command
//! does is in a module of its own: the state of a snapshot (`status`), a data directory from it
//! (`restore`), a database without holes (`defrag`), another schema (`migrate`). What scripts
//! depend on is kept as etcd 3.7 has it: names, flags, output, messages and exit codes; tables
//! are drawn as by 3.4 to 3.6.
//!
//! Every file is taken for hostile: what is read from it is checked before it is trusted, and
//! memory is bounded by the file's own size.

mod command;
mod database;
mod defrag;
mod exit;
#[cfg(test)]
mod fixture;
mod hash;
mod log;
mod migrate;
mod print;
mod restore;
mod status;
mod version;

use std::os::unix::ffi::OsStringExt;
use std::process::ExitCode;

use bytes::Bytes;
use cli::Request;

fn main() -> ExitCode {
    let words = std::env::args_os()
        .skip(1)
        .map(|word| Bytes::from(word.into_vec()))
        .collect();
    let outcome = match cli::read(&command::PROGRAM, words) {
        Ok(Request::Help(text)) => {
            cli::out::text(&text);
            Ok(())
        }
        Ok(Request::Run(call, run)) => run(call),
        Err(misuse) => Err(misuse.into()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}
