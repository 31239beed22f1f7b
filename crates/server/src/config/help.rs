//! The texts of `--help`, of a usage error and of `--version`.

use std::fmt::Write;

use super::table::{FLAGS, Section, Support};

/// The short text that a usage error prints on stderr.
pub const USAGE: &str = "\
Usage:
  etcd [flags]             run a member
  etcd --config-file PATH  run a member with the settings of a YAML or JSON file, in which
                           durations are whole nanoseconds; flags and variables are ignored
  etcd --version           print the version
  etcd --help              list the flags
";

/// The list of flags.
#[must_use]
pub fn flags() -> String {
    let mut text = String::new();
    for section in Section::LISTED {
        let _ = writeln!(text, "{}:", section.title());
        for flag in FLAGS.iter().filter(|flag| flag.section == *section) {
            let default = match flag.name {
                "data-dir" => "${name}.etcd",
                _ => flag.default,
            };
            let _ = writeln!(text, "  --{} '{default}'", flag.name);
            let note = match flag.support {
                Support::Acts => "",
                Support::Inert => " (no effect)",
                Support::Later | Support::Refused => " (not supported yet)",
            };
            let _ = writeln!(text, "    {}{note}", flag.help);
        }
        text.push('\n');
    }
    text.push_str("Every flag --some-flag can also be set as the variable ETCD_SOME_FLAG.\n");
    text
}

/// What `--version` prints.
#[must_use]
pub fn version() -> String {
    let (os, arch) = (std::env::consts::OS, std::env::consts::ARCH);
    // Go's names: scripts that read this line know no others.
    let arch = match arch {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "powerpc64" => "ppc64le",
        other => other,
    };
    format!(
        "etcd Version: {}\nGit SHA: {}\nGo Version: none\nGo OS/Arch: {os}/{arch}\n\
         Quorate Version: {}\n",
        api::version::SERVER,
        option_env!("QUORATE_GIT_SHA").unwrap_or("unknown"),
        api::version::QUORATE,
    )
}
