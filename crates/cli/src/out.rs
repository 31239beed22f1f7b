//! Standard output. A reader that has gone away ends the process quietly, as it ends etcdctl.

use std::io::Write;

/// The exit code of a process whose output nobody reads.
const FAILED: u8 = 1;

/// Writes bytes and makes them visible at once: other programs wait for lines of a watch.
pub fn bytes(bytes: &[u8]) {
    let mut stdout = std::io::stdout().lock();
    if stdout
        .write_all(bytes)
        .and_then(|()| stdout.flush())
        .is_err()
    {
        std::process::exit(i32::from(FAILED));
    }
}

/// Writes a text.
pub fn text(text: &str) {
    bytes(text.as_bytes());
}

/// Writes a line.
pub fn line(text: &str) {
    bytes(format!("{text}\n").as_bytes());
}
