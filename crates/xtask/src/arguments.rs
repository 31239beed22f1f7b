//! Command-line arguments of the commands: `--name value`, `--name=value` and `--switch`.

use std::error::Error;

/// The arguments that no one asked for yet.
pub(crate) struct Arguments {
    left: Vec<String>,
}

impl Arguments {
    /// `--name=value` counts as the two words it stands for.
    pub(crate) fn new(words: &[String]) -> Self {
        let split = |word: &String| match word.split_once('=') {
            Some((name, value)) if name.starts_with("--") => vec![name.into(), value.into()],
            _ => vec![word.clone()],
        };
        Self {
            left: words.iter().flat_map(split).collect(),
        }
    }

    /// True when the switch was given.
    pub(crate) fn switch(&mut self, name: &str) -> bool {
        let before = self.left.len();
        self.left.retain(|word| word != name);
        self.left.len() < before
    }

    /// The value after `name`, if the option was given.
    ///
    /// # Errors
    /// The option ends the line, with no value.
    pub(crate) fn value(&mut self, name: &str) -> Result<Option<String>, Box<dyn Error>> {
        let Some(at) = self.left.iter().position(|word| word == name) else {
            return Ok(None);
        };
        if at + 1 >= self.left.len() {
            return Err(format!("{name} needs a value").into());
        }
        let value = self.left.remove(at + 1);
        self.left.remove(at);
        Ok(Some(value))
    }

    /// The value after `name`.
    ///
    /// # Errors
    /// The option is missing.
    pub(crate) fn required(&mut self, name: &str) -> Result<String, Box<dyn Error>> {
        self.value(name)?
            .ok_or_else(|| format!("{name} is required").into())
    }

    /// A number given by `name`, or the default.
    ///
    /// # Errors
    /// Not a number.
    pub(crate) fn number(&mut self, name: &str, default: u64) -> Result<u64, Box<dyn Error>> {
        match self.value(name)? {
            None => Ok(default),
            Some(text) => text
                .parse()
                .map_err(|_| format!("{name}: {text} is no number").into()),
        }
    }

    /// Everything was understood.
    ///
    /// # Errors
    /// A word that no option took.
    pub(crate) fn finish(self) -> Result<(), Box<dyn Error>> {
        match self.left.first() {
            None => Ok(()),
            Some(word) => Err(format!("unknown argument {word}").into()),
        }
    }
}

#[cfg(test)]
mod tests;
