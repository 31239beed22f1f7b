//! Words of the command line to typed values, by the rules of Go's `flag` package.

use super::legacy;
use super::raw::{Raw, Source};
use super::table::{self, FLAGS};
use super::value::Kind;

/// What the command line asked for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Parsed {
    /// Flags only; they are in the `Raw`.
    Flags,
    /// `-h`, `-help`, `--help`.
    Help,
    /// A word that is no flag; parsing stopped there.
    Stray(String),
}

/// Reads `words` (without the program's name) into `raw`.
///
/// # Errors
/// The line that Go prints before its usage text.
pub(super) fn parse(words: &[String], raw: &mut Raw) -> Result<Parsed, String> {
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let Some(body) = word.strip_prefix('-').filter(|rest| !rest.is_empty()) else {
            return Ok(Parsed::Stray(word.clone()));
        };
        let body = body.strip_prefix('-').unwrap_or(body);
        if body.is_empty() {
            return Ok(words
                .next()
                .map_or(Parsed::Flags, |word| Parsed::Stray(word.clone())));
        }
        if body.starts_with(['-', '=']) {
            return Err(format!("bad flag syntax: {word}"));
        }
        let (name, inline) = match body.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (body, None),
        };
        let position = table::position(name);
        let legacy = legacy::find(name);
        let kind = match (position, legacy) {
            (Some(position), _) => FLAGS[position].kind,
            (None, Some(legacy)) => legacy.kind(),
            (None, None) if name == "help" || name == "h" => return Ok(Parsed::Help),
            (None, None) => return Err(format!("flag provided but not defined: -{name}")),
        };
        let text = match inline {
            Some(text) => text,
            None if kind.is_boolean() => "true",
            None => match words.next() {
                Some(word) => word,
                None => return Err(format!("flag needs an argument: -{name}")),
            },
        };
        let value = kind.parse(text).map_err(|why| match kind {
            Kind::Bool => format!("invalid boolean value {text:?} for -{name}: {why}"),
            _ => format!("invalid value {text:?} for flag -{name}: {why}"),
        })?;
        let source = Source::CommandLine;
        match (position, legacy) {
            (Some(position), _) => raw.set(position, value, source),
            (None, Some(legacy)) => raw.legacy.push(legacy::Set {
                legacy,
                value,
                source,
            }),
            (None, None) => unreachable!("refused above"),
        }
    }
    Ok(Parsed::Flags)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(words: &str) -> Result<(Parsed, Raw), String> {
        let words: Vec<String> = words.split_whitespace().map(str::to_owned).collect();
        let mut raw = Raw::default();
        parse(&words, &mut raw).map(|parsed| (parsed, raw))
    }

    #[test]
    fn forms() {
        for words in ["-name x", "--name x", "-name=x", "--name=x"] {
            let (parsed, raw) = run(words).unwrap();
            assert_eq!(parsed, Parsed::Flags);
            assert_eq!(raw.text("name"), "x");
            assert_eq!(raw.source("name"), Some(Source::CommandLine));
        }
        let (_, raw) = run("--pre-vote=false --auto-tls -v -vv=7 --name=a=b").unwrap();
        assert!(!raw.bool("pre-vote") && raw.bool("auto-tls"));
        assert_eq!(raw.text("name"), "a=b");
        let (parsed, raw) = run("--pre-vote false --name x").unwrap();
        assert_eq!(parsed, Parsed::Stray("false".into()));
        assert!(raw.bool("pre-vote"));
        assert_eq!(run("-- x").unwrap().0, Parsed::Stray("x".into()));
        assert_eq!(run("-").unwrap().0, Parsed::Stray("-".into()));
        for words in ["-h", "--help", "-help", "--name x -h"] {
            assert_eq!(run(words).unwrap().0, Parsed::Help);
        }
    }

    #[test]
    fn refusals() {
        let cases = [
            ("--nope", "flag provided but not defined: -nope"),
            (
                "--experimental-x=1",
                "flag provided but not defined: -experimental-x",
            ),
            ("---name", "bad flag syntax: ---name"),
            ("--=x", "bad flag syntax: --=x"),
            ("--name", "flag needs an argument: -name"),
            (
                "--max-wals x",
                r#"invalid value "x" for flag -max-wals: parse error"#,
            ),
            (
                "--pre-vote=x",
                r#"invalid boolean value "x" for -pre-vote: parse error"#,
            ),
            (
                "--corrupt-check-time 5",
                r#"invalid value "5" for flag -corrupt-check-time: parse error"#,
            ),
            (
                "--initial-cluster-state x",
                r#"invalid value "x" for flag -initial-cluster-state: invalid value"#,
            ),
            (
                "--v2-deprecation not-yet",
                r#"invalid value "not-yet" for flag -v2-deprecation: invalid value "not-yet""#,
            ),
            (
                "--listen-client-urls localhost",
                "invalid value \"localhost\" for flag -listen-client-urls: URL scheme must be \
                 http, https, unix, or unixs: localhost",
            ),
        ];
        for (words, want) in cases {
            assert_eq!(run(words).map(|_| ()), Err(want.to_owned()));
        }
    }

    #[test]
    fn every_flag_takes_a_value_on_the_command_line() {
        for (flag, text) in crate::config::tests::samples() {
            let (parsed, raw) = run(&format!("--{}={text}", flag.name)).unwrap();
            assert_eq!(parsed, Parsed::Flags, "{}", flag.name);
            assert_eq!(
                raw.source(flag.name),
                Some(Source::CommandLine),
                "{}",
                flag.name
            );
        }
    }
}
