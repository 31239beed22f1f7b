//! migrate.

use std::path::Path;

use cli::flags::Flag;
use storage::datadir::DataDir;

use super::{Call, Command, data_dir, lock_timeout};
use crate::exit::{Failure, Outcome};
use crate::migrate::{self, Request};
use crate::version::{V3_5, Version};

pub(super) const MIGRATE: Command = Command {
    name: "migrate",
    short: "Makes a data directory fit for another release of etcd",
    flags: &[
        data_dir("data directory, which no running etcd may have open (required)"),
        Flag {
            is_required: true,
            ..Flag::text(
                "target-version",
                "",
                "release that shall start from it, as X.Y, at least 3.5 (required)",
            )
        },
        Flag::switch(
            "force",
            "write the version although the migration fails (a last resort)",
        ),
    ],
    run: Some(run),
    ..Command::EMPTY
};

fn run(call: Call) -> Outcome {
    let target = target(call.flags.text("target-version"))?;
    migrate::migrate(&Request {
        dir: DataDir::new(Path::new(call.flags.text("data-dir")), None),
        target,
        force: call.flags.bool("force"),
        lock_timeout: lock_timeout(&call),
    })?;
    Ok(())
}

/// Reads `X.Y`.
fn target(text: &str) -> Result<Version, Failure> {
    let quoted = cli::text::quote(text.as_bytes());
    let Some((major, minor)) = text.split_once('.').filter(|(_, y)| !y.contains('.')) else {
        let text = format!("wrong target version format, expected \"X.Y\", got {quoted}");
        return Err(Failure::bad_args(text));
    };
    let number = |part: &str| {
        let parsed = cli::text::parse_int(part, 10).and_then(|number| {
            let negative = || format!("{number} is negative");
            u64::try_from(number).map_err(|_| negative())
        });
        parsed.map_err(|why| Failure::bad_args(format!("failed to parse target version: {why}")))
    };
    let version = Version::of(number(major)?, number(minor)?);
    if version < V3_5 {
        let text = format!(
            "target version \"{}\" not supported. Minimal \"3.5\"",
            version.minor_text()
        );
        return Err(Failure::bad_args(text));
    }
    Ok(version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets() {
        assert_eq!(target("3.6"), Ok(Version::of(3, 6)));
        for (text, why) in [
            (
                "x",
                "wrong target version format, expected \"X.Y\", got \"x\"",
            ),
            (
                "3.6.0",
                "wrong target version format, expected \"X.Y\", got \"3.6.0\"",
            ),
            (
                "3.x",
                "failed to parse target version: strconv.ParseInt: parsing \"x\": invalid syntax",
            ),
            (
                "3.4",
                "target version \"3.4\" not supported. Minimal \"3.5\"",
            ),
        ] {
            assert_eq!(target(text), Err(Failure::bad_args(why)), "{text}");
        }
    }
}
