//! Log lines that arise before the log exists.

/// How loud a line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    Info,
    Warn,
}

/// One line for later.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    pub level: Level,
    pub message: String,
    pub fields: Vec<(&'static str, String)>,
}

impl Notice {
    pub(super) fn new(level: Level, message: impl Into<String>) -> Notice {
        Notice {
            level,
            message: message.into(),
            fields: Vec::new(),
        }
    }

    pub(super) fn text(mut self, key: &'static str, value: &str) -> Notice {
        self.fields.push((key, value.to_owned()));
        self
    }
}
