//! `etcdctl`: the command line of a running cluster.
//!
//! A word on the command line is looked up in the table of commands (`command`), its flags are
//! read (`cli`), the command asks the servers through the `client` crate, and the answer is
//! printed in the format of `-w` (`print`). What scripts depend on is kept as etcd 3.7 has it:
//! names, flags, variables, output, messages and exit codes; tables are drawn as by 3.4 to 3.6.

mod cli;
mod command;
mod exit;
mod log;
mod print;
mod prompt;

use std::os::unix::ffi::OsStringExt;
use std::process::ExitCode;

use ::cli::{out, text};
use bytes::Bytes;

fn main() -> ExitCode {
    let words = std::env::args_os()
        .skip(1)
        .map(|word| Bytes::from(word.into_vec()))
        .collect();
    let runtime = match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("Error: cannot start: {error}");
            return ExitCode::from(exit::ERROR);
        }
    };
    let code = match runtime.block_on(cli::run(&command::PROGRAM, words)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    };
    // A thread may still wait for standard input.
    runtime.shutdown_background();
    code
}
