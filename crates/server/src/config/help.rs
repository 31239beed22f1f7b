//! The texts of `--help`, of a usage error and of `--version`.

use std::fmt::Write;

use super::table::{FLAGS, Flag, Section, Support};

/// The short text that a usage error prints on stderr.
pub const USAGE: &str = "\
Usage:
  etcd [flags]             run a member
  etcd --config-file PATH  run a member with the settings of a YAML or JSON file, in which
                           durations are whole nanoseconds; flags and variables are ignored
  etcd --version           print the version
  etcd --help              list the flags
  etcd gateway start       pass connections on to a cluster
";

/// The headings in the order of the help text.
pub(crate) fn sections() -> impl Iterator<Item = Section> {
    Section::LISTED.iter().copied()
}

/// The flags that the help text lists.
pub(crate) fn listed() -> impl Iterator<Item = &'static Flag> {
    FLAGS.iter().filter(|flag| flag.section != Section::Hidden)
}

/// The default as the help text shows it.
#[must_use]
pub(crate) fn shown_default(flag: &Flag) -> &'static str {
    match flag.name {
        "data-dir" => "${name}.etcd",
        _ => flag.default,
    }
}

/// What the help text says behind the words about a flag.
#[must_use]
pub(crate) fn note(flag: &Flag) -> &'static str {
    match flag.support {
        Support::Acts => "",
        Support::Inert => " (no effect)",
    }
}

/// The list of flags.
#[must_use]
pub fn flags() -> String {
    let mut text = String::new();
    for section in Section::LISTED {
        let _ = writeln!(text, "{}:", section.title());
        for flag in FLAGS.iter().filter(|flag| flag.section == *section) {
            let _ = writeln!(text, "  --{} '{}'", flag.name, shown_default(flag));
            let _ = writeln!(text, "    {}{}", flag.help, note(flag));
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
