//! Words on the command lines of programs without a table of commands: `--name value`,
//! `--name=value` and `--switch`.

use std::fmt;
use std::path::PathBuf;
use std::process::ExitCode;

/// The words that nobody asked for yet.
pub struct Arguments {
    usage: &'static str,
    left: Vec<String>,
}

impl Arguments {
    /// `usage` ends what is said of wrong ones.
    #[must_use]
    pub fn new(words: impl IntoIterator<Item = String>, usage: &'static str) -> Arguments {
        let split = |word: String| match word.split_once('=') {
            Some((name, value)) if name.starts_with("--") => vec![name.into(), value.into()],
            _ => vec![word],
        };
        let left = words.into_iter().flat_map(split).collect();
        Arguments { usage, left }
    }

    /// Those of this process.
    #[must_use]
    pub fn of_process(usage: &'static str) -> Arguments {
        Arguments::new(std::env::args().skip(1), usage)
    }

    /// What is wrong with them.
    #[must_use]
    pub fn error(&self, why: &str) -> String {
        format!("{why}\n{}", self.usage)
    }

    /// The first word.
    ///
    /// # Errors
    /// There is none.
    pub fn first(&mut self) -> Result<String, String> {
        match self.left.is_empty() {
            true => Err(self.usage.into()),
            false => Ok(self.left.remove(0)),
        }
    }

    /// Whether the switch is there.
    pub fn switch(&mut self, name: &str) -> bool {
        let before = self.left.len();
        self.left.retain(|word| word != name);
        self.left.len() < before
    }

    /// The value behind a name, if the name is there.
    ///
    /// # Errors
    /// Nothing is behind it, or the next name.
    pub fn value(&mut self, name: &str) -> Result<Option<String>, String> {
        let Some(at) = self.left.iter().position(|word| word == name) else {
            return Ok(None);
        };
        match self.left.get(at + 1) {
            Some(value) if !value.starts_with("--") => {
                let value = self.left.remove(at + 1);
                self.left.remove(at);
                Ok(Some(value))
            }
            _ => Err(self.error(&format!("{name} needs a value"))),
        }
    }

    /// The values behind a name that may be there several times.
    ///
    /// # Errors
    /// As [`Arguments::value`].
    pub fn values(&mut self, name: &str) -> Result<Vec<String>, String> {
        let mut values = Vec::new();
        while let Some(value) = self.value(name)? {
            values.push(value);
        }
        Ok(values)
    }

    /// A path.
    ///
    /// # Errors
    /// As [`Arguments::value`].
    pub fn path(&mut self, name: &str) -> Result<Option<PathBuf>, String> {
        Ok(self.value(name)?.map(PathBuf::from))
    }

    /// A path that must be there.
    ///
    /// # Errors
    /// It is not.
    pub fn need(&mut self, name: &str) -> Result<PathBuf, String> {
        let path = self.path(name)?;
        path.ok_or_else(|| self.error(&format!("{name} is required")))
    }

    /// A number, or the default.
    ///
    /// # Errors
    /// As [`Arguments::value`], or it is no number.
    pub fn number(&mut self, name: &str, default: u64) -> Result<u64, String> {
        match self.value(name)? {
            Some(text) => text
                .parse()
                .map_err(|_| self.error(&format!("{name} {text} is no number"))),
            None => Ok(default),
        }
    }

    /// Refuses the words that nobody asked for, before anything is run.
    ///
    /// # Errors
    /// There are some.
    pub fn finish(&self) -> Result<(), String> {
        match self.left.is_empty() {
            true => Ok(()),
            false => Err(self.error(&format!("not known: {}", self.left.join(" ")))),
        }
    }
}

/// How the program of that name ends; says what went wrong.
#[must_use]
pub fn exit(name: &str, result: Result<(), impl fmt::Display>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{name}: {error}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests;
