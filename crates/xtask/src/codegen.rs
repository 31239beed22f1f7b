//! `cargo xtask codegen`: message types from `crates/api/proto` into `crates/api/src/pb`, the
//! client stubs of their services into `crates/client/src/stub`, and what the JSON gateway must
//! know of them into `crates/server/src/gateway/schema`.
//!
//! The generated files are checked in, so that building needs no protobuf compiler.

mod schema;

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::Command;

use protox::prost_reflect::DescriptorPool;
use tonic_prost_build::FileDescriptorSet;

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

/// The packages whose services get client stubs, and the modules of `api::pb` with their messages.
const SERVICES: &[(&str, &str)] = &[
    (".etcdserverpb", "::api::pb::etcdserverpb"),
    (".mvccpb", "::api::pb::mvccpb"),
    (".authpb", "::api::pb::authpb"),
    (".membershippb", "::api::pb::membershippb"),
    (".leasepb", "::api::pb::leasepb"),
    (".v3lockpb", "::api::pb::v3lockpb"),
    (".v3electionpb", "::api::pb::v3electionpb"),
    (".grpc.health.v1", "::api::pb::health"),
];

/// Regenerates every message type and client stub.
///
/// # Errors
/// A schema that does not compile, or a file that cannot be written.
pub(crate) fn run() -> Result<(), Box<dyn Error>> {
    let api = crate_root("api");
    let include = api.join("proto");
    let descriptors = protox::compile(SCHEMAS, [&include])?;
    let out = api.join("src/pb");
    std::fs::create_dir_all(&out)?;
    prost_build::Config::new()
        .bytes(["."])
        .out_dir(&out)
        .compile_fds(descriptors.clone())?;
    gateway_schema(descriptors.clone())?;
    client_stubs(descriptors)
}

fn gateway_schema(descriptors: FileDescriptorSet) -> Result<(), Box<dyn Error>> {
    let pool = DescriptorPool::from_file_descriptor_set(descriptors)?;
    let path = crate_root("server").join("src/gateway/schema/messages.rs");
    std::fs::write(&path, schema::file(&pool)?)?;
    let formatted = Command::new("rustfmt").arg(&path).status()?;
    match formatted.success() {
        true => Ok(()),
        false => Err(format!("rustfmt: {formatted}").into()),
    }
}

fn client_stubs(descriptors: FileDescriptorSet) -> Result<(), Box<dyn Error>> {
    let out = crate_root("client").join("src/stub");
    std::fs::create_dir_all(&out)?;
    let mut builder = tonic_prost_build::configure()
        .build_server(false)
        .build_transport(false)
        .out_dir(&out);
    for (package, module) in SERVICES {
        builder = builder.extern_path(*package, *module);
    }
    builder.compile_fds(descriptors)?;
    // A package without services leaves a file without content.
    for file in std::fs::read_dir(&out)? {
        let path = file?.path();
        if !std::fs::read_to_string(&path)?.contains("pub mod ") {
            std::fs::remove_file(&path)?;
        }
    }
    Ok(())
}

fn crate_root(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name(name)
}
