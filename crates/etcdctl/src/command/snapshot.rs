//! snapshot save.

mod moved;

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use client::Client;
use tokio::time::Instant;

use super::endpoint::took;
use crate::cli::globals::Session;
use crate::cli::{Call, Command, group};
use crate::exit::{self, Failure, Outcome};
use crate::{log, out, text};

const EXAMPLES: &str = "  \
  # The database of the default endpoint
  etcdctl snapshot save /backup/etcd.db

  # The database of another member, within a minute
  etcdctl snapshot save --endpoints=10.0.0.2:2379 --command-timeout=60s /backup/etcd.db

  # Over TLS
  etcdctl --endpoints=https://10.0.0.2:2379 --cacert=ca.pem --cert=me.pem --key=me-key.pem snapshot save /backup/etcd.db
";

pub(super) const SNAPSHOT: Command = Command {
    name: "snapshot",
    short: "Copies of a member's database",
    example: EXAMPLES,
    group: group::MAINTENANCE,
    commands: &[
        Command {
            name: "save",
            usage: "<filename>",
            short: "Writes a copy of a member's database to a file",
            example: EXAMPLES,
            run: Some(|call| Box::pin(save(call))),
            ..Command::EMPTY
        },
        moved::STATUS,
        moved::RESTORE,
    ],
    ..Command::EMPTY
};

/// The size of the checksum behind the pages, and of the unit that all page sizes divide by.
const CHECKSUM_BYTES: u64 = 32;
const PAGE_UNIT_BYTES: u64 = 512;

async fn save(mut call: Call) -> Outcome {
    if call.args.len() != 1 {
        return Err(Failure::bad_args(
            "snapshot save expects one argument <filename>",
        ));
    }
    let session = Session::new(&mut call)?;
    let path = PathBuf::from(std::ffi::OsStr::from_bytes(&call.args[0]));
    let interrupted = |text: String| Failure::new(exit::INTERRUPTED, text);
    let [endpoint] = &session.config.endpoints[..] else {
        let endpoints = session.config.endpoints.join(" ");
        let text =
            format!("snapshot must be requested to one selected node, not multiple [{endpoints}]");
        return Err(interrupted(text));
    };
    let mut client = match session.connect().await {
        Ok(client) => client,
        // A file of the configuration is a wrong argument; all else is a failed save.
        Err(failure) if failure.code == exit::BAD_ARGS => return Err(failure),
        Err(failure) => {
            return Err(Failure {
                code: exit::INTERRUPTED,
                ..failure
            });
        }
    };
    if let Some(deadline) = session.explicit_deadline() {
        client = client.with_deadline(deadline);
    }
    let mut part = path.clone().into_os_string();
    part.push(".part");
    let part = PathBuf::from(part);
    let saved = download(&client, endpoint, &part, &path).await;
    if saved.is_err() {
        // What is left of a failed attempt is of no use; it may not even exist.
        let _removed = std::fs::remove_file(&part);
    }
    let version = saved.map_err(interrupted)?;
    out::line(&format!("Snapshot saved at {}", path.display()));
    if !version.is_empty() {
        out::line(&format!("Server version {version}"));
    }
    Ok(())
}

/// Writes the stream to `part`, makes it durable and gives it its name. Returns the version
/// that the server states, which before 3.6 is empty.
async fn download(
    client: &Client,
    endpoint: &str,
    part: &Path,
    path: &Path,
) -> Result<String, String> {
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(part)
        .map_err(|error| {
            let (shown, why) = (part.display(), text::io_error(&error));
            format!("could not open {shown} (open {shown}: {why})")
        })?;
    let shown = part.display().to_string();
    log::line("info", "created temporary db file", &[("path", &shown)]);
    let begin = Instant::now();
    let (size, version) = copy(client, endpoint, &mut file).await?;
    if size % PAGE_UNIT_BYTES != CHECKSUM_BYTES {
        return Err(format!("sha256 checksum not found [bytes: {size}]"));
    }
    file.sync_all()
        .map_err(|error| format!("could not fsync snapshot: {error}"))?;
    drop(file);
    let fields = [
        ("endpoint", endpoint),
        ("size", &*text::bytes(size)),
        ("took", &*took(begin)),
        ("etcd-version", &*version),
    ];
    log::line("info", "fetched snapshot", &fields);
    std::fs::rename(part, path).map_err(|error| {
        format!(
            "could not rename {} to {} ({error})",
            part.display(),
            path.display()
        )
    })?;
    sync_directory(path);
    log::line("info", "saved", &[("path", &path.display().to_string())]);
    Ok(version)
}

async fn copy(client: &Client, endpoint: &str, file: &mut File) -> Result<(u64, String), String> {
    let failed = |error: client::Error| {
        log::cause(&error);
        error.to_string()
    };
    let mut stream = client.snapshot().await.map_err(failed)?;
    log::line("info", "fetching snapshot", &[("endpoint", endpoint)]);
    let (mut size, mut version) = (0, String::new());
    loop {
        let part = client
            .next_part(&mut stream)
            .await
            .map_err(|error| match size {
                0 => failed(error),
                _ => format!("could not write snapshot: {}", failed(error)),
            })?;
        let Some(part) = part else {
            return Ok((size, version));
        };
        if version.is_empty() {
            version = part.version;
        }
        file.write_all(&part.blob)
            .map_err(|error| format!("could not write snapshot: {error}"))?;
        size += part.blob.len() as u64;
    }
}

/// Makes the new name durable, where the file system can.
fn sync_directory(path: &Path) {
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let _synced = File::open(parent).and_then(|directory| directory.sync_all());
}
