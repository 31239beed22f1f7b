//! A disk that syncs nothing while a file exists: in test builds alone.

use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Duration;

/// Names the file.
const VARIABLE: &str = "STALL_SYNCS_FILE";
const PAUSE: Duration = Duration::from_millis(2);

/// Returns when the file is not, or no longer, there.
pub(super) fn wait() {
    static FILE: OnceLock<Option<PathBuf>> = OnceLock::new();
    let file = FILE.get_or_init(|| std::env::var_os(VARIABLE).map(PathBuf::from));
    while file.as_ref().is_some_and(|file| file.exists()) {
        std::thread::sleep(PAUSE);
    }
}
