//! What follows the first word of `--auth-token jwt,…`.

use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;

use super::method::Method;
use crate::config::parse_duration;

const KNOWN: [&str; 4] = ["sign-method", "priv-key", "pub-key", "ttl"];
/// Five minutes.
const TTL_DEFAULT_NS: i64 = 300_000_000_000;

/// How tokens are signed, and for how long they are good.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(super) method: &'static Method,
    pub(super) private: Option<PathBuf>,
    pub(super) public: Option<PathBuf>,
    /// Not above zero, tokens are void when they are made.
    pub(super) ttl_ns: i64,
    /// Options that mean nothing, by name.
    pub(super) unknown: Vec<String>,
}

/// Why tokens cannot be made or read. Displayed as etcd says it when it does not start.
#[derive(Debug)]
pub(crate) enum Error {
    /// Options that cannot be understood, with what etcd logs beside.
    Options(String),
    Missing,
    Mismatch,
    /// What a file holds.
    Content(String),
    Thread(std::io::Error),
}

impl fmt::Display for Error {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Options(_) => out.write_str("auth: invalid auth options"),
            Error::Missing => out.write_str("auth: missing key data"),
            Error::Mismatch => out.write_str("auth: public and private keys don't match"),
            Error::Content(why) => out.write_str(why),
            Error::Thread(error) => write!(out, "cannot start a thread: {error}"),
        }
    }
}

impl std::error::Error for Error {}

impl Error {
    /// The reason itself, where the text that etcd shows hides it.
    pub(crate) fn detail(&self) -> String {
        match self {
            Error::Options(why) => why.clone(),
            other => other.to_string(),
        }
    }
}

/// Options behind the kind of token, separated by commas; the value of each is what is between its
/// only equals sign and the next comma.
///
/// # Errors
/// An option without a value, or given twice.
pub(crate) fn given<'a>(
    parts: impl Iterator<Item = &'a str>,
) -> Result<HashMap<&'a str, &'a str>, Error> {
    let mut given = HashMap::new();
    for part in parts {
        let pair = part.split_once('=');
        let Some((name, value)) = pair.filter(|(_, value)| !value.contains('=')) else {
            return Err(Error::Options(format!("invalid token option {part:?}")));
        };
        if given.insert(name, value).is_some() {
            return Err(Error::Options(format!("duplicate token option {name:?}")));
        }
    }
    Ok(given)
}

impl Options {
    /// Reads the options behind the word `jwt`.
    ///
    /// # Errors
    /// No sign method that there is, or a bad duration.
    pub(crate) fn parse(given: &HashMap<&str, &str>) -> Result<Options, Error> {
        let value = |name: &str| given.get(name).copied().filter(|value| !value.is_empty());
        let ttl_ns = match value("ttl") {
            None => TTL_DEFAULT_NS,
            Some(text) => parse_duration(text).map_err(Error::Options)?,
        };
        let word = value("sign-method").unwrap_or_default();
        if word == "none" {
            let text = "unsupported signing method: *jwt.signingMethodNone";
            return Err(Error::Content(text.into()));
        }
        let method = Method::named(word)
            .ok_or_else(|| Error::Options("auth: invalid auth signature method".into()))?;
        let unknown = given.keys().filter(|name| !KNOWN.contains(name));
        let mut unknown: Vec<String> = unknown.map(|name| (*name).to_owned()).collect();
        unknown.sort();
        Ok(Options {
            method,
            private: value("priv-key").map(PathBuf::from),
            public: value("pub-key").map(PathBuf::from),
            ttl_ns,
            unknown,
        })
    }

    /// Options that were given and mean nothing, for a warning.
    pub(crate) fn unknown(&self) -> &[String] {
        &self.unknown
    }
}
