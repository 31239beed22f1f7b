//! The `etcd` binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    server::process::main(server::start)
}
