//! `cargo xtask codegen`: message types from `crates/api/proto` into `crates/api/src/pb`.
//!
//! The generated files are checked in, so that building needs no protobuf compiler.

use std::error::Error;
use std::path::{Path, PathBuf};

const SCHEMAS: &[&str] = &[
    "kv.proto",
    "auth.proto",
    "membership.proto",
    "rpc.proto",
    "raft_internal.proto",
    "lease.proto",
    "lock.proto",
    "election.proto",
    "health.proto",
];

/// Regenerates every message type.
///
/// # Errors
/// A schema that does not compile, or a file that cannot be written.
pub(crate) fn run() -> Result<(), Box<dyn Error>> {
    let api = api_root();
    let include = api.join("proto");
    let descriptors = protox::compile(SCHEMAS, [&include])?;
    let out = api.join("src/pb");
    std::fs::create_dir_all(&out)?;
    prost_build::Config::new()
        .bytes(["."])
        .out_dir(&out)
        .compile_fds(descriptors)?;
    Ok(())
}

fn api_root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("api")
}
