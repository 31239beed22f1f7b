//! The first stage: what was set, by whom, as typed values and nothing more.

use super::gates::Gates;
use super::legacy;
use super::table::{self, FLAGS, Flag};
use super::url::Url;
use super::value::Value;

/// Who set a flag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    CommandLine,
    Environment,
    File,
}

/// A value for every flag of the table, with its source when it is not the default.
#[derive(Clone, Debug)]
pub struct Raw {
    values: Vec<Value>,
    sources: Vec<Option<Source>>,
    /// Flags of earlier releases that were set, until their heirs have the values.
    pub(super) legacy: Vec<legacy::Set>,
}

impl Default for Raw {
    fn default() -> Raw {
        Raw {
            values: FLAGS.iter().map(Flag::default_value).collect(),
            sources: vec![None; FLAGS.len()],
            legacy: Vec::new(),
        }
    }
}

impl Raw {
    /// Stores the value of the flag at `position` of the table.
    ///
    /// The empty text of a list of URLs counts as set but leaves the value as it was.
    pub(super) fn set(&mut self, position: usize, value: Value, source: Source) {
        self.sources[position] = Some(source);
        if value != Value::Urls(Vec::new()) {
            self.values[position] = value;
        }
    }

    /// Who set the flag; `None` for a default.
    #[must_use]
    pub fn source(&self, name: &str) -> Option<Source> {
        self.sources[at(name)]
    }

    /// Every flag with its value and source, in the order of the table.
    pub fn iter(&self) -> impl Iterator<Item = (&'static Flag, &Value, Option<Source>)> {
        FLAGS
            .iter()
            .zip(&self.values)
            .zip(&self.sources)
            .map(|((f, v), s)| (f, v, *s))
    }

    pub(super) fn source_at(&self, position: usize) -> Option<Source> {
        self.sources[position]
    }

    pub(crate) fn bool(&self, name: &str) -> bool {
        match &self.values[at(name)] {
            Value::Bool(value) => *value,
            other => unreachable!("--{name} is not a boolean: {other:?}"),
        }
    }

    pub(crate) fn text(&self, name: &str) -> &str {
        match &self.values[at(name)] {
            Value::Text(value) => value,
            other => unreachable!("--{name} is not a text: {other:?}"),
        }
    }

    pub(super) fn uint(&self, name: &str) -> u64 {
        match &self.values[at(name)] {
            Value::Uint(value) => *value,
            other => unreachable!("--{name} is not a count: {other:?}"),
        }
    }

    pub(super) fn int(&self, name: &str) -> i64 {
        match &self.values[at(name)] {
            Value::Int(value) => *value,
            other => unreachable!("--{name} is not a number: {other:?}"),
        }
    }

    /// Nanoseconds.
    pub(crate) fn duration_ns(&self, name: &str) -> i64 {
        match &self.values[at(name)] {
            Value::Duration(value) => *value,
            other => unreachable!("--{name} is not a duration: {other:?}"),
        }
    }

    pub(super) fn urls(&self, name: &str) -> &[Url] {
        match &self.values[at(name)] {
            Value::Urls(value) => value,
            other => unreachable!("--{name} is not a list of URLs: {other:?}"),
        }
    }

    pub(crate) fn list(&self, name: &str) -> &[String] {
        match &self.values[at(name)] {
            Value::List(value) => value,
            other => unreachable!("--{name} is not a list: {other:?}"),
        }
    }

    pub(super) fn gates(&self) -> &Gates {
        match &self.values[at("feature-gates")] {
            Value::Gates(value) => value,
            other => unreachable!("--feature-gates is not a set of gates: {other:?}"),
        }
    }
}

fn at(name: &str) -> usize {
    table::position(name).expect("our own code asks only for flags of the table")
}
