//! Flags: `--name=value`, `--name value`, `--switch`, `-n value`, `-nvalue`, `--` ends them.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;

use crate::text;

/// The type of a flag's value.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Bool,
    Text,
    Int,
    Uint,
    Uint32,
    Duration,
    /// Separated by commas; a repeated flag adds to the list.
    List,
}

/// One flag that a command takes.
pub struct Flag {
    /// Without the dashes.
    pub name: &'static str,
    /// The letter of the short form.
    pub short: Option<char>,
    /// What values are like.
    pub kind: Kind,
    /// In the form in which it would be given.
    pub default: &'static str,
    /// One line for the help.
    pub help: &'static str,
    /// Whether the command does not run without it.
    pub is_required: bool,
}

impl Flag {
    /// A flag with nothing in it, to be filled with what a flag has.
    pub const EMPTY: Flag = Flag {
        name: "",
        short: None,
        kind: Kind::Text,
        default: "",
        help: "",
        is_required: false,
    };

    /// A flag that is on when given.
    #[must_use]
    pub const fn switch(name: &'static str, help: &'static str) -> Flag {
        Flag {
            name,
            kind: Kind::Bool,
            default: "false",
            help,
            ..Flag::EMPTY
        }
    }

    /// A flag with a text.
    #[must_use]
    pub const fn text(name: &'static str, default: &'static str, help: &'static str) -> Flag {
        Flag {
            name,
            default,
            help,
            ..Flag::EMPTY
        }
    }

    /// A flag with a number, 0 unless given.
    #[must_use]
    pub const fn int(name: &'static str, help: &'static str) -> Flag {
        Flag {
            name,
            kind: Kind::Int,
            default: "0",
            help,
            ..Flag::EMPTY
        }
    }

    /// `-w, --write-out` or `--write-out`, as messages name it.
    fn label(&self) -> String {
        match self.short {
            Some(short) => format!("-{short}, --{}", self.name),
            None => format!("--{}", self.name),
        }
    }

    /// Checks a value against the flag's type.
    ///
    /// # Errors
    /// Why it does not fit.
    pub fn check(&self, value: &str) -> Result<(), String> {
        match self.kind {
            Kind::Bool => text::parse_bool(value).map(|_| ()),
            Kind::Int => text::parse_int(value, 0).map(|_| ()),
            Kind::Uint => text::parse_uint(value, 0).map(|_| ()),
            Kind::Uint32 => text::parse_uint32(value, 0).map(|_| ()),
            Kind::Duration => text::parse_duration(value).map(|_| ()),
            Kind::Text | Kind::List => Ok(()),
        }
    }
}

/// The values of a command's flags. Asking for a flag that the command does not take, or for
/// another type than the flag's, is a mistake in the table of commands and panics.
pub struct Flags {
    values: HashMap<&'static str, Value>,
}

struct Value {
    flag: &'static Flag,
    text: String,
    is_given: bool,
}

impl Flags {
    /// The flags with their defaults.
    pub fn new(flags: &[&'static Flag]) -> Self {
        let values = flags
            .iter()
            .map(|flag| {
                (
                    flag.name,
                    Value {
                        flag,
                        text: flag.default.to_owned(),
                        is_given: false,
                    },
                )
            })
            .collect();
        Flags { values }
    }

    fn value(&self, name: &str) -> &Value {
        self.values
            .get(name)
            .unwrap_or_else(|| panic!("the command has no flag --{name}"))
    }

    /// Whether the command line or the environment gave a value.
    pub fn is_given(&self, name: &str) -> bool {
        self.value(name).is_given
    }

    /// The value as it was given.
    pub fn text(&self, name: &str) -> &str {
        &self.value(name).text
    }

    /// Whether a switch is on.
    pub fn bool(&self, name: &str) -> bool {
        let text = self.text(name);
        !text.is_empty() && text::parse_bool(text).expect("checked when it was set")
    }

    /// A signed number.
    pub fn int(&self, name: &str) -> i64 {
        text::parse_int(self.text(name), 0).expect("checked when it was set")
    }

    /// A number that is not negative.
    pub fn uint(&self, name: &str) -> u64 {
        text::parse_uint(self.text(name), 0).expect("checked when it was set")
    }

    /// How long, as Go writes it: `1m30s`.
    pub fn duration(&self, name: &str) -> Duration {
        text::parse_duration(self.text(name)).expect("checked when it was set")
    }

    /// The parts of a list.
    pub fn list(&self, name: &str) -> Vec<String> {
        let text = self.text(name);
        if text.is_empty() {
            return Vec::new();
        }
        text.split(',').map(|item| item.trim().to_owned()).collect()
    }

    /// Sets a value of a known flag.
    ///
    /// # Errors
    /// The value does not fit the flag's type.
    pub fn set(&mut self, name: &str, text: &str) -> Result<(), String> {
        let value = self
            .values
            .get_mut(name)
            .expect("the caller took the name from the table");
        value.flag.check(text).map_err(|why| {
            let quoted = text::quote(text.as_bytes());
            format!(
                "invalid argument {quoted} for \"{}\" flag: {why}",
                value.flag.label()
            )
        })?;
        if value.flag.kind == Kind::List && value.is_given {
            value.text.push(',');
            value.text.push_str(text);
        } else {
            value.text = text.to_owned();
        }
        value.is_given = true;
        Ok(())
    }
}

/// A command line taken apart.
pub struct Parsed {
    /// Values of all flags, defaults included.
    pub flags: Flags,
    /// The words that are no flags.
    pub args: Vec<Bytes>,
    /// How many arguments stood before `--`.
    pub separator: Option<usize>,
}

/// Takes words apart into flags and arguments.
///
/// # Errors
/// A flag that is not known, lacks its value, or has one that does not fit.
pub fn parse(known: &[&'static Flag], words: Vec<Bytes>) -> Result<Parsed, String> {
    let mut parsed = Parsed {
        flags: Flags::new(known),
        args: Vec::new(),
        separator: None,
    };
    let mut words = words.into_iter();
    while let Some(word) = words.next() {
        if word.as_ref() == b"--" {
            parsed.separator = Some(parsed.args.len());
            parsed.args.extend(words);
            break;
        }
        let Some(dashed) = word.strip_prefix(b"-").filter(|rest| !rest.is_empty()) else {
            parsed.args.push(word);
            continue;
        };
        match dashed.strip_prefix(b"-") {
            Some(long) => {
                let long = String::from_utf8_lossy(long).into_owned();
                set_long(known, &mut parsed.flags, &long, &mut words)?;
            }
            None => {
                let short = String::from_utf8_lossy(dashed).into_owned();
                set_short(known, &mut parsed.flags, &short, &mut words)?;
            }
        }
    }
    Ok(parsed)
}

fn set_long(
    known: &[&'static Flag],
    flags: &mut Flags,
    word: &str,
    words: &mut impl Iterator<Item = Bytes>,
) -> Result<(), String> {
    let (name, value) = match word.split_once('=') {
        Some((name, value)) => (name, Some(value.to_owned())),
        None => (word, None),
    };
    if name.is_empty() || name.starts_with('-') {
        return Err(format!("bad flag syntax: --{word}"));
    }
    let Some(flag) = known.iter().find(|flag| flag.name == name) else {
        return Err(format!("unknown flag: --{name}"));
    };
    let value = match value {
        Some(value) => value,
        None if flag.kind == Kind::Bool => "true".to_owned(),
        None => next_text(words).ok_or_else(|| format!("flag needs an argument: --{word}"))?,
    };
    flags.set(name, &value)
}

/// A word of one-letter flags: switches, of which the last may be a flag with a value.
fn set_short(
    known: &[&'static Flag],
    flags: &mut Flags,
    word: &str,
    words: &mut impl Iterator<Item = Bytes>,
) -> Result<(), String> {
    let mut rest = word;
    while let Some(letter) = rest.chars().next() {
        let after = &rest[letter.len_utf8()..];
        let Some(flag) = known.iter().find(|flag| flag.short == Some(letter)) else {
            return Err(format!("unknown shorthand flag: '{letter}' in -{rest}"));
        };
        if let Some(value) = after.strip_prefix('=') {
            return flags.set(flag.name, value);
        }
        if flag.kind == Kind::Bool {
            flags.set(flag.name, "true")?;
            rest = after;
            continue;
        }
        if !after.is_empty() {
            return flags.set(flag.name, after);
        }
        let missing = || format!("flag needs an argument: '{letter}' in -{rest}");
        return flags.set(flag.name, &next_text(words).ok_or_else(missing)?);
    }
    Ok(())
}

fn next_text(words: &mut impl Iterator<Item = Bytes>) -> Option<String> {
    words
        .next()
        .map(|word| String::from_utf8_lossy(&word).into_owned())
}

/// Where the first word is that is neither a flag nor a flag's value. A flag that is not known
/// is taken to have a value, as a command that is not yet known might say.
pub fn first_argument(known: &[&'static Flag], words: &[Bytes]) -> Option<usize> {
    let mut index = 0;
    while let Some(word) = words.get(index) {
        index += 1;
        if word.as_ref() == b"--" {
            return None;
        }
        let takes_next = match word.strip_prefix(b"--") {
            Some(long) => {
                let flag = known.iter().find(|flag| flag.name.as_bytes() == long);
                !long.contains(&b'=') && flag.is_none_or(|flag| flag.kind != Kind::Bool)
            }
            None if word.starts_with(b"-") && word.len() > 1 => {
                let flag = known
                    .iter()
                    .find(|flag| flag.short.is_some_and(|c| u32::from(word[1]) == c as u32));
                word.len() == 2 && flag.is_none_or(|flag| flag.kind != Kind::Bool)
            }
            None => return Some(index - 1),
        };
        if takes_next {
            index += 1;
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: &[&Flag] = &[
        &Flag {
            short: Some('w'),
            ..Flag::text("write-out", "simple", "")
        },
        &Flag {
            short: Some('i'),
            ..Flag::switch("interactive", "")
        },
        &Flag::int("limit", ""),
        &Flag {
            kind: Kind::List,
            ..Flag::text("endpoints", "a", "")
        },
    ];

    fn read(line: &str) -> Result<Parsed, String> {
        let words = line
            .split(' ')
            .map(|word| Bytes::from(word.to_owned()))
            .collect();
        parse(KNOWN, words)
    }

    #[test]
    fn forms_of_flags() {
        for line in [
            "-w json",
            "-wjson",
            "-w=json",
            "--write-out=json",
            "--write-out json",
        ] {
            assert_eq!(
                read(line).unwrap().flags.text("write-out"),
                "json",
                "{line}"
            );
        }
        let parsed = read("-iw json a --limit=0x10 -- --limit").unwrap();
        assert!(parsed.flags.bool("interactive"));
        assert_eq!(parsed.flags.int("limit"), 16);
        assert_eq!(parsed.args, ["a", "--limit"]);
        assert_eq!(parsed.separator, Some(1));
        let parsed = read("--endpoints=b,c --endpoints d --interactive=false").unwrap();
        assert_eq!(parsed.flags.list("endpoints"), ["b", "c", "d"]);
        assert!(!parsed.flags.bool("interactive"));
    }

    #[test]
    fn errors_in_the_words_of_pflag() {
        for (line, text) in [
            ("--nosuch", "unknown flag: --nosuch"),
            ("-c", "unknown shorthand flag: 'c' in -c"),
            ("--limit", "flag needs an argument: --limit"),
            ("-w", "flag needs an argument: 'w' in -w"),
            (
                "--limit=x",
                "invalid argument \"x\" for \"--limit\" flag: strconv.ParseInt: parsing \"x\": \
                 invalid syntax",
            ),
        ] {
            assert_eq!(read(line).err().as_deref(), Some(text));
        }
    }

    #[test]
    fn arguments_are_found_behind_flags() {
        let check = |line: &str, expected: Option<usize>| {
            let words: Vec<_> = line.split(' ').map(|w| Bytes::from(w.to_owned())).collect();
            assert_eq!(first_argument(KNOWN, &words), expected, "{line}");
        };
        check("get", Some(0));
        check("-w json get", Some(2));
        check("--interactive get", Some(1));
        check("--unknown value get", Some(2));
        check("-- get", None);
    }
}
