//! The end of a member that cannot go on.

use std::error::Error;

/// Logs what failed with all its causes and ends the process. The file system is left as it is:
/// the next start recovers exactly what was acknowledged.
pub(crate) fn fatal(what: &str, error: &dyn Error) -> ! {
    let mut chain = error.to_string();
    let mut cause = error.source();
    while let Some(source) = cause {
        chain.push_str(": ");
        chain.push_str(&source.to_string());
        cause = source.source();
    }
    tracing::error!(fatal = true, error = %chain, "cannot {what}; stopping");
    // The lines are written by another thread.
    crate::log::flush();
    std::process::exit(1);
}
