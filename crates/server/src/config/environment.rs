//! `ETCD_*` variables: every flag has one; the command line wins, but not silently.

use super::legacy::{self, LEGACY, Legacy};
use super::notice::{Level, Notice};
use super::raw::{Raw, Source};
use super::table::FLAGS;

const PREFIX: &str = "ETCD_";
const VERSION: &str = "ETCD_VERSION";

/// Variables that etcd reads outside the flag table.
const SPECIAL: &[&str] = &["ETCD_UNSUPPORTED_ARCH", "ETCD_VERIFY"];

/// Why the environment stops the start.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// A variable holds what its flag does not take.
    Invalid(String),
    /// The variable and the flag are both set.
    Shadowed(String),
}

/// Fills the flags that the command line left alone from `env`.
///
/// # Errors
/// The last bad value, or the first variable that a flag shadows.
pub(super) fn apply(
    env: &[(String, String)],
    raw: &mut Raw,
    notices: &mut Vec<Notice>,
) -> Result<(), Refusal> {
    let mut invalid = None;
    let mut used = Vec::new();
    // ETCD_VERSION belongs to the init scripts of old packages and is no flag.
    if let Some((key, value)) = env
        .iter()
        .find(|(key, text)| key == VERSION && !text.is_empty())
    {
        notices.push(
            Notice::new(Level::Warn, "cannot set special environment variable")
                .text("key", key)
                .text("value", value),
        );
        used.push(key.clone());
    }
    let mut shadowed = Vec::new();
    for (position, flag) in FLAGS.iter().enumerate() {
        let key = flag.env();
        if key == VERSION {
            continue;
        }
        if raw.source_at(position).is_some() {
            shadowed.push(key);
            continue;
        }
        let Some((_, text)) = env
            .iter()
            .find(|(name, text)| *name == key && !text.is_empty())
        else {
            continue;
        };
        match flag.kind.parse(text) {
            Ok(value) => {
                raw.set(position, value, Source::Environment);
                notices.push(
                    Notice::new(Level::Info, "recognized and used environment variable")
                        .text("variable-name", &key)
                        .text("variable-value", text),
                );
            }
            Err(why) => invalid = Some(format!("invalid value {text:?} for {key}: {why}")),
        }
        used.push(key);
    }
    apply_legacy(env, raw, &mut used, &mut shadowed, &mut invalid);
    for (name, text) in env {
        if used.contains(name) || SPECIAL.contains(&name.as_str()) {
            continue;
        }
        if shadowed.contains(name) {
            return Err(Refusal::Shadowed(name.clone()));
        }
        if name.starts_with(PREFIX) {
            notices.push(
                Notice::new(Level::Warn, "unrecognized environment variable")
                    .text("environment-variable", &format!("{name}={text}")),
            );
        }
    }
    invalid.map_or(Ok(()), |why| Err(Refusal::Invalid(why)))
}

/// The variables of flags of earlier releases.
fn apply_legacy(
    env: &[(String, String)],
    raw: &mut Raw,
    used: &mut Vec<String>,
    shadowed: &mut Vec<String>,
    invalid: &mut Option<String>,
) {
    let given: Vec<&str> = raw.legacy.iter().map(|set| set.legacy.name).collect();
    let (given, free): (Vec<&Legacy>, Vec<&Legacy>) = LEGACY
        .iter()
        .partition(|legacy| given.contains(&legacy.name));
    shadowed.extend(given.into_iter().map(Legacy::env));
    for legacy in free {
        let key = legacy.env();
        let set = env
            .iter()
            .find(|(name, text)| *name == key && !text.is_empty());
        let Some((_, text)) = set else { continue };
        match legacy.kind().parse(text) {
            Ok(value) => raw.legacy.push(legacy::Set {
                legacy,
                value,
                source: Source::Environment,
            }),
            Err(why) => *invalid = Some(format!("invalid value {text:?} for {key}: {why}")),
        }
        used.push(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(env: &[(&str, &str)], set_by_flag: &[&str]) -> (Result<(), Refusal>, Raw, Vec<String>) {
        let env: Vec<_> = env
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect();
        let words: Vec<String> = set_by_flag.iter().map(|f| format!("--{f}")).collect();
        let (mut raw, mut notices) = (Raw::default(), Vec::new());
        super::super::command_line::parse(&words, &mut raw).unwrap();
        let result = apply(&env, &mut raw, &mut notices);
        (
            result,
            raw,
            notices
                .iter()
                .map(|n| format!("{:?} {}", n.level, n.message))
                .collect(),
        )
    }

    #[test]
    fn precedence_and_warnings() {
        let (result, raw, notices) = run(
            &[
                ("ETCD_NAME", "env"),
                ("ETCD_PRE_VOTE", ""),
                ("ETCD_NOPE", "1"),
                ("HOME", "/"),
            ],
            &[],
        );
        assert_eq!(result, Ok(()));
        assert_eq!(raw.text("name"), "env");
        assert_eq!(raw.source("pre-vote"), None);
        assert_eq!(
            notices,
            [
                "Info recognized and used environment variable",
                "Warn unrecognized environment variable",
                "Warn unrecognized environment variable",
            ]
        );
        let (result, raw, notices) = run(&[("ETCD_VERSION", "3.1")], &[]);
        assert_eq!((result, raw.bool("version")), (Ok(()), false));
        assert_eq!(notices, ["Warn cannot set special environment variable"]);
    }

    #[test]
    fn refusals() {
        let (result, ..) = run(&[("ETCD_NAME", "")], &["name=x"]);
        assert_eq!(result, Err(Refusal::Shadowed("ETCD_NAME".into())));
        let (result, ..) = run(&[("ETCD_MAX_WALS", "x")], &[]);
        let why = r#"invalid value "x" for ETCD_MAX_WALS: parse error"#;
        assert_eq!(result, Err(Refusal::Invalid(why.into())));
    }

    #[test]
    fn every_flag_has_a_variable() {
        for (flag, text) in crate::config::tests::samples() {
            if flag.name == "version" {
                continue;
            }
            let (result, raw, _) = run(&[(&flag.env(), &text)], &[]);
            assert_eq!(result, Ok(()), "{}", flag.name);
            assert_eq!(
                raw.source(flag.name),
                Some(Source::Environment),
                "{}",
                flag.name
            );
        }
    }
}
