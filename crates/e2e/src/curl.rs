//! Requests over TLS by the `curl` command.

use std::path::Path;
use std::process::Command;

use crate::pki::Leaf;

/// What one run of curl gave.
#[derive(Debug)]
pub struct Curled {
    /// The body, then status and version of HTTP.
    pub text: String,
    /// What `--verbose` says of the handshake.
    pub talk: String,
    /// Whether curl was content.
    pub done: bool,
}

/// One run: trusts the authority, and shows the certificate if there is one.
///
/// # Panics
/// There is no `curl`.
#[must_use]
pub fn curl(authority: &Path, leaf: Option<&Leaf>, words: &[&str]) -> Curled {
    let mut command = Command::new("curl");
    command.args(["--silent", "--show-error", "--verbose", "--max-time", "10"]);
    command.args(["--write-out", " %{http_code} %{http_version}"]);
    command.arg("--cacert").arg(authority);
    if let Some(leaf) = leaf {
        command.arg("--cert").arg(&leaf.certificate);
        command.arg("--key").arg(&leaf.key);
    }
    let output = command.args(words).output().expect("curl runs");
    Curled {
        text: String::from_utf8_lossy(&output.stdout).into_owned(),
        talk: String::from_utf8_lossy(&output.stderr).into_owned(),
        done: output.status.success(),
    }
}
